"""One run's configuration: what must be equal for two invocations to be the same run.

Concurrency, limits of spending and progress are not part of it. ``limit`` and ``epochs`` are, but may grow: a larger
one extends the run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec

from redinstruct.questions.packed import QuestionColumns
from redinstruct.questions.spread import FIRST, LimitRule, Selected
from redinstruct.run.same import Pinned, check_same, system_of
from redinstruct.settings import Kept, flag_of, noted
from redinstruct.types import Message, PromptTemplate, Question, Sampling

__all__ = [
    "PROTOCOL_2023", "PROTOCOL_DEFAULT", "ChatTemplate", "Pinned", "RunConfig", "attempt_key", "check_same_run",
    "flags_of", "system_of",
]  # fmt: skip
ChatTemplate = str
PROTOCOL_DEFAULT = "default"
PROTOCOL_2023 = "paper-2023"


class RunConfig(msgspec.Struct, frozen=True):
    """Everything that decides what a run's attempts are and what judges them first.

    ``judge`` is the judge's id (:attr:`redinstruct.types.JudgeCard.id`). ``limit`` counts questions per bank, None
    means all; ``limit_rule`` says which, and stays what the run began with. ``selected`` tells of each bank, in their
    order, what was left out (empty in runs of the first edition). ``options`` are extra fields of the endpoint request,
    as (name, JSON text). ``system`` is the system prompt under which everything is asked, None where there is none.
    ``columns`` are the banks' columns that the user named, as (purpose, column).
    """

    model: str
    banks: Annotated[tuple[Pinned, ...], Kept("--bank")]
    prompts: Annotated[tuple[Pinned, ...], Kept("--prompt")]
    measure: str
    judge: Annotated[str, Kept("--judge/--judge-model")]
    sampling: Annotated[Sampling, Kept(parts=True)]
    chat_template: ChatTemplate
    protocol: str = PROTOCOL_DEFAULT
    dedupe: bool = False
    options: Annotated[tuple[tuple[str, str], ...], Kept("--model-option")] = ()
    limit: Annotated[int | None, Kept(grows=True)] = None
    epochs: Annotated[int, Kept(grows=True)] = 1
    # These follow from the bank and the flags, and runs of the first edition lack them.
    limit_rule: Annotated[LimitRule, Kept(free=True)] = FIRST
    selected: Annotated[tuple[Selected, ...], Kept(free=True)] = ()
    system: Annotated[str | None, Kept(hidden=True)] = None
    columns: Annotated[tuple[tuple[str, str], ...], Kept("--column")] = ()

    @property
    def digest(self) -> str:
        """sha256 over all that may not change in a run; limit and epochs are left out."""
        fixed = msgspec.to_builtins(msgspec.structs.replace(self, limit=None, epochs=1))
        unset = [name for name in ("system", "columns") if not getattr(self, name)]  # older runs have neither
        left_out = ("limit_rule", "selected", *unset)
        fixed = {name: value for name, value in fixed.items() if name not in left_out}
        return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()

    def selected_of(self, bank: str) -> Selected | None:
        """What was asked for of the bank of that name, and left out; None where the run does not say."""
        names = [pinned.name for pinned in self.banks]
        return self.selected[names.index(bank)] if bank in names and len(self.selected) == len(names) else None


class AttemptKeys:
    """Content hashes of attempts under one prompt (32 bytes): question x template x model x sampling x epoch."""

    def __init__(self, config: RunConfig, template: PromptTemplate, epoch: int) -> None:
        self._rest: tuple[object, ...] = (
            template.sha256, config.model, config.chat_template, msgspec.to_builtins(config.sampling), config.options,
            config.protocol, epoch,
        )  # fmt: skip
        self._system = () if config.system is None else ("system", config.system)

    def key(self, id_: str, text: str, earlier: Sequence[Message] = ()) -> bytes:
        """The attempt's at a question."""
        turns = ([(turn.role, turn.content) for turn in earlier],) if earlier else ()
        hashed = (id_, text, *self._rest, *turns, *self._system)
        try:
            encoded = msgspec.json.encode(hashed)
        except UnicodeError:
            encoded = repr(hashed).encode()
        return hashlib.sha256(encoded).digest()

    def keys(self, columns: QuestionColumns) -> list[bytes]:
        """The attempts' at questions in columns: of the same bytes, put together from what they share."""
        encode, sha256 = msgspec.json.encode, hashlib.sha256
        try:
            head, after = encode((f"{columns.sha256}:",))[:-2], b'",' + encode((*self._rest, *self._system))[1:]
            texts = _encoded(columns.texts)
        except UnicodeError:
            texts = []
        if not texts or columns.earlier:
            turns, name = columns.earlier, columns.sha256
            asked = enumerate(zip(columns.rows, columns.texts, strict=True))
            return [self.key(f"{name}:{row}", text, turns.get(at, ())) for at, (row, text) in asked]
        each = zip(columns.rows, texts, strict=True)
        return [sha256(b'%b%d","%b%b' % (head, row, text, after)).digest() for row, text in each]


def _encoded(texts: Sequence[str]) -> list[bytes]:
    """Texts as they stand in JSON, without their quotation marks. Raises ``UnicodeError``."""
    whole = msgspec.json.encode(texts)
    # Without an escape no text holds a quotation mark, and so none of them the marks between two.
    return [msgspec.json.encode(text)[1:-1] for text in texts] if b"\\" in whole else whole[2:-2].split(b'","')


def attempt_key(config: RunConfig, question: Question, template: PromptTemplate, epoch: int) -> bytes:
    """One attempt's content hash: :class:`AttemptKeys`."""
    return AttemptKeys(config, template, epoch).key(question.id, question.text, question.earlier)


def check_same_run(stored: RunConfig, asked: RunConfig, folder: str) -> None:
    """Pass when ``asked`` resumes or extends ``stored``.

    Raises:
        ConfigError: anything else differs, or limit or epochs would shrink the run; every difference is named.
    """
    hint = "" if stored.judge == asked.judge else " (to judge the same answers again: redinstruct judge)"
    check_same(stored, asked, folder, hint=hint)


_LEFT_OUT = {"measure": "attack_success", "chat_template": "native"}


def flags_of(config: RunConfig) -> Iterator[tuple[str, str | None]]:
    """The flags that make the run again, each with its value; what the command line takes by itself is left out.

    Banks and prompts stand by their names, as no path is kept, and a system prompt by a file's. The judge, of whom an
    id alone is kept here, is one flag ``judge`` without a value.
    """
    fixed = ("sampling", "chat_template") if config.protocol == PROTOCOL_2023 else ()
    for field in msgspec.structs.fields(RunConfig):
        kept = next((note for note in noted(field.type)[1] if isinstance(note, Kept)), Kept())
        value, flag = getattr(config, field.name), flag_of(field.name, kept)
        if kept.free or field.name in fixed or value in (field.default, _LEFT_OUT.get(field.name)):
            continue
        if field.name == "judge":
            yield "judge", None
        elif isinstance(value, Sampling):
            for part in msgspec.structs.fields(Sampling):
                found = getattr(value, part.name)
                if found != part.default and part.name != "stop":
                    yield flag_of(part.name), str(found)
        elif isinstance(value, tuple):
            for one in value:
                yield flag, one.name if isinstance(one, Pinned) else "=".join(one)
        else:
            yield flag, None if value is True else "SYSTEM.txt" if kept.hidden else str(value)
