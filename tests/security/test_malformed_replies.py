"""Replies of endpoints by a grammar of its own, from their bytes to a judge's label: none is unharmful.

No other test, and no fixture, is made by this grammar. Its words are inert, and none is the mark of a harmless answer.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from redinstruct.judges.paper import NOT_HARMFUL, parse
from redinstruct.judges.rubric import RubricFigures, read_json, read_line
from redinstruct.models import Reply
from redinstruct.models.base import ModelError
from redinstruct.models.failures import Filtered
from redinstruct.models.replies import read_reply
from tests.support.tally import security, tally

WORDS = (
    "blue",
    "a colour",
    "",
    " ",
    "VERDICT",
    "\u202e",
    "null",
    "<b>",
    "0",
    "{",
    "```json",
    "[[A",
    " ]]",
    "[[B]]",
    "\ud800",
    "\x00",
)
ENDS: tuple[Any, ...] = (
    "stop",
    "length",
    "content_filter",
    "SAFETY",
    "error",
    "tool_calls",
    "",
    7,
    None,
    [],
    {"a": 1},
    "end_turn",
)


class Grammar:
    """Bodies of answers with status 200: a chat completion, something near it, or none at all."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)

    def body(self) -> bytes:
        """One body."""
        made = self.dice.choice((self.whole, self.whole, self.whole, self.stream, self.page, self.error))()
        data = (
            made.encode("utf-8", "surrogatepass")
            if self.dice.random() < 0.9
            else made.encode("utf-16", "surrogatepass")
        )
        if self.dice.random() < 0.2:
            data = data[: self.dice.randrange(len(data) + 1)]
        if self.dice.random() < 0.1:
            at = self.dice.randrange(len(data) + 1)
            data = data[:at] + self.dice.randbytes(3) + data[at:]
        return data

    def words(self) -> str:
        return " ".join(self.dice.choices(WORDS, k=self.dice.randrange(4)))

    def value(self, depth: int = 0) -> Any:
        """Anything that JSON has."""
        kind = self.dice.randrange(6 if depth < 3 else 4)
        if kind == 4:
            return [self.value(depth + 1) for _ in range(self.dice.randrange(3))]
        if kind == 5:
            names = ("text", "type", "content", "refusal", "thinking", self.words())
            return {self.dice.choice(names): self.value(depth + 1) for _ in range(self.dice.randrange(3))}
        return (None, self.words(), self.dice.choice((0, -1, 1e300, 2**70, True, False)), self.words())[kind]

    def one_of(self, usual: Callable[[], Any]) -> Any:
        return usual() if self.dice.random() < 0.8 else self.value()

    def whole(self) -> str:
        def message() -> Any:
            said = {"role": "assistant", "content": self.one_of(self.words)}
            for name in ("refusal", "reasoning_content", "tool_calls", "audio"):
                if self.dice.random() < 0.15:
                    said[name] = self.value()
            return said

        def choice() -> Any:
            return {"index": 0, "message": self.one_of(message), "finish_reason": self.dice.choice(ENDS)}

        body = {
            "id": self.value(),
            "choices": self.one_of(lambda: [self.one_of(choice) for _ in range(self.dice.randrange(3))]),
            "usage": self.one_of(lambda: {"prompt_tokens": self.value(), "completion_tokens": 3}),
        }  # fmt: skip
        if self.dice.random() < 0.1:
            body["error"] = self.value()
        for name in [name for name in body if self.dice.random() < 0.05]:
            del body[name]
        text = json.dumps(self.one_of(lambda: body), ensure_ascii=self.dice.random() < 0.5)
        return text if self.dice.random() < 0.9 else text + self.dice.choice((text, "\n", "]", "\x00", "\ufeff"))

    def stream(self) -> str:
        events = [{"choices": [{"delta": self.one_of(lambda: {"content": self.words()})}]} for _ in range(3)]
        lines = [f"data: {json.dumps(self.one_of(lambda event=event: event))}" for event in events]  # type: ignore[misc]
        return "\n\n".join([*lines, self.dice.choice(("data: [DONE]", "", ": over"))])

    def page(self) -> str:
        return f"<!DOCTYPE html><title>{self.words()}</title>{self.words()}"

    def error(self) -> str:
        return json.dumps({"error": self.one_of(lambda: {"message": self.words(), "code": self.value()})})


NONCE = "0123456789abcdef"


def kind_of(data: bytes, read: Callable[[bytes], Reply]) -> str:
    """What a judge's reply in these bytes becomes: its label by the paper's judge, or why it has none."""
    try:
        text = read(data).text
    except (ModelError, Filtered) as error:
        return type(error).__name__
    if not text:
        return "no text"
    if isinstance(read_line(text, NONCE), RubricFigures) or isinstance(read_json(text, NONCE), RubricFigures):
        return "unharmful"  # whatever its figures say: nobody gave this verdict
    return parse(text) or "unparsable"


def kinds(count: int, seed: int, read: Callable[[bytes], Reply] = read_reply) -> Counter[str]:
    grammar = Grammar(seed)
    return Counter(kind_of(grammar.body(), read) for _ in range(count))


def without_blanks(data: bytes) -> Reply:
    """A planted fault: what is said is not taken as it stands."""
    reply = read_reply(data)
    return Reply(reply.text.replace(" ", "") if reply.text else None)


def as_text(data: bytes) -> Reply:
    """Another: what is no reply is text."""
    try:
        return read_reply(data)
    except (ModelError, Filtered):
        return Reply(NOT_HARMFUL)


def test_malformed_replies_are_typed_or_read_and_none_is_unharmful() -> None:
    found = kinds(1_000, seed=1)
    assert set(found) <= {"ModelError", "Filtered", "no text", "harmful", "unparsable"}
    assert min(found.values()) > 5, "the grammar comes by every kind"


@security
def test_ten_thousand_malformed_replies() -> None:
    found = kinds(10_000, seed=2)
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.items()))
    tally("A2: malformed replies by a grammar of its own: unharmful", 10_000, found["unharmful"], told)
    missed = [read for read in (without_blanks, as_text) if not kinds(10_000, 2, read)["unharmful"]]
    tally("A2: malformed replies: planted faults that are not found", 2, len(missed))
