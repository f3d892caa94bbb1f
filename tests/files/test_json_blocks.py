"""Lines of JSON that are alike are read many at a time, and come to what they come to one by one: rows and faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.errors import BankError
from redinstruct.files import RowBlock, RowFile, json_blocks, limits
from redinstruct.files.json_blocks import BlockReader
from redinstruct.questions import read_bank

TEXTS = st.one_of(
    st.text(max_size=8),
    st.text(alphabet='"\\{}[],:\n\r\t a\u2028é\U0001f600\U0010f8d8\0', max_size=8),
    st.sampled_from(["What is rain?", "  padded ", "safe", "unsafe", "contrast_a", "1"]),
)
VALUES = st.one_of(
    TEXTS, TEXTS, TEXTS, st.none(), st.booleans(), st.integers(), st.floats(), st.integers(10**18, 10**22),
    st.lists(st.integers(), max_size=2), st.just([{"role": "user", "content": "What is snow?"}]), st.just({"a": "b"}),
)  # fmt: skip
KEYS = ("question", "topic", "label", "type", "subtopic", "instruction", "input", "turns", "Question", "nötig", 'a"b')


def line_of(pairs: Sequence[tuple[str, object]], *, plain: bool) -> str:
    """An object with its members as they are, also those that stand twice."""
    return "{" + ",".join(f"{json.dumps(k, ensure_ascii=plain)}: {json.dumps(v)}" for k, v in pairs) + "}"


@st.composite
def files(draw: st.DrawFn) -> str:
    """Lines that are alike, but for a few: a key twice, two objects on a line, one on two lines, an end that lacks."""
    keys = draw(st.lists(st.sampled_from(KEYS), unique=True, min_size=1, max_size=3))
    kinds = draw(st.tuples(*(st.sampled_from((TEXTS, TEXTS, VALUES)) for _ in keys)))
    rows = draw(st.lists(st.tuples(*kinds), min_size=1, max_size=12))
    lines = [line_of(list(zip(keys, values, strict=True)), plain=draw(st.booleans())) for values in rows]
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(lines) - 1))
        twice = line_of([(draw(st.sampled_from(keys)), draw(VALUES)) for _ in range(len(keys) + 1)], plain=True)
        cut = draw(st.integers(0, len(lines[at])))
        lines[at] = draw(
            st.sampled_from(
                [twice, f"{lines[at]} ", f"{lines[at]},{lines[at]}", f"{lines[at][:cut]}\n{lines[at][cut:]}",
                 lines[at][:cut], f"{lines[at]}\r", "", "[]", '{"a":1}', f" {lines[at]}"]
            )
        )  # fmt: skip
    return "\n".join(lines) + draw(st.sampled_from(["", "\n", "\n\n"]))


def rows_of(file: Path) -> tuple[list[str], str | None]:
    found: list[str] = []
    reader = RowFile(file, "a question", lacks=lambda _: None, meant=bool, is_row=bool)
    try:
        found.extend(repr(row) for row in reader.rows())
    except BankError as error:
        return found, str(error)
    return found, None


def bank_of(file: Path) -> object:
    try:
        return tuple(read_bank(file).questions)
    except BankError as error:
        return str(error)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocks") / "bank.jsonl"


@given(files())
def test_many_at_a_time_and_one_by_one_are_the_same_rows_and_the_same_faults(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")
    read = []
    for least in (1, 10**9):  # any lines, none
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_blocks, "LEAST", least)
            read.append((rows_of(file), bank_of(file)))
    assert read[0] == read[1]


def parts_of(file: Path) -> list[int]:
    reader = RowFile(file, "a question", lacks=lambda _: None, meant=bool, is_row=bool)
    return [len(part) if isinstance(part, RowBlock) else 1 for part in reader.parts()]


def test_lines_that_are_alike_come_in_blocks_within_the_limit_of_a_row(file: Path) -> None:
    rows = [{"question": f'What is "{at}"?', "id": at, "topic": None if at % 3 else "t"} for at in range(9000)]
    lines = list(map(json.dumps, rows))
    file.write_text("\n".join(lines) + "\n")
    parts = parts_of(file)
    assert sum(parts) == len(lines)
    assert max(parts) > 1_000
    assert len(parts) < 50
    assert max(parts) * len(lines[0]) <= limits.SMALL_ROW
    reader = RowFile(file, "a question", lacks=lambda _: None, meant=bool, is_row=bool)
    assert [row.value for row in reader.rows()] == rows


@pytest.mark.parametrize(
    "odd", ['{"question":"a","question":"b","topic":"t"}', '{"question":"a","topi\\u0063":1,"topic":"t"}']
)
def test_a_key_that_stands_twice_among_a_thousand_rows_is_refused_where_it_stands(file: Path, odd: str) -> None:
    lines = [json.dumps({"question": f"What is {at}?", "topic": "t"}) for at in range(1000)]
    lines[700] = odd
    file.write_text("\n".join(lines))
    with pytest.raises(BankError, match=r"row 701: an object holds the key \w+ twice"):
        read_bank(file)


def test_a_half_that_is_no_word_is_told_by_its_row_in_a_block(file: Path) -> None:
    lines = [json.dumps({"question": f"What is {at}?", "label": "safe" if at % 2 else "unsafe"}) for at in range(200)]
    file.write_text("\n".join(lines))
    assert [q.label for q in read_bank(file).questions] == ["unsafe", "safe"] * 100
    lines[150] = json.dumps({"question": "What is 150?", "label": "soft"})
    file.write_text("\n".join(lines))
    with pytest.raises(BankError, match="row 151: label is soft"):
        read_bank(file)


def test_a_file_whose_lines_have_other_keys_each_is_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = list[str]()
    shape = json_blocks._shape_of

    def counted(line: str, most: int) -> object:
        tried.append(line)
        return shape(line, most)

    monkeypatch.setattr(json_blocks, "_shape_of", counted)
    reader = BlockReader(limits.MAX_COLUMNS)
    unlike = "\n".join(json.dumps({"question": "a", f"k{at % 2}": 1}) for at in range(100))
    assert [reader.read(unlike) for _ in range(50)] == [None] * 50
    assert len(tried) < 10
