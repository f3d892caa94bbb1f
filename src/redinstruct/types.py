"""The nouns of the project: frozen values that know nothing of storage, network or torch.

Promised: every value is immutable, comparable and hashable, and has one meaning. Not promised: identity. Which row
of which run a value came from is the store's concern.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal, Self

import msgspec

from redinstruct.errors import UsageError, did_you_mean

Role = Literal["system", "user", "assistant"]
Json = None | bool | int | float | str | Sequence["Json"] | Mapping[str, "Json"]
"""A value that JSON can carry: of what is written, in a file or to standard output."""
JsonObject = Mapping[str, Json]


class Message(msgspec.Struct, frozen=True):
    """One message of a conversation."""

    role: Role
    content: str


class Question(msgspec.Struct, frozen=True, gc=False):
    """One question of a bank.

    ``id`` is ``<bank sha256>:<row>``, so a question that stands twice in a bank is two questions.
    ``label`` is ``safe`` or ``unsafe`` where the bank says so (XSTest), else None. ``earlier`` are the turns of the
    conversation that ``text`` goes on with, a system message among them; most questions have none.
    """

    id: str
    text: str
    row: int
    topic: str | None = None
    subtopic: str | None = None
    language: str | None = None
    label: str | None = None
    earlier: tuple[Message, ...] = ()


class Bank(msgspec.Struct, frozen=True):
    """A question bank as it was read: its short name, the sha256 of the file's bytes, its questions in order."""

    name: str
    sha256: str
    questions: Sequence[Question]


class PromptTemplate(msgspec.Struct, frozen=True):
    """A prompt text with one ``<question>`` slot.

    ``prefix`` and ``suffix`` are the text before and after the slot; the prefix is shared by every question.
    ``sha256`` is that of the UTF-8 text. ``asker`` and ``answerer`` are the role names of a Chain-of-Utterances
    text (spec 1.2), or None in a template without roles. ``translation_of`` names the shipped template that this
    one renders in a toy model's language.
    """

    name: str
    text: str
    sha256: str
    prefix: str
    suffix: str
    asker: str | None = None
    answerer: str | None = None
    translation_of: str | None = None


Conversation = tuple[Message, ...]


class Sampling(msgspec.Struct, frozen=True):
    """How the target is sampled. None means: not sent, the model's own default."""

    max_tokens: int = 500
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Sampled(msgspec.Struct, frozen=True):
    """Settings that have the fields of a :class:`Sampling` among theirs."""

    @property
    def sampling(self) -> Sampling:
        """How the model is sampled, as one value."""
        return Sampling(**{name: getattr(self, name) for name in Sampling.__struct_fields__})

    def with_sampling(self, given: Sampling | None) -> Self:
        """The same with another sampling."""
        if given is not None and not isinstance(given, Sampling):
            raise UsageError(f"sampling must be a redinstruct.types.Sampling, not a {type(given).__name__}")
        return self if given is None else msgspec.structs.replace(self, **msgspec.structs.asdict(given))


class Attempt(msgspec.Struct, frozen=True):
    """One thing to ask: question x template x model x sampling x epoch. ``key`` (32 bytes) is the hash of them all."""

    key: bytes
    question: Question
    template: PromptTemplate
    epoch: int


class FailureReason(StrEnum):
    """Why a call gave no usable answer. The first group is tried again, the second never."""

    TIMEOUT = "timeout"
    CONNECTION = "connection"
    UNREACHABLE = "unreachable"
    RATE_LIMITED = "rate_limited"
    CONFLICT = "conflict"
    SERVER_ERROR = "server_error"
    INVALID_JSON = "invalid_json"

    BAD_SHAPE = "bad_shape"
    NO_CHOICES = "no_choices"
    TOO_LARGE = "too_large"
    REDIRECT = "redirect"
    BAD_REQUEST = "bad_request"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UNPROCESSABLE = "unprocessable"
    HTTP_STATUS = "http_status"
    QUOTA = "quota"
    LOCAL_MODEL = "local_model"


class NoResponseReason(StrEnum):
    """Why an answer holds no text: the only grounds for the label ``no_response``.

    The filter's answers are *withheld*, all others *unread*: :func:`is_withheld`, :func:`is_unread`.
    """

    PROVIDER_FILTER = "provider_filter"
    EMPTY = "empty"
    EMPTY_AFTER_THOUGHTS = "empty_after_thoughts"
    ECHO_ONLY = "echo_only"


CompletionOutcome = Literal["text", "no_response", "error"]


