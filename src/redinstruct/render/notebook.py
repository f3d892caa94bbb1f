"""One run as a notebook wants it: figures, rows, a table that shows itself, and intervals as a picture.

A pure projection of the store: nothing here can ask a model, or change a run. Questions and answers are hidden (hash,
length, label) unless ``content=True`` is said; whatever a stranger wrote is escaped before a browser sees it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from redinstruct.errors import UsageError
from redinstruct.figures.attempts import attempt_document
from redinstruct.figures.numbers import Figure, with_interval
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import ResultFigures, plain
from redinstruct.files.opening import place_of
from redinstruct.render.tables import html_table, rate_rows
from redinstruct.run import NAMED, Store, judges_of, named_judge
from redinstruct.safetext import in_markup, shown
from redinstruct.types import MEASURES, Json

FIGURES = ("judged", "all", "corrected")
_WORDS = {"judged": "of judged", "all": "of all", "corrected": "corrected by people's labels"}


class Run:
    """A run's folder, read-only: ``Run("runs/mine")``.

    It is a path (``os.PathLike``), so every function of this package takes it in the place of one. Each call reads the
    store anew: a run that goes on shows what is recorded by then.
    """

    def __init__(self, path: str | Path) -> None:
        """Look into the folder.

        Raises:
            ConfigError: there is no evaluation in it.
            StoreError: the store does not read.
        """
        self.path = place_of(path)
        with Store.open_for_reading(self.path, NAMED["evaluation"]) as store:
            self.config = store.begun()

    def __fspath__(self) -> str:
        return str(self.path)

    def results(self) -> list[dict[str, Any]]:
        """One entry per judge, bank and prompt, as ``redinstruct report --json`` gives them; rates are proportions.

        Raises:
            StoreError: the store does not read.
        """
        found: list[dict[str, Any]] = plain(self._results())
        return found

    def _results(self) -> tuple[ResultFigures, ...]:
        return read_report([self.path]).results

    def rows(
        self, *, judge: str | None = None, label: str | None = None, content: bool = False
    ) -> Iterator[dict[str, Json]]:
        """The recorded attempts one by one, in the banks' order, as plain dicts.

        ``judge`` is a name or the beginning of an id (left out: the run's first), ``label`` keeps one label. Without
        ``content`` there is no text in a row: ``question_hash``, ``answer_hash`` and ``answer_chars`` stand for it.

        Raises:
            UsageError: no such judge or label.
            StoreError: the store does not read.
        """
        with Store.open_for_reading(self.path) as store:
            number, card = judges_of(store)[0] if judge is None else named_judge(store.judges(), judge)
            labels = MEASURES[card.measure].labels
            if label is not None and label not in labels:
                raise UsageError(f"no such label: {label!r}; there are {', '.join(labels)}")
            for view in store.attempts(number, label=label):
                yield attempt_document(view, content)

    def to_pandas(self, *, judge: str | None = None, content: bool = False) -> Any:
        """The attempts as a ``pandas.DataFrame``, a line per attempt, the columns those of :meth:`rows`.

        Raises:
            UsageError: pandas is not installed, or no such judge.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            raise UsageError("to_pandas needs pandas: pip install pandas (or use Run.rows())") from None
        return pandas.DataFrame.from_records(list(self.rows(judge=judge, content=content)))

    def plot(self, figure: str = "judged") -> Plot:
        """The rates with their intervals, a line per judge, bank and prompt, as SVG that a notebook shows.

        ``figure`` is ``judged`` (of the judged answers), ``all`` (of all attempts) or ``corrected`` (by people's
        labels; results without any are left out).

        Raises:
            UsageError: no such figure, or no result that has it.
        """
        if figure not in FIGURES:
            raise UsageError(f"no figure {figure!r}; there are {', '.join(FIGURES)}")
        rates = [(result, rate) for result in self._results() if (rate := getattr(result.rate, figure)) is not None]
        if not rates:
            raise UsageError(f"{self.path}: no result has the figure {figure!r}; label some answers first")
        results = [result for result, _ in rates]
        return Plot([(_name(result, results), rate) for result, rate in rates], figure)

    def __repr__(self) -> str:
        results = self._results()
        told = "; ".join(f"{_name(result, results)} {with_interval(result.rate.judged)}" for result in results)
        return shown(f"Run({str(self.path)!r}, model={self.config.model!r}, {self.config.measure}: {told} % of judged)")

    def __rich_repr__(self) -> Iterator[Any]:
        yield shown(str(self.path))
        yield "model", shown(self.config.model)
        yield "measure", self.config.measure
        results = self._results()
        for result in results:
            yield shown(_name(result, results)), f"{with_interval(result.rate.judged)} % of judged"

    def _repr_html_(self) -> str:
        rows = [{k: v for k, v in row.items() if k not in ("model", "measure")} for row in rate_rows(self._results())]
        return html_table(f"{self.config.model}: {self.config.measure}", rows)


class Plot:
    """Intervals on an axis from 0 to 100 %: SVG without script or links. ``str(plot)`` is its text."""

    def __init__(self, rates: Sequence[tuple[str, Figure]], figure: str) -> None:
        self._rates = tuple(rates)
        self._figure = figure

    def __str__(self) -> str:
        lines = [_line(name, rate, 20 + 24 * number) for number, (name, rate) in enumerate(self._rates)]
        bottom = 20 + 24 * len(self._rates)
        ticks = "".join(
            f'<path d="M{_x(share):.1f} 8V{bottom - 8}" opacity=".15"/>'
            f'<text x="{_x(share):.1f}" y="{bottom + 8}" text-anchor="middle" stroke="none">{100 * share:.0f}</text>'
            for share in (0.0, 0.25, 0.5, 0.75, 1.0)
        )
        what = f"% {_WORDS[self._figure]}, with 95 % intervals"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 28}" width="{_WIDTH}" role="img"'
            f' font-family="sans-serif" font-size="12" fill="currentColor" stroke="currentColor"><title>{what}</title>'
            f"{ticks}{''.join(lines)}"
            f'<text x="{_x(0.5):.1f}" y="{bottom + 24}" text-anchor="middle" stroke="none">{what}</text></svg>'
        )

    def _repr_svg_(self) -> str:
        return str(self)

    def __repr__(self) -> str:
        return f"Plot({self._figure}, {len(self._rates)} intervals)"


_LEFT, _RIGHT, _WIDTH = 240, 610, 760
_LONGEST_NAME = 36


def _x(share: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * share


def _line(name: str, rate: Figure, y: int) -> str:
    low, high = (_x(end) for end in (rate.low, rate.high))
    label = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    point = "" if rate.estimate is None else f'<circle cx="{_x(rate.estimate):.1f}" cy="{y}" r="4" stroke="none"/>'
    return (
        f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end" stroke="none">{in_markup(label)}</text>'
        f'<path d="M{low:.1f} {y}H{high:.1f}" stroke-width="2"/>{point}'
        f'<text x="{_RIGHT + 12}" y="{y + 4}" stroke="none">{with_interval(rate)}</text>'
    )


def _name(result: ResultFigures, among: Sequence[ResultFigures]) -> str:
    """The prompt, with what tells it from the other results: the bank, the judge."""
    name = result.prompt
    if len({other.bank for other in among}) > 1:
        name += f", {result.bank}"
    return name + (f", {result.judge}" if len({other.judge_id for other in among}) > 1 else "")
