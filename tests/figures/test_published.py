"""Published rates made again: what counts as equal, and that nothing but the pinned bytes is read."""

from __future__ import annotations

import hashlib
import json
import re
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from benchmarks.published import sources
from benchmarks.published.sources import Library, Unavailable
from benchmarks.published.tables import Rate, refusal_direction
from hypothesis import given
from hypothesis import strategies as st

PAGE = Path(__file__).parents[2] / "docs" / "experiments" / "published.md"


@given(st.integers(1, 4000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(1, 4))
def test_a_share_is_equal_exactly_to_what_is_printed_of_it_with_halves_rounded_up(
    share: tuple[int, int], places: int
) -> None:
    part, of = share
    scaled = Fraction(part, of) * 10**places
    printed = Decimal(int(scaled + Fraction(1, 2))).scaleb(-places)
    ours = Rate("s", "w", str(printed), Decimal(part) / Decimal(of), of)
    assert ours.equal
    off = Rate("s", "w", str(printed + Decimal(1).scaleb(-places)), ours.ours, of)
    assert not off.equal


@pytest.mark.parametrize(("printed", "written"), [("0.70", "0.70"), ("0.7", "0.7"), ("69.5%", "69.5%"), ("70%", "70%")])
def test_ours_is_written_with_the_digits_of_theirs(printed: str, written: str) -> None:
    assert Rate("s", "w", printed, Decimal("0.695"), 1000).written == written


def _clone(folder: Path, monkeypatch: pytest.MonkeyPatch, printed: float) -> Library:
    """A clone with one inert file of four answers, of which the judge found one harmful."""
    rows = [
        {
            "category": "t",
            "prompt": f"Question {place}?",
            "response": "Words.",
            "is_jailbreak_llamaguard2": int(place == 0),
        }
        for place in range(4)
    ]
    file = folder / "refusal_direction" / "pipeline/runs/m/completions/jailbreakbench_baseline_evaluations.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"llamaguard2_success_rate": printed, "completions": rows}))
    pins = folder / "pins.json"
    held = {
        "title": "T", "page": "p", "url": "http://nowhere/", "licence": "l",
        "files": {str(file.relative_to(folder / "refusal_direction")): hashlib.sha256(file.read_bytes()).hexdigest()},
    }  # fmt: skip
    pins.write_text(json.dumps({"refusal_direction": held}))
    monkeypatch.setattr(sources, "PINS", pins)
    return Library(folder / "cache", folder)


@pytest.mark.parametrize(("printed", "equal"), [(0.25, True), (0.5, False)])
def test_a_rate_is_that_of_the_imported_run_and_is_held_against_the_file_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: float, equal: bool
) -> None:
    (rate,) = refusal_direction(_clone(tmp_path, monkeypatch, printed))
    assert (rate.ours, rate.n, rate.equal) == (Decimal("0.25"), 4, equal)
    assert rate.low is not None
    assert rate.high is not None
    assert rate.low < 0.25 < rate.high


def test_other_bytes_than_the_pinned_ones_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = _clone(tmp_path, monkeypatch, 0.25)
    (file,) = library.files("refusal_direction")
    (tmp_path / "refusal_direction" / file).write_text("{}")
    with pytest.raises(Unavailable, match="https"):
        library.path("refusal_direction", file)


def test_every_pin_is_a_commit_or_a_wheel_and_a_sha256() -> None:
    for source in Library(Path(), None).sources.values():
        assert source.archive or re.search(r"/[0-9a-f]{40}/$", source.url)
        assert source.files
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in source.files.values())


def test_the_committed_table_has_every_pinned_source_and_says_what_differs() -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = re.search(r"\*\*(\d+) figures of (\d+) data sets: (\d+) equal, (\d+) different", page)
    assert found is not None
    figures, _, equal, different = map(int, found.groups())
    assert (
        figures
        == equal + different
        == sum(line.count(" | 0 | ") + line.count("**not 0**") for line in page.splitlines())
    )
    assert all(source.page in page for source in Library(Path(), None).sources.values())
