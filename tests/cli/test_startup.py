"""Starting is quick, and loads only what is needed. Times are CPU seconds of the child, the best of several."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from redinstruct.cli import VERBS
from tests.support.cli import InProcess, command, environment

HEAVY = ("torch", "transformers", "scipy", "numpy", "aiohttp", "pandas", "rich", "jinja2", "ray", "trl", "datasets")
SCALE = float(os.environ.get("REDINSTRUCT_SLOW_MACHINE", "1"))
"""For a machine that is known to be slow: by how much the limits are stretched."""


def cpu_seconds(arguments: list[str], runs: int = 5) -> float:
    """The least CPU time, user and system, of several runs: what else the machine does hardly counts."""
    best = float("inf")
    for _ in range(runs):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(arguments, env=environment(), check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def loaded(statement: str) -> set[str]:
    """Which of the heavy packages are loaded after a statement."""
    script = f"import sys\n{statement}\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, check=True, text=True)
    return {name for name in HEAVY if repr(name) in done.stdout.splitlines()[-1]}


def test_help_answers_in_300_milliseconds() -> None:
    assert cpu_seconds(command("--help")) < 0.3 * SCALE


def test_import_takes_less_than_100_milliseconds() -> None:
    bare = cpu_seconds([sys.executable, "-c", "pass"])
    assert cpu_seconds([sys.executable, "-c", "import redinstruct"]) - bare < 0.1 * SCALE


def test_import_loads_nothing_heavy() -> None:
    assert loaded("import redinstruct") == set()


def test_help_loads_nothing_heavy() -> None:
    assert loaded("from redinstruct.cli import main; main(['--help'])") == set()


def test_a_verbs_help_and_a_refused_flag_load_neither_network_nor_statistics() -> None:
    assert loaded("from redinstruct.cli import main; main(['eval', '--help']); main(['eval', '--nope'])") <= {"rich"}


def test_the_help_of_the_viewer_loads_no_run_and_no_figures() -> None:
    script = "from redinstruct.cli import main; main(['view', '--help'])\nimport sys\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, check=True, text=True)
    rooms = ("redinstruct.run'", "redinstruct.figures'", "redinstruct.stats'", "redinstruct.models'", "'sqlite3'")
    assert not [room for room in rooms if room in done.stdout.splitlines()[-1]]


def test_reporting_loads_no_network() -> None:
    assert "aiohttp" not in loaded("from redinstruct.cli import main; main(['report', 'nowhere'])")


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    cli = InProcess(capsys)
    result = cli(verb, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: redinstruct {verb}")
    assert len(result.out.splitlines()) > 5
    assert cli(verb, "-h").out == result.out


def test_the_list_of_verbs_is_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    out = InProcess(capsys)("--help").out
    for verb, what in VERBS.items():
        assert verb in out
        assert what.split()[0] in out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from redinstruct import __version__

    assert InProcess(capsys)("--version").out == f"redinstruct, version {__version__}\n"
