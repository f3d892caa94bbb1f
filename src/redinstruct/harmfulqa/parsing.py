"""What a teacher really returns, made lists and definitions; or :class:`Unparsable` with its reason.

Promised: every function is pure and total: any string gives a value that is not empty, or ``Unparsable``, and nothing
else. Patterns look at the first characters of a line, so the cost is
linear. Not promised: that a teacher meant what it wrote. Where a reply can be read in two ways the stricter reading
wins: asking again costs one call, a wrong row stays.

The shapes are those that chat models return to requests for lists and role-plays (spec 2.2; issue 5, item 3): numbers,
bullets, Markdown, tables, JSON after a preamble, renamed roles, thoughts without their bracket, a reply cut short.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice, pairwise
from typing import NamedTuple

from redinstruct.judges.refusal import opens_with_refusal
from redinstruct.prompts.answers import strip_thoughts
from redinstruct.prompts.thoughts import spoken


class Unparsable(Exception):
    """A reply that is not what was asked for.

    ``reason`` is one of ``empty``, ``refused``, ``no_list``, ``no_definitions``, ``no_dialogue`` (no turns),
    ``one_sided`` (no answer, or nobody asked). The reply's text is never part of the message.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --- Lists --------------------------------------------------------------------------------------------------------

HEAD = 160
"""Characters of a line in which its marker or its speaker is looked for."""
LONGEST_ITEM = 600
"""Characters of a line that may still be an item where nothing marks it as one; a longer one is prose."""

_MARKER = re.compile(
    r"(?P<number>[#*_ \t]{0,8}\(?(?:(?:Q|Question|Topic|Subtopic|Category|Item|No)\.?[ \t]{0,2})?"
    r"(?:\d{1,3}\ufe0f?\u20e3?|[ivxIVX]{1,4}(?=[.)])|[a-zA-Z](?=[.)][ \t])|[一二三四五六七八九十]{1,3}(?=[、.．)]))"
    r"(?:[*_]{0,3}(?:[.):\]、．：)]|[ \t][-–—])[*_]{0,2}(?![0-9])|(?<=\u20e3))[ \t]{0,4})"
    r"|(?P<bullet>[-+*•‣▪▫◦·●○–—→➤✓✔][ \t]{1,4})",
    re.IGNORECASE,
)
_INLINE_NUMBER = re.compile(r"(?:(?<=\s)|^)\(?\d{1,3}[.)][ \t]{1,4}(?=\S)")
CHATTER = re.compile(
    r"\W{0,4}(?:sure|certainly|of course|absolutely|here (?:are|is)|here's|below (?:are|is)|i hope|i've|let me know|"
    r"feel free|okay|ok\b|note\b|please note|these (?:are|topics|questions|subtopics)|would you like|if you|"
    r"do you want|remember|the following|great\b)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?:question|topic|subtopic|category|answer|q)\s{0,2}[:：]\s{0,4}", re.IGNORECASE)
_RULE = re.compile(r"[\s|:*_=+~-]*")
_STRING = re.compile(r'("(?:[^"\\\n]|\\.)*+")(\s{0,4}:)?')
_COMMENT = re.compile(r'("(?:[^"\\\n]|\\.)*+")|//[^\n]*+|/\*(?:[^*]|\*(?!/))*+\*/')
_BETWEEN_VALUES = re.compile(r"[\s,]*+(?=\{)")
_TAGGED = re.compile(r"^[ \t]*<(\w{1,20})[^<>\n]{0,60}>(.*?)</\1>[ \t]*$", re.MULTILINE)
_WRAPS = (
    ("**", "**"),
    ("__", "__"),
    ("`", "`"),
    ('"', '"'),
    ("“", "”"),
    ("«", "»"),
    ("「", "」"),
    ("'", "'"),
    ("*", "*"),
)
_ITEM_KEYS = ("question", "subtopic", "topic", "name", "title", "category", "text", "item", "prompt")
TEXT_KEYS = ("definition", "description", "meaning", "value", "content", "text", "message", "utterance")


class _ListLine(NamedTuple):
    """A line of a reply: how deep it stands, its marker (``number``, ``bullet``, ``""``) and what follows that."""

    depth: int
    marker: str
    text: str


def parse_list(reply: str, *, wanted: int | None = None) -> list[str]:
    """The items of a list (topics, subtopics, questions) in their order, at most ``wanted``.

    ``Topic: definition`` stays one item; what stands before, after and between the items is dropped.

    Raises:
        Unparsable: ``empty``, ``refused`` (no list, and it opens like a refusal) or ``no_list``.
    """
    text = _TAGGED.sub(r"\2", prepared(reply))
    for found in (_from_json(text), _from_table(text), _from_markers(text)):
        if items := [item for item in map(clean, found) if item]:
            return items[:wanted] if wanted else items
    if opens_with_refusal(text):
        raise Unparsable("refused")
    if items := [item for item in map(clean, _from_plain(text, wanted)) if item]:
        return items[:wanted] if wanted else items
    raise Unparsable("no_list")


