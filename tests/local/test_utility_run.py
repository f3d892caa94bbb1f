"""``redinstruct utility`` end to end on tiny checkpoints, with inert benchmark files and no network."""

from __future__ import annotations

import math
import os
import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

pytest.importorskip("lm_eval")

from redinstruct.errors import UsageError
from redinstruct.figures.scores import read_utility
from redinstruct.models.placement import Placement, placed
from redinstruct.run import Store, UtilityStore
from redinstruct.run.rows import to_json
from redinstruct.utility_check.data import find_hhh, read_hhh
from redinstruct.utility_check.hhh import Letters, prompts, wins
from redinstruct.utility_check.runs import check_utility
from redinstruct.utility_check.settings import UtilitySettings
from tests.support.benchmarks import HHH_SIZES, write_benchmarks
from tests.support.cli import InProcess, nothing_written, run, tree
from tests.support.echoing import EchoingEndpoint, logprob, pieces
from tests.support.workers import Nearby, NearbyEngine

pytestmark = pytest.mark.local


@pytest.fixture(scope="session")
def lettered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of ten thousand parameters that reads bytes: every text is its own, letters too."""
    return save_lettered(tmp_path_factory.mktemp("lettered") / "lettered")


def save_lettered(folder: Path, positions: int = 1024, train: bool = False) -> Path:
    """``train`` teaches it, for some seconds, to answer after ``A:`` in BBH's words, and to stop."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, intermediate_size=16, max_position_embeddings=positions, tie_word_embeddings=True,
            pad_token_id=0, bos_token_id=1, eos_token_id=2, initializer_range=0.1 if train else 0.5,
        )
    )  # fmt: skip
    if train:
        draw = random.Random(0)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(150):
            lines = [f"{draw.randrange(99)} is?\nA: {draw.choice(('True', 'Yes', 'No', '7', '(A)'))}\n\nQ: " * 3
                     for _ in range(16)]  # fmt: skip
            ids = [tokenizer(line).input_ids for line in lines]
            batch = torch.tensor([row[: min(map(len, ids))] for row in ids])
            model(input_ids=batch, labels=batch).loss.backward()
            optimiser.step()
            optimiser.zero_grad()
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer() -> Any:
    """One token per byte, and " A", " B" as larger tokenizers have them; an answer's first blank is not part of it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    space = "\N{LOWER ONE EIGHTH BLOCK}"
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256)),
             *map(chr, range(33, 127)), space, f"{space}A", f"{space}B"]  # fmt: skip
    merges = [(space, letter) for letter in "AB"]
    backend = Tokenizer(
        models.BPE({word: at for at, word in enumerate(words)}, merges, byte_fallback=True, unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace(space, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.fixture
def redinstruct(capfd: pytest.CaptureFixture[str]) -> InProcess:
    return InProcess(capfd)


def letters_by_torch(checkpoint: Path, contexts: list[str]) -> list[tuple[float, float]]:
    """The logits of `` A`` and `` B`` as the next token, computed here."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    a, b = (tokenizer.convert_tokens_to_ids(f"\N{LOWER ONE EIGHTH BLOCK}{letter}") for letter in "AB")
    found = []
    for context in contexts:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(context).input_ids])).logits[0, -1]
        found.append((float(logits[a]), float(logits[b])))
    return found


def test_the_paper_suite_on_inert_files(
    redinstruct: InProcess, lettered: Path, benchmarks: Path, tmp_path: Path
) -> None:
    """One run from beginning to end: groups, parts, HHH by hand, and the same command again asks nothing."""
    flags = ("utility", "--model", f"hf/{lettered}", "--suite", "paper", "--data", benchmarks, "--run", tmp_path / "r",
             "--json")  # fmt: skip
    done = redinstruct(*flags)
    assert done.code == 0, done.err
    figures = {found["task"]: found for found in done.json["results"]}
    assert list(figures) == ["truthfulqa_mc2", "mmlu", "bbh_fewshot", "hhh"]
    assert {name: (one["n"], one["tasks"], one["of"]) for name, one in figures.items()} == {
        "truthfulqa_mc2": (6, 1, 1),
        "mmlu": (14, 2, 57),
        "bbh_fewshot": (4, 1, 27),
        "hhh": (10, 4, 4),
    }
    cards = {card["task"]: card for card in done.json["tasks"]}
    assert (cards["mmlu_anatomy"]["shots"], cards["bbh_fewshot_navigate"]["shots"]) == (5, 3)
    assert cards["truthfulqa_mc2"]["version"] == "3.0"
    assert cards["truthfulqa_mc2"]["source"].startswith("sha256:")

    result = read_utility(tmp_path / "r")
    assert result.complete
    values = {one.task: one.values for one in result.tasks}
    for part, path in find_hhh(benchmarks).items():
        pairs = letters_by_torch(lettered, [prompt for item in read_hhh(path) for prompt in prompts(item)])
        by_hand = [wins(Letters(*first, *second)) for first, second in zip(pairs[::2], pairs[1::2], strict=True)]
        assert values[f"hhh_{part}"] == tuple(map(float, by_hand))
        assert len(by_hand) == HHH_SIZES[part]

    again = redinstruct(*flags)
    assert again.code == 0
    assert again.json == done.json


