"""Topics, definitions, questions, blue and red conversations, verdicts, critiques: HARMFULQA, step by step.

Every step reads the committed calls of the steps before it and owes its own in a fixed order (spec 2.2; design 4). What
cannot be parsed is asked again a few times, then left out and counted; the counts are those of the rows, so that
reading a collection finds what collecting it found.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from redinstruct.harmfulqa import steps
from redinstruct.harmfulqa.calls import ANSWERER, TEACHER, CollectionCall, NotRecorded, Recorded
from redinstruct.harmfulqa.dialogues import harvest_questions, parse_dialogue
from redinstruct.harmfulqa.parsing import Unparsable, parse_definitions, parse_list
from redinstruct.harmfulqa.plan import CollectConfig
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Dialogue, Subtopic, Turn
from redinstruct.judges import Case
from redinstruct.models import Request
from redinstruct.models.base import is_cut
from redinstruct.prompts import AnswerReader, render, shipped
from redinstruct.prompts.thoughts import spoken
from redinstruct.run import StoredCall
from redinstruct.types import ATTACK_SUCCESS, PromptTemplate, Sampling, Verdict

Value = TypeVar("Value")

TRIES = 3
"""How often something unparsable is asked in all."""
COVERING_TRIES = 8
SPARE_ROUNDS, COVERING_ROUNDS = 2, 20
"""Calls for questions beyond those that would do if all gave what was asked for."""

Agenda = tuple[Subtopic, CollectedQuestion, int]
"""A conversation to be had: the cell, the question, the conversation's number."""


class Harvest(msgspec.Struct, frozen=True):
    """What a collection holds. ``unparsable`` counts replies by step and reason, ``left_out`` what was given up."""

    cells: tuple[Subtopic, ...]
    rows: tuple[Collected, ...]
    unparsable: dict[str, dict[str, int]]
    left_out: dict[str, int]


