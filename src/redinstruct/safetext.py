r"""Hostile text made safe to show, to name files by and to store; and secrets that do not show.

A model's answer, a bank's row and a server's error message are all written by strangers. Everything that leaves the
tool passes through here, whatever its origin: a rule with exceptions is a rule that somebody forgets.

Promised: every function is pure, total over ``str`` (lone surrogates and NUL included) and linear in its input.
Not promised:

- ``terminal`` and ``csv_cell`` are for reading; they lose the difference between a character and the escape written
  for it. The lossless format is JSON Lines. ``storable`` alone has an inverse.
- Markup of a renderer is text here: ``[red]`` for rich or ``<b>`` for HTML must be switched off or escaped there.
- ``redact`` knows the forms listed at :class:`Secret`. It is the last net, not a licence to pass keys around.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import re
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NoReturn, SupportsIndex
from urllib.parse import quote, quote_plus

__all__ = [
    "MASK",
    "Secret",
    "csv_cell",
    "file_name",
    "forget_secrets",
    "has_key",
    "looks_like_key",
    "redact",
    "restore",
    "short_hash",
    "storable",
    "terminal",
    "without_keys",
]

# --- What a reader cannot see, or what moves the cursor -----------------------------------------------------------

# Unicode's Default_Ignorable_Code_Point and the categories Cf, Zl, Zp and Cs, as ranges: written out, because walking
# 1.1 million code points at import would cost every command a tenth of a second. A test walks them instead.
# Variation selectors and fillers are not Cf, but are invisible too and carry smuggled text as well as the tags do.
_INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_UNSAFE_IN_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f{_INVISIBLE}]")
_UNSAFE_IN_BLOCK = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_INVISIBLE}]")
_SHORT_ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if short := _SHORT_ESCAPES.get(character):
        return short
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def terminal(text: str, *, multiline: bool = False) -> str:
    r"""Text that cannot move the cursor, colour, link, reorder or hide anything on a terminal.

    Controls (C0, DEL, C1), every format character (bidirectional controls, zero-width, tags), line and paragraph
    separators, lone surrogates and all other default-ignorable characters become visible escapes: ``\x1b``,
    ``\u202e``, ``\U000e0041``. Nothing is dropped, so that the reader sees that something was there.

    One line stays one line: newline and tab become ``\n`` and ``\t``. With ``multiline`` these two pass, and nothing
    else does: not even carriage return, which overwrites the line.

    Idempotent; backslashes are left alone, so a typed ``\x1b`` looks like an escaped one. Clean each field before
    joining fields. For rich, switch ``markup`` off.
    """
    # isprintable alone would not do: fillers and variation selectors count as printable.
    if text.isascii() and text.isprintable():
        return text
    return (_UNSAFE_IN_BLOCK if multiline else _UNSAFE_IN_LINE).sub(_escape, text)


# --- CSV ----------------------------------------------------------------------------------------------------------

# What a spreadsheet, or the script in front of it, may trim before it looks at the first character. TAB, CR and LF
# are missing on purpose: they are starters themselves.
_TRIMMED = (
    "\x01-\x08\x0b\x0c\x0e-\x20\x7f-\xa0\u1680\u2000-\u200a\u202f\u205f\u2800\u3000"
    f'{_INVISIBLE}"\u00ab\u00bb\u2018-\u201f\u2039\u203a\uff02\uff07'
)
# = + - @, with every character that compatibility normalisation (an Asian spreadsheet's habit) turns into one of
# them, and the minus sign.
_STARTERS = (
    "=\u207c\u208c\u2a75\u2a76\ufe66\uff1d+\u207a\u208a\ufb29\ufe62\uff0b@\ufe6b\uff20\u2212\ufe63\uff0d\\-\t\r\n"
)
_FORMULA = re.compile(f"[{_TRIMMED}]*[{_STARTERS}]")
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")


def csv_cell(text: str) -> str:
    r"""A text cell that no spreadsheet takes for a formula (OWASP, CSV Injection).

    A cell that starts with ``= + - @``, TAB, CR, LF or a full-width twin, at once or after spaces, a byte-order mark,
    double or typographic quotes or invisible characters, gets a leading apostrophe. NUL and lone surrogates, which a
    CSV file in UTF-8 cannot hold, become ``\x00`` and ``\ud800``. Anything else is untouched, line breaks too.

    Idempotent. For text only: a number that the tool computed is written as a number, or ``-0.1`` would become text.
    Not promised: a reader that splits at another separator than the writer's. Write with ``csv.QUOTE_ALL``.
    """
    safe = _UNWRITABLE.sub(_escape, text)
    return f"'{safe}" if _FORMULA.match(safe) else safe


# --- Names and hashes ---------------------------------------------------------------------------------------------

_LONGEST_NAME = 80
_HASH_DIGITS = 12


def short_hash(text: str) -> str:
    """The first 12 hexadecimal digits of the sha256 of the UTF-8 text (lone surrogates encoded as they are)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_DIGITS]


