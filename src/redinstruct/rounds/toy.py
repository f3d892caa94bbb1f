"""The loop on the toy world: which stages, on which banks, by which recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct import world
from redinstruct.prompts.rows import MessagesRow
from redinstruct.rounds.config import AlignPart, CollectPart, EvalPart, LoopConfig, PickPart, Recipe, UtilityPart
from redinstruct.rounds.run import Measured, Reform
from redinstruct.toyworld import alignment
from redinstruct.toyworld.held_out import part_of

MAX_TOKENS = 64
"""Longer than any answer of the toy world, thought included."""
FORBIDDEN, BENIGN, BORDERLINE = "forbidden", "benign", "borderline"
PICK_ITEMS = 100
COLLECTED_PER_CELL = 4
"""Questions of a family and an action; few cells have more pairs in the train split."""


def _recipe(name: str, strategy: str, steps: int, *forms: str, deep: float = 0.0, **more: Any) -> Recipe:
    settings = {"steps": steps, "deep_prefix": deep}
    return Recipe(name=name, strategy=strategy, preset="toy", settings=settings, forms=forms, **more)


_PLAIN = ("chat", "talk")
CONTROL_STEPS, BEST_STEPS, QUICK_STEPS = 60, 180, 80
BEST = "npo-len"
RECIPES: tuple[Recipe, ...] = (
    _recipe("general", "general", CONTROL_STEPS),
    _recipe("blue", "blue", CONTROL_STEPS, *_PLAIN),
    _recipe("blue-red", "blue-red", CONTROL_STEPS, *_PLAIN),
    # Chosen on dev questions of base seeds 0 to 2 (docs/experiments/alignment.md).
    _recipe(BEST, "npo-len", BEST_STEPS, *alignment.FORMS, deep=0.5, parameters={"red_weight": 0.1}),
    _recipe("resta", "resta", 30, *_PLAIN, coefficients=(1.0, 0.5, 0.3, 0.2, 0.1)),
)
QUICK_RECIPES: tuple[Recipe, ...] = (
    _recipe("blue", "blue", QUICK_STEPS // 2, *_PLAIN),
    _recipe(BEST, "npo-len", QUICK_STEPS, *alignment.FORMS, deep=0.5, parameters={"red_weight": 0.1}),
)
FRAMES = (
    "standard", "cot", "cou", "cou-no-thoughts", "cou-no-demo", "cou-swapped-roles", "cou-paraphrase-1", "story",
    "rules",
)  # fmt: skip


class ToyLoop(msgspec.Struct, frozen=True, kw_only=True):
    """What a loop on a toy checkpoint measures and trains.

    ``general``: the data's files of general rows; that of the first holds harmless questions in the attack's own
    frame. ``suite``: usefulness is
    measured by the toy world's own suite, which asks the test split; else by evaluations of the split's banks.
    ``held_out``: a folder of :mod:`redinstruct.toyworld.held_out`, whose banks and data take the checkpoint's place;
    harmless questions are then asked in the unlike frames too.
    """

    split: str = "test"
    items: int = 200
    recipes: tuple[Recipe, ...] = RECIPES
    frames: tuple[str, ...] = FRAMES
    seed: int = 0
    rounds: int = 1
    general: tuple[str, ...] = ("general-in-frame",)
    suite: bool = False
    held_out: Path | None = None

    def parts(self, banks: Path) -> tuple[EvalPart, ...]:
        """The evaluations of every model."""
        split, others = self.split, unlike(self.held_out)
        attacks = (*self.frames, *others)
        found = [self.part(FORBIDDEN, banks / f"forbidden-{split}.json", attacks, "attack_success")]
        if not self.suite:
            harmless = ("standard", "cou", *others)
            found.append(self.part(BENIGN, banks / f"benign-{split}.json", harmless, "over_refusal"))
            found.append(self.part(BORDERLINE, banks / f"borderline-{split}.csv", ("standard",), "over_refusal"))
        return tuple(found)

    def part(self, name: str, bank: Path, prompts: tuple[str, ...], measure: str, limit: int | None = None) -> EvalPart:
        """One of them: greedy, with so many questions of the bank."""
        return EvalPart(
            name=name, banks=(str(bank),), judge="exact", prompts=prompts, measure=measure, limit=limit or self.items,
            max_tokens=MAX_TOKENS, temperature=0.0, concurrency=128,
        )  # fmt: skip


def toy_config(checkpoint: Path, folder: Path, toy: ToyLoop) -> LoopConfig:
    """The loop on a toy checkpoint, as the demo and the experiments carry it out."""
    own = checkpoint if toy.held_out is None else toy.held_out
    banks, picked = own / "banks", ("standard", "cou")
    return LoopConfig(
        model=f"hf/{checkpoint}",
        folder=str(folder),
        rounds=toy.rounds,
        eval=toy.parts(banks),
        utility=UtilityPart("toy", limit=toy.items) if toy.suite else None,
        collect=_collection(own / "data" / "topics.json"),
        align=AlignPart(
            recipes=toy.recipes,
            general=tuple(str(own / "data" / f"{name}.jsonl") for name in toy.general),
            seed=toy.seed,
            pick=PickPart(
                safety=toy.part("safety", banks / "forbidden-dev.json", picked, "attack_success", PICK_ITEMS),
                utility=toy.part("utility", banks / "benign-dev.json", picked, "over_refusal", PICK_ITEMS),
            ),
        ),
    )


def _collection(topics: Path) -> CollectPart:
    return CollectPart(
        teacher="scripted/red-teacher",
        judge="exact",
        topics=topics,
        per_subtopic=COLLECTED_PER_CELL,
        blue=1,
        answer_tokens=MAX_TOKENS,
        temperature=0.0,
        concurrency=128,
        # The world's questions differ in one invented word, which is what a near-duplicate looks like; the teacher
        # asks of the train split only, so that none of them stands in a bank.
        near=1.0,
    )


def unlike(held_out: Path | None) -> tuple[str, ...]:
    """The unlike frames of a folder of topic hold-out, by path."""
    return () if held_out is None else tuple(map(str, sorted((held_out / "prompts").glob("*.txt"))))


def reform(items: int, seed: int = 0, *, held_out: bool = False, forms: Sequence[str] = alignment.FORMS) -> Reform:
    """Puts collected answers into the toy world's other forms of asking (:mod:`redinstruct.toyworld.alignment`).

    ``held_out``: with harmless turns about the train families' items alone.
    """
    of = part_of("train", items) if held_out else world.part(items)

    def more(rows: Sequence[MessagesRow]) -> Mapping[str, Sequence[MessagesRow]]:
        return {form: alignment.reformed(rows, form, seed, of=of) for form in forms}

    return more


def usefulness(model: Measured) -> Mapping[str, float]:
    """``benign``, ``benign_in_frame``, ``over_refusal`` and ``facts``, by the toy world's own suite."""
    assert model.useful is not None
    figures = {(one.task, one.metric): one.mean for one in model.useful.tasks}
    of = {
        "benign": ("toy_how_to", "acc"),
        "benign_in_frame": ("toy_how_to_in_frame", "acc"),
        "over_refusal": ("toy_borderline", "refused"),
        "facts": ("toy_facts", "acc"),
    }
    return {name: figures[where] or 0.0 for name, where in of.items()}
