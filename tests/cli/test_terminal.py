"""What a person sees: intervals as a dot and a line, notes once, steps as lines that stay, tables that fit."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import redinstruct
from redinstruct.cli import console
from redinstruct.models.base import Reply
from redinstruct.models.scripted import ScriptedModel
from redinstruct.progress import Progress, StagePart
from tests.support.cli import ROOT, InProcess, on_terminal, run
from tests.support.endpoint import Endpoint


def measured(run: Path, refused: int, of: int = 40) -> Path:
    """A run of ``of`` questions under one prompt, the first ``refused`` of which are refused."""
    count = iter(range(of))
    model = ScriptedModel(lambda _: Reply("I'm sorry, but no." if next(count) < refused else "Blue it is.", "stop"))
    bank = [f"What is item {number}?" for number in range(of)]
    redinstruct.evaluate(model=model, bank=bank, judge="refusal", run=run, prompts="standard")
    return run


@pytest.mark.parametrize("refused", [40, 0, 20, 3])
def test_an_interval_is_a_dot_on_a_line(cli: InProcess, tmp_path: Path, refused: int) -> None:
    """0 % showed a bar to 65 %, and 100 % one that was a third solid."""
    (line,) = [line for line in cli("report", measured(tmp_path / "run", refused)).out.splitlines() if "●" in line]
    shown = line.rpartition("]")[2].strip()
    low, high = map(float, re.findall(r"\[ *([\d.]+), *([\d.]+)\]", line)[-1])
    assert len(shown) == 20
    assert set(shown) <= set("●─·")
    dot = shown.index("●")
    assert dot == min(19, int((40 - refused) / 40 * 20))
    reach = [place for place, mark in enumerate(shown) if mark != "·"]
    assert (reach[0], reach[-1]) == (min(19, int(low / 5)), min(19, int(high / 5)))


def test_without_such_characters_it_is_a_letter_on_a_dash(tmp_path: Path) -> None:
    shown = run("report", measured(tmp_path / "run", 20), env={"PYTHONIOENCODING": "ascii"})
    assert re.search(r"\] \|\.+-+o-+\.+$", shown.out, re.MULTILINE), shown.out
    assert shown.out.isascii()


def test_what_is_true_of_every_table_is_said_once_below_the_last(cli: InProcess, tmp_path: Path) -> None:
    measured(tmp_path / "run", 20)
    redinstruct.judge(
        tmp_path / "run", "paper", judge_model=ScriptedModel(lambda _: Reply("## Label: harmful ##", "stop"))
    )
    out = cli("report", tmp_path / "run").out
    assert out.count("attack success") >= 2
    for once in (
        "Intervals: Wilson, 95 %.",
        "Every recorded attempt has a verdict",
        "keywords at the start of an answer",
    ):
        assert out.count(once) <= 1, out
    notes = out[out.rindex("●") :]
    assert "Intervals: Wilson" in notes
    assert "keywords at the start" in notes
    assert "judge refusal:" in notes, "what is one table's own stands under its name"


def test_a_run_that_goes_on_counts_what_it_had_by_label_too(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5880 of 5880 stood beside labels that made 5,559."""
    monkeypatch.setattr(console, "PLAIN_PROGRESS_SECONDS", 0.0)
    bank = tmp_path / "inert.json"
    bank.write_text(json.dumps([f"inert {i}?" for i in range(10)]))
    arguments = ["eval", "--model", "openai-api/stub/m", "--bank", bank, "--judge", "refusal", "--run",
                 tmp_path / "run", "--prompt", "standard"]  # fmt: skip
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        cli(*arguments, "--limit", 6)
        lines = [line for line in cli(*arguments).err.splitlines() if " of 10 (" in line]
        again = [line for line in cli(*arguments).err.splitlines() if " of 10 (" in line]
    assert lines
    for line in lines:
        done, counted = re.findall(r"(\d+) of 10 \((.*)\)", line)[0]
        counts = [int(n) for n in re.findall(r"(?<!retries) (\d+)", " " + counted)]
        assert sum(counts) == int(done), line
    assert not again


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_banks_fit(cli: InProcess, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    code, shown = on_terminal("banks", columns=columns)
    assert code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r", "").splitlines()
    assert max(map(len, plain)) <= columns
    assert [line for line in plain if "harmfulqa" in line and "Apache-2.0" in line]
    assert "250 safe prompts" in shown
    monkeypatch.setenv("COLUMNS", str(columns))
    assert max(map(len, cli("banks").out.splitlines())) <= max(columns, 60)


def test_the_banks_fit_a_pipe_that_says_no_width(cli: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert max(map(len, cli("banks").out.splitlines())) <= 100


# ---- work in several steps ----


class Terminal(io.StringIO):
    """A terminal of 80 columns and 24 rows, and everything that was written to it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def demo_like() -> None:
    """Twenty stages of which two were done before, each told a hundred times in three parts."""
    with console.steps() as tell:
        for number in range(1, 21):
            part = StagePart(number, 24, f"aligning: recipe-{number}")
            if number in (2, 3):
                tell(Progress(1, 1, part=StagePart(number, 24, part.name, 0.0, True)))
                continue
            tell(Progress(0, None, part=part))
            for stage in ("reference", "training", "asking"):
                for done in range(0, 101, 10):
                    tell(Progress(done, 100, stage, part=part, detail="step"))
            tell(Progress(1, 1, part=StagePart(number, 24, part.name, 61.4)))


def test_finished_steps_are_lines_and_one_bar_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """61 bars stacked up in one live area, which a terminal of 24 rows can not show."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    for name, value in (("COLUMNS", "80"), ("LINES", "24"), ("TERM", "xterm")):
        monkeypatch.setenv(name, value)
    demo_like()
    text = shown.getvalue()
    assert set(re.findall(r"\x1b\[(\d*)A", text)) <= {"1"}, "one live line"
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r", "\n").splitlines()
    ended = [line.strip() for line in lines if "done in" in line]
    assert ended[0] == "stage  1 of 24: aligning: recipe-1: done in 61 s"
    assert len(ended) == 18
    assert sum("stages 2 to 3 done before" in line for line in lines) == 1
    assert any("stage 20 of 24" in line and "asking" in line and "━" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_without_a_terminal_every_step_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    demo_like()
    lines = capsys.readouterr().err.splitlines()
    assert lines[:4] == [
        "stage  1 of 24: aligning: recipe-1 ...",
        "stage  1 of 24: aligning: recipe-1: done in 61 s",
        "stages 2 to 3 done before",
        "stage  4 of 24: aligning: recipe-4 ...",
    ]
    monkeypatch.setattr(console, "PLAIN_PROGRESS_SECONDS", 0.0)
    demo_like()
    assert "stage  1 of 24: aligning: recipe-1, training: 50 of 100; step" in capsys.readouterr().err.splitlines()


def test_steps_that_nobody_numbers_are_told_by_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    with console.steps() as tell:
        for stage in ("read", "train"):
            for done in (0, 5, 10):
                tell(Progress(done, 10, stage))
    lines = capsys.readouterr().err.splitlines()
    assert [re.sub(r"\d+ s", "N s", line) for line in lines] == [
        "read: 0 of 10", "read: done in N s", "train: 0 of 10", "train: done in N s",
    ]  # fmt: skip


def test_whoever_interrupts_is_told_where(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with console.steps() as tell:
            tell(Progress(1, 2, "training", part=StagePart(7, 24, "aligning: npo")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        work()
    assert stop.value.__notes__ == ["in stage  7 of 24: aligning: npo"]
    assert "done in" not in capsys.readouterr().err


@pytest.mark.slow
def test_the_suite_passes_where_ctrl_c_is_ignored() -> None:
    """As in ``make test &``: a shell starts background jobs so."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider",
         "tests/engine/test_engine_pool.py", "-k", "ctrl_c"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
