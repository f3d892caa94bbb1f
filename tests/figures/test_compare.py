"""Two evaluations held against each other: what is paired, which word comes out, and what is not comparable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redinstruct
from redinstruct.figures.comparison import Comparison, Result, compare
from redinstruct.figures.comparison.paired import compare_evaluations
from redinstruct.figures.comparison.runs import Evaluation, Prompt
from redinstruct.figures.comparison.verdicts import Rules
from redinstruct.render.comparison import comparison_markdown
from redinstruct.stats import mcnemar_midp, paired
from redinstruct.types import OVER_REFUSAL, JudgeCard, Sampling
from tests.support.cli import InProcess, tree
from tests.support.pairs import evaluation, judged, key_of, mixed, run_of
from tests.support.stores import OTHER_CARD, Setup, make_bank, report

RULES = Rules(0.02, 0.95)
ORDER = {"worse": -1, "no difference shown": 0, "better": 1}
labels = st.sampled_from(["harmful", "unharmful"])
any_label = st.sampled_from(["harmful", "unharmful", "no_response", "unparsable", "error", None])


def held(before: Evaluation, after: Evaluation, rules: Rules = RULES) -> Result:
    """The one result of two evaluations of one cell."""
    (result,) = compare_evaluations(before, after, rules)
    return result


def of(before: Sequence[str | None], after: Sequence[str | None], **both: object) -> Result:
    return held(evaluation(before, **both), evaluation(after, **both))  # type: ignore[arg-type]


# ---- properties ------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(said=st.lists(any_label, min_size=1, max_size=60), topics=st.integers(1, 9))
def test_a_run_and_itself_show_no_difference(said: list[str | None], topics: int) -> None:
    result = of(said, said, topics=[f"t{i}" for i in range(topics)])
    judged = any(label in ("harmful", "unharmful") for label in said)
    assert result.verdict == ("no difference shown" if judged else "not comparable")
    if result.difference is not None:
        assert (result.difference.estimate, result.difference.p_holm) == (0, 1)


@settings(max_examples=60)
@given(said=st.lists(st.tuples(any_label, any_label), min_size=1, max_size=60), topics=st.integers(1, 9))
def test_swapping_the_runs_flips_the_sign_and_the_word(said: list[tuple[str | None, str | None]], topics: int) -> None:
    before, after = zip(*said, strict=True)
    names = [f"t{i}" for i in range(topics)]
    one, other = of(before, after, topics=names), of(after, before, topics=names)
    if one.difference is None or other.difference is None:
        assert one.verdict == other.verdict == "not comparable"
        return
    assert ORDER[one.verdict] == -ORDER[other.verdict]
    assert one.difference.estimate == -other.difference.estimate
    assert (one.difference.low, one.difference.p_holm) == pytest.approx(
        (-other.difference.high, other.difference.p_holm), abs=1e-9
    )
    assert one.bounds == tuple(-end for end in reversed(other.bounds or ()))
    assert one.detectable == pytest.approx(other.detectable)


@settings(max_examples=20)
@given(said=st.lists(st.tuples(labels, labels), min_size=1, max_size=40), where=st.integers(0, 39))
def test_one_more_harmful_answer_never_helps(said: list[tuple[str, str]], where: int) -> None:
    before, after = zip(*said, strict=True)
    more = list(after)
    more[where % len(more)] = "harmful"
    was, now = of(before, after), of(before, more)
    assert ORDER[now.verdict] <= ORDER[was.verdict]
    assert was.difference is not None
    assert now.difference is not None
    assert now.difference.estimate >= was.difference.estimate
    assert now.difference.low >= was.difference.low - 1e-12
    assert now.difference.high >= was.difference.high - 1e-12


@settings(max_examples=40)
@given(said=st.lists(st.tuples(any_label, any_label), min_size=1, max_size=4))
def test_the_bounds_are_what_any_missing_verdicts_could_make_of_it(
    said: list[tuple[str | None, str | None]],
) -> None:
    before, after = zip(*said, strict=True)
    choices = [[x == "harmful"] if x in ("harmful", "unharmful") else [True, False] for x in (*after, *before)]
    n = len(said)
    every = [(sum(x[:n]) - sum(x[n:])) / n for x in itertools.product(*choices)]
    assert of(before, after).bounds == pytest.approx((min(every), max(every)))


@settings(max_examples=40)
@given(said=st.lists(st.tuples(labels, labels), min_size=1, max_size=60))
def test_independent_questions_are_tested_as_the_statistics_say(said: list[tuple[str, str]]) -> None:
    before, after = zip(*said, strict=True)
    result, known = of(before, after), paired([x == "harmful" for x in before], [x == "harmful" for x in after])
    assert result.difference is not None
    found = result.difference
    assert found.estimate == known.difference
    assert found.p_value == pytest.approx(known.p_value) or known.p_value < found.p_value < 0.0082
    assert found.ci == (known.low, known.high) or 0 in found.ci
    expected = 0 if known.p_value > 0.05 or known.difference == 0 else 1 if known.difference < 0 else -1
    assert ORDER[result.verdict] == expected


# ---- what is paired --------------------------------------------------------------------------------------------------


def test_only_questions_that_both_runs_planned_are_paired() -> None:
    result = of(mixed(30, 10), mixed(0, 25))
    assert result.pairs is not None
    assert (result.pairs.paired, result.pairs.only_before, result.pairs.only_after) == (25, 15, 0)
    assert any("15 before, 0 after" in note for note in result.notes)


def test_what_has_no_verdict_is_left_out_of_the_test_and_shown_as_bounds() -> None:
    result = of(mixed(40, 60), mixed(0, 60, no_response=20, error=15, unparsable=5))
    assert result.pairs is not None
    assert (result.pairs.scored, result.pairs.unscored_after, result.pairs.unscored_before) == (60, 40, 0)
    assert result.provisional
    assert result.bounds == pytest.approx((-0.4, 0.0))
    assert any("40 of 100 pairs have no verdict" in note for note in result.notes)
    assert result.verdict == "better"  # of the pairs that count; the bounds say that it need not be so


def test_epochs_are_paired_with_themselves_and_clustered_by_question() -> None:
    before, after = ["harmful"] * 5 + ["unharmful"] * 15, ["unharmful"] * 20
    once, often = of(before, after), of(before * 4, after * 4, epochs=4)
    assert once.difference is not None
    assert often.difference is not None
    assert often.pairs is not None
    assert (often.difference.questions, often.difference.method) == (20, "tango, by question")
    assert (often.pairs.scored, often.pairs.questions) == (80, 20)
    # Four copies of one answer say nothing more than one.
    assert once.difference.p_value <= often.difference.p_value
    assert often.verdict == once.verdict


@pytest.mark.parametrize(("topics", "word"), [(1, "too few"), (4, "too few"), (5, "shown"), (10, "shown")])
def test_the_verdict_is_about_these_topics_however_many_they_are(topics: int, word: str) -> None:
    flat = of(mixed(60, 40), mixed(10, 90))
    result = of(mixed(60, 40), mixed(10, 90), topics=[f"t{i}" for i in range(topics)])
    assert (result.verdict, result.beyond, result.difference) == ("better", word, flat.difference)
    assert (result.topics is None) == (topics < 5)
    if result.topics is not None:
        assert (result.topics.clustered_by, result.topics.clusters) == ("topic", topics)


def carried_by_one_topic() -> tuple[list[str], list[str], list[str]]:
    """Before, after, topics: twenty of 200 answers become harmless, all in one topic of ten."""
    after = ["unharmful" if i % 10 == 0 else "harmful" for i in range(200)]
    return ["harmful"] * 200, after, [f"t{i}" for i in range(10)]


def test_a_topic_that_carries_the_whole_difference_says_nothing_of_others() -> None:
    before, after, topics = carried_by_one_topic()
    result = of(before, after, topics=topics)
    assert (result.verdict, result.beyond) == ("better", "not shown")
    assert result.topics is not None
    assert result.topics.design_effect > 10
    assert result.topics.spread == (-1.0, 0.0)
    assert result.why.startswith("-10.0 points [-14.9, -6.6] on these 200 questions of 10 topics, p < 0.0001; ")
    assert result.why.endswith("in single topics the change goes from -100.0 to +0.0 points")


def test_every_surface_says_both_words(tmp_path: Path, cli: InProcess) -> None:
    before, after, topics = carried_by_one_topic()
    runs = run_of(tmp_path / "before", before, topics=topics), run_of(tmp_path / "after", after, topics=topics)
    said = " ".join(cli("compare", *runs).out.split())
    assert "not shown for topics in general (10 topics, p = " in said
    (found,) = cli("compare", *runs, "--json").json["results"]
    assert (found["verdict"], found["beyond"], found["by"]) == ("better", "not shown", "judge")
    assert (found["topics"]["clustered_by"], found["topics"]["clusters"]) == ("topic", 10)
    cli("report", *runs, "--md", tmp_path / "r.md", "--out", tmp_path / "r.html")
    for name in ("r.md", "r.html"):
        assert "Not shown for topics in general (10 topics" in (tmp_path / name).read_text()


@settings(max_examples=20)
@given(said=st.lists(st.tuples(labels, labels), min_size=20, max_size=80), last=st.tuples(labels, labels))
def test_one_question_of_a_fifth_topic_changes_no_verdict_that_was_clear(
    said: list[tuple[str, str]], last: tuple[str, str]
) -> None:
    """Once, a bank's fifth topic turned the verdict from one about these topics into one about topics in general."""
    four = [f"t{i % 4}" for i in range(len(said))]
    one = of(*zip(*said, strict=True), topics=four)
    other = of(*zip(*said, last, strict=True), topics=[*four, "t4"])
    assert one.difference is not None
    if abs(one.difference.p_value - 0.05) > 0.045:
        assert one.verdict == other.verdict


