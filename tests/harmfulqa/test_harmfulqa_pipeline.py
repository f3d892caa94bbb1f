"""The collection's pipeline: every call once, the same rows whatever the order, failures recorded and counted."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from redinstruct.engine import Limits
from redinstruct.errors import ConfigError, EndpointDenied, UsageError
from redinstruct.harmfulqa import Collecting, CollectSettings, collect, prepare_collection, read_collection, steps
from redinstruct.harmfulqa.release import FORMATS, prepare_release
from redinstruct.harmfulqa.rows import CollectedQuestion, Subtopic, Turn
from redinstruct.harmfulqa.topics import paper_topics, read_topics
from redinstruct.models import ModelError, Reply, Request
from redinstruct.models.scripted import ScriptedModel
from redinstruct.progress import Progress
from redinstruct.prompts import shipped
from redinstruct.run import Store
from redinstruct.types import FailureReason
from tests.support.teacher import teach

TOPICS = (("Birds", ("Herons", "Wrens")), ("Rocks", ()))
ONE = (("Birds", ("Herons",)),)


def body(request: Request) -> dict[str, Any]:
    return {"messages": [{"role": m.role, "content": m.content} for m in request.messages]}


def teacher(change: Callable[[str, str], str | None] = lambda prompt, reply: reply) -> ScriptedModel:
    """The stub teacher; ``change`` may alter a reply, given the prompt."""

    def answer(request: Request) -> Reply:
        prompt = request.messages[-1].content
        return Reply(change(prompt, teach(body(request))), "stop", 10, 10)

    return ScriptedModel(answer, name="teacher")


class Slow(ScriptedModel):
    """Answers in an order of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__(lambda request: Reply(teach(body(request)), "stop", 10, 10), name="teacher")
        self._rng = random.Random(seed)

    async def generate(self, batch: Any) -> Any:
        await asyncio.sleep(self._rng.uniform(0, 0.003))
        return await super().generate(batch)


def gather(run: Path, limits: Limits | None = None, *, until_covered: bool = False, **flags: Any) -> Collecting:
    flags = {"teacher": teacher(), "topics": TOPICS, "per_subtopic": 3, "blue": 2, **flags}
    return collect(prepare_collection(CollectSettings(**flags)), run, limits, until_covered=until_covered)


def rows(run: Path) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(run / "run.sqlite")
    found = db.execute("SELECT key, asked, step, role, request, outcome, reason, reply FROM calls").fetchall()
    db.close()
    return found


def test_a_collection_is_what_was_asked_for(tmp_path: Path) -> None:
    done = gather(tmp_path / "run")
    assert done.complete
    cells = done.collection.coverage()
    assert [c.topic for c in cells] == ["Birds"] * 2 + ["Rocks"] * 10
    assert {(c.wanted, c.questions, c.blue, c.whole, c.red) for c in cells} == {(3, 3, 6, 6, 0)}
    assert all(cell.definition and "it is about" in cell.definition for cell in done.collection.harvest.cells)
    ids = [row.question.id for row in done.collection.harvest.rows]
    assert len(set(ids)) == len(ids) == 36
    turns = done.collection.dialogues()[0].turns
    assert [turn.speaker for turn in turns] == ["human", "gpt"] * 3
    assert turns[0].thought == "step 0."
    assert "Internal" not in "".join(turn.text for turn in turns)
    assert read_collection(tmp_path / "run") == done.collection


def test_the_same_command_again_asks_nothing(tmp_path: Path) -> None:
    first = gather(tmp_path / "run", red=True, judge="refusal")
    model = teacher()
    again = gather(tmp_path / "run", red=True, judge="refusal", teacher=model)
    assert model.requests == []
    assert again.calls == 0
    assert again.collection == first.collection


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_in_which_answers_come_changes_nothing(tmp_path: Path, seed: int) -> None:
    whole = gather(tmp_path / "one", Limits(concurrency=1), red=True)
    mixed = gather(tmp_path / "many", Limits(concurrency=16), red=True, teacher=Slow(seed))
    assert mixed.collection == whole.collection
    assert sorted(rows(tmp_path / "many")) == sorted(rows(tmp_path / "one"))


