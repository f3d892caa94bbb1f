"""A figure is written one way, wherever it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from redinstruct.figures.comparison import compare
from redinstruct.figures.numbers import p_in_words, p_value
from redinstruct.render.page import html_page
from tests.support.cli import InProcess
from tests.support.pairs import mixed, run_of


@pytest.mark.parametrize(("gone", "written"), [(60, "< 0.0001"), (12, "0.00053"), (8, "0.0047"), (3, "0.12")])
def test_a_p_value_is_the_same_in_json_page_and_terminal(
    place: Path, cli: InProcess, monkeypatch: pytest.MonkeyPatch, gone: int, written: str
) -> None:
    before, after = run_of(place / "a", mixed(70, 30)), run_of(place / "b", mixed(70 - gone, 30 + gone))
    (result,) = compare(before, after).results
    assert result.difference is not None
    p = result.difference.p_holm
    assert p_value(p) == written
    assert p_in_words(p) in result.why
    html = html_page([before, after]).replace("\u00a0", " ")
    assert f"{p_in_words(p)}, on".replace("<", "&lt;") in html
    assert f'<td class="num">{p_value(p)}</td>'.replace(">< 0", ">&lt; 0") in html
    monkeypatch.setenv("COLUMNS", "200")
    assert f" {p_value(p)} " in cli("compare", before, after).out
