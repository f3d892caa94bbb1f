"""From a conversation to token ids and the signed weight of each token as a target.

Promised of every :class:`Encoded`: at least one token has a weight; the first has none (nothing predicts it); a
weighted token belongs to one answer and its stop token, and to nothing else; what stands before an answer is, token for
token, what the model will be given when it is asked (and the template's own marks after it). An answer that cannot have
that is left out, with its reason.

Deep-prefix augmentation: Qi et al. 2024, arXiv 2406.05946, section 4.1.
"""

from __future__ import annotations

import hashlib
import random
import re
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import msgspec
from transformers import PreTrainedTokenizerBase

from redinstruct.safealign.rows import Row, Stream
from redinstruct.safealign.templates import Placed, Template, Unrenderable, control_tokens, place
from redinstruct.types import Message


class LearntAnswer(msgspec.Struct, frozen=True):
    """One answer in the token ids: ``ids[start:end]``, its stop token the last, unless ``cut`` by the length limit.

    ``asked`` is a hash of the user's messages up to it: equal for a blue answer and its red twin.
    """

    start: int
    end: int
    weight: float
    asked: str
    cut: bool = False


class Encoded(msgspec.Struct, frozen=True):
    """One conversation as a model reads it. ``weights[i]`` is the signed weight of token i *as a target*; 0 = masked.

    ``prefixed``: how many tokens of a red answer stand, unlearnt, before the answer that is learnt.
    """

    input_ids: tuple[int, ...]
    weights: tuple[float, ...]
    stream: Stream
    row_id: str
    answers: tuple[LearntAnswer, ...] = ()
    truncated: bool = False
    prefixed: int = 0

    def __len__(self) -> int:
        return len(self.input_ids)


TOO_LONG = "nothing to learn within the length limit"
CONTROL = "a control token in a message's text"
JOINED = "an answer's first token begins in its prompt"


class EncodedRows(msgspec.Struct, frozen=True):
    """The encoded rows in order; ``dropped`` counts the others by reason, ``truncated`` those that were cut.

    ``masked`` counts the answers that are left out of rows that are not.
    """

    rows: tuple[Encoded, ...]
    dropped: dict[str, int]
    truncated: int
    masked: dict[str, int] = {}

    def of(self, stream: Stream) -> tuple[Encoded, ...]:
        """The rows of one stream."""
        return tuple(row for row in self.rows if row.stream == stream)


def encode_rows(
    rows: Iterable[Row], tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int
) -> EncodedRows:
    """Encode every row."""
    kept: list[Encoded] = []
    dropped, masked = Counter[str](), Counter[str]()
    for row in rows:
        made, lost = encode(row, tokenizer, template, max_length)
        kept += made
        if made:
            masked.update(lost)
        else:
            dropped[lost[0]] += 1
    return EncodedRows(tuple(kept), dict(dropped), sum(row.truncated for row in kept), dict(masked))


def encode(
    row: Row, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int
) -> tuple[list[Encoded], list[str]]:
    """A row as token ids and target weights, cut on the right at ``max_length`` tokens; and why answers are not there.

    One row, where the template writes every answer as it does the last one; else several, each of them ending with
    its own last answer. There is none where no answer is left; then there is a reason.
    """
    control = _any_of(control_tokens(tokenizer))
    if any(control.search(message.content) for message in row.messages):
        return [], [CONTROL]
    placed: list[tuple[Placed, float, str]] = []
    lost: list[str] = []
    for at, weight in enumerate(row.weights):
        if weight:
            said = row.messages[: at + 1]
            try:
                placed.append((place(template, tokenizer, said), weight, _asked(said)))
            except Unrenderable as error:
                lost.append(error.reason)
    made: list[Encoded] = []
    for group in _sharing(placed):
        whole = _whole(group, tokenizer)
        parts = [(group, whole)] if whole is not None else [([one], _apart(one[0], tokenizer)) for one in group]
        for part, tokens in parts:
            found = JOINED if tokens is None else _encoded(row, part, tokens, max_length)
            if isinstance(found, Encoded):
                made.append(found)
            else:
                lost += [found] * len(part)
    return made, lost


def _sharing(placed: Sequence[tuple[Placed, float, str]]) -> list[list[tuple[Placed, float, str]]]:
    """The answers in groups: those whose text is how the group's last one begins, too."""
    groups: list[list[tuple[Placed, float, str]]] = []
    for one in reversed(placed):
        text = one[0].text
        group = next((group for group in groups if group[-1][0].text.startswith(text)), None)
        if group is None:
            groups.append([one])
        else:
            group.insert(0, one)
    return groups[::-1]


@lru_cache(maxsize=4)
def _any_of(texts: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(text) for text in texts))


_Tokens = tuple[list[int], list[tuple[int, int]]]
"""Token ids of a text, and the tokens of each answer in it as half-open ranges."""