def prepared(reply: str) -> str:
    """The reply without the teacher's thought and invisible marks, its line ends made one kind.

    A thought without an end is no reply: what a teacher weighs and rejects in it must not be taken for a row.
    """
    text = reply.replace("\ufeff", "").replace("\u200b", "").replace("\r\n", "\n").replace("\r", "\n")
    text = spoken(text, cut=True).answer.strip()
    if not any(character.isalnum() for character in text):
        raise Unparsable("empty")
    return text


def clean(item: str) -> str:
    """An item without Markdown, quotes, labels and the comma behind it; empty if nothing to read is left."""
    text = " ".join(item.split()).rstrip("\\").strip(" \t,;|")
    text = text.lstrip("#> ")
    for _ in range(3):
        for opener, closer in _WRAPS:
            if text.startswith(opener) and text.endswith(closer) and len(text) > len(opener) + len(closer):
                text = text[len(opener) : -len(closer)].strip(" ,;")
        text = text[label.end() :] if (label := _LABEL.match(text)) else text
    text = text.replace("**", "").replace("__", "").strip()
    return text if any(character.isalnum() for character in text) else ""


def json_in(text: str) -> object:
    """The first JSON array or object in a text that is more than a bracketed word; None if there is none."""
    return next(iter(_values(text)), None)


def _values(text: str) -> Sequence[object]:
    """That value, and the objects right behind it (one a line, say). Comments in it are passed over."""
    text = _uncommented(text)
    for start in islice(re.finditer(r"[\[{]", text), 12):
        values = list(_decoded(text, start.start()))
        if values and any(isinstance(part, (str, dict, list)) for part in values[0]):
            return values
    return []


def _decoded(text: str, at: int) -> Iterator[Collection[object]]:
    decoder, following = json.JSONDecoder(), True
    while following:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value
        found = _BETWEEN_VALUES.match(text, end)
        at, following = end if found is None else found.end(), found is not None


def _uncommented(text: str) -> str:
    return _COMMENT.sub(lambda found: found[1] or " ", text) if "//" in text or "/*" in text else text


def _from_json(text: str) -> list[str]:
    if values := list(_values(text)):
        return list(_texts(values))
    text = _uncommented(text)
    head = text[text.index("```") :] if "```" in text else text
    # An array that was cut at the limit, or that has a comma too many: its whole strings are still items.
    if (opened := re.search(r"[\[{]\s{0,40}[\"{]", head[:2000])) is None:
        return []
    strings = [match[1] for match in _STRING.finditer(head, opened.start()) if not match[2]]
    return list(filter(None, map(_string, strings)))


def _string(quoted: str) -> str:
    try:
        return str(json.loads(quoted, strict=False))
    except ValueError:
        return quoted[1:-1].replace('\\"', '"')


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    """The items that a JSON value holds: texts, objects by their naming key, ``{name: definition}``, lists of these."""
    if isinstance(value, str):
        yield value
    elif depth > 5:
        return
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part, depth + 1)
    elif isinstance(value, dict):
        lower = {key.casefold(): part for key, part in value.items()}
        name = next((lower[key] for key in _ITEM_KEYS if isinstance(lower.get(key), str)), None)
        told = next((lower[key] for key in TEXT_KEYS if isinstance(lower.get(key), str) and lower[key] != name), None)
        nested = [part for part in value.values() if isinstance(part, (list, dict))]
        if nested:
            yield from (text for part in nested for text in _texts(part, depth + 1))
        elif name is not None or told is not None:
            yield ": ".join(text for text in (name, told) if text)
        else:
            numbered = all(not any(map(str.isalpha, key)) or key[:1] in "qQ" for key in value)
            pairs = ((key, part) for key, part in value.items() if isinstance(part, str))
            yield from (part if numbered else f"{key}: {part}" for key, part in pairs)


def _table(text: str) -> list[list[str]]:
    """The body rows of a Markdown table."""
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.count("|") < 2 and not (rows and line.count("|")):
            continue
        if _RULE.fullmatch(line):
            rows.clear()  # what stands above the rule is the head
            continue
        rows.append([cell for cell in map(clean, line.strip().strip("|").split("|")) if cell])
    return rows


def _from_table(text: str) -> list[str]:
    found = []
    for row in _table(text):
        cells = [cell for cell in row if not cell.rstrip(".)").isdigit()]
        asks = next((cell for cell in cells if cell.endswith(("?", "？"))), None)
        found.append(asks or ": ".join(cells[:2]))
    return found if len(found) > 1 else []


def _lines(text: str) -> list[_ListLine]:
    found = []
    for line in strip_thoughts(text)[0].splitlines():
        body = line.strip(" \t>")
        marker = _MARKER.match(body[:HEAD])
        depth = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        # "**Topic**: definition" begins with a star that is no bullet; "### 2. Topic" with a number behind its mark.
        kind = (marker.lastgroup or "") if marker else ""
        found.append(_ListLine(depth, kind, body[marker.end() :] if marker else body))
    return found


