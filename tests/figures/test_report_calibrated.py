"""``report --calibration``: a judge's rate corrected by how it did elsewhere, and what it does not promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redinstruct.stats import Calibration, rogan_gladen
from tests.support.cli import InProcess
from tests.support.pairs import mixed, run_of
from tests.support.stores import Setup, make_bank

COUNTS = {"true_positives": 80, "positives": 100, "true_negatives": 190, "negatives": 200}


def written(place: Path, **values: object) -> Path:
    file = place / "counts.json"
    file.write_text(json.dumps({"judge": "refusal", **COUNTS, **values}))
    return file


def test_the_rate_is_rogan_and_gladen_s(place: Path, cli: InProcess) -> None:
    run = run_of(place / "run", mixed(60, 140, error=3))
    (result,) = cli("report", run, "--calibration", written(place), "--json").json["results"]
    known = rogan_gladen(60, 200, Calibration(80, 100, 190, 200))
    assert result["rate"]["calibrated"] == {
        "estimate": known.estimate, "ci": [known.low, known.high], "method": "rogan-gladen",
    }  # fmt: skip
    assert result["rate"]["corrected"] is None
    said = " ".join(cli("report", run, "--calibration", written(place)).out.split())
    assert "corrected from outside: 33.3 %" in said
    assert "if the judge errs here as often as there (it found 80 of 100 positive and 190 of 200 negative items" in said
    assert "calibrated" not in cli("report", run, "--json").json["results"][0]["rate"]


def test_repeats_of_a_question_are_no_evidence_here_either(place: Path, cli: InProcess) -> None:
    setup = Setup(banks=(make_bank(50, topics=(None,)),), templates=Setup().templates[:1])
    found = []
    for epochs in (1, 10):
        many = Setup(setup.banks, setup.templates, epochs=epochs)
        run = run_of(place / f"e{epochs}", mixed(20, 30) * epochs, setup=many)
        (result,) = cli("report", run, "--calibration", written(place), "--json").json["results"]
        found.append(result["rate"]["calibrated"])
    assert found[0] == found[1]


def test_people_s_own_labels_are_no_judge_s(place: Path, cli: InProcess) -> None:
    file = place / "people.csv"
    file.write_text("prompt,response,human\n" + "".join(f"What is {i}?,A thing.,unharmful\n" for i in range(12)))
    assert cli("import", file, "--run", place / "run").code == 0
    said = cli("report", place / "run", "--calibration", written(place, judge="imported"))
    assert "no result of judge imported" in said.error_line


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"judge": "nobody"}, "no result of judge nobody"),
        ({"judge": ""}, "no result of judge"),
        ({"positives": 50}, "must not exceed"),
        ({"true_positives": 20, "true_negatives": 40}, "must be at least 0.3"),
        ({"positives": "many"}, "it must be an object with judge, true_positives"),
        ({"surplus": 1}, "it must be an object with judge, true_positives"),
        ({"true_positives": 0, "positives": 0}, "at least one truly positive"),
    ],
)
def test_bad_input(place: Path, cli: InProcess, values: dict[str, object], said: str) -> None:
    run = run_of(place / "run", mixed(6, 14))
    out = place / "page.html"
    refused = cli("report", run, "--calibration", written(place, **values), "--out", out)
    assert refused.code == 2
    assert said in refused.error_line
    assert not out.exists()
    assert cli("report", run, "--calibration", place / "none.json").code == 2
