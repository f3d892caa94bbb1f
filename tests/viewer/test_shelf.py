"""Which runs a folder holds, each in a line; what does not read is a line that says why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redinstruct.run import CollectionStore, Store
from redinstruct.stats import wilson
from redinstruct.types import JudgeCard
from redinstruct.viewer import shelf as shelf_module
from redinstruct.viewer.shelf import DEEPEST, Shelf, Worst, line_of, runs_below
from tests.support.stores import CARD, TEMPLATES, Setup, fill, make_bank, scratch
from tests.support.useful import check, right

P, N = "harmful", "unharmful"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def run_of(folder: Path, labels: list[str], setup: Setup | None = None) -> Path:
    with Store.open_for_writing(folder) as store:
        setup = setup or Setup(banks=(make_bank(4),))
        fill(store, setup.plan(store), labels)
    return folder


def test_an_evaluation_in_a_line(tmp_path: Path) -> None:
    run_of(tmp_path / "run", [P, N, N, N, P, P, N, "unparsable"])
    line = line_of(tmp_path / "run", "run")
    assert (line.kind, line.model, line.measure) == ("evaluation", "openai/m", "attack_success")
    assert (line.banks, line.prompts, line.judge) == (("bank",), ("standard", "cou"), "refusal")
    assert (line.done, line.planned) == (8, 8)
    rate = wilson(2, 3)
    assert rate.estimate is not None
    assert line.worst == Worst("cou", "bank", rate.estimate, rate.low, rate.high, 3)
    assert line.began is not None
    assert line.seconds is not None


def test_what_is_unfinished_unjudged_or_empty_says_so(tmp_path: Path) -> None:
    half = line_of(run_of(tmp_path / "half", [P]), "half")
    assert (half.done, half.planned) == (1, 8)
    none = line_of(run_of(tmp_path / "none", []), "none")
    assert (none.kind, none.done, none.worst) == ("evaluation", 0, None)
    with Store.open_for_writing(tmp_path / "empty"):
        pass
    assert line_of(tmp_path / "empty", "empty").kind == "empty"


def test_utility_checks_and_collections_are_lines_too(tmp_path: Path) -> None:
    useful = line_of(check(tmp_path / "u", {"facts": right(3, 4)}), "u")
    assert (useful.kind, useful.told, useful.done, useful.planned) == ("utility", "facts 0.75", 1, 1)
    with Store.open_for_writing(tmp_path / "c") as store:
        CollectionStore(store).begin("d" * 64, "{}", TEMPLATES[0])
    assert line_of(tmp_path / "c", "c").kind == "collection"


@pytest.mark.parametrize("damage", ["cut", "flipped", "another file", "a folder"])
def test_a_damaged_run_is_a_line_and_no_crash(tmp_path: Path, damage: str) -> None:
    run_of(tmp_path / "good", [P, N])
    file = run_of(tmp_path / "bad", [P, N]) / "run.sqlite"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(content)
    elif damage == "another file":
        file.write_bytes(b"not a database at all")
    else:
        file.unlink()
        file.mkdir()
    lines = {line.place: line for line in Shelf(tmp_path).lines()}
    assert lines["good"].kind == "evaluation"
    if damage != "a folder":
        assert lines["bad"].kind == "unreadable"
        assert lines["bad"].problem


def test_a_run_that_is_being_written_is_read(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, Setup().plan(store), [P])
        shelf = Shelf(tmp_path)
        assert [line.done for line in shelf.lines()] == [1]
        fill(store, 1, [N], first=2)
        assert [line.done for line in shelf.lines()] == [2]


def test_runs_are_found_in_folders_and_in_runs_but_through_no_link(tmp_path: Path) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    run_of(outside / "run", [P])
    for place in ("a", "b/c", "a/attacks/part", ".hidden/run", "/".join("x" * (DEEPEST + 1))):
        run_of(home / place, [P])
    (home / "link").symlink_to(outside, target_is_directory=True)
    found = [run.relative_to(home).as_posix() for run in runs_below(home)]
    assert found == ["a", "a/attacks/part", "b/c"]
    assert [run.name for run in runs_below(home / "a")] == ["a", "part"]


def test_a_folder_that_may_not_be_looked_into_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_of(tmp_path / "run", [P])
    (tmp_path / "closed").mkdir()
    scan = os.scandir

    def refusing(place: Any) -> object:
        if str(place).endswith("/closed"):
            raise PermissionError(13, "denied")
        return scan(place)

    monkeypatch.setattr(os, "scandir", refusing)
    assert [run.name for run in runs_below(tmp_path)] == ["run"]


def test_no_more_runs_than_a_page_can_bear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "MOST_RUNS", 2)
    for number in range(4):
        run_of(tmp_path / str(number), [])
    assert len(list(runs_below(tmp_path))) == 2


def test_only_what_was_listed_is_opened(tmp_path: Path) -> None:
    run_of(tmp_path / "home" / "run", [P])
    run_of(tmp_path / "secret", [P])
    shelf = Shelf(tmp_path / "home")
    assert shelf.run("run") is None, "nothing was listed yet"
    shelf.lines()
    assert shelf.run("run") == tmp_path / "home" / "run"
    for place in ("../secret", "run/../../secret", str(tmp_path / "secret"), "", ".", "none"):
        assert shelf.run(place) is None


def test_the_newest_run_comes_first_and_a_line_is_read_again_only_where_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        monkeypatch.setattr("time.time", lambda now=number: 1e9 + now)
        run_of(tmp_path / str(number), [P])
    read: list[str] = []

    def noted(run: Path, place: str) -> shelf_module.ShelfLine:
        read.append(place)
        return line_of(run, place)

    monkeypatch.setattr(shelf_module, "line_of", noted)
    shelf = Shelf(tmp_path)
    assert [line.place for line in shelf.lines()] == ["2", "1", "0"]
    shelf.lines()
    assert sorted(read) == ["0", "1", "2"]
    with Store.open_for_writing(tmp_path / "1") as store:
        fill(store, store.add_judge(CARD), [N], first=2)
    assert [line.done for line in shelf.lines()] == [1, 2, 1]
    assert sorted(read) == ["0", "1", "1", "2"]


def test_the_judge_that_leads_gives_the_rate(tmp_path: Path) -> None:
    card = JudgeCard("rubric", "attack_success", "openai/j")
    run = run_of(tmp_path / "run", [P], Setup(banks=(make_bank(4),), card=card))
    with Store.open_for_writing(run) as store:
        fill(store, store.add_judge(CARD), [], first=2)
    assert line_of(run, "run").judge == "rubric on openai/j"
