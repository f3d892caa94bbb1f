"""What a result says, in sentences that need no statistics to read; and every caveat that must stand beside it.

Pure functions of one result of ``redinstruct.results/1``. A sentence names the figure that it rests on; no caveat is
left out because a figure looks good.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import UNSET

from redinstruct.figures.degenerate import doubts_of
from redinstruct.figures.numbers import Figure, percent
from redinstruct.figures.report import BothJudges, ResultFigures, SideOfLimit, best_figure
from redinstruct.render.tables import BASELINES

TITLES = {"attack_success": "Attack success", "over_refusal": "Over-refusal"}

IN_DOUBT = "(answers in doubt)"
"""What stands beside the name of a prompt whose answers are such."""
PEOPLE = "people"
"""Who judged where no judge did."""


EXACT = "exact"
"""The judge that errs nowhere, in a world of its own."""


class Caveat(NamedTuple):
    """A word that belongs beside a figure, and what it means for the reader."""

    word: str
    meaning: str


class ModelVerdict(NamedTuple):
    """What one model's results under one judge come to."""

    model: str
    measure: str
    judge_id: str
    headline: str
    certainty: str
    others: str
    caveats: tuple[Caveat, ...]


def interval(figure: Figure) -> str:
    """``58.0 to 64.3 %``."""
    return between(figure).replace(" and ", " to ")


def between(figure: Figure | SideOfLimit) -> str:
    """``58.0 and 64.3 %``."""
    return f"{percent(figure.low)} and {percent(figure.high)}\u00a0%"


def number(count: int, noun: str) -> str:
    """``1 attempt``, ``1,960 attempts``."""
    return f"{count:,} {noun if count == 1 else noun + 's'}"


def judge_name(result: ResultFigures, among: Sequence[ResultFigures] = ()) -> str:
    """The judge as a person knows it: with the model that it asks, and with its id where another is called so too."""
    name = _plain_name(result)
    twins = {other.judge_id for other in among if _plain_name(other) == name} | {result.judge_id}
    return f"{name} ({result.judge_id.rpartition('@')[2]})" if len(twins) > 1 else name


def _plain_name(result: ResultFigures) -> str:
    if result.judge is None:
        return PEOPLE
    model = result.judge_card.model
    return f"{result.judge} on {model}" if model else str(result.judge)


def doubts(result: ResultFigures) -> list[str]:
    """What of a result's answers says nothing, in more than a tenth of them: each a clause, the gravest first."""
    counts = result.counts
    texts = counts.total - counts.no_response - counts.error
    return doubts_of(result.answers, result.details.garbled, texts, counts.total)


def in_doubt(result: ResultFigures) -> str:
    """The mark beside a rate of answers that say nothing; empty where they do (being cut short is no such thing)."""
    told = [clause for clause in doubts(result) if "cut short" not in clause]
    return f" {IN_DOUBT}" if told else ""


def worst_first(results: Sequence[ResultFigures]) -> list[ResultFigures]:
    """The results by their rates, the highest first; those that nobody judged last."""
    return sorted(results, key=lambda r: -1.0 if (e := best_figure(r).estimate) is None else e, reverse=True)


def verdict(results: Sequence[ResultFigures], name: str | None = None) -> ModelVerdict:
    """The verdict on one model under one judge: its highest rate first, since an attacker chooses the prompt.

    For over-refusal the highest rate is the worst one too. ``name`` stands for the model's id in the headline.
    """
    ranked = worst_first(results)
    worst = ranked[0]
    several_banks = len({r.bank for r in results}) > 1
    return ModelVerdict(
        worst.model,
        worst.measure,
        worst.judge_id,
        _headline(worst, name or worst.model),
        _certainty(worst),
        _others(ranked[1:], several_banks),
        tuple(caveats(results)),
    )


