"""Question banks: read as they are published, and narrowed to the questions that a run asks.

Promised: a bank's questions stand in the file's order, and their ids depend on the file's bytes and the row alone, so
the same file gives the same ids on every machine. What cannot be read as a whole is refused with one line that names
the file and the row and never shows a question: a bank half read is another bank.

Not promised: any judgement of what a text says. No network: :mod:`redinstruct.banks` fetches what this reads.

Shapes, told apart by content and suffix, never by a name: JSON (a list of texts or objects, ``{topic: [question]}``,
``{topic: {subtopic: [question]}}``), JSONL (texts or objects), CSV.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import stat
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from redinstruct.config import FIRST, SPREAD, Selected
from redinstruct.errors import BankError, UsageError
from redinstruct.halves import COLUMNS as HALF_KEYS
from redinstruct.halves import Halves
from redinstruct.rowfiles import fold, kind_of, listed, named
from redinstruct.safetext import terminal
from redinstruct.spread import spread
from redinstruct.turns import KEYS as TURN_KEYS
from redinstruct.turns import conversation, is_conversation
from redinstruct.types import Bank, Measure, Message, Question

MAX_BYTES = 256 * 2**20
"""The largest file that is read. The largest public bank with its conversations has a tenth of it."""

TEXT_KEYS = ("prompt", "goal", "Behavior", "forbidden_prompt", "question", "text", "instruction", "input")
"""The columns or keys that hold a question's text, the first that is there wins; upper and lower case are one."""

TOPIC_KEYS = ("topic", "category", "SemanticCategory", "type")
SUBTOPIC_KEYS = ("subtopic", "subcategory")
LANGUAGE_KEYS = ("language", "lang")

_MEANT = {key.casefold() for key in (*TURN_KEYS, *TEXT_KEYS, *TOPIC_KEYS, *SUBTOPIC_KEYS, *LANGUAGE_KEYS, *HALF_KEYS)}
ASKED = (*TURN_KEYS[:1], *TEXT_KEYS, *TURN_KEYS[1:])
"""The same with the keys that hold a conversation, by rank."""

_EXPECTED = f"expected one of {', '.join(TEXT_KEYS)}"
_JSON_SPACE = " \t\r\n"
_LINE_END = re.compile("\r\n|\r|\n")
# The suffixes whose content is one JSON value or one a line. Any other file says by its first character what it is.
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
# csv has one limit for the whole process.
_csv_limit = threading.Lock()


class Row(NamedTuple):
    """What stands in the place of a question, not looked at yet. ``where`` names it for a message."""

    where: str
    value: object
    topic: str | None = None
    subtopic: str | None = None


class Doubled:
    """Stands for an object that holds a key twice, until it is known which row it is."""

    def __init__(self, key: str) -> None:
        self.key = key


def read_bank(path: Path, name: str | None = None) -> Bank:
    """Read a question bank, its name the file's stem unless another is given.

    Every text is stripped of the white space around it. Row numbers in messages count from 1, ids from 0.

    Raises:
        BankError: the file cannot be read, is none of the known shapes, or one of its rows is no question.
    """
    try:
        data = read_whole(path)
        digest = hashlib.sha256(data).hexdigest()
        halves = Halves()
        rows = enumerate(_rows(decode_text(data), path.suffix.casefold()))
        questions = tuple(_question(row, number, digest, halves) for number, row in rows)
        if not questions:
            raise BankError("holds no questions")
        questions = labelled(questions, halves.told())
    except BankError as error:
        raise BankError(f"{terminal(str(path))}: {error}") from None
    return Bank(name=terminal(path.stem) if name is None else name, sha256=digest, questions=questions)


class Selection(msgspec.Struct, frozen=True):
    """The questions that are asked, in the bank's order, and what they were selected from."""

    questions: tuple[Question, ...]
    selected: Selected


