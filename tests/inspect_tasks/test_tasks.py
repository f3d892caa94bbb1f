"""RED-EVAL inside Inspect: the verdicts of ``eval``, a judge that is never the model under test; models of Inspect's.

Runs where inspect_ai is installed: ``make test-inspect`` makes such an environment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import InProcess, write_bank
from tests.support.endpoint import Endpoint

pytest.importorskip("inspect_ai", reason="inspect_ai is not installed: make test-inspect")

pytestmark = [pytest.mark.inspect, pytest.mark.filterwarnings("default")]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    # Inspect keeps models by their names: one of an earlier test would ask that test's address, again and again.
    from inspect_ai.model import _model

    _model._models.clear()
    with Endpoint() as endpoint:
        for name, value in endpoint.env().items():
            monkeypatch.setenv(name, value)
        yield endpoint


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(capsys)


def evaluated(task: str, folder: Path, *, grader: str | None = None, epochs: int = 1, **flags: Any) -> Any:
    """The log of one evaluation by Inspect."""
    from inspect_ai import eval as inspect_eval

    roles = {} if grader is None else {"model_roles": {"grader": grader}}
    (log,) = inspect_eval(
        f"redinstruct/{task}", model="openai-api/stub/m", task_args={**flags, "epochs": epochs}, log_dir=str(folder),
        display="none", **roles,
    )  # fmt: skip
    return log


def verdicts(log: Any) -> Counter[tuple[str, str]]:
    """(prompt, label) -> how often, of a log's first scorer."""
    return Counter(
        (sample.metadata["prompt"], score.answer) for sample in log.samples for score in [*sample.scores.values()][:1]
    )


def native(cli: InProcess, folder: Path, *flags: object) -> Counter[tuple[str, str]]:
    told = cli("eval", "--model", "openai-api/stub/m", "--run", folder, "--json", *flags)
    assert told.code == 0, told.err
    found: Counter[tuple[str, str]] = Counter()
    for result in told.json["results"]:
        for label, count in result["counts"].items():
            if label != "total" and count:
                found[result["prompt"], label] += count
    return found


@pytest.mark.parametrize("judge", ["paper", "refusal"])
def test_the_verdicts_of_eval_and_of_inspect_are_the_same_prompt_by_prompt(
    tmp_path: Path, stub: Endpoint, cli: InProcess, judge: str
) -> None:
    bank = write_bank(tmp_path, 6)
    asks = ("--judge-model", "openai-api/stub/j") if judge == "paper" else ()
    ours = native(cli, tmp_path / "run", "--bank", bank, "--judge", judge, "--epochs", 2, *asks)
    grader = "openai-api/stub/j" if judge == "paper" else None
    log = evaluated("red_eval", tmp_path / "logs", grader=grader, epochs=2, bank=str(bank), judge=judge)
    assert log.status == "success"
    assert verdicts(log) == ours
    assert sum(ours.values()) == 36
    assert {label for _, label in ours} == {"harmful", "unharmful"}
    # and once more by import: every sample is an attempt
    assert cli("import", log.location, "--run", tmp_path / "back").code == 0
    back = cli("report", tmp_path / "back", "--json").json["results"]
    assert {r["judge"] for r in back} == {f"inspect/{judge}"}
    assert {(r["prompt"], label): n for r in back for label, n in r["counts"].items() if label != "total" and n} == ours


def test_the_metrics_are_the_report_s_figures(tmp_path: Path, stub: Endpoint, cli: InProcess) -> None:
    bank = write_bank(tmp_path, 6)
    log = evaluated("red_eval", tmp_path / "logs", epochs=3, bank=str(bank), judge="refusal", prompt="cot")
    told = cli("eval", "--model", "openai-api/stub/m", "--run", tmp_path / "run", "--json", "--bank", bank,
               "--judge", "refusal", "--prompt", "cot", "--epochs", 3)  # fmt: skip
    (ours,) = told.json["results"]
    found = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    assert found["judged"] == pytest.approx(ours["rate"]["judged"]["estimate"])
    assert found["cot"] == found["judged"]
    assert [found["by_question_low"], found["by_question_high"]] == pytest.approx(ours["rate"]["judged"]["ci"])
    at_k = [ours["at_k"][k]["estimate"] for k in ("1", "2", "3")]
    assert [found[f"at_{k}"] for k in (1, 2, 3)] == pytest.approx(at_k)


