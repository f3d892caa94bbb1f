"""The data card of a collection: where it comes from, what is in it, what was left out, what it is for.

Promised: every count is made here, from the rows, and from nothing that anybody states; the card shows no question, no
answer and no clock, so that the same rows give the same card. Provenance and the screens' counts are the caller's:
they are shown, not checked.

Not promised: that a figure of diversity means much alone. It compares collections of the same language and kind.

Sources: distinct-n is Li et al. 2016 (arXiv 1510.03055); self-BLEU is Zhu et al. 2018 (Texygen, arXiv 1802.01886),
with BLEU-4 of Papineni et al. 2002 and the first smoothing of Chen & Cherry 2014. The card's headings follow data
statements (Gebru et al. 2021, Datasheets for Datasets).
"""

from __future__ import annotations

import json
import math
import random
import re
import statistics
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from redinstruct.harmfulqa.files import json_line
from redinstruct.harmfulqa.formats import trainable, turn_weight
from redinstruct.harmfulqa.rows import Collected, Colour, Dialogue
from redinstruct.safetext import in_markdown, redact

SCHEMA = "redinstruct.card/1"
SEED = 0
DISTINCT_SAMPLE = 1000
BLEU_SAMPLE = 200
PROVENANCE = ("teacher", "answerer", "judge", "prompts", "config_digest", "code_version", "licence")
"""What a card states first, and as "not recorded" where the caller does not know it."""

_SMOOTH = 0.1
_ORDERS = 4
_TOKEN = re.compile(r"\w+|[^\w\s]")


class DataCard(msgspec.Struct, frozen=True):
    """A data card: ``document`` (schema ``redinstruct.card/1``, JSON values only) and the same as Markdown."""

    document: Mapping[str, Any]
    markdown: str

    @property
    def json(self) -> str:
        """The document as a JSON text that UTF-8 can hold."""
        return json.dumps(json.loads(json_line(self.document)), indent=2) + "\n"


def data_card(rows: Sequence[Collected], *, provenance: Mapping[str, object], dropped: Mapping[str, int]) -> DataCard:
    """The card of these rows.

    ``provenance`` holds JSON values by name (:data:`PROVENANCE` first); registered secrets in it are masked.
    ``dropped`` says how many things each screen left out.
    """
    stated: dict[str, object] = dict.fromkeys(PROVENANCE)
    stated.update({redact(key): _plain(value) for key, value in provenance.items()})
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "provenance": stated,
        "counts": _counts(rows),
        "by_topic": _by_topic(rows),
        "turns": {colour: _learning(rows, colour) for colour in ("blue", "red")},
        "diversity": _diversity(rows),
        "screens": {redact(name): int(count) for name, count in sorted(dropped.items())},
        "intended_use": list(_USE),
        "limits": list(_LIMITS),
        "deletion": list(_DELETION),
    }
    return DataCard(document=document, markdown=_markdown(document))


