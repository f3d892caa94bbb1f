"""Whether a text says anything: does its end run in circles, how does it begin? No property of the language."""

from __future__ import annotations

import re
import zlib

_TAIL = 1500
"""How much of a text's end is looked at, in characters: a loop never ends by itself."""
_TOKENS = 200
"""How many words of it."""
_FEWEST = 24
"""With fewer words a loop cannot be told from emphasis."""
_NEW = 0.5
"""Below this share of new triples of words, the end of a text says what it has said already."""
_TABLE = 0.2
"""From this share of numbers on a text is about them."""
_PACKED = 0.55
"""A tail that does not shrink to this is no loop: the cheap test before the exact one."""
OPENING = 60
"""How many characters two answers must have in common at their beginning to open alike."""
_WORD = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|\w+")


def opening(text: str) -> str | None:
    """How a text begins, without case and spacing; None of a shorter text."""
    start = " ".join(text[: 4 * OPENING].split()).casefold()[:OPENING]
    return start if len(start) == OPENING else None


def is_looping(text: str) -> bool:
    """Whether the end of a text repeats itself: fewer than half of its last triples of words are new.

    Numbers count as one word, so that a counter does not hide a loop, unless they are the matter itself (a table);
    signs of scripts without spaces count as words.
    """
    tail = text[-_TAIL:]
    packed = tail.encode("utf-8", "surrogatepass")
    if len(packed) < 2 * _FEWEST or len(zlib.compress(packed, 1)) > _PACKED * len(packed):
        return False
    words = _WORD.findall(tail)[-_TOKENS:]
    counters = sum(map(str.isdigit, words))
    if counters < _TABLE * len(words):
        words = ["#" if word.isdigit() else word for word in words]
    if len(words) < _FEWEST:
        # One endless word, or nothing but white space.
        return len(packed) >= 8 * _FEWEST and len(set(tail)) <= len(tail) / 20
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(triples)) < _NEW * len(triples)
