"""Conversations to train on, read from files: each assistant message with a signed weight (design 7).

Promised: a row that cannot be trained on (null, empty, a foreign role, no answer, something else than text) is left out
and counted by its reason, and never sinks its file; a file that is not rows at all, or has none of use, is refused with
one line that never shows a text. Nothing is silently left out. Every weight is finite. Files of any size are read.

Read: what ``redinstruct export`` writes; chat rows of others (``{"messages": [{"role", "content"}]}``), ShareGPT
(``{"conversations": [{"from", "value"}]}``), Alpaca (``instruction``, ``input``, ``output``), TRL's ``prompt`` with
``completion`` (and ``label``: KTO) or ``chosen`` and ``rejected`` (DPO), and the public HARMFULQA schema; JSON or JSON
Lines, told apart by content. The public schema holds no verdicts: a blue conversation's answers are learnt, and of a
red one the last answer is penalised.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from redinstruct.errors import UsageError
from redinstruct.files import Fields, JsonFile, Malformed, fold
from redinstruct.prompts.rows import MessageFields, MessagesRow
from redinstruct.questions.halves import sign
from redinstruct.questions.turns import ROLES
from redinstruct.safetext import terminal
from redinstruct.types import Message

Stream = Literal["blue", "general", "red"]
STREAMS: tuple[Stream, ...] = get_args(Stream)

NO_ROWS = "not an object with messages"
NO_MESSAGES = "no messages"
UNANSWERED = "a question without conversations"
NO_CONVERSATIONS = "conversations that are neither an object nor a list"
ROLE = "a message of another role than system, user and assistant"
NO_TEXT = "a message without text"
NOT_TEXT = "a message that is not text alone"
SURROGATE = "half a surrogate pair in a message, which no tokenizer reads"
NO_QUESTION = "an empty question"
NO_ANSWER = "no answer of the assistant"
WEIGHT = "a weight that is not a finite number"
SIZE = "a weight that is too large or too small for a step (1e-6 to 1e6)"
LABEL = "a label that is neither yes nor no"
MISPLACED = "a weight on a message that is not the assistant's"
STREAM = "a stream that is none of blue, general and red"
MASKED = "every answer masked"
_TEXT_PARTS = ("text", "input_text", "output_text")


class Row(msgspec.Struct, frozen=True):
    """One conversation. ``weights`` has one entry per message: None where it is not the assistant's.

    Above 0 learn, 0 mask, below 0 penalise. ``stream`` is ``red`` exactly where something is penalised.
    """

    id: str
    messages: tuple[Message, ...]
    weights: tuple[float | None, ...]
    stream: Stream
    source: str = ""

    @property
    def plain(self) -> MessagesRow:
        """The row as an export writes it."""
        return {
            "messages": list(map(_spoken, self.messages, self.weights)),
            "stream": self.stream,
            "id": self.id,
            "source": self.source,
        }


def _spoken(message: Message, weight: float | None) -> MessageFields:
    said: MessageFields = {"role": message.role, "content": message.content}
    return said if weight is None else {**said, "weight": weight}


def row_of(plain: MessagesRow) -> Row:
    """The row that stands in a plain one of this program's own."""
    return _row(plain, "", None, Counter())


class Rows(msgspec.Struct, frozen=True):
    """What was read: rows in the files' order.

    ``dropped`` counts the rows that are not here, ``masked`` the answers whose weight was set to 0, both by reason;
    ``files`` are (name, sha256 of the bytes).
    """

    rows: tuple[Row, ...]
    dropped: dict[str, int]
    masked: dict[str, int]
    files: tuple[tuple[str, str], ...]

    def count(self, stream: Stream) -> int:
        """How many rows the stream has."""
        return sum(row.stream == stream for row in self.rows)


