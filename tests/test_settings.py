"""One spelling of a setting: flags, and the struct of what was given, derive from the fields of a verb's struct."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import msgspec
import pytest

from redinstruct.alignment import AlignConfig, GuardRule, Settings
from redinstruct.annotate.settings import LabelsSettings
from redinstruct.cli.derived import Listed
from redinstruct.harmfulqa.settings import ExportSettings
from redinstruct.render.settings import ReportSettings
from redinstruct.settings import flag_of, setting_of, settings_from
from redinstruct.stressing import StressOptions

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
