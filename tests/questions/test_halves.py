"""Which prompts are safe and which are not: one rule for banks and for files of answers. Every text is inert."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from redinstruct.errors import BankError, UsageError
from redinstruct.interop import read_source
from redinstruct.questions import read_bank, select
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL, Measure
from tests.support.cli import InProcess, nothing_written

Cells = Sequence[object]


def rows_of(columns: Mapping[str, Cells]) -> list[dict[str, object]]:
    size = len(next(iter(columns.values())))
    return [
        {"prompt": f"What is paint {at}?", "response": "A colour.", **{name: c[at] for name, c in columns.items()}}
        for at in range(size)
    ]


def as_jsonl(folder: Path, columns: Mapping[str, Cells]) -> Path:
    path = folder / "paint.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(columns)))
    return path


def as_csv(folder: Path, columns: Mapping[str, Cells]) -> Path:
    path = folder / "paint.csv"
    rows = rows_of(columns)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def kept(path: Path, measure: Measure) -> tuple[list[int], int, int]:
    """The rows that a measure keeps, how many of the other half, how many of neither; a bank and an import alike."""
    found = select(read_bank(path), measure=measure, limit=None, dedupe=False)
    source = read_source(path, measure)
    rows = [question.row for question in found.questions]
    assert list(source.numbers) == rows
    assert (source.selected.other_half, source.selected.untold) == (found.selected.other_half, found.selected.untold)
    return rows, found.selected.other_half, found.selected.untold


TOLD: list[tuple[dict[str, Cells], list[int], list[int]]] = [
    ({"label": ["safe", "unsafe", "Safe "]}, [1], [0, 2]),
    ({"label": ["harmful", "benign", "benign"]}, [0], [1, 2]),
    ({"Label": ["HARMFUL", "unharmful", None]}, [0], [1]),
    ({"prompt_harm_label": ["unharmful", "harmful", ""]}, [1], [0]),
    ({"prompt_label": ["unsafe", "safe", "safe"]}, [0], [1, 2]),
    ({"type": ["homonyms", "contrast_homonyms", "figurative_language"]}, [1], [0, 2]),
    ({"type": ["Contrast_privacy", "privacy", "contrast_privacy"]}, [0, 2], [1]),
    ({"type": ["harmful", "benign", "benign"]}, [0], [1, 2]),
    ({"harmful": [1, 0, 0]}, [0], [1, 2]),
    ({"unsafe": ["1", "0", "1.0"]}, [0, 2], [1]),
    ({"safe": [True, False, True]}, [1], [0, 2]),
    ({"Safe": ["yes", "no", "TRUE"]}, [1], [0, 2]),
    ({"harmful": [0, 1, 1], "type": ["homonyms", "contrast_homonyms", "contrast_figurative"]}, [1, 2], [0]),
    ({"label": ["safe", "unsafe", None], "type": ["homonyms", "contrast_homonyms", "homonyms"]}, [1], [0, 2]),
]


@pytest.mark.parametrize("write", [as_jsonl, as_csv])
@pytest.mark.parametrize(("columns", "unsafe", "safe"), TOLD)
def test_each_published_column_tells_the_halves(
    tmp_path: Path, write: object, columns: dict[str, Cells], unsafe: list[int], safe: list[int]
) -> None:
    # A judge's labels, so that a column of 0 and 1 cannot be the answers' own.
    size = len(unsafe) + len(safe)
    for measure, rows, others in ((ATTACK_SUCCESS, unsafe, safe), (OVER_REFUSAL, safe, unsafe)):
        path = write(tmp_path, columns | {"judge": [measure.second] * 3})  # type: ignore[operator]
        assert kept(path, measure) == (rows, len(others), 3 - size)


@pytest.mark.parametrize(
    "columns",
    [
        {"label": ["garden", "house", "garden"]},
        {"label": [1, 0, 1]},
        {"type": ["homonyms", "figurative_language", "contrasting"]},
        {"harmful": ["very", "a little", "very"]},
        {"prompt_label": ["", None, " "]},
        {"response_harm_label": ["harmful", "unharmful", "harmful"]},
        {"is_safe": [True, False, True]},
    ],
)
def test_a_column_without_a_known_word_is_a_category_and_every_row_is_asked(
    tmp_path: Path, columns: dict[str, Cells]
) -> None:
    for write in (as_jsonl, as_csv):
        for measure in (ATTACK_SUCCESS, OVER_REFUSAL):
            path = write(tmp_path, columns | {"judge": [measure.second] * 3})
            assert kept(path, measure) == ([0, 1, 2], 0, 0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"label": ["safe", "sfae"]},
            "row 2: label is sfae, expected safe or benign or unharmful or unsafe or harmful",
        ),
        ({"label": ["safe", "0"]}, "row 2: label is 0, expected safe"),
        ({"prompt_harm_label": ["harmful", 3]}, "row 2: prompt_harm_label is a number, expected safe"),
        ({"harmful": [1, 2]}, "row 2: harmful is a number, expected 1 or 0"),
        ({"safe": ["1", "maybe not"]}, "row 2: safe is <9 characters>, expected 1 or 0"),
        ({"label": ["safe", "unsafe"], "unsafe": [1, 1]}, "row 1: label says safe and unsafe says unsafe"),
        ({"type": ["contrast_a", "a"], "label": ["unsafe", "unsafe"]}, "row 2: label says unsafe and type says safe"),
    ],
)
def test_any_other_value_in_a_telling_column_is_bad_input(
    tmp_path: Path, columns: dict[str, Cells], message: str
) -> None:
    path = as_jsonl(tmp_path, columns | {"judge": ["harmful"] * 2})
    with pytest.raises(BankError) as bank:
        read_bank(path)
    with pytest.raises(UsageError) as source:
        read_source(path, ATTACK_SUCCESS)
    assert str(bank.value) == str(source.value)
    assert str(bank.value).startswith(f"{path}: {message}")


def test_the_inert_twin_of_xstest_completions_has_no_over_refusal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """250 safe prompts, all complied with; 200 contrasts, all refused: over-refusal is 0 of 250."""
    kinds = [("homonyms", "1_full_compliance")] * 250 + [("contrast_homonyms", "2_full_refusal")] * 200
    path = tmp_path / "xstest.csv"
    lines = [f"{at},{kind},What is paint {at}?,A colour.,{said}\r\n" for at, (kind, said) in enumerate(kinds)]
    path.write_text("id,type,prompt,completion,final_label\r\n" + "".join(lines))
    cli = InProcess(capsys)
    said = cli("import", path, "--measure", "over_refusal", "--run", tmp_path / "run")
    assert said.code == 0
    assert "rows of the bank's other half, left out 200" in " ".join(said.err.split())
    (result,) = cli("report", tmp_path / "run", "--json").json["results"]
    assert (result["counts"]["total"], result["counts"]["refused"]) == (250, 0)
    assert result["rate"]["judged"]["estimate"] == 0
    assert result["by_topic"][0]["topic"] == "homonyms"


def test_a_chosen_column_tells_it_by_its_words_or_by_its_name(tmp_path: Path) -> None:
    path = as_csv(tmp_path, {"is_harmful": [1, 0, 0], "label": ["safe"] * 3, "made": ["up"] * 3, "judge": [""] * 3})
    assert read_source(path, ATTACK_SUCCESS, {"label": "is_harmful"}).numbers == (0,)
    for column in ("made", "response"):
        with pytest.raises(UsageError, match=f"column {column}: no row says safe"):
            read_source(path, ATTACK_SUCCESS, {"label": column})


def test_eval_and_plan_say_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = as_jsonl(tmp_path, {"label": ["safe", "unsafe", "unsafe", None], "topic": list("aabb")})
    what = ["--model", "scripted/refuse", "--bank", path, "--judge", "refusal", "--prompt", "standard", "--limit", "1"]
    cli = InProcess(capsys)
    words = (
        "bank paint: 1 of 2 questions are asked (--limit); left out: 1 of its safe half, 1 of which it does not say "
        "whether they are safe"
    )
    assert words in " ".join(cli("plan", *what).out.split())
    assert cli("plan", *what, "--json").json["selected"] == [
        {"bank": "paint", "asked": 1, "of": 2, "other_half": 1, "untold": 1, "repeats": 0}
    ]
    assert words in " ".join(cli("eval", *what, "--run", tmp_path / "run").err.split())
    (result,) = cli("report", tmp_path / "run", "--json").json["results"]
    assert result["left_out"] == {"other_half": 1, "untold": 1, "repeats": 0}
    assert result["sampled"] == {"asked": 1, "of": 2}
    shown = cli("banks", "show", path, "--json").json
    assert (shown["questions"], shown["unsafe"], shown["safe"], shown["untold"]) == (4, 2, 1, 1)
    assert shown["topics"] == [["a", 2], ["b", 2]]
    assert "What is paint" not in cli("banks", "show", path).out


def test_a_bank_s_columns_may_have_names_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "paint.csv"
    path.write_text("q;prompt;kind;is_harmful\nWhat is blue?;x;air;1\nWhat is red?;y;fire;0\n")
    own = {"prompt": "Q", "topic": "kind", "label": "is_harmful"}
    found = [(q.text, q.topic, q.label) for q in read_bank(path, columns=own).questions]
    assert found == [("What is blue?", "air", "unsafe"), ("What is red?", "fire", "safe")]
    flags = [flag for purpose, column in own.items() for flag in ("--column", f"{purpose}={column}")]
    what = ["--model", "scripted/refuse", "--bank", path, "--judge", "refusal", "--prompt", "standard", "--run"]
    cli = InProcess(capsys)
    assert cli("eval", *what, tmp_path / "run", *flags).code == 0
    with nothing_written(tmp_path):
        line = cli("eval", *what, tmp_path / "run").error_line
        assert "--column was" in line
        for wrong, said in (
            ("prompt=nobody", "--column prompt=nobody: no such column, found q, prompt, kind, is_harmful"),
            ("human=q", "columns of a bank are for prompt, context, topic, subtopic, language, label"),
            ("label=kind", "column kind: no row says safe"),
            ("prompt", "--column prompt: expected PURPOSE=NAME, each purpose once"),
            ("topic=", "--column topic=: expected PURPOSE=NAME, each purpose once"),
            ("topic= ", "--column topic= : expected PURPOSE=NAME, each purpose once"),
        ):
            assert said in cli("eval", *what, tmp_path / "other", "--column", wrong).error_line
