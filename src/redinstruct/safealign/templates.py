"""How a conversation becomes text, and where in that text each answer stands.

Promised: an answer's span starts exactly where the prompt for it ends (the text that the model will be given when it is
asked: *prefix preservation*), and ends with a stop token, so that the model learns to begin where it is asked and to
end. A template that cannot do so for a conversation is refused, never guessed at. Rendering is deterministic: a
template that asks for today's date gets a fixed one.

A tokenizer's own template is always used where it has one, since that is what the model will be asked in. Spans come
from its generation markers (``{% generation %}``, the convention of transformers), else from rendering each prefix.
A tokenizer without a template gets ``vicuna_v1.1`` (FastChat, Zheng et al. 2023; the template of Starling). Templates
come with a checkpoint and are code: they run in transformers' sandbox and see only roles and contents.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

import msgspec
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from redinstruct.errors import UsageError
from redinstruct.safetext import terminal
from redinstruct.types import Message

VICUNA = "vicuna_v1.1"
MAX_TEMPLATE = 2**18
_MARKER = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Several published templates write today's date into the system turn. A macro of that name shadows the clock.
_NO_CLOCK = (
    "{% macro strftime_now(format) %}{{ {'%Y-%m-%d': '2026-01-01', '%d %b %Y': '01 Jan 2026'}"
    ".get(format, '01 January 2026') }}{% endmacro %}"
)

Span = tuple[int, int]


class Template(msgspec.Struct, frozen=True):
    """A chat template. ``marked``: it says itself where answers are. ``own``: it came with the tokenizer."""

    name: str
    text: str
    marked: bool
    own: bool
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the UTF-8 text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Rendered(msgspec.Struct, frozen=True):
    """A conversation as text, and one span of characters per assistant message, stop token included."""

    text: str
    spans: tuple[Span, ...]


class Unrenderable(Exception):
    """A conversation has no faithful rendering; ``reason`` says why, in the words of a dropped row's count."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def bundled(name: str = VICUNA) -> Template:
    """A template that ships with the package."""
    if name != VICUNA:
        raise UsageError(f"{terminal(name)}: no such chat template is bundled, only {VICUNA}")
    text = (files("redinstruct.safealign") / "texts" / f"{name}.jinja").read_text(encoding="utf-8")
    return Template(name, text.rstrip("\n"), marked=True, own=False)


def choose(tokenizer: PreTrainedTokenizerBase, name: str | None = None) -> Template:
    """The template to train in: the named bundled one, else the tokenizer's own, else ``vicuna_v1.1``.

    It is tried on a small conversation first.

    Raises:
        UsageError: the tokenizer has no stop token, or is a slow one; or in this template an answer does not start
            where its prompt ends, or has no stop token.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError("its tokenizer gives no character offsets, which masks need; convert it to a fast tokenizer")
    if tokenizer.eos_token is None:
        raise UsageError("its tokenizer has no end-of-sequence token, so no answer could ever end; set eos_token")
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if name is not None or not own:
        template = bundled(name or VICUNA)
    elif len(own) > MAX_TEMPLATE:
        raise UsageError(f"its chat template has {len(own)} characters, more than the {MAX_TEMPLATE} that are run")
    else:
        template = Template("own", own, marked=bool(_MARKER.search(own)), own=True)
    probe = tuple(
        Message("user" if number % 2 else "assistant", text)
        for number, text in enumerate(("one", "two", "three", "four"), 1)
    )
    try:
        render(template, tokenizer, probe)
    except Unrenderable as error:
        hint = "" if name else f"; name another template ({VICUNA}) or mend it"
        raise UsageError(f"its chat template cannot be trained in: {error.reason}{hint}") from None
    return template


def render(
    template: Template,
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    wanted: Sequence[bool] | None = None,
) -> Rendered:
    """Render a conversation. ``wanted`` says of which messages the span is sought (None: of every answer).

    Answers that are not wanted have the span (0, 0).

    Raises:
        Unrenderable: the template refuses the roles, a wanted answer does not start where its prompt ends, or ends
            without a stop token.
    """
    chat = [{"role": message.role, "content": message.content} for message in messages]
    text, marked = _run(template, tokenizer, chat)
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    if template.marked and len(marked) != len(answers):
        raise Unrenderable("the template does not mark each answer")
    stops, marks = stop_tokens(tokenizer), _own_marks(tokenizer)
    spans = []
    for number, at in enumerate(answers):
        if wanted is None or wanted[at]:
            start = _prompt_end(template, tokenizer, chat, at, text)
            given = marked[number] if template.marked else None
            spans.append(_span(text, start, given, messages[at].content, stops, marks))
        else:
            spans.append((0, 0))
    return Rendered(text, tuple(spans))


def told_of(template: Template, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> dict[str, Any]:
    """What a card says of the template: its name and hash, its options, and the tokens that learnt answers end with."""
    return {
        "name": template.name,
        "sha256": template.sha256,
        "options": dict(template.options),
        "stops": [str(tokenizer.convert_ids_to_tokens(token)) for token in sorted(stops)],
    }


def prompt(template: Template, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text that asks for the next answer, special tokens written out (tokenize without adding any)."""
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return _run(template, tokenizer, chat, asking=True)[0]


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens with which an answer may end: all but those that begin, pad or stand for the unknown."""
    never = {tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token, None} - {tokenizer.eos_token}
    return tuple(token for token in control_tokens(tokenizer) if token not in never)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every token that means something else than its characters: in a message's text it would be an injection."""
    return _added(tokenizer, len(tokenizer), tuple(tokenizer.all_special_tokens))[0]


