"""A conversation's tokens beside their weights: what ``align --show-mask`` shows before anything is trained.

Promised: every token is there, in order, with its weight; a text that tries to draw, hide or reorder something shows
its escapes (:func:`redinstruct.safetext.terminal`).
"""

from __future__ import annotations

from itertools import groupby

import msgspec
from transformers import PreTrainedTokenizerBase

from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import Stream
from redinstruct.safetext import terminal

_LONGEST = 40


class Picture(msgspec.Struct, frozen=True):
    """The tokens of one row, made safe to show, with their weights; the fields are the keys of ``--json``."""

    row: str
    stream: Stream
    tokens: tuple[str, ...]
    weights: tuple[float, ...]

    def text(self) -> str:
        """Lines without colour: masked text as it is, learnt in ``[+ ...]``, penalised in ``[- ...]``."""
        learnt, penalised = sum(weight > 0 for weight in self.weights), sum(weight < 0 for weight in self.weights)
        lines = [
            f"{self.row} ({self.stream}): {len(self.tokens)} tokens, {learnt} learnt, "
            f"{penalised} penalised, {len(self.tokens) - learnt - penalised} masked"
        ]
        for weight, run in groupby(zip(self.tokens, self.weights, strict=True), key=lambda cell: cell[1]):
            words = " ".join(token for token, _ in run)
            strength = f"{abs(weight):g} " if abs(weight) != 1 else ""
            lines.append(f"[{'+' if weight > 0 else '-'} {strength}{words}]" if weight else words)
        return "\n".join(lines)


def picture(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> Picture:
    """The picture of a row: tokens as each of them reads alone, weights as training has them."""
    tokens = tuple(_shown(_read(token, tokenizer)) for token in encoded.input_ids)
    return Picture(_shown(encoded.row_id), encoded.stream, tokens, encoded.weights)


def _read(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """A token as text; where it is a part of a character only, as the tokenizer itself calls it."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    return str(tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in text else text


def _shown(piece: str) -> str:
    """A token's text, safe and short. One that is nothing but white space is written out, so that it is seen."""
    text = terminal(piece) or "''"
    text = text.replace(" ", "\u2423") if not text.strip() else text
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
