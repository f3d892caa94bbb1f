"""A bundle for reviewers: every figure, no text, and a digest that tells whether it was changed."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import zipfile
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from redinstruct.render.bundle import bundle
from redinstruct.run import AnnotationStore, Store
from redinstruct.types import Annotation, Completion, Verdict
from tests.support.cli import InProcess
from tests.support.pages import full_run
from tests.support.stores import Setup, make_bank

CANARY = "kanarienvogel"


def run_of_canaries(folder: Path) -> Path:
    """Every text of the run, its endpoints' words and who labelled it hold the canary."""
    bank = make_bank(8)
    bank = msgspec.structs.replace(
        bank, questions=tuple(msgspec.structs.replace(q, text=f"{CANARY} {q.text}") for q in bank.questions)
    )
    setup = Setup(banks=(bank,), templates=Setup().templates[:1])
    with Store.open_for_writing(folder) as store:
        judge = setup.plan(store)
        for row in range(1, 7):
            said = Completion("text", f"{CANARY} {row}", f"{CANARY} {row}", thought=CANARY)
            store.commit_completions([(row, 0, said)])
            label = "harmful" if row < 4 else "unharmful"
            store.commit_verdicts([(row, 0, judge, 0, Verdict(label, raw=CANARY))])
        store.commit_completions([(7, 0, Completion("error", reason="timeout", note=f"they say {CANARY}", tries=6))])
        AnnotationStore(store).record([(setup.attempts[0].key, Annotation(CANARY, "label", "harmful"))])
    return folder


def unpacked(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_holds_every_figure_and_no_text(cli: InProcess, place: Path) -> None:
    run = run_of_canaries(place / "run")
    done = cli("export", run, "--to", "bundle", "--out", place / "run.zip")
    assert done.code == 0, done.err
    files = unpacked(place / "run.zip")
    assert CANARY not in done.out + done.err
    assert not [name for name, data in files.items() if CANARY.encode() in data]
    told = json.loads(files["report.json"])
    whole = cli("report", run, "--json").json
    for result in whole["results"]:
        for failed in result["failures"]:
            assert CANARY in failed["words"]
            failed["words"] = ""
    assert told == whole
    rows = [json.loads(line) for line in files["attempts.jsonl"].splitlines()]
    counts = told["results"][0]["counts"]
    assert Counter(row["label"] for row in rows) == {"harmful": 3, "unharmful": 3, "error": 1}
    assert {label: counts[label] for label in ("harmful", "unharmful", "error")} == Counter(r["label"] for r in rows)
    assert json.loads(files["people.jsonl"]) == {
        "id": rows[0]["id"], "person": 1, "act": "label", "label": "harmful", "detail": None,
    }  # fmt: skip
    assert stat.S_IMODE((place / "run.zip").stat().st_mode) == 0o600


def test_the_same_run_gives_the_same_bytes(place: Path) -> None:
    first, again = bundle(full_run(place / "one", "openai/m")), bundle(place / "one")
    assert first == again


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
@pytest.mark.parametrize("changed", [None, "report.json", "attempts.jsonl"])
def test_a_change_is_found_by_the_documented_line(cli: InProcess, place: Path, changed: str | None) -> None:
    full_run(place / "run", "openai/m")
    done = cli("export", place / "run", "--to", "bundle", "--out", place / "run.zip")
    with zipfile.ZipFile(place / "run.zip") as archive:
        archive.extractall(place / "D")
    if changed is not None:
        (place / "D" / changed).write_text((place / "D" / changed).read_text().replace("harmful", "unharmful", 1))
    line = "sha256sum -c SHA256SUMS && sha256sum SHA256SUMS"
    found = subprocess.run(line, shell=True, cwd=place / "D", capture_output=True, text=True, check=False)
    assert (found.returncode == 0) == (changed is None)
    if changed is None:
        assert found.stdout.splitlines()[-1].split()[0] in done.out


def test_what_it_does_not_take_is_said(cli: InProcess, place: Path) -> None:
    run = full_run(place / "run", "openai/m")
    for words, said in ((("--include-red",), "--include-red"), (("--near", 0.5), "--near")):
        refused = cli("export", run, "--to", "bundle", "--out", place / "b.zip", *words)
        assert refused.code == 2
        assert said in refused.error_line
    assert "own" in cli("export", run, "--to", "bundle", "--out", run / "run.sqlite").error_line
    assert not (place / "b.zip").exists()
