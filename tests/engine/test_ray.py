"""``--engine ray``: two workers on this machine give what one process gives, and may be killed. Needs Ray."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import redinstruct
from redinstruct.engine import Limits
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import plain
from redinstruct.figures.scores import read_utility
from redinstruct.models.placement import Placement, placed
from redinstruct.redeval import EvalSettings, evaluate, prepare, rejudge
from redinstruct.redeval.invocation import Outcome
from redinstruct.redeval.settings import RejudgeSettings
from redinstruct.utility_check.runs import check_utility
from redinstruct.utility_check.settings import UtilitySettings
from tests.support.cli import ROOT, InProcess
from tests.support.endpoint import Endpoint

HAS_RAY = importlib.util.find_spec("ray") is not None
HAS_LOCAL = importlib.util.find_spec("transformers") is not None
pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: `make test-ray` makes an environment that has it"),
    pytest.mark.filterwarnings("default"),
]
ITEMS = 400
CONCURRENCY = 16
KEY = "sk-f3a9c1d7e5b2a8c4d6e0"


@pytest.fixture(scope="module")
def engine() -> Iterator[Placement]:
    """Two workers, started once."""
    from redinstruct.engine.ray_engine import RayEngine

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUB_BASE_URL", "http://127.0.0.1:1")  # the first test's stub is not there yet
        with RayEngine(None, 2) as made:
            yield Placement(elsewhere=made, threads=1)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    path = tmp_path / "bank.json"
    path.write_text(json.dumps([f"What is the colour of item {n}?" for n in range(ITEMS)]))
    return path


def report(run: Path) -> object:
    return plain(read_report([run]))


def rows(run: Path) -> list[tuple[object, ...]]:
    """Every completion and verdict, but for how long it took."""
    with sqlite3.connect(run / "run.sqlite") as db:
        return db.execute(
            "SELECT a.key, c.asked, c.outcome, c.reason, c.raw, c.judged, c.finish_reason, c.tokens_in, c.tokens_out,"
            " v.judged_no, v.label, v.detail, v.raw FROM attempts a JOIN completions c ON c.attempt = a.id"
            " LEFT JOIN verdicts v ON v.attempt = a.id AND v.asked = c.asked ORDER BY a.key, c.asked, v.judged_no"
        ).fetchall()


def evaluated(place: Placement, bank: Path, run: Path, model: str, **what: object) -> Outcome:
    judge = {"judge": "paper", "judge_model": "scripted/judge"}
    with placed(place):
        plan = prepare(EvalSettings(model=model, banks=(bank,), **{**judge, **what}))  # type: ignore[arg-type]
    return evaluate(plan, run, Limits(concurrency=CONCURRENCY))


def test_two_workers_give_the_rows_and_the_report_of_this_process(
    engine: Placement, bank: Path, tmp_path: Path
) -> None:
    evaluated(engine, bank, tmp_path / "ray", "scripted/weak")
    evaluated(Placement(), bank, tmp_path / "here", "scripted/weak")
    assert rows(tmp_path / "ray") == rows(tmp_path / "here")
    assert report(tmp_path / "ray") == report(tmp_path / "here")


@pytest.mark.skipif(not HAS_LOCAL, reason="transformers is not installed")
def test_a_checkpoint_answers_alike_over_there(engine: Placement, tmp_path: Path) -> None:
    from redinstruct.toyworld import build

    toy = build(tmp_path / "toy", seed=0, quick=True)
    with (toy / "banks" / "forbidden-test.json").open() as file:
        assert file.read(1)
    for name, place in (("ray", engine), ("here", Placement(threads=1))):
        evaluated(
            place, toy / "banks" / "forbidden-test.json", tmp_path / name, f"hf/{toy}", judge="exact", judge_model=None,
            limit=60,
        )  # fmt: skip
    assert rows(tmp_path / "ray") == rows(tmp_path / "here")
    assert report(tmp_path / "ray") == report(tmp_path / "here")


def test_a_judge_over_there_gives_the_verdicts_of_one_here(engine: Placement, bank: Path, tmp_path: Path) -> None:
    evaluated(Placement(), bank, tmp_path / "here", "scripted/weak", judge="refusal", judge_model=None)
    shutil.copytree(tmp_path / "here", tmp_path / "ray")
    for name, place in (("ray", engine), ("here", Placement())):
        with placed(place):
            rejudge(tmp_path / name, RejudgeSettings(judge="paper", judge_model="scripted/judge"))
    assert rows(tmp_path / "ray") == rows(tmp_path / "here")
    assert report(tmp_path / "ray") == report(tmp_path / "here")


def test_a_collection_over_there_makes_the_calls_of_one_here(engine: Placement, tmp_path: Path) -> None:
    made = []
    for name, place in (("ray", engine), ("here", Placement())):
        with placed(place):
            redinstruct.collect(
                teacher="scripted/red-teacher", topics={"t": ["one", "two"], "u": ["three"]}, per_subtopic=4, blue=2,
                red=True, judge="paper", judge_model="scripted/judge", run=tmp_path / name,
                on_progress=lambda _: None,
            )  # fmt: skip
        with sqlite3.connect(tmp_path / name / "run.sqlite") as db:
            select = "SELECT key, asked, step, role, request, outcome, reply FROM calls ORDER BY key, asked"
            made.append(db.execute(select).fetchall())
    assert made[0] == made[1]
    assert len(made[0]) > 20


@pytest.mark.parametrize("model", ["scripted/weak", "hf"])
def test_a_utility_check_over_there_finds_what_one_here_does(engine: Placement, tmp_path: Path, model: str) -> None:
    """Answers, and of a checkpoint the log-probabilities too."""
    suite = "toy_how_to,toy_borderline"
    if model == "hf":
        pytest.importorskip("transformers")
        from redinstruct.toyworld import build

        model, suite = f"hf/{build(tmp_path / 'toy', seed=0, quick=True)}", "toy"
    for name, place in (("ray", engine), ("here", Placement(threads=1))):
        with placed(place):
            check_utility(UtilitySettings(model=model, suite=suite, limit=60), tmp_path / name)
    assert read_utility(tmp_path / "ray") == read_utility(tmp_path / "here")


def test_an_endpoint_s_utility_is_the_same_by_the_command(tmp_path: Path) -> None:
    told = []
    with Endpoint() as stub:
        for name, more in (("ray", ("--engine", "ray", "--workers", "2")), ("here", ())):
            given = ["utility", "--model", "openai-api/stub/m", "--suite", "toy_how_to", "--run", str(tmp_path / name)]
            done = subprocess.run(
                [sys.executable, "-m", "redinstruct", *given, "--limit", "80", "--json", *more], cwd=ROOT,
                env=environment(stub, tmp_path), capture_output=True, check=True,
            )  # fmt: skip
            told.append(json.loads(done.stdout))
        assert stub.requests == 160
    assert told[0] == told[1]


WORKER = b"ray::RedInstructWorker"


def titles() -> dict[int, tuple[int, bytes]]:
    """Every process: its parent, and its title."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(entry.name)] = parent, (entry / "cmdline").read_bytes()
    return found


