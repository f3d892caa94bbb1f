"""Logs of promptfoo, lm-evaluation-harness, deepteam and HarmBench: counts as the tool's own, odd rows named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redinstruct.errors import UsageError
from redinstruct.interop import ImportSettings, import_file, read_source
from redinstruct.types import ATTACK_SUCCESS
from tests.interop.test_import import rows_of
from tests.interop.test_inspect_log import counts
from tests.support.cli import InProcess

Held = dict[str, Any]
FIXTURES = Path(__file__).parent.parent / "fixtures" / "interop"


def written(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def lines(path: Path, rows: list[Held]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# ---- promptfoo ----


def promptfoo(path: Path, *rows: Held) -> Path:
    head = {"version": 3, "timestamp": "2026-11-29", "prompts": [{"raw": "{{q}}", "provider": "stub:m"}]}
    return written(path, {"evalId": "eval-1", "results": {**head, "results": list(rows), "stats": {}}, "config": {}})


def asked(text: str, output: object, success: bool | None, **further: object) -> Held:
    return {"prompt": {"raw": text, "label": "x"}, "response": {"output": output}, "success": success,
            "provider": {"id": "stub:m"}, **further}  # fmt: skip


def test_promptfoo_s_findings_are_successes_and_its_errors_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack = {"metadata": {"pluginId": "paint", "strategyId": "basic"}}
    turns = json.dumps([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."},
                        {"role": "user", "content": "What is far?"}])  # fmt: skip
    log = promptfoo(
        tmp_path / "results.json",
        asked("What is blue?", "A colour.", success=True, **attack),
        asked("What is green?", "Grass.", success=False, failureReason=1, **attack),
        asked(turns, {"text": "Away."}, success=False, failureReason=1, **attack),
        {**asked("What is red?", None, success=False, failureReason=2, error="timed out", **attack)},
        asked("What is grey?", "Stone.", success=None, **attack),
        {"prompt": 7, "success": True},
    )
    told = InProcess(capsys)("import", log, "--run", tmp_path / "run")
    assert told.code == 0
    assert counts(tmp_path / "run") == {"promptfoo": {"harmful": 2, "unharmful": 1, "error": 1, "unparsable": 1}}
    assert "left out: 1 (row " in " ".join(told.err.split())
    views = rows_of(tmp_path / "run")
    assert (views[2].question.text, len(views[2].question.earlier), views[0].question.topic) == (
        "What is far?", 2, "paint",
    )  # fmt: skip
    assert read_source(log, ATTACK_SUCCESS).model == "stub:m"


def test_a_pass_of_an_ordinary_promptfoo_evaluation_is_said_to_be_taken_for_harmless(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = promptfoo(tmp_path / "r.json", asked("What is blue?", "A colour.", success=True))
    told = InProcess(capsys)("import", log, "--run", tmp_path / "run")
    assert counts(tmp_path / "run") == {"promptfoo": {"unharmful": 1}}
    assert "promptfoo's pass is counted as unharmful; --one harmful turns it round" in " ".join(told.err.split())
    import_file(log, tmp_path / "other", ImportSettings(one="harmful"))
    assert counts(tmp_path / "other") == {"promptfoo": {"harmful": 1}}


def test_a_promptfoo_log_of_several_models_is_no_run_of_the_first(tmp_path: Path) -> None:
    log = promptfoo(
        tmp_path / "r.json",
        asked("What is blue?", "A colour.", success=True),
        {**asked("What is blue?", "A hue.", success=False), "provider": {"id": "stub:other"}},
    )
    with pytest.raises(UsageError, match=r"row 3 .* is of stub:other, and the rows before it are of stub:m"):
        import_file(log, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ---- lm-evaluation-harness ----


def sample(number: int, text: str, answers: object, **further: object) -> Held:
    return {"doc_id": number, "doc": {"prompt": text, "topic": "Sky"}, "target": "x", "resps": [answers],
            "filtered_resps": answers, "filter": "none", "metrics": ["refusal"], "refusal": 1.0, **further}  # fmt: skip


def test_lm_eval_s_samples_their_repeats_and_metrics(tmp_path: Path) -> None:
    rows = [
        sample(0, "What is blue?", ["A colour.", "No."]),
        sample(1, "What is green?", ["Grass."], refusal=0.0),
        sample(2, "What is red?", [[-1.5, False]]),
        {"doc_id": 3, "doc": {"q": 1}, "resps": [["Far."]], "arguments": {"gen_args_0": {"arg_0": "What is far?"}}},
    ]
    done = import_file(lines(tmp_path / "samples_colours.jsonl", rows), tmp_path / "run")
    assert counts(tmp_path / "run") == {"lm-eval/refusal": {"unharmful": 2, "harmful": 1, "unparsable": 1}}
    assert sorted((v.question.text, v.epoch) for v in rows_of(tmp_path / "run")) == [
        ("What is blue?", 1), ("What is blue?", 2), ("What is far?", 1), ("What is green?", 1),
    ]  # fmt: skip
    assert done.source.left_out == {"rows that hold no question and answer in text (log-likelihoods, say)": ("row 3",)}


def test_what_several_filters_of_lm_eval_score_is_one_answer(tmp_path: Path) -> None:
    rows = [
        sample(number, text, ["A colour."], filter=kept, refusal=float(kept == "strict"))
        for kept in ("strict", "flexible")
        for number, text in enumerate(["What is blue?", "What is red?"])
    ]
    done = import_file(lines(tmp_path / "samples.jsonl", rows), tmp_path / "run")
    assert done.answers == 2
    assert counts(tmp_path / "run") == {
        "lm-eval/refusal,strict": {"unharmful": 2}, "lm-eval/refusal,flexible": {"harmful": 2},
    }  # fmt: skip


def test_a_sample_of_lm_eval_that_stands_twice_is_asked_twice(tmp_path: Path) -> None:
    """Files of several tasks, put together: each counts its documents from 0."""
    rows = [sample(0, "What is blue?", ["A colour."]), sample(0, "What is red?", ["A hue."])]
    done = import_file(lines(tmp_path / "samples.jsonl", [*rows, *rows]), tmp_path / "run")
    assert (done.answers, len(set(done.source.numbers))) == (4, 4)
    assert counts(tmp_path / "run") == {"lm-eval/refusal": {"unharmful": 4}}


# ---- deepteam ----


def test_deepteam_s_passes_are_defences(tmp_path: Path) -> None:
    cases = [
        {"input": "What is blue?", "actualOutput": "A colour.", "vulnerability": "Paint", "score": 1.0, "error": None},
        {"input": "What is green?", "actual_output": "Grass.", "vulnerability": "Paint", "score": 0, "error": None},
        {"input": "What is red?", "actualOutput": None, "vulnerability": "Hue", "score": None, "error": "timed out"},
        {"input": None, "turns": [{"role": "user", "content": "And far?"}, {"role": "assistant", "content": "Away."}],
         "vulnerability": "Hue", "score": 1.0},
        {"input": None, "vulnerability": "Hue", "error": "no attack was made"},
    ]  # fmt: skip
    log = written(tmp_path / "20261129.json", {"overview": {"errored": 2, "run_duration": 1.0}, "test_cases": cases})
    done = import_file(log, tmp_path / "run")
    assert counts(tmp_path / "run") == {"deepteam": {"unharmful": 2, "harmful": 1, "error": 1}}
    assert done.source.left_out == {"cases without an attack in text": ("row 5 (topic 2)",)}


# ---- HarmBench ----


@pytest.mark.parametrize("labelled", [True, False])
def test_harmbench_s_completions(tmp_path: Path, labelled: bool) -> None:
    rows = [{"test_case": "What is blue?", "generation": "A colour.", "label": 1},
            {"test_case": "Blue, please?", "generation": "", "label": 0},
            {"test_case": "Blue?", "generation": "No.", "label": 0}, {"test_case": 4, "generation": "x"}]  # fmt: skip
    held = rows if labelled else [{k: v for k, v in row.items() if k != "label"} for row in rows]
    done = import_file(written(tmp_path / "m.json", {"blue_paint": held, "red_paint": held}), tmp_path / "run")
    assert sum(map(len, done.source.left_out.values())) == 2
    assert done.source.labels == ("judge" if labelled else "none")
    assert {v.question.topic for v in rows_of(tmp_path / "run")} == {"blue_paint", "red_paint"}
    if labelled:
        assert counts(tmp_path / "run") == {"harmbench": {"harmful": 2, "unharmful": 2, "no_response": 2}}
        assert not done.source.notes


def test_rows_beside_their_rates_are_a_table(tmp_path: Path) -> None:
    """As andyrdt/refusal_direction publishes them."""
    rows = [{"prompt": "What is blue?", "response": "A colour.", "category": "Sky", "is_jailbreak": 1},
            {"prompt": "What is red?", "response": "No.", "category": "Sky", "is_jailbreak": 0}]  # fmt: skip
    log = written(tmp_path / "e.json", {"rate": 0.5, "per_category": {"Sky": 0.5}, "completions": rows})
    import_file(log, tmp_path / "run", ImportSettings(columns={"judge": "is_jailbreak"}))
    assert counts(tmp_path / "run") == {"imported": {"harmful": 1, "unharmful": 1}}


# ---- what no label is, where others are ----


def test_a_cell_that_is_no_label_among_labels_is_unparsable_of_a_judge_and_nothing_of_a_person(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a published file of XSTest's completions, where a grader wrote sentences into some cells."""
    table = tmp_path / "a.csv"
    table.write_text(
        "prompt,response,judge,human\nWhat is blue?,A.,harmful,harmful\nWhat is red?,B.,It is a hue.,unharmful\n"
        "What is far?,C.,unharmful,not sure\n"
    )
    told = InProcess(capsys)("import", table, "--run", tmp_path / "run")
    assert told.code == 0
    assert counts(tmp_path / "run") == {"imported": {"harmful": 1, "unharmful": 1, "unparsable": 1}}
    said = " ".join(told.err.split())
    assert "cells of judge that are no label, counted as unparsable: 1 (row 2 (line 3))" in said
    assert "cells of human that are no label, left out: 1 (row 3 (line 4))" in said
    assert "people's labels 2" in said


# ---- logs that the tools wrote ----


def test_a_log_that_lm_eval_wrote(tmp_path: Path) -> None:
    """lm_eval 0.4.13 on a stub: its own results say exact_match 0.0 of 3."""
    import_file(FIXTURES / "samples_colours.lm_eval-0.4.13.jsonl", tmp_path / "run")
    assert counts(tmp_path / "run") == {"lm-eval/exact_match": {"unharmful": 3}}
    assert [v.question.text for v in rows_of(tmp_path / "run")] == ["What is blue?", "What is green?", "What is red?"]


def test_a_log_that_garak_wrote(tmp_path: Path) -> None:
    """garak 0.17.1, probe test.Test on a stub (the digest was cut off): 40 outputs, 5 of them to an empty prompt."""
    done = import_file(FIXTURES / "garak-0.17.1.report.jsonl", tmp_path / "run")
    assert (done.answers, done.source.model) == (35, "m")
    assert {what: len(rows) for what, rows in done.source.left_out.items()} == {
        "attempts without a prompt in text (an image, say)": 1
    }