def test_subtopics_are_the_sample_of_topics_where_there_are_enough() -> None:
    def with_subtopics(run: Evaluation, number: int) -> Evaluation:
        (one,) = run.judged
        (cell,) = one.cells.values()
        named = [o._replace(subtopic=f"s{o.row // 5 % (number // 5)}") for o in cell]
        return run._replace(judged=[judged(one.card, named)])

    for number, by in ((15, "topic"), (20, "subtopic")):
        runs = [evaluation(x, topics=[f"t{i}" for i in range(5)]) for x in (mixed(60, 40), mixed(10, 90))]
        result = held(with_subtopics(runs[0], number), with_subtopics(runs[1], number))
        assert result.topics is not None
        assert result.topics.clustered_by == by


def test_the_word_follows_the_measure_s_direction() -> None:
    card = JudgeCard("refusal", "over_refusal")
    names = (OVER_REFUSAL.first, OVER_REFUSAL.second)
    result = of(mixed(40, 60, names), mixed(5, 95, names), card=card)
    assert (result.verdict, result.direction, result.measure) == ("better", "lower is better", "over_refusal")
    assert of(mixed(5, 95, names), mixed(40, 60, names), card=card).verdict == "worse"


def test_the_margin() -> None:
    safe = of(mixed(0, 400), mixed(0, 400))
    assert safe.non_inferiority is not None
    assert (safe.verdict, safe.non_inferiority.shown) == ("no difference shown", True)
    few = of(mixed(0, 40), mixed(0, 40))
    assert few.non_inferiority is not None
    assert not few.non_inferiority.shown
    wide = held(evaluation(mixed(0, 40)), evaluation(mixed(0, 40)), Rules(0.2, 0.95))
    assert wide.non_inferiority is not None
    assert wide.non_inferiority.shown


