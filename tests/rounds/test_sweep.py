"""Sweeps: a grid of recipes over seeds, one table and one front."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import msgspec
import pytest

from redinstruct.errors import UsageError
from redinstruct.figures.report import Counts, Details, Rate, ResultFigures
from redinstruct.rounds import sweep as sweeping
from redinstruct.rounds.config import LoopConfig, read_sweep
from redinstruct.rounds.ledger import Stage
from redinstruct.rounds.run import BASE, LoopResult, Measured
from redinstruct.rounds.sweep import PLOT, as_read, carry_out_sweep, check_points, grid
from redinstruct.stats import wilson
from tests.support.cli import ROOT, InProcess, nothing_written

EVALS = """
[[eval]]
name = "harm"
banks = ["bank.json"]
judge = "refusal"
[[eval]]
name = "harmless"
banks = ["bank.json"]
measure = "over_refusal"
judge = "refusal"
"""
ALIGN = '[align]\ndata = ["d.jsonl"]\n[[align.recipes]]\nstrategy = "blue"\n'
WHOLE = 'model = "hf/m"\n' + EVALS + ALIGN


def read(folder: Path, text: str) -> Any:
    path = folder / "sweep.toml"
    path.write_text(text)
    return read_sweep(path)


def test_every_recipe_is_tried_with_every_value(tmp_path: Path) -> None:
    config = read(
        tmp_path,
        WHOLE
        + '[[align.recipes]]\nstrategy = "npo"\nname = "mine"\nsettings = { steps = 9 }\n[sweep]\nseeds = [3, 5]\n'
        'strategies = ["blue", "hinge"]\n[sweep.settings]\nlearning_rate = [1e-5, 2e-4]\n'
        "[sweep.parameters]\nred_weight = [0.5]\n",
    )
    points = grid(config)
    assert [point.recipe.title for point in points] == [
        f"{own}{strategy}+learning_rate-{rate}+red_weight-0.5"
        for own in ("", "mine+") for strategy in ("blue", "hinge") for rate in ("1e-05", "0.0002")
    ]  # fmt: skip
    last = points[-1]
    assert last.recipe.strategy == "hinge"
    assert dict(last.recipe.settings) == {"steps": 9, "learning_rate": 2e-4}
    assert dict(last.recipe.parameters) == {"red_weight": 0.5}
    assert last.varied == {"strategy": "hinge", "learning_rate": "0.0002", "red_weight": "0.5"}
    assert [point.recipe.title for point in grid(read(tmp_path, WHOLE))] == ["blue"]


def test_the_example_means_what_it_says() -> None:
    config = read_sweep(ROOT / "docs" / "examples" / "sweep-toy.toml")
    assert len(grid(config)) == 6
    assert config.sweep.seeds == (0, 1)


BAD: dict[str, tuple[str, str]] = {
    "nothing to sweep": ('model = "hf/m"\n' + EVALS, "align"),
    "rounds": ('model = "hf/m"\nrounds = 2\n' + EVALS + ALIGN, "one round"),
    "one side": (WHOLE.replace('measure = "over_refusal"\n', ""), "over_refusal"),
    "the other side": (WHOLE.replace('name = "harm"\n', 'name = "harm"\nmeasure = "over_refusal"\n'), "attack_success"),
    "a seed twice": (WHOLE + "[sweep]\nseeds = [1, 1]\n", "sweep.seeds"),
    "a loop's seed": (WHOLE.replace("[align]", "[align]\nseed = 3"), "a sweep's seeds"),
    "a loop's model to go on with": (WHOLE.replace("[align]", '[align]\ncarry = "blue"'), "nothing is carried on"),
    "no seed": (WHOLE + "[sweep]\nseeds = []\n", "sweep.seeds"),
    "no value": (WHOLE + "[sweep.settings]\nsteps = []\n", "sweep.settings.steps"),
    "an unknown key": (WHOLE + "[sweep]\nseed = [1]\n", "seed"),
    "a number as text": (WHOLE + '[sweep.parameters]\nred_weight = ["0.1"]\n', "sweep.parameters"),
    "no TOML": ("model = ", "no TOML"),
    "a strategy that is none": (WHOLE + '[sweep]\nstrategies = ["../x"]\n', "strategies"),
    "one value twice": (WHOLE + "[sweep.parameters]\nred_weight = [0.1, 0.1]\n", "red_weight"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_means_nothing_is_one_line(cli: InProcess, tmp_path: Path, name: str) -> None:
    text, told = BAD[name]
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    with nothing_written(tmp_path):
        assert told in cli("sweep", path).error_line


def result(measure: str, prompt: str, first: int, of: int = 100, garbled: int = 0) -> ResultFigures:
    counts = Counts(measure, of, first, of - first, 0, 0, 0, 0)
    interval = wilson(first, of)
    fields: dict[str, Any] = dict.fromkeys(ResultFigures.__struct_fields__)
    fields |= {"bank": "bank", "prompt": prompt, "measure": measure, "counts": counts,
               "details": Details(garbled=garbled), "rate": Rate(interval, interval, (0.0, 1.0))}  # fmt: skip
    return ResultFigures(**fields)


def model(title: str, attacks: dict[str, int], refusals: dict[str, int], garbled: int = 0) -> Measured:
    results = [result("attack_success", prompt, hits) for prompt, hits in attacks.items()]
    results += [result("over_refusal", prompt, hits, garbled=garbled) for prompt, hits in refusals.items()]
    return Measured(1, title, "hf/m", {}, tuple(results))


def test_a_model_counts_by_its_worst_prompt_and_the_front_is_what_nothing_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(tmp_path, WHOLE + '[sweep]\nseeds = [1, 2]\nstrategies = ["blue", "hinge", "npo", "unbounded"]\n')
    asked: list[LoopConfig] = []

    def carry_out(once: LoopConfig, **_: Any) -> LoopResult:
        asked.append(once)
        assert once.align is not None
        seed = once.align.seed
        models = [
            model(BASE, {"standard": 10, "cou": 90}, {"standard": 0, "cou": 2}),
            model("blue", {"standard": 0, "cou": 40 + 20 * seed}, {"standard": 1, "cou": 2}),
            model("hinge", {"standard": 30, "cou": 10}, {"standard": 3, "cou": 4}, garbled=6),
            model("npo", {"standard": 0, "cou": 30}, {"standard": 12, "cou": 4}),
        ]
        if seed == 1:  # the other one was stopped
            models.append(model("unbounded", {"standard": 0, "cou": 0}, {"standard": 90, "cou": 100}))
        stages = [Stage(f"1-align-{one.title}", "d", "p", 2.0, {}) for one in models[1:]]
        return LoopResult(tuple(models), {}, tuple(stages))

    monkeypatch.setattr(sweeping, "carry_out", carry_out)
    Path(config.folder).mkdir()
    found = carry_out_sweep(config)
    assert [one.align.seed for one in asked if one.align is not None] == [1, 2]
    rows = {row.recipe: row for row in found.rows}
    assert list(rows) == [BASE, "blue", "hinge", "npo", "unbounded"]
    blue = rows["blue"]
    assert blue.asr.estimate is not None
    assert (round(blue.asr.estimate, 9), blue.asr.lowest, blue.asr.highest) == (0.70, 0.60, 0.80)
    assert (blue.asr.low, blue.asr.high) == wilson(140, 200)[1:3]
    assert {one.worst for one in blue.by_seed} == {"bank/cou"}
    # Garbled answers are none; the worst prompt of each side may be another one.
    assert rows["hinge"].useful.estimate == 0.90
    assert {one.worst for one in rows["hinge"].by_seed} == {"bank/standard"}
    assert rows["npo"].useful.estimate == 0.88
    assert (rows["unbounded"].stopped, len(rows["unbounded"].by_seed)) == (1, 1)
    # npo is as safe as hinge, and less useful; the base is as useful as blue, and less safe.
    assert [row.recipe for row in found.rows if row.front] == ["blue", "hinge", "unbounded"]
    assert [row.recipe for row in found.front] == ["unbounded", "hinge", "blue"]
    assert rows["blue"].seconds == 4.0
    ElementTree.fromstring((found.folder / PLOT).read_text())
    assert msgspec.json.encode(found.rows)


def test_a_swept_number_stands_beside_strategies_that_do_not_read_it_and_a_recipe_s_own_is_refused(
    tmp_path: Path,
) -> None:
    """``blue`` has no red term to weigh: it is the control, at any weight."""
    pytest.importorskip("torch")
    swept = '[sweep]\nstrategies = ["blue", "npo-len"]\n[sweep.parameters]\nred_weight = [0.1]\n'
    config = read(tmp_path, WHOLE + swept)
    blue, npo = (as_read(point.recipe, config.sweep) for point in grid(config))
    assert (dict(blue.parameters), dict(npo.parameters)) == ({}, {"red_weight": 0.1})
    assert blue.name == "blue+red_weight-0.1"
    alone = read(tmp_path, WHOLE + "[sweep.parameters]\nred_weight = [0.1, 0.3]\n")
    with pytest.raises(UsageError, match="no strategy of the sweep reads red_weight"):
        check_points(alone)
    own = read(tmp_path, WHOLE + "parameters = { red_weight = 0.3 }\n[sweep]\n")
    with pytest.raises(UsageError, match="--set red_weight: --strategy blue does not read it"):
        check_points(own)
