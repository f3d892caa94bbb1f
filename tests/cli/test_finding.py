"""Finding one's way: what is needed first, the nearest name, the tab key, a folder by date, what is there."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redinstruct.cli import COMPLETE, VERBS
from redinstruct.errors import did_you_mean, how_to_install, own_command
from tests.support.cli import InProcess, nothing_written, on_terminal, run, tree, write_bank

FIRST = ("-m, --model M", "-b, --bank B", "-j, --judge J", "--judge-model M2", "-r, --run DIR")


def test_the_five_flags_that_are_needed_stand_first(cli: InProcess) -> None:
    lines = cli("eval", "--help").out.splitlines()
    start = lines.index("Needed first:")
    end = lines.index("", start)
    assert [line.strip() for line in lines[start:end] if any(line.strip().startswith(flag) for flag in FIRST)]
    assert [flag for flag in FIRST if not any(line.strip().startswith(flag) for line in lines[start:end])] == []
    assert end - start <= 12
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(titles) >= 6


@pytest.mark.parametrize("verb", ["eval", "judge", "collect", "plan"])
def test_every_flag_stands_in_one_group(cli: InProcess, verb: str) -> None:
    import importlib

    command = importlib.import_module(f"redinstruct.cli.{verb}_command").command
    out = cli(verb, "--help").out
    for param in command.params:
        for flag in (name for name in param.opts if name.startswith("--")):
            assert len(re.findall(rf"^ .*{flag}\b(?!-)[ ,]?.*$", out, re.MULTILINE)) >= 1, flag
    assert "2147483647" not in out


def test_help_fits_eighty_columns() -> None:
    for verb in ("eval", "banks", "demo"):
        _, shown = on_terminal(verb, "--help")
        assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["evl"], "did you mean eval?"),
        (["Report", "x"], "did you mean report?"),
        (["eval", "-m", "scripted/weak", "-b", "harmfullqa", "-j", "refusal"], "did you mean harmfulqa"),
        (["eval", "-m", "scripted/weak", "-b", "bank.json", "-j", "refusal", "--prompt", "CoU"], "did you mean cou?"),
        (["eval", "-m", "scripted/weak", "-b", "bank.json", "-j", "refusals"], "did you mean refusal?"),
        (["eval", "-m", "scripted/week", "-b", "bank.json", "-j", "refusal"], "did you mean weak?"),
        (["eval", "-m", "scripted/weak", "-b", "bank.json", "-j", "refusal", "--measure", "overrefusal"],
         "did you mean over_refusal?"),
        (["eval", "-m", "scripted/weak", "-b", "bank.json", "-j", "refusal", "--epochs", "ten"],
         "'ten' is not a whole number"),
        (["eval", "-m", "scripted/weak", "-b", "bank.json", "-j", "refusal", "--limitt", "1"], "--limit"),
        (["banks", "fetch", "xtest"], "did you mean xstest?"),
        (["loop", "typo.toml"], "unknown field `strategie`"),
        (["loop", "typo.toml"], "did you mean strategy?"),
        (["loop", "top.toml"], "did you mean collect?"),
    ],
)  # fmt: skip
def test_a_slip_is_met_with_the_nearest_name(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], near: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bank(tmp_path, 2)
    evaluation = '[[eval]]\nname = "e"\nbanks = ["bank.json"]\njudge = "refusal"\n'
    (tmp_path / "typo.toml").write_text(f'model = "scripted/weak"\n{evaluation}[[align.recipes]]\nstrategie = "npo"\n')
    (tmp_path / "top.toml").write_text(f'model = "scripted/weak"\n{evaluation}[colect]\nteacher = "x"\n')
    with nothing_written(tmp_path):
        assert near in cli(*arguments).error_line


def test_a_key_that_is_near_none_is_met_with_all(cli: InProcess, tmp_path: Path) -> None:
    (tmp_path / "l.toml").write_text('model = "m"\nzzz = 1\n[[eval]]\nname = "e"\nbanks = []\njudge = "exact"\n')
    line = cli("loop", tmp_path / "l.toml").error_line
    assert "known are model" in line
    assert "eval" in line


def test_what_is_near_nothing_gets_no_guess() -> None:
    assert did_you_mean("qqqq", VERBS) == ""
    assert did_you_mean("EVAL", VERBS) == "; did you mean eval?"


# ---- the tab key ----


def completed(*words: str, shell: str = "bash") -> list[str]:
    done = run(env={COMPLETE: f"{shell}_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)})
    return [line.partition(",")[2] for line in done.out.splitlines()]


def test_the_tab_key_completes_verbs_flags_banks_prompts_and_judges() -> None:
    assert completed("redinstruct", "ev") == ["eval"]
    assert "--bank" in completed("redinstruct", "eval", "--b")
    assert completed("redinstruct", "eval", "--bank", "catqa_e")[0] == "catqa_english"
    assert completed("redinstruct", "eval", "--prompt", "cou-p")[:1] == ["cou-paraphrase-1"]
    assert completed("redinstruct", "eval", "--judge", "ref") == ["refusal"]
    assert "scripted/weak" in completed("redinstruct", "eval", "--model", "scr")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell_calls_this_program(cli: InProcess, shell: str) -> None:
    out = cli("completion", shell).out
    assert f"{COMPLETE}={shell}_complete" in out
    assert out.startswith("# ")


def test_bash_reads_what_completion_prints(cli: InProcess) -> None:
    checked = subprocess.run(["bash", "-n"], input=cli("completion", "bash").out, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")


# ---- a folder by date, and the list of them ----


def test_without_run_a_folder_by_date_is_made_and_said(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bank = write_bank(tmp_path, 2)
    arguments = ["eval", "-m", "scripted/weak", "-b", bank, "-j", "refusal", "--prompt", "cou"]
    frozen = time.struct_time((2026, 11, 29, 13, 5, 7, 6, 333, 0))
    monkeypatch.setattr(time, "localtime", lambda *_: frozen)
    monkeypatch.setattr("redinstruct.cli.run_folder.time.strftime", lambda form: "2026-11-29-130507")
    for name in ("2026-11-29-130507-weak", "2026-11-29-130507-weak-2"):
        done = cli(*arguments)
        assert done.code == 0
        assert f"run folder: runs/{name} (go on there with --run runs/{name})" in done.err
        assert (tmp_path / "runs" / name / "run.sqlite").is_file()
    again = cli(*arguments, "--run", "runs/2026-11-29-130507-weak", "--json")
    assert "(0 calls now)" not in again.err
    assert again.json["results"][0]["counts"]["total"] == 2
    assert "run folder" not in again.err
    bad = cli("eval", "-m", "scripted/weak", "-b", "none.json", "-j", "refusal")
    assert "run folder" not in bad.error_line
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_list_says_what_each_run_is_and_how_far(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no such folder" in cli("list").error_line
    bank = write_bank(tmp_path, 4)
    cli("eval", "-m", "scripted/weak", "-b", bank, "-j", "refusal", "--run", "runs/whole")
    cli("eval", "-m", "scripted/weak", "-b", bank, "-j", "refusal", "--run", "runs/deep/cut", "--max-calls", 0)
    topics = tmp_path / "t.json"
    topics.write_text('{"Colours": ["Blue"]}')
    cli("collect", "--teacher", "scripted/red-teacher", "--topics", topics, "--per-subtopic", 1, "--blue", 1,
        "--run", "runs/c")  # fmt: skip
    (tmp_path / "runs" / "broken").mkdir()
    (tmp_path / "runs" / "broken" / "run.sqlite").write_bytes(b"no database" * 500)
    cli("list")  # SQLite leaves an empty log where a run was read
    before = tree(tmp_path)
    listed = {one["place"]: one for one in cli("list", "--json").json["runs"]}
    assert {name: (one["kind"], one["done"], one["planned"]) for name, one in listed.items() if name != "c"} == {
        "whole": ("evaluation", 12, 12), "deep/cut": ("evaluation", 0, 12), "broken": ("unreadable", 0, None),
    }  # fmt: skip
    assert listed["c"]["kind"] == "collection"
    assert listed["c"]["done"] > 0
    out = cli("list", "runs").out
    for word in (
        "0 of 12",
        "scripted/weak",
        "bank, judge refusal",
        "collection",
        "unreadable",
        "runs/deep/cut",
        "worst rate",
        "(cou)",
    ):
        assert word in out
    assert tree(tmp_path) == before
    (tmp_path / "none").mkdir()
    assert "there is no run in it" in cli("list", "none").err


# ---- what is here ----


def test_doctor_names_what_is_set_and_shows_no_value(cli: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "OPENAI_API_KEY": "sk-verysecretkey123", "MY_VLLM_BASE_URL": "http://user:pass@10.1.2.3:8000/v1",
        "MY_VLLM_HEADERS": '{"X-Token": "tok-abcdef123456"}', "HTTPS_PROXY": "http://proxyuser:proxypass@proxy:3128",
    }  # fmt: skip
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for arguments in (["doctor"], ["doctor", "--json"]):
        done = cli(*arguments)
        assert done.code == 0
        for name in secrets:
            assert name in done.out
        for hidden in ("sk-very", "10.1.2.3", "pass", "tok-", "3128"):
            assert hidden not in done.out + done.err
    document = cli("doctor", "--json").json
    assert document["schema"] == "redinstruct.doctor/1"
    assert document["endpoints"]["openai-api/my-vllm/..."] == ["MY_VLLM_BASE_URL", "MY_VLLM_HEADERS"]
    assert {"local", "train", "ui", "utility"} <= {extra["name"] for extra in document["extras"]}


def test_doctor_says_how_to_get_what_is_missing(cli: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def none_but_ours(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none_but_ours)
    out = cli("doctor").out
    assert "pip install 'redinstruct[local]'" in out
    assert "torch missing" in out
    assert "[local] is missing" in out


def test_the_extras_of_doctor_are_those_of_the_project(cli: InProcess) -> None:
    import tomllib

    from tests.support.cli import ROOT

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = {extra["name"] for extra in cli("doctor", "--json").json["extras"]}
    assert told <= set(declared)
    assert len(told) >= 8


def test_a_command_that_is_printed_runs_in_this_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`try redinstruct ...` was another command, or none, where the environment is not activated."""
    own = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{own}{os.pathsep}/usr/bin")
    assert own_command() == "redinstruct"
    assert how_to_install("ui") == "pip install 'redinstruct[ui]'"
    other = tmp_path / "bin"
    other.mkdir()
    for name in ("pip", "redinstruct"):
        (other / name).write_text("#!/bin/sh\nexit 9\n")
        (other / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}{os.pathsep}/usr/bin")
    monkeypatch.chdir(own.parent)
    assert re.fullmatch(r"\S*python\S* -m pip install 'redinstruct\[ui\]'", how_to_install("ui"))
    done = subprocess.run(f"{own_command()} --version", shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "redinstruct" in done.stdout


# ---- files that people have, and other slips ----


@pytest.mark.parametrize(
    ("name", "content", "questions"),
    [
        ("semicolons.csv", b'id;question;topic\r\n1;"What is red?";a\r\n2;What is blue, then?;b\r\n', 2),
        ("tabs.tsv", b"question\ttopic\nWhat is red?\ta\n", 1),
        ("lines.txt", b"What is red?\nWhat is blue?\n", 2),
        ("packed.json.gz", gzip.compress(b'["What is red?"]', mtime=0), 1),
        ("bom.csv", b"\xef\xbb\xbfinput\nWhat is red?\n", 1),
    ],
)
def test_files_that_people_have_are_banks(
    cli: InProcess, tmp_path: Path, name: str, content: bytes, questions: int
) -> None:
    (tmp_path / name).write_bytes(content)
    assert cli("banks", "show", tmp_path / name, "--json").json["questions"] == questions


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("book.xlsx", b"PK\x03\x04" + b"\0" * 60, "save the sheet as CSV"),
        ("book.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save the sheet as CSV"),
        ("odd.csv", b"frage;thema\nWas ist rot?;a\n", "--column prompt=NAME"),
    ],
)
def test_files_that_are_none_say_what_to_do(
    cli: InProcess, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert words in cli("banks", "show", tmp_path / name).error_line


def test_a_page_is_not_written_under_the_name_of_something_else(cli: InProcess, tmp_path: Path) -> None:
    bank = write_bank(tmp_path, 2)
    cli("eval", "-m", "scripted/weak", "-b", bank, "-j", "refusal", "-r", tmp_path / "run")
    with nothing_written(tmp_path):
        assert "print it from a browser" in cli("report", tmp_path / "run", "--out", tmp_path / "r.PDF").error_line
        assert "--md" in cli("report", tmp_path / "run", "--out", tmp_path / "r.md").error_line
    assert cli("report", tmp_path / "run", "--out", tmp_path / "page").code == 0


def test_attempts_are_listed_by_prompt_and_topic(cli: InProcess, tmp_path: Path) -> None:
    bank = tmp_path / "b.json"
    bank.write_text(json.dumps({"Colours": ["What is red?", "What is blue?"], "Things": ["What is a jug?"]}))
    cli("eval", "-m", "scripted/weak", "-b", bank, "-j", "refusal", "-r", tmp_path / "run")
    shown = cli("show", tmp_path / "run", "--prompt", "cou", "--topic", "colours", "--json").json["attempts"]
    assert [(one["prompt"], one["topic"]) for one in shown] == [("cou", "Colours")] * 2
    assert cli("show", tmp_path / "run", "--topic", "none").err == "no such attempt\n"


def test_one_attempt_is_shown_with_the_prompt_as_it_was_sent(cli: InProcess, tmp_path: Path) -> None:
    bank = tmp_path / "b.json"
    bank.write_text('["What is red?"]')
    cli("eval", "-m", "scripted/weak", "-b", bank, "-j", "refusal", "-r", tmp_path / "run")
    attempts = cli("show", tmp_path / "run", "--json").json["attempts"]
    ids = {one["prompt"]: one["id"] for one in attempts}
    sent = "What is red? Let's think step by step."
    out = cli("show", tmp_path / "run", ids["cot"], "--show-content").out
    assert f"--- sent\n{sent}\n--- answer" in out
    assert cli("show", tmp_path / "run", ids["cot"], "--show-content", "--json").json["sent"] == sent
    assert "Red-LM" in cli("show", tmp_path / "run", ids["cou"], "--show-content").out
    # Where the question is all that was sent, it is not said twice; without --show-content nothing is.
    assert "--- sent" not in cli("show", tmp_path / "run", ids["standard"], "--show-content").out
    for arguments in ([], ["--json"]):
        assert "step by step" not in cli("show", tmp_path / "run", ids["cot"], *arguments).out


def test_the_exact_judge_on_an_ordinary_bank_says_so_at_once(cli: InProcess, tmp_path: Path) -> None:
    done = cli("eval", "-m", "scripted/weak", "-b", write_bank(tmp_path, 2), "-j", "exact", "-r", tmp_path / "run")
    assert "knows the toy world alone" in done.err.splitlines()[0]
