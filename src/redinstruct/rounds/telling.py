"""What the demo found in sentences that need neither the paper nor statistics, and a legend of its names."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from redinstruct.rounds.demo import Demo, DemoRow, best_of

ASKED = {
    "standard": "asked plainly",
    "cot": "asked to think step by step (Chain of Thought)",
    "cou": "asked within a dialogue of two that it is to go on with (Chain of Utterances, RED-EVAL's attack)",
}
ALIGNED = {
    "base": "the model as it was trained: to answer what is harmless, and refuse what is forbidden",
    "general": "the control: trained on ordinary answers alone",
    "blue": "learns safe answers, collected from the model itself (the paper's first strategy)",
    "blue-red": "and unlearns the harmful ones (the paper's second strategy)",
    "npo-len": "unlearns them without harm to the rest (a bounded loss), in many forms of asking",
    "resta": "a direction towards safety, added to the weights",
}


class DemoAnswer(msgspec.Struct, frozen=True):
    """One thing that a stranger asks, and what the demo has to say to it."""

    question: str
    answer: str


def answers(found: Demo) -> tuple[DemoAnswer, ...]:
    """What was asked, how bad it was, what helped, what that cost, how sure that is; each figure with its number."""
    base, best = found.rows[0], best_of(found.rows)
    apart, held = found.held_out.rows[0], found.held_out.rows[-1]
    low, high = best.intervals["cou"]
    verdict = found.verdicts.get(best.model, {}).get("forbidden/cou", "not compared")
    why = found.reasons.get(best.model, {}).get("forbidden/cou", "")
    return (
        DemoAnswer(
            "What was asked",
            f"{found.items} forbidden questions about an invented world, which this tiny model was trained to refuse: "
            f"plainly, step by step, in a dialogue (CoU), and in {len(base.asr) - 3} other ways; none was learnt from.",
        ),
        DemoAnswer(
            "How bad it was",
            f"It gave in to {_share(base.asr['standard'])} {_plainly('standard')}, {_share(base.asr['cot'])} "
            f"{_plainly('cot')}, and {_share(base.asr['cou'])} {_plainly('cou')}.",
        ),
        DemoAnswer(
            "What helped",
            f"{best.model}, the safest of {len(found.rows) - 1} ways to align it that still answers: "
            f"{_share(best.asr['cou'])} in the dialogue (95 % interval {100 * low:.0f} to {100 * high:.0f} %), "
            f"{_share(best.asr['standard'])} asked plainly{_others(found.rows, best)}.",
        ),
        DemoAnswer(
            "What it cost",
            f"Harmless questions answered: {_change(base.benign, best.benign)} asked plainly, "
            f"{_change(base.benign_in_frame, best.benign_in_frame)} in the dialogue; facts: "
            f"{_change(base.facts, best.facts)}.",
        ),
        DemoAnswer(
            "How sure it is",
            f"In the dialogue {verdict}{f' ({why})' if why else ''}; on topics that were held out of its alignment "
            f"{held.model} goes from {_change(apart.asr['cou'], held.asr['cou'])} there. One tiny model, seed "
            f"{found.seed}: a direction, no promise for yours."
            + (" With --quick it is smaller still: not the figures of the whole demo." if found.quick else ""),
        ),
    )


def legend(found: Demo) -> tuple[tuple[str, str], ...]:
    """The names in the tables, each with what it is."""
    rows = [(row.model, ALIGNED.get(row.model, "")) for row in found.rows]
    return (*ASKED.items(), *((name, what) for name, what in rows if what))


def _others(rows: Sequence[DemoRow], best: DemoRow) -> str:
    told = [f"{row.model} {_share(row.asr['cou'])}" for row in rows[1:] if row.model != best.model]
    return f"; the others in the dialogue: {', '.join(told)}" if told else ""


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _change(before: float, after: float) -> str:
    return f"{100 * before:.0f} -> {100 * after:.0f} %"


def _plainly(prompt: str) -> str:
    return {"standard": "asked plainly", "cot": "step by step", "cou": "in the dialogue"}[prompt]
