"""What the documentation tells people to type works: every command is one that there is; what can run here is run."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from redinstruct.cli import VERBS, root
from tests.support.cli import InProcess, environment
from tests.support.fences import ROOT, Block, blocks, commands, pages, shell
from tests.support.manual import PAGE, manual

BLOCKS = [block for path in pages() for block in blocks(path)]
COMMANDS = [(block, words) for block in BLOCKS for words in commands(block)]
# A block that needs a key, a download, an installation or a model is checked word by word, not run.
NEEDS_MORE = re.compile(
    r"pip install|banks fetch|_BASE_URL|_API_KEY|openai|hf/|toyworld|redinstruct demo|^make", re.MULTILINE
)


def is_run_here(block: Block) -> bool:
    return block.page == "README.md" and bool(commands(block)) and not NEEDS_MORE.search(block.text)


def at(block: Block) -> str:
    return f"{block.page}:{block.line}"


def parse(words: list[str]) -> None:
    """Let click read a command line as ``redinstruct`` would, and carry nothing out."""
    command: click.Command = root
    context = root.make_context("redinstruct", list(words), resilient_parsing=False)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        if not rest:
            return
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, name
        with contextlib.suppress(click.exceptions.Exit):  # --help
            context = found.make_context(name, rest, parent=context)
        command = found


def check_synopsis(words: list[str]) -> None:
    """A line with optional parts in brackets: the verb is there, and every flag in it is one of its flags."""
    command: click.Command | None = root
    rest = list(words)
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), rest.pop(0))
    assert command is not None, words
    known = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    asked = set(re.findall(r"--[a-z-]+", " ".join(rest)))
    if asked - known:
        raise click.UsageError(f"no such flag: {asked - known}")


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=[f"{at(b)} {' '.join(w[:3])}" for b, w in COMMANDS])
def test_every_command_in_the_documentation_is_one_that_there_is(block: Block, words: list[str]) -> None:
    if words[0] == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        asked = {word for word in words[1:] if re.fullmatch(r"[a-z-]+", word)}
        assert asked <= targets, f"{at(block)}: make {asked - targets}"
        return
    if any(word.startswith("[") for word in words):
        check_synopsis(words[1:])
    else:
        parse(words[1:])


def test_the_check_of_commands_can_fail() -> None:
    for wrong in (["eval", "--nope"], ["evaluate"], ["gate", "run"], ["banks", "fetsch", "x"]):
        with pytest.raises(click.UsageError):
            parse(wrong)
    check_synopsis(["gate", "RUN", "--max-rate", "X", "[--junit", "FILE]"])
    with pytest.raises(click.UsageError):
        check_synopsis(["gate", "RUN", "[--nope", "X]"])


def test_the_pages_hold_commands_and_python() -> None:
    assert {"README.md", "docs/tutorial.md", "CONTRIBUTING.md"} <= {block.page for block, _ in COMMANDS}
    assert len(COMMANDS) > 15
    assert [block for block in BLOCKS if is_run_here(block)], "README's quick start is run"


def test_the_command_line_s_page_is_what_help_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual(), "run: python -m tests.support.manual"


def test_every_verb_has_a_section(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"\n## redinstruct {verb}\n" not in page] == []
    # What a person sees on a wide terminal is what the page shows, but for the folding.
    shown = InProcess(capsys)("gate", "--help").out
    assert " ".join(shown.split()) in " ".join(page.split())


def test_links_lead_to_files() -> None:
    for path in pages():
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("block", [b for b in BLOCKS if is_run_here(b)], ids=at)
def test_what_needs_nothing_is_run(tmp_path: Path, block: Block) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.text],
        cwd=tmp_path,
        env=shell(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs").is_dir()


@pytest.mark.parametrize(
    "page", sorted({block.page for block in BLOCKS if block.language == "python"} - {"docs/tutorial.md"})
)
def test_a_page_s_python_runs_from_top_to_bottom(tmp_path: Path, page: str) -> None:
    (tmp_path / "bank.json").write_text('["What is blue?", "What is green?", "What is red?"]')
    script = "\n".join(block.text for block in BLOCKS if block.page == page and block.language == "python")
    (tmp_path / "page.py").write_text(script)
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, env=environment({"PYTHONPATH": os.environ["PYTHONPATH"]}),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Interval(estimate=0.02" in done.stdout


def test_every_page_stands_in_the_site_s_contents() -> None:
    docs = ROOT / "docs"
    listed = re.findall(r"^[\w./*-]+$", (docs / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    named = {page for entry in listed for page in docs.glob(f"{entry}.md")}
    assert named | {docs / "index.md"} >= set(docs.rglob("*.md"))


def test_the_version_is_one_in_all_its_places() -> None:
    """What is released is what the runs, the package and the changelog name; the pages' wheel too."""
    import tomllib

    from redinstruct.version import __version__

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    named = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    wheels = set(re.findall(r"redinstruct-([\d.]+)-py3", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert named is not None
    assert {stated, named[1], *wheels} == {__version__}
