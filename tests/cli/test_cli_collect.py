"""``collect`` and ``export`` on the command line: contracts, limits, kills, the paper's shape."""

from __future__ import annotations

import json
import random
import sqlite3
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from redinstruct import world
from tests.support.cli import InProcess, here, nothing_written, run_measured, start, tree
from tests.support.endpoint import Endpoint
from tests.support.kills import killed_past
from tests.support.teacher import teach

FORMATS = ("harmfulqa", "messages", "kto", "dpo", "sharegpt")


def write_topics(folder: Path, topics: object) -> Path:
    path = folder / "topics.json"
    path.write_text(json.dumps(topics))
    return path


@pytest.fixture
def toy_topics(tmp_path: Path) -> Path:
    return write_topics(tmp_path, {"the zor family": ["make", "store"], "the gru family": []})


TOY = ("--teacher", "scripted/red-teacher", "--judge", "exact", "--per-subtopic", 2, "--blue", 1)


def test_a_collection_and_its_export(cli: InProcess, tmp_path: Path, toy_topics: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.json"
    done = cli("collect", *TOY, "--topics", toy_topics, "--run", run, "--json")
    assert done.code == 0, done.err
    assert done.json["schema"] == "redinstruct.collection/1"
    assert done.json["questions"] == done.json["blue"] == done.json["whole"] == 20
    assert done.json["red"] == 0
    assert sum(cell["questions"] for cell in done.json["coverage"]) == 20
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in run.iterdir()} == {0o600}
    again = cli("collect", *TOY, "--topics", toy_topics, "--run", run)
    assert again.code == 0
    assert "0 calls now" in again.err
    assert "the zor family" in again.out
    assert cli("export", run, "--to", "harmfulqa", "--out", out).code == 0
    public = json.loads(out.read_text())
    assert {"id", "topic", "subtopic", "question", "blue_conversations", "red_conversations"} == set(public[0])
    card = json.loads((tmp_path / "out.json.card.json").read_text())
    assert card["provenance"]["teacher"] == "scripted/red-teacher"
    assert (tmp_path / "out.json.card.md").read_text().startswith("# Data card")
    assert cli("purge", run, "--yes").code == 0
    assert not run.exists()


def test_an_export_asks_again_in_other_forms(cli: InProcess, tmp_path: Path, toy_topics: Path) -> None:
    run, out, general = tmp_path / "run", tmp_path / "out.jsonl", tmp_path / "general.jsonl"
    said = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "There."}]
    general.write_text(json.dumps({"messages": said}) + "\n")
    cli("collect", *TOY, "--topics", toy_topics, "--run", run)
    export = ("export", run, "--to", "messages", "--near", 1, "--out", out)
    done = cli(*export, "--forms", "dialogue,steps,story,after-harmless,harmless-twins", "--general", general)
    assert done.code == 0, done.err
    assert "dialogue 20, steps 20, story 20, after-harmless 20, harmless-twins 4" in done.err
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert Counter(row["stream"] for row in rows) == {"blue": 100, "general": 4}
    out.unlink()
    assert "give general rows" in cli(*export, "--forms", "harmless-twins").error_line
    assert "include the red rows" in cli(*export, "--forms", "deep-prefix").error_line
    assert "not a form of asking" in cli(*export, "--forms", "chat").error_line
    assert "--to messages" in cli("export", run, "--to", "kto", "--out", out, "--forms", "steps").error_line
    assert not out.exists()


def test_a_collection_can_be_read_and_hides_what_was_said(cli: InProcess, tmp_path: Path, toy_topics: Path) -> None:
    run = tmp_path / "run"
    cli("collect", *TOY, "--topics", toy_topics, "--run", run)
    listed = cli("show", run, "--json").json["conversations"]
    assert len(listed) == 20
    assert {turn["label"] for one in listed for turn in one["turns"] if turn["speaker"] == "gpt"} == {"unharmful"}
    known = cli("show", run, "--json", "--show-content").json["conversations"][0]
    said = [known["question"], *(turn["text"] for turn in known["turns"])]
    for shown in (cli("show", run), cli("show", run, known["id"]), cli("show", run, "--json")):
        assert shown.code == 0
        assert not [text for text in said if text in shown.out]
    whole = cli("show", run, known["id"], "--show-content").out
    assert all(text in whole for text in said)
    assert cli("show", run, "--label", "harmful").out == ""
    assert "no conversation" in cli("show", run, "nobody").error_line
    assert "--judge" in cli("show", run, "--judge", "exact").error_line


