"""Which texts say nearly the same: for the screens against repeats and against the evaluation banks.

An inverted index over character 5-grams and content words finds the candidates. Their score is made of two measures,
because neither finds every kind of change:

- which words are shared, in any order, a misspelling as its right word: the mean of Dice's coefficient and of
  containment, each word weighed by how rare it is among the indexed texts. Questions of one pattern share their
  common words and differ in the rare, telling one; a change of wording is the other way round;
- how few letters differ: 1 - Levenshtein distance / length (another word for a telling one).

The score is the words' measure, or the mix of both where that is higher; but it stays under the threshold where a
telling word differs: more than a slip of the hand, and not one light word for another or added. A word is light if the
indexed texts use it often, as they do the ways, methods and people of all questions. How the score was chosen, and what
it finds and takes for one wrongly on the test half: ``docs/experiments/near-duplicates.md``.

Promised: pure, deterministic, total over ``str``. Not promised: meaning. A question asked in wholly other words, or in
another language, is not found, nor one in which a rare word stands for another rare one; and two questions that
differ in one light word may be taken for one.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections.abc import Iterable, Mapping

import numpy as np

GRAM = 5
"""Characters of a gram."""

NEAR = 0.70
"""The score from which two questions count as one; chosen on the dev half of the changed benchmark questions."""

SHORTLIST = 16
"""Texts that are compared with care: the best by each of the two inverted indexes."""

LONG = 1000
"""Characters from which the 5-gram Jaccard stands in for the distance, whose cost grows with the square."""

_UNLIKE = 0.69
"""The most that two questions come to between which a telling word differs; under :data:`NEAR`."""
_SLIPS, _ALIKE = 2, 0.94
"""How many slips of the hand, or from which share of equal letters on, make no difference, whatever words they make."""
_LIGHT = 1 / 70
"""The share of the indexed texts from which a word is light: one of those that many questions hold."""
_MUCH = 3.5
"""How many words as rare as can be must be shared for one word in another's place to tell nothing."""
_MANY_WORDS = 20
"""For each so many words of content one more may differ."""
_FRAME_WEIGHT = 1.0
_UNKNOWN = 0.5  # a word that no indexed text holds: a change of wording as likely as another subject
_PRIOR = 20  # texts that are thought to be there already, so that a small index does not call every word common
_LETTERS = 0.4
_FEW_WORDS = 3
_MOST_MISSPELT = 40
_ASCII_GAP = re.compile(r"[^a-z0-9]+")
# Words that say how a question is put and not what it asks.
_FRAME = frozenset(
    """
    a about also am an and any are as at be been being best but by can could describe did do does done effectively
    exactly explain for from give had has have help how i if in into is it its just kindly list may me might most my
    of on one or our please possible provide really should show so some step steps tell than that the their them
    then there these they this those to us was way ways we were what when where which while who whom whose why will
    with without would you your
    """.split()  # noqa: SIM905
)
_ENDINGS = ("ings", "ing", "ies", "ied", "es", "ed", "ly", "s", "e", "y")


def normalise(text: str) -> str:
    """NFKC, case folded, every run of punctuation and space one space: what two equal questions have in common.

    Marks that combine (an accent, a vowel sign) are part of their word in every script; invisible characters go.
    Idempotent.
    """
    if text.isascii():
        return _ASCII_GAP.sub(" ", text.lower()).strip()
    # Folding can undo the normal form and the form the folding (U+0345, for one); the second round settles it.
    while (folded := unicodedata.normalize("NFKC", text).casefold()) != text:
        text = folded
    return " ".join("".join(map(_letter_or_gap, text)).split())


def _letter_or_gap(character: str) -> str:
    if character.isalnum():
        return character
    category = unicodedata.category(character)
    if category == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    return character if category[0] == "M" else " "


def grams(normalised: str) -> frozenset[str]:
    """The character 5-grams of a normalised text, a space at either end; of a shorter text, the text itself."""
    padded = f" {normalised} "
    return frozenset(padded[at : at + GRAM] for at in range(max(1, len(padded) - GRAM + 1)))


