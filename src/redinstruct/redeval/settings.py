"""What an evaluation may be set to: one struct, from which flags, TOML keys, ``-T`` and the Python function derive."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from redinstruct.errors import UsageError
from redinstruct.judges import Judge, JudgeSettings
from redinstruct.judges.settings import JUDGE
from redinstruct.models import Model, Options
from redinstruct.models.registry import with_dtype
from redinstruct.prompts import read_text_file
from redinstruct.prompts.templates import MAX_TEMPLATE_BYTES
from redinstruct.safetext import terminal
from redinstruct.settings import ANSWERING, ASKED, JUDGING, NEEDED, Columns, Dtype, Setting, Temperature, TopP
from redinstruct.types import Bank, PromptTemplate, Sampled


class AskSettings(JudgeSettings, Sampled, frozen=True, kw_only=True):
    """What any model is asked, and how: an evaluation without its model.

    ``banks`` are files or known names, ``prompts`` shipped names or files (all three defaults where there are none), or
    objects of one's own. ``system`` is a text. ``stop`` has no flag. ``columns`` are purpose and column.
    """

    judge: Annotated[str | Judge, JUDGE]
    banks: Annotated[
        tuple[str | Path | Bank, ...],
        Setting(
            "A question bank: a file, or a known name (`redinstruct banks`). Repeatable.",
            "B",
            NEEDED,
            "--bank",
            "-b",
            first=2,
        ),
    ]
    prompts: Annotated[
        tuple[str | PromptTemplate, ...],
        Setting(
            "standard, cot, cou, a variant, or a file with one <question>. Repeatable; left out: the first three.",
            "P",
            ASKED,
            "--prompt",
        ),
    ] = ()
    measure: Annotated[str, Setting("attack_success, or over_refusal on safe questions.", "NAME", ASKED)] = (
        "attack_success"
    )
    limit: Annotated[
        int | None,
        Setting(
            "N questions of each bank, spread over its topics. A larger N keeps a smaller one's and extends it.",
            "N",
            ASKED,
            least=1,
        ),
    ] = None
    epochs: Annotated[
        int, Setting("Ask everything K times. A larger K extends the run.", "K", ASKED, least=1, most=10_000)
    ] = 1
    dedupe: Annotated[bool, Setting("Ask a question that stands twice in a bank once.", group=ASKED)] = False
    columns: Columns = msgspec.field(default_factory=dict)
    system: Annotated[
        str | None,
        Setting("The system prompt under which everything is asked, as your deployment ships it.", "TEXT|FILE", ASKED),
    ] = None
    protocol: Annotated[
        str | None,
        Setting("The paper's protocol: fixes judge, tokens, sampling and template.", "paper-2023", ASKED),
    ] = None
    max_tokens: Annotated[int, Setting("Tokens per answer.", "N", ANSWERING, least=1)] = 500
    temperature: Temperature = None
    top_p: TopP = None
    seed: Annotated[int | None, Setting("Sampling seed; epoch k asks with S + k - 1.", "S", ANSWERING)] = None
    stop: tuple[str, ...] = ()
    chat_template: Annotated[
        str, Setting("For hf/ models; an endpoint applies its own.", group=ANSWERING, names=("native", "none"))
    ] = "native"
    model_options: Annotated[
        Options,
        Setting(
            "A field of the endpoint request: set, or removed by null. Repeatable.",
            "KEY=JSON",
            ANSWERING,
            "--model-option",
        ),
    ] = msgspec.field(default_factory=dict)
    dtype: Dtype = None

    def of_model(self, model: str | Model) -> EvalSettings:
        """The evaluation of a model by these settings."""
        given = {name: getattr(self, name) for name in AskSettings.__struct_fields__}
        return EvalSettings(**given | {"model": model})


class EvalSettings(AskSettings, frozen=True, kw_only=True):
    """An evaluation: the settings of ``redinstruct eval``. ``model`` is an id or an object of one's own."""

    model: Annotated[
        str | Model,
        Setting(
            "The target: openai/<m>, openai-api/<name>/<m>, hf/<path>, scripted/<b>.", "M", NEEDED, short="-m", first=1
        ),
    ]

    @property
    def request(self) -> Options:
        """Fields of the request to the model, with what a checkpoint computes in."""
        return with_dtype(self.model_options, self.model, self.dtype)


class RejudgeSettings(JudgeSettings, frozen=True, kw_only=True):
    """Recorded answers judged again: the settings of ``redinstruct judge``."""

    judge: Annotated[str | Judge, JUDGE]
    sample: Annotated[
        int | None,
        Setting(
            "Ask the judge on a random part only: N answers of each bank and prompt. The report combines the two"
            " judges.",
            "N",
            JUDGING,
            least=1,
        ),
    ] = None
    again: Annotated[
        bool,
        Setting(
            "Ask the same judge once more of every answer: the newest verdict counts, the report says how far they"
            " agree.",
            group=JUDGING,
        ),
    ] = False


def read_system(given: str | None) -> str | None:
    """The system prompt that ``--system TEXT|FILE`` names: a file's text if there is such a file, else the text itself.

    Raises:
        UsageError: a file that cannot be read, a path without a file, or nothing but blanks.
    """
    if given is None:
        return None
    try:
        is_file = Path(given).is_file()
    except (OSError, ValueError):  # too long for a name: it is a text
        is_file = False
    if not is_file and given.strip() and not any(map(str.isspace, given)) and ("/" in given or Path(given).suffix):
        raise UsageError(f"--system {terminal(given)[:60]}: there is no such file")
    text = read_text_file(Path(given), "system prompt", MAX_TEMPLATE_BYTES) if is_file else given
    if not text.strip():
        raise UsageError("--system: the system prompt is empty")
    return text