@pytest.mark.parametrize("name", FORMATS)
def test_red_leaves_with_the_flag_only(cli: InProcess, tmp_path: Path, toy_topics: Path, name: str) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    # The answerer tells everything under pressure: its red answers all hold one sentence.
    flags = ["--topics", toy_topics, "--answerer", "scripted/weak", "--red", "--run", run]
    assert cli("collect", "--teacher", "scripted/red-teacher", "--judge", "refusal", "--per-subtopic", 2, "--blue", 2,
               *flags).code == 0  # fmt: skip
    marker = "first take the blue part"
    safe = cli("export", run, "--to", name, "--out", out)
    assert safe.code == 0
    assert ("--include-red" in safe.err) == (name == "dpo"), "nothing is left of pairs, and it says why"
    texts = [path.read_text() for path in tmp_path.glob("out*")]
    assert len(texts) == 3
    assert not [text for text in texts if marker in text]
    done = cli("export", run, "--to", name, "--include-red", "--out", out)
    assert done.code == 0
    assert (marker in out.read_text()) or name == "dpo"
    assert stat.S_IMODE(out.stat().st_mode) == 0o600


def test_an_export_takes_no_runs_file_and_comes_with_its_card_or_not_at_all(
    cli: InProcess, tmp_path: Path, toy_topics: Path
) -> None:
    run, export = tmp_path / "run", ("export", tmp_path / "run", "--to", "messages", "--out")
    assert cli("collect", *TOY, "--topics", toy_topics, "--run", run).code == 0
    (tmp_path / "out.card.json").mkdir()
    for out in (run / "run.sqlite", run / "run.lock", tmp_path / "out", tmp_path / "nowhere" / "out"):
        with nothing_written(tmp_path):
            assert "--out" in cli(*export, out).error_line


