"""A window on a text that comes in chunks: what was passed is let go, and its lines are counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

from redinstruct.files import limits

_LINE_END = re.compile("\r\n?|\n")


class LongLine(Exception):
    """A line that is longer than a row may be."""


class Buffer:
    """``text[at:]`` is what was read and not passed yet; ``passed`` counts the characters that were let go."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self._chunks = chunks
        self.text, self.at, self.ended = "", 0, False
        self.passed, self._lines, self._column = 0, 0, 0

    @property
    def consumed(self) -> int:
        """The characters before the place."""
        return self.passed + self.at

    def fill(self, size: int) -> None:
        """Read on until ``size`` characters stand after the place, or the text ends."""
        have = len(self.text) - self.at
        if have >= size or self.ended:
            return
        parts = [self.text[self.at :]]
        while have < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.ended = True
                break
            parts.append(chunk)
            have += len(chunk)
        self._let_go()
        self.text, self.at = "".join(parts), 0

    def _let_go(self) -> None:
        self._lines, self._column = self._place(self.at)
        self.passed += self.at

    def _place(self, at: int) -> tuple[int, int]:
        newlines = self.text.count("\n", 0, at)
        if newlines:
            return self._lines + newlines, at - self.text.rfind("\n", 0, at) - 1
        return self._lines, self._column + at

    def line(self, at: int | None = None) -> int:
        """The number of the line, from 1, at a place in ``text``."""
        return self._place(self.at if at is None else at)[0] + 1

    def column(self, at: int) -> int:
        """The number of the column, from 1."""
        return self._place(at)[1] + 1

    def lines(self) -> Iterator[str]:
        """The lines from the place on, each with its end: a newline, a carriage return, or both.

        Raises:
            LongLine: one is longer than a row may be.
        """
        while True:
            self.fill(1)
            if self.at >= len(self.text):
                return
            found = _LINE_END.search(self.text, self.at)
            end = len(self.text) if found is None else found.end()
            if end - self.at > limits.MAX_ROW:
                raise LongLine
            if end == len(self.text) and not self.ended:  # its end is not there yet, or the half of it
                self.fill(max(2 * (end - self.at), 2**16))
                continue
            line, self.at = self.text[self.at : end], end
            yield line