def test_people_s_edits_in_the_log_correct_the_rate(tmp_path: Path, stub: Endpoint) -> None:
    from inspect_ai.log import ProvenanceData, edit_score, recompute_metrics
    from inspect_ai.scorer import ScoreEdit

    from redinstruct.stats import corrected

    log = evaluated("red_eval", tmp_path / "logs", bank=str(write_bank(tmp_path, 18)), judge="refusal", prompt="cot")
    judge = [sample.scores["refusal"].value > 0 for sample in log.samples]
    people = {}
    for place in range(0, 18, 2):
        sample = log.samples[place]
        people[place] = judge[place] if place % 6 else not judge[place]
        edit = ScoreEdit(value=float(people[place]), provenance=ProvenanceData(author="a", reason="read"))
        edit_score(log, sample.id, "refusal", edit, recompute_metrics=False, epoch=1)
    recompute_metrics(log)
    found = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
    expected = corrected(judge, people)
    assert found["corrected"] == pytest.approx(expected.estimate)
    assert (found["corrected_low"], found["corrected_high"]) == pytest.approx((expected.low, expected.high))


def test_a_grader_that_is_not_bound_is_an_error_and_never_the_model_under_test(tmp_path: Path, stub: Endpoint) -> None:
    bank = write_bank(tmp_path, 2)
    with pytest.raises(Exception, match="the model under test never judges itself"):
        evaluated("red_eval", tmp_path / "logs", bank=str(bank), judge="rubric")
    assert stub.requests == 0


def test_a_scorer_in_another_task_has_no_grader_either(tmp_path: Path, stub: Endpoint) -> None:
    stub.keep = True
    from inspect_ai import Task
    from inspect_ai import eval as inspect_eval
    from inspect_ai.dataset import Sample

    from redinstruct.inspect_tasks._registry import cou, paper

    task = Task(dataset=[Sample(input="What is blue?", target="x")], solver=cou(), scorer=paper())
    (log,) = inspect_eval(task, model="openai-api/stub/m", log_dir=str(tmp_path), display="none")
    assert log.status == "error"
    assert "never judges itself" in log.error.message
    assert not any("ResponseA:" in json.dumps(body) for body in stub.bodies)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"judge": "refusal"}, "-T bank=... is needed"),
        ({"bank": "x.json"}, "-T judge=... is needed"),
        ({"bank": "nowhere.json", "judge": "refusal"}, "nowhere.json"),
        ({"bank": "BANK", "judge": "refusal", "promt": "cou"}, "promt"),
        ({"bank": "BANK", "judge": "refusal", "chat_template": "none"}, "-T chat_template"),
        ({"bank": "BANK", "judge": "refusal", "column": "goal"}, "-T column=PURPOSE=NAME"),
        ({"bank": "BANK", "judge": "paper", "judge_option": "max_tokens"}, "-T judge_option=KEY=JSON"),
        ({"bank": "BANK", "judge": "oracle"}, "unknown judge"),
        ({"bank": "BANK", "judge": "refusal", "limit": "many"}, "limit"),
    ],
)
def test_wrong_flags_are_told_before_anything_is_asked(
    tmp_path: Path, stub: Endpoint, flags: dict[str, str], said: str
) -> None:
    bank = write_bank(tmp_path, 2)
    given: dict[str, Any] = {key: str(bank) if value == "BANK" else value for key, value in flags.items()}
    with pytest.raises(Exception, match=said):
        evaluated("red_eval", tmp_path / "logs", **given)
    assert stub.requests == 0


def test_a_system_prompt_a_limit_and_sampling_go_out_as_eval_sends_them(
    tmp_path: Path, stub: Endpoint, cli: InProcess
) -> None:
    bank = write_bank(tmp_path, 6)
    flags: dict[str, Any] = {
        "system": "Be brief.",
        "limit": 3,
        "seed": 7,
        "max_tokens": 40,
        "temperature": 0.5,
        "prompt": "cou",
    }
    stub.keep = True
    native(cli, tmp_path / "run", "--bank", bank, "--judge", "refusal", "--epochs", 2,
           *(part for key, value in flags.items() for part in (f"--{key.replace('_', '-')}", value)))  # fmt: skip
    ours, stub.bodies = list(stub.bodies), []
    evaluated("red_eval", tmp_path / "logs", epochs=2, bank=str(bank), judge="refusal", **flags)
    kept = ("messages", "seed", "max_tokens", "temperature")

    def plain(bodies: list[Any]) -> list[str]:
        return sorted(json.dumps([body.get(key) for key in kept], sort_keys=True) for body in bodies)

    assert len(ours) == 6
    assert plain(stub.bodies) == plain(ours)


def test_over_refusal_keeps_the_safe_half(tmp_path: Path, stub: Endpoint) -> None:
    bank = tmp_path / "halves.csv"
    bank.write_text("prompt,label\nHow do I paint a fence?,safe\nHow do I cut bread?,safe\nWhat is x?,unsafe\n")
    log = evaluated("over_refusal", tmp_path / "logs", bank=str(bank), judge="refusal", prompt="standard")
    assert len(log.samples) == 2
    assert {score.answer for sample in log.samples for score in sample.scores.values()} <= {"refused", "complied"}


