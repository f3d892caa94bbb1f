"""From a model's raw text to the text that a judge reads.

In this order: the model's own thought is taken out (:mod:`redinstruct.prompts.thoughts`); the prompt's echo is removed;
the CoU prompt's internal thoughts are cut out with their brackets balanced; what follows the asker's next turn is cut
off. Each step leaves a flag. When a step is not sure where its part ends, the text stays in: an answer is never made
harmless by cleaning.

The reference code cut the *first* ``)`` wherever it stood, and before 2023-09 did so on a text that still held the
prompt, so that the demonstration's answer was judged (spec 1.5). :func:`clean_2023` keeps its rule for parity runs.
"""

from __future__ import annotations

import re

import msgspec

from redinstruct.prompts.thoughts import spoken
from redinstruct.types import PromptTemplate

ECHO_BLOCK = 32
"""Characters. Any run of 2 x ECHO_BLOCK - 1 template characters in an answer holds one of its aligned blocks whole."""

TAIL = 40
"""Characters of the prompt's end, white space aside, by which an echo that lacks its beginning is known."""

LONGEST_THOUGHT = 1 << 16
"""Characters. A bracket that closes later than this closes no thought."""

_THOUGHT = re.compile(r"[(\[]\s*+internal[ _-]++thoughts?\s*+:", re.IGNORECASE)
_BRACKETS = {"(": re.compile(r"[()]"), "[": re.compile(r"[\[\]]")}
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")


class JudgedText(msgspec.Struct, frozen=True):
    """``text`` is what the judge reads (may be empty), ``flags`` what was done, ``thought`` the model's own."""

    text: str
    flags: tuple[str, ...]
    thought: str = ""


def strip_thoughts(text: str) -> tuple[str, list[str]]:
    """Cut out every internal thought, brackets balanced.

    A thought whose bracket never closes ends at its first closing bracket, else only its marker is dropped. So does
    one whose brackets seem to balance only in a later paragraph, past a closing bracket: a stray ``:(`` would
    otherwise swallow the answer. The text stays for the judge to read.
    """
    kept: list[str] = []
    flags: list[str] = []
    at = 0
    while (start := _THOUGHT.search(text, at)) is not None:
        kept.append(text[at : start.start()])
        first_close, end = _thought_ends(text, start)
        if end is not None and (end == first_close or _BLANK_LINE.search(text, first_close, end) is None):
            at = end
            flags.append("thought")
            continue
        at = first_close or start.end()
        flags.append("thought_unclosed")
        # One unclosed bracket means that every later one is inside it: scanning again would be quadratic.
        break
    if not flags:
        return text, flags
    kept.append(text[at:])
    return "".join(kept).strip(), list(dict.fromkeys(flags))


def _thought_ends(text: str, start: re.Match[str]) -> tuple[int, int | None]:
    """Where a thought ends: behind its first closing bracket (0: there is none), behind its balancing one."""
    opener = text[start.start()]
    first_close = depth = 0
    for bracket in _BRACKETS[opener].finditer(text, start.start(), start.start() + LONGEST_THOUGHT):
        if bracket.group() == opener:
            depth += 1
            continue
        depth -= 1
        first_close = first_close or bracket.end()
        if depth == 0:
            return first_close, bracket.end()
    return first_close, None


def strip_echo(text: str, prompt: str) -> tuple[str, list[str]]:
    """Remove the prompt, or the end of it, from the front of an answer; white space may differ.

    Only what is the prompt's own text, character for character, goes: an answer that merely quotes the prompt's last
    words further down keeps everything. An answer that is nothing but the prompt's beginning, cut off, is all echo.
    """
    ends = prompt.rstrip()[-64:].split()
    # Nearly every answer holds no echo: it neither begins as the prompt does nor has the prompt's last word in it.
    if not ends or (text[:1] != prompt.lstrip()[:1] and ends[-1] not in text):
        return text, []
    asked, said = "".join(prompt.split()), "".join(text.split())
    if len(said) < len(asked) and len(said) >= 2 * TAIL and asked.startswith(said):
        return "", ["echo"]
    length = len(asked) if said.startswith(asked) else _echoed_end(said, asked)
    rest = _after(text, length)
    if length == 0 or (rest[:1].isalnum() and asked[-1].isalnum()):
        # "How to add" begins like "How to a", and is no echo of it.
        return text, []
    return rest.strip(), ["echo"]


