r"""safetext: hostile text made safe to show, to name files by and to store; secrets that do not show.

The checks know Unicode from ``unicodedata`` and from lists of their own, never from the tables under test; and each is
shown to reject the plausible wrong implementation (the "mutants").
"""

from __future__ import annotations

import base64
import copy
import csv
import functools
import html
import io
import json
import pickle
import random
import re
import sqlite3
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterator
from urllib.parse import quote, quote_plus

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape as jinja_escape

from redinstruct.safetext import (
    Secret,
    csv_cell,
    file_name,
    forget_secrets,
    in_csv,
    in_json,
    in_markdown,
    in_markup,
    redact,
    restore,
    short_hash,
    shown,
    storable,
    terminal,
)

quick = settings(max_examples=150, deadline=None)

# --- Hostile strings ----------------------------------------------------------------------------------------------

PIECES = [
    "",
    "plain words ",
    "Grüße, 你好, 😀",
    "\\x1b",
    "'",
    '"',
    " ",
    "\xa0",
    "\u3000",
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "a",
    ",",
    ";",
    "\x1b[2J",
    "\x1b]8;;http://x\x1b\\",
    "\x9b31m",
    "\x1b]52;c;aGk=\x07",
    "\x00",
    "\x08",
    "\x7f",
    "\r",
    "\n",
    "\t",
    "\r\n",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x85",
    "\u2028",
    "\u2029",
    "\u202e",
    "\u202d",
    "\u2066",
    "\u2069",
    "\u200e",
    "\u200f",
    "\u061c",
    "\u200b",
    "\u200c",
    "\u200d",
    "\u2060",
    "\ufeff",
    "\xad",
    "\ud800",
    "\udfff",
    "\ud83d\ude00",
    "\U000e0041",
    "\U000e007f",
    "\ufe0f",
    "\U000e0100",
    "\u3164",
    "\u180e",
    "\ufffd",
    "\U0010f8d8",
    "\U0010ffff",
]


@functools.cache
def corpus() -> list[str]:
    """10,000 strings out of hostile pieces and of arbitrary characters; the same in every run."""
    dice = random.Random(20230818)
    mixed = ["".join(dice.choices(PIECES, k=dice.randrange(1, 9))) for _ in range(8000)]
    anything = ["".join(chr(dice.randrange(0x110000)) for _ in range(dice.randrange(1, 9))) for _ in range(2000)]
    return mixed + anything


any_text = st.text(st.characters(codec=None, categories=None), max_size=30)  # lone surrogates included
hostile = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | any_text

# --- Terminal -----------------------------------------------------------------------------------------------------

NAMED_DANGERS = {
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
    *map(chr, range(0x200B, 0x2010)),
    *map(chr, range(0xD800, 0xE000)),
    *map(chr, range(0xE0000, 0xE0080)),
    *"\u061c\u2060\ufeff\u2028\u2029",
}


@functools.cache
def dangerous_characters() -> frozenset[str]:
    unsafe = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return frozenset(c for c in map(chr, range(0x110000)) if unicodedata.category(c) in unsafe) | NAMED_DANGERS


def unsafe_lines(function: Callable[[str], str]) -> list[str]:
    """The strings of the corpus after which something invisible or line-breaking is left."""
    dangers = dangerous_characters()
    return [text for text in corpus() if not dangers.isdisjoint(shown := function(text)) or len(shown.splitlines()) > 1]


def test_ten_thousand_hostile_strings_each_become_one_harmless_line() -> None:
    assert len(corpus()) == 10_000
    assert unsafe_lines(terminal) == []


@pytest.mark.parametrize(
    "mutant",
    [
        lambda text: text,
        lambda text: text.replace("\x1b", r"\x1b"),
        lambda text: "".join(c for c in text if ord(c) >= 32 and ord(c) != 127),  # forgets C1 and Unicode
        lambda text: "".join(c if c.isprintable() or c in "\u2028\u2029" else "?" for c in text),
        lambda text: terminal(text, multiline=True),
        lambda text: text.encode("utf-8", "backslashreplace").decode(),
    ],
)
def test_the_check_above_rejects_wrong_cleaners(mutant: Callable[[str], str]) -> None:
    assert unsafe_lines(mutant)


