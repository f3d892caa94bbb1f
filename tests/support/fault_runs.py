"""Every verb that writes, disturbed: killed at each operation, at random moments, by signals, on full disks, by clocks.

Runs in a process of its own, without threads (it forks): ``python -m tests.support.fault_runs WHAT FOLDER [COUNT]``
prints one JSON object per promise: what, tried, failed, examples. A scenario is a command, what it starts from, and
what must be true once the same command has been given again: the same report, byte for byte, as if undisturbed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from redinstruct.cli import main as redinstruct
from redinstruct.errors import EXIT_INCONCLUSIVE
from redinstruct.models import Reply, Request, scripted
from redinstruct.run import encryption
from redinstruct.run.encryption import KEY_NAME, NEW_NAME
from tests.support.kills import at_every_operation, dies_at, operations_of

_LOADED = ("scipy.stats", "numpy.random", "rich.table", "rich.progress", "jinja2", "redinstruct.figures.rates",
           "redinstruct.render.page", "redinstruct.figures.people", "redinstruct.redeval", "redinstruct.harmfulqa",
           "redinstruct.interop.runs", "redinstruct.annotate.exchange")  # fmt: skip
ITEMS = 12
IN_FLIGHT = 4
SECONDS_OF_DAY = 86_400


def _at(place: str) -> tuple[str, ...]:
    return (*EVAL[:-1], place)


class Scenario(NamedTuple):
    """``command`` is given again after each disturbance; ``evidence`` is what then must equal the undisturbed one's.

    ``already``: what a second command says, with exit code 2, where the first had done all. ``keys``: the environment
    of the command; ``opens`` that of the evidence. A scenario with keys leaves no text in clear.
    """

    name: str
    setup: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]
    evidence: tuple[tuple[str, ...], ...]
    files: tuple[str, ...] = ()
    gone: str | None = None
    already: str | None = None
    keys: tuple[tuple[str, str], ...] = ()
    opens: tuple[tuple[str, str], ...] = ()


EVAL = ("eval", "--model", "scripted/weak", "--bank", "bank.json", "--judge", "paper", "--judge-model",
        "scripted/judge", "--prompt", "cot", "--concurrency", str(IN_FLIGHT), "--run", "run")  # fmt: skip
BEGUN = (*EVAL, "--max-calls", "0")
REPORT = ("report", "run", "--json")
COLLECT = ("collect", "--teacher", "scripted/red-teacher", "--answerer", "scripted/weak", "--judge", "refusal",
           "--topics", "topics.json", "--per-subtopic", "2", "--blue", "1", "--run", "run")  # fmt: skip
TEXTS = ("show", "run", "--show-content", "--json", "--limit", "100")
OLD = ((KEY_NAME, "an old key that is long enough"),)
NEW = ((KEY_NAME, "another key that is long enough"),)
BOTH = (*OLD, (NEW_NAME, NEW[0][1]))
IN_CLEAR = b"colour of item"
SEALED = (*EVAL, "--seal")
EXPORT = ("export", "run", "--to", "messages", "--out", "out.jsonl")
SCENARIOS = (
    Scenario("eval", (), EVAL, (REPORT,)),
    Scenario("judge", (EVAL,), ("judge", "run", "--judge", "refusal"), (REPORT,)),
    Scenario("collect", (), COLLECT, (EXPORT,), ("out.jsonl",)),
    Scenario("import", (), ("import", "rows.jsonl", "--run", "run"), (REPORT,)),
    Scenario("labels", (EVAL,), ("labels", "run", "--import", "labels.csv"), (REPORT,)),
    Scenario("report", (EVAL,), ("report", "run", "--show-content", "--out", "a.html", "--jsonl", "a.jsonl", "--md",
                                 "a.md", "--csv", "a.csv", "--junit", "a.xml"), (),
             ("a.jsonl", "a.md", "a.csv", "a.xml")),
    Scenario("export", (COLLECT,), EXPORT, (), ("out.jsonl", "out.jsonl.card.json")),
    Scenario("shard", (BEGUN,), ("shard", "run", "--of", "3", "--out", "shards"),
             (("report", "shards/1", "--json"), ("report", "shards/3", "--json"))),
    Scenario("merge", (BEGUN, ("shard", "run", "--of", "2", "--out", "shards"), _at("shards/1"), _at("shards/2")),
             ("merge", "shards/1", "shards/2", "--run", "run"), (REPORT,)),
    Scenario("purge", (EVAL,), ("purge", "run", "--yes"), (), gone="run"),
    Scenario("eval --seal", (), SEALED, (REPORT, TEXTS), keys=OLD, opens=OLD),
    Scenario("seal", (EVAL,), ("seal", "run"), (REPORT, TEXTS), already="sealed already", keys=OLD, opens=OLD),
    Scenario("seal --rotate", (SEALED,), ("seal", "run", "--rotate"), (REPORT, TEXTS), already="another key",
             keys=BOTH, opens=NEW),
)  # fmt: skip


def prepare(folder: Path) -> None:
    """The inputs of all scenarios, all inert."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "bank.json").write_text(json.dumps([f"What is the colour of item {i}?" for i in range(ITEMS)]))
    (folder / "topics.json").write_text('{"ferries": ["colours"], "paint": ["brushes"]}')
    rows = [{"prompt": f"What is item {i}?", "response": f"blue {i}", "label": i % 2} for i in range(ITEMS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.chdir(folder)
    call(*EVAL)
    with contextlib.closing(sqlite3.connect("run/run.sqlite")) as db:
        keys = [key.hex() for (key,) in db.execute("SELECT key FROM attempts ORDER BY id LIMIT 6")]
    shutil.rmtree("run")
    lines = "".join(f"{key},cot,anna,label,unharmful,\n" for key in keys)
    (folder / "labels.csv").write_text("id,prompt,annotator,act,label,detail\n" + lines)


def call(*arguments: str) -> tuple[int, str, str]:
    """One command in this process: its exit code and both its streams."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = redinstruct(list(arguments))
    return code, out.getvalue(), err.getvalue()


def in_child(work: Callable[[], str | None], *, seconds: float = 120) -> str | None:
    """What the work says, done in a forked child: the parent stays without threads."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said: str | None = "died"
        signal.alarm(int(seconds))
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, json.dumps(said).encode()[:4000])
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return json.loads(told) if told else "died"


class Disturbed:
    """One scenario in its folder: begun, disturbed by somebody, checked."""

    def __init__(self, scenario: Scenario, inputs: Path, place: Path) -> None:
        self.scenario, self.place = scenario, place
        self._ready = inputs.parent / f"ready-{scenario.name}"
        self._whole = inputs.parent / f"whole-{scenario.name}"
        wrong = in_child(lambda: self._make(inputs))
        assert wrong is None, (scenario.name, wrong)
        self.expected = self._evidence(self._whole)

    def _make(self, inputs: Path) -> str | None:
        os.environ.update(self.scenario.keys)
        shutil.copytree(inputs, self._ready)
        os.chdir(self._ready)
        for command in self.scenario.setup:
            if (done := call(*command))[0] != (EXIT_INCONCLUSIVE if command == BEGUN else 0):
                return f"{command[0]}: {done}"
        shutil.copytree(self._ready, self._whole)
        os.chdir(self._whole)
        done = call(*self.scenario.command)
        return None if done[0] == 0 else repr(done)

    def _evidence(self, folder: Path) -> list[str]:
        def gather() -> str:
            os.chdir(folder)
            os.environ.update(self.scenario.opens)
            said = [call(*command)[1] if command[0] in ("report", "show") else str(call(*command)[0])
                    for command in self.scenario.evidence]  # fmt: skip
            files = [Path(name).read_text() for name in self.scenario.files]
            (folder / "evidence.json").write_text(json.dumps([*said, *files]))
            return ""

        in_child(gather)
        found: list[str] = json.loads((folder / "evidence.json").read_text())
        (folder / "evidence.json").unlink()
        return found

    def begin(self) -> None:
        """The scenario as it stands before its command."""
        os.chdir("/")
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self._ready, self.place)
        self.calls = 0

    def work(self) -> tuple[int, str, str]:
        """The command; every call to a model leaves a byte in a file."""
        os.chdir(self.place)
        os.environ.update(self.scenario.keys)
        counted_calls(self.place / "calls")
        return call(*self.scenario.command)

    def check(self) -> str | None:
        """After a disturbance: nothing committed is lost, and the same command ends as if nothing had happened."""
        committed = self._committed()
        billed = self._billed()

        def again() -> str | None:
            code, _, err = self.work()
            if self.scenario.gone is not None:
                left = [p.name for p in self.place.iterdir() if "run" in p.name]
                return f"left {left}" if left else None
            done = code == 0 or (code == 2 and self.scenario.already is not None and self.scenario.already in err)
            return None if done else f"exit {code}: {err[-200:]}"

        if (wrong := in_child(again)) is not None:
            return wrong
        now = self._committed()
        if lost := [key for key, row in committed.items() if now.get(key) != row and self.scenario.gone is None]:
            return f"{len(lost)} committed rows are lost or changed"
        if self._evidence(self.place) != self.expected:
            return "another result than the undisturbed one"
        whole = 2 * ITEMS if self.scenario.command in (EVAL, SEALED) else None
        if whole is not None and billed and self._billed() - whole > IN_FLIGHT:
            return f"{self._billed() - whole} calls were made twice"
        left = [p.name for p in self.place.iterdir() if p.name.startswith(".")]
        if self.scenario.keys and any(IN_CLEAR in p.read_bytes() for p in (self.place / "run").iterdir()):
            return "a text in clear"
        return f"left {left}" if left else None

    def _billed(self) -> int:
        return (self.place / "calls").stat().st_size if (self.place / "calls").exists() else 0

    def _committed(self) -> dict[object, object]:
        file = self.place / "run" / "run.sqlite"
        try:
            with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
                found: dict[object, object] = {}
                for table, key, value in (("completions", "attempt, asked", "raw"), ("calls", "key, asked", "reply"),
                                          ("verdicts", "attempt, asked, judge, judged_no", "label"),
                                          ("annotations", "id", "label")):  # fmt: skip
                    for *keys, kept in db.execute(f"SELECT {key}, {value} FROM {table}"):
                        found[(table, *keys)] = None if self.scenario.already else kept  # sealed anew
                return found
        except sqlite3.Error:
            return {}


