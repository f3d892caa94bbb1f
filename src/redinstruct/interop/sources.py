"""A file of answers, read and checked as a whole before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path

import msgspec

from redinstruct.errors import BankError, UsageError
from redinstruct.files import JsonRow, Leaf, RowFile, fold, stem_of
from redinstruct.files.zipped import opened_zip, sha256_of
from redinstruct.interop import inspect_log, logs, peers, pyrit
from redinstruct.interop.inspect_rows import LogRows, rows_of_log
from redinstruct.interop.rows import ImportRow, Instrument
from redinstruct.interop.tables import COLUMNS, Chosen, lacking, rows_of
from redinstruct.questions.spread import Selected
from redinstruct.safetext import terminal
from redinstruct.types import Measure

IMPORTED = "imported"
_COMPLETIONS = "completions"
"""A key under which published evaluations hold their rows, beside their rates (andyrdt/refusal_direction)."""


class Source(msgspec.Struct, frozen=True):
    """What a file holds, narrowed to the measure's rows.

    ``labels`` says whose labels are the run's verdicts: ``judge``, ``people`` (a file that has no judge), or ``none``.
    ``numbers`` are the questions' places in the file (from 0), the same for every epoch and prompt of one; ``selected``
    counts what is kept and the rows of the bank's other half. ``left_out`` names the rows that hold no answer in text,
    by what they hold; ``odd`` those of which a score is none of the measure's labels. ``judges`` are a log's own, the
    first of which is the rows' ``judge``; none where the file names none. ``notes`` say what was taken for granted.
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
    left_out: Mapping[str, tuple[str, ...]] = {}
    odd: Mapping[str, tuple[str, ...]] = {}
    judges: tuple[Instrument, ...] = ()
    notes: tuple[str, ...] = ()


def read_source(path: Path, measure: Measure, columns: Chosen | None = None, one: str | None = None) -> Source:
    """Read a file of answers. Its shape is told by its content.

    ``columns`` names the columns of a table for which the known names do not fit: purpose -> column. Where a column
    says which prompts are safe (:mod:`redinstruct.questions.halves`), the measure's rows are kept, as by ``eval``.
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
        if inspect_log.is_archive(path):
            with opened_zip(path) as parts:
                found = _of_log(_empty(path), inspect_log.read_parts(parts), measure, one)
            sha256 = sha256_of(path)
        elif pyrit.is_memory(path):
            found = _of_told(_empty(path), pyrit.read_memory(path, measure, one))
            sha256 = sha256_of(path)
        else:
            file = _file(path, columns or {})
            with closing(file.rows()) as rows:
                found = _read(path, rows, measure, columns or {}, one)
            sha256 = file.sha256
        if not found.rows:
            raise UsageError(
                "; ".join(["holds no answers", *(f"{what}: {len(of)}" for what, of in found.left_out.items())])
            )
        return _narrowed(msgspec.structs.replace(found, sha256=sha256), measure)
    except (BankError, UsageError) as error:
        raise UsageError(f"{terminal(str(path))}: {error}") from None


def _file(path: Path, columns: Chosen) -> RowFile:
    """The file, its header to be checked against the columns that a table of answers needs."""
    return RowFile(
        path, "an answer", lacks=lambda header: lacking(header, columns), meant=bool, is_row=peers.is_one_answer
    )


def _read(path: Path, rows: Iterator[JsonRow | Leaf], measure: Measure, columns: Chosen, one: str | None) -> Source:
    empty = _empty(path)
    leaves: list[JsonRow | Leaf] = []
    first = next(rows, None)
    while isinstance(first, Leaf):
        leaves.append(first)
        first = next(rows, None)
    if first is None and not leaves:
        return empty
    rows = chain(leaves, () if first is None else [first], rows)
    if inspect_log.is_log(leaves):
        return _of_log(empty, inspect_log.read_rows(rows), measure, one)
    if (tool := logs.tool_of(leaves, first)) is not None:
        return _of_told(empty, logs.read_log(tool, rows, measure, one))
    if first is not None and first.topic is not None and fold(first.topic) == _COMPLETIONS:
        first, rows = first._replace(topic=None), (r._replace(topic=None) for r in rows if isinstance(r, JsonRow))
    if first is None or first.topic is not None:
        found, model, method = peers.artifact(rows, measure)
        return _of(empty, found, "jailbreakbench", model=model, prompt=method, labels="judge")
    if peers.is_garak(first):
        return _of_told(empty, peers.garak(row for row in rows if isinstance(row, JsonRow)))
    table = rows_of((row for row in rows if isinstance(row, JsonRow)), measure, columns, one)
    named = peers.named_results(path)
    if named is None:
        source = _of(empty, table.answers, "table", labels=table.labels)
    else:
        own, answers = msgspec.structs.replace(empty, bank=named.bank), peers.without_filtered(table.answers)
        source = _of(own, answers, "red-instruct", model=named.model, prompt=named.prompt, labels=table.labels)
    return msgspec.structs.replace(source, numbers=tuple(table.numbers), odd=table.odd, notes=table.notes)


def _empty(path: Path) -> Source:
    name = terminal(stem_of(path))
    return Source(name, "", f"{IMPORTED}/{name}", IMPORTED, (), (), "none", "table")


def _of_log(empty: Source, log: inspect_log.Log, measure: Measure, one: str | None) -> Source:
    """A log of Inspect."""
    spec = log.header.eval
    read = rows_of_log(log, measure, one)
    return _with(empty, read, "inspect", model=spec.model, bank=spec.dataset.name or spec.task)


def _of_told(empty: Source, told: logs.LogHead) -> Source:
    return _with(empty, told.read, told.format, model=told.model, bank=told.task)


def _with(empty: Source, read: LogRows, format_: str, *, model: str | None, bank: str | None) -> Source:
    return msgspec.structs.replace(
        empty,
        bank=terminal(bank) if bank else empty.bank,
        model=model or empty.model,
        rows=read.rows,
        numbers=read.numbers,
        selected=Selected(len(read.rows)),
        format=format_,
        labels="judge" if read.judges else "none",
        left_out=read.left_out,
        odd=read.odd,
        judges=read.judges,
        notes=read.notes,
    )


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
