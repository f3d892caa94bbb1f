"""The verbs where a notebook calls them: questions as a list, results that show themselves, a bar, the stop button."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import redinstruct
from redinstruct.api.notebooks import listener
from redinstruct.engine import Limits
from redinstruct.errors import UsageError
from redinstruct.figures.comparison import Comparison
from redinstruct.models.base import Reply, Request
from redinstruct.models.scripted import ScriptedModel
from redinstruct.progress import Progress
from redinstruct.types import Question
from tests.support.house import PACKAGE
from tests.support.teacher import teach

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e"


def ask(run: Path, bank: Any = ("What is red?", "What is blue?"), **more: Any) -> Any:
    wanted: dict[str, Any] = {"model": "scripted/weak", "judge": "refusal", **more}
    return redinstruct.evaluate(bank=list(bank) if isinstance(bank, tuple) else bank, run=run, **wanted)


def test_a_list_of_questions_is_a_bank(tmp_path: Path) -> None:
    assert ask(tmp_path / "texts").recorded == 6
    typed = [Question("", "What is red?", 0, topic="Colours"), Question("", "Weigh", 0, topic="Things")]
    ask(tmp_path / "typed", typed)
    (first, *_) = redinstruct.report(tmp_path / "typed")["results"]
    assert first["bank"] == "questions"
    assert [topic["topic"] for topic in first["by_topic"]] == ["Colours", "Things"]
    # The same questions are the same bank: the run goes on, and two models' runs can be compared.
    assert ask(tmp_path / "texts").calls == 0
    ask(tmp_path / "after", model="scripted/refuse")
    assert len(redinstruct.compare(tmp_path / "texts", tmp_path / "after").results) == 3
    ask(tmp_path / "chinese", ["什么是蓝色？"])


def test_names_of_files_are_never_asked_as_questions(tmp_path: Path) -> None:
    here = tmp_path / "what is it"
    here.write_text(json.dumps(["What is red?"]))
    assert ask(tmp_path / "run", [str(here)]).recorded == 3
    for bank, words in (
        (["banks/misspelt.json"], "no such file"),
        (["my banks/misspelt.json"], "no such file"),
        (["harmfullqa"], "did you mean harmfulqa"),
        (["What is red?", "bank.json"], "entry 2 names a bank"),
        (["What is red?", ""], "entry 2"),
        ([Question("", " ", 0)], "question 1 is blank"),
        ([], "no question bank"),
    ):
        with pytest.raises(UsageError, match=words):
            ask(tmp_path / "no", bank)
    assert not (tmp_path / "no").exists()


def test_judge_is_the_verb(tmp_path: Path) -> None:
    asked: list[Request] = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return Reply("I'm sorry, but no.", "stop")

    ask(tmp_path / "run", model=ScriptedModel(answer), prompts="standard")
    done = redinstruct.judge(
        tmp_path / "run", "rubric", judge_model=ScriptedModel(lambda _: Reply("no verdict", "stop")),
        limits=Limits(force=True),
    )  # fmt: skip
    assert (done.recorded, done.planned, len(asked)) == (2, 2, 2)
    assert [r["judge"] for r in redinstruct.report(tmp_path / "run")["results"]] == ["refusal", "rubric"]
    with pytest.raises(UsageError, match="unknown judge"):
        redinstruct.judge(tmp_path / "run", "oracle")


def test_export_is_the_verb(tmp_path: Path) -> None:
    teacher = ScriptedModel(lambda r: Reply(teach({"messages": [{"content": r.messages[-1].content}]}), "stop"))
    wanted: dict[str, Any] = {"topics": {"Colours": ["Blue"]}, "per_subtopic": 2, "blue": 1}
    redinstruct.collect(teacher=teacher, run=tmp_path / "run", **wanted)
    found = redinstruct.export(tmp_path / "run", "messages", tmp_path / "out.jsonl")
    assert len(found.rows) == len((tmp_path / "out.jsonl").read_text().splitlines()) == 2
    assert found.card.is_file()

    async def notebook() -> None:
        redinstruct.export(str(tmp_path / "run"), "harmfulqa", tmp_path / "out.json")

    asyncio.run(notebook())
    assert len(json.loads((tmp_path / "out.json").read_text())) == 2
    for settings, words in (
        ({"to": "xml"}, "unknown --to"), ({"to": "dpo", "forms": ["story"]}, "use --to messages"),
        ({"to": "dpo", "near": 0}, "--near"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            redinstruct.export(tmp_path / "run", out=tmp_path / "no", **settings)
    assert not (tmp_path / "no").exists()


def test_utility_and_loop_are_the_verbs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--limit"):
        redinstruct.utility(model="scripted/weak", suite="hhh", run=tmp_path / "run", limit=0)
    (tmp_path / "loop.toml").write_text("[loop\n")
    with pytest.raises(UsageError, match=r"loop\.toml"):
        redinstruct.loop(tmp_path / "loop.toml")
    assert not (tmp_path / "run").exists()


def test_no_verb_is_also_the_name_of_a_room() -> None:
    """``import redinstruct.judge`` would put a package in the function's place."""
    rooms = {path.stem for path in PACKAGE.iterdir()}
    assert not rooms & (set(redinstruct.__all__) - {"stats", "__version__"})


# ---- results that show themselves ----


