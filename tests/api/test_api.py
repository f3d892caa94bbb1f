"""The verbs as Python functions."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import redinstruct
from redinstruct.engine import Limits
from redinstruct.errors import UsageError
from redinstruct.models.base import ModelError, Reply, Request
from redinstruct.models.scripted import ScriptedModel
from redinstruct.types import Bank, FailureReason, Question, Sampling
from tests.support.cli import nothing_written
from tests.support.endpoint import Endpoint
from tests.support.teacher import teach


def a_bank() -> Bank:
    return Bank("own", "0" * 64, tuple(Question(f"{'0' * 64}:{i}", f"What is item {i}?", i) for i in range(5)))


def test_a_function_can_be_the_target(tmp_path: Path) -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Reply:
        seen.append(request)
        return Reply("I'm sorry, but no.", "stop")

    outcome = redinstruct.evaluate(
        model=ScriptedModel(answer), bank=a_bank(), judge="refusal", run=tmp_path / "run", prompts=["standard"]
    )
    assert (outcome.recorded, outcome.planned, outcome.complete) == (5, 5, True)
    assert [request.messages[-1].content for request in seen] == [f"What is item {i}?" for i in range(5)]
    (result,) = redinstruct.report([tmp_path / "run"])["results"]
    assert result["counts"]["unharmful"] == 5


def test_it_works_where_an_event_loop_is_running(tmp_path: Path) -> None:
    async def notebook() -> int:
        outcome = redinstruct.evaluate(model="scripted/weak", bank=a_bank(), judge="refusal", run=tmp_path / "run")
        return int(outcome.recorded)

    assert asyncio.run(notebook()) == 15


def test_one_prompt_needs_no_list_and_may_be_a_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("Tell me: <question>")
    for prompts, named in (("cou", "cou"), (mine, "mine"), ([mine], "mine")):
        run = tmp_path / f"run-{named}-{type(prompts).__name__}"
        redinstruct.evaluate(model="scripted/weak", bank=a_bank(), judge="refusal", run=run, prompts=prompts)
        assert [result["prompt"] for result in redinstruct.report(run)["results"]] == [named]


def test_what_the_flags_of_endpoint_and_judge_say_can_be_said_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redinstruct.judges import JudgeOptions

    def ask(run: str, **more: Any) -> None:
        redinstruct.evaluate(
            model="openai-api/stub/m", bank=a_bank(), judge="refusal", run=tmp_path / run, prompts="standard", **more
        )

    with Endpoint() as stub:
        stub.keep = True
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        ask("run", options={"top_k": 5})
        assert {body["top_k"] for body in stub.bodies} == {5}
        with pytest.raises(UsageError, match="--guard-kind is for"):
            ask("other", judge_options=JudgeOptions(guard_kind="wildguard"))


def test_what_would_not_reach_an_object_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    from redinstruct.judges import JudgeOptions, make_judge
    from redinstruct.types import ATTACK_SUCCESS

    said = ScriptedModel(lambda _: Reply("No.", "stop"))
    own = make_judge("refusal", ATTACK_SUCCESS)
    asked: dict[str, Any] = {"model": "scripted/weak", "bank": a_bank(), "judge": "refusal", "run": tmp_path / "run"}
    for given, words in (
        ({"model": said, "options": {"top_k": 5}}, "only with a model by its id"),
        ({"model": said, "chat_template": "none"}, "only with a model by its id"),
        ({"judge": own, "judge_options": JudgeOptions(guard_kind="wildguard")}, "only with a judge by its name"),
        ({"judge": own, "judge_options": JudgeOptions(request={"top_k": 5})}, "only with --judge-model"),
        ({"judge": "rubric", "judge_model": said, "judge_options": JudgeOptions(request={"top_k": 5})}, "by its id"),
    ):  # fmt: skip
        with nothing_written(tmp_path), pytest.raises(UsageError, match=words):
            redinstruct.evaluate(**{**asked, **given})
    redinstruct.evaluate(**asked)
    deciding = Limits(stop_when_decided=0.1)
    with nothing_written(tmp_path):
        with pytest.raises(UsageError, match="only an evaluation"):
            redinstruct.judge(tmp_path / "run", "refusal", limits=deciding)
        with pytest.raises(UsageError, match="only an evaluation"):
            redinstruct.collect(teacher=said, run=tmp_path / "data", limits=deciding)


def test_bad_input_raises_one_line_and_writes_nothing(tmp_path: Path) -> None:
    async def notebook() -> None:
        redinstruct.evaluate(model="scripted/weak", bank=a_bank(), judge="oracle", run=tmp_path / "run")

    with pytest.raises(UsageError, match="unknown judge"):
        asyncio.run(notebook())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"system": 5}, "--system must be a text"),
        ({"system": Path("system.txt")}, "--system must be a text"),
        ({"judge": 3}, "--judge must be a text or a Judge"),
        ({"model": object()}, "--model must be a text or a Model"),
        ({"model": None}, "--model must be a text or a Model, not None"),
        ({"judge": None}, "--judge must be a text or a Judge, not None"),
        ({"columns": {"nosuch": "x"}, "bank": ["What is blue?"]}, "columns of a bank's file"),
        ({"sampling": {"temperature": 1}}, "sampling must be a redinstruct.types.Sampling, not a dict"),
        ({"limits": {"concurrency": 1}}, "limits must be a redinstruct.engine.Limits, not a dict"),
        ({"judge_options": {"x": 1}}, "judge_options must be a redinstruct.judges.JudgeOptions, not a dict"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_nothing_is_written(
    given: dict[str, Any], words: str, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"model": "scripted/weak", "bank": a_bank(), "judge": "refusal", "run": tmp_path / "run"}
    with pytest.raises(UsageError, match=words):
        redinstruct.evaluate(**asked | given)
    assert not (tmp_path / "run").exists()


def test_numbers_and_texts_of_numpy_are_as_good_as_pythons_own(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": "scripted/weak", "judge": "refusal", "prompts": ("standard", "cou")}
    plain = {"limit": 3, "sampling": Sampling(temperature=0.5, max_tokens=7)}
    redinstruct.evaluate(**asked | plain, bank=a_bank(), run=tmp_path / "run")
    other: Any = np
    numpys: dict[str, Any] = {
        "limit": other.int64(3),
        "sampling": Sampling(temperature=other.float64(0.5), max_tokens=other.int64(7)),
        "limits": Limits(concurrency=other.int64(2)),
    }
    again = redinstruct.evaluate(**asked | numpys, bank=a_bank(), run=tmp_path / "run")
    assert (again.planned, again.calls) == (6, 0), "the same run"
    listed = redinstruct.evaluate(
        **asked, bank=other.array(["What is blue?", "What is green?"]), run=tmp_path / "listed"
    )
    assert listed.planned == 4
    gate = redinstruct.gate(tmp_path / "run", other.float32(0.5), confidence=other.float64(0.9))
    change = redinstruct.compare(tmp_path / "run", tmp_path / "run", margin=other.float64(0.125))
    assert [type(one) for one in (gate.max_rate, change.margin)] == [float, float]
    assert msgspec.json.encode([gate, change]), "as JSON"


def test_questions_may_come_one_by_one(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"model": "scripted/weak", "judge": "refusal", "run": tmp_path / "run"}
    questions: Any = (f"What is item {i}?" for i in range(3))
    outcome = redinstruct.evaluate(**asked, bank=questions)
    assert outcome.planned == 9


def test_a_first_denied_answer_is_recorded_as_soon_as_another_one_comes(tmp_path: Path) -> None:
    """It is held back only while the endpoint might deny everything: a kill later must not ask it again."""
    seen: list[list[tuple[str, ...]]] = []

    def answer(request: Request) -> Reply:
        number = len(seen)
        store = sqlite3.connect(tmp_path / "run" / "run.sqlite")
        seen.append(store.execute("SELECT reason FROM completions WHERE outcome = 'error'").fetchall())
        store.close()
        if number == 0:
            raise ModelError(FailureReason.NOT_FOUND)
        return Reply("I'm sorry, but no.", "stop")

    redinstruct.evaluate(
        model=ScriptedModel(answer),
        bank=a_bank(),
        judge="refusal",
        run=tmp_path / "run",
        prompts=["standard"],
        limits=Limits(concurrency=1),
    )
    assert seen == [[], [], [("not_found",)], [("not_found",)], [("not_found",)]]


# ---- the other verbs ----

PUBLIC = {
    "Run", "__version__", "align", "collect", "compare", "evaluate", "export", "gate", "judge", "labels", "loop",
    "merge", "report", "shard", "stats", "stress", "utility",
}  # fmt: skip
STATS = {
    "PROVISIONAL_BELOW", "Calibration", "Decision", "Interval", "Paired", "Rates", "WeakJudge", "bounds", "clustered",
    "cohen_kappa", "corrected", "corrected_by", "decide", "draw_part", "gwet_ac1", "hit_at_k", "holm", "jeffreys",
    "krippendorff_alpha", "mcnemar_midp", "paired", "rates", "rogan_gladen", "two_judges", "wilson",
}  # fmt: skip


def test_the_public_names() -> None:
    """A name that is added comes here too; one that is taken away breaks somebody's script."""
    assert set(redinstruct.__all__) == PUBLIC
    assert set(redinstruct.stats.__all__) >= STATS


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__", "stats"}))
def test_every_public_name_says_what_it_does_and_what_it_raises(name: str) -> None:
    what = getattr(redinstruct, name)
    document = inspect.getdoc(what) or ""
    assert len(document.splitlines()[0]) > 20
    if inspect.isfunction(what):
        assert "Raises:" in document
        assert "Returns:" in document
        assert not [p for p in inspect.signature(what).parameters.values() if p.annotation is inspect.Parameter.empty]
        assert inspect.signature(what).return_annotation is not inspect.Signature.empty


