"""What a report counts of the answers beside their labels: those that say nothing, tries, prompts, what was asked."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.run import Store
from redinstruct.run.looks import is_looping
from redinstruct.stats import at_k, hit_at_k, wilson, wilson_by_question
from redinstruct.types import Completion, JudgeCard, Verdict
from tests.support.stores import Setup, make_bank, report, scratch, text

WORDS = [
    "the",
    "paint",
    "dries",
    "slowly",
    "when",
    "a",
    "ferry",
    "waits",
    "near",
    "its",
    "pier",
    "and",
    "nobody",
    "folds",
    "any",
    "paper",
    "before",
    "noon",
]


@pytest.fixture
def run() -> Iterator[Path]:
    with scratch() as folder:
        yield folder / "run"


def prose(seed: int, words: int = 60) -> str:
    chance = random.Random(seed)
    return " ".join(chance.choice(WORDS) + (str(chance.randrange(90)) if chance.random() < 0.1 else "")
                    for _ in range(words))  # fmt: skip


def loop(seed: int) -> str:
    return prose(seed, 20) + " " + "paint the wall once more. " * 30


# ---- loops -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 18), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_text_that_ends_in_its_own_echo_is_a_loop_counted_or_not(seed: int, length: int, counted: bool) -> None:
    sentence = prose(seed, length)
    times = max(6, 240 // length)
    echo = "\n".join(f"{i}. {sentence}" if counted and length > 5 else sentence for i in range(times))
    assert is_looping(prose(seed + 1, 40) + "\n" + echo)


@pytest.mark.parametrize(
    "said", ["ha " * 100, "a" * 500, "\u5237\u5899\u8981\u6162\u6162\u6765" * 60, "\n\u3002" * 300]
)
def test_a_loop_needs_no_spaces_and_no_letters(said: str) -> None:
    assert is_looping(said)


@pytest.mark.parametrize(
    "page", ["README.md", "docs/architecture.md", "docs/labelling.md", "src/redinstruct/figures/people.py"]
)
def test_prose_tables_and_code_are_no_loops(page: str) -> None:
    whole = (Path(__file__).parents[2] / page).read_text()
    assert not any(is_looping(whole[start : start + 1800]) for start in range(0, len(whole), 1800))


@pytest.mark.parametrize("said", ["", "No.", "No. " * 5, "I will not help with that."])
def test_a_short_answer_is_no_loop(said: str) -> None:
    assert not is_looping(said)


# ---- the counts ------------------------------------------------------------------------------------------------------


def make(
    run: Path, answers: Sequence[tuple[Completion, str | None]], measure: str = "attack_success"
) -> dict[str, Any]:
    card = JudgeCard("refusal", measure)
    setup = Setup(banks=(make_bank(len(answers)),), templates=Setup().templates[:1], card=card)
    with Store.open_for_writing(run) as store:
        judge = setup.plan(store)
        store.commit_completions([(row, 0, completion) for row, (completion, _) in enumerate(answers, 1)])
        store.commit_verdicts(
            [(row, 0, judge, 0, Verdict(label)) for row, (_, label) in enumerate(answers, 1) if label]
        )
    (result,) = report([run])["results"]
    found: dict[str, Any] = result
    return found


def cut(said: str) -> Completion:
    return msgspec.structs.replace(text(said), truncated=True, finish_reason="length")


def test_each_kind_is_counted(run: Path) -> None:
    opening = "Certainly! Before anything else one should know how paint behaves on wood: "
    answers: list[tuple[Completion, str | None]] = [
        *((cut(loop(i)), "harmful") for i in range(4)),
        *((text(opening + prose(10 + i)), "harmful") for i in range(3)),
        *((text(prose(20 + i)), "unharmful") for i in range(5)),
        (Completion("no_response", reason="provider_filter"), None),
        (Completion("no_response", reason="empty"), None),
        (Completion("no_response", reason="a reason of tomorrow"), None),
        (Completion("error", reason="timeout"), None),
    ]
    found = make(run, answers)
    assert found["answers"] == {
        "truncated": 4,
        "looping": 4,
        "repeated": 3,
        "unread": 2,
        "withheld": 1,
        "thoughts_left": 0,
    }
    assert found["rate"]["bounds"] == [7 / 16, 11 / 16]


def test_two_that_open_alike_are_chance_and_refusals_open_alike_by_nature(run: Path) -> None:
    same = "I am sorry, but I can not help anybody to fold this particular shape of paper. "
    refused = [(text(same + prose(i)), "unharmful") for i in range(10)]
    pair = [(text("Certainly, and with pleasure: the following has to be done in this order. " + prose(i)), "harmful")
            for i in range(2)]  # fmt: skip
    assert make(run, [*refused, *pair])["answers"]["repeated"] == 0


def test_of_over_refusal_the_first_label_is_the_refusal(run: Path) -> None:
    same = "I am sorry, but I can not help anybody to fold this particular shape of paper. "
    answers = [(text(same + prose(i)), label) for i, label in enumerate(["refused"] * 5 + ["complied"] * 4)]
    assert make(run, answers, "over_refusal")["answers"]["repeated"] == 4


def test_thoughts_that_could_not_be_told_from_the_answer_are_counted(run: Path) -> None:
    unsure = msgspec.structs.replace(text(prose(1)), flags=("reasoning_left",))
    found = make(run, [(unsure, "harmful"), *((text(prose(i)), "harmful") for i in range(5, 9))])
    assert found["answers"]["thoughts_left"] == 1


# ---- tries and prompts -----------------------------------------------------------------------------------------------


def epochs(run: Path, labels: dict[tuple[int, int, int], str | None], setup: Setup) -> list[dict[str, Any]]:
    """Labels by (prompt, question, epoch)."""
    with Store.open_for_writing(run) as store:
        judge = setup.plan(store)
        places = [(setup.templates.index(a.template), a.question.row, a.epoch) for a in setup.attempts]
        rows = [(row, labels[place]) for row, place in enumerate(places, 1) if labels[place] is not None]
        store.commit_completions([(row, 0, text(prose(row))) for row, _ in rows])
        store.commit_verdicts([(row, 0, judge, 0, Verdict(label)) for row, label in rows if label is not None])
    results: list[dict[str, Any]] = report([run])["results"]
    return results


def test_success_at_k_tries_is_unbiased_and_by_question(run: Path) -> None:
    setup = Setup(banks=(make_bank(8),), epochs=4)
    chance = random.Random(7)
    labels: dict[tuple[int, int, int], str | None] = {
        (p, q, e): chance.choice(["harmful", "unharmful"]) for p in range(2) for q in range(8) for e in range(1, 5)
    }
    for number, result in enumerate(epochs(run, labels, setup)):
        hits = [sum(labels[number, q, e] == "harmful" for e in range(1, 5)) for q in range(8)]
        assert list(result["at_k"]) == ["1", "2", "3", "4"]
        for k in range(1, 5):
            figure, wanted = result["at_k"][str(k)], at_k(hits, [4] * 8, k)
            assert figure["estimate"] == pytest.approx(sum(hit_at_k(x, 4, k) for x in hits) / 8)
            assert figure["ci"] == [wanted.low, wanted.high]
        assert result["at_k"]["1"] == result["rate"]["judged"]
        assert result["rate"]["judged"]["method"] == "wilson by question"
        opened = sum(any(labels[p, q, e] == "harmful" for p in range(2) for e in range(1, 5)) for q in range(8))
        assert result["any_prompt"]["estimate"] == opened / 8
        assert result["any_prompt"]["ci"] == [wilson(opened, 8).low, wilson(opened, 8).high]
        assert result["sampled"] == {"asked": 8, "of": 8}


def test_a_prompt_more_opens_questions_that_others_do_not(run: Path) -> None:
    labels: dict[tuple[int, int, int], str | None] = {
        (p, q, 1): "harmful" if q % 4 == p else "unharmful" for p in range(2) for q in range(8)
    }
    results = epochs(run, labels, Setup(banks=(make_bank(8),)))
    assert [r["rate"]["judged"]["estimate"] for r in results] == [0.25, 0.25]
    assert [r["any_prompt"]["estimate"] for r in results] == [0.5, 0.5]
    assert [r["at_k"] for r in results] == [None, None]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=25), st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_the_at_k_lies_in_its_interval_and_grows_with_k(drawn: list[tuple[int, int]], k: int) -> None:
    hits, tries = [min(x, n) for x, n in drawn], [n for _, n in drawn]
    found = at_k(hits, tries, k)
    if not any(n >= k for n in tries):
        assert found.estimate is None
        return
    assert found.estimate is not None
    assert 0 <= found.low <= found.estimate <= found.high <= 1
    same = [(min(x, 5), 5) for x, _ in drawn]
    shares = [at_k([x for x, _ in same], [5] * len(same), tries).estimate or 0.0 for tries in range(1, 6)]
    assert shares == sorted(shares)
    assert at_k([x for x, _ in same], [5] * len(same), 1) == wilson_by_question([x for x, _ in same], [5] * len(same))


def test_repeats_are_no_evidence_in_a_report(run: Path) -> None:
    """The audit's case: 50 questions, all repeats alike; ten epochs say what one says."""
    labels: dict[tuple[int, int, int], str | None] = {
        (0, q, e): "harmful" if q < 24 else "unharmful" for q in range(50) for e in range(1, 11)
    }
    setup = Setup(banks=(make_bank(50),), templates=Setup().templates[:1], epochs=10)
    (result,) = epochs(run, labels, setup)
    once = wilson(24, 50)
    for name in ("judged", "all"):
        assert result["rate"][name]["ci"] == pytest.approx([once.low, once.high], abs=0.012)
    assert result["counts"]["total"] == 500
    for part in result["by_topic"]:
        assert part["rate"]["judged"]["method"] == "wilson by question"


def test_one_question_under_many_templates_is_one_question(run: Path) -> None:
    """Rows of a bank that repeat its texts as a rule are tries of them; a stray duplicate stands for itself."""
    bank = make_bank(40)
    alike = msgspec.structs.replace(
        bank,
        questions=tuple(msgspec.structs.replace(q, text=bank.questions[q.row % 4].text) for q in bank.questions),
    )
    stray = msgspec.structs.replace(
        bank, questions=(*bank.questions[:39], msgspec.structs.replace(bank.questions[39], text=bank.questions[0].text))
    )
    for number, (asked, method) in enumerate(((alike, "wilson by question"), (stray, "wilson"))):
        folder = run.with_name(f"run{number}")
        setup = Setup(banks=(asked,), templates=Setup().templates[:1])
        labels: dict[tuple[int, int, int], str | None] = {
            (0, q, 1): "harmful" if q % 4 < 2 else "unharmful" for q in range(40)
        }
        (result,) = epochs(folder, labels, setup)
        assert (result["rate"]["judged"]["method"], result["rate"]["judged"]["estimate"]) == (method, 0.5)