def _own_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens that were added for a purpose without being special, ``<think>`` and its like."""
    return _added(tokenizer, len(tokenizer), tuple(tokenizer.all_special_tokens))[1]


# A tokenizer gains tokens without becoming another object: its size and special tokens are part of the key.
@lru_cache(maxsize=4)
def _added(
    tokenizer: PreTrainedTokenizerBase, _size: int, special: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special added tokens and the others, the longest first."""
    added = tokenizer.added_tokens_decoder.values()
    control = {token.content for token in added if token.special} | set(special)
    marks = {token.content for token in added if token.content.strip()} - control
    longest_first = (tuple(sorted(texts, key=lambda text: (-len(text), text))) for texts in (control, marks))
    return next(longest_first), next(longest_first)


def _run(
    template: Template, tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], *, asking: bool = False
) -> tuple[str, list[Span]]:
    special: dict[str, Any] = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
    try:
        made: Any = render_jinja_template(
            conversations=[chat],
            chat_template=_NO_CLOCK + template.text,
            return_assistant_tokens_mask=template.marked,
            add_generation_prompt=asking,
            **special,
        )
    except Exception:
        # A template may raise whatever Python can, and the exception's own text may quote the conversation.
        raise Unrenderable("the template refuses these roles") from None
    texts, spans = made
    text: str = texts[0]
    marked: list[Span] = list(spans[0]) if template.marked else []
    return text, marked


def _prompt_end(
    template: Template, tokenizer: PreTrainedTokenizerBase, chat: list[dict[str, str]], at: int, text: str
) -> int:
    """Where the prompt for the answer ``at`` ends in the whole conversation's text."""
    asked = _run(template, tokenizer, chat[:at], asking=True)[0]
    if not text.startswith(asked):
        raise Unrenderable("the prompt of an answer is not what it is later rendered as")
    return len(asked)


def _said_at(text: str, start: int, said: str, marks: Sequence[str]) -> int:
    """Where an answer's own text begins. Templates strip it, or put white space or marks of their own before it.

    Such marks (an empty ``<think>`` block, say) are what the model is to write there, and so part of the answer.
    """
    at = start
    while said:
        at = len(text) - len(text[at:].lstrip())
        if text.startswith(said, at):
            break
        mark = next((mark for mark in marks if text.startswith(mark, at)), None)
        if mark is None:
            raise Unrenderable("an answer does not follow its prompt")
        at += len(mark)
    return at


def _span(text: str, start: int, marked: Span | None, content: str, stops: Sequence[str], marks: Sequence[str]) -> Span:
    """The span of an answer: from its prompt's end through its stop token, without the white space after that."""
    if marked is not None:
        begin, end = marked
        if text[min(start, begin) : max(start, begin)].strip():
            raise Unrenderable("the template's mark does not start where the prompt ends")
        body = text[start:end].rstrip()
        if not body.endswith(tuple(stops)):
            raise Unrenderable("the template's mark ends before the stop token")
        return start, start + len(body)
    said = content.strip()
    after = _said_at(text, start, said, marks) + len(said)
    rest = text[after:].lstrip()
    stop = next((stop for stop in stops if rest.startswith(stop)), None)
    if stop is None:
        raise Unrenderable("an answer ends without a stop token")
    return start, len(text) - len(rest) + len(stop)