def below(driver: int) -> dict[int, bytes]:
    """The processes that a command began, and theirs: another suite's are none of ours."""
    every, found = titles(), {driver}
    while more := {number for number, (parent, _) in every.items() if parent in found} - found:
        found |= more
    return {number: every[number][1] for number in found if number in every}


def workers_of(driver: int) -> list[int]:
    return sorted(number for number, title in below(driver).items() if title.startswith(WORKER))


def alive(workers: list[int]) -> list[int]:
    every = titles()
    return [number for number in workers if every.get(number, (0, b""))[1].startswith(WORKER)]


def folder_of(driver: int) -> Path:
    """Where a command's Ray keeps its files: every process of it is told."""
    said = re.findall(rb"/[^\0=:,\s]*?/redinstruct-ray-[^/\0\s]+", b"\0".join(below(driver).values()))
    (folder,) = {Path(os.fsdecode(one)) for one in said}
    return folder


def command(bank: Path, run: Path) -> list[str]:
    return [
        sys.executable, "-m", "redinstruct", "eval", "--model", "openai-api/stub/m", "--bank", str(bank), "--judge",
        "refusal", "--run", str(run), "--engine", "ray", "--workers", "2", "--concurrency", str(CONCURRENCY), "--json",
    ]  # fmt: skip