def select(bank: Bank, *, measure: Measure, limit: int | None, dedupe: bool, rule: str = SPREAD) -> Selection:
    """The questions that a measure is taken on, in the bank's order.

    Where the bank has halves, the measure's own. ``dedupe`` keeps the first of the texts that differ in case, white
    space or Unicode form only. ``limit`` comes last: it counts questions that will be asked, the first ones of
    :func:`redinstruct.spread.spread`'s order (``rule`` ``first``: of the bank's).

    Raises:
        BankError: no question is left.
        UsageError: ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit of questions must be at least 1, not {limit}")
    if not bank.questions:
        raise BankError(f"{terminal(bank.name)}: holds no questions")
    chosen = bank.questions
    untold = 0
    if any(question.label is not None for question in chosen):
        chosen = tuple(question for question in chosen if question.label == measure.bank_label)
        untold = sum(question.label is None for question in bank.questions)
    if not chosen:
        wanted = f"{measure.bank_label}, and {measure.name} is measured on those"
        raise BankError(f"{terminal(bank.name)}: no question is labelled {wanted}")
    half = len(chosen)
    if dedupe:
        first: dict[object, Question] = {}
        for question in chosen:
            first.setdefault((same_text(question.text), question.earlier), question)
        chosen = tuple(first.values())
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


def _limited(questions: tuple[Question, ...], limit: int | None, rule: str) -> tuple[Question, ...]:
    if limit is None or limit >= len(questions) or rule == FIRST:
        return questions[:limit]
    order = spread([(question.topic, question.subtopic) for question in questions], limit)
    return tuple(questions[place] for place in sorted(order))


def labelled(questions: Sequence[Question], halves: Sequence[str | None]) -> tuple[Question, ...]:
    """The questions with the half that each belongs to."""
    pairs = zip(questions, halves, strict=True)
    return tuple(q if half is None else msgspec.structs.replace(q, label=half) for q, half in pairs)


def same_text(text: str) -> str:
    """What is equal for two texts that ask one question: they differ in case, white space or Unicode form only."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


# ---- the file ----


