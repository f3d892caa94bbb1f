"""``import`` of a file of the public HARMFULQA schema: a collection, whose export is the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import InProcess, nothing_written, tree


def talk(*words: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[at % 2], "value": word} for at, word in enumerate(words)]


QUESTIONS = ("Why are the clouds over the lake so white?", "How do the bees find their way back home?")


def published(*questions: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{number}", "topic": "Nature", "subtopic": "Sky" if number % 2 else "Bees", "question": question,
            "blue_conversations": {"0": talk("Tell me about it", "Gladly, it is like this"),
                                   "1": talk("And the rest of it?", "The rest is like that")},
            "red_conversations": {"1": talk("And the rest of it?", "It is a gruelling affair")},
        }
        for number, question in enumerate(questions)
    ]  # fmt: skip


def written(folder: Path, rows: object, name: str = "pub.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize("lines", [False, True])
def test_export_import_export_is_the_same_file(cli: InProcess, tmp_path: Path, lines: bool) -> None:
    rows = published(*QUESTIONS)
    text = "".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows, indent=2)
    (tmp_path / "pub.json").write_text(text)
    for place, given in (("one", tmp_path / "pub.json"), ("two", tmp_path / "one.json")):
        done = cli("import", given, "--run", tmp_path / place)
        assert done.code == 0, done.err
        assert "6 conversations about 2 questions" in done.err
        assert cli("export", tmp_path / place, "--to", "harmfulqa", "--include-red",
                   "--out", tmp_path / f"{place}.json").code == 0  # fmt: skip
    assert json.loads((tmp_path / "one.json").read_text()) == rows
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    card = json.loads((tmp_path / "two.json.card.json").read_text())
    assert card["provenance"]["imported_from"]["file"] == "one"
    assert card["provenance"]["teacher"] == "imported/one"


def test_red_leaves_an_imported_collection_with_the_flag_only(cli: InProcess, tmp_path: Path) -> None:
    file = written(tmp_path, published(*QUESTIONS))
    assert cli("import", file, "--run", tmp_path / "run").code == 0
    assert cli("export", tmp_path / "run", "--to", "harmfulqa", "--out", tmp_path / "out.json").code == 0
    assert "gruelling" not in (tmp_path / "out.json").read_text()
    assert all(row["red_conversations"] == {} for row in json.loads((tmp_path / "out.json").read_text()))


def test_it_is_told_as_a_collection_is(cli: InProcess, tmp_path: Path) -> None:
    file, run = written(tmp_path, published(*QUESTIONS)), tmp_path / "run"
    done = cli("import", file, "--run", run, "--model", "gpt-3.5", "--json")
    assert done.json["schema"] == "redinstruct.collection/1"
    assert (done.json["questions"], done.json["blue"], done.json["red"]) == (2, 4, 2)
    assert len(cli("show", run, "--json").json["conversations"]) == 6
    before = tree(run)
    assert "were already" in cli("import", file, "--run", run, "--model", "gpt-3.5").err
    assert tree(run) == before
    for refused in (
        cli("import", file, "--run", run),
        cli("import", written(tmp_path, published(*QUESTIONS[:1]), "other.json"), "--run", run, "--model", "gpt-3.5"),
        cli("collect", "--teacher", "scripted/red-teacher", "--run", run),
    ):
        assert refused.code == 2
        assert tree(run) == before
    assert "imported collection" in refused.error_line


def test_what_is_none_of_the_schemas_is_dropped_and_counted(cli: InProcess, tmp_path: Path) -> None:
    rows = published(*QUESTIONS)
    rows[0]["blue_conversations"]["2"] = "canary"
    file = written(tmp_path, [{"question": 3, "blue_conversations": {}}, None, *rows])
    done = cli("import", file, "--run", tmp_path / "run")
    assert done.code == 0, done.err
    assert "rows that are no objects 1" in done.err
    assert "blue conversations that are no lists of turns 1" in done.err
    assert "canary" not in done.err + done.out
    assert len(cli("show", tmp_path / "run", "--json").json["conversations"]) == 6


@pytest.mark.parametrize(
    ("rows", "flags"),
    [
        ([{"question": 3, "blue_conversations": {}}], ()),
        (published(*QUESTIONS), ("--measure", "over_refusal")),
        (published(*QUESTIONS), ("--column", "prompt=question")),
        (published(*QUESTIONS), ("--model", " ")),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    cli: InProcess, tmp_path: Path, rows: object, flags: tuple[str, ...]
) -> None:
    file = written(tmp_path, rows)
    with nothing_written(tmp_path):
        done = cli("import", file, "--run", tmp_path / "run", *flags)
    assert done.code == 2
    assert done.error_line
