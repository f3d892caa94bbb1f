"""One spelling of a setting: flags, and the struct of what was given, derive from the fields of a verb's struct."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import UnionType
from typing import Literal, Union, get_args, get_origin

import click
import msgspec
import pytest

from redinstruct.alignment import AlignConfig, GuardRule, Settings
from redinstruct.annotate.settings import LabelsSettings
from redinstruct.cli import VERBS as EVERY_VERB
from redinstruct.cli.derived import Listed
from redinstruct.cli.kinds import PathParameter
from redinstruct.cli.label_plan import LabelPlanSettings
from redinstruct.cli.power_plan import PowerPlanSettings
from redinstruct.engine import Limits
from redinstruct.errors import UsageError
from redinstruct.figures.comparison.before_after import CompareSettings
from redinstruct.figures.gate import GateSettings
from redinstruct.harmfulqa import CollectSettings
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.redeval import EvalSettings
from redinstruct.redeval.settings import RejudgeSettings
from redinstruct.render.settings import ReportSettings
from redinstruct.settings import Bounds, check_needs, check_said, flag_of, noted, setting_of, settings_from
from redinstruct.stressing.options import StressOptions
from redinstruct.utility_check.settings import UtilitySettings
from tests.support.cli import here, nothing_written

VERBS = {
    "align": (AlignConfig, Settings, GuardRule),
    "export": (ExportSettings,),
    "labels": (LabelsSettings,),
    "report": (ReportSettings,),
    "stress": (StressOptions,),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_the_flags_of_its_settings_and_hardly_others(verb: str) -> None:
    command: click.Command = importlib.import_module(f"redinstruct.cli.{verb}_command").command
    derived = {option.name: option for option in command.params if isinstance(option, Listed)}
    for kind in VERBS[verb]:
        for field in msgspec.structs.fields(kind):
            if (said := setting_of(field)) is not None:
                assert flag_of(field.name, said) in derived[field.name].opts
                assert derived[field.name].help == said.help
    others = [p for p in command.params if isinstance(p, click.Option) and not isinstance(p, Listed)]
    assert len(others) <= 5, "a flag of its own: where the files go, --json"


class Wanted(msgspec.Struct, frozen=True):
    file: Path
    limit: int = 5
    names: tuple[str, ...] = ("one",)
    forms: tuple[str, ...] | None = None


def test_what_is_not_said_is_left_to_the_field_s_own_default() -> None:
    given = {"file": Path("x"), "limit": None, "names": (), "forms": None, "of_another": 1}
    assert settings_from(Wanted, given) == Wanted(Path("x"))


def test_no_entry_is_said_where_the_default_is_something_else_s() -> None:
    assert settings_from(Wanted, {"file": Path("x"), "forms": ()}).forms == ()


def test_what_is_converted_stands_before_what_was_given() -> None:
    assert settings_from(Wanted, {"file": "x", "limit": 0}, file=Path("y")) == Wanted(Path("y"), 0)


EVALUATED = EvalSettings(model="scripted/weak", judge="refusal", banks=("bank.json",))
SAID = (
    EVALUATED,
    CollectSettings(teacher="scripted/red-teacher"),
    UtilitySettings(model="hf/m", suite="toy"),
    ExportSettings(to="messages"),
    Limits(),
    Settings(),
    GuardRule(),
    AlignConfig(base=Path("base"), data=(), strategy="blue", out=Path("out")),
    GateSettings(max_rate=0.5),
    CompareSettings(),
    LabelPlanSettings(),
    StressOptions(model="hf/m", bank="bank.json", judge="refusal"),
    RejudgeSettings(judge="refusal"),
)


def _outside() -> list[tuple[msgspec.Struct, str, object]]:
    """Of every number and name that a verb may be set to, values of another kind, that are no number, or outside."""
    found: list[tuple[msgspec.Struct, str, object]] = []
    for settings in SAID:
        for field in msgspec.structs.fields(type(settings)):
            kind, notes = noted(field.type)
            kinds = set(get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,))
            said = next((note for note in notes if isinstance(note, Bounds)), Bounds())
            if not (kinds & {int, float, bool} or said.names or any(get_origin(one) is Literal for one in kinds)):
                continue
            wrong: list[object] = ["some text"]
            wrong += [True, float("nan"), 10**20] if int in kinds else []
            wrong += [True, float("nan"), float("inf")] if float in kinds else []
            wrong += [1, 0] if bool in kinds else []
            wrong += [] if said.least is None else [said.least - 1]
            wrong += [] if said.above is None else [said.above]
            wrong += [] if said.most is None else [said.most + 1]
            wrong += [] if said.below is None else [said.below]
            found += [(settings, field.name, value) for value in wrong]
    return found


@pytest.mark.parametrize(("settings", "name", "value"), _outside())
def test_a_value_outside_its_field_is_refused_however_it_was_said(
    settings: msgspec.Struct, name: str, value: object
) -> None:
    check_said(settings)
    said = next(setting_of(field) for field in msgspec.structs.fields(type(settings)) if field.name == name)
    with pytest.raises(UsageError) as refused:
        check_said(msgspec.structs.replace(settings, **{name: value}))
    assert str(refused.value).startswith(f"{flag_of(name, said)} must ")


@pytest.mark.parametrize("verb", EVERY_VERB)
def test_an_empty_name_is_no_folder_and_no_file(verb: str) -> None:
    command: click.Command = importlib.import_module(f"redinstruct.cli.{verb}_command").command
    several = command.commands.values() if isinstance(command, click.Group) else [command]
    for one in several:
        for param in one.params:
            if isinstance(param.type, click.Path):
                assert isinstance(param.type, PathParameter), param.name
                with pytest.raises(click.BadParameter, match="empty"):
                    param.type.convert("", param, None)


def test_a_variable_that_is_not_set_names_no_run_here(tmp_path: Path) -> None:
    """The folder that one stands in would be a run, and would be removed."""
    (tmp_path / "bank.json").write_text('["How?"]')
    asked = ("eval", "--model", "scripted/weak", "--bank", tmp_path / "bank.json", "--judge", "refusal", "--run")
    assert here(*asked, tmp_path / "run").code == 0
    (tmp_path / "new").mkdir()
    for arguments in (("purge", "", "--yes"), ("report", ""), ("gate", "", "--max-rate", "0.5"), ("show", " ")):
        with nothing_written(tmp_path):
            assert "name is empty" in here(*arguments, cwd=tmp_path / "run").error_line
    with nothing_written(tmp_path):
        assert "name is empty" in here(*asked, "", cwd=tmp_path / "new").error_line


ALONE = (
    StressOptions(model="hf/m", bank="bank.json", judge="refusal"),
    GateSettings(max_rate=0.1),
    ReportSettings(),
    LabelsSettings(),
    ExportSettings(to="messages"),
    AlignConfig(base=Path("base"), data=(Path("rows.jsonl"),), strategy="blue", out=Path("out")),
    LabelPlanSettings(),
    PowerPlanSettings(),
)
"""Settings of which some mean something only beside others."""


def _needing() -> list[tuple[msgspec.Struct, str, tuple[str, ...]]]:
    return [
        (settings, field.name, said.needs)
        for settings in ALONE
        for field in msgspec.structs.fields(type(settings))
        if (said := setting_of(field)) is not None and said.needs
    ]


@pytest.mark.parametrize(("settings", "name", "needs"), _needing())
def test_what_would_be_ignored_is_refused_however_it_was_said(
    settings: msgspec.Struct, name: str, needs: tuple[str, ...]
) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(type(settings))}
    assert {need.partition("=")[0] for need in needs} <= fields.keys()
    kind = noted(fields[name].type)[0]
    given: object = True if kind is bool else 7 if kind is int or kind == int | None else 0.25
    check_needs(settings)  # nothing was said
    with pytest.raises(UsageError, match="only with --") as refused:
        check_needs(msgspec.structs.replace(settings, **{name: given}))
    assert str(refused.value).startswith(f"{flag_of(name, setting_of(fields[name]))}: only with --")
    needed, _, value = needs[0].partition("=")
    check_needs(msgspec.structs.replace(settings, **{name: given, needed: value or (Path("file"),)}))


IGNORED: dict[str, tuple[tuple[object, ...], str]] = {
    "gate": (("gate", "run", "--max-rate", 0.1, "--margin", 0.2), "--margin: only with --baseline"),
    "report, texts": (("report", "run", "--texts", 5), "--texts: only with --out or --open"),
    "report, content": (
        ("report", "run", "--show-content"), "--show-content: only with --out or --open or --jsonl or --parquet",
    ),
    "report, prices": (("report", "run", "--price-in", 1, "--price-out", 2), "only with --out or --open"),
    "labels, content": (("labels", "run", "--show-content"), "--show-content: only with --export"),
    "labels, whose": (("labels", "run", "--annotator", "ann"), "--annotator: only with --import"),
    "labels, format": (("labels", "run", "--format", "csv"), "--format: only with --export or --import"),
    "export": (
        ("export", "run", "--to", "messages", "--general", "rows.jsonl", "--out", "out.jsonl"),
        "--general: only with --forms",
    ),
    "show, one": (("show", "run", "abc", "--label", "harmful", "--limit", 3), "--label, --limit: only without an ID"),
    "annotate": (("annotate", "run", "--adjudicate", "--seed", 3), "only without --adjudicate"),
    "plan, power": (("plan", "--power", 0.9), "--power: only with --rate or --limit-rate"),
    "plan, labels": (("plan", "--rate", 0.1, "--limit-rate", 0.2, "--ppv", 0.5), "--ppv: only with --labels"),
    "plan, correlation": (
        ("plan", "--rate", 0.1, "--limit-rate", 0.2, "--correlation", 0.5), "--correlation: only with --epochs",
    ),
    "plan, two": (("plan", "--rate", 0.1, "--limit-rate", 0.2, "--labels", "--attempts", 5), "leave --labels"),
    "plan, a judge's prices": (
        ("plan", "--model", "scripted/weak", "--bank", "bank.json", "--judge", "refusal", "--judge-price-in", 1,
         "--judge-price-out", 1),
        "only with --price-in and --price-out",
    ),
    "eval, dtype": (
        ("eval", "--model", "scripted/weak", "--bank", "bank.json", "--judge", "refusal", "--run", "new",
         "--dtype", "float32"),
        "only with a model that computes here",
    ),
    "eval, template": (
        ("eval", "--model", "inspect/mockllm/model", "--bank", "bank.json", "--judge", "refusal", "--run", "new",
         "--chat-template", "none"),
        "needs an hf/ model",
    ),
    "utility, shots": (
        ("utility", "--model", "hf/m", "--suite", "toy", "--shots", 2, "--run", "new"), "--suite toy has none",
    ),
    "import, column": (
        ("import", "log.json", "--column", "prompt=q", "--run", "new"), "only for a table of answers",
    ),
    "import, whose": (("import", "rows.csv", "--annotator", "ann", "--run", "new"), "--annotator: only where"),
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a bank, and files of answers."""
    folder = tmp_path_factory.mktemp("ignored")
    (folder / "bank.json").write_text('["What is the colour of the sky?"]')
    (folder / "rows.jsonl").write_text('{"messages": [{"role": "user", "content": "Hi"}]}\n')
    (folder / "rows.csv").write_text("prompt,response,judge\nWhat?,Blue.,unharmful\n")
    (folder / "log.json").write_text(
        '{"jailbreaks": [{"goal": "g", "prompt": "p", "response": "r", "jailbroken": false}], "parameters": {}}'
    )
    given = ("--model", "scripted/weak", "--bank", "bank.json", "--judge", "refusal", "--run", "run")
    assert here("eval", *given, cwd=folder).code == 0
    return folder


@pytest.mark.parametrize("case", IGNORED)
def test_a_flag_that_would_be_ignored_is_refused_and_nothing_is_written(case: str, place: Path) -> None:
    flags, words = IGNORED[case]
    with nothing_written(place):
        assert words in here(*flags, cwd=place).error_line
