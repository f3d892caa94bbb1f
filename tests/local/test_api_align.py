"""``redinstruct.align``, where its extra is there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import redinstruct
from redinstruct.alignment import Settings, with_settings
from redinstruct.errors import UsageError
from redinstruct.safealign.card import read_card
from tests.support import align_data

pytestmark = pytest.mark.local


def test_align_refuses_bad_input_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        redinstruct.align(base=tmp_path / "none", data=tmp_path / "none.jsonl", strategy="blue", out=tmp_path / "out")
    with pytest.raises(TypeError, match="no_such_field"):
        redinstruct.align(base="base", data="a", strategy="blue", out=tmp_path / "out", no_such_field=1)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {name: str(path) for name, path in align_data.write_all(tmp_path_factory.mktemp("rows"), 6).items()}


@pytest.fixture
def asked(tiny: Path, data: dict[str, str]) -> dict[str, Any]:
    return {"base": tiny, "data": data["blue"], "strategy": "blue", "settings": with_settings("toy", steps=1, batch=4)}


def test_files_are_named_as_texts_one_or_several_and_an_adapter_by_its_rank(
    asked: dict[str, Any], data: dict[str, str], tmp_path: Path
) -> None:
    general = data["general"]
    for given in (
        {"general": general},
        {"general": [general], "probe": general, "lora": 2},
        {"general": iter([general])},
    ):
        redinstruct.align(**asked | given, out=tmp_path / "out")
        card = read_card(tmp_path / "out")
        assert card is not None
        assert card.rows["general"] == 6
        assert (card.lora is None) == ("lora" not in given)


def test_numbers_of_numpy_are_as_good_as_pythons_own(
    asked: dict[str, Any], data: dict[str, str], tmp_path: Path
) -> None:
    given = {"general": data["general"], "strategy": "npo", "data": data["blue-red"], "out": tmp_path / "out"}
    settings = with_settings("toy", steps=1, batch=4, learning_rate=2e-4)
    redinstruct.align(**asked | given | {"settings": settings}, seed=3, parameters={"beta": 0.25})
    numpys = msgspec.structs.replace(settings, learning_rate=np.float64(2e-4), steps=np.int64(1))
    again = redinstruct.align(
        **asked | given | {"settings": numpys}, seed=np.int64(3), parameters={"beta": np.float32(0.25)}
    )
    assert again.warnings == ("it was there already",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"settings": {"steps": 1}}, "settings must be a redinstruct.alignment.Settings, not a dict"),
        ({"guard": {"rise": 1}}, "guard must be a redinstruct.alignment.GuardRule, not a dict"),
        ({"parameters": ["beta"]}, "another kind.*parameters"),
        ({"parameters": {"beta": "1"}}, "another kind.*parameters"),
        ({"forms": "dialogue"}, "another kind.*forms"),
        ({"template_options": ["a"]}, "another kind.*template_options"),
        ({"strategy": None}, "--strategy must be a text, not None"),
        ({"lora": 0}, "--lora"),
        ({"evaluate_every": 0}, "--evaluate-every must be at least 1"),
        ({"utility_margin": -0.1}, "--utility-margin must lie between 0 and 1"),
        ({"settings": Settings(steps=1, betas=(1.0, 0.9))}, "--betas must lie between 0 and 1"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_nothing_is_written(
    given: dict[str, Any], words: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        redinstruct.align(**asked | {"no_general": True} | given, out=tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("said", [None, {"safety": "high", "utility": 1.0}, [1.0, 1.0]])
def test_an_evaluation_that_answers_no_numbers_is_named(said: Any, asked: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on_evaluate must answer numbers"):
        redinstruct.align(**asked, no_general=True, out=tmp_path / "out", on_evaluate=lambda _folder, _step: said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["kto", "dpo", "resta"])
def test_who_would_not_be_asked_about_a_checkpoint_is_refused(
    strategy: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    def on_evaluate(_folder: Path, _step: int) -> dict[str, float]:
        return {"safety": 1.0, "utility": 1.0}

    with pytest.raises(UsageError, match=f"on_evaluate: --strategy {strategy} has no checkpoints on its way"):
        redinstruct.align(
            **asked | {"strategy": strategy, "settings": None}, out=tmp_path / "out", on_evaluate=on_evaluate
        )
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_nobody_chose_is_another_than_one_that_was_chosen(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    seen: list[int] = []

    def on_evaluate(_folder: Path, step: int) -> dict[str, float]:
        seen.append(step)
        return {"safety": 1.0, "utility": 1.0}

    given = asked | {"no_general": True, "out": tmp_path / "out"}
    redinstruct.align(**given)
    for _ in range(2):
        again = redinstruct.align(**given, on_evaluate=on_evaluate)
    assert (seen, again.warnings) == ([0, 1], ("it was there already",)), "asked once, then done"
    assert redinstruct.align(**given).warnings != ("it was there already",)


def test_the_same_files_in_other_roles_are_another_run(
    asked: dict[str, Any], data: dict[str, str], tmp_path: Path
) -> None:
    whole = Path(data["general"]).read_text().splitlines()
    halves = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for half, lines in zip(halves, (whole[:3], whole[3:]), strict=True):
        half.write_text("\n".join(lines))
    one, other = halves
    roles: tuple[dict[str, Any], ...] = (
        {"general": [one, other]}, {"general": one, "probe": other}, {"data": [data["blue"], one], "general": other},
    )  # fmt: skip
    for given in roles:
        done = redinstruct.align(**asked | given, out=tmp_path / "out")
        assert done.history, "it was trained, and not taken for the one before"
