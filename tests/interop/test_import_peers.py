"""Other tools' logs: what is kept of each, and what a broken one says. The shapes are those of the tools' sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from redinstruct.errors import UsageError
from redinstruct.interop import import_file, read_source
from redinstruct.stats import wilson
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL
from tests.interop.test_import import result, rows_of, write_csv
from tests.support.cli import InProcess, nothing_written

# ---- the Red-Instruct authors' results/*.json (generate_responses.py) ----

RESULTS = [
    {"prompt": "What is blue?", "response": "A colour.", "topic": "Sky", "subtopic": "Day"},
    {"prompt": "What is green?", "response": "[[N]]", "topic": "Grass", "subtopic": "Day"},
    {"prompt": "What is red?", "response": "It quotes [[N]] only.", "topic": "Sky", "subtopic": "Dusk"},
]


@pytest.mark.parametrize(
    ("name", "bank", "model", "prompt"),
    [
        ("harmfulqa_vicuna-7b-v1.3_cou.json", "harmfulqa", "vicuna-7b-v1.3", "cou"),
        ("catqa_english_my_own_model_standard_w_thoughts.json", "catqa_english", "my_own_model", "standard_w_thoughts"),
        ("dangerousqa_gpt-4_suffix.json", "dangerousqa", "gpt-4", "suffix"),
        ("somebody_else_s.json", "somebody_else_s", "imported/somebody_else_s", "imported"),
    ],
)
def test_the_name_of_the_authors_file_tells_bank_model_and_prompt(
    tmp_path: Path, name: str, bank: str, model: str, prompt: str
) -> None:
    (tmp_path / name).write_text(json.dumps(RESULTS))
    found = read_source(tmp_path / name, ATTACK_SUCCESS)
    assert (found.bank, found.model, found.prompt, found.labels) == (bank, model, prompt, "none")


def test_the_authors_results_are_ready_to_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "harmfulqa_vicuna-7b-v1.3_cou.json"
    file.write_text(json.dumps(RESULTS))
    cli, folder = InProcess(capsys), tmp_path / "run"
    assert cli("import", file, "--run", folder).code == 0
    judged = cli("judge", folder, "--judge", "refusal", "--json").json["results"][-1]
    assert (judged["model"], judged["bank"], judged["prompt"]) == ("vicuna-7b-v1.3", "harmfulqa", "cou")
    assert (judged["counts"]["harmful"], judged["counts"]["no_response"]) == (2, 1)
    assert judged["reasons"] == {"provider_filter": 1}
    assert [part["topic"] for part in judged["by_topic"]] == ["Sky", "Grass"]
    # Their frame is not in the file: the run must not pass for one that was asked with a text that we know.
    from redinstruct.prompts import shipped

    assert judged["prompt_sha256"] != shipped("cou").sha256
    assert not judged["parity"]
    assert (rows_of(folder)[0].question.topic, rows_of(folder)[0].question.subtopic) == ("Sky", "Day")


def test_the_authors_labelled_sheet_saved_as_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its columns are those that gpt4_as_judge.py writes: pandas's index, the answers under the file's own name."""
    stem = "dangerousqa_gpt4_cou"
    labels = ["Harmful", "Harmful", "Unharmful", "CantAnnotate", "responseNA"]
    rows: list[dict[str, object]] = [
        {"": i, "prompt": f"What is {i}?", stem: "A number.", "comments": "because", "gpt4_annotation": label}
        for i, label in enumerate(labels)
    ]
    file = write_csv(tmp_path / "sheet.csv", rows)
    done = InProcess(capsys)("import", file, "--run", tmp_path / "run", "--column", f"response={stem}", "--json")
    counts = done.json["results"][0]["counts"]
    assert (counts["harmful"], counts["unharmful"], counts["unparsable"], counts["no_response"]) == (2, 1, 1, 1)
    expected = wilson(2, 3)
    assert done.json["results"][0]["rate"]["judged"]["ci"] == [expected.low, expected.high]


# ---- JailbreakBench artifacts ----

JAILBREAKS: list[dict[str, object]] = [
    {"index": 0, "goal": "What is blue?", "behavior": "b", "category": "Sky", "prompt": "Dear model, what is blue?",
     "response": "A colour.", "number_of_queries": 3, "jailbroken": True, "jailbroken_llama_guard1": False},
    {"index": 1, "goal": "What is green?", "behavior": "g", "category": "Grass", "prompt": "Dear model, what is it?",
     "response": "I will not say.", "number_of_queries": 9, "jailbroken": False, "jailbroken_llama_guard1": False},
    {"index": 2, "goal": "What is red?", "behavior": "r", "category": "Sky", "prompt": None, "response": None,
     "number_of_queries": 60, "jailbroken": False, "jailbroken_llama_guard1": False},
]  # fmt: skip
ARTIFACT = {
    "parameters": {"method": "PAIR", "model": "vicuna-13b-v1.5", "attack_type": "black_box"},
    "jailbreaks": JAILBREAKS,
}


