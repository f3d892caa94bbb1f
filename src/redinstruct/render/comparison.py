"""Comparisons and gates as files for a pipeline: Markdown (a pull request's summary page) and JUnit XML.

Promised: a name of any origin stays inside its cell or attribute: no markup, no link, no new row.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence

from redinstruct.figures.comparison.values import Comparison, Result
from redinstruct.figures.gate import GateResult, State, worst_first
from redinstruct.safetext import redact, terminal

_MARKS = re.compile(r"([\\`*_{}\[\]<>()#!|~&@:$])")
_STATES = {"passed": "passed", "failed": "**failed**", "inconclusive": "**inconclusive**"}


def markdown_cell(text: str) -> str:
    """A text of any origin as plain words in a table of Markdown, on one line."""
    # `www.` alone is a link on GitHub; every other link needs a colon or brackets.
    return re.sub(r"(?i)\bwww\.", r"www\\.", _MARKS.sub(r"\\\1", terminal(redact(text))))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def gate_markdown(result: GateResult) -> str:
    """The gate's answer as Markdown: one line, one table, made to be appended to a job's summary."""
    lines = [f"### Gate: {result.state}\n\n", f"{markdown_cell(result.model)}; at most {100 * result.max_rate:g} %"]
    if result.baseline is not None:
        lines.append(f", and not worse than {markdown_cell(result.baseline)}")
    lines.append(f"; confidence {100 * result.confidence:g} %.\n\n")
    rows = [
        [_STATES[c.state], *map(markdown_cell, (c.bank, c.prompt or "", c.judge_id.partition("@")[0], c.figure, c.why))]
        for c in worst_first(result.checks)
    ]
    head = ("", "bank", "prompt", "judge", "figure", "because")
    return "".join(lines) + (_table(head, rows) if rows else "Nothing is recorded in this run.\n")


def comparison_markdown(comparison: Comparison) -> str:
    """A comparison as Markdown: the verdicts first, one row per result."""
    names = markdown_cell(comparison.before), markdown_cell(comparison.after)
    lines = [f"### {names[0]} before, {names[1]} after\n\n"]
    rows = [
        [f"**{r.verdict}**", markdown_cell(r.name), *figures(r), held(r), markdown_cell(r.why)]
        for r in comparison.results
    ]
    under = f"loss under {100 * comparison.margin:g} points"
    lines.append(_table(("", "of", "before", "after", under, "because"), rows))
    lines += [f"\n- {markdown_cell(note)}" for note in comparison.notes]
    lines += [f"\n- {markdown_cell(r.name)}: {markdown_cell(note)}" for r in comparison.results for note in r.notes]
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

    def count(state: State) -> str:
        return str(sum(check.state == state for check in result.checks))

    suite = ElementTree.Element(
        "testsuite",
        name="redinstruct gate",
        tests=str(len(result.checks)),
        failures=count("failed"),
        errors=count("inconclusive"),
    )
    for check in result.checks:
        # XML holds no control characters, not even escaped ones.
        name = check.bank if check.prompt is None else f"{check.bank}/{check.prompt}"
        against = " against the baseline" if check.against == "baseline" else ""
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname=terminal(redact(result.model)),
            name=terminal(redact(f"{name} ({check.judge_id}){against}")),
        )
        if check.state != "passed":
            kind = "failure" if check.state == "failed" else "error"
            ElementTree.SubElement(case, kind, message=terminal(redact(check.why)))
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
