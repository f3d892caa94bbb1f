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

from redinstruct.errors import BankError, UsageError
from redinstruct.safetext import terminal
from redinstruct.types import Bank, Measure, Question

MAX_BYTES = 256 * 2**20
"""The largest file that is read. The largest public bank with its conversations has a tenth of it."""

TEXT_KEYS = ("prompt", "goal", "Behavior", "forbidden_prompt", "question")
"""The columns or keys that hold a question's text, the first that is there wins; upper and lower case are one."""

TOPIC_KEYS = ("topic", "category", "SemanticCategory", "type")
SUBTOPIC_KEYS = ("subtopic", "subcategory")
LANGUAGE_KEYS = ("language", "lang")
LABELS = ("safe", "unsafe")

_MEANT = {key.casefold() for key in (*TEXT_KEYS, *TOPIC_KEYS, *SUBTOPIC_KEYS, *LANGUAGE_KEYS, "label")}
_EXPECTED = f"expected one of {', '.join(TEXT_KEYS)}"
_JSON_SPACE = " \t\r\n"
_LINE_END = re.compile("\r\n|\r|\n")
# The suffixes whose content is one JSON value or one a line. Any other file says by its first character what it is.
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
# One plain word is a name. Anything else that stands where a name belongs may be a question (a CSV file without its
# header, an object from question to answer), and is not shown.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.;:-]{1,24}")
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
        rows = enumerate(_rows(decode_text(data), path.suffix.casefold()))
        questions = tuple(_question(row, number, digest) for number, row in rows)
        if not questions:
            raise BankError("holds no questions")
    except BankError as error:
        raise BankError(f"{terminal(str(path))}: {error}") from None
    return Bank(name=terminal(path.stem) if name is None else name, sha256=digest, questions=questions)


def select(bank: Bank, *, measure: Measure, limit: int | None, dedupe: bool) -> tuple[Question, ...]:
    """The questions that a measure is taken on, in the bank's order.

    Where the bank labels its questions, those with the measure's label. ``dedupe`` keeps the first of the texts that
    differ in case, white space or Unicode form only. ``limit`` comes last: it counts questions that will be asked.

    Raises:
        BankError: no question is left.
        UsageError: ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit of questions must be at least 1, not {limit}")
    if not bank.questions:
        raise BankError(f"{terminal(bank.name)}: holds no questions")
    chosen = bank.questions
    if any(question.label is not None for question in chosen):
        chosen = tuple(question for question in chosen if question.label == measure.bank_label)
    if not chosen:
        wanted = f"{measure.bank_label}, and {measure.name} is measured on those"
        raise BankError(f"{terminal(bank.name)}: no question is labelled {wanted}")
    if dedupe:
        first: dict[str, Question] = {}
        for question in chosen:
            first.setdefault(same_text(question.text), question)
        chosen = tuple(first.values())
    return chosen[:limit]


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
    if _text_key(key for key, held in value.items() if isinstance(held, str)):
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


def _question(row: Row, number: int, digest: str) -> Question:
    where, value, topic, subtopic = row
    fields: dict[str, object] = {}
    what = where
    if isinstance(value, dict):
        _refuse_two_spellings(value, where)
        key = _text_key(value)
        if key is None:
            raise BankError(f"{where} is an object without a question: {_EXPECTED}, found {listed(value)}")
        fields = {fold(name): held for name, held in value.items()}
        value, what = fields[fold(key)], f"{where}: {key}"
    if not isinstance(value, str):
        raise BankError(f"{what} is {kind_of(value)}, expected {'text' if fields else 'text or an object'}")
    label = (_first(fields, ("label",), where) or "").lower()
    return Question(
        id=f"{digest}:{number}",
        text=_clean(value, what, blank=False),
        row=number,
        topic=_clean(topic or "", f"{where}: topic") or _first(fields, TOPIC_KEYS, where),
        subtopic=_clean(subtopic or "", f"{where}: subtopic") or _first(fields, SUBTOPIC_KEYS, where),
        language=_first(fields, LANGUAGE_KEYS, where),
        label=label if label in LABELS else None,
    )


def fold(key: str) -> str:
    """A column's or key's name, as names are compared."""
    return key.strip().casefold()


def _text_key(keys: Iterable[str]) -> str | None:
    there = {fold(key) for key in keys}
    return next((key for key in TEXT_KEYS if fold(key) in there), None)


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


# ---- words for messages ----


def kind_of(value: object) -> str:
    """What a JSON value is, in a message's words."""
    if value is None:
        return "null"
    kinds = ((bool, "true or false"), ((int, float), "a number"), (str, "a text"), (list, "a list"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "an object")


def named(name: str) -> str:
    """A name for a message: one plain word as it is, of anything else the length."""
    return name if _PLAIN_NAME.fullmatch(name) else f"<{len(name)} characters>"


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names for a message, the first ones."""
    shown = [named(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return (", ".join(shown[:most]) or "none") + more
