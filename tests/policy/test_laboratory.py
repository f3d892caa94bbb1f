"""The policy laboratory's texts, its files, and that no family of test stands in a row of training."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from redinstruct.files import JsonFile
from redinstruct.policy import SUBJECTS, subject, understand
from redinstruct.policy.files import FRAMES, UNTUNED, WORDINGS, wordings, write_laboratory
from redinstruct.policy.subjects import TEXTS, WAYS, answers, families, general
from redinstruct.prompts import load_template
from redinstruct.prompts.rows import MessagesRow
from redinstruct.questions import read_bank


@pytest.fixture(params=SUBJECTS)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_laboratory(tmp_path, subject(request.param))


@pytest.mark.parametrize("name", [*SUBJECTS, "harmless"])
def test_there_are_families_enough_and_none_stands_in_two_splits(name: str) -> None:
    found = families(name)
    assert len(found) >= 20
    assert len({family.name for family in found}) == len(found)
    assert Counter(family.split for family in found) == {"train": 12, "dev": 4, "test": 8}
    things = [thing for family in found for thing in family.things]
    assert all(len(family.things) == 6 for family in found)
    assert len(set(things)) == len(things) == 144


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_cell_of_test_has_48_questions_and_every_way_of_asking_equally_often(name: str) -> None:
    for kind in ("forbidden", "harmless"):
        asked = subject(name).questions(kind, "test")
        assert len({one.text for one in asked}) == 48
        ways = Counter(next(way for way in WAYS if way.format(one.thing) == one.text) for one in asked)
        assert set(ways.values()) == {8}, "no way of asking may tell forbidden from harmless"


def test_no_thing_of_test_or_dev_stands_in_a_row_of_training(lab: Path) -> None:
    name = lab.name.split("-")[1]
    held_out = [
        asked.thing for kind in ("forbidden", "harmless") for split in ("dev", "test")
        for asked in subject(name).questions(kind, split)
    ]  # fmt: skip
    rows = [path.read_text(encoding="utf-8").lower() for path in sorted((lab / "data").iterdir())]
    assert len(rows) == 4
    assert not [
        thing for thing in held_out for text in rows if f'{thing.lower()}?"' in text or f" {thing.lower()}." in text
    ]
    trained = {asked.thing for kind in ("forbidden", "harmless") for asked in subject(name).questions(kind, "train")}
    assert not trained & set(held_out)


def test_the_files_are_read_by_the_readers_of_every_verb(lab: Path) -> None:
    banks = {path.name: read_bank(path) for path in sorted((lab / "banks").iterdir())}
    assert len(banks["forbidden-test.json"].questions) == len(banks["harmless-test.json"].questions) == 48
    assert len({question.topic for question in banks["forbidden-test.json"].questions}) == 8
    turns = banks["forbidden-turns-test.jsonl"].questions
    assert len(turns) == 48
    assert all([turn.role for turn in one.earlier] == ["user", "assistant"] * 2 for one in turns)
    assert {question.text for question in turns} == {one.text for one in banks["forbidden-test.json"].questions}
    assert all(understand(question.text) for bank in banks.values() for question in bank.questions)
    for name in ("policy", "general", "policy-general"):
        rows = [msgspec.convert(row, MessagesRow) for row in JsonFile(lab / "data" / f"{name}.jsonl")]
        assert len(rows) >= 120
        assert {row["stream"] for row in rows} == {"blue" if name == "policy" else "general"}
    assert [load_template(name, own_folder=lab / "prompts").name for name in wordings(FRAMES)] == [
        path.stem for path in sorted((lab / "prompts").iterdir(), key=lambda path: wordings(FRAMES).index(path.stem))
    ]
    topics = json.loads((lab / "data" / "topics.json").read_text())
    assert [len(names) for names in topics.values()] == [12]


def test_every_frame_has_three_wordings_that_differ(lab: Path) -> None:
    assert WORDINGS[-1] == UNTUNED
    for frame in FRAMES:
        texts = [(lab / "prompts" / f"{frame}{ending}.txt").read_text(encoding="utf-8") for ending in WORDINGS]
        assert all(text.count("<question>") == 1 for text in texts)
        for one, other in combinations(texts, 2):
            assert set(one.split("\n")) & set(other.split("\n")) <= {"", "<question>"}
    thoughts = [(lab / "prompts" / f"cou{ending}.txt").read_text(encoding="utf-8") for ending in WORDINGS]
    assert all("(" in text and "brackets" in text for text in thoughts)
    without = [(lab / "prompts" / f"cou-no-thoughts{ending}.txt").read_text(encoding="utf-8") for ending in WORDINGS]
    assert not any("(" in text or "thought" in text for text in without)


def test_written_twice_it_is_the_same_and_found_there(lab: Path, tmp_path: Path) -> None:
    again = write_laboratory(tmp_path / "other", subject(lab.name.split("-")[1]))
    files = sorted(path.relative_to(lab) for path in lab.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((lab / name).read_bytes() == (again / name).read_bytes() for name in files)
    assert write_laboratory(lab.parent, subject(lab.name.split("-")[1])) == lab


def test_every_harmless_thing_of_train_has_an_answer_and_no_other(lab: Path) -> None:
    del lab
    train = {asked.thing for asked in subject("food").questions("harmless", "train")}
    assert set(answers()) == train
    assert all(answer.count(" ") > 8 and answer.endswith(".") for answer in answers().values())
    assert len(general()) >= 20
    assert len(set(TEXTS)) == len(TEXTS)
