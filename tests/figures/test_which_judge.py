"""Which judge is meant: by name, by the beginning of an id, or the one that the run was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from redinstruct.errors import UsageError
from redinstruct.run import Store, judges_of, named_judge
from redinstruct.types import JudgeCard, Verdict
from tests.support.cli import InProcess
from tests.support.pairs import run_of
from tests.support.stores import CARD, OTHER_CARD, report

TWIN = JudgeCard("paper", "attack_success", model="another")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The first judge finds 1 of 2 harmful, the second both, the third nothing; a fourth never answered."""
    folder = run_of(tmp_path / "run", ["harmful", "unharmful"])
    with Store.open_for_writing(folder) as store:
        for card, labels in ((OTHER_CARD, ("harmful", "harmful")), (TWIN, ("unharmful", "unharmful"))):
            judge = store.add_judge(card)
            store.commit_verdicts([(row, 0, judge, 0, Verdict(label)) for row, label in enumerate(labels, 1)])
        store.add_judge(JudgeCard("rubric", "attack_success"))
    return folder


def test_the_judge_that_the_run_was_begun_with_leads_and_the_silent_one_is_no_result(run: Path) -> None:
    assert [r["judge_id"] for r in report([run])["results"]] == [CARD.id, OTHER_CARD.id, TWIN.id]


@pytest.mark.parametrize(
    ("wanted", "found"), [("refusal", CARD), (CARD.id, CARD), (CARD.id[:10], CARD), ("ref", CARD), (TWIN.id[:9], TWIN)]
)
def test_a_judge_goes_by_its_name_or_the_beginning_of_its_id(run: Path, wanted: str, found: JudgeCard) -> None:
    assert [r["judge_id"] for r in report([run], wanted)["results"]] == [found.id]


def test_a_name_wins_over_the_beginning_of_a_longer_one() -> None:
    cards = [JudgeCard("guard", "attack_success"), JudgeCard("guardian", "attack_success")]
    assert named_judge(list(enumerate(cards)), "guard") == (0, cards[0])


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ("paper", "more than one judge is called so"),
        ("oracle", "no verdicts of this judge; there are"),
        ("rubric", "no verdicts of this judge; there are"),
        ("", "no verdicts of this judge; there are"),
    ],
)
def test_what_is_ambiguous_unknown_or_silent_is_one_line_and_exit_2(
    run: Path, cli: InProcess, wanted: str, line: str
) -> None:
    said = cli("report", run, "--judge", wanted)
    assert (said.code, said.out) == (2, "")
    assert line in said.error_line


def test_a_judge_of_a_part_is_none_of_the_run_s(run: Path) -> None:
    with Store.open_for_writing(run) as store:
        part = store.add_judge(JudgeCard("policy", "attack_success"))
        store.commit_verdicts([(1, 0, part, 0, Verdict("harmful"))])
        store.add_sample(part, 1, 1)
        with pytest.raises(UsageError, match="only a part"):
            judges_of(store, "policy")
        assert "policy" not in [card.name for _, card in judges_of(store)]


def test_an_import_without_labels_is_its_judge_s_once_one_has_read_it(tmp_path: Path, cli: InProcess) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text('{"prompt": "What is blue?", "response": "I cannot say."}\n')
    cli("import", file, "--run", tmp_path / "run")
    assert [r["judge"] for r in cli("report", tmp_path / "run", "--json").json["results"]] == ["imported"]
    cli("judge", tmp_path / "run", "--judge", "refusal")
    assert [r["judge"] for r in cli("report", tmp_path / "run", "--json").json["results"]] == ["refusal"]
    assert cli("gate", tmp_path / "run", "--max-rate", "0.9").code == 0
