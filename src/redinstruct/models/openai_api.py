"""An OpenAI-compatible endpoint: one POST to ``/chat/completions`` per call, on aiohttp.

Promised: the answer is read as a stream under a cap of bytes and a deadline; redirects are not followed; a provider's
filter is told from a model's refusal; whatever the endpoint sends becomes a ``Reply`` or a ``ModelError`` with a typed
reason. No message, note or exception of this module holds the key or the address: an exception of the HTTP library is
replaced, never quoted, because it may carry either.

Not here: retries and limits (the engine's).
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from redinstruct import __version__
from redinstruct.errors import ModelSpecError
from redinstruct.models import echoes
from redinstruct.models.base import ModelError, Reply, Request, TokenChoice
from redinstruct.safetext import Secret, redact, terminal
from redinstruct.types import FailureReason

OPENAI_BASE_URL = "https://api.openai.com/v1"
MAX_ANSWER_BYTES = 1 << 20
CONNECT_SECONDS = 30.0
SLOW_AFTER_SECONDS = 15.0
SLOW_BYTES_PER_SECOND = 64.0
MAX_NOTE = 160
MAX_FINISH = 64
MAX_ERROR_BYTES = 1 << 16

_STATUS: Mapping[int, tuple[FailureReason, bool]] = {
    400: (FailureReason.BAD_REQUEST, False),
    401: (FailureReason.UNAUTHORIZED, False),
    403: (FailureReason.FORBIDDEN, False),
    404: (FailureReason.NOT_FOUND, False),
    408: (FailureReason.TIMEOUT, True),
    409: (FailureReason.CONFLICT, True),
    422: (FailureReason.UNPROCESSABLE, False),
    429: (FailureReason.RATE_LIMITED, True),
}
# Codes by which providers say "our filter stopped this", in `error.code`, `error.type` or `error.innererror.code`.
_FILTER_CODES = frozenset(
    {
        "content_filter",
        "content_policy",
        "content_policy_violation",
        "responsibleaipolicyviolation",
        "sensitivecontentdetected",
        "moderation_blocked",
        "moderation_flagged",
        "data_inspection_failed",
        "safety",
        "prohibited_content",
    }
)
_FILTER_FINISH = frozenset(
    {
        "content_filter",
        "content_filtered",
        "safety",
        "prohibited_content",
        "recitation",
        "blocklist",
        "spii",
        "sensitive",
    }
)
_USUAL_FINISH = frozenset({"stop", "length", "content_filter"})
# What an address may hold in plain sight, and answers speak of: no keys.
_NO_SECRET_PARTS = frozenset({"compatible-mode", "chat-completions", "openai-compatible"})
_NO_SECRET_QUERY = frozenset({"api-version"})
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


class _Choice(msgspec.Struct):
    message: Any = None
    logprobs: Any = None
    finish_reason: str | None = None
    error: Any = None


class _Body(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_encode = msgspec.json.Encoder().encode


def endpoint_from_environment(
    spec: str, environ: Mapping[str, str], options: Mapping[str, object], timeout: float
) -> EndpointModel:
    """The endpoint that ``openai/<m>`` or ``openai-api/<name>/<m>`` names, its address and key read from ``environ``.

    Raises:
        ModelSpecError: a malformed id, a missing or malformed address, a missing or impossible key.
    """
    kind, _, rest = spec.partition("/")
    if options.get("stream"):
        raise ModelSpecError("--model-option stream cannot be used: answers are read whole")
    if kind == "openai":
        prefix, model, address = "OPENAI", rest, environ.get("OPENAI_BASE_URL", "").strip()
        if not address:
            address = OPENAI_BASE_URL
            if not environ.get("OPENAI_API_KEY", "").strip():
                raise ModelSpecError(
                    f"{spec} needs a key: set OPENAI_API_KEY (or OPENAI_BASE_URL for another endpoint)"
                )
    else:
        name, _, model = rest.partition("/")
        if not model or not _NAME.fullmatch(name):
            raise ModelSpecError(f"{spec!r} is not of the form openai-api/<name>/<model>")
        prefix = name.upper().replace("-", "_")
        address = environ.get(f"{prefix}_BASE_URL", "").strip()
        if not address:
            raise ModelSpecError(
                f"{spec} needs the endpoint's address: set {prefix}_BASE_URL (for example http://host/v1)"
            )
    key = _key(environ.get(f"{prefix}_API_KEY", ""), f"{prefix}_API_KEY")
    url, basic = _endpoint_url(address, f"{prefix}_BASE_URL", shown=spec)
    if key is not None and basic is not None:
        raise ModelSpecError(f"{prefix}_BASE_URL holds a user name, and {prefix}_API_KEY a key: use one of them")
    return EndpointModel(
        spec,
        model,
        url,
        basic or key,
        scheme="Basic" if basic else "Bearer",
        address_from=f"{prefix}_BASE_URL",
        options=options,
        timeout=timeout,
    )


def _beside(chat: URL) -> URL:
    """The address of ``/completions``, which lies beside that of the chat."""
    path = chat.raw_path.removesuffix("/chat/completions") + "/completions"
    return chat.with_path(path, encoded=True).with_query(chat.query)


def _key(value: str, variable: str) -> Secret | None:
    # Registered as it stands in the environment too, so that no output shows either form.
    Secret(value)
    stripped = value.strip()
    if not stripped:
        return None
    if not stripped.isascii() or not stripped.isprintable() or any(c.isspace() for c in stripped):
        raise ModelSpecError(f"{variable} holds a character that an HTTP header cannot carry: check how it was set")
    return Secret(stripped)


def _endpoint_url(address: str, variable: str, *, shown: str) -> tuple[URL, Secret | None]:
    """The address to post to, without user and password; these as HTTP Basic carries them."""
    try:
        url = URL(address)
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ModelSpecError(f"{variable} is not an http or https address")
    _hide_url_parts(url, shown)
    user, password = url.user or "", url.password or ""
    if ":" in user:
        raise ModelSpecError(f"{variable} holds a user name with a colon, which HTTP cannot carry")
    basic = Secret(base64.b64encode(f"{user}:{password}".encode()).decode()) if user or password else None
    path = url.raw_path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions"
    return url.with_user(None).with_path(path, encoded=True).with_query(url.query), basic


def _hide_url_parts(url: URL, shown: str) -> None:
    """Register what may be a key in an address: user, password, query values and long path segments.

    ``shown`` is the model's id: what the user typed there, and every output shows, is no key (a deployment's name).
    """
    hidden = [url.user, url.password]
    hidden += [value for name, value in url.query.items() if name.lower() not in _NO_SECRET_QUERY]
    hidden += [part for part in url.parts if len(part) >= 12 and part not in _NO_SECRET_PARTS]
    for part in hidden:
        if part and part not in shown:
            Secret(part)


class EndpointModel:
    """A model behind an endpoint. One request per call; ``aclose`` closes its connections."""

    batch_size = 1

    def __init__(
        self,
        spec: str,
        model: str,
        url: URL,
        key: Secret | None,
        *,
        scheme: str = "Bearer",
        address_from: str = "the endpoint's address",
        options: Mapping[str, object] | None = None,
        timeout: float = 120.0,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self.id = spec
        self.address_from = address_from
        self._model = model
        self._url = url
        self._key = key
        self._scheme = scheme
        self._options = dict(options or {})
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None

    def body(self, request: Request) -> bytes:
        """The request as JSON. An option replaces a field; an option of null removes it."""
        if request.echo:
            return _encode(echoes.fields(self._model, request))
        sampling = request.sampling
        fields: dict[str, object] = {
            "model": self._model,
            "messages": request.messages,
            "max_tokens": sampling.max_tokens,
        }
        if sampling.temperature is not None:
            fields["temperature"] = sampling.temperature
        if sampling.top_p is not None:
            fields["top_p"] = sampling.top_p
        if sampling.seed is not None:
            fields["seed"] = sampling.seed
        if sampling.stop:
            fields["stop"] = sampling.stop
        if request.response_format is not None:
            fields["response_format"] = msgspec.Raw(request.response_format.encode())
        if request.top_logprobs:
            fields |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if self._options:
            fields.update(self._options)
            fields = {name: value for name, value in fields.items() if value is not None}
        return _encode(fields)

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Send one request (the batch holds one) and read its answer.

        Raises:
            ModelError: no usable answer; the reason is typed, nothing of the exception beneath is quoted.
        """
        (request,) = batch
        try:
            # A lone surrogate cannot be sent as UTF-8; it is a fault of the bank, and typed like one.
            body = self.body(request)
        except (UnicodeError, msgspec.MsgspecError):
            raise ModelError(FailureReason.BAD_REQUEST, note="the prompt is not valid Unicode text") from None
        session = self._session or self._open()
        try:
            url = _beside(self._url) if request.echo else self._url
            async with session.post(url, data=body, allow_redirects=False) as response:
                if response.status != 200:
                    raise _status_error(response.status, response.headers, await self._error_page(response))
                data = await self._read(response, self._max_bytes)
                return (_echoed(data, request) if request.echo else _reply(data),)
        except _Filtered:
            return (Reply(None, "content_filter", filtered=True),)
        except TimeoutError:
            raise ModelError(FailureReason.TIMEOUT, transient=True) from None
        except aiohttp.ClientPayloadError:
            raise ModelError(FailureReason.INVALID_JSON, transient=True, note="the answer broke off") from None
        except aiohttp.ClientSSLError:
            note = "no TLS connection could be made: its certificate, or that it speaks no TLS"
            raise ModelError(FailureReason.UNREACHABLE, transient=True, note=note) from None
        except aiohttp.ClientConnectorError:
            raise ModelError(FailureReason.UNREACHABLE, transient=True) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError):
            raise ModelError(FailureReason.CONNECTION, transient=True) from None
        except ValueError:
            # Headers or an address that the HTTP library refuses: its text may quote them.
            raise ModelError(FailureReason.BAD_SHAPE, note="the answer is not HTTP as the library reads it") from None

    def _open(self) -> aiohttp.ClientSession:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"redinstruct/{__version__}",
            # The cap counts bytes as they are read; a compressed bomb would grow before it is counted.
            "Accept-Encoding": "identity",
        }
        if self._key is not None:
            headers["Authorization"] = f"{self._scheme} {self._key.reveal()}"
        self._session = aiohttp.ClientSession(
            # The engine bounds concurrency; a second bound here would only hide it.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers=headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session

    async def _error_page(self, response: aiohttp.ClientResponse) -> bytes:
        """What came with another status than 200. The status says what happened, however its page may end."""
        try:
            return await self._read(response, MAX_ERROR_BYTES)
        except (ModelError, aiohttp.ClientError, OSError, asyncio.IncompleteReadError):
            response.close()
            return b""

    async def _read(self, response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
        """The body, under the cap of bytes and above the least speed.

        White space in front does not start the clock: some providers send it to keep a waiting connection open.
        """
        content = response.content
        data = await content.readany()
        if content.at_eof() and len(data) <= max_bytes:
            return data
        parts, size, started = [data], len(data), None
        while True:
            if size > max_bytes:
                response.close()
                raise ModelError(FailureReason.TOO_LARGE, note=f"the answer is larger than {max_bytes} bytes")
            if started is None and data.strip():
                started = time.monotonic()
            data = await content.readany()
            if not data:
                if content.at_eof():
                    return b"".join(parts)
                continue
            parts.append(data)
            size += len(data)
            waited = 0.0 if started is None else time.monotonic() - started
            if waited > SLOW_AFTER_SECONDS and size < SLOW_BYTES_PER_SECOND * waited:
                response.close()
                raise ModelError(FailureReason.TIMEOUT, transient=True, note="the answer came too slowly")

    async def aclose(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class _Filtered(Exception):
    """The provider's filter withheld the answer."""


def _reply(data: bytes) -> Reply:
    body = _parse(data)
    if not body.choices:
        if body.error is not None:
            raise _body_error(body.error)
        raise ModelError(FailureReason.NO_CHOICES)
    choice = body.choices[0]
    finish = choice.finish_reason
    filtered = _is_filter_finish(finish)
    text = _text(choice.message, withheld=filtered or choice.error is not None)
    if choice.error is not None and not text:
        raise _body_error(choice.error)
    if finish is not None and finish not in _USUAL_FINISH:
        finish = terminal(redact(finish))[:MAX_FINISH]
    tokens_in, tokens_out = _usage(body.usage)
    choices = () if choice.logprobs is None else _choices(choice.logprobs)
    return Reply(None if text is None else redact(text), finish, tokens_in, tokens_out, filtered, choices)


def _echoed(data: bytes, request: Request) -> Reply:
    body = _parse(data)
    if not body.choices:
        raise ModelError(FailureReason.NO_CHOICES) if body.error is None else _body_error(body.error)
    tokens = echoes.tokens(body.choices[0].logprobs, request.messages[-1].content)
    return Reply(None, body.choices[0].finish_reason, *_usage(body.usage), choices=tokens)


def _choices(logprobs: object) -> tuple[TokenChoice, ...]:
    """The tokens with their alternatives, ``logprobs.content[]``; nothing where any of it has another shape."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    try:
        return tuple(
            TokenChoice(given["token"], tuple((top["token"], float(top["logprob"])) for top in given["top_logprobs"]))
            for given in content or ()
            if isinstance(given["token"], str) and all(isinstance(top["token"], str) for top in given["top_logprobs"])
        )
    except (TypeError, KeyError, ValueError):
        return ()


def _is_filter_finish(finish: str | None) -> bool:
    """Also ``content_filter: PROHIBITED_CONTENT``, as Gemini writes it."""
    return finish is not None and finish != "stop" and finish.partition(":")[0].strip().lower() in _FILTER_FINISH


def _parse(data: bytes) -> _Body:
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        # msgspec refuses lone surrogates, which are legal JSON and do come out of models; and it finds a wrong shape
        # before it finds that the text is no JSON at all, which is worth another try.
        return msgspec.convert(json.loads(data), _Body)
    except msgspec.ValidationError:
        raise ModelError(FailureReason.BAD_SHAPE) from None
    except (ValueError, RecursionError):
        raise ModelError(FailureReason.INVALID_JSON, transient=True) from None


def _text(message: object, *, withheld: bool) -> str | None:
    """The answer's text. A refusal that the model wrote into its own field, or its own part, is text too.

    Who withholds an answer may leave its message out.
    """
    if message is None and withheld:
        return None
    if not isinstance(message, dict):
        raise ModelError(FailureReason.BAD_SHAPE)
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") or part.get("refusal") for part in content if isinstance(part, dict)]
        content = "".join(part for part in parts if isinstance(part, str))
    if content is not None and not isinstance(content, str):
        raise ModelError(FailureReason.BAD_SHAPE)
    refusal = message.get("refusal")
    return refusal if not content and isinstance(refusal, str) and refusal else content


def _usage(usage: object) -> tuple[int | None, int | None]:
    if not isinstance(usage, dict):
        return None, None
    counts = (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    # A count that SQLite cannot hold is no count.
    a, b = (c if type(c) is int and 0 <= c < 2**53 else None for c in counts)
    return a, b


def _is_filter(error: object) -> bool:
    if not isinstance(error, dict):
        return False
    inner, metadata = error.get("innererror"), error.get("metadata")
    codes = [error.get("code"), error.get("type"), inner.get("code") if isinstance(inner, dict) else None]
    if any(isinstance(code, str) and code.lower() in _FILTER_CODES for code in codes):
        return True
    if error.get("code") == "invalid_prompt" and "flagged" in str(error.get("message")):
        # OpenAI's reasoning models: the same code also stands for prompts that are malformed.
        return True
    return isinstance(metadata, dict) and "flagged_input" in metadata


def _note(error: object) -> str | None:
    """The endpoint's own words, short, without secrets and control characters."""
    message = error.get("message") if isinstance(error, dict) else error
    return terminal(redact(message))[:MAX_NOTE] if isinstance(message, str) and message else None


def _body_error(error: object) -> Exception:
    """An error that came with status 200."""
    if _is_filter(error):
        return _Filtered()
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, str) and len(code) == 3 and code.isascii() and code.isdigit():
        code = int(code)
    if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600:
        reason, transient = _reason(code)
        return ModelError(reason, transient=transient, note=_note(error))
    return ModelError(FailureReason.BAD_SHAPE, note=_note(error))


def _reason(status: int) -> tuple[FailureReason, bool]:
    if status in _STATUS:
        return _STATUS[status]
    if 500 <= status < 600:
        return FailureReason.SERVER_ERROR, True
    if 300 <= status < 400:
        return FailureReason.REDIRECT, False
    return FailureReason.HTTP_STATUS, False


def _status_error(status: int, headers: Mapping[str, str], data: bytes) -> Exception:
    error: object = None
    try:
        decoded = json.loads(data)
        if isinstance(decoded, list) and decoded:
            decoded = decoded[0]  # Gemini wraps its error in a list
        error = decoded.get("error", decoded) if isinstance(decoded, dict) else None
    except (ValueError, RecursionError):
        pass
    if status in (400, 403, 422, 451) and _is_filter(error):
        return _Filtered()
    reason, transient = _reason(status)
    after = _retry_after(headers) if transient else None
    note = _note(error)
    if reason is FailureReason.HTTP_STATUS:
        note = f"status {status}" if note is None else f"status {status}: {note}"
    return ModelError(reason, transient=transient, retry_after=after, note=note)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds from ``retry-after-ms`` or ``Retry-After`` (a number, or an HTTP date); None where there is none."""
    millis, value = headers.get("retry-after-ms"), headers.get("Retry-After")
    for text, unit in ((millis, 1000.0), (value, 1.0)):
        try:
            seconds = float(text) / unit if text else -1.0
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except (ValueError, OverflowError, OSError):
        return None