def counted_calls(log: Path) -> None:
    """Scripted models note each call with a byte in a file, which survives whoever is killed."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    write = os.write

    def counting(behaviour: scripted.Behaviour) -> scripted.Behaviour:
        def answer(request: Request) -> Reply:
            with contextlib.suppress(OSError):  # on a disk that is full for the count, too, a call goes uncounted
                write(handle, b".")
            return behaviour(request)

        return answer

    for name in ("weak", "judge"):
        scripted.BEHAVIOURS[name] = counting(scripted.BEHAVIOURS[name])


# ---- the disturbances ----------------------------------------------------------------------------------------------


def killed_at_every_operation(disturbed: Disturbed, step: int) -> tuple[int, list[str]]:
    """SIGKILL before operation 1, 2, 3, ... of the command."""
    return at_every_operation(disturbed.begin, disturbed.work, disturbed.check, step=step)


def killed_at_random(disturbed: Disturbed, count: int, chance: random.Random) -> tuple[int, list[str]]:
    """Killed at any instruction: somewhere after the start of one of its operations, drawn by their number.

    One that had ended by then is no kill, and another is drawn. Returns how many still lived: as many as are asked for.
    """
    disturbed.begin()
    told = in_child(lambda: json.dumps(_measured(disturbed)))
    assert told is not None
    operations, seconds = json.loads(told)
    landed, said = 0, list[str]()
    for number in range(3 * count):
        if landed == count:
            break
        disturbed.begin()
        status = _dying(disturbed, chance.randrange(operations), chance.uniform(0, seconds / operations))
        landed += os.WIFSIGNALED(status)
        if (wrong := disturbed.check()) is not None:
            said.append(f"kill {number}: {wrong}")
    return landed, said


def _measured(disturbed: Disturbed) -> tuple[int, float]:
    """How many operations the command does, and how much processor time it takes."""
    began = time.process_time()
    operations = operations_of(disturbed.work)
    return operations, time.process_time() - began


def _dying(disturbed: Disturbed, operation: int, seconds: float) -> int:
    """The command in a child that dies so long after the start of that operation; how it ended."""
    child = os.fork()
    if child == 0:
        try:
            dies_at(operation, seconds)
            disturbed.work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


def interrupted(disturbed: Disturbed, count: int, chance: random.Random) -> tuple[int, list[str]]:
    """SIGINT: exit 130, or the work was done."""
    said = []
    for number in range(count):
        disturbed.begin()
        code = os.waitstatus_to_exitcode(_forked(disturbed, signal.SIGINT, chance.uniform(0.01, 0.2)))
        if code not in (0, 130):
            said.append(f"{number}: exit {code}")
        if (wrong := disturbed.check()) is not None:
            said.append(f"{number}: {wrong}")
    return count, said


def _forked(disturbed: Disturbed, sent: int, seconds: float) -> int:
    """The command in a child, which gets the signal after so long; how it ended."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = disturbed.work()[0]
        except KeyboardInterrupt:
            code = 130  # before or after the command: not its affair
        finally:
            os._exit(code)
    time.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, sent)
    return os.waitpid(child, 0)[1]