def stems(normalised: str) -> frozenset[str]:
    """The words, those of content without their endings."""
    return frozenset(word if word in _FRAME else _stem(word) for word in normalised.split())


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) >= len(ending) + 3:
            return word[: -len(ending)]
    return word


def _misspelt(ours: frozenset[str], theirs: frozenset[str]) -> dict[str, str]:
    """The words of ours that meet a misspelling in theirs, each its own one."""
    met: dict[str, str] = {}
    if len(ours) > _MOST_MISSPELT or len(theirs) > _MOST_MISSPELT:
        return met
    left = sorted(theirs)
    for word in sorted(ours):
        other = next((other for other in left if _close(word, other)), None)
        if other is not None:
            left.remove(other)
            met[word] = other
    return met


def _close(one: str, other: str) -> bool:
    """Whether one slip of the hand (from six letters on: two) lies between two words."""
    shorter, longer = sorted((len(one), len(other)))
    allowed = 0 if shorter < 3 else 1 if shorter < 6 else 2
    return longer - shorter <= allowed and longer <= 40 and _slips(one, other) <= allowed


def _slips(one: str, other: str) -> int:
    """Insertions, deletions, replacements and exchanges of neighbours between two words (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, mine in enumerate(one, 1):
        now = [row]
        for column, yours in enumerate(other, 1):
            cost = min(last[column] + 1, now[-1] + 1, last[column - 1] + (mine != yours))
            if before and column > 1 and mine == other[column - 2] and one[row - 2] == yours:
                cost = min(cost, before[column - 2] + 1)
            now.append(cost)
        before, last = last, now
    return last[-1]


def _slipped(one: str, other: str) -> bool:
    """Whether a few slips of the hand lie between two texts; one of them costs at most two steps of Levenshtein's."""
    far = max(len(one), len(other)) > LONG or distance(one, other) > 2 * _SLIPS
    return not far and _slips(one, other) <= _SLIPS


def distance(one: str, other: str) -> int:
    """Levenshtein's distance, one column in one big number at a time (Myers 1999, in Hyyro's form of 2003)."""
    if not one or not other:
        return max(len(one), len(other))
    at: dict[str, int] = {}
    for place, character in enumerate(one):
        at[character] = at.get(character, 0) | 1 << place
    full, top = (1 << len(one)) - 1, 1 << (len(one) - 1)
    rises, falls, score = full, 0, len(one)
    for character in other:
        same = at.get(character, 0)
        across = (((same & rises) + rises) ^ rises) | same
        up, down = falls | (~(across | rises) & full), rises & across
        score += bool(up & top) - bool(down & top)
        up, down = (up << 1 | 1) & full, (down << 1) & full
        rises, falls = down | (~(same | falls | up) & full), up & (same | falls)
    return score


