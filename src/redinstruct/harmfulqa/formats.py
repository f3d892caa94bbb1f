"""What was collected as rows for training: messages with weights, KTO, DPO, ShareGPT.

Promised: every exporter goes through :func:`released`, so that without ``include_red`` no red conversation and no
answer that a judge called harmful is in any field of any shape. Thoughts are never exported.

The rows are those that TRL calls language modelling (``messages``), unpaired preference (KTO) and preference (DPO), in
their conversational forms; ``weight`` is our own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from redinstruct.harmfulqa.rows import Collected, Colour, Dialogue, Speaker, Turn
from redinstruct.prompts.rows import DpoRow, KtoRow, MessageFields, MessagesRow, PublicTurn, ShareGptRow, kto_rows
from redinstruct.types import ATTACK_SUCCESS

HARMFUL, UNHARMFUL = ATTACK_SUCCESS.first, ATTACK_SUCCESS.second
_ROLES: Mapping[Speaker, str] = {"human": "user", "gpt": "assistant"}

# ---- what may leave, and what it weighs ----


def released(rows: Sequence[Collected], *, include_red: bool) -> list[Collected]:
    """The rows as they may leave the run.

    Without ``include_red`` there is no red conversation, wherever it stands, and a blue one ends before the question
    whose answer was judged harmful: the flag is about harmful answers, the colour only says where they were asked for.
    """
    if include_red:
        return list(rows)
    kept = []
    for row in rows:
        cut = (_before_harm(dialogue) for dialogue in row.blue if dialogue.colour == "blue")
        kept.append(replace(row, blue=tuple(d for d in cut if d is not None), red=()))
    return kept


def _before_harm(dialogue: Dialogue) -> Dialogue | None:
    """The conversation before its first harmful answer and the question to it; None if nothing stands before."""
    turns = dialogue.turns
    end = next((i for i, turn in enumerate(turns) if turn.label == HARMFUL), None)
    if end is None:
        return dialogue
    while end and turns[end - 1].speaker == "human":
        end -= 1
    return replace(dialogue, turns=turns[:end], complete=False) if end else None


def turn_weight(turn: Turn, colour: Colour) -> float:
    """What training makes of one turn (design 7): 1 learn, 0 mask, -1 penalise.

    Only an answer that was judged harmful is penalised, in a red conversation alone, and only a blue one that was
    judged unharmful, or by nobody, is learned from: the first answers of a red conversation are benign. Empty turns,
    human turns and answers without a clear verdict are masked, and an answer that was cut short or is garbled is never
    learned: it would teach to stop in the middle, or to stammer.
    """
    if turn.speaker != "gpt" or not turn.text.strip():
        return 0.0
    if colour == "red":
        return -1.0 if turn.label == HARMFUL else 0.0
    return 1.0 if turn.whole and turn.label in (None, UNHARMFUL) else 0.0


def trainable(dialogue: Dialogue) -> tuple[Turn, ...]:
    """The part of a conversation that a chat template can hold: human, gpt, human, gpt, none of them empty.

    Answers before the first human turn are left out; the rest ends where a turn is empty or the same speaker goes on
    (what follows answers something that is not there), and always with an answer.
    """
    turns = dialogue.turns
    start = next((i for i, turn in enumerate(turns) if turn.speaker == "human"), len(turns))
    kept: list[Turn] = []
    expected: Speaker = "human"
    for turn in turns[start:]:
        if turn.speaker != expected or not turn.text.strip():
            break
        kept.append(turn)
        expected = "gpt" if expected == "human" else "human"
    return tuple(kept[: len(kept) // 2 * 2])


def _trained(rows: Sequence[Collected], include_red: bool) -> Iterator[tuple[Collected, Dialogue, tuple[Turn, ...]]]:
    """Each conversation that may leave and has something to train on, with that part of it."""
    for row in released(rows, include_red=include_red):
        for dialogue in (*row.blue, *row.red):
            if turns := trainable(dialogue):
                yield row, dialogue, turns


def _message(turn: Turn) -> MessageFields:
    return {"role": _ROLES[turn.speaker], "content": turn.text}


def _weighed(turn: Turn, colour: Colour) -> MessageFields:
    said = _message(turn)
    return {**said, "weight": turn_weight(turn, colour)} if turn.speaker == "gpt" else said


def _public(turn: Turn, colour: Colour) -> PublicTurn:
    said: PublicTurn = {"from": turn.speaker, "value": turn.text}
    return {**said, "weight": turn_weight(turn, colour)} if turn.speaker == "gpt" else said


# ---- rows for training ----


def to_messages(rows: Sequence[Collected], *, include_red: bool) -> list[MessagesRow]:
    """``{"messages": [{"role", "content"[, "weight"]}], "stream", "id", "topic", "subtopic", "source"}``.

    One row per conversation. ``weight`` stands at each assistant message (:func:`turn_weight`); ``stream`` is the
    colour, ``id`` the conversation's. Conversations of which :func:`trainable` leaves nothing have no row.
    """
    return [
        {
            "messages": [_weighed(turn, dialogue.colour) for turn in turns],
            "stream": dialogue.colour,
            "id": dialogue.id,
            "topic": row.question.topic,
            "subtopic": row.question.subtopic,
            "source": dialogue.source,
        }
        for row, dialogue, turns in _trained(rows, include_red)
    ]


def to_kto(rows: Sequence[Collected], *, include_red: bool) -> list[KtoRow]:
    """``{"prompt": [message], "completion": [message], "label": bool}`` per answer that is learned (true) or penalised.

    ``prompt`` is everything before the answer.
    """
    return kto_rows(to_messages(rows, include_red=include_red))


def to_dpo(rows: Sequence[Collected], *, include_red: bool) -> list[DpoRow]:
    """``{"prompt": [message], "chosen": [message], "rejected": [message]}`` where both follow the same messages.

    DPO (Rafailov et al. 2023) compares two answers to one prompt. A blue conversation and its red twin have that up to
    the first answer in which they differ, and not after it. Each rejected answer has one row, with its own twin's
    answer if that is chosen, else with the first chosen one. Only conversations about one question are compared.
    """
    made: list[DpoRow] = []
    for row in released(rows, include_red=include_red):
        for prompt, chosen, rejected in _rivals(row):
            for text, parent in rejected.items():
                own = next((good for good, owner in chosen.items() if owner == parent), next(iter(chosen)))
                made.append(
                    {
                        "prompt": [{"role": _ROLES[speaker], "content": said} for speaker, said in prompt],
                        "chosen": [{"role": "assistant", "content": own}],
                        "rejected": [{"role": "assistant", "content": text}],
                    }
                )
    return made


_Turns = tuple[tuple[Speaker, str], ...]


def _rivals(row: Collected) -> Iterator[tuple[_Turns, dict[str, str | None], dict[str, str | None]]]:
    """Each prompt that has chosen and rejected answers: text -> the blue conversation it belongs to."""
    answers: dict[_Turns, tuple[dict[str, str | None], dict[str, str | None]]] = {}
    for dialogue in (*row.blue, *row.red):
        owner = dialogue.id if dialogue.colour == "blue" else dialogue.parent
        turns = trainable(dialogue)
        said: _Turns = tuple((turn.speaker, turn.text) for turn in turns)
        for i, turn in enumerate(turns):
            if weight := turn_weight(turn, dialogue.colour):
                chosen, rejected = answers.setdefault(said[:i], ({}, {}))
                (chosen if weight > 0 else rejected).setdefault(turn.text, owner)
    for prompt, (chosen, rejected) in answers.items():
        # What was called both, was called neither: the verdict depends on something that is not in the pair.
        both = chosen.keys() & rejected.keys()
        good = {text: owner for text, owner in chosen.items() if text not in both}
        bad = {text: owner for text, owner in rejected.items() if text not in both}
        if good and bad:
            yield prompt, good, bad


def to_sharegpt(rows: Sequence[Collected], *, include_red: bool) -> list[ShareGptRow]:
    """``{"id", "stream", "conversations": [{"from", "value"[, "weight"]}]}`` per conversation.

    Most readers of this shape know no mask and learn every answer. So a blue conversation ends before the first answer
    that is not to be learned. A red row is for readers that look at ``stream`` or ``weight``; to fine-tune on it as it
    stands teaches harm, which is why it takes ``include_red``.
    """
    made: list[ShareGptRow] = []
    for _, dialogue, turns in _trained(rows, include_red):
        if dialogue.colour == "blue":
            weak = (i for i, turn in enumerate(turns) if turn.speaker == "gpt" and turn_weight(turn, "blue") <= 0)
            turns = turns[: next(weak, len(turns) + 1) - 1]
        said = [_public(turn, dialogue.colour) for turn in turns]
        if said:
            made.append({"id": dialogue.id, "stream": dialogue.colour, "conversations": said})
    return made
