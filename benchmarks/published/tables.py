"""What each source prints, and the same figure by this tool: imported as a run, then read from its report.

The printed figure is always read from the source's own file, never written here; PyRIT's alone stands in an issue
thread, so that it is quoted with its address. A rate is equal when it is the same at the digits that were printed.
"""

from __future__ import annotations

import csv
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import yaml

import redinstruct
from benchmarks.published.sources import Library
from redinstruct.interop import ImportSettings, import_file
from redinstruct.judges.refusal import opens_with_refusal
from redinstruct.stats import cohen_kappa, krippendorff_alpha, wilson


class Rate(msgspec.Struct, frozen=True):
    """One printed figure beside ours. ``low`` and ``high``: our 95 % interval, where one is defined for it.

    ``note`` is what else ours says of the same answers, or why they differ.
    """

    source: str
    what: str
    printed: str
    ours: Decimal
    n: int
    low: float | None = None
    high: float | None = None
    note: str = ""

    @property
    def written(self) -> str:
        """Ours with the digits and the sign of per cent of the printed one, halves rounded up."""
        percent = self.printed.endswith("%")
        digits = Decimal(self.printed.rstrip("%"))
        value = (self.ours * 100 if percent else self.ours).quantize(
            Decimal(1).scaleb(_exponent(digits)), ROUND_HALF_UP
        )
        return f"{value}%" if percent else str(value)

    @property
    def equal(self) -> bool:
        """Whether ours is the printed one at the digits that were printed."""
        return Decimal(self.written.rstrip("%")) == Decimal(self.printed.rstrip("%"))


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    return exponent


def _exact(part: int, of: int) -> Decimal:
    """A share as a decimal, so that halves are halves: 139/200 is .695, which no float is."""
    return Decimal(part) / Decimal(of)


class Counted(msgspec.Struct, frozen=True):
    """A run's one result: its first label's count of all, and the interval of that rate."""

    first: int
    total: int
    judged: float | None
    low: float
    high: float


def _counted(file: Path, measure: str, **given: Any) -> Counted:  # `given` goes on to import_file, which is typed
    with tempfile.TemporaryDirectory() as folder:
        import_file(file, Path(folder) / "run", ImportSettings(measure=measure, **given))
        (result,) = redinstruct.report(Path(folder) / "run")["results"]
    counts, rate = result["counts"], result["rate"]
    first = counts["harmful" if measure == "attack_success" else "refused"]
    return Counted(first, counts["total"], rate["judged"]["estimate"], *rate["all"]["ci"])


def jailbreakbench(library: Library) -> Iterator[Rate]:
    """Each artifact's ``attack_success_rate``: jailbroken of 100 behaviours, where no answer counts as no success."""
    for name in library.files("jailbreakbench"):
        file = library.path("jailbreakbench", name)
        printed = json.loads(file.read_bytes())["parameters"]["attack_success_rate"]
        ours = _counted(file, "attack_success")
        note = "" if ours.judged is None else f"of the judged answers alone {ours.judged:.2f}"
        what = " ".join(Path(name).with_suffix("").parts[1:])
        yield Rate(
            "jailbreakbench", what, str(printed), _exact(ours.first, ours.total), ours.total, ours.low, ours.high, note
        )


def refusal_direction(library: Library) -> Iterator[Rate]:
    """Success by LlamaGuard 2 and by substrings, before and after the direction is taken out or added."""
    for name in library.files("refusal_direction"):
        whole = json.loads(library.path("refusal_direction", name).read_bytes())
        model, kind = Path(name).parts[2], Path(name).stem.removesuffix("_evaluations")
        rows = whole["completions"]
        refused = sum(opens_with_refusal(row["response"]) for row in rows)
        for judge in ("llamaguard2", "substring_matching"):
            if f"{judge}_success_rate" not in whole:
                continue
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "completions.json"
                file.write_text(json.dumps(rows), encoding="utf-8")
                ours = _counted(file, "attack_success", columns={"judge": f"is_jailbreak_{judge}"})
            note = f"by the `refusal` judge {1 - refused / len(rows):.2f}" if judge == "substring_matching" else ""
            printed = str(whole[f"{judge}_success_rate"])
            yield Rate(
                "refusal_direction",
                f"{model} {kind} {judge}",
                printed,
                _exact(ours.first, ours.total),
                ours.total,
                ours.low,
                ours.high,
                note,
            )


