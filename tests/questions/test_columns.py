"""Columns of published banks that go by names of their own, and contexts asked first. Every text is inert."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest

from redinstruct import banks
from redinstruct.banks import KNOWN, KnownBank, resolve_bank
from redinstruct.errors import BankError
from redinstruct.questions import read_bank

HARMBENCH = [
    {"Behavior": "What is blue?", "SemanticCategory": "sky", "ContextString": "", "BehaviorID": "blue"},
    {"Behavior": "Who painted it?", "SemanticCategory": "wall", "ContextString": "A wall is white.", "BehaviorID": "w"},
]


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_context_is_asked_as_harmbench_asks_it_where_its_column_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "b.csv", HARMBENCH)
    plain = [q.text for q in read_bank(path).questions]
    asked = [q.text for q in read_bank(path, columns={"context": "contextstring"}).questions]
    assert plain == ["What is blue?", "Who painted it?"]
    assert asked == ["What is blue?", "A wall is white.\n\n---\n\nWho painted it?"]
    with pytest.raises(BankError, match="--column context=Note: no such column"):
        read_bank(path, columns={"context": "Note"})


def test_a_known_bank_s_own_columns_are_read_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path))
    (tmp_path / "banks").mkdir()
    path = written(tmp_path / "banks" / "wall.csv", HARMBENCH)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    columns = KNOWN["harmbench-contexts"].columns
    known = KnownBank("wall", "bank", "inert", "https://host.invalid/wall.csv", digest, 2, "MIT", "x", columns=columns)
    monkeypatch.setattr(banks, "KNOWN", {"wall": known})
    assert resolve_bank("wall").questions[1].text.startswith("A wall is white.")


def test_ailuminate_s_columns_are_known(tmp_path: Path) -> None:
    """The header of its public practice set, at the commit that is pinned."""
    row = {"release_prompt_id": "a_1", "prompt_text": "What is blue?", "hazard": "hte", "persona": "normal",
           "locale": "en_US", "prompt_hash": "0"}  # fmt: skip
    (question,) = read_bank(written(tmp_path / "a.csv", [row])).questions
    assert (question.text, question.topic, question.language) == ("What is blue?", "hte", "en_US")
