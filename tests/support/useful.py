"""Utility checks for tests: folders whose items got given scores."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from redinstruct.figures.scores import GroupPlan, Metric, TaskCard, UtilityConfig
from redinstruct.run import Store, UtilityStore, UtilityTaskRow
from redinstruct.run.rows import to_json

CARD = TaskCard(
    task="t", version="1", harness="lm-eval 0.4.13", output_type="multiple_choice", shots=5, chat_template="none",
    source="hub", total=400, limit=None, metrics=(Metric("acc", True),),
)  # fmt: skip
Scores = Sequence[float | None]


def item(name: str, number: int) -> bytes:
    return hashlib.sha256(f"{name} {number}".encode()).digest()[:16]


def check(
    folder: Path,
    tasks: dict[str, Scores],
    *,
    margin: float = 0.02,
    groups: tuple[GroupPlan, ...] = (),
    planned: Sequence[str] = (),
    first: int = 0,
    harness: str = "lm-eval 0.4.13",
    metric: Metric | None = None,
    **card: object,
) -> Path:
    """A utility run whose items got these scores; ``first`` numbers the first item."""
    config = UtilityConfig(
        f"hf/{folder.name}", (*tasks, *planned), groups, margin, harness, "none", tuple((t, "hub") for t in tasks)
    )
    with Store.open_for_writing(folder) as store:
        rows = UtilityStore(store)
        rows.begin(config.digest, to_json(config))
        for name, scores in tasks.items():
            made = msgspec.structs.replace(CARD, task=name, **card)
            if metric is not None:
                made = msgspec.structs.replace(made, metrics=(metric,))
            items = tuple(item(name, first + i) for i in range(len(scores)))
            rows.commit(UtilityTaskRow(name, to_json(made), items, (tuple(scores),)))
    return folder


def right(count: int, of: int) -> list[float]:
    return [1.0] * count + [0.0] * (of - count)