def read_rows(paths: Sequence[Path], *, stream: Stream | None = None) -> Rows:
    """Read conversations from files. ``stream`` is that of rows which do not say theirs (else ``general``).

    A weight below 0 makes a row red whatever it says; a row that says red without weighing its answers is penalised
    for the last one only, since the first answers of a red conversation are benign. An empty answer, and the last
    answer of a row (or any message) that is marked as cut off, are masked; an answer before any question is left out.

    Raises:
        UsageError: a file cannot be read or is not rows, or no row is left.
    """
    rows: list[Row] = []
    dropped, masked = Counter[str](), Counter[str]()
    files = []
    for path in paths:
        held = JsonFile(path)
        for number, value in enumerate(held, 1):
            name = f"{path.stem}:{number}"
            try:
                said = list(_conversations(value))
            except Malformed as error:
                dropped[str(error)] += 1
                continue
            for at, one in enumerate(said):
                try:
                    row = _row(one, f"{name}.{at}" if at else name, stream, masked)
                except Malformed as error:
                    dropped[str(error)] += 1
                    continue
                if any(row.weights):
                    rows.append(row)
                else:
                    dropped[MASKED] += 1
        files.append((terminal(path.name), held.sha256))
    if not rows:
        named = ", ".join(name for name, _ in files) or "no file"
        why = "; ".join(f"{reason} ({count:,})" for reason, count in dropped.items()) or "no rows"
        raise UsageError(f"{named}: nothing to train on: {why}")
    return Rows(tuple(rows), dict(dropped), dict(masked), tuple(files))


# ---- one value of a file as conversations ----


def _conversations(value: object) -> Iterator[Fields]:
    """A published row as rows of messages: one, but two for a pair to prefer in, and many for a public question."""
    if not isinstance(value, Mapping):
        raise Malformed(NO_ROWS)
    # A null is no key: where a file's rows are of several kinds, Arrow gives each the other kinds' keys.
    said: Fields = {str(key): entry for key, entry in value.items() if entry is not None}
    if "blue_conversations" in said or "red_conversations" in said:
        yield from _published(said)
    elif "messages" in said or "conversations" in said:
        yield said
    elif "prompt" in said and ("chosen" in said or "rejected" in said):
        for key, weight in (("chosen", 1.0), ("rejected", -1.0)):
            yield {**said, "messages": _asked(said["prompt"], said.get(key), weight)}
    elif "prompt" in said and "completion" in said:
        wished = sign(said.get("label", True))
        if wished is None:
            raise Malformed(LABEL)
        yield {**said, "messages": _asked(said["prompt"], said["completion"], 1.0 if wished else -1.0)}
    elif "instruction" in said and ("output" in said or "response" in said):
        more = said.get("input") or said.get("context") or ""
        asked = f"{said['instruction']}\n\n{more}" if isinstance(more, str) and more.strip() else said["instruction"]
        yield {**said, "messages": _asked(asked, said.get("output", said.get("response")), None)}
    else:
        raise Malformed(NO_MESSAGES)


def _asked(prompt: object, answer: object, weight: float | None) -> list[Any]:
    """A prompt (a text or messages) and its answer (likewise) as messages; the last answer has the weight."""
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    after = [{"role": "assistant", "content": answer}] if isinstance(answer, str) else answer
    if not isinstance(before, list) or not isinstance(after, list) or not after or not isinstance(after[-1], Mapping):
        raise Malformed(NO_MESSAGES)
    whole = after if after[: len(before)] == before else [*before, *after]  # a pair may hold the prompt in each half
    return [*whole[:-1], {**whole[-1], **({} if weight is None else {"weight": weight})}]


def _published(said: Fields) -> Iterator[Fields]:
    """The conversations of a question of the public HARMFULQA schema, each a row of its colour."""
    found = False
    for stream in ("blue", "red"):
        held = said.get(f"{stream}_conversations")
        if held is None:
            continue
        if not isinstance(held, Mapping | list):
            raise Malformed(NO_CONVERSATIONS)
        for key, conversation in held.items() if isinstance(held, Mapping) else enumerate(held):
            if conversation is not None:
                found = True
                name = f"{said.get('id', '')}/{stream}/{key}"
                turns = [t for t in conversation if t is not None] if isinstance(conversation, list) else conversation
                yield {"conversations": turns, "stream": stream, "id": name, "source": "published"}
    if not found:
        raise Malformed(UNANSWERED)


