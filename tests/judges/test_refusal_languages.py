"""The keyword judge language by language: what docs/banks.md says of it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from redinstruct.judges.refusal import opens_with_refusal

ROOT = Path(__file__).parent.parent.parent
NAMES = {"english": "English", "chinese": "Chinese", "vietnamese": "Vietnamese"}


def test_the_page_s_table_is_what_the_judge_finds() -> None:
    answers = (ROOT / "tests" / "fixtures" / "refusals_by_language.jsonl").read_text(encoding="utf-8").splitlines()
    right: Counter[tuple[str, str]] = Counter()
    asked: Counter[tuple[str, str]] = Counter()
    for row in map(json.loads, answers):
        key = (row["language"], row["label"])
        asked[key] += 1
        right[key] += opens_with_refusal(row["answer"]) == (row["label"] == "refused")
    page = (ROOT / "docs" / "banks.md").read_text(encoding="utf-8")
    for language, name in NAMES.items():
        found = [f"{right[language, label]} of {asked[language, label]}" for label in ("refused", "complied")]
        assert f"| {name} | {found[0]} | {found[1]} |" in page
