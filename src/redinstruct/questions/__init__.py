"""Question banks: read as they are published, and narrowed to the questions that a run asks.

Promised: a bank's questions stand in the file's order, and their ids depend on the file's bytes and the row alone, so
the same file gives the same ids on every machine. What cannot be read as a whole is refused with one line that names
the file and the row and never shows a question: a bank half read is another bank.

Not promised: any judgement of what a text says. No network: :mod:`redinstruct.banks` fetches what this reads.

Shapes: JSON (a list of texts or objects, ``{topic: [question]}``, ``{topic: {subtopic: [question]}}``), JSONL (texts or
objects), CSV, a ``.txt`` of one question a line; see :mod:`redinstruct.files`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import cast

import msgspec

from redinstruct.errors import BankError, UsageError
from redinstruct.files import (
    Doubled,
    Fields,
    JsonRow,
    Leaf,
    RowBlock,
    RowFile,
    digest_of,
    fold,
    kind_of,
    listed,
    stem_of,
)
from redinstruct.questions.halves import COLUMNS as HALF_KEYS
from redinstruct.questions.halves import SAFE, UNSAFE, Halves, refuse_attempt
from redinstruct.questions.packed import GroupNames, Packing, Questions
from redinstruct.questions.spread import FIRST, SPREAD, Selected, spread
from redinstruct.questions.turns import KEYS as TURN_KEYS
from redinstruct.questions.turns import TURNS, conversation, is_conversation
from redinstruct.safetext import terminal
from redinstruct.types import Bank, Measure, Message, Question

TEXT_KEYS = (
    "prompt", "goal", "Behavior", "forbidden_prompt", "question", "text", "instruction", "input", "prompt_text",
)  # fmt: skip
"""The columns or keys that hold a question's text, the first that is there wins; upper and lower case are one."""

TOPIC_KEYS = ("topic", "category", "SemanticCategory", "risk_area", "harm_category", "type", "hazard")
SUBTOPIC_KEYS = ("subtopic", "subcategory", "types_of_harm")
LANGUAGE_KEYS = ("language", "lang", "locale")

SENT = ("prompt", "context")
PURPOSES = (*SENT, "topic", "subtopic", "language", "label")
"""What a column of a bank may be for: what is asked and what stands before it, its groups, and which half it is of.

A context is asked only where its column is named: HarmBench asks with it, most others' banks hold notes there.
"""

_MEANT = {key.casefold() for key in (*TURN_KEYS, *TEXT_KEYS, *TOPIC_KEYS, *SUBTOPIC_KEYS, *LANGUAGE_KEYS, *HALF_KEYS)}
ASKED = (*TURN_KEYS[:1], *TEXT_KEYS, *TURN_KEYS[1:])
"""The same with the keys that hold a conversation, by rank."""

_COLUMNS = frozenset(map(fold, ASKED))
_MOST_NAMED = 10_000
_EXPECTED = f"expected one of {', '.join(TEXT_KEYS)}"


def read_bank(path: Path, name: str | None = None, columns: Mapping[str, str] | None = None) -> Bank:
    """Read a question bank, its name the file's stem unless another is given.

    Every text is stripped of the white space around it. Row numbers in messages count from 1, ids from 0. ``columns``
    names columns for which the known names do not fit: purpose (:data:`PURPOSES`) -> column.

    Raises:
        BankError: the file cannot be read, is none of the known shapes, or one of its rows is no question.
    """
    try:
        digest = digest_of(path)
        reader = _Reader(columns or {}, digest)
        file = RowFile(path, "a question", lacks=reader.lacks, meant=reader.means, is_row=reader.is_row, plain=True)
        with closing(file.parts()) as parts:
            for part in parts:
                if isinstance(part, RowBlock):
                    reader.add_block(part)
                else:
                    reader.add(part)
        if file.sha256 != digest:
            raise BankError("changed while it was read")
        questions = Questions(reader.packing)
        if not questions:
            raise BankError("holds no questions")
        questions = questions.labelled(reader.halves.told())
    except BankError as error:
        raise BankError(f"{terminal(str(path))}: {error}") from None
    return Bank(name=terminal(stem_of(path)) if name is None else name, sha256=digest, questions=questions)


def bank_of(questions: Sequence[str | Question], name: str = "questions") -> Bank:
    """A bank of questions that stand in a program instead of a file; its hash is that of what they are.

    Raises:
        BankError: one is no question, or there is none.
    """
    if not questions:
        raise BankError(f"{terminal(name)}: holds no questions")
    digest = hashlib.sha256(
        msgspec.json.encode([q if isinstance(q, str) else msgspec.structs.replace(q, id="", row=0) for q in questions])
    ).hexdigest()
    reader = _Reader({}, digest)
    halves: list[str | None] = []
    for row, given in enumerate(questions):
        where = f"{terminal(name)}: question {row + 1}"
        if isinstance(given, Question):
            named = (given.topic, given.subtopic, given.language)
            reader.add(JsonRow(where, given.text, None, None), named, given.earlier)
            halves.append(given.label)
        else:
            reader.add(JsonRow(where, given, None, None))
            halves.append(None)
    return Bank(terminal(name), digest, Questions(reader.packing).labelled(halves))


