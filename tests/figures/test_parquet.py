"""`report --parquet`: the same attempts as the figures count, in row groups, without a text unless it was asked for."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from redinstruct.figures import parquet
from redinstruct.run import Store
from redinstruct.types import Verdict
from tests.support.cli import InProcess, write_bank
from tests.support.stores import CARD, OTHER_CARD, Setup, make_bank, text

pq = pytest.importorskip("pyarrow.parquet")


def two_judges(run: Path) -> None:
    """Eight attempts, two judges, an error, an answer of half a surrogate pair."""
    setup = Setup(banks=(make_bank(4),))
    with Store.open_for_writing(run) as store:
        first, second = setup.plan(store), store.add_judge(OTHER_CARD)
        for row in range(1, 9):
            store.commit_completions([(row, 0, text(f"secret words {row} \ud800"))])
            store.commit_verdicts([(row, 0, first, 0, Verdict("harmful" if row % 3 else "unharmful", score=0.5))])
            store.commit_verdicts([(row, 0, second, 0, Verdict("unharmful" if row % 2 else "unparsable"))])


def counted(rows: list[dict[str, Any]]) -> Counter[tuple[str, str, str, str]]:
    return Counter((row["judge_id"], row["bank"], row["prompt"], row["label"]) for row in rows)


def test_the_rows_are_those_that_the_report_counts(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_judges(tmp_path / "run")
    monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 3)
    file = tmp_path / "a.parquet"
    done = cli("report", tmp_path / "run", "--parquet", file, "--jsonl", tmp_path / "a.jsonl", "--json")
    assert done.code == 0, done.err
    found = pq.ParquetFile(file)
    assert found.num_row_groups == 6, "16 rows, three at a time"
    rows = found.read().to_pylist()
    figures = Counter(
        {
            (result["judge_id"], result["bank"], result["prompt"], label): count
            for result in done.json["results"]
            for label, count in result["counts"].items()
            if label != "total" and count
        }
    )
    assert counted(rows) == figures
    assert {row["judge_id"] for row in rows} == {CARD.id, OTHER_CARD.id}
    assert len(rows) == len((tmp_path / "a.jsonl").read_text().splitlines())
    assert {row["score"] for row in rows if row["judge_id"] == CARD.id} == {0.5}
    assert "answer" not in found.schema_arrow.names
    assert b"secret words" not in file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600


def test_texts_come_with_the_flag_alone(cli: InProcess, tmp_path: Path) -> None:
    two_judges(tmp_path / "run")
    file = tmp_path / "a.parquet"
    assert cli("report", tmp_path / "run", "--parquet", file, "--show-content").code == 0
    rows = pq.read_table(file).to_pylist()
    assert {row["answer"] for row in rows} == {f"secret words {row} \ufffd\ufffd\ufffd" for row in range(1, 9)}
    assert all(row["question"].startswith("What is item") for row in rows)


def test_pandas_reads_it_in_one_line(cli: InProcess, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    bank, run, file = write_bank(tmp_path, 5), tmp_path / "run", tmp_path / "a.parquet"
    assert cli("eval", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run", run).code == 0
    assert cli("report", run, run, "--parquet", file).code == 0
    table = pandas.read_parquet(file)
    assert dict(table.groupby("run").size()) == {1: 15, 2: 15}
    assert set(table.columns) == {field.name for field in parquet._schema(False)}


def test_without_pyarrow_it_says_what_to_install(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_judges(tmp_path / "run")
    (tmp_path / "a.csv").write_text("kept")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    done = cli("report", tmp_path / "run", "--parquet", tmp_path / "a.parquet", "--csv", tmp_path / "a.csv")
    assert "pip install 'redinstruct[parquet]'" in done.error_line
    assert (tmp_path / "a.csv").read_text() == "kept"
    assert not (tmp_path / "a.parquet").exists()


def test_a_place_that_can_not_be_written_is_one_line(cli: InProcess, tmp_path: Path) -> None:
    two_judges(tmp_path / "run")
    for wrong in (tmp_path, tmp_path / "none" / "a.parquet", tmp_path / "run" / "run.sqlite"):
        assert "--parquet" in cli("report", tmp_path / "run", "--parquet", wrong).error_line
