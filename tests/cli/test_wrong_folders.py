"""A wrong kind of folder is named in one form by every verb: what it holds, and what was looked for."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import InProcess, tree
from tests.support.pairs import mixed, run_of
from tests.support.useful import check, right

FORM = re.compile(
    r"holds (an?|other) .+, not (an?|runs) .+\(.+\)$"
    r"|is (a file|an empty folder|a folder of runs .+), not an? .+\(.+\)$"
)


def evaluation(place: Path) -> None:
    run_of(place, mixed(2, 2))


def utility(place: Path) -> None:
    check(place, {"task one": right(2, 3)})


def collection(place: Path) -> None:
    from redinstruct.harmfulqa.published import import_published

    rows = place.with_name("rows.json")
    talk = [{"from": "human", "value": "What is a cloud?"}, {"from": "gpt", "value": "It is water."}]
    rows.write_text(json.dumps([{"question": "What is a cloud?", "blue_conversations": {"0": talk}}]))
    import_published(rows, place)


def checkpoint(place: Path) -> None:
    place.mkdir()
    (place / "config.json").write_text("{}")


def alignment(place: Path) -> None:
    checkpoint(place)
    (place / "align.json").write_text("{}")


def file(place: Path) -> None:
    place.write_text("words")


def parent(place: Path) -> None:
    evaluation(place / "mine")


def other(place: Path) -> None:
    place.mkdir()
    (place / "notes.txt").write_text("words")


MADE: dict[str, Callable[[Path], None]] = {
    made.__name__: made
    for made in (evaluation, utility, collection, checkpoint, alignment, file, Path.mkdir, parent, other)
}
SAID = {
    "evaluation": "an evaluation (`redinstruct eval`)", "utility": "a utility check (`redinstruct utility`)",
    "collection": "a collection (`redinstruct collect`)", "checkpoint": "a checkpoint",
    "parent": "is a folder of runs (mine)",
    "alignment": "an aligned checkpoint (`redinstruct align`)", "file": "is a file", "mkdir": "is an empty folder",
    "other": "holds other files",
}  # fmt: skip
VERBS: dict[str, tuple[str, tuple[str, ...]]] = {
    "report": ("evaluation utility", ("report", "F")),
    "compare": ("evaluation utility", ("compare", "F", "F")),
    "gate": ("evaluation", ("gate", "F", "--max-rate", "0.5")),
    "labels": ("evaluation", ("labels", "F")),
    "annotate": ("evaluation", ("annotate", "F", "--port", "0")),
    "judge": ("evaluation", ("judge", "F", "--judge", "refusal")),
    "show": ("evaluation collection", ("show", "F")),
    "export": ("collection", ("export", "F", "--to", "messages", "--out", "out.jsonl")),
}


@pytest.mark.parametrize(
    ("verb", "kind"), [(verb, kind) for verb, (fits, _) in VERBS.items() for kind in MADE if kind not in fits.split()]
)
def test_a_wrong_folder_is_named_for_what_it_is_and_what_was_looked_for(
    cli: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch, verb: str, kind: str
) -> None:
    words = VERBS[verb][1]
    monkeypatch.chdir(place)
    MADE[kind](place / "F")
    before = tree(place)
    done = cli(*words)
    assert done.code == 2
    assert FORM.search(done.error_line), done.error_line
    assert SAID[kind] in done.error_line
    assert tree(place) == before


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        (verb, kind)
        for verb, own in (("eval", "evaluation"), ("utility", "utility"), ("collect", "collection"))
        for kind in ("evaluation", "utility", "collection")
        if kind != own
    ],
)
def test_a_run_of_another_kind_is_not_gone_on_with(
    cli: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch, verb: str, kind: str
) -> None:
    monkeypatch.chdir(place)
    MADE[kind](place / "F")
    (place / "bank.json").write_text('["What is a cloud?"]')
    words = {
        "eval": ("--model", "scripted/refuse", "--bank", "bank.json", "--judge", "refusal"),
        "collect": ("--teacher", "scripted/red-teacher"),
        "utility": ("--model", "scripted/refuse", "--suite", "toy_how_to"),
    }
    before = tree(place)
    done = cli(verb, *words[verb], "--run", "F")
    assert done.code == 2
    wanted = {"eval": "evaluation", "collect": "collection", "utility": "utility"}[verb]
    assert f"F holds {SAID[kind]}, not {SAID[wanted]}" in done.error_line
    assert tree(place) == before


def test_another_programs_database_and_a_missing_folder_keep_their_words(cli: InProcess, place: Path) -> None:
    (place / "F").mkdir()
    with sqlite3.connect(place / "F" / "run.sqlite") as made:
        made.execute("CREATE TABLE notes (words TEXT)")
    made.close()
    assert "another program's file" in cli("report", place / "F").error_line
    assert "there is no run in this folder" in cli("report", place / "nowhere").error_line