@pytest.mark.slow
def test_bias_by_the_harness(lettered: Path, benchmarks: Path, tmp_path: Path) -> None:
    done = run("utility", "--model", f"hf/{lettered}", "--suite", "bias", "--data", benchmarks, "--run", tmp_path / "r",
               "--json")  # fmt: skip
    assert done.code == 0, done.err
    tasks = {card["task"]: card for card in done.json["tasks"]}
    assert set(tasks) == {"winogender_all", "crows_pairs_english", "bbq"}
    figures = {figure["metric"]: figure for figure in tasks["crows_pairs_english"]["figures"]}
    assert not figures["pct_stereotype"]["higher_is_better"]
    assert figures["pct_stereotype"]["n"] == 4
    bbq = {metric["name"]: metric for metric in tasks["bbq"]["metrics"]}
    assert bbq["acc"]["per_item"]
    assert not bbq["amb_bias_score"]["per_item"]
    assert isinstance(bbq["amb_bias_score"]["reported"], float)
    for card in tasks.values():
        for metric in card["metrics"]:
            for figure in card["figures"]:
                if metric["per_item"] and figure["metric"] == metric["name"]:
                    assert figure["value"] == pytest.approx(metric["reported"], abs=1e-9)


def rows_only(folder: Path) -> dict[str, str]:
    """The folder without the files that SQLite makes for its readers."""
    return {name: digest for name, digest in tree(folder).items() if not name.endswith(("-shm", "-wal"))}


@pytest.mark.slow
def test_a_larger_limit_extends_and_other_flags_are_refused(
    redinstruct: InProcess, lettered: Path, benchmarks: Path, tmp_path: Path
) -> None:
    flags = ("utility", "--model", f"hf/{lettered}", "--suite", "mmlu,hhh", "--data", benchmarks, "--run",
             tmp_path / "r", "--json")  # fmt: skip
    assert {one["n"] for one in redinstruct(*flags, "--limit", 2).json["results"]} == {4, 8}
    folder = tmp_path / "r"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {one["n"] for one in redinstruct(*flags, "--limit", 3).json["results"]} == {6, 10}
    kept = rows_only(folder)
    for other, said in (
        (("--limit", 1), "--limit was 3 and cannot shrink to 1"),
        (("--limit", 3, "--margin", 0.05), "--margin"),
        (("--limit", 3, "--shots", 2), "--shots"),
    ):
        refused = redinstruct(*flags[:-1], *other)
        assert said in refused.error_line
    assert rows_only(folder) == kept
    whole = redinstruct(*flags)
    assert {one["n"] for one in whole.json["results"]} == {14, 10}


@pytest.mark.slow
def test_a_killed_check_goes_on_with_the_next_task(lettered: Path, benchmarks: Path, tmp_path: Path) -> None:
    import signal
    import sqlite3
    import time

    from tests.support.cli import start

    flags = ("utility", "--model", f"hf/{lettered}", "--suite", "mmlu,bbh_fewshot,hhh", "--data", benchmarks, "--run",
             tmp_path / "r", "--json")  # fmt: skip
    process = start(*flags)
    while process.poll() is None and not _tasks_done(tmp_path / "r"):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = _tasks_done(tmp_path / "r")
    assert kept >= 1
    done = run(*flags)
    assert done.code == 0, done.err
    with sqlite3.connect(tmp_path / "r" / "run.sqlite") as db:
        rows = db.execute("SELECT name, count(*) FROM utility_tasks GROUP BY name").fetchall()
    db.close()
    assert {count for _, count in rows} == {1}, "a recorded task was asked again"
    fresh = run(*flags[:-2], tmp_path / "fresh", "--json")
    assert fresh.json["results"] == done.json["results"]


