"""A window on a text that comes in chunks: what was passed is let go, and its lines are counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE_END = re.compile("[\r\n]")


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

        A line longer than the buffer's chunks is given in pieces.
        """
        while True:
            self.fill(2)
            if self.at >= len(self.text):
                return
            found = _LINE_END.search(self.text, self.at)
            end = -1 if found is None else found.start()
            if self.text[end : end + 1] == "\r" and end + 1 == len(self.text) and not self.ended:
                self.fill(end + 2 - self.at)
                continue
            if end < 0:
                if not self.ended and len(self.text) - self.at < 2**16:
                    self.fill(len(self.text) - self.at + 2**16)
                    continue
                end = len(self.text) - 1
            elif self.text.startswith("\r\n", end):
                end += 1
            piece, self.at = self.text[self.at : end + 1], end + 1
            yield piece
