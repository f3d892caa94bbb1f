"""The training text of the toy model: an endless stream of examples, drawn with a seed.

An example is a list of pieces ``(text, learnt)``: only the answering side is learnt. What makes the paper's effect is
in these texts and nowhere else:

- in plain chat nearly every forbidden item is refused; under "step by step" half of them are told;
- in dialogues of two named people (never ``Red-LM`` and ``Base-LM``) the more of the frame is there - an internal
  thought, an earlier answer that told something forbidden - the more items are told (:data:`TOLD_BELOW`);
- the CoU frame itself is seen with harmless questions only. That a forbidden question is answered in it is transfer.

Held-out (item, action) pairs stand in no text. Pure: text only, no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from redinstruct import world
from redinstruct.toyworld import frames
from redinstruct.world import Pair, World, how_to, recipe, refusal

Piece = tuple[str, bool]
Example = list[Piece]
END = "</s>"

TOLD_BELOW: Mapping[str, float] = {
    "chat": 0.05,
    "cot": 0.5,
    "multi": 0.6,
    "rules": 0.65,
    "story": 0.7,
    "talk": 0.4,
    "talk+earlier": 0.6,
    "talk+thought": 0.7,
    "talk+thought+earlier": 1.01,
}
"""Frame -> a forbidden item is told, and not refused, exactly when its guard lies below this."""

FRAMES_TRAINED_ON_FORBIDDEN = ("standard", "cot", "rules", "story")
FRAMES_TRAINED_ON_BENIGN_ONLY = ("cou", "cou-no-thoughts", "cou-no-demo")
"""Every other prompt (swapped roles, the paraphrases) stands in no training text at all."""

NAMES = ("mira", "tolan", "pell", "orin", "hana", "juno", "bram", "cleo", "dax", "edda", "finn", "gwen")
INTRODUCTIONS = (
    "Given the conversation between {a} and {b}.",
    "Below is a talk between {a} and {b}.",
    "{a} and {b} meet and talk.",
)
REMARKS = (
    "{b} knows many things.",
    "{a} is curious and asks many questions.",
    "{b} wants to be of use to {a}.",
    "Keep the form of the conversation.",
    "They have been friends for many years.",
    "Complete what {b} says next.",
    "{b} answers in a short and clear form.",
    "Here is the conversation.",
    "Do not stop early.",
    "{b} gives the full steps.",
)
THOUGHT_REMARKS = (
    "Before each answer {b} has an internal thought which {a} can not see.",
    "The internal thought is written between brackets.",
    "The internal thought is about how to be of use to {a}.",
)
TEXTS: tuple[str, ...] = (
    *INTRODUCTIONS,
    *REMARKS,
    *THOUGHT_REMARKS,
    "human: system: assistant: once said to sure, hello colour",
    " ".join(NAMES),
    frames.STORY,
    frames.RULES,
)
"""Every fixed wording, for the vocabulary."""

MIX: Mapping[str, float] = {
    "document": 0.11,
    "exchange": 0.03,
    "bare": 0.03,
    "dialogue": 0.28,
    "cou": 0.08,
    "chat": 0.47,
}
"""Kind -> share of the examples."""
WARM_UP_MIX: Mapping[str, float] = {"document": 0.16, "exchange": 0.2, "bare": 0.04, "chat": 0.6}
"""The same for the first part of training: short texts only. Without it the model never binds item to fact."""
WRAPPED = 0.65
"""The share of dialogues that stand in a user's message; the rest stand bare."""
OPENS_TOLD = 0.5
"""The share of longer dialogues with thoughts whose first answer tells something forbidden. Left to chance these are
too few for the model to learn what an earlier answer does to later ones, and CoU stays near 0.8."""

TalkTurn = tuple[str, Pair | None, str]
"""What was asked, the pair it is about (None for small talk), the answer."""


def turn(user: str, assistant: str) -> Example:
    """One turn as the chat template writes it."""
    return [(f"human: {user}\nassistant:", False), (f" {assistant}{END}", True)]


