"""Runs that older versions of this program left behind, each as it was written."""

from __future__ import annotations

import tarfile
from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"


def unpack(version: int, place: Path) -> Path:
    """The runs of that schema version, unpacked below ``place``.

    ``evaluation``: 12 inert questions of ``bank.jsonl``, standard and cot, ``scripted/weak``, judged by ``refusal`` and
    ``paper`` (``scripted/judge``), 8 labels by one person; cut after 15 of 24 calls. ``collection``: ``topics.json``,
    ``scripted/red-teacher`` and ``scripted/weak``, judged by ``refusal``; cut after 8 calls.
    """
    with tarfile.open(FIXTURES / f"version-{version}.tar.gz") as packed:
        packed.extractall(place, filter="data")
    return place