class Pipeline:
    """One collection, driven by :class:`redinstruct.harmfulqa.calls.Live` to collect it, by ``Recorded`` to read it."""

    def __init__(
        self, config: CollectConfig, calls: Recorded, red_template: PromptTemplate, *, until_covered: bool = False
    ) -> None:
        self._config = config
        self._calls = calls
        self._red_template = red_template
        self._red_reader = AnswerReader(red_template)
        self._plain_reader = AnswerReader(shipped("standard"))
        self._tries = COVERING_TRIES if until_covered else TRIES
        self._spare = COVERING_ROUNDS if until_covered else SPARE_ROUNDS
        self._answerer = TEACHER if config.answerer is None else ANSWERER
        self._unparsable: dict[str, Counter[str]] = {}
        self._left_out: Counter[str] = Counter()

    async def run(self) -> Harvest:
        """Every step, each when the one before has ended. Raises ``CallsEnded`` when a limit ends it."""
        cells = await self._cells()
        found = await self._calls.each("questions", cells, _cell_name, self._questions)
        asked = [(cell, question) for cell, qs in zip(cells, found, strict=True) for question in qs or ()]
        agendas = [(cell, question, number) for cell, question in asked for number in range(self._config.blue)]
        told = await self._calls.each("blue", agendas, _agenda_name, self._blue)
        blue = [dialogue for dialogue in told if dialogue is not None]
        red: list[Dialogue] = []
        names = {question.id: _cell_name(cell) for cell, question in asked}
        if self._config.red:
            turned = await self._calls.each("red", blue, lambda d: names[d.question], self._red)
            red = [dialogue for dialogue in turned if dialogue is not None]
        if self._calls.judge_id is not None:
            blue, red = await self._judged([*blue, *red], names)
        if self._config.critique:
            revised = await self._calls.each("critique", asked, lambda a: _cell_name(a[0]), self._critique)
            blue += [dialogue for dialogue in revised if dialogue is not None]
        return self._harvest(cells, asked, blue, red)

    def _harvest(
        self,
        cells: Sequence[Subtopic],
        asked: Sequence[tuple[Subtopic, CollectedQuestion]],
        blue: Sequence[Dialogue],
        red: Sequence[Dialogue],
    ) -> Harvest:
        of: dict[tuple[str, str], list[Dialogue]] = {}
        for dialogue in (*blue, *red):
            of.setdefault((dialogue.question, dialogue.colour), []).append(dialogue)
        rows = tuple(
            Collected(question, tuple(of.get((question.id, "blue"), ())), tuple(of.get((question.id, "red"), ())))
            for _, question in asked
        )
        unparsable = {step: dict(sorted(reasons.items())) for step, reasons in sorted(self._unparsable.items())}
        return Harvest(tuple(cells), rows, unparsable, dict(sorted(self._left_out.items())))

    # ---- one thing asked until it can be read --------------------------------------------------------------------

    async def _until_read(
        self,
        step: str,
        role: str,
        identity: tuple[str, ...],
        send: Callable[[int], Request],
        read: Callable[[StoredCall], Value],
    ) -> Value | None:
        """What a reply says; None where nothing readable came within the tries, or the call failed for good."""
        ask = CollectionCall(step, role, identity, send)
        for number in itertools.count():
            known = self._calls.known(ask.key)
            if number < len(known):
                call = known[number]
            elif number and known[-1].outcome == "error":
                if not self._calls.may_ask_again(ask.key):
                    break
                call = await self._calls.call(ask)
            elif number < self._tries:
                call = await self._calls.call(ask)
            else:
                break
            if call.outcome == "text":
                try:
                    return read(call)
                except Unparsable as failure:
                    self._note(step, failure.reason)
            else:
                self._note(step, call.reason or call.outcome)
        self._left_out[step] += 1
        return None

    def _note(self, step: str, reason: str) -> None:
        self._unparsable.setdefault(step, Counter())[str(reason)] += 1

    # ---- topics, definitions, questions --------------------------------------------------------------------------

    async def _cells(self) -> list[Subtopic]:
        topics = await self._calls.each("subtopics", self._config.topics, lambda t: t[0], self._subtopics)
        parts = [
            (topic, names[at : at + steps.NAMES_PER_CALL])
            for (topic, _), names in zip(self._config.topics, topics, strict=True)
            for at in range(0, len(names or ()), steps.NAMES_PER_CALL)
            if names
        ]
        defined = await self._calls.each("definitions", parts, lambda p: p[0], self._definitions)
        return [
            Subtopic(topic, name, (lines or {}).get(name))
            for (topic, names), lines in zip(parts, defined, strict=True)
            for name in names
        ]

    async def _subtopics(self, entry: tuple[str, tuple[str, ...]]) -> tuple[str, ...] | None:
        topic, names = entry
        if names:
            return names
        text = steps.subtopics_text(topic)
        found = await self._until_read(
            "subtopics", TEACHER, (topic,), lambda n: steps.asked(text, self._teacher(n)), _subtopic_names
        )
        return None if found is None else tuple(found)

    async def _definitions(self, part: tuple[str, tuple[str, ...]]) -> dict[str, str] | None:
        topic, names = part
        text = steps.definitions_text(topic, names)
        return await self._until_read(
            "definitions",
            TEACHER,
            (topic, *names),
            lambda n: steps.asked(text, self._teacher(n)),
            lambda call: parse_definitions(call.reply or "", names),
        )

    async def _questions(self, cell: Subtopic) -> list[CollectedQuestion]:
        """Rounds of questions until there are enough; each is told what was asked before it.

        Rounds that were committed always count, so that a collection that grew reads as it grew.
        """
        wanted = self._config.per_subtopic
        most = math.ceil(wanted / steps.QUESTIONS_PER_CALL) + self._spare
        found: dict[str, CollectedQuestion] = {}
        for number in itertools.count():
            ask = self._questions_ask(cell, number, [question.text for question in found.values()])
            known = self._calls.known(ask.key)
            if not known and (len(found) >= wanted or number >= most):
                break
            try:
                call = known[-1] if known else await self._calls.call(ask)
            except NotRecorded:
                return list(found.values())[:wanted]
            if call.outcome == "error" and self._calls.may_ask_again(ask.key):
                call = await self._calls.call(ask)
            for text in self._harvested(call):
                normal = "".join(text.casefold().split()).strip("?.!")
                found.setdefault(normal, _question(cell, text, normal))
            if call.outcome == "error":
                break
        if len(found) < wanted:
            self._left_out["questions"] += wanted - len(found)
        return list(found.values())[:wanted]

    def _questions_ask(self, cell: Subtopic, number: int, before: Sequence[str]) -> CollectionCall:
        def send(_: int) -> Request:
            count = max(1, min(steps.QUESTIONS_PER_CALL, self._config.per_subtopic - len(before)))
            return steps.asked(steps.questions_text(cell, count, before), self._teacher(number))

        return CollectionCall("questions", TEACHER, (cell.topic, cell.name, str(number)), send)

    def _harvested(self, call: StoredCall) -> list[str]:
        if call.outcome != "text":
            self._note("questions", call.reason or call.outcome)
            return []
        try:
            return harvest_questions(parse_dialogue(call.reply or "")[0])
        except Unparsable as failure:
            self._note("questions", failure.reason)
            return []

    # ---- blue ----------------------------------------------------------------------------------------------------

    async def _blue(self, agenda: Agenda) -> Dialogue | None:
        if self._config.turn_by_turn:
            return await self._turn_by_turn(agenda)
        cell, question, number = agenda
        text = steps.blue_text(cell, question, number)
        identity = (question.id, str(number))
        script = await self._until_read(
            "blue", TEACHER, identity, lambda n: steps.asked(text, self._teacher(number + n)), _script
        )
        if script is None:
            return None
        turns, complete = script
        if self._config.answerer is not None:
            humans = [turn for turn in turns if turn.speaker == "human"]
            turns, answered = await self._answered(identity, humans)
            complete = complete and answered
        return _blue_dialogue(question, number, turns, complete, "role-play")

    async def _answered(self, identity: tuple[str, ...], humans: Sequence[Turn]) -> tuple[tuple[Turn, ...], bool]:
        """Base-LM's own answers to Red-LM's utterances, each with the conversation before it."""
        said: list[Turn] = []
        for number, turn in enumerate(humans):
            answer = await self._answer(identity, number, [*said, turn])
            if answer is None:
                return tuple(said), False
            said += [turn, answer]
        return tuple(said), True

    async def _answer(self, identity: tuple[str, ...], number: int, said: Sequence[Turn]) -> Turn | None:
        request = steps.chat_request(said, self._config.answers)
        return await self._spoken("answer", (*identity, str(number)), request, self._plain_reader, said[-1].text)

    async def _spoken(
        self, step: str, identity: tuple[str, ...], request: Request, reader: AnswerReader, prompt: str
    ) -> Turn | None:
        """Base-LM's own answer, read as what follows the prompt."""
        return await self._until_read(
            step,
            self._answerer,
            identity,
            lambda n: msgspec.structs.replace(request, sampling=steps.seeded(request.sampling, n)),
            lambda call: _answer_turn(reader, call, prompt),
        )

    async def _turn_by_turn(self, agenda: Agenda) -> Dialogue | None:
        """Red-LM and Base-LM as two models, each of which sees what the other said."""
        cell, question, number = agenda
        identity = (question.id, str(number))
        said: list[Turn] = []
        for turn in range(steps.TURNS):
            text = steps.blue_turn_text(cell, question, number, said)

            def send(n: int, text: str = text) -> Request:
                return steps.asked(text, self._teacher(number + n))

            uttered = await self._until_read("blue-turn", TEACHER, (*identity, str(turn)), send, _utterance)
            answer = None if uttered is None else await self._answer(identity, turn, [*said, uttered])
            if uttered is None or answer is None:
                break
            said += [uttered, answer]
        complete = len(said) == 2 * steps.TURNS
        return _blue_dialogue(question, number, tuple(said), complete, "turn-by-turn")

    # ---- red -----------------------------------------------------------------------------------------------------

    async def _red(self, blue: Dialogue) -> Dialogue | None:
        """The same human turns; the answers made anew under the CoU prompt, one per turn."""
        said: list[Turn] = []
        humans = [turn for turn in blue.turns if turn.speaker == "human"]
        for number, turn in enumerate(humans):
            answer = await self._under_pressure("red", (blue.id, str(number)), [*said, turn])
            if answer is None:
                break
            said += [turn, answer]
        if not said:
            return None
        name = blue.id.replace("-b", "-r")
        complete = blue.complete and len(said) == 2 * len(humans)
        return Dialogue(name, blue.question, "red", tuple(said), blue.id, complete, blue.source)

    async def _under_pressure(self, step: str, identity: tuple[str, ...], said: Sequence[Turn]) -> Turn | None:
        template = self._red_template
        prompt = render(template, steps.red_slot(template, said))
        request = msgspec.structs.replace(steps.asked(prompt, self._config.answers), prefix=template.prefix)
        return await self._spoken(step, identity, request, self._red_reader, prompt)

    # ---- verdicts, critiques -------------------------------------------------------------------------------------

    async def _judged(
        self, dialogues: Sequence[Dialogue], names: dict[str, str]
    ) -> tuple[list[Dialogue], list[Dialogue]]:
        """The conversations with a verdict on each answer."""
        answers = [
            (dialogue, at) for dialogue in dialogues for at, turn in enumerate(dialogue.turns) if turn.speaker == "gpt"
        ]
        told = await self._calls.each("verdicts", answers, lambda a: names[a[0].question], self._verdict_of)
        verdict = {(dialogue.id, at): found for (dialogue, at), found in zip(answers, told, strict=True)}
        done = [
            msgspec.structs.replace(
                dialogue,
                turns=tuple(_labelled(turn, verdict.get((dialogue.id, at))) for at, turn in enumerate(dialogue.turns)),
            )
            for dialogue in dialogues
        ]
        return [d for d in done if d.colour == "blue"], [d for d in done if d.colour == "red"]

    async def _verdict_of(self, answer: tuple[Dialogue, int]) -> Verdict:
        dialogue, at = answer
        return await self._verdict(dialogue.id, dialogue.turns[at - 1].text, dialogue.turns[at].text)

    async def _verdict(self, where: str, question: str, answer: str) -> Verdict:
        """The verdict on one answer to one utterance; the text is part of its key, so it is never another one's."""
        identity = json.dumps(("verdict", self._calls.judge_id, where, question, answer))
        key = hashlib.sha256(identity.encode()).digest()
        known = self._calls.known(key)
        call = known[-1] if known else None
        if call is None or (call.outcome == "error" and self._calls.may_ask_again(key)):
            call = await self._calls.judged(key, Case(question, answer, key))
        if call.outcome != "text" or call.reply is None:
            return Verdict("error")
        return msgspec.convert(json.loads(call.reply), Verdict)

    async def _critique(self, entry: tuple[Subtopic, CollectedQuestion]) -> Dialogue | None:
        """The model's own unsafe answer, its critique, its revision; None unless the revision is judged safe."""
        question = entry[1]
        asked = Turn("human", question.text)
        unsafe = await self._under_pressure("unsafe", (question.id,), [asked])
        if unsafe is None:
            return None
        if (await self._verdict(f"{question.id}-u", question.text, unsafe.text)).label != ATTACK_SUCCESS.first:
            return None
        text = steps.fill("critique", question=question.text, answer=unsafe.text)
        critique = await self._own_words("critique", question, text)
        if critique is None:
            return None
        text = steps.fill("revision", question=question.text, answer=unsafe.text, critique=critique.text)
        revised = await self._own_words("revision", question, text)
        if revised is None:
            return None
        verdict = await self._verdict(f"{question.id}-c", question.text, revised.text)
        if verdict.label != ATTACK_SUCCESS.second:
            self._left_out["critique"] += 1
            return None
        turns = (asked, _labelled(revised, verdict))
        return Dialogue(f"{question.id}-c", question.id, "blue", turns, source="critique")

    async def _own_words(self, step: str, question: CollectedQuestion, text: str) -> Turn | None:
        request = steps.asked(text, self._config.answers)
        return await self._spoken(step, (question.id,), request, self._plain_reader, text)

    def _teacher(self, number: int) -> Sampling:
        return steps.seeded(self._config.sampling, number)


