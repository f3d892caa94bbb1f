"""Comparisons and gates as files for a pipeline: Markdown (a pull request's summary page) and JUnit XML.

Promised: a name of any origin stays inside its cell or attribute: no markup, no link, no new row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from redinstruct.figures.comparison.values import Comparison, Result
from redinstruct.figures.gate import GateResult, worst_first
from redinstruct.figures.limit import State
from redinstruct.render.junit import End, EndKind, JunitCase, junit_xml
from redinstruct.safetext import in_markdown

_ENDS: Mapping[State, EndKind] = {"failed": "failure", "inconclusive": "error"}
_STATES = {"passed": "passed", "failed": "**failed**", "inconclusive": "**inconclusive**"}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def gate_markdown(result: GateResult) -> str:
    """The gate's answer as Markdown: one line, one table, made to be appended to a job's summary."""
    lines = [f"### Gate: {result.state}\n\n", f"{in_markdown(result.model)}; at most {100 * result.max_rate:g} %"]
    if result.baseline is not None:
        lines.append(f", and not worse than {in_markdown(result.baseline)}")
    lines.append(f"; confidence {100 * result.confidence:g} %.\n\n")
    rows = [
        [_STATES[c.state], *map(in_markdown, (c.bank, c.prompt or "", c.judge_id.partition("@")[0], c.figure, c.why))]
        for c in worst_first(result.checks)
    ]
    head = ("", "bank", "prompt", "judge", "figure", "because")
    return "".join(lines) + (_table(head, rows) if rows else "Nothing is recorded in this run.\n")


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison as Markdown: the verdicts first, one row per result."""
    names = in_markdown(comparison.before), in_markdown(comparison.after)
    lines = [f"### {names[0]} before, {names[1]} after\n\n"]
    rows = [
        [f"**{r.verdict}**", in_markdown(r.name), *figures(r), held(r), in_markdown(r.why)] for r in comparison.results
    ]
    under = f"loss under {100 * comparison.margin:g} points"
    lines.append(_table(("", "of", "before", "after", under, "because"), rows))
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
        ends = None if check.state == "passed" else End(_ENDS[check.state], check.why)
        cases.append(JunitCase(result.model, f"{name} ({check.judge_id}){against}", end=ends))
    return junit_xml("redinstruct gate", cases)
