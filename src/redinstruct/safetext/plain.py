r"""Hostile text made safe to show, to name files by and to store: pure functions, total over ``str``."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import overload

# --- What a reader cannot see, or what moves the cursor -----------------------------------------------------------

# Unicode's Default_Ignorable_Code_Point and the categories Cf, Zl, Zp and Cs, as ranges: written out, because walking
# 1.1 million code points at import would cost every command a tenth of a second. A test walks them instead.
# Variation selectors and fillers are not Cf, but are invisible too and carry smuggled text as well as the tags do.
INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    # Code points that Unicode will never make characters; XML can hold two of them in no form at all.
    "\ufdd0-\ufdef" + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
)
_UNSAFE_IN_LINE = re.compile(f"[\x00-\x1f\x7f-\x9f{INVISIBLE}]")
_UNSAFE_IN_BLOCK = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{INVISIBLE}]")
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
    separators, lone surrogates, noncharacters (U+FFFE) and all other default-ignorable characters become visible
    escapes: ``\x1b``, ``\u202e``, ``\U000e0041``. Nothing is dropped, so that the reader sees that something was there.

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
    f'{INVISIBLE}"\u00ab\u00bb\u2018-\u201f\u2039\u203a\uff02\uff07'
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


@overload
def storable(text: str) -> str: ...
@overload
def storable(text: str | None) -> str | None: ...
def storable(text: str | None) -> str | None:
    """Text that UTF-8, and so SQLite and JSON Lines, can hold, or None; :func:`restore` gives the original back.

    Ordinary text is returned as it is. A lone surrogate becomes a private-use mark (U+10F8D8) and its four hex
    digits; the mark itself is doubled, so that texts which already hold it survive as well. NUL needs no escape:
    a bound SQLite parameter and JSON both carry it.
    """
    if text is None or text.isascii():
        return text
    if _MARK not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    return _UNSTORABLE.sub(lambda m: _MARK + (_MARK if m[0] == _MARK else f"{ord(m[0]):04x}"), text)


@overload
def restore(text: str) -> str: ...
@overload
def restore(text: str | None) -> str | None: ...
def restore(text: str | None) -> str | None:
    """The inverse of :func:`storable`: ``restore(storable(text)) == text`` for every string.

    Text that ``storable`` did not write is returned with its stray marks as they are; nothing raises. What is no text,
    as a column may hold whatever its schema says, is a ``TypeError``.
    """
    if text is None or _MARK not in text:
        return text
    return _STORED.sub(lambda m: _MARK if m[1] == _MARK else chr(int(m[1], 16)), text)
