"""Results as a notebook shows them: a short line as text, a table as HTML. Whatever a stranger wrote is escaped."""

from __future__ import annotations

from typing import Any

from msgspec.structs import astuple

from redinstruct.figures.comparison.values import Comparison
from redinstruct.figures.gate import GateResult
from redinstruct.figures.numbers import in_column
from redinstruct.figures.report import Report, ResultFigures, plain
from redinstruct.render.comparison import comparison_rows, gate_rows
from redinstruct.render.tables import html_table, rate_rows
from redinstruct.safetext import terminal


class ReportDocument(dict[str, Any]):
    """``redinstruct.results/1`` as the dict that ``report --json`` prints; in a notebook a table.

    ``figures`` are the same results as objects with attributes (:class:`redinstruct.figures.report.ResultFigures`).
    """

    def __init__(self, report: Report) -> None:
        """Of a report, as its rows tell it."""
        super().__init__(plain(report))
        self.figures = report.results

    def __repr__(self) -> str:
        told = "; ".join(f"{terminal(_named(r))} {in_column(r.rate.judged)}" for r in self.figures)
        return f"Report({len(self.figures)} results, % of judged: {told})"

    def _repr_html_(self) -> str:
        return html_table("rates in per cent, with 95 % intervals", rate_rows(self.figures))


def _named(result: ResultFigures) -> str:
    return f"{result.bank}/{result.prompt}"


class ComparisonShown(Comparison, frozen=True):
    """A comparison that shows itself: verdicts as text, a table in a notebook."""

    @classmethod
    def of(cls, found: Comparison) -> ComparisonShown:
        """The same comparison."""
        return cls(*astuple(found))

    def __eq__(self, other: object) -> bool:
        """Equal to the same comparison, shown or not."""
        return isinstance(other, Comparison) and astuple(self) == astuple(other)

    __hash__ = Comparison.__hash__

    def __repr__(self) -> str:
        told = "; ".join(f"{terminal(r.name)} {r.verdict}" for r in self.results)
        return f"Comparison({terminal(self.before)} before, {terminal(self.after)} after: {told})"

    def _repr_html_(self) -> str:
        rows = comparison_rows(self.results, self.margin)
        return html_table(f"{self.before} before, {self.after} after", rows)


class GateShown(GateResult, frozen=True):
    """A gate's answer that shows itself: its state as text, a table of its checks in a notebook."""

    @classmethod
    def of(cls, found: GateResult) -> GateShown:
        """The same answer."""
        return cls(*astuple(found))

    def __eq__(self, other: object) -> bool:
        """Equal to the same answer, shown or not."""
        return isinstance(other, GateResult) and astuple(self) == astuple(other)

    __hash__ = GateResult.__hash__

    def __repr__(self) -> str:
        told = "; ".join(
            f"{terminal(c.bank)}/{terminal(c.prompt or '')} {c.state}: {terminal(c.why)}" for c in self.checks
        )
        return f"GateResult({self.state}, {terminal(self.model)}: {told or 'nothing is recorded'})"

    def _repr_html_(self) -> str:
        return html_table(f"{self.model}: {self.state}; at most {100 * self.max_rate:g} %", gate_rows(self))