@quick
@given(hostile, st.booleans())
def test_terminal_is_idempotent_and_drops_nothing(text: str, multiline: bool) -> None:
    shown = terminal(text, multiline=multiline)
    assert terminal(shown, multiline=multiline) == shown
    assert len(shown) >= len(text)
    dangers = dangerous_characters() - (set("\n\t") if multiline else set())
    assert dangers.isdisjoint(shown)


def test_every_character_of_unicode_is_shown_or_escaped() -> None:
    everything = "".join(map(chr, range(0x110000)))
    left = set(terminal(everything))
    assert left.isdisjoint(dangerous_characters())
    # Beyond the categories, noncharacters and the invisible: variation selectors, fillers, the joiner, format blocks.
    escaped_besides = set(everything) - left - dangerous_characters()
    blocks = [(0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x3164, 0x3164)]
    blocks += [(0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)]
    blocks += [(0xFDD0, 0xFDEF), *((plane * 0x10000 + 0xFFFE, plane * 0x10000 + 0xFFFF) for plane in range(17))]
    expected = {chr(code) for first, last in blocks for code in range(first, last + 1)} - dangerous_characters()
    # A newer Unicode than the table's may have moved one of them into Cf; then it is already in the set above.
    assert escaped_besides <= expected | {chr(c) for c in range(0x13430, 0x13440)}
    assert expected <= escaped_besides