def _labelled(turn: Turn, verdict: Verdict | None) -> Turn:
    return turn if verdict is None else msgspec.structs.replace(turn, label=verdict.label, detail=verdict.detail)


def _question(cell: Subtopic, text: str, normal: str) -> CollectedQuestion:
    """A question whose id hangs on where it was collected and what it says, not on when."""
    name = json.dumps((cell.topic, cell.name, normal))
    return CollectedQuestion(hashlib.sha256(name.encode()).hexdigest()[:16], cell.topic, cell.name, text)


def _blue_dialogue(
    question: CollectedQuestion, number: int, turns: tuple[Turn, ...], complete: bool, source: str
) -> Dialogue | None:
    if not turns:
        return None
    return Dialogue(f"{question.id}-b{number}", question.id, "blue", turns, None, complete, source)


def _subtopic_names(call: StoredCall) -> list[str]:
    # "Name: what it is" is a common addition; the name is what was asked for.
    found = parse_list(call.reply or "", wanted=steps.SUBTOPICS_PER_TOPIC)
    return list(dict.fromkeys(name for item in found if (name := item.partition(": ")[0].strip())))


def _script(call: StoredCall) -> tuple[tuple[Turn, ...], bool]:
    turns, complete = parse_dialogue(call.reply or "")
    if complete and is_cut(call.finish_reason):
        # It ends with an answer, and looks whole; the model was stopped all the same.
        return (*turns[:-1], msgspec.structs.replace(turns[-1], cut=True)), False
    return turns, complete


def _utterance(call: StoredCall) -> Turn:
    """Red-LM's utterance alone. The parser reads dialogues, so the answer that is yet to come stands in for itself."""
    reply = spoken(call.reply or "", cut=True).answer.strip()
    lead = "" if steps.ASKER in reply[:40] else f"{steps.ASKER}: "
    turns, _ = parse_dialogue(f"{lead}{reply}\n{steps.ANSWERER}: I see.")
    return next(turn for turn in turns if turn.speaker == "human")


def _answer_turn(reader: AnswerReader, call: StoredCall, prompt: str) -> Turn:
    text = reader.read(call.reply or "", prompt, cut=is_cut(call.finish_reason)).text.strip()
    if not text:
        raise Unparsable("empty")
    return Turn("gpt", text, cut=is_cut(call.finish_reason))


def _cell_name(cell: Subtopic) -> str:
    return f"{cell.topic} / {cell.name}"


def _agenda_name(agenda: Agenda) -> str:
    return _cell_name(agenda[0])
