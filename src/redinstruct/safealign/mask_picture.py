"""A conversation's tokens beside their weights: what ``align --show-mask`` shows before anything is trained.

Promised: every token is there, in order, with its weight; a text that tries to draw, hide or reorder something shows
its escapes (:func:`redinstruct.safetext.terminal`), on a terminal as in the SVG. Neither holds a link or a script.
"""

from __future__ import annotations

import unicodedata
from typing import Literal

import msgspec
from transformers import PreTrainedTokenizerBase

from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import Stream
from redinstruct.safetext import in_markup, terminal

Sign = Literal["learn", "mask", "penalise"]
_COLOURS: dict[Sign, tuple[str, str]] = {
    "learn": ("#cfe8d5", "#0b4f24"),
    "mask": ("#f1f1f1", "#6a6a6a"),
    "penalise": ("#f6cfcb", "#7a130a"),
}
_BRACKETS: dict[Sign, tuple[str, str]] = {"learn": ("[+ ", "]"), "mask": ("", ""), "penalise": ("[- ", "]")}
_LONGEST = 40
_ADVANCE, _LINE, _MARGIN, _GAP = 7.3, 30, 12, 4


class ShownToken(msgspec.Struct, frozen=True):
    """One token: its number in the row, its text made safe to show, its signed weight."""

    number: int
    text: str
    weight: float

    @property
    def sign(self) -> Sign:
        """What training does with it."""
        return "learn" if self.weight > 0 else "penalise" if self.weight < 0 else "mask"


class Picture(msgspec.Struct, frozen=True):
    """The tokens of one row with their weights."""

    title: str
    stream: Stream
    cells: tuple[ShownToken, ...]

    def text(self) -> str:
        """Lines without colour: masked text as it is, learnt in ``[+ ...]``, penalised in ``[- ...]``."""
        return "\n".join((self.summary(), *self._runs()))

    def summary(self) -> str:
        """One line of counts."""
        counts = {sign: sum(cell.sign == sign for cell in self.cells) for sign in _COLOURS}
        return (
            f"{self.title} ({self.stream}): {len(self.cells)} tokens, {counts['learn']} learnt, "
            f"{counts['penalise']} penalised, {counts['mask']} masked"
        )

    def _runs(self) -> list[str]:
        """One line per run of tokens with the same weight."""
        runs: list[list[ShownToken]] = []
        for cell in self.cells:
            if runs and runs[-1][-1].weight == cell.weight:
                runs[-1].append(cell)
            else:
                runs.append([cell])
        lines = []
        for run in runs:
            before, after = _BRACKETS[run[0].sign]
            strength = f"{abs(run[0].weight):g} " if abs(run[0].weight) not in (0.0, 1.0) else ""
            lines.append(f"{before}{strength}{' '.join(cell.text for cell in run)}{after}")
        return lines

    def svg(self, width: int = 960) -> str:
        """The same as a drawing: a box per token, green learnt, red penalised, grey masked; weights under the boxes."""
        parts: list[str] = []
        x, y = float(_MARGIN), _MARGIN + _LINE
        for cell in self.cells:
            wide = _columns(cell.text) * _ADVANCE + 8
            if x + wide > width - _MARGIN and x > _MARGIN:
                x, y = float(_MARGIN), y + _LINE
            parts.append(_box(cell, x, y, wide))
            x += wide + _GAP
        height = y + _LINE + _MARGIN
        title = in_markup(self.summary())
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" role="img" font-family="monospace" font-size="12">'
            f"<title>{title}</title>"
            f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
            f'<text x="{_MARGIN}" y="{_MARGIN + 10}" fill="#222222">{title}</text>{"".join(parts)}</svg>\n'
        )


def picture(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> Picture:
    """The picture of a row: tokens as each of them reads alone, weights as training has them."""
    cells = tuple(
        ShownToken(at, _shown(_read(token, tokenizer)), weight)
        for at, (token, weight) in enumerate(zip(encoded.input_ids, encoded.weights, strict=True))
    )
    return Picture(_shown(encoded.row_id), encoded.stream, cells)


def _read(token: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """A token as text; where it is a part of a character only, as the tokenizer itself calls it."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    return str(tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in text else text


def _shown(piece: str) -> str:
    """A token's text, safe and short. One that is nothing but white space is written out, so that it is seen."""
    text = terminal(piece) or "''"
    text = text.replace(" ", "\u2423") if not text.strip() else text
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _columns(text: str) -> int:
    """Columns in a fixed-width font; East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _box(cell: ShownToken, x: float, y: float, wide: float) -> str:
    fill, ink = _COLOURS[cell.sign]
    shown = in_markup(cell.text)
    weight = "" if cell.sign == "mask" else f'<text x="{x + 4:.1f}" y="{y + 23}" font-size="8">{cell.weight:+g}</text>'
    return (
        f'<g fill="{ink}"><rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="16" rx="3" fill="{fill}"/>'
        f'<text x="{x + 4:.1f}" y="{y + 12}" xml:space="preserve">{shown}</text>{weight}</g>'
    )
