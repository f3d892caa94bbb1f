"""Which questions of a bank are asked; of a run that stands, without reading the bank again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from redinstruct.banks import resolve_bank
from redinstruct.errors import RedInstructError
from redinstruct.files import digest_of, stem_of
from redinstruct.questions import Selection, select
from redinstruct.questions.packed import Unread
from redinstruct.run import Store, is_run
from redinstruct.run.config import RunConfig
from redinstruct.safetext import terminal
from redinstruct.types import Bank, Measure


def standing(run: Path | None) -> RunConfig | None:
    """The configuration of the run that stands there; None of none, and of one that does not read: others say so."""
    try:
        if run is None or not is_run(run):
            return None
        with Store.open_for_reading(run) as store:
            return store.config()
    except (RedInstructError, OSError, ValueError):
        return None


class Narrowing(msgspec.Struct, frozen=True):
    """What of a bank a measure is taken on. ``columns`` as in a run's configuration."""

    measure: Measure
    limit: int | None
    dedupe: bool
    columns: tuple[tuple[str, str], ...]

    def read(self, bank: str | Path | Bank, stands: RunConfig | None) -> tuple[Bank, Selection]:
        """A bank, and its questions that are asked.

        Raises:
            BankError: it is not there, or is no bank; no question is left.
            UsageError: ``limit`` is less than 1.
        """
        if stands is not None and not isinstance(bank, Bank):
            found = self._held(Path(bank), stands)
            if found is not None:
                return found
        read = bank if isinstance(bank, Bank) else resolve_bank(str(bank), dict(self.columns))
        return read, select(read, measure=self.measure, limit=self.limit, dedupe=self.dedupe)

    def _held(self, path: Path, stands: RunConfig) -> tuple[Bank, Selection] | None:
        """The bank as the run holds it: the same file, narrowed in the same way."""
        ways = (stands.measure, stands.limit, stands.dedupe, stands.columns)
        if ways != (self.measure.name, self.limit, self.dedupe, self.columns) or not path.is_file():
            return None
        digest, name = digest_of(path), terminal(stem_of(path))
        selected = stands.selected_of(name)
        if selected is None or (name, digest) not in [(one.name, one.sha256) for one in stands.banks]:
            return None

        def whole() -> Bank:
            return resolve_bank(str(path), dict(self.columns))

        asked = selected.of if self.limit is None else min(self.limit, selected.of)
        questions = Unread(
            asked, lambda: select(whole(), measure=self.measure, limit=self.limit, dedupe=self.dedupe).questions
        )
        every = selected.of + selected.other_half + selected.untold + selected.repeats
        return Bank(name, digest, Unread(every, lambda: whole().questions)), Selection(questions, selected)
