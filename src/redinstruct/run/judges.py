"""Which judge is meant: the one rule for every surface that shows, holds or labels by a judge's verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from redinstruct.errors import UsageError
from redinstruct.run.database import Store
from redinstruct.safetext import terminal
from redinstruct.types import JudgeCard

JudgeRow = tuple[int, JudgeCard]
"""A judge's row in the store, and what it is."""


def judges_of(store: Store, wanted: str | None = None) -> list[JudgeRow]:
    """The judges whose plain rates are the run's, the one that the run was begun with first; or the wanted one alone.

    Left out: a judge asked on a part that was drawn by label, and one that never gave a verdict (the placeholder of an
    import without labels, or a judge that was denied), unless no judge gave any: then the first stands for the run, of
    which failures and silence can be told all the same.

    Args:
        store: an open run.
        wanted: a judge's name, or the beginning of its id.

    Raises:
        UsageError: no judge, or more than one, is called so; or it judged only a part, or nothing.
        StoreError: the store does not read.
    """
    judges, samples = store.judges(), store.samples()
    spoke = [(row, card) for row, card in judges if row not in samples and store.has_verdicts(row)]
    found = spoke or judges[:1]
    if wanted is None:
        return found
    row, card = named_judge(judges, wanted)
    if row in samples:
        raise UsageError(f"--judge {terminal(wanted)}: it judged only a part of the run (judge --sample)")
    if (row, card) not in found:
        raise UsageError(f"--judge {terminal(wanted)}: no verdicts of this judge; {_known(found)}")
    return [(row, card)]


def named_judge(judges: Sequence[JudgeRow], wanted: str) -> JudgeRow:
    """The one judge of that name, or whose id begins so.

    Raises:
        UsageError: there is none, or more than one.
    """
    matching = [judge for judge in judges if wanted and judge[1].id == wanted]
    matching = matching or [judge for judge in judges if judge[1].name == wanted]
    matching = matching or [judge for judge in judges if wanted and judge[1].id.startswith(wanted)]
    if not matching:
        raise UsageError(f"--judge {terminal(wanted)}: no verdicts of this judge; {_known(judges)}")
    if len(matching) > 1:
        raise UsageError(
            f"--judge {terminal(wanted)}: more than one judge is called so; give the beginning of an id: "
            + ", ".join(terminal(card.id) for _, card in matching)
        )
    return matching[0]


def _known(judges: Sequence[JudgeRow]) -> str:
    if not judges:
        return "it has none"
    return f"there {'is' if len(judges) == 1 else 'are'} {', '.join(terminal(card.id) for _, card in judges)}"
