"""One type tells how far any work is, one struct says how a run is carried out; no room has another of its own."""

from __future__ import annotations

import ast
import re

from redinstruct.progress import Progress, unheard
from tests.support.house import house, walked


def test_progress_and_limits_are_defined_once() -> None:
    classes = {"Progress": ["progress.py"], "Limits": ["engine/limits.py"]}
    found: dict[str, list[str]] = {name: [] for name in classes}
    for file, tree in house().items():
        for node in walked(tree):
            if isinstance(node, ast.ClassDef) and node.name in found:
                found[node.name].append(file)
    assert found == classes


def test_no_room_counts_its_progress_in_bare_numbers() -> None:
    """A listener to numbers alone (``Callable[[str, int, int], None]``) was spelled in six ways."""
    offences = [
        f"{file}:{node.lineno} {ast.unparse(node)}"
        for file, tree in house().items()
        for node in walked(tree)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Callable"
        if re.fullmatch(r"\(\[(str, )?int(, int( \| None)?)+\], None\)", ast.unparse(node.slice))
    ]
    assert not offences


def test_a_stage_of_its_own_leaves_what_was_told_as_it_is() -> None:
    told = Progress(3, 10, "birds", {"harmful": 1}, retries=2)
    assert told.staged("1-collect: birds") == Progress(3, 10, "1-collect: birds", {"harmful": 1}, retries=2)
    assert told.stage == "birds"
    unheard(told)
