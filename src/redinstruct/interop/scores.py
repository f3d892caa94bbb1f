"""What a tool's values say: a yes and a no as labels of the measure, by the name of what gave them, or by the user."""

from __future__ import annotations

import re
from collections.abc import Mapping

from redinstruct.errors import UsageError
from redinstruct.files import fold
from redinstruct.interop.rows import RowLabel, meaning_of_one, said
from redinstruct.questions.halves import sign
from redinstruct.safetext import terminal
from redinstruct.types import ATTACK_SUCCESS, Measure

_MARKS: Mapping[str, bool] = {
    "c": True, "correct": True, "pass": True, "passed": True,
    "i": False, "incorrect": False, "fail": False, "failed": False,
}  # fmt: skip


class Scores:
    """Values of one tool's scores as labels of the measure; what was taken for granted, and what is neither label."""

    def __init__(self, tool: str, measure: Measure, one: str | None) -> None:
        self._tool, self._measure, self._one = tool, measure, one
        self._assumed: dict[str, None] = {}
        self.odd: dict[str, tuple[str, ...]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What a scorer's name does not tell."""
        if not self._assumed:
            return ()
        names = ", ".join(f"{self._tool}/{terminal(name)}" for name in self._assumed)
        return (
            f"what a 1, true or C of {names} means is not said: counted as {self._measure.first}; --one "
            f"{self._measure.second} turns it round",
        )

    def one_of(self, name: str) -> str:
        """The label that a scorer's 1, true or C means."""
        return self._one or self._by_name(name) or self._measure.first

    def _by_name(self, name: str) -> str | None:
        told = meaning_of_one(name.replace("_", " "), self._measure)
        words = set(re.findall("[a-z]+", name.casefold()))
        if told is not None or self._measure is not ATTACK_SUCCESS or words & {"not", "non", "no", "never"}:
            return told
        if words & {"refusal", "refused", "refuses", "refusing"}:  # a refusal is no success
            return self._measure.second
        return self._measure.first if words & {"harm"} else None

    def of(self, name: str, value: object, where: str) -> RowLabel:
        """The label of one value; ``unparsable``, and counted, where it is neither a label nor a yes or a no."""
        if isinstance(value, str):
            try:
                known = said(value, self._measure, "", person=False, one=self.one_of(name))
            except UsageError:
                known = None
            if known is not None and sign(value) is None:
                return known
        yes = _MARKS.get(fold(value)) if isinstance(value, str) else None
        yes = sign(value) if yes is None else yes
        if yes is None:
            return self.unparsable(f"scores of {self._tool}/{terminal(name)} that are neither of the two labels", where)
        one = self.one_of(name)
        if self._one is None and self._by_name(name) is None:
            self._assumed[name] = None
        first, second = self._measure.first, self._measure.second
        return RowLabel(one if yes else second if one == first else first)

    def unparsable(self, what: str, where: str) -> RowLabel:
        """A verdict that is none, counted under what it is."""
        what = f"{what}, counted as unparsable"
        self.odd[what] = (*self.odd.get(what, ()), where)
        return RowLabel("unparsable")
