"""Utility checks among a report's runs: beside the rates on every surface, and never in the rates' place."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import msgspec
import pytest

from redinstruct.figures.report import SCHEMA
from redinstruct.figures.scores import Metric, UtilityConfig
from redinstruct.render.markdown import markdown_text
from redinstruct.render.overview import read_runs
from redinstruct.render.page import html_page
from redinstruct.run import Store, UtilityStore
from redinstruct.run.rows import to_json
from tests.support.cli import InProcess
from tests.support.pairs import mixed, run_of
from tests.support.stores import report
from tests.support.useful import check, right


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two evaluations and two utility checks: what a loop leaves of two models."""
    return [
        run_of(tmp_path / "attacked", mixed(6, 4)),
        check(tmp_path / "before", {"mmlu": right(300, 400), "facts": right(90, 100)}),
        run_of(tmp_path / "attacked-after", mixed(2, 8)),
        check(tmp_path / "after", {"mmlu": right(200, 400), "facts": right(90, 100)}),
    ]


def test_the_json_has_them_under_a_key_of_their_own(folders: list[Path]) -> None:
    found = report(folders)
    assert found["schema"] == SCHEMA
    assert found["results"] == report([folders[0], folders[2]])["results"]
    assert [one["model"] for one in found["utility"]] == ["hf/before", "hf/after"]
    assert [
        (one["task"], one["value"], one["n"]) for check in found["utility"] for one in check["results"]
    ] == [("mmlu", 0.75, 400), ("facts", 0.9, 100), ("mmlu", 0.5, 400), ("facts", 0.9, 100)]  # fmt: skip
    assert all(check["complete"] and check["margin"] == 0.02 for check in found["utility"])
    # Without one nothing is there that was not there before.
    assert report(folders[:1]).keys() == {"schema", "results"}
    assert report(folders[1:2])["results"] == []


def test_the_page_and_the_markdown_set_two_checks_side_by_side(folders: list[Path]) -> None:
    page, text = html_page(folders), markdown_text(read_runs(folders))
    for shown in (page, text.replace("\\", "")):
        assert "75.0 % [70.5, 79.0]" in shown
        assert "-25.0 points" in shown
        assert "worse" in shown
        assert "a loss under 2 points counts as none" in shown
    assert '<section id="utility"' in page
    assert "Before and after" in page
    assert '<section id="utility"' not in html_page(folders[:1])
    # One check alone has figures and no change.
    alone = html_page(folders[:2])
    assert "75.0 % [70.5, 79.0]" in alone
    assert "counts as none" not in alone


def test_checks_alone_say_nothing_about_safety(folders: list[Path]) -> None:
    page = html_page(folders[1:2])
    assert "No evaluation is among these runs: what follows says nothing about safety." in page


def test_the_command_shows_them_and_writes_every_file(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = InProcess(capsys)
    names = {flag: tmp_path / f"file.{flag}" for flag in ("out", "csv", "md", "junit", "jsonl")}
    done = cli("report", *folders, *(part for flag, file in names.items() for part in (f"--{flag}", file)))
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert any(line.split()[:2] == ["mmlu", "hf/before"] and "75.0 % [70.5, 79.0]" in line for line in lines)
    assert any(line.strip().startswith("worse") and "mmlu" in line for line in lines)
    assert any(line.strip().startswith("no difference shown") and "facts" in line for line in lines)
    # The formats of attempts and rates hold these alone.
    assert {row["bank"] for row in csv.DictReader(io.StringIO(names["csv"].read_text()))} == {"bank"}
    attempts = [json.loads(line) for line in names["jsonl"].read_text().splitlines()]
    assert {row["run"] for row in attempts} == {1, 3}
    assert cli("report", folders[1], "--json").json["utility"][0]["results"][0]["task"] == "mmlu"


def test_checks_that_cannot_be_compared_say_why(tmp_path: Path) -> None:
    pair = [check(tmp_path / "a", {"mmlu": right(9, 10)}), check(tmp_path / "b", {"mmlu": right(9, 10)}, shots=0)]
    assert "other shots (5 before, 0 after)" in html_page(pair)
    # Other margins: nothing is set side by side, the figures stand.
    other = check(tmp_path / "c", {"mmlu": right(9, 10)}, margin=0.05)
    page = html_page([pair[0], other])
    assert "90.0 % [59.6, 98.2]" in page
    assert "Before and after" not in page


def test_a_score_that_is_no_share_stays_as_it_is(tmp_path: Path) -> None:
    run = check(tmp_path / "r", {"perplexity": [12.0, 14.0, 13.0]}, metric=Metric("word_perplexity", False))
    page = html_page([run])
    assert "word_perplexity (lower is better)" in page
    assert "13 [11.87, 14.13]" in page


def test_a_hostile_name_is_text(tmp_path: Path) -> None:
    folder, name = tmp_path / "r", "<script>alert(1)</script>|\u202e"
    config = UtilityConfig(name, (name,), (), 0.02, "lm-eval", "none", ((name, "hub"),))
    made = check(tmp_path / "made", {name: right(1, 2)})
    with Store.open_for_reading(made) as store:
        rows = UtilityStore(store).tasks()
    with Store.open_for_writing(folder) as store:
        into = UtilityStore(store)
        into.begin(config.digest, to_json(config))
        for row in rows:
            into.commit(row)
    page, text = html_page([folder]), markdown_text(read_runs([folder]))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\u202e" not in page + text
    assert "<script>" not in text
    assert msgspec.json.decode(msgspec.json.encode(report([folder])))["utility"][0]["model"]
