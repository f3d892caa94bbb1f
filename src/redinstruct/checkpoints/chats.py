"""A chat as a checkpoint's own template writes it: one rendering, for what is trained and for what is asked.

Rendering is deterministic: a template that asks for today's date gets a fixed one, so that a run asks tomorrow what it
asked today, and a model is asked what it was trained in. Templates come with a checkpoint and are code: they run in
transformers' sandbox and see roles, contents and the options that the user gave (``enable_thinking``, say).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from redinstruct.errors import UsageError
from redinstruct.safetext import terminal
from redinstruct.types import Message

# Several published templates write today's date into the system turn. A macro of that name shadows the clock.
_NO_CLOCK = (
    "{% macro strftime_now(format) %}{{ {'%Y-%m-%d': '2026-01-01', '%d %b %Y': '01 Jan 2026'}"
    ".get(format, '01 January 2026') }}{% endmacro %}"
)
_OURS = frozenset({
    "conversation", "messages", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize",
    "continue_final_message", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs",
})  # fmt: skip


class TemplateRefused(Exception):
    """The template does not take these messages; the text is the first line of its reason."""


class LeavesOut(TemplateRefused):
    """It takes them, and what ``role`` says is not in the text: a model would be asked, or trained, without it."""

    def __init__(self, role: str) -> None:
        super().__init__(f"leaves out what the {role} says")


def own_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The chat template that came with the tokenizer; of several, the default one."""
    own: Any = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    return own or None


def check_options(options: Mapping[str, Any], flag: str) -> None:
    """Pass options that a template may have.

    Raises:
        UsageError: a name is none, or is an argument of the rendering itself.
    """
    for name in options:
        if not name.isidentifier() or name in _OURS:
            raise UsageError(f"{flag}: {terminal(name)} is no option of a chat template (enable_thinking is one, say)")


def render(
    tokenizer: PreTrainedTokenizerBase,
    template: str,
    messages: Sequence[Message],
    *,
    asking: bool = False,
    continuing: bool = False,
    options: Mapping[str, Any] | None = None,
) -> str:
    """The chat as text, special tokens written out (tokenize it without adding any).

    ``asking``: up to where the next answer begins; ``continuing``: the last message is an answer's beginning.

    Raises:
        TemplateRefused: the template does not take these roles, or is broken.
        LeavesOut: what a user or the system says is not in the text.
    """
    try:
        text = str(
            tokenizer.apply_chat_template(
                [{"role": message.role, "content": message.content} for message in messages],
                chat_template=_NO_CLOCK + template,
                tokenize=False,
                add_generation_prompt=asking,
                continue_final_message=continuing,
                **(options or {}),
            )
        )
    except Exception as error:  # a template may raise whatever Python can
        lines = str(error).strip().splitlines()
        raise TemplateRefused(lines[0][:200] if lines else type(error).__name__) from None
    for message in messages:
        if message.role in ("user", "system") and not _holds(text, message.content):
            raise LeavesOut(message.role)
    return text


def _holds(text: str, said: str) -> bool:
    """Whether a rendered text has what was said, blanks apart: as it is, or as a string of JSON."""
    if said in text:
        return True
    whole = _without_blanks(text)
    return any(_without_blanks(one) in whole for one in (said, json.dumps(said, ensure_ascii=False)[1:-1]))


def _without_blanks(text: str) -> str:
    return "".join(text.split())
