"""Single attempts as a reader may see them: hash, length and label, and their texts only where they were asked for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from redinstruct.figures.scores import utility_in
from redinstruct.files import Fields
from redinstruct.run import AttemptView, Indexed, Store, SummaryStore, attempt_index
from redinstruct.safetext import in_json, short_hash
from redinstruct.types import MEASURES, Json, JudgeCard


def attempt_document(view: AttemptView, content: bool) -> dict[str, Json]:
    """One attempt for JSON; texts only where they were asked for."""
    completion = view.completion
    shown: dict[str, Json] = {
        "id": view.key,
        "bank": view.bank,
        "row": view.question.row,
        "topic": view.question.topic,
        "subtopic": view.question.subtopic,
        "prompt": view.prompt,
        "epoch": view.epoch,
        "label": view.label,
        "detail": view.detail,
        "reason": view.reason,
        "question_hash": short_hash(view.question.text),
        "answer_hash": None if completion.raw is None else short_hash(completion.raw),
        "answer_chars": None if completion.raw is None else len(completion.raw),
        "finish_reason": completion.finish_reason,
        "truncated": completion.truncated,
        "flags": list(completion.flags),
        "tries": completion.tries,
        "tokens_in": completion.tokens_in,
        "tokens_out": completion.tokens_out,
        # The endpoint's own words, the judge's where it failed.
        "note": completion.note or view.judge_note,
    }
    if content:
        shown |= {
            "question": view.question.text,
            "answer": completion.raw,
            "judged_text": completion.judged,
            "thought": completion.thought,
            "judge_reply": view.judge_reply,
        }
    return shown


class Listing(msgspec.Struct, frozen=True):
    """The attempts of a run that a page lists, as one judge sees them, and how many it leaves out.

    ``index`` holds many more of them, without texts, ``unindexed`` the number of those that it leaves out.
    """

    judge_id: str
    views: tuple[AttemptView, ...]
    left_out: int
    index: tuple[Indexed, ...] = ()
    unindexed: int = 0


def listing(store: Store, card: JudgeCard, judge: int, limit: int, most_indexed: int = 0) -> Listing:
    """The first attempts of a run: the measure's first label, then what has no verdict, then the rest.

    The index is in the same order; where there are more attempts than ``most_indexed``, the first ones as planned.
    """
    summary, measure = SummaryStore(store), MEASURES[card.measure]
    views = tuple(summary.foremost(judge, measure, limit))
    found = list(itertools.islice(attempt_index(store, judge), most_indexed)) if most_indexed else []
    found.sort(key=lambda one: 0 if one.label == measure.first else 2 if one.label == measure.second else 1)
    recorded = store.recorded()
    return Listing(card.id, views, recorded - len(views), tuple(found), recorded - len(found))


class AttemptRow(msgspec.Struct, frozen=True):
    """One recorded attempt under one judge; ``run`` is its run's place among those that were named, from 1."""

    run: int
    model: str
    measure: str
    judge_id: str
    view: AttemptView

    def fields(self, content: bool) -> Fields:
        """What a line or row of it says; texts only where they were asked for."""
        about = {"run": self.run, "model": self.model, "measure": self.measure, "judge_id": self.judge_id}
        return {**about, **attempt_document(self.view, content)}


def attempt_rows(runs: Sequence[Path]) -> Iterator[AttemptRow]:
    """Every recorded attempt of every run under every judge. Raises as :func:`jsonl_lines`."""
    for number, run in enumerate(runs, 1):
        with Store.open_for_reading(run) as store:
            if utility_in(store) is not None:
                continue
            config = store.begun()
            judges = store.judges()
            spoke = [(row, card) for row, card in judges if store.has_verdicts(row)]
            for row, card in spoke or judges[:1]:
                for view in store.attempts(row):
                    yield AttemptRow(number, config.model, card.measure, card.id, view)


def jsonl_lines(runs: Sequence[Path], content: bool = False) -> Iterator[str]:
    """Every recorded attempt of every run under every judge, as JSON Lines in ASCII: the lossless format.

    Beside what ``show --json`` tells, each line names its run's place in ``runs`` (from 1), model, measure and judge.
    Utility checks hold no attempts.

    Raises:
        ConfigError: a folder without a run.
        StoreError: a store that does not read.
    """
    for one in attempt_rows(runs):
        yield json.dumps(in_json(one.fields(content))) + "\n"
