"""Files as they are published, and files that were made to cost much: what is read, what is refused, and how early.

Every text is inert.
"""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.errors import BankError, UsageError
from redinstruct.files import JsonRow, RowFile, limits
from redinstruct.files.buffer import Buffer
from redinstruct.interop import read_source
from redinstruct.questions import read_bank
from redinstruct.types import ATTACK_SUCCESS

SKY, SEA = "Why is the sky blue?", "How deep is the sea?"
MIB = 2**20


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(path: Path) -> list[str]:
    return [question.text for question in read_bank(path).questions]


# ---- as published ----------------------------------------------------------------------------------------------------

PUBLISHED: list[tuple[str, bytes | str]] = [
    ("a.csv", f"\ufeffprompt;label\r\n{SKY};unsafe\r\n{SEA};unsafe\r\n"),  # Excel in half of Europe
    ("a.csv", f"id\tprompt\n1\t{SKY}\n2\t{SEA}\n"),
    ("a.tsv", f"id\tprompt\n1\t{SKY}\n2\t{SEA}\n"),
    ("a.csv", f"id|goal\n1|{SKY}\n2|{SEA}\n"),
    ("a.csv", f"prompt,label\n{SKY},unsafe\n{SEA},unsafe\n,\n,\n"),  # empty rows at the end
    ("a.csv", f",prompt,category\n0,{SKY},air\n1,{SEA},water\n"),  # pandas' index
    ("a.csv", f"Unnamed: 0,Unnamed: 0,prompt\n0,0,{SKY}\n1,1,{SEA}\n"),
    ("a.csv", f"prompt\n{SKY}\n{SEA}\n".encode("utf-16")),  # Excel's "Unicode text"
    ("a.json", json.dumps([SKY, SEA]).encode("utf-16")),
    ("a.txt", f"{SKY}\n{SEA}\n"),  # MaliciousInstruct
    ("a.txt", f"{SKY}\r\n\r\n{SEA}"),
    ("a.txt", f"prompt,id\n{SKY},1\n{SEA},2\n"),
    ("a.json", json.dumps({"data": [{"prompt": SKY}, {"prompt": SEA}]})),
    ("a.jsonl", f'{{"text": "{SKY}"}}\n{{"text": "{SEA}"}}\n'),
    ("a.json", json.dumps([{"instruction": SKY, "input": ""}, {"instruction": SEA, "input": " "}])),
    ("a.jsonl", f'{{"input": "{SKY}", "target": "C"}}\n{{"input": "{SEA}", "target": "C"}}\n'),
    ("a.json.gz", gzip.compress(json.dumps([SKY, SEA]).encode(), mtime=0)),
    ("a.csv.gz", gzip.compress(f"prompt\n{SKY}\n{SEA}\n".encode(), mtime=0)),
    ("a.jsonl.GZ", gzip.compress(f'"{SKY}"\n"{SEA}"\n'.encode(), mtime=0)),
    ("a.json", gzip.compress(json.dumps([SKY, SEA]).encode(), mtime=0)),  # packed, whatever it is called
]


@pytest.mark.parametrize(("name", "content"), PUBLISHED)
def test_files_are_read_as_they_are_published(tmp_path: Path, name: str, content: bytes | str) -> None:
    path = put(tmp_path, name, content)
    bank = read_bank(path)
    assert [question.text for question in bank.questions] == [SKY, SEA]
    assert bank.name == "a"
    assert not {question.topic for question in bank.questions} & {"data", "prompt"}


def test_a_packed_bank_is_the_same_bank(tmp_path: Path) -> None:
    content = json.dumps([SKY, SEA]).encode()
    plain, packed = put(tmp_path, "a.json", content), put(tmp_path, "a.json.gz", gzip.compress(content))
    assert read_bank(plain) == read_bank(packed)


