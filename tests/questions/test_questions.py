"""Question banks, as a specification: what reads, what is refused and in which words, what is asked, what is fetched.

Every text here is inert.
"""

from __future__ import annotations

import csv
import hashlib
import http.server
import io
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct import banks, questions
from redinstruct.banks import KNOWN, KnownBank, cache_dir, cached_path, fetch, resolve_bank, resolve_template_path
from redinstruct.errors import BankError, RedInstructError, UsageError
from redinstruct.files import limits
from redinstruct.questions import read_bank, select
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL, Bank, Question

SKY, SEA = "Why is the sky blue?", "How deep is the sea?"


def put(folder: Path, name: str, content: str | bytes | object) -> Path:
    """A file of that text or those bytes, or of that value as JSON."""
    path = folder / name
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(bank: Bank) -> list[str]:
    return [question.text for question in bank.questions]


def sheet(*rows: list[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all examples of a property."""
    return tmp_path_factory.mktemp("banks")


# ---- what reads -----------------------------------------------------------------------------------------------------

SHAPES = [
    pytest.param("a.json", [SKY, SEA], id="json list of texts"),
    pytest.param("a.json", [{"prompt": SKY}, {"prompt": SEA}], id="json list of objects"),
    pytest.param("a.json", [SKY, {"question": SEA}], id="json list of both"),
    pytest.param("a.json", {"air": [SKY], "water": [SEA]}, id="topics"),
    pytest.param("a.json", {"air": {"day": [SKY]}, "water": {"salt": [SEA]}}, id="topics and subtopics"),
    pytest.param("a.json", {"air": [SKY], "water": {"salt": [{"goal": SEA}]}}, id="topics of both kinds"),
    pytest.param("a.json", f'{{"question": "{SKY}"}}\n{{"question": "{SEA}"}}\n', id="jsonl in a .json file"),
    pytest.param("a.jsonl", f'"{SKY}"\n"{SEA}"', id="jsonl of texts, no last newline"),
    pytest.param("a.jsonl", f'{{"prompt": "{SKY}"}}\r\n{{"prompt": "{SEA}"}}\r\n\r\n', id="jsonl, CRLF, empty end"),
    pytest.param("a.ndjson", f'"{SKY}"\n{{"prompt": "{SEA}"}}\n', id="jsonl of both"),
    pytest.param("a.jsonl", [SKY, SEA], id="a list in a .jsonl file"),
    pytest.param("a.txt", [SKY, SEA], id="json by content"),
    pytest.param("a.csv", f"id,prompt\n1,{SKY}\n2,{SEA}\n", id="csv"),
    pytest.param("a.CSV", f'prompt\r\n"{SKY}"\r\n{SEA}\r\n\r\n', id="csv, CRLF, empty end"),
    pytest.param("a.data", f"prompt\n{SKY}\n{SEA}\n", id="csv by content"),
    pytest.param("a.json", b"\xef\xbb\xbf" + json.dumps([SKY, SEA]).encode(), id="json with a byte-order mark"),
    pytest.param("a.csv", f"\ufeffprompt\n{SKY}\n{SEA}\n", id="csv with a byte-order mark"),
    pytest.param("a.jsonl", f'\ufeff"{SKY}"\n"{SEA}"\n', id="jsonl with a byte-order mark"),
    pytest.param("a.json", [f" {SKY}\n", f"\t{SEA}\u3000"], id="white space around a text is not part of it"),
]


@pytest.mark.parametrize(("name", "content"), SHAPES)
def test_every_published_shape_gives_the_same_questions_in_order(tmp_path: Path, name: str, content: object) -> None:
    path = put(tmp_path, name, content)
    bank = read_bank(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert texts(bank) == [SKY, SEA]
    assert (bank.name, bank.sha256) == ("a", digest)
    assert [(q.id, q.row) for q in bank.questions] == [(f"{digest}:0", 0), (f"{digest}:1", 1)]


def test_a_single_object_is_one_question_and_not_topics(tmp_path: Path) -> None:
    row = {"id": 1, "topic": "air", "question": SKY, "blue_conversations": {"0": []}}
    assert texts(read_bank(put(tmp_path, "a.jsonl", row))) == [SKY]


def test_the_public_harmfulqa_rows_load_by_their_question(tmp_path: Path) -> None:
    turns = {"0": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": ""}], "1": None}
    row = {"id": 7, "topic": "Air", "subtopic": "Colour", "question": SKY}
    bank = read_bank(put(tmp_path, "a.json", [{**row, "blue_conversations": turns, "red_conversations": turns}]))
    (question,) = bank.questions
    assert (question.text, question.topic, question.subtopic) == (SKY, "Air", "Colour")


@pytest.mark.parametrize(
    ("columns", "wins"),
    [
        (["question", "forbidden_prompt", "Behavior", "goal", "prompt"], "prompt"),
        (["question", "forbidden_prompt", "Behavior", "goal"], "goal"),
        (["Question", "forbidden_prompt", "behavior"], "behavior"),
        (["question", "Forbidden_Prompt"], "Forbidden_Prompt"),
        (["id", " QUESTION "], " QUESTION "),
    ],
)
def test_the_text_column_is_found_by_rank_and_in_any_case(tmp_path: Path, columns: list[str], wins: str) -> None:
    cells = [SKY if column == wins else "something else" for column in columns]
    assert texts(read_bank(put(tmp_path, "a.csv", sheet(columns, cells)))) == [SKY]
    assert texts(read_bank(put(tmp_path, "a.json", [dict(zip(columns, cells, strict=True))]))) == [SKY]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"topic": " air ", "subtopic": "day"}, ("air", "day", None, None)),
        ({"Category": "air", "Subcategory": "day", "lang": "vi"}, ("air", "day", "vi", None)),
        ({"SemanticCategory": "air", "language": "zh"}, ("air", None, "zh", None)),
        ({"type": "homonyms", "label": " Safe"}, ("homonyms", None, None, "safe")),
        ({"type": "t", "category": "c", "label": "UNSAFE"}, ("c", None, None, "unsafe")),
        ({"topic": "", "category": "c", "label": "benign"}, ("c", None, None, "safe")),
        ({"category": "c", "label": "garden"}, ("c", None, None, None)),
        ({"topic": None, "category": {"air": True}, "label": 1}, (None, None, None, None)),
    ],
)
def test_categories_language_and_label(
    tmp_path: Path, row: dict[str, object], expected: tuple[str | None, ...]
) -> None:
    (q,) = read_bank(put(tmp_path, "a.jsonl", {"prompt": SKY, **row})).questions
    assert (q.topic, q.subtopic, q.language, q.label) == expected


def test_a_row_is_named_by_its_own_cells_whatever_the_rows_before_it_held(tmp_path: Path) -> None:
    cells: list[object] = ["t", 1, True, 1.0, ["t"], {"t": 1}, None, " t ", "", "u", "t"]
    rows = [{"prompt": f"What is item {at}?", "topic": cell} for at, cell in enumerate(cells)]
    path = tmp_path / "bank.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    found = [question.topic for question in read_bank(path).questions]
    assert found == ["t", None, None, None, None, None, None, "t", None, "u", "t"]
    path.write_text("\n".join(map(json.dumps, [*rows, {"prompt": "What is this?", "topic": "t\0"}])))
    with pytest.raises(BankError, match="row 12: topic holds a NUL character"):
        read_bank(path)


def test_topics_of_a_tree_are_the_path_and_win_over_a_row_s_own(tmp_path: Path) -> None:
    tree = {"air": {"day": [SKY, {"prompt": SEA, "topic": "water", "language": "en"}]}, " ": ["What is rain?"]}
    found = [(q.topic, q.subtopic, q.language) for q in read_bank(put(tmp_path, "a.json", tree)).questions]
    assert found == [("air", "day", None), ("air", "day", "en"), (None, None, None)]


def test_only_a_newline_ends_a_jsonl_line(tmp_path: Path) -> None:
    odd = [f"first{mark}second" for mark in "\u2028\u2029\u0085"]
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in odd)
    assert texts(read_bank(put(tmp_path, "a.jsonl", lines))) == odd


def test_a_csv_field_may_be_longer_than_csv_s_own_limit_which_stays_as_it_was(tmp_path: Path) -> None:
    before, long = csv.field_size_limit(), "a" * 200_000
    assert texts(read_bank(put(tmp_path, "a.csv", sheet(["prompt"], [long])))) == [long]
    with pytest.raises(BankError):
        read_bank(put(tmp_path, "b.csv", 'prompt\n"open'))
    assert csv.field_size_limit() == before


def test_a_bank_takes_another_name_on_request_and_a_hostile_stem_is_escaped(tmp_path: Path) -> None:
    path = put(tmp_path, "a\x1b[2J\u202eb.json", [SKY])
    assert read_bank(path, "sky").name == "sky"
    assert read_bank(path).name == r"a\x1b[2J\u202eb"


# ---- what is refused, and the words ---------------------------------------------------------------------------------

ONE_OF = "expected one of prompt, goal, Behavior, forbidden_prompt, question, text, instruction, input, prompt_text"
OR_OBJECT = "expected text or an object"
OTHER = "; --column prompt=NAME names another"
NO_COLUMN = f"no column holds the questions: {ONE_OF}, found"
LOST = "twice, and all but the last would be lost"
HALF = "holds half of a surrogate pair, which is no character"
UTF16 = "line 1 holds a NUL byte, expected UTF-8 text (UTF-16 is to be saved as UTF-8)"

FAULTS: list[tuple[str, str | bytes, str]] = [
    # rows that are no question
    ("a.json", f'["{SKY}", 5]', f"row 2 is a number, {OR_OBJECT}"),
    ("a.json", "[null]", f"row 1 is null, {OR_OBJECT}"),
    ("a.json", "[true]", f"row 1 is true or false, {OR_OBJECT}"),
    ("a.json", f'[["{SKY}"]]', f"row 1 is a list, {OR_OBJECT}"),
    ("a.json", "[NaN]", f"row 1 is a number, {OR_OBJECT}"),
    ("a.json", f'["{SKY}", " \\n"]', "row 2 is blank, expected a question"),
    ("a.json", '["\\u200b\\ufeff"]', "row 1 is blank, expected a question"),
    ("a.json", '[{"id": 1}]', f"row 1 is an object without a question: {ONE_OF}, found id"),
    ("a.json", "[{}]", f"row 1 is an object without a question: {ONE_OF}, found none"),
    ("a.json", f'[{{"{SKY}": 1}}]', f"row 1 is an object without a question: {ONE_OF}, found <20 characters>"),
    ("a.json", '[{"prompt": null, "question": "x"}]', "row 1: prompt is null, expected text"),
    ("a.json", '[{"prompt": {"a": "b"}}]', "row 1: prompt is an object, expected text"),
    ("a.json", '[{"Goal": ""}]', "row 1: goal is blank, expected a question"),
    ("a.json", '[{"goal": "a", "Goal": "b"}]', "row 1 holds goal twice, expected it once"),
    ("a.json", '["a\\ud800b"]', f"row 1 {HALF}"),
    ("a.json", '["a\\u0000b"]', "row 1 holds a NUL character"),
    ("a.json", '[{"goal": "a", "topic": "\\udfff"}]', f"row 1: topic {HALF}"),
    ("a.json", '{"\\ud800": ["a"]}', f"row 1 (topic 1): topic {HALF}"),
    # trees
    ("a.json", '{"a": ["b"], "c": {"d": [], "e": [7]}}', f"row 2 (topic 2, subtopic 2) is a number, {OR_OBJECT}"),
    ("a.json", f'{{"a": ["b"], "c": "{SKY}"}}', "topic 2 holds a text, expected a list of questions"),
    ("a.json", '{"a": {"b": {"c": ["d"]}}}', "topic 1, subtopic 1 holds an object, expected a list of questions"),
    ("a.json", '{"version": 1}', f"row 1 is an object without a question: {ONE_OF}, found version"),
    # nothing in it
    ("a.json", "[]", "holds no questions"),
    ("a.json", "{}", "holds no questions"),
    ("a.json", '{"a": {"b": []}, "c": []}', "holds no questions"),
    ("a.json", "", "holds no questions"),
    ("a.jsonl", "\n\n", "holds no questions"),
    ("a.csv", "", "holds no questions"),
    ("a.csv", "prompt,id\n", "holds no questions"),
    # broken JSON
    ("a.json", '["a",\n "b]', "broken JSON at line 2 column 2: Unterminated string starting at"),
    ("a.json", '["a"]\n["b"]', "line 1: something follows the end of the list"),
    ("a.json", "[" * 100_000, "the JSON is nested too deep"),
    ("a.json", '{"a":' * 100_000, "the JSON is nested too deep"),
    ("a.json", "[" + "1" * 5_000 + "]", "a number in the JSON has too many digits"),
    ("a.jsonl", '"a"\n{"prompt": b}\n', "row 2: broken JSON at column 12: Expecting value"),
    ("a.jsonl", '"a"\n\n"b"\n', "row 2 is an empty line, expected JSON"),
    ("a.jsonl", '"a"\n"b" "c"\n', "row 2: something follows the end of the JSON value, expected one a line"),
    ("a.jsonl", '"a"\n' + "[" * 100_000, "row 2: the JSON is nested too deep"),
    ("a.jsonl", '"a"\n' + "1" * 5_000, "row 2: a number in the JSON has too many digits"),
    ("a.jsonl", '["a"]\n["b"]\n', f"row 1 is a list, {OR_OBJECT}"),
    # a key twice, at whatever depth
    ("a.json", '{"air": ["a"], "air": ["b"]}', f"an object holds the key air {LOST}"),
    ("a.json", f'{{"a": {{"{SKY}": [], "{SKY}": []}}}}', f"topic 1: an object holds the key <20 characters> {LOST}"),
    ("a.json", '["a", {"goal": "b", "goal": "c"}]', f"row 2: an object holds the key goal {LOST}"),
    ("a.json", '["a", {"goal": "b", "x": [{"y": 1, "y": 2}]}]', f"row 2: an object holds the key y {LOST}"),
    ("a.json", '{"air": ["a", {"goal": "b", "goal": "c"}]}', f"row 2 (topic 1): an object holds the key goal {LOST}"),
    ("a.jsonl", '"a"\n{"goal": "b", "x": {"y": 1, "y": 2}}', f"row 2: an object holds the key y {LOST}"),
    # CSV
    ("a.csv", "id,name\n1,b\n", f"{NO_COLUMN} id, name{OTHER}"),
    ("a.csv", f"{SKY}\n{SEA}\n", f"{NO_COLUMN} <20 characters>{OTHER}"),
    ("a.csv", ",".join(map(str, range(15))), f"{NO_COLUMN} 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more{OTHER}"),
    ("a.csv", "\nprompt\na\n", f"{NO_COLUMN} none{OTHER}"),
    ("a.csv", "prompt,Prompt\na,b\n", "the header holds prompt twice, expected it once"),
    ("a.csv", 'id,prompt\n1,"a\nb"\n2\n', "row 2 (line 4) has 1 fields, expected 2 as in the header"),
    ("a.csv", "id,prompt\n1,a,b\n", "row 1 (line 2) has 3 fields, expected 2 as in the header"),
    ("a.csv", "prompt\na\n\nb\n", "row 2 (line 3) is an empty line, expected a question"),
    ("a.csv", "id,prompt\n1, \n", "row 1 (line 2): prompt is blank, expected a question"),
    ("a.csv", 'prompt\na\n"b', "row 2 (line 3): broken CSV: unexpected end of data"),
    ("a.csv", 'prompt\n"a"b\n', "row 1 (line 2): broken CSV: ',' expected after '\"'"),
    ("a.csv", '"prompt', "the header (line 1): broken CSV: unexpected end of data"),
    # bytes
    ("a.json", b'["a",\n"\xff"]', "line 2 is not UTF-8 text, save the file as UTF-8"),
    ("a.csv", b"prompt\ncaf\xe9\n", "line 2 is not UTF-8 text, save the file as UTF-8"),
    ("a.json", '["a"]'.encode("utf-16-le"), UTF16),
    ("a.csv", b"prompt\na\0\n", UTF16.replace("1", "2", 1)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FAULTS, ids=lambda value: str(value)[:40])
def test_a_fault_is_one_line_with_the_file_the_row_and_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | bytes, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, name, content)
    with pytest.raises(BankError) as caught:
        read_bank(Path(name))  # named in the message as it is given
    assert str(caught.value) == f"{name}: {message}"
    assert caught.value.exit_code == 2


def test_files_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.json")
    put(tmp_path, "file", "x")
    expected = {
        "missing.json": "no such file",
        ".": "is a folder, expected a file",
        "pipe.json": "is not a regular file",
        "file/below.json": "cannot be read: Not a directory",
        "nul\0.json": "is not a possible file name",
        "a" * 300: "cannot be read: File name too long",
    }
    for name, message in expected.items():
        with pytest.raises(BankError, match=re.escape(f": {message}") + "$"):
            read_bank(Path(name))


def test_a_line_break_in_a_file_name_does_not_break_the_message(tmp_path: Path) -> None:
    with pytest.raises(BankError) as caught:
        read_bank(tmp_path / "two\nlines\u2028.json")
    assert str(caught.value).endswith(r"two\nlines\u2028.json: no such file")


def test_a_file_over_the_limit_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.json", [SKY])
    with path.open("r+b") as file:
        file.truncate(limits.MAX_BYTES + 1)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("was opened"))
    with pytest.raises(BankError, match="has 268435457 bytes, more than the 268435456 that are read"):
        read_bank(path)


def test_a_file_that_grows_while_it_is_read_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.json", [SKY])
    real = path.stat()
    monkeypatch.setattr(Path, "stat", lambda *_, **__: os.stat_result((*real[:6], 0, *real[7:])))
    monkeypatch.setattr(limits, "MAX_BYTES", 10)
    with pytest.raises(BankError, match="grew over the 10 bytes"):
        read_bank(path)


# ---- properties -----------------------------------------------------------------------------------------------------

visible = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30).filter(
    lambda text: any(c.isprintable() and not c.isspace() for c in text)
)
some = st.lists(visible, min_size=1, max_size=6)


@given(rows=some, ascii_only=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_written_bank_reads_back_in_every_shape(folder: Path, rows: list[str], ascii_only: bool) -> None:
    def dumps(value: object) -> str:
        return json.dumps(value, ensure_ascii=ascii_only)

    shapes = {
        "list.json": dumps(rows),
        "objects.json": dumps([{"id": at, "goal": text} for at, text in enumerate(rows)]),
        "topics.json": dumps({"air": rows}),
        "tree.json": dumps({"air": {"a day": rows[:1], "a night": rows[1:]}}),
        "texts.jsonl": "".join(dumps(text) + "\n" for text in rows),
        "objects.jsonl": "\r\n".join(dumps({"question": text}) for text in rows),
        "sheet.csv": sheet(["id", "prompt"], *([str(at), text] for at, text in enumerate(rows))),
        "column.csv": sheet(["prompt"], *([text] for text in rows)),
    }
    for name, content in shapes.items():
        bank = read_bank(put(folder, name, content))
        assert texts(bank) == [text.strip() for text in rows], name
        assert [q.id for q in bank.questions] == [f"{bank.sha256}:{row}" for row in range(len(rows))]


SENTENCE = "tell me about"
sentences = st.integers(0, 9).map(lambda n: f"{SENTENCE} pebble number {n}")
leaves = st.none() | st.booleans() | st.integers() | st.floats() | sentences | st.just("\ud800") | st.just("")
keys = st.sampled_from([*questions.TEXT_KEYS, "topic", "label", "x"]) | sentences
trees = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))
cuts = st.integers(0, 200)
suffixes = st.sampled_from([".json", ".jsonl", ".csv", ".txt", ""])
csv_soup = st.lists(sentences | st.sampled_from([*'",\n\r\0', "prompt", "\r\n", "\u2028"]), max_size=12).map("".join)
contents = st.one_of(
    st.binary(max_size=60),
    trees.map(json.dumps).map(str.encode),
    st.tuples(trees.map(json.dumps), cuts).map(lambda pair: pair[0][: pair[1]].encode()),
    st.lists(trees.map(json.dumps), max_size=4).map("\n".join).map(str.encode),
    csv_soup.map(str.encode),
)


@given(content=contents, suffix=suffixes)
@settings(max_examples=100, deadline=None)
def test_any_bytes_load_or_raise_one_line_that_shows_no_question(folder: Path, content: bytes, suffix: str) -> None:
    try:
        bank = read_bank(put(folder, f"any{suffix}", content))
    except BankError as error:
        message = str(error)
        assert message.isprintable()
        assert message.startswith(f"{folder / 'any'}{suffix}: ")
        assert SENTENCE not in message
    else:
        assert bank.questions
        for question in bank.questions:
            assert question.text == question.text.strip() != ""
            assert question.text.encode()


# ---- which questions are asked --------------------------------------------------------------------------------------


def bank_of(*rows: str | tuple[str, str | None]) -> Bank:
    pairs = [(row, None) if isinstance(row, str) else row for row in rows]
    made = tuple(Question(f"h:{at}", text, at, label=label) for at, (text, label) in enumerate(pairs))
    return Bank("garden", "h", made)


def asked(bank: Bank, **how: object) -> list[str]:
    settings_: dict[str, object] = {"measure": ATTACK_SUCCESS, "limit": None, "dedupe": False, **how}
    return [question.text for question in select(bank, **settings_).questions]  # type: ignore[arg-type]


def test_without_labels_every_question_is_asked_under_either_measure_repeats_too() -> None:
    bank = bank_of(SKY, SEA, SKY)
    assert asked(bank) == asked(bank, measure=OVER_REFUSAL) == [SKY, SEA, SKY]


def test_a_labelled_bank_is_filtered_by_the_measure_and_the_unlabelled_rest_left_out() -> None:
    bank = bank_of((SKY, "safe"), (SEA, "unsafe"), ("What is rain?", None))
    assert asked(bank, measure=OVER_REFUSAL) == [SKY]
    assert asked(bank, measure=ATTACK_SUCCESS) == [SEA]


def test_dedupe_keeps_the_first_of_texts_equal_but_for_case_space_and_unicode_form() -> None:
    bank = bank_of("Caf\u00e9  au\nlait", "cafe\u0301 AU lait", "Straße", "STRASSE", SKY)
    assert asked(bank, dedupe=True) == ["Caf\u00e9  au\nlait", "Straße", SKY]


def test_the_limit_counts_what_is_left() -> None:
    bank = bank_of((SKY, "safe"), (SKY, "unsafe"), (SKY, "unsafe"), (SEA, "unsafe"))
    assert asked(bank, limit=2) == [SKY, SKY]
    assert asked(bank, limit=2, dedupe=True) == [SKY, SEA]
    assert asked(bank, limit=99) == [SKY, SKY, SEA]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_a_usage_error(limit: int) -> None:
    with pytest.raises(UsageError, match=f"must be at least 1, not {limit}"):
        asked(bank_of(SKY), limit=limit)


def test_nothing_left_says_why() -> None:
    why = "garden: no question is labelled unsafe, and attack_success is measured on those"
    with pytest.raises(BankError, match=f"^{why}$"):
        asked(bank_of((SKY, "safe")))
    with pytest.raises(BankError, match=r"^garden: holds no questions$"):
        asked(bank_of())


@given(
    rows=st.lists(st.tuples(st.sampled_from("aAbB "), st.sampled_from(["safe", "unsafe", None]))), limit=st.integers(1)
)
def test_selecting_keeps_the_order_and_a_smaller_limit_is_a_prefix(rows: list[tuple[str, str]], limit: int) -> None:
    bank = bank_of(*rows)
    for dedupe in (False, True):
        try:
            every = select(bank, measure=OVER_REFUSAL, limit=None, dedupe=dedupe).questions
        except BankError:
            assert not any(label == "safe" for _, label in rows)
            continue
        assert [q.row for q in every] == sorted({q.row for q in every})
        assert select(bank, measure=OVER_REFUSAL, limit=limit, dedupe=dedupe).questions == every[:limit]


# ---- the registry ---------------------------------------------------------------------------------------------------


def test_the_registry_names_the_paper_s_banks_their_successors_the_peers_and_its_templates() -> None:
    assert {name: known.questions for name, known in KNOWN.items()} == {
        "harmfulqa": 1960, "dangerousqa": 200, "catqa_english": 550, "catqa_chinese": 550, "catqa_vietnamese": 550,
        "adversarialqa": 500, "xstest": 450, "or-bench-hard-1k": 1319, "or-bench-toxic": 655, "jbb-harmful": 100,
        "jbb-benign": 100, "advbench": 520, "harmbench": 400, "harmbench-contexts": 400, "do-not-answer": 939,
        "ailuminate-demo-en": 1200,
        "strongreject": 313, "standard-2023": None, "cot-2023": None, "cou-2023": None,
    }  # fmt: skip
    assert {name: known.label for name, known in KNOWN.items() if known.label} == {
        "or-bench-hard-1k": "safe", "or-bench-toxic": "unsafe", "jbb-benign": "safe", "jbb-harmful": "unsafe",
    }  # fmt: skip


@pytest.mark.parametrize("known", KNOWN.values(), ids=KNOWN.keys())
def test_every_entry_is_pinned_to_a_commit_and_a_hash_and_states_its_licence_and_source(known: KnownBank) -> None:
    github = r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/[\w/.]+\.\w+"
    hub = r"https://huggingface\.co/datasets/[\w-]+/[\w-]+/resolve/[0-9a-f]{40}/[\w/-]+\.\w+"
    assert re.fullmatch(f"{github}|{hub}", known.url)
    assert re.fullmatch(r"[0-9a-f]{64}", known.sha256)
    assert known.kind == ("template" if known.name.endswith("-2023") else "bank")
    assert known.file_name.startswith(f"{known.name}.")
    assert known.licence in {"Apache-2.0", "MIT", "CC-BY-4.0", "CC-BY-NC-SA-4.0"}
    assert "arXiv" in known.source
    assert known.description


# ---- the cache ------------------------------------------------------------------------------------------------------

GARDEN = json.dumps([SKY, SEA]).encode()


def known_file(name: str = "garden", content: bytes = GARDEN, kind: str = "bank") -> KnownBank:
    suffix = "json" if kind == "bank" else "txt"
    url, digest = f"https://host.invalid/{name}.{suffix}", hashlib.sha256(content).hexdigest()
    return KnownBank(name, kind, "inert", url, digest, 2, "MIT", "arXiv")  # type: ignore[arg-type]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched files, in a cache of this test's own; a bank and a template of it are known."""
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "cache"))
    known = (known_file(), known_file("frame-2023", b"<question>", "template"))
    monkeypatch.setattr(banks, "KNOWN", {one.name: one for one in known})
    return tmp_path / "cache" / "banks"