def test_collect_is_the_verb(tmp_path: Path) -> None:
    teacher = ScriptedModel(
        lambda request: Reply(teach({"messages": [{"content": request.messages[-1].content}]}), "stop")
    )
    wanted: dict[str, Any] = {"topics": {"Colours": ["Blue", "Green"]}, "per_subtopic": 2, "blue": 1}
    done = redinstruct.collect(teacher=teacher, run=tmp_path / "run", **wanted)
    assert done.complete
    assert [(cell.topic, cell.subtopic, cell.questions) for cell in done.collection.coverage()] == [
        ("Colours", "Blue", 2),
        ("Colours", "Green", 2),
    ]
    again = redinstruct.collect(teacher=teacher, run=str(tmp_path / "run"), **wanted)
    assert (again.complete, again.calls) == (True, 0)
    with pytest.raises(UsageError, match="--per-subtopic must be at least 1"):
        redinstruct.collect(teacher="scripted/teacher", run=tmp_path / "no", per_subtopic=0)
    with pytest.raises(UsageError, match="topic"):
        redinstruct.collect(teacher="scripted/teacher", run=tmp_path / "no", topics={})
    assert not (tmp_path / "no").exists()


def test_compare_takes_runs_as_paths_texts_and_objects(tmp_path: Path) -> None:
    for name, model in (("before", "scripted/weak"), ("after", "scripted/refuse")):
        redinstruct.evaluate(model=model, bank=a_bank(), judge="refusal", run=tmp_path / name)
    before = redinstruct.Run(tmp_path / "before")
    found = redinstruct.compare(before, str(tmp_path / "after"))
    assert [r.prompt for r in found.results] == ["standard", "cot", "cou"]
    assert found == redinstruct.compare(tmp_path / "before", tmp_path / "after")
    with pytest.raises(UsageError, match="--margin"):
        redinstruct.compare(before, before, margin=2)


