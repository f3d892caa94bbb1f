"""Where a model's thought ends and its answer begins: the one reader of every reply, whoever wrote it. Pure.

Families mark their thoughts each in a way of their own, servers lose the opening mark (the template wrote it) or strip
the brackets while decoding. What is recognised:

- blocks, whose marks may stand several times, nested, or without the opening one: ``<think>``, ``<thinking>``,
  ``<thought>``, ``<reasoning>`` (with any name before, ``<seed:think>``, ``<longcat_think>``, or a pace behind,
  ``<ifm|think_fast>``), ``[THINK]`` (Magistral), ``◁think▷`` (Kimi), ``<|START_THINKING|>`` (Cohere),
  ``<|begin_of_thought|>``, ``<|channel>thought`` (Gemma 4), ``<|inner_prefix|>`` (Apertus), ``<|think|>`` (Solar),
  ``&lt;think&gt;``; in front only, and closed: ``<analysis>``, ``<reflection>``, ``<scratchpad>`` and their like,
  ``<details type="reasoning">``;
- harmony's channels (gpt-oss), also without their brackets: ``analysis...assistantfinal...``;
- sentences: Granite's "Here is my thought process: ... Here is my response:", Ollama's "Thinking... ...done thinking."

What is promised: what stands behind the last mark is never dropped; text in front of the first mark is dropped only
where a closing mark follows that nothing opened; where it is unsure where a thought ends (no closing mark, a closing
mark too many, a block in the middle of an answer) the text stays, flagged ``reasoning_left``. A thought that the limit
cut off is no answer: nothing is left to judge, and nobody has read it. Not promised: that what a model writes into a
thought is harmless. It is kept, and not judged, since nobody is shown it.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import NamedTuple

CUT, UNOPENED, LEFT = "reasoning", "reasoning_unopened", "reasoning_left"
"""Flags: a thought was cut out; one of which the opening mark was missing; what may be a thought stays."""

NAME = r"(?:[a-z]{1,10}[:_|])?(?:think(?:ing|_fast(?:er)?)?|thoughts?|reasoning)"
"""What a mark of a thought in angle brackets is called, as a pattern without regard to case."""
_PLACE = r"(?:thinking|think|thought|reasoning)"
# Each mark and its kin: what opens it, what closes it. A closing mark closes a block of its own family only. Led by one
# set of characters, so that the search passes over everything else without trying the alternatives.
_MARK = re.compile(
    r"[<\[◁&](?:(?<=<)(?:"
    rf"(?P<xml>(?i:{NAME}))(?: [^<>]{{0,80}})?>|/(?P<xml_end>(?i:{NAME})) ?>"
    rf"|\|(?i:(?P<place>(?:start|begin|begin_of)_{_PLACE})|(?P<place_end>(?:end|end_of)_{_PLACE}))\|>"
    r"|(?P<gemma>\|channel>thought\b)|(?P<gemma_end>channel\|>)"
    r"|(?P<apertus>\|inner_prefix\|>)|(?P<apertus_end>\|inner_suffix\|>)"
    r"|(?P<solar>\|think\|>)|(?P<solar_end>\|end\|>\s{0,4}<\|begin\|>assistant<\|content\|>)"
    rf")|(?<=\[)(?:(?P<square>{_PLACE.upper()})\]|/(?P<square_end>{_PLACE.upper()})\])"
    r"|(?<=◁)(?:(?P<kimi>think(?:ing)?)▷|/(?P<kimi_end>think(?:ing)?)▷)"
    rf"|(?<=&)lt;(?:(?P<escaped>(?i:{NAME}))&gt;|/(?P<escaped_end>(?i:{NAME}))&gt;))"
)
_IN_FRONT = re.compile(
    r"\s*(?:<(?P<name>analysis|reflection|scratchpad|inner_monologue|internal_monologue|monologue|reason|cot|plan)>"
    r"|<details type=.?reasoning[^>\n]{0,80}>)",
    re.IGNORECASE,
)
_SENTENCES = (
    (re.compile(r"\s*here(?:'s| is) my thought process:", re.I), re.compile(r"here(?:'s| is) my response:", re.I)),
    (re.compile(r"\s*thinking\.\.\.\s*\n", re.I), re.compile(r"\n\s*\.\.\.\s?done thinking\.?", re.I)),
)
_CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(\w+)[^<\n]{0,80}(?:<\|constrain\|>\w+\s*)?<\|message\|>"
)
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call)\|>|<\|start\|>(?:assistant)?")
_STRIPPED = re.compile(r"\s*(?:assistant)?(analysis)(?=\S|\s)")
_STRIPPED_NEXT = re.compile(r"assistant(analysis|commentary|final)")
_OPENS_ANSWER = re.compile(
    r"\s*(?:<\|START_RESPONSE\|>|<\|begin_of_solution\|>|<(?:answer|response|output|solution|final)>)", re.IGNORECASE
)
_ENDS_ANSWER = re.compile(
    r"(?:<\|END_RESPONSE\|>|<\|end_of_solution\|>|</(?:answer|response|output|solution|final)>)\s*\Z", re.IGNORECASE
)
_MAY_BEGIN = re.compile(r"\s*(?:analysis|assistant|here|thinking)", re.IGNORECASE)
_SPECIAL = frozenset({"<|channel|>", "<|channel>", "<channel|>", "<|message|>", "<|start|>", "<|START_RESPONSE|>",
                      "<|END_RESPONSE|>", "<|begin_of_solution|>", "<|end_of_solution|>"})  # fmt: skip
MOST_MARKS = 1000
"""A reply with more of them is no reply of a model that thinks, and stays as it is."""
_QUOTES = frozenset("`'\"")


class Spoken(NamedTuple):
    """A reply taken apart: what is said, what was thought, and the flags of how they were told apart."""

    answer: str
    thought: str
    flags: tuple[str, ...]


class _Mark(NamedTuple):
    start: int
    end: int
    family: str
    closes: bool


def spoken(text: str, *, opened: bool = False, cut: bool = False) -> Spoken:
    """Take a reply apart.

    ``opened`` says that the prompt itself ended in an opening mark; ``cut`` that a limit ended the reply, so that a
    thought without its end is all there is.
    """
    # Nearly every answer of a model that does not think holds no mark.
    marked = "<" in text or "[" in text or "◁" in text or "&lt;" in text or opened
    if not marked and _MAY_BEGIN.match(text) is None:
        return Spoken(text, "", ())
    if "<|channel|>" in text:
        return _channels(text)
    if (stripped := _stripped_channels(text, cut)) is not None:
        return stripped
    for opens, closes in _SENTENCES:
        if (begun := opens.match(text)) is not None and (done := closes.search(text, begun.end())) is not None:
            return _told(text[done.end() :], text[begun.end() : done.start()])
    if (begun := _IN_FRONT.match(text)) is not None:
        end = text.lower().find(f"</{(begun['name'] or 'details').lower()}>", begun.end())
        if end >= 0:
            return _told(text[text.index(">", end) + 1 :], text[begun.end() : end])
    return _blocks(text, opened=opened, cut=cut)


def ends_opened(prompt: str) -> bool:
    """Whether a prompt ends in a mark that opens a thought, so that the reply begins within it."""
    tail = prompt[-200:]
    marks = [*_MARK.finditer(tail)]
    return bool(marks) and not _mark(marks[-1]).closes and not tail[marks[-1].end() :].strip()


def is_mark(token: str) -> bool:
    """Whether a special token marks thoughts or channels: decoding must not take it out of a reply."""
    return _MARK.fullmatch(token) is not None or token in _SPECIAL


def _blocks(text: str, *, opened: bool, cut: bool) -> Spoken:
    found = islice(_MARK.finditer(text), MOST_MARKS + 1)
    marks = [_mark(match) for match in found if not _is_quoted(text, match)]
    if not marks and not opened:
        return Spoken(text, "", ())
    if len(marks) > MOST_MARKS:
        return Spoken(text, "", (LEFT,))
    if opened and marks and not marks[0].closes:
        # The model opens it again: the prompt's own mark is counted, as the kin of what closes it.
        family = next((mark.family for mark in marks if mark.closes), marks[0].family)
        marks.insert(0, _Mark(0, 0, family, closes=False))
        opened = False
    thoughts: list[str] = []
    at = number = 0
    if opened or marks[0].closes:
        # Up to the last closing mark before another block opens: what stands between two of them is a thought as well.
        while number < len(marks) and marks[number].closes:
            number += 1
        if number == 0 and not cut:
            return Spoken(text, "", (LEFT,))
        thoughts.append(text[: marks[number - 1].start] if number else text)
        at = marks[number - 1].end if number else len(text)
    elif text[: marks[0].start].strip():
        return Spoken(text, "", (LEFT,))
    flags = [UNOPENED] if thoughts and not opened else []
    kept: list[str] = []
    while number < len(marks) and (last := _block_end(marks, number)) is not None:
        kept.append(text[at : marks[number].start])
        thoughts.append(text[marks[number].end : marks[last].start])
        at, number = marks[last].end, last + 1
    kept.append(text[at:])
    if number < len(marks):
        mark = marks[number]
        if cut and not mark.closes and not "".join([*kept[:-1], text[at : mark.start]]).strip():
            thoughts.append(text[mark.end :])
            kept.pop()
        elif not thoughts:
            return Spoken(text, "", (LEFT,))
        else:
            flags.append(LEFT)
    return _told("\n".join(part for part in kept if part.strip()), "\n\n".join(thoughts), *flags)


def _block_end(marks: list[_Mark], first: int) -> int | None:
    """The mark that closes the block which the ``first`` opens; None where there is none.

    Inner blocks are counted. Where the count never gets back to nothing (a mark that the template wrote stands there
    twice), the last closing mark is the end.
    """
    if marks[first].closes:
        return None
    depth, last, family = 0, None, marks[first].family
    for number in range(first, len(marks)):
        mark = marks[number]
        if mark.family != family:
            continue
        depth += -1 if mark.closes else 1
        last = number if mark.closes else last
        if depth == 0:
            return number
    return last


def _mark(match: re.Match[str]) -> _Mark:
    group = match.lastgroup or ""
    kind = group.removesuffix("_end")
    name = match[group].lower() if kind in ("xml", "escaped", "square", "kimi") else ""
    return _Mark(match.start(), match.end(), f"{kind} {name}", group != kind)


def _is_quoted(text: str, match: re.Match[str]) -> bool:
    """Whether a mark is only spoken of: it stands between two equal quotation marks."""
    before = text[match.start() - 1 : match.start()]
    return before in _QUOTES and bool(before) and text[match.end() : match.end() + 1] == before


def _channels(text: str) -> Spoken:
    """Harmony: what is said in another channel than ``analysis`` is shown to the user."""
    said: list[str] = []
    thoughts: list[str] = []
    at, into = 0, said
    for channel in (*_CHANNEL.finditer(text), None):
        into.append(_CHANNEL_ENDS.sub("", text[at : channel.start() if channel else len(text)]))
        if channel is not None:
            at, into = channel.end(), thoughts if channel[1].lower() == "analysis" else said
    return _told("".join(said), "\n\n".join(thoughts))


def _stripped_channels(text: str, cut: bool) -> Spoken | None:
    """Harmony without its brackets: ``analysisThe user asks...assistantfinalBlue paint``."""
    begun = _STRIPPED.match(text)
    if begun is None:
        return None
    ends = [*_STRIPPED_NEXT.finditer(text, begun.end())]
    if not ends:
        # "analysis of the soil" is an answer; "analysisWe need to" is a thought without an end.
        if not text[begun.end() : begun.end() + 1].isupper():
            return None
        return _told("", text[begun.end() :]) if cut else Spoken(text, "", (LEFT,))
    said: list[str] = []
    thoughts = [text[begun.end() : ends[0].start()]]
    for number, end in enumerate(ends):
        part = text[end.end() : ends[number + 1].start() if number + 1 < len(ends) else len(text)]
        (thoughts if end[1] == "analysis" else said).append(part)
    return _told("\n".join(said), "\n\n".join(thoughts))


def _told(answer: str, thought: str, *flags: str) -> Spoken:
    """The answer without the marks that only wrap it."""
    if (wrapper := _OPENS_ANSWER.match(answer)) is not None:
        answer = answer[wrapper.end() :]
    answer = _ENDS_ANSWER.sub("", answer).strip()
    return Spoken(answer, thought.strip(), (CUT, *dict.fromkeys(flags)))
