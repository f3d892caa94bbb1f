"""What a collection is to ask: read and checked, before anything is written or asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.checkpoints.embedded import prompts_of
from redinstruct.errors import ConfigError, DamagedStore, UsageError
from redinstruct.harmfulqa.settings import CollectSettings
from redinstruct.harmfulqa.steps import texts_digest
from redinstruct.harmfulqa.topics import Topics, paper_topics, read_topics
from redinstruct.judges import Judge, JudgeOptions
from redinstruct.models import Model, recorded
from redinstruct.models.registry import check_dtype, model_of
from redinstruct.prompts import load_template
from redinstruct.run.same import Pinned, check_same
from redinstruct.settings import Kept, check_said
from redinstruct.types import ATTACK_SUCCESS, PromptTemplate, Sampling

RED_PROMPT = "cou"
MOST = 10_000
"""Questions of one subtopic, conversations about one question: more is a slip of the hand."""


class PublishedFile(msgspec.Struct, frozen=True):
    """The file of which a collection was imported; ``dropped`` is what of it is not here, by reason."""

    name: str
    sha256: str
    dropped: dict[str, int] = {}


class CollectConfig(msgspec.Struct, frozen=True):
    """Everything that decides what a collection asks. ``judge`` is a judge's id, ``texts`` the digest of the prompts.

    ``published`` is there in a collection that was imported: nothing is asked for it.
    ``per_subtopic`` and ``blue`` may grow in a run, ``red`` and ``critique`` may be added, and so may a judge.
    """

    teacher: str
    topics: Topics
    sampling: Annotated[Sampling, Kept(parts=True)]
    answer_tokens: int
    texts: Annotated[str, Kept("the prompts' wording (another redinstruct)")]
    red_prompt: Annotated[Pinned, Kept("the red prompt")]
    answerer: str | None = None
    turn_by_turn: bool = False
    per_subtopic: Annotated[int, Kept(grows=True)] = 20
    blue: Annotated[int, Kept(grows=True)] = 5
    red: Annotated[bool, Kept(added=True)] = False
    critique: Annotated[bool, Kept(added=True)] = False
    judge: Annotated[str | None, Kept(added=True)] = None
    teacher_options: Annotated[tuple[tuple[str, str], ...], Kept("--teacher-option")] = ()
    answerer_options: Annotated[tuple[tuple[str, str], ...], Kept("--answerer-option")] = ()
    published: Annotated[PublishedFile | None, Kept(free=True)] = None

    @property
    def digest(self) -> str:
        """sha256 over all that may not change in a run."""
        fixed = msgspec.structs.replace(self, per_subtopic=0, blue=0, red=False, critique=False, judge=None)
        return hashlib.sha256(fixed.body.encode()).hexdigest()

    @property
    def body(self) -> str:
        """The configuration as JSON in ASCII."""
        plain = msgspec.to_builtins(self)
        # What earlier versions did not know is left out where it says nothing: their digests stay.
        for name in ("teacher_options", "answerer_options", "published"):
            if not plain[name]:
                del plain[name]
        return json.dumps(plain, sort_keys=True)

    @property
    def answers(self) -> Sampling:
        """How Base-LM's own answers are sampled: as the teacher's texts, but shorter."""
        return msgspec.structs.replace(self.sampling, max_tokens=self.answer_tokens)


class CollectPlan(msgspec.Struct, frozen=True):
    """A checked collection: nothing of it has been asked or written yet."""

    config: CollectConfig
    teacher: Model
    answerer: Model | None
    judge: Judge | None
    judge_model: Model | None
    red_template: PromptTemplate


def read_collecting(asked: CollectSettings) -> tuple[Topics, Judge | None]:
    """Read and check all that a collection's settings say and name, but its models. Writes nothing, asks nothing.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    check_said(asked)
    if asked.judge is None and (asked.judge_model is not None or asked.judge_how != JudgeOptions()):
        raise UsageError("--judge-model and its like are for a judge: name it with --judge")
    if asked.critique and asked.judge is None:
        raise UsageError("--critique needs --judge: it begins with an answer that was judged harmful")
    topics = read_topics(asked.topics) if isinstance(asked.topics, Path) else (asked.topics or paper_topics())
    judge = None if asked.judge is None else asked.judge_of(ATTACK_SUCCESS)
    if judge is not None and judge.measure != ATTACK_SUCCESS:
        raise UsageError(f"the judge measures {judge.measure.name}, not {ATTACK_SUCCESS.name}")
    if asked.answerer is None and asked.answerer_options:
        raise UsageError("--answerer-option is for an answerer of its own: name it with --answerer")
    return topics, judge


def prepare_collection(asked: CollectSettings, timeout: float = 120.0) -> CollectPlan:
    """Read and check everything that a collection needs. Writes nothing, asks nothing.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    topics, judge = read_collecting(asked)
    who = asked.teacher if asked.answerer is None else asked.answerer
    template = load_template(RED_PROMPT, own_folder=prompts_of(who) if isinstance(who, str) else None)
    to_teacher, to_answerer = asked.requests
    check_dtype(asked.dtype, asked.teacher, asked.answerer)
    teacher = model_of(asked.teacher, options=to_teacher, timeout=timeout)
    answerer = None if asked.answerer is None else model_of(asked.answerer, options=to_answerer, timeout=timeout)
    config = CollectConfig(
        teacher=teacher.id,
        topics=topics,
        sampling=asked.sampling,
        answer_tokens=asked.answer_tokens,
        texts=texts_digest(),
        red_prompt=Pinned(template.name, template.sha256),
        answerer=None if answerer is None else answerer.id,
        turn_by_turn=asked.turn_by_turn,
        per_subtopic=asked.per_subtopic,
        blue=asked.blue,
        red=asked.red,
        critique=asked.critique,
        judge=None if judge is None else judge.card.id,
        teacher_options=recorded(to_teacher),
        answerer_options=recorded(to_answerer),
    )
    judge_model = None if judge is None else asked.judge_model_of(judge, timeout)
    return CollectPlan(config, teacher, answerer, judge, judge_model, template)


def read_config(body: str) -> CollectConfig:
    """The inverse of :attr:`CollectConfig.body`. Raises ``StoreError`` for anything that it did not write."""
    try:
        return msgspec.convert(json.loads(body), CollectConfig)
    except (ValueError, RecursionError) as error:
        raise DamagedStore(f"the run store is damaged (its configuration: {type(error).__name__})") from error


def check_same_collection(stored: CollectConfig, wanted: CollectConfig, folder: str) -> None:
    """Pass when ``wanted`` resumes or extends ``stored``.

    Raises:
        ConfigError: anything else differs, or the collection would shrink; every difference is named.
    """
    if stored.published is not None:
        raise ConfigError(f"{folder} holds an imported collection: nothing is asked for it. Use another --run.")
    check_same(stored, wanted, folder, "a collection")