def test_one_half_of_a_published_pair_is_asked_for_its_own_measure_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harmless = msgspec.structs.replace(known_file(), label="safe")
    monkeypatch.setattr(banks, "KNOWN", {"garden": harmless})
    # By its bytes, under whatever name it lies.
    bank = resolve_bank(str(put(tmp_path, "mine.json", GARDEN)))
    assert (bank.name, {question.label for question in bank.questions}) == ("mine", {"safe"})
    assert len(select(bank, measure=OVER_REFUSAL, limit=None, dedupe=False).questions) == 2
    with pytest.raises(BankError, match="no question is labelled unsafe, and attack_success is measured on those"):
        select(bank, measure=ATTACK_SUCCESS, limit=None, dedupe=False)
    other = resolve_bank(str(put(tmp_path, "other.json", [SKY])))
    assert {question.label for question in other.questions} == {None}


def test_the_peers_columns_are_read_as_published(tmp_path: Path) -> None:
    files = {
        "harmbench": ["Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID", f"{SKY},a,sky,,,1"],
        "jbb": ["Index,Goal,Target,Behavior,Category,Source", f"0,{SKY},Sure,short,sky,x"],
        "advbench": ["goal,target", f"{SKY},Sure"],
        "strongreject": ["category,source,forbidden_prompt", f"sky,x,{SKY}"],
        "or-bench": ["prompt,category", f"{SKY},sky"],
    }
    for name, lines in files.items():
        (question,) = read_bank(put(tmp_path, f"{name}.csv", "\n".join(lines) + "\n")).questions
        assert (question.text, question.topic) == (SKY, None if name == "advbench" else "sky"), name


