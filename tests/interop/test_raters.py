"""Several people's labels of one answer: kept each, settled by a rule that the run keeps, never agreement with oneself.

Every text is inert.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redinstruct
from redinstruct.errors import UsageError
from redinstruct.figures.agreement import people_figures
from redinstruct.figures.people import Cell, corrected_bounds, corrected_rate
from redinstruct.interop import ImportSettings, import_file, read_source
from redinstruct.run import Annotated, AnnotationStore, Store, settle
from redinstruct.stats import krippendorff_alpha
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL, Annotation
from tests.support.cli import InProcess, nothing_written

ASK = {"prompt": "What is blue?", "response": "A colour."}
Row = Mapping[str, object]


def jsonl(folder: Path, rows: Sequence[Row], name: str = "paint.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps({**ASK, **row}) + "\n" for row in rows))
    return path


def labels_of(run: Path) -> list[tuple[int, str, str, str | None]]:
    """Everybody's labels: the answer's place, who, what kind of act, the label."""
    with Store.open_for_reading(run) as store:
        order = [view.key for view in store.attempts(store.judges()[0][0])]
        return [
            (order.index(entry.key.hex()), entry.annotation.annotator, entry.annotation.act, entry.annotation.label)
            for entry in AnnotationStore(store).standing()
        ]


def verdicts_of(run: Path) -> list[tuple[str | None, str | None]]:
    with Store.open_for_reading(run) as store:
        return [(view.label, view.reason) for view in store.attempts(store.judges()[0][0])]


H, U = "harmful", "unharmful"

# One answer, three people: harmful, unharmful, unharmful.
SHAPES: list[tuple[list[Row], list[str]]] = [
    ([{"human": said, "annotator": who} for said, who in ((H, "r1"), (U, "r2"), (U, "r3"))], ["r1", "r2", "r3"]),
    ([{"human": said, "rater_id": who} for said, who in ((H, 7), (U, 8), (U, 9))], ["7", "8", "9"]),
    ([{"human_1": H, "human_2": U, "human_3": "Unharmful"}], ["human_1", "human_2", "human_3"]),
    ([{"annotation_1": H, "annotation_2": U, "annotation_3": U, "agreement": 0}],
     ["annotation_1", "annotation_2", "annotation_3"]),
    ([{"Rater1": H, "Rater2": U, "Rater3": U, "rater4": ""}], ["rater1", "rater2", "rater3"]),
    ([{"human": [H, U, U]}], ["rater 1", "rater 2", "rater 3"]),
    ([{"human": [{"annotator": "a", "label": H}, {"annotator": "b", "label": U}, {"label": U, "annotator": "c"}]}],
     ["a", "b", "c"]),
    ([{"jailbroken": said, "annotator": who} for said, who in ((1, "r1"), (0, "r2"), ("0", "r3"))], ["r1", "r2", "r3"]),
    ([{"safe": said, "annotator": who} for said, who in ((0, "r1"), (True, "r2"), ("yes", "r3"))], ["r1", "r2", "r3"]),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "people"), SHAPES)
def test_every_shape_gives_one_answer_and_keeps_everybody_s_label(
    tmp_path: Path, rows: list[Row], people: list[str]
) -> None:
    done = import_file(jsonl(tmp_path, rows), tmp_path / "run")
    assert (done.answers, done.human, done.people, done.unsettled) == (1, 3, 3, 1)
    assert labels_of(tmp_path / "run") == [(0, who, "label", said) for who, said in zip(people, (H, U, U), strict=True)]
    assert verdicts_of(tmp_path / "run") == [("unparsable", "people_differ")]
    majority = import_file(jsonl(tmp_path, rows), tmp_path / "other", ImportSettings(settle="majority"))
    assert majority.unsettled == 0
    assert verdicts_of(tmp_path / "other") == [(U, None)]


def test_texts_that_one_person_labelled_twice_are_two_answers(tmp_path: Path) -> None:
    """Two samples came out alike: everybody's k-th row is about the k-th of them."""
    rows = [{"human": said, "annotator": who} for who in "ab" for said in (H, U)]
    import_file(jsonl(tmp_path, rows), tmp_path / "run")
    assert sorted(labels_of(tmp_path / "run"), key=lambda label: label[1]) == [
        (0, "a", "label", H), (1, "a", "label", U), (0, "b", "label", H), (1, "b", "label", U),
    ]  # fmt: skip


