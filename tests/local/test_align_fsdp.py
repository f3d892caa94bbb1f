"""``align --fsdp`` in two processes. On CPUs over gloo (tests/support/fsdp_on_cpu.py says what is lifted for it).

Not shown here: GPUs, NCCL, and what overlaps there.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from redinstruct.safealign import AlignConfig, Lora, align, with_settings
from redinstruct.safealign.card import read_card
from tests.support import align_data
from tests.support.cli import ROOT

pytestmark = [pytest.mark.local, pytest.mark.slow]

STEPS, BATCH = 8, 8
EXACT = 1e-5
ROUNDED = 1e-3
"""Above what mixed precision costs the first step here (1e-4), below what log-probabilities in bfloat16 do."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=24)


def one_process(base: Path, data: dict[str, Path], out: Path, lora: Lora | None = None) -> list[dict[str, Any]]:
    """The same steps in this process, cut as two processes cut them."""
    config = AlignConfig(
        base=base, data=(data["blue-red"],), general=(data["general"],), strategy="npo-len", out=out, preset="toy",
        settings=with_settings("toy", steps=STEPS, batch=BATCH, accumulation=2), threads=1, lora=lora,
    )  # fmt: skip
    align(config)
    return history(out)


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


ONE_NODE = ("--nproc-per-node=2",)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    base: Path, data: dict[str, Path], out: Path, *flags: object, node: tuple[str, ...] = ONE_NODE, port: int = 0,
    **env: str,
) -> subprocess.Popen[str]:  # fmt: skip
    """``torchrun`` with two processes of one thread each, or one ``node`` of several."""
    command = [
        sys.executable, "-m", "torch.distributed.run", *node, "--master-addr=127.0.0.1",
        f"--master-port={port or free_port()}", "--no-python", sys.executable, "-m",
        "tests.support.fsdp_on_cpu", "align", "--fsdp",
        "--processes", 2, "--base", base, "--data", data["blue-red"], "--general", data["general"], "--strategy",
        "npo-len", "--preset", "toy", "--steps", STEPS, "--batch", BATCH, "--threads", 1, "--out", out, *flags,
    ]  # fmt: skip
    (out.parent / "pids").mkdir(exist_ok=True)
    own = {
        "PIDS": str(out.parent / "pids"),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "REDINSTRUCT_CACHE": str(out.parent / "cache"),
    }
    return subprocess.Popen(
        [str(part) for part in command], env={**os.environ, **own, **env}, cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def kill(process: subprocess.Popen[str], folder: Path) -> None:
    """SIGKILL to torchrun and to every worker."""
    process.kill()
    for file in (folder / "pids").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(file.read_text()), signal.SIGKILL)
    process.communicate()


def end(process: subprocess.Popen[str], folder: Path, timeout: float = 300) -> None:
    """Wait for it to succeed. A deadlock fails here."""
    try:
        _, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        kill(process, folder)
        pytest.fail(f"still running after {timeout} seconds")
    assert process.returncode == 0, err


def close(one: list[dict[str, Any]], two: list[dict[str, Any]], within: float) -> None:
    assert len(one) == len(two) == STEPS
    for single, double in zip(one, two, strict=True):
        for key in ("loss", "grad_norm", "blue", "general", "red", "red_first", "red_above"):
            assert single[key] == pytest.approx(double[key], rel=within, abs=within / 10), (single["step"], key)


def test_sharded_over_two_processes_it_makes_the_steps_of_one_and_an_ordinary_checkpoint(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    end(start(tiny, data, tmp_path / "two"), tmp_path)
    close(one_process(tiny, data, tmp_path / "one"), history(tmp_path / "two"), EXACT)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype
        assert torch.allclose(tensor, two[name], atol=1e-5), name
    AutoModelForCausalLM.from_pretrained(tmp_path / "two", local_files_only=True)
    card = read_card(tmp_path / "two")
    assert card is not None
    assert card.processes == 2
    assert card.figures["memory"]["sharding"] == "fsdp", "and not DDP without a word"
    assert not list(tmp_path.glob(".*"))


def test_two_nodes_of_one_process_make_the_steps_of_one_and_one_of_them_writes(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    """Each node has its own torchrun, and finds the other by an address; the folder is one that both see."""
    port, out = free_port(), tmp_path / "two"
    nodes = [
        start(tiny, data, out, node=("--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1"), port=port)
        for rank in range(2)
    ]
    for node in nodes:
        end(node, tmp_path)
    close(one_process(tiny, data, tmp_path / "one"), history(out), EXACT)
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(tensor, two[name], atol=1e-5) for name, tensor in one.items())
    card = read_card(out)
    assert card is not None
    assert card.processes == 2
    assert not list(tmp_path.glob(".*"))


def test_an_adapter_on_a_sharded_model_is_merged(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("peft")
    end(start(tiny, data, tmp_path / "two", "--lora", 4), tmp_path)
    close(one_process(tiny, data, tmp_path / "one", Lora(rank=4, alpha=8)), history(tmp_path / "two"), EXACT)
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        one, two = (load_file(tmp_path / name / file) for name in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.allclose(tensor, two[name], atol=1e-5) for name, tensor in one.items())


def test_mixed_precision_does_not_round_the_log_probabilities(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    end(start(tiny, data, tmp_path / "two", BF16="1"), tmp_path)
    one, two = one_process(tiny, data, tmp_path / "one"), history(tmp_path / "two")
    assert one[0]["loss"] == pytest.approx(two[0]["loss"], rel=ROUNDED)  # later steps drift apart
    assert any(step[key] != torch.tensor(step[key]).bfloat16().item() for step in two for key in ("loss", "red_first"))


def test_a_sharded_run_that_was_killed_goes_on_as_if_it_had_not_been(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "cut"
    process = start(tiny, data, out, "--save-every", 2)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".cut.unfinished/step-*")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    kill(process, tmp_path)
    assert not out.exists()
    (left,) = tmp_path.glob(".cut.unfinished/step-*")
    assert int(left.name.removeprefix("step-")) < STEPS
    halves = [load_file(left / f"weights.0000{rank}.safetensors") for rank in range(2)]
    held = [sum(tensor.numel() for tensor in half.values()) for half in halves]
    assert max(held) < 0.6 * sum(held), "each process writes its part"
    assert not (left / "weights.safetensors").exists()
    end(start(tiny, data, out, "--save-every", 100), tmp_path)
    end(start(tiny, data, tmp_path / "whole", "--save-every", 100), tmp_path)
    assert history(out) == history(tmp_path / "whole"), "bit for bit"
    first, second = (load_file(folder / "model.safetensors") for folder in (out, tmp_path / "whole"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
