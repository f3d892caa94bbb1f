"""A file of answers, read and checked as a whole before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import msgspec

from redinstruct.errors import BankError, UsageError
from redinstruct.files import JsonRow, Leaf, RowFile, fold, stem_of
from redinstruct.files.zipped import opened_zip, sha256_of
from redinstruct.interop import inspect_log, logs, peers, pyrit
from redinstruct.interop.inspect_rows import rows_of_log
from redinstruct.interop.rows import Source
from redinstruct.interop.settings import IMPORTED
from redinstruct.interop.tables import COLUMNS, Chosen, lacking, rows_of
from redinstruct.questions.spread import Selected
from redinstruct.safetext import terminal
from redinstruct.types import Measure

_COMPLETIONS = "completions"
"""A key under which published evaluations hold their rows, beside their rates (andyrdt/refusal_direction)."""


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
                found = rows_of_log(inspect_log.read_parts(parts), measure, one)
            sha256 = sha256_of(path)
        elif pyrit.is_memory(path):
            found = pyrit.read_memory(path, measure, one)
            sha256 = sha256_of(path)
        else:
            file = _file(path, columns or {})
            with closing(file.rows()) as rows:
                found = _read(path, rows, measure, columns or {}, one)
            sha256 = file.sha256
        if columns and found.format not in ("table", peers.NAMED_RESULTS):
            raise UsageError(f"--column: only for a table of answers, and this is {found.format}")
        if not found.rows:
            raise UsageError(
                "; ".join(["holds no answers", *(f"{what}: {len(of)}" for what, of in found.left_out.items())])
            )
        name = terminal(stem_of(path))
        return _narrowed(
            msgspec.structs.replace(
                found,
                sha256=sha256,
                bank=terminal(found.bank) or name,
                model=found.model or f"{IMPORTED}/{name}",
                prompt=found.prompt or IMPORTED,
                selected=Selected(len(found.rows)),
            ),
            measure,
        )
    except (BankError, UsageError) as error:
        raise UsageError(f"{terminal(str(path))}: {error}") from None


def _file(path: Path, columns: Chosen) -> RowFile:
    """The file, its header to be checked against the columns that a table of answers needs."""
    return RowFile(
        path, "an answer", lacks=lambda header: lacking(header, columns), meant=bool, is_row=peers.is_one_answer
    )


def _read(path: Path, rows: Iterator[JsonRow | Leaf], measure: Measure, columns: Chosen, one: str | None) -> Source:
    leaves: list[JsonRow | Leaf] = []
    first = next(rows, None)
    while isinstance(first, Leaf):
        leaves.append(first)
        first = next(rows, None)
    if first is None and not leaves:
        return Source(format="table")
    rows = chain(leaves, () if first is None else [first], rows)
    if inspect_log.is_log(leaves):
        return rows_of_log(inspect_log.read_rows(rows), measure, one)
    if (tool := logs.tool_of(leaves, first)) is not None:
        return logs.read_log(tool, rows, measure, one)
    if first is not None and first.topic is not None and fold(first.topic) == _COMPLETIONS:
        first, rows = first._replace(topic=None), (r._replace(topic=None) for r in rows if isinstance(r, JsonRow))
    if first is None or first.topic is not None:
        return peers.artifact(rows, measure)
    if peers.is_garak(first):
        return peers.garak(row for row in rows if isinstance(row, JsonRow))
    table = rows_of((row for row in rows if isinstance(row, JsonRow)), measure, columns, one)
    return peers.named_results(path, table) or table


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
