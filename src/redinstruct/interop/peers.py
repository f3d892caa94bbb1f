"""Other tools' logs, those whose shape is published: what they hold, and what of it is kept.

    Red-Instruct   results/<bank>_<model>_<prompt>.json: a list of {prompt, response[, topic, subtopic]}, without labels
                   (generate_responses.py of declare-lab/red-instruct); a response "[[N]]" is a filtered request
    JailbreakBench artifacts: {parameters: {model, method}, jailbreaks: [{goal, prompt, response, jailbroken}]} and
                   more (JailbreakBench/artifacts); the question is the goal, the attack's own prompt is left out
    garak          report.jsonl: rows by entry_type; attempts of status 2 with prompt and outputs (garak/attempt.py),
                   each output an epoch. Detector scores are left out: what a hit means differs between detectors

Inspect's logs are read by :mod:`.inspect_log`, those of promptfoo, lm-eval, deepteam and HarmBench by :mod:`.logs`,
PyRIT's memory by :mod:`.pyrit`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.errors import BankError, UsageError
from redinstruct.files import WRAPPERS, Fields, JsonRow, Leaf, fold, kind_of, listed
from redinstruct.interop.rows import ImportRow, Source, said
from redinstruct.questions import TEXT_KEYS
from redinstruct.questions.turns import conversation
from redinstruct.types import ATTACK_SUCCESS, Measure, Message

_RESULTS = re.compile(
    r"(dangerousqa|harmfulqa|adversarialqa|catqa_(?:english|chinese|vietnamese))_(.+)_(standard|cot|cou|suffix)(_w_thoughts)?"
)
NAMED_RESULTS = "red-instruct"
"""The format of a table whose file's name says by which prompt and model it came."""
FILTERED = "[[N]]"
"""What the authors' scripts write in the place of an answer that the provider filtered."""
_COMPLETE = 2
_JAILBREAKS = "jailbreaks"
_COMPLETIONS = "completions"


def named_results(path: Path, table: Source) -> Source | None:
    """The authors' ``results/<bank>_<model>_<prompt>.json``: a table that its file's name tells of; else None.

    Their mark for a filtered request counts where it is the whole answer: a model may write it in its text.
    """
    found = _RESULTS.fullmatch(path.stem)
    if path.suffix.casefold() != ".json" or found is None:
        return None
    replace = msgspec.structs.replace
    rows = (replace(row, filtered=True) if (row.response or "").strip() == FILTERED else row for row in table.rows)
    prompt = found[3] + (found[4] or "")
    return replace(table, format=NAMED_RESULTS, bank=found[1], model=found[2], prompt=prompt, rows=tuple(rows))


def is_one_answer(value: Fields) -> bool:
    """Whether a JSON object that is a whole file is one answer, and not a log, an artifact or a list under a key."""
    if value.keys() >= {"version", "eval"} or value.keys() >= {"evalId", "results"} or "test_cases" in value:
        return False
    if value and all(isinstance(held, list) for held in value.values()):
        return False
    lists = (*WRAPPERS, _JAILBREAKS, _COMPLETIONS)
    return not any(isinstance(held, list) and fold(key) in lists for key, held in value.items())


def artifact(rows: Iterable[JsonRow | Leaf], measure: Measure) -> Source:
    """A JailbreakBench artifact: the prompt is its method.

    Raises:
        UsageError: it is none, a row that is none, or another measure than attack success.
    """
    found: list[ImportRow] = []
    parameters: dict[str, str] = {}
    keys: dict[str, None] = {}
    for row in rows:
        path = row.keys if isinstance(row, Leaf) else (row.topic or "",)
        keys.setdefault(path[0])
        if isinstance(row, Leaf) and path[0] == "parameters" and isinstance(row.value, str):
            parameters[path[-1]] = row.value
        if isinstance(row, JsonRow) and row.topic == _JAILBREAKS and row.subtopic is None:
            if measure is not ATTACK_SUCCESS:
                raise UsageError(f"holds jailbreaks: --measure {ATTACK_SUCCESS.name} is theirs, not {measure.name}")
            found.append(_jailbreak(f"jailbreak {len(found) + 1}", row.value, measure))
    if _JAILBREAKS not in keys:
        raise UsageError(f"no column holds the prompt: expected one of {', '.join(TEXT_KEYS)}, found {listed(keys)}")
    model, method = (parameters.get(name, "") for name in ("model", "method"))
    return _in_order("jailbreakbench", found, labels="judge", model=model, prompt=method)


def _in_order(format_: str, rows: Sequence[ImportRow], **told: Any) -> Source:
    """A file with a question of its own for each answer."""
    return Source(format=format_, rows=tuple(rows), numbers=tuple(range(len(rows))), **told)


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


def is_garak(first: JsonRow) -> bool:
    """Whether JSON Lines with this first row are a garak report."""
    return isinstance(first.value, dict) and isinstance(first.value.get("entry_type"), str)


def garak(rows: Iterable[JsonRow]) -> Source:
    """The answers of a garak report, one row per output of a completed attempt, by probe.

    An attempt that does not hold a prompt and answers in text (an image's, say) is left out and named: one odd row is
    no reason to refuse a report of thousands.

    Raises:
        UsageError: a row that is no object.
    """
    attempts: list[list[ImportRow]] = []
    left_out: dict[str, tuple[str, ...]] = {}
    model = ""
    for row in rows:
        value = row.value
        if not isinstance(value, dict):
            raise UsageError(f"{row.where} is {kind_of(value)}, expected an object")
        if value.get("entry_type") == "start_run setup":
            # Renamed from model_name in garak 0.13.
            named = value.get("plugins.target_name") or value.get("plugins.model_name")
            model = named if isinstance(named, str) else model
        if value.get("entry_type") == "attempt" and value.get("status") == _COMPLETE:
            try:
                attempts.append(_attempt(row.where, value))
            except UsageError as odd:
                left_out[str(odd)] = (*left_out.get(str(odd), ()), row.where)
    numbers = tuple(number for number, of in enumerate(attempts) for _ in of)
    return Source(format="garak", rows=tuple(chain(*attempts)), numbers=numbers, model=model, left_out=left_out)


def _attempt(where: str, value: Fields) -> list[ImportRow]:
    earlier, question = _asked(value.get("prompt"))
    if question is None or not question.strip():
        raise UsageError("attempts without a prompt in text (an image, say)")
    outputs = value.get("outputs")
    if not isinstance(outputs, list):
        raise UsageError(f"attempts whose outputs is {kind_of(outputs)}, not a list")
    probe = _text(value.get("probe_classname"), "attempts whose probe_classname")
    answers = [_message(output, "attempts whose output") for output in outputs]
    return [
        ImportRow(f"{where}, output {n}", question.strip(), answer, topic=probe, earlier=earlier, epoch=n)
        for n, answer in enumerate(answers, 1)
    ]


def _asked(prompt: object) -> tuple[tuple[Message, ...], str | None]:
    """A prompt as garak wrote it over the years: a text, a message, a turn, or a conversation."""
    what = "attempts whose prompt"
    if not isinstance(prompt, dict) or not isinstance(prompt.get("turns"), list):
        return (), _message(prompt, what)
    turns = [turn for turn in prompt["turns"] if isinstance(turn, dict)]
    said = [{"role": turn.get("role"), "content": _message(turn.get("content"), what)} for turn in turns]
    try:
        return conversation(said, what)
    except BankError:
        return (), None


def _message(value: object, what: str) -> str | None:
    return _text(value.get("text") if isinstance(value, dict) else value, what)


def _text(value: object, what: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise UsageError(f"{what} is {kind_of(value)}, expected text")
