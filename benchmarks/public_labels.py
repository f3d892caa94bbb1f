"""Published labels as cells: how a judge and people labelled the same answers. Read for `benchmarks.verdicts` only.

FOLDER holds clones, each as `git clone https://github.com/<owner>/<name>` makes it, at the commit named here. Only
labels leave this module; a text is looked at by the `refusal` judge and by nothing else, and none is ever printed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from redinstruct.judges.refusal import opens_with_refusal

SOURCES = {
    "exaggerated-safety": ("paul-rottger/exaggerated-safety", "d7bb5bd738c1"),
    "JailbreakEval": ("ThuCCSLab/JailbreakEval", "c1419728c039"),
    "GPTFuzz": ("sherdencooper/GPTFuzz", "1eddeb565740"),
    "jailbreak-evaluation": ("purseclab/jailbreak-evaluation", "b5be0cd5eedf"),
}
"""Folder -> repository and commit."""
Row = Mapping[str, str]


class Cell(NamedTuple):
    """Answers that both labelled: ``size`` of them, ``flagged`` positive to the judge, ``right`` of these to people
    too, ``missed`` of the others to people alone.
    """

    name: str
    size: int
    flagged: int
    right: int
    missed: int

    @property
    def rate(self) -> float:
        """What people would find."""
        return (self.right + self.missed) / self.size

    @property
    def judged(self) -> float:
        """What the judge finds."""
        return self.flagged / self.size


def cells(folder: Path) -> Iterator[Cell]:
    """Every cell of the clones that are there."""
    for name, read in (
        ("exaggerated-safety", _xstest),
        ("JailbreakEval", _jailbreakeval),
        ("GPTFuzz", _gptfuzz),
        ("jailbreak-evaluation", _manual),
    ):
        if (folder / name).is_dir():
            yield from read(folder / name)


def _rows(file: Path) -> list[dict[str, str]]:
    csv.field_size_limit(1 << 30)
    with file.open(encoding="utf-8", errors="replace", newline="") as text:
        return list(csv.DictReader(text))


def _cell(name: str, rows: list[dict[str, str]], judge: Callable[[Row], bool], human: Callable[[Row], bool]) -> Cell:
    pairs = [(judge(row), human(row)) for row in rows]
    return Cell(
        name, len(pairs), sum(j for j, _ in pairs), sum(j and h for j, h in pairs), sum(h and not j for j, h in pairs)
    )


def _xstest(folder: Path) -> Iterator[Cell]:
    """Five models' answers; refused (in part or whole) to two annotators, on the safe prompts and on the unsafe."""
    for model in ("gpt4", "llama2new", "llama2orig", "mistralguard", "mistralinstruct"):
        for judge, column in (("gpteval", "gpt4_label"), ("streval", "strmatch_label"), ("refusal", "")):
            source = "gpteval" if judge == "refusal" else judge
            file = folder / "evaluation" / "automated_evaluation_labels" / f"xstest_v2_completions_{model}_{source}.csv"
            rows = _rows(file)
            for half, kept in (("safe", False), ("unsafe", True)):
                part = [row for row in rows if row["type"].startswith("contrast") is kept]
                yield _cell(
                    f"XSTest {half}, {model}, {judge}",
                    part,
                    lambda row, column=column: (  # type: ignore[misc]
                        row[column] != "1_full_compliance" if column else opens_with_refusal(row["completion"])
                    ),
                    lambda row: row["final_label"] != "1_full_compliance",
                )


def _jailbreakeval(folder: Path) -> Iterator[Cell]:
    for name in ("JAILJUDGEmini", "Safe-RLHFmini"):
        rows = _rows(folder / "data" / f"{name}.csv")
        yield _cell(
            f"{name}, refusal", rows, lambda row: not opens_with_refusal(row["answer"]), lambda row: row["label"] == "1"
        )


def _gptfuzz(folder: Path) -> Iterator[Cell]:
    for name in ("train", "evaluate"):
        rows = _rows(folder / "datasets" / "responses_labeled" / f"{name}.csv")
        yield _cell(
            f"GPTFuzz {name}, refusal",
            rows,
            lambda row: not opens_with_refusal(row["Response"]),
            lambda row: row["label"] == "1",
        )


def _manual(folder: Path) -> Iterator[Cell]:
    """Three automatic judges and three things that people labelled; a judge is good at one of them at most."""
    rows = _rows(folder / "raw-data" / "manual_data.csv")
    for judge in ("zou", "huang", "chao"):
        column = f"automatic_{judge}_none_label"
        part = [row for row in rows if row[column]]
        for people in ("safeguard_violation", "informativeness", "relative_truthfulness"):
            yield _cell(
                f"manual_data, {judge}, {people}",
                part,
                lambda row, column=column: row[column] == "True",  # type: ignore[misc]
                lambda row, people=people: row[f"manual_{people}_label"] == "True",  # type: ignore[misc]
            )
