"""An OpenAI-compatible endpoint: one POST to ``/chat/completions`` per call, on aiohttp.

Promised: the answer is read as a stream under a cap of bytes and a deadline; redirects are not followed; a provider's
filter is told from a model's refusal; whatever the endpoint sends becomes a ``Reply`` or a ``ModelError`` with a typed
reason. No message, note or exception of this module holds the key or the address: an exception of the HTTP library is
replaced, never quoted, because it may carry either.

Not here: retries and limits (the engine's).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import TypedDict

import aiohttp
import msgspec
from yarl import URL

from redinstruct.errors import ModelSpecError
from redinstruct.models import adapting, echoes
from redinstruct.models.adapting import Adapted
from redinstruct.models.addresses import Address, read_addresses
from redinstruct.models.base import ModelError, Options, Reply, Request
from redinstruct.models.failures import Filtered, status_error, unquoted
from redinstruct.models.proxies import Proxy
from redinstruct.models.replies import read_echo, read_reply
from redinstruct.types import FailureReason
from redinstruct.version import __version__

OPENAI_BASE_URL = "https://api.openai.com/v1"
MAX_ANSWER_BYTES = 1 << 20
CONNECT_SECONDS = 30.0
SLOW_AFTER_SECONDS = 15.0
SLOW_BYTES_PER_SECOND = 64.0
MAX_ERROR_BYTES = 1 << 16
MAX_HEADER_BYTES = 1 << 16

_NOT_HTTP = "the answer is not HTTP as the library reads it"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_encode = msgspec.json.Encoder().encode
# What a model does not take is asked once in a process, whatever role it plays.
_ADAPTED: dict[tuple[str, str], Adapted] = {}

# What the HTTP library raises, the kind before its kin: the reason, and what is said of it.
_UNANSWERED: tuple[tuple[type[Exception], FailureReason, str | None], ...] = (
    # Not a slow answer: nobody took the connection.
    (aiohttp.ConnectionTimeoutError, FailureReason.UNREACHABLE, "no connection could be made"),
    (TimeoutError, FailureReason.TIMEOUT, None),
    (aiohttp.ClientPayloadError, FailureReason.INVALID_JSON, "the answer broke off"),
    (aiohttp.ClientSSLError, FailureReason.UNREACHABLE, "no TLS connection could be made: its certificate, or that it"
     " speaks no TLS"),
    (aiohttp.ClientConnectorError, FailureReason.UNREACHABLE, None),
    (aiohttp.ClientResponseError, FailureReason.CONNECTION, _NOT_HTTP),
    (aiohttp.ClientError, FailureReason.CONNECTION, None),
    (OSError, FailureReason.CONNECTION, None),
    (asyncio.IncompleteReadError, FailureReason.CONNECTION, None),
    # Headers or an address that it refuses.
    (ValueError, FailureReason.BAD_SHAPE, _NOT_HTTP),
)  # fmt: skip


def endpoint_from_environment(
    spec: str, environ: Mapping[str, str], options: Mapping[str, object], timeout: float
) -> EndpointModel | SeveralServers:
    """The endpoint that ``openai/<m>`` or ``openai-api/<name>/<m>`` names, its address and key read from ``environ``.

    Raises:
        ModelSpecError: a malformed id, a missing or malformed address, a missing or impossible key.
    """
    kind, _, rest = spec.partition("/")
    if options.get("stream"):
        raise ModelSpecError("--model-option stream cannot be used: answers are read whole")
    if kind == "openai":
        model = rest
        if not (environ.get("OPENAI_BASE_URL", "").strip() or environ.get("OPENAI_API_KEY", "").strip()):
            raise ModelSpecError(f"{spec} needs a key: set OPENAI_API_KEY (or OPENAI_BASE_URL for another endpoint)")
        addresses = read_addresses("OPENAI", environ, spec, OPENAI_BASE_URL)
    else:
        name, _, model = rest.partition("/")
        if not model or not _NAME.fullmatch(name):
            raise ModelSpecError(f"{spec!r} is not of the form openai-api/<name>/<model>")
        addresses = read_addresses(name.upper().replace("-", "_"), environ, spec)
    found = [EndpointModel(spec, model, address, options=options, timeout=timeout) for address in addresses]
    return found[0] if len(found) == 1 else SeveralServers(found)


def _beside(chat: URL) -> URL:
    """The address of ``/completions``, which lies beside that of the chat."""
    path = chat.raw_path.removesuffix("/chat/completions") + "/completions"
    return chat.with_path(path, encoded=True).with_query(chat.query)


class _Way(TypedDict, total=False):
    proxy: URL
    headers: Mapping[str, str]
    proxy_headers: Mapping[str, str]


class SeveralServers:
    """One model behind several servers. The engine asks its ``replicas`` by what each has in flight."""

    batch_size = 1

    def __init__(self, replicas: Sequence[EndpointModel]) -> None:
        self.replicas = tuple(replicas)
        self.id = replicas[0].id
        self.address_from = replicas[0].address_from
        self.options = replicas[0].options

    @property
    def notes(self) -> tuple[str, ...]:
        """What the endpoints do not take, and what is sent instead."""
        return tuple(dict.fromkeys(note for one in self.replicas for note in one.notes))

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Ask the first one: for who has no engine."""
        return await self.replicas[0].generate(batch)

    async def aclose(self) -> None:
        """Close the connections."""
        for one in self.replicas:
            await one.aclose()


