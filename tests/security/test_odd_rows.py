"""A run folder may hold any row: every reader ends in one line and exit 2, or reads it; never in an internal error."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from redinstruct.run import Store
from redinstruct.run.soundness import EVERY_ROW, why_unsound
from tests.support.cli import InProcess
from tests.support.odd_rows import VALUES, columns, odd_runs
from tests.support.old_runs import unpack
from tests.support.stores import scratch
from tests.support.tally import security, tally

VERBS = {
    "evaluation": (["report"], ["report", "--json"], ["show"], ["gate", "--max-rate", "0.5"], ["labels"]),
    "collection": (["show"], ["report"]),
}


def wrong_ends(
    cli: InProcess, kind: str, only: set[str] | None = None, values: Sequence[object] = VALUES
) -> tuple[int, list[str]]:
    tried, wrong = 0, []
    with scratch() as place:
        run = unpack(1, place) / kind
        Store.open_for_writing(run).close()
        for table, column in columns(run):
            if only is not None and f"{table}.{column}" not in only:
                continue
            for value, first in odd_runs(run, place / "odd", table, column, values):
                for verb, *more in VERBS[kind]:
                    done = cli(verb, place / "odd", *more)
                    tried += 1
                    if done.code not in (0, 2, 10, 11) or (done.code == 2 and done.err.count("\n") != 1):
                        wrong.append(f"{table}.{column} = {str(value)[:20]!r} ({first}): {verb}: {done.err[-200:]}")
    return tried, wrong


def test_a_hostile_value_is_damage_and_not_an_internal_error(cli: InProcess) -> None:
    tried, wrong = wrong_ends(cli, "evaluation", {"banks.sha256", "judges.card"}, ("x",))
    assert tried >= 10
    assert wrong == []


@security
@pytest.mark.parametrize("kind", VERBS)
def test_a_hostile_value_in_every_column(cli: InProcess, kind: str) -> None:
    tried, wrong = wrong_ends(cli, kind)
    what = f"A18: a value of another kind in every column of every table ({kind})"
    tally(what, tried, len(wrong), "; ".join(wrong[:2]))


def test_every_table_is_looked_at(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        tables = {name for (name,) in store.db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert why_unsound(store.db) is None
    assert tables == set(EVERY_ROW)


def test_a_fault_of_this_program_is_not_called_damage(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Store.open_for_writing(tmp_path / "run"):
        raise ZeroDivisionError
