"""One hostile name, one interval, one p-value, one wrong folder: in every surface, by one rule."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import redinstruct
from redinstruct.figures.numbers import p_in_words, with_interval
from redinstruct.harmfulqa.card import data_card
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion
from redinstruct.rounds.plot import front_svg
from redinstruct.safetext import Secret, in_csv, in_json, in_markdown, in_markup, shown
from redinstruct.types import JudgeCard
from tests.support.cli import InProcess
from tests.support.pairs import mixed, run_of
from tests.support.stores import Setup, make_bank, scratch

KEY = "sk-proj-4f9aQ7xT2mZ8"
NAME = (
    "=1+1|[x](http://e.org)<b onload=y>@team #777 `c` www.e.org $m$ \u202e\ufffe\x1b[31m \\ __u__ ~~s~~ &amp; :tada: "
    + KEY
)
"""Bidi, a noncharacter, ANSI, a link, HTML, a formula, a mention, marks of Markdown, and a key that is registered."""
SHOWN = NAME.replace("\u202e", r"\u202e").replace("\ufffe", r"\ufffe").replace("\x1b", r"\x1b").replace(KEY, "***")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two runs whose model, bank, prompt and judge all have the name, of figures that differ."""
    Secret(KEY)
    before, after = [
        run_of(
            tmp_path / name, mixed(first, 40 - first), model=f"openai/{NAME}",
            card=JudgeCard("refusal", "attack_success", NAME),
            setup=msgspec.structs.replace(
                Setup(banks=(make_bank(40, NAME, (NAME,)),)),
                templates=(msgspec.structs.replace(Setup().templates[0], name=NAME),),
            ),
        )
        for name, first in (("before", 20), ("after", 14))
    ]  # fmt: skip
    return before, after


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.texts += [value or "" for _, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def of_html(text: str) -> str:
    """What a reader of a page sees."""
    found = _Texts()
    found.feed(text)
    assert "b" not in found.tags
    assert "onload" not in str(re.findall(r"<[a-z][^>]*>", re.sub(r'"[^"]*"', '""', text)))
    return "\n".join(found.texts)


def of_markdown(text: str) -> str:
    """What a reader of the Markdown sees, in CommonMark with tables and strikethrough."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    marks = [child for token in reader.parse(text) for child in token.children or ()]
    assert not {mark.type for mark in marks} & {"link_open", "image", "s_open", "html_inline", "em_open"}
    for raw in ("@team", "#777", "://", "www.e", "$m$", ":tada:"):
        assert raw not in text
    return of_html(reader.render(text))


def of_xml(text: str) -> str:
    """Every attribute and text of an XML document, which has to be one."""
    return "\n".join(
        "\n".join([*element.attrib.values(), element.text or ""]) for element in ElementTree.fromstring(text).iter()
    )


def of_csv(text: str) -> str:
    """The cells, of which none is a formula."""
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]
    return "\n".join(cells)


def of_json(text: str) -> str:
    """Every text of JSON, shown: JSON itself is lossless."""
    assert "\x1b" not in text
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, str):
            found.append(value)
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(part)

    for line in [text] if text.lstrip().startswith("{\n") else text.splitlines():
        walk(json.loads(line))
    return "\n".join(map(shown, found))


def surfaces(cli: InProcess, before: Path, after: Path, folder: Path) -> dict[str, tuple[str, Callable[[str], str]]]:
    """Surface -> its text, and how a reader reads it."""

    def plain(text: str) -> str:
        assert not set("\x1b\u202e\ufffe") & set(text)
        return text

    found: dict[str, tuple[str, Callable[[str], str]]] = {}
    files = {"out": of_html, "md": of_markdown, "csv": of_csv, "junit": of_xml, "jsonl": of_json}
    flags = [word for name in files for word in (f"--{name}", folder / f"report.{name}")]
    assert cli("report", before, after, *flags).code == 0
    found |= {f"report --{name}": ((folder / f"report.{name}").read_text(), read) for name, read in files.items()}
    cli("compare", before, after, "--md", folder / "compare.md")
    cli("gate", after, "--max-rate", 0.1, "--baseline", before, "--md", folder / "gate.md", "--junit", folder / "g.xml")
    found["compare --md"] = (folder / "compare.md").read_text(), of_markdown
    found["gate --md"] = (folder / "gate.md").read_text(), of_markdown
    found["gate --junit"] = (folder / "g.xml").read_text(), of_xml
    for verb, words in {"report": (before,), "compare": (before, after), "gate": (after, "--max-rate", 0.1)}.items():
        found[f"{verb} --json"] = cli(verb, *words, "--json").out, of_json
    found["report on a terminal"] = re.sub(r"\s*\n\s*", " ", cli("report", before).out), plain
    rows = [Collected(CollectedQuestion("0", NAME, NAME, "Why?"))]
    card = data_card(rows, provenance={"teacher": NAME}, dropped={NAME: 1})
    found["data card"] = card.markdown, of_markdown
    found["data card, JSON"] = card.json, of_json
    found["notebook"] = redinstruct.Run(before)._repr_html_(), of_html
    found["notebook, plot"] = str(redinstruct.Run(before).plot("all")), of_xml
    found["notebook, repr"] = repr(redinstruct.Run(before)), plain
    found["the front's plot"] = front_svg([(NAME, 0.5, 0.5, (0.4, 0.6))], 40), of_xml
    return found


def test_one_hostile_name_is_the_same_words_on_every_surface(
    cli: InProcess, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    for surface, (text, read) in surfaces(cli, *runs, tmp_path).items():
        assert KEY not in text, surface
        seen = read(text)
        # A terminal's table and a plot cut a long name; what they show of it is shown by the same rule.
        cut = surface in ("report on a terminal", "notebook, plot", "notebook, repr")
        assert (SHOWN[:20] if cut else SHOWN) in seen.replace("\\\\", "\\"), surface


def test_one_interval_and_one_p_value_are_written_one_way(
    cli: InProcess, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    rate = redinstruct.Run(runs[0])._results()[0].rate.judged
    compared = json.loads(cli("compare", *runs, "--json").out)["results"][0]
    interval, p = with_interval(rate), p_in_words(compared["difference"]["p_holm"])
    found = {name: read(text) for name, (text, read) in surfaces(cli, *runs, tmp_path).items()}
    for surface in ("report --out", "report --md", "report on a terminal", "notebook", "notebook, repr"):
        numbers = interval.partition(" ")[2]
        assert numbers in found[surface], surface
    for surface in ("report --out", "report --md", "compare --md"):
        assert p in found[surface].replace("\xa0", " "), surface


@given(st.text(st.sampled_from("a1_*[]()<>!#|&~$@:/.w-+= \\`\u202e\ufffe\x1b\n"), max_size=12))
def test_every_escaper_shows_a_text_as_the_terminal_does(text: str) -> None:
    words = shown(text)
    assert html.unescape(in_markup(text)) == words
    assert html.unescape(in_markdown(text)) == words
    assert in_csv(text).removeprefix("'").replace("\n", r"\n") == words
    assert in_json({text: [text]}) == {text: [text]}
    for block in (f"- {in_markdown(text)}", f"| a |\n|---|\n| {in_markdown(text)} |", f"x: {in_markdown(text)}"):
        found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(block)
        kinds = {token.type for token in found}
        blocks = ("bullet_list", "list_item", "paragraph", "inline", "table", "thead", "tr", "th", "tbody", "td")
        assert {kind.removesuffix("_open").removesuffix("_close") for kind in kinds} <= set(blocks)
        assert len([t for t in found if t.type in ("list_item_open", "td_open", "paragraph_open")]) <= 2
        inline = {child.type for token in found for child in token.children or ()}
        assert inline <= {"text", "text_special"}