def test_results_are_dicts_and_structs_with_a_table_and_a_short_line(tmp_path: Path) -> None:
    ask(tmp_path / "before")
    ask(tmp_path / "after", model="scripted/refuse")
    shown: list[Any] = [
        redinstruct.report([tmp_path / "before", tmp_path / "after"]),
        redinstruct.compare(tmp_path / "before", tmp_path / "after"),
        redinstruct.gate(tmp_path / "before", 0.1, baseline=tmp_path / "after"),
    ]
    for one in shown:
        html = one._repr_html_()
        assert html.startswith("<table>")
        assert html.count("<tr>") >= 4
        for word in ("cou", "scripted/weak"):
            assert word in html
        assert len(repr(one)) < 900
        assert "\n" not in repr(one)
    report, comparison, gate = shown
    assert json.loads(json.dumps(report))["schema"] == "redinstruct.results/1"
    assert report.figures[0].rate.judged.estimate == report["results"][0]["rate"]["judged"]["estimate"]
    assert msgspec.to_builtins(comparison)["results"][2]["verdict"] == comparison.results[2].verdict
    assert gate.state == "failed"
    plain = msgspec.convert(msgspec.to_builtins(comparison), Comparison)
    assert (plain, comparison) == (comparison, plain)
    assert comparison != msgspec.structs.replace(plain, margin=0.5)


def test_a_hostile_name_is_inert_in_every_table(tmp_path: Path) -> None:
    model = ScriptedModel(lambda _: Reply("I'm sorry, but no.", "stop"))
    model.id = f"scripted/{HOSTILE}"
    for name in ("a", "b"):
        ask(tmp_path / name, model=model, prompts="standard")
    for one in (
        redinstruct.report(tmp_path / "a"), redinstruct.compare(tmp_path / "a", tmp_path / "b"),
        redinstruct.gate(tmp_path / "a", 0.5),
    ):  # fmt: skip
        for text in (one._repr_html_(), repr(one)):
            assert "\x1b" not in text
            assert "\u202e" not in text
        assert "<img" not in one._repr_html_()


# ---- a bar under the cell ----


class Display(types.ModuleType):
    """What of ``IPython.display`` is used: a handle that is updated."""

    def __init__(self) -> None:
        super().__init__("IPython.display")
        self.seen: list[str] = []

    def display(self, one: Any, *, display_id: bool) -> Any:
        assert display_id
        self.seen.append(one._repr_html_())
        return types.SimpleNamespace(update=lambda again: self.seen.append(again._repr_html_()))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Display:
    shell, display = types.ModuleType("IPython"), Display()
    shell.get_ipython = lambda: types.SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return display


def test_in_a_notebook_a_bar_shows_how_far_it_is(tmp_path: Path, kernel: Display) -> None:
    async def notebook() -> None:
        ask(tmp_path / "run")

    asyncio.run(notebook())
    assert '<progress value="6" max="6">' in kernel.seen[-1]
    assert "scripted/weak: 6 of 6" in kernel.seen[-1]
    assert "harmful" in kernel.seen[-1]


def test_whoever_listens_is_told_instead(tmp_path: Path, kernel: Display) -> None:
    told: list[int] = []
    ask(tmp_path / "run", on_progress=lambda state: told.append(state.done))
    assert told[-1] == 6
    assert not kernel.seen


def test_outside_of_a_notebook_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert listener("title", None) is None
    terminal = types.ModuleType("IPython")  # IPython in a terminal has no kernel
    terminal.get_ipython = lambda: types.SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", terminal)
    assert listener("title", None) is None


def test_the_bar_holds_no_markup_of_others(kernel: Display) -> None:
    tell = listener("title", None)
    assert tell is not None
    tell(Progress(3, None, stage=HOSTILE, detail="1 of 2", retries=2))
    assert "<img" not in kernel.seen[-1]
    assert "<progress" not in kernel.seen[-1]
    assert "1 of 2; retries 2" in kernel.seen[-1]


# ---- the stop button ----


@contextlib.contextmanager
def interrupted_by(ready: Callable[[], bool]) -> Any:
    """Ctrl-C as a kernel gets it: a signal to the main thread, which waits inside a running loop."""

    def press() -> None:
        while not ready():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)


def test_the_stop_button_ends_the_work_and_keeps_what_is_recorded(tmp_path: Path) -> None:
    asked: list[Request] = []

    class Slow:
        id, batch_size = "slow", 1

        async def generate(self, requests: Any) -> Any:
            asked.extend(requests)
            await asyncio.sleep(0.01)
            return [Reply("I'm sorry, but no.", "stop")] * len(requests)

        async def aclose(self) -> None: ...

    bank = [f"What is item {number}?" for number in range(3000)]

    def cell() -> None:
        ask(tmp_path / "run", bank, model=Slow(), prompts="standard", limits=Limits(concurrency=4))

    async def notebook() -> None:
        cell()

    loop = asyncio.new_event_loop()  # not asyncio.run: a kernel leaves the signal to Python's own handler
    try:
        with interrupted_by(lambda: len(asked) > 50), pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook())
    finally:
        loop.close()
    stopped_at = len(asked)
    assert stopped_at < 3000
    recorded = redinstruct.report(tmp_path / "run")["results"][0]["counts"]["total"]
    assert stopped_at - 8 <= recorded <= stopped_at
    time.sleep(0.05)
    assert len(asked) == stopped_at, "the work went on behind the notebook's back"
