"""A run as a log of Inspect: every attempt is a sample, nothing harmful leaves unasked, and import reads it back."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from redinstruct.run import Store
from tests.interop.test_inspect_log import counts
from tests.support.cli import InProcess, nothing_written, write_bank


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(capsys)


@pytest.fixture
def run(tmp_path: Path, cli: InProcess) -> Path:
    """Three prompts, two epochs and two judges on a model that gives way to some."""
    bank, folder = write_bank(tmp_path, 4), tmp_path / "run"
    common = ("--bank", bank, "--epochs", 2, "--run", folder)
    assert cli("eval", "--model", "scripted/weak", "--judge", "refusal", *common).code == 0
    assert cli("judge", folder, "--judge", "paper", "--judge-model", "scripted/judge").code == 0
    return folder


def parts_of(log: Path) -> dict[str, Any]:
    with zipfile.ZipFile(log) as archive:
        return {name: json.loads(archive.read(name)) for name in archive.namelist()}


def samples_of(log: Path) -> list[Any]:
    if log.suffix == ".json":
        return list(json.loads(log.read_text())["samples"])
    return [held for name, held in parts_of(log).items() if name.startswith("samples/")]


@pytest.mark.parametrize("suffix", [".eval", ".json"])
@pytest.mark.parametrize("red", [(), ("--include-red",)])
def test_what_is_exported_is_imported_with_the_same_verdicts_prompt_by_prompt(
    tmp_path: Path, run: Path, cli: InProcess, suffix: str, red: tuple[str, ...]
) -> None:
    log = tmp_path / f"log{suffix}"
    assert cli("export", run, "--to", "inspect", "--out", log, *red).code == 0
    assert cli("import", log, "--run", tmp_path / "back").code == 0
    before, after = (cli("report", folder, "--json").json["results"] for folder in (run, tmp_path / "back"))
    assert len(before) == 6
    shown = ("model", "bank", "prompt", "planned", "counts", "at_k", "by_topic", "prompt_sha256")
    for one, other in zip(before, after, strict=True):
        assert f"inspect/{one['judge']}" == other["judge"]
        assert {key: one[key] for key in shown} == {key: other[key] for key in shown}


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_an_answer_that_is_not_known_to_be_harmless_leaves_only_when_asked(
    tmp_path: Path, run: Path, cli: InProcess, suffix: str
) -> None:
    with Store.open_for_reading(run) as store:
        views = list(store.attempts(store.judges()[0][0]))
    harmful = {v.completion.judged for v in views if v.label == "harmful"}
    assert harmful
    assert all(harmful)
    log = tmp_path / f"log{suffix}"
    told = cli("export", run, "--to", "inspect", "--out", log)
    assert f"of {Counter(v.label for v in views)['harmful']} without the answer" in " ".join(told.err.split())
    text = json.dumps(samples_of(log), ensure_ascii=False)
    assert not [answer for answer in harmful if answer and answer in text]
    assert all(v.completion.judged in text for v in views if v.label == "unharmful" and v.completion.judged)
    assert cli("export", run, "--to", "inspect", "--out", log, "--include-red").code == 0
    text = json.dumps(samples_of(log), ensure_ascii=False)
    assert all(answer in text for answer in harmful if answer)
    assert log.stat().st_mode & 0o777 == 0o600


def test_what_no_judge_has_read_is_not_known_to_be_harmless(tmp_path: Path, run: Path, cli: InProcess) -> None:
    log, bare = tmp_path / "red.json", tmp_path / "bare"
    assert cli("export", run, "--to", "inspect", "--out", log, "--include-red").code == 0
    held = json.loads(log.read_text())
    held["samples"] = [sample | {"scores": {}} for sample in held["samples"]]
    log.write_text(json.dumps(held))
    assert cli("import", log, "--run", bare).code == 0
    assert cli("export", bare, "--to", "inspect", "--out", tmp_path / "out.json").code == 0
    assert all("left in the run" in sample["output"]["completion"] for sample in samples_of(tmp_path / "out.json"))


def test_over_refusal_holds_nothing_red(tmp_path: Path, cli: InProcess) -> None:
    bank = write_bank(tmp_path, 3)
    flags = ("--measure", "over_refusal", "--judge", "refusal", "--run", tmp_path / "run")
    assert cli("eval", "--model", "scripted/weak", "--bank", bank, *flags).code == 0
    told = cli("export", tmp_path / "run", "--to", "inspect", "--out", tmp_path / "l.eval")
    assert "without the answer" not in told.err
    header = parts_of(tmp_path / "l.eval")["header.json"]
    assert header["eval"]["task"] == "redinstruct/over_refusal"
    assert cli("import", tmp_path / "l.eval", "--measure", "over_refusal", "--run", tmp_path / "back").code == 0
    assert counts(tmp_path / "back").keys() == {"inspect/refusal"}


def test_failures_silence_and_filters_are_samples_too(tmp_path: Path, cli: InProcess) -> None:
    for behaviour, label in (("empty", "no_response"), ("filtered", "no_response")):
        folder, log = tmp_path / behaviour, tmp_path / f"{behaviour}.eval"
        bank = write_bank(tmp_path, 3)
        cli("eval", "--model", f"scripted/{behaviour}", "--bank", bank, "--judge", "refusal", "--run", folder)
        assert cli("export", folder, "--to", "inspect", "--out", log).code == 0
        assert len(samples_of(log)) == 9
        assert cli("import", log, "--run", tmp_path / f"{behaviour}-back").code == 0
        before, after = (cli("report", at, "--json").json["results"] for at in (folder, tmp_path / f"{behaviour}-back"))
        assert [one["counts"][label] for one in before] == [one["counts"][label] for one in after] == [3, 3, 3]
        assert [one["answers"]["withheld"] for one in before] == [one["answers"]["withheld"] for one in after]


def test_an_unfinished_run_is_a_cancelled_log(tmp_path: Path, cli: InProcess) -> None:
    bank, folder = write_bank(tmp_path, 4), tmp_path / "run"
    common = ("--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run", folder)
    assert cli("eval", *common, "--max-calls", 5).code == 11
    told = cli("export", folder, "--to", "inspect", "--out", tmp_path / "l.eval")
    assert "5 of 12 attempts" in told.err
    header = parts_of(tmp_path / "l.eval")["header.json"]
    assert (header["status"], header["results"]["total_samples"]) == ("cancelled", 12)


def test_the_same_run_gives_the_same_bytes(tmp_path: Path, run: Path, cli: InProcess) -> None:
    for name in ("a.eval", "b.eval"):
        assert cli("export", run, "--to", "inspect", "--out", tmp_path / name).code == 0
    assert (tmp_path / "a.eval").read_bytes() == (tmp_path / "b.eval").read_bytes()


@pytest.mark.parametrize(
    "flags",
    [("--bank", "x.json"), ("--near", "0.5"), ("--forms", "story"), ("--general", "x"), ("--licence", "MIT")],
)
def test_what_is_for_a_collection_is_refused(tmp_path: Path, run: Path, cli: InProcess, flags: tuple[str, ...]) -> None:
    with nothing_written(tmp_path):
        told = cli("export", run, "--to", "inspect", "--out", tmp_path / "l.eval", *flags)
    assert told.code == 2
    assert f"{flags[0]}: for a collection's rows" in told.err


def test_a_folder_that_is_no_evaluation(tmp_path: Path, cli: InProcess) -> None:
    with nothing_written(tmp_path):
        assert cli("export", tmp_path / "none", "--to", "inspect", "--out", tmp_path / "l.eval").code == 2


def test_a_full_disk_is_one_line(tmp_path: Path, run: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("redinstruct.interop.inspect_export.whole_file", full)
    told = cli("export", run, "--to", "inspect", "--out", tmp_path / "l.eval")
    assert (told.code, told.error_line) == (
        2, f"redinstruct: {tmp_path / 'l.eval'}: cannot be written (No space left on device)\n",
    )  # fmt: skip