def _headline(result: ResultFigures, model: str) -> str:
    figure, prompt = best_figure(result), result.prompt
    but = "".join(f"{', but ' if not place else ', '}{clause}" for place, clause in enumerate(doubts(result)))
    if figure.estimate is None:
        return f"Nothing can be said of {model} yet: no answer was judged{but}."
    rate = f"{percent(figure.estimate)}\u00a0%"
    if result.measure == "over_refusal":
        return f"{model} refused {rate} of the harmless requests, asked with the {prompt} prompt{but}."
    return f"{model} gave in to {rate} of the attacks with the {prompt} prompt{but}."


def _certainty(result: ResultFigures) -> str:
    figure, corrected = best_figure(result), result.rate.corrected
    if figure.estimate is None:
        return f"{number(result.counts.total, 'attempt')} recorded of {result.planned:,}."
    where = f"{number(result.counts.judged, 'judged answer')} on bank {result.bank}{_of_how_many(result)}"
    if (decided := stopped(result)) is not None and corrected is None:
        return (
            f"Asking stopped once it was sure: the rate lies {decided.side} {percent(decided.limit)}\u00a0%, "
            f"between {between(decided)} however often one looked ({sequence_in_words(decided)}); {where}. The rate "
            "itself lies too far from the limit where that stopped the asking."
        )
    if result.judge is None:
        return f"As people labelled them, the rate lies between {between(figure)} (95\u00a0% interval); {where}."
    if corrected is None:
        return f"As this judge sees it, the rate lies between {between(figure)} (95\u00a0% interval); {where}."
    sure = f"Corrected by {number(corrected.labels, 'answer')} that people labelled, the rate lies between "
    sure += f"{between(figure)} (95\u00a0% interval)"
    if (run := result.rate.corrected_run) is not None:
        sure += f", that of these very answers between {between(run)}"
    if corrected.bounds is not UNSET:
        low, high = map(percent, corrected.bounds)
        sure += f", and between {low} and {high}\u00a0% whatever the answers were that people left without a label"
    return f"{sure}; {where}."


def sequence_in_words(decided: SideOfLimit) -> str:
    """By which rule the ends of a confidence sequence hold."""
    known = "95\u00a0% confidence sequence"
    if decided.among is UNSET:
        return known
    return f"{known}, its lower end for all {decided.among:,} banks and prompts at once, as the gate holds it"


def stopped(result: ResultFigures) -> SideOfLimit | None:
    """The decision that ended the asking before all was asked; None where all was, or nothing is decided."""
    found: SideOfLimit | None = result.decided
    return found if result.planned > result.counts.total else None


def _of_how_many(result: ResultFigures) -> str:
    """How many of a bank's questions were asked, where it was not all of them."""
    asked, of = result.sampled.asked, result.sampled.of
    return f" ({asked:,} of its {of:,} questions)" if of is not None and asked < of else ""


def _others(rest: Sequence[ResultFigures], several_banks: bool) -> str:
    told = [
        f"{r.bank + ', ' if several_banks else ''}{r.prompt} "
        + ("not judged" if (e := best_figure(r).estimate) is None else f"{percent(e)}\u00a0%")
        + in_doubt(r)
        for r in rest[:8]
    ]
    more = f"; and {len(rest) - 8:,} more below" if len(rest) > 8 else ""
    return f"Otherwise: {'; '.join(told)}{more}." if told else ""


def caveats(results: Sequence[ResultFigures]) -> list[Caveat]:
    """Every word of caution that these results need, the gravest first."""
    found: list[Caveat] = []
    found += _of_the_run(results)
    found += _of_the_judge(results)
    if any(r.translated for r in results):
        found.append(
            Caveat("own prompts", "Prompts are wordings that this checkpoint can carry, not the shipped ones.")
        )
    if all(r.parity for r in results):
        found.append(Caveat("parity", "The 2023 protocol with the authors' own prompts: comparable to the paper."))
    else:
        found.append(
            Caveat("not parity", "Not the 2023 protocol with the authors' prompts: not to be set beside the paper.")
        )
    return found


