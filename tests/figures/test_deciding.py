"""``--stop-when-decided``: a run stops when a rate's side of a limit is sure, and not for a wrong reason."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from redinstruct.figures.deciding import Decider
from redinstruct.run import Planned, Store, stops
from redinstruct.types import ATTACK_SUCCESS
from tests.support.cli import InProcess, here, report, write_bank

CELL = ("bank", "cou")


def planned(key: bytes, unit: int, label: str | None = None) -> Planned:
    """An attempt at a question, and how it came out."""
    return Planned(key, "bank", unit, None, "cou", 1, label, unit)


def decider(size: int, limit: float = 0.10, secret: bytes = b"secret", epochs: int = 1) -> tuple[Decider, list[bytes]]:
    """A decider of so many questions, and the keys of their attempts in the order of asking."""
    keys = {number.to_bytes(32): number // epochs for number in range(size * epochs)}
    found = Decider(limit, ATTACK_SUCCESS, secret)
    found.follow((CELL, planned(key, unit)) for key, unit in keys.items())
    return found, sorted(keys, key=lambda key: found.place(key, CELL))


def test_answers_count_in_the_fixed_order_whenever_they_come_back() -> None:
    """Refusals are short and come back first: counted as they come, every run would begin with a streak of them."""
    early, order = decider(300)
    for key in order[1:]:
        early.record(key, CELL, "unharmful")
    assert early.counted(CELL) == 0
    assert not early.is_decided(CELL)
    early.record(order[0], CELL, "unharmful")
    assert early.is_decided(CELL)
    assert early.decisions[CELL].side == "below"


def test_a_failure_can_neither_pass_nor_fail_a_model() -> None:
    for label in ("no_response", "judge_refused", "unparsable", "error"):
        found, order = decider(400)
        for key in order:
            found.record(key, CELL, label, "empty")
        assert not found.is_decided(CELL), label


def test_what_a_filter_withheld_reached_nobody() -> None:
    found, order = decider(400)
    for key in order:
        found.record(key, CELL, "no_response", "provider_filter")
    assert found.decisions[CELL].side == "below"


def test_a_question_that_is_asked_several_times_counts_once() -> None:
    """Ten equal answers to each question decide when one answer to each would."""
    once, order = decider(200)
    often, repeats = decider(200, epochs=10)
    for key in order:
        once.record(key, CELL, "unharmful")
    for number, key in enumerate(repeats):
        often.record(key, CELL, "unharmful")
        assert often.counted(CELL) == min(10 * ((number + 1) // 10), 10 * once.counted(CELL))
    assert often.decisions == once.decisions
    assert once.decisions[CELL].side == "below"


def test_all_answers_of_a_question_are_asked_together() -> None:
    _, order = decider(50, epochs=4)
    assert all(len({int.from_bytes(key) // 4 for key in order[i : i + 4]}) == 1 for i in range(0, 200, 4))


def test_a_resumed_run_decides_as_an_undisturbed_one() -> None:
    labels = random.Random(1).choices(["harmful", "unharmful"], [0.3, 0.7], k=300)
    whole, order = decider(300)
    for key, label in zip(order, labels, strict=True):
        whole.record(key, CELL, label)
    known = dict(zip(order[:20], labels[:20], strict=True))
    resumed = Decider(0.10, ATTACK_SUCCESS, b"secret")
    resumed.follow((CELL, planned(key, int.from_bytes(key), known.get(key))) for key in sorted(order))
    for key, label in zip(order[20:], labels[20:], strict=True):
        resumed.record(key, CELL, label)
    assert resumed.decisions == whole.decisions
    assert whole.decisions[CELL].side == "above"
    assert whole.counted(CELL) < 200


@pytest.mark.parametrize("among", [1, 2, 7])
def test_what_is_decided_among_several_is_sure_enough_for_the_first_step_of_holm(among: int) -> None:
    """The gate would call a run undecided that was stopped as decided, if each cell were held alone."""
    chance, cells = random.Random(among), [("bank", f"prompt {number}") for number in range(among)]
    found = Decider(0.25, ATTACK_SUCCESS, b"secret")
    keys = {(cell, at): bytes([number]) + at.to_bytes(31) for number, cell in enumerate(cells) for at in range(300)}
    found.follow((cell, planned(key, at)) for (cell, at), key in keys.items())
    for (cell, _), key in sorted(keys.items(), key=lambda one: found.place(one[1], one[0][0])):
        if not found.is_decided(cell):
            found.record(key, cell, "harmful" if chance.random() < 0.5 else "unharmful")
    assert found.all_decided
    for decision in found.decisions.values():
        assert decision.side == "above"
        assert decision.p_value <= 0.05 / among
        assert decision.low > 0.25


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "alike"), [(1, 0.0), (10, 0.3), (10, 1.0)])
def test_false_stops_stay_rare_at_the_limit_itself(epochs: int, alike: float) -> None:
    """400 null runs here; docs/experiments/verdicts.md has more of them. ``alike``: the correlation of repeats."""
    chance, wrong = random.Random(7), 0
    for number in range(400):
        found, order = decider(100, secret=number.to_bytes(4), epochs=epochs)
        rates: dict[int, float] = {}
        for key in order:
            unit = int.from_bytes(key) // epochs
            if unit not in rates:
                rates[unit] = 0.1 if alike == 0 else float(chance.random() < 0.1) if alike == 1 else beta(chance, alike)
            found.record(key, CELL, "harmful" if chance.random() < rates[unit] else "unharmful")
        wrong += found.is_decided(CELL)
    assert wrong <= 0.05 * 400 + 3 * (400 * 0.05 * 0.95) ** 0.5


def beta(chance: random.Random, alike: float) -> float:
    """A question's own rate: 0.1 on the mean, and so that two of its answers correlate."""
    return chance.betavariate(0.1 * (1 - alike) / alike, 0.9 * (1 - alike) / alike)