@pytest.mark.parametrize(
    ("text", "line", "block"),
    [
        ("plain", "plain", "plain"),
        ("Grüße 你好 😀", "Grüße 你好 😀", "Grüße 你好 😀"),
        ("\x1b[31mred", r"\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J", r"\x9b2J"),
        ("a\nb\tc", r"a\nb\tc", "a\nb\tc"),
        ("over\rwritten", r"over\rwritten", r"over\rwritten"),
        ("abc\u202edef", r"abc\u202edef", r"abc\u202edef"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("tag\U000e0041", r"tag\U000e0041", r"tag\U000e0041"),
        ("filler\u3164", r"filler\u3164", r"filler\u3164"),
        ("smuggled\ufe0f\U000e0100", r"smuggled\ufe0f\U000e0100", r"smuggled\ufe0f\U000e0100"),
        ("two\u2028lines\x85", r"two\u2028lines\x85", r"two\u2028lines\x85"),
        ("\ud800", r"\ud800", r"\ud800"),
        ("nul\x00 del\x7f", r"nul\x00 del\x7f", r"nul\x00 del\x7f"),
        (r"typed \x1b", r"typed \x1b", r"typed \x1b"),
    ],
)
def test_what_terminal_shows(text: str, line: str, block: str) -> None:
    assert terminal(text) == line
    assert terminal(text, multiline=True) == block


def test_terminal_is_linear_on_the_worst_text() -> None:
    def seconds(length: int) -> float:
        started = time.process_time()
        terminal("\x1b\u202e" * length)
        return time.process_time() - started

    assert seconds(100_000) < 40 * max(seconds(10_000), 0.002)


# --- CSV ----------------------------------------------------------------------------------------------------------

STARTERS = "=+-@\t\r＝＋－＠"
TRIMMED = ' \xa0\u3000"\ufeff\u200b\u200c\u200d\u2060\x0b\x0c\x1b'


def formula_cells(function: Callable[[str], str]) -> list[str]:
    """The cells of the corpus that, written and parsed again, start like a formula, as they are or trimmed."""
    sheet = io.StringIO(newline="")
    csv.writer(sheet).writerows([[i, function(text)] for i, text in enumerate(corpus())])
    parsed = [cell for _, cell in csv.reader(io.StringIO(sheet.getvalue(), newline=""))]
    assert len(parsed) == len(corpus())
    return [
        cell
        for cell in parsed
        if cell.startswith(tuple(STARTERS)) or cell.lstrip(TRIMMED).startswith(tuple(STARTERS)) or "\0" in cell
    ]


def test_ten_thousand_hostile_cells_hold_no_formula_after_parsing() -> None:
    assert formula_cells(csv_cell) == []


@pytest.mark.parametrize(
    "mutant",
    [
        lambda text: text.replace("\0", ""),
        lambda text: f"'{text}" if text[:1] in "=+-@\t\r" else text,  # forgets the twins, trimming and NUL
        lambda text: f"'{text}" if text.strip()[:1] in tuple(STARTERS) else text.replace("\0", ""),
        lambda text: f"'{text}" if text.lstrip(' "')[:1] in tuple(STARTERS) else text.replace("\0", ""),
        lambda text: csv_cell(text)[1:] if csv_cell(text).startswith("'") else csv_cell(text),
    ],
)
def test_the_check_above_rejects_wrong_escapes(mutant: Callable[[str], str]) -> None:
    assert formula_cells(mutant)


@quick
@given(hostile)
def test_a_cell_is_escaped_once_and_can_be_written(text: str) -> None:
    cell = csv_cell(text)
    assert csv_cell(cell) == cell
    assert "\0" not in cell.encode().decode()
    writable = text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()
    assert cell in {writable, f"'{writable}"}


@pytest.mark.parametrize("text", ["", "plain", "1", "a=b", "x - y", "line\n- item", "'quoted'", "５", "5 @ home", '"'])
def test_an_ordinary_cell_is_left_alone(text: str) -> None:
    assert csv_cell(text) == text


@pytest.mark.parametrize("space", ["", " ", "\u3000", "\ufeff", '"', "“", "\u200b", " \xa0\u2060", "\x1f", "\u2800"])
@pytest.mark.parametrize("starter", [*STARTERS, "\n", "\u2212"])
def test_every_starter_is_defused_behind_everything_that_may_be_trimmed(space: str, starter: str) -> None:
    assert csv_cell(f"{space}{starter}1") == f"'{space}{starter}1"


def test_every_compatibility_twin_of_a_starter_is_a_starter() -> None:
    twins = [c for c in map(chr, range(0x110000)) if unicodedata.normalize("NFKC", c)[:1] in tuple("=+-@")]
    assert {"＝", "﹣", "⁺"} < set(twins)
    assert [c for c in twins if csv_cell(c) != f"'{c}"] == []


# --- File names and hashes ----------------------------------------------------------------------------------------

NASTY_NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "\\\\server\\share",
    "CON",
    "con.txt",
    "NUL",
    "COM1",
    "LPT9.",
    "a" * 5000,
    "A",
    "a",
    "ﷺ" * 300,
    "a\0b",
    "-rf",
    "~",
    "x.",
    "x ",
    "K",
    "\u212a",
    "ß",
    "ss",
    "\u202etxt.exe",
    "\ud800",
    "é",
    "e\u0301",
]


def test_names_never_collide_and_are_safe_everywhere() -> None:
    texts = {*NASTY_NAMES, *corpus()}
    names = [file_name(text) for text in texts]
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in names}) == len(texts)
    for name in names:
        slug, _, digest = name.rpartition("-")
        assert slug
        assert len(name) <= 80
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
        assert not name.startswith("-")
        assert len(digest) == 12


def test_a_name_can_be_read() -> None:
    assert file_name("Qwen/Qwen3.5-4B") == f"qwen-qwen3-5-4b-{short_hash('Qwen/Qwen3.5-4B')}"
    assert file_name("Crème brûlée!").startswith("creme-brulee-")
    assert file_name("你好").startswith("unnamed-")


def test_short_hash_is_the_published_sha256() -> None:
    assert short_hash("") == "e3b0c44298fc"  # FIPS 180: the empty message
    assert short_hash("abc") == "ba7816bf8f01"  # FIPS 180, appendix B.1
    assert short_hash("\ud83d\ude00") != short_hash("😀")  # two lone surrogates are not the character


# --- Storage ------------------------------------------------------------------------------------------------------