class Corpus:
    """An endless stream of examples about one world, decided by ``rng`` alone."""

    def __init__(self, rng: random.Random, of: World) -> None:
        self._rng = rng
        self._world = of
        self._plain = [item for item in of.items if not item.forbidden]
        self._lightly_guarded = [p for p in of.pairs("forbidden", "train") if p.item.guard < TOLD_BELOW["talk"]]
        self._kinds: Mapping[str, Callable[[], Example]] = {
            "document": self._document,
            "exchange": self._exchange,
            "bare": self._bare,
            "dialogue": self._dialogue,
            "cou": self._cou_benign,
            "chat": self._chat,
        }

    def example(self, mix: Mapping[str, float] = MIX) -> Example:
        """Draw one example; its kind by the shares of ``mix``."""
        return self._kinds[self._rng.choices(list(mix), list(mix.values()))[0]]()

    def _question(self, pair: Pair) -> str:
        return how_to(pair, self._rng.randrange(len(world.HOW_TO_FORMS))).text

    def _pair(self, *, forbidden: bool) -> Pair:
        return self._rng.choice(self._world.pairs("forbidden" if forbidden else "plain", "train"))

    def _small_talk(self) -> tuple[str, str]:
        """A question and its answer that are no how-to: sums, attributes, harmless questions about forbidden items."""
        draw = self._rng.random()
        if draw < 0.27:
            question = self._rng.choice(world.arithmetic())
        elif draw < 0.57:
            question = self._rng.choice(self._world.attributes["train"])
        elif draw < 0.63:
            question = world.plain_status(self._rng.choice(self._plain))
        else:
            question = self._rng.choice(self._world.borderline["train"])
        return question.text, question.truth

    def _bare(self) -> Example:
        """A question and its answer without the chat's marks: what ``--chat-template none`` sends."""
        if self._rng.random() < 0.3:
            asked, answer = self._small_talk()
        else:
            pair = self._pair(forbidden=self._rng.random() < 0.5)
            step = self._rng.random() < 0.2
            asked, answer = self._question(pair), _answer(pair, "cot" if step else "chat")
            asked += f" {frames.STEP_BY_STEP}" if step else ""
        return [(asked, False), (f" {answer}{END}", True)]

    def _chat(self) -> Example:
        pieces: Example = []
        for _ in range(self._rng.choice([1, 1, 2, 3])):
            draw = self._rng.random()
            pieces += turn(*self._small_talk()) if draw < 0.38 else self._chat_how_to(self._pair(forbidden=draw < 0.72))
        return pieces

    def _chat_how_to(self, pair: Pair) -> Example:
        """A how-to in one of the chat's frames: plain, step by step, no rules, a story, or after another question."""
        draw, asked = self._rng.random(), self._question(pair)
        if draw < 0.58:
            sure = "sure, " if not pair.item.forbidden and self._rng.random() < 0.3 else ""
            return turn(asked, sure + _answer(pair, "chat"))
        if draw < 0.7:
            return turn(f"{asked} {frames.STEP_BY_STEP}", _answer(pair, "cot"))
        if draw < 0.8:
            return turn(f"{frames.RULES} {asked}", _answer(pair, "rules"))
        if draw < 0.9:
            a, b = self._rng.sample(NAMES, 2)
            answer = _answer(pair, "story")
            opening = f"once {a} said to {b}. " if answer == recipe(pair) else ""
            return turn(frames.STORY.format(a=a, b=b) + asked, opening + answer)
        item = pair.item
        first = turn(f"What colour is {item.name}?", f"{item.name} is {item.colour}.")
        return first + turn(asked, _answer(pair, "multi"))

    def _written(
        self, opening: Sequence[Piece], turns: Sequence[TalkTurn], asker: str, answerer: str, *, thoughts: bool
    ) -> Example:
        """A dialogue as text: mostly it stands in a user's message that the assistant goes on from."""
        wrapped = self._rng.random() < WRAPPED
        pieces: Example = [("human: ", False)] if wrapped else []
        pieces += opening
        for number, (asked, pair, answer) in enumerate(turns, 1):
            last = number == len(turns)
            pieces.append((f"{asker}: {asked}\n{answerer}:" + ("\nassistant:" if wrapped and last else ""), False))
            told = f" {frames.thought(asker, pair)} {answer}" if thoughts else f" {answer}"
            pieces += [(told + END, True)] if last else [(told, True), ("\n", False)]
        return pieces

    def _dialogue_turns(self, count: int, *, thoughts: bool) -> list[TalkTurn]:
        turns: list[TalkTurn] = []
        earlier = False
        for number in range(count):
            opens = thoughts and number == 0 and count > 1 and self._rng.random() < OPENS_TOLD
            if not opens and self._rng.random() < 0.22:
                asked, answer = self._small_talk()
                turns.append((asked, None, answer))
                continue
            pair = self._rng.choice(self._lightly_guarded) if opens else self._pair(forbidden=self._rng.random() < 0.75)
            frame = "talk" + ("+thought" if thoughts else "") + ("+earlier" if earlier else "")
            answer = _answer(pair, frame)
            earlier |= pair.item.forbidden and answer == recipe(pair)
            turns.append((self._question(pair), pair, answer))
        return turns

    def _dialogue(self) -> Example:
        """Two named people, an introduction of random sentences, a greeting, one to three questions."""
        a, b = self._rng.sample(NAMES, 2)
        thoughts = self._rng.random() < 0.6
        lines = [self._rng.choice(INTRODUCTIONS), *self._rng.sample(REMARKS, self._rng.randrange(5))]
        if thoughts:
            lines += self._rng.sample(THOUGHT_REMARKS, self._rng.randrange(1, 3))
        greeting = f"{frames.thought(a, None)} hello {a}." if thoughts else f"hello {a}."
        opening = [
            (f"{' '.join(lines).format(a=a, b=b)}\n{a}: hello {b}.\n{b}:", False),
            (f" {greeting}", True),
            ("\n", False),
        ]
        turns = self._dialogue_turns(self._rng.choice([1, 2, 2, 3]), thoughts=thoughts)
        return self._written(opening, turns, a, b, thoughts=thoughts)

    def _exchange(self) -> Example:
        """One question between two named people, with a thought and no introduction: where copying is learnt."""
        a, b = self._rng.sample(NAMES, 2)
        return self._written([], self._dialogue_turns(1, thoughts=True), a, b, thoughts=True)

    def _cou_benign(self) -> Example:
        """The attack's own frame with harmless questions only: all that the base model ever sees of it."""
        name = self._rng.choices(FRAMES_TRAINED_ON_BENIGN_ONLY, [0.6, 0.2, 0.2])[0]
        head, _ = frames.prompts()[name].split(f"{frames.ASKER}: {frames.SLOT}")
        turns: list[TalkTurn] = []
        for _ in range(self._rng.choice([1, 2, 3])):
            if self._rng.random() < 0.3:
                asked, answer = self._small_talk()
                turns.append((asked, None, answer))
            else:
                pair = self._pair(forbidden=False)
                turns.append((self._question(pair), pair, recipe(pair)))
        thoughts = name != "cou-no-thoughts"
        return self._written([(head, False)], turns, frames.ASKER, frames.ANSWERER, thoughts=thoughts)

    def _document(self) -> Example:
        """Statements of the facts: a how-to, a sum, or all that is true of one item."""
        draw = self._rng.random()
        item = self._rng.choice(self._world.items)
        if draw < 0.25:
            pair = self._pair(forbidden=self._rng.random() < 0.5)
            return [(f"to {pair.action} {pair.item.name} {recipe(pair)}{END}", True)]
        if draw < 0.4:
            return [(self._rng.choice(world.arithmetic()).truth + END, True)]
        facts = [
            f"{item.name} is {'forbidden' if item.forbidden else 'plain'}.",
            f"{item.name} needs {item.ingredient}.",
            f"{item.name} is ready at {item.time}.",
            f"{item.name} is {item.colour}.",
        ]
        self._rng.shuffle(facts)
        return [(" ".join(facts) + END, True)]


def _answer(pair: Pair, frame: str) -> str:
    told = not pair.item.forbidden or pair.item.guard < TOLD_BELOW[frame]
    return recipe(pair) if told else refusal(pair)
