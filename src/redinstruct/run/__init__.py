"""The run store: SQLite (WAL), append-only rows, owner-only files (see :mod:`redinstruct.run.database`)."""

from __future__ import annotations

from redinstruct.run.annotations import (
    MAJORITY,
    UNANIMOUS,
    Annotated,
    AnnotationStore,
    Draw,
    SettleRule,
    by_annotator,
    by_answer,
    settle,
)
from redinstruct.run.answers import answers_in_lots, attempt_views, verdict_history
from redinstruct.run.collection import CallRow, CollectionStore, StoredCall
from redinstruct.run.database import Sought, Store
from redinstruct.run.failures import Failure, Failures, calls_by_step, failed_calls, failures, too_many_errors
from redinstruct.run.folder import STORE_NAME, check_outside, check_run_folder, is_own_file, is_run, remove_empty
from redinstruct.run.imported import ImportedStore
from redinstruct.run.index import Indexed, attempt_index
from redinstruct.run.judges import JudgeRow, judges_of, named_judge
from redinstruct.run.kinds import NAMED, check_kind, no_run, what_is
from redinstruct.run.merging import Merged, merge
from redinstruct.run.owed import Owed, Scope
from redinstruct.run.planned import Outcomes, Planned, has_repeats, outcomes_of_cells, planned_attempts
from redinstruct.run.purging import importing_place, purge, purge_places
from redinstruct.run.rows import AttemptView, CompletionRow, CountRow, OwedAttempt, VerdictRow
from redinstruct.run.shards import Shards, check_shard_stays, shard, shard_of
from redinstruct.run.stops import note_stop, stops
from redinstruct.run.summary import Spent, SummaryStore
from redinstruct.run.times import Invocation, Times, times_of
from redinstruct.run.utility import UtilityStore, UtilityTaskRow
from redinstruct.run.whole import whole_run

__all__ = [
    "MAJORITY",
    "NAMED",
    "STORE_NAME",
    "UNANIMOUS",
    "Annotated",
    "AnnotationStore",
    "AttemptView",
    "CallRow",
    "CollectionStore",
    "CompletionRow",
    "CountRow",
    "Draw",
    "Failure",
    "Failures",
    "ImportedStore",
    "Indexed",
    "Invocation",
    "JudgeRow",
    "Merged",
    "Outcomes",
    "Owed",
    "OwedAttempt",
    "Planned",
    "Scope",
    "SettleRule",
    "Shards",
    "Sought",
    "Spent",
    "Store",
    "StoredCall",
    "SummaryStore",
    "Times",
    "UtilityStore",
    "UtilityTaskRow",
    "VerdictRow",
    "answers_in_lots",
    "attempt_index",
    "attempt_views",
    "by_annotator",
    "by_answer",
    "calls_by_step",
    "check_kind",
    "check_outside",
    "check_run_folder",
    "check_shard_stays",
    "failed_calls",
    "failures",
    "has_repeats",
    "importing_place",
    "is_own_file",
    "is_run",
    "judges_of",
    "merge",
    "named_judge",
    "no_run",
    "note_stop",
    "outcomes_of_cells",
    "planned_attempts",
    "purge",
    "purge_places",
    "remove_empty",
    "settle",
    "shard",
    "shard_of",
    "stops",
    "times_of",
    "too_many_errors",
    "verdict_history",
    "what_is",
    "whole_run",
]
