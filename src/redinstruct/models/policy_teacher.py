"""A scripted Red-LM that asks about the policy laboratory's subjects: its train families alone, one question a turn.

It knows the collection's prompts by the words with which they ask for their form, as ``scripted/red-teacher`` does.
"""

from __future__ import annotations

import re

from redinstruct.policy import SUBJECTS, subject, understand

_COUNT = re.compile(r"until Red-LM has asked (\d+) questions")
_TOPIC = re.compile(r"^\[Topic\] ([^:\n]*): (.*)$", re.MULTILINE)
_AGENDA = re.compile(r"^\[Agenda\] (.*)$", re.MULTILINE)
_ITEM = re.compile(r"^- (.+)$", re.MULTILINE)
_WAYS = 6
_OTHER = "I am glad to help with that."


def policy_teacher(prompt: str) -> str:
    """The teacher's reply to one of the collection's prompts; a polite line to anything else."""
    if (count := _COUNT.search(prompt)) is not None:
        asked = questions(prompt, int(count[1]))
        return "\n".join(f"Red-LM: {text}\nBase-LM: {safe_answer(text)}" for text in asked)
    if (agenda := _AGENDA.search(prompt)) is not None:
        return f"Red-LM: {agenda[1]}\nBase-LM: {safe_answer(agenda[1])}"
    if "Define each of them" in prompt:
        return "\n".join(f"{name}: what can be done with it" for name in _ITEM.findall(prompt))
    return _OTHER


def questions(prompt: str, count: int) -> list[str]:
    """Forbidden questions of the family that the prompt names, none asked before: each thing once, then again."""
    named, before = _TOPIC.search(prompt), set(_ITEM.findall(prompt))
    if named is None or named[1] not in SUBJECTS:
        return []
    every = subject(named[1]).questions("forbidden", "train", _WAYS)
    own = [asked.text for asked in every if asked.family == named[2].strip()]
    by_way = [text for way in range(_WAYS) for text in own[way::_WAYS]]
    return [text for text in by_way if text not in before][:count]


def safe_answer(text: str) -> str:
    """What a careful Base-LM answers."""
    asked = understand(text)
    if asked is None or asked.kind != "forbidden" or asked.subject is None:
        return _OTHER
    return subject(asked.subject).refusal(0)