def on_a_full_disk(disturbed: Disturbed, mount: Path, count: int) -> tuple[int, list[str]]:
    """A file system with room for 0, 4, 8, ... KiB: one line, what was committed stays, with more room it goes on."""
    said = []
    for number in range(count):
        with small_disk(mount, "8m"):
            disturbed.place = mount / "place"
            disturbed.begin()
            free = os.statvfs(mount)
            size = (free.f_blocks - free.f_bfree) * free.f_frsize // 1024 + 4 * number
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(mount)], check=True)

            def full() -> str | None:
                code, _, err = disturbed.work()
                told = err.strip().splitlines()
                if code not in (0, 1, 2) or "internal error" in err or "Traceback" in err or (code and not told):
                    return f"exit {code}: {err[-300:]}"
                return None

            wrong = in_child(full)
            subprocess.run(["mount", "-o", "remount,size=8m", str(mount)], check=True)
            wrong = wrong or disturbed.check()
            os.chdir("/")
            if wrong is not None:
                said.append(f"{4 * number} KiB: {wrong}")
    return count, said


@contextlib.contextmanager
def small_disk(mount: Path, size: str) -> Iterator[Path]:
    """A tmpfs of that size."""
    mount.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(mount)], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def under_a_mad_clock(disturbed: Disturbed, count: int, chance: random.Random) -> tuple[int, list[str]]:
    """The wall clock jumps by up to a day, either way, at every look; killed in between, too."""
    said = []
    real = time.time
    for number in range(count):
        disturbed.begin()

        def work() -> None:
            time.time = lambda: real() + chance.uniform(-SECONDS_OF_DAY, SECONDS_OF_DAY)
            dies_at(chance.randrange(20, 200))
            disturbed.work()

        child = os.fork()
        if child == 0:
            try:
                work()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        if (wrong := disturbed.check()) is not None:
            said.append(f"{number}: {wrong}")
    return count, said


