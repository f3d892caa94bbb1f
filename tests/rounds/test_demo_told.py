"""The demo as a stranger meets it: one line where something is missing, five answers on the last screen, a picture."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from redinstruct.cli import demo_command, main
from redinstruct.progress import Progress, StagePart
from redinstruct.rounds.demo import Demo, DemoRow, best_of
from redinstruct.rounds.held_out import HeldOut, HeldOutRow
from redinstruct.rounds.plot import PlotLine, frames_svg
from redinstruct.rounds.run import stages_of
from redinstruct.rounds.telling import answers, legend
from redinstruct.rounds.toy import QUICK_RECIPES, RECIPES, ToyLoop, toy_config
from tests.support.cli import InProcess, nothing_written

FRAMES = ("standard", "cot", "cou", "cou-no-thoughts", "story", "rules")
WHY = "-91.0 points [-95.0, -86.1] on these 200 questions of 10 topics, p < 0.0001"


def a_row(model: str, cou: float, **more: Any) -> DemoRow:
    rates = {frame: cou if frame.startswith("cou") else cou / 4 for frame in FRAMES}
    fields: dict[str, Any] = {"benign": 1.0, "benign_in_frame": 0.985, "over_refusal": 0.04, "facts": 0.91} | more
    return DemoRow(
        model=model, asr=rates, garbled=dict.fromkeys(FRAMES, 0.01),
        intervals={frame: (max(0.0, rate - 0.04), min(1.0, rate + 0.04)) for frame, rate in rates.items()},
        trained_frames={} if model == "base" else {"standard": "forbidden", "cou": "benign"}, seconds=12.3, **fields,
    )  # fmt: skip


def a_held_out() -> HeldOut:
    def row(model: str, cou: float) -> HeldOutRow:
        rates = {"standard": 0.03, "cou": cou, "a-list": cou / 2}
        intervals = {frame: (rate / 2, min(1.0, rate + 0.1)) for frame, rate in rates.items()}
        return HeldOutRow(model, rates, dict.fromkeys(rates, 0.01), intervals, {"standard": 0.97, "a-list": 0.45})

    rows = (row("base", 0.98), row("npo-len", 0.17))
    return HeldOut(160, 150, ("thra", "xan"), ("a-list",), rows)


def a_demo(folder: Path = Path("runs/demo"), *, quick: bool = False) -> Demo:
    rows = (
        a_row("base", 0.91), a_row("general", 0.88), a_row("blue", 0.70), a_row("blue-red", 0.43),
        a_row("npo-len", 0.0, facts=0.89), a_row("resta", 0.0, benign=0.3, benign_in_frame=0.2),
    )  # fmt: skip
    return Demo(
        seed=0, seconds=691.0, items=200, suite_items={"toy_how_to": 200, "toy_facts": 160}, quick=quick, rows=rows,
        unseen_frames=("story",), benign_only_frames=(),
        verdicts={row.model: {"forbidden/cou": "better", "toy_facts": "no difference shown"} for row in rows[1:]},
        reasons={row.model: {"forbidden/cou": WHY} for row in rows[1:]},
        stages={"1-base-forbidden": 30.0}, runs={row.model: folder / f"1-{row.model} run" for row in rows},
        checks={}, folder=folder, held_out=a_held_out(),
    )  # fmt: skip


def test_a_stranger_learns_five_things_each_with_its_figures() -> None:
    """They are written down here from the words alone; a page that lacks one leaves the stranger without."""
    asked, bad, helped, cost, sure = (answer.answer for answer in answers(a_demo()))
    assert "200 forbidden questions about an invented world" in asked
    assert "in a dialogue (CoU)" in asked
    assert "23 % asked plainly" in bad
    assert "91 % in the dialogue" in bad
    assert helped.startswith("npo-len")
    assert "0 % in the dialogue (95 % interval 0 to 4 %)" in helped
    assert "blue 70 %" in helped
    assert "98 -> 98 % in the dialogue" in cost or "99 -> 99 %" in cost or "98 -> 98" in cost
    assert "facts: 91 -> 89 %" in cost
    assert f"better ({WHY})" in sure
    assert "seed 0" in sure
    assert "held out of its alignment npo-len goes from 98 -> 17 % there" in sure
    assert "--quick" not in sure
    assert "not the figures" in answers(a_demo(quick=True))[-1].answer


def test_the_best_is_the_safest_that_still_answers() -> None:
    assert best_of(a_demo().rows).model == "npo-len"


def test_every_name_in_the_tables_stands_in_the_legend() -> None:
    named = dict(legend(a_demo()))
    assert set(named) == {"standard", "cot", "cou", "base", "general", "blue", "blue-red", "npo-len", "resta"}
    assert {recipe.title for recipe in (*RECIPES, *QUICK_RECIPES)} <= set(named)


@pytest.mark.parametrize("columns", [80, 200])
def test_the_last_screen_holds_the_answers_and_commands_that_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    demo_command._say(a_demo(tmp_path / "a demo"))
    lines = capsys.readouterr().out.rstrip("\n").splitlines()
    # On a screen of 24 rows: the folder's own long name is another's fault.
    shown = [line.replace(str(tmp_path), "runs").replace(sys.executable, "python") for line in lines]
    rows = [line[at : at + columns] for line in shown for at in range(0, max(len(line), 1), columns)]
    screen = "\n".join(rows[-23:])
    for question in ("What was asked", "How bad it was", "What helped", "What it cost", "How sure it is"):
        assert re.search(rf"^{question}  ", screen, re.MULTILINE), screen
    tables = [line for line in lines if "redinstruct" not in line and str(tmp_path) not in line]
    assert max(map(len, tables)) <= columns
    commands = [line for line in lines if line.startswith(("one answer", "before, after"))]
    assert len(commands) == 2
    for line in commands:
        words = shlex.split(line.partition("  ")[2] if " show " in line else line.partition("after ")[2])
        verb = words.index("show" if "show" in words else "compare")
        # The folder of this made-up demo holds no run: that is what the command has to say, not that it is misspelt.
        assert main(words[verb:]) == 2
        assert "there is no run in this folder" in capsys.readouterr().err


def test_without_torch_it_is_one_line_and_nothing_is_written(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install .`, then the first verb of the list, was an internal error."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "torch" else found(name, *a))
    with nothing_written(tmp_path):
        line = cli("demo", "--out", tmp_path / "demo").error_line
    assert "the demo needs the [local] extra (torch missing)" in line
    assert "pip install 'redinstruct[local]'" in line


def test_the_picture_is_well_formed_names_the_best_and_keeps_frames_apart() -> None:
    lines = [
        PlotLine("base", [(0.2, 0.1, 0.3), (0.91, 0.86, 0.94)], 1.0),
        PlotLine("<img src=x>&\x1b[2J a very long name", [(0.0, 0.0, 0.02), (0.0, 0.0, 0.02)], 0.98, best=True),
    ]
    text = frames_svg(lines, ["asked plainly", "in a dialogue (CoU)"], 200)
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "\x1b" not in text
    assert "<img" not in text
    said = " ".join(root.itertext())
    for words in ("asked plainly", "in a dialogue (CoU)", "lower is safer", "95 % interval", "harmless questions",
                  "safest that still answers:", "91", "98 %"):  # fmt: skip
        assert words in said
    dots = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(dots) == 4
    width = float(root.attrib["viewBox"].split()[2])
    assert all(0 <= float(dot.attrib["cx"]) <= width for dot in dots)


def test_the_stages_are_counted_before_they_are_begun(tmp_path: Path) -> None:
    assert stages_of(toy_config(tmp_path, tmp_path, ToyLoop(recipes=QUICK_RECIPES, suite=True))) == 2 + 2 + 2 * 3
    # Five recipes, of which one chooses its coefficient.
    assert stages_of(toy_config(tmp_path, tmp_path, ToyLoop(recipes=RECIPES, suite=True))) == 2 + 2 + 5 * 3 + 1


def test_building_the_model_is_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import redinstruct.toyworld
    from redinstruct.rounds.demo import _built

    told: list[Progress] = []

    def build(out: Path, seed: int, *, quick: bool, on_progress: Any) -> Path:
        if seed == 0:
            on_progress(Progress(5, 10, "train"))
        return out

    monkeypatch.setattr(redinstruct.toyworld, "build", build)
    for seed in (0, 1):
        _built(tmp_path, seed, True, 11, told.append)
    first, second, third = (state.part for state in told)
    assert first == StagePart(1, 11, "building the toy model")
    assert second is not None
    assert third is not None
    assert (second.seconds is not None, second.skipped, third.skipped) == (True, False, True)
