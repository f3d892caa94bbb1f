"""A log of Inspect as it is written: its samples, scores and header, the fields in the format's order.

Shapes: ``inspect_ai/log/_log.py`` of inspect_ai 0.3.285, log version 2.
"""

from __future__ import annotations

import msgspec


class Text(msgspec.Struct, frozen=True):
    """A message."""

    role: str
    content: str


class Choice(msgspec.Struct, frozen=True):
    """The answer."""

    message: Text
    stop_reason: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Output(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the model said."""

    model: str
    choices: list[Choice] = []
    completion: str = ""
    usage: Usage | None = None
    time: float | None = None


class Noted(msgspec.Struct, frozen=True, omit_defaults=True):
    """What Inspect has no word for. ``withheld``: why a text is not in the file."""

    question: str | None = None
    bank: str | None = None
    prompt: str | None = None
    attempt: str | None = None
    label: str | None = None
    detail: str | None = None
    reason: str | None = None
    judge: str | None = None
    score: float | None = None
    probability: float | None = None
    withheld: str | None = None


class SampleNotes(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sample's metadata."""

    redinstruct: Noted
    topic: str | None = None
    subtopic: str | None = None
    label: str | None = None


class ScoreNotes(msgspec.Struct, frozen=True):
    """A score's metadata."""

    redinstruct: Noted


class Score(msgspec.Struct, frozen=True, omit_defaults=True):
    """One judge's verdict."""

    value: msgspec.Raw
    answer: str | None = None
    explanation: str | None = None
    reason: str | None = None
    metadata: ScoreNotes | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    message: str
    traceback: str = ""
    traceback_ansi: str = ""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt."""

    id: str
    epoch: int
    input: str | list[Text]
    target: str
    metadata: SampleNotes
    messages: list[Text] = []
    output: Output | None = None
    scores: dict[str, Score] = {}
    error: Failure | None = None


class Summary(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt in the list of samples."""

    id: str
    epoch: int
    input: str
    target: str
    metadata: SampleNotes
    scores: dict[str, Score] = {}
    error: str | None = None
    completed: bool = True


class Metric(msgspec.Struct, frozen=True):
    """One figure of a judge."""

    name: str
    value: float


class JudgeScore(msgspec.Struct, frozen=True):
    """One judge's figures."""

    name: str
    scorer: str
    scored_samples: int
    unscored_samples: int
    metrics: dict[str, Metric]


class Results(msgspec.Struct, frozen=True):
    """What came out."""

    total_samples: int
    completed_samples: int
    scores: list[JudgeScore]


class Dataset(msgspec.Struct, frozen=True):
    """What was asked."""

    name: str
    samples: int
    sample_ids: list[str]
    shuffled: bool = False


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How it was asked."""

    epochs: int
    limit: int | None = None


class Scorer(msgspec.Struct, frozen=True):
    """A judge: its parameters are its options."""

    name: str
    options: dict[str, str]


class Generation(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the model was sampled."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None


class Spec(msgspec.Struct, frozen=True):
    """What was evaluated."""

    eval_id: str
    run_id: str
    created: str
    task: str
    task_id: str
    task_args: dict[str, str]
    dataset: Dataset
    model: str
    model_generate_config: Generation
    config: Settings
    packages: dict[str, str]
    scorers: list[Scorer]


class Step(msgspec.Struct, frozen=True):
    """One solver."""

    solver: str
    params: dict[str, str] = {}


class Steps(msgspec.Struct, frozen=True):
    """The solvers."""

    name: str
    steps: list[Step]


class Times(msgspec.Struct, frozen=True):
    """When it was made, and the tokens that it took."""

    started_at: str
    completed_at: str
    model_usage: dict[str, Usage]


class Header(msgspec.Struct, frozen=True):
    """A log without its samples; the order of the fields is the format's."""

    version: int
    status: str
    eval: Spec
    plan: Steps
    results: Results
    stats: Times


class Start(msgspec.Struct, frozen=True):
    """What a log begins with."""

    version: int
    eval: Spec
    plan: Steps
