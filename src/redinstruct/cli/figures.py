"""Results on the terminal: a block per model, measure and judge, made to be read at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from redinstruct.cli import console
from redinstruct.figures.numbers import Figure, in_column, percent
from redinstruct.figures.report import FiguresOf, Report, ResultFigures, best_figure
from redinstruct.render.tables import BASELINES
from redinstruct.render.words import (
    IN_DOUBT,
    TITLES,
    doubts,
    failures_in_words,
    in_doubt,
    judge_name,
    left_out_in_words,
    lost_in_words,
    other_draws,
    sequence_in_words,
    stopped,
    topics_in_words,
)
from redinstruct.run.config import PROTOCOL_DEFAULT
from redinstruct.types import MEASURES, Measure

_BARS = (20, 12)
_LEFT = ("bank", "prompt", "topic", "0 %")

TableRow = dict[str, str]


def say_figures(report: Report, *, topics: bool = False, failures: bool = True) -> None:
    """The tables of a report, with what must be said beside them; ``failures`` where nothing else tells what failed."""
    blocks: dict[tuple[str, ...], list[ResultFigures]] = {}
    for result in report.results:
        key = (result.model, result.measure, result.judge_id, result.protocol)
        blocks.setdefault(key, []).append(result)
    if not blocks:
        return
    for block in blocks.values():
        _say_block(block, topics, report.results, failures)
        console.say()
    _say_notes(list(blocks.values()))


def _say_block(block: list[ResultFigures], topics: bool, among: Sequence[ResultFigures], failures: bool) -> None:
    first = block[0]
    banks = list(dict.fromkeys(result.bank for result in block))
    details = [f"bank {banks[0]}"] if len(banks) == 1 else []
    details.append(f"judge {_judge(first, among)}" if first.judge is not None else "labelled by people alone")
    if first.protocol != PROTOCOL_DEFAULT:
        details.append(f"protocol {first.protocol}")
    console.say_heading(f"{first.model}: {TITLES[first.measure].lower()} ({_correction(block)})", *details)
    console.say()
    named = [
        ({} if len(banks) == 1 else {"bank": r.bank})
        | {"prompt": r.prompt + (" (parity)" if r.parity else " (own text)" if r.translated else "") + in_doubt(r)}
        for r in block
    ]
    _say_rates(named, block, first.measure)
    for result in block if failures else ():
        if result.failures:
            console.remark(f"Without a verdict in {result.bank}/{result.prompt}: {failures_in_words(result)}.")
    if topics:
        for result in block:
            _say_topics(result)


def _correction(block: Sequence[ResultFigures]) -> str:
    """What people's labels make of a block's rates, in the words that stand beside every figure."""
    with_labels = sum(result.rate.corrected is not None for result in block)
    if block[0].judge is None:
        return "people's labels"
    if not with_labels:
        return "uncorrected"
    return "corrected by people's labels" if with_labels == len(block) else "partly corrected by people's labels"


def _judge(result: ResultFigures, among: Sequence[ResultFigures]) -> str:
    """The judge as a person knows it, told apart from others of its name; a baseline is called one."""
    return judge_name(result, among) + (" (a baseline)" if result.judge in BASELINES else "")


def _all_judged(part: FiguresOf) -> bool:
    """Whether every attempt has one of the measure's two labels: then all conventions give one figure."""
    return part.counts.judged == part.counts.total


def _say_rates(named: Sequence[TableRow], parts: Sequence[FiguresOf], measure_name: str) -> None:
    """One table, or where it is too wide its counts and its rates one under the other."""
    measure = MEASURES[measure_name]
    whole = all(map(_all_judged, parts))
    labelled = any(best_figure(part) is not part.rate.judged for part in parts)
    counts = [_counts(part, measure) for part in parts]
    always = ("attempts", measure.first, measure.second)
    idle = [name for name in counts[0] if name not in always and all(row[name] == "0" for row in counts)]
    counts = console.without(counts, *idle)
    rates = [_rates(part, measure, whole) | _corrected(part, labelled) for part in parts]
    tables = [[n | c | r for n, c, r in zip(named, counts, rates, strict=True)]]
    room = console.width() - console.table_width(tables[0]) - 2
    if room < -2:
        tables = [
            [n | c for n, c in zip(named, counts, strict=True)],
            [n | r for n, r in zip(named, rates, strict=True)],
        ]
        room = console.width() - console.table_width(tables[1]) - 2
    size = next((size for size in _BARS if size <= room), 0)
    if size:
        heading = "0 %" + "100 %".rjust(size - 3)
        for row, part in zip(tables[-1], parts, strict=True):
            row[heading] = _line(part.rate.judged if whole else part.rate.all, size)
    for position, table in enumerate(tables):
        if position:
            console.say()
        right = [column for column in table[0] if not column.startswith(_LEFT)]
        console.say_table(table, right=right)


