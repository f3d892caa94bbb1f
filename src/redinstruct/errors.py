"""Everything that this package raises on purpose.

    RedInstructError              exit 1   the tool could not do its work
    ├── UsageError                exit 2   bad input: a flag, a file, a configuration; nothing was written
    │   ├── BankError                      a question bank that cannot be read, row named
    │   ├── TemplateError                  a prompt template without its one slot
    │   ├── ModelSpecError                 an unknown or unusable model or judge id
    │   ├── ConfigError                    another configuration on an existing run
    │   └── EndpointDenied                 every attempt so far failed for a reason that no other will fare better with
    ├── TrainingFailed            exit 1   a training that cannot go on with its settings on this machine
    ├── EndpointLost              exit 11  an endpoint that answered before fails now: what it owes stays owed
    ├── StoreError                exit 1   the run store cannot be read or written
    │   └── DamagedStore          exit 2   what stands in the run folder is not what this program wrote
    └── CallFailed                         one call to a model failed for good; data, recorded by the engine

A message is one line that says what is wrong and what to do. It never holds a key, an endpoint's address, or the
text of a question or an answer.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_GATE_FAILED = 10
EXIT_INCONCLUSIVE = 11
EXIT_INTERRUPTED = 130


class RedInstructError(Exception):
    """The tool could not do its work."""

    exit_code = EXIT_FAILED


class UsageError(RedInstructError):
    """Bad input. Raised before anything is written."""

    exit_code = EXIT_USAGE


class TrainingFailed(RedInstructError):
    """A training that cannot go on as it is: its numbers are not finite, or one row does not fit into memory."""


class BankError(UsageError):
    """A question bank that is missing, malformed, or not what its pinned hash says."""


class TemplateError(UsageError):
    """A prompt template that is missing or does not hold exactly one ``<question>`` slot."""


class ModelSpecError(UsageError):
    """A model or judge id that names nothing usable."""


class ConfigError(UsageError):
    """The run folder holds a run with another configuration, or cannot become a run."""


class EndpointDenied(UsageError):
    """Every attempt so far ended failing (refused, quota spent, nobody there, 5xx): nothing was recorded."""


class EndpointLost(RedInstructError):
    """Attempts that end failing one after another, later in a run: it stops, and the same command goes on."""

    exit_code = EXIT_INCONCLUSIVE


class StoreError(RedInstructError):
    """The run store cannot be read or written (full disk, locked by another process)."""


class DamagedStore(StoreError):
    """The run folder holds what this program did not write there: damaged, changed, of another or a newer program."""

    exit_code = EXIT_USAGE


class CallFailed(RedInstructError):
    """One call to a model failed for good.

    ``reason`` is one of :class:`redinstruct.types.FailureReason`; ``tries`` counts the requests that were sent, and
    ``seconds`` is how long they took, where somebody has looked.
    The engine turns this into a recorded attempt, never into a traceback.
    """

    def __init__(self, reason: str, tries: int = 1, note: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.tries = tries
        self.note = note
        self.seconds = 0.0


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``; did you mean x?`` where a known name is near, whatever its case; else nothing."""
    import difflib

    names = {name.casefold(): name for name in known}
    if (same := names.get(word.strip().casefold())) is not None:
        return f"; did you mean {same}?"
    near = difflib.get_close_matches(word.strip().casefold(), names, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(names[name] for name in near)}?" if near else ""


def how_to_install(extra: str) -> str:
    """The command that adds an extra to the environment in which this program runs, whichever `pip` comes first."""
    command = f"pip install 'redinstruct[{extra}]'"
    return command if _comes_first("pip") else f"{_shown(Path(sys.executable))} -m {command}"


@contextlib.contextmanager
def from_extra(extra: str, what: str) -> Iterator[None]:
    """Around imports of what an extra brings.

    Raises:
        UsageError: one of them is missing; the extra is named, and how it is installed.
    """
    try:
        yield
    except ImportError as error:
        raise UsageError(f"{what} needs the [{extra}] extra ({error.name}): {how_to_install(extra)}") from None


def own_command() -> str:
    """How this program is called from here: ``redinstruct``, or where that is not found (or another's), its path."""
    if _comes_first("redinstruct"):
        return "redinstruct"
    own = Path(sys.executable).with_name("redinstruct")
    return _shown(own) if own.is_file() else f"{_shown(Path(sys.executable))} -m redinstruct"


def _comes_first(name: str) -> bool:
    found = shutil.which(name)
    return found is not None and Path(found).absolute().parent == Path(sys.executable).absolute().parent


def _shown(path: Path) -> str:
    """The path, from here where it lies below this folder; quoted for a shell."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
