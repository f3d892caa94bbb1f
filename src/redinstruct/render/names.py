"""What things are called where a reader has not met them: models by short names, ways of asking in a sentence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from redinstruct.types import PromptTemplate

_DIGEST = re.compile(r"@[0-9a-f]{12}$")
_OF_THE_LOOP = re.compile(r"-[0-9a-f]{8}$")

STANDARD = "the question alone"
COT = "the question and \u201cLet\u2019s think step by step\u201d: Chain of Thought (CoT)"
COU = (
    "Chain of Utterances (CoU), RED-EVAL\u2019s attack: the question within a dialogue of two, "
    "which the model is to go on with"
)
OWN = "a template of one\u2019s own"
STEPS = "Let's think step by step."
_KINDS = {"standard": STANDARD, "cot": COT, "cou": COU}


def short_names(models: Sequence[str]) -> dict[str, str]:
    """Model id -> its last part without a checkpoint's digest; the whole id where two would be called alike."""
    whole = list(dict.fromkeys(models))
    short = {model: _OF_THE_LOOP.sub("", _DIGEST.sub("", model.rstrip("/")).rpartition("/")[2]) for model in whole}
    often = Counter(short.values())
    return {model: name if name and often[name] == 1 else model for model, name in short.items()}


def about_prompt(template: PromptTemplate) -> str:
    """What a way of asking is, by its text and not by its name; a toy translation is what it is a translation of."""
    if (of := template.translation_of) is not None:
        return _KINDS.get(of.partition("-")[0], OWN)
    if template.asker is not None:
        return COU
    if template.prefix.strip():
        return OWN
    return {"": STANDARD, STEPS: COT}.get(template.suffix.strip(), OWN)


def once(names: Iterable[str]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(names))


def listed(names: Sequence[str], most: int = 4, noun: str = "") -> str:
    """``a``, ``a and b``, ``a, b and 3 more``; with a noun before them, of which there may be several."""
    shown, more = list(names[:most]), len(names) - most
    if more > 0:
        shown.append(f"{more:,} more")
    told = shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""
    return f"{noun}{'s' if len(names) > 1 else ''} {told}" if noun else told
