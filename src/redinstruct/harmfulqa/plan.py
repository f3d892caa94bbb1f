"""What a collection is to ask: read and checked, before anything is written or asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from redinstruct.checkpoints.embedded import prompts_of
from redinstruct.errors import ConfigError, DamagedStore, UsageError
from redinstruct.harmfulqa.steps import texts_digest
from redinstruct.harmfulqa.topics import PAPER_TOPICS, Topics, read_topics
from redinstruct.judges import Judge, JudgeOptions, judge_named, model_of_judge
from redinstruct.models import Model, make_model, recorded
from redinstruct.prompts import load_template
from redinstruct.run.config import Pinned
from redinstruct.types import ATTACK_SUCCESS, PromptTemplate, Sampling

RED_PROMPT = "cou"
MOST = 10_000
"""Questions of one subtopic, conversations about one question: more is a slip of the hand."""
DEFAULT_SAMPLING = Sampling(max_tokens=2000)


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
    sampling: Sampling
    answer_tokens: int
    texts: str
    red_prompt: Pinned
    answerer: str | None = None
    turn_by_turn: bool = False
    per_subtopic: int = 20
    blue: int = 5
    red: bool = False
    critique: bool = False
    judge: str | None = None
    teacher_options: tuple[tuple[str, str], ...] = ()
    answerer_options: tuple[tuple[str, str], ...] = ()
    published: PublishedFile | None = None

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


def prepare_collection(
    *,
    teacher: str | Model,
    answerer: str | Model | None = None,
    judge: str | Judge | None = None,
    judge_model: str | Model | None = None,
    judge_options: JudgeOptions | None = None,
    topics: Path | Topics | None = None,
    per_subtopic: int = 20,
    blue: int = 5,
    red: bool = False,
    critique: bool = False,
    turn_by_turn: bool = False,
    sampling: Sampling = DEFAULT_SAMPLING,
    answer_tokens: int = 500,
    teacher_options: Mapping[str, object] | None = None,
    answerer_options: Mapping[str, object] | None = None,
    timeout: float = 120.0,
) -> CollectPlan:
    """Read and check everything that a collection needs. Writes nothing, asks nothing.

    Raises:
        UsageError: anything that is wrong with the input, in one line.
    """
    _check_numbers(per_subtopic, blue, answer_tokens, sampling)
    if judge is None and (judge_model is not None or judge_options not in (None, JudgeOptions())):
        raise UsageError("--judge-model and its like are for a judge: name it with --judge")
    if critique and judge is None:
        raise UsageError("--critique needs --judge: it begins with an answer that was judged harmful")
    listed = read_topics(topics) if isinstance(topics, Path) else (topics or PAPER_TOPICS)
    instrument = None if judge is None else judge_named(judge, ATTACK_SUCCESS, judge_model, judge_options)
    if instrument is not None and instrument.measure != ATTACK_SUCCESS:
        raise UsageError(f"the judge measures {instrument.measure.name}, not {ATTACK_SUCCESS.name}")
    who = teacher if answerer is None else answerer
    template = load_template(RED_PROMPT, own_folder=_own_prompts(who))
    if answerer is None and answerer_options:
        raise UsageError("--answerer-option is for an answerer of its own: name it with --answerer")
    asks = _model(teacher, timeout, teacher_options)
    answers = None if answerer is None else _model(answerer, timeout, answerer_options)
    config = CollectConfig(
        teacher=asks.id,
        topics=listed,
        sampling=sampling,
        answer_tokens=answer_tokens,
        texts=texts_digest(),
        red_prompt=Pinned(template.name, template.sha256),
        answerer=None if answers is None else answers.id,
        turn_by_turn=turn_by_turn,
        per_subtopic=per_subtopic,
        blue=blue,
        red=red,
        critique=critique,
        judge=None if instrument is None else instrument.card.id,
        teacher_options=recorded(teacher_options),
        answerer_options=recorded(answerer_options),
    )
    judged_by = None if instrument is None else model_of_judge(instrument, judge_model, timeout, judge_options)
    return CollectPlan(config, asks, answers, instrument, judged_by, template)


def _check_numbers(per_subtopic: int, blue: int, answer_tokens: int, sampling: Sampling) -> None:
    for flag, value in (("--per-subtopic", per_subtopic), ("--blue", blue)):
        if not 1 <= value <= MOST:
            raise UsageError(f"{flag} must lie between 1 and {MOST:,}")
    for flag, value in (("--max-tokens", sampling.max_tokens), ("--answer-tokens", answer_tokens)):
        if value < 1:
            raise UsageError(f"{flag} must be at least 1")
    if sampling.temperature is not None and not (0 <= sampling.temperature <= 2):
        raise UsageError("--temperature must lie between 0 and 2")


def _model(model: str | Model, timeout: float, options: Mapping[str, object] | None) -> Model:
    return make_model(model, options=options, timeout=timeout) if isinstance(model, str) else model


def _own_prompts(model: str | Model) -> Path | None:
    """The folder of a toy checkpoint's own translations of the shipped prompts."""
    return prompts_of(model) if isinstance(model, str) else None


_FLAGS = {
    "teacher": "--teacher",
    "answerer": "--answerer",
    "teacher_options": "--teacher-option",
    "answerer_options": "--answerer-option",
    "topics": "--topics",
    "turn_by_turn": "--turn-by-turn",
    "answer_tokens": "--answer-tokens",
    "sampling": "--max-tokens/--temperature/--seed",
    "texts": "the prompts' wording (another redinstruct)",
    "red_prompt": "the red prompt",
}


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
    differing = [flag for field, flag in _FLAGS.items() if getattr(stored, field) != getattr(wanted, field)]
    for flag, was, now in (("--per-subtopic", stored.per_subtopic, wanted.per_subtopic),
                           ("--blue", stored.blue, wanted.blue)):  # fmt: skip
        if now < was:
            differing.append(f"{flag} (was {was}, cannot shrink to {now})")
    for flag, had, has in (("--red", stored.red, wanted.red), ("--critique", stored.critique, wanted.critique)):
        if had and not has:
            differing.append(f"{flag} (cannot be taken back)")
    if stored.judge is not None and stored.judge != wanted.judge:
        differing.append(f"--judge (was {stored.judge}, is {wanted.judge or 'none'})")
    if differing:
        raise ConfigError(
            f"{folder} holds a collection with other settings: {'; '.join(differing)}. "
            "Use the same flags to resume it, or another --run."
        )
