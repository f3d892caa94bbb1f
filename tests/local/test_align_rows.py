"""Conversations to train on: what the exports write is read back; a bad row is named, never shown, never guessed."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.errors import UsageError
from redinstruct.files import JsonFile, limits, opening
from redinstruct.harmfulqa.files import json_line
from redinstruct.harmfulqa.formats import to_messages, to_sharegpt
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Dialogue, Turn
from redinstruct.safealign.rows import (
    NO_CONVERSATIONS,
    NO_MESSAGES,
    NO_TEXT,
    ROLE,
    STREAMS,
    Rows,
    Stream,
    read_rows,
)

pytestmark = pytest.mark.local

SECRET = "inert text that no message may show"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def write(folder: Path, rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    if isinstance(rows, str | bytes):
        path.write_bytes(rows.encode() if isinstance(rows, str) else rows)
    elif name.endswith(".json"):
        path.write_text(json.dumps(rows))
    else:
        assert isinstance(rows, list)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(*weights: float | None, **more: Any) -> dict[str, Any]:
    """One user turn before each answer; an answer without a weight has no such key."""
    messages: list[dict[str, Any]] = []
    for i, weight in enumerate(weights):
        messages.append({"role": "user", "content": f"question {i}"})
        messages.append(
            {"role": "assistant", "content": f"answer {i}"} | ({} if weight is None else {"weight": weight})
        )
    return {"messages": messages, **more}


def read(folder: Path, *rows: object, stream: Stream | None = None) -> Rows:
    return read_rows([write(folder, list(rows))], stream=stream)


def weights(rows: Rows) -> list[list[float]]:
    return [[weight for weight in row.weights if weight is not None] for row in rows.rows]


# ---- what a row means ----


def test_a_row_carries_its_weights_its_stream_and_its_source(tmp_path: Path) -> None:
    rows = read(tmp_path, chat(0.5, -1, stream="red", id="a", source="role-play"))
    (row,) = rows.rows
    assert (row.id, row.stream, row.source) == ("a", "red", "role-play")
    assert row.weights == (None, 0.5, None, -1.0)
    assert [message.role for message in row.messages] == ["user", "assistant"] * 2


def test_rows_that_do_not_say_their_stream_are_general_or_what_the_caller_says(tmp_path: Path) -> None:
    assert read(tmp_path, chat(None)).rows[0].stream == "general"
    assert read(tmp_path, chat(None), stream="blue").rows[0].stream == "blue"
    assert read(tmp_path, chat(None, stream="blue"), stream="general").rows[0].stream == "blue"
    assert read(tmp_path, chat(None)).rows[0].id == "rows:1"


@pytest.mark.parametrize("said", [None, *STREAMS])
def test_a_weight_below_zero_makes_a_row_red_whatever_it_says(tmp_path: Path, said: Stream | None) -> None:
    assert read(tmp_path, chat(1, -0.5, stream=said)).rows[0].stream == "red"


def test_a_red_row_that_penalises_nothing_is_a_safe_one(tmp_path: Path) -> None:
    assert read(tmp_path, chat(1, 0, stream="red")).rows[0].stream == "blue"


def test_a_red_row_without_weights_is_penalised_for_its_last_answer_only(tmp_path: Path) -> None:
    rows = read(tmp_path, chat(None, None, None, stream="red"))
    assert weights(rows) == [[0.0, 0.0, -1.0]]
    assert weights(read(tmp_path, chat(None, None), stream="red")) == [[0.0, -1.0]]


def test_answers_without_a_weight_are_learnt_but_masked_beside_weighted_ones(tmp_path: Path) -> None:
    assert weights(read(tmp_path, chat(None, None))) == [[1.0, 1.0]]
    assert weights(read(tmp_path, chat(None, 2.0))) == [[0.0, 2.0]]


def test_sharegpt_and_json_lists_are_read_too(tmp_path: Path) -> None:
    said = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (row,) = read_rows([write(tmp_path, [{"conversations": said}], "rows.json")]).rows
    assert [message.role for message in row.messages] == ["system", "user", "assistant"]
    assert row.weights == (None, None, 1.0)


@pytest.mark.parametrize(
    "mark",
    [
        lambda row: row.update(complete=False),
        lambda row: row.update(truncated=True),
        lambda row: row["messages"][-1].update(truncated=True),
        lambda row: row["messages"][-1].update(finish_reason="length"),
    ],
)
def test_an_answer_that_was_cut_off_is_masked_and_counted(tmp_path: Path, mark: Any) -> None:
    row = chat(1, 1)
    mark(row)
    rows = read(tmp_path, row)
    assert weights(rows) == [[1.0, 0.0]]
    assert rows.masked == {"cut off": 1}


def test_an_empty_answer_is_masked_and_counted(tmp_path: Path) -> None:
    row = chat(1, 1)
    row["messages"][1]["content"] = " \n"
    rows = read(tmp_path, row)
    assert weights(rows) == [[0.0, 1.0]]
    assert rows.masked == {"empty answer": 1}


def test_rows_with_nothing_left_are_dropped_and_counted(tmp_path: Path) -> None:
    rows = read(tmp_path, chat(0, 0), chat(1), chat(0.0))
    assert [row.id for row in rows.rows] == ["rows:2"]
    assert rows.dropped == {"every answer masked": 2}
    assert [rows.count(stream) for stream in STREAMS] == [0, 1, 0]


def test_files_are_known_by_name_and_hash(tmp_path: Path) -> None:
    paths = [write(tmp_path, [chat(1)], "a.jsonl"), write(tmp_path, [chat(1), chat(1)], "b.json")]
    rows = read_rows(paths)
    assert [row.id for row in rows.rows] == ["a:1", "b:1", "b:2"]
    assert rows.files == tuple((path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in paths)


# ---- what the exports write ----

TURNS = st.lists(
    st.tuples(st.text("ab \n\u2028é", max_size=5), st.sampled_from([None, "harmful", "unharmful"])),
    min_size=2, max_size=6,
)  # fmt: skip


@settings(max_examples=60)
@given(blue=TURNS, red=TURNS, sharegpt=st.booleans())
def test_what_is_exported_is_read_back_with_its_weights(
    folder: Path, blue: list[Any], red: list[Any], sharegpt: bool
) -> None:
    def dialogue(name: str, colour: Any, turns: list[Any]) -> Dialogue:
        said = (Turn("gpt" if i % 2 else "human", text, label=label) for i, (text, label) in enumerate(turns))
        return Dialogue(name, "q", colour, tuple(said))

    collected = [Collected(CollectedQuestion("q", "t", "s", "?"), (dialogue("b", "blue", blue),),
                           (dialogue("r", "red", red),))]  # fmt: skip
    export: Callable[..., list[Any]] = to_sharegpt if sharegpt else to_messages
    made = export(collected, include_red=True)
    key, speaker, value = ("conversations", "from", "value") if sharegpt else ("messages", "role", "content")
    kept = [row for row in made if any(message.get("weight") for message in row[key])]
    path = write(folder, "".join(json_line(row) + "\n" for row in made))
    if not kept:
        with pytest.raises(UsageError, match="nothing to train on"):
            read_rows([path])
        return
    rows = read_rows([path])
    assert [row.id for row in rows.rows] == [row["id"] for row in kept]
    for row, exported in zip(rows.rows, kept, strict=True):
        assert [message.content for message in row.messages] == [message[value] for message in exported[key]]
        assert list(row.weights) == [message.get("weight") for message in exported[key]]
        assert (row.stream == "red") == any((weight or 0) < 0 for weight in row.weights)
        assert {message[speaker] for message in exported[key]} <= {"user", "assistant", "human", "gpt"}
    assert sum(rows.dropped.values()) == len(made) - len(kept)


# ---- what is refused ----

GOOD = json.dumps(chat(1))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (5, "not an object with messages"),
        (None, "not an object with messages"),
        ({"messages": [{"role": "user", "content": SECRET}]}, "no answer of the assistant"),
        ({"messages": []}, "no messages"),
        ({"messages": None}, "no messages"),
        ({"messages": [None]}, "no messages"),
        ({"prompt": SECRET}, "no messages"),
        ({"id": "e", "conversations": []}, "no messages"),
        ({"messages": [[SECRET]]}, "no messages"),
        ({"messages": [{"role": SECRET, "content": "a"}]}, "another role than"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "bing", "value": "b"}]}, "another role than"),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "observation", "value": "b"}]},
            "another role than",
        ),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": None, "value": "b"}]}, "another role than"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": None}]}, "without text"),
        ({"conversations": [{"from": "human", "value": " "}, {"from": "gpt", "value": "b"}]}, "an empty question"),
        ({"messages": [{"role": "assistant", "content": [{"type": "image", "url": SECRET}]}]}, "not text alone"),
        ({"messages": [{"role": "user", "content": SECRET, "weight": 1}]}, "a weight on a message"),
        ({"prompt": SECRET, "completion": None}, "no messages"),
        ({"instruction": SECRET, "output": None}, "no messages"),
        (chat(1, stream=SECRET), "a stream that is none of"),
        (chat(math.inf), "a weight that is not"),
        (chat(True), "a weight that is not"),
        (chat(10**400), "a weight that is not"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "half a surrogate pair"),
        (chat(0, 0), "every answer masked"),
    ],
    ids=str,
)
def test_a_row_that_can_not_be_trained_on_is_counted_by_its_reason_and_sinks_no_file(
    tmp_path: Path, row: object, why: str
) -> None:
    bad = json.dumps(row).replace("Infinity", "1e999")
    path = write(tmp_path, f"{GOOD}\n{bad}\n{GOOD}\n", "my.jsonl")
    rows = read_rows([path])
    assert [one.id for one in rows.rows] == ["my:1", "my:3"]
    ((reason, count),) = rows.dropped.items()
    assert why in reason
    assert count == 1
    assert SECRET not in reason
    alone = write(tmp_path, bad, "alone.jsonl")
    with pytest.raises(UsageError, match=r"alone.jsonl: nothing to train on: .* \(1\)") as caught:
        read_rows([alone])
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"instruction": "Name it.", "input": "", "output": "Blue."}, [("user", "Name it."), ("assistant", "Blue.")]),
        (
            {"instruction": "Name it.", "context": "A lamp.", "response": "Blue."},
            [("user", "Name it.\n\nA lamp."), ("assistant", "Blue.")],
        ),
        ({"prompt": "Where?", "completion": "There."}, [("user", "Where?"), ("assistant", "There.")]),
        (
            {
                "prompt": [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Where?"}],
                "completion": [{"role": "assistant", "content": "There."}],
            },
            [("system", "Brief."), ("user", "Where?"), ("assistant", "There.")],
        ),
        (
            {"messages": [{"role": "developer", "content": "Brief."}, {"role": "user", "content": "Where?"},
                          {"role": "model", "content": "There."}]},
            [("system", "Brief."), ("user", "Where?"), ("assistant", "There.")],
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Where"}, "?"]},
                          {"role": "assistant", "content": "There."}]},
            [("user", "Where?"), ("assistant", "There.")],
        ),
        (
            {"conversations": [{"from": "gpt", "value": "Hello."}, {"from": "human", "value": "Where?"},
                               {"from": "gpt", "value": "There."}]},
            [("user", "Where?"), ("assistant", "There.")],
        ),
    ],
    ids=["alpaca", "dolly", "texts", "trl", "developer", "parts", "answer first"],
)  # fmt: skip
def test_rows_are_read_in_the_shapes_that_others_publish(
    tmp_path: Path, row: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    (read_,) = read(tmp_path, row).rows
    assert [(message.role, message.content) for message in read_.messages] == expected
    assert [weight for weight in read_.weights if weight is not None] == [1.0]


def test_a_preference_is_an_answer_to_learn_and_one_to_penalise(tmp_path: Path) -> None:
    pair = {"prompt": "Where?", "chosen": "I will not say.", "rejected": "There."}
    rows = read(tmp_path, pair)
    assert [(row.stream, row.messages[-1].content) for row in rows.rows] == [
        ("general", "I will not say."), ("red", "There."),
    ]  # fmt: skip
    said = {"role": "user", "content": "Where?"}
    whole = {key: [said, {"role": "assistant", "content": pair[key]}] for key in ("chosen", "rejected")}
    again = read(tmp_path, {"prompt": [said], **whole}, stream="blue")
    assert [(row.stream, len(row.messages)) for row in again.rows] == [("blue", 2), ("red", 2)]
    assert weights(read(tmp_path, {"prompt": "Where?", "completion": "There.", "label": False})) == [[-1.0]]


@pytest.mark.parametrize(
    ("label", "weight"), [(True, 1.0), (1, 1.0), ("true", 1.0), (0, -1.0), (0.0, -1.0), ("False", -1.0)]
)
def test_a_label_says_whether_an_answer_is_wanted_however_a_yes_or_a_no_is_written(
    tmp_path: Path, label: object, weight: float
) -> None:
    """0 was learnt: the answer that is to be penalised."""
    assert weights(read(tmp_path, {"prompt": "Where?", "completion": "There.", "label": label})) == [[weight]]


def test_a_label_that_is_neither_is_not_guessed(tmp_path: Path) -> None:
    rows = read(
        tmp_path, {"prompt": "Where?", "completion": "There.", "label": "bad"}, {"prompt": "A?", "completion": "B."}
    )
    assert (weights(rows), rows.dropped) == ([[1.0]], {"a label that is neither yes nor no": 1})


def test_a_null_is_no_key_and_a_question_without_conversations_is_counted(tmp_path: Path) -> None:
    """As Arrow writes rows of several kinds into one file."""
    said = [{"role": "user", "content": "Where?", "weight": None}, {"role": "assistant", "content": "There."}]
    kinds = dict.fromkeys(
        ("messages", "conversations", "blue_conversations", "prompt", "completion", "stream", "label")
    )
    rows = read(
        tmp_path, kinds | {"messages": said}, kinds | {"prompt": "Where?", "completion": "There."},
        kinds | {"blue_conversations": {}}, {"red_conversations": {"0": None}, "blue_conversations": None},
    )  # fmt: skip
    assert (weights(rows), rows.dropped) == ([[1.0], [1.0]], {"a question without conversations": 2})


def test_the_public_harmfulqa_schema_is_read_blue_to_learn_and_the_last_red_answer_to_penalise(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}] * 2
    public = {"id": 7, "topic": "t", "subtopic": "s", "question": "?", "blue_conversations": {"0": said, "1": None},
              "red_conversations": {"0": said}}  # fmt: skip
    rows = read(tmp_path, public)
    assert [(row.id, row.stream) for row in rows.rows] == [("7/blue/0", "blue"), ("7/red/0", "red")]
    assert weights(rows) == [[1.0, 1.0], [0.0, -1.0]]


def test_a_public_conversation_that_can_not_be_trained_on_leaves_the_others(tmp_path: Path) -> None:
    said = [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}]
    blue = {
        "0": said,
        "1": 3,
        "2": [{"from": "nobody", "value": "a"}],
        "3": [*said, None, {"from": "human"}],
        "4": said,
    }
    rows = read(tmp_path, {"id": "q", "question": "?", "blue_conversations": blue, "red_conversations": [3, said]},
                {"question": "?", "blue_conversations": "text"})  # fmt: skip
    assert [row.id for row in rows.rows] == ["q/blue/0", "q/blue/4", "q/red/1"]
    assert rows.dropped == {NO_MESSAGES: 2, ROLE: 1, NO_TEXT: 1, NO_CONVERSATIONS: 1}


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "nothing to train on: no rows"),
        ("[]", "nothing to train on: no rows"),
        ("question,answer\na,b\n", "row 1: broken JSON at line 1"),
        (GOOD.replace('"weight": 1', '"weight": NaN'), "NaN or Infinity"),
        (GOOD.replace('"weight": 1', '"weight": 1, "weight": 2'), "holds the key weight twice"),
        (GOOD + '\n{"messages": [' + json.dumps(SECRET), "row 2: broken JSON at line 2"),
        ("[" + GOOD, "the file ends before a .*: it was cut"),
        ("[" + GOOD + " " + GOOD + "]", "row 1: broken JSON at line 1"),
        ("[" + GOOD + "] 5", "something follows the end of the list"),
        (b"\xff\xfe" + GOOD.encode(), "line 1 is not UTF-8|row 1: broken JSON"),
        (GOOD.encode() + b"\n" + GOOD.encode() + b"\n\xff", "line 3 is not UTF-8"),
    ],
)
def test_a_file_that_is_not_rows_is_refused_in_one_line_that_shows_nothing(
    tmp_path: Path, body: str | bytes, why: str
) -> None:
    path = write(tmp_path, body, "my.jsonl")
    with pytest.raises(UsageError, match=why) as caught:
        read_rows([path])
    said = str(caught.value)
    assert said.startswith("my.jsonl: ")
    assert "\n" not in said
    assert SECRET not in said
    assert str(tmp_path) not in said


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.recursive(st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
                                 | st.text(max_size=8) | st.sampled_from(["\U0001f600", "\ud83d\ude00", "é\\u0041"]),
                                 lambda more: st.lists(more, max_size=3) | st.dictionaries(st.text(max_size=3), more),
                                 max_leaves=6), max_size=5),
    chunk=st.integers(1, 40), listed=st.booleans(), ascii_=st.booleans(),
)  # fmt: skip
def test_a_file_is_read_piece_by_piece_as_it_would_be_whole(
    folder: Path, values: list[object], chunk: int, listed: bool, ascii_: bool
) -> None:
    texts = [json.dumps(value, ensure_ascii=ascii_) for value in values]
    body = f"[{' , '.join(texts)}]\n" if listed else " \n".join(texts)
    if not listed and body.startswith("["):
        return  # the first of these is a list, and so the whole is read as one
    path = folder / "pieces.json"
    path.write_bytes(body.encode("utf-8", "surrogatepass") if ascii_ else body.encode("utf-8", "replace"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "CHUNK", chunk)
        patch.setattr(limits, "SMALL_ROW", chunk)
        held = JsonFile(path)
        found = list(held)
    how = "surrogatepass" if ascii_ else "replace"
    assert found == [json.loads(text.encode("utf-8", how).decode()) for text in texts]
    assert held.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_files_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.jsonl", "no such file"), (tmp_path, "is a folder"),
                      (Path("a\x00b"), "not a possible file name")):  # fmt: skip
        with pytest.raises(UsageError, match=why):
            read_rows([path])
    with pytest.raises(UsageError, match="nothing to train on"):
        read_rows([])


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=3) | st.sampled_from(["user", "assistant", "red"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "weight", "stream", "from", "value"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=20)
@given(values=st.lists(JSON, max_size=3))
def test_any_json_is_read_or_refused(folder: Path, values: list[object]) -> None:
    path = write(folder, values, "any.json")
    try:
        rows = read_rows([path])
    except UsageError:
        return
    assert all(math.isfinite(weight) for row in rows.rows for weight in row.weights if weight is not None)
    assert all(any(row.weights) for row in rows.rows)
