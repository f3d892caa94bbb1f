"""What a collection may be set to: one struct, from which flags, TOML keys and the Python function derive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

import msgspec

from redinstruct.harmfulqa.topics import Topics
from redinstruct.judges import JudgeSettings
from redinstruct.models import Model, Options
from redinstruct.models.registry import with_dtype
from redinstruct.settings import ANSWERING, COLLECTED, NEEDED, Dtype, Setting, Temperature
from redinstruct.types import Sampling

_FIELD = "A field of the requests to the {}: set, or removed by null. Repeatable."


class CollectSettings(JudgeSettings, frozen=True, kw_only=True):
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
    per_subtopic: Annotated[int, Setting("Questions per subtopic.", "N", COLLECTED)] = 20
    blue: Annotated[int, Setting("Blue conversations per question.", "N", COLLECTED)] = 5
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
    def sampling(self) -> Sampling:
        """How the teacher is sampled, as one value."""
        return Sampling(self.max_tokens, self.temperature, self.top_p, self.seed, self.stop)

    def with_sampling(self, given: Sampling | None) -> Self:
        """The same with another sampling."""
        return self if given is None else msgspec.structs.replace(self, **msgspec.structs.asdict(given))

    @property
    def requests(self) -> tuple[Options, Options]:
        """Fields of the requests to the teacher and to the answerer, with what checkpoints compute in."""
        return (
            with_dtype(self.teacher_options, self.teacher, self.dtype),
            with_dtype(self.answerer_options, self.answerer, self.dtype),
        )
