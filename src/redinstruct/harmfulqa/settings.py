"""What a collection may be set to: one struct, from which flags, TOML keys and the Python function derive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.harmfulqa.topics import Topics
from redinstruct.judges import JudgeSettings
from redinstruct.models import Model, Options
from redinstruct.models.registry import with_dtype
from redinstruct.settings import ANSWERING, COLLECTED, NEEDED, Dtype, Setting, Temperature
from redinstruct.types import Bank, Sampled

_FIELD = "A field of the requests to the {}: set, or removed by null. Repeatable."
Near = Annotated[
    float | None,
    Setting(
        "Likeness (0 to 1) from which on two collected questions count as one; left out, the screens' own.",
        "X",
        above=0,
        most=1,
    ),
]


class CollectSettings(JudgeSettings, Sampled, frozen=True, kw_only=True):
    """A collection: the settings of ``redinstruct collect``. Models are ids or objects; ``topics`` a file or topics."""

    teacher: Annotated[
        str | Model, Setting("The model that asks as Red-LM, and writes the role-plays.", "M", NEEDED, first=1)
    ]
    answerer: Annotated[
        str | Model | None, Setting("The model that answers as Base-LM; left out, the teacher does.", "M2", COLLECTED)
    ] = None
    topics: Annotated[
        Path | Topics | None,
        Setting(
            "JSON {topic: [subtopic]} or a list of topics; left out, the paper's 10 topics and 98 subtopics.",
            "FILE",
            COLLECTED,
        ),
    ] = None
    per_subtopic: Annotated[int, Setting("Questions per subtopic.", "N", COLLECTED, least=1)] = 20
    blue: Annotated[int, Setting("Blue conversations per question.", "N", COLLECTED, least=1)] = 5
    turn_by_turn: Annotated[
        bool, Setting("Red-LM and Base-LM answer each other; else one role-play each.", group=COLLECTED)
    ] = False
    red: Annotated[
        bool, Setting("Also regenerate the answers under the CoU prompt (harmful text).", group=COLLECTED)
    ] = False
    critique: Annotated[
        bool, Setting("Also let the model mend its own unsafe answers; needs --judge.", group=COLLECTED)
    ] = False
    until_covered: Annotated[
        bool, Setting("Keep asking, within a bound, where a subtopic is thin.", group=COLLECTED)
    ] = False
    max_tokens: Annotated[int, Setting("Tokens per text of the teacher.", "N", ANSWERING, least=1)] = 2000
    answer_tokens: Annotated[int, Setting("Tokens per answer of Base-LM.", "N", ANSWERING, least=1)] = 500
    temperature: Temperature = None
    top_p: float | None = None
    seed: Annotated[int | None, Setting("Sampling seed.", "S", ANSWERING)] = None
    stop: tuple[str, ...] = ()
    teacher_options: Annotated[
        Options, Setting(_FIELD.format("teacher"), "KEY=JSON", ANSWERING, "--teacher-option")
    ] = msgspec.field(default_factory=dict)
    answerer_options: Annotated[
        Options, Setting(_FIELD.format("answerer"), "KEY=JSON", ANSWERING, "--answerer-option")
    ] = msgspec.field(default_factory=dict)
    dtype: Dtype = None

    @property
    def requests(self) -> tuple[Options, Options]:
        """Fields of the requests to the teacher and to the answerer, with what checkpoints compute in."""
        return (
            with_dtype(self.teacher_options, self.teacher, self.dtype),
            with_dtype(self.answerer_options, self.answerer, self.dtype),
        )


class ExportSettings(msgspec.Struct, frozen=True):
    """A collection written out: the settings of ``redinstruct export``, whose last two kinds are of evaluations.

    ``near`` None is the screens' own; ``forms`` are further forms of asking (``messages``).
    """

    to: Annotated[
        str,
        Setting(
            "The public schema, rows for training with a weight per turn; of an evaluation: a log for Inspect, a"
            " bundle.",
            names=("harmfulqa", "messages", "kto", "dpo", "sharegpt", "inspect", "bundle"),
        ),
    ]
    include_red: Annotated[bool, Setting("Let red conversations and harmful answers leave the run.")] = False
    banks: Annotated[
        tuple[str | Path | Bank, ...],
        Setting(
            "An evaluation bank, by file or known name: what overlaps with it is left out. Repeatable.",
            "B",
            flag="--bank",
        ),
    ] = ()
    near: Near = None
    languages: Annotated[
        tuple[str, ...],
        Setting(
            "Keep what is, by a guess, in this language or in none that is known: english, spanish, french, german,"
            " italian, portuguese, chinese, japanese, korean. Repeatable.",
            "NAME",
            flag="--language",
        ),
    ] = ()
    forms: Annotated[
        tuple[str, ...],
        Setting(
            "The questions again in other forms of asking (--to messages): dialogue, steps, story, after-harmless,"
            " deep-prefix, harmless-twins.",
            "F,...",
        ),
    ] = ()
    general: Annotated[
        tuple[Path, ...],
        Setting("Ordinary conversations, for the forms that are made of them. Repeatable.", "FILE", needs=("forms",)),
    ] = ()
    licence: Annotated[str | None, Setting("The licence that the data card states; yours to choose.", "TEXT")] = None
