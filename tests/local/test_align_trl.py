"""``kto`` and ``dpo`` by TRL: which answers they get, and that a checkpoint comes out. Skipped where TRL is missing."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import load_file

from redinstruct.errors import RedInstructError, UsageError
from redinstruct.safealign import AlignConfig, align, with_settings
from redinstruct.safealign.card import read_card
from redinstruct.safealign.rows import read_rows
from redinstruct.safealign.trl_backend import dpo_rows, kto_rows
from tests.support import align_data
from tests.support.cli import InProcess, start

UNWATCHED = "is trained by TRL's own loop"
pytestmark = [pytest.mark.local, pytest.mark.filterwarnings(f"ignore:.*{UNWATCHED}")]
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
    read = read_rows([data["blue-red"]])
    single, pairs = kto_rows(read), dpo_rows(read)
    assert [row["label"] for row in single] == [True] * 8 + [False] * 8
    assert len(pairs) == 8
    for pair in pairs:
        assert [message["role"] for message in pair["prompt"]] == ["user"]
        assert pair["chosen"] != pair["rejected"]
        assert {"prompt": pair["prompt"], "completion": pair["chosen"], "label": True} in single
        assert {"prompt": pair["prompt"], "completion": pair["rejected"], "label": False} in single
    assert dpo_rows(read_rows([data["red"]])) == []


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
@pytest.mark.filterwarnings("default")
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
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("strategy", ["kto", "dpo"])
def test_a_model_that_broke_is_not_written(strategy: str, tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    wild = config(tiny, data, tmp_path / "out", strategy, steps=6, learning_rate=1e30, clip=1e30, warm_up=0.0)
    with pytest.raises(RedInstructError, match=r"is not finite at step \d+; nothing was written; lower --lr"):
        align(wild)
    assert list(tmp_path.iterdir()) == []


IGNORED = [
    ["--packing"], ["--deep-prefix", "0.5"], ["--mix", "blue=1,red=1"], ["--guard-rise", "0.1"],
    ["--guard-action", "stop"], ["--save-every", "5"], ["--activation-checkpointing"],
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
def test_it_says_before_it_begins_that_nothing_watches_it_and_after_an_interruption_that_nothing_is_kept(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ["--base", tiny, "--data", data["blue-red"], "--preset", "toy", "--out", tmp_path / "out"]
    process = start("align", *flags, "--strategy", "kto", "--steps", 800, "--batch", 4, env={"PYTHONWARNINGS": ""})
    assert process.stderr is not None
    assert b"no guard watches it" in process.stderr.readline()
    while b"1 of 800" not in (line := process.stderr.readline()):
        assert line, "it ended"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert b"nothing was written" in err
    assert b"begins again" in err
    assert b"goes on where" not in err
    assert list(tmp_path.iterdir()) == []


def test_python_is_told_at_the_start_that_nothing_watches_it(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    said: list[str] = []
    asked = msgspec.structs.replace(config(tiny, data, tmp_path / "out", "kto"), parameters={"threshold": 1.0})
    with pytest.raises(UsageError):
        align(asked, say=said.append)
    assert [line for line in said if UNWATCHED in line]
    with pytest.warns(UserWarning, match=UNWATCHED), pytest.raises(UsageError):
        align(asked)