def _row(value: Fields, name: str, named: Stream | None, masked: Counter[str]) -> Row:
    said = _stream(value)
    messages, wished, cut = _messages(value)
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if not answers:
        raise Malformed(NO_ANSWER)
    weights = [_wished(wished, i, answers, said or named) if i in answers else None for i in range(len(messages))]
    if value.get("complete") is False or value.get("truncated") is True:
        cut.add(answers[-1])
    first = next((i for i, message in enumerate(messages) if message.role == "user"), len(messages))
    for i in answers:
        reason = "cut off" if i in cut else "empty answer" if not messages[i].content.strip() else None
        reason = "answer before any question" if i < first else reason
        if reason and weights[i]:
            weights[i] = 0.0
            masked[reason] += 1
    if any(weight is not None and weight < 0 for weight in weights):
        stream: Stream = "red"
    else:
        # A row that says red and penalises nothing can still teach its benign turns; those are a safe answer's.
        stream = said or named or "general"
        stream = "blue" if stream == "red" else stream
    kept = [i for i, message in enumerate(messages) if i > first or message.role != "assistant"]
    source, own = value.get("source"), value.get("id")
    return Row(
        id=str(own) if isinstance(own, str | int) and not isinstance(own, bool) else name,
        messages=tuple(messages[i] for i in kept),
        weights=tuple(weights[i] for i in kept),
        stream=stream,
        source=source if isinstance(source, str) else "",
    )


def _wished(wished: Mapping[int, float], at: int, answers: Sequence[int], stream: Stream | None) -> float:
    """The weight of an answer; where its row weighs none of them, that of its stream."""
    if wished:
        return wished.get(at, 0.0)
    if stream == "red":
        return -1.0 if at == answers[-1] else 0.0
    return 1.0


def _stream(value: Fields) -> Stream | None:
    found = value.get("stream")
    if found is None:
        return None
    for stream in STREAMS:
        if found == stream:
            return stream
    raise Malformed(STREAM)  # what another word means, red say, must not be guessed


def _messages(value: Fields) -> tuple[list[Message], dict[int, float], set[int]]:
    """The messages, the weights by index where they are given, and which messages are marked as cut off."""
    held = value.get("messages", value.get("conversations"))
    if not isinstance(held, list) or not held:
        raise Malformed(NO_MESSAGES)
    messages: list[Message] = []
    weights: dict[int, float] = {}
    cut: set[int] = set()
    for entry in held:
        message, weight, is_cut = _message(entry)
        if message.role == "system" and not message.content.strip():
            continue
        if weight is not None:
            weights[len(messages)] = weight
        if is_cut:
            cut.add(len(messages))
        messages.append(message)
    return messages, weights, cut


def _message(entry: object) -> tuple[Message, float | None, bool]:
    if not isinstance(entry, Mapping):
        raise Malformed(NO_MESSAGES)
    spoken = entry.get("role") or entry.get("from")
    role = ROLES.get(fold(spoken)) if isinstance(spoken, str) else None
    if role is None:
        raise Malformed(ROLE)
    content = _text(entry["content"] if "content" in entry else entry.get("value"))
    if any("\ud800" <= c <= "\udfff" for c in content):
        raise Malformed(SURROGATE)
    if role == "user" and not content.strip():
        raise Malformed(NO_QUESTION)
    weight = _weight(entry.get("weight"))
    if weight and role != "assistant":
        raise Malformed(MISPLACED)
    is_cut = entry.get("truncated") is True or entry.get("finish_reason") == "length"
    return Message(role, content), weight if role == "assistant" else None, is_cut


def _text(content: object) -> str:
    """A message's text, or the text of its parts."""
    if isinstance(content, list):
        parts = []
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) and part.get("type") in _TEXT_PARTS else part
            if not isinstance(text, str):
                raise Malformed(NOT_TEXT)
            parts.append(text)
        return "".join(parts)
    if content is None:
        raise Malformed(NO_TEXT)
    if not isinstance(content, str):
        raise Malformed(NOT_TEXT)
    return content


def _weight(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Malformed(WEIGHT)
    try:
        weight = float(value)
    except OverflowError:
        weight = math.inf
    if not math.isfinite(weight):
        raise Malformed(WEIGHT)
    # Sums of weights are divided by, in float32: 1e-300 would be nothing there, and 1e38 without end.
    if weight and not 1e-6 <= abs(weight) <= 1e6:
        raise Malformed(SIZE)
    return weight