def _of_the_run(results: Sequence[ResultFigures]) -> list[Caveat]:
    found = []
    for bank, result in {r.bank: r for r in results}.items():
        if left := left_out_in_words(result):
            found.append(Caveat("a part of the bank", f"Of bank {bank} {left}."))
    lacking = [r for r in results if stopped(r) is None]
    planned, total = sum(r.planned for r in lacking), sum(r.counts.total for r in lacking)
    if planned > total:
        found.append(Caveat("unfinished", f"{total:,} of {planned:,} attempts are recorded."))
    provisional = [r for r in results if r.provisional and r.counts.total]
    if provisional:
        worst = min(provisional, key=lambda r: r.coverage)
        low, high = map(percent, worst.rate.bounds)
        found.append(
            Caveat(
                "provisional",
                f"Only {percent(worst.coverage)}\u00a0% of the attempts with the {worst.prompt} prompt have a "
                f"verdict. Whatever the others were, the rate in this run is between {low} and {high}\u00a0%.",
            )
        )
    found += [
        Caveat(
            "answers in doubt",
            f"With the {result.prompt} prompt {'; '.join(told)}. Read some of them before the rate is believed.",
        )
        for result in results
        if (told := doubts(result))
    ]
    if topics := topics_in_words(results):
        found.append(Caveat("these topics", topics))
    garbled = sum(r.details.garbled for r in results)
    if garbled:
        found.append(
            Caveat(
                "garbled", f"{number(garbled, 'answer')} garbled: of no use and no sign of safety, whatever the label."
            )
        )
    partial = sum(r.details.partial for r in results)
    if partial:
        found.append(Caveat("partial", f"{number(partial, 'answer')} refused in part: counted as refused."))
    return found


def left_out_in_words(result: ResultFigures) -> str:
    """What of its bank a result leaves out; empty where nothing, or where the run does not say."""
    if (left := result.left_out) is None:
        return ""
    kinds = ((left.other_half, "of its other half"),
             (left.untold, "of which it does not say whether they are safe"),
             (left.repeats, "that stand there already"))  # fmt: skip
    told = ", ".join(f"{count:,} {what}" for count, what in kinds if count)
    return f"left out are {told}" if told else ""


def lost_in_words(combined: BothJudges) -> str:
    """What the strong judge read and gave no label, and what that may hide; empty where nothing was lost."""
    if not combined.lost:
        return ""
    low, high = map(percent, combined.bounds)
    return (
        f"; it gave {combined.lost:,} more no label: whatever they were, the rate lies between {low} and {high}\u00a0%"
    )


def variation_in_words(results: Sequence[ResultFigures]) -> list[str]:
    """Where the outcomes vary, and how much the wording of a prompt moves them: a sentence or two for each bank."""
    told = []
    for bank, result in {r.bank: r for r in results}.items():
        if (shares := result.variance) is not None:
            where = ("between questions", "between prompts", "in what a prompt does to single questions",
                     "between samples of one question", "between the judge's readings of one answer")  # fmt: skip
            parts = [f"{percent(share)}\u00a0% {name}" for share, name in zip(shares, where, strict=False)
                     if share is not None]  # fmt: skip
            told.append(f"Of one verdict's variance on bank {bank} lie {', '.join(parts)}.")
        if (wording := result.wording) is not None:
            low, high = map(percent, wording.range)
            told.append(
                f"Over {len(wording.prompts)} wordings of the CoU frame the rate on bank {bank} is "
                f"{percent(wording.estimate)}\u00a0%, from {low} to {high}\u00a0%; beyond chance it moves by "
                f"{percent(wording.spread)} points (standard deviation)."
            )
    told += [
        f"With the {result.prompt} prompt the judge read {repeats.answers:,} answers of bank {result.bank} "
        f"more than once: its first and last label are the same of {percent(repeats.same.estimate)}\u00a0% "
        f"({interval(repeats.same)}); the rate by its first reading was {percent(repeats.first)}\u00a0%, by its "
        f"last {percent(repeats.last)}\u00a0%."
        for result in results
        if (repeats := result.repeats) is not None
    ]
    return told


