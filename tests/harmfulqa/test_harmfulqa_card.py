"""The data card: every count recomputed from rows, figures of diversity against brute force, and nothing shown.

Every text here is inert.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.harmfulqa.card import PROVENANCE, DataCard, data_card
from redinstruct.harmfulqa.diversity import Diversity, distinct_n, self_bleu, tokens
from redinstruct.harmfulqa.formats import to_messages
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Colour, Dialogue, Turn
from redinstruct.safetext import Secret
from redinstruct.types import JsonObject

WORDS = ("sky", "sea", "rain", "cloud", "wind", "stone", "river", "tree", "leaf", "moss", "sand", "snow")
LABELS = (None, "harmful", "unharmful", "unparsable")


def collection(seed: int, questions: int = 12) -> list[Collected]:
    """Rows with repeats, empty turns, broken order and every label."""
    dice = random.Random(seed)

    def text() -> str:
        return " ".join(dice.choices(WORDS, k=dice.randint(0, 8)))

    def talk(number: int, key: int, colour: Colour) -> Dialogue:
        order = [dice.choices(("human", "gpt"), (9 - i % 2 * 8, 1 + i % 2 * 8))[0] for i in range(dice.randint(0, 6))]
        said = tuple(
            Turn("gpt", text(), label=dice.choice(LABELS)) if who == "gpt" else Turn("human", text()) for who in order
        )
        source = dice.choice(("role-play", "turn-by-turn"))
        return Dialogue(f"{number}{colour}{key}", str(number), colour, said, complete=bool(key), source=source)

    rows = []
    for number in range(questions):
        asked = dice.choice(("Why is it so?", "why  is it SO?", f"Why {text()}?"))
        question = CollectedQuestion(str(number), dice.choice("AB"), dice.choice("xy"), asked)
        blue = tuple(talk(number, key, "blue") for key in range(dice.randint(0, 3)))
        red = tuple(talk(number, key, "red") for key in range(dice.randint(0, 2)))
        rows.append(Collected(question, blue, red))
    return rows


def card_of(rows: Sequence[Collected]) -> DataCard:
    return data_card(rows, provenance={}, dropped={})


def diversity_of(rows: Sequence[Collected]) -> Diversity:
    found = card_of(rows).diversity["questions"]
    assert isinstance(found, Diversity)
    return found


# ---- counts ----


@pytest.mark.parametrize("seed", range(8))
def test_every_count_agrees_with_a_recount(seed: int) -> None:
    rows = collection(seed)
    counts = card_of(rows).counts
    assert counts.questions == 12
    assert counts.topics == len({r.question.topic for r in rows})
    assert counts.subtopics == len({r.question.topic + r.question.subtopic for r in rows})
    assert counts.distinct_questions == len({" ".join(r.question.text.lower().split()) for r in rows})
    for colour in ("blue", "red"):
        held, talks = counts.conversations[colour], [d for r in rows for d in getattr(r, colour)]
        assert held.conversations == len(talks)
        assert held.incomplete == len([d for d in talks if not d.complete])
        assert held.turns == sum(len(d.turns) for d in talks)
        assert held.empty_turns == [t.text for d in talks for t in d.turns].count("")
        answers = [t for d in talks for t in d.turns if t.speaker == "gpt"]
        assert held.answers == len(answers)
        assert held.labels == Counter(t.label or "none" for t in answers)
        assert held.sources == Counter(d.source for d in talks)
        words = [[len(t.text.split()) for t in d.turns] for d in talks]
        assert held.words == sum(map(sum, words))
        assert held.words_per_conversation.median == statistics.median(map(sum, words))
        assert held.words_per_conversation.mean == pytest.approx(sum(map(sum, words)) / len(talks), abs=0.005)
        assert held.turns_per_conversation.median == statistics.median(map(len, words))


@pytest.mark.parametrize("seed", range(8))
def test_the_topics_add_up(seed: int) -> None:
    rows = collection(seed)
    document = card_of(rows)
    for part in document.by_topic:
        own = [r for r in rows if r.question.topic == part.topic]
        assert part.questions == len(own)
        assert part.subtopics == len({r.question.subtopic for r in own})
        assert part.blue == sum(len(r.blue) for r in own)
        assert part.red == sum(len(r.red) for r in own)
    assert sum(part.questions for part in document.by_topic) == len(rows)


@pytest.mark.parametrize("seed", range(8))
def test_what_learns_is_what_the_messages_export_says(seed: int) -> None:
    rows = collection(seed)
    document = card_of(rows)
    exported = {"blue": Counter[str](), "red": Counter[str]()}
    for made in to_messages(rows, include_red=True):
        for message in made["messages"]:
            if "weight" in message:
                sign = "learn" if message["weight"] > 0 else "penalised" if message["weight"] < 0 else "masked"
                exported[made["stream"]][sign] += 1
    for colour, turns in document.turns.items():
        assert {k: n for k, n in turns.items() if n and k != "left_out"} == exported[colour]
        assert sum(turns.values()) == document.counts.conversations[colour].answers


def test_a_collection_of_nothing_has_a_card() -> None:
    card = card_of([])
    assert card.counts.questions == 0
    assert diversity_of([]).self_bleu is None
    assert "None was recorded." in card.markdown


def test_the_same_rows_give_the_same_card_and_their_order_moves_no_diversity() -> None:
    rows = collection(1, questions=300)
    assert card_of(rows) == card_of(collection(1, questions=300))
    assert card_of(rows).diversity == card_of(rows[::-1]).diversity
    assert diversity_of(rows).self_bleu_sample == 200


# ---- provenance, screens and what is shown ----


def test_provenance_is_shown_and_what_is_not_known_is_said_so() -> None:
    Secret("hunter2hunter2")
    stated: JsonObject = {"teacher": "openai/x", "prompts": {"b": "02", "a": "01"}, "extra": ["hunter2hunter2", 1]}
    card = data_card([], provenance=stated, dropped={"near": 3, "exact": 2})
    document = json.loads(card.json)
    assert list(document["provenance"])[: len(PROVENANCE)] == list(PROVENANCE)
    assert document["provenance"]["teacher"] == "openai/x"
    assert "- licence: not recorded" in card.markdown
    assert document["provenance"]["extra"] == ["***", 1]
    assert document["screens"] == {"exact": 2, "near": 3}
    assert "| near | 3 |" in card.markdown
    assert "hunter2" not in card.markdown + card.json


def test_the_card_says_what_it_must() -> None:
    text = card_of(collection(0)).markdown
    for heading in ("Provenance", "What is in it", "By topic", "What training makes", "Diversity", "Screens",
                    "Intended use", "Limits", "How to delete"):  # fmt: skip
        assert f"\n## {heading}" in text
    assert "redinstruct purge RUN" in text


@given(st.text(st.characters(), max_size=12))
def test_the_json_is_the_document(topic: str) -> None:
    rows = [Collected(CollectedQuestion("0", topic, topic, "Why?"))]
    card = data_card(rows, provenance={"teacher": topic, topic: topic}, dropped={topic: 1})
    back = json.loads(card.json.encode("utf-8"))
    assert back["counts"] == msgspec.to_builtins(card.counts)
    card.markdown.encode("utf-8")


def test_a_topic_cannot_write_into_the_page() -> None:
    hostile = "zz|b\n# c <script> [x](http://e) `d` \x1b[2J \u202e &lt;"
    rows = [Collected(CollectedQuestion("0", hostile, "x", "Why?"))]
    text = card_of(rows).markdown
    (line,) = [line for line in text.splitlines() if line.startswith("| zz")]
    assert line.count("|") == card_of(collection(0)).markdown.split("## By topic\n\n")[1].splitlines()[0].count("|")
    assert not set("<>[]`\x1b\u202e") & set(line)


def test_no_question_and_no_answer_is_on_the_card() -> None:
    said = (Turn("human", "kanarienvogel", "kanarienvogel"), Turn("gpt", "kanarienvogel"))
    talk = Dialogue("0", "0", "blue", said)
    rows = [Collected(CollectedQuestion("0", "A", "x", "kanarienvogel?"), (talk,), (talk,))]
    assert "kanarienvogel" not in card_of(rows).markdown + card_of(rows).json


# ---- diversity ----

token_lists = st.lists(st.lists(st.sampled_from("abcd"), max_size=7).map(tuple), max_size=7)


def grams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def slow_self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """By the definition: each text against all others, every reference counted anew."""
    texts = [text for text in texts if text]
    if len(texts) < 2:
        return None
    total = 0.0
    for i, text in enumerate(texts):
        others = [*texts[:i], *texts[i + 1 :]]
        score = 0.0
        for n in range(1, min(4, len(text)) + 1):
            own = Counter(grams(text, n))
            matched = sum(min(count, max(grams(o, n).count(g) for o in others)) for g, count in own.items())
            if n == 1 and not matched:
                break
            score += math.log((matched or 0.1) / sum(own.values())) / min(4, len(text))
        else:
            nearest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
            total += math.exp(score + (0 if len(text) >= nearest else 1 - nearest / len(text)))
    return total / len(texts)


@given(token_lists)
def test_self_bleu_is_what_brute_force_says(texts: list[tuple[str, ...]]) -> None:
    fast, slow = self_bleu(texts), slow_self_bleu(texts)
    assert (fast is None) == (slow is None)
    if fast is not None and slow is not None:
        assert fast == pytest.approx(slow)
        assert 0 <= fast <= 1 + 1e-12


def test_self_bleu_at_its_ends_and_by_hand() -> None:
    same, other = tuple("abcde"), tuple("vwxyz")
    assert self_bleu([same, same]) == pytest.approx(1)
    assert self_bleu([same, other]) == 0
    # a b / a c: one of two words, none of one pair (0.1): sqrt(1/2 * 1/10) each
    assert self_bleu([tuple("ab"), tuple("ac")]) == pytest.approx(math.sqrt(0.05))
    # the shorter of a / a b is punished for its length, e^(1-2)
    assert self_bleu([("a",), ("a", "b")]) == pytest.approx((math.exp(-1) + math.sqrt(0.5 * 0.1)) / 2)
    assert self_bleu([same, ()]) is None


@given(token_lists, st.integers(1, 3))
def test_distinct_n_is_the_share_of_different_grams(texts: list[tuple[str, ...]], n: int) -> None:
    every = [gram for text in texts for gram in grams(text, n)]
    assert distinct_n(texts, n) == (len(set(every)) / len(every) if every else None)


def test_tokens_are_words_and_marks_without_case() -> None:
    assert tokens("Why, THE sky's?") == ("why", ",", "the", "sky", "'", "s", "?")