class EndpointModel:
    """A model behind an endpoint. One request per call; ``aclose`` closes its connections."""

    batch_size = 1

    def __init__(
        self,
        spec: str,
        model: str,
        address: Address,
        *,
        options: Mapping[str, object] | None = None,
        timeout: float = 120.0,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        self.id = spec
        self.address_from = address.variable
        self._model = model
        self._url = address.url
        self._key = address.key
        self._scheme = address.scheme
        self._headers = address.headers
        self._proxy = address.proxy
        self.options: Options = dict(options or {})
        """Fields that every request has, whatever it asks for itself."""
        self._adapted = _ADAPTED.setdefault((spec, str(address.url)), Adapted())
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._max_bytes = max_bytes
        self._session: aiohttp.ClientSession | None = None
        self._way: _Way = {}
        """How the requests of the session get there: directly, or through a proxy."""

    def _through(self, proxy: Proxy) -> _Way:
        known = proxy.authorization
        header = {} if known is None else {"Proxy-Authorization": known.reveal()}
        # A tunnel is asked for with it; a request that the proxy reads itself carries it.
        if self._url.scheme == "https":
            return {"proxy": proxy.url, "headers": self._secret_headers(), "proxy_headers": header}
        return {"proxy": proxy.url, "headers": self._secret_headers() | header}

    def _secret_headers(self) -> dict[str, str]:
        """What only the endpoint may see."""
        headers = {name: value.reveal() for name, value in self._headers}
        if self._key is not None:
            headers["Authorization"] = f"{self._scheme} {self._key.reveal()}"
        return headers

    @property
    def notes(self) -> tuple[str, ...]:
        """What the endpoint does not take, and what is sent instead."""
        return tuple(f"{self.id} {note}" for note in self._adapted.notes.values())

    def body(self, request: Request) -> bytes:
        """The request as JSON. An option replaces a field; an option of null removes it."""
        if request.echo:
            return _encode(echoes.fields(self._model, request))
        fields = self._adapted.fields(self._fields(request), request.messages)
        if self.options:
            fields.update(self.options)
            fields = {name: value for name, value in fields.items() if value is not None}
        return _encode(fields)

    def _fields(self, request: Request) -> dict[str, object]:
        sampling = request.sampling
        fields: dict[str, object] = {"model": self._model}
        if request.plain:
            fields["prompt"] = request.messages[-1].content
        else:
            fields["messages"] = request.messages
        fields["max_tokens"] = sampling.max_tokens
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
        return fields

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Send one request (the batch holds one) and read its answer.

        Raises:
            ModelError: no usable answer; the reason is typed, nothing of the exception beneath is quoted. Transient
                where the endpoint refused a field that is left out from now on.
        """
        (request,) = batch
        known = self._adapted.known
        try:
            # A lone surrogate cannot be sent as UTF-8; it is a fault of the bank, and typed like one.
            body = self.body(request)
        except (UnicodeError, msgspec.MsgspecError):
            raise ModelError(FailureReason.BAD_REQUEST, note="the prompt is not valid Unicode text") from None
        session = self._session or self._open()
        try:
            url = _beside(self._url) if request.echo or request.plain else self._url
            async with session.post(url, data=body, allow_redirects=False, **self._way) as response:
                if not 200 <= response.status < 300:  # some gateways answer every POST with 201
                    raise status_error(response.status, response.headers, await self._error_page(response))
                data = await self._read(response, self._max_bytes)
                return (read_echo(data, request) if request.echo else read_reply(data),)
        except Filtered as filtered:
            return (Reply(None, "content_filter", filtered=True, note=unquoted(filtered.note, request)),)
        except ModelError as error:
            error.note = unquoted(error.note, request)
            if not error.refused or not (named := self._may_leave_out(request, error.refused) - known):
                raise
            self._adapted.learn(sorted(named), error.note)
            raise ModelError(FailureReason.BAD_REQUEST, transient=True, note=error.note) from None
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError, ValueError) as error:
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> ModelError:
        """Why there is no answer, by what the HTTP library raised; of its text, which may quote the key, nothing."""
        if isinstance(error, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            assert self._proxy is not None
            refused = f" (status {error.status})" if isinstance(error, aiohttp.ClientHttpProxyError) else ""
            note = f"the proxy in {self._proxy.variable} does not let us through{refused}"
            return ModelError(FailureReason.UNREACHABLE, transient=True, note=note)
        reason, told = next((reason, told) for kind, reason, told in _UNANSWERED if isinstance(error, kind))
        return ModelError(reason, transient=reason is not FailureReason.BAD_SHAPE, note=told)

    def _may_leave_out(self, request: Request, refused: Sequence[str]) -> set[str]:
        """Those of the refused fields that the tool sends of its own accord, and can do without."""
        own = set(self._fields(request)) - set(self.options) - {"model", "messages", "prompt"}
        if any(message.role == adapting.SYSTEM for message in request.messages):
            own.add(adapting.SYSTEM)
        return own & set(refused)

    def _open(self) -> aiohttp.ClientSession:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"redinstruct/{__version__}",
            # The cap counts bytes as they are read; a compressed bomb would grow before it is counted.
            "Accept-Encoding": "identity",
        }
        if self._proxy is None:
            # aiohttp tells a session's own headers to the proxy as well, the key as Proxy-Authorization.
            headers |= self._secret_headers()
        else:
            self._way = self._through(self._proxy)
        self._session = aiohttp.ClientSession(
            # The engine bounds concurrency; a second bound here would only hide it.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            headers=headers,
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            # Gateways write policies and whole budgets into their headers; 8 KiB, the library's own, is often less.
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        return self._session

    async def _error_page(self, response: aiohttp.ClientResponse) -> bytes:
        """What came with a status that is no success. The status says what happened, however its page may end."""
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