# ---- what is not comparable, and why ---------------------------------------------------------------------------------


def changed(run: Evaluation, **config: object) -> Evaluation:
    return run._replace(config=msgspec.structs.replace(run.config, **config))


BASE = evaluation(mixed(30, 70))
WARM = Sampling(temperature=0.7)
OTHERS = {
    "other judge": evaluation(mixed(30, 70), card=OTHER_CARD),
    "other measure": evaluation(mixed(30, 70, ("refused", "complied")), card=JudgeCard("refusal", "over_refusal")),
    "other sampling (max_tokens 500 before, 20 after)": evaluation(mixed(3, 97), sampling=Sampling(max_tokens=20)),
    "other sampling (temperature unset before, 0.7 after)": evaluation(mixed(3, 97), sampling=WARM),
    "other chat template (native before, none after)": changed(BASE, chat_template="none"),
    "other protocol (default before, paper-2023 after)": changed(BASE, protocol="paper-2023"),
    "other request options (none before, effort='low' after)": changed(BASE, options=(("effort", "'low'"),)),
    "other columns of the bank (none before, prompt=goal after)": changed(BASE, columns=(("prompt", "goal"),)),
    "other columns of the bank (none before, context=story after)": changed(BASE, columns=(("context", "story"),)),
    "no question was asked in both runs": BASE._replace(judged=[BASE.judged[0]._replace(cells={})]),
    "no pair has a verdict in both runs": evaluation(["error"] * 100),
}  # fmt: skip


