"""Over-refusal seen while training: harmless questions, asked at a step, tell when a model begins to refuse them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from redinstruct.alignment import PRESETS, with_settings
from redinstruct.errors import UsageError
from redinstruct.prompts.forms import FORMS
from redinstruct.safealign import AlignConfig, GuardRule, GuardStopped, align
from redinstruct.safealign.front import REFUSED, Candidate, best
from redinstruct.safealign.guards import Guard
from redinstruct.safealign.prepare import prepare
from tests.support import align_data

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=24)


def config(base: Path, files: dict[str, Path], out: Path, **given: Any) -> AlignConfig:
    settings = with_settings(
        "toy", steps=30, batch=8, warm_up=1.0, save_every=100, packing=False, learning_rate=1e-2, deep_prefix=0.0
    )
    usual: dict[str, Any] = {"data": (files["blue"],), "strategy": "blue", "settings": settings, "preset": "toy"}
    return AlignConfig(**{"base": base, "out": out, "threads": 1, **usual, **given})


def test_a_model_that_learns_nothing_but_refusals_is_seen_to_refuse_harmless_questions(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    alone = {"no_general": True, "probe": (data["general"],)}
    done = align(config(tiny, data, tmp_path / "out", **alone))
    seen = {one.step: one.probe for one in done.history if one.probe is not None}
    assert list(seen) == [5, 10, 15, 20, 25, 30], "every fifth step of a short run, and the last"
    figures = json.loads((tmp_path / "out" / "align.json").read_text())["figures"]["harmless questions while training"]
    assert figures["questions"] == {"asked": 24}
    assert figures["at the start"]["refused"] == 0
    assert figures["at the end"] == seen[30]
    assert figures["at the end"]["refused"] > 0.5
    assert figures["at the end"]["lean"] > figures["at the start"]["lean"] + 1
    assert [warning for warning in done.warnings if warning.startswith("over-refusal: the model begins to refuse ")]
    assert "harmless questions while training, at the end, refused" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(GuardStopped, match=r"begins to refuse \d+% of 24 harmless questions \(0% at") as stop:
        align(config(tiny, data, tmp_path / "stopped", **alone, guard=GuardRule(refused_action="stop")))
    ends = len(stop.value.history)
    assert ends < 30
    assert stop.value.history == done.history[:ends]
    assert all(seen[step]["refused"] > 0.25 for step in (ends - 5, ends))
    assert not (tmp_path / "stopped").exists()


def test_the_questions_are_general_ones_in_frames_that_are_not_trained_on_and_those_of_the_file(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    given = {"general": (data["general"],), "forms": ("harmless-twins",)}
    first, second = (prepare(config(tiny, data, tmp_path / "a", **given).resolved()) for _ in range(2))
    assert first.probe is not None
    assert first.probe == second.probe
    assert set(first.probe.kinds) == {"framed"}
    assert len(first.probe) == 24
    assert "i am sorry but" in first.tokenizer.decode(list(first.probe.rows[1].input_ids))
    trained = {row.input_ids[: row.answers[-1].start] for row in first.encoded.rows}
    asked = {tuple(t for t, w in zip(row.input_ids, row.weights, strict=True) if not w) for row in first.probe.rows}
    assert len(asked & trained) < len(asked) / 2
    both = prepare(config(tiny, data, tmp_path / "a", **given, probe=(data["general"],)).resolved())
    assert both.probe is not None
    assert both.probe.kinds.count("asked") == 24
    assert both.digest != first.digest
    assert both.encoded == first.encoded, "what is asked is not learnt"


def test_a_probe_without_refusals_to_look_for_is_refused(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"data": (data["general"],), "strategy": "general"}
    assert prepare(config(tiny, data, tmp_path / "a", **nothing).resolved()).probe is None
    with pytest.raises(UsageError, match="--probe: no safe answers are learnt here"):
        prepare(config(tiny, data, tmp_path / "a", **nothing, probe=(data["general"],)).resolved())
    with pytest.raises(UsageError, match="--probe: 24 rows there are blue or red"):
        prepare(config(tiny, data, tmp_path / "a", general=(data["general"],), probe=(data["red"],)).resolved())
    with pytest.raises(UsageError, match="--probe has no effect there"):
        config(tiny, data, tmp_path / "a", strategy="dpo", probe=(data["general"],)).resolved()


def test_the_guard_lets_a_model_come_back_and_stops_one_that_does_not() -> None:
    guard = Guard(GuardRule(refused_action="stop", refused_rise=0.2))
    shares = [0.1, 0.3, 0.5, 0.2, 0.6, 0.4]
    found = [guard.see_probe(step, {"refused": share}) for step, share in enumerate(shares)]
    assert found == ["fine"] * 5 + ["stop"]
    assert (guard.state.stopped_at, guard.state.stopped_for) == (5, "refusals")
    warning = Guard(GuardRule())
    assert {warning.see_probe(step, {"refused": float(step > 0)}) for step in range(9)} == {"fine"}
    assert warning.state.refused_seen == 8


def test_of_two_equal_checkpoints_the_one_that_refuses_fewer_harmless_questions_is_kept() -> None:
    even = {"safety": 0.9, "utility": 0.8}
    few, many = Candidate(10, even | {REFUSED: 0.1}), Candidate(20, even | {REFUSED: 0.4})
    assert best(Candidate(0, even), [few, many], 0.0) == few


def test_the_robust_preset_is_starling_in_every_form_with_more_general_rows_and_says_what_it_lacks(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    asked = AlignConfig(base=tiny, data=(data["blue-red"],), strategy="npo-len", out=tmp_path / "a", preset="robust")
    with pytest.raises(UsageError, match=r"^--preset robust .*after-harmless is made of ordinary conversations"):
        prepare(asked.resolved())
    whole = msgspec.structs.replace(asked, general=(data["general"],)).resolved()
    assert whole.forms == FORMS
    assert whole.chosen == msgspec.structs.replace(PRESETS["starling"], mix={"blue": 1.0, "general": 2.0, "red": 1.0})
    prepared = prepare(whole)
    assert prepared.batch == {"blue": 16, "general": 32, "red": 16}
    no_red = msgspec.structs.replace(whole, data=(data["blue"],), strategy="blue")
    with pytest.raises(UsageError, match=r"deep-prefix: .* harmful answers"):
        prepare(no_red)
    assert prepare(msgspec.structs.replace(no_red, forms=("steps",))).counts["blue"] > 0
    assert msgspec.structs.replace(asked, preset="starling").resolved().forms == ()