def environment(stub: Endpoint, tmp_path: Path) -> dict[str, str]:
    """A driver's environment, without what this process's own engine has set for its Ray."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH_")}
    return {**given, "STUB_BASE_URL": stub.url, "STUB_API_KEY": KEY, "TMPDIR": str(tmp_path)}


def test_killed_workers_lose_nothing_and_ask_again_what_was_in_flight(bank: Path, tmp_path: Path) -> None:
    """SIGKILL of a worker at random moments of one run; each was among those of this very run."""
    kills, chance = int(os.environ.get("RAY_KILLS", "6")), random.Random(5)
    with Endpoint(latency=0.25) as stub:
        run = tmp_path / "run"
        driver = subprocess.Popen(command(bank, run), cwd=ROOT, env=environment(stub, tmp_path), stdout=subprocess.PIPE)
        killed = seen = 0
        while killed < kills and driver.poll() is None:
            time.sleep(chance.uniform(0.05, 0.5))
            workers = workers_of(driver.pid)
            if stub.requests > seen + CONCURRENCY and workers:
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed, seen = killed + 1, stub.requests
        out, _ = driver.communicate(timeout=300)
        assert driver.returncode == 0, out
        assert json.loads(out)["schema"] == "redinstruct.results/1"
        asked = stub.requests
    assert killed == kills
    with Endpoint() as stub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUB_BASE_URL", stub.url)
        evaluated(Placement(), bank, tmp_path / "here", "openai-api/stub/m", judge="refusal", judge_model=None)
    assert rows(run) == rows(tmp_path / "here")
    assert 3 * ITEMS <= asked <= 3 * ITEMS + kills * CONCURRENCY


def test_a_killed_driver_takes_its_workers_along_and_the_same_command_goes_on(bank: Path, tmp_path: Path) -> None:
    kills, chance = int(os.environ.get("RAY_KILLS", "2")), random.Random(6)
    with Endpoint(latency=0.25) as stub:
        run, env = tmp_path / "run", environment(stub, tmp_path)
        left: set[Path] = set()
        for _ in range(kills):
            asked = stub.requests
            driver = subprocess.Popen(command(bank, run), cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
            while stub.requests < asked + 40 and driver.poll() is None:
                time.sleep(0.05)
            time.sleep(chance.uniform(0.0, 0.6))
            workers, folder = workers_of(driver.pid), folder_of(driver.pid)
            assert workers
            driver.send_signal(signal.SIGKILL)
            assert driver.wait() == -signal.SIGKILL
            until = time.monotonic() + 60
            while alive(workers) and time.monotonic() < until:
                time.sleep(0.1)
            assert not alive(workers)
            assert folder.exists(), "a killed command leaves Ray's folder"
            left.add(folder)
        # The same run goes on with the other engine as well, and the next Ray removes what was left.
        done = subprocess.run(command(bank, run), cwd=ROOT, env=env, capture_output=True, check=True)
        assert not any(folder.exists() for folder in left), done.stderr
        assert 3 * ITEMS <= stub.requests <= 3 * ITEMS + kills * CONCURRENCY
    with Endpoint() as stub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUB_BASE_URL", stub.url)
        evaluated(Placement(), bank, tmp_path / "here", "openai-api/stub/m", judge="refusal", judge_model=None)
    assert rows(run) == rows(tmp_path / "here")


def test_ray_s_files_are_the_owner_s_and_hold_no_key_and_no_answer(tmp_path: Path) -> None:
    bank = tmp_path / "bank.json"
    bank.write_text(json.dumps([f"What is the colour of item {n}?" for n in range(200)]))
    with Endpoint(latency=1.0) as stub:
        env = environment(stub, tmp_path)
        driver = subprocess.Popen(command(bank, tmp_path / "run"), cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
        try:
            while stub.requests < 40 and driver.poll() is None:
                time.sleep(0.1)
            folder = folder_of(driver.pid)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            texts = [path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
            assert texts
            assert not any(KEY.encode() in text or b"take the blue part" in text for text in texts)
            token = [e for e in Path(f"/proc/{driver.pid}/environ").read_bytes().split(b"\0") if b"RAY_AUTH" in e]
            assert token == [], "the token is set for Ray's processes only, after this one began"
        finally:
            driver.send_signal(signal.SIGINT)
            assert driver.wait(timeout=120) == 130
        assert not folder.exists()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "ray://127.0.0.1:1"])
def test_no_cluster_at_the_address_is_one_line(bank: Path, tmp_path: Path, cli: InProcess, address: str) -> None:
    code, out, err = cli(
        "eval", "--model", "scripted/weak", "--bank", str(bank), "--judge", "refusal", "--run", str(tmp_path / "run"),
        "--engine", "ray", "--ray-address", address,
    )  # fmt: skip
    assert (code, out, len(err.strip().splitlines())) == (2, "", 1)
    assert "--ray-address" in err
    assert not (tmp_path / "run").exists()