def _echoed_end(said: str, asked: str) -> int:
    """Length of the longest end of the prompt (at least TAIL) with which the answer begins; 0: none."""
    longest = 0
    tail = asked[-TAIL:]
    at = said.find(tail, 0, len(asked)) if len(tail) == TAIL else -1
    while at >= 0:
        end = at + TAIL
        if asked.endswith(said[:end]):
            longest = end
        at = said.find(tail, at + 1, len(asked))
    return longest


def _after(text: str, count: int) -> str:
    """The text behind its first ``count`` characters that are no white space."""
    for word in re.finditer(r"\S+", text):
        if count <= len(word.group()):
            return text[word.start() + count :]
        count -= len(word.group())
    return ""


def clean_2023(text: str) -> str:
    """The reference's ``clean_thought``: all up to the first ``)``; without one, the last character alone.

    Kept for ``--protocol paper-2023`` only. Source: generate_responses.py, lines 157-167 (spec 1.3 and 4.8).
    """
    if "(Internal thought:" not in text:
        return text
    return text[text.index(")") + 1 if ")" in text else -1 :].strip()


class AnswerReader:
    """Reads the answers to one template. Built once per template, used for every answer."""

    def __init__(self, template: PromptTemplate, *, protocol_2023: bool = False) -> None:
        self._protocol_2023 = protocol_2023
        self._template = template.text
        both = f"{template.text}\n{strip_thoughts(template.text)[0]}"
        self._lines = frozenset(["", *(line.strip() for line in both.splitlines())])
        self._next_turn: re.Pattern[str] | None = None
        self._cue: re.Pattern[str] | None = None
        if template.asker and template.answerer:
            self._next_turn = re.compile(rf"^[ \t*_#>]*{re.escape(template.asker)}[ \t*_]*:", re.MULTILINE)
            self._cue = re.compile(rf"\s*{re.escape(template.answerer)}\s*:\s*")

    def read(self, raw: str, prompt: str, *, opened: bool = False, cut: bool = False) -> JudgedText:
        """What the judge reads of ``raw``, the answer to ``prompt`` (the rendered template).

        ``opened`` and ``cut`` as for :func:`redinstruct.prompts.thoughts.spoken`.
        """
        if self._protocol_2023:
            # The models of 2023 did not think apart: what a later one thinks is taken out before their rule.
            said = spoken(raw, opened=opened, cut=cut)
            text = clean_2023(said.answer)
            return JudgedText(text, (*said.flags, *(("echo_left",) if self.holds_echo(text) else ())), said.thought)
        said = spoken(raw.strip(), opened=opened, cut=cut)
        thought, flags = said.thought, [*said.flags]
        text, echoed = strip_echo(said.answer, prompt)
        if echoed:
            said = spoken(text, cut=cut)
            text, thought = said.answer, said.thought or thought
            flags += [*echoed, *said.flags]
        text, thoughts = strip_thoughts(text)
        text, ended = self._cut_next_turn(text)
        flags += [*thoughts, *ended]
        if self.holds_echo(text):
            flags.append("echo_left")
        return JudgedText(text, tuple(dict.fromkeys(flags)), thought)

    def holds_echo(self, text: str) -> bool:
        """Whether a run of the template's own text survives (sure for runs of 63 characters or more)."""
        blocks = range(0, len(text) - ECHO_BLOCK + 1, ECHO_BLOCK)
        return any(text[at : at + ECHO_BLOCK] in self._template for at in blocks)

    def _cut_next_turn(self, text: str) -> tuple[str, list[str]]:
        if self._next_turn is None or self._cue is None:
            return text, []
        if (cue := self._cue.match(text)) is not None:
            text = text[cue.end() :]
        at = 0
        for turn in self._next_turn.finditer(text):
            # Within an echo that was not recognised stands the template's text before a turn, and no answer yet.
            if any(line.strip() not in self._lines for line in text[at : turn.start()].splitlines()):
                return text[: turn.start()].strip(), ["next_turn"]
            at = turn.start()
        return text, []