# ---- inspect/<provider>/<model> in our own verbs ----


def test_a_model_of_inspect_s_is_a_target_a_judge_and_a_teacher(tmp_path: Path, stub: Endpoint, cli: InProcess) -> None:
    bank = write_bank(tmp_path, 4)
    ours = native(cli, tmp_path / "ours", "--bank", bank, "--judge", "paper", "--judge-model", "openai-api/stub/j")
    told = cli("eval", "--model", "inspect/openai-api/stub/m", "--bank", bank, "--judge", "paper", "--judge-model",
               "inspect/openai-api/stub/j", "--run", tmp_path / "theirs", "--json")  # fmt: skip
    assert told.code == 0, told.err
    theirs = {(r["prompt"], label): n for r in told.json["results"] for label, n in r["counts"].items()
              if label != "total" and n}  # fmt: skip
    assert theirs == ours
    assert {r["model"] for r in told.json["results"]} == {"inspect/openai-api/stub/m"}
    topics = tmp_path / "topics.json"
    topics.write_text(json.dumps({"Sky": ["Day"]}))
    collected = cli("collect", "--teacher", "inspect/openai-api/stub/t", "--topics", topics, "--per-subtopic", 1,
                    "--max-calls", 2, "--run", tmp_path / "data")  # fmt: skip
    assert collected.code in (0, 11), collected.err


@pytest.mark.parametrize(("fault", "label"), [("429", "unharmful"), ("500", "unharmful"), ("400", "error")])
def test_a_fault_is_tried_again_by_our_engine_and_typed(
    tmp_path: Path, stub: Endpoint, cli: InProcess, fault: str, label: str
) -> None:
    bank = write_bank(tmp_path, 4)
    stub.once = [fault]
    told = cli("eval", "--model", "inspect/openai-api/stub/m", "--bank", bank, "--judge", "refusal", "--prompt",
               "standard", "--run", tmp_path / "run", "--json")  # fmt: skip
    (found,) = told.json["results"]
    assert found["counts"]["total"] == 4
    if label == "error":
        assert found["counts"]["error"] == 1
        assert found["reasons"] == {"bad_request": 1}
    else:
        assert found["counts"]["error"] == 0
        assert stub.requests == 5


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("inspect/nobody/m", "inspect/nobody/m"),
        ("inspect/openai-api/missing/m", "MISSING"),
    ],
)
def test_a_provider_that_is_not_there_is_one_line(tmp_path: Path, cli: InProcess, model: str, said: str) -> None:
    told = cli("eval", "--model", model, "--bank", write_bank(tmp_path, 2), "--judge", "refusal", "--run",
               tmp_path / "run")  # fmt: skip
    assert told.code == 2
    assert said in told.err
    assert not (tmp_path / "run").exists()


def test_an_option_that_inspect_does_not_know(tmp_path: Path, stub: Endpoint, cli: InProcess) -> None:
    told = cli("eval", "--model", "inspect/openai-api/stub/m", "--model-option", "flavour=1", "--bank",
               write_bank(tmp_path, 2), "--judge", "refusal", "--run", tmp_path / "run")  # fmt: skip
    assert told.code == 2
    assert "GenerateConfig has no such field" in told.err


# ---- what we write, Inspect's own reader opens ----


@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_an_export_is_read_by_inspect_with_no_row_lost(tmp_path: Path, cli: InProcess, suffix: str) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries

    bank, folder, out = write_bank(tmp_path, 7), tmp_path / "run", tmp_path / "logs" / f"log{suffix}"
    out.parent.mkdir()
    cli("eval", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--epochs", 2, "--run", folder)
    assert cli("export", folder, "--to", "inspect", "--out", out).code == 0
    log = read_eval_log(str(out))
    assert (log.status, len(log.samples)) == ("success", 42)
    assert len({(sample.id, sample.epoch) for sample in log.samples}) == 42
    assert len(read_eval_log_sample_summaries(str(out))) == 42
    assert read_eval_log(str(out), header_only=True).results.total_samples == 42
    one = log.samples[5]
    assert read_eval_log_sample(str(out), id=one.id, epoch=one.epoch).messages[-1].role == "assistant"
    if suffix == ".eval":  # Inspect lists a .json by the form of its name alone
        assert [entry.name.endswith(out.name) for entry in list_eval_logs(str(out.parent))] == [True]
    before = {(r["prompt"], k): n for r in cli("report", folder, "--json").json["results"]
              for k, n in r["counts"].items() if k != "total" and n}  # fmt: skip
    assert Counter((s.id.rpartition(":")[2], s.scores["refusal"].answer) for s in log.samples) == before
