"""Models that workers hold: the same rows as here; a lost worker's calls are asked of another, and nothing else is."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import random
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

import redinstruct
from redinstruct.engine import Limits
from redinstruct.engine.choice import Ray
from redinstruct.engine.hosting import Host
from redinstruct.engine.remote import MOST_DEATHS, Suspects
from redinstruct.engine.wire import Came, Errand, Failed, Group, Loaded, ModelSpec, pack, unpack
from redinstruct.errors import ConfigError, ModelSpecError, UsageError
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.models import scripted
from redinstruct.models.base import ModelError, Reply, Request
from redinstruct.models.placement import Placement, placed
from redinstruct.redeval import EvalSettings, evaluate, prepare
from redinstruct.redeval.invocation import Outcome
from redinstruct.types import FailureReason, Message, Sampling
from redinstruct.version import __version__
from tests.support.cli import InProcess
from tests.support.workers import Nearby, NearbyEngine

REQUEST = Request((Message("user", "What colour is it?"),), Sampling(max_tokens=8))
ITEMS = 120
KILLS = 10


@pytest.fixture
def bank(place: Path) -> Path:
    path = place / "bank.json"
    path.write_text(json.dumps([f"What is the colour of item {n}?" for n in range(ITEMS)]))
    return path


@pytest.fixture(autouse=True)
def _probed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is out is looked at again at once, and nobody waits for more to send."""
    monkeypatch.setattr("redinstruct.engine.hosting.LINGER", 0.001)
    monkeypatch.setattr("redinstruct.engine.remote.GATHER", 0.001)
    monkeypatch.setattr("redinstruct.engine.servers.FIRST_PROBE", 0.001)
    monkeypatch.setattr("redinstruct.engine.servers.LONGEST_PROBE", 0.01)


def evaluated(bank: Path, run: Path, engine: NearbyEngine | None, max_calls: int | None = None) -> Outcome:
    with placed(Placement(elsewhere=engine)):
        plan = prepare(EvalSettings(model="scripted/weak", banks=(bank,), judge="paper", judge_model="scripted/judge"))
    return evaluate(plan, run, Limits(concurrency=16, max_calls=max_calls))


def report(run: Path) -> object:
    return plain(read_report([run]))


@pytest.mark.parametrize("text", ["plain", "lone \ud800 half", "nul \0, mark \U0010f8d8", ""])
def test_what_travels_arrives_whatever_its_text_holds(text: str) -> None:
    request = Request((Message("user", text),), Sampling(max_tokens=3, stop=(text,)), prefix=text)
    wanted = [Errand(3, 1, 0, request)]
    assert unpack(pack(wanted), list[Errand]) == wanted
    group = Group([Came(1, Reply(text, "stop")), Came(2, None, Failed(FailureReason.TIMEOUT, True, 1.5, text, ("a",)))])
    assert unpack(pack(group), Group) == group


def test_a_failure_arrives_as_it_was_raised() -> None:
    sent = Failed(FailureReason.RATE_LIMITED, True, 2.5, "slow down", ("top_k",))
    error = unpack(pack(sent), Failed).raised()
    assert (error.reason, error.transient, error.retry_after) == (FailureReason.RATE_LIMITED, True, 2.5)
    assert (error.note, error.refused) == ("slow down", ("top_k",))


def test_workers_give_the_same_rows_and_the_same_report_as_this_process(bank: Path, place: Path) -> None:
    here = evaluated(bank, place / "here", None)
    there = evaluated(bank, place / "there", NearbyEngine(lambda _: Nearby()))
    assert report(place / "here") == report(place / "there")
    assert (here.calls, here.recorded) == (there.calls, there.recorded) == (2 * 3 * ITEMS, 3 * ITEMS)


def test_a_run_goes_on_with_either_engine(bank: Path, place: Path) -> None:
    for engine in (NearbyEngine(lambda _: Nearby()), None):
        outcome = evaluated(bank, place / "run", engine, max_calls=250)
        assert outcome.calls <= 250
    evaluated(bank, place / "run", NearbyEngine(lambda _: Nearby()))
    evaluated(bank, place / "whole", None)
    assert report(place / "run") == report(place / "whole")


