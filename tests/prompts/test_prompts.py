"""Templates: the shipped texts, the user's own file, and rendering in one pass."""

from __future__ import annotations

import hashlib
import random
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.banks import KNOWN
from redinstruct.errors import TemplateError
from redinstruct.prompts import (
    DEFAULT_PROMPTS,
    SHIPPED,
    load_template,
    parse_template,
    read_template_file,
    render,
    shipped,
)
from redinstruct.prompts.templates import MAX_TEMPLATE_BYTES, SLOT

TEXTS = Path(__file__).parents[2] / "src" / "redinstruct" / "prompts" / "texts"
COU = [name for name in SHIPPED if name.startswith("cou")]

# Things that some way of filling a template would read again, or execute.
PIECES = [
    "{", "}", "{}", "{0}",
    "{x.__class__}", "{{7*7}}", "{% raw %}", "%s", "%(question)s", "$question", "${question}",
    "\\1", "\\g<0>", "\\n", "$1", "&amp;", "<", ">", "<questio", "question>",
    "<QUESTION>", "< question>", "[](.*)+?^$|",
    "\n", "\r\n", "\t", "\0", "\ud800", "\u202e", "Grüße, 你好", " ", "plain words", "`id`", "Red-LM:", "Base-LM:",
]  # fmt: skip


def mixed(rng: random.Random, pieces: list[str]) -> str:
    return "".join(rng.choices(pieces, k=rng.randrange(8)))


# --- Rendering -----------------------------------------------------------------------------------------------------


def test_ten_thousand_pairs_render_to_the_template_with_its_slot_filled_once() -> None:
    """The slot is filled and nothing is read again: not even a slot that stands in the question."""
    rng = random.Random(42)
    for _ in range(10_000):
        before, after = mixed(rng, PIECES), mixed(rng, PIECES)
        if SLOT in before + "\0" + after or (before + SLOT + after).count(SLOT) != 1:
            continue
        question = mixed(rng, [*PIECES, SLOT, SLOT])
        assert render(parse_template("t", before + SLOT + after), question) == before + question + after


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("question", ["", SLOT, f"{SLOT}{SLOT}", "{x.__class__}", "\\1 \\g<0>", "\ud800", "a\nb"])
def test_a_hostile_question_stands_in_every_shipped_template_as_it_is(name: str, question: str) -> None:
    template = shipped(name)
    assert render(template, question) == template.prefix + question + template.suffix
    assert render(template, "What is blue?") == template.text.replace(SLOT, "What is blue?")


@given(st.text(), st.text(), st.text())
def test_prefix_slot_and_suffix_make_the_text(before: str, after: str, question: str) -> None:
    text = before + SLOT + after
    if text.count(SLOT) == 1:
        template = parse_template("t", text)
        assert (template.prefix, template.suffix) == (before, after)
        assert render(template, question) == before + question + after


# --- The one slot --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no <question> slot"),
        ("no slot here", "no <question> slot"),
        ("<QUESTION>", "no <question> slot"),
        ("{question}", "no <question> slot"),
        ("<question> and <question>", "2 <question> slot"),
        ("<question><question><question>", "3 <question> slot"),
    ],
)
def test_a_template_without_exactly_one_slot_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_template("mine", text)
    assert said in str(caught.value)
    assert "mine" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_mebibyte_of_the_worst_text_is_parsed_in_no_time() -> None:
    started = time.process_time()
    for piece in ("Red-LM: ", "Red-LM" + " " * 4096, "Base-LM:" + " " * 4096, "<question", "\n"):
        parse_template("t", f"Red-LM <question> Base-LM {piece * (2**20 // len(piece))}x")
    assert time.process_time() - started < 0.5


def test_angle_brackets_around_the_slot_are_text() -> None:
    template = parse_template("t", "<<question>>")
    assert render(template, "x") == "<x>"


# --- The shipped texts ---------------------------------------------------------------------------------------------


def test_every_file_is_shipped_and_every_shipped_name_has_its_file() -> None:
    assert {path.stem for path in TEXTS.iterdir()} == set(SHIPPED)
    assert set(DEFAULT_PROMPTS) == {"standard", "cot", "cou"}


def test_standard_and_cot_are_exactly_the_published_texts() -> None:
    assert shipped("standard").text == "<question>"
    assert shipped("cot").text == "<question> Let's think step by step."


