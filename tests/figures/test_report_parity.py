"""docs/parity.md: what it says does not add up, does not; what it says can be derived, can be."""

from __future__ import annotations

import math
import re
from statistics import fmean

import pytest

from redinstruct.banks import KNOWN
from redinstruct.run.config import PROTOCOL_2023
from redinstruct.stats import wilson
from tests.support.cli import ROOT

PAGE = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, list[float | None]]:
    """The numbers of the table under a heading, by the first cell of each row."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in section.splitlines() if line.startswith("|")]
    return {
        row[0]: [float(c) if re.fullmatch(r"[\d.]+", c) else None for c in row[1:]]
        for row in rows[2:]
    }  # fmt: skip


ASR, HHH, UTILITY = table("Table 3: attack success rate"), table("Table 3: HHH"), table("Table 6: utility")
PRINTED = "printed average"


def column(of: dict[str, list[float | None]], place: int) -> list[float]:
    return [v for name, row in of.items() if name != PRINTED and (v := row[place]) is not None]


def test_the_tables_are_whole() -> None:
    assert (len(ASR), len(HHH), len(UTILITY)) == (11, 10, 4)
    assert sum(v is not None for row in ASR.values() for v in row) == 10 * 4 + 2 * 4 + 8


def test_every_printed_mean_is_right_but_those_listed() -> None:
    wrong = []
    for name, row in ASR.items():
        for first in (0, 4):
            cells = row[first : first + 3]
            if name != PRINTED and None not in cells:
                mean = fmean(v for v in cells if v is not None)
                if abs(mean - (row[first + 3] or 0)) > 0.00101:
                    wrong.append(f"{name} {mean:.3f}")
    for name, row in HHH.items():
        if name != PRINTED and abs(fmean(v for v in row[:4] if v is not None) - (row[4] or 0)) > 0.00101:
            wrong.append(f"{name} {fmean(v for v in row[:4] if v is not None):.4f}")
    for name, row in UTILITY.items():
        mean = fmean(v for v in row[1:3] if v is not None)
        if abs(mean - (row[3] or 0)) > 0.0101:
            wrong.append(f"{name} {mean:.3f}")
    assert wrong == ["ChatGPT 0.8775", "Starling (Blue-Red) 0.7047", "Vicuna-FT-7B 39.775"]
    for of, places in ((ASR, range(1, 8)), (HHH, range(5))):
        for place in places:
            assert fmean(column(of, place)) == pytest.approx(of[PRINTED][place], abs=0.0011)
    # 0.106 against the printed 0.116, which comes out without Starling (Blue).
    assert fmean(column(ASR, 0)) == pytest.approx(0.106, abs=0.0005)
    others = [row[0] for name, row in ASR.items() if name not in (PRINTED, "Starling (Blue)")]
    assert fmean(v for v in others if v is not None) == pytest.approx(0.116, abs=0.0005)


def test_the_intervals_and_tests_are_those_of_the_counts() -> None:
    for rate, shown in ((0.875, "0.875 [0.822, 0.914]"), (0.765, "0.765 [0.702, 0.818]")):
        found = wilson(round(200 * rate), 200)
        assert f"{found.estimate:.3f} [{found.low:.3f}, {found.high:.3f}]" == shown
        assert shown in PAGE.replace("\n", " ")
    for before, after, z in ((0.875, 0.765, 2.9), (0.875, 0.855, 0.6), (0.532, 0.485, 0.9)):
        pooled = (before + after) / 2
        assert (before - after) / math.sqrt(pooled * (1 - pooled) * 2 / 200) == pytest.approx(z, abs=0.05)


def test_the_command_names_what_there_is() -> None:
    (command,) = re.findall(r"^    (redinstruct eval .*)$", PAGE, re.MULTILINE)
    words = command.split()
    assert KNOWN[words[words.index("--bank") + 1]].kind == "bank"
    assert KNOWN[words[words.index("--prompt") + 1]].kind == "template"
    assert words[words.index("--protocol") + 1] == PROTOCOL_2023


def test_eight_cells_are_no_multiple_of_one_in_two_hundred() -> None:
    cells = [v for name, row in ASR.items() if name != PRINTED for v in row[:3] if v is not None]
    assert len(cells) == 30
    assert sum(abs(200 * v - round(200 * v)) > 0.01 for v in cells) == 8
