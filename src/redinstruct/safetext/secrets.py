"""Keys that do not show, and every form of them taken out of what is shown."""

from __future__ import annotations

import base64
import hmac
import html
import json
import re
import threading
from collections.abc import Iterable, Iterator
from typing import NoReturn, SupportsIndex
from urllib.parse import quote, quote_plus

from redinstruct.safetext.plain import INVISIBLE, terminal

MASK = "***"
_SHORTEST_SECRET = 8
# Keys that are none: what the guides of local servers tell people to set. Compared without case.
_PLACEHOLDERS = frozenset(
    {
        "anything",
        "api-key",
        "apikey-not-needed",
        "changeme",
        "dummy-key",
        "fake-key",
        "lm-studio",
        "lmstudio",
        "no-api-key",
        "no-key-required",
        "no_key_needed",
        "not-needed",
        "not-required",
        "not-used",
        "not_needed",
        "placeholder",
        "sk-no-key-required",
        "token-abc123",
        "undefined",
        "your-api-key",
        "your_api_key",
    }
)
# str.strip() keeps a byte-order mark, which is what some editors put before a key.
_AROUND_A_KEY = re.compile(f"\\A[\\s\x00-\x1f{INVISIBLE}]+|[\\s\x00-\x1f{INVISIBLE}]+\\Z")

_registry_lock = threading.Lock()
# Replaced as a whole, never changed in place: they are read without the lock. The second holds the forms of those that
# look like keys.
_registered: tuple[str, ...] = ()
_keys: tuple[str, ...] = ()
# Prefixes of the keys of OpenAI, Anthropic, Stripe, GitHub, Hugging Face, Google, xAI, Groq, Slack, AWS; a JWT's head.
_KEY_PREFIX = re.compile(r"(?:sk|pk|rk|key|tok|ghp|gho|hf|xai|gsk|r8|nvapi|xox[a-z]|pplx|fw)[-_]\S|AIza|AKIA|eyJ")
_KEY_WORD = re.compile(r"[0-9A-Za-z]{8,}")
_KEY_TURN = re.compile(r"[0-9](?=[A-Za-z])|[A-Za-z](?=[0-9])")
_LEAST_TURNS = 3


class Secret:
    """A key that does not show: ``repr``, ``str`` and every format give ``***``.

    Only :meth:`reveal` gives the value, at the one place that puts it on the wire. Equal by value, immutable, and
    neither pickled nor encoded as JSON (TypeError); a copy is the same object.

    Creating one registers, for :func:`redact`, its value as given and stripped (of spaces, line ends and
    invisible characters), and of both: base64 (standard and
    URL-safe, padded and not; also of ``:value``, which is HTTP Basic without a user), percent-encoded, hexadecimal,
    and as JSON, HTML, Python's ``repr`` of text or bytes, and :func:`terminal` write it. A value shorter than 8
    characters (stripped) is not registered, nor one of the words that people give to a local server which asks for no
    key (``ollama``, ``lm-studio``, ``not-needed``): they would blot out ordinary words of stored answers.

    Raises:
        TypeError: the value is no ``str``. The message does not hold it.
    """

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        if type(value) is not str:
            raise TypeError(f"a Secret holds a str, not {type(value).__name__}")
        object.__setattr__(self, "_value", value)
        _register(value)

    def reveal(self) -> str:
        """The value itself. Never log, store or interpolate it."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_utf8(self._value), _utf8(other._value))

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a Secret is not serialised")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret does not change")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret does not change")


def looks_like_key(value: str) -> bool:
    """Whether a value is one that nobody writes by chance: a key's prefix, or letters and digits mixed in one word.

    ``applications``, ``museum-guide`` and ``gpt-4o-mini-2024-07-18`` are words that an answer may well use.
    """
    if len(value) < _SHORTEST_SECRET:
        return False
    if _KEY_PREFIX.match(value) is not None:
        return True
    return any(len(_KEY_TURN.findall(word)) >= _LEAST_TURNS for word in _KEY_WORD.findall(value))


def has_key(text: str) -> bool:
    """Whether a text holds a registered :class:`Secret`, or a word that begins as the keys of known providers do."""
    return redact(text) != text or any(
        len(word) >= _SHORTEST_SECRET and _KEY_PREFIX.match(word) is not None for word in text.split()
    )


def redact(text: str, *, stored: bool = False) -> str:
    """The text with every registered form of every :class:`Secret` replaced by ``***``.

    Afterwards no registered form is in the text. Never raises. Costs one substring search per registered form;
    nothing where no secret is registered. ``stored``: of the secrets that look like keys only. A recorded answer keeps
    its words, also where one of them is a part of an address or a password; a key that an endpoint repeats is not kept
    on the disk.
    """
    forms, found = _keys if stored else _registered, True
    # Again until nothing is found, since a replacement may join its neighbours into another form. Each round makes
    # the text shorter (a form has at least eight characters, the mask three), so this ends.
    while found:
        found = False
        for form in forms:
            if form in text:
                text = text.replace(form, MASK)
                found = True
    return text


def forget_secrets() -> None:
    """Empty the registry. For tests: a process that has read a key keeps redacting it."""
    global _registered, _keys
    with _registry_lock:
        _registered = _keys = ()


def _register(value: str) -> None:
    global _registered, _keys
    stripped = _AROUND_A_KEY.sub("", value)
    if len(stripped) < _SHORTEST_SECRET or stripped.lower() in _PLACEHOLDERS:
        return
    forms = {
        form for text in {value, value.strip(), stripped} for form in _forms(text) if len(form) >= _SHORTEST_SECRET
    }
    with _registry_lock:
        # Longest first: a key inside its own escaped form must not leave the escapes behind, nor a key that begins
        # like another the other's tail.
        _registered = _longest_first(forms.union(_registered))
        if looks_like_key(stripped):
            _keys = _longest_first(forms.union(_keys))


def _longest_first(forms: set[str]) -> tuple[str, ...]:
    return tuple(sorted(forms, key=lambda form: (-len(form), form)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _forms(text: str) -> Iterator[str]:
    """How one text may turn up in a log, a URL, a header, a report or a traceback."""
    yield from (text, terminal(text), repr(text)[1:-1], ascii(text)[1:-1])
    # The standard library and MarkupSafe (Jinja) write quotes differently.
    yield from (escaped := html.escape(text), escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;"))
    yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1])
    for raw in _encodings(text):
        yield from (repr(raw)[2:-1], raw.hex(), raw.hex().upper())
        yield from _percent_encoded(raw)
        yield from _base64_forms((raw, b":" + raw))


def _encodings(text: str) -> set[bytes]:
    """The bytes that carry the text: UTF-8, an HTTP header's Latin-1, and what the environment really held."""
    encoded = {_utf8(text)}
    for codec, errors in (("latin-1", "strict"), ("utf-8", "surrogateescape")):
        try:
            encoded.add(text.encode(codec, errors))
        except UnicodeEncodeError:
            continue
    return encoded


def _percent_encoded(raw: bytes) -> Iterator[str]:
    for form in (quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield form
        yield re.sub("%[0-9A-F]{2}", lambda m: m[0].lower(), form)


def _base64_forms(texts: Iterable[bytes]) -> Iterator[str]:
    for raw in texts:
        for form in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()):
            yield form
            yield form.rstrip("=")