MARK = "\U0010f8d8"
TRICKY = [MARK, f"{MARK}d800", f"{MARK}{MARK}d800", f"\ud800{MARK}", f"{MARK}\udfff", "\ud83d\ude00", "d800", "\0"]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*TRICKY, "d", "8", "x"]), max_size=8).map("".join) | any_text)
def test_every_string_survives_storage(text: str) -> None:
    stored = storable(text)
    stored.encode()  # raises where UTF-8 cannot hold it
    assert restore(stored) == text


def test_the_corpus_survives_sqlite_and_json_lines() -> None:
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE TABLE t (text TEXT NOT NULL)")
        database.executemany("INSERT INTO t VALUES (?)", [(storable(text),) for text in [*corpus(), *TRICKY]])
        rows = database.execute("SELECT text, typeof(text) FROM t ORDER BY rowid").fetchall()
    finally:
        database.close()
    assert {kind for _, kind in rows} == {"text"}
    assert [restore(text) for text, _ in rows] == [*corpus(), *TRICKY]
    lines = [msgspec.json.encode(text) for text, _ in rows]
    assert [restore(msgspec.json.decode(line, type=str)) for line in lines] == [*corpus(), *TRICKY]


def test_storable_never_maps_two_texts_to_one() -> None:
    texts = {*corpus(), *TRICKY}
    assert len({storable(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("text", ["", "plain", "Grüße 你好 😀", "nul\0", "\u202e", "\ue000", "\U0010ffff"])
def test_ordinary_text_is_stored_as_it_is(text: str) -> None:
    assert storable(text) is text
    assert restore(text) is text


def test_restore_takes_text_that_it_did_not_write() -> None:
    assert restore(f"{MARK}zzzz{MARK}d7ff{MARK}") == f"{MARK}zzzz{MARK}d7ff{MARK}"


# --- Secrets ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_secrets() -> Iterator[None]:
    forget_secrets()
    yield
    forget_secrets()


KEY = "sk-Zq9!/+ é\"'&<>%\\~"


def test_a_secret_does_not_show() -> None:
    secret = Secret(KEY)
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r:>40}", "%s %r" % (secret, secret), f"{[secret]}"]  # noqa: UP031
    texts.append(json.dumps({"key": secret}, default=str))
    assert all(KEY not in text and "***" in text for text in texts)
    assert f"{secret:>40}" == "***"
    assert secret.reveal() == KEY


def test_a_secret_does_not_show_in_a_traceback_with_locals() -> None:
    def fail(secret: Secret) -> None:
        raise RuntimeError(f"illegal header value {secret!r}")

    with pytest.raises(RuntimeError) as caught:
        fail(Secret(KEY))
    shown = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    assert "***" in shown
    assert "Zq9" not in shown


@pytest.mark.parametrize(
    "encode",
    [json.dumps, msgspec.json.encode, *(functools.partial(pickle.dumps, protocol=p) for p in range(6))],
)
def test_a_secret_is_not_serialised(encode: Callable[[object], object]) -> None:
    with pytest.raises(TypeError) as caught:
        encode([Secret(KEY)])
    assert KEY not in str(caught.value)


def test_pickle_is_told_why_a_secret_does_not_go() -> None:
    with pytest.raises(TypeError, match=r"^a Secret is not serialised$"):
        pickle.dumps(Secret(KEY))


# --- One escaper a medium -------------------------------------------------------------------------------------------

SHOWN_AS = (
    # A text; in Markdown; in HTML, XML and SVG.
    ("plain words_of 3.5%", "plain words_of 3.5%", "plain words_of 3.5%"),
    ("<b> & \"'", "&#60;b&#62; &#38; \"'", "&lt;b&gt; &amp; &quot;&#x27;"),
    ("a|b `c` *d* _e_", "a&#124;b &#96;c&#96; &#42;d&#42; &#95;e&#95;", "a|b `c` *d* _e_"),
    ("[x](y) ![z] #1 @me $m$", "&#91;x&#93;(y) &#33;&#91;z&#93; &#35;1 &#64;me &#36;m&#36;", "[x](y) ![z] #1 @me $m$"),
    ("[0.1, 0.25]", "[0.1, 0.25]", "[0.1, 0.25]"),
    ("[0.1, 0.25](y)", "&#91;0.1, 0.25&#93;(y)", "[0.1, 0.25](y)"),
    ("http://a www.b :tada:", "http&#58;//a www&#46;b &#58;tada:", "http://a www.b :tada:"),
    ("- item", "&#45; item", "- item"),
    ("12. item", "12&#46; item", "12. item"),
    (" kept ", "&#32;kept&#32;", " kept "),
)


@pytest.mark.parametrize(("text", "markdown", "markup"), SHOWN_AS)
def test_a_text_is_the_same_words_in_every_medium_and_acts_in_none(text: str, markdown: str, markup: str) -> None:
    assert in_markdown(text) == markdown
    assert in_markup(text) == markup
    assert html.unescape(markdown) == html.unescape(markup) == text
    assert shown(text) == text


def test_what_can_not_be_seen_is_seen_and_lines_stay_only_where_they_may() -> None:
    hidden = "a\u202eb\nc"
    assert html.unescape(in_markdown(hidden)) == in_markup(hidden) == shown(hidden) == terminal(hidden)
    assert "\n" not in shown(hidden)
    assert in_markup(hidden, multiline=True) == shown(hidden, multiline=True) == terminal(hidden, multiline=True)
    assert in_markup(hidden, multiline=True).count("\n") == 1


def test_keys_are_masked_in_every_medium_and_at_every_depth() -> None:
    Secret(KEY)
    for escaped in (shown, in_markdown, in_markup, in_csv):
        assert KEY not in escaped(f"it is {KEY}.")
        assert "***" in html.unescape(escaped(f"it is {KEY}."))
    value = {"a": [KEY, 1, None, True, 2.5, ("b", {KEY: KEY})], "plain": "\udc80\u202e"}
    assert in_json(value) == {
        "a": ["***", 1, None, True, 2.5, ["b", {"***": "***"}]],
        "plain": storable("\udc80\u202e"),
    }
    assert in_json({1: "one"}) == {"1": "one"}


def test_secrets_are_equal_by_value_and_do_not_change() -> None:
    secret = Secret("value-1")
    assert secret == Secret("value-1")
    assert hash(secret) == hash(Secret("value-1"))
    assert secret != Secret("value-2")
    assert secret != "value-1"
    assert Secret("\udc80é") == Secret("\udc80é")
    assert copy.deepcopy({"key": secret})["key"] is secret
    assert copy.copy(secret) is secret
    assert not Secret("")
    assert secret
    with pytest.raises(AttributeError):
        secret.key = "other"
    with pytest.raises(AttributeError):
        del secret._value


def test_a_secret_holds_text_only_and_does_not_quote_what_it_was_given() -> None:
    with pytest.raises(TypeError, match="not bytes") as caught:
        Secret(KEY.encode())  # type: ignore[arg-type]
    assert "Zq9" not in str(caught.value)


WRITTEN: dict[str, Callable[[str], str]] = {
    "raw": str,
    "json": lambda key: json.dumps(key)[1:-1],
    "json, not ascii": lambda key: json.dumps(key, ensure_ascii=False)[1:-1],
    "repr": lambda key: repr(key)[1:-1],
    "ascii": lambda key: ascii(key)[1:-1],
    "bytes": lambda key: repr(key.encode())[2:-1],
    "percent": lambda key: quote(key, safe=""),
    "percent, path": quote,
    "percent, form": quote_plus,
    "percent, lower case": lambda key: re.sub("%..", lambda m: m[0].lower(), quote(key, safe="")),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64, bare": lambda key: base64.b64encode(key.encode()).decode().rstrip("="),
    "base64, url": lambda key: base64.urlsafe_b64encode(key.encode()).decode(),
    "base64, basic": lambda key: base64.b64encode(f":{key}".encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "hex, upper case": lambda key: key.encode().hex().upper(),
    "html": html.escape,
    "jinja": lambda key: str(jinja_escape(key)),
    "terminal": terminal,
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("padding", ["", "\n", " \t\r\n", "\ufeff", "\x00\u200b"])
def test_no_written_form_of_a_key_gets_through(written: str, padding: str) -> None:
    write = WRITTEN[written]
    given_value = f"{padding}{KEY}{padding}"
    Secret(given_value)
    assert redact(f"before {write(KEY)} after") == "before *** after"
    # As given, the padding may stay (it is no secret), but nothing of the key.
    around = redact(f"before {write(given_value)} after").removeprefix("before ").removesuffix(" after")
    assert around.replace(write(padding), "", 2) == "***"


def test_a_key_cleaned_for_the_terminal_first_is_redacted() -> None:
    Secret("sk-\u200b\x07'\\\"key")
    assert redact(terminal("sk-\u200b\x07'\\\"key")) == "***"


def test_a_latin_1_header_is_redacted() -> None:
    Secret("clé-secrète\n")
    header = repr("Bearer clé-secrète\n".encode("latin-1"))  # how http clients quote an illegal header
    assert redact(header) == r"b'Bearer ***'"


def test_replacing_the_raw_key_alone_would_let_forms_through() -> None:
    """The check above is not vacuous: replacing only the raw key leaves most written forms as they are."""
    through = [name for name, write in WRITTEN.items() if write(KEY).replace(KEY, "***") == write(KEY)]
    assert len(through) >= 14


def test_a_key_that_the_environment_could_not_decode_is_redacted() -> None:
    raw = b"sk-\xff\xfe-raw"
    key = raw.decode("utf-8", "surrogateescape")
    Secret(key)
    for text in (key, repr(raw), base64.b64encode(raw).decode(), quote(raw), terminal(key)):
        assert redact(f"<{text}>") in {"<***>", "<b'***'>"}


def test_the_longest_form_goes_first() -> None:
    Secret("abcdefgh")
    Secret("abcdefghijkl")
    assert redact("abcdefghijkl abcdefgh") == "*** ***"


@pytest.mark.parametrize("value", ["", "abc", "abcdefg", "    ", " abc\n", "\n\n\n\n\n", "EMPTY", "none", "ollama"])
def test_a_short_value_is_not_registered(value: str) -> None:
    Secret(value)
    text = f"abc {value} ordinary\n\n\n\n\n    words"
    assert redact(text) == text


def test_eight_characters_are_enough() -> None:
    Secret(" abcdefgh\n")
    assert redact("xabcdefghx") == "x***x"


@pytest.mark.parametrize("value", ["lm-studio", "LM-Studio", " not-needed\n", "placeholder", "Anything"])
def test_what_local_servers_take_for_a_key_is_not_registered(value: str) -> None:
    """People set these because a client insists on a key. A stored answer may hold them as ordinary words."""
    Secret(value)
    text = f"Do {value.strip()} that is not needed, or anything else: a placeholder in lm-studio."
    assert redact(text) == text
    assert repr(Secret(value)) == "***"


def test_without_secrets_text_comes_back_as_it_is() -> None:
    text = "nothing to hide"
    assert redact(text) is text
    Secret("something")
    assert redact("something") == "***"
    forget_secrets()
    assert redact("something") == "something"


@quick
@given(st.lists(st.builds("{}key!word{}".format, any_text, any_text), min_size=1, max_size=4), any_text, any_text)
def test_redact_never_fails_and_leaves_no_registered_value(values: list[str], before: str, after: str) -> None:
    forget_secrets()
    for value in values:
        Secret(value)
    shown = redact(after.join([before, *values, before]))
    assert not any(value in shown or value.strip() in shown for value in values)
    assert redact(shown) == shown


def test_a_mask_that_completes_another_secret_is_redacted_too() -> None:
    Secret("left***right")
    Secret("abcdefgh")
    assert redact("leftabcdefghright") == "***"


def test_redact_is_quick_on_a_long_text() -> None:
    Secret(KEY)
    started = time.process_time()
    redact("an ordinary answer, " * 50_000)
    assert time.process_time() - started < 2.0


def test_safetext_imports_the_standard_library_only() -> None:
    import ast
    from pathlib import Path

    import redinstruct.safetext as module

    names: set[str] = set()
    for path in Path(module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {node.module or ""} if isinstance(node, ast.ImportFrom) else set()
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"redinstruct"}
