"""What leaves a collection: in which shapes, with which weights, and never red text that nobody asked for.

Every text here is inert.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from redinstruct.errors import UsageError
from redinstruct.harmfulqa.files import json_line, write_rows
from redinstruct.harmfulqa.formats import released, to_dpo, to_kto, to_messages, to_sharegpt, trainable, turn_weight
from redinstruct.harmfulqa.public import from_public, read_public, to_public
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Colour, Dialogue, Speaker, Turn

CANARY = "kanarienvogel"
EXPORTERS: tuple[Callable[..., Sequence[Any]], ...] = (to_public, to_messages, to_kto, to_dpo, to_sharegpt)
SPEAKERS: tuple[Speaker, ...] = ("human", "gpt")
LABELS = (None, "harmful", "unharmful", "unparsable", "error", "judge_refused", "no_response")


def human(text: str) -> Turn:
    return Turn("human", text)


def gpt(text: str, label: str | None = None) -> Turn:
    return Turn("gpt", text, label=label)


def dialogue(name: str, *turns: Turn, colour: Colour = "blue", parent: str | None = None) -> Dialogue:
    return Dialogue(name, "q", colour, turns, parent)


def row(blue: Sequence[Dialogue] = (), red: Sequence[Dialogue] = (), name: str = "q") -> Collected:
    return Collected(CollectedQuestion(name, "Sky", "Clouds", "Why are clouds white?"), tuple(blue), tuple(red))


BLUE = dialogue("b0", human("hello"), gpt("good day"), human("and rain?"), gpt("water falls", "unharmful"))
RED = dialogue(
    "r0", human("hello"), gpt("zorviul", "unharmful"), human("and rain?"), gpt("zorviul spoon", "harmful"),
    colour="red", parent="b0",
)  # fmt: skip
FIRST_RED = dialogue("r1", human("hello"), gpt("zorviul jar", "harmful"), colour="red", parent="b0")

# ---- arbitrary collections ----

any_text = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["", " ", "hello", "\ud83d", "\ud83d\ude00", "\u2028"]
)
turns = st.builds(Turn, st.sampled_from(SPEAKERS), any_text, st.none() | any_text, st.sampled_from(LABELS))
conversations = st.lists(turns, max_size=6).map(tuple)


@st.composite
def collections(draw: st.DrawFn, mark: str = "") -> list[Collected]:
    """Rows whose red conversations are twins, twins cut short or strangers. ``mark`` stands in every red text."""
    rows = []
    for number in range(draw(st.integers(0, 3))):
        blue: list[Dialogue] = []
        for key in range(draw(st.integers(0, 3))):
            said = tuple(replace(t, text=t.text + mark) if t.label == "harmful" else t for t in draw(conversations))
            parent = draw(st.sampled_from([None, f"{mark}r0"]))
            blue.append(Dialogue(f"{number}b{key}", str(number), "blue", said, parent))
        red: list[Dialogue] = []
        for key in range(draw(st.integers(0, 3))):
            paired: bool = draw(st.booleans())
            twin = draw(st.sampled_from(blue)) if blue and paired else None
            said = twin.turns[: draw(st.integers(0, 6))] if twin else draw(conversations)
            marked = tuple(replace(t, text=t.text + mark, thought=mark) for t in said) if mark else said
            owner = twin.id if twin else None
            red.append(Dialogue(f"{mark}r{key}", str(number), "red", marked, owner, source=f"jailbreak{mark}"))
        question = CollectedQuestion(draw(any_text), draw(any_text), draw(any_text), draw(any_text))
        rows.append(Collected(question, tuple(blue), tuple(red)))
    return rows


# ---- red text stays ----


@given(collections(CANARY))
def test_without_red_no_red_text_is_in_any_field_of_any_export(rows: list[Collected]) -> None:
    for exporter in EXPORTERS:
        assert CANARY not in json_line(exporter(rows, include_red=False))


def test_with_red_it_is_there() -> None:
    rows = [row([BLUE], [RED, FIRST_RED])]
    for exporter in EXPORTERS:
        assert "zorviul" in json_line(exporter(rows, include_red=True))
        assert "zorviul" not in json_line(exporter(rows, include_red=False))


def test_a_red_conversation_among_the_blue_ones_stays_too() -> None:
    assert released([row([RED, BLUE])], include_red=False)[0].blue == (BLUE,)


def test_without_red_a_blue_conversation_ends_before_the_question_to_a_harmful_answer() -> None:
    bad = dialogue("b0", human("hello"), gpt("good day"), human("more"), gpt("zorviul", "harmful"), human("thanks"))
    alone = dialogue("b1", human("more"), gpt("zorviul", "harmful"))
    (kept,) = released([row([bad, alone])], include_red=False)
    assert [[turn.text for turn in d.turns] for d in kept.blue] == [["hello", "good day"]]
    assert released([row([bad, alone])], include_red=True) == [row([bad, alone])]


@given(collections(), st.booleans())
def test_thoughts_are_in_no_export(rows: list[Collected], red: bool) -> None:
    def thinking(d: Dialogue) -> Dialogue:
        return replace(d, turns=tuple(replace(turn, thought=CANARY) for turn in d.turns))

    rows = [replace(r, blue=tuple(map(thinking, r.blue)), red=tuple(map(thinking, r.red))) for r in rows]
    for exporter in EXPORTERS:
        assert CANARY not in json_line(exporter(rows, include_red=red))


# ---- weights ----


@pytest.mark.parametrize(
    ("turn", "colour", "weight"),
    [
        (gpt("a"), "blue", 1.0),
        (gpt("a", "unharmful"), "blue", 1.0),
        (gpt("a", "harmful"), "blue", 0.0),
        (gpt("a", "unparsable"), "blue", 0.0),
        (gpt("a", "harmful"), "red", -1.0),
        (gpt("a", "unharmful"), "red", 0.0),
        (gpt("a", "error"), "red", 0.0),
        (gpt("a"), "red", 0.0),
        (gpt(" "), "blue", 0.0),
        (gpt("", "harmful"), "red", 0.0),
        (human("a"), "blue", 0.0),
        # what was cut short is not learned, and is penalised as far as it went
        (replace(gpt("a", "unharmful"), cut=True), "blue", 0.0),
        (replace(gpt("a", "harmful"), cut=True), "red", -1.0),
    ],
)
def test_weight_of_a_turn(turn: Turn, colour: Colour, weight: float) -> None:
    assert turn_weight(turn, colour) == weight


@given(turns, st.sampled_from(["blue", "red"]))
def test_only_the_harmful_is_penalised_and_the_harmful_is_never_learned(turn: Turn, colour: Colour) -> None:
    weight = turn_weight(turn, colour)
    if weight:
        assert turn.speaker == "gpt"
        assert (weight < 0) == (turn.label == "harmful")


# ---- rows for training ----


def test_messages_carry_a_signed_weight_at_each_answer() -> None:
    blue, red = to_messages([row([BLUE], [RED])], include_red=True)
    assert blue == {
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": "good day", "weight": 1.0},
            {"role": "user", "content": "and rain?"},
            {"role": "assistant", "content": "water falls", "weight": 1.0},
        ],
        "stream": "blue",
        "id": "b0",
        "topic": "Sky",
        "subtopic": "Clouds",
        "source": "role-play",
    }
    assert (red["stream"], red["id"]) == ("red", "r0")
    assert [m["weight"] for m in red["messages"] if m["role"] == "assistant"] == [0.0, -1.0]


@pytest.mark.parametrize(
    ("turns", "kept"),
    [
        ((gpt("x"), human("a"), gpt("b")), "ab"),
        ((human("a"), gpt("b"), human("c")), "ab"),
        ((human("a"), gpt("b"), human(" "), gpt("d")), "ab"),
        ((human("a"), gpt("b"), human("c"), human("d"), gpt("e")), "ab"),
        ((human("a"), gpt("b"), gpt("c")), "ab"),
        ((human("a"), gpt(""), human("c"), gpt("d")), ""),
        ((gpt("a"),), ""),
        ((), ""),
    ],
)
def test_training_sees_what_a_chat_template_can_hold(turns: tuple[Turn, ...], kept: str) -> None:
    assert "".join(turn.text for turn in trainable(dialogue("d", *turns))) == kept


@given(collections(), st.booleans())
def test_training_rows_alternate_and_hold_nothing_empty(rows: list[Collected], red: bool) -> None:
    for made in to_messages(rows, include_red=red):
        roles = [message["role"] for message in made["messages"]]
        assert roles[0] == "user"
        assert roles[-1] == "assistant"
        assert all(a != b for a, b in pairwise(roles))
        assert all(message["content"].strip() for message in made["messages"])
        assert all(("weight" in m) == (m["role"] == "assistant") for m in made["messages"])


@given(collections(), st.booleans())
def test_kto_has_one_row_for_each_weight_that_is_not_zero(rows: list[Collected], red: bool) -> None:
    expected = []
    for made in to_messages(rows, include_red=red):
        bare = [{"role": m["role"], "content": m["content"]} for m in made["messages"]]
        for i, message in enumerate(made["messages"]):
            if message.get("weight"):
                expected.append({"prompt": bare[:i], "completion": [bare[i]], "label": message["weight"] > 0})
    assert to_kto(rows, include_red=red) == expected


def test_dpo_pairs_only_answers_to_the_same_messages() -> None:
    (pair,) = to_dpo([row([BLUE], [RED, FIRST_RED])], include_red=True)
    # RED's harmful answer is its second, after another first one: no prompt is shared there.
    assert pair == {
        "prompt": [{"role": "user", "content": "hello"}],
        "chosen": [{"role": "assistant", "content": "good day"}],
        "rejected": [{"role": "assistant", "content": "zorviul jar"}],
    }
    assert to_dpo([row([BLUE], [RED])], include_red=True) == []


def test_dpo_pairs_the_first_turn_that_differs() -> None:
    late = dialogue(
        "r2", human("hello"), gpt("good day"), human("and rain?"), gpt("zorviul", "harmful"), colour="red", parent="b0"
    )
    (pair,) = to_dpo([row([BLUE], [late])], include_red=True)
    assert [m["content"] for m in pair["prompt"]] == ["hello", "good day", "and rain?"]
    assert pair["chosen"][0]["content"] == "water falls"


def test_dpo_takes_the_twins_answer_and_repeats_no_pair() -> None:
    other = dialogue("b1", human("hello"), gpt("hi"))
    red = dialogue("r0", human("hello"), gpt("zorviul", "harmful"), colour="red", parent="b1")
    stranger = replace(FIRST_RED, parent=None)
    pairs = to_dpo([row([BLUE, other], [red, replace(red, id="r9"), stranger])], include_red=True)
    assert [(p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in pairs] == [
        ("hi", "zorviul"),
        ("good day", "zorviul jar"),
    ]


def test_dpo_takes_no_answer_that_was_called_both() -> None:
    red = dialogue("r0", human("hello"), gpt("good day", "harmful"), colour="red", parent="b0")
    assert to_dpo([row([BLUE], [red])], include_red=True) == []


@given(collections())
def test_dpo_is_made_of_kto_rows(rows: list[Collected]) -> None:
    kto = [json_line(made) for made in to_kto(rows, include_red=True)]
    pairs: Sequence[Any] = to_dpo(rows, include_red=True)
    for pair in pairs:
        assert pair["chosen"] != pair["rejected"]
        for side, label in (("chosen", True), ("rejected", False)):
            assert json_line({"prompt": pair["prompt"], "completion": pair[side], "label": label}) in kto
    assert to_dpo(rows, include_red=False) == []


def test_sharegpt_ends_a_blue_conversation_before_what_is_not_to_be_learned() -> None:
    masked = dialogue("b1", human("a"), gpt("b"), human("c"), gpt("d", "unparsable"), human("e"), gpt("f"))
    never = dialogue("b2", human("a"), gpt("b", "unparsable"))
    assert to_sharegpt([row([masked, never])], include_red=True) == [
        {
            "id": "b1",
            "stream": "blue",
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": 1.0}],
        }
    ]
    (_, red) = to_sharegpt([row([BLUE], [RED])], include_red=True)
    assert red["stream"] == "red"
    assert [turn.get("weight") for turn in red["conversations"]] == [None, 0.0, None, -1.0]


# ---- the public schema ----


def test_the_public_schema_has_its_six_keys() -> None:
    said = [{"from": t.speaker, "value": t.text} for t in BLUE.turns]
    assert to_public([row([BLUE], [RED])], include_red=False) == [
        {
            "id": "q",
            "topic": "Sky",
            "subtopic": "Clouds",
            "question": "Why are clouds white?",
            "blue_conversations": {"0": said},
            "red_conversations": {},
        }
    ]


def test_a_red_conversation_has_its_twins_key_and_a_stranger_one_of_its_own() -> None:
    first = dialogue("b0", human("one"), gpt("1"))
    second = dialogue("b1", human("two"), gpt("2"), human("three"), gpt("3"))
    cut = dialogue("r1", human("two"), gpt("x"), colour="red", parent="b1")
    liar = dialogue("r2", human("four"), gpt("y"), colour="red", parent="b0")
    (made,) = to_public([row([first, second], [liar, cut])], include_red=True)
    assert list(made["red_conversations"]) == ["1", "2"]
    (back,) = from_public([made]).rows
    assert [(d.id, d.parent) for d in back.red] == [("q/red/1", "q/blue/1"), ("q/red/2", None)]


@given(collections(), st.booleans())
def test_export_import_export_is_identical(rows: list[Collected], red: bool) -> None:
    once = to_public(rows, include_red=red)
    assert to_public(from_public(once).rows, include_red=True) == once
    text = "\n".join(map(json_line, once))
    again = to_public(from_public(map(json.loads, text.split("\n") if text else ())).rows, include_red=True)
    assert "\n".join(map(json_line, again)) == text


@given(collections())
def test_import_loses_no_question_conversation_or_turn(rows: list[Collected]) -> None:
    def shape(found: Sequence[Collected]) -> list[object]:
        return [
            (
                r.question.text, r.question.topic,
                sorted([[(t.speaker, t.text) for t in d.turns] for d in r.blue]),
                sorted([[(t.speaker, t.text) for t in d.turns] for d in r.red]),
            )
            for r in found
        ]  # fmt: skip

    back = from_public(to_public(rows, include_red=True)).rows
    assert shape(back) == shape(rows)
    ids = [d.id for r in back for d in (*r.blue, *r.red)]
    assert all(d.question == r.question.id for r in back for d in (*r.blue, *r.red))
    if len({r.question.id for r in back}) == len(back):
        assert len(set(ids)) == len(ids)


def test_what_is_published_reads() -> None:
    talk = [{"from": "human", "value": "a"}, None, {"from": "gpt", "value": None}, {"from": "GPT", "value": ""}]
    published = [
        {"question": "one"},
        {"question": "two", "id": 7, "blue_conversations": None, "red_conversations": {"0": None, "1": talk}},
        {"question": "three", "id": "x", "topic": None, "blue_conversations": {10: talk, 2: [], "0": None}},
        {"question": "four", "id": 3.0, "extra": [1], "blue_conversations": [talk, None, talk]},
    ]
    one, two, three, four = from_public(published).rows
    assert [r.question.id for r in (one, two, three, four)] == ["0", "7", "x", "3"]
    assert (one.question.topic, one.blue, one.red) == ("", (), ())
    assert [d.id for d in two.red] == ["7/red/1"]
    assert [t.text for t in two.red[0].turns] == ["a", "", ""]
    assert [d.id for d in three.blue] == ["x/blue/2", "x/blue/10"]
    assert three.blue[0].turns == ()
    assert [d.id for d in four.blue] == ["3/blue/0", "3/blue/2"]


def test_ids_of_conversations_are_unique_where_those_of_rows_are_not() -> None:
    talk = {"0": [{"from": "human", "value": "a"}]}
    rows = from_public([{"id": "x", "question": "one", "blue_conversations": talk}] * 2).rows
    assert [r.question.id for r in rows] == ["x", "x"]
    assert len({r.blue[0].id for r in rows}) == 2


@pytest.mark.parametrize(
    ("document", "kept", "reason"),
    [
        (None, 1, "rows that are no objects"),
        (CANARY, 1, "rows that are no objects"),
        ({}, 1, "rows without a question in text"),
        ({"question": ["a"]}, 1, "rows without a question in text"),
        ({"question": "a", "id": True}, 2, None),
        ({"question": "a", "id": [CANARY]}, 1, "rows whose id is neither text nor a whole number"),
        ({"question": "a", "topic": 1}, 1, "rows whose topic is not text"),
        ({"question": "a", "red_conversations": CANARY}, 1,
         "rows whose red_conversations are neither an object nor a list"),
        ({"question": "a", "blue_conversations": {CANARY: CANARY}}, 2,
         "blue conversations that are no lists of turns"),
        ({"question": "a", "blue_conversations": {"0": [], 0: []}}, 2,
         "blue conversations under a key that another one has"),
        ({"question": "a", "red_conversations": {"0": [CANARY]}}, 2,
         "red conversations with a turn that is no object"),
        ({"question": "a", "blue_conversations": {"0": [{"from": CANARY}]}}, 2,
         "blue conversations with a turn from neither human nor gpt"),
        ({"question": "a", "blue_conversations": {"0": [{"from": "gpt", "value": 1}]}}, 2,
         "blue conversations with a turn that is not text"),
    ],
)  # fmt: skip
def test_what_is_no_row_is_dropped_counted_and_not_shown(document: object, kept: int, reason: str | None) -> None:
    found = from_public([{"question": "a"}, document])
    assert len(found.rows) == kept
    assert found.dropped == ({} if reason is None else {reason: 1})


def test_a_conversation_that_is_none_leaves_the_others_of_its_question() -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    found = from_public([{"question": "a", "blue_conversations": {"0": talk, "1": 3, "2": talk},
                          "red_conversations": [3, talk]}])  # fmt: skip
    assert [d.id for d in (*found.rows[0].blue, *found.rows[0].red)] == ["0/blue/0", "0/blue/2", "0/red/1"]
    assert sum(found.dropped.values()) == 2


# ---- files ----


def test_json_lists_json_lines_and_single_objects_read_alike(tmp_path: Path) -> None:
    made = to_public([row([BLUE], [RED], name=str(i)) for i in range(3)], include_red=True)
    texts = {
        "list": json.dumps(made),
        "indented": "\ufeff" + json.dumps(made, indent=1),
        "lines": "\n".join(map(json.dumps, made)),
        "spaced": "\r\n\r\n".join(map(json.dumps, made)) + "\n\n",
    }
    for name, text in texts.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text, encoding="utf-8", newline="")
        assert to_public(read_public(path).rows, include_red=True) == made
    path.write_text(json.dumps(made[0]))
    assert to_public(read_public(path).rows, include_red=True) == made[:1]
    path.write_text("[ ]")
    with pytest.raises(UsageError, match="holds no question: no rows"):
        read_public(path)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b'[{"question": "a"}, {"question": "b"', r"row 2: broken JSON at line 1"),
        (b'{"question": "a"}\n{"question": ', r"row 2: broken JSON at line 2"),
        (b'[{"question": "a"},]', "row 2: broken JSON"),
        (b"[,]", "row 1: (broken JSON|the JSON is nested|a number in the JSON)"),
        (b'[{"question": "a"} {"question": "b"}]', "row 1: broken JSON"),
        (b'[{"question": "a"}', "it was cut"),
        (b"[", "it was cut"),
        (b'[{"question": "a"}] x', "something follows the end"),
        (b"3", "holds no question: rows that are no objects"),
        (b'{"question": "a", "id": NaN}', "row 1: holds NaN"),
        (b'{"question": "a", "blue_conversations": {"0": [], "0": []}}', "row 1: an object holds the key 0 twice"),
        (b"[" * 100_000, "row 1: (broken JSON|the JSON is nested|a number in the JSON)"),
        (b'{"id": ' + b"9" * 10_000, "row 1: (broken JSON|the JSON is nested|a number in the JSON)"),
        (b'{"question": "a"}\n\xff', "line 2 is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_row(tmp_path: Path, content: bytes, wrong: str) -> None:
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=wrong) as caught:
        read_public(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_place_that_is_no_file_is_a_usage_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, tmp_path / "none", pipe, Path("a\0b"), Path("\ud800\udfff")):
        with pytest.raises(UsageError):
            read_public(path)
    for path in (tmp_path, tmp_path / "none" / "file", Path("a\0b")):
        with pytest.raises(UsageError):
            write_rows(path, [])


@given(st.text(st.characters()) | st.text(st.characters(min_codepoint=0xD7FE, max_codepoint=0xE001)))
def test_one_json_is_one_line_that_utf8_holds(text: str) -> None:
    line = json_line({"a": text})
    assert len(line.splitlines()) == 1
    back = json.loads(line.encode("utf-8"))["a"]
    assert back.encode("utf-16-le", "surrogatepass") == text.encode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_written_rows_read_back_whatever_they_hold(tmp_path: Path, as_list: bool, count: int) -> None:
    rows = [{"a": f"\ud800 é \u2028 \n {i}"} for i in range(count)]
    path = tmp_path / "out"
    assert write_rows(path, iter(rows), as_list=as_list) == count
    text = path.read_bytes().decode("utf-8")
    assert "é" in text or not count
    assert (json.loads(text) if as_list else [json.loads(line) for line in text.splitlines()]) == rows
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_export_with_red_is_its_owners_alone_even_over_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    path.chmod(0o666)
    write_rows(path, [{"a": 1}], private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = os.umask(0o027)
    try:
        write_rows(path, [{"a": 1}], private=False)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_failure_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("old")

    def failing() -> Any:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(path, failing())
    with pytest.raises(ValueError):
        write_rows(path, [{"a": float("nan")}])
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_device_is_written_to_and_not_replaced() -> None:
    assert write_rows(Path("/dev/null"), [{"a": 1}]) == 1
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_file_to_rows_to_file_is_the_same_bytes(tmp_path: Path) -> None:
    rows = [row([BLUE], [RED, FIRST_RED], name=f"\ud83d\ude00{i}") for i in range(3)]
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_rows(one, to_public(rows, include_red=True), as_list=True)
    write_rows(two, to_public(read_public(one).rows, include_red=True), as_list=True)
    assert one.read_bytes() == two.read_bytes()