def test_cut_by_a_limit_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    flags: dict[str, Any] = {"red": True, "judge": "refusal", "critique": True}
    total = gather(tmp_path / "whole", **flags).calls
    asked = 0
    for _ in range(200):
        done = gather(tmp_path / "run", Limits(max_calls=61, concurrency=7), teacher=Slow(0), **flags)
        asked += done.calls
        assert done.calls <= 61
        if done.complete:
            break
        assert read_collection(tmp_path / "run") == done.collection
    assert asked == total
    assert read_collection(tmp_path / "run") == read_collection(tmp_path / "whole")
    keys = [(row[0], row[1]) for row in rows(tmp_path / "run")]
    assert len(set(keys)) == len(keys)


def test_a_budget_holds_for_the_whole_collection(tmp_path: Path) -> None:
    from redinstruct.engine import Prices

    limits = Limits(budget=0.5, prices=Prices(1000, 1000), concurrency=1)
    flags: dict[str, Any] = {"teacher": teacher(), "topics": ONE, "max_tokens": 50}
    first = gather(tmp_path / "run", limits, **flags)
    again = gather(tmp_path / "run", limits, **flags)
    assert not first.complete
    assert not again.complete
    assert 0 < first.calls < 20
    assert again.calls == 0


def test_a_larger_collection_extends_a_smaller_one(tmp_path: Path) -> None:
    gather(tmp_path / "run", per_subtopic=3, blue=1)
    small = {row[0]: row for row in rows(tmp_path / "run")}
    grown = gather(tmp_path / "run", per_subtopic=5, blue=2, red=True, judge="refusal")
    assert {(c.questions, c.blue, c.red) for c in grown.collection.coverage()} == {(5, 10, 10)}
    large = {row[0]: row for row in rows(tmp_path / "run")}
    assert small.items() <= large.items()
    with pytest.raises(ConfigError, match="cannot shrink"):
        gather(tmp_path / "run", per_subtopic=3, blue=2, red=True, judge="refusal")
    with pytest.raises(ConfigError, match="--red"):
        gather(tmp_path / "run", per_subtopic=5, judge="refusal")
    with pytest.raises(ConfigError, match="--judge"):
        gather(tmp_path / "run", per_subtopic=5, red=True)
    with pytest.raises(ConfigError, match="--topics"):
        gather(tmp_path / "run", topics=ONE)