def _from_markers(text: str) -> list[str]:
    """The marked lines of the outermost kind; of lines that only head others, those that they head."""
    lines = _lines(text)
    marked = [line for line in lines if line.marker]
    if len(marked) == 1 and len(inline := _inline(text)) > 1:
        return inline
    if not marked:
        return _inline(text)
    first = marked[0]
    heads = [line.text.rstrip("*_ ").endswith((":", "：")) for line in marked]
    inner = [line for line in marked if (line.depth > first.depth or line.marker != first.marker)]
    if inner and heads[0]:
        return [line.text for line, heading in zip(marked, heads, strict=True) if not heading]
    outer = [line for line in marked if line.marker == first.marker and line.depth <= first.depth + 1]
    return list(_continued(lines, {id(line) for line in outer}))


def _continued(lines: Sequence[_ListLine], items: set[int]) -> Iterator[str]:
    """Each item with the indented or lower-case lines that go on with it."""
    current: list[str] = []
    open_item = False
    for line in lines:
        if id(line) in items:
            if current:
                yield " ".join(current)
            current, open_item = [line.text], True
        elif open_item and line.text and not line.marker and (line.depth >= 2 or line.text[:1].islower()):
            current.append(line.text)
        else:
            open_item = False
    if current:
        yield " ".join(current)


def _inline(text: str) -> list[str]:
    """``1. this 2. that 3. another`` on one line."""
    starts = list(_INLINE_NUMBER.finditer(text))
    if len(starts) < 2 or re.findall(r"\d+", starts[0][0] + starts[1][0])[:2] not in (["1", "2"], ["0", "1"]):
        return []
    ends = [start.start() for start in starts[1:]] + [len(text)]
    return [text[start.end() : end].split("\n\n")[0] for start, end in zip(starts, ends, strict=True)]


def _from_plain(text: str, wanted: int | None) -> list[str]:
    """Items that nothing marks: a line each, or one line with commas between."""
    lines = [line.text for line in _lines(text) if not _RULE.fullmatch(line.text) and not line.text.startswith("```")]
    lines = [line for line in lines if not line.endswith((":", "：")) and not CHATTER.match(line[:HEAD])]
    asking = [line for line in lines if clean(line).endswith(("?", "？", "؟"))]
    lines = asking or [line for line in lines if line]
    if not lines or max(map(len, lines)) > LONGEST_ITEM:
        return []
    if len(lines) > 1 or asking:
        # Several sentences in each line are paragraphs: an explanation, not a list.
        prose = sum(line.count(". ") for line in lines)
        return [] if prose > len(lines) // 2 else lines
    parts = [
        part for part in re.split(r"[,;，；、]", re.sub(r"^[^:]{0,80}:", "", lines[0]).rstrip(". ")) if part.strip()
    ]
    if wanted == 1:
        return lines
    short = len(parts) > 2 and all(len(part.split()) < 7 for part in parts)
    return [re.sub(r"^\s*(?:and|or)\s", "", part) for part in parts] if short else []


# --- Definitions --------------------------------------------------------------------------------------------------

_BETWEEN = re.compile(
    r"[\s*_`\"”»」)]{0,8}(?:[:：|]|[-–—]{1,2}(?=\s)|(?=is\b|are\b|refers\b|means\b|\n)|$)[\s*_:|\"“]{0,8}"
)
_DEFINITION = re.compile(
    r"[\W_]{0,8}(?:one-line )?(?:definition|description|meaning)[\s*_]{0,4}[:：-][\s*_]{0,4}", re.I
)


def parse_definitions(reply: str, names: Sequence[str]) -> dict[str, str]:
    """The one-line definition that a reply gives of each name; a name that it passes over is left out.

    Raises:
        Unparsable: ``empty``, ``refused``, or ``no_definitions`` (of not one name).
    """
    text = prepared(reply)
    found: dict[str, str] = {}
    for item, below in _definition_lines(text):
        # The longest: "Art History" must not be read as what the reply says of "Art".
        match = max(
            (name for name in names if name and item.casefold().startswith(name.casefold())), key=len, default=""
        )
        if not match or match in found or (gap := _BETWEEN.match(item, len(match))) is None:
            continue
        said = item[gap.end() :]
        if not said.strip():
            said = below
        if said := _without_label(said):
            found[match] = said
    if found:
        return {name: found[name] for name in names if name in found}
    if opens_with_refusal(text):
        raise Unparsable("refused")
    plain = [line.text for line in _lines(text) if line.text and not CHATTER.match(line.text[:HEAD])]
    if len(names) == 1 and plain and (said := _without_label(plain[0])):
        return {names[0]: said}
    raise Unparsable("no_definitions")


def _without_label(said: str) -> str:
    return clean(said[told.end() :] if (told := _DEFINITION.match(said)) else said)


def _definition_lines(text: str) -> Iterator[tuple[str, str]]:
    """Each line that may begin with a name, and the line below it."""
    for item in _from_json(text):
        yield item.lstrip("*_` "), ""
    for row in _table(text):
        cells = [cell for cell in row if not cell.rstrip(".)").isdigit()]
        yield ": ".join(cells[:2]), ""
    lines = [line.text for line in _lines(text) if line.text]
    for line, below in pairwise([*lines, ""]):
        yield re.sub(r"^[\s*_#`\"“「]{1,8}", "", line), below