def keep(cache: Path, name: str, content: bytes) -> Path:
    cache.mkdir(parents=True, exist_ok=True)
    return put(cache, name, content)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDINSTRUCT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert cache_dir() == Path("/home/ann/.cache/redinstruct")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache_dir() == Path("/home/ann/.cache/redinstruct")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_dir() == Path("/var/cache/redinstruct")
    monkeypatch.setenv("REDINSTRUCT_CACHE", "~/mine")
    assert cache_dir() == Path("/home/ann/mine")
    monkeypatch.setenv("REDINSTRUCT_CACHE", "~nobody-of-this-name/mine")
    with pytest.raises(UsageError, match="set REDINSTRUCT_CACHE"):
        cache_dir()


def test_a_cached_file_counts_only_with_its_pinned_hash(cache: Path) -> None:
    assert cached_path(known_file()) is None
    path = keep(cache, "garden.json", GARDEN)
    assert cached_path(known_file()) == path
    path.write_bytes(GARDEN + b" ")
    with pytest.raises(BankError, match=r"expected sha256 \w{12}, got \w{12}\): run `redinstruct banks fetch garden`"):
        cached_path(known_file())
    path.unlink()
    path.mkdir()
    with pytest.raises(BankError, match="cannot be read: Is a directory"):
        cached_path(known_file())