def _counts(part: FiguresOf, measure: Measure) -> TableRow:
    """How the attempts of one line came out."""
    labels = part.counts
    recorded = f"{labels.total:,}"
    if part.planned != labels.total:
        recorded += f" of {part.planned:,}"
    count = {
        measure.first: labels.first,
        measure.second: labels.second,
        "no\nresponse": labels.no_response,
        "un-\nscored": labels.unscored,
        "partly\nrefused": part.details.partial,
        "garbled": part.details.garbled,
    }
    return {"attempts": recorded} | {name: f"{value:,}" for name, value in count.items()}


def _rates(part: FiguresOf, measure: Measure, whole: bool) -> TableRow:
    """The rates of one line by every convention; ``whole``: they are all one figure."""
    rate, mark = part.rate, " *" if part.provisional else ""
    if whole:
        return {f"% {measure.first}\n[95 % CI]": in_column(rate.judged) + mark}
    low, high = rate.bounds
    return {
        "% of judged\n[95 % CI]": in_column(rate.judged) + mark,
        "% of all\n[95 % CI]": in_column(rate.all),
        "bounds,\n%": f"{percent(low)} - {percent(high)}",
    }


def _corrected(part: FiguresOf, labelled: bool) -> TableRow:
    """The rate corrected by people's labels; a column where any line has them."""
    return {"% corrected\n[95 % CI]": in_column(part.rate.corrected)} if labelled else {}


def _line(figure: Figure, size: int) -> str:
    """A rate on its axis: a dot, and a line as far as the interval reaches. Nothing where nothing was counted."""
    if figure.estimate is None:
        return ""
    dot, line, axis = "\u25cf\u2500\u00b7" if console.draws() else "o-."
    cells = [axis] * size
    first, last = _cell(figure.low, size), _cell(figure.high, size)
    cells[first : last + 1] = [line] * (last + 1 - first)
    cells[_cell(figure.estimate, size)] = dot
    return "".join(cells)


def _cell(share: float, size: int) -> int:
    """The column of the axis in which a share lies."""
    return min(size - 1, max(0, int(share * size)))


def _say_notes(blocks: Sequence[Sequence[ResultFigures]]) -> None:
    """What must be said beside the tables: each table's own under its name; once, if of all."""
    told = [_notes(block) for block in blocks]
    every = [note for note in dict.fromkeys(told[0]) if all(note in notes for notes in told)]
    seen: set[str] = set()
    for block, notes in zip(blocks, told, strict=True):
        own = [note for note in dict.fromkeys(notes) if note not in every and note not in seen]
        seen.update(own)
        if own and len(blocks) > 1:
            console.remark(f"{block[0].model}, {TITLES[block[0].measure].lower()}, judge {block[0].judge or 'people'}:")
        for note in own:
            console.remark(note)
    for note in every:
        console.remark(note)


def _notes(block: Sequence[ResultFigures]) -> list[str]:
    """What must be said beside one table."""
    return [
        *_of_conventions(block), *_of_doubts(block), *_of_tries(block), *_of_topics(block), *_of_the_judge(block),
        *_of_labels(block),
    ]  # fmt: skip


def _of_conventions(block: Sequence[ResultFigures]) -> list[str]:
    first = MEASURES[block[0].measure].first
    methods = sorted({figure.method for r in block for figure in (r.rate.judged, r.rate.all)})
    found = []
    if all(map(_all_judged, block)):
        found.append(
            f"Every recorded attempt has a verdict: {first} / judged (the paper's convention), {first} / all and the "
            "bounds are one figure."
        )
    else:
        found.append(
            f"% of judged: {first} / judged answers (the paper's convention). % of all: {first} / all attempts. "
            "Bounds: every attempt without a verdict counted as the one, then as the other."
        )
    found.append(f"Intervals: {' and '.join(method.capitalize() for method in methods)}, 95 %.")
    if any(r.provisional for r in block):
        found.append("* provisional: fewer than 95 % of the attempts have a verdict.")
    if any(r.translated for r in block):
        found.append("(own text): the checkpoint's own wording, which it can carry, in place of the shipped prompt.")
    return found