@pytest.mark.parametrize("seed", range(5))
def test_workers_that_die_lose_nothing_double_nothing_and_ask_again_what_was_in_flight(
    bank: Path, place: Path, seed: int
) -> None:
    moments = sorted(random.Random(seed).sample(range(2 * 3 * ITEMS), KILLS))
    deaths = asked = 0

    def dies(wanted: list[Errand]) -> bool:
        nonlocal deaths, asked
        asked += len(wanted)
        dead = deaths < len(moments) and asked > moments[deaths]
        deaths += dead
        return dead

    engine = NearbyEngine(lambda _: Nearby(dies))
    outcome = evaluated(bank, place / "run", engine)
    evaluated(bank, place / "whole", None)
    assert deaths == KILLS
    assert report(place / "run") == report(place / "whole")
    assert 2 * 3 * ITEMS < outcome.calls <= 2 * 3 * ITEMS + 16 * deaths


def test_what_kills_every_worker_is_not_given_to_another_one_and_becomes_an_error(place: Path) -> None:
    path = place / "bank.json"
    path.write_text(json.dumps([*(f"What is the colour of item {n}?" for n in range(40)), "poison"]))

    def dies(wanted: list[Errand]) -> bool:
        return any("poison" in one.request.messages[-1].content for one in wanted)

    engine = NearbyEngine(lambda _: Nearby(dies), count=3)
    with placed(Placement(elsewhere=engine)):
        plan = prepare(EvalSettings(model="scripted/weak", banks=(path,), judge="refusal", prompts=("standard",)))
    outcome = evaluate(plan, place / "run", Limits(concurrency=1))
    assert outcome.recorded == 41
    assert [(f.count, f.reason) for f in outcome.failures] == [(1, FailureReason.LOCAL_MODEL)]
    assert engine.suspects.deaths.most_common(1)[0][1] == MOST_DEATHS


def test_deaths_without_a_suspect_speak_for_those_who_are_suspected() -> None:
    poor, poison, other = (Request((Message("user", text),), Sampling(), text) for text in ("poor", "poison", "other"))
    deaths = Suspects()
    for _ in range(MOST_DEATHS):
        deaths.blame([poison])
    with pytest.raises(ModelError):
        deaths.check(poison)
    # Workers die of something else: as often beside a suspect as without one.
    deaths = Suspects()
    for _ in range(2):
        deaths.blame([poor, other])
    for _ in range(3 * MOST_DEATHS):
        deaths.blame([poor])
        deaths.blame([])
    deaths.check(poor)
    # One that is never spared is found out in the end, too.
    for _ in range(3 * MOST_DEATHS):
        deaths.blame([poor])
    with pytest.raises(ModelError):
        deaths.check(poor)


def test_a_new_worker_is_asked_again_once_it_is_there() -> None:
    links: list[Nearby] = []

    def link(_: int) -> Nearby:
        links.append(Nearby(lambda _: len(links) == 1))
        links[-1].starting = 2 if len(links) > 1 else 0
        return links[-1]

    async def go() -> list[FailureReason | str | None]:
        model = NearbyEngine(link, count=1).make("scripted/refuse", "{}", 1.0, "native")
        ends: list[FailureReason | str | None] = []
        for _ in range(4):
            try:
                (reply,) = await model.generate([REQUEST])
            except ModelError as error:
                ends.append(error.reason if error.transient else None)
            else:
                ends.append(reply.text)
        return ends

    lost = FailureReason.UNREACHABLE
    assert asyncio.run(go()) == [lost, lost, lost, "I'm sorry, but I can't help with that."]


def test_a_worker_that_only_dies_is_started_again_when_it_is_asked_and_not_otherwise() -> None:
    engine = NearbyEngine(lambda _: Nearby(lambda _: True), count=1)

    async def go() -> None:
        model = engine.make("scripted/refuse", "{}", 1.0, "native")
        for number in range(8):
            request = Request((Message("user", str(number)),), Sampling(max_tokens=8))
            with pytest.raises(ModelError):
                await model.generate([request])

    asyncio.run(go())
    assert len(engine.links) == 8


def test_replies_survive_a_loop_that_ended_while_they_were_awaited() -> None:
    """Utility checks run a loop for each part of their work."""

    async def slow(model: object) -> None:
        task = asyncio.ensure_future(model.generate([REQUEST]))  # type: ignore[attr-defined]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (reply,) = await model.generate([REQUEST])  # type: ignore[attr-defined]
        assert reply.text is not None

    async def go() -> None:
        await slow(NearbyEngine(lambda _: Nearby(), count=1).make("scripted/refuse", "{}", 1.0, "native"))

    asyncio.run(asyncio.wait_for(go(), 10))


def test_a_model_that_a_worker_cannot_have_is_refused_in_its_words() -> None:
    async def go(spec: str) -> None:
        NearbyEngine(lambda _: Nearby()).make(spec, "{}", 1.0, "native")

    with pytest.raises(ModelSpecError, match="behaviours are"):
        asyncio.run(go("scripted/nothing"))
    with pytest.raises(ModelSpecError, match="BASE_URL"):
        asyncio.run(go("openai-api/nowhere/m"))


