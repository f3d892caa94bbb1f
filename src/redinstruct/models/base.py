"""The one interface of target, teacher and judge: ``async generate(batch) -> replies``.

A fake, an endpoint and a local checkpoint are the same to everything above this room. What is *not* here: retries,
limits, batching and budgets. Those are the engine's, so that they are written once and tested on a virtual clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec

from redinstruct.prompts.thoughts import spoken
from redinstruct.types import Conversation, FailureReason, Sampling

Options = Mapping[str, object]
"""What a user sets by name: fields of a request, settings of a chat template. Their values are JSON."""
# Finish reasons of an answer that is not whole, compared without case and marks. Mistral says model_length, Anthropic
# model_context_window_exceeded; the last line is of providers that failed in the middle.
_CUT = frozenset(
    {"length", "maxtokens", "maxoutputtokens", "modellength", "maxlength", "tokenlimit", "contextlength",
     "maximumtokens", "modelcontextwindowexceeded", "contextwindowexceeded", "incomplete", "timeout", "cancelled",
     "error", "abort", "aborted", "networkerror", "insufficientsystemresource"}
)  # fmt: skip


def is_cut(finish: str | None) -> bool:
    """Whether a finish reason says that a limit, or a failure, ended the reply."""
    if finish is None or finish == "stop":
        return False
    plain = "".join(character for character in finish.lower() if character.isalnum())
    return plain.removeprefix("finishreason") in _CUT


class Request(msgspec.Struct, frozen=True):
    """One call. ``prefix`` is the leading part of the last message that other requests share (for prefix caches).

    ``response_format`` is the JSON of the OpenAI-compatible field of that name; ``top_logprobs`` above 0 asks for the
    log-probabilities of that many alternatives at each token. A model that has no such thing leaves both unheeded.
    ``echo`` asks for nothing new: the reply's ``choices`` are the tokens of the last message's own text, as it stands,
    with their log-probabilities. Only endpoints with ``/completions`` answer that; others raise, or give none.
    ``plain`` has the last message's text continued as it stands, without a chat template: endpoints' ``/completions``.
    """

    messages: Conversation
    sampling: Sampling
    prefix: str = ""
    response_format: str | None = None
    top_logprobs: int = 0
    echo: bool = False
    plain: bool = False


class TokenChoice(msgspec.Struct, frozen=True):
    """One token of a reply: its text, and the best alternatives at its place (itself among them) with their logs."""

    token: str
    alternatives: tuple[tuple[str, float], ...]


class Reply(msgspec.Struct, frozen=True):
    """One answer. ``text`` is None or empty when there is none; ``filtered`` when the provider withheld it.

    ``choices`` are its tokens with their alternatives, where they were asked for and given. ``note`` is what the
    endpoint says to an answer that it withheld, made as that of :class:`ModelError`.

    ``text`` is what was said, to the byte; a thought may stand in it. ``thought`` is one that the endpoint told apart;
    ``thought_opened`` says that the prompt itself ended in the mark that opens one.
    """

    text: str | None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    filtered: bool = False
    choices: tuple[TokenChoice, ...] = ()
    note: str | None = None
    thought: str | None = None
    thought_opened: bool = False

    @property
    def answer(self) -> str:
        """The text without the model's thought: what a judge or a teacher says.

        A thought without an end is all thought: a verdict, or a row, that is only weighed is none.
        """
        return spoken(self.text or "", opened=self.thought_opened, cut=True).answer


def longest_answer(model: object, asked: int) -> int | None:
    """Tokens that the answers to one request may have in all, where ``asked`` is what the request itself allows.

    An option of the model's may allow more, or several answers; None: one takes the bound away (-1 is none, to
    llama.cpp).
    """
    given = getattr(model, "options", None)
    options: Options = given if isinstance(given, Mapping) else {}
    allowed = (options.get("max_tokens", asked), options.get("max_completion_tokens"))
    bounds = [value for value in allowed if isinstance(value, int)]
    several = options.get("n")
    if not bounds or min(bounds) <= 0:
        return None
    return max(bounds) * (max(1, several) if isinstance(several, int) else 1)


class ModelError(Exception):
    """One request gave no reply. ``transient`` failures may be tried again.

    ``retry_after`` is in seconds, where the endpoint asked for a pause. ``note`` is a short, already redacted text
    from the endpoint (never a key, never an address). ``refused`` names fields of the request that it does not take.
    """

    def __init__(
        self,
        reason: FailureReason,
        *,
        transient: bool = False,
        retry_after: float | None = None,
        note: str | None = None,
        refused: tuple[str, ...] = (),
    ) -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.transient = transient
        self.retry_after = retry_after
        self.note = note
        self.refused = refused


@runtime_checkable
class Model(Protocol):
    """A target, a teacher or a judge.

    ``id`` is what every output shows (``hf/<folder>@<12 hex>`` for a local checkpoint, never a path).
    ``batch_size`` is 1 for endpoints; a local model is handed up to that many requests at once.
    """

    @property
    def id(self) -> str: ...

    @property
    def batch_size(self) -> int: ...

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer a batch, in order.

        Raises:
            ModelError: the request (with ``batch_size`` 1) or the whole batch gave no reply.
        """
        ...

    async def aclose(self) -> None:
        """Release connections, threads and memory. Safe to call twice."""
        ...
