"""The report as JUnit XML, for a CI system's page: a test case per result, its figures as properties.

A report holds nothing against a limit; that is what ``redinstruct gate`` is for. So a result with figures passes, one
that is provisional, or rests on answers that say nothing, is skipped with the reason, and one of which nothing was
judged is an error.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import msgspec

from redinstruct.figures.numbers import percent
from redinstruct.figures.report import Report, ResultFigures
from redinstruct.render.words import doubts, in_doubt
from redinstruct.safetext import terminal


def junit_text(report: Report) -> str:
    """The figures of ``redinstruct.results/1`` as JUnit XML."""
    results = report.results
    judged = [r.rate.judged.estimate is not None for r in results]
    skipped = [known and (r.provisional or bool(in_doubt(r))) for known, r in zip(judged, results, strict=True)]
    suite = ElementTree.Element(
        "testsuite",
        name="redinstruct report",
        tests=str(len(results)),
        failures="0",
        errors=str(judged.count(False)),
        skipped=str(skipped.count(True)),
    )
    for result, known, is_skipped in zip(results, judged, skipped, strict=True):
        name = f"{result.measure}: {result.bank}/{result.prompt} ({result.judge_id})"
        case = ElementTree.SubElement(suite, "testcase", classname=terminal(result.model), name=terminal(name))
        properties = ElementTree.SubElement(case, "properties")
        for key, value in _figures(result).items():
            ElementTree.SubElement(properties, "property", name=key, value=terminal(str(value)))
        if not known:
            ElementTree.SubElement(case, "error", message="nothing was judged")
        elif is_skipped:
            message = f"provisional: {percent(result.coverage)} % of the attempts have a verdict, 95 % are needed"
            if not result.provisional:
                message = f"answers in doubt: {'; '.join(doubts(result))}"
            ElementTree.SubElement(case, "skipped", message=message)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _figures(result: ResultFigures) -> dict[str, object]:
    found: dict[str, object] = {"planned": result.planned, "total": result.counts.total, **result.counts.by_label()}
    found["coverage"] = result.coverage
    rate = result.rate
    for name, figure in (("judged", rate.judged), ("all", rate.all), ("corrected", rate.corrected)):
        if figure is None:
            found[name] = "uncorrected"
        elif figure.estimate is not None:
            found |= {name: figure.estimate, f"{name}_low": figure.low, f"{name}_high": figure.high}
    found |= msgspec.structs.asdict(result.answers)
    return found | {"bound_low": rate.bounds[0], "bound_high": rate.bounds[1]}
