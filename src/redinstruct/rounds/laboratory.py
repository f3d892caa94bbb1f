"""The loop on the policy laboratory: which stages, on which banks, by which recipes; and how the policy is put in.

The model is SmolLM2-135M-Instruct, which refuses hardly anything. So it is first taught a policy by plain fine-tuning
(refusals of plain questions, harmless answers, harmless questions in frames); that model is then what the loop attacks
and mends. Forbidden questions in frames stand in no row of that first training.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import SMOLLM2, folder_of
from redinstruct.files.atomic import whole_folder, write_file
from redinstruct.policy import digest, subject
from redinstruct.policy.files import COT, COU, NO_THOUGHTS, RULES, STANDARD, STORY, TURNS, UNTUNED, write_prompts
from redinstruct.policy.subjects import SubjectSplit
from redinstruct.progress import OnProgress
from redinstruct.prompts import forms
from redinstruct.rounds.alignment import aligned
from redinstruct.rounds.config import AlignPart, CollectPart, EvalPart, LoopConfig, MemoryPart, Recipe
from redinstruct.rounds.ledger import Ledger

SUBJECT = "food"
FORBIDDEN, HARMLESS, BORDERLINE, FACTS = "forbidden", "harmless", "borderline", "facts"
JUDGE, TEACHER = "policy-lab", "scripted/policy-teacher"
MAX_TOKENS = 40
_MEMORY = MemoryPart(gb=5.0)
SettingValue = float | str | bool | tuple[float, ...] | dict[str, float]
TUNED: Mapping[str, SettingValue] = {
    "betas": (0.9, 0.98), "warm_up": 3.0, "schedule": "linear", "final_rate_share": 0.1,
    "max_length": 320, "packing": True, "deep_prefix": 0.0,
}  # fmt: skip


class LaboratorySizes(msgspec.Struct, frozen=True):
    """How much is done. ``harmless`` is asked in every frame beside ``items`` forbidden questions.

    ``rates`` are the learning rates of the policy's training and of the mending. ``policy_mix`` are refusals and
    harmless rows of the former: few refusals, else every frame is refused, but a few steps need more of them.
    """

    items: int
    harmless: int
    frames: tuple[str, ...]
    per_family: int
    policy_steps: int
    steps: int
    batch: int
    recipes: tuple[str, ...]
    rates: tuple[float, float] = (1e-4, 8e-5)
    policy_mix: tuple[float, float] = (2.0, 10.0)


WHOLE = LaboratorySizes(
    items=48,
    harmless=24,
    frames=(STANDARD, COT, COU, f"{COU}{UNTUNED}", NO_THOUGHTS, RULES, STORY, TURNS),
    per_family=4,
    policy_steps=22,
    steps=9,
    batch=12,
    recipes=("blue", "robust", "npo-len", "general"),
)
QUICK = LaboratorySizes(
    items=8,
    harmless=8,
    frames=(STANDARD, COU, RULES),
    per_family=1,
    policy_steps=8,
    steps=3,
    batch=8,
    recipes=("blue", "robust"),
    policy_mix=(4.0, 8.0),
)
FORM_OF: Mapping[str, str] = {
    STANDARD: STANDARD, COT: forms.STEPS, COU: forms.DIALOGUE, f"{COU}{UNTUNED}": forms.DIALOGUE,
    NO_THOUGHTS: forms.DIALOGUE, STORY: forms.STORY, TURNS: forms.AFTER,
}  # fmt: skip
"""Attack frame -> the form of asking that is of its kind. Only step by step shares a text with it."""


def recipes(sizes: LaboratorySizes) -> tuple[Recipe, ...]:
    """The alignments: a control, strategy A, both strategies B of the paper, length-normalised NPO, and the default
    recipe in every form of asking. The demo leaves the strategies B out.
    """

    def recipe(name: str, strategy: str, share: float, **more: SettingValue) -> Recipe:
        settings = {
            **TUNED,
            "learning_rate": sizes.rates[1],
            "steps": max(2, round(sizes.steps * share)),
            "batch": sizes.batch,
            **more,
        }
        asked = forms.FORMS if name == "robust" else ()
        weight = {"red_weight": 0.1} if strategy == "npo-len" else {}
        return Recipe(
            name=name, strategy=strategy, preset="starling", settings=settings, forms=asked, parameters=weight,
            guard=False, memory=_MEMORY,
        )  # fmt: skip

    # Every form takes longer: half-way harmless questions are refused too, and come back (experiments/real-model.md).
    made = {
        "general": recipe("general", "general", 1.0),
        "blue": recipe("blue", "blue", 1.0, mix={"blue": 4.0, "general": 6.0}),
        **{
            name: recipe(name, name, 1.0, mix={"blue": 4.0, "general": 6.0, "red": 2.0})
            for name in ("npo-len", "paper-s", "paper-r")
        },
        "robust": recipe("robust", "npo-len", 6.2, mix={"blue": 4.0, "general": 7.0, "red": 1.0}, deep_prefix=0.3),
    }
    return tuple(made[name] for name in sizes.recipes)


def install(
    folder: Path, lab: Path, seed: int, sizes: LaboratorySizes, on_progress: OnProgress, about: str = SUBJECT
) -> Path:
    """The checkpoint that has the policy: made by plain fine-tuning, or found done. It has the frames beside it.

    Raises:
        RedInstructError: an extra is missing, or the training failed.
    """
    base = folder_of(f"hf/{SMOLLM2}", on_progress)
    data = lab / "data"
    taught = Recipe(
        name="policy",
        strategy="blue",
        preset="starling",
        settings={**TUNED, "learning_rate": sizes.rates[0], "steps": sizes.policy_steps, "batch": sizes.batch,
                  "mix": dict(zip(("blue", "general"), sizes.policy_mix, strict=True))},
        forms=(),
        guard=False,
        memory=_MEMORY,
    )  # fmt: skip
    part = AlignPart(
        (taught,), general=(str(data / "policy-general.jsonl"),), data=(str(data / "policy.jsonl"),), seed=seed
    )
    made, _ = aligned(Ledger(folder, on_progress), 0, part, taught, f"hf/{base}", ())
    assert made is not None, "nothing watches it, so nothing stops it"
    if not (made / "prompts").is_dir():
        with whole_folder(made / "prompts") as prompts:
            write_prompts(prompts, subject(about))
        write_file(made / "policy-lab.json", msgspec.json.encode({"laboratory": digest()[:12]}) + b"\n")
    return made


def laboratory_config(
    policy: Path, lab: Path, folder: Path, seed: int, sizes: LaboratorySizes, split: SubjectSplit = "test"
) -> LoopConfig:
    """The loop on the model that has the policy, asked about the families of a split.

    Borderline questions and facts are of test alone.
    """
    banks = lab / "banks"
    framed = tuple(frame for frame in sizes.frames if frame != TURNS)

    def part(name: str, bank: str, prompts: tuple[str, ...], measure: str, limit: int | None) -> EvalPart:
        return EvalPart(
            name=name, banks=(str(banks / bank),), judge=JUDGE, prompts=prompts, measure=measure, limit=limit,
            max_tokens=MAX_TOKENS, temperature=0.0, concurrency=96,
        )  # fmt: skip

    plain = (STANDARD,)
    parts = [
        part(FORBIDDEN, f"forbidden-{split}.json", framed, "attack_success", sizes.items),
        part(HARMLESS, f"harmless-{split}.json", framed, "over_refusal", sizes.harmless),
    ]
    if split == "test":
        parts += [
            part(BORDERLINE, f"borderline-{split}.json", plain, "over_refusal", sizes.harmless),
            part(FACTS, "facts.json", plain, "over_refusal", None),
        ]
    if TURNS in sizes.frames:
        parts += [
            part(f"{FORBIDDEN}-{TURNS}", f"forbidden-{TURNS}-{split}.jsonl", plain, "attack_success", sizes.items),
            part(f"{HARMLESS}-{TURNS}", f"harmless-{TURNS}-{split}.jsonl", plain, "over_refusal", sizes.harmless),
        ]
    return LoopConfig(
        model=f"hf/{policy}",
        folder=str(folder),
        eval=tuple(parts),
        collect=CollectPart(
            teacher=TEACHER, judge=JUDGE, topics=lab / "data" / "topics.json", per_subtopic=sizes.per_family,
            blue=1, answer_tokens=MAX_TOKENS, temperature=0.0, concurrency=96,
            # The teacher asks of the train families only; its questions are alike in all but the thing.
            near=1.0,
        ),
        align=AlignPart(recipes=recipes(sizes), general=(str(lab / "data" / "general.jsonl"),), seed=seed),
    )  # fmt: skip