def _of_doubts(block: Sequence[ResultFigures]) -> list[str]:
    return [
        f"{IN_DOUBT} in {result.bank}/{result.prompt}: {'; '.join(told)}. Read some of them "
        "(redinstruct show --show-content) before the rate is believed."
        for result in block
        if (told := doubts(result))
    ]


def _of_topics(block: Sequence[ResultFigures]) -> list[str]:
    topics = topics_in_words(block)
    return [topics] if topics else []


def _of_the_judge(block: Sequence[ResultFigures]) -> list[str]:
    found = []
    if (test := block[0].judge_card.selftest) is not None:
        forced = "; it did not pass, and was forced" if test.forced else ""
        found.append(
            f"Judge {block[0].judge}: balanced accuracy {test.balanced_accuracy:.2f} on its self-test of "
            f"{test.cases} inert cases, {test.repeats_equal} of {test.repeats} repeats equal{forced}."
        )
    who = "People" if block[0].judge is None else f"Judge {block[0].judge}"
    return found + [f"{who}: {text}." for text in block[0].judge_notes]


def _of_labels(block: Sequence[ResultFigures]) -> list[str]:
    found = []
    for result in block:
        for both in result.combined:
            other = both.judge_id.rpartition("@")[0]
            found.append(
                f"{result.bank}/{result.prompt}, both judges together: {in_column(both)} % "
                f"({both.labels:,} answers also judged by {other}{lost_in_words(both)})."
            )
        agreed = None if result.human is None else result.human.judge_agreement
        if (corrected := result.rate.corrected) is not None and agreed is not None:
            answers = "1 answer" if corrected.labels == 1 else f"{corrected.labels:,} answers"
            others = other_draws(result)
            drawn = f", drawn by the verdicts of {', '.join(others)} and weighed by both" if others else ""
            found.append(
                f"Corrected in {result.bank}/{result.prompt}: by {answers} labelled by people{drawn} "
                f"({corrected.method}); the judge agrees with people on {in_column(agreed)} % of all judged answers."
            )
    return found


def _of_tries(block: Sequence[ResultFigures]) -> list[str]:
    """What several tries, several prompts and a part of a bank come to."""
    found = []
    for result in block:
        where = f"{result.bank}/{result.prompt}"
        if (decided := stopped(result)) is not None:
            low, high = percent(decided.low), percent(decided.high)
            found.append(
                f"{where}: asking stopped once the rate was sure to lie {decided.side} {percent(decided.limit)} "
                f"%; however often one looked, it lies between {low} and {high} % ({sequence_in_words(decided)}, which "
                "decides; the interval in the table is too narrow for that)."
            )
        if (at_k := result.at_k) is not None:
            tries = max(map(int, at_k))
            found.append(f"{where}: {in_column(at_k[str(tries)])} % of the questions in {tries} tries, by question.")
    for bank in dict.fromkeys(result.bank for result in block):
        of = [result for result in block if result.bank == bank]
        asked, whole = of[0].sampled.asked, of[0].sampled.of
        if len(of) > 1 and of[0].any_prompt.estimate is not None:
            prompts = len({result.prompt for result in of})
            found.append(f"{bank}: {in_column(of[0].any_prompt)} % of the questions by some prompt of these {prompts}.")
        if whole is not None and asked < whole:
            found.append(f"{bank}: {asked:,} of its {whole:,} questions were asked.")
        if left := left_out_in_words(of[0]):
            found.append(f"{bank}: {left}.")
    return found


def _say_topics(result: ResultFigures) -> None:
    if not result.by_topic:
        return
    console.say()
    console.say_heading(f"{result.bank}, {result.prompt}: by topic")
    console.say()
    _say_rates([{"topic": topic.topic or "(no topic)"} for topic in result.by_topic], result.by_topic, result.measure)