@pytest.mark.parametrize("why", OTHERS)
def test_another_experiment_is_not_comparable_and_says_why(why: str) -> None:
    result = held(BASE, OTHERS[why])
    assert result.verdict == "not comparable"
    assert why in result.why
    assert result.difference is None
    assert held(OTHERS[why], BASE).verdict == "not comparable"


def test_another_prompt_is_not_comparable() -> None:
    other = evaluation(mixed(30, 70), prompt="q")
    assert [(r.prompt, r.verdict) for r in compare_evaluations(BASE, other, RULES)] == [
        ("q", "not comparable"),
        ("p", "not comparable"),
    ]
    renamed = other._replace(prompts=[Prompt("p", "sha-q", None)])
    assert {r.why for r in compare_evaluations(BASE, renamed, RULES)} == {
        "other prompt: p is another text in the other run"
    }


def test_each_model_s_own_translation_of_one_prompt_is_the_same_prompt() -> None:
    other = evaluation(mixed(0, 100), prompt="q")._replace(prompts=[Prompt("p", "sha-q", "cou")])
    assert held(BASE._replace(prompts=[Prompt("p", "sha-p", "cou")]), other).verdict == "better"


def test_a_column_that_is_not_asked_leaves_the_questions_as_they_are() -> None:
    assert held(BASE, changed(evaluation(mixed(0, 100)), columns=(("topic", "kind"),))).verdict == "better"


def test_another_seed_is_another_draw_of_the_same_experiment() -> None:
    assert held(BASE, evaluation(mixed(0, 100), sampling=Sampling(seed=7))).verdict == "better"


# ---- several cells ---------------------------------------------------------------------------------------------------


def two_cells(folder: Path, name: str, hits: tuple[int, int], size: int = 40) -> Path:
    """A run of two prompts with so many harmful answers each."""
    said = [label for x in hits for label in mixed(x, size - x)]
    return run_of(folder / name, said, setup=Setup(banks=(make_bank(size, topics=(None,)),)), model=f"openai/{name}")


def test_holm_over_the_cells(tmp_path: Path) -> None:
    found = compare(two_cells(tmp_path, "before", (6, 0)), two_cells(tmp_path, "after", (0, 0)))
    first, second = found.results
    assert first.difference is not None
    assert first.difference.p_value == mcnemar_midp(0, 6) == 0.015625
    assert first.difference.p_holm == 2 * 0.015625
    # The interval stands at the level of the step that decided, and says what the step says.
    assert second.difference is not None
    assert (first.difference.confidence, second.difference.confidence) == pytest.approx((0.975, 0.95))
    assert first.difference.high < 0 <= second.difference.high
    assert (first.verdict, second.verdict) == ("better", "no difference shown")
    five = compare(two_cells(tmp_path, "b5", (5, 0)), two_cells(tmp_path, "a5", (0, 0)))
    # Alone it would be significant (p = .03125); as one of two it is not.
    assert {r.verdict for r in five.results} == {"no difference shown"}
    assert all(r.difference is not None and r.difference.low <= 0 <= r.difference.high for r in five.results)


def test_banks_of_one_run_only_are_named(tmp_path: Path) -> None:
    banks = make_bank(30, "one", (None,)), make_bank(30, "two", (None,))
    one = Setup(banks=banks[:1], templates=Setup().templates[:1])
    both = msgspec.structs.replace(one, banks=banks)
    found = compare(run_of(tmp_path / "a", mixed(15, 15), setup=one), run_of(tmp_path / "b", mixed(0, 60), setup=both))
    assert [(r.bank, r.verdict) for r in found.results] == [("one", "better"), ("two", "not comparable")]
    assert found.results[1].why == "other bank: only the run after asked it"


# ---- people's labels -------------------------------------------------------------------------------------------------


def test_the_corrected_rates_are_those_of_the_report(tmp_path: Path) -> None:
    said = mixed(60, 40)
    people = ["harmful" if i % 3 else "unharmful" for i in range(100)]
    before = run_of(tmp_path / "before", said, human=people)
    after = run_of(tmp_path / "after", mixed(20, 80), human=[p if i % 2 else None for i, p in enumerate(people)])
    (result,) = compare(before, after).results
    reported = [r["rate"]["corrected"] for r in report([before, after])["results"]]
    for side, known in zip((result.before, result.after), reported, strict=True):
        assert side is not None
        assert (side.estimate, list(side.ci), side.labels) == (known["estimate"], known["ci"], known["labels"])
    change = result.difference
    assert change is not None
    assert (result.by, change.labels, change.gained) == ("people", 50, None)
    assert change.estimate == pytest.approx(reported[1]["estimate"] - reported[0]["estimate"])
    assert change.low < change.estimate < change.high
    assert (change.p_value > 0.05) == (change.low <= 0 <= change.high)
    # These very answers are known better than the questions that they stand for.
    assert result.run_difference is not None
    assert result.run_difference.high - result.run_difference.low < change.high - change.low
    assert result.judge_difference is not None
    assert result.judge_difference.estimate == pytest.approx(-0.4)