def read_whole(path: Path) -> bytes:
    """A regular file's bytes.

    Raises:
        BankError: it cannot be read, or is larger than :data:`MAX_BYTES`.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BankError("is a folder, expected a file")
        if not stat.S_ISREG(status.st_mode):
            raise BankError("is not a regular file")  # a pipe would be waited for
        if status.st_size > MAX_BYTES:
            raise BankError(f"has {status.st_size} bytes, more than the {MAX_BYTES} that are read")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise BankError("no such file") from None
    except OSError as error:
        raise BankError(f"cannot be read: {error.strerror or type(error).__name__}") from None
    except ValueError:  # a NUL or a lone surrogate in the path
        raise BankError("is not a possible file name") from None
    if len(data) > MAX_BYTES:
        raise BankError(f"grew over the {MAX_BYTES} bytes that are read")
    return data


def decode_text(data: bytes) -> str:
    """UTF-8 text, without a byte-order mark. Raises ``BankError``, the line named, for anything else, and for a NUL."""
    nul = data.find(0)
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        raise BankError(f"line {line} holds a NUL byte, expected UTF-8 text (UTF-16 is to be saved as UTF-8)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BankError(f"line {line} is not UTF-8 text, save the file as UTF-8") from None


def _rows(text: str, suffix: str) -> Iterator[Row]:
    if suffix in _JSON_SUFFIXES or (suffix != ".csv" and text.lstrip()[:1] in ("[", "{")):
        return _json_rows(text, lines=suffix != ".json")
    return _csv_rows(text)


# ---- JSON and JSONL ----


def _json_rows(text: str, lines: bool) -> Iterator[Row]:
    """The rows of one JSON value, or of one value a line, which is also published with the suffix ``.json``."""
    body = text.strip(_JSON_SPACE)
    if not body:
        return iter(())
    value, end, doubled = parse_json(text, len(text) - len(text.lstrip(_JSON_SPACE)))
    if text[end:].strip(_JSON_SPACE):
        if isinstance(value, list) and not lines:
            raise BankError(f"line {text.count(chr(10), 0, end) + 1}: something follows the end of the list")
        return jsonl_rows(text)
    if isinstance(value, list):
        rows = [Row(f"row {number}", row) for number, row in enumerate(value, 1)]
    elif isinstance(value, dict) and not _is_row(value):
        rows = list(_tree_rows(value))
    else:
        rows = [] if isinstance(value, Doubled) else [Row("row 1", value)]
    if doubled:
        refuse_doubled(rows, doubled)
    return iter(rows)


def _is_row(value: Mapping[str, object]) -> bool:
    """Whether an object is one question, and not topics: JSONL of a single line, say."""
    if _text_key(key for key, held in value.items() if isinstance(held, str) or is_conversation(held)):
        return True
    return bool(value) and not any(isinstance(held, (list, dict, Doubled)) for held in value.values())


def _tree_rows(tree: Mapping[str, object]) -> Iterator[Row]:
    """``{topic: [question]}`` and ``{topic: {subtopic: [question]}}``, the one topic so and the other so."""
    number = 0
    for at, (topic, held) in enumerate(tree.items(), 1):
        branches: Iterable[tuple[str | None, object]] = held.items() if isinstance(held, dict) else [(None, held)]
        for below, (subtopic, questions) in enumerate(branches, 1):
            place = f"topic {at}" if subtopic is None else f"topic {at}, subtopic {below}"
            if isinstance(questions, Doubled):
                raise BankError(f"{place}: {twice(questions.key)}")
            if not isinstance(questions, list):
                raise BankError(f"{place} holds {kind_of(questions)}, expected a list of questions")
            for question in questions:
                number += 1
                yield Row(f"row {number} ({place})", question, topic, subtopic)


def jsonl_rows(text: str) -> Iterator[Row]:
    """One JSON value a line. Raises ``BankError``, the row named, for a line that holds anything else."""
    # No splitlines(): U+2028 and its like, at which that would cut too, may stand inside a JSON text.
    for number, line in enumerate(_LINE_END.split(text.rstrip(_JSON_SPACE)), 1):
        where = f"row {number}"
        body = line.strip(_JSON_SPACE)
        if not body:
            raise BankError(f"{where} is an empty line, expected JSON")
        value, end, doubled = parse_json(body, 0, f"{where}: ")
        if end < len(body):
            raise BankError(f"{where}: something follows the end of the JSON value, expected one a line")
        if doubled:
            raise BankError(f"{where}: {twice(doubled[0])}")
        yield Row(where, value)


def refuse_doubled(rows: Iterable[Row], doubled: Sequence[str]) -> None:
    """Say in which row a key stood twice, at whatever depth; outside of any row it was the outermost object."""
    for row in rows:
        inside = [row.value]
        while inside:
            value = inside.pop()
            if isinstance(value, Doubled):
                raise BankError(f"{row.where}: {twice(value.key)}")
            if isinstance(value, (dict, list)):
                inside.extend(value.values() if isinstance(value, dict) else value)
    raise BankError(twice(doubled[0]))


def twice(key: str) -> str:
    """What a message says of a key that stands twice in an object."""
    return f"an object holds the key {named(key)} twice, and all but the last would be lost"


def parse_json(text: str, start: int, where: str = "") -> tuple[object, int, list[str]]:
    """The JSON value that begins at ``start``, where it ends, and the keys that stood twice in an object.

    Where a key stood twice a :class:`Doubled` stands for the object. Raises ``BankError`` for broken JSON, the place
    named, with ``where`` in front.
    """
    doubled: list[str] = []

    def build(pairs: list[tuple[str, object]]) -> object:
        made = dict(pairs)
        if len(made) == len(pairs):
            return made
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        doubled.append(key)
        return Doubled(key)

    try:
        value, end = json.JSONDecoder(object_pairs_hook=build).raw_decode(text, start)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if where else f"line {error.lineno} column {error.colno}"
        raise BankError(f"{where}broken JSON at {place}: {error.msg}") from None
    except RecursionError:
        raise BankError(f"{where}the JSON is nested too deep") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise BankError(f"{where}a number in the JSON has too many digits") from None
    return value, end, doubled


# ---- CSV ----


def _csv_rows(text: str) -> Iterator[Row]:
    records = csv_records(text)
    if not records:
        return
    columns = [column.strip() for column in records[0][1]]
    _refuse_two_spellings(columns, "the header")
    if not _text_key(columns):
        raise BankError(f"no column holds the questions: {_EXPECTED}, found {listed(columns)}")
    for number, (line, cells) in enumerate(records[1:], 1):
        where = f"row {number} (line {line})"
        if not cells:
            raise BankError(f"{where} is an empty line, expected a question")
        if len(cells) != len(columns):
            raise BankError(f"{where} has {len(cells)} fields, expected {len(columns)} as in the header")
        yield Row(where, dict(zip(columns, cells, strict=True)))


def csv_records(text: str) -> list[tuple[int, list[str]]]:
    """The line at which each record of a CSV text begins, and its cells; the first is the header.

    Fields of any length are read, and every kind of line end. Raises ``BankError``, the row named, for broken CSV.
    """
    with _csv_fields_up_to(MAX_BYTES):
        records = list(_csv_reader(text))
    while records and not records[-1][1]:  # empty lines after the last row
        records.pop()
    return records


def _csv_reader(text: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    number, line = 0, 1
    try:
        for cells in reader:
            yield line, cells
            number, line = number + 1, reader.line_num + 1
    except csv.Error as error:
        place = f"row {number}" if number else "the header"
        raise BankError(f"{place} (line {line}): broken CSV: {error}") from None


@contextmanager
def _csv_fields_up_to(size: int) -> Iterator[None]:
    with _csv_limit:
        before = csv.field_size_limit(size)
        try:
            yield
        finally:
            csv.field_size_limit(before)


# ---- one row ----


def _question(row: Row, number: int, digest: str, halves: Halves) -> Question:
    where, value, topic, subtopic = row
    fields: dict[str, object] = {}
    earlier: tuple[Message, ...] = ()
    what = where
    if isinstance(value, dict):
        _refuse_two_spellings(value, where)
        key = _text_key(value)
        if key is None:
            raise BankError(f"{where} is an object without a question: {_EXPECTED}, found {listed(value)}")
        fields = {fold(name): held for name, held in value.items()}
        value, what = fields[fold(key)], f"{where}: {key}"
        if key in TURN_KEYS or is_conversation(value):
            earlier, value = conversation(value, what)
    if not isinstance(value, str):
        raise BankError(f"{what} is {kind_of(value)}, expected {'text' if fields else 'text or an object'}")
    if what.endswith(": instruction") and (context := _first(fields, ("input",), where)):
        value = f"{value}\n\n{context}"  # Alpaca's rows: what is asked stands in both
    halves.add(where, fields)
    return Question(
        id=f"{digest}:{number}",
        text=_clean(value, what, blank=False),
        row=number,
        topic=_clean(topic or "", f"{where}: topic") or _first(fields, TOPIC_KEYS, where),
        subtopic=_clean(subtopic or "", f"{where}: subtopic") or _first(fields, SUBTOPIC_KEYS, where),
        language=_first(fields, LANGUAGE_KEYS, where),
        earlier=tuple(Message(turn.role, _clean(turn.content, what)) for turn in earlier),
    )


def _text_key(keys: Iterable[str]) -> str | None:
    there = {fold(key) for key in keys}
    return next((key for key in ASKED if fold(key) in there), None)


def _refuse_two_spellings(keys: Iterable[str], where: str) -> None:
    """Of two columns, or two spellings of a key, that mean the same, neither is the right one."""
    for key, times in Counter(fold(key) for key in keys).items():
        if times > 1 and key in _MEANT:
            raise BankError(f"{where} holds {key} twice, expected it once")


def _first(fields: Mapping[str, object], keys: Sequence[str], where: str) -> str | None:
    """The first of the keys that holds text. A category that is no text (a set of flags, say) is none to group by."""
    for key in keys:
        value = fields.get(fold(key))
        if isinstance(value, str) and (text := _clean(value, f"{where}: {key}")):
            return text
    return None


def _clean(text: str, what: str, *, blank: bool = True) -> str:
    """The text without the white space around it, fit to be stored and sent."""
    if "\0" in text:
        raise BankError(f"{what} holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BankError(f"{what} holds half of a surrogate pair, which is no character") from None
    if not blank and all(c.isspace() or not c.isprintable() for c in text):
        raise BankError(f"{what} is blank, expected a question")
    return text.strip()
