"""An answer that came as server-sent events although nobody asked for a stream, put together to one body. Pure.

Events are read as the standard for them says: lines end at CR or LF and at nothing else (a line separator within a text
is text), an event's data may have several lines, ids and comments may stand in front. What an event adds is kept
whatever its shape is: strings are joined, lists (parts, log-probabilities) too. No event is passed over in silence.
"""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

from redinstruct.models.base import ModelError
from redinstruct.types import FailureReason

_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:(?:data|event|id|retry) ?:|:)")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_EVENT_ENDS = re.compile(r"\n\n+")
_END = "[DONE]"


def whole(data: bytes) -> bytes:
    """The body that the events of a stream make up; what is no stream of events comes back as it is.

    Raises:
        ModelError: the stream broke off, or one of its events did.
    """
    if data[:1] == b"{" or _BEGINS.match(data) is None:
        return data
    try:
        body = _body(_texts(data.decode("utf-8-sig", "replace")))
        if body is not None:
            return json.dumps(body).encode()
    except (ValueError, RecursionError):
        pass
    raise ModelError(FailureReason.INVALID_JSON, transient=True, note="the answer broke off")


class _Gathered(msgspec.Struct):
    """What the events have said so far of the one answer; ``told`` is all that is no piece of it."""

    message: Any = None
    text: Any = None
    logprobs: Any = None
    told: Any = msgspec.field(default_factory=dict)

    def add(self, part: Any) -> None:
        """Add an event's part: a piece of the message or text, or the message as far as it has come."""
        if not isinstance(part, dict) or not _is_same(self.told.get("index"), part.get("index")):
            return
        self.text = _longer(self.text, part.pop("text", None))
        self.logprobs = _longer(self.logprobs, part.pop("logprobs", None))
        delta, message = part.pop("delta", None), part.pop("message", None)
        if delta:
            self.message = _longer(self.message, delta)
        elif message:
            repeats = _content(message).startswith(_content(self.message))
            self.message = message if repeats else _longer(self.message, message)
        _update(self.told, part)

    @property
    def whole(self) -> Any:
        """The choice as a body has it, None where no event spoke of one."""
        pieces = {"message": self.message, "text": self.text, "logprobs": self.logprobs}
        said = {name: value for name, value in pieces.items() if value is not None}
        # An answer that ended without a word is an empty one.
        empty = {} if self.text is not None else {"message": {"content": None}}
        return {**empty, **self.told, **said} if self.told or said else None


def _body(texts: list[str]) -> Any:
    """The body of a stream's events; None where its end is missing. Raises as ``json.loads`` does.

    What is no object is a sign of life, and adds nothing; an object that cannot be read is a part that is lost.
    """
    body: Any = {}
    choice = _Gathered()
    for event in (json.loads(text) for text in texts if text.startswith("{")):
        choices = event.pop("choices", None)
        _update(body, event)
        for part in choices if isinstance(choices, list) else ():
            choice.add(part)
    if body.get("error"):
        return body
    ended = _END in texts or choice.told.get("finish_reason") is not None
    whole = choice.whole
    return {**body, "choices": [] if whole is None else [whole]} if ended else None


def _is_same(choice: object, part: object) -> bool:
    return choice is None or part is None or choice == part


def _content(message: Any) -> str:
    content = message.get("content") if isinstance(message, dict) else None
    return content if isinstance(content, str) else ""


def _texts(stream: str) -> list[str]:
    """The data of each event. Where events have no blank line between them, each line is one."""
    found: list[str] = []
    for event in _EVENT_ENDS.split(_LINE_ENDS.sub("\n", stream)):
        lines = (line.partition(":") for line in event.split("\n"))
        values = [value for name, _, value in lines if name.strip() == "data"]
        found += values if len(values) > 1 and not _is_json("\n".join(values)) else ["\n".join(values)]
    return [text.strip() for text in found]


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _longer(before: Any, piece: Any) -> Any:
    """A value with a piece added: texts and lists are joined, of objects each field."""
    if before is None or piece is None:
        return piece if before is None else before
    if isinstance(before, dict) and isinstance(piece, dict):
        for name, value in piece.items():
            before[name] = _longer(before.get(name), value)
        return before
    if isinstance(before, str) and isinstance(piece, str):
        return before + piece
    if isinstance(before, list):
        before += piece if isinstance(piece, list) else [piece]
        return before
    return [before, *piece] if isinstance(piece, list) and before else piece


def _update(before: Any, now: Any) -> None:
    """Take over an object's values, the latest of each; what was said is not taken back, and a set mark stays."""
    for name, value in now.items():
        known = before.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            _update(known, value)
        elif value is not None and not (known is True and value is False):
            before[name] = value