def test_rows_without_an_annotator_column_stay_apart(tmp_path: Path) -> None:
    assert len(read_source(jsonl(tmp_path, [{"human": H}, {"human": U}]), ATTACK_SUCCESS).rows) == 2


def test_another_answer_or_question_is_another_attempt(tmp_path: Path) -> None:
    rows = [
        {"human": H, "annotator": "a"},
        {"human": H, "annotator": "b", "response": "A hue."},
        {"human": H, "annotator": "b", "prompt": "What is red?"},
        {"human": H, "annotator": "b", "topic": "sky"},
        {"human": H, "annotator": "b"},
    ]
    source = read_source(jsonl(tmp_path, rows), ATTACK_SUCCESS)
    assert [len(row.people) for row in source.rows] == [2, 1, 1, 1]
    assert source.numbers == (0, 1, 2, 3)


def test_a_judge_s_label_is_taken_once_and_must_be_one(tmp_path: Path) -> None:
    rows = [{"human": H, "annotator": "a", "judge": U}, {"human": U, "annotator": "b", "judge": ""}]
    (row,) = read_source(jsonl(tmp_path, rows), ATTACK_SUCCESS).rows
    assert row.judge is not None
    assert (row.judge.label, len(row.people)) == (U, 2)
    path = jsonl(tmp_path, [*rows, {"human": U, "annotator": "c", "judge": H}])
    with pytest.raises(UsageError, match="row 1 and row 3 are one answer, and their judge labels differ"):
        read_source(path, ATTACK_SUCCESS)


def test_a_final_label_beside_the_others_adjudicates(tmp_path: Path) -> None:
    """XSTest's completions: two annotators, an agreement flag, the label that was settled on."""
    said = {"annotation_1": "1_full_compliance", "annotation_2": "2_full_refusal", "agreement": "0"}
    rows = [{**said, "final_label": "3_partial_refusal"}, {**said, "annotation_2": "1_full_compliance"}]
    import_file(jsonl(tmp_path, rows), tmp_path / "run", ImportSettings(measure="over_refusal"))
    assert verdicts_of(tmp_path / "run") == [("refused", None), ("complied", None)]
    assert ((0, "final_label (adjudicating)", "adjudicate", "refused")) in labels_of(tmp_path / "run")
    with Store.open_for_reading(tmp_path / "run") as store:
        figures = people_figures(AnnotationStore(store).standing())
    assert (figures.annotators, figures.common, figures.agreed.estimate) == (2, 2, 0.5)


def test_columns_by_their_own_names_one_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jsonl(tmp_path, [{"x": 1, "y": 0, "z": 1}])
    flags = [flag for column in "xyz" for flag in ("--column", f"human={column}")]
    cli = InProcess(capsys)
    with nothing_written(tmp_path):
        line = cli("import", path, "--run", tmp_path / "run", *flags).error_line
    assert "x is a number, and the column's name does not tell what 1 means: add --one harmful or --one unharm" in line
    assert cli("import", path, "--run", tmp_path / "run", *flags, "--one", "harmful", "--settle", "majority").code == 0
    assert labels_of(tmp_path / "run") == [(0, "x", "label", H), (0, "y", "label", U), (0, "z", "label", H)]
    assert verdicts_of(tmp_path / "run") == [(H, None)]


@pytest.mark.parametrize(
    ("column", "cells", "labels"),
    [
        ("harmful", [1, 0], [H, U]),
        ("is_unsafe", [True, False], [H, U]),
        ("human_jailbroken", ["yes", "no"], [H, U]),
        ("is_safe", [1, 0], [U, H]),
        ("response_harmless", ["1.0", "0.0"], [U, H]),
    ],
)
def test_a_column_of_0_and_1_is_read_by_what_its_name_says(
    tmp_path: Path, column: str, cells: list[object], labels: list[str]
) -> None:
    path = jsonl(tmp_path, [{column: cell} for cell in cells])
    for role in ("human", "judge"):
        rows = read_source(path, ATTACK_SUCCESS, {role: column}).rows
        found = [row.judge for row in rows] if role == "judge" else [row.people[0].said for row in rows]
        assert [said and said.label for said in found] == labels