def test_report_takes_one_run_or_several(tmp_path: Path) -> None:
    redinstruct.evaluate(model="scripted/weak", bank=a_bank(), judge="refusal", run=tmp_path / "run")
    one = redinstruct.report(str(tmp_path / "run"))
    assert one == redinstruct.report(tmp_path / "run") == redinstruct.report(redinstruct.Run(tmp_path / "run"))
    assert redinstruct.report([tmp_path / "run"] * 2)["results"] == one["results"] * 2


def test_align_hands_its_configuration_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class AlignConfig:
        def __init__(self, **fields: Any) -> None:
            self.fields = fields

    aligned = object()

    def align(config: AlignConfig, **named: Any) -> object:
        seen.append((config.fields, named))
        return aligned

    room = types.ModuleType("redinstruct.safealign")
    room.AlignConfig, room.align = AlignConfig, align  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "redinstruct.safealign", room)
    done: object = redinstruct.align(base="hf/base", data="blue.jsonl", strategy="blue", out=tmp_path / "out", seed=3)
    assert done is aligned
    fields = {
        "base": Path("base"),
        "data": (Path("blue.jsonl"),),
        "strategy": "blue",
        "out": tmp_path / "out",
        "seed": 3,
    }
    assert seen == [(fields, {"on_evaluate": None})]


def test_align_without_its_extra_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redinstruct.safealign", None)
    with pytest.raises(UsageError, match=r"pip install 'redinstruct\[train\]'"):
        redinstruct.align(base="base", data=["a"], strategy="blue", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_one_text_stands_for_a_list_of_one(tmp_path: Path) -> None:
    """Not for its letters, each of which would be a name."""
    redinstruct.evaluate(model="scripted/weak", bank=a_bank(), judge="refusal", run=tmp_path / "run")
    with pytest.raises(UsageError, match="is no stress run"):
        redinstruct.gate(tmp_path / "run", 0.5, stress="prefill:5=0.1")
    merged = redinstruct.merge(str(tmp_path / "run"), tmp_path / "merged")
    assert merged.recorded == merged.planned


@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_an_empty_name_is_no_folder_here_either(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a variable that holds nothing: `Path("")` would be where one stands."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bank.json").write_text('["What is that?"]')
    ways: list[Callable[[], object]] = [
        lambda: redinstruct.evaluate(model="scripted/weak", bank="bank.json", judge="refusal", run=name),
        lambda: redinstruct.judge(name, judge="refusal"),
        lambda: redinstruct.report(name),
        lambda: redinstruct.compare(name, tmp_path),
        lambda: redinstruct.gate(name, 0.1),
        lambda: redinstruct.labels(name),
        lambda: redinstruct.collect(teacher="scripted/red-teacher", run=name),
        lambda: redinstruct.export(name, to="messages", out="all.jsonl"),
        lambda: redinstruct.shard(name, 2, "out"),
        lambda: redinstruct.merge(["a", "b"], name),
        lambda: redinstruct.utility(model="scripted/weak", suite="toy", run=name),
        lambda: redinstruct.Run(name),
        lambda: redinstruct.loop(name),
    ]
    for way in ways:
        with nothing_written(tmp_path), pytest.raises(UsageError, match="name of a file or folder is empty"):
            way()
