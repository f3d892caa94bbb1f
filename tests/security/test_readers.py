"""Broken files of every kind that a reader takes: one line, or read; in bounded time and memory (A12)."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.cli import command, environment
from tests.support.fuzz_readers import readers
from tests.support.fuzzing import mutated
from tests.support.kills import ROOT
from tests.support.stores import scratch
from tests.support.tally import finding, security, tally

MB = 1 << 20
READERS = sorted(readers())


def broken(name: str, count: int, seed: int) -> list[str]:
    reader, wrong = readers()[name], []
    with scratch() as place:
        for data in mutated(reader.seeds, count, random.Random(seed)):
            try:
                reader.try_it(data, place)
            except Exception as error:
                wrong.append(f"{data[:60]!r}: {error!r}")
    return wrong


@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_one_line_or_read(name: str) -> None:
    assert broken(name, 40, seed=1) == []


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("token", [b"\xff", b"[" * 5_000, b'{"a":' * 5_000], ids=["no text", "lists", "objects"])
def test_bytes_that_are_no_text_and_boxes_in_boxes_are_one_line_or_read(name: str, token: bytes) -> None:
    reader = readers()[name]
    with scratch() as place:
        for seed in reader.seeds:
            for mark in (b'"', b":", b"1"):
                for after in {seed.find(mark) + 1, seed.rfind(mark) + 1}:
                    reader.try_it(seed[:after] + token + seed[after:], place)
                    reader.try_it(seed[:after] + token, place)


@security
@pytest.mark.parametrize("name", READERS)
def test_many_broken_files_are_one_line_or_read(name: str) -> None:
    wrong = broken(name, 5_000, seed=2)
    tally(f"A12: broken files, seeds changed at random ({name})", 5_000, len(wrong), "; ".join(wrong[:1]))


@security
def test_the_check_finds_a_reader_that_raises() -> None:
    """A planted fault: a reader that trusts what it is given."""
    reader = readers()["topics"]
    reader.read = lambda path: path.read_text().encode("ascii")
    found = 0
    with scratch() as place:
        for data in mutated(reader.seeds, 500, random.Random(3)):
            try:
                reader.try_it(data, place)
            except Exception:
                found += 1
    tally("A12: a planted reader without checks is found", 1, int(found == 0))


@security
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed (`make fuzz`)")
@pytest.mark.parametrize("name", READERS)
def test_fuzzing_that_is_guided_by_coverage_finds_nothing(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fuzzing", name, os.environ.get("FUZZ_RUNS", "20000"), str(tmp_path)],
        cwd=ROOT, env=environment({"PYTHONWARNINGS": "ignore"}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    ran = re.search(r"Done (\d+) runs", done.stderr)
    reached = re.findall(r" cov: (\d+) ", done.stderr)
    why = done.stderr[-300:] if done.returncode else f"{reached[-1] if reached else 'no'} edges reached"
    tally(f"A12: coverage-guided fuzzing, atheris ({name})", int(ran[1]) if ran else 1, int(done.returncode != 0), why)


BOMBS: dict[str, Callable[[], bytes]] = {
    "wide.csv": lambda: b"prompt," + b",".join(b"c%d" % i for i in range(60_000)) + b"\n" + b"q," * 60_000 + b"x\n",
    "same.csv": lambda: b"prompt," + b"c," * 60_000 + b"c\n" + b"q," * 60_000 + b"x\n",
    "strings.json": lambda: b"[" + b'"a",' * (2 * MB) + b'"a"]',
    "numbers.json": lambda: b"[" + b"1," * (4 * MB) + b"1]",
    "objects.json": lambda: b"[" + b"{}," * (2 * MB) + b"{}]",
    "lists.json": lambda: b"[" + b"[]," * (2 * MB) + b"[]]",
    "deep.json": lambda: b"[" * (8 * MB),
    "deep_objects.json": lambda: b'{"a":' * MB,
    "deep_closed.json": lambda: b"[" * 900 + b'"x"' + b"]" * 900,
    "same_key.json": lambda: b"[" + b'{"a":1,"a":2},' * 500_000 + b'{"a":1}]',
    "empty.jsonl": lambda: b"\n" * (8 * MB),
    "numbers.jsonl": lambda: b"1\n" * (4 * MB),
    "one_line.jsonl": lambda: b'"' + b"a" * (60 * MB) + b'"',
    "open_quote.csv": lambda: b'prompt,response\n"' + b"a\n" * (8 * MB),
    "commas.csv": lambda: b"prompt,response\n" + b"," * (8 * MB),
    "big_integer.json": lambda: b"[" + b"9" * 5_000 + b"]",
    "nul.csv": lambda: b"\0" * (8 * MB),
    "blank.json": lambda: b" " * (8 * MB),
}


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))


# A process begins with the peak of the one that it was forked from: a small one stands between, and looks.
LAUNCHER = """
import json, os, sys
nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
_, status, used = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nowhere), 0)
print(json.dumps([status >> 8, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3]))
"""


def cost(*arguments: object) -> tuple[int, float, float, str]:
    """Exit code, CPU seconds, peak MB and standard error of one command."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", LAUNCHER, *command(*arguments)], env=environment(), capture_output=True,
        stdin=subprocess.DEVNULL, preexec_fn=limited, check=True,
    )  # fmt: skip
    code, cpu, peak = json.loads(done.stdout)
    return code, cpu, peak, done.stderr.decode(errors="replace")


@finding(5)
@security
@pytest.mark.parametrize("verb", ["plan", "import"])
def test_a_bomb_is_refused_within_a_second_and_200_mb(verb: str) -> None:
    wrong, worst = [], [0.0, 0.0]
    with scratch() as place:
        (place / "ok.json").write_text('["What is blue?"]')
        base = cost("plan", "--model", "scripted/weak", "--bank", place / "ok.json", "--judge", "refusal")
        assert base[0] == 0, base
        for name, make in BOMBS.items():
            path = place / name
            path.write_bytes(make())
            if verb == "plan":
                found = cost("plan", "--model", "scripted/weak", "--bank", path, "--judge", "refusal")
            else:
                found = cost("import", path, "--run", place / "run")
            path.unlink()
            code, cpu, peak, said = found
            cpu -= base[1]  # what any command takes before it reads anything
            worst = [max(worst[0], cpu), max(worst[1], peak)]
            one = said.count("\n") == 1 and "internal error" not in said
            if not (code == 2 and one and cpu < 1 and peak < 200):
                wrong.append(f"{name}: exit {code}, {cpu:.1f} s, {peak:.0f} MB, {said[-80:]!r}")
    note = f"at most {worst[0]:.2f} s of CPU beyond the start, {worst[1]:.0f} MB" + "".join(f"; {w}" for w in wrong[:3])
    tally(f"A12: bombs given to `{verb}`: not exit 2, over 1 s, or over 200 MB", len(BOMBS), len(wrong), note)