def two_at_once(disturbed: Disturbed, count: int) -> tuple[int, list[str]]:
    """Two processes give the same command at once: each does it, or is told in one line that the run is in use."""
    said = []
    for number in range(count):
        disturbed.begin()
        children = []
        for which in range(2):
            child = os.fork()
            if child == 0:
                code, err = 99, ""
                try:
                    code, _, err = disturbed.work()
                finally:
                    Path(disturbed.place.parent / f"said-{which}").write_text(json.dumps([code, err]))
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        for which in range(2):
            code, err = json.loads((disturbed.place.parent / f"said-{which}").read_text())
            if not (code == 0 or (code in (1, 2) and err.count("redinstruct: ") == 1 and "internal" not in err)):
                said.append(f"{number}: exit {code}: {err[-300:]}")
        if (wrong := disturbed.check()) is not None:
            said.append(f"{number}: {wrong}")
    return count, said


def main(what: str, place: Path, count: int, names: list[str]) -> None:
    """Carry out one kind of disturbance over the scenarios (all, or those named)."""
    encryption._N = 2**4  # what a key costs who guesses it is no affair of kills
    for module in _LOADED:
        importlib.import_module(module)  # once, and not in every child
    chance = random.Random(what)
    inputs = place / "inputs"
    assert in_child(lambda: prepare(inputs)) is None
    for scenario in SCENARIOS:
        if names and scenario.name not in names:
            continue
        disturbed = Disturbed(scenario, inputs, place / "disturbed")
        kinds: dict[str, Callable[[], tuple[int, list[str]]]] = {
            "every": lambda d=disturbed: killed_at_every_operation(d, count),  # type: ignore[misc]
            "random": lambda d=disturbed: killed_at_random(d, count, chance),  # type: ignore[misc]
            "interrupt": lambda d=disturbed: interrupted(d, count, chance),  # type: ignore[misc]
            "full": lambda d=disturbed: on_a_full_disk(d, place / "disk", count),  # type: ignore[misc]
            "clock": lambda d=disturbed: under_a_mad_clock(d, count, chance),  # type: ignore[misc]
            "two": lambda d=disturbed: two_at_once(d, count),  # type: ignore[misc]
        }
        tried, said = kinds[what]()
        sys.stdout.write(
            json.dumps({"what": scenario.name, "tried": tried, "failed": len(said), "said": said[:4]}) + "\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
