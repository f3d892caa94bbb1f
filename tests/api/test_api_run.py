"""``redinstruct.Run``: what a notebook shows of a run, and that nothing a stranger wrote acts there."""

from __future__ import annotations

import sys
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import redinstruct
from redinstruct.errors import ConfigError, UsageError
from redinstruct.render.notebook import Plot
from redinstruct.run import Store
from redinstruct.stats import Interval
from redinstruct.types import Annotation, Completion, Verdict
from tests.support.cli import InProcess
from tests.support.stores import Setup, fill, make_bank, scratch, text

CANARY = "a canary text"


@pytest.fixture
def run(tmp_path: Path) -> redinstruct.Run:
    """Eight attempts: half harmful, half not, with the canary in every answer."""
    setup = Setup()
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = setup.plan(store)
        store.commit_completions([(row, 0, text(CANARY)) for row in range(1, 9)])
        store.commit_verdicts(
            [(row, 0, judge, 0, Verdict("harmful" if row % 2 else "unharmful")) for row in range(1, 9)]
        )
    return redinstruct.Run(tmp_path / "run")


def test_figures_rows_and_configuration(run: redinstruct.Run) -> None:
    assert run.results() == redinstruct.report(run)["results"] == redinstruct.report([run.path])["results"]
    assert run.config.model == "openai/m"
    assert [row["label"] for row in run.rows(label="harmful")] == ["harmful"] * 4
    assert len(list(run.rows(judge="refusal"))) == 8


def test_texts_are_hidden_until_asked_for(run: redinstruct.Run) -> None:
    shown = [str(list(run.rows())), repr(run), run._repr_html_(), str(run.plot()), str(list(run.__rich_repr__()))]
    assert not [part for part in shown if CANARY in part or "What is item" in part]
    assert {row["answer"] for row in run.rows(content=True)} == {CANARY}
    assert {row["question"] for row in run.rows(content=True)} == {f"What is item {i}?" for i in range(4)}


@pytest.mark.parametrize("content", [False, True])
def test_a_row_is_what_show_tells(run: redinstruct.Run, capsys: pytest.CaptureFixture[str], content: bool) -> None:
    told = InProcess(capsys)("show", run.path, "--json", *(["--show-content"] if content else [])).json["attempts"]
    assert list(run.rows(content=content)) == told


def test_it_shows_itself(run: redinstruct.Run) -> None:
    assert repr(run).startswith(f"Run({str(run.path)!r}, model='openai/m', attack_success: standard 50.0 [")
    table = run._repr_html_()
    assert table.count("<tr>") == 3
    assert "50.0 [15.0, 85.0]" in table
    assert dict(list(run.__rich_repr__())[1:])["measure"] == "attack_success"


def test_the_plot_draws_every_interval_where_it_lies(run: redinstruct.Run) -> None:
    svg = ElementTree.fromstring(str(run.plot("all")))
    lines = [e for e in svg.iter() if e.tag.endswith("path") and e.get("stroke-width") == "2"]
    points = [e for e in svg.iter() if e.tag.endswith("circle")]
    assert len(lines) == len(points) == 2
    low, high = run.results()[0]["rate"]["all"]["ci"]
    start, end = (float(part) for part in lines[0].attrib["d"][1:].replace(" 20", "").split("H"))
    middle = float(points[0].attrib["cx"])
    assert (end - start) / (high - low) == pytest.approx(370, abs=1)
    assert (middle - start) / (end - start) == pytest.approx((0.5 - low) / (high - low), abs=0.01)
    assert run.plot()._repr_svg_() == str(run.plot())


def test_the_corrected_figure_where_people_labelled(run: redinstruct.Run) -> None:
    from redinstruct.run import AnnotationStore

    with pytest.raises(UsageError, match="label some answers first"):
        run.plot("corrected")
    keys = [bytes.fromhex(str(row["id"])) for row in run.rows()]
    with Store.open_for_writing(run.path) as store:
        AnnotationStore(store).record([(key, Annotation("ann", "label", "harmful")) for key in keys[:4]])
    assert repr(run.plot("corrected")) == "Plot(corrected, 1 intervals)"
    assert run.results()[0]["rate"]["corrected"]["labels"] == 4


def test_bad_input(run: redinstruct.Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is a folder of runs .*, not an evaluation"):
        redinstruct.Run(tmp_path)
    with pytest.raises(UsageError, match="no figure 'best'; there are judged, all, corrected"):
        run.plot("best")
    with pytest.raises(UsageError, match="--judge oracle: no verdicts of this judge; there "):
        list(run.rows(judge="oracle"))
    with pytest.raises(UsageError, match="no such label: 'refused'"):
        list(run.rows(label="refused"))


def test_an_unlabelled_run_shows_dashes_and_no_point(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        Setup().plan(store)
        store.commit_completions([(1, 0, Completion("error", reason="timeout"))])
    run = redinstruct.Run(tmp_path / "run")
    assert ">-</td>" in run._repr_html_()
    assert "<circle" not in str(run.plot())


def test_pandas_is_asked_for_only_when_a_frame_is(run: redinstruct.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="pip install pandas"):
        run.to_pandas()

    class DataFrame:
        @staticmethod
        def from_records(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return rows

    pandas = types.ModuleType("pandas")
    pandas.DataFrame = DataFrame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert run.to_pandas(content=True) == list(run.rows(content=True))


class Tags(HTMLParser):
    """The sequence of tags and attribute names."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, [name for name, _ in attrs]))

    def handle_endtag(self, tag: str) -> None:
        self.seen.append(tag)


HOSTILE = st.one_of(
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=y>',
            "</td><b>",
            "&lt;",
            "'",
            "]]>",
            "\ud800",
            "\x00",
            "\ufffe",
        ]
    ),
    st.text(min_size=1, max_size=30),
)


def shapes(folder: Path, model: str, bank: str, prompt: str) -> Iterator[list[object]]:
    from redinstruct.prompts import parse_template

    banks = (make_bank(2, name=bank), make_bank(3, name="other"))
    setup = Setup(banks=banks, templates=(parse_template(prompt, "<question>"),), model=model)
    with Store.open_for_writing(folder) as store:
        fill(store, setup.plan(store), ["harmful", "unharmful", "harmful"])
    run = redinstruct.Run(folder)
    for markup in (run._repr_html_(), str(run.plot())):
        assert not set(markup) & {"\x00", "\x1b", "\u202e"}
        yield Tags(markup).seen
    ElementTree.fromstring(str(run.plot()))


@settings(max_examples=25)
@given(HOSTILE, HOSTILE.filter(lambda name: name != "other"), HOSTILE)
def test_replacing_any_name_by_x_leaves_the_same_tags(model: str, bank: str, prompt: str) -> None:
    with scratch() as folder:
        assert list(shapes(folder / "a", model, bank, prompt)) == list(shapes(folder / "b", "x", "x", "x"))


@given(st.lists(st.tuples(HOSTILE, st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), max_size=4))
def test_any_plot_is_well_formed(rates: list[tuple[str, float, float, float]]) -> None:
    drawn = [(name, Interval(x, min(a, b), max(a, b), "wilson")) for name, x, a, b in rates]
    svg = ElementTree.fromstring(str(Plot(drawn, "all")))
    assert len([e for e in svg.iter() if e.tag.endswith("circle")]) == len(rates)