@pytest.mark.parametrize("column", ["human", "not_harmful", "harmful_or_safe", "score"])
def test_what_1_means_is_never_guessed(tmp_path: Path, column: str) -> None:
    path = jsonl(tmp_path, [{column: 1}])
    with pytest.raises(UsageError, match="does not tell what 1 means: add --one harmful"):
        read_source(path, ATTACK_SUCCESS, {"human": column})


@pytest.mark.parametrize("column", ["harmful", "jailbroken", "safe", "is_safe", "unsafe"])
def test_a_bare_column_of_0_and_1_may_be_anybody_s_and_is_refused(tmp_path: Path, column: str) -> None:
    path = jsonl(tmp_path, [{column: 1}, {column: 0}])
    with pytest.raises(
        UsageError, match=f"--column human={column}, --column judge={column} or --column label={column}"
    ):
        read_source(path, ATTACK_SUCCESS)


def test_over_refusal_has_words_of_its_own(tmp_path: Path) -> None:
    path = jsonl(tmp_path, [{"refusal": 1}, {"refusal": 0}])
    rows = read_source(path, OVER_REFUSAL, {"human": "refusal"}).rows
    assert [row.people[0].said.label for row in rows] == ["refused", "complied"]


# ---- settling, a setting of the run ----------------------------------------------------------------------------------


@given(votes=st.lists(st.sampled_from([H, U]), max_size=7), last=st.sampled_from([None, H, U]))
@settings(max_examples=80, deadline=None)
def test_what_people_settle_on(votes: list[str], last: str | None) -> None:
    acts = [Annotation(f"r{at}", "label", said) for at, said in enumerate(votes)]
    acts += [Annotation("x", "unsure")] + ([] if last is None else [Annotation("y", "adjudicate", last)])
    unanimous, majority = settle(acts, "unanimous"), settle(acts, "majority")
    if last is not None:
        assert (unanimous, majority) == (acts[-1], acts[-1])
        return
    assert (unanimous and unanimous.label) == (votes[0] if len(set(votes)) == 1 else None)
    more = next((side for side in (H, U) if votes.count(side) * 2 > len(votes)), None)
    assert (majority and majority.label) == more


def split(folder: Path, judge: bool = True) -> Path:
    """30 answers: on 12 all three say harmful, on 12 nobody does, on 6 two of three do."""
    rows = [
        {"prompt": f"What is {at}?", "human": [at < 12 or at >= 24, at < 12 or at >= 24, at < 12], "x": at}
        | ({"judge": H if at < 15 else U} if judge else {})
        for at in range(30)
    ]
    path = jsonl(folder, rows)
    import_file(path, folder / "run", ImportSettings(columns={"human": "human"}, one=H))
    return folder / "run"


def test_the_rule_is_kept_with_the_run_and_every_verb_follows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cli = split(tmp_path), InProcess(capsys)

    def figures() -> tuple[Any, ...]:
        (result,) = cli("report", run, "--json").json["results"]
        labels = cli("labels", run, "--json").json
        return result["rate"]["corrected"]["labels"], labels["labels"], labels["settle"], labels["people"]["open"]

    assert figures() == (24, 24, "unanimous", 6)
    assert "--settle majority" in cli("labels", run).out
    assert cli("labels", run, "--settle", "majority", "--json").json["settle"] == "majority"
    assert figures() == (30, 30, "majority", 0)
    assert cli("labels", run, "--settle", "unanimous").code == 0
    assert figures() == (24, 24, "unanimous", 6)


def test_what_people_left_open_is_said_beside_the_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = InProcess(capsys)
    rows = [
        {"prompt": f"What is {at}?", "judge": H if at % 3 == 0 else U, "annotator": who,
         "human": H if (at % 3 == 0) != (who == "r3" and at % 5 == 0) else U}
        for at in range(60) for who in ("r1", "r2", "r3")
    ]  # fmt: skip
    run = tmp_path / "run"
    assert cli("import", jsonl(tmp_path, rows), "--run", run).code == 0
    low, high = cli("report", run, "--json").json["results"][0]["rate"]["corrected"]["bounds"]
    (check,) = cli("gate", run, "--max-rate", 0.5, "--json").json["checks"]
    assert f"left open: {low:.1%} to {high:.1%}" in check["why"]
    (found,) = cli("compare", run, run, "--json").json["results"]
    assert "after: 12 answers that people saw and did not settle are left out" in found["notes"]
    assert cli("labels", run, "--settle", "majority").code == 0
    assert "left open" not in cli("gate", run, "--max-rate", 0.5, "--json").out