def test_what_overlaps_with_a_bank_is_left_out(cli: InProcess, tmp_path: Path, toy_topics: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.jsonl"
    cli("collect", *TOY, "--topics", toy_topics, "--run", run)
    cli("export", run, "--to", "harmfulqa", "--near", 1, "--out", out)
    questions = [row["question"] for row in json.loads(out.read_text())]
    (tmp_path / "bank.json").write_text(json.dumps(questions[:3]))
    done = cli("export", run, "--to", "harmfulqa", "--near", 1, "--bank", tmp_path / "bank.json", "--out", out)
    assert "bank_equal 3" in done.err
    left = [row["question"] for row in json.loads(out.read_text())]
    assert set(left) < set(questions)
    assert not set(left) & set(questions[:3])


BAD: dict[str, tuple[tuple[object, ...], str]] = {
    "teacher": (("--teacher", "nothing/here"), "unknown model"),
    "answerer": (("--answerer", "gpt-4"), "unknown model"),
    "judge": (("--judge", "nobody"), "unknown judge"),
    "judge-model": (("--judge", "rubric"), "--judge-model"),
    "per-subtopic": (("--per-subtopic", 0), "--per-subtopic"),
    "blue": (("--blue", -1), "--blue"),
    "topics": (("--topics", "no-such-file.json"), "--topics"),
    "temperature": (("--temperature", 3), "--temperature"),
    "budget": (("--budget", 1), "--price-in"),
    "concurrency": (("--concurrency", 0), "--concurrency"),
    "tokens": (("--answer-tokens", 0), "--answer-tokens"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_input_writes_nothing(cli: InProcess, tmp_path: Path, name: str) -> None:
    flags, says = BAD[name]
    with nothing_written(tmp_path):
        done = cli("collect", "--teacher", "scripted/red-teacher", "--judge", "exact", *flags, "--run", tmp_path / "r")
    assert says in done.error_line


@pytest.mark.parametrize("flags", [("--judge-model", "scripted/judge"), ("--critique",), ("--guard-kind", "x")])
def test_flags_that_need_a_judge(cli: InProcess, tmp_path: Path, flags: tuple[str, ...]) -> None:
    with nothing_written(tmp_path):
        done = cli("collect", "--teacher", "scripted/red-teacher", *flags, "--run", tmp_path / "r")
    assert "--judge" in done.error_line


def rows_only(folder: Path) -> dict[str, str]:
    """The tree without the files that SQLite makes for its readers."""
    return {name: digest for name, digest in tree(folder).items() if not name.endswith(("-shm", "-wal"))}


def test_a_collection_is_no_evaluation_and_the_other_way_round(
    cli: InProcess, tmp_path: Path, toy_topics: Path
) -> None:
    (tmp_path / "bank.json").write_text('["What is the colour of item one?"]')
    ask = ("eval", "--model", "scripted/refuse", "--bank", tmp_path / "bank.json", "--judge", "refusal")
    collected, evaluated = tmp_path / "collected", tmp_path / "evaluated"
    cli("collect", *TOY, "--topics", toy_topics, "--run", collected)
    cli(*ask, "--run", evaluated)
    before = rows_only(tmp_path)
    assert "collection" in cli(*ask, "--run", collected).error_line
    assert "collection" in cli("report", collected).error_line
    assert "evaluation" in cli("collect", *TOY, "--topics", toy_topics, "--run", evaluated).error_line
    assert "evaluation" in cli("export", evaluated, "--to", "kto", "--out", tmp_path / "o").error_line
    assert "not a collection" in cli("export", tmp_path, "--to", "kto", "--out", tmp_path / "o").error_line
    assert "--blue" in cli("collect", *TOY[:-1], 5, "--blue", 0, "--run", collected).error_line
    assert "another configuration" in cli("collect", *TOY, "--run", collected).error_line
    assert "--out" in cli("export", collected, "--to", "kto", "--out", tmp_path).error_line
    assert "known" in cli("export", collected, "--to", "kto", "--bank", "nope", "--out", tmp_path / "o").error_line
    assert rows_only(tmp_path) == before


def test_a_limit_of_calls_ends_with_11_and_goes_on(tmp_path: Path) -> None:
    topics = write_topics(tmp_path, {"Birds": ["Herons", "Wrens"]})
    flags = ["collect", "--teacher", "openai-api/stub/m", "--topics", topics, "--per-subtopic", 2, "--blue", 2,
             "--run", tmp_path / "run", "--json"]  # fmt: skip
    with Endpoint(respond=teach) as stub:
        cut = here(*flags, "--max-calls", 5, env=stub.env())
        assert cut.code == 11, cut.err
        assert stub.requests == 5
        assert cut.json["complete"] is False
        assert cut.json["questions"] == 4
        done = here(*flags, env=stub.env())
        assert done.code == 0
        assert stub.requests == 1 + 2 + 8


def test_a_denied_key_stops_with_nothing_written(tmp_path: Path) -> None:
    with Endpoint(respond=teach, always="401") as stub, nothing_written(tmp_path):
        done = here("collect", "--teacher", "openai-api/stub/m", "--run", tmp_path / "run", env=stub.env())
    assert "Check the key" in done.error_line


def test_faults_of_the_endpoint_are_survived(tmp_path: Path) -> None:
    topics = write_topics(tmp_path, ["Birds"])
    with Endpoint(respond=teach, once=("reset", "empty", "filtered")) as stub:
        done = here("collect", "--teacher", "openai-api/stub/m", "--topics", topics, "--per-subtopic", 2,
                           "--blue", 1, "--run", tmp_path / "run", "--json", env=stub.env())  # fmt: skip
    assert done.code == 0, done.err
    assert (done.json["questions"], done.json["blue"]) == (20, 20)


def test_the_judge_takes_its_self_test_first(tmp_path: Path) -> None:
    topics = write_topics(tmp_path, {"Birds": ["Herons"]})
    with nothing_written(tmp_path):
        done = here("collect", "--teacher", "scripted/red-teacher", "--judge", "rubric", "--judge-model",
                           "scripted/comply", "--topics", topics, "--run", tmp_path / "run")  # fmt: skip
    assert "not fit" in done.error_line
    forced = here("collect", "--teacher", "scripted/red-teacher", "--judge", "rubric", "--judge-model",
                         "scripted/comply", "--topics", topics, "--per-subtopic", 1, "--blue", 1, "--force",
                         "--run", tmp_path / "run")  # fmt: skip
    assert forced.code == 0, forced.err


def committed(run: Path) -> dict[tuple[bytes, int], tuple[Any, ...]]:
    """The committed calls, read without changing anything."""
    if not (run / "run.sqlite").exists():
        return {}
    db = sqlite3.connect(f"{(run / 'run.sqlite').absolute().as_uri()}?mode=ro", uri=True)
    try:
        return {row[:2]: row[2:] for row in db.execute("SELECT key, asked, step, request, reply FROM calls")}
    except sqlite3.OperationalError:
        return {}
    finally:
        db.close()


def exported(run: Path, out: Path, formats: Sequence[str]) -> dict[str, str]:
    out.mkdir()
    for name in formats:
        done = here("export", run, "--to", name, "--include-red", "--out", out / name)
        assert done.code == 0, done.err
    return tree(out)


def kill_and_resume(folder: Path, kills: int, per_subtopic: int, seed: int, formats: Sequence[str]) -> None:
    """Kill a collection at random moments, let it end, and compare with an undisturbed one."""
    rng = random.Random(seed)
    topics = write_topics(folder, {"Birds": ["Herons", "Wrens"], "Rocks": []})
    concurrency = 8
    flags = ["collect", "--teacher", "openai-api/stub/m", "--answerer", "openai-api/stub/own", "--judge", "refusal",
             "--topics", topics, "--per-subtopic", per_subtopic, "--blue", 1, "--red", "--critique",
             "--concurrency", concurrency]  # fmt: skip
    with Endpoint(respond=teach, latency=0.01) as stub:
        assert here(*flags, "--run", folder / "whole", env=stub.env()).code == 0
        calls, stub.requests = stub.requests, 0
        run, landed = folder / "killed", 0
        before: dict[tuple[bytes, int], tuple[Any, ...]] = {}
        for kill in range(kills):
            goal = stub.requests + rng.uniform(0, 1.5 * max(0, calls - stub.requests) / (kills - kill))
            process = start(*flags, "--run", run, env=stub.env())
            landed += killed_past(process, stub, goal, rng, within=30)
            after = committed(run)
            assert before.items() <= after.items(), "a committed call changed or vanished"
            before = after
        last = here(*flags, "--run", run, env=stub.env())
        assert last.code == 0, last.err
        asked = stub.requests
        assert here(*flags, "--run", run, env=stub.env()).code == 0
        assert stub.requests == asked, "a complete collection asks nothing"
    assert landed >= 0.8 * kills, "too few kills hit a living run: the test would show nothing"
    assert calls <= asked <= calls + concurrency * landed
    whole = committed(folder / "whole")
    assert committed(run) == whole
    assert exported(run, folder / "b", formats) == exported(folder / "whole", folder / "a", formats)


@pytest.mark.slow
def test_a_collection_killed_at_random_moments_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=4, per_subtopic=1, seed=1, formats=("messages",))


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    kill_and_resume(tmp_path, kills=20, per_subtopic=8, seed=2, formats=FORMATS)


@pytest.mark.slow
def test_the_papers_shape_in_300_megabytes(tmp_path: Path) -> None:
    topics = write_topics(tmp_path, [f"Topic number {n}" for n in range(10)])
    run = tmp_path / "run"
    with Endpoint(respond=teach) as stub:
        done, collecting = run_measured("collect", "--teacher", "openai-api/stub/m", "--topics", topics, "--run", run,
                                        "--json", env=stub.env(), timeout=500)  # fmt: skip
    assert done.code == 0, done.err
    assert [done.json[name] for name in ("questions", "blue", "whole")] == [2000, 10_000, 10_000]
    out, exporting = run_measured("export", run, "--to", "harmfulqa", "--out", tmp_path / "out.json", timeout=500)
    assert out.code == 0, out.err
    assert max(collecting, exporting) < 300 * 2**20


def test_the_scripted_teacher_asks_nothing_that_the_banks_hold(cli: InProcess, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    cli("collect", *TOY, "--run", tmp_path / "run")
    cli("export", tmp_path / "run", "--to", "harmfulqa", "--near", 1, "--out", out)
    questions = {row["question"] for row in json.loads(out.read_text())}
    assert len(questions) > 50
    held = {q.text for split in ("dev", "test") for q in world.how_to_questions("forbidden", split)}
    assert not questions & held
    assert all(world.understand(question) is not None for question in questions)


def test_what_is_in_another_language_is_left_out(cli: InProcess, tmp_path: Path, toy_topics: Path) -> None:
    run, out = tmp_path / "run", tmp_path / "out.jsonl"
    cli("collect", *TOY, "--topics", toy_topics, "--run", run)
    export = ("export", run, "--to", "messages", "--near", 1, "--out", out)
    for languages, left in ((("english",), ""), (("german", "english"), ""), (("german",), "question_language 20")):
        done = cli(*export, *(word for name in languages for word in ("--language", name)))
        assert done.code == 0, done.err
        assert left in done.err
        assert left or "_language" not in done.err
        card = json.loads((tmp_path / "out.jsonl.card.json").read_text())
        assert card["provenance"]["languages"] == list(languages)
    assert "klingon" in cli(*export, "--language", "klingon").error_line
