"""The card of an aligned checkpoint shows a hostile name as every other surface does."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from redinstruct.safealign.card import ModelCard, read_card, write_card
from redinstruct.safetext import Secret
from tests.render.test_one_voice import KEY, NAME, SHOWN, of_json, of_markdown

pytestmark = pytest.mark.local


def model_card(folder: Path) -> str:
    """The card of a checkpoint whose base, settings and data have the name."""
    card = ModelCard(
        digest="0" * 64, base=NAME, strategy="blue", preset="paper", settings={NAME: NAME}, parameters={}, seed=0,
        lora=None, processes=1, device="cpu", files=((NAME, "0" * 64),), rows={"blue": 1}, dropped={NAME: 1}, masked={},
        dtype="float32", template={"name": NAME}, figures={}, versions={},
    )  # fmt: skip
    write_card(folder, card)
    return (folder / "README.md").read_text()


def test_a_card_is_read_back_whatever_somebodys_own_figure_was(tmp_path: Path) -> None:
    model_card(tmp_path)
    written = read_card(tmp_path)
    assert written is not None
    asked = {"safety": 1.0, "utility": 0.5, "own": math.nan}
    write_card(tmp_path, msgspec.structs.replace(written, figures={"base": asked, "candidates": {"step 2": asked}}))
    found = read_card(tmp_path)
    assert found is not None
    assert found.figures["candidates"]["step 2"] == asked | {"own": None}


def test_a_hostile_name_is_the_same_words_on_a_models_card(tmp_path: Path) -> None:
    Secret(KEY)
    told = {
        "README.md": of_markdown(model_card(tmp_path)),
        "align.json": of_json((tmp_path / "align.json").read_text()),
    }
    for file, seen in told.items():
        assert SHOWN in seen
        assert KEY not in (tmp_path / file).read_text()
