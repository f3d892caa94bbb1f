"""One struct a verb: flags, TOML keys and the Python function say the same things."""

from __future__ import annotations

import inspect
from pathlib import Path

import msgspec
import pytest

import redinstruct
from redinstruct.cli import root
from redinstruct.figures.gate import GateSettings
from redinstruct.harmfulqa import CollectSettings
from redinstruct.interop import ImportSettings
from redinstruct.judges import JudgeOptions
from redinstruct.redeval import EvalSettings, RejudgeSettings
from redinstruct.rounds.config import read_config
from redinstruct.settings import setting_of
from redinstruct.types import Sampling
from redinstruct.utility_check.settings import UtilitySettings

VERBS: dict[str, type[msgspec.Struct]] = {
    "eval": EvalSettings, "judge": RejudgeSettings, "collect": CollectSettings, "utility": UtilitySettings,
    "gate": GateSettings, "import": ImportSettings,
}  # fmt: skip
UNFLAGGED = {"stop", "top_p"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_setting_is_a_flag_of_its_verb(verb: str) -> None:
    command = root.get_command(root.make_context("redinstruct", [verb], resilient_parsing=True), verb)
    assert command is not None
    flags = {param.name: param for param in command.params}
    for field in msgspec.structs.fields(VERBS[verb]):
        said = setting_of(field)
        assert said is not None or field.name in UNFLAGGED, field.name
        if said is not None:
            assert field.name in flags, field.name
            default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
            if default is not msgspec.NODEFAULT and not isinstance(default, dict | tuple):
                assert flags[field.name].get_default(root.make_context("r", [], resilient_parsing=True)) == default


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "import"])
def test_every_setting_is_said_by_the_python_function(verb: str) -> None:
    """By its own name, or as a part of one value."""
    function = {"eval": "evaluate"}.get(verb, verb)
    names = set(inspect.signature(getattr(redinstruct, function)).parameters)
    parts = {
        **dict.fromkeys(Sampling.__struct_fields__, "sampling"),
        **dict.fromkeys(("rubric", "policy", "judge_format", "guard_kind"), "judge_options"),
        "banks": "bank", "model_options": "options", "dtype": "teacher_options" if verb == "collect" else "options",
    }  # fmt: skip
    assert {parts.get(name, name) for name in VERBS[verb].__struct_fields__} <= names


def test_a_loop_s_file_takes_every_setting(tmp_path: Path) -> None:
    """A flag that eval or collect has is a key of the loop's tables; a relative file is the TOML's own."""
    (tmp_path / "rules.txt").write_text("no birds", encoding="utf-8")
    (tmp_path / "loop.toml").write_text(
        'model = "scripted/weak"\n[[eval]]\nname = "a"\nbanks = ["b.json"]\njudge = "policy"\npolicy = "rules.txt"\n'
        'judge_model = "scripted/judge"\ndedupe = true\ntop_p = 0.5\nstop = ["END"]\njudge_format = "json"\n'
        'dtype = "float32"\n[eval.columns]\nprompt = "q"\n[collect]\nteacher = "scripted/red-teacher"\n'
        'guard_kind = "wildguard"\n',
        encoding="utf-8",
    )
    config = read_config(tmp_path / "loop.toml")
    part, collect = config.eval[0], config.collect
    assert collect is not None
    assert collect.guard_kind == "wildguard"
    asked = part.of_model("scripted/weak")
    assert (asked.policy, asked.columns, asked.dedupe) == (tmp_path / "rules.txt", {"prompt": "q"}, True)
    assert asked.sampling == Sampling(500, None, 0.5, None, ("END",))
    assert asked.judge_how == JudgeOptions(None, True, None, {}, tmp_path / "rules.txt")
    assert EvalSettings(model="m", banks=("b",), judge="refusal").with_judge_how(asked.judge_how).policy == part.policy