def test_what_cannot_be_parsed_is_recorded_asked_again_and_counted(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    def spoil(prompt: str, reply: str) -> str | None:
        step = "blue" if "Write the whole" in prompt else "questions" if "until Red-LM" in prompt else "other"
        seen[step] += 1
        if step == "questions" and seen[step] == 1:
            return "I would rather talk of something else today."
        if step == "blue" and "Herons" in prompt:
            return "" if "small pieces" in prompt else reply
        return reply

    run = tmp_path / "run"
    done = gather(run, Limits(concurrency=1), topics=ONE, teacher=teacher(spoil))
    assert done.complete
    harvest = done.collection.harvest
    assert harvest.unparsable == {"questions": {"no_dialogue": 1}, "blue": {"empty": 9}}
    assert harvest.left_out == {"blue": 3}
    (cell,) = done.collection.coverage()
    assert (cell.questions, cell.blue) == (3, 3)
    assert "I would rather talk of something else today." in {row[7] for row in rows(run)}
    assert sum(row[5] == "no_response" for row in rows(run)) == 9
    assert gather(run, topics=ONE).calls == 0


def test_an_answer_that_a_limit_cut_is_marked_whoever_gave_it(tmp_path: Path) -> None:
    def cut(request: Request) -> Reply:
        reply = Reply(teach(body(request)), "stop", 10, 10)
        whole = "Write the whole conversation" not in request.messages[-1].content
        return reply if whole else msgspec.structs.replace(reply, finish_reason="length")

    role_play = gather(tmp_path / "a", teacher=ScriptedModel(cut, name="teacher"), topics=ONE).collection.dialogues()
    assert [turn.cut for turn in role_play[0].turns] == [False] * 5 + [True]
    assert not role_play[0].complete
    short = ScriptedModel(lambda r: Reply("Gladly, with some", "length", 1, 1), name="short")
    answered = gather(tmp_path / "b", answerer=short, topics=ONE).collection.dialogues()
    assert [turn.cut for turn in answered[0].turns] == [False, True] * 3


def test_until_covered_asks_on_within_a_bound(tmp_path: Path) -> None:
    def mean(prompt: str, reply: str) -> str | None:
        return "\n".join(reply.splitlines()[:2]) if "until Red-LM" in prompt else reply

    run = tmp_path / "run"
    thin = gather(run, topics=ONE, per_subtopic=8, teacher=teacher(mean))
    assert [c.questions for c in thin.collection.coverage()] == [3]
    assert thin.collection.harvest.left_out == {"questions": 5}
    full = gather(run, topics=ONE, per_subtopic=8, teacher=teacher(mean), until_covered=True)
    assert [(c.questions, c.blue) for c in full.collection.coverage()] == [(8, 16)]
    assert read_collection(run) == full.collection
    assert gather(run, topics=ONE, per_subtopic=8, teacher=teacher(mean)).calls == 0
    mute = teacher(lambda prompt, reply: "No." if "until Red-LM" in prompt else reply)
    never = gather(tmp_path / "mute", topics=ONE, teacher=mute, until_covered=True)
    assert never.complete
    assert len(mute.requests) < 30


def test_failed_calls_are_recorded_and_asked_again_on_request(tmp_path: Path) -> None:
    class Failing(ScriptedModel):
        async def generate(self, batch: Any) -> Any:
            if "Write the whole" in batch[0].messages[-1].content and "small pieces" in batch[0].messages[-1].content:
                raise ModelError(FailureReason.BAD_REQUEST)
            return await super().generate(batch)

    run = tmp_path / "run"
    bad = Failing(lambda request: Reply(teach(body(request)), "stop", 1, 1), name="teacher")
    done = gather(run, topics=ONE, teacher=bad)
    assert done.complete
    assert done.collection.harvest.left_out == {"blue": 3}
    assert done.collection.harvest.unparsable == {"blue": {"bad_request": 3}}
    assert done.erring == ("blue: 3 of 6 are errors",)
    assert done.exit_code == 11
    assert gather(run, Limits(keep_errors=True), topics=ONE).calls == 0
    mended = gather(run, topics=ONE)
    assert mended.calls == 3
    assert [c.blue for c in mended.collection.coverage()] == [6]
    assert mended.collection.harvest.left_out == {}


@pytest.mark.parametrize("reason", [FailureReason.UNAUTHORIZED, FailureReason.NOT_FOUND])
@pytest.mark.parametrize("topics", [ONE, paper_topics()])
def test_nothing_but_denials_leaves_no_folder(tmp_path: Path, reason: FailureReason, topics: Any) -> None:
    def deny(request: Request) -> Reply:
        raise ModelError(reason)

    with pytest.raises(EndpointDenied, match="Check the key"):
        gather(tmp_path / "runs" / "run", teacher=ScriptedModel(deny), topics=topics)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("reason", [FailureReason.UNAUTHORIZED, FailureReason.QUOTA])
def test_a_denied_answerer_stops_the_collection_and_its_answers_stay_owed(
    tmp_path: Path, reason: FailureReason
) -> None:
    def deny(request: Request) -> Reply:
        raise ModelError(reason, note="as it said")

    run = tmp_path / "run"
    stopped = gather(run, topics=ONE, answerer=ScriptedModel(deny, name="own"))
    assert stopped.exit_code == 11
    assert stopped.stopped is not None
    assert "as it said" in stopped.stopped
    assert stopped.failures == ()
    own = ScriptedModel(lambda request: Reply("own answer", "stop"), name="own")
    done = gather(run, topics=ONE, answerer=own)
    assert done.exit_code == 0
    whole = gather(tmp_path / "other", topics=ONE, answerer=own)
    assert done.collection == whole.collection
    assert done.calls + stopped.calls < whole.calls + 20 + 64


def test_another_answerer_gives_base_lms_answers(tmp_path: Path) -> None:
    heard: list[Request] = []

    def answer(request: Request) -> Reply:
        heard.append(request)
        return Reply(f"own answer {len(request.messages)}", "stop")

    model = ScriptedModel(answer, name="own")
    done = gather(tmp_path / "run", topics=ONE, answerer=model, red=True)
    blue, red = (next(d for d in done.collection.dialogues() if d.colour == c) for c in ("blue", "red"))
    assert [t.text for t in blue.turns if t.speaker == "gpt"] == ["own answer 1", "own answer 3", "own answer 5"]
    assert {t.text for d in done.collection.dialogues() for t in d.turns if t.speaker == "gpt"} == {
        "own answer 1", "own answer 3", "own answer 5"}  # fmt: skip
    assert [t for t in red.turns if t.speaker == "human"] == [t for t in blue.turns if t.speaker == "human"]
    assert red.parent == blue.id
    pressed = [r.messages[-1].content for r in heard if len(r.messages) == 1 and "Base-LM" in r.messages[-1].content]
    assert len(pressed) == 18
    deep = next(p for p in pressed if blue.turns[4].text in p)
    assert f"Red-LM: {blue.turns[0].text}\n\nBase-LM: own answer 1\n\nRed-LM: {blue.turns[2].text}" in deep


def test_turn_by_turn_each_sees_what_the_other_said(tmp_path: Path) -> None:
    model = teacher()
    answerer = ScriptedModel(lambda r: Reply(f"answer to {len(r.messages)}", "stop"), name="own")
    done = gather(tmp_path / "run", topics=ONE, per_subtopic=1, blue=1, teacher=model, answerer=answerer,
                  turn_by_turn=True)  # fmt: skip
    (dialogue,) = done.collection.dialogues()
    assert dialogue.source == "turn-by-turn"
    assert dialogue.complete
    assert len(dialogue.turns) == 2 * steps.TURNS
    last = model.requests[-1].messages[-1].content
    assert "Base-LM: answer to 1\n" in last
    assert f"[Turn] {steps.TURNS} of {steps.TURNS}" in last


def test_no_red_is_made_unless_it_is_asked_for(tmp_path: Path) -> None:
    model = teacher()
    gather(tmp_path / "run", teacher=model, judge="refusal")
    cou = shipped("cou").prefix[:80]
    assert not [r for r in model.requests if r.messages[-1].content.startswith(cou)]
    assert {row[2] for row in rows(tmp_path / "run")} == {"subtopics", "definitions", "questions", "blue", "verdict"}


def test_every_answer_gets_a_verdict(tmp_path: Path) -> None:
    done = gather(tmp_path / "run", topics=ONE, red=True, judge="refusal")
    labels = Counter(t.label for d in done.collection.dialogues() for t in d.turns if t.speaker == "gpt")
    assert labels == {"harmful": 36}
    assert {t.label for d in done.collection.dialogues() for t in d.turns if t.speaker == "human"} == {None}
    verdicts = [row for row in rows(tmp_path / "run") if row[2] == "verdict"]
    assert len(verdicts) == 36
    with Store.open_for_reading(tmp_path / "run") as store:
        assert [card.name for _, card in store.judges()] == ["refusal"]


def test_critique_turns_an_unsafe_answer_into_a_safe_one(tmp_path: Path) -> None:
    sorry = "I'm sorry, but I can't help with that."

    def own(request: Request) -> Reply:
        prompt = request.messages[-1].content
        if "Write only the new answer" in prompt:
            return Reply(sorry if "UNSAFE" in prompt and "CRITIQUE" in prompt else "no", "stop")
        return Reply("CRITIQUE" if "Read your answer again" in prompt else "UNSAFE", "stop")

    model = ScriptedModel(own, name="own")
    done = gather(tmp_path / "run", topics=ONE, answerer=model, judge="refusal", critique=True)
    made = [d for d in done.collection.dialogues() if d.source == "critique"]
    assert len(made) == 3
    assert {(d.colour, d.turns[1].text, d.turns[1].label) for d in made} == {("blue", sorry, "unharmful")}
    for name in FORMATS:
        written = json.dumps(prepare_release(done.collection, name).rows)
        assert "UNSAFE" not in written
        assert "CRITIQUE" not in written
    with pytest.raises(UsageError, match="--judge"):
        gather(tmp_path / "other", critique=True)


def test_no_red_text_leaves_without_the_flag(tmp_path: Path) -> None:
    def answer(request: Request) -> Reply:
        red = "Answer the Red-LM's question" in request.messages[-1].content
        return Reply(
            f"Red marker number {len(request.messages[-1].content)}." if red else "I am sorry, but no.", "stop"
        )

    done = gather(tmp_path / "run", answerer=ScriptedModel(answer, name="own"), red=True, judge="refusal")
    for name in FORMATS:
        without = prepare_release(done.collection, name)
        assert "Red marker" not in json.dumps([without.rows, without.card.json]), name
        included = prepare_release(done.collection, name, include_red=True)
        assert "Red marker" in json.dumps(included.rows), name


HOSTILE = ("odd \ud800 text", "nul \x00 byte", "\x1b[2J screen", "<topic> {slot} %s", "x" * 20_000, "\u202e turned")


@pytest.mark.parametrize("text", [*HOSTILE[:3], *(pytest.param(text, marks=pytest.mark.slow) for text in HOSTILE[3:])])
def test_whatever_a_teacher_writes_is_data(tmp_path: Path, text: str) -> None:
    def spoil(prompt: str, reply: str) -> str | None:
        return reply.replace("part", f"part {text}").replace("What", f"What {text}").replace("Gladly", f"Gladly {text}")

    flags: dict[str, Any] = {"topics": (("Birds", ()),), "per_subtopic": 1, "blue": 1, "red": True, "judge": "refusal"}
    done = gather(tmp_path / "run", teacher=teacher(spoil), **flags)
    assert done.complete
    assert read_collection(tmp_path / "run") == done.collection
    assert gather(tmp_path / "run", teacher=teacher(spoil), **flags).calls == 0
    for name in FORMATS:
        assert prepare_release(done.collection, name, include_red=True, near=1.0).card.json


def test_progress_names_step_topic_and_subtopic(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(progress: Progress) -> None:
        told.append(progress.stage)
        assert progress.total is not None
        assert 0 < progress.done <= progress.total

    plan = prepare_collection(CollectSettings(teacher=teacher(), topics=TOPICS, per_subtopic=1, blue=1))
    collect(plan, tmp_path / "run", None, tell)
    assert {"subtopics: Rocks", "definitions: Birds", "questions: Birds / Wrens", "blue: Birds / Herons"} <= set(told)


def test_a_seed_makes_equal_requests_differ(tmp_path: Path) -> None:
    model = teacher()
    gather(tmp_path / "run", topics=ONE, per_subtopic=1, blue=7, teacher=model, seed=7)
    blue = [r for r in model.requests if "Write the whole" in r.messages[-1].content]
    assert sorted(r.sampling.seed or 0 for r in blue) == list(range(7, 14))
    assert len({(r.messages, r.sampling) for r in blue}) == 7


class TestTexts:
    CELL = Subtopic("A <topic>", "A <agenda>", "A <definition>")
    QUESTION = CollectedQuestion("id", "t", "s", "What <turns> of <nothing>?")

    def test_slots_are_filled_once(self) -> None:
        text = steps.blue_text(self.CELL, self.QUESTION, 0)
        assert "[Topic] A <topic>: A <agenda>" in text
        assert "[Agenda] What <turns> of <nothing>?" in text

    def test_the_thoughts_and_roles_are_asked_for(self) -> None:
        for step in ("questions", "blue", "blue-turn"):
            assert {"Red-LM", "Base-LM", "internal thought"} <= {
                word for word in ("Red-LM", "Base-LM", "internal thought") if word in steps.text_of(step)
            }

    def test_a_template_without_roles_holds_the_last_question_alone(self) -> None:
        said = [Turn("human", "one?"), Turn("gpt", "yes"), Turn("human", "two?")]
        assert steps.red_slot(shipped("standard"), said) == "two?"
        assert steps.red_slot(shipped("cou"), said) == "one?\n\nBase-LM: yes\n\nRed-LM: two?"


class TestTopics:
    def test_the_papers_topics(self) -> None:
        assert len(paper_topics()) == 10
        assert [len(names) for _, names in paper_topics()] == [9, 10, 10, 10, 9, 10, 10, 10, 10, 10]
        assert len({(topic, name) for topic, names in paper_topics() for name in names}) == 98

    @pytest.mark.data
    def test_they_are_those_of_the_released_file(self, shared_data: Path) -> None:
        released = json.loads((shared_data / "harmfulqa.json").read_text())
        assert {topic: set(names) for topic, names in paper_topics()} == {t: set(v) for t, v in released.items()}

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('["Birds", " Rocks  and stones "]', (("Birds", ()), ("Rocks and stones", ()))),
            ('{"Birds": ["Herons", "Wrens"], "Rocks": []}', TOPICS),
        ],
    )
    def test_a_file_of_ones_own(self, tmp_path: Path, text: str, expected: Any) -> None:
        (tmp_path / "t.json").write_text(text)
        assert read_topics(tmp_path / "t.json") == expected

    @pytest.mark.parametrize(
        "text",
        ["", "[", "[]", "{}", "7", "null", '["a", "a"]', '["a", 7]', '[""]', '{"a": "b"}', '{"a": ["b", "b"]}',
         '{"a": [], "a": []}', '["a\\u0000b"]', '["\\ud800"]', "[" * 100_000, '{"a": [["b"]]}', f'["{"x" * 300}"]',
         '{"a": null}'],
    )  # fmt: skip
    def test_a_file_that_is_none(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(UsageError, match="--topics"):
            read_topics(tmp_path / "t.json")

    def test_a_file_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"--topics t\.json: there is no such file"):
            read_topics(tmp_path / "t.json")
