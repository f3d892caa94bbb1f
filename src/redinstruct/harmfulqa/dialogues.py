"""Role-plays as teachers really write them, made turns and questions; or :class:`Unparsable` with its reason.

The promises are those of :mod:`redinstruct.harmfulqa.parsing`; ``harvest_questions`` alone may find nothing. Read are
roles under their usual other names, thoughts without their bracket, chats in JSON, and a reply that was cut short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from msgspec.structs import replace

from redinstruct.harmfulqa.parsing import CHATTER, HEAD, TEXT_KEYS, Unparsable, clean, json_in, prepared
from redinstruct.harmfulqa.rows import Speaker, Turn
from redinstruct.harmfulqa.similarity import normalise
from redinstruct.judges.refusal import opens_with_refusal
from redinstruct.prompts.answers import strip_thoughts

_ASKERS = (
    "red lm|red model|red team|red teamer|red|user|human|asker|questioner|interviewer|"
    "attacker|student|person a|"
    "speaker a|usuario|usuário|utilisateur|benutzer|nutzer|utente|пользователь|"
    "用户|使用者|人类|ユーザー|사용자|المستخدم|"
    "lm rojo|rot lm|lm rouge"
)
_ANSWERERS = (
    "base lm|base model|base|assistant|ai|ai assistant|bot|chatbot|gpt|chatgpt|model|answerer|person b|speaker b|"
    "asistente|assistente|assistent|"
    "ассистент|помощник|助手|助理|アシスタント|어시스턴트|المساعد|lm base|basis lm"
)
_SPEAKERS: dict[str, Speaker] = dict.fromkeys(_ASKERS.split("|"), "human")
_SPEAKERS |= dict.fromkeys(_ANSWERERS.split("|"), "gpt")
_SPEAKER = re.compile(
    r"[\s>#*_\-•`]{0,8}(?:\d{1,3}[.)][\s*_]{1,4})?[\[<(\"]?(?P<name>[^\W\d_][^:：()\[\]\n*]{0,30}?)[\s*_\])>\"]{0,5}"
    r"(?:\d{1,3}[\s*_]{0,3})?(?P<aside>\([^()\n]{0,100}\)[\s*_]{0,3})?[:：][\s*_]{0,4}"
)
_THINKS = re.compile(
    # Possessive, as no word begins with what stands before it: else each mark of a long row is tried 32 times.
    r"[*_]{0,3}+(?P<open>[(\[{<]?+)[*_ ]{0,3}+(?:(?:red-lm'?s? )?(?:internal|inner|private)[ _-]thoughts?|thoughts?|"
    r"thinking|pensamiento interno|pensée interne|pensamento interno|innerer gedanke|内心想法|内部思考|"
    r"心の声)[*_ ]{0,3}[:：>][*_]{0,3}",
    re.IGNORECASE,
)
_CLOSERS = {"(": ")", "[": "]", "{": "}", "<": "</", "": "\n"}
_PLACEHOLDER = re.compile(r"[\[<{(][^\]>})\n]{0,80}[\]>})]|\.{3}|…")
_END = re.compile(
    r"\W{0,8}(?:end of (?:the )?(?:conversation|dialogue|chat)|the end|conversation ends|fin)\W{0,8}", re.I
)
_ROLE_KEYS = ("role", "from", "speaker", "name")


class _TurnPart(NamedTuple):
    """What one speaker said under one heading, with the thought that was taken out of it."""

    speaker: Speaker
    text: str
    thought: str | None


def parse_dialogue(reply: str) -> tuple[tuple[Turn, ...], bool]:
    """The turns of a role-play, a human turn first and an assistant turn last, and whether it is complete.

    Incomplete is a dialogue whose last asker was not answered (that turn is dropped) or whose last answer stops in
    mid-sentence although earlier turns end with a full stop. Two turns of one speaker on end become one. What stands
    before the first turn goes, unless the reply continues the prompt's own ``Red-LM:``.

    Raises:
        Unparsable: ``empty``, ``refused``, ``no_dialogue``, ``one_sided``.
    """
    text = prepared(reply)
    said = _said_in_json(text) or list(_said(text.splitlines()))
    if not said:
        raise Unparsable("refused" if opens_with_refusal(text) else "no_dialogue")
    parts = [_without_thought(speaker, words) for speaker, words in said]
    cut = not parts[-1].text
    parts = [part for part in parts if part.text and not _PLACEHOLDER.fullmatch(part.text)]
    turns = [_joined(list(group)) for _, group in groupby(parts, key=lambda part: part.speaker)]
    turns = turns[1:] if turns and turns[0].speaker == "gpt" else turns
    if turns and turns[-1].speaker == "human":
        cut = True
        turns.pop()
    if not turns:
        raise Unparsable("one_sided")
    if _stops_short(turns):
        turns[-1], cut = replace(turns[-1], cut=True), True
    return tuple(turns), not cut


def _joined(parts: Sequence[_TurnPart]) -> Turn:
    thoughts = [part.thought for part in parts if part.thought]
    return Turn(parts[0].speaker, "\n".join(part.text for part in parts), "\n".join(thoughts) or None)


def _stops_short(turns: Sequence[Turn]) -> bool:
    last = turns[-1].text[-1]
    if last in ",-–([{:;":
        return True
    # A small model, or another script, may never write a full stop: then its lack says nothing.
    return last.isalnum() and any(not turn.text[-1].isalnum() for turn in turns[:-1])


def _role(name: str) -> str:
    return normalise(name).rstrip("0123456789 ")


def _said_in_json(text: str) -> list[tuple[Speaker, str]]:
    """A transcript as a JSON list of objects with a role and a text."""
    value = json_in(text)
    if isinstance(value, dict):
        value = next((part for part in value.values() if isinstance(part, list)), None)
    said: list[tuple[Speaker, str]] = []
    for row in value if isinstance(value, list) else ():
        if not isinstance(row, dict):
            continue
        role = next((row[key] for key in _ROLE_KEYS if isinstance(row.get(key), str)), None)
        words = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
        role, words = (role, words) if role else next(((k, v) for k, v in row.items() if isinstance(v, str)), ("", ""))
        if words is not None and (speaker := _SPEAKERS.get(_role(role))):
            said.append((speaker, words))
    return said


def _said(lines: Sequence[str]) -> Iterator[tuple[Speaker, str]]:
    """Who said what, by the headings that begin a line."""
    known = dict(_SPEAKERS)
    heads = [_SPEAKER.match(line[:HEAD]) for line in lines]
    names = [_role(head["name"]) if head else "" for head in heads]
    if {known[name] for name in names if name in known} != {"human", "gpt"}:
        known |= _unknown_pair(names, known)
    speaker: Speaker | None = None
    words: list[str] = []
    for line, head, name in zip(lines, heads, names, strict=True):
        if head is None or name not in known:
            words += [line] if not _END.fullmatch(line) and (line.strip("-*_= ") or not line.strip()) else []
            continue
        before = "\n".join(words).strip()
        if speaker is not None:
            yield speaker, before
        elif known[name] == "gpt" and before and not before.endswith(":") and not CHATTER.match(before[:HEAD]):
            # The reply goes on where the prompt's last "Red-LM:" stopped.
            yield "human", before
        aside = head["aside"] or ""
        speaker, words = known[name], [aside * bool(_THINKS.match(aside)) + line[head.end() :]]
    if speaker is not None:
        yield speaker, "\n".join(words).strip()


def _unknown_pair(names: Sequence[str], known: dict[str, Speaker]) -> dict[str, Speaker]:
    """Two names that take turns at least twice are a dialogue, whatever they are called; who begins asks."""
    order = list(dict.fromkeys(name for name in names if name and names.count(name) > 1)) if len(names) < 2000 else []
    if len(order) != 2:
        return {}
    first: Speaker = known.get(order[0], "gpt" if known.get(order[1]) == "human" else "human")
    second: Speaker = "gpt" if first == "human" else "human"
    return {order[0]: first, order[1]: second}


def _without_thought(speaker: Speaker, words: str) -> _TurnPart:
    """Take the thoughts out: bracketed, nested, on a line of their own, or never closed."""
    thoughts: list[str] = []
    kept, rest = "", words.strip()
    while len(thoughts) < 50 and (start := _thought_start(rest)) is not None:
        kept += rest[: start.start()]
        thought, rest = _thought_and_rest(rest[start.end() :], start["open"])
        thoughts.append(thought)
    text = (kept + rest).strip(" \t\n*_`")
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    return _TurnPart(speaker, text, "\n".join(filter(None, thoughts)) or None)


def _thought_start(text: str) -> re.Match[str] | None:
    for start in _THINKS.finditer(text):
        # Without a bracket the word alone may be part of an answer: it must begin its line.
        if start["open"] or not text[: start.start()].rpartition("\n")[2].strip():
            return start
    return None


def _thought_and_rest(text: str, opener: str) -> tuple[str, str]:
    """A thought and what follows it, the text beginning behind the marker."""
    if opener in ("(", "["):
        rest, flags = strip_thoughts(f"{opener}internal thought: {text}")
        if flags == ["thought"] and text.endswith(rest):
            return text[: len(text) - len(rest)].strip(" \t\n*_").removesuffix(_CLOSERS[opener]).strip(), rest
    closer = next((mark for mark in (_CLOSERS[opener], ">" * (opener == "<")) if mark and mark in text), "\n")
    thought, found, rest = text.partition(closer)
    if opener == "<" and closer == "</":
        rest = rest.partition(">")[2]
    if not found:
        # Nothing ends it: the last question of the line is what was asked aloud, the rest was thought.
        asked = _SENTENCE_END.split(text)[-1] if text.rstrip(' "*_').endswith("?") else ""
        return text[: len(text) - len(asked)].strip(), asked
    return thought.strip(" \t\n*_)]"), rest.strip()


# --- Questions ----------------------------------------------------------------------------------------------------

_SENTENCE_END = re.compile(r"(?<=[.!?…])[\"”')\]]{0,2}\s+|(?<=[。！？؟])|\n")
_GREETING = re.compile(
    r"(?:(?:hi|hello|hey|thanks|thank you|okay|ok|sure|great|good (?:morning|evening|day)|well|wow)(?: there|"
    r" again|,? base-lm| so much)?[,!.;:–-]\s{0,4})",
    re.IGNORECASE,
)
_COMMANDS = re.compile(
    r"(?:please |now |could you |can you )?(?:tell|explain|describe|show|give|list|teach|write|how|what)\b", re.I
)
_SMALL_TALK = re.compile(
    r"(?:and )?(?:how are you(?: doing)?(?: today)?|can you help(?: me)?(?: with (?:something|that|this))?|"
    r"(?:may|can|could) i ask you (?:a question|something)|what do you think|"
    r"(?:is )?(?:that|it)? ?(?:right|ok|okay|correct)|"
    r"does that make sense|are you there|really|why|why not|what's up|what is up)",
    re.IGNORECASE,
)


def harvest_questions(turns: Sequence[Turn]) -> list[str]:
    """The questions that the human turns ask, each once, in their order: the sentences that ask, without greetings.

    A turn that asks by a command alone (``Tell me how ...``) gives that sentence; small talk gives nothing.
    """
    found: list[str] = []
    for turn in turns:
        if turn.speaker != "human":
            continue
        text = _without_thought("human", turn.text).text
        sentences = [_ungreeted(sentence) for sentence in _SENTENCE_END.split(text) if sentence]
        asked = [sentence for sentence in sentences if sentence.rstrip("\"'”*_ ").endswith(("?", "？", "؟"))]
        asked = asked or [sentence for sentence in sentences if _COMMANDS.match(sentence)][-1:]
        found += [one for one in map(clean, asked) if one and not _SMALL_TALK.fullmatch(one.rstrip("?!. "))]
    return list(dict.fromkeys(found))


def _ungreeted(sentence: str) -> str:
    text = sentence.strip()
    while (greeting := _GREETING.match(text)) and greeting.end() < len(text):
        text = text[greeting.end() :]
    return text[:1].upper() + text[1:]
