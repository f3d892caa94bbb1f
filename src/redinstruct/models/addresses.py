"""Where an endpoint lies and by which key it is asked, as the environment says it; and which part of that is hidden.

Opens nothing. No message of this module holds the key or the address.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping

import msgspec
from yarl import URL

from redinstruct.errors import ModelSpecError
from redinstruct.models.proxies import Proxy, proxy_for
from redinstruct.safetext import Secret, looks_like_key

# What an address may hold in plain sight, and answers speak of: no keys.
_NO_SECRET_QUERY = frozenset({"api-version"})
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = frozenset(
    {"content-type", "content-length", "transfer-encoding", "host", "connection", "accept-encoding"}
)


class Address(msgspec.Struct, frozen=True):
    """Where to post to, and how to show who we are: ``Authorization: <scheme> <key>``. ``variable`` named it.

    ``headers`` go with every request; their values are secrets. ``proxy`` is the way there.
    """

    url: URL
    variable: str
    key: Secret | None = None
    scheme: str = "Bearer"
    headers: tuple[tuple[str, Secret], ...] = ()
    proxy: Proxy | None = None


def read_addresses(prefix: str, environ: Mapping[str, str], shown: str, default: str = "") -> tuple[Address, ...]:
    """The addresses in ``<prefix>_BASE_URL`` (one, or several with commas between them: one model behind several
    servers), the key in ``<prefix>_API_KEY``, headers in ``<prefix>_HEADERS``, proxies. ``shown`` is the model's id.

    Raises:
        ModelSpecError: a missing or malformed address, proxy or header, an impossible key.
    """
    variable = f"{prefix}_BASE_URL"
    texts = [text for part in environ.get(variable, "").split(",") if (text := part.strip())]
    if not texts and default:
        texts = [default]
    if not texts:
        raise ModelSpecError(f"{shown} needs the endpoint's address: set {variable} (for example http://host/v1)")
    key = _key(environ.get(f"{prefix}_API_KEY", ""), f"{prefix}_API_KEY")
    headers = _headers(environ.get(f"{prefix}_HEADERS", ""), f"{prefix}_HEADERS")
    if key is not None and any(name.lower() == "authorization" for name, _ in headers):
        raise ModelSpecError(f"{prefix}_HEADERS holds Authorization, and {prefix}_API_KEY a key: use one of them")
    found: dict[URL, Address] = {}
    for text in texts:
        url, basic = _endpoint_url(text, variable, shown=shown)
        if key is not None and basic is not None:
            raise ModelSpecError(f"{variable} holds a user name, and {prefix}_API_KEY a key: use one of them")
        known, scheme = basic or key, "Basic" if basic else "Bearer"
        found.setdefault(url, Address(url, variable, known, scheme, headers, proxy_for(url, environ)))
    return tuple(found.values())


def _headers(text: str, variable: str) -> tuple[tuple[str, Secret], ...]:
    """Headers as a JSON object of names and values."""
    if not text.strip():
        return ()
    try:
        read = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, UnicodeError):
        raise ModelSpecError(f'{variable} is not a JSON object of texts, for example {{"X-Team": "red"}}') from None
    for name, value in read.items():
        Secret(value)
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise ModelSpecError(f"{variable}: {name[:40]!r} is not a header that can be set")
        if not value.isascii() or not value.isprintable():
            raise ModelSpecError(f"{variable}: the value of {name} holds a character that an HTTP header cannot carry")
    return tuple((name, Secret(value)) for name, value in read.items())


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
    """Register what may be a key in an address: user, password, query values, and path segments that look like one.

    ``shown`` is the model's id: what the user typed there, and every output shows, is no key (a deployment's name).
    """
    hidden = [url.user, url.password]
    hidden += [value for name, value in url.query.items() if name.lower() not in _NO_SECRET_QUERY]
    hidden += [part for part in url.parts if looks_like_key(part)]
    for part in hidden:
        if part and part not in shown:
            Secret(part)
