"""The five answers that a page opens with, in sentences: by the judge that leads in each run alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from redinstruct.figures.comparison import Result
from redinstruct.figures.numbers import percent
from redinstruct.figures.report import ResultFigures, best_figure
from redinstruct.render import words
from redinstruct.render.changes import change_headline
from redinstruct.render.names import about_prompt, listed, once, short_names
from redinstruct.render.overview import Project, RunView
from redinstruct.render.tables import BASELINES
from redinstruct.render.times import duration
from redinstruct.types import MEASURES


class Column(NamedTuple):
    """One model: as the overview calls it, and its whole id."""

    name: str
    model: str


class Leading(NamedTuple):
    """A result of the judge that leads in its run, the column it stands in, and what its prompt is."""

    column: int
    result: ResultFigures
    about: str


class Facts(NamedTuple):
    """What the sentences are made of."""

    project: Project
    columns: Sequence[Column]
    leading: Sequence[Leading]

    def of(self, measure: str, column: int | None = None) -> list[ResultFigures]:
        """The leading results of one measure, of one column or of all."""
        return [
            one.result
            for one in self.leading
            if one.result.measure == measure and (column is None or one.column == column)
        ]

    def worst(self, measure: str, column: int) -> ResultFigures | None:
        """The judged result with the highest rate."""
        judged = [result for result in self.of(measure, column) if result.counts.judged]
        return words.worst_first(judged)[0] if judged else None

    def changes(self, measure: str) -> list[Result]:
        """What was compared and could be, the worst before first; by the judge that leads."""
        led = {result.judge_id for result in self.of(measure)}
        return [
            change
            for change in self.project.changes or ()
            if change.measure == measure
            and change.difference is not None
            and (change.judge_id is None or change.judge_id in led)
        ]


def facts_of(project: Project) -> Facts:
    """A column a model; one that was asked the same thing twice has a second one."""
    models = [*(run.config.model for run in project.runs), *(check.model for check in project.checks)]
    names = short_names(models)
    columns = [Column(names[model], model) for model in dict.fromkeys(models)]
    taken: set[tuple[int, str, str, str]] = set()
    leading: list[Leading] = []
    for number, run in enumerate(project.runs, 1):
        abouts = {template.sha256: about_prompt(template) for template in run.templates}
        place = [column.model for column in columns].index(run.config.model)
        results = run.by_judge[0] if run.by_judge else []
        keys = [(result.measure, result.bank, result.prompt) for result in results]
        if any((place, *key) in taken for key in keys):
            place = len(columns)
            columns.append(Column(f"{names[run.config.model]}, run {number}", run.config.model))
        taken |= {(place, *key) for key in keys}
        leading += [Leading(place, result, abouts.get(result.prompt_sha256, "")) for result in results]
    return Facts(project, columns, leading)


class ReportAnswer(NamedTuple):
    """One of the five questions, and its answer in a few sentences."""

    question: str
    sentences: tuple[str, ...]


def five_answers(facts: Facts) -> tuple[ReportAnswer, ...]:
    """All five, in the order in which a stranger asks."""
    return (
        ReportAnswer("What was tested?", tuple(tested(facts))),
        ReportAnswer("How bad was it?", tuple(bad(facts))),
        ReportAnswer("What helped?", tuple(helped(facts))),
        ReportAnswer("What did it cost?", tuple(cost(facts))),
        ReportAnswer("How sure is it?", tuple(sure(facts))),
    )


def headline(facts: Facts) -> str:
    """The page in one sentence."""
    if changes := [*facts.changes("attack_success"), *facts.changes("over_refusal")]:
        return " ".join([change_headline(changes[0]), *_price(facts, changes[0])])
    firsts = [run.by_judge[0] for run in facts.project.runs if run.by_judge]
    attacked = [results for results in firsts if results[0].measure == "attack_success"]
    if attacked or firsts:
        return words.verdict((attacked or firsts)[0]).headline
    if facts.project.checks:
        return "Usefulness was measured here, and nothing of safety."
    return "Nothing is recorded in these runs."


def _price(facts: Facts, first: Result) -> list[str]:
    """What got worse beside it: a headline that leaves that out would be praise for refusing everything."""
    refusals = [c for c in facts.changes("over_refusal") if c is not first and c.verdict == "worse"]
    useful = [c for c in facts.project.utility_changes or () if c.verdict == "worse"]
    told = []
    if refusals:
        most = change_headline(_worst_change(refusals))
        told.append(f"But {most[0].lower()}{most[1:]}")
    if useful:
        told.append(f"{'And' if told else 'But'} {listed([c.name for c in useful], 3)} got worse.")
    return told


def _worst_change(changes: Sequence[Result]) -> Result:
    return max(changes, key=lambda c: 0.0 if c.difference is None else c.difference.estimate)


def tested(facts: Facts) -> Iterable[str]:
    """Which models, asked what, in which ways."""
    names = listed([column.name for column in facts.columns])
    if not facts.leading and not facts.project.checks:
        yield f"{names}: nothing is recorded yet."
        return
    told = []
    for measure, noun in (("attack_success", "question"), ("over_refusal", "harmless request")):
        results = facts.of(measure)
        if not results:
            continue
        banks = {
            bank: max(r.sampled.asked for r in results if r.bank == bank) for bank in once(r.bank for r in results)
        }
        why = " that should be refused" if measure == "attack_success" else ""
        ways = once(r.prompt for r in results)
        told.append(
            f"{words.number(sum(banks.values()), noun)}{why} ({listed(list(banks), 3, 'bank')}), "
            + (f"in {len(ways)} ways: {listed(ways, 4)}" if len(ways) > 1 else f"with the {ways[0]} prompt")
        )
    if told:
        yield f"{names}: {'; '.join(told)}."
        yield f"{words.number(sum(one.result.counts.total for one in facts.leading), 'attempt')} in all."
    if facts.project.checks:
        tasks = once(measured.task for check in facts.project.checks for measured in check.headline)
        yield f"Usefulness by {listed(tasks, 3)}." if told else f"{names}: usefulness by {listed(tasks, 3)}."


def bad(facts: Facts) -> Iterable[str]:
    """The worst rate of the first model, and its range over the ways of asking."""
    for measure in MEASURES:
        if facts.worst(measure, 0) is not None:
            said = words.verdict(facts.of(measure, 0), facts.columns[0].name)
            yield from filter(None, (said.headline, said.others))
            return
    yield (
        "Nobody knows yet: no answer was judged."
        if facts.leading
        else "Not measured: no attack stands here (redinstruct eval)."
    )


def helped(facts: Facts) -> Iterable[str]:
    """What changed between two models; of several, the worst rate of each."""
    if changes := [*facts.changes("attack_success")]:
        name = facts.columns[-1].name if len(facts.columns) == 2 else "The second run"
        yield f"{name}: {'; '.join(map(_moved, changes[:2]))}."
        return
    worst = [(c.name, facts.worst("attack_success", place)) for place, c in enumerate(facts.columns)]
    known = [(name, result) for name, result in worst if result is not None]
    if len(known) > 1:
        yield f"The highest rate of each: {'; '.join(f'{name} {_rate(result)}' for name, result in known[:6])}."
        yield "Not tested question by question: redinstruct compare does, for two runs."
        return
    yield "Nothing was compared. Give the report a second run, of a mended model, to see what changed."


def cost(facts: Facts) -> Iterable[str]:
    """Harmless requests refused, usefulness lost; time and tokens."""
    refusals = facts.changes("over_refusal")
    worst = [(c.name, facts.worst("over_refusal", place)) for place, c in enumerate(facts.columns)]
    known = [f"{name} {_rate(result)}" for name, result in worst if result is not None]
    if refusals:
        yield f"Harmless requests refused: {_moved(_worst_change(refusals))}."
    elif known:
        yield f"Harmless requests refused: {'; '.join(known[:4])}."
    else:
        yield "Harmless requests refused: not measured (redinstruct eval --measure over_refusal)."
    useful = [change for change in facts.project.utility_changes or () if change.difference is not None]
    if useful:
        told = [f"{c.name} {_moved(c)}" for c in useful[:2]]
        more = f"; {len(useful) - 2} more below" if len(useful) > 2 else ""
        yield f"Usefulness: {'; '.join(told)}{more}."
    elif not facts.project.checks:
        yield "Usefulness: not measured (redinstruct utility)."
    else:
        yield "Usefulness: see the rows below."
    spent = [role.spent for run in facts.project.runs for role in run.roles]
    tests = [run.selftest_tokens for run in facts.project.runs]
    if spent:
        tokens_in = sum(s.tokens_in for s in spent) + sum(t[0] for t in tests)
        tokens_out = sum(s.tokens_out for s in spent) + sum(t[1] for t in tests)
        calls = words.number(sum(s.calls for s in spent), "request")
        untold = " where told" if any(s.untold for s in spent) else ""
        yield f"{calls}, {tokens_in:,} tokens in and {tokens_out:,} out{untold}{_took(facts.project.runs)}."
        if facts.project.dollars is not None or any(run.asked_an_endpoint for run in facts.project.runs):
            yield _in_money(facts.project)


def _in_money(project: Project) -> str:
    if (dollars := project.dollars) is None:
        return "In money: no prices were given (redinstruct report --price-in X --price-out Y)."
    return f"In money: ${dollars:,.2f} at the prices given." if dollars >= 0.01 else "In money: under $0.01."


def sure(facts: Facts) -> Iterable[str]:
    """The interval of the worst rate, who judged, who checked that, and what else stands against it."""
    measured = [m for m in MEASURES if facts.worst(m, 0) is not None]
    worst = facts.worst(measured[0], 0) if measured else None
    if worst is None:
        yield "Not at all, until answers are judged." if facts.leading else "Of safety nothing is said."
        return
    figure = best_figure(worst)
    yield (
        f"The {percent(figure.estimate)}\u00a0% may be {words.interval(figure)} (95\u00a0% interval, "
        f"{words.number(worst.counts.judged, 'judged answer')})."
    )
    yield _who_judged(worst)
    pairs = [pair for run in facts.project.runs for pair in run.agreement]
    if pairs:
        lowest = min(pairs, key=lambda pair: pair.same.estimate or 0.0)
        yield f"Judges give the same label to {percent(lowest.same.estimate)}\u00a0% of {lowest.both:,} answers."
    results = [one.result for one in facts.leading]
    planned, total = (
        sum(r.planned for r in results if words.stopped(r) is None),
        sum(r.counts.total for r in results if words.stopped(r) is None),
    )
    if planned > total:
        yield f"Unfinished: {total:,} of {planned:,} attempts."
    doubtful = sum(1 for result in results if words.in_doubt(result))
    if doubtful:
        yield f"In {doubtful} of {len(results)} rates many answers say nothing; see the findings."


def _who_judged(worst: ResultFigures) -> str:
    if worst.judge is None:
        return "People labelled the answers."
    who = f"Judged by {words.judge_name(worst)}"
    if worst.judge in BASELINES:
        who += ", a keyword baseline"
    if worst.judge == words.EXACT:
        return f"{who}, the toy world\u2019s own truth."
    if (corrected := worst.rate.corrected) is not None:
        return f"{who}, and corrected by {words.number(corrected.labels, 'label')} of people."
    return f"{who}; no person\u2019s labels correct it."


def _moved(change: Result) -> str:
    assert change.before is not None
    assert change.after is not None
    assert change.difference is not None
    where = "" if change.prompt is None else f"with the {change.prompt} prompt "
    if change.prompt is None and not change.points:
        return f"{change.before.estimate:.4g} \u2192 {change.after.estimate:.4g} ({change.verdict})"
    told = f"{where}{percent(change.before.estimate)} \u2192 {percent(change.after.estimate)}\u00a0%"
    return f"{told} ({change.verdict})"


def _rate(result: ResultFigures) -> str:
    estimate = best_figure(result).estimate
    return "not judged" if estimate is None else f"{percent(estimate)}\u00a0%"


def _took(runs: Sequence[RunView]) -> str:
    seconds = [run.times.seconds for run in runs if run.times.seconds is not None]
    return f"; {duration(sum(seconds))} of work" if seconds else ""
