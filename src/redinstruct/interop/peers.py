"""Other tools' logs, those whose shape is published: what they hold, and what of it is kept.

    Red-Instruct   results/<bank>_<model>_<prompt>.json: a list of {prompt, response[, topic, subtopic]}, without labels
                   (generate_responses.py of declare-lab/red-instruct); a response "[[N]]" is a filtered request
    JailbreakBench artifacts: {parameters: {model, method}, jailbreaks: [{goal, prompt, response, jailbroken}]} and
                   more (JailbreakBench/artifacts); the question is the goal, the attack's own prompt is left out
    garak          report.jsonl: rows by entry_type; attempts of status 2 with prompt and outputs (garak/attempt.py).
                   Detector scores are left out: what a hit means differs from detector to detector

Not read: Inspect, promptfoo, HarmBench and lm-evaluation-harness logs. A table of their prompts and answers is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import UsageError
from redinstruct.interop.rows import ImportRow, said
from redinstruct.questions import Row
from redinstruct.rowfiles import kind_of
from redinstruct.types import ATTACK_SUCCESS, Measure

_RESULTS = re.compile(
    r"(dangerousqa|harmfulqa|adversarialqa|catqa_(?:english|chinese|vietnamese))_(.+)_(standard|cot|cou|suffix)(_w_thoughts)?"
)
FILTERED = "[[N]]"
"""What the authors' scripts write in the place of an answer that the provider filtered."""
_COMPLETE = 2


class Named(msgspec.Struct, frozen=True):
    """What a file of the authors' results says by its name."""

    bank: str
    model: str
    prompt: str


def named_results(path: Path) -> Named | None:
    """Bank, model and prompt of the authors' ``results/<bank>_<model>_<prompt>.json``; None for any other name."""
    found = _RESULTS.fullmatch(path.stem)
    if path.suffix.casefold() != ".json" or found is None:
        return None
    return Named(found[1], found[2], found[3] + (found[4] or ""))


def without_filtered(rows: Sequence[ImportRow]) -> list[ImportRow]:
    """The authors' mark for a filtered request, where it is the whole answer: a model may write it in its text."""
    return [
        msgspec.structs.replace(row, filtered=True) if (row.response or "").strip() == FILTERED else row for row in rows
    ]


def is_artifact(value: object) -> bool:
    """Whether a JSON value is a JailbreakBench artifact."""
    return isinstance(value, dict) and isinstance(value.get("jailbreaks"), list)


def artifact(value: Mapping[str, object], measure: Measure) -> tuple[list[ImportRow], str | None, str | None]:
    """A JailbreakBench artifact's answers, its model and its method.

    Raises:
        UsageError: a row that is none, or another measure than attack success.
    """
    if measure is not ATTACK_SUCCESS:
        raise UsageError(f"holds jailbreaks: --measure {ATTACK_SUCCESS.name} is theirs, not {measure.name}")
    held = value.get("parameters")
    parameters = held if isinstance(held, dict) else {}
    jailbreaks = value["jailbreaks"]
    assert isinstance(jailbreaks, list)
    rows = [_jailbreak(f"jailbreak {number}", entry, measure) for number, entry in enumerate(jailbreaks, 1)]
    model, method = (parameters.get(name) for name in ("model", "method"))
    return rows, model if isinstance(model, str) else None, method if isinstance(method, str) else None


def _jailbreak(where: str, entry: object, measure: Measure) -> ImportRow:
    if not isinstance(entry, dict):
        raise UsageError(f"{where} is {kind_of(entry)}, expected an object")
    goal = _text(entry.get("goal"), f"{where}: goal")
    if not goal or not goal.strip():
        raise UsageError(f"{where}: goal is missing or blank")
    broken = entry.get("jailbroken")
    if broken is not None and not isinstance(broken, bool):
        raise UsageError(f"{where}: jailbroken is {kind_of(broken)}, expected true or false")
    label = None if broken is None else (measure.first if broken else measure.second)
    return ImportRow(
        where,
        goal.strip(),
        _text(entry.get("response"), f"{where}: response"),
        judge=said(label, measure, where, person=False),
        topic=_text(entry.get("category"), f"{where}: category"),
    )


def is_garak(rows: Sequence[Row]) -> bool:
    """Whether JSON Lines are a garak report."""
    first = rows[0].value if rows else None
    return isinstance(first, dict) and isinstance(first.get("entry_type"), str)


def garak(rows: Sequence[Row]) -> tuple[list[ImportRow], str | None]:
    """The answers of a garak report, one row per output of a completed attempt, by probe; and its model.

    Raises:
        UsageError: an attempt that does not hold what garak writes.
    """
    found: list[ImportRow] = []
    model: str | None = None
    for row in rows:
        value = row.value
        if not isinstance(value, dict):
            raise UsageError(f"{row.where} is {kind_of(value)}, expected an object")
        if value.get("entry_type") == "start_run setup":
            # Renamed from model_name in garak 0.13.
            named = value.get("plugins.target_name") or value.get("plugins.model_name")
            model = named if isinstance(named, str) else model
        if value.get("entry_type") == "attempt" and value.get("status") == _COMPLETE:
            found += _attempt(row.where, value)
    return found, model


def _attempt(where: str, value: Mapping[str, object]) -> list[ImportRow]:
    question = _asked(value.get("prompt"), f"{where}: prompt")
    if question is None or not question.strip():
        raise UsageError(f"{where}: prompt is missing or blank")
    outputs = value.get("outputs")
    if not isinstance(outputs, list):
        raise UsageError(f"{where}: outputs is {kind_of(outputs)}, expected a list")
    probe = _text(value.get("probe_classname"), f"{where}: probe_classname")
    return [
        ImportRow(f"{where}, output {number}", question.strip(), _message(output, f"{where}: output"), topic=probe)
        for number, output in enumerate(outputs, 1)
    ]


def _asked(prompt: object, what: str) -> str | None:
    """A prompt as garak wrote it over the years: a text, a message, a turn, or a conversation (its last user turn)."""
    if isinstance(prompt, dict) and isinstance(prompt.get("turns"), list):
        turns = [turn for turn in prompt["turns"] if isinstance(turn, dict) and turn.get("role") == "user"]
        return _message(turns[-1].get("content"), what) if turns else None
    return _message(prompt, what)


def _message(value: object, what: str) -> str | None:
    return _text(value.get("text") if isinstance(value, dict) else value, what)


def _text(value: object, what: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{what} is {kind_of(value)}, expected text")
