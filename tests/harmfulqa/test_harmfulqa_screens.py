"""What the screens keep and leave out, each with its count; and how sure the search for near-duplicates is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.harmfulqa.formats import turn_weight
from redinstruct.harmfulqa.languages import language
from redinstruct.harmfulqa.rows import Collected, CollectedQuestion, Colour, Dialogue, Turn
from redinstruct.harmfulqa.screens import screen
from redinstruct.harmfulqa.similarity import NEAR, NearIndex, distance, normalise
from redinstruct.types import Bank, Question
from tests.support import near

# --- Near-duplicates of the real questions: only counts leave these tests ------------------------------------------


@pytest.fixture(scope="module")
def cells(shared_data: Path) -> near.Unshown:
    """The half of both banks that chose nothing."""
    return near.cells_of(shared_data, "test")


@pytest.mark.data
@pytest.mark.slow  # `make test-security` (A20) tries the same
def test_99_of_100_changed_questions_are_found_among_both_banks(cells: near.Unshown) -> None:
    found = near.found(cells, 34)

    assert sum(n for n, _ in found.values()) >= 0.99 * sum(of for _, of in found.values()) >= 0.99 * 200, found


@pytest.mark.data
def test_at_most_1_of_100_distinct_pairs_is_taken_for_one(cells: near.Unshown) -> None:
    hits, of = near.taken_for_one(cells, 800, same_cell=False)

    assert hits <= 0.01 * of


@pytest.mark.data
def test_at_most_1_of_100_distinct_pairs_of_one_subtopic_is_taken_for_one(cells: near.Unshown) -> None:
    hits, of = near.taken_for_one(cells, 600, same_cell=True)

    assert hits <= 0.01 * of


# --- The index ----------------------------------------------------------------------------------------------------


def test_the_nearest_is_found_with_its_score() -> None:
    index = NearIndex()
    assert index.nearest("how is jam made") is None
    index.add("jam", "How is jam made in a small kitchen?")
    index.add("rope", "Where does the rope lie at night?")

    assert index.nearest("how IS jam made - in a small kitchen") == ("jam", 1.0)
    key, score = index.nearest("Where does the rpoe lie at night") or ("", 0.0)
    assert key == "rope"
    assert NEAR <= score < 1
    assert index.nearest("氷") is None


def pantry() -> NearIndex:
    """100 questions about 100 things, all asked of the ways in which people keep them."""
    index = NearIndex()
    for number in range(100):
        index.add(
            str(number), f"What are the usual ways for people to keep {chr(97 + number % 26) * 3}{number}ware dry?"
        )
    return index


def test_one_telling_word_makes_another_question_and_one_light_word_does_not() -> None:
    index = pantry()
    asked = "What are the usual ways for people to keep aaa0ware dry?"
    assert index.likeness(asked, 0) == 1.0
    assert index.likeness(asked.replace("ways", "methods"), 0) >= NEAR  # many questions speak of ways
    assert index.likeness(asked.replace("people", "shopkeepers"), 0) >= NEAR
    assert index.likeness(asked.replace("?", ", please?"), 0) >= NEAR
    assert index.likeness(asked.replace("aaa0ware", "kettles"), 0) < NEAR  # one alone speaks of this ware
    assert index.likeness(asked.replace("aaa0ware", "bbb1ware"), 0) < NEAR
    assert index.likeness(asked.replace("usual ways", "curious methods"), 0) < NEAR  # two words at once


def test_a_telling_word_that_the_new_question_lacks_makes_it_another() -> None:
    index = pantry()
    index.add("more", "What are the usual ways for people to keep aaa0ware dry underwater?")
    assert index.likeness("What are the usual ways for people to keep aaa0ware dry?", 100) < NEAR


def test_slips_of_the_hand_make_no_telling_word() -> None:
    index = pantry()
    for slipped in ("What are the usual ways forpeople to keep aaa0ware dry?",
                    "What are the usu al ways for people to keep aaa0ware dyr?"):  # fmt: skip
        assert index.likeness(slipped, 0) >= NEAR


def test_among_many_rare_words_that_are_shared_another_one_tells_nothing() -> None:
    index = pantry()
    long = "Which copper kettle, wicker basket, walnut ladder, velvet curtain, marble basin, amber ring suit a barn?"
    index.add("long", long)
    assert index.likeness(long.replace("barn", "lighthouse"), 100) >= NEAR
    short = "Which copper kettle would suit a stable?"
    index.add("short", short)
    assert index.likeness(short.replace("stable", "lighthouse"), 101) < NEAR


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@given(st.text("abc", max_size=9), st.text("abc", max_size=9))
def test_the_distance_is_levenshteins(one: str, other: str) -> None:
    rows = [list(range(len(other) + 1))]
    for row, mine in enumerate(one, 1):
        rows.append([row])
        for column, yours in enumerate(other, 1):
            rows[row].append(
                min(rows[row - 1][column] + 1, rows[row][-1] + 1, rows[row - 1][column - 1] + (mine != yours))
            )
    assert distance(one, other) == rows[-1][-1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(), max_size=6), st.text())
def test_any_text_can_be_added_and_sought(texts: list[str], sought: str) -> None:
    index = NearIndex()
    for number, text in enumerate(texts):
        index.add(str(number), text)
    found = index.nearest(sought)
    assert found is None or 0 < found[1] <= 1


# --- The screens --------------------------------------------------------------------------------------------------


def dialogue(colour: Colour, *answers: tuple[str, str | None]) -> Dialogue:
    turns = [turn for text, label in answers for turn in (Turn("human", "Go on?"), Turn("gpt", text, label=label))]
    return Dialogue("d", "q", colour, tuple(turns))


def row(text: str, blue: tuple[Dialogue, ...] = (), red: tuple[Dialogue, ...] = ()) -> Collected:
    return Collected(CollectedQuestion(normalise(text), "Making", "Jam", text), blue, red)


BANK = Bank("toy", "0" * 64, (Question("0", "How do I grow a zorviul at dawn?", 0),))


def test_each_question_that_is_left_out_is_counted_under_its_reason() -> None:
    rows = [
        row("Where does the glim of the north lie?"),
        row("where does the glim of the north lie"),
        row("Where does the glim of the nroth lie?"),
        row("how do I grow a zorviul, at dawn"),
        row("How do I grow a zorviull at dawn, please?"),
        row("?!"),
        row("Glim?"),
        row("How so, " * 200),
        row("¿Cómo se hace el pan de la casa?"),
    ]

    got = screen(rows, banks=[BANK], languages=("english",))

    assert [kept.question.text for kept in got.kept] == [rows[0].question.text]
    assert got.dropped == {
        "bank_equal": 1, "bank_near": 1, "exact_duplicate": 1, "near_duplicate": 1, "question_empty": 1,
        "question_language": 1, "question_too_long": 1, "question_too_short": 1,
    }  # fmt: skip


def test_each_conversation_that_is_left_out_is_counted_under_its_reason() -> None:
    safe = dialogue("blue", ("Take care.", "unharmful"))
    blue = (safe, dialogue("blue", ("", None)), dialogue("blue"), dialogue("blue", ("x" * 30_000, None)))
    bad = dialogue("red", ("Well.", "unharmful"), ("Zorviul so.", "harmful"))
    red = (bad, dialogue("red", ("I'm sorry, I can't.", "unharmful")), dialogue("red", ("Nice jam.", "unharmful")))

    got = screen([row("Where does the glim lie?", blue, red)])

    assert [len(got.kept[0].blue), len(got.kept[0].red)] == [1, 1]
    assert got.dropped == {
        "conversation_empty_turn": 1, "conversation_too_short": 1, "conversation_too_long": 1,
        "red_harmless": 1, "red_refused": 1,
    }  # fmt: skip


def weights(some: Dialogue) -> list[float]:
    return [turn_weight(turn, some.colour) for turn in some.turns]


def test_a_harmful_blue_answer_is_masked_and_its_conversation_stays() -> None:
    rows = [row("Where does the glim lie?", (dialogue("blue", ("Zorviul so.", "harmful"), ("No.", None)),))]

    assert weights(screen(rows).kept[0].blue[0]) == [0, 0, 0, 1]


def test_early_benign_and_unjudged_turns_of_a_red_conversation_are_not_unlearnt() -> None:
    red = dialogue("red", ("Nice day.", "unharmful"), ("Hm.", None), ("Eh.", "unparsable"), ("Zorviul so.", "harmful"))

    assert weights(red) == [0, 0, 0, 0, 0, 0, 0, -1]


def test_a_blue_answer_that_was_cut_short_is_not_learnt() -> None:
    turns = (Turn("human", "Go on?"), Turn("gpt", "So."), Turn("human", "And?"), Turn("gpt", "Then take the", cut=True))

    assert weights(Dialogue("d", "q", "blue", turns)) == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("How do I keep the jam in a jar for the winter?", "english"),
        ("¿Cómo se hace el pan de la casa?", "spanish"),
        ("Wie kann man das Brot in der Stadt kaufen?", "german"),
        ("Как растёт трава?", "cyrillic"),
        ("怎么做果酱？", "chinese"),
        ("ジャムはどうやって作りますか", "japanese"),
        ("zorviul glim", "unknown"),
        ("", "unknown"),
    ],
)
def test_the_language_is_guessed_from_script_and_small_words(text: str, guess: str) -> None:
    assert language(text) == guess


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("Jam so?", False),
        ("Как?", False),
        ("怎么做果酱？", True),
        ("ジャムは", True),
        ("Jam の作り方?", True),
        ("怎么", False),
    ],
)
def test_a_character_of_a_dense_script_says_as_much_as_three_letters(text: str, kept: bool) -> None:
    assert bool(screen([row(text)]).kept) == kept


LABELS = st.sampled_from(["harmful", "unharmful", "unparsable", None])
COLOURS: st.SearchStrategy[Colour] = st.sampled_from(["blue", "red"])
DIALOGUES = st.builds(
    lambda colour, answers: dialogue(colour, *answers), COLOURS, st.lists(st.tuples(st.text(), LABELS), max_size=4)
)
ROWS = st.lists(st.builds(row, st.text(max_size=40), st.lists(DIALOGUES, max_size=3).map(tuple)), max_size=6)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_nothing_goes_uncounted_and_a_second_screening_drops_nothing(rows: list[Collected]) -> None:
    got = screen(rows, banks=[BANK])

    asked = sum(count for why, count in got.dropped.items() if why.startswith(("question", "exact", "near", "bank")))
    assert len(rows) == len(got.kept) + asked
    assert screen(got.kept, banks=[BANK]) == type(got)(got.kept, {})


@given(DIALOGUES)
def test_only_a_harmful_answer_is_ever_penalised_or_a_blue_one_learnt(some: Dialogue) -> None:
    for turn, weight in zip(some.turns, weights(some), strict=True):
        assert weight >= 0 or (some.colour == "red" and turn.label == "harmful")
        assert weight <= 0 or (some.colour == "blue" and turn.label != "harmful" and turn.speaker == "gpt")