class Completion(msgspec.Struct, frozen=True):
    """What the target said to one attempt.

    ``raw`` is the text as received, ``judged`` what the judge reads: thoughts stripped, prompt echo removed, cut
    at the asker's next turn. ``outcome`` is ``text`` when there is something to judge; otherwise ``reason`` is a
    :class:`FailureReason` (error) or :class:`NoResponseReason` (no_response). ``flags`` notes what was done to the
    text (``thought``, ``thought_unclosed``, ``reasoning``, ``reasoning_unopened``, ``reasoning_left``, ``echo``,
    ``echo_left``, ``next_turn``).
    Token counts are the endpoint's own; None where it gave none. ``tries`` counts requests sent. ``thought`` is what a
    reasoning model thought, where it was told apart from what it said.
    """

    outcome: CompletionOutcome
    raw: str | None = None
    judged: str | None = None
    reason: str | None = None
    note: str | None = None
    finish_reason: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    truncated: bool = False
    flags: tuple[str, ...] = ()
    tries: int = 1
    seconds: float = 0.0
    thought: str | None = None


class Measure(msgspec.Struct, frozen=True):
    """What is counted. ``first`` is the label counted as p, ``second`` as n; ``bank_label`` the rows it is asked on."""

    name: str
    first: str
    second: str
    bank_label: str
    labels: tuple[str, ...] = ()
    """The six labels, in the order of every table and JSON object: made of the two."""

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "labels", (self.first, self.second, *COMMON_LABELS))


COMMON_LABELS = ("no_response", "judge_refused", "unparsable", "error")
_UNSCORED_LABELS = frozenset({"judge_refused", "unparsable", "error"})
DETAILS = ("refused", "complied", "partial", "garbled", "promise")
"""``promise``: it says that it will help, and that is all."""

ATTACK_SUCCESS = Measure("attack_success", "harmful", "unharmful", "unsafe")
OVER_REFUSAL = Measure("over_refusal", "refused", "complied", "safe")
MEASURES: Mapping[str, Measure] = {m.name: m for m in (ATTACK_SUCCESS, OVER_REFUSAL)}


def is_withheld(label: str | None, reason: str | None) -> bool:
    """Whether a provider's filter kept the answer back: nothing harmful reached anybody."""
    return label == "no_response" and reason == NoResponseReason.PROVIDER_FILTER


def is_unread(label: str | None, reason: str | None) -> bool:
    """Whether there was no text to read, for any reason but a filter (a reason nobody knows yet too): nobody knows."""
    return label == "no_response" and reason != NoResponseReason.PROVIDER_FILTER


def is_unscored(label: str | None, reason: str | None) -> bool:
    """Whether an attempt is recorded, and neither judged nor withheld: it may have been either of the two labels."""
    return label in _UNSCORED_LABELS or is_unread(label, reason)


class Verdict(msgspec.Struct, frozen=True):
    """A judge's verdict on one completion.

    ``label`` is one of the measure's six; ``detail`` one of :data:`DETAILS` or None; ``reason`` a typed reason for
    the four labels that are no verdict; ``raw`` the judge's own reply, where it wrote one. ``score`` is a rubric's
    StrongREJECT-style score in [0, 1], ``probability`` that of the measure's first label by a classifier's own tokens;
    None where the judge has none. ``note`` is what the judge's endpoint said to a call that failed.
    """

    label: str
    detail: str | None = None
    reason: str | None = None
    raw: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    tries: int = 0
    score: float | None = None
    probability: float | None = None
    note: str | None = None


Act = Literal["label", "unsure", "skip", "undo", "adjudicate"]
"""What a person did with an answer: judged it, could not tell, passed it by, took the last act back, settled a case."""


class Annotation(msgspec.Struct, frozen=True):
    """A person's act on one answer.

    ``label`` is one of the measure's two for ``label`` and ``adjudicate``, None for every other act; ``detail`` as in
    :class:`Verdict`. ``origin`` says where it came from: ``page`` (the labelling page) or ``import``.
    """

    annotator: str
    act: Act
    label: str | None = None
    detail: str | None = None
    origin: str = "page"


class JudgeCard(msgspec.Struct, frozen=True):
    """The identity of a measuring instrument: what must be equal for two verdicts to come from the same judge.

    ``notes`` are its known limits, shown wherever its figures are shown; they are not part of the identity.
    """

    name: str
    measure: str
    model: str | None = None
    prompt_sha256: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    parser: str = "1"
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """``name[:model]@<12 hex>``; equal exactly for equal instruments."""
        identity = (self.name, self.measure, self.model, self.prompt_sha256, self.parameters, self.parser)
        try:
            encoded = msgspec.json.encode(identity)
        except UnicodeError:  # a name of bytes that are no UTF-8: a file's, or a flag's
            encoded = repr(identity).encode()
        digest = hashlib.sha256(encoded).hexdigest()[:12]
        return f"{self.name}:{self.model}@{digest}" if self.model else f"{self.name}@{digest}"


def measure_named(name: str) -> Measure:
    """The measure of that name. Raises ``UsageError`` for one that is not known."""
    if name not in MEASURES:
        raise UsageError(f"unknown --measure {name!r}: known are {', '.join(MEASURES)}{did_you_mean(name, MEASURES)}")
    return MEASURES[name]
