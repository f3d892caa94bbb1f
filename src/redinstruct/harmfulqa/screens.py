"""What is left out of an export, and why: each screen says what it keeps and counts what it drops by its reason.

Every function is pure; the order of the rows is kept, and the first of several alike stays. Counts are of questions
or conversations, under a typed :data:`Reason`; together they are what the data card prints. The screens are those of
issue 5, item 4; the published data had none (spec 2.2: 22 exact repeats remain).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from redinstruct.harmfulqa.languages import UNKNOWN, is_dense, language
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Dialogue
from redinstruct.harmfulqa.similarity import NEAR, NearIndex, normalise
from redinstruct.judges.refusal import opens_with_refusal
from redinstruct.types import ATTACK_SUCCESS, Bank

Reason = Literal[
    "question_empty", "question_too_short", "question_too_long", "question_language", "exact_duplicate",
    "near_duplicate", "bank_equal", "bank_near", "conversation_empty_turn", "conversation_too_short",
    "conversation_too_long", "conversation_language", "red_refused", "red_harmless",
]  # fmt: skip
HARMFUL, HARMLESS = ATTACK_SUCCESS.first, ATTACK_SUCCESS.second


SHORTEST_QUESTION, LONGEST_QUESTION, LONGEST_TURN = 8, 600, 20_000
"""Characters."""
FEWEST_TURNS, MOST_TURNS = 2, 60


class Screened(msgspec.Struct, frozen=True):
    """What passed, and how many questions and conversations each reason left out (a row counts once)."""

    kept: tuple[Collected, ...]
    dropped: dict[str, int]


def screen(
    rows: Sequence[Collected], *, banks: Sequence[Bank] = (), near: float = NEAR, languages: Sequence[str] = ()
) -> Screened:
    """All screens in their order. A question that stays may lose all its conversations.

    ``near`` is the likeness from which on two collected questions count as one. ``languages`` are those that stay, by
    :func:`redinstruct.harmfulqa.languages.language`; none named: every one, and what is in no known one always.
    A dropped question's conversations are not counted apart. Every reason that dropped nothing is absent.
    """
    dropped: Counter[str] = Counter()
    reasons = (out_of_form, in_another_language(languages), repeated(), in_a_bank(banks), near_an_earlier(near))

    def sift(dialogues: Sequence[Dialogue]) -> tuple[Dialogue, ...]:
        found = [(one, malformed(one, languages) or misjudged(one)) for one in dialogues]
        dropped.update(why for _, why in found if why is not None)
        return tuple(dialogue for dialogue, why in found if why is None)

    kept = []
    for row in rows:
        why = next((found for reason in reasons if (found := reason(row.question)) is not None), None)
        if why is None:
            # A red conversation stays though its blue parent goes: it may still name it.
            kept.append(msgspec.structs.replace(row, blue=sift(row.blue), red=sift(row.red)))
        else:
            dropped[why] += 1
    return Screened(tuple(kept), dict(sorted(dropped.items())))


# --- Questions: each is asked of the questions that those before it have kept, in their order ---------------------


Why = Callable[[CollectedQuestion], Reason | None]
"""Why a question is left out; None if it stays."""


def out_of_form(question: CollectedQuestion) -> Reason | None:
    """Questions without a letter, too short or too long."""
    text = question.text.strip()
    if not normalise(text):
        return "question_empty"
    # A character of Chinese or Japanese says as much as three letters.
    if len(text) * (3 if is_dense(text) else 1) < SHORTEST_QUESTION:
        return "question_too_short"
    return "question_too_long" if len(text) > LONGEST_QUESTION else None


def in_another_language(languages: Sequence[str]) -> Why:
    """Questions in a language that is not to stay."""
    return lambda question: None if _stays(question.text, languages) else "question_language"


def repeated() -> Why:
    """Questions equal to an earlier one when normalised."""
    seen: set[str] = set()

    def why(question: CollectedQuestion) -> Reason | None:
        text = normalise(question.text)
        if text in seen:
            return "exact_duplicate"
        seen.add(text)
        return None

    return why


def near_an_earlier(threshold: float) -> Why:
    """Questions near an earlier one that was kept: a chain of small changes does not drop its far end."""
    index = NearIndex()

    def why(question: CollectedQuestion) -> Reason | None:
        found = index.nearest(question.text)
        if found is not None and found[1] >= threshold:
            return "near_duplicate"
        index.add(question.id, question.text)
        return None

    return why


def in_a_bank(banks: Sequence[Bank]) -> Why:
    """Questions that an evaluation bank holds, equal when normalised or near: training on them spoils the measure."""
    index = NearIndex()
    equal: set[str] = set()
    for bank in banks:
        for held in bank.questions:
            if (text := normalise(held.text)) not in equal:
                equal.add(text)
                index.add(held.id, held.text)

    def why(question: CollectedQuestion) -> Reason | None:
        if normalise(question.text) in equal:
            return "bank_equal"
        found = index.nearest(question.text)
        return "bank_near" if found is not None and found[1] >= NEAR else None

    return why


# --- Conversations ------------------------------------------------------------------------------------------------


def malformed(dialogue: Dialogue, languages: Sequence[str] = ()) -> Reason | None:
    """Why a conversation's form or language is not fit for training; None if it is."""
    turns = dialogue.turns
    if any(not turn.text.strip() for turn in turns):
        return "conversation_empty_turn"
    if len(turns) < FEWEST_TURNS or not any(turn.speaker == "gpt" for turn in turns):
        return "conversation_too_short"
    if len(turns) > MOST_TURNS or any(len(turn.text) > LONGEST_TURN for turn in turns):
        return "conversation_too_long"
    # One language for the conversation: a single turn may hold a name or a formula.
    return None if _stays("\n".join(turn.text for turn in turns), languages) else "conversation_language"


def misjudged(dialogue: Dialogue) -> Reason | None:
    """Why a red conversation is none, by its turns' verdicts and openings; None if nothing speaks against it.

    A blue one stays: a harmful answer in it is masked (:func:`redinstruct.harmfulqa.formats.turn_weight`).
    """
    answers = [turn for turn in dialogue.turns if turn.speaker == "gpt"]
    if dialogue.colour == "blue" or any(turn.label == HARMFUL for turn in answers):
        return None
    if any(opens_with_refusal(turn.text) for turn in answers):
        return "red_refused"
    # Without a verdict on every answer it is not known to be harmless: it stays, with weight 0.
    judged = bool(answers) and all(turn.label == HARMLESS for turn in answers)
    return "red_harmless" if judged else None


def _stays(text: str, languages: Sequence[str]) -> bool:
    return not languages or language(text) in (*languages, UNKNOWN)