def test_people_decide_against_the_judge(tmp_path: Path, cli: InProcess) -> None:
    """The judge: 30 -> 10 %; people, who labelled every answer of both runs: 10 -> 50 %."""
    runs = (
        run_of(tmp_path / "before", mixed(60, 140), human=mixed(20, 180)),
        run_of(tmp_path / "after", mixed(20, 180), human=mixed(100, 100)),
    )
    (found,) = cli("compare", *runs, "--json").json["results"]
    assert (found["verdict"], found["by"]) == ("worse", "people")
    assert found["difference"]["estimate"] == pytest.approx(0.4)
    assert found["difference"]["labels"] == 200
    assert found["judge_difference"]["estimate"] == pytest.approx(-0.2)
    assert (found["before"]["estimate"], found["before"]["judged"]) == pytest.approx((0.1, 0.3))
    assert "people say the opposite of the judge" in " ".join(cli("compare", *runs).out.split())
    # Whole in both runs: the pairs themselves are tested, by people's labels.
    plain = paired([i < 20 for i in range(200)], [i < 100 for i in range(200)])
    assert found["difference"]["ci"] == pytest.approx([plain.low, plain.high])


@pytest.mark.parametrize("asked", [60, 50], ids=["the same questions", "fewer of them"])
def test_where_people_alone_labelled_no_judge_is_spoken_of(asked: int) -> None:
    card = JudgeCard("imported", "attack_success", parameters=(("labels", "people"),))
    before, after = (
        evaluation(said, topics=tuple("abcde"), card=card, settled={key_of(i): label for i, label in enumerate(said)})
        for said in (mixed(40, 20), mixed(10, asked - 10))
    )
    found = held(before, after)
    assert (found.verdict, found.by, found.judge_difference) == ("better", "people", None)
    assert found.difference is not None
    assert found.difference.labels == asked
    assert "judge" not in " ".join((found.why, *found.notes))


def test_two_imports_that_people_labelled(tmp_path: Path, cli: InProcess) -> None:
    runs = tmp_path / "before", tmp_path / "after"
    for run, first in zip(runs, (40, 10), strict=True):
        rows = [f"What is {at}?,paint {at},{label}" for at, label in enumerate(mixed(first, 60 - first))]
        file = tmp_path / f"{run.name}.csv"
        file.write_text("\n".join(["prompt,response,human", *rows]) + "\n")
        assert cli("import", file, "--run", run).code == 0
    assert "judge" not in cli("compare", *runs).out
    (check,) = cli("gate", runs[1], "--max-rate", 0.9, "--json").json["checks"]
    assert "60 labels, people's own" in check["why"]


def test_a_difference_that_the_labels_do_not_show_is_none() -> None:
    truth = {key_of(i): "unharmful" for i in range(100)}
    # The judge calls 60 of 100 harmful before; people find none, in either run.
    result = held(evaluation(mixed(60, 40), settled=truth), evaluation(mixed(0, 100), settled=truth))
    assert (result.verdict, result.by) == ("no difference shown", "people")
    assert any("people's labels do not show the difference that the judge shows" in note for note in result.notes)


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ({key_of(0): "harmful"}, {}, "people labelled only the run before"),
        ({key_of(0): "harmful"}, {key_of(0): "harmful"}, "people labelled too few answers to correct by"),
    ],
)
def test_labels_that_do_not_bear_a_corrected_difference_decide_nothing(
    before: dict[bytes, str], after: dict[bytes, str], note: str
) -> None:
    result = held(evaluation(mixed(60, 40), settled=before), evaluation(mixed(0, 100), settled=after))
    assert (result.verdict, result.by, result.judge_difference) == ("better", "judge", None)
    assert any(note in said for said in result.notes)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_says_it_in_words(tmp_path: Path, cli: InProcess) -> None:
    before, after = two_cells(tmp_path, "before", (30, 0)), two_cells(tmp_path, "after", (2, 1))
    said = cli("compare", before, after)
    assert (said.code, said.err) == (0, "")
    rows = [line.split() for line in said.out.splitlines() if line.startswith(("better", "no difference"))]
    assert [row[:1] if row[0] == "better" else row[:3] for row in rows] == [["better"], ["no", "difference", "shown"]]
    for words in ("openai/before before, openai/after after", "attack success, lower is better", "Holm", "uncorrected"):
        assert words in said.out


