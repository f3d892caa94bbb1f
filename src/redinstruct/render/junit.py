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
from redinstruct.render.words import doubts, in_doubt
from redinstruct.safetext import shown

EndKind = Literal["failure", "error", "skipped"]


class End(msgspec.Struct, frozen=True):
    """How a case ended that did not pass, and why."""

    outcome: EndKind
    why: str


class JunitCase(msgspec.Struct, frozen=True):
    """A test case of a suite. ``end`` None: it passed."""

    classname: str
    name: str
    properties: Mapping[str, float | str] = {}
    end: End | None = None


def junit_xml(suite: str, cases: Sequence[JunitCase]) -> str:
    """A suite as JUnit XML. Every text of any origin is shown, and stays in its attribute."""

    def count(outcome: EndKind) -> str:
        return str(sum(case.end is not None and case.end.outcome == outcome for case in cases))

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
            ElementTree.SubElement(entry, case.end.outcome, message=shown(case.end.why))
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def junit_text(report: Report) -> str:
    """The figures of ``redinstruct.results/1`` as JUnit XML."""
    return junit_xml("redinstruct report", [_case(result) for result in report.results])


def _case(result: ResultFigures) -> JunitCase:
    name = f"{result.measure}: {result.bank}/{result.prompt} ({result.judge_id})"
    end = None
    if result.rate.judged.estimate is None:
        end = End("error", "nothing was judged")
    elif result.provisional:
        share = percent(result.coverage)
        end = End("skipped", f"provisional: {share} % of the attempts have a verdict, 95 % are needed")
    elif in_doubt(result):
        end = End("skipped", f"answers in doubt: {'; '.join(doubts(result))}")
    return JunitCase(result.model, name, _figures(result), end)


def _figures(result: ResultFigures) -> dict[str, float | str]:
    found: dict[str, float | str] = {
        "planned": result.planned,
        "total": result.counts.total,
        **result.counts.by_label(),
    }
    found["coverage"] = result.coverage
    rate = result.rate
    for name, figure in (("judged", rate.judged), ("all", rate.all), ("corrected", rate.corrected)):
        if figure is None:
            found[name] = "uncorrected"
        elif figure.estimate is not None:
            found |= {name: figure.estimate, f"{name}_low": figure.low, f"{name}_high": figure.high}
    found |= msgspec.structs.asdict(result.answers)
    return found | {"bound_low": rate.bounds[0], "bound_high": rate.bounds[1]}
