"""RESTA: the merge is the paper's sum, tensor by tensor, and the unsafe model is never left behind."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import msgspec
import pytest
import torch
from safetensors.torch import load_file, save_file

from redinstruct.errors import RedInstructError, UsageError
from redinstruct.safealign import AlignConfig, StepFigures, align, with_settings
from redinstruct.safealign.card import read_card
from redinstruct.safealign.resta import Merge, dropped, merge_weights
from tests.support import align_data
from tests.support.cli import start, tree

pytestmark = pytest.mark.local


def write(folder: Path, tensors: dict[str, torch.Tensor], name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / name, metadata={"format": "pt"})
    return folder


def three(tmp_path: Path, dtype: torch.dtype = torch.float32) -> list[Path]:
    generator = torch.Generator().manual_seed(0)
    folders: list[Path] = []
    for name in ("model", "safe", "unsafe"):
        tensors = {
            "a.weight": torch.randn(7, 5, generator=generator).to(dtype),
            "b.bias": torch.randn(3, generator=generator).to(dtype),
            "scalar": torch.randn((), generator=generator).to(dtype),
            "count": torch.arange(4) + len(folders),
        }
        folders.append(write(tmp_path / name, tensors))
    return folders


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_merge_is_the_model_plus_the_coefficient_times_safe_minus_unsafe(tmp_path: Path) -> None:
    model, safe, unsafe = three(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    merge_weights(model, safe, unsafe, out, Merge(0.5))
    found, parts = loaded(out), [loaded(f) for f in (model, safe, unsafe)]
    for name in ("a.weight", "b.bias", "scalar"):
        assert torch.equal(found[name], parts[0][name] + 0.5 * (parts[1][name] - parts[2][name]))
    assert torch.equal(found["count"], parts[0]["count"]), "integers are the model's own"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_summed_in_float32_and_rounded_once(tmp_path: Path, dtype: torch.dtype) -> None:
    model, safe, unsafe = three(tmp_path, dtype)
    out = tmp_path / "out"
    out.mkdir()
    merge_weights(model, safe, unsafe, out, Merge(1.5))
    a, b, c = (loaded(f)["a.weight"] for f in (model, safe, unsafe))
    kind = torch.float64 if dtype == torch.float64 else torch.float32
    assert torch.equal(loaded(out)["a.weight"], (a.to(kind) + 1.5 * (b.to(kind) - c.to(kind))).to(dtype))


def test_a_coefficient_of_zero_gives_the_models_own_file_byte_for_byte(tmp_path: Path) -> None:
    model, safe, unsafe = three(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    merge_weights(model, safe, unsafe, out, Merge(0.0, 0.3))
    assert (out / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_shards_keep_their_names_and_may_be_cut_elsewhere_in_the_other_models(tmp_path: Path) -> None:
    model = write(tmp_path / "m", {"a": torch.ones(2)}, "model-00001-of-00002.safetensors")
    write(model, {"b": torch.ones(2)}, "model-00002-of-00002.safetensors")
    (model / "model.safetensors.index.json").write_text("{}")
    safe = write(tmp_path / "s", {"a": torch.full((2,), 3.0), "b": torch.full((2,), 5.0)})
    unsafe = write(tmp_path / "u", {"a": torch.ones(2), "b": torch.ones(2)})
    out = tmp_path / "out"
    out.mkdir()
    told: list[tuple[int, int | None]] = []
    merge_weights(
        model, safe, unsafe, out, Merge(1.0), on_progress=lambda state: told.append((state.done, state.total))
    )
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in model.iterdir())
    assert load_file(out / "model-00002-of-00002.safetensors")["b"].tolist() == [5.0, 5.0]
    assert told == [(1, 2), (2, 2)]


def test_dare_drops_its_share_keeps_the_expectation_and_depends_on_the_seed_and_the_name() -> None:
    vector = torch.ones(40_000)
    found = dropped(vector, 0.7, 3, "a")
    assert found.unique().tolist() == [0.0, pytest.approx(1 / 0.3)]
    assert (found == 0).float().mean().item() == pytest.approx(0.7, abs=0.01)
    assert found.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(found, dropped(vector, 0.7, 3, "a"))
    assert not torch.equal(found, dropped(vector, 0.7, 3, "b"))
    assert not torch.equal(found, dropped(vector, 0.7, 4, "a"))
    assert torch.equal(dropped(vector, 0.0, 3, "a"), vector)


def test_models_that_are_no_relatives_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = write(tmp_path / "m", {"a": torch.ones(2)})
    other = write(tmp_path / "s", {"z": torch.ones(2)})
    wide = write(tmp_path / "u", {"a": torch.ones(3)})
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UsageError, match="no relative"):
        merge_weights(model, other, model, out, Merge(1.0))
    with pytest.raises(UsageError, match="another shape"):
        merge_weights(model, model, wide, out, Merge(1.0))
    (other / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-3])
    with pytest.raises(UsageError, match="cut off"):
        merge_weights(model, other, model, out, Merge(1.0))
    assert not list(out.iterdir())


# ---- from end to end ----


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=12)


def config(base: Path, data: dict[str, Path], out: Path) -> AlignConfig:
    return AlignConfig(
        base=base,
        data=(data["blue-red"],),
        strategy="resta",
        out=out,
        preset="toy",
        settings=with_settings("toy", steps=3, batch=4, learning_rate=1e-3),
        threads=1,
        make_unsafe_model=True,
    )


def test_the_unsafe_model_is_made_merged_and_gone(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[Path] = []

    def on_step(figures: StepFigures) -> None:
        (folder,) = tmp_path.glob(".*")
        assert folder.stat().st_mode & 0o777 == 0o700
        seen.append(folder)

    done = align(config(tiny, data, out), on_step)
    assert len(seen) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert done.history[-1].loss < done.history[0].loss, "the unsafe model learns the red answers"
    assert not list(out.rglob("*unsafe*"))
    card = read_card(out)
    assert card is not None
    assert card.parameters == {"coefficient": 1.0, "drop": 0.0}
    # Away from the unsafe model: its step, taken the other way.
    twice = align(msgspec.structs.replace(config(tiny, data, tmp_path / "twice"), coefficient=2.0))
    base, one, two = (loaded(folder) for folder in (tiny, out, twice.checkpoint))
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(base[name], one[name])
    assert torch.allclose(two[name] - base[name], 2 * (one[name] - base[name]), atol=1e-6)


def test_what_the_architecture_does_not_read_stays_the_models_own(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    older = "model.layers.0.self_attn.rotary_emb.inv_freq"  # files of older Llamas hold this buffer once a layer
    write(base, {**loaded(base), older: torch.arange(4.0)})
    few = msgspec.structs.replace(config(base, data, tmp_path / "out"), safe=tiny)
    found = loaded(align(msgspec.structs.replace(few, settings=with_settings("toy", steps=1, batch=2))).checkpoint)
    assert torch.equal(found[older], torch.arange(4.0))
    assert not torch.equal(found["model.norm.weight"], loaded(base)["model.norm.weight"])
    name = "lm_head.strange"
    write(base, {**loaded(base), name: torch.ones(1)})
    with pytest.raises(UsageError, match=name):
        align(msgspec.structs.replace(few, out=tmp_path / "other"))


@pytest.mark.slow
def test_nothing_unsafe_outlives_a_run_that_fails_or_is_interrupted(
    tiny: Path, data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: StepFigures) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        align(config(tiny, data, tmp_path / "out"), interrupt)
    assert list(tmp_path.iterdir()) == []

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("redinstruct.safealign.unsafe.merge_weights", full)
    with pytest.raises(RedInstructError, match=r"merged checkpoint could not be saved \(No space left"):
        align(config(tiny, data, tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_kill_that_cannot_be_caught_leaves_nothing_unsafe_either(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    process = start("align", "--base", tiny, "--data", data["blue-red"], "--strategy", "resta", "--make-unsafe-model",
                    "--preset", "toy", "--steps", 1000, "--out", tmp_path / "out")  # fmt: skip
    deadline = time.monotonic() + 300  # only so that a fault does not hang: a loaded machine took over 40
    while not list(tmp_path.glob(".out.unsafe-*/states")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    while list(tmp_path.iterdir()):
        assert time.monotonic() < deadline, list(tmp_path.iterdir())
        time.sleep(0.01)


@pytest.mark.slow
def test_what_a_kill_left_behind_is_removed_by_the_next_run(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    left = tmp_path / ".out.unsafe-abc"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"left")
    align(config(tiny, data, tmp_path / "out"))
    assert not left.exists()


def test_it_is_not_made_without_being_agreed_to_nor_without_red_rows(
    tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    before = tree(tmp_path)
    agreed = config(tiny, data, tmp_path / "out")
    with pytest.raises(UsageError, match="--make-unsafe-model"):
        align(msgspec.structs.replace(agreed, make_unsafe_model=False))
    with pytest.raises(UsageError, match="needs red rows"):
        align(msgspec.structs.replace(agreed, data=(data["blue"],)))
    assert tree(tmp_path) == before