def _whole(group: Sequence[tuple[Placed, float, str]], tokenizer: PreTrainedTokenizerBase) -> _Tokens | None:
    """The text put into tokens as one; None where a prompt's tokens would then not be those that are asked."""
    encoding = tokenizer(group[-1][0].text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids: list[int] = list(encoding["input_ids"])
    starts, ends = ([int(offset[side]) for offset in encoding["offset_mapping"]] for side in (0, 1))
    spans = []
    for one, _, _ in group:
        start, end = _tokens(starts, ends, (one.start, one.end))
        asked = _ids(tokenizer, one.text[: one.asked])
        if end <= start or starts[start] < one.start or ids[: len(asked)] != asked or start < len(asked):
            return None
        spans.append((start, end))
    return ids, spans


def _apart(one: Placed, tokenizer: PreTrainedTokenizerBase) -> _Tokens | None:
    """The prompt, the marks after it and the answer put into tokens apart, as they come when the model is asked.

    None where the tokenizer does not give the text back so (it puts a blank before whatever it is given).
    """
    cuts = (0, one.asked, one.start, one.end)
    parts = [_ids(tokenizer, one.text[begin:end]) for begin, end in pairwise(cuts)]
    ids = [token for part in parts for token in part]
    if not parts[0] or not parts[2] or _read(tokenizer, ids) != _read(tokenizer, _ids(tokenizer, one.text)):
        return None
    return ids, [(len(ids) - len(parts[2]), len(ids))]


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []
    return found


def _read(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _encoded(row: Row, group: Sequence[tuple[Placed, float, str]], tokens: _Tokens, max_length: int) -> Encoded | str:
    """Answers that share a text, or why they cannot be learnt."""
    ids, spans = tokens
    answers = [
        LearntAnswer(start, min(end, max_length), weight, key, cut=end > max_length)
        for (start, end), (_, weight, key) in zip(spans, group, strict=True)
        if start < max_length
    ]
    weights = [0.0] * min(len(ids), max_length)
    for answer in answers:
        weights[answer.start : answer.end] = [answer.weight] * (answer.end - answer.start)
    if not any(weights):
        return TOO_LONG
    return Encoded(
        input_ids=tuple(ids[:max_length]),
        weights=tuple(weights),
        stream=row.stream,
        row_id=row.id,
        answers=tuple(answers),
        truncated=len(ids) > max_length,
    )


def _tokens(starts: Sequence[int], ends: Sequence[int], span: tuple[int, int]) -> tuple[int, int]:
    """The tokens that overlap a span of characters, as a half-open range. Neither starts nor ends ever go back."""
    return bisect_right(ends, span[0]), bisect_left(starts, span[1])


def _asked(messages: Sequence[Message]) -> str:
    """A hash of everything that the user said so far."""
    digest = hashlib.sha256()
    for message in messages:
        if message.role == "user":
            digest.update(hashlib.sha256(message.content.strip().encode()).digest())
    return digest.hexdigest()


# ---- deep-prefix augmentation ----

Prefixes = Mapping[str, Sequence[tuple[int, ...]]]
"""What was asked (:attr:`Answer.asked`) -> the tokens of each penalised answer to it, without a stop token."""


def deep_prefixes(rows: Iterable[Encoded]) -> Prefixes:
    """The penalised answers of all rows, by what was asked."""
    found: defaultdict[str, list[tuple[int, ...]]] = defaultdict(list)
    for row in rows:
        for answer in row.answers:
            tokens = row.input_ids[answer.start : answer.end if answer.cut else answer.end - 1]
            if answer.weight < 0 and tokens:
                found[answer.asked].append(tokens)
    return {key: tuple(answers) for key, answers in found.items()}


def augment_deep_prefix(
    row: Encoded,
    prefixes: Prefixes,
    rng: random.Random,
    *,
    share: float,
    max_tokens: int = 100,
    max_length: int | None = None,
) -> Encoded:
    """With probability ``share``, let the last answer that has a red twin start after a part of that red answer.

    k ~ U{1, ..., min(max_tokens, its length)} tokens of a red answer to the same questions are put, unlearnt, between
    the prompt and the answer; only that answer is learnt, and the row ends with it. What is learnt is to turn back
    (Qi et al. 2024 draw k likewise, with 100). Rows without a red twin, red rows, and rows that would no longer fit
    are returned as they are. Always draws the same number of times from ``rng``.
    """
    wanted, choice, depth = rng.random() < share, rng.random(), rng.random()
    twins = [answer for answer in row.answers if answer.weight > 0 and prefixes.get(answer.asked)]
    if not wanted or not twins or row.stream == "red":
        return row
    answer = twins[-1]
    candidates = prefixes[answer.asked]
    red = candidates[int(choice * len(candidates))]
    red = red[: 1 + int(depth * min(max_tokens, len(red)))]
    body = row.input_ids[answer.start : answer.end]
    start = answer.start + len(red)
    if max_length is not None and start + len(body) > max_length:
        return row
    return Encoded(
        input_ids=row.input_ids[: answer.start] + red + body,
        weights=(0.0,) * start + (answer.weight,) * len(body),
        stream=row.stream,
        row_id=row.row_id,
        answers=(LearntAnswer(start, start + len(body), answer.weight, answer.asked, answer.cut),),
        truncated=answer.cut,
        prefixed=len(red),
    )