def test_a_rule_that_was_chosen_is_not_offered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tie = jsonl(tmp_path, [{"human": H, "annotator": "r1"}, {"human": U, "annotator": "r2"}])
    said = InProcess(capsys)("import", tie, "--run", tmp_path / "run", "--settle", "majority")
    assert (said.code, "people differ" in said.err, "--settle" in said.err) == (0, True, False)


def test_the_verb_is_a_function_too(tmp_path: Path) -> None:
    run = split(tmp_path)
    assert redinstruct.labels(run)["labels"] == 24
    document = redinstruct.labels(run, settle="majority")
    assert (document["labels"], document["settle"], document["judge"]) == (30, "majority", "imported")
    with pytest.raises(UsageError, match="there is no run in this folder"):
        redinstruct.labels(tmp_path / "none")


def test_rates_are_split_by_how_far_people_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, cli = split(tmp_path), InProcess(capsys)
    found = cli("labels", run, "--json").json["by_agreement"]
    assert [(g["agree"], g["answers"]) for g in found] == [("all", 24), ("most", 6), ("neither", 0)]
    every, most, neither = found
    assert (every["people"]["estimate"], every["judge"]["estimate"]) == (0.5, 15 / 24)
    assert every["judge_agreement"]["estimate"] == 21 / 24
    assert (most["people"]["estimate"], most["judge"]["estimate"], most["judge_agreement"]["estimate"]) == (1, 0, 0)
    assert neither["people"] is neither["judge"] is neither["judge_agreement"] is None
    assert "most agree" in cli("labels", run).out


# ---- people without a judge ------------------------------------------------------------------------------------------


def test_one_rater_does_not_agree_with_himself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"What is {at}?", "human": H if at % 3 else U} for at in range(12)]
    run, cli = tmp_path / "run", InProcess(capsys)
    assert cli("import", jsonl(tmp_path, rows), "--run", run).code == 0
    document = cli("labels", run, "--json").json
    assert (document["judge"], document["agreement"], document["results"][0]["agreement"]) == (None, None, None)
    (result,) = cli("report", run, "--json").json["results"]
    assert result["human"]["judge_agreement"] is result["human"]["confusion"] is None
    page = tmp_path / "r.html"
    said = [cli("labels", run).out, cli("report", run).out]
    told = cli("report", run, "--out", page)
    assert told.code == 0, told.err
    said.append(page.read_text())
    for text in said:
        assert "100.0 [" not in text.replace("100.0 [ ", "100.0 [")
        assert "agree on 100" not in text
    assert "not measured" in said[0]
    assert "not measured: no judge has seen these answers" in said[2]


def test_with_a_judge_the_agreement_is_that_of_the_whole_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = InProcess(capsys)("labels", split(tmp_path), "--json").json
    assert (document["judge"], document["agreement"]["labels"]) == ("imported", 24)
    assert document["agreement"]["estimate"] == pytest.approx(document["results"][0]["agreement"]["estimate"])


def test_a_run_without_a_judge_follows_what_people_say_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cli = split(tmp_path, judge=False), InProcess(capsys)

    def counts() -> tuple[int, int, int]:
        (result,) = cli("report", run, "--json").json["results"]
        return tuple(result["counts"][name] for name in (H, U, "unparsable"))

    assert counts() == (12, 12, 6)
    assert cli("labels", run, "--settle", "majority").code == 0
    assert counts() == (18, 12, 0)
    with Store.open_for_reading(run) as store:
        first = next(iter(store.attempts(store.judges()[0][0]))).key
    more = tmp_path / "more.csv"
    more.write_text("id,annotator,label\n" + "".join(f"{first},n{at},unharmful\n" for at in range(4)))
    assert cli("labels", run, "--import", more).code == 0
    assert counts() == (17, 13, 0)


