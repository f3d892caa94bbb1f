"""What an endpoint does not take, learned from its own answer, and what is sent instead. Pure.

Reasoning models refuse ``max_tokens`` (``max_completion_tokens`` is sent instead), a temperature, ``top_p``, ``stop``;
others a seed, a schema or log-probabilities (the field is left out); some chat templates a system message (it is put in
front of the user's turn). An endpoint says so once; it is remembered for that model as long as the process lives, and
said in a note. What the user set by an option is never changed, and neither is a value that is only out of range.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from redinstruct.types import Conversation, Message

SYSTEM = "system"
_FIELDS = {
    "max_completion_tokens": r"max_completion_tokens",
    "max_tokens": r"max_tokens",
    "temperature": r"temperature",
    "top_p": r"top_?p\b",
    "seed": r"\bseed\b",
    "stop": r"['\"`]stop['\"`]|\bstop (?:sequences?|words?|parameter|is not)|(?:parameter|argument|field):? stop\b",
    "response_format": r"response_?format|json_?schema|json mode|structured outputs?|guided",
    "top_logprobs": r"top_logprobs",
    "logprobs": r"log_?-?prob",
}
_NAMED = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _FIELDS.items()}
_REFUSES = re.compile(
    r"(?:un|not |n't |no longer )support|unrecogni[sz]ed|unknown (?:name|parameter|field|argument|keyword)"
    r"|unexpected keyword|extra (?:inputs|fields)|cannot find field|not permitted|not allowed|deprecated"
    r"|not (?:available|compatible|implemented|enabled)|cannot both|cannot be (?:used|specified|set)|mutually exclusive"
    r"|(?:may |can |is |are )?only (?:be set|the default|[\w.]+ (?:is|are) (?:allowed|supported)|supports?)"
    r"|use '?max_completion_tokens",
    re.IGNORECASE,
)
_NO_SYSTEM = re.compile(
    r"system (?:role|messages?|prompts?|instructions?) (?:is|are|was )?\s?(?:not|un)|(?:not|n't) support (?:the )?"
    r"['\"`]?system|developer instruction is not enabled|roles must alternate"
    r"|only user(?:,| and) (?:and )?(?:assistant|model)",
    re.IGNORECASE,
)
_CODES = re.compile(r"unsupported(?:parameter|value)|extraforbidden|unknownparameter|unrecognizedparameter")


def refused(codes: Iterable[str], words: Iterable[str], named: Iterable[str]) -> tuple[str, ...]:
    """The fields of a request that an error says are not taken.

    ``codes`` are lower case without marks; ``named`` are the fields that the error names apart (``param``, ``loc``).
    """
    texts = [*words]
    said = " ".join(texts)
    if _NO_SYSTEM.search(said) is not None:
        return (SYSTEM,)
    if _REFUSES.search(said) is None and not any(map(_CODES.fullmatch, codes)):
        return ()
    apart = tuple(name for name in named if name in _FIELDS)
    if apart:
        return apart
    # The field that is named first is the one that is not taken: "max_tokens ... Use 'max_completion_tokens' instead".
    found = ((match.start(), name) for name, pattern in _NAMED.items() if (match := pattern.search(said)) is not None)
    first = min(found, default=None)
    return () if first is None else (first[1],)


class Adapted:
    """What is known of one model behind an endpoint: the fields that it does not take, each with a note."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.known: frozenset[str] = frozenset()
        """The fields that are sent in another form, or not at all."""

    def learn(self, named: Iterable[str], note: str | None) -> None:
        """Take note of the fields that were refused."""
        for name in named:
            self.notes.setdefault(name, _told(name) + (f" ({note})" if note else ""))
        self.known = frozenset(self.notes)

    def fields(self, fields: dict[str, object], messages: Conversation) -> dict[str, object]:
        """The request's fields in the form that the endpoint takes: a conversation's system message, too."""
        if not self.notes:
            return fields
        if "messages" in fields:
            fields["messages"] = self.messages(messages)
        if "max_tokens" in self.notes:
            fields["max_completion_tokens"] = fields.pop("max_tokens")
        if "logprobs" in self.notes:
            fields.pop("top_logprobs", None)
        return {name: value for name, value in fields.items() if name not in self.notes}

    def messages(self, messages: Conversation) -> Conversation:
        """The conversation, its system message folded into the user's turn where that is needed."""
        return folded(messages) if SYSTEM in self.notes else messages


def folded(messages: Conversation) -> Conversation:
    """A conversation without system messages: each stands in front of the user's next turn, a blank line between."""
    turns: list[Message] = []
    waiting: list[str] = []
    for message in messages:
        if message.role == SYSTEM:
            waiting += [message.content] if message.content.strip() else []
        elif waiting and message.role == "user":
            turns.append(Message("user", "\n\n".join((*waiting, message.content))))
            waiting = []
        else:
            turns.append(message)
    if waiting:
        turns.append(Message("user", "\n\n".join(waiting)))
    return tuple(turns)


def _told(name: str) -> str:
    if name == SYSTEM:
        return "takes no system message: it stands in front of the user's turn"
    if name == "max_tokens":
        return "takes no max_tokens: max_completion_tokens is sent"
    return f"takes no {name}: it is not sent"