class BankCounts(msgspec.Struct, frozen=True):
    """What a bank holds, without a question of it. ``topics`` are (name, questions), in the bank's order.

    ``untold`` counts the questions of which a bank with halves does not say to which they belong.
    """

    name: str
    sha256: str
    questions: int
    unsafe: int
    safe: int
    untold: int
    conversations: int
    repeats: int
    topics: tuple[tuple[str, int], ...]


def described(bank: Bank) -> BankCounts:
    """What a bank holds, counted."""
    halves = Counter(question.label for question in bank.questions)
    topics = Counter(question.topic for question in bank.questions if question.topic is not None)
    return BankCounts(
        name=bank.name,
        sha256=bank.sha256,
        questions=len(bank.questions),
        unsafe=halves[UNSAFE],
        safe=halves[SAFE],
        untold=halves[None] if halves[SAFE] or halves[UNSAFE] else 0,
        conversations=sum(bool(question.earlier) for question in bank.questions),
        repeats=len(bank.questions) - len({(same_text(q.text), q.earlier) for q in bank.questions}),
        topics=tuple(topics.items()),
    )


class Selection(msgspec.Struct, frozen=True):
    """The questions that are asked, in the bank's order, and what they were selected from."""

    questions: Sequence[Question]
    selected: Selected


def select(bank: Bank, *, measure: Measure, limit: int | None, dedupe: bool, rule: str = SPREAD) -> Selection:
    """The questions that a measure is taken on, in the bank's order.

    Where the bank has halves, the measure's own. ``dedupe`` keeps the first of the texts that differ in case, white
    space or Unicode form only. ``limit`` comes last: it counts questions that will be asked, the first ones of
    :func:`redinstruct.questions.spread.spread`'s order (``rule`` ``first``: of the bank's).

    Raises:
        BankError: no question is left.
        UsageError: ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit of questions must be at least 1, not {limit}")
    if not bank.questions:
        raise BankError(f"{terminal(bank.name)}: holds no questions")
    chosen, untold = bank.questions, 0
    halves = chosen.labels() if isinstance(chosen, Questions) else [question.label for question in chosen]
    if any(halves):
        chosen = _taken(chosen, [place for place, half in enumerate(halves) if half == measure.bank_label])
        untold = halves.count(None)
    if not chosen:
        wanted = f"{measure.bank_label}, and {measure.name} is measured on those"
        raise BankError(f"{terminal(bank.name)}: no question is labelled {wanted}")
    half = len(chosen)
    if dedupe:
        first: dict[object, int] = {}
        for place, question in enumerate(chosen):
            first.setdefault((same_text(question.text), question.earlier), place)
        chosen = _taken(chosen, list(first.values()))
    selected = Selected(len(chosen), len(bank.questions) - half - untold, untold, half - len(chosen))
    return Selection(_limited(chosen, limit, rule), selected)


def selection_words(bank: str, asked: int, selected: Selected, measure: Measure) -> str | None:
    """What of a bank is not asked, as a line; None where all of it is."""
    other = "safe" if measure.bank_label == "unsafe" else "unsafe"
    left = {
        f"of its {other} half": selected.other_half,
        "of which it does not say whether they are safe": selected.untold,
        "that stand there already (--dedupe)": selected.repeats,
    }
    told = ", ".join(f"{count:,} {what}" for what, count in left.items() if count)
    limited = f"{asked:,} of {selected.of:,} questions are asked (--limit)" if asked < selected.of else ""
    return (
        f"bank {terminal(bank)}: " + "; ".join(filter(None, [limited, told and f"left out: {told}"]))
        if limited or told
        else None
    )


def _limited(questions: Sequence[Question], limit: int | None, rule: str) -> Sequence[Question]:
    if limit is None or limit >= len(questions):
        return questions
    if rule == FIRST:
        return questions[:limit]
    groups = (
        questions.groups() if isinstance(questions, Questions) else [(one.topic, one.subtopic) for one in questions]
    )
    return _taken(questions, sorted(spread(groups, limit)))


def _taken(questions: Sequence[Question], places: Sequence[int]) -> Sequence[Question]:
    return questions.taken(places) if isinstance(questions, Questions) else tuple(questions[at] for at in places)


def same_text(text: str) -> str:
    """What is equal for two texts that ask one question: they differ in case, white space or Unicode form only."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


# ---- one row ----


