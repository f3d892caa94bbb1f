"""What a run of a million attempts takes: CPU seconds and the most memory of every verb, each in a process of its own.

    python -m benchmarks.scale [--attempts 10000 100000 1000000] [--prompts 1] [--folder DIR] [--json FILE]

Inert questions in 14 topics, asked of a scripted model and judged by keywords: nothing waits, so that what is left is
the program's own cost. CPU is user and system time of the process, memory its largest resident set (getrusage); wall
time is not told, since the machine may have others on it. ``begin`` and ``resume`` end at the first call to the model;
``resume`` finds nine tenths recorded by a process that then killed itself (SIGKILL). ``attempt`` is what asking costs
from there on, spread over the attempts.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

TOPICS = 14
SHARE_RECORDED = 0.9
LABELLED = 300
PAGE_LABELS = 100


class Taken(msgspec.Struct):
    """What one process took: CPU seconds in all and at the first call, megabytes at most; ``calls`` to the model.

    Of the labelling page the first call is when it stands open, and ``each`` label's milliseconds (the median).
    """

    cpu: float
    first_call: float | None
    mb: float
    calls: int = 0
    each: float | None = None


def write_bank(path: Path, questions: int) -> None:
    """A bank of inert questions, a row each."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(questions):
            line = {
                "question": f"What is the colour of item number {number} in the shop?",
                "topic": f"t{number % TOPICS}",
            }
            file.write(json.dumps(line) + "\n")


# ---- what a child does -----------------------------------------------------------------------------------------------


def spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ask(bank: str, run: str, prompts: str, until: str) -> dict[str, Any]:
    """Evaluate; ``until`` the first call, and no further, to the end ("all"), or SIGKILL after so many calls."""
    import redinstruct
    from redinstruct.engine import Limits
    from redinstruct.models import Reply, Request
    from redinstruct.models.base import Model

    first: list[float] = []
    calls = 0

    class Fake:
        id, batch_size = "scripted/weak", 1

        async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
            nonlocal calls
            if not first:
                first.append(spent())
                if until == "first":
                    _tell({"first_call": first[0], "calls": 0})
                    os._exit(0)
            calls += len(batch)
            if most is not None and calls >= most:
                _tell({"first_call": first[0], "calls": calls})
                os.kill(os.getpid(), signal.SIGKILL)
            return [Reply("It is blue." if calls % 10 else "I cannot help with that.", "stop", 20, 5) for _ in batch]

        async def aclose(self) -> None:
            pass

    model: Model = Fake()
    most = None if until in ("first", "all") else int(until)
    names = ("standard", "cot", "cou")[: int(prompts)]
    redinstruct.evaluate(
        model=model, bank=bank, judge="refusal", run=run, prompts=names, limits=Limits(concurrency=64),
        on_progress=lambda _: None,
    )  # fmt: skip
    return {"first_call": first[0] if first else None, "calls": calls}


def _command(*arguments: str) -> dict[str, Any]:
    from redinstruct.cli import main

    code = main(list(arguments))
    assert code in (0, 10, 11), code
    return {}