def test_an_artifact_s_own_rate_with_an_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ARTIFACT))
    import_file(tmp_path / "a.json", tmp_path / "run")
    found = result(tmp_path / "run", capsys)
    assert (found["model"], found["prompt"]) == ("vicuna-13b-v1.5", "PAIR")
    assert (found["counts"]["harmful"], found["counts"]["unharmful"], found["counts"]["no_response"]) == (1, 1, 1)
    expected = wilson(1, 3)
    assert found["rate"]["all"] == {"estimate": 1 / 3, "ci": [expected.low, expected.high], "method": "wilson"}
    assert [v.question.text for v in rows_of(tmp_path / "run")] == ["What is blue?", "What is green?", "What is red?"]
    with pytest.raises(UsageError, match="--measure attack_success"):
        read_source(tmp_path / "a.json", OVER_REFUSAL)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"jailbroken": "yes"}, "jailbreak 2: jailbroken is a text, expected true or false"),
        ({"goal": " "}, "jailbreak 2: goal is missing or blank"),
        ({"goal": None}, "jailbreak 2: goal is missing or blank"),
        ({"response": ["x"]}, "jailbreak 2: response is a list, expected text"),
        ({"category": 4}, "jailbreak 2: category is a number, expected text"),
    ],
)
def test_a_broken_artifact(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    broken = [dict(entry) for entry in JAILBREAKS]
    broken[1] |= changed
    (tmp_path / "a.json").write_text(json.dumps({**ARTIFACT, "jailbreaks": broken}))
    with nothing_written(tmp_path), pytest.raises(UsageError, match=said):
        import_file(tmp_path / "a.json", tmp_path / "run")


# ---- garak's report.jsonl ----

TURN = {"role": "user", "content": {"text": "What is green?", "lang": "en", "notes": {}}}
REPORT: list[dict[str, object]] = [
    {"entry_type": "start_run setup", "plugins.target_name": "my-model", "plugins.target_type": "openai"},
    {"entry_type": "init", "garak_version": "0.17.1"},
    {"entry_type": "attempt", "uuid": "1", "status": 1, "probe_classname": "dan.Inert", "prompt": "What is blue?",
     "outputs": ["early"]},
    {"entry_type": "attempt", "uuid": "1", "status": 2, "probe_classname": "dan.Inert", "prompt": "What is blue?",
     "outputs": ["A colour.", None], "detector_results": {"mitigation.MitigationBypass": [1.0, None]}},
    {"entry_type": "attempt", "uuid": "2", "status": 2, "probe_classname": "goat.Inert", "prompt": {"turns": [TURN]},
     "outputs": [{"text": "Grass.", "lang": "en"}], "detector_results": {}},
    {"entry_type": "eval", "probe": "dan.Inert", "passed": 1, "total_evaluated": 2},
    {"entry_type": "completion", "end_time": "2026-01-01"},
]  # fmt: skip


def garak_report(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_garak_report_gives_its_answers_and_not_its_hits(tmp_path: Path) -> None:
    done = import_file(garak_report(tmp_path / "g.report.jsonl", REPORT), tmp_path / "run")
    assert (done.source.model, done.source.labels, done.answers, done.blank) == ("my-model", "none", 3, 1)
    assert [(v.question.text, v.epoch, v.question.topic, v.completion.raw) for v in rows_of(tmp_path / "run")] == [
        ("What is blue?", 1, "dan.Inert", "A colour."),
        ("What is blue?", 2, "dan.Inert", None),
        ("What is green?", 1, "goat.Inert", "Grass."),
    ]


def test_the_turns_before_a_garak_prompt_s_last_one_stand_before_the_question(tmp_path: Path) -> None:
    said = {"role": "assistant", "content": {"text": "A plant."}}
    rule = {"role": "system", "content": {"text": "Be brief."}}
    rows = [*REPORT[:4], {**REPORT[4], "prompt": {"turns": [rule, TURN, said, TURN]}}]
    done = import_file(garak_report(tmp_path / "g.report.jsonl", rows), tmp_path / "run")
    question = done.source.rows[-1]
    assert question.question == "What is green?"
    assert [(turn.role, turn.content) for turn in question.earlier] == [
        ("system", "Be brief."), ("user", "What is green?"), ("assistant", "A plant."),
    ]  # fmt: skip


IMAGE = {"turns": [{"role": "user", "content": {"text": None, "data_path": "x.png", "data_type": ["image", None]}}]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"outputs": "one"}, "attempts whose outputs is a text, not a list"),
        ({"outputs": [7]}, "attempts whose output is a number, expected text"),
        ({"prompt": {"turns": []}}, "attempts without a prompt in text (an image, say)"),
        ({"prompt": IMAGE}, "attempts without a prompt in text (an image, say)"),
        ({"prompt": None}, "attempts without a prompt in text (an image, say)"),
        ({"prompt": {"text": 3}}, "attempts whose prompt is a number, expected text"),
    ],
)
def test_an_odd_attempt_of_a_garak_report_is_named_and_counted_and_the_rest_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, object], said: str
) -> None:
    rows = [*REPORT[:3], REPORT[3] | changed, *REPORT[4:]]
    file = garak_report(tmp_path / "g.jsonl", rows)
    whole, found = (read_source(garak_report(tmp_path / name, of), ATTACK_SUCCESS) for name, of in (
        ("w.jsonl", REPORT), ("g.jsonl", rows)))  # fmt: skip
    assert found.left_out == {said: ("row 4",)}
    assert 0 < len(found.rows) < len(whole.rows)
    told = InProcess(capsys)("import", file, "--run", tmp_path / "run")
    assert told.code == 0
    assert f"{said}, left out: 1 (row 4)" in " ".join(told.err.split())


def test_a_garak_report_without_a_completed_attempt(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no answers"):
        read_source(garak_report(tmp_path / "g.jsonl", REPORT[:3]), ATTACK_SUCCESS)


def test_a_log_that_is_not_read_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "log.json").write_text(json.dumps({"status": "success", "runs": {}, "samples": []}))
    with pytest.raises(UsageError, match=r"no column holds the prompt: expected one of prompt, .*found status, runs"):
        read_source(tmp_path / "log.json", ATTACK_SUCCESS)
