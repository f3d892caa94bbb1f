"""``inspect/<provider>/<model>``: every provider that Inspect knows, as a target, a judge or a teacher.

Inspect makes the call; tries, limits and pauses are the engine's, so that Inspect itself is told not to try again.
Needs the ``[inspect]`` extra; nothing of it is imported before such a model is named.

Source: inspect_ai 0.3.285, ``inspect_ai/model/_model.py`` and ``_generate_config.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from redinstruct.errors import ModelSpecError
from redinstruct.files import Fields
from redinstruct.models.base import ModelError, Options, Reply, Request
from redinstruct.models.failures import Filtered, status_error, unquoted
from redinstruct.safetext import redact, terminal
from redinstruct.types import FailureReason

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput

_CONNECTIONS = 10_000
"""How many calls Inspect itself lets go at once: the engine's gate decides."""

_TIMEOUTS = ("timeout", "timedout")
_LOST = ("connect", "network", "remoteprotocol", "readerror")


class InspectModel:
    """A model of Inspect. ``timeout`` is the deadline of one request in seconds.

    ``tries`` is how often Inspect tries again; None leaves that, and how many calls go at once, to its settings: for
    a call within its evaluation.
    """

    batch_size = 1

    def __init__(
        self, spec: str, model: Model, timeout: float, options: Fields | None = None,
        *, tries: int | None = 0,
    ) -> None:  # fmt: skip
        self.id = spec
        self._model, self._timeout, self._tries = model, timeout, tries
        self.options: Options = dict(options or {})

    @classmethod
    def named(cls, name: str, options: Fields, timeout: float) -> InspectModel:
        """The model that ``inspect/<name>`` means. ``options`` are fields of Inspect's ``GenerateConfig``.

        Raises:
            ModelSpecError: Inspect or the provider's package is not installed, a key is missing, the provider is not
                known, or an option is none of Inspect's.
        """
        try:
            from inspect_ai.model import GenerateConfig, get_model
        except ImportError as error:
            raise ModelSpecError(
                f"inspect/ models need the [inspect] extra ({error.name} is missing): "
                "pip install 'redinstruct[inspect]'"
            ) from None
        strange = next((key for key in options if key not in GenerateConfig.model_fields), None)
        if strange is not None:
            raise ModelSpecError(f"--model-option {terminal(strange)}: Inspect's GenerateConfig has no such field")
        try:
            GenerateConfig.model_validate(dict(options))
            return cls(f"inspect/{name}", get_model(name, memoize=False), timeout, options)
        except Exception as error:
            # Inspect raises what it likes here: a line for a person in PrerequisiteError, ValueError, a provider's own.
            words = str(getattr(error, "message", "") or error) or type(error).__name__
            raise ModelSpecError(f"inspect/{terminal(name)}: {_one_line(words)}") from None

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer one request. Raises ``ModelError``."""
        (request,) = batch
        if request.echo or request.plain:
            raise ModelError(FailureReason.BAD_REQUEST, note="an inspect/ model gives no log-probabilities of a text")
        try:
            output = await self._model.generate(messages_of(request), config=self._config(request))
        except Exception as error:
            failure = failure_of(error)
            if isinstance(failure, Filtered):
                return [Reply(None, "content_filter", filtered=True, note=unquoted(failure.note, request))]
            failure.note = unquoted(failure.note, request)
            raise failure from None
        return [reply_of(output)]

    def _config(self, request: Request) -> GenerateConfig:
        from inspect_ai.model import GenerateConfig

        sampling = request.sampling
        return GenerateConfig(
            max_tokens=sampling.max_tokens, temperature=sampling.temperature, top_p=sampling.top_p,
            seed=sampling.seed, stop_seqs=list(sampling.stop) or None,
            max_retries=self._tries, attempt_timeout=max(1, round(self._timeout)),
            max_connections=None if self._tries is None else _CONNECTIONS,
        ).merge(GenerateConfig.model_validate(self.options))  # fmt: skip

    async def aclose(self) -> None:
        """Let go of the provider's client."""
        await self._model.api.aclose()


def messages_of(request: Request) -> list[ChatMessage]:
    """A request's conversation in Inspect's classes."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return [kinds[message.role](content=message.content) for message in request.messages]


def reply_of(output: ModelOutput) -> Reply:
    """What Inspect's output says: the first choice's text, and its thought apart."""
    usage = output.usage
    tokens_in = None if usage is None else usage.input_tokens
    tokens_out = None if usage is None else usage.output_tokens
    if not output.choices:
        return Reply(None, None, tokens_in, tokens_out, note=output.error and _one_line(output.error))
    choice = output.choices[0]
    content = choice.message.content
    thoughts = [] if isinstance(content, str) else [part.reasoning for part in content if part.type == "reasoning"]
    filtered = choice.stop_reason == "content_filter"
    return Reply(
        output.completion or choice.message.text or None,
        None if choice.stop_reason == "unknown" else choice.stop_reason,
        tokens_in,
        tokens_out,
        filtered=filtered,
        note=_one_line(output.error) if output.error else None,
        thought="\n\n".join(filter(None, thoughts)) or None,
    )


def failure_of(error: BaseException) -> ModelError | Filtered:
    """What an exception of a provider's client means: by its status and body where it has them, else by its name."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for one in chain:
        status = getattr(one, "status_code", None) or getattr(one, "status", None)
        if isinstance(status, int) and 300 <= status < 600:
            return status_error(status, _headers(one), _body(one))
    for one in chain:
        name = type(one).__name__.casefold()
        if isinstance(one, TimeoutError) or any(word in name for word in _TIMEOUTS):
            return ModelError(FailureReason.TIMEOUT, transient=True, note=_one_line(str(one)))
        if isinstance(one, ConnectionError) or any(word in name for word in _LOST):
            return ModelError(FailureReason.CONNECTION, transient=True, note=_one_line(str(one)))
    return ModelError(FailureReason.SERVER_ERROR, note=f"{type(error).__name__}: {_one_line(str(error))}")


def _headers(error: BaseException) -> Mapping[str, str]:
    held: object = getattr(getattr(error, "response", None), "headers", None)
    return {str(name).lower(): str(value) for name, value in held.items()} if isinstance(held, Mapping) else {}


def _body(error: BaseException) -> bytes:
    body = getattr(error, "body", None)
    if isinstance(body, dict | list):
        try:
            return msgspec.json.encode({"error": body} if "error" not in body else body)
        except (TypeError, ValueError):
            pass
    return _one_line(str(error)).encode()


def _one_line(text: str) -> str:
    return terminal(redact(" ".join(text.split())))[:300]