class _Reader:
    """Rows of one bank into questions. ``columns`` names columns of their own: purpose -> column."""

    def __init__(self, columns: Mapping[str, str], digest: str) -> None:
        unknown = next((purpose for purpose in columns if purpose not in PURPOSES), None)
        if unknown is not None:
            raise BankError(f"--column {unknown}=...: columns of a bank are for {', '.join(PURPOSES)}")
        self._chosen, self._digest = columns, digest
        own = columns.get("label")
        self.halves = Halves() if own is None else Halves([own], chosen=True)
        self._topic: str | None = ""
        """The last row's, blank before the first."""
        self._keys: tuple[str, ...] | None = None
        self._key: str | None = None
        self._folded = True
        """Whether the last row's keys are their own folded names."""
        known = {"topic": TOPIC_KEYS, "subtopic": SUBTOPIC_KEYS, "language": LANGUAGE_KEYS}
        self._groups = {name: (columns[name],) if name in columns else keys for name, keys in known.items()}
        self._there: dict[str, tuple[str, ...]] = {}
        """Of those, what the last row has."""
        self._cells: tuple[str, ...] = ()
        """The same, folded, in one piece."""
        self._named: dict[tuple[object, ...], GroupNames] = {}
        """What rows with these cells are named; most share theirs with others."""
        self.packing = Packing(digest)
        self._meant = _MEANT | {fold(column) for column in columns.values()}

    def lacks(self, columns: Sequence[str]) -> str | None:
        """What a header lacks, as a message; None for nothing."""
        there = {fold(column) for column in columns}
        for purpose, column in self._chosen.items():
            if fold(column) not in there:
                return f"--column {purpose}={column}: no such column, found {listed(columns)}"
        if self._text_key(columns) is None:
            return (
                f"no column holds the questions: {_EXPECTED}, found {listed(columns)}"
                "; --column prompt=NAME names another"
            )
        return None

    def means(self, column: str) -> bool:
        """Whether a column, by its folded name, is read."""
        return column in self._meant

    def is_row(self, value: Fields) -> bool:
        """Whether an object is one question, and not topics: JSONL of a single line, say."""
        if self._text_key(key for key, held in value.items() if isinstance(held, str) or is_conversation(held)):
            return True
        if TURNS in value and any(isinstance(held, str) for held in value.values()):
            return True
        return bool(value) and not any(isinstance(held, (list, dict, Doubled)) for held in value.values())

    def add(self, row: JsonRow | Leaf, named: GroupNames | None = None, earlier: tuple[Message, ...] = ()) -> None:
        """The next row's question; ``named`` and ``earlier`` where they are known. Raises ``BankError``, row named."""
        if isinstance(row, Leaf):
            raise BankError(f"{row.where} holds {kind_of(row.value)}, expected a list of questions")
        where, value, topic, subtopic = row
        if topic != self._topic:
            self._next_topic(where, topic)
        fields: Fields = {}
        key = None
        if isinstance(value, dict):
            key = self._text_key_of(tuple(value), where)
            if key is None:
                raise BankError(f"{where} is an object without a question: {self._expected()}, found {listed(value)}")
            fields = value if self._folded else {fold(name): held for name, held in value.items()}
            value = fields[fold(key)]
            if key in TURN_KEYS or (not isinstance(value, str) and is_conversation(value)):
                turns, value = conversation(value, f"{where}: {key}")
                earlier = tuple(Message(turn.role, _clean(turn.content, where, key)) for turn in turns)
        if not isinstance(value, str):
            what = f"{_place(where, key)} is {kind_of(value)}"
            raise BankError(f"{what}, expected {'text' if fields else 'text or an object'}")
        if key == "instruction" and (context := _first(fields, ("input",), where)):
            value = f"{value}\n\n{context}"  # Alpaca's rows: what is asked stands in both
        if "context" in self._chosen and (context := _first(fields, [self._chosen["context"]], where)):
            value = f"{context}\n\n---\n\n{value.strip()}"  # as HarmBench's own direct request joins them
        self.halves.add(where, fields)
        text = _clean(value, where, key, blank=False)
        if named is None:
            named = self._names(topic, subtopic, fields, where)
        self.packing.add(text, named, earlier)

    def _next_topic(self, where: str, topic: str | None) -> None:
        """Lists under keys that name rows or a column are none (pandas' columns, ``questions`` beside ``answers``)."""
        kinds = {key is None or fold(key) in _COLUMNS for key in (self._topic, topic)}
        if self._topic != "" and True in kinds:
            raise BankError(f"{where}: lists of questions and of other things, expected one list, or one a topic")
        self._topic = topic

    def add_block(self, block: RowBlock) -> None:
        """The next rows' questions, as :meth:`add` takes each. Raises ``BankError``, row named."""
        key = self._text_key_of(tuple(block.columns), f"row {block.first}")
        fields = {fold(name): column for name, column in block.columns.items()}
        texts = None if key is None else self._texts(key, fields[fold(key)])
        kinds = None if texts is None else self._kinds(len(block), fields)
        if texts is None or kinds is None:
            for where, value in block.rows():
                self.add(JsonRow(where, value))
        else:
            self.halves.add_block(block.first, len(block), fields)
            self.packing.extend(texts, kinds)

    def _texts(self, key: str, column: Sequence[object]) -> list[str] | None:
        """What a column of rows asks, where that needs no second look and stands in it alone; else None."""
        if key in TURN_KEYS or key == "instruction" or "context" in self._chosen or {*map(type, column)} != {str}:
            return None
        texts = list(map(str.strip, cast("Sequence[str]", column)))
        odd = [text for text in texts if not text[:1].isalnum()]
        return None if any(map(_is_blank, odd)) or "\0" in "".join(texts) else texts

    def _kinds(self, count: int, fields: Mapping[str, Sequence[object]]) -> Iterable[int] | None:
        """The packing's number of each row's names; None where one of them is no name."""
        cells = list(zip(*map(fields.__getitem__, self._cells), strict=True)) if self._cells else [()] * count
        try:
            numbers = {
                cell: self.packing.kind(self._names(None, None, dict(zip(self._cells, cell, strict=True)), ""))
                for cell in set(cells)
            }
        except BankError:
            return None
        return map(numbers.__getitem__, cells)

    def _names(self, topic: str | None, subtopic: str | None, fields: Fields, where: str) -> GroupNames:
        """Topic, subtopic and language of a row; what was found for the same cells is not found again."""
        cells = (topic, subtopic, *map(fields.get, self._cells)) if fields else (topic, subtopic)
        try:
            known = self._named.get(cells)
        except TypeError:  # a list, say, which names nothing
            cells, known = (), None
        if known is None:
            known = (
                self._group("topic", topic, fields, where),
                self._group("subtopic", subtopic, fields, where),
                self._group("language", None, fields, where),
            )
            if cells and len(self._named) < _MOST_NAMED:
                self._named[cells] = known
        return known

    def _text_key_of(self, keys: tuple[str, ...], where: str) -> str | None:
        """Most rows of a file have the same keys: what they mean is found once."""
        if keys != self._keys:
            refuse_attempt(where, keys)
            self._refuse_two_spellings(keys, where)
            self._keys, self._key = keys, self._text_key(keys)
            folded = set(map(fold, keys))
            self._folded = len(folded) == len(keys) and folded == set(keys)
            self._there = {
                purpose: tuple(name for name in names if fold(name) in folded)
                for purpose, names in self._groups.items()
            }
            self._cells = tuple(fold(name) for names in self._there.values() for name in names)
            self._named.clear()
        return self._key

    def _group(self, purpose: str, given: str | None, fields: Fields, where: str) -> str | None:
        if given and (clean := _clean(given, where, purpose)):
            return clean
        return _first(fields, self._there[purpose], where) if fields else None

    def _text_key(self, keys: Iterable[str]) -> str | None:
        there = {fold(key) for key in keys}
        wanted = [self._chosen["prompt"]] if "prompt" in self._chosen else ASKED
        return next((key for key in wanted if fold(key) in there), None)

    def _expected(self) -> str:
        return f"expected {self._chosen['prompt']}" if "prompt" in self._chosen else _EXPECTED

    def _refuse_two_spellings(self, keys: Iterable[str], where: str) -> None:
        """Of two spellings of a key that mean the same, neither is the right one."""
        for key, times in Counter(fold(key) for key in keys).items():
            if times > 1 and key in self._meant:
                raise BankError(f"{where} holds {key} twice, expected it once")


def _first(fields: Fields, keys: Sequence[str], where: str) -> str | None:
    """The first of the keys that holds text. A category that is no text (a set of flags, say) is none to group by."""
    for key in keys:
        value = fields.get(fold(key))
        if isinstance(value, str) and (text := _clean(value, where, key)):
            return text
    return None


def _place(where: str, key: str | None) -> str:
    return where if key is None else f"{where}: {key}"


def _clean(text: str, where: str, key: str | None = None, *, blank: bool = True) -> str:
    """The text without the white space around it, fit to be stored and sent."""
    if "\0" in text:
        raise BankError(f"{_place(where, key)} holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            told = f"{_place(where, key)} holds half of a surrogate pair, which is no character"
            raise BankError(told) from None
    if not blank and _is_blank(text):
        raise BankError(f"{_place(where, key)} is blank, expected a question")
    return text.strip()


def _is_blank(text: str) -> bool:
    return not text[:1].isalnum() and all(c.isspace() or not c.isprintable() for c in text)
