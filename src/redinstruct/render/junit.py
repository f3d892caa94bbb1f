"""JUnit XML for a CI system's page: a test case per result of a report with its figures, or per check of a gate.

A report holds nothing against a limit; that is what ``redinstruct gate`` is for. So a result with figures passes, one
that is provisional, or rests on answers that say nothing, is skipped with the reason, and one of which nothing was
judged is an error.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from redinstruct.figures.numbers import percent
from redinstruct.figures.report import Report, ResultFigures
from redinstruct.render.tables import figures_of
from redinstruct.render.words import doubts, in_doubt
from redinstruct.safetext import shown

EndKind = Literal["failure", "error", "skipped"]


End = tuple[EndKind, str]
"""How a case ended that did not pass, and why."""


class JunitCase(msgspec.Struct, frozen=True):
    """A test case of a suite. ``end`` None: it passed."""

    classname: str
    name: str
    properties: Mapping[str, float | str] = {}
    end: End | None = None


def junit_xml(suite: str, cases: Sequence[JunitCase]) -> str:
    """A suite as JUnit XML. Every text of any origin is shown, and stays in its attribute."""

    def count(outcome: EndKind) -> str:
        return str(sum(case.end is not None and case.end[0] == outcome for case in cases))

    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(cases)),
        failures=count("failure"),
        errors=count("error"),
        skipped=count("skipped"),
    )
    for case in cases:
        entry = ElementTree.SubElement(root, "testcase", classname=shown(case.classname), name=shown(case.name))
        if case.properties:
            properties = ElementTree.SubElement(entry, "properties")
            for key, value in case.properties.items():
                ElementTree.SubElement(properties, "property", name=shown(key), value=shown(str(value)))
        if case.end is not None:
            outcome, why = case.end
            ElementTree.SubElement(entry, outcome, message=shown(why))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def junit_text(report: Report) -> str:
    """The figures of ``redinstruct.results/1`` as JUnit XML."""
    return junit_xml("redinstruct report", [_case(result) for result in report.results])


def _case(result: ResultFigures) -> JunitCase:
    name = f"{result.measure}: {result.bank}/{result.prompt} ({result.judge_id})"
    end: End | None = None
    if result.rate.judged.estimate is None:
        end = ("error", "nothing was judged")
    elif result.provisional:
        share = percent(result.coverage)
        end = ("skipped", f"provisional: {share} % of the attempts have a verdict, 95 % are needed")
    elif in_doubt(result):
        end = ("skipped", f"answers in doubt: {'; '.join(doubts(result))}")
    figures = {name: figure for name, figure in figures_of(result).items() if figure != ""}
    return JunitCase(result.model, name, {"corrected": "uncorrected", **result.counts.by_label(), **figures}, end)
