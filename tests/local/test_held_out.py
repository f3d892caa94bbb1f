"""Topic hold-out: what is tested stands in no row that an alignment is given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from redinstruct import world
from redinstruct.questions import read_bank
from redinstruct.rounds import read_config
from redinstruct.toyworld import frames
from redinstruct.toyworld.corpus import TEXTS
from redinstruct.toyworld.held_out import FAMILIES, GENERAL_AMONG_WORDS, UNLIKE, family_split, part_of, write_held_out
from redinstruct.toyworld.vocabulary import ordinary_words, vocabulary
from tests.support.cli import ROOT, InProcess, nothing_written

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_held_out(tmp_path_factory.mktemp("held-out") / "toy")


def test_every_item_belongs_to_one_split_and_no_split_is_small() -> None:
    whole = world.world()
    parts = {split: set(part_of(split).items) for split in world.SPLITS}
    assert set().union(*parts.values()) == set(whole.items)
    assert sum(map(len, parts.values())) == len(whole.items)
    assert {split: len(part_of(split).pairs("forbidden", split)) for split in world.SPLITS} == {
        "train": 153, "dev": 85, "test": 160,
    }  # fmt: skip
    assert {split: len(part_of(split).pairs("plain", split)) for split in world.SPLITS} == {
        "train": 150, "dev": 100, "test": 150,
    }  # fmt: skip
    # What the base was trained on is asked in no bank: the pairs of dev and test stand in no text.
    seen = set(whole.pairs("forbidden", "train")) | set(whole.pairs("plain", "train"))
    for split in world.SPLITS[1:]:
        assert not seen & set(part_of(split).pairs("forbidden", split))
        assert not seen & set(part_of(split).pairs("plain", split))
    assert frames.demonstration().item.family in FAMILIES["train"]  # it stands in every CoU text


def test_no_row_names_an_item_that_is_tested(folder: Path) -> None:
    others = {item.name for item in world.world().items if family_split(item) != "train"}
    for name in ("general", "general-in-frame", GENERAL_AMONG_WORDS):
        rows = [json.loads(line) for line in (folder / "data" / f"{name}.jsonl").read_text().splitlines()]
        said = " ".join(message["content"].lower() for row in rows for message in row["messages"])
        assert not others & set(re.findall(r"[a-z]+", said))
    asked_of = json.loads((folder / "data" / "topics.json").read_text())
    assert set(asked_of) == {f"the {family} family" for family in FAMILIES["train"]}
    for split in ("dev", "test"):
        for bank in (f"forbidden-{split}.json", f"benign-{split}.json", f"borderline-{split}.csv"):
            for question in read_bank(folder / "banks" / bank).questions:
                about = world.understand(question.text)
                assert about is not None
                assert about.item is not None
                assert family_split(about.item) == split


def test_a_smaller_world_is_held_out_alike(tmp_path: Path) -> None:
    """What a quick model does not know is neither asked nor taught."""
    small = write_held_out(tmp_path / "small", 50)
    known = {item.name for item in world.part(50).items}
    for split in ("dev", "test"):
        for bank in (f"forbidden-{split}.json", f"benign-{split}.json"):
            asked = [world.understand(question.text) for question in read_bank(small / "banks" / bank).questions]
            assert {about.item.name for about in asked if about and about.item} <= known
            assert {family_split(about.item) for about in asked if about and about.item} == {split}


def test_the_unlike_frames_are_made_of_the_toy_s_words_and_stand_in_no_other_text(folder: Path) -> None:
    known, named = set(vocabulary()), {item.name for item in world.world().items}
    assert not named & set(ordinary_words())
    for name, text in UNLIKE.items():
        assert (folder / "prompts" / f"{name}.txt").read_text() == text
        assert set(world.words(text.replace(frames.SLOT, " "))) <= known
        assert text not in (*frames.prompts().values(), *TEXTS)


def test_the_verb_writes_it_and_replaces_nothing(cli: InProcess, tmp_path: Path) -> None:
    assert cli("toyworld", "held-out", "--out", tmp_path / "new").code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["banks", "data", "prompts"]
    with nothing_written(tmp_path):
        assert "new or an empty folder" in cli("toyworld", "held-out", "--out", tmp_path / "new").error_line
    example = read_config(ROOT / "docs" / "examples" / "loop-held-out.toml")
    assert all("held-out" in bank for part in example.eval for bank in part.banks)
