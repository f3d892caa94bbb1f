"""Comparisons and gates as files for a pipeline: Markdown (a pull request's summary page) and JUnit XML.

Promised: a name of any origin stays inside its cell or attribute: no markup, no link, no new row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redinstruct.figures.comparison.values import Comparison, Result
from redinstruct.figures.comparison.words import change_in_words
from redinstruct.figures.gate import GateResult, worst_first
from redinstruct.figures.limit import State
from redinstruct.figures.numbers import p_value
from redinstruct.render.junit import EndKind, JunitCase, junit_xml
from redinstruct.render.tables import markdown_table
from redinstruct.safetext import in_markdown

_ENDS: Mapping[State, EndKind] = {"failed": "failure", "inconclusive": "error"}


def gate_rows(result: GateResult) -> list[dict[str, str]]:
    """A line a check, as every surface shows them: those that decide first."""
    return [
        {"": c.state, "bank": c.bank, "prompt": c.prompt or "", "judge": c.judge_id.partition("@")[0],
         "figure": c.figure, "because": c.why}
        for c in worst_first(result.checks)
    ]  # fmt: skip


def gate_markdown(result: GateResult) -> str:
    """The gate's answer as Markdown: one line, one table, made to be appended to a job's summary."""
    beside = "" if result.baseline is None else f", and not worse than {in_markdown(result.baseline)}"
    told = (
        f"### Gate: {result.state}\n\n{in_markdown(result.model)}; at most {100 * result.max_rate:g} %{beside}; "
        f"confidence {100 * result.confidence:g} %.\n\n"
    )
    rows = gate_rows(result)
    return told + (markdown_table(rows, strong="") if rows else "Nothing is recorded in this run.\n")


def comparison_rows(results: Sequence[Result], margin: float) -> list[dict[str, str]]:
    """A line a result, as every surface shows them."""
    rows = []
    for r in results:
        before, after = figures(r)
        change, p = ("-", "-") if r.difference is None else (change_in_words(r), p_value(r.difference.p_holm))
        rows.append(
            {"verdict": r.verdict, "of": r.name, "before": before, "after": after, "change [interval]": change, "p": p,
             f"loss under {100 * margin:g} points": held(r), "because": r.why}
        )  # fmt: skip
    return rows


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison as Markdown: the verdicts first, one row per result."""
    lines = [f"### {in_markdown(comparison.before)} before, {in_markdown(comparison.after)} after\n\n"]
    lines.append(markdown_table(comparison_rows(comparison.results, comparison.margin), strong="verdict"))
    lines += [f"\n- {in_markdown(note)}" for note in comparison.notes]
    lines += [f"\n- {in_markdown(r.name)}: {in_markdown(note)}" for r in comparison.results for note in r.notes]
    return "".join(lines) + ("\n" if len(lines) > 2 else "")


def figures(result: Result) -> tuple[str, str]:
    """Both figures of a result in per cent (shares) or as they are; ``-`` where there is none."""
    found = []
    for side in (result.before, result.after):
        if side is None:
            found.append("-")
        elif result.points:
            found.append(f"{100 * side.estimate:.1f} %")
        else:
            found.append(f"{side.estimate:.4g}")
    return found[0], found[1]


def held(result: Result) -> str:
    """Whether the loss is surely under the margin."""
    kept = result.non_inferiority
    return "-" if kept is None else "yes" if kept.shown else "not shown"


def gate_junit(result: GateResult) -> str:
    """The gate as JUnit XML: a test case per check; an inconclusive one is an error, a failed one a failure."""
    cases = []
    for check in result.checks:
        name = check.bank if check.prompt is None else f"{check.bank}/{check.prompt}"
        against = " against the baseline" if check.against == "baseline" else ""
        ends = None if check.state == "passed" else (_ENDS[check.state], check.why)
        cases.append(JunitCase(result.model, f"{name} ({check.judge_id}){against}", end=ends))
    return junit_xml("redinstruct gate", cases)
