"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl and others read them.

Either case; the lower one wins. NO_PROXY lists hosts (a host, and all under it; a port may follow), addresses, networks
(10.0.0.0/8) or ``*``. Nothing else is taken from the environment, a netrc file least of all. A proxy's password is a
secret, and no message shows one.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping

import msgspec
from yarl import URL

from redinstruct.errors import ModelSpecError
from redinstruct.safetext import Secret


class Proxy(msgspec.Struct, frozen=True):
    """A proxy: its address without user and password, and these as ``Proxy-Authorization`` carries them."""

    url: URL
    variable: str
    authorization: Secret | None = None


def proxy_for(url: URL, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for an address, None where there is none, or NO_PROXY names the host.

    Raises:
        ModelSpecError: the variable does not hold an http or https address.
    """
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        for variable in (name, name.upper()):
            if value := environ.get(variable, "").strip():
                return None if _direct(url, _either(environ, "no_proxy")) else _read(value, variable)
    return None


def _either(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or environ.get(name.upper()) or ""


def _read(value: str, variable: str) -> Proxy:
    try:
        url = URL(value if "://" in value else f"http://{value}")
        usable = url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        usable = False
    if not usable:
        raise ModelSpecError(f"{variable} is not an http or https address: other kinds of proxies are not supported")
    user, password = url.user or "", url.password or ""
    for part in (password, f"{user}:{password}" if password else user):
        Secret(part)
    known = Secret("Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()) if user or password else None
    return Proxy(url.with_user(None).with_path("/").with_query(None), variable, known)


def _direct(url: URL, listed: str) -> bool:
    host = (url.host or "").lower().rstrip(".")
    for entry in listed.replace(" ", ",").lower().split(","):
        if entry == "*":
            return True
        name, port = _split(entry)
        if name and port in (None, url.port) and _covers(name, host):
            return True
    return False


def _split(entry: str) -> tuple[str, int | None]:
    """A host, and its port where one is named; an IPv6 address stands in brackets then."""
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, int(port[1:]) if port[1:].isdigit() else None
    name, colon, port = entry.rpartition(":")
    if colon and ":" not in name and port.isdigit():
        return name, int(port)
    return entry, None


def _covers(name: str, host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = name.removeprefix("*").strip(".")
        return host == name or host.endswith(f".{name}")
    try:
        return address in ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