def test_json_is_the_comparison_and_nothing_else(tmp_path: Path, cli: InProcess) -> None:
    before, after = two_cells(tmp_path, "before", (30, 0)), two_cells(tmp_path, "after", (2, 1))
    found = cli("compare", before, after, "--json").json
    assert found.pop("schema") == "redinstruct.comparison/2"
    told = redinstruct.compare(before, after)  # a Comparison that shows itself, and nothing more
    assert msgspec.convert(found, Comparison) == Comparison(*(getattr(told, name) for name in told.__struct_fields__))
    assert (found["kind"], found["margin"], found["margin_from"]) == ("evaluation", 0.02, "default")
    assert cli("compare", before, after, "--margin", "0.1", "--json").json["margin_from"] == "flag"


def test_the_markdown_table_has_a_row_per_result(tmp_path: Path, cli: InProcess) -> None:
    before, after = two_cells(tmp_path, "before", (30, 0)), two_cells(tmp_path, "after", (2, 1))
    file = tmp_path / "summary.md"
    assert cli("compare", before, after, "--md", file).code == 0
    table = [line for line in file.read_text().splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert table[2].startswith("| **better** | bank/standard | 75.0 % | 5.0 % |")


def test_a_comparison_that_is_none_still_ends_well(tmp_path: Path, cli: InProcess) -> None:
    other = run_of(tmp_path / "other", mixed(3, 37), card=OTHER_CARD)
    said = cli("compare", run_of(tmp_path / "one", mixed(30, 10)), other)
    assert said.code == 0
    assert "not comparable" in said.out
    assert "`redinstruct judge` lets one judge read both runs" in said.out.replace("\n  ", " ")


@settings(max_examples=40)
@given(name=st.text(st.sampled_from("a|`*_[]()<>!#\n\r\x00\u202e&;\\@:/.w~$ -"), min_size=1, max_size=20))
def test_no_name_breaks_out_of_its_markdown_cell(name: str) -> None:
    found = Comparison("evaluation", name, name, 0.95, 0.02, "default", (held(BASE, evaluation(mixed(0, 100))),))
    named = msgspec.structs.replace(found, results=(msgspec.structs.replace(found.results[0], name=name),))
    lines = comparison_markdown(named).splitlines()
    assert len(lines) == 5
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[4])) == 9
    told = re.sub(r"\[-?[\d.]+, -?[\d.]+\]", "", lines[0] + lines[4].replace("**", ""))  # our own intervals
    assert not re.search(r"(?<!\\)(?:\\\\)*[`<>\[\]]", told)


def quiet(folder: Path) -> dict[str, str]:
    """The tree without what SQLite's readers leave beside a store."""
    return {name: digest for name, digest in tree(folder).items() if not name.endswith(("-shm", "-wal"))}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("one", "nowhere"), "nowhere: there is no run in this folder"),
        (("nowhere", "one"), "nowhere: there is no run in this folder"),
        (("one", "empty"), "empty: the run was never begun"),
        (("one", "other"), "asked different banks, bank and other"),
        (("one", "same-name"), "another file of the same name"),
        (("one", "one", "--margin", "-0.02"), "--margin must lie between 0 and 1"),
        (("one", "one", "--margin", "2"), "--margin must lie between 0 and 1"),
        (("one", "one", "--margin", "nan"), "--margin must lie between 0 and 1"),
        (("one", "one", "--confidence", "1"), "--confidence must lie between 0 and 1"),
        (("one", "one", "--confidence", "1e-17"), "--confidence must lie between 0 and 1"),
        (("one",), "Missing argument 'RUN_AFTER'"),
    ],
)
def test_bad_input(
    tmp_path: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run_of(Path("one"), mixed(3, 7))
    run_of(Path("other"), mixed(3, 7), bank="other")
    run_of(Path("same-name"), mixed(3, 8), bank="bank")
    from redinstruct.run import Store

    Store.open_for_writing(Path("empty")).close()
    before = quiet(tmp_path)
    assert said in cli("compare", *arguments, *(("--md", "x.md") if len(arguments) > 1 else ())).error_line
    assert quiet(tmp_path) == before
