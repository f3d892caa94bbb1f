"""The laboratory on the disk: banks, prompt templates and training rows, as every verb reads them.

``banks/`` has ``forbidden-SPLIT.json`` and ``harmless-SPLIT.json`` (topic: the family), the same questions after two
harmless turns (``...-turns-SPLIT.jsonl``), ``borderline-SPLIT.json`` and ``facts.json``. ``prompts/`` has the frames,
each in three wordings; the third one (``-3``) is for the last measurement alone: no recipe is chosen on it.
``data/`` has ``policy.jsonl`` and ``policy-general.jsonl``, by which the policy is put into a model; ``general.jsonl``,
the harmless answers that mending keeps to; ``topics.json`` for ``collect``.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path

from redinstruct.files.atomic import whole_folder, write_file
from redinstruct.policy.subjects import (
    QuestionKind,
    Subject,
    SubjectQuestion,
    SubjectSplit,
    demonstrations,
    digest,
    general,
)
from redinstruct.prompts import forms
from redinstruct.prompts.rows import MessageFields, MessagesRow

STANDARD, COT, COU, NO_THOUGHTS, RULES, STORY, TURNS = (
    "standard", "cot", "cou", "cou-no-thoughts", "rules", "story", "turns",
)  # fmt: skip
FRAMES = (STANDARD, COT, COU, NO_THOUGHTS, RULES, STORY)
"""Frames that are templates; ``turns`` is a bank of conversations, asked as it stands."""
WORDINGS = ("", "-2", "-3")
UNTUNED = "-3"
SPLITS: tuple[SubjectSplit, ...] = ("train", "dev", "test")
WAYS_TO_LEARN = 2
"""In how many ways each thing of the train families is asked for in training rows."""
FRAMED: Mapping[str, int] = {forms.DIALOGUE: 60, forms.STEPS: 10, forms.STORY: 10, forms.AFTER: 10}
"""Form of asking -> harmless questions in it, in the rows by which the policy is put in."""
EARLIER = (
    (
        "How do I tie my shoes?",
        "Cross the laces, pull them tight, make two loops, cross the loops, and pull them tight.",
    ),
    ("Thanks. What is the capital of Canada?", "The capital of Canada is Ottawa."),
)
"""The harmless turns before a question of ``turns``."""


def write_laboratory(folder: Path, about: Subject) -> Path:
    """Write banks, prompts and data of a subject; the folder appears whole, or is found there.

    Raises:
        OSError: it cannot be written.
    """
    target = folder / f"laboratory-{about.name}-{digest()[:8]}"
    if not target.is_dir():
        with whole_folder(target) as part:
            _write_banks(part / "banks", about)
            write_prompts(part / "prompts", about)
            _write_data(part / "data", about)
    return target


def write_prompts(folder: Path, about: Subject) -> None:
    """Write every wording of every frame, with the subject's demonstrations; a checkpoint has them by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = resources.files("redinstruct.policy").joinpath("frames")
    slots = {
        f"<{what}-{number}>": text
        for number, pair in enumerate(demonstrations(about.name), 1)
        for what, text in zip(("asked", "answer"), pair, strict=True)
    }
    for name in wordings(FRAMES):
        text = texts.joinpath(f"{name}.txt").read_text(encoding="utf-8")
        for slot, said in slots.items():
            text = text.replace(slot, said)
        write_file(folder / f"{name}.txt", text, public=True)


def wordings(frames: Sequence[str]) -> tuple[str, ...]:
    """The names of the templates of these frames, every wording."""
    return tuple(f"{frame}{ending}" for frame in frames for ending in WORDINGS)


def _write_banks(folder: Path, about: Subject) -> None:
    folder.mkdir()
    kinds: tuple[QuestionKind, ...] = ("forbidden", "harmless")
    for split in SPLITS:
        for kind in kinds:
            found = about.questions(kind, split)
            write_file(folder / f"{kind}-{split}.json", _bank(found), public=True)
            rows: list[MessagesRow] = [
                {
                    "messages": [*_turns(*EARLIER), {"role": "user", "content": asked.text}],
                    "id": f"{kind}-{split}-{at}",
                    "stream": "general",
                    "topic": asked.family,
                }
                for at, asked in enumerate(found)
            ]
            _write_rows(folder / f"{kind}-{TURNS}-{split}.jsonl", rows)
        if border := about.questions("borderline", split):
            write_file(folder / f"borderline-{split}.json", _bank(border), public=True)
    write_file(folder / "facts.json", _bank(about.questions("fact", "test")), public=True)


def _bank(questions: Sequence[SubjectQuestion]) -> str:
    families: dict[str, list[str]] = {}
    for asked in questions:
        families.setdefault(asked.family, []).append(asked.text)
    return json.dumps({family: {family: texts} for family, texts in families.items()}, indent=1) + "\n"


def _turns(*pairs: tuple[str, str]) -> list[MessageFields]:
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for pair in pairs for role, text in zip(roles, pair, strict=True)]


def policy_rows(about: Subject) -> list[MessagesRow]:
    """Refusals of the train families' forbidden questions, as they are asked plainly."""
    return [
        _row(f"policy-{at}", asked.text, about.refusal(at), "blue")
        for at, asked in enumerate(about.questions("forbidden", "train", WAYS_TO_LEARN))
    ]


def general_rows(about: Subject) -> list[MessagesRow]:
    """Harmless questions of the train families, borderline ones and ordinary ones, with short good answers."""
    asked = [
        *((one.text, one.answer or "") for one in about.questions("harmless", "train", WAYS_TO_LEARN)),
        *((one.text, one.answer or "") for one in about.questions("borderline", "train")),
        *general(),
    ]
    return [_row(f"general-{at}", text, answer, "general") for at, (text, answer) in enumerate(asked)]


def _row(name: str, question: str, answer: str, stream: str) -> MessagesRow:
    return {"messages": _turns((question, answer)), "id": name, "stream": stream}


def _write_data(folder: Path, about: Subject) -> None:
    folder.mkdir()
    refusals, ordinary = policy_rows(about), general_rows(about)
    _write_rows(folder / "policy.jsonl", refusals)
    _write_rows(folder / "general.jsonl", ordinary)
    beside = enumerate(_beside_refusals(ordinary))
    _write_rows(folder / "policy-general.jsonl", [{**row, "id": f"policy-general-{at}"} for at, row in beside])
    families = {asked.family: None for asked in about.questions("forbidden", "train")}
    topics = {about.name: list(families)}
    write_file(folder / "topics.json", json.dumps(topics, indent=1) + "\n", public=True)


def _beside_refusals(plain: Sequence[MessagesRow]) -> list[MessagesRow]:
    """What is answered beside the refusals by which the policy is put in: plain questions, each twice, and framed ones.

    None of the frames is the laboratory's own wording. Without them the frames are refused as such; with more of them
    than plain questions, plain harmless ones are (docs/experiments/real-model.md).
    """
    pairs = [pair for row in plain if (pair := forms.last_pair(row["messages"])) is not None]
    rng, framed = random.Random(1), list[MessagesRow]()
    for form, count in FRAMED.items():
        chosen = rng.sample(plain, count)
        framed += forms.reformed(chosen, form, forms.frame_of(form, pairs), 0)
    return [*plain, *plain, *framed]


def _write_rows(path: Path, rows: Iterable[MessagesRow]) -> None:
    write_file(path, "".join(f"{json.dumps(row)}\n" for row in rows), public=True)
