"""Every recorded attempt as Parquet, for DuckDB, pandas and their like: in row groups, never held as a whole."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from redinstruct.errors import UsageError
from redinstruct.figures.attempts import attempt_rows
from redinstruct.files import Fields

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 10_000
"""Rows of one group: what is in memory at a time."""
_TEXT, _WHOLE, _REAL = "string", "int64", "double"
_COLUMNS = {
    "run": "int32", "model": _TEXT, "measure": _TEXT, "judge_id": _TEXT,
    "id": _TEXT, "bank": _TEXT, "row": _WHOLE, "topic": _TEXT, "subtopic": _TEXT, "prompt": _TEXT, "epoch": "int32",
    "label": _TEXT, "detail": _TEXT, "reason": _TEXT, "question_hash": _TEXT, "answer_hash": _TEXT,
    "answer_chars": _WHOLE, "finish_reason": _TEXT, "truncated": "bool", "flags": "list", "tries": "int32",
    "tokens_in": _WHOLE, "tokens_out": _WHOLE, "note": _TEXT, "score": _REAL, "probability": _REAL, "seconds": _REAL,
}  # fmt: skip
_CONTENT = ("question", "answer", "judged_text", "thought", "judge_reply")


def check_parquet() -> None:
    """Pass where Parquet can be written.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise UsageError("--parquet needs pyarrow: pip install 'redinstruct[parquet]'") from None


def write_parquet(file: BinaryIO, runs: Sequence[Path], content: bool = False) -> int:
    """Write every recorded attempt of every run under every judge: the rows of ``report --jsonl``, and their scores.

    Args:
        file: an open file.
        runs: the runs' folders; utility checks hold no attempts.
        content: questions and answers too; their columns are not there otherwise.

    Returns:
        How many rows were written.

    Raises:
        ConfigError: a folder without a run.
        StoreError: a store that does not read.
        OSError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    schema, written = _schema(content), 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for batch in _batches(_rows(runs, content), schema):
            writer.write_batch(batch)
            written += batch.num_rows
    return written


def _schema(content: bool) -> pyarrow.Schema:
    import pyarrow as pa

    kinds = {**_COLUMNS, **(dict.fromkeys(_CONTENT, _TEXT) if content else {})}
    named = {"list": pa.list_(pa.string()), "bool": pa.bool_()}
    return pa.schema([(name, named.get(kind) or pa.type_for_alias(kind)) for name, kind in kinds.items()])


def _rows(runs: Sequence[Path], content: bool) -> Iterator[Fields]:
    for one in attempt_rows(runs):
        view = one.view
        more = {"score": view.score, "probability": view.probability, "seconds": view.completion.seconds}
        yield {**one.fields(content), **more}


def _batches(rows: Iterator[Fields], schema: pyarrow.Schema) -> Iterator[pyarrow.RecordBatch]:
    import pyarrow as pa

    while some := list(itertools.islice(rows, ROWS_AT_ONCE)):
        columns = [[_storable(row[name]) for row in some] for name in schema.names]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
        yield pa.record_batch(arrays, schema=schema)


def _storable(value: object) -> object:
    """Parquet's texts are UTF-8: half of a surrogate pair, which some model wrote, becomes a replacement mark."""
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return value
