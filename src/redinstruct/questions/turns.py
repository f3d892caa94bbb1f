"""A conversation as a published row holds it: its last user turn is what is asked, the turns before it go with it.

Read are lists of ``{role, content}`` (OpenAI's messages, content a text or parts of text), ``{from, value}`` (ShareGPT)
and of one text (FastChat's ``turns``, as SORRY-Bench's). What follows the last user turn is somebody's answer, and is
left out.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence

from redinstruct.errors import BankError
from redinstruct.files import Fields, fold, kind_of, named
from redinstruct.types import Message, Role

TURNS = "turns"
"""FastChat's key, a list of the user's texts alone."""
KEYS = ("messages", "conversation", "conversations", TURNS)
"""The keys of a row that hold a conversation. The first one goes before a text, the others after."""

ROLES: Mapping[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "ai": "assistant", "bot": "assistant",
    "chatgpt": "assistant",
}  # fmt: skip
"""How published conversations name who speaks."""

_TEXT_PARTS = ("text", "input_text", "output_text")


def is_conversation(value: object) -> bool:
    """Whether a JSON value is a list of turns."""
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and _speaker(turn) for turn in value)


def conversation(value: object, what: str) -> tuple[tuple[Message, ...], str]:
    """The turns before the last user turn, and its text. ``what`` names the value for a message.

    Raises:
        BankError: it is no list of turns, nobody asks anything in it, or a turn has no known role or no text.
    """
    if isinstance(value, str):  # in a CSV cell
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise BankError(f"{what} is {kind_of(value)}, expected a list of turns")
    if what.endswith(TURNS) and len(value) == 1 and isinstance(value[0], str):
        value = [{"role": "user", "content": value[0]}]
    turns = [_turn(turn, f"{what}: turn {number}") for number, turn in enumerate(value, 1)]
    last = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
    if last is None:
        raise BankError(f"{what} holds no turn of a user: there is nothing to ask")
    # An empty system message says nothing; several servers refuse it.
    earlier = tuple(turn for turn in turns[:last] if turn.content.strip() or turn.role != "system")
    silent = next((number for number, turn in enumerate(turns[: last + 1], 1) if _blank(turn)), None)
    if silent is not None:
        raise BankError(f"{what}: turn {silent} is blank, expected text")
    return earlier, turns[last].content


def _blank(turn: Message) -> bool:
    return turn.role != "system" and not turn.content.strip()


def _speaker(turn: Fields) -> object:
    return turn.get("role") or turn.get("from")


def _turn(value: object, what: str) -> Message:
    if not isinstance(value, dict):
        raise BankError(f"{what} is {kind_of(value)}, expected an object")
    speaker = _speaker(value)
    role = ROLES.get(fold(speaker)) if isinstance(speaker, str) else None
    if role is None:
        shown = (
            named(speaker.strip()) if isinstance(speaker, str) else "missing" if speaker is None else kind_of(speaker)
        )
        raise BankError(f"{what}: role is {shown}, expected system, user or assistant")
    held = value["content"] if "content" in value else value.get("value")
    if isinstance(held, list):
        held = _parts(held, what)
    if not isinstance(held, str):
        raise BankError(f"{what} holds {kind_of(held)}, expected text")
    return Message(role, held)


def _parts(parts: Sequence[object], what: str) -> str:
    texts = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) and part.get("type") in _TEXT_PARTS else part
        if not isinstance(text, str):
            raise BankError(f"{what} holds a part that is not text (an image, say), and only text is asked")
        texts.append(text)
    return "".join(texts)