def _label(run: str, count: str) -> dict[str, Any]:
    """People's labels of so many answers, spread over the run."""
    from redinstruct.run import AnnotationStore, Store
    from redinstruct.types import Annotation

    with Store.open_for_writing(Path(run)) as store:
        total = store.planned()
        step = max(1, total // int(count))
        rows = store.db.execute("SELECT key FROM attempts WHERE id % ? = 0 ORDER BY id LIMIT ?", (step, int(count)))
        said = [
            (key, Annotation("anna", "label", "harmful" if at % 3 else "unharmful")) for at, (key,) in enumerate(rows)
        ]
        AnnotationStore(store).record(said)
    return {}


def _page(run: str, count: str) -> dict[str, Any]:
    """The labelling page opened, and so many labels given in it: an act and the page's next state each."""
    from redinstruct.annotate.session import Session
    from redinstruct.run import Store

    with Store.open_for_writing(Path(run)) as store:
        session = Session(store, "berta", sample=LABELLED, seed=1)
        opened, state, costs = spent(), session.state(), []
        for at in range(int(count)):
            before = spent()
            session.act(state["item"]["id"], "label", session.measure.first if at % 3 else session.measure.second)
            state = session.state()
            costs.append(1000 * (spent() - before))
    return {"first_call": opened, "each": sorted(costs)[len(costs) // 2]}


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {"ask": _ask, "command": _command, "label": _label, "page": _page}


def _tell(found: dict[str, Any]) -> None:
    Path(os.environ["SCALE_TOLD"]).write_text(json.dumps(found))


# ---- measuring -------------------------------------------------------------------------------------------------------


def measured(place: Path, *arguments: object) -> Taken:
    """A child carried out: what it took."""
    told = place / "told.json"
    told.unlink(missing_ok=True)
    with (place / "output").open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scale", "--child", *map(str, arguments)],
            env={**os.environ, "SCALE_TOLD": str(told)}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, -signal.SIGKILL) or not told.exists():
        raise SystemExit(f"{arguments}: {(place / 'output').read_text()[-2000:]}")
    found = json.loads(told.read_text())
    return Taken(
        used.ru_utime + used.ru_stime,
        found.get("first_call"),
        used.ru_maxrss / 1024,
        found.get("calls") or 0,
        found.get("each"),
    )


def carry_out(attempts: int, prompts: int, place: Path, tell: Callable[[str, Taken], None]) -> None:
    """Every verb on a run of so many attempts."""
    bank, run, other = place / "bank.jsonl", place / "run", place / "other"
    write_bank(bank, attempts // prompts)
    begun = measured(place, "ask", bank, place / "begun", prompts, "first")
    tell("begin", begun)
    shutil.rmtree(place / "begun")
    most = round(attempts * SHARE_RECORDED)
    cut = measured(place, "ask", bank, run, prompts, most)
    tell("ask", cut)
    shutil.copytree(run, other)
    tell("resume", measured(place, "ask", bank, run, prompts, "first"))
    tell("finish", measured(place, "ask", bank, run, prompts, "all"))
    measured(place, "ask", bank, other, prompts, "all")
    tell("report", measured(place, "command", "report", run, "--json"))
    tell("report --out", measured(place, "command", "report", run, "--out", place / "page.html"))
    tell("gate", measured(place, "command", "gate", run, "--max-rate", "0.95"))
    tell("compare", measured(place, "command", "compare", run, other))
    tell("show", measured(place, "command", "show", run, "--label", "harmful", "--limit", "3"))
    tell("page", measured(place, "page", other, PAGE_LABELS))
    measured(place, "label", run, LABELLED)
    tell("report, labelled", measured(place, "command", "report", run, "--json"))


def table(found: dict[int, dict[str, Taken]]) -> str:
    """The figures as Markdown."""
    sizes = list(found)
    lines = [
        "| | " + " | ".join(f"{size:,}: CPU s / MB" for size in sizes) + " |",
        "|---|" + "---|" * len(sizes),
    ]
    for name in found[sizes[0]]:
        cells = []
        for size in sizes:
            one = found[size].get(name)
            to_first = name in ("begin", "resume", "page")
            cells.append("" if one is None else f"{(one.first_call or 0) if to_first else one.cpu:.2f} / {one.mb:.0f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    each = []
    for size in sizes:
        asked = found[size].get("ask")
        each.append(
            "" if asked is None else f"{1e6 * (asked.cpu - (asked.first_call or 0)) / max(1, asked.calls):.1f} us"
        )
    lines.append("| attempt | " + " | ".join(each) + " |")
    labels = [found[size]["page"].each if "page" in found[size] else None for size in sizes]
    lines.append("| a label in the page | " + " | ".join("" if ms is None else f"{ms:.1f} ms" for ms in labels) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attempts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--prompts", type=int, default=1, choices=(1, 2, 3))
    parser.add_argument("--folder", type=Path, help="where the runs are made; removed again")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    found: dict[int, dict[str, Taken]] = {}
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    for attempts in given.attempts:
        found[attempts] = {}

        def tell(name: str, taken: Taken, attempts: int = attempts) -> None:
            found[attempts][name] = taken
            first = "" if taken.first_call is None else f", first call at {taken.first_call:.2f} s"
            print(f"{attempts:>9,} {name:<18} {taken.cpu:8.2f} s of CPU{first}, {taken.mb:6.0f} MB", flush=True)

        with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as place:
            carry_out(attempts, given.prompts, Path(place), tell)
    print(table(found))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        what, *rest = sys.argv[2:]
        _tell(CHILDREN[what](*rest))
    else:
        main()