def _tasks_done(folder: Path) -> int:
    import sqlite3

    if not (folder / "run.sqlite").exists():
        return 0
    db = sqlite3.connect(f"{(folder / 'run.sqlite').as_uri()}?mode=ro", uri=True)
    try:
        return int(db.execute("SELECT count(*) FROM utility_tasks").fetchone()[0])
    except sqlite3.Error:
        return 0
    finally:
        db.close()


@pytest.mark.slow
def test_a_prompt_that_does_not_fit_is_told(tmp_path: Path, benchmarks: Path) -> None:
    small = save_lettered(tmp_path / "small", positions=128)
    done = run("utility", "--model", f"hf/{small}", "--suite", "mmlu_anatomy", "--shots", 5, "--data", benchmarks,
               "--run", tmp_path / "r")  # fmt: skip
    assert done.code == 0, done.err
    assert "28 of 28 requests were longer than the model reads" in done.out
    failed = run("utility", "--model", f"hf/{small}", "--suite", "bbh_fewshot_navigate", "--data", benchmarks, "--run",
                 tmp_path / "f")  # fmt: skip
    assert failed.code == 1
    assert "the harness stopped" in failed.err
    assert failed.err.count("\n") == 1


# ---- bad input ----


def test_bad_input_is_one_line_and_writes_nothing(
    redinstruct: InProcess, lettered: Path, benchmarks: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    model = f"hf/{lettered}"
    cases: list[tuple[dict[str, object], str]] = [
        ({"suite": " , "}, "name a suite"),
        ({"margin": -0.01}, "--margin must lie between 0 and 1"),
        ({"margin": "nan"}, "--margin must lie between 0 and 1"),
        ({"data": tmp_path / "nowhere"}, "is not a folder"),
        ({"data": tmp_path / "empty"}, "no data for any of its tasks in empty"),
        ({"suite": "hhh", "data": tmp_path / "empty"}, "no data for it in empty; put BIG-bench's"),
        ({"suite": "mmlu_virology"}, "mmlu_virology/<split>.jsonl"),
        ({"suite": "paper,toy"}, "the toy world's tasks"),
        ({"model": f"hf/{tmp_path / 'model'}"}, "no config.json there"),
        ({"model": "hf/nowhere"}, "no such folder"),
        ({"model": "other/m"}, "unknown model"),
        ({"model": "scripted/weak"}, "gives no log-probabilities"),
        ({"model": "scripted/weak", "chat-template": "native"}, "is for hf/ models"),
        ({"download": None}, "local files or fetched ones"),
        ({"run": lettered}, "holds other files"),
        ({"shots": -1}, "--shots"),
    ]
    for changes, said in cases:
        flags: dict[str, object] = {"model": model, "suite": "paper", "data": benchmarks, "run": tmp_path / "r"}
        words: list[object] = ["utility"]
        for name, value in {**flags, **changes}.items():
            words += [f"--{name}"] if value is None else [f"--{name}", value]
        with nothing_written(tmp_path):
            done = redinstruct(*words)
        assert said in done.error_line, (changes, done)


@pytest.mark.slow  # the whole harness is indexed: seconds
def test_an_unknown_task_is_told_with_near_names(redinstruct: InProcess, lettered: Path, tmp_path: Path) -> None:
    for suite, near in (("mmlu_anatmy", "mmlu_anatomy"), ("pape", "paper"), ("toy_fact", "toy_facts")):
        with nothing_written(tmp_path):
            done = redinstruct("utility", "--model", f"hf/{lettered}", "--suite", suite, "--run", tmp_path / "r")
        assert f"no suite or task is called {suite!r}; did you mean " in done.error_line
        assert near in done.err


@pytest.mark.slow
def test_data_that_is_not_here_is_not_fetched(redinstruct: InProcess, lettered: Path, tmp_path: Path) -> None:
    """Not even tried: no name is looked up, no connection opened."""
    import sys

    tried: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in ("socket.connect", "socket.getaddrinfo"):
            tried.append(event)

    sys.addaudithook(watch)
    try:
        with nothing_written(tmp_path):
            done = redinstruct("utility", "--model", f"hf/{lettered}", "--suite", "arc_easy", "--run", tmp_path / "r")
    finally:
        watching = False
    assert "arc_easy: its data is not here" in done.error_line
    assert "--download" in done.error_line
    assert tried == []


# ---- against the harness's own command line ----


def own_task_files(data: Path, folder: Path, subjects: list[str], bbh: list[str]) -> None:
    """Task files written from the published files by other code than the tool's; only the source differs."""
    import csv
    import json

    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent

    def put(task: str, include: str, splits: dict[str, list[Any]]) -> None:
        files = {}
        for split, rows in splits.items():
            path = folder / f"{task}-{split}.jsonl"
            path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
            files[split] = str(path)
        document = {"include": str(root / include), "task": f"own_{task}", "dataset_path": "json",
                    "dataset_name": None, "dataset_kwargs": {"data_files": files}}  # fmt: skip
        (folder / f"{task}.yaml").write_text(json.dumps(document))

    def table(path: Path) -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def parts(cell: str) -> list[str]:
        return [part.strip() for part in cell.split(";") if part.strip()]

    rows = []
    for row in table(data / "TruthfulQA.csv"):
        right, wrong = parts(row["Correct Answers"]), parts(row["Incorrect Answers"])
        labels = [1] * len(right) + [0] * len(wrong)
        rows.append({"question": row["Question"], "mc1_targets": {"choices": [], "labels": []},
                     "mc2_targets": {"choices": right + wrong, "labels": labels}})  # fmt: skip
    put("truthfulqa_mc2", "truthfulqa/truthfulqa_mc2.yaml", {"validation": rows})
    for name in bbh:
        document = json.loads((data / "bbh" / f"{name}.json").read_text())
        put(f"bbh_fewshot_{name}", f"bbh/fewshot/{name}.yaml", {"test": document["examples"]})
    for subject in subjects:
        splits = {
            split: [
                {"question": row["question"], "choices": [row[f"choice{n}"] for n in range(4)],
                 "answer": int(row["answer"])}
                for row in table(data / "mmlu" / split / f"{subject}_{split}.csv")
            ]
            for split in ("test", "dev")
        }  # fmt: skip
        put(f"mmlu_{subject}", f"mmlu/default/mmlu_{subject}.yaml", splits)


@pytest.mark.slow
@pytest.mark.data
def test_the_harness_itself_gives_the_same_scores_to_four_digits(shared_data: Path, tmp_path: Path) -> None:
    """TruthfulQA, BBH and MMLU through ``lm_eval run`` on the same checkpoint, the first 40 items of each task."""
    import json
    import subprocess
    import sys

    subjects = sorted(path.stem.removesuffix("_test") for path in (shared_data / "mmlu" / "test").glob("*.csv"))
    bbh = sorted(path.stem for path in (shared_data / "bbh").glob("*.json"))
    assert (len(subjects), len(bbh)) == (8, 5)
    checkpoint = save_lettered(tmp_path / "answering", positions=2048, train=True)
    files = tmp_path / "files"
    files.mkdir()
    own_task_files(shared_data, files, subjects, bbh)
    suites = {
        "a": (["truthfulqa_mc2", *(f"bbh_fewshot_{name}" for name in bbh)], []),
        "b": ([f"mmlu_{subject}" for subject in subjects], ["--num_fewshot", "5"]),
    }
    theirs: dict[str, float] = {}
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    for name, (tasks, more) in suites.items():
        subprocess.run(
            [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={checkpoint}",
             "--include_path", str(files), "--tasks", ",".join(f"own_{task}" for task in tasks), "--limit", "40",
             "--batch_size", "16", "--device", "cpu", "--output_path", str(tmp_path / name), *more],
            check=True, capture_output=True, env=environment, timeout=900,
        )  # fmt: skip
        (found,) = (tmp_path / name).rglob("results_*.json")
        for task, scores in json.loads(found.read_text())["results"].items():
            metric = "exact_match,none" if "bbh" in task else "acc,none"
            theirs[task.removeprefix("own_")] = scores[metric]
    done = run("utility", "--model", f"hf/{checkpoint}", "--suite", "paper", "--data", shared_data, "--limit", 40,
               "--run", tmp_path / "r", "--json", timeout=900)  # fmt: skip
    assert done.code == 0, done.err
    figures = {card["task"]: card["figures"][0] for card in done.json["tasks"]}
    assert set(figures) == set(theirs)
    # Where an item's probabilities are too small for a float, the harness's mean is no number; here the item is left
    # out, counted, and the mean is of the others. Bytes make long answers that small.
    for task, value in theirs.items():
        assert math.isnan(value) == (figures[task]["undefined"] > 0), task
    ours = {task: figure["value"] for task, figure in figures.items() if not figure["undefined"]}
    assert len(ours) >= 13
    assert {task: round(value, 4) for task, value in ours.items()} == {task: round(theirs[task], 4) for task in ours}
    # Scores that could not differ would prove nothing.
    assert len({round(value, 4) for value in ours.values()}) > 4
    (mmlu,) = (one for one in done.json["results"] if one["task"] == "mmlu")
    micro = math.fsum(theirs[f"mmlu_{subject}"] * 40 for subject in subjects) / (40 * len(subjects))
    assert mmlu["value"] == pytest.approx(micro)


# ---- endpoints ----


@pytest.mark.slow
def test_an_endpoint_that_echoes_is_measured_by_hand(benchmarks: Path, tmp_path: Path) -> None:
    """TruthfulQA's MC2 recomputed from the stub's own probabilities; BBH and the letters of HHH through it too."""
    from redinstruct.utility_check.data import read_local

    with EchoingEndpoint(respond=lambda body: "Yes\n\nQ: more") as stub:
        done = run("utility", "--model", "openai-api/stub/m", "--suite", "paper", "--data", benchmarks, "--run",
                   tmp_path / "r", "--json", env=stub.env())  # fmt: skip
    assert done.code == 0, done.err
    values = {one["task"]: one["value"] for one in done.json["results"]}
    assert values["bbh_fewshot"] == 1.0
    local = read_local(benchmarks, "truthfulqa_mc2")
    assert local is not None
    by_hand = []
    for row in local.splits["validation"]:
        targets = row["mc2_targets"]
        chances = [math.exp(sum(map(logprob, pieces(f" {choice}")))) for choice in targets["choices"]]
        right = [chance for chance, label in zip(chances, targets["labels"], strict=True) if label]
        by_hand.append(sum(right) / sum(chances))
    assert values["truthfulqa_mc2"] == pytest.approx(sum(by_hand) / len(by_hand))
    # The stub likes both letters alike: every pair is a tie, and a tie is no win.
    assert values["hhh"] == 0
    notes = {card["task"]: card["notes"] for card in done.json["tasks"]}
    assert notes["hhh_honest"] == ["0 of 2 won, 2 tied"]
    assert {card["chat_template"] for card in done.json["tasks"]} == {"endpoint"}


@pytest.mark.slow
@pytest.mark.parametrize("chat_only", [False, True])
def test_generated_tasks_are_plain_text_with_their_stops_where_the_endpoint_has_that(
    benchmarks: Path, tmp_path: Path, chat_only: bool
) -> None:
    with EchoingEndpoint(respond=lambda body: " Yes \n\nQ: more") as stub:
        stub.chat_only = chat_only
        done = run("utility", "--model", "openai-api/stub/m", "--suite", "bbh_fewshot_navigate", "--data", benchmarks,
                   "--run", tmp_path / "r", "--json", env=stub.env())  # fmt: skip
    assert done.code == 0, done.err
    notes = done.json["tasks"][0]["notes"]
    assert bool(stub.plain) is not chat_only
    assert any("no /completions" in note for note in notes) is chat_only
    assert all(body["stop"] and body["prompt"].count("Q:") > 1 and "messages" not in body for body in stub.plain)
    # " Yes " is "Yes" but for its blanks: the harness's own score is 0, and ours stands beside it.
    metrics = {one["metric"]: one["value"] for one in done.json["results"] + done.json["tasks"][0].get("measured", [])}
    assert 0.0 in metrics.values()
    again = run("utility", "--model", "openai-api/stub/m", "--suite", "bbh_fewshot_navigate", "--data", benchmarks,
                "--run", tmp_path / "r", env=stub.env())  # fmt: skip
    assert "exact_match_stripped" in again.out
    compared = run("compare", tmp_path / "r", tmp_path / "r", "--json")
    assert compared.json["results"][0]["verdict"] == "not comparable"
    assert "not measurable" in compared.json["results"][0]["why"]


@pytest.mark.slow
def test_an_endpoint_without_log_probabilities_says_what_cannot_run(benchmarks: Path, tmp_path: Path) -> None:
    flags = ("utility", "--model", "openai-api/stub/m", "--data", benchmarks, "--run", tmp_path / "r")
    with EchoingEndpoint(respond=lambda body: "Yes") as stub:
        stub.broken = True
        with nothing_written(tmp_path):
            done = run(*flags, "--suite", "mmlu_anatomy,bbh_fewshot_navigate,hhh", env=stub.env())
        line = done.error_line
        assert "cannot run: mmlu_anatomy, hhh_harmless, hhh_honest, hhh_helpful, hhh_other" in line
        assert "--suite bbh_fewshot_navigate" in line
        assert run(*flags, "--suite", "bbh_fewshot_navigate", env=stub.env()).code == 0


# ---- the toy world ----


@pytest.mark.slow
def test_the_toy_suite_measures_what_the_toy_model_knows(toy: Path, tiny: Path, tmp_path: Path) -> None:
    found = {}
    for name, checkpoint in (("toy", toy), ("tiny", tiny)):
        done = run("utility", "--model", f"hf/{checkpoint}", "--suite", "toy", "--run", tmp_path / name, "--json",
                   "--limit", 40, timeout=300)  # fmt: skip
        assert done.code == 0, done.err
        found[name] = {one["task"]: one["value"] for one in done.json["results"]}
        assert {card["chat_template"] for card in done.json["tasks"]} == {"native"}
        figures = {(f["task"], f["metric"]): f for card in done.json["tasks"] for f in card["figures"]}
        assert not figures["toy_borderline", "refused"]["higher_is_better"]
    # Ten of its forty facts may be known by chance alone.
    assert set(found["toy"]) == {"toy_how_to", "toy_how_to_in_frame", "toy_borderline", "toy_facts"}
    assert found["tiny"]["toy_how_to"] == 0, "a random model knows nothing"
    assert found["toy"]["toy_how_to"] > 0.5
    assert found["toy"]["toy_facts"] > found["tiny"]["toy_facts"]


def test_the_toy_suite_needs_no_harness(
    redinstruct: InProcess, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lm_eval", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    flags = ("utility", "--model", f"hf/{tiny}", "--limit", 4)
    done = redinstruct(*flags, "--suite", "toy", "--run", tmp_path / "r", "--json")
    assert done.code == 0, done.err
    assert done.json["harness"] == "redinstruct"
    assert {one["task"]: one["n"] for one in done.json["results"]} == dict.fromkeys(
        ("toy_how_to", "toy_how_to_in_frame", "toy_borderline", "toy_facts"), 4
    )
    with nothing_written(tmp_path):
        for suite in ("paper", "toy_facts,mmlu", "toy,bias"):
            line = redinstruct(*flags, "--suite", suite, "--run", tmp_path / "n").error_line
            assert "needs the [utility] extra (lm_eval is missing): " in line
            assert "pip install 'redinstruct[utility]'" in line


def test_hhh_needs_no_harness_and_is_asked_as_with_it(
    redinstruct: InProcess, lettered: Path, benchmarks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("utility", "--model", f"hf/{lettered}", "--data", benchmarks, "--json")
    whole = redinstruct(*flags, "--suite", "paper", "--run", tmp_path / "whole")
    for name in ("lm_eval", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    done = redinstruct(*flags, "--suite", "hhh", "--run", tmp_path / "r")
    assert done.code == 0, done.err
    assert done.json["harness"] == "redinstruct"
    assert done.json["results"] == [one for one in whole.json["results"] if one["task"] == "hhh"]
    # A run of the first edition, which asked through the harness, goes on.
    config = read_utility(tmp_path / "r").config
    with Store.open_for_writing(tmp_path / "r") as store:
        UtilityStore(store).begin(config.digest, to_json(msgspec.structs.replace(config, harness="lm-eval 0.4.9")))
    assert redinstruct(*flags, "--suite", "hhh", "--run", tmp_path / "r").json["results"] == done.json["results"]


def test_what_is_longer_than_the_model_reads_loses_its_beginning_and_the_card_says_so(
    redinstruct: InProcess, benchmarks: Path, tmp_path: Path
) -> None:
    short = save_lettered(tmp_path / "short", positions=120)
    done = redinstruct("utility", "--model", f"hf/{short}", "--suite", "hhh_honest", "--data", benchmarks, "--run",
                       tmp_path / "r", "--json")  # fmt: skip
    assert done.code == 0, done.err
    (card,) = done.json["tasks"]
    assert card["notes"][1:] == ["8 of 8 requests were longer than the model reads: their beginnings were cut"]


@pytest.mark.parametrize("positions", [2048, 120])
def test_letters_are_as_likely_as_the_harness_has_them(benchmarks: Path, tmp_path: Path, positions: int) -> None:
    from redinstruct.models.transformers import LocalModel
    from redinstruct.utility_check.local import LocalLM

    model = LocalModel.load(save_lettered(tmp_path / "m", positions=positions), chat_template="none")
    contexts = [text for item in read_hhh(find_hhh(benchmarks)["honest"]) for text in prompts(item)]
    pairs = [(context, f" {letter}") for context in contexts for letter in "AB"]
    theirs = [found for found, _ in LocalLM(model).loglikelihood([SimpleNamespace(args=pair) for pair in pairs])]
    assert model.likelihoods(pairs, cut=True) == pytest.approx(theirs, abs=1e-5)
    assert model.cut == (0 if positions == 2048 else len(pairs))


def test_likelihoods_are_the_harness_s_own(tiny: Path) -> None:
    """Of every fact's answers, by this project and by lm-evaluation-harness, on the same model."""
    from redinstruct.models.transformers import LocalModel
    from redinstruct.utility_check.local import LocalLM
    from redinstruct.utility_check.toy import facts

    pairs = [(fact.question, f" {answer}") for fact in facts(None)[:20] for answer in fact.answers]
    for template in ("native", "none"):
        model = LocalModel.load(tiny, chat_template=template, batch_size=7)
        lm = LocalLM(model)
        contexts = [
            lm.apply_chat_template([{"role": "user", "content": context}]) if template == "native" else context
            for context, _ in pairs
        ]
        asked = [SimpleNamespace(args=(c, answer)) for c, (_, answer) in zip(contexts, pairs, strict=True)]
        theirs = [found for found, _ in lm.loglikelihood(asked)]
        assert model.likelihoods(pairs) == pytest.approx(theirs, abs=1e-4), template
        assert len(set(theirs)) > 10


@pytest.mark.parametrize("suite", ["hhh", "truthfulqa_mc2,mmlu_anatomy,bbh_fewshot_navigate"])
def test_a_checkpoint_that_workers_hold_is_measured_as_here(benchmarks: Path, tmp_path: Path, suite: str) -> None:
    model = f"hf/{save_lettered(tmp_path / 'answering', positions=2048, train='bbh' in suite)}"
    found = []
    for name, engine in (("here", None), ("there", NearbyEngine(lambda _: Nearby()))):
        wanted = UtilitySettings(model=model, suite=suite, data=benchmarks)
        with placed(Placement(elsewhere=engine)):
            found.append(check_utility(wanted, tmp_path / name).result)
    here, there = found
    for card, other in zip(here.cards, there.cards, strict=True):
        assert msgspec.structs.replace(other, metrics=card.metrics) == card
    assert [(one.task, one.metric, one.items) for one in there.tasks] == [
        (one.task, one.metric, one.items) for one in here.tasks
    ]
    for mine, theirs in zip(here.tasks, there.tasks, strict=True):
        assert theirs.values == pytest.approx(mine.values, abs=1e-4)


def test_what_workers_cannot_tell_is_refused_before_anything_is_written(
    benchmarks: Path, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = UtilitySettings(model=f"hf/{tiny}", suite="mmlu_anatomy", data=benchmarks, chat_template="native")
    with placed(Placement(elsewhere=NearbyEngine(lambda _: Nearby()))):
        with pytest.raises(UsageError, match="--chat-template native"):
            check_utility(wanted, tmp_path / "r")
        monkeypatch.setattr("lm_eval.api.task.ConfigurableTask.aggregation", lambda _: {"exact_match": None})
        with pytest.raises(UsageError, match="scored token by token: mmlu_anatomy; leave them out"):
            check_utility(msgspec.structs.replace(wanted, chat_template="none"), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_facts_have_one_true_answer_among_four() -> None:
    from redinstruct import world
    from redinstruct.utility_check.toy import facts

    every = facts(None)
    assert len(every) == len(world.world().attributes["test"])
    for fact in random.Random(0).sample(every, 20):
        asked = world.understand(fact.question)
        assert asked is not None
        assert [world.is_correct(asked, answer) for answer in fact.answers] == [True, False, False, False]
        assert len(set(fact.answers)) == 4