@pytest.mark.parametrize("name", ["standard", "cot"])
def test_the_authors_own_file_has_the_same_bytes(name: str) -> None:
    """Pinned in the registry of known files; so a standard or cot run with the shipped text is a parity run."""
    assert shipped(name).sha256 == KNOWN[f"{name}-2023"].sha256
    assert hashlib.sha256((TEXTS / f"{name}.txt").read_bytes()).hexdigest() == shipped(name).sha256


def test_the_shipped_cou_is_the_projects_own() -> None:
    assert shipped("cou").sha256 != KNOWN["cou-2023"].sha256


@pytest.mark.parametrize("name", COU)
def test_every_cou_text_has_both_roles_and_ends_with_the_answerers_cue(name: str) -> None:
    template = shipped(name)
    assert "Red-LM" in template.text
    assert "Base-LM" in template.text
    assert template.text.endswith(f"\n\n{template.answerer}:")
    assert template.prefix.endswith(f"\n\n{template.asker}: ")
    swapped = name == "cou-swapped-roles"
    assert (template.asker, template.answerer) == (("Base-LM", "Red-LM") if swapped else ("Red-LM", "Base-LM"))


def test_each_variant_differs_in_what_it_is_named_for() -> None:
    texts = {name: shipped(name).text for name in COU}
    assert len(set(texts.values())) == len(COU)
    assert "thought" not in texts["cou-no-thoughts"].lower()
    assert "-Example-" not in texts["cou-no-demo"]
    assert "snacks" in texts["cou"]
    assert "snacks" not in texts["cou-no-demo"]
    for name in COU:
        if name != "cou-no-thoughts":
            assert "thought" in texts[name].lower(), name
    swap = {"Red-LM": "Base-LM", "Base-LM": "Red-LM"}
    swapped = "Red-LM".join(part.replace("Red-LM", swap["Red-LM"]) for part in texts["cou"].split("Base-LM"))
    assert texts["cou-swapped-roles"].replace("its ", "").replace("a ", "") == swapped.replace("its ", "").replace(
        "a ", ""
    )


@pytest.mark.parametrize("name", ["standard", "cot"])
def test_a_template_without_roles_has_neither(name: str) -> None:
    assert (shipped(name).asker, shipped(name).answerer) == (None, None)


# --- The user's own file -------------------------------------------------------------------------------------------


def test_a_file_is_read_byte_for_byte_and_named_by_its_stem(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_bytes("\r\n <question>\té\n\n".encode())
    template = read_template_file(path)
    assert (template.name, template.text) == ("mine", "\r\n <question>\té\n\n")
    assert template.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_template(str(path)) == template


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no slot", "no <question> slot"),
        (b"\xff\xfe<question>", "not UTF-8"),
        (b"<question>" + b" " * MAX_TEMPLATE_BYTES, "longer than 1024 KiB"),
        (b"", "no <question> slot"),
    ],
)
def test_a_file_that_is_no_template_is_one_clear_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(TemplateError, match=said) as caught:
        load_template(str(path))
    assert "template bad" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    "spec", ["nothing", "missing.txt", "no/such/file", "a/\0b", "x" * 5000, "x/" * 3000, "y.txt" * 100, "", "."]
)
def test_what_names_no_template_is_one_clear_line(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TemplateError):
        load_template(spec)


def test_a_toy_checkpoints_own_text_is_the_shipped_ones_translation(tmp_path: Path) -> None:
    (tmp_path / "cou.txt").write_text("Red-LM: <question>\nBase-LM:", encoding="utf-8")
    (tmp_path / "cot.txt").write_text(shipped("cot").text, encoding="utf-8")
    translated = load_template("cou", own_folder=tmp_path)
    assert (translated.name, translated.translation_of) == ("cou", "cou")
    assert translated.asker == "Red-LM"
    assert load_template("cot", own_folder=tmp_path) == shipped("cot")
    assert load_template("standard", own_folder=tmp_path) == shipped("standard")


@pytest.mark.parametrize(
    ("text", "asker", "answerer"),
    [
        ("Red-LM: <question>\nBase-LM:", "Red-LM", "Base-LM"),
        ("Base-LM: <question>\nRed-LM: \n", "Base-LM", "Red-LM"),
        ("Red-LM asks Base-LM: <question>", "Red-LM", "Base-LM"),
        ("Red-LM: <question>", None, None),
        ("<question>", None, None),
    ],
)
def test_the_role_whose_cue_ends_the_text_answers(text: str, asker: str | None, answerer: str | None) -> None:
    template = parse_template("t", text)
    assert (template.asker, template.answerer) == (asker, answerer)