class _Inverted:
    """Feature -> the numbers of the texts that hold it."""

    def __init__(self) -> None:
        self._holders: dict[str, array[int]] = {}
        self.sizes = array("I")

    def add(self, features: frozenset[str]) -> None:
        number = len(self.sizes)
        self.sizes.append(len(features))
        for feature in features:
            self._holders.setdefault(feature, array("I")).append(number)

    def holders(self, feature: str) -> int:
        """How many texts hold a feature."""
        return len(self._holders.get(feature, ()))

    def jaccard(self, features: frozenset[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The Jaccard similarity of a set with that of every text, in the texts' order."""
        lists = [np.array(held) for feature in features if (held := self._holders.get(feature))]
        if not lists:
            return np.zeros(len(self.sizes))
        shared = np.bincount(np.concatenate(lists), minlength=len(self.sizes))
        return shared / np.maximum(len(features) + np.array(self.sizes) - shared, 1)


class NearIndex:
    """Texts by what they hold; finds the one that is most like another. The earliest of equals wins."""

    def __init__(self) -> None:
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._stems: list[frozenset[str]] = []
        self._grams = _Inverted()
        self._words = _Inverted()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, text: str) -> None:
        """Take a text in under its key. The same key may come again: it is another text."""
        normal = normalise(text)
        self._keys.append(key)
        self._texts.append(normal)
        self._stems.append(stems(normal))
        self._grams.add(grams(normal))
        self._words.add(self._stems[-1] - _FRAME or self._stems[-1])

    def nearest(self, text: str) -> tuple[str, float] | None:
        """The key of the text most like this one, and their score in [0, 1] (1: equal when normalised).

        None where nothing is alike at all.
        """
        normal = normalise(text)
        if not self._keys:
            return None
        words = stems(normal)
        by_grams = self._grams.jaccard(grams(normal))
        by_words = self._words.jaccard(words - _FRAME or words)
        best, score = -1, 0.0
        for number in sorted({*_top(by_grams), *_top(by_words)}):
            alike = self._score(normal, float(by_grams[number]), words, number)
            if alike > score:
                best, score = number, alike
        return (self._keys[best], score) if best >= 0 else None

    def likeness(self, text: str, number: int) -> float:
        """The score of a text and the one that was added as the ``number``-th (from 0)."""
        normal = normalise(text)
        return self._score(normal, float(self._grams.jaccard(grams(normal))[number]), stems(normal), number)

    def _score(self, normal: str, by_grams: float, words: frozenset[str], number: int) -> float:
        other = self._texts[number]
        if normal == other:
            return 1.0
        longer = max(len(normal), len(other))
        by_letters = by_grams if longer > LONG else 1 - distance(normal, other) / longer
        if min(len(words), len(self._stems[number])) <= _FEW_WORDS:
            return min(0.99, by_letters)  # too few words to weigh, or a script that does not part them
        met = _misspelt(words - self._stems[number], self._stems[number] - words)
        by_words = self._shared(words, self._stems[number], met)
        score = min(0.99, max(by_words, _LETTERS * by_letters + (1 - _LETTERS) * by_words))
        if score <= _UNLIKE or by_letters >= _ALIKE or _slipped(normal, other):
            return score
        return min(score, _UNLIKE) if self._telling(words, self._stems[number], met) else score

    def _shared(self, ours: frozenset[str], theirs: frozenset[str], met: Mapping[str, str]) -> float:
        """The mean of Dice's coefficient and containment of two sets of stems, by the weight of their words."""
        shared = self._weight(ours & theirs) + self._weight(met.values())
        if not shared:
            return 0.0
        mine, yours = self._weight(ours - theirs - met.keys()), self._weight(theirs - ours - set(met.values()))
        return (shared / (shared + (mine + yours) / 2) + shared / (shared + min(mine, yours))) / 2

    def _telling(self, ours: frozenset[str], theirs: frozenset[str], met: Mapping[str, str]) -> bool:
        """Whether they differ in more than a light word, or one for another among many that they share.

        A word that ours alone has may be any: of words that no indexed text holds nothing is known.
        """
        mine, yours = ours - theirs - met.keys() - _FRAME, theirs - ours - set(met.values()) - _FRAME
        allowed = 1 + min(len(ours - _FRAME), len(theirs - _FRAME)) // _MANY_WORDS
        if max(len(mine), len(yours)) > allowed:
            return True
        if self._light(yours) or (mine and self._light(mine)):
            return False
        return not mine or self._weight((ours & theirs) - _FRAME) < _MUCH * math.log(len(self._keys) + _PRIOR)

    def _light(self, words: Iterable[str]) -> bool:
        least = _LIGHT * (len(self._keys) + _PRIOR) - 0.5
        return all(self._words.holders(word) > max(least, 0) for word in words)

    def _weight(self, words: Iterable[str]) -> float:
        size = len(self._keys) + _PRIOR

        def weight(word: str) -> float:
            if word in _FRAME:
                return _FRAME_WEIGHT
            holders = self._words.holders(word)
            return math.log(size / (holders + 0.5)) if holders else _UNKNOWN * math.log(size)

        return sum(map(weight, sorted(words)))


def _top(scores: np.ndarray[tuple[int], np.dtype[np.float64]]) -> list[int]:
    """The numbers of the best scores above zero; of equals the earliest, whatever the order of adding came to."""
    order = np.argsort(-scores, kind="stable")[:SHORTLIST]
    return [int(number) for number in order if scores[number] > 0]