def test_the_command_line_stops_early_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    bank = write_bank(tmp_path, 300)
    flags = ["eval", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run", folder,
             "--prompt", "cot", "--prompt", "cou", "--concurrency", "8"]  # fmt: skip
    done = here(*flags, "--stop-when-decided", "0.25", "--json")
    assert done.code == 0, done.err
    assert "bank/cot: decided, the rate lies above 0.25" in done.err
    assert "bank/cou: decided, the rate lies above 0.25" in done.err
    for result in json.loads(done.out)["results"]:
        assert result["planned"] == 300
        assert 5 < result["counts"]["total"] < 150
    again = here(*flags, "--stop-when-decided", "0.25", "--json")
    assert (again.code, again.out) == (0, done.out), "decided already: nothing more is asked"
    # The gate holds the sequence against its own limit: unfinished, and decided all the same.
    with Store.open_for_reading(folder) as store:
        assert stops(store) == (0.25,)
    cli = InProcess(capsys)
    failed = cli("gate", folder, "--max-rate", "0.25", "--json")
    assert failed.code == 10
    for check in failed.json["checks"]:
        assert 0.25 < check["low"] < check["estimate"]
        assert "confidence sequence" in check["why"]
    assert cli("gate", folder, "--max-rate", "0.9").code in (0, 11)
    # Without the flag the same run is completed.
    assert here(*flags).code == 0
    assert all(result["counts"]["total"] == 300 for result in report(folder)["results"])


def test_a_run_that_ends_undecided_but_whole_exits_0(tmp_path: Path) -> None:
    flags = [
        "eval",
        "--model",
        "scripted/weak",
        "--bank",
        write_bank(tmp_path, 6),
        "--judge",
        "refusal",
        "--prompt",
        "cot",
    ]
    done = here(*flags, "--run", tmp_path / "run", "--stop-when-decided", "0.5")
    assert done.code == 0
    cut = here(*flags, "--run", tmp_path / "cut", "--stop-when-decided", "1.5")
    assert "must lie between 0 and 1" in cut.error_line


def test_one_prompt_decided_and_another_whole_but_undecided_is_inconclusive_and_no_limits_fault(tmp_path: Path) -> None:
    flags = ["eval", "--model", "scripted/weak", "--judge", "refusal", "--bank", write_bank(tmp_path, 80)]
    prompts = ["--prompt", "standard", "--prompt", "cot", "--concurrency", 4]
    done = here(*flags, *prompts, "--run", tmp_path / "run", "--stop-when-decided", "0.5", "--json")
    assert done.code == 11
    standard, cot = done.json["results"]
    assert standard["counts"]["total"] < standard["planned"] == cot["counts"]["total"]
    assert "too near the limit" in done.err
    assert "--max-calls" not in done.err


def test_a_report_and_the_command_that_asks_say_the_same_decisions_at_every_cut(tmp_path: Path) -> None:
    """Several prompts are decided together: one that is still asked is not decided in the report either."""
    flags = ["eval", "--model", "scripted/weak", "--bank", write_bank(tmp_path, 120), "--judge", "refusal",
             "--prompt", "cot", "--prompt", "cou", "--run", tmp_path / "run", "--concurrency", 1]  # fmt: skip
    told = []
    for calls in (8, 2, 2, 2, 2, 2, 40):
        done = here(*flags, "--stop-when-decided", "0.3", "--max-calls", calls, "--json")
        said = {}
        for line in done.err.splitlines():
            if ": decided, the rate lies " in line:
                cell, _, rest = line.partition(": decided, the rate lies ")
                said[cell] = (rest.split()[0], rest.partition("(")[2].partition(" % after")[0])
        found = {}
        for r in done.json["results"]:
            if (decided := r["decided"]) is not None:
                assert decided["among"] == 2
                low, high = (100 * end for end in decided["ci"])
                found[f"{r['bank']}/{r['prompt']}"] = (decided["side"], f"{low:.1f} to {high:.1f}")
        assert found == said
        told.append(len(said))
    assert min(told) == 0, "the cuts lie on both sides of a decision"
    assert max(told) > 0
    text = " ".join(here("report", tmp_path / "run").out.split())
    assert "its lower end for all 2 banks and prompts at once, as the gate holds it" in text