def test_labels_of_a_run_that_nobody_judged_make_people_its_judge(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cli = tmp_path / "run", InProcess(capsys)
    import_file(jsonl(tmp_path, [{"prompt": f"What is {at}?"} for at in range(6)]), run)
    with Store.open_for_reading(run) as store:
        keys = [view.key for view in store.attempts(store.judges()[0][0])]
    more = tmp_path / "more.csv"
    more.write_text("id,annotator,label\n" + "".join(f"{key},ann,harmful\n" for key in keys))
    assert cli("labels", run, "--import", more).code == 0
    (result,) = cli("report", run, "--json").json["results"]
    assert (result["counts"][H], result["judge_card"]["parameters"]["labels"]) == (6, "people")
    assert cli("labels", run, "--json").json["agreement"] is None


# ---- figures ---------------------------------------------------------------------------------------------------------


def test_alpha_of_ordered_labels_is_krippendorff_s_published_figure() -> None:
    """Krippendorff 2011, section D: the same data as nominal .743 and, by its order, .815."""
    a = [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None]
    b = [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3]
    c = [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None]
    d = [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None]
    assert krippendorff_alpha([a, b, c, d]) == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha([a, b, c, d], order=[1, 2, 3, 4, 5]) == pytest.approx(0.815, abs=5e-4)
    with pytest.raises(ValueError, match="no place in the order"):
        krippendorff_alpha([a, b, c, d], order=[1, 2, 3])


rows_of_labels = st.lists(st.lists(st.sampled_from([1, 2, 3, None]), min_size=6, max_size=6), min_size=2, max_size=4)


@given(ratings=rows_of_labels)
@settings(max_examples=60, deadline=None)
def test_two_ordered_labels_are_nominal_and_turning_the_order_changes_nothing(ratings: list[list[int | None]]) -> None:
    two = [[None if cell is None else min(cell, 2) for cell in row] for row in ratings]
    nominal, ordinal = krippendorff_alpha(two), krippendorff_alpha(two, order=[1, 2])
    assert ordinal == (None if nominal is None else pytest.approx(nominal))
    turned = krippendorff_alpha(ratings, order=[3, 2, 1])
    assert krippendorff_alpha(ratings, order=[1, 2, 3]) == (None if turned is None else pytest.approx(turned))


def test_degrees_of_refusal_are_ordered() -> None:
    def said(*labels: str) -> list[Annotated]:
        acts = []
        for at, word in enumerate(labels):
            label = "complied" if word == "complied" else "refused"
            acts += [Annotated(bytes([at]) * 32, Annotation(who, "label", label, word)) for who in ("a",)]
        return acts

    other = [
        Annotated(bytes([at]) * 32, Annotation("b", "label", "complied" if w == "complied" else "refused", w))
        for at, w in enumerate(["complied", "partial", "refused", "partial"])
    ]
    figures = people_figures([*said("complied", "refused", "refused", "complied"), *other])
    assert figures.alpha_ordinal.estimate is not None
    harmful = [Annotated(bytes([9]) * 32, Annotation(who, "label", H)) for who in "ab"]
    assert people_figures(harmful).alpha_ordinal.estimate is None


def test_bounds_hold_whatever_people_would_have_said_of_what_they_left_out() -> None:
    judge = tuple(at < 20 for at in range(40))
    human = {at: at < 20 for at in range(30)}
    bounds = corrected_bounds(Cell(judge, human, lost=range(30, 35)))
    assert bounds is not None
    for said in (0, 1, 2, 3, 4, 5):
        full = {**human, **{30 + at: at < said for at in range(5)}}
        found = corrected_rate(Cell(judge, full, questions=tuple(range(40))))
        assert found is not None
        assert bounds[0] <= found[0].low <= found[0].high <= bounds[1]
    assert corrected_bounds(Cell(judge, human)) is None


def test_labels_come_back_in_any_cells_and_within_the_limits_of_every_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, cli = split(tmp_path, judge=False), InProcess(capsys)
    with Store.open_for_reading(run) as store:
        key = next(iter(store.attempts(store.judges()[0][0]))).key
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(f"\ufeffID;Annotator;Label\r\n{key};dora;harmful\r\n;;\r\n", encoding="utf-8")
    assert cli("labels", run, "--import", sheet).code == 0
    assert (0, "dora", "label", H) in labels_of(run)
    wide = tmp_path / "wide.csv"
    wide.write_text("id,label," + ",".join(f"c{at}" for at in range(60_000)) + "\n")
    assert "60,002 columns, more than the 1,000" in cli("labels", run, "--import", wide).error_line
