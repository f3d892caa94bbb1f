"""``vllm/<path>`` without vLLM: what it takes is checked, and one line says what to install."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from redinstruct.errors import ModelSpecError
from redinstruct.models import make_model
from redinstruct.models.placement import Placement, placed
from tests.support.cli import InProcess

HAS_VLLM = importlib.util.find_spec("vllm") is not None


@pytest.mark.skipif(HAS_VLLM, reason="vLLM is installed here")
def test_without_vllm_one_line_says_what_to_install(cli: InProcess, tmp_path: Path) -> None:
    bank = tmp_path / "bank.json"
    bank.write_text('["What is blue?"]')
    told = ("eval", "--model", "vllm/nothing", "--bank", str(bank), "--judge", "refusal", "--run", str(tmp_path / "r"))
    line = cli(*told).error_line
    assert "pip install vllm" in line
    assert "vllm serve" in line
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top_k": 3}, "vllm/ models have dtype, tensor_parallel_size"),
        ({"chat_template_kwargs": 3}, "chat template"),
        ({"dtype": "int8"}, "expected one of"),
        ({"tensor_parallel_size": 0}, "a number above 0"),
        ({"max_model_len": True}, "a number above 0"),
        ({"gpu_memory_utilization": "much"}, "a number above 0"),
    ],
)
def test_its_options_are_checked_before_it_is_looked_for(options: dict[str, object], said: str) -> None:
    with pytest.raises(ModelSpecError, match=said):
        make_model("vllm/nothing", options=options)


def test_a_device_is_not_ours_to_give() -> None:
    with placed(Placement(devices=("cuda:0",))), pytest.raises(ModelSpecError, match="CUDA_VISIBLE_DEVICES"):
        make_model("vllm/nothing")