def pairs(library: Library) -> Iterator[Rate]:
    """Five models before and after their refusal direction is taken out: the difference of two printed rates."""
    for before in library.files("refusal_direction"):
        if not before.endswith("jailbreakbench_baseline_evaluations.json"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rates = []
            for name, file in (("before", before), ("after", before.replace("baseline", "ablation"))):
                whole = json.loads(library.path("refusal_direction", file).read_bytes())
                rates.append(Decimal(str(whole["llamaguard2_success_rate"])))
                rows = Path(folder) / f"{name}.json"
                rows.write_text(json.dumps(whole["completions"]), encoding="utf-8")
                # One bank, so that the two runs' questions are the same ones.
                bank = rows.rename(rows.with_name("jailbreakbench.json"))
                import_file(bank, Path(folder) / name, ImportSettings(columns={"judge": "is_jailbreak_llamaguard2"}))
            (result,) = redinstruct.compare(Path(folder) / "before", Path(folder) / "after").results
        difference = result.difference
        assert difference is not None
        exact = Decimal(round((difference.estimate or 0) * 100)) / 100
        yield Rate(
            "refusal_direction pairs",
            f"{Path(before).parts[2]} baseline to ablation",
            str(rates[1] - rates[0]),
            exact,
            len(whole["completions"]),
            difference.low,
            difference.high,
            result.verdict,
        )


_XSTEST = ("llama2orig", "llama2new", "mistralinstruct", "mistralguard", "gpt4")


def xstest(library: Library) -> Iterator[Rate]:
    """Over-refusal on the 250 safe prompts by people, by strings and by GPT-4, and how two people agree: the notebook.

    Printed are three shares; ours has two labels and a detail, so that full compliance is what was not refused.
    """
    cells = json.loads(library.path("xstest", "evaluation/analysis.ipynb").read_bytes())["cells"]
    tables = [
        _safe_half("".join(out["data"]["text/html"]))
        for out in _outputs(cells, '"strmatch_label", "gpt4_label"]')
        if "data" in out
    ]
    columns = ("final_label", "strmatch_label", "gpt4_label")
    for place, table in enumerate(tables):
        model, column = _XSTEST[place // 3], columns[place % 3]
        source = "streval" if column == "strmatch_label" else "gpteval"
        file = library.path(
            "xstest", f"evaluation/automated_evaluation_labels/xstest_v2_completions_{model}_{source}.csv"
        )
        # The people's own column is imported as people's; another judge's must not be settled by them.
        chosen = {"human": column} if column == "final_label" else {"judge": column}
        ours = _counted(_only(file, column), "over_refusal", columns=chosen)
        printed = table["1_full_compliance"]
        yield Rate(
            "xstest",
            f"{model} complied, {column}",
            printed,
            _exact(ours.total - ours.first, ours.total),
            ours.total,
            1 - ours.high,
            1 - ours.low,
        )
    yield from _two_people(library, cells)


def _outputs(cells: list[Any], code: str) -> list[Any]:
    return next(cell["outputs"] for cell in cells if code in "".join(cell["source"]))


def _safe_half(html: str) -> dict[str, str]:
    head, rows = html.split("</thead>")
    names = re.findall(r">(\d_\w+)</th>", head)
    return dict(zip(names, re.findall(r">([\d.]+%)</td>", rows.split("</tr>")[0]), strict=False))


def _only(file: Path, column: str) -> Path:
    """The table with this column of labels alone, beside it in a folder of its own."""
    with file.open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    place = Path(tempfile.mkdtemp()) / file.name
    with place.open("w", encoding="utf-8", newline="") as out:
        table = csv.DictWriter(out, ["type", "prompt", "completion", column], extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    return place


def _two_people(library: Library, cells: list[Any]) -> Iterator[Rate]:
    printed = ["".join(_outputs(cells, code)[0]["text"]) for code in ("agreement.mean()", "fleiss_kappa(aggregate")]
    for model in _XSTEST:
        file = library.path("xstest", f"model_completions/xstest_v2_completions_{model}.csv")
        with file.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
        raters = [[row[f"annotation_{who}"] for row in rows] for who in (1, 2)]
        alike = sum(one == two for one, two in zip(*raters, strict=True))
        (share,) = re.findall(rf"{model}:\t(\S+) agreement", printed[0])
        ends = wilson(alike, len(rows))
        yield Rate(
            "xstest", f"{model} two people agree", share, _exact(alike, len(rows)), len(rows), ends.low, ends.high
        )
        (kappa,) = re.findall(rf"{model}:\t(\S+) fleiss", printed[1])
        alpha = krippendorff_alpha(raters)
        cohen = cohen_kappa(raters[0], raters[1])
        assert alpha is not None
        # Scott's pi, which Fleiss' kappa is for two raters, is alpha without its correction for few items.
        fleiss = 1 - (1 - alpha) * (2 * len(rows)) / (2 * len(rows) - 1)
        note = f"Krippendorff's alpha {alpha:.3f}, Cohen's kappa {cohen:.3f}"
        yield Rate("xstest", f"{model} Fleiss' kappa", kappa, Decimal(fleiss), len(rows), note=note)


_MATCH: dict[str, Callable[[str, str], bool]] = {"prefix": str.startswith, "substring": str.__contains__}
_ROW = re.compile(r"\|\s*StringMatch-(\S+)\s*\|([^|]*)\|([^|]*)\|")


def jailbreakeval(library: Library) -> Iterator[Rate]:
    """Accuracy, recall, precision and F1 of nine published string matchers against labels, from our confusion table.

    The phrases come from the source's files; each matcher's verdicts are imported beside the labels, as a judge's.
    """
    readme = library.path("jailbreakeval", "README.md").read_text(encoding="utf-8")
    printed = {name: [cell.split("/") for cell in both] for name, *both in _ROW.findall(readme)}
    for place, data in enumerate(("Safe-RLHFmini", "JAILJUDGEmini")):
        with library.path("jailbreakeval", f"data/{data}.csv").open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
        for preset in library.files("jailbreakeval", "jailbreakeval/presets/"):
            name = Path(preset).stem.removeprefix("StringMatching-")
            rules = yaml.safe_load(library.path("jailbreakeval", preset).read_text(encoding="utf-8"))
            confusion, rate = _held_against(rows, [_success(rules, row["answer"]) for row in rows])
            for figure, said in zip(_figures(confusion), printed[name][place], strict=True):
                what, share, of = figure
                ends = wilson(share, of) if what != "F1" and of else None
                low, high = (ends.low, ends.high) if ends else (None, None)
                ours = _exact(share, of) if of else Decimal(0)
                yield Rate(
                    f"jailbreakeval {data}",
                    f"{name} {what}",
                    said.strip(),
                    ours,
                    len(rows),
                    low,
                    high,
                    rate if what == "accuracy" else "",
                )


def _success(rules: dict[str, Any], answer: str) -> bool:
    fold: Callable[[str], str] = str.casefold if rules.get("caseless") else str
    match, text = _MATCH[rules.get("matching", "prefix")], fold(answer)

    def hits(list_name: str) -> list[bool]:
        return [match(text, fold(phrase)) for phrase in rules.get(list_name) or ()]

    wanted = hits("must_match_any")
    return not any(hits("must_mismatch_all")) and (not wanted or any(wanted)) and all(hits("must_match_all"))


def _held_against(rows: list[dict[str, str]], successes: list[bool]) -> tuple[dict[tuple[bool, bool], int], str]:
    """(judge, people) -> count, by an import of both and the report; and the rate that people's labels correct."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "answers.csv"
        with file.open("w", encoding="utf-8", newline="") as out:
            table = csv.writer(out)
            table.writerow(["question", "answer", "jailbroken", "human"])
            for row, success in zip(rows, successes, strict=True):
                table.writerow(
                    [row["question"], row["answer"], success, "harmful" if row["label"] == "1" else "unharmful"]
                )
        run = Path(folder) / "run"
        import_file(file, run, ImportSettings(columns={"judge": "jailbroken", "human": "human"}, annotator="published"))
        (result,) = redinstruct.report(run)["results"]
    table = result["human"]["confusion"]
    of: dict[bool, str] = {True: "harmful", False: "unharmful"}
    counts = {(judge, people): table[of[judge]][of[people]] for judge in of for people in of}
    whole = result["rate"]["corrected_run"]["estimate"]
    return counts, f"judged {result['rate']['judged']['estimate']:.2f}, by the labels {whole:.2f}"


def _figures(confusion: dict[tuple[bool, bool], int]) -> list[tuple[str, int, int]]:
    """Name, numerator and denominator, so that no share is rounded on its way."""
    hit, false, missed = confusion[True, True], confusion[True, False], confusion[False, True]
    right = hit + confusion[False, False]
    return [
        ("accuracy", right, sum(confusion.values())),
        ("recall", hit, hit + missed),
        ("precision", hit, hit + false),
        ("F1", 2 * hit, 2 * hit + false + missed),
    ]


_PYRIT = {
    "violence_multi_score": ("0.766", "32.1%", "31.0%"),
    "hate_speech_multi_score": ("0.861", "42.2%", "17.6%"),
    "mini_hate_speech": ("0.659", "20.0%", "26.7%"),
}
"""Ordinal alpha, all three raters alike, and harmful or not by one vote: as printed in microsoft/PyRIT#2628."""
_HALF = Fraction(1, 2)


def pyrit(library: Library) -> Iterator[Rate]:
    """Three raters on five levels of harm: ordinal alpha and two shares, as the issue that asks for them prints."""
    for path in library.files("pyrit"):
        name = Path(path).stem
        lines = library.path("pyrit", path).read_text(encoding="utf-8-sig").splitlines(keepends=True)
        rows = list(csv.DictReader(lines[1:]))
        scores = [[Fraction(row[f"human_score_{who}"]) for row in rows] for who in (1, 2, 3)]
        alpha = krippendorff_alpha(scores, order=sorted({score for rater in scores for score in rater}))
        assert alpha is not None
        answers = list(zip(*scores, strict=True))
        same = sum(len(set(answer)) == 1 for answer in answers)
        narrow = sum(0 < sum(score >= _HALF for score in answer) < len(answer) for answer in answers)
        first, second, third = _PYRIT[name]
        yield Rate("pyrit", f"{name} ordinal alpha", first, Decimal(alpha), len(rows))
        for what, printed, count in (("three alike", second, same), ("one vote decides", third, narrow)):
            ends = wilson(count, len(rows))
            yield Rate("pyrit", f"{name} {what}", printed, _exact(count, len(rows)), len(rows), ends.low, ends.high)


TABLES: dict[str, Callable[[Library], Iterator[Rate]]] = {
    "jailbreakbench": jailbreakbench,
    "refusal_direction": refusal_direction,
    "refusal_direction pairs": pairs,
    "xstest": xstest,
    "jailbreakeval": jailbreakeval,
    "pyrit": pyrit,
}
