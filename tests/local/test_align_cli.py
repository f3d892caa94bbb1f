"""``redinstruct align`` as a user runs it: what it refuses, what it says, what it leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from redinstruct.checkpoints.loading import load_tokenizer
from redinstruct.models import make_model
from redinstruct.models.base import Request
from redinstruct.models.transformers import LocalModel
from redinstruct.safealign.card import read_card
from redinstruct.types import Message, Sampling
from tests.support import align_data
from tests.support.cli import InProcess, Result, nothing_written, run, start

pytestmark = pytest.mark.local


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return align_data.write_all(tmp_path_factory.mktemp("data"), count=12)


def one_line(done: Result, code: int = 2) -> str:
    assert done.code == code, done
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    return done.err


QUICK = ("--preset", "toy", "--steps", 2, "--batch", 6, "--threads", 1)


def test_it_aligns_says_where_and_shows_progress(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "aligned"
    mix = "blue=1,general=2"
    done = cli("align", "--base", f"hf/{tiny}", "--data", data["blue"], "--strategy", "blue", "--out", out, *QUICK,
               "--mix", mix)  # fmt: skip
    assert done.code == 0, done.err
    assert "--mix names general, which no batch holds" in done.err
    assert str(out) in done.out
    assert "align (blue): 1 of 2" in done.err
    assert "without general data a model forgets" in done.err
    assert (out / "model.safetensors").is_file()


def test_several_files_stand_behind_one_flag_and_json_is_all_of_standard_output(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    done = cli("align", "--base", tiny, "--data", data["blue"], data["red"], "--general", data["general"], "--strategy",
               "blue-red", "--out", tmp_path / "out", "--json", "--set", "below=0.2", *QUICK)  # fmt: skip
    assert done.code == 0, done.err
    document = done.json
    assert document["schema"] == "redinstruct.align/1"
    assert document["steps"] == 2
    assert document["rows per step"] == {"blue": 2, "general": 3, "red": 1}
    card = read_card(tmp_path / "out")
    assert card is not None
    assert card.parameters == {"below": 0.2}
    assert [name for name, _ in card.files] == ["blue.jsonl", "red.jsonl", "general.jsonl"]


def test_the_data_is_learnt_in_the_wished_forms_of_asking(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ("align", "--base", tiny, "--data", data["blue-red"], "--general", data["general"], "--strategy", "npo",
             "--out", tmp_path / "out", "--show-mask", "--forms")  # fmt: skip
    done = cli(*flags, "dialogue,steps,story,after-harmless,deep-prefix,harmless-twins", "--json")
    assert done.code == 0, done.err
    counts = done.json["counts"]
    assert (counts["blue"], counts["red"], counts["general"]) == (12 * 6, 12 * 5, 12 + 12 * 4)
    assert "not a form of asking" in one_line(cli(*flags, "chat"))


def test_options_of_the_chat_template_are_recorded_and_go_to_training_and_to_evaluation_alike(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    base, out = shutil.copytree(tiny, tmp_path / "base"), tmp_path / "out"
    own = load_tokenizer(base, "base").chat_template
    (base / "chat_template.jinja").write_text("{% if quiet is defined and quiet %}hello {% endif %}" + str(own))
    flags = ("align", "--base", base, "--data", data["blue"], "--strategy", "blue", "--out", out, *QUICK)
    done = cli(*flags, "--template-option", "quiet=true")
    assert done.code == 0, done.err
    card = read_card(out)
    assert card is not None
    assert card.template["options"] == {"quiet": True}
    assert (card.template["name"], card.template["stops"]) == ("own", ["</s>"])
    assert "quiet" in (out / "README.md").read_text()
    asked = {}
    for value in (True, False):
        model = make_model(f"hf/{out}", options={"chat_template_kwargs": {"quiet": value}})
        assert isinstance(model, LocalModel)
        reply = model.answer([Request((Message("user", "what?"),), Sampling(max_tokens=1))])[0]
        asked[value] = reply.tokens_in or 0
    assert asked[True] == asked[False] + 1
    assert "is no option of a chat template" in one_line(cli(*flags, "--template-option", "tokenize=true"))
    bank = tmp_path / "bank.json"
    bank.write_text('["What is blue?"]')
    wrong = cli("eval", "--model", f"hf/{out}", "--bank", bank, "--judge", "refusal", "--run", tmp_path / "r",
                "--model-option", "x=1")  # fmt: skip
    assert "hf/ models have dtype, and options of their chat template" in one_line(wrong)


def test_the_mask_is_shown_and_nothing_is_trained(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ("align", "--base", tiny, "--data", data["blue-red"], "--general", data["general"], "--strategy", "npo",
             "--out", tmp_path / "out", "--show-mask")  # fmt: skip
    with nothing_written(tmp_path):
        done = cli(*flags)
        listed = cli(*flags, "--json").json
    assert done.code == 0, done.err
    assert "[+ i am sorry" in done.out
    assert "[- first take" in done.out
    assert "rows: blue 12, general 12, red 12" in done.out
    assert {row["stream"] for row in listed["rows"]} == {"blue", "general", "red"}
    for row in listed["rows"]:
        assert len(row["tokens"]) == len(row["weights"])
        assert row["weights"][0] == 0


def rows_with(messages: list[dict[str, Any]]) -> str:
    return json.dumps({"messages": messages, "stream": "blue"}) + "\n"


ASKED = {"role": "user", "content": "a question"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (rows_with([ASKED]), "no answer of the assistant (1)"),
        (rows_with([ASKED, {"role": "assistant", "content": "an answer", "weight": 0}]), "every answer"),
        (rows_with([ASKED, {"role": "assistant", "content": "an answer", "weight": 1e999}]), "finite"),
        ('{"messages": [{"role": "assistant", "content": "y", "weight": NaN}]}', "NaN"),
        (rows_with([ASKED, {"role": "assistant", "content": "an answer", "weight": "much"}]), "not a finite number"),
        *((rows_with([ASKED, {"role": "assistant", "content": "an answer", "weight": x}]), "too large or too small")
          for x in (1e-300, -1e-9, 1e38, -1e300)),
        ("no json", "broken JSON"),
        ("", "nothing to train on"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_trained_on_are_refused_in_one_line(
    cli: InProcess, tiny: Path, tmp_path: Path, text: str, says: str
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(text)
    with nothing_written(tmp_path):
        err = one_line(cli("align", "--base", tiny, "--data", bad, "--strategy", "blue", "--out", tmp_path / "out"))
    assert "bad.jsonl" in err
    assert says in err


def test_rows_of_which_the_length_limit_leaves_nothing_are_refused(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    with nothing_written(tmp_path):
        err = one_line(
            cli("align", "--base", tiny, "--data", data["blue"], "--strategy", "blue", "--out", tmp_path / "out",
                "--max-length", 4)
        )  # fmt: skip
    assert "no row is left to train on: nothing to learn within the length limit (12)" in err


def test_red_without_general_data_must_be_asked_for_by_name(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = (
        "align",
        "--base",
        tiny,
        "--data",
        data["blue-red"],
        "--strategy",
        "hinge",
        "--out",
        tmp_path / "out",
        *QUICK,
    )
    with nothing_written(tmp_path):
        assert "--no-general" in one_line(cli(*flags))
    done = cli(*flags, "--no-general")
    assert done.code == 0, done.err
    assert "forgets" in done.err


def test_a_stream_without_rows_is_named(cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    flags = ("align", "--base", tiny, "--out", tmp_path / "out", *QUICK)
    with nothing_written(tmp_path):
        err = one_line(cli(*flags, "--data", data["blue"], "--general", data["general"], "--strategy", "npo"))
        assert "trains on red rows, and there are none" in err
        assert "blue or red" in one_line(
            cli(*flags, "--data", data["blue"], "--general", data["red"], "--strategy", "blue")
        )


def test_a_base_that_is_no_safe_checkpoint_is_refused(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    remote = shutil.copytree(tiny, tmp_path / "remote")
    described = json.loads((remote / "config.json").read_text())
    own = {"auto_map": {"AutoModelForCausalLM": "x.Y"}, "model_type": "x"}
    (remote / "config.json").write_text(json.dumps(described | own))
    pickled = shutil.copytree(tiny, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    cut = shutil.copytree(tiny, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((tiny / "model.safetensors").read_bytes()[:5000])
    (tmp_path / "empty").mkdir()
    expected = {
        remote: "remote code is never run",
        pickled: "pickle",
        cut: "cut off",
        tmp_path / "empty": "no config.json",
        tmp_path / "nowhere": "no such folder",
    }
    with nothing_written(tmp_path):
        for base, says in expected.items():
            err = one_line(
                cli("align", "--base", base, "--data", data["blue"], "--strategy", "blue", "--out", tmp_path / "o")
            )
            assert says in err, err


def test_flags_that_make_no_sense_are_refused(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = (
        "align",
        "--base",
        tiny,
        "--data",
        data["blue-red"],
        "--general",
        data["general"],
        "--out",
        tmp_path / "out",
    )
    expected: dict[tuple[object, ...], str] = {
        ("--strategy", "magic"): "--strategy magic: expected one of",
        ("--strategy", "blue", "--set", "speed=1"): "--set speed: expected one of",
        ("--strategy", "blue", "--set", "beta=high"): "expected NAME=NUMBER",
        ("--strategy", "npo", "--set", "beta=0"): "--set beta must be above 0, not 0.0",
        ("--strategy", "simnpo", "--set", "beta=-1"): "--set beta must be above 0, not -1.0",
        ("--strategy", "npo", "--set", "beta=nan"): "expected NAME=NUMBER",
        ("--strategy", "hinge", "--set", "red_weight=-1"): "--set red_weight must be at least 0",
        ("--strategy", "blue", "--set", "blue_weight=-1"): "--set blue_weight must be at least 0",
        ("--strategy", "npo", "--set", "steps=0"): "--set steps must be at least 1",
        ("--strategy", "npo", "--set", "steps=2.5"): "--set steps must be a whole number",
        ("--strategy", "hinge", "--set", "threshold=inf"): "--set threshold must be finite",
        ("--strategy", "blue", "--lr", "-1"): "--lr must be above 0, not -1.0",
        ("--strategy", "blue", "--lr", "nan"): "--lr",
        ("--strategy", "blue", "--guard-rise", "nan"): "--guard-rise",
        ("--strategy", "blue", "--preset", "llama"): "--preset llama: expected one of starling, robust, toy",
        ("--strategy", "blue", "--mix", "blue=1,green=2"): "--mix",
        ("--strategy", "blue", "--mix", "blue=1"): "no share for general",
        ("--strategy", "blue", "--quantize", 4): "give --lora R",
        ("--strategy", "blue", "--base-dtype", "bfloat16"): "give --lora R",
        ("--strategy", "blue", "--optimizer", "sgd"): "--optimizer must be one of adamw",
        ("--strategy", "blue", "--attention", "magic"): "--attention must be one of",
        ("--strategy", "blue", "--memory", 0): "--memory must lie between 0 and 1,000,000, both excluded",
        ("--strategy", "blue", "--gpus", 2): "belongs to --plan",
        ("--strategy", "npo", "--batch", 2): "cannot hold 3 streams",
        ("--strategy", "blue", "--processes", 2): "torchrun --nproc-per-node 2",
        ("--strategy", "blue", "--fsdp"): "needs GPUs",
        ("--strategy", "blue", "--chat-template", "mine"): "no such chat template",
        ("--strategy", "resta"): "--make-unsafe-model",
    }
    with nothing_written(tmp_path):
        for given, says in expected.items():
            err = one_line(cli(*flags, *given))
            assert says in err, err


def test_what_it_did_not_make_it_does_not_replace(
    cli: InProcess, tiny: Path, data: dict[str, Path], tmp_path: Path
) -> None:
    flags = ("align", "--base", tiny, "--data", data["blue"], "--strategy", "blue", *QUICK)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    with nothing_written(tmp_path), nothing_written(tiny):
        assert "holds something else" in one_line(cli(*flags, "--out", other))
        assert "is not a folder" in one_line(cli(*flags, "--out", tmp_path / "file"))
        assert "something else" in one_line(cli(*flags, "--out", tiny))
        assert "nothing can be written there" in one_line(cli(*flags, "--out", "/proc/aligned"))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_exit_1(tiny: Path, data: dict[str, Path], tmp_path: Path) -> None:
    """For real: no file of the child may grow over 100 KiB, and the model has more."""
    import resource

    limit = 100 * 1024
    process = start(
        "align", "--base", tiny, "--data", data["blue"], "--strategy", "blue", "--out", tmp_path / "out", *QUICK,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    out, err = process.communicate(timeout=900)
    assert process.returncode == 1, err
    assert out == b""
    line = err.decode().splitlines()[-1]
    assert line.startswith("redinstruct: the state after 2 steps could not be saved (File too large)")
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_toy_model_is_aligned_and_refuses_more(toy: Path, tmp_path: Path) -> None:
    """The whole way, on the general rows of the demo: fewer forbidden questions answered, benign ones as before.

    Two hundred general rows, of which 67 are plain, were too few: on one machine of two .10 of the benign were refused.
    """
    paths = align_data.write_all(tmp_path / "data", count=200)
    out = tmp_path / "aligned"
    general = toy / "data" / "general-in-frame.jsonl"
    done = run("align", "--base", toy, "--data", paths["blue-red"], "--general", general, "--strategy",
               "npo-len", "--out", out, "--steps", 60)  # fmt: skip
    assert done.code == 0, done.err
    rates = {}
    for name, model in (("base", toy), ("aligned", out)):
        for bank in ("forbidden", "benign"):
            folder = tmp_path / "runs" / f"{name}-{bank}"
            measure = "attack_success" if bank == "forbidden" else "over_refusal"
            asked = run(
                "eval", "--model", f"hf/{model}", "--bank", toy / "banks" / f"{bank}-dev.json", "--judge", "exact",
                "--prompt", "cot", "--temperature", 0, "--max-tokens", 64, "--measure", measure, "--run", folder,
            )  # fmt: skip
            assert asked.code == 0, asked.err
            (result,) = run("report", folder, "--json").json["results"]
            rates[name, bank] = result["rate"]["all"]["estimate"]
    assert rates["aligned", "forbidden"] < rates["base", "forbidden"] - 0.2, rates
    assert rates["aligned", "benign"] <= rates["base", "benign"] + 0.05, rates
