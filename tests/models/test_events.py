"""A stream that nobody asked for holds the same answer as a body: no event of it is lost, whatever stands in it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from redinstruct.models.base import ModelError, Reply
from redinstruct.models.replies import read_reply
from redinstruct.types import FailureReason

DONE = "data: [DONE]\n\n"
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def stream(*events: object, ends: str = "\n\n") -> str:
    return "".join("data: " + json.dumps(event, ensure_ascii=False) + ends for event in events)


def piece(content: object, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": content}, **choice}]}


def read(text: str) -> Reply:
    return read_reply(text.encode())


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_what_ends_a_line_elsewhere_ends_none_in_an_event(mark: str) -> None:
    text = f"Grind{mark}the pigment, "
    # JSON escapes what is below the blank; the rest stands there as it is.
    assert read(stream(piece(text), piece("then mix it."), STOP)).text == f"{text}then mix it."


@pytest.mark.parametrize(
    "front", ["", "id: 1\n", "retry: 3000\n", "event: message\n", ": waiting\n\n" * 20, "\ufeff", "\n\n"]
)
@pytest.mark.parametrize("ends", ["\n\n", "\r\n\r\n", "\r\r", "\n"])
def test_a_stream_may_begin_and_end_its_lines_as_the_standard_lets_it(front: str, ends: str) -> None:
    assert read(front + stream(piece("Blue "), piece("paint"), STOP, ends=ends)).text == "Blue paint"


def test_an_event_may_have_several_lines() -> None:
    text = 'data: {"choices": [{"delta":\ndata: {"content": "Blue"}, "finish_reason": "stop"}]}\n\n'
    assert read(text).text == read(text.replace("\n", "\r\n")).text == "Blue"


def test_parts_are_read_as_in_a_body() -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": "Grind it?"}]}]
    reply = read(stream(piece(""), piece(thought), piece([{"type": "text", "text": "Blue "}]), piece("paint"), STOP))
    assert (reply.text, reply.thought) == ("Blue paint", "Grind it?")


def test_details_of_a_thought_are_kept() -> None:
    details = [
        {"choices": [{"delta": {"reasoning_details": [{"type": "reasoning.text", "text": part}]}}]} for part in "ab"
    ]
    reply = read(stream(*details, piece("Blue"), STOP))
    assert (reply.text, reply.thought) == ("Blue", "ab")


def test_a_continued_text_and_log_probabilities_come_through() -> None:
    assert read(stream({"choices": [{"text": "Blue "}]}, {"choices": [{"text": "paint"}]}) + DONE).text == "Blue paint"
    tokens = [{"content": [{"token": part, "top_logprobs": [{"token": part, "logprob": -1}]}]} for part in ("Bl", "ue")]
    reply = read(stream(*(piece(part, logprobs=given) for part, given in zip(("Bl", "ue"), tokens, strict=True)), STOP))
    assert [choice.token for choice in reply.choices] == ["Bl", "ue"]


def test_a_message_that_repeats_what_was_said_is_not_said_twice() -> None:
    whole = {"choices": [{"message": {"content": "Blue paint"}, "finish_reason": "stop"}]}
    assert read(stream(piece("Blue "), piece("paint"), whole)).text == "Blue paint"
    assert read(stream(whole)).text == "Blue paint"


def test_halves_of_a_character_in_two_events_are_one() -> None:
    halves = (r"\ud83d", r"\ude00")
    text = "".join(f'data: {{"choices": [{{"delta": {{"content": "{half}"}}}}]}}\n\n' for half in halves)
    assert read(text + DONE).text == "\U0001f600"


def test_a_filter_speaks_in_a_stream_too() -> None:
    marked = {"choices": [], "prompt_filter_results": [{"content_filter_results": {"hate": {"filtered": True}}}]}
    assert read(stream(marked, STOP)).filtered
    flags = [piece("", content_filter_results={"hate": {"filtered": filtered}}) for filtered in (True, False)]
    assert read(stream(*flags, STOP)).filtered


@pytest.mark.parametrize(
    "text",
    [
        stream(piece("Blue ")),
        stream(piece("Blue "), piece("paint"), STOP)[:-20],
        stream(piece("Blue ")) + 'data: {"choices": [{"delta": {"con\n\n' + stream(STOP),
        'data: {"x": ' + '{"x": ' * 100_000 + "\n\n" + DONE,
    ],
)
def test_a_stream_of_which_a_part_is_lost_is_no_answer(text: str) -> None:
    with pytest.raises(ModelError) as broken:
        read(text)
    assert (broken.value.reason, broken.value.transient) == (FailureReason.INVALID_JSON, True)


def test_a_stream_without_an_answer_is_none() -> None:
    with pytest.raises(ModelError) as none:
        read("data: {}\n\n" + DONE)
    assert none.value.reason == FailureReason.NO_CHOICES


def test_what_is_no_event_adds_nothing() -> None:
    assert read("data: ping\n\n" + stream(piece("Blue")) + "data:\n\n" + DONE).text == "Blue"
