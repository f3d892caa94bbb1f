"""How unlike each other the texts of a collection are.

Not promised: that a figure of diversity means much alone. It compares collections of the same language and kind.

Sources: distinct-n is Li et al. 2016 (arXiv 1510.03055); self-BLEU is Zhu et al. 2018 (Texygen, arXiv 1802.01886),
with BLEU-4 of Papineni et al. 2002 and the first smoothing of Chen & Cherry 2014.
"""

from __future__ import annotations

import math
import random
import re
import statistics
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

SEED = 0
DISTINCT_SAMPLE = 1000
BLEU_SAMPLE = 200

_SMOOTH = 0.1
_ORDERS = 4
_TOKEN = re.compile(r"\w+|[^\w\s]")


class Diversity(msgspec.Struct, frozen=True):
    """How unlike each other texts are, on a sample of them: shares in [0, 1], None where there is too little."""

    texts: int
    distinct_sample: int
    self_bleu_sample: int
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    self_bleu: float | None


def tokens(text: str) -> tuple[str, ...]:
    """Words and single punctuation marks, without case. A script without spaces gives one word per run."""
    return tuple(_TOKEN.findall(unicodedata.normalize("NFC", text).casefold()))


def distinct_n(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """The share of different n-grams among all n-grams of the texts; None where there is none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = _grams(text, n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """The mean BLEU-4 of each text with all others as its references: 1 all alike, 0 no word shared; None below two.

    Texts without a token are left out. A text shorter than four tokens is scored on the orders that it has. Where an
    order above the first matches nothing, 0.1 stands for the number of matches (smoothing 1 of Chen & Cherry).
    Linear in the number of n-grams: of each, the largest count, who has it, and the largest of the others are kept.
    """
    held = [tuple(text) for text in texts if text]
    if len(held) < 2:
        return None
    counted = [[Counter(_grams(text, n)) for n in range(1, min(_ORDERS, len(text)) + 1)] for text in held]
    best: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for owner, orders in enumerate(counted):
        for grams in orders:
            for gram, count in grams.items():
                first, who, second = best.get(gram, (0, -1, 0))
                best[gram] = (count, owner, first) if count > first else (first, who, max(second, count))
    lengths = sorted(len(text) for text in held)
    scores = []
    for owner, orders in enumerate(counted):
        precisions = []
        for grams in orders:
            others = ((count, best[gram]) for gram, count in grams.items())
            matched = sum(min(count, second if who == owner else first) for count, (first, who, second) in others)
            precisions.append((matched, sum(grams.values())))
        scores.append(_bleu(precisions, len(held[owner]), _closest(lengths, len(held[owner]))))
    return statistics.fmean(scores)


def _bleu(precisions: Sequence[tuple[int, int]], length: int, reference: int) -> float:
    if not precisions[0][0]:
        return 0.0
    logs = [math.log((matched or _SMOOTH) / total) for matched, total in precisions]
    brevity = min(0.0, 1 - reference / length)
    return math.exp(brevity + statistics.fmean(logs))


def _closest(lengths: Sequence[int], length: int) -> int:
    """The nearest length of another text, the shorter of two that are as near. ``lengths`` is sorted, with its own."""
    at = bisect_left(lengths, length)
    others = [*lengths[max(0, at - 1) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda other: (abs(other - length), other))


def _grams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def _sampled(texts: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """A fixed draw that does not depend on the rows' order."""
    chosen = sorted(texts)
    if len(chosen) > size:
        chosen = random.Random(SEED).sample(chosen, size)
    return [tokens(text) for text in chosen]


def diversity_of(texts: Sequence[str]) -> Diversity:
    """The figures of texts, those of white space left out."""
    filled = [text for text in texts if text.strip()]
    sample, few = _sampled(filled, DISTINCT_SAMPLE), _sampled(filled, BLEU_SAMPLE)
    figures = [*(distinct_n(sample, n) for n in (1, 2, 3)), self_bleu(few)]
    rounded = (None if value is None else round(value, 4) for value in figures)
    return Diversity(len(filled), len(sample), len(few), *rounded)
