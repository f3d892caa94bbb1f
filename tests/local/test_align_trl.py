"""``kto`` and ``dpo`` by TRL: which answers they get, and that a checkpoint comes out. Skipped where TRL is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from redinstruct.errors import RedInstructError, UsageError
from redinstruct.prompts.rows import kto_rows
from redinstruct.safealign import AlignConfig, GuardRule, GuardStopped, Lora, align, with_settings
from redinstruct.safealign.card import read_card
from redinstruct.safealign.resuming import rate_at
from redinstruct.safealign.rows import read_rows
from redinstruct.safealign.trl_backend import dpo_rows, micro_batch
from tests.support import align_data
from tests.support.cli import InProcess

pytestmark = pytest.mark.local
HAS_TRL = importlib.util.find_spec("trl") is not None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=8)


def config(base: Path, data: dict[str, Path], out: Path, strategy: str, **given: Any) -> AlignConfig:
    settings = with_settings("toy", **{"steps": 2, "batch": 4, "learning_rate": 1e-3, **given})
    return AlignConfig(
        base=base, data=(data["blue-red"],), strategy=strategy, out=out, preset="toy", settings=settings, threads=1
    )


def test_kto_gets_each_weighted_answer_and_dpo_the_pairs_that_share_their_messages(data: dict[str, Path]) -> None:
    read = [row.plain for row in read_rows([data["blue-red"]]).rows]
    single, pairs = kto_rows(read), dpo_rows(read)
    assert [row["label"] for row in single] == [True] * 8 + [False] * 8
    assert len(pairs) == 8
    for pair in pairs:
        assert [message["role"] for message in pair["prompt"]] == ["user"]
        assert pair["chosen"] != pair["rejected"]
        assert {"prompt": pair["prompt"], "completion": pair["chosen"], "label": True} in single
        assert {"prompt": pair["prompt"], "completion": pair["rejected"], "label": False} in single
    assert dpo_rows(row.plain for row in read_rows([data["red"]]).rows) == []


def test_what_they_cannot_train_on_is_one_line(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    if not HAS_TRL:
        with pytest.raises(UsageError, match=r"pip install 'redinstruct\[trl\]'"):
            align(config(tiny, data, tmp_path / "out", "dpo"))
        return
    blue = {"blue-red": data["blue"]}
    with pytest.raises(UsageError, match="compares two answers to the same messages"):
        align(config(tiny, blue, tmp_path / "out", "dpo"))
    with pytest.raises(UsageError, match="one kind is missing"):
        align(config(tiny, blue, tmp_path / "out", "kto"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
@pytest.mark.parametrize("strategy", ["kto", "dpo"])
def test_a_checkpoint_with_its_card_comes_out(strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = align(config(tiny, data, out, strategy))
    assert [one.step for one in done.history] == [1, 2]
    base, aligned = (load_file(folder / "model.safetensors") for folder in (tiny, out))
    assert base.keys() == aligned.keys()
    assert any(not torch.equal(tensor, aligned[name]) for name, tensor in base.items())
    card = read_card(out)
    assert card is not None
    assert card.strategy == strategy
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not list(out.glob("*.bin"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
@pytest.mark.parametrize("strategy", ["kto", "dpo"])
def test_the_learning_rate_is_that_of_every_other_strategy(
    strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    asked = config(tiny, data, tmp_path / "out", strategy, steps=6, warm_up=2, final_rate_share=0.5)
    rates = [one.learning_rate / asked.chosen.learning_rate for one in align(asked).history]
    assert rates == pytest.approx([rate_at(asked.chosen, step, 6) for step in range(6)])
    assert min(rates[1:]) > 0.5


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
def test_the_moments_are_those_that_the_settings_say(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    made = torch.optim.AdamW.__init__

    def watched(self: torch.optim.AdamW, *args: object, **kwargs: object) -> None:
        seen.append(kwargs.get("betas"))
        made(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.optim.AdamW, "__init__", watched)
    align(config(tiny, data, tmp_path / "out", "kto", betas=(0.8, 0.9)))
    assert seen == [(0.8, 0.9)]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
@pytest.mark.parametrize("strategy", ["kto", "dpo"])
def test_a_model_that_broke_is_not_written(strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    wild = config(tiny, data, tmp_path / "out", strategy, steps=6, learning_rate=1e30, clip=1e30, warm_up=0.0)
    with pytest.raises(RedInstructError, match=r"is not finite at step \d+; nothing was saved before; lower --lr"):
        align(wild)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("batch", "fits", "micro"), [(64, 64, 64), (64, 48, 32), (10, 3, 2), (6, 4, 3), (6, 1, 2), (5, 3, 3), (1, 1, 2)]
)
def test_a_step_holds_the_rows_that_were_asked_for_where_a_part_of_them_fits(batch: int, fits: int, micro: int) -> None:
    """Of 10 rows of which 3 fit 9 were taken."""
    assert micro_batch(batch, fits) == micro


IGNORED = [
    ["--packing"], ["--deep-prefix", "0.5"], ["--mix", "blue=1,red=1"], ["--guard-action", "stop"],
    ["--activation-checkpointing"],
]  # fmt: skip


@pytest.mark.parametrize("flags", IGNORED, ids=lambda flags: flags[0])
def test_a_flag_that_trls_loop_does_not_know_is_refused_and_not_ignored(
    flags: list[str], capsys: pytest.CaptureFixture[str], tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    cli = InProcess(capsys)
    done = cli(
        "align", "--base", tiny, "--data", data["blue-red"], "--strategy", "kto", "--out", tmp_path / "out", *flags
    )
    assert f"{flags[0]} has no effect there" in done.error_line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
@pytest.mark.parametrize("strategy", ["kto", "dpo"])
def test_one_that_was_interrupted_goes_on_as_if_it_had_not_been(
    strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Steps, weights and history are equal bit for bit; states are ours, without pickle."""
    seen: list[int] = []

    def cut(out: str, stop_at: int | None) -> AlignConfig:
        seen.clear()
        lora = Lora(rank=2, dropout=0.3) if strategy == "kto" else None
        asked = config(tiny, data, tmp_path / out, strategy, steps=7, save_every=2, warm_up=2)
        asked = msgspec.structs.replace(asked, lora=lora)
        align(asked, lambda one: seen.append(one.step), should_stop=lambda: len(seen) + 1 == stop_at)
        return asked

    cut("whole", None)
    with pytest.raises(KeyboardInterrupt):
        cut("cut", 3)
    assert not (tmp_path / "cut").exists()
    (state,) = tmp_path.glob(".cut.unfinished/step-*")
    assert state.name == "step-0000003"
    assert {path.suffix for path in state.iterdir()} == {".safetensors", ".json"}
    cut("cut", None)
    assert seen == [4, 5, 6, 7]
    whole, resumed = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in whole.items())
    cards = [read_card(tmp_path / name) for name in ("whole", "cut")]
    assert cards[0] is not None
    assert cards[1] is not None
    assert cards[0].figures == cards[1].figures
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRL, reason="TRL is not installed")
@pytest.mark.parametrize("strategy", ["kto", "dpo"])
def test_the_guard_stops_one_whose_loss_on_general_rows_runs_away(
    strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    asked = config(tiny, data, tmp_path / "out", strategy, steps=40, learning_rate=0.05, warm_up=0.0)
    asked = msgspec.structs.replace(asked, general=(data["general"],), guard=GuardRule(rise=0.01, floor=0.0))
    with pytest.raises(GuardStopped, match=r"stopped at step \d+ of 40: the general loss rose to [\d.]+ nats") as found:
        align(asked)
    assert found.value.history
    assert list(tmp_path.iterdir()) == []
    align(msgspec.structs.replace(asked, guard=GuardRule(rise=None), settings=with_settings("toy", steps=2, batch=4)))
