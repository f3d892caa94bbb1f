"""A file of answers, read and checked as a whole before anything is written."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from redinstruct.config import Selected
from redinstruct.errors import BankError, UsageError
from redinstruct.interop import peers
from redinstruct.interop.rows import ImportRow
from redinstruct.interop.tables import COLUMNS, Chosen, rows_of
from redinstruct.questions import (
    Doubled,
    Row,
    csv_records,
    decode_text,
    jsonl_rows,
    parse_json,
    read_whole,
    refuse_doubled,
    twice,
)
from redinstruct.safetext import terminal
from redinstruct.types import Measure

IMPORTED = "imported"
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_JSON_SPACE = " \t\r\n"


class Source(msgspec.Struct, frozen=True):
    """What a file holds, narrowed to the measure's rows.

    ``labels`` says whose labels are the run's verdicts: ``judge``, ``people`` (a file that has no judge), or ``none``.
    ``numbers`` are the rows' places in the file (from 0); ``selected`` counts what is kept and the rows of the bank's
    other half.
    """

    bank: str
    sha256: str
    model: str
    prompt: str
    rows: tuple[ImportRow, ...]
    numbers: tuple[int, ...]
    labels: str
    format: str
    selected: Selected = Selected(0)


def read_source(path: Path, measure: Measure, columns: Chosen | None = None, one: str | None = None) -> Source:
    """Read a file of answers. Its shape is told by its content.

    ``columns`` names the columns of a table for which the known names do not fit: purpose -> column. Where a column
    says which prompts are safe (:mod:`redinstruct.halves`), the measure's rows are kept, as ``redinstruct eval`` does.
    ``one`` is the label that 1 means in a column of labels whose name does not say it.

    Raises:
        UsageError: the file cannot be read, or a row does not hold what it should; file, row and fault are named.
    """
    unknown = next((role for role in columns or {} if role not in COLUMNS), None)
    if unknown is not None:
        raise UsageError(f"--column {unknown}=...: columns are for {', '.join(COLUMNS)}")
    if one is not None and one not in measure.labels[:2]:
        raise UsageError(f"--one {one}: expected {' or '.join(measure.labels[:2])}")
    try:
        data = read_whole(path)
        found = _read(path, decode_text(data), measure, columns or {}, one)
        source = msgspec.structs.replace(found, sha256=hashlib.sha256(data).hexdigest())
        if not source.rows:
            raise UsageError("holds no answers")
        return _narrowed(source, measure)
    except (BankError, UsageError) as error:
        raise UsageError(f"{terminal(str(path))}: {error}") from None


def _read(path: Path, text: str, measure: Measure, columns: Chosen, one: str | None) -> Source:
    name = terminal(path.stem)
    empty = Source(name, "", f"{IMPORTED}/{name}", IMPORTED, (), (), "none", "table")
    value, rows = _values(path, text)
    if isinstance(value, dict) and peers.is_artifact(value):
        found, model, method = peers.artifact(value, measure)
        return _of(empty, found, "jailbreakbench", model=model, prompt=method, labels="judge")
    if peers.is_garak(rows):
        found, model = peers.garak(rows)
        return _of(empty, found, "garak", model=model)
    if not rows:
        return empty
    table = rows_of(rows, measure, columns, one)
    named = peers.named_results(path)
    if named is None:
        source = _of(empty, table.answers, "table", labels=table.labels)
    else:
        own, answers = msgspec.structs.replace(empty, bank=named.bank), peers.without_filtered(table.answers)
        source = _of(own, answers, "red-instruct", model=named.model, prompt=named.prompt, labels=table.labels)
    return msgspec.structs.replace(source, numbers=tuple(table.numbers))


def _of(
    empty: Source, rows: list[ImportRow], format_: str, *, model: str | None = None, prompt: str | None = None,
    labels: str = "none",
) -> Source:  # fmt: skip
    return msgspec.structs.replace(
        empty,
        rows=tuple(rows),
        numbers=tuple(range(len(rows))),
        selected=Selected(len(rows)),
        format=format_,
        model=model or empty.model,
        prompt=prompt or empty.prompt,
        labels=labels,
    )


def _narrowed(source: Source, measure: Measure) -> Source:
    if all(row.bank_label is None for row in source.rows):
        return source
    kept = [number for number, row in enumerate(source.rows) if row.bank_label == measure.bank_label]
    if not kept:
        raise UsageError(f"no row is labelled {measure.bank_label}, and {measure.name} is measured on those")
    untold = sum(row.bank_label is None for row in source.rows)
    return msgspec.structs.replace(
        source,
        rows=tuple(source.rows[number] for number in kept),
        numbers=tuple(source.numbers[number] for number in kept),
        selected=Selected(len(kept), len(source.rows) - len(kept) - untold, untold),
    )


def _values(path: Path, text: str) -> tuple[object, list[Row]]:
    """The one object that a JSON file is, or its rows."""
    suffix = path.suffix.casefold()
    if suffix not in _JSON_SUFFIXES and (suffix == ".csv" or text.lstrip()[:1] not in ("[", "{")):
        return None, _csv_rows(text)
    if not text.strip(_JSON_SPACE):
        return None, []
    value, end, doubled = parse_json(text, len(text) - len(text.lstrip(_JSON_SPACE)))
    if text[end:].strip(_JSON_SPACE):
        return None, list(jsonl_rows(text))
    rows = [Row(f"row {number}", row) for number, row in enumerate(value if isinstance(value, list) else [value], 1)]
    if isinstance(value, Doubled):
        raise UsageError(twice(value.key))
    if doubled:
        refuse_doubled(rows, doubled)
    return value, rows


def _csv_rows(text: str) -> list[Row]:
    records = csv_records(text)
    if not records:
        return []
    header = [column.strip() for column in records[0][1]]
    double = next((name for name in header if name and header.count(name) > 1), None)
    if double is not None:
        raise UsageError("the header holds a column twice, and all but the last would be lost")
    rows = []
    for number, (line, cells) in enumerate(records[1:], 1):
        where = f"row {number} (line {line})"
        if not cells:
            raise UsageError(f"{where} is an empty line, expected an answer")
        if len(cells) != len(header):
            raise UsageError(f"{where} has {len(cells)} fields, expected {len(header)} as in the header")
        rows.append(Row(where, dict(zip(header, cells, strict=True))))
    return rows