def test_topics_and_subtopics_of_do_not_answer(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", f"id,risk_area,types_of_harm,specific_harms,question\n0,Air,Wind,x,{SKY}\n")
    (question,) = read_bank(path).questions
    assert (question.topic, question.subtopic) == ("Air", "Wind")


def test_what_alpaca_asks_stands_in_two_cells(tmp_path: Path) -> None:
    path = put(tmp_path, "a.json", json.dumps([{"instruction": "Name the colour.", "input": SKY, "output": "blue"}]))
    assert texts(path) == [f"Name the colour.\n\n{SKY}"]


STRANGERS = [
    ("a.xlsx", b"PK\x03\x04rest", "is a zip archive or an Excel workbook (.xlsx): save the sheet as CSV, or unpack it"),
    ("a.csv", b"PK\x03\x04rest", "is a zip archive or an Excel workbook"),
    ("a.xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Office file (.xls): save the sheet as CSV"),
    ("a.parquet", b"PAR1\x15\x04", "is a Parquet file: save it as CSV or JSONL"),
    ("a.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer, not the file"),
    ("a.csv", b"<!DOCTYPE html><html></html>", "is a web page, not the file: fetch the raw file"),
    ("a.json.xz", b"\xfd7zXZ\x00", "is packed by xz: unpack it"),
    ("a.json.gz", gzip.compress(b'["a"]' * 9, mtime=0)[:-9], "is packed by gzip, and damaged or cut short"),
    ("a.csv", "prompt\ncaf\xe9\n".encode("cp1252"), "line 2 is not UTF-8 text, save the file as UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "message"), STRANGERS)
def test_a_file_that_cannot_be_read_is_named_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(BankError) as bank:
        read_bank(path)
    with pytest.raises(UsageError) as source:
        read_source(path, ATTACK_SUCCESS)
    assert str(bank.value) == str(source.value)
    assert f"{path}: {message}" in str(bank.value)


def test_answers_are_read_from_the_same_shapes(tmp_path: Path) -> None:
    head, row = "prompt;response;judge", f"{SKY};A colour.;harmful"
    assert len(read_source(put(tmp_path, "a.csv", f"{head}\n{row}\n;;\n"), ATTACK_SUCCESS).rows) == 1
    rows = {"version": 1, "rows": [{"prompt": SKY, "response": "A colour."}] * 2}
    packed = put(tmp_path, "b.json.gz", gzip.compress(json.dumps(rows).encode()))
    source = read_source(packed, ATTACK_SUCCESS)
    assert (len(source.rows), source.bank) == (2, "b")
    named = read_source(put(tmp_path, "c.csv", f"q;r\n{SKY};x\n"), ATTACK_SUCCESS, {"prompt": "q", "response": "r"})
    assert named.rows[0].question == SKY


def test_an_object_longer_than_a_row_is_read_topic_by_topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SMALL_ROW", 64)
    monkeypatch.setattr(limits, "MAX_ROW", 256)
    tree = {"air": [f"{SKY} {at}" for at in range(40)], "water": {"salt": [SEA], "fresh": [{"goal": "And lakes?"}]}}
    bank = read_bank(put(tmp_path, "a.json", json.dumps(tree, indent=1)))
    assert len(bank.questions) == 42
    assert [(q.topic, q.subtopic) for q in bank.questions[-2:]] == [("water", "salt"), ("water", "fresh")]
    broken = json.dumps(tree)[:-2]
    with pytest.raises(BankError, match="broken JSON at line 1 column"):
        read_bank(put(tmp_path, "b.json", broken))
    twice = json.dumps(tree)[:-1] + ', "air": []}'
    with pytest.raises(BankError, match="an object holds the key air twice"):
        read_bank(put(tmp_path, "c.json", twice))


# ---- properties of the window ----------------------------------------------------------------------------------------


def pieces(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(0, len(text), size))


@given(text=st.text(st.sampled_from("ab\r\n\u2028 "), max_size=40), size=st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_lines_are_those_of_the_whole_text_however_it_comes(text: str, size: int) -> None:
    expected = text.replace("\r\n", "\0").replace("\r", "\1").replace("\n", "\2")
    whole = [line for line in _split(expected) if line]
    assert list(Buffer(pieces(text, size)).lines()) == whole


def _split(text: str) -> list[str]:
    ends = {"\0": "\r\n", "\1": "\r", "\2": "\n"}
    lines, line = [], ""
    for character in text:
        line += ends.get(character, character)
        if character in ends:
            lines.append(line)
            line = ""
    return [*lines, line]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(rows=st.lists(values, max_size=6), one_a_line=st.booleans(), indent=st.sampled_from([None, 1]))
@settings(max_examples=30, deadline=None)
def test_rows_are_those_that_json_itself_reads(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object], one_a_line: bool, indent: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / ("rows.jsonl" if one_a_line else "rows.json")
    text = "".join(json.dumps(row) + "\n" for row in rows) if one_a_line else json.dumps(rows, indent=indent)
    if one_a_line and len(rows) == 1 and isinstance(rows[0], (list, dict)):
        return  # one line is a whole file too
    path.write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "SMALL_ROW", 8)
        file = RowFile(path, "a row", lacks=lambda _: None, meant=bool, is_row=lambda _: True)
        assert [row.value for row in file.rows() if isinstance(row, JsonRow)] == rows


# ---- made to cost much -----------------------------------------------------------------------------------------------

Bomb = Callable[[int], bytes]
BOMBS: dict[str, Bomb] = {
    "wide.csv": lambda n: b"prompt," + b",".join(b"c%d" % i for i in range(n)) + b"\n" + b"q," * n + b"x\n",
    "wide.jsonl": lambda n: b'{"prompt":"a","response":"b",' + b",".join(b'"k%d":1' % i for i in range(n)) + b"}\n",
    "numbers.json": lambda n: b"[" + b"1," * n + b"1]",
    "strings.json": lambda n: b"[" + b'"a",' * n + b'"a"]',
    "objects.json": lambda n: b"[" + b"{}," * n + b"{}]",
    "in_a_row.json": lambda n: b'[{"prompt":"a","response":"b","x":[' + b"{}," * n + b"{}]}]",
    "in_a_line.jsonl": lambda n: b'{"prompt":"a","response":"b","x":[' + b"[]," * n + b"[]]}\n",
    "topics.json": lambda n: b"{" + b",".join(b'"k%d":[]' % i for i in range(n)) + b"}",
    "topic.json": lambda n: b'{"a":[' + b"[]," * n + b"[]]}",
    "deep.json": lambda n: b"[" * n,
    "deep.jsonl": lambda n: b'"a"\n' + b'{"a":' * n,
    "rows.csv": lambda n: b"prompt,response\n" + b"a,b\n" * n,
    "lines.txt": lambda n: b"a\n" * n,
    "blank.csv": lambda n: b"prompt,response\n" + b"\n" * n,
    "quote.csv": lambda n: b'prompt,response\n"' + b"a\n" * n,
    "one_row.jsonl": lambda n: b'"' + b"a" * (16 * n) + b'"',
    "one_row.json": lambda n: b'["' + b"a" * (16 * n) + b'"]',
    "same_key.json": lambda n: b"[" + b'{"a":1,"a":2},' * (n // 4) + b'{"a":1}]',
    "digits.json": lambda n: b"[" + b"9" * n + b"]",
    "packed.csv.gz": lambda n: gzip.compress(b"prompt,response\n" + b"a question of paint,b\n" * (8 * n), 9),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_is_made_to_cost_much_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Little of it is looked at, as a twentieth of the real limits shows on a twentieth of the file."""
    for limit in ("MAX_ROW", "MAX_VALUES", "MAX_LINES", "SMALL_ROW", "_FREE_ROWS", "_FREE_UNPACKED"):
        monkeypatch.setattr(limits, limit, getattr(limits, limit) // 20)
    path = put(tmp_path, name, BOMBS[name](2 * MIB // 20))
    with pytest.raises(BankError) as bank:
        read_bank(path)
    with pytest.raises(UsageError) as source:
        read_source(path, ATTACK_SUCCESS)
    for error in (bank.value, source.value):
        assert len(str(error)) < 400
        assert str(error).isprintable()


COST = """
import resource, sys
from pathlib import Path
from redinstruct.errors import UsageError
from redinstruct.interop import read_source
from redinstruct.questions import read_bank
from redinstruct.types import ATTACK_SUCCESS
before = resource.getrusage(resource.RUSAGE_SELF)
try:
    read_bank(Path(sys.argv[2])) if sys.argv[1] == "bank" else read_source(Path(sys.argv[2]), ATTACK_SUCCESS)
    sys.exit("was read")
except UsageError:
    after = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss, which counts what the process was before it became this one: a copy of the tests'.
    peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, peak / 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("door", ["bank", "import"])
def test_a_bomb_of_the_real_size_costs_less_than_a_second_and_200_mb(tmp_path: Path, name: str, door: str) -> None:
    size = 60_000 if name.startswith("wide") else 2 * MIB
    path = put(tmp_path, name, BOMBS[name](size))

    def bounded() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))

    done = subprocess.run(
        [sys.executable, "-c", COST, door, path], capture_output=True, text=True, check=False, preexec_fn=bounded
    )
    assert done.returncode == 0, done.stderr[-300:]
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < 1
    assert megabytes < 200


def test_an_honest_file_of_many_rows_is_read(tmp_path: Path) -> None:
    path = put(tmp_path, "a.csv", "prompt\n" + "".join(f"What is paint number {at} made of?\n" for at in range(30_000)))
    assert len(read_bank(path).questions) == 30_000