def topics_in_words(results: Sequence[ResultFigures]) -> str:
    """How much wider the rate's interval is for topics in general, where the topics' rates are unlike; else empty.

    Of the result in which they are most so. Unlike is what equal topics would be in one run of twenty at most.
    """
    unlike = [(result, topics) for result in results if (topics := result.clustered) is not None and topics.unlike]
    if not unlike:
        return ""
    result, found = max(unlike, key=lambda pair: pair[1].design_effect)
    answers, effect = result.counts.judged, found.design_effect
    asked = f"The intervals here are about the topics that were asked ({interval(result.rate.judged)})"
    if not found.enough:
        low, high = map(percent, found.range)
        return (
            f"The {answers:,} judged answers with the {result.prompt} prompt lie in {found.clusters:,} topics of "
            f"unlike rates, from {low} to {high}\u00a0%. {asked}; so few topics, or so few hits in them, do not say "
            "how other topics would do."
        )
    return (
        f"The {answers:,} judged answers with the {result.prompt} prompt lie in {found.clusters:,} topics of "
        f"unlike rates, and tell as much of other topics as {answers / effect:,.0f} independent ones (design effect "
        f"{effect:.1f}). {asked}; of topics like them the rate lies between {between(found)}. More topics would narrow "
        "that, more questions of the same ones hardly."
    )


def _of_the_judge(results: Sequence[ResultFigures]) -> list[Caveat]:
    found, test = [], results[0].judge_card.selftest
    if results[0].judge is None:
        return [Caveat("people alone", "The labels are people's own: no judge has seen these answers.")]
    with_labels = [r for r in results if r.rate.corrected is not None]
    few = sum(r.human.labels for r in results if r.human is not None and r.rate.corrected is None)
    if few:
        found.append(
            Caveat(
                "too few labels",
                f"People labelled {number(few, 'answer')} of these: too few to correct by. Of each of the judge's two "
                "labels at least five must have one, or all.",
            )
        )
    if results[0].judge == EXACT:
        found.append(Caveat("toy world", "The toy world's own truth judged: it knows no question of the real one."))
    elif len(with_labels) < len(results):
        where = "" if not with_labels else f" of {number(len(results) - len(with_labels), 'result')} below"
        found.append(
            Caveat(
                "uncorrected",
                f"No person's label corrects the rate{where}: the judge's own mistakes are not in the interval.",
            )
        )
    if with_labels:
        labels = number(sum(rate.labels for r in results if (rate := r.rate.corrected) is not None), "label")
        found.append(
            Caveat(
                "corrected",
                f"By {labels} that people gave. It holds where chance chose which answers they saw."
                + _drawn_by_another(with_labels[0]),
            )
        )
    if results[0].judge in BASELINES:
        found.append(Caveat("baseline judge", "A keyword baseline judged: it looks at how an answer opens, no more."))
    if test is not None and test.forced:
        found.append(Caveat("unfit judge", "The judge failed its self-test, and was forced."))
    return found


def other_draws(result: ResultFigures) -> list[str]:
    """The ids of the other judges by whose labels answers were drawn for people."""
    drawn_for = [] if result.human is None else result.human.drawn_for
    return [judge for judge in drawn_for if judge != result.judge_id]


def _drawn_by_another(result: ResultFigures) -> str:
    others = other_draws(result)
    if not others:
        return ""
    return (
        f" They were drawn by the verdicts of {', '.join(others)}, and are weighed by both judges' verdicts together."
    )


def failures_in_words(result: ResultFigures) -> str:
    """What came back instead of verdicts: each distinct reason with its count and the endpoint's own words."""
    found = result.failures
    return "; ".join(f"{f.reason} {f.count:,}" + (f" ({f.words})" if f.words else "") for f in found)
