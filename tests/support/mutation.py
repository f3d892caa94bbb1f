"""Mutation scores by room (``make mutation``): a sample of mutants, drawn by a seed, and which of them no test finds.

Runs in ``build/measure-venv``, in a copy of the sources under ``build/mutation`` (mutmut writes there, and reads its
settings from the folder that it runs in), and as a script: the ``tests`` of that copy are the only ones imported. A
mutant is one small change of one function of the room; it is found when a fast test of that room fails, or no longer
ends. What is drawn, and what survived, is printed with the names by which ``mutmut show`` shows them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent.parent
WORK = ROOT / "build" / "mutation"


class Room(NamedTuple):
    """What is changed, and the tests that have to find it; ``but``: tests that only look at the sources' own shape, or
    hold processor times."""

    sources: tuple[str, ...]
    tests: tuple[str, ...]
    but: str = ""


ROOMS = {
    "statistics": Room(
        ("stats/*",),
        ("tests/stats", "tests/figures/test_reporting.py"),
        "announced or no_time or is_a_formula",  # the last by its names, which pytest does not take back
    ),
    "safetext": Room(
        ("safetext/*",),
        ("tests/test_safetext.py", "tests/cli/test_cli_secrets.py"),
        "house or tree or standard_library",
    ),
    "parsing": Room(
        ("prompts/answers.py", "prompts/thoughts.py", "prompts/templates.py", "judges/rubric.py", "judges/blocks.py",
         "judges/paper.py", "harmfulqa/parsing.py"),
        ("tests/prompts", "tests/run/test_answers.py", "tests/judges", "tests/harmfulqa/test_harmfulqa_parsing.py"),
        "no_time or linear or long_hostile",
    ),
    "store": Room(
        ("run/database.py", "run/rows.py", "run/schema.py", "run/connection.py", "run/folder.py", "run/soundness.py",
         "run/config.py", "run/owed.py", "run/plans.py", "run/summary.py"),
        ("tests/run/test_store.py", "tests/run/test_store_faults.py", "tests/run/test_store_annotations.py",
         "tests/run/test_store_versions.py", "tests/run/test_store_history.py", "tests/run/test_config.py",
         "tests/run/test_purge.py", "tests/run/test_store_says.py", "tests/security/test_odd_rows.py"),
        "TestReadOnly",  # as nobody, who may not import mutmut
    ),
}  # fmt: skip
FOUND = frozenset({"killed", "timeout", "segfault", "caught by type check"})
SETTINGS = """
[tool.mutmut]
source_paths = ["src"]
also_copy = ["tests", "benchmarks", "docs"]
only_mutate = {only}
track_dependencies = false
use_git_change_detection = false
pytest_add_cli_args = ["-p", "no:cacheprovider", "-m", "not slow"{but}]
pytest_add_cli_args_test_selection = {tests}
"""


def copied(room: Room, place: Path) -> None:
    """The sources and tests, and what these read and import, with mutmut's settings for this room."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in ("src", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    only = [f"src/redinstruct/{name}" for name in room.sources]
    but = f', "-k", "not ({room.but})"' if room.but else ""
    settings = SETTINGS.format(only=quoted(only), tests=quoted(room.tests), but=but)
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + settings
    tomllib.loads(text)
    (place / "pyproject.toml").write_text(text, encoding="utf-8")


def quoted(names: Any) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def survivors(seed: int, count: int) -> tuple[int, int, list[str]]:
    """Of the room in the working folder: how many mutants there are, how many were tried, and which no test found."""
    import mutmut.__main__ as tool

    Path("mutants").mkdir(exist_ok=True)
    tool.set_mutant_under_test("mutant_generation")
    tool.copy_src_dir()
    tool.copy_also_copy_files()
    tool.setup_source_paths()
    tool.create_mutants(2)
    names = sorted(name for _, name, _ in tool.collect_source_file_mutation_data(mutant_names=())[0])
    drawn = random.Random(seed).sample(names, min(count, len(names)))
    _watched(tool)
    tool._run(drawn, int(os.environ.get("WORKERS", "2")))
    tried = [
        (name, tool.status_by_exit_code[code])
        for _, name, code in tool.collect_source_file_mutation_data(mutant_names=drawn)[0]
        if name in set(drawn)
    ]
    return len(names), len(tried), [f"{status}: {name}" for name, status in tried if status not in FOUND]


def _watched(tool: Any) -> None:
    """Which test calls which function, found and kept by a child: hypothesis takes no second run in one process."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            tool.collect_or_load_stats(
                tool.get_mutant_runner(1), mutants_caught_by_type_checker={}, apply_config_invalidation=True
            )
        os._exit(0)
    os.waitpid(child, 0)


def main() -> int:
    """Exit code 1 where a room's score is under the floor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--count", type=int, default=60, help="mutants drawn")
    parser.add_argument("--floor", type=float, default=0.9)
    given = parser.parse_args()
    place = WORK / given.room
    sys.path.remove(str(Path(__file__).parent))
    copied(ROOMS[given.room], place)
    os.environ["PYTHONPATH"] = str(place / "mutants" / "src")  # child processes, too, run what was changed
    os.chdir(place)
    whole, tried, left = survivors(given.seed, given.count)
    score = 1 - len(left) / tried
    for line in left:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(
        f"{given.room}: {tried - len(left)} of {tried} found ({score:.0%}), drawn from {whole:,} by seed {given.seed}\n"
    )
    return int(score < given.floor)


if __name__ == "__main__":
    sys.exit(main())
