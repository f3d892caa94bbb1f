"""One escaper a medium, each of which begins alike: keys are masked, and what can not be seen is seen.

So a name of any origin is the same words on a terminal, in Markdown, HTML, XML, SVG, CSV and JSON, and acts in none.
Python's ``ElementTree`` and Jinja with ``autoescape`` do a medium's own escaping: what goes to them passes ``shown``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

from redinstruct.safetext.plain import csv_cell, storable, terminal
from redinstruct.safetext.secrets import redact

# Character references, not backslashes: these neither keep a pipe out of a table on GitHub, nor a link or a mention
# from being made. An underscore within a word is left, and an interval's brackets: ids and figures stay readable.
_AFTER_DIGITS = "|".join(rf"(?<=\A[0-9]{{{count}}})" for count in range(1, 10))
_MARKS = re.compile(
    r"(?P<interval>\[[-+]?[0-9.]+, [-+]?[0-9.]+\](?![(\[:]))"
    r"|[\\`*{}\[\]<>#|&~$@]|(?<![^\W_])_|_(?![^\W_])|!(?=\[)"
    r"|:(?=/|[\w+-]{1,60}:)|(?<=www)\."  # addresses, and GitHub's names of pictures (:tada:)
    rf"|\A[-+](?=[\s-]|\Z)|(?:{_AFTER_DIGITS})[.)](?=\s|\Z)|\A | \Z",  # what begins a list
    re.IGNORECASE,
)


def shown(text: str, *, multiline: bool = False) -> str:
    """A text as a reader may see it anywhere: keys masked, then :func:`terminal`."""
    return terminal(redact(text), multiline=multiline)


def in_markdown(text: str) -> str:
    """A text as Markdown that shows it, on one line: in CommonMark and GitHub's dialect, and in the HTML made of them.

    No heading, list, emphasis, link, image, mention, issue number, formula, HTML or new table cell comes of it, in a
    table's cell, in a list's item or within a line. Not promised: other dialects.
    """
    return _MARKS.sub(lambda m: m[0] if m["interval"] else f"&#{ord(m[0])};", shown(text))


def in_markup(text: str, *, multiline: bool = False) -> str:
    """A text for HTML, XML or SVG, between tags or in a quoted attribute: nothing acts, and XML can hold it."""
    return html.escape(shown(text, multiline=multiline))


def in_csv(text: str) -> str:
    """A cell that no spreadsheet takes for a formula (:func:`csv_cell`); line breaks stay. CSV is lossy."""
    return csv_cell(shown(text, multiline=True))


def in_json(value: object) -> object:
    """A JSON value with keys masked in its every text; a lone surrogate leaves in its reversible escape.

    JSON is lossless: what can not be seen is kept, and whoever shows it escapes it.
    """
    if isinstance(value, str):
        return redact(storable(value))
    if isinstance(value, Mapping):
        return {redact(storable(str(key))): in_json(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [in_json(held) for held in value]
    return value
