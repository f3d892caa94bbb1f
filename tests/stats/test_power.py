"""Power before spending: how many questions a gate needs, against sums by hand, simulation and the gate itself."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from redinstruct.stats import gate_power, questions_needed, wilson
from tests.support.cli import InProcess


def by_hand(n: int, rate: float, limit: float) -> float:
    """The binomial probability that Wilson's interval lies on the rate's side of the limit."""
    found = 0.0
    for x in range(n + 1):
        ends = wilson(x, n)
        if ends.high <= limit if rate < limit else ends.low > limit:
            found += math.comb(n, x) * rate**x * (1 - rate) ** (n - x)
    return found


@pytest.mark.parametrize(("n", "rate", "limit"), [(200, 0.05, 0.1), (40, 0.05, 0.1), (97, 0.3, 0.1), (5, 0.5, 0.4)])
def test_power_is_the_sum_over_what_the_gate_would_say(n: int, rate: float, limit: float) -> None:
    assert gate_power(n, rate, limit) == pytest.approx(by_hand(n, rate, limit), abs=1e-9)


def test_the_figures_of_the_documentation() -> None:
    assert [round(gate_power(n, 0.05, 0.1), 2) for n in (200, 250, 400)] == [0.70, 0.81, 0.97]


@pytest.mark.parametrize(("rate", "limit"), [(0.05, 0.1), (0.2, 0.1)])
def test_so_many_questions_are_enough_and_fewer_are_not(rate: float, limit: float) -> None:
    need = questions_needed(rate, limit)
    assert need.questions is not None
    assert need.power == pytest.approx(by_hand(need.questions, rate, limit))
    assert all(gate_power(need.questions + more, rate, limit) >= 0.8 for more in range(60))
    assert gate_power(need.questions - 1, rate, limit) < 0.8


def test_each_of_several_results_must_pass() -> None:
    sizes = [questions_needed(0.05, 0.1, cells=cells) for cells in (1, 3, 6)]
    assert sizes[0].questions < sizes[1].questions < sizes[2].questions  # type: ignore[operator]
    assert all(need.power is not None and need.power >= 0.8 for need in sizes)
    assert gate_power(sizes[2].questions or 0, 0.05, 0.1) ** 6 == pytest.approx(sizes[2].power)


def test_repeats_of_equal_answers_save_no_question_and_independent_ones_do() -> None:
    alone = gate_power(150, 0.05, 0.1)
    assert gate_power(150, 0.05, 0.1, epochs=3, correlation=0.999) == pytest.approx(alone, abs=0.1)
    assert gate_power(150, 0.05, 0.1, epochs=3) > alone + 0.2


def test_a_rate_too_near_the_limit_has_no_number() -> None:
    assert questions_needed(0.0999, 0.1) == (1, None, None)
    with pytest.raises(ValueError, match="neither passes nor fails"):
        questions_needed(0.1, 0.1)
    for wrong in ({"epochs": 0}, {"correlation": 1.0, "epochs": 2}):
        with pytest.raises(ValueError, match="power needs"):
            gate_power(10, 0.1, 0.2, **wrong)


def test_repeats_that_need_more_questions_than_are_counted_have_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = questions_needed(0.05, 0.2).questions
    assert alone is not None
    assert questions_needed(0.05, 0.2, epochs=2, correlation=0.999).questions not in (None, alone)
    monkeypatch.setattr("redinstruct.stats.power.MOST_QUESTIONS", alone)
    assert questions_needed(0.05, 0.2, epochs=2, correlation=0.999) == (1, None, None)


def test_the_verb(cli: InProcess, tmp_path: Path) -> None:
    bank = tmp_path / "bank.csv"
    bank.write_text("question\n" + "".join(f"How is fold {i} made?\n" for i in range(200)))
    said = cli("plan", "--rate", 0.05, "--limit-rate", 0.1, "--bank", bank, "--json")
    assert (said.code, said.json["schema"], said.json["answer"]) == (0, "redinstruct.power/1", "passed")
    need = questions_needed(0.05, 0.1, cells=3)
    (row,) = (row for row in said.json["rows"] if row["cells"] == 3)
    assert (row["questions"], row["attempts"]) == (need.questions, 3 * (need.questions or 0))
    assert said.json["banks"] == [{"bank": "bank", "questions": 200, "power": pytest.approx(0.7, abs=0.005)}]
    assert "Passing needs every result" in cli("plan", "--rate", 0.05, "--limit-rate", 0.1).out
    assert "simulated" in cli("plan", "--rate", 0.01, "--limit-rate", 0.4, "--epochs", 2).out


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rate", 0.05], "go together"),
        (["--limit-rate", 0.05], "go together"),
        (["--rate", 0.1, "--limit-rate", 0.1], "neither passes nor fails"),
        (["--rate", 0, "--limit-rate", 0.1], "--rate must lie between 0 and 1"),
        (["--rate", 0.1, "--limit-rate", "nan"], "--limit-rate must lie between 0 and 1"),
        (["--rate", 0.1, "--limit-rate", 0.2, "--power", 1], "--power must lie"),
        (["--rate", 0.1, "--limit-rate", 0.2, "--correlation", 1], "--correlation must lie"),
    ],
)
def test_bad_input(cli: InProcess, flags: list[object], said: str) -> None:
    refused = cli("plan", *flags)
    assert refused.code == 2
    assert said in refused.error_line


def test_simulated_power_is_reproducible() -> None:
    assert gate_power(60, 0.1, 0.3, epochs=2, correlation=0.4) == gate_power(60, 0.1, 0.3, epochs=2, correlation=0.4)