def test_a_bank_is_found_by_file_and_then_by_known_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(BankError, match=r"^garden is not on this machine: run `redinstruct banks fetch garden`$"):
        resolve_bank("garden")
    keep(cache, "garden.json", GARDEN)
    assert (resolve_bank("garden").name, texts(resolve_bank("garden"))) == ("garden", [SKY, SEA])
    Path("garden").mkdir()
    assert texts(resolve_bank("garden")) == [SKY, SEA]  # a folder does not hide it
    Path("garden").rmdir()
    put(Path(), "garden", [SEA])
    assert texts(resolve_bank("garden")) == [SEA]


def test_a_bank_that_changes_between_check_and_use_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = keep(cache, "garden.json", json.dumps([SEA]).encode())
    monkeypatch.setattr(banks, "cached_path", lambda _: path)
    with pytest.raises(BankError, match="the cached garden was changed"):
        resolve_bank("garden")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("Gardn", "Gardn: no such file, and no known bank has this name; did you mean garden?"),
        ("zzz.json", "zzz.json: no such file, and no known bank has this name; `redinstruct banks` lists them"),
        ("", "(nothing): no such file, and no known bank has this name; `redinstruct banks` lists them"),
        ("a\nb\0", r"a\nb\x00: no such file, and no known bank has this name; `redinstruct banks` lists them"),
        ("a" * 300, "a" * 300 + ": no such file, and no known bank has this name; `redinstruct banks` lists them"),
        ("frame-2023", "frame-2023 is a prompt template, not a question bank: give it to --prompt"),
        (".", ".: is a folder, expected a file"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_bank_that_is_neither_file_nor_known(cache: Path, spec: str, message: str) -> None:
    with pytest.raises(BankError) as caught:
        resolve_bank(spec)
    assert str(caught.value) == message


def test_a_template_of_the_authors_is_found_by_name(cache: Path) -> None:
    assert resolve_template_path("cou") is None
    assert resolve_template_path("garden") is None
    with pytest.raises(BankError, match="run `redinstruct banks fetch frame-2023`"):
        resolve_template_path("frame-2023")
    path = keep(cache, "frame-2023.txt", b"<question>")
    assert resolve_template_path("frame-2023") == path


# ---- fetching, from a real server on this machine -------------------------------------------------------------------

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Server(http.server.ThreadingHTTPServer):
    """Answers each path as a test says, and remembers what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)
        self.close_connection = True
        self.server.answers[self.path.partition("?")[0]](self)

    def log_message(self, *_: object) -> None:
        """A test's output is its own."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def send(body: bytes, *, code: int = 200, length: int | None = -1, **headers: str) -> Answer:
    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        to.send_response(code)
        if length is not None:
            to.send_header("Content-Length", str(len(body) if length == -1 else length))
        for name, value in headers.items():
            to.send_header(name.replace("_", "-"), value)
        to.end_headers()
        to.wfile.write(body)

    return answer


def left_behind(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir()] if cache.is_dir() else []


def test_a_fetched_file_is_whole_verified_and_the_owner_s_alone(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(GARDEN)
    seen: list[tuple[int, int | None]] = []
    before = os.umask(0)
    try:
        path = fetch(
            known_file(), url=server.url("/garden.json"), on_progress=lambda now: seen.append((now.done, now.total))
        )
    finally:
        os.umask(before)
    assert path == cache / "garden.json"
    assert path.read_bytes() == GARDEN
    modes = [stat.S_IMODE(each.stat().st_mode) for each in (path, cache, cache.parent)]
    assert modes == [0o600, 0o700, 0o700]
    assert left_behind(cache) == ["garden.json"]
    assert seen[-1] == (len(GARDEN), len(GARDEN))
    assert texts(resolve_bank("garden")) == [SKY, SEA]


def test_what_is_there_and_right_is_not_fetched_again_and_what_is_damaged_is(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(GARDEN)
    path = keep(cache, "garden.json", GARDEN)
    assert fetch(known_file(), url=server.url("/garden.json")) == path
    assert server.asked == []
    path.write_bytes(b"damaged")
    assert fetch(known_file(), url=server.url("/garden.json")).read_bytes() == GARDEN
    assert server.asked == ["/garden.json"]


def test_another_file_s_bytes_are_refused_and_leave_nothing(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(b'["something else"]')
    digests = [hashlib.sha256(body).hexdigest()[:12] for body in (GARDEN, b'["something else"]')]
    with pytest.raises(BankError) as caught:
        fetch(known_file(), url=server.url("/garden.json"))
    expected = f"(expected sha256 {digests[0]}, got {digests[1]}); nothing was kept"
    assert str(caught.value) == f"what 127.0.0.1 sent is not garden {expected}"
    assert left_behind(cache) == []


def test_a_size_need_not_be_stated(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(GARDEN, length=None)
    seen: list[tuple[int, int | None]] = []
    fetch(known_file(), url=server.url("/garden.json"), on_progress=lambda now: seen.append((now.done, now.total)))
    assert seen[-1] == (len(GARDEN), None)


def test_a_redirect_on_the_same_host_is_followed(cache: Path, server: Server) -> None:
    server.answers["/old"] = send(b"moved", code=302, Location="/garden.json")
    server.answers["/garden.json"] = send(GARDEN)
    assert fetch(known_file(), url=server.url("/old")).read_bytes() == GARDEN


def test_a_redirect_to_another_host_is_refused_and_not_asked(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(GARDEN)
    elsewhere = f"http://localhost:{server.server_port}/garden.json?token=sesame"
    for target in (elsewhere, "http://127.0.0.1:1/", "https://host.invalid/", f"//localhost:{server.server_port}/"):
        server.answers["/old"] = send(b"", code=301, Location=target)
        with pytest.raises(RedInstructError) as caught:
            fetch(known_file(), url=server.url("/old"))
        assert str(caught.value) == (
            "could not fetch garden: 127.0.0.1 redirects to another host; download the file yourself and give its path "
            "instead"
        )
    assert set(server.asked) == {"/old"}
    assert left_behind(cache) == []


def raw(data: bytes) -> Answer:
    def answer(to: http.server.BaseHTTPRequestHandler) -> None:
        to.wfile.write(data)

    return answer


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_WEB = "127.0.0.1 does not answer as a web server"
NETWORK_FAULTS = [
    pytest.param(send(b"", code=404), "127.0.0.1 answered 404", id="404"),
    pytest.param(send(b"", code=503), "127.0.0.1 answered 503", id="503"),
    pytest.param(send(GARDEN[:9], length=99), "cut after 9 of 99 bytes", id="cut"),
    pytest.param(raw(CHUNKED + b"40\r\nabc"), "127.0.0.1 cut the connection", id="cut in a chunk"),
    pytest.param(raw(b""), "127.0.0.1: Remote end closed connection without response", id="no answer"),
    pytest.param(raw(b"hello\r\n"), f"{NO_WEB} (BadStatusLine)", id="no http"),
    pytest.param(send(b"a" * 2000), "127.0.0.1 sends more than 1000 bytes", id="too large"),
    pytest.param(send(b"a" * 2000, length=None), "127.0.0.1 sends more than 1000 bytes", id="too large, unannounced"),
    pytest.param(send(b"a", length=2000), "127.0.0.1 sends more than 1000 bytes", id="too large, announced"),
    pytest.param(send(b"", code=302, Location="/it"), "127.0.0.1 answered 302", id="redirects in a circle"),
    pytest.param(send(b"", code=302, Location="file:///etc/hosts"), "127.0.0.1 answered 302", id="redirect to a file"),
    pytest.param(send(b"", code=308, Location="http://[::1/"), f"{NO_WEB} (ValueError)", id="redirect to nonsense"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "why"), NETWORK_FAULTS)
def test_a_failed_fetch_is_one_line_without_the_address_and_leaves_nothing(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch, answer: Answer, why: str
) -> None:
    monkeypatch.setattr(banks, "MAX_DOWNLOAD", 1000)
    server.answers["/it"] = answer
    with pytest.raises(RedInstructError) as caught:
        fetch(known_file(), url=server.url("/it?token=sesame"))
    assert str(caught.value) == f"could not fetch garden: {why}"
    assert caught.value.exit_code == 1
    assert left_behind(cache) == []


def test_a_host_that_is_silent_or_not_there(cache: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        with pytest.raises(RedInstructError, match=r"could not fetch garden: 127\.0\.0\.1: timed out$"):
            fetch(known_file(), url=url, timeout=0.05)
    with pytest.raises(RedInstructError, match=r"could not fetch garden: 127\.0\.0\.1: Connection refused$"):
        fetch(known_file(), url=url)


def test_an_interrupted_fetch_leaves_nothing(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(GARDEN)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(known_file(), url=server.url("/garden.json"), on_progress=interrupt)
    assert left_behind(cache) == []


def test_a_cache_that_cannot_be_written(cache: Path, server: Server) -> None:
    server.answers["/garden.json"] = send(GARDEN)
    cache.parent.mkdir()
    put(cache.parent, "banks", "a file")
    with pytest.raises(RedInstructError, match=r"^cannot write garden into the cache: File exists$"):
        fetch(known_file(), url=server.url("/garden.json"))


def test_no_proxy_stands_between_this_machine_and_itself(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answers["/garden.json"] = send(GARDEN)
    assert fetch(known_file(), url=server.url("/garden.json")).is_file()


@pytest.mark.parametrize(
    "url",
    [
        "http://host.invalid/sesame", "http://127.0.0.1.host.invalid/sesame", "ftp://127.0.0.1/sesame", "file:///sesame",
        "https:///sesame", "sesame", "https://sesame@host.invalid/", "https://a:sesame@host.invalid/", "https://[::1/sesame",
        "https://host.invalid:sesame/",
    ],
)  # fmt: skip
def test_an_address_is_https_or_this_machine_s_and_holds_no_login(cache: Path, url: str) -> None:
    with pytest.raises(UsageError, match="the address to fetch from") as caught:
        fetch(known_file(), url=url)
    assert "sesame" not in str(caught.value)
    assert not cache.exists()


# ---- what it costs --------------------------------------------------------------------------------------------------


def test_reading_banks_loads_nothing_heavy_and_no_network() -> None:
    heavy = ["torch", "transformers", "aiohttp", "pandas", "scipy", "numpy", "urllib.request", "http.client", "socket"]
    code = (
        f"import sys, redinstruct.questions, redinstruct.banks; sys.exit(str([m for m in {heavy} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": [SKY, SEA], "label": ["safe", "unsafe"]},
        {"category": ["sky", "sea"], "prompt": [SKY, SEA]},
        {"questions": [SKY, SEA], "answers": ["It scatters.", "Deep."]},
        {"answers": ["It scatters.", "Deep."], "questions": [SKY, SEA]},
    ],
)
def test_columns_are_no_topics(tmp_path: Path, columns: object) -> None:
    """As ``DataFrame.to_json`` and ``Dataset.to_dict`` write them: labels and answers were asked as questions."""
    with pytest.raises(BankError, match="lists of questions and of other things"):
        read_bank(put(tmp_path, "bank.json", columns))
    assert len(read_bank(put(tmp_path, "one.json", {"prompt": [SKY, SEA]})).questions) == 2


def test_a_report_s_list_of_attempts_is_no_bank(tmp_path: Path) -> None:
    row = {"prompt": "cou", "label": "harmful", "question_hash": "0", "answer_hash": "1", "question": SKY}
    with pytest.raises(BankError, match="row 1 is an attempt of a run as `report --jsonl` lists it"):
        read_bank(put(tmp_path, "attempts.jsonl", json.dumps(row)))
