"""A bank's questions in little memory: their texts in one piece, a question made of it when it is asked for.

A million questions as objects take 400 MB, and so 80.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from operator import eq
from typing import NamedTuple, TypeVar, overload

from redinstruct.types import Message, Question

T = TypeVar("T")
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
        self.kind_of.append(self.kind(named))

    def extend(self, texts: Sequence[str], kinds: Iterable[int]) -> None:
        """The next rows' questions, their names by :meth:`kind`."""
        whole = "".join(texts)
        sizes = map(len, texts if whole.isascii() else map(str.encode, texts))
        ends = accumulate(sizes, initial=len(self.texts))
        next(ends)
        self.ends.extend(ends)
        self.texts += whole.encode()
        self.kind_of.extend(kinds)

    def kind(self, named: GroupNames) -> int:
        """The number of such names."""
        kind = self._known.get(named)
        if kind is None:
            kind = self._known[named] = len(self.kinds)
            self.kinds.append(named)
        return kind


class QuestionColumns(NamedTuple):
    """Questions of one bank as columns, equally long; ``earlier`` of those that have any, by their place here."""

    sha256: str
    rows: Sequence[int]
    texts: Sequence[str]
    topics: Sequence[str | None]
    subtopics: Sequence[str | None]
    languages: Sequence[str | None]
    labels: Sequence[str | None]
    earlier: Mapping[int, tuple[Message, ...]]

    def taken(self, places: Sequence[int]) -> QuestionColumns:
        """The questions at some places, in order."""
        if len(places) == len(self.rows):
            return self

        def of(column: Sequence[T]) -> list[T]:
            return [column[place] for place in places]

        earlier = {at: self.earlier[place] for at, place in enumerate(places) if place in self.earlier}
        topics, subtopics, languages, labels = map(of, (self.topics, self.subtopics, self.languages, self.labels))
        return QuestionColumns(
            self.sha256, of(self.rows), of(self.texts), topics, subtopics, languages, labels, earlier
        )


def columns_of(questions: Sequence[Question]) -> QuestionColumns:
    """The columns of some questions of one bank."""
    if isinstance(questions, Questions):
        return questions.columns()
    return QuestionColumns(
        questions[0].id.partition(":")[0] if questions else "",
        [one.row for one in questions],
        [one.text for one in questions],
        [one.topic for one in questions],
        [one.subtopic for one in questions],
        [one.language for one in questions],
        [one.label for one in questions],
        {at: one.earlier for at, one in enumerate(questions) if one.earlier},
    )


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

    def columns(self) -> QuestionColumns:
        """The same as columns."""
        packing, rows = self._packing, self._places
        kinds = list(map(packing.kind_of.__getitem__, rows))
        topics, subtopics, languages = (self._named(at, kinds) for at in range(3))
        earlier = packing.earlier
        said = {at: earlier[row] for at, row in enumerate(rows) if row in earlier} if earlier else {}
        return QuestionColumns(packing.sha256, rows, self._texts(), topics, subtopics, languages, self.labels(), said)

    def _named(self, at: int, kinds: Sequence[int]) -> Sequence[str | None]:
        names = {kind: self._packing.kinds[kind][at] for kind in set(kinds)}
        return list(map(names.__getitem__, kinds))

    def _texts(self) -> list[str]:
        texts, ends, rows = self._packing.texts, self._packing.ends, self._places
        if not isinstance(rows, range) or not rows or rows.step != 1:
            return list(map(self._text, rows))
        first = ends[rows[0] - 1] if rows[0] else 0
        piece = texts[first : ends[rows[-1]]]
        if not piece.isascii():
            return list(map(self._text, rows))
        whole = piece.decode()
        places = [end - first for end in ends[rows[0] : rows[-1] + 1]]
        return [whole[start:end] for start, end in pairwise((0, *places))]

    def _text(self, row: int) -> str:
        ends = self._packing.ends
        return self._packing.texts[ends[row - 1] if row else 0 : ends[row]].decode()

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
        text = self._text(row)
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
