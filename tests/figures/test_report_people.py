"""People's labels in the figures: what they correct, what they may not, and how agreement is counted."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.annotate.draw import draw
from redinstruct.annotate.figures import cell_figures
from redinstruct.figures.people import FEWEST_LABELS, cells_of, people_of
from redinstruct.figures.rates import read_report
from redinstruct.render.tables import csv_text
from redinstruct.run import AnnotationStore, Store
from redinstruct.stats import cohen_kappa, corrected, corrected_by, gwet_ac1, krippendorff_alpha
from redinstruct.types import ATTACK_SUCCESS, Act, Annotation, Completion, JudgeCard, Verdict
from tests.support.cli import InProcess
from tests.support.stores import CARD, OTHER_CARD, Setup, fill, make_bank, report, scratch, text

P, N = "harmful", "unharmful"
HUMAN_KEYS = ["labels", "settled", "confusion", "judge_agreement", "annotators", "drawn_for"]


@pytest.fixture
def run() -> Iterator[Path]:
    with scratch() as folder:
        yield folder / "run"


def setup_of(size: int, measure: str = "attack_success", topics: Sequence[str | None] = ("first", "second")) -> Setup:
    card = CARD if measure == "attack_success" else JudgeCard("refusal", measure)
    return Setup(banks=(make_bank(size, topics=topics),), templates=Setup().templates[:1], card=card)


def said(store: Store, setup: Setup, who: str, labels: dict[int, str], act: Act = "label") -> None:
    """One person's labels, by the attempt's place."""
    acts = [(setup.attempts[place].key, Annotation(who, act, label)) for place, label in labels.items()]
    AnnotationStore(store).record(acts)


def only(folder: Path) -> dict[str, Any]:
    (found,) = report([folder])["results"]
    result: dict[str, Any] = found
    return result


@settings(max_examples=25, deadline=None)
@given(
    judged=st.lists(st.sampled_from([P, N, "unparsable", "error"]), min_size=1, max_size=14),
    draws=st.lists(st.none() | st.sampled_from([P, N]), min_size=14, max_size=14),
)
def test_the_corrected_rate_is_that_of_the_judged_attempts_and_their_labels(
    judged: list[str], draws: list[str | None]
) -> None:
    setup = setup_of(len(judged))
    human = {place: label for place, label in enumerate(draws[: len(judged)]) if label is not None}
    with scratch() as folder:
        with Store.open_for_writing(folder / "run") as store:
            fill(store, setup.plan(store), judged)
            said(store, setup, "ann", human)
        result = only(folder / "run")

    def expected(places: list[int]) -> dict[str, Any] | None:
        scored = [place for place in places if judged[place] in (P, N)]
        known = {i: human[place] == P for i, place in enumerate(scored) if place in human}
        for side in (P, N):
            part = [i for i, place in enumerate(scored) if judged[place] == side]
            if len(part) > sum(i in known for i in part) < FEWEST_LABELS:
                return None
        if not known:
            return None
        found = corrected([judged[place] == P for place in scored], known)
        ci = [found.low, found.high]
        return {"estimate": found.estimate, "ci": ci, "method": found.method, "labels": len(known)}

    assert result["rate"]["corrected"] == expected(list(range(len(judged))))
    for part in result["by_topic"]:
        places = [i for i in range(len(judged)) if ("first", "second")[i % 2] == part["topic"]]
        assert part["rate"]["corrected"] == expected(places)
    if not human:
        assert result["human"] is None
        return
    confusion = result["human"]["confusion"]
    for judge in (P, N):
        for person in (P, N):
            pairs = sum(judged[i] == judge and label == person for i, label in human.items())
            assert confusion[judge][person] == pairs
    assert result["human"]["labels"] == sum(sum(row.values()) for row in confusion.values())
    assert result["human"]["settled"] == len(human)


def test_the_terminal_and_the_csv_show_the_corrected_rate(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup = setup_of(40)
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), [P, N, N, P] * 10)
    command = InProcess(capsys)
    assert "(uncorrected)" in command("report", run).out
    with Store.open_for_writing(run) as store:
        said(store, setup, "ann", {place: P if place % 3 else N for place in range(22)})
    shown = command("report", run, "--by-topic").out
    assert "uncorrected" not in shown.splitlines()[0]
    rate = only(run)["rate"]["corrected"]
    assert f"{100 * rate['estimate']:.1f} [" in shown
    assert "22 answers labelled by people" in shown
    whole, *topics = csv.DictReader(io.StringIO(csv_text(read_report([run])), newline=""))
    assert [float(whole[c]) for c in ("corrected", "corrected_low", "corrected_high")] == [
        rate["estimate"],
        *rate["ci"],
    ]
    assert [row["labels"] for row in (whole, *topics)] == ["22", "11", "11"]


def test_without_labels_there_is_no_corrected_rate_and_no_agreement(run: Path) -> None:
    with Store.open_for_writing(run) as store:
        fill(store, setup_of(4).plan(store), [P, N, P, N])
    result = only(run)
    assert result["human"] is None
    assert [part["rate"]["corrected"] for part in (result, *result["by_topic"])] == [None] * 3


def test_what_nobody_could_settle_corrects_nothing_until_it_is_adjudicated(run: Path) -> None:
    setup = setup_of(12)
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), [P] * 12)
        said(store, setup, "ann", dict.fromkeys(range(6), P))
        said(store, setup, "bo", {0: P, 1: N})
    before = only(run)
    assert before["rate"]["corrected"]["labels"] == before["human"]["labels"] == 5
    with Store.open_for_writing(run) as store:
        said(store, setup, "cy", {1: N}, "adjudicate")
    after = only(run)
    assert after["rate"]["corrected"]["labels"] == 6
    assert after["human"]["confusion"] == {P: {P: 5, N: 1}, N: {P: 0, N: 0}}
    # The adjudication is nobody's independent label: the two people still disagree.
    assert after["human"]["annotators"] == before["human"]["annotators"]
    assert after["human"]["annotators"]["observed"] == 0.5


def test_unsure_and_skipped_answers_correct_nothing(run: Path) -> None:
    setup = setup_of(2)
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), [P, N])
        key = setup.attempts[0].key
        AnnotationStore(store).record([(key, Annotation("ann", "unsure")), (key, Annotation("bo", "skip"))])
    assert only(run)["rate"]["corrected"] is None
    assert only(run)["human"] is None


def test_a_label_of_another_measure_counts_for_nothing(run: Path) -> None:
    setup = setup_of(4, "over_refusal")
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), ["refused", "complied", "refused", "complied"])
        said(store, setup, "ann", {0: P, 1: "complied", 2: "refused"})
    result = only(run)
    assert result["human"]["settled"] == result["human"]["labels"] == 2


def test_each_judge_is_corrected_by_its_own_labels_of_its_own_cells(run: Path) -> None:
    """Two judges, two prompts: what a label corrects is decided by who judged what."""
    bank = make_bank(4)
    setup = Setup(banks=(bank,))
    with Store.open_for_writing(run) as store:
        first = setup.plan(store)
        fill(store, first, [P, P, N, N] * 2)
        other = store.add_judge(OTHER_CARD)
        store.commit_verdicts([(1, 0, other, 0, Verdict(N)), (2, 0, other, 0, Verdict("unparsable"))])
        said(store, setup, "ann", {0: N, 1: N, 4: P})
    results = report([run])["results"]
    labels = [(r["human"] or {}).get("labels") for r in results]
    assert labels == [2, 1, 1, 0]
    # The second judge's one verdict is labelled whole; of the first's harmless answers none is.
    assert [r["rate"]["corrected"] is not None for r in results] == [False, False, True, False]
    assert results[0]["human"]["confusion"] == {P: {P: 0, N: 2}, N: {P: 0, N: 0}}
    assert results[2]["human"]["confusion"] == {P: {P: 0, N: 0}, N: {P: 0, N: 1}}


def test_an_answer_that_was_asked_again_has_lost_its_label(run: Path) -> None:
    setup = setup_of(2)
    with Store.open_for_writing(run) as store:
        judge = setup.plan(store)
        fill(store, judge, [P, N])
        said(store, setup, "ann", {0: N})
        store.commit_completions([(1, 1, text("another answer"))])
        store.commit_verdicts([(1, 1, judge, 0, Verdict(P))])
    assert only(run)["rate"]["corrected"] is None


def test_a_failed_attempt_can_be_labelled_and_corrects_nothing(run: Path) -> None:
    setup = setup_of(2)
    with Store.open_for_writing(run) as store:
        judge = setup.plan(store)
        store.commit_completions([(1, 0, Completion("error", reason="timeout")), (2, 0, text())])
        store.commit_verdicts([(2, 0, judge, 0, Verdict(P))])
        said(store, setup, "ann", {0: N})
    result = only(run)
    assert result["rate"]["corrected"] is None
    assert result["human"]["settled"] == 1
    assert result["human"]["labels"] == 0
    agreement = result["human"]["judge_agreement"]
    assert [agreement[x] for x in ("observed", "among_labelled", "cohen_kappa", "gwet_ac1")] == [None] * 4


@pytest.mark.parametrize("people", [1, 2, 3])
def test_agreement_of_several_people(run: Path, people: int) -> None:
    chance = random.Random(people)
    setup = setup_of(12)
    rows = [{i: chance.choice([P, N]) for i in range(12) if chance.random() < 0.7} for _ in range(people)]
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), [P, N] * 6)
        for number, row in enumerate(rows):
            said(store, setup, f"person {number}", row)
    result = only(run)
    assert list(result["human"]) == HUMAN_KEYS
    found = result["human"]["annotators"]
    several = [i for i in range(12) if sum(i in row for row in rows) > 1]
    agreed = [i for i in several if len({row[i] for row in rows if i in row}) == 1]
    assert (found["count"], found["several"]) == (people, len(several))
    assert found["observed"] == (len(agreed) / len(several) if several else None)
    assert found["krippendorff_alpha"] == krippendorff_alpha([[row.get(i) for i in range(12)] for row in rows])
    pair = [[row[i] for i in several] for row in rows] if people == 2 else None
    assert found["cohen_kappa"] == (cohen_kappa(pair[0], pair[1]) if pair else None)
    assert found["gwet_ac1"] == (gwet_ac1(pair[0], pair[1]) if pair else None)
    assert "person" not in json.dumps(result), "an annotator's name left the store"


def test_the_judges_agreement_is_over_all_that_it_judged(run: Path) -> None:
    """10 flagged of 100, all 10 and 10 others labelled: people deny half of the flagged and none of the others."""
    setup = setup_of(100)
    judged = [P] * 10 + [N] * 90
    human = {i: P if i < 5 else N for i in range(20)}
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), judged)
        said(store, setup, "ann", human)
    found = only(run)["human"]["judge_agreement"]
    assert (found["observed"], found["among_labelled"]) == (pytest.approx(0.95), 0.75)
    # As if the nine in ten others that nobody labelled were labelled like the one: 90 of them agree.
    whole = [judged[i] for i in range(100)], [P] * 5 + [N] * 95
    assert found["cohen_kappa"] == pytest.approx(cohen_kappa(*whole))
    assert found["gwet_ac1"] == pytest.approx(gwet_ac1(*whole))
    with Store.open_for_reading(run) as store:
        (cell,) = cell_figures(cells_of(store, 1), CARD, people_of(store))
    assert cell.agreement is not None
    assert (cell.agreement.estimate, [cell.agreement.low, cell.agreement.high]) == (found["observed"], found["ci"])


class DrawnForAnother(NamedTuple):
    """A run, the truth about it, both judges' labels and people's (the truth, of what was drawn for the first)."""

    folder: Path
    truth: list[bool]
    first: list[bool]
    other: list[bool]
    human: dict[int, bool]


@pytest.fixture
def drawn_for_another(run: Path) -> DrawnForAnother:
    """600 answers, 120 of them labelled: drawn by the first judge, which flags one in six; a second has judged too."""
    chance = random.Random(4)
    truth = [chance.random() < 0.2 for _ in range(600)]
    first = [chance.random() < (0.8 if true else 0.02) for true in truth]
    other = [chance.random() < (0.5 if true else 0.1) for true in truth]
    setup = setup_of(600)
    with Store.open_for_writing(run) as store:
        fill(store, setup.plan(store), [P if label else N for label in first])
        judge = store.add_judge(OTHER_CARD)
        store.commit_verdicts([(i, 0, judge, 0, Verdict(P if label else N)) for i, label in enumerate(other, 1)])
        places = {attempt.key: i for i, attempt in enumerate(setup.attempts)}
        human = {places[key]: truth[places[key]] for key in draw(store, 1, ATTACK_SUCCESS, 120, seed=1).keys}
        said(store, setup, "ann", {i: P if label else N for i, label in human.items()})
    return DrawnForAnother(run, truth, first, other, human)


def test_labels_drawn_for_one_judge_correct_another_weighed_by_both(drawn_for_another: DrawnForAnother) -> None:
    folder, truth, first, other, human = drawn_for_another
    rate = sum(truth) / len(truth)
    results = report([folder])["results"]
    naive = corrected(other, human)
    right = corrected(other, human, drawn_by=[(P if label else N,) for label in first])
    assert not naive.low <= rate <= naive.high  # as if the draw had not looked at the first judge
    assert right.low <= rate <= right.high
    assert results[0]["rate"]["corrected"]["estimate"] == corrected(first, human).estimate
    assert results[1]["rate"]["corrected"]["ci"] == [right.low, right.high]
    agreed = sum(a == b for a, b in zip(truth, other, strict=True)) / len(truth)
    assert results[1]["human"]["judge_agreement"]["ci"][0] <= agreed <= results[1]["human"]["judge_agreement"]["ci"][1]
    assert abs(results[1]["human"]["judge_agreement"]["among_labelled"] - agreed) > 0.08
    assert [result["human"]["drawn_for"] for result in results] == [[CARD.id]] * 2
    # Either topic has a part of which fewer than five are labelled; the first judge's two parts have more.
    assert [t["rate"]["corrected"] for t in results[1]["by_topic"]] == [None, None]
    topics = corrected_by(first, human, [i % 2 for i in range(600)])
    assert [t["rate"]["corrected"]["estimate"] for t in results[0]["by_topic"]] == [x.estimate for x in topics.values()]


def test_gate_compare_and_labels_weigh_such_labels_alike(
    drawn_for_another: DrawnForAnother,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = drawn_for_another.folder
    results = report([folder])["results"]
    ends = [tuple(result["rate"]["corrected"]["ci"]) for result in results]
    command = InProcess(capsys)
    for end, card in zip(ends, (CARD, OTHER_CARD), strict=True):
        (check,) = command("gate", folder, "--max-rate", "0.5", "--judge", card.id, "--json").json["checks"]
        assert (check["low"], check["high"]) == end
        (result,) = command("compare", folder, folder, "--judge", card.id, "--json").json["results"]
        assert (result["by"], tuple(result["after"]["ci"])) == ("people", end)
        (row,) = command("labels", folder, "--judge", card.id, "--json").json["results"]
        assert tuple(row["corrected"]["ci"]) == end
        assert row["among_first"]["estimate"] is not None


def test_it_is_said_that_labels_were_drawn_for_another_judge(
    drawn_for_another: DrawnForAnother,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    folder = drawn_for_another.folder
    command = InProcess(capsys)
    shown = " ".join(command("report", folder, "--md", tmp_path / "r.md", "--out", tmp_path / "r.html").out.split())
    assert shown.count(f"drawn by the verdicts of {CARD.id} and weighed by both") == 1
    for name in ("r.md", "r.html"):
        assert (tmp_path / name).read_text().count("weighed by both judges") == 1
    assert "weighed by those labels" in " ".join(command("labels", folder, "--judge", OTHER_CARD.id).out.split())
    assert "weighed by those labels" not in command("labels", folder, "--judge", CARD.id).out


def test_after_draws_for_both_judges_each_is_weighed_by_the_other_too(drawn_for_another: DrawnForAnother) -> None:
    folder, truth, first, other, human = drawn_for_another
    with Store.open_for_writing(folder) as store:
        setup = setup_of(600)
        places = {attempt.key: i for i, attempt in enumerate(setup.attempts)}
        more = {places[key] for key in draw(store, 2, ATTACK_SUCCESS, 60, seed=2).keys} - human.keys()
        said(store, setup, "ann", {i: P if truth[i] else N for i in more})
    known = human | {i: truth[i] for i in more}
    results = report([folder])["results"]
    for result, judge, beside in zip(results, (first, other), (other, first), strict=True):
        expected = corrected(judge, known, drawn_by=beside)
        assert result["rate"]["corrected"]["ci"] == pytest.approx([expected.low, expected.high])
        assert expected.low <= sum(truth) / len(truth) <= expected.high
