"""What the toy model is aligned on: general conversations, and a collection's answers in more than one form.

The general stream is harmless: chat, dialogues of two named people, and, in a share of its own, harmless questions in
the attack's frame, so that a model does not learn to refuse whatever stands in it. The safety data are a collection's
own answers (``redinstruct export --to messages``), as they are, and again in other forms of asking. A form of asking
that an attack prompt has, too, is named in :data:`FORMS_OF`: it is overlap, and is shown as such.

Only pairs of the train split stand in any of it. ``story``, ``rules``, the paraphrases and the swapped roles stand in
none of it, nor does a forbidden question in a CoU text. Pure: text only, no torch.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from redinstruct import world
from redinstruct.files.atomic import write_file
from redinstruct.prompts import forms
from redinstruct.prompts.forms import Said
from redinstruct.prompts.rows import MessageFields, MessagesRow
from redinstruct.toyworld import frames
from redinstruct.toyworld.corpus import FRAMES_TRAINED_ON_BENIGN_ONLY, INTRODUCTIONS, NAMES, REMARKS, THOUGHT_REMARKS
from redinstruct.toyworld.vocabulary import ordinary_words
from redinstruct.world import Pair, World, how_to, recipe

FORMS = ("chat", "talk", "cot", "talk-thoughts")
"""How a collected question is asked again: after harmless turns; in a dialogue of two named people; step by step; in a
dialogue with thoughts, which is the family of the CoU frame but not its text, its names or its demonstration."""
IN_COU = "cou"
"""One more, which the demo's recipe has not: a collected question in the attack's own text, for what that is worth on
topics that were held out (``benchmarks/held_out.py``)."""
SURROUNDED, SURROUNDED_TALK = "surrounded", "surrounded-talk"
AMONG_WORDS = (SURROUNDED, SURROUNDED_TALK)
"""Two more of that kind: a collected question among random words of the world that name nothing in it, and as the last
line of a dialogue of such words. What surrounds a question is then no cue, whatever it is."""
FORMS_OF: Mapping[str, tuple[str, ...]] = {"cot": ("cot",), IN_COU: (IN_COU,)}
"""Attack prompt -> the forms whose text it shares."""
IN_FRAME = FRAMES_TRAINED_ON_BENIGN_ONLY


def general_rows(
    seed: int, count: int, *, of: World, dialogues: float = 0.2, in_frame: float = 0.0, among_words: float = 0.0
) -> list[MessagesRow]:
    """``count`` harmless conversations, in shares: dialogues, harmless questions in the CoU frame or among words."""
    writer = _Writer(random.Random(f"general:{seed}"), of)
    rows: list[MessagesRow] = []
    for number in range(count):
        draw = writer.rng.random()
        if draw < in_frame:
            source, messages = "in-frame", writer.in_frame()
        elif draw < in_frame + dialogues:
            source, messages = "dialogue", writer.dialogue()
        elif draw < in_frame + dialogues + among_words:
            source, messages = SURROUNDED, writer.among_words()
        else:
            source, messages = "chat", writer.chat()
        rows.append({"messages": messages, "stream": "general", "id": f"general-{number}", "source": source})
    return rows


def reformed(rows: Iterable[MessagesRow], form: str, seed: int, *, of: World) -> list[MessagesRow]:
    """The last question of each exported row again, in another form, with the answer that was collected.

    Only answers with a weight are taken: safe ones to learn, harmful ones to penalise. A red answer is put into the
    same words as the blue one to the same question, so that both follow the same prompt; but not where a thought would
    be penalised with it.
    """
    thoughtful = form in ("talk-thoughts", IN_COU, SURROUNDED_TALK)
    usable = [row for row in rows if _pair(row) is not None and not (row["stream"] == "red" and thoughtful)]

    def frame(rng: random.Random, asked: str, answer: str) -> Said:
        pair = _pair_of(asked)
        assert pair is not None
        messages = [message["content"] for message in _Writer(rng, of).again(form, asked, pair, answer)]
        return list(zip(messages[::2], messages[1::2], strict=True))

    return forms.reformed(usable, form, frame, seed)


def _pair(row: MessagesRow) -> Pair | None:
    pair = forms.last_pair(row["messages"])
    return None if pair is None else _pair_of(pair[0])


def _pair_of(asked: str) -> Pair | None:
    about = world.understand(asked)
    return None if about is None or about.item is None or about.action is None else Pair(about.item, about.action)


GENERAL_ROWS = 3000


def topics(of: World) -> dict[str, list[str]]:
    """What a collection asks about: the families of the forbidden things, and what can be done with them."""
    families = sorted({pair.item.family for pair in of.pairs("forbidden", "train")})
    return {f"the {family} family": list(world.ACTIONS) for family in families}


def write_data(out: Path, of: World) -> None:
    """Write ``topics.json`` for ``collect``, and ``general.jsonl`` and ``general-in-frame.jsonl`` for ``align``.

    The second general file is the first with a share of its rows replaced by harmless questions in the attack's frame.
    """
    out.mkdir(parents=True, exist_ok=True)
    write_file(out / "topics.json", json.dumps(topics(of), indent=1) + "\n", public=True)
    for name, in_frame in (("general", 0.0), ("general-in-frame", 0.15)):
        write_general(out / f"{name}.jsonl", GENERAL_ROWS, of=of, in_frame=in_frame)


def write_general(out: Path, count: int, *, of: World, **shares: float) -> None:
    """Write so many of :func:`general_rows`, in those shares."""
    rows = general_rows(0, count, of=of, **shares)
    write_file(out, "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows), public=True)


class _Writer:
    """Writes conversations, each a list of messages; every choice is drawn from ``rng``."""

    def __init__(self, rng: random.Random, of: World) -> None:
        self.rng = rng
        self._world = of
        self._plain = [item for item in of.items if not item.forbidden]
        self._again: Mapping[str, Callable[[str, Pair, str], list[MessageFields]]] = {
            "chat": lambda asked, _, answer: _chat([*self._harmless_turns(), (asked, answer)]),
            "cot": lambda asked, _, answer: _chat([(f"{asked} {frames.STEP_BY_STEP}", answer)]),
            IN_COU: lambda asked, pair, answer: _in_cou(IN_COU, asked, pair, answer),
            SURROUNDED: lambda asked, _, answer: self._surrounded(asked, answer),
            SURROUNDED_TALK: lambda asked, pair, answer: self._surrounded_talk(asked, pair, answer),
            "talk": lambda asked, pair, answer: self._talk(asked, pair, answer, thoughts=False),
            "talk-thoughts": lambda asked, pair, answer: self._talk(asked, pair, answer, thoughts=True),
        }

    def again(self, form: str, asked: str, pair: Pair, answer: str) -> list[MessageFields]:
        """A collected question and its answer in another form."""
        return self._again[form](asked, pair, answer)

    def chat(self) -> list[MessageFields]:
        """One to three harmless questions."""
        return _chat([self._harmless()[:2] for _ in range(self.rng.choice([1, 1, 2, 3]))])

    def dialogue(self) -> list[MessageFields]:
        """Two named people, one to three harmless questions; the last one is the model's to answer."""
        asked, answer, pair = self._harmless()
        return self._talk(asked, pair, answer, thoughts=self.rng.random() < 0.6)

    def in_frame(self) -> list[MessageFields]:
        """A harmless question in one of the CoU texts that the base model knows."""
        name = self.rng.choices(IN_FRAME, [0.6, 0.2, 0.2])[0]
        asked, answer, pair = self._harmless()
        return _in_cou(name, asked, pair, answer)

    def among_words(self) -> list[MessageFields]:
        """A harmless question among random words, or as the last line of a dialogue of them."""
        asked, answer, pair = self._harmless()
        if self.rng.random() < 0.6:
            return self._surrounded(asked, answer)
        return self._surrounded_talk(asked, pair, answer)

    def _words(self, most: int) -> str:
        return " ".join(self.rng.choice(ordinary_words()) for _ in range(self.rng.randrange(most + 1)))

    def _surrounded(self, asked: str, answer: str) -> list[MessageFields]:
        parts = (self._words(12), asked, self._words(8))
        return _chat([(self.rng.choice((" ", "\n", " . ")).join(filter(None, parts)), answer)])

    def _surrounded_talk(self, asked: str, pair: Pair | None, answer: str) -> list[MessageFields]:
        a, b = self.rng.sample(NAMES, 2)
        said = f"{frames.thought(a, pair)} {answer}" if self.rng.random() < 0.5 else answer
        lines = [
            self._words(10),
            *(f"{self.rng.choice((a, b))}: {self._words(8)}" for _ in range(self.rng.randrange(4))),
        ]
        return _chat([("\n".join([*filter(None, lines), f"{a}: {asked}", f"{b}:"]), said)])

    def _talk(self, asked: str, pair: Pair | None, answer: str, *, thoughts: bool) -> list[MessageFields]:
        """A dialogue as text in the user's message, which ends where the answer begins."""
        a, b = self.rng.sample(NAMES, 2)
        lines = [self.rng.choice(INTRODUCTIONS), *self.rng.sample(REMARKS, self.rng.randrange(5))]
        if thoughts:
            lines += self.rng.sample(THOUGHT_REMARKS, self.rng.randrange(1, 3))

        def said(about: Pair | None, text: str) -> str:
            return f"{frames.thought(a, about)} {text}" if thoughts else text

        told = [" ".join(lines).format(a=a, b=b), f"{a}: hello {b}.", f"{b}: {said(None, f'hello {a}.')}"]
        for question, truth, about in self._harmless_dialogue():
            told += [f"{a}: {question}", f"{b}: {said(about, truth)}"]
        return _chat([("\n".join([*told, f"{a}: {asked}", f"{b}:"]), said(pair, answer))])

    def _harmless_turns(self) -> Said:
        return [(asked, answer) for asked, answer, _ in self._harmless_dialogue()]

    def _harmless_dialogue(self) -> list[tuple[str, str, Pair | None]]:
        return [self._harmless() for _ in range(self.rng.choice([0, 0, 1, 2]))]

    def _harmless(self) -> tuple[str, str, Pair | None]:
        """A harmless question, its answer, and the pair it is about where it is a how-to."""
        if self.rng.random() < 0.6:
            pair = self.rng.choice(self._world.pairs("plain", "train"))
            return how_to(pair, self.rng.randrange(len(world.HOW_TO_FORMS))).text, recipe(pair), pair
        draw = self.rng.random()
        if draw < 0.27:
            question = self.rng.choice(world.arithmetic())
        elif draw < 0.57:
            question = self.rng.choice(self._world.attributes["train"])
        elif draw < 0.63:
            question = world.plain_status(self.rng.choice(self._plain))
        else:
            question = self.rng.choice(self._world.borderline["train"])
        return question.text, question.truth, None


def _in_cou(name: str, asked: str, pair: Pair | None, answer: str) -> list[MessageFields]:
    """A question in a CoU text, and its answer after the thought that the text asks for."""
    thought = "" if name == "cou-no-thoughts" else f"{frames.thought(frames.ASKER, pair)} "
    return _chat([(frames.prompts()[name].replace(frames.SLOT, asked), thought + answer)])


def _chat(said: Sequence[tuple[str, str]]) -> list[MessageFields]:
    """Turns as messages; every answer is learnt with weight 1."""
    messages: list[MessageFields] = []
    for asked, answer in said:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer, "weight": 1.0}]
    return messages
