"""Where an endpoint lies and by which key it is asked, as the environment says it; and which part of that is hidden.

Opens nothing. No message of this module holds the key or the address.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import msgspec
from yarl import URL

from redinstruct.errors import ModelSpecError
from redinstruct.safetext import Secret, looks_like_key

# What an address may hold in plain sight, and answers speak of: no keys.
_NO_SECRET_QUERY = frozenset({"api-version"})


class Address(msgspec.Struct, frozen=True):
    """Where to post to, and how to show who we are: ``Authorization: <scheme> <key>``. ``variable`` named it."""

    url: URL
    variable: str
    key: Secret | None = None
    scheme: str = "Bearer"


def read_address(prefix: str, environ: Mapping[str, str], shown: str, default: str = "") -> Address:
    """The address and key in ``<prefix>_BASE_URL`` and ``<prefix>_API_KEY``; ``shown`` is the model's id.

    Raises:
        ModelSpecError: a missing or malformed address, an impossible key.
    """
    variable = f"{prefix}_BASE_URL"
    address = environ.get(variable, "").strip() or default
    if not address:
        raise ModelSpecError(f"{shown} needs the endpoint's address: set {variable} (for example http://host/v1)")
    key = _key(environ.get(f"{prefix}_API_KEY", ""), f"{prefix}_API_KEY")
    url, basic = _endpoint_url(address, variable, shown=shown)
    if key is not None and basic is not None:
        raise ModelSpecError(f"{variable} holds a user name, and {prefix}_API_KEY a key: use one of them")
    return Address(url, variable, basic or key, "Basic" if basic else "Bearer")


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
