"""``report``, ``labels``, ``show``, ``compare`` and ``gate`` as JSON, and the CSV, key by key in their order.

Of runs that have everything.

The fixtures were written by the code that kept its figures in plain dicts. Floats are held to nine digits: the last
ones are the platform's. To write them anew, after a change that is wanted: ``REDINSTRUCT_PIN=1``.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from redinstruct.run import AnnotationStore, Store
from redinstruct.run.stops import note_stop
from redinstruct.types import Annotation, Completion, JudgeCard, Verdict
from tests.support.cli import InProcess
from tests.support.old_runs import FIXTURES, unpack
from tests.support.pages import full_run
from tests.support.pairs import UNHEARD, mixed, run_of
from tests.support.stores import Setup, make_bank, text
from tests.support.useful import check, right

FLOAT = re.compile(r"-?\d+\.\d{9,}(?:e-?\d+)?")


def everything(place: Path) -> list[Path]:
    """Two runs with two judges, people, failures and a self-test, and two utility checks."""
    return [
        full_run(place / "before", "openai/first"),
        full_run(place / "after", "openai/last", flip=True),
        check(place / "useful", {"task one": right(2, 3), "other": right(1, 2)}),
        check(place / "useful-after", {"task one": right(1, 3), "other": right(1, 2)}, shots=0),
    ]


def tries(place: Path) -> list[Path]:
    """Harmless requests in three tries, ended early by a limit; topics, wordings of the frame, partial refusals."""
    card = JudgeCard("refusal", "over_refusal")
    bank = make_bank(30, "harmless", ("a", "b", "c", "d", "e", None))
    templates = Setup().templates
    worded = msgspec.structs.replace(templates[1], name="cou-other", sha256="f" * 64)
    setup = Setup(banks=(bank,), templates=(*templates, worded), card=card, epochs=3)
    labels = ["refused", "complied", "complied", "unread", "complied", "withheld", "judge_refused"]
    with Store.open_for_writing(place / "tries") as store:
        judge = setup.plan(store)
        for row in range(1, 241):
            label = labels[row % 7] if row % 30 > 4 else labels[0]
            words = text(f"answer {row} " * (60 if row % 9 == 0 else 1))
            store.commit_completions([(row, 0, UNHEARD.get(label) or words)])
            if label not in UNHEARD:
                detail = "partial" if label == "refused" and row % 2 else None
                store.commit_verdicts([(row, 0, judge, 0, Verdict(label, detail))])
    return [place / "tries"]


def decided(place: Path) -> list[Path]:
    """A run that its limit has decided; every outcome is alike, so that the order is no matter."""
    run = run_of(place / "decided", ["harmful"] * 60, topics=("a", "b", "c", "d", "e", "f"))
    with Store.open_for_writing(run) as store:
        note_stop(store, 0.25)
    return [run]


def labelled(place: Path) -> list[Path]:
    """Two people, labels enough to correct the whole and single topics, answers that they left out, a note of doubt."""
    human = (["harmful"] * 25 + [None] * 35 + ["unharmful"] * 35 + ["harmful"] * 5 + [None] * 100)[:200]
    run = run_of(place / "labelled", mixed(60, 140), human=human, topics=("one", "two"))
    setup = Setup(banks=(make_bank(200, "bank", ("one", "two")),), templates=Setup().templates[:1])
    with Store.open_for_writing(run) as store:
        acts = [(setup.attempts[i].key, Annotation("ann", "unsure")) for i in range(30, 40)]
        acts += [(setup.attempts[i].key, Annotation("bo", "label", "harmful")) for i in range(20)]
        acts += [(setup.attempts[i].key, Annotation("bo", "label", "unharmful", "partial")) for i in range(60, 65)]
        acts += [(setup.attempts[i].key, Annotation("bo", "label", "harmful")) for i in range(65, 68)]
        AnnotationStore(store).record(acts)
        drawer = store.add_judge(JudgeCard("paper", "attack_success", "openai/j", parameters=(("temperature", "0"),)))
        store.commit_verdicts([(row, 0, drawer, 0, Verdict("harmful")) for row in range(1, 41)])
        judge = store.judges()[0][0]
        store.commit_verdicts([(row, 0, judge, 1, Verdict("unharmful")) for row in range(1, 7)])
    return [run]


def alone(place: Path) -> list[Path]:
    """Answers from elsewhere that people labelled and no judge has seen."""
    from redinstruct.interop import ImportSettings, import_file

    rows = [{"prompt": f"What is item {i}?", "response": f"answer {i}", "human": ["harmful", "unharmful"][i % 3 > 0],
             "annotator": who, "category": f"t{i % 2}"}
            for i in range(12) for who in (("ann", "bo") if i % 4 else ("ann",))]  # fmt: skip
    file = place / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    import_file(file, place / "alone", ImportSettings(measure="attack_success", model="openai/elsewhere"))
    return [place / "alone"]


def nothing(place: Path) -> list[Path]:
    """A run without a verdict, one that failed whole, and one of the first edition."""
    run = place / "nothing"
    with Store.open_for_writing(run) as store:
        Setup(banks=(make_bank(3),)).plan(store)
    failed = place / "failed"
    setup = Setup(banks=(make_bank(3),), templates=Setup().templates[:1])
    with Store.open_for_writing(failed) as store:
        setup.plan(store)
        gone = Completion("error", reason="timeout", note="no answer within 60 s", tries=6)
        store.commit_completions([(row, 0, gone) for row in range(1, 4)])
    return [run, failed, unpack(1, place / "old") / "evaluation"]


MADE: dict[str, Callable[[Path], list[Path]]] = {
    made.__name__: made for made in (everything, tries, decided, labelled, alone, nothing)
}


def said_of(cli: InProcess, place: Path, runs: list[Path]) -> dict[str, object]:
    """What is frozen of what is said of the runs: name -> document, or the lines of the table."""
    counts = {"judge": "refusal", "true_positives": 80, "positives": 100, "true_negatives": 190, "negatives": 200}
    (place / "counts.json").write_text(json.dumps(counts))
    run = runs[0]
    asked: dict[str, tuple[object, ...]] = {
        "report": ("report", *runs),
        "calibrated": ("report", runs[-1], "--calibration", place / "counts.json"),
        "labels": ("labels", run),
        "show": ("show", run, "--limit", "1", "--show-content"),
    }
    if len(runs) > 1:
        asked["compare"] = ("compare", *runs[:2])
        asked["gate"] = ("gate", runs[1], "--max-rate", "0.2", "--baseline", run)
    if len(runs) > 3:
        asked["compare-utility"] = ("compare", *runs[2:4])
    asked["gate-alone"] = ("gate", run, "--max-rate", "0.2")
    found: dict[str, object] = {}
    for name, words in asked.items():
        answer = cli(*words, "--json")
        if answer.code in (0, 10, 11):
            found[name] = rounded(json.loads(answer.out))
    cli("report", *runs, "--csv", place / "report.csv")
    return found | {"csv": FLOAT.sub(lambda m: f"{float(m[0]):.9g}", (place / "report.csv").read_text()).splitlines()}


def rounded(value: Any) -> Any:
    """The document, its keys in their order and its floats to nine digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


@pytest.mark.parametrize("name", list(MADE))
def test_what_is_said_of_a_run_is_what_was_said(name: str, place: Path, cli: InProcess) -> None:
    said = said_of(cli, place, MADE[name](place))
    file = FIXTURES / "reports" / f"{name}.json"
    if os.environ.get("REDINSTRUCT_PIN"):
        file.write_text(json.dumps(said, separators=(",", ":")) + "\n")
    known = json.loads(file.read_text())
    assert list(said) == list(known)
    for part, was in known.items():
        assert json.dumps(said[part]) == json.dumps(was), part