def _plain(value: object) -> object:
    """A JSON value of whatever was stated, its keys sorted, registered secrets masked."""
    if isinstance(value, str):
        return redact(value)
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {redact(str(key)): _plain(held) for key, held in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return redact(str(value))


# ---- counts ----


def _dialogues(rows: Iterable[Collected], colour: Colour) -> list[Dialogue]:
    return [dialogue for row in rows for dialogue in (*row.blue, *row.red) if dialogue.colour == colour]


def _same(text: str) -> str:
    """Texts that differ in case, white space or Unicode form only are one question, as ``--dedupe`` counts them."""
    return " ".join(unicodedata.normalize("NFC", text).split()).casefold()


def _counts(rows: Sequence[Collected]) -> dict[str, Any]:
    questions = [row.question for row in rows]
    return {
        "topics": len({question.topic for question in questions}),
        "subtopics": len({(question.topic, question.subtopic) for question in questions}),
        "questions": len(questions),
        "distinct_questions": len({_same(question.text) for question in questions}),
        "words_per_question": _middle(len(question.text.split()) for question in questions),
        "conversations": {colour: _conversations(_dialogues(rows, colour)) for colour in ("blue", "red")},
    }


def _conversations(dialogues: Sequence[Dialogue]) -> dict[str, Any]:
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    answers = [turn for turn in turns if turn.speaker == "gpt"]
    return {
        "conversations": len(dialogues),
        "incomplete": sum(not dialogue.complete for dialogue in dialogues),
        "sources": dict(sorted(Counter(redact(dialogue.source) for dialogue in dialogues).items())),
        "turns": len(turns),
        "empty_turns": sum(not turn.text.strip() for turn in turns),
        "answers": len(answers),
        "labels": dict(sorted(Counter(redact(turn.label or "none") for turn in answers).items())),
        "turns_per_conversation": _middle(len(dialogue.turns) for dialogue in dialogues),
        "words": sum(len(turn.text.split()) for turn in turns),
        "words_per_conversation": _middle(sum(len(turn.text.split()) for turn in d.turns) for d in dialogues),
        "words_per_answer": _middle(len(turn.text.split()) for turn in answers),
    }


def _middle(values: Iterable[int]) -> dict[str, float | None]:
    held = list(values)
    if not held:
        return {"mean": None, "median": None}
    return {"mean": round(statistics.fmean(held), 2), "median": float(statistics.median(held))}


def _by_topic(rows: Sequence[Collected]) -> list[dict[str, Any]]:
    """One line per topic, in the order in which they were collected."""
    topics: dict[str, list[Collected]] = {}
    for row in rows:
        topics.setdefault(row.question.topic, []).append(row)
    return [
        {
            "topic": redact(topic),
            "subtopics": len({row.question.subtopic for row in held}),
            "questions": len(held),
            "distinct_questions": len({_same(row.question.text) for row in held}),
            "blue": len(_dialogues(held, "blue")),
            "red": len(_dialogues(held, "red")),
        }
        for topic, held in topics.items()
    ]


def _learning(rows: Sequence[Collected], colour: Colour) -> dict[str, int]:
    """What training makes of the answers of one colour, red included: the weights of the ``messages`` export."""
    counts = {"learn": 0, "masked": 0, "penalised": 0, "left_out": 0}
    for dialogue in _dialogues(rows, colour):
        used = [turn for turn in trainable(dialogue) if turn.speaker == "gpt"]
        counts["left_out"] += sum(turn.speaker == "gpt" for turn in dialogue.turns) - len(used)
        for turn in used:
            weight = turn_weight(turn, colour)
            counts["learn" if weight > 0 else "penalised" if weight < 0 else "masked"] += 1
    return counts


# ---- diversity ----


def tokens(text: str) -> tuple[str, ...]:
    """Words and single punctuation marks, without case. A script without spaces gives one word per run."""
    return tuple(_TOKEN.findall(unicodedata.normalize("NFC", text).casefold()))


def distinct_n(texts: Iterable[Sequence[str]], n: int) -> float | None:
    """The share of different n-grams among all n-grams of the texts; None where there is none."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        grams = _grams(text, n)
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """The mean BLEU-4 of each text with all others as its references: 1 all alike, 0 no word shared; None below two.

    Texts without a token are left out. A text shorter than four tokens is scored on the orders that it has. Where an
    order above the first matches nothing, 0.1 stands for the number of matches (smoothing 1 of Chen & Cherry).
    Linear in the number of n-grams: of each, the largest count, who has it, and the largest of the others are kept.
    """
    held = [tuple(text) for text in texts if text]
    if len(held) < 2:
        return None
    counted = [[Counter(_grams(text, n)) for n in range(1, min(_ORDERS, len(text)) + 1)] for text in held]
    best: dict[tuple[str, ...], tuple[int, int, int]] = {}
    for owner, orders in enumerate(counted):
        for grams in orders:
            for gram, count in grams.items():
                first, who, second = best.get(gram, (0, -1, 0))
                best[gram] = (count, owner, first) if count > first else (first, who, max(second, count))
    lengths = sorted(len(text) for text in held)
    scores = []
    for owner, orders in enumerate(counted):
        precisions = []
        for grams in orders:
            others = ((count, best[gram]) for gram, count in grams.items())
            matched = sum(min(count, second if who == owner else first) for count, (first, who, second) in others)
            precisions.append((matched, sum(grams.values())))
        scores.append(_bleu(precisions, len(held[owner]), _closest(lengths, len(held[owner]))))
    return statistics.fmean(scores)


def _bleu(precisions: Sequence[tuple[int, int]], length: int, reference: int) -> float:
    if not precisions[0][0]:
        return 0.0
    logs = [math.log((matched or _SMOOTH) / total) for matched, total in precisions]
    brevity = min(0.0, 1 - reference / length)
    return math.exp(brevity + statistics.fmean(logs))


def _closest(lengths: Sequence[int], length: int) -> int:
    """The nearest length of another text, the shorter of two that are as near. ``lengths`` is sorted, with its own."""
    at = bisect_left(lengths, length)
    others = [*lengths[max(0, at - 1) : at], *lengths[at + 1 : at + 2]]
    return min(others, key=lambda other: (abs(other - length), other))


def _grams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


def _sampled(texts: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """A fixed draw that does not depend on the rows' order."""
    chosen = sorted(texts)
    if len(chosen) > size:
        chosen = random.Random(SEED).sample(chosen, size)
    return [tokens(text) for text in chosen]


def _diversity(rows: Sequence[Collected]) -> dict[str, Any]:
    def answers(colour: Colour) -> list[str]:
        return [turn.text for d in _dialogues(rows, colour) for turn in d.turns if turn.speaker == "gpt"]

    kinds = {
        "questions": [row.question.text for row in rows],
        "blue_answers": answers("blue"),
        "red_answers": answers("red"),
    }
    return {"seed": SEED, **{kind: _diversity_of(texts) for kind, texts in kinds.items()}}


def _diversity_of(texts: Sequence[str]) -> dict[str, Any]:
    filled = [text for text in texts if text.strip()]
    sample, few = _sampled(filled, DISTINCT_SAMPLE), _sampled(filled, BLEU_SAMPLE)
    figures = {f"distinct_{n}": distinct_n(sample, n) for n in (1, 2, 3)} | {"self_bleu": self_bleu(few)}
    rounded = {name: None if value is None else round(value, 4) for name, value in figures.items()}
    return {"texts": len(filled), "distinct_sample": len(sample), "self_bleu_sample": len(few), **rounded}


# ---- Markdown ----

_USE = (
    "To measure and to improve how safely a model answers: evaluation, fine-tuning on blue answers, and penalising the "
    "red answers that were judged harmful.",
    "Not to be used to make a model more harmful. Red conversations are never training targets as they stand.",
)
_LIMITS = (
    "Questions and conversations were written by models. Nobody has checked them one by one.",
    "A label is a judge's verdict, not the truth. A blue answer without a label is learned as if it were safe.",
    "Colour belongs to a conversation, label and weight to a turn: early answers of a red conversation are often "
    "harmless, and they are masked.",
    "A conversation goes about its question indirectly, so that its human turns are not the question.",
    "Words are counted at white space: figures of words and of diversity do not compare across languages, nor do "
    "figures of diversity across sample sizes.",
    "Screens find what they look for. Overlap was looked for only with the banks that were in use.",
)
_DELETION = (
    "`redinstruct purge RUN` deletes the collection with everything in its folder.",
    "Exported files are copies outside it: delete each of them, and what was trained on them, apart.",
)


def _text(value: object) -> str:
    """A value that is nothing but text in Markdown, and in the HTML that Markdown becomes."""
    said = "not recorded" if value is None else value if isinstance(value, str) else _in_words(value)
    return in_markdown(said)


def _in_words(value: object) -> str:
    """A value in words: what a reader takes in at a glance; the JSON beside it has the exact form."""
    if isinstance(value, Mapping):
        said = (f"{name} {_in_words(one)}" for name, one in value.items() if one is not None and one != [])
        return ", ".join(said) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json_line(value)


def _figure(value: object) -> str:
    return (
        "-"
        if value is None
        else f"{value:,}"
        if isinstance(value, int)
        else f"{value:g}"
        if isinstance(value, float)
        else _text(value)
    )


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    made = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return [*made, *(f"| {_text(line[0])} | {' | '.join(map(_figure, line[1:]))} |" for line in lines), ""]


def _markdown(document: Mapping[str, Any]) -> str:
    counts = document["counts"]
    lines = ["# Data card", "", "Every count below was made from the rows.", "", "## Provenance", ""]
    lines += [f"- {_text(key.replace('_', ' '))}: {_text(value)}" for key, value in document["provenance"].items()]
    lines += ["", "## What is in it", ""]
    names = ("topics", "subtopics", "questions", "distinct_questions")
    lines += _table(("what", "count"), [(name.replace("_", " "), counts[name]) for name in names])
    lines += _conversation_table(counts["conversations"])
    lines += ["Labels of the answers:", ""]
    for colour, held in counts["conversations"].items():
        lines += [f"- {colour}: " + (", ".join(f"{_text(k)} {n:,}" for k, n in held["labels"].items()) or "none")]
    lines += ["", "## By topic", ""]
    keys = ("topic", "subtopics", "questions", "distinct_questions", "blue", "red")
    lines += _table(
        [key.replace("_", " ") for key in keys], [[part[key] for key in keys] for part in document["by_topic"]]
    )
    lines += ["## What training makes of the answers", ""]
    kinds = ("learn", "masked", "penalised", "left_out")
    turns = document["turns"]
    lines += _table(
        ("stream", "learn", "masked", "penalised", "left out"), [(c, *(turns[c][k] for k in kinds)) for c in turns]
    )
    lines += _diversity_table(document["diversity"])
    lines += ["## Screens", ""]
    screens = document["screens"]
    lines += _table(("screen", "left out"), screens.items()) if screens else ["None was recorded.", ""]
    for heading, key in (("Intended use", "intended_use"), ("Limits", "limits"), ("How to delete", "deletion")):
        lines += [f"## {heading}", "", *(f"- {line}" for line in document[key]), ""]
    return "\n".join(lines)


def _conversation_table(colours: Mapping[str, Mapping[str, Any]]) -> list[str]:
    plain = ("conversations", "incomplete", "turns", "empty_turns", "answers", "words")
    middles = ("turns_per_conversation", "words_per_conversation", "words_per_answer")
    lines: list[list[object]] = [[key.replace("_", " "), *(held[key] for held in colours.values())] for key in plain]
    lines += [
        [f"{key.replace('_', ' ')}, {which}", *(held[key][which] for held in colours.values())]
        for key in middles
        for which in ("mean", "median")
    ]
    sources = sorted({name for held in colours.values() for name in held["sources"]})
    lines += [[f"source: {name}", *(held["sources"].get(name, 0) for held in colours.values())] for name in sources]
    return _table(("conversations", *colours), lines)


def _diversity_table(diversity: Mapping[str, Any]) -> list[str]:
    keys = ("texts", "distinct_sample", "distinct_1", "distinct_2", "distinct_3", "self_bleu_sample", "self_bleu")
    kinds = [(kind, held) for kind, held in diversity.items() if kind != "seed"]
    return [
        "## Diversity",
        "",
        f"On fixed samples (seed {diversity['seed']}). distinct-n: higher is more diverse; self-BLEU: lower is.",
        "",
        *_table(
            ("of", *(key.replace("_", " ") for key in keys)),
            [(k.replace("_", " "), *(h[x] for x in keys)) for k, h in kinds],
        ),
    ]
