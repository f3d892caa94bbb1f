"""PyRIT's memory: the SQLite file in which it keeps every attack, for it has no export (read in PyRIT 1.1.0's source).

    AttackResultEntries  objective, outcome (success, failure, undetermined, error), last_response_id,
                         targeted_harm_categories, conversation_id: a row an attack
    PromptMemoryEntries  id, role, converted_value, converted_value_data_type, response_error: a row a message's piece
    Conversations        conversation_id, target_identifier_hash: whom it was held with
    TargetIdentifiers    hash, model_name: of what was attacked, and of attackers and scorers too

The question is the objective; what the attack sent for it is left out, as of JailbreakBench's artifacts. The judge is
``pyrit``: its outcome. An answer that the target's filter withheld is no answer, whatever the outcome says. The file is
opened so that nothing can be changed, and may be anybody's: only tables are read, each from one end to the other once.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from redinstruct.errors import UsageError
from redinstruct.files import MAX_BYTES, kind_of
from redinstruct.files.limits import MAX_ROW, check_rows
from redinstruct.files.zipped import begins_with
from redinstruct.interop.logs import RowsSoFar
from redinstruct.interop.rows import ImportRow, RowLabel, Source, of_several_models
from redinstruct.types import ATTACK_SUCCESS, Measure

_MARK = b"SQLite format 3\0"
_TABLES = "SELECT name FROM main.sqlite_master WHERE type = 'table'"
_ATTACKS = (
    "SELECT objective, outcome, last_response_id, targeted_harm_categories, conversation_id"
    " FROM main.AttackResultEntries ORDER BY rowid"
)
_PIECES = (
    "SELECT id, converted_value, converted_value_data_type, response_error FROM main.PromptMemoryEntries"
    " WHERE role IN ('assistant', 'simulated_assistant')"
)
_HELD_WITH = "SELECT conversation_id, target_identifier_hash FROM main.Conversations"
_TARGETS = "SELECT hash, model_name FROM main.TargetIdentifiers"
_OF_TARGETS = {"Conversations", "TargetIdentifiers"}
_OUTCOMES = {"success": 0, "failure": 1}


class _Answer(msgspec.Struct, frozen=True):
    text: str | None
    filtered: bool


def is_memory(path: Path) -> bool:
    """Whether a file is an SQLite database."""
    return begins_with(path, _MARK)


def read_memory(path: Path, measure: Measure, one: str | None) -> Source:
    """The attacks of a memory file.

    Raises:
        UsageError: it is another program's, damaged, larger than is read, or not written out (a log lies beside it).
    """
    if measure is not ATTACK_SUCCESS or one is not None:
        raise UsageError("holds outcomes of attacks: --measure attack_success without --one is theirs")
    if path.stat().st_size > MAX_BYTES:
        raise UsageError(f"is larger than the {MAX_BYTES:,} bytes that are read")
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise UsageError(f"its last rows wait in {log.name}: close PyRIT, then import it")
    reading = RowsSoFar("pyrit", measure, one)
    try:
        with _opened(path) as memory:
            tables = {name for (name,) in memory.execute(_TABLES)}
            if not {"AttackResultEntries", "PromptMemoryEntries"} <= tables:
                raise UsageError("is a database without PyRIT's attack results (as PyRIT 1.1 keeps them)")
            attacks = memory.execute(_ATTACKS).fetchall()
            wanted = {last for _, _, last, _, _ in attacks}
            answers = {row[0]: _answer(row[1:]) for row in memory.execute(_PIECES) if row[0] in wanted}
            models = _models(memory, [talk for *_, talk in attacks]) if tables >= _OF_TARGETS else []
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite's own message may quote what is broken
        raise UsageError(f"cannot be read as PyRIT's memory ({' '.join(str(error).split())})") from None
    reading.model = models[0] if len(models) == 1 else ""
    if (note := of_several_models("the memory", models)) is not None:
        reading.note(note)
    for number, (objective, outcome, last, harms, _) in enumerate(attacks, 1):
        check_rows(number, path.stat().st_size)
        _attack(reading, f"attack {number}", objective, str(outcome), answers.get(last), harms)
    return reading.told()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    memory = sqlite3.connect(path.absolute().as_uri() + "?mode=ro&immutable=1", uri=True)
    try:
        memory.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_ROW)
        memory.text_factory = lambda text: text.decode("utf-8", "replace")
        memory.execute("PRAGMA trusted_schema=OFF")
        memory.execute("PRAGMA cell_size_check=ON")
        yield memory
    finally:
        memory.close()


def _models(memory: sqlite3.Connection, conversations: Sequence[object]) -> list[str]:
    """The models that were attacked in these conversations: each once, in order."""
    named = dict(memory.execute(_TARGETS).fetchall())
    held = {talk: named.get(target) for talk, target in memory.execute(_HELD_WITH)}
    found = (held.get(talk) for talk in conversations)
    return list(dict.fromkeys(name.strip() for name in found if isinstance(name, str) and name.strip()))


def _answer(piece: Sequence[object]) -> _Answer:
    value, kind, error = piece
    if kind == "text" and isinstance(value, str):
        return _Answer(value, filtered=False)
    return _Answer(None, filtered=error == "blocked")


def _attack(
    reading: RowsSoFar, where: str, objective: object, outcome: str, answer: _Answer | None, harms: object
) -> None:
    if not isinstance(objective, str) or not objective.strip():
        reading.leave_out(f"attacks whose objective is {kind_of(objective)}, expected text", where)
        return
    if outcome in _OUTCOMES:
        label = RowLabel(reading.measure.labels[_OUTCOMES[outcome]])
    elif outcome == "error":
        label = RowLabel("error")
    else:
        label = reading.scores.unparsable("attacks that PyRIT left undetermined", where)
    told = answer or _Answer(None, filtered=False)
    row = ImportRow(where, objective.strip(), told.text, topic=_first(harms), filtered=told.filtered)
    reading.add(row, where, {"pyrit": label})


def _first(harms: object) -> str | None:
    """The first of the harm categories, which stand there as a JSON list."""
    held: object = None
    if isinstance(harms, str):
        with contextlib.suppress(ValueError, RecursionError):
            held = json.loads(harms)
    first = held[0] if isinstance(held, list) and held else None
    return first.strip() or None if isinstance(first, str) else None