@pytest.mark.parametrize(
    ("told", "said"),
    [(Loaded("0.0.0", "scripted/refuse"), "redinstruct 0.0.0"), (Loaded(__version__, "other"), "different models")],
)
def test_workers_of_another_version_or_with_another_model_are_refused(told: Loaded, said: str) -> None:
    class Strange(Nearby):
        def load(self, packed: bytes) -> None:
            super().load(packed)
            self._told[-1] = pack(told)

    async def go() -> None:
        links = iter((Nearby(), Strange()))
        NearbyEngine(lambda _: next(links)).make("scripted/refuse", "{}", 1.0, "native")

    with pytest.raises(ConfigError, match=said):
        asyncio.run(go())


def test_a_fault_of_a_model_comes_back_and_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        id, batch_size = "broken/model", 1

        async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
            raise KeyError("what")

        async def aclose(self) -> None:
            pass

    async def go() -> Group:
        host = Host()
        host.load(pack(ModelSpec("scripted/refuse", "{}", 1.0, "native")))
        host._parts[0] = [lambda request: Broken().generate([request])]  # type: ignore[list-item, return-value]
        host.take(pack([Errand(7, 0, 0, REQUEST)]))
        return unpack(await host.give(), Group)

    (came,) = asyncio.run(go()).came
    assert came.failed is not None
    assert (came.number, came.failed.reason, came.failed.note) == (7, FailureReason.LOCAL_MODEL, "KeyError")


def test_a_key_that_an_answer_repeats_stays_with_the_worker_that_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from redinstruct.safetext import Secret

    key = "sk-abc123def456ghi789jkl"
    Secret(key)
    monkeypatch.setattr("redinstruct.engine.hosting.make_model", lambda *a, **k: scripted.scripted("echo"))

    async def go() -> bytes:
        host = Host()
        host.load(pack(ModelSpec("scripted/echo", "{}", 1.0, "native")))
        host.take(pack([Errand(0, 0, 0, Request((Message("user", f"say {key}"),), Sampling(max_tokens=8)))]))
        return await host.give()

    packed = asyncio.run(go())
    assert key.encode() not in packed
    assert unpack(packed, Group).came[0].reply is not None


def test_the_engine_s_flags_are_checked_before_anything_else(bank: Path, place: Path, cli: InProcess) -> None:
    told = ("eval", "--model", "scripted/weak", "--bank", str(bank), "--judge", "refusal", "--run", str(place / "run"))
    assert "are for --engine ray" in cli(*told, "--workers", "2").error_line
    assert "are for --engine ray" in cli(*told, "--ray-address", "auto").error_line
    assert "leave it out" in cli(*told, "--engine", "ray", "--device", "cpu").error_line
    assert not (place / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_without_ray_one_line_says_what_to_install(bank: Path, place: Path, cli: InProcess) -> None:
    told = ("eval", "--model", "scripted/weak", "--bank", str(bank), "--judge", "refusal", "--run", str(place / "run"))
    assert "pip install 'redinstruct[ray]'" in cli(*told, "--engine", "ray").error_line
    assert not (place / "run").exists()


def test_objects_do_not_travel(bank: Path, place: Path) -> None:
    with pytest.raises(UsageError, match="by id"):
        redinstruct.evaluate(
            model=scripted.scripted("weak"), bank=bank, judge="refusal", run=place / "run", engine=Ray(workers=2)
        )
    with pytest.raises(UsageError, match="unknown --engine"):
        redinstruct.evaluate(model="scripted/weak", bank=bank, judge="refusal", run=place / "run", engine="slurm")
    assert not (place / "run").exists()


def test_folders_that_killed_commands_left_are_removed_and_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from redinstruct.engine import ray_engine

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(ray_engine, "_LONGEST_FOLDER", 500)
    killed, old, young, aside = (tmp_path / f"redinstruct-ray-{name}" for name in ("killed", "old", "young", "aside"))
    for folder in (killed, old, young):
        (folder / "session").mkdir(parents=True)
    (killed / "lock").touch()
    os.utime(old, (0, 0))
    (tmp_path / "precious").mkdir()
    aside.symlink_to(tmp_path / "precious")
    with ray_engine.private_folder() as mine:
        assert stat.S_IMODE(mine.stat().st_mode) == 0o700
        with ray_engine.private_folder() as another:
            assert mine.is_dir()
            assert another.is_dir()
        assert [folder.is_dir() for folder in (killed, old, young, aside, another)] == [False, False, True, True, False]
    assert not mine.exists()
