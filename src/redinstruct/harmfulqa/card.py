"""The data card of a collection: where it comes from, what is in it, what was left out, what it is for.

Promised: every count is made here, from the rows, and from nothing that anybody states; the card shows no question, no
answer and no clock, so that the same rows give the same card. Provenance and the screens' counts are the caller's:
they are shown, not checked.

Source: the headings follow data statements (Gebru et al. 2021, Datasheets for Datasets).
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from redinstruct.harmfulqa.diversity import SEED, Diversity, diversity_of
from redinstruct.harmfulqa.files import json_line
from redinstruct.harmfulqa.formats import trainable, turn_weight
from redinstruct.harmfulqa.rows import Collected, Colour, Dialogue
from redinstruct.questions import same_text
from redinstruct.safetext import in_json, in_markdown
from redinstruct.types import Json, JsonObject

SCHEMA = "redinstruct.card/1"
PROVENANCE = ("teacher", "answerer", "judge", "prompts", "config_digest", "code_version", "licence")
"""What a card states first, and as "not recorded" where the caller does not know it."""


class Middle(msgspec.Struct, frozen=True):
    """The middle of some counts; None where there are none."""

    mean: float | None
    median: float | None


class ConversationCounts(msgspec.Struct, frozen=True):
    """What the conversations of one colour hold; words are counted at white space."""

    conversations: int
    incomplete: int
    sources: dict[str, int]
    turns: int
    empty_turns: int
    answers: int
    labels: dict[str, int]
    turns_per_conversation: Middle
    words: int
    words_per_conversation: Middle
    words_per_answer: Middle


class CardCounts(msgspec.Struct, frozen=True):
    """What a collection holds. ``conversations``: by colour."""

    topics: int
    subtopics: int
    questions: int
    distinct_questions: int
    words_per_question: Middle
    conversations: dict[str, ConversationCounts]


class TopicCounts(msgspec.Struct, frozen=True):
    """What a collection holds of one topic; ``blue`` and ``red`` are conversations."""

    topic: str
    subtopics: int
    questions: int
    distinct_questions: int
    blue: int
    red: int


class DataCard(msgspec.Struct, frozen=True):
    """A data card (schema ``redinstruct.card/1``). ``diversity`` has the seed of the samples beside the kinds of text.

    ``file``: the exported file that the card stands beside, its name and sha256.
    """

    schema: str
    provenance: JsonObject
    counts: CardCounts
    by_topic: tuple[TopicCounts, ...]
    turns: dict[str, dict[str, int]]
    diversity: dict[str, int | Diversity]
    screens: dict[str, int]
    intended_use: tuple[str, ...]
    limits: tuple[str, ...]
    deletion: tuple[str, ...]
    file: dict[str, str] | msgspec.UnsetType = msgspec.UNSET

    @property
    def json(self) -> str:
        """The card as a JSON text, registered secrets masked."""
        return json.dumps(in_json(msgspec.to_builtins(self)), indent=2) + "\n"

    @property
    def markdown(self) -> str:
        """The card for people."""
        return _markdown(self)


def data_card(rows: Sequence[Collected], *, provenance: JsonObject, dropped: Mapping[str, int]) -> DataCard:
    """The card of these rows.

    ``provenance`` holds values by name (:data:`PROVENANCE` first); ``dropped`` says how many things each screen left
    out.
    """
    return DataCard(
        schema=SCHEMA,
        provenance=dict.fromkeys(PROVENANCE) | {name: _sorted(value) for name, value in provenance.items()},
        counts=_counts(rows),
        by_topic=_by_topic(rows),
        turns={"blue": _learning(rows, "blue"), "red": _learning(rows, "red")},
        diversity=_diversity(rows),
        screens=dict(sorted(dropped.items())),
        intended_use=_USE,
        limits=_LIMITS,
        deletion=_DELETION,
    )


def _sorted(value: Json) -> Json:
    """The same with its keys in order."""
    return json.loads(json.dumps(value, sort_keys=True))  # type: ignore[no-any-return]


# ---- counts ----


def _dialogues(rows: Iterable[Collected], colour: Colour) -> list[Dialogue]:
    return [dialogue for row in rows for dialogue in (*row.blue, *row.red) if dialogue.colour == colour]


def _counts(rows: Sequence[Collected]) -> CardCounts:
    questions = [row.question for row in rows]
    return CardCounts(
        topics=len({question.topic for question in questions}),
        subtopics=len({(question.topic, question.subtopic) for question in questions}),
        questions=len(questions),
        distinct_questions=len({same_text(question.text) for question in questions}),
        words_per_question=_middle(len(question.text.split()) for question in questions),
        conversations={
            "blue": _conversations(_dialogues(rows, "blue")),
            "red": _conversations(_dialogues(rows, "red")),
        },
    )


def _conversations(dialogues: Sequence[Dialogue]) -> ConversationCounts:
    turns = [turn for dialogue in dialogues for turn in dialogue.turns]
    answers = [turn for turn in turns if turn.speaker == "gpt"]
    return ConversationCounts(
        conversations=len(dialogues),
        incomplete=sum(not dialogue.complete for dialogue in dialogues),
        sources=dict(sorted(Counter(dialogue.source for dialogue in dialogues).items())),
        turns=len(turns),
        empty_turns=sum(not turn.text.strip() for turn in turns),
        answers=len(answers),
        labels=dict(sorted(Counter(turn.label or "none" for turn in answers).items())),
        turns_per_conversation=_middle(len(dialogue.turns) for dialogue in dialogues),
        words=sum(len(turn.text.split()) for turn in turns),
        words_per_conversation=_middle(sum(len(turn.text.split()) for turn in d.turns) for d in dialogues),
        words_per_answer=_middle(len(turn.text.split()) for turn in answers),
    )


def _middle(values: Iterable[int]) -> Middle:
    held = list(values)
    return Middle(round(statistics.fmean(held), 2), float(statistics.median(held))) if held else Middle(None, None)


def _by_topic(rows: Sequence[Collected]) -> tuple[TopicCounts, ...]:
    """One line per topic, in the order in which they were collected."""
    topics: dict[str, list[Collected]] = {}
    for row in rows:
        topics.setdefault(row.question.topic, []).append(row)
    return tuple(
        TopicCounts(
            topic=topic,
            subtopics=len({row.question.subtopic for row in held}),
            questions=len(held),
            distinct_questions=len({same_text(row.question.text) for row in held}),
            blue=len(_dialogues(held, "blue")),
            red=len(_dialogues(held, "red")),
        )
        for topic, held in topics.items()
    )


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


def _diversity(rows: Sequence[Collected]) -> dict[str, int | Diversity]:
    def answers(colour: Colour) -> list[str]:
        return [turn.text for d in _dialogues(rows, colour) for turn in d.turns if turn.speaker == "gpt"]

    kinds = {
        "questions": [row.question.text for row in rows],
        "blue_answers": answers("blue"),
        "red_answers": answers("red"),
    }
    return {"seed": SEED, **{kind: diversity_of(texts) for kind, texts in kinds.items()}}


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
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else _text(value)


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> list[str]:
    made = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    return [*made, *(f"| {_text(line[0])} | {' | '.join(map(_figure, line[1:]))} |" for line in lines), ""]


def _markdown(document: DataCard) -> str:
    counts = document.counts
    lines = ["# Data card", "", "Every count below was made from the rows.", "", "## Provenance", ""]
    lines += [f"- {_text(key.replace('_', ' '))}: {_text(value)}" for key, value in document.provenance.items()]
    lines += ["", "## What is in it", ""]
    names = ("topics", "subtopics", "questions", "distinct_questions")
    lines += _table(("what", "count"), [(name.replace("_", " "), getattr(counts, name)) for name in names])
    lines += _conversation_table(counts.conversations)
    lines += ["Labels of the answers:", ""]
    for colour, held in counts.conversations.items():
        lines += [f"- {colour}: " + (", ".join(f"{_text(k)} {n:,}" for k, n in held.labels.items()) or "none")]
    lines += ["", "## By topic", ""]
    keys = TopicCounts.__struct_fields__
    lines += _table(
        [key.replace("_", " ") for key in keys], [[getattr(part, key) for key in keys] for part in document.by_topic]
    )
    lines += ["## What training makes of the answers", ""]
    kinds = ("learn", "masked", "penalised", "left_out")
    turns = document.turns
    lines += _table(
        ("stream", "learn", "masked", "penalised", "left out"), [(c, *(turns[c][k] for k in kinds)) for c in turns]
    )
    lines += _diversity_table(document.diversity)
    lines += ["## Screens", ""]
    screens = document.screens
    lines += _table(("screen", "left out"), screens.items()) if screens else ["None was recorded.", ""]
    for heading, said in (("Intended use", _USE), ("Limits", _LIMITS), ("How to delete", _DELETION)):
        lines += [f"## {heading}", "", *(f"- {line}" for line in said), ""]
    return "\n".join(lines)


def _conversation_table(colours: Mapping[str, ConversationCounts]) -> list[str]:
    plain = ("conversations", "incomplete", "turns", "empty_turns", "answers", "words")
    middles = ("turns_per_conversation", "words_per_conversation", "words_per_answer")
    lines: list[list[object]] = [
        [key.replace("_", " "), *(getattr(held, key) for held in colours.values())] for key in plain
    ]
    lines += [
        [f"{key.replace('_', ' ')}, {which}", *(getattr(getattr(held, key), which) for held in colours.values())]
        for key in middles
        for which in ("mean", "median")
    ]
    sources = sorted({name for held in colours.values() for name in held.sources})
    lines += [[f"source: {name}", *(held.sources.get(name, 0) for held in colours.values())] for name in sources]
    return _table(("conversations", *colours), lines)


def _diversity_table(diversity: Mapping[str, int | Diversity]) -> list[str]:
    keys = ("texts", "distinct_sample", "distinct_1", "distinct_2", "distinct_3", "self_bleu_sample", "self_bleu")
    return [
        "## Diversity",
        "",
        f"On fixed samples (seed {diversity['seed']}). distinct-n: higher is more diverse; self-BLEU: lower is.",
        "",
        *_table(
            ("of", *(key.replace("_", " ") for key in keys)),
            [
                (kind.replace("_", " "), *(getattr(held, key) for key in keys))
                for kind, held in diversity.items()
                if isinstance(held, Diversity)
            ],
        ),
    ]