def file_name(text: str) -> str:
    """One path component that is safe on every file system: ``<slug>-<12 hex of the text's hash>``.

    Only ``a-z 0-9 -``, at most 80 characters, never starting with ``-``. There is no dot, so neither ``..``, nor a
    hidden file, nor a reserved name (``CON.txt`` is still the console) can come out. Texts that differ in any way,
    case and invisible characters included, get different names even where file names ignore case.
    """
    # The slug is only for the eye, so its source may be cut before the costly normalisation.
    ascii_text = unicodedata.normalize("NFKD", text[:200]).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_text)[: _LONGEST_NAME - _HASH_DIGITS - 1].strip("-")
    return f"{slug or 'unnamed'}-{short_hash(text)}"


# --- Storage ------------------------------------------------------------------------------------------------------

# A private-use character of the last plane: valid in UTF-8, and as good as absent from real text.
_MARK = "\U0010f8d8"
_UNSTORABLE = re.compile(f"[{_MARK}\ud800-\udfff]")
_STORED = re.compile(f"{_MARK}({_MARK}|d[89a-f][0-9a-f]{{2}})")


def storable(text: str) -> str:
    """Text that UTF-8, and so SQLite and JSON Lines, can hold; :func:`restore` gives the original back.

    Ordinary text is returned as it is. A lone surrogate becomes a private-use mark (U+10F8D8) and its four hex
    digits; the mark itself is doubled, so that texts which already hold it survive as well. NUL needs no escape:
    a bound SQLite parameter and JSON both carry it.
    """
    if _MARK not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _UNSTORABLE.sub(lambda m: _MARK + (_MARK if m[0] == _MARK else f"{ord(m[0]):04x}"), text)


def restore(text: str) -> str:
    """The inverse of :func:`storable`: ``restore(storable(text)) == text`` for every string.

    Text that ``storable`` did not write is returned with its stray marks as they are; nothing raises.
    """
    if _MARK not in text:
        return text
    return _STORED.sub(lambda m: _MARK if m[1] == _MARK else chr(int(m[1], 16)), text)


# --- Secrets ------------------------------------------------------------------------------------------------------

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
_AROUND_A_KEY = re.compile(f"\\A[\\s\x00-\x1f{_INVISIBLE}]+|[\\s\x00-\x1f{_INVISIBLE}]+\\Z")

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


def without_keys(text: str) -> str:
    """The text with every form of every :class:`Secret` that looks like a key replaced by ``***``: for what is stored.

    A recorded answer keeps its words, also where one of them is a part of an address or a password; a key that an
    endpoint repeats is not kept on the disk.
    """
    return _masked(text, _keys)


def redact(text: str) -> str:
    """The text with every registered form of every :class:`Secret` replaced by ``***``.

    Afterwards no registered form is in the text. Never raises. Costs one substring search per registered form;
    nothing where no secret is registered.
    """
    return _masked(text, _registered)


def _masked(text: str, forms: tuple[str, ...]) -> str:
    found = True
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
