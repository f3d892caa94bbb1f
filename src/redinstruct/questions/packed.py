"""A bank's questions in little memory: their texts in one piece, a question made of it when it is asked for.

A million questions as objects take 400 MB, and so 80.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import eq
from typing import overload

from redinstruct.types import Message, Question

GroupNames = tuple[str | None, str | None, str | None]
"""Topic, subtopic, language."""


class Packing:
    """Questions of one bank, put together row by row."""

    def __init__(self, sha256: str) -> None:
        self.sha256 = sha256
        self.texts = bytearray()
        self.ends = array("Q")
        self.kinds: list[GroupNames] = []
        self.kind_of = array("I")
        self.earlier: dict[int, tuple[Message, ...]] = {}
        self._known: dict[GroupNames, int] = {}

    def add(self, text: str, named: GroupNames, earlier: tuple[Message, ...] = ()) -> None:
        """The next row's question."""
        self.texts += text.encode()
        if earlier:
            self.earlier[len(self.ends)] = earlier
        self.ends.append(len(self.texts))
        kind = self._known.get(named)
        if kind is None:
            kind = self._known[named] = len(self.kinds)
            self.kinds.append(named)
        self.kind_of.append(kind)


class Questions(Sequence[Question]):
    """The questions at some places of a bank, in order. Equal to any sequence of the same questions."""

    def __init__(
        self,
        packing: Packing,
        places: Sequence[int] | None = None,
        labels: Sequence[str | None] | str | None = None,
    ) -> None:
        self._packing = packing
        self._places: Sequence[int] = range(len(packing.ends)) if places is None else places
        self._labels = labels
        """By the bank's row, or one for all."""

    def labelled(self, labels: Sequence[str | None] | str | None) -> Questions:
        """The same with the half that each row of the bank belongs to; with one half for all."""
        one = labels if isinstance(labels, str) or labels is None or any(labels) else None
        return Questions(self._packing, self._places, one)

    def labels(self) -> list[str | None]:
        """The half that each belongs to."""
        of = self._labels
        return [of] * len(self) if of is None or isinstance(of, str) else [of[row] for row in self._places]

    def taken(self, places: Iterable[int]) -> Questions:
        """Those at some places of these."""
        return Questions(self._packing, array("I", (self._places[place] for place in places)), self._labels)

    def groups(self) -> list[tuple[str | None, str | None]]:
        """Topic and subtopic of each."""
        kinds, of = [kind[:2] for kind in self._packing.kinds], self._packing.kind_of
        return [kinds[of[row]] for row in self._places]

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> Question: ...

    @overload
    def __getitem__(self, at: slice) -> Questions: ...

    def __getitem__(self, at: int | slice) -> Question | Questions:
        if isinstance(at, slice):
            return Questions(self._packing, self._places[at], self._labels)
        return self._made(self._places[at])

    def __iter__(self) -> Iterator[Question]:
        return map(self._made, self._places)

    def _made(self, row: int) -> Question:
        packing, of = self._packing, self._labels
        ends = packing.ends
        text = packing.texts[ends[row - 1] if row else 0 : ends[row]].decode()
        topic, subtopic, language = packing.kinds[packing.kind_of[row]]
        label = of if of is None or isinstance(of, str) else of[row]
        earlier = packing.earlier.get(row, ())
        return Question(f"{packing.sha256}:{row}", text, row, topic, subtopic, language, label, earlier)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(eq, self, other))

    def __hash__(self) -> int:
        return hash((self._packing.sha256, len(self)))

    def __repr__(self) -> str:
        return f"Questions({len(self)} of bank {self._packing.sha256[:12]})"


class Unread(Sequence[Question]):
    """A bank's questions that a run holds already: so many, and read only where one is asked for."""

    def __init__(self, count: int, read: Callable[[], Sequence[Question]]) -> None:
        self._count, self._read = count, read
        self._found: Sequence[Question] | None = None

    def _all(self) -> Sequence[Question]:
        if self._found is None:
            self._found = self._read()
        return self._found

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, at: int) -> Question: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[Question]: ...

    def __getitem__(self, at: int | slice) -> Question | Sequence[Question]:
        return self._all()[at]

    def __iter__(self) -> Iterator[Question]:
        return iter(self._all())
