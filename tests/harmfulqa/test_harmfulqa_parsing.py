"""Teachers' replies: 60 malformed ones of 20 kinds, each parsed or refused with a reason; and any string at all."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.harmfulqa.dialogues import harvest_questions, parse_dialogue
from redinstruct.harmfulqa.parsing import Unparsable, clean, parse_definitions, parse_list
from redinstruct.harmfulqa.rows import Turn

ABC = ["Jam", "Rope Care", "Glim"]
Q = ["How is zorviul made?", "Where does glim grow?"]

LISTS: list[tuple[str, str, object]] = [
    ("numbered", "1. Jam\n2. Rope Care\n3. Glim", ABC),
    ("numbered", "1) Jam\n2) Rope Care\n3) Glim", ABC),
    ("numbered", "(1) Jam\n(2) Rope Care\n(3) Glim", ABC),
    ("numbered", "Topic 1: Jam\nTopic 2: Rope Care\nTopic 3: Glim", ABC),
    ("numbered", "１．Jam\n２．Rope Care\n３．Glim", ABC),
    ("numbered", "1️⃣ Jam\n2️⃣ Rope Care\n3️⃣ Glim", ABC),
    ("lettered", "a. Jam\nb. Rope Care\nc. Glim", ABC),
    ("lettered", "I. Jam\nII. Rope Care\nIII. Glim", ABC),
    ("bullets", "- Jam\n- Rope Care\n- Glim", ABC),
    ("bullets", "• Jam\n• Rope Care\n• Glim", ABC),
    ("chatter", "Sure! Here are three topics:\n\n1. Jam\n2. Rope Care\n3. Glim\n\nLet me know if you need more.", ABC),
    ("chatter", "Certainly:\n* Jam\n* Rope Care\n* Glim\nI hope this helps!", ABC),
    ("markdown", "1. **Jam**\n2. **Rope Care**\n3. **Glim**", ABC),
    ("markdown", "### 1. Jam\n\n### 2. Rope Care\n\n### 3. Glim", ABC),
    ("markdown", "**1.** Jam\n**2.** Rope Care\n**3.** Glim", ABC),
    ("quotes", '1. "Jam"\n2. “Rope Care”\n3. `Glim`', ABC),
    ("json", '["Jam", "Rope Care", "Glim"]', ABC),
    ("json", 'Here you go:\n```json\n{"topics": ["Jam", "Rope Care", "Glim"]}\n```\nEnjoy!', ABC),
    ("json", '[{"id": 1, "topic": "Jam"}, {"id": 2, "topic": "Rope Care"}, {"id": 3, "topic": "Glim"}]', ABC),
    ("json", '{"1": "Jam", "2": "Rope Care", "3": "Glim"}', ABC),
    ("json", '{"topic": "Jam"}\n{"topic": "Rope Care"}\n{"topic": "Glim"}', ABC),
    ("json with comments", '[\n  // sweet\n  "Jam",\n  "Rope Care", /* dry */\n  "Glim",\n]', ABC),
    ("json with comments", '```json\n["Jam", // https://x\n "Rope Care", "Glim"]\n```', ABC),
    ("json with an address", '["Is http://jam a name?", "Glim"]', ["Is http://jam a name?", "Glim"]),
    ("tags", "<topic>Jam</topic>\n<topic>Rope Care</topic>\n<topic id='3'>Glim</topic>", ABC),
    ("cut json", '["Jam\\u0021", "Rope \\"Care\\"\\n", "Glim", "An unf', ["Jam!", 'Rope "Care"', "Glim"]),
    ("cut json", '["Jam", "Rope Care", "Glim", "An unfini', ABC),
    ("cut json", '{"topics": ["Jam", "Rope Care", "Glim",]}', ABC),
    ("table", "| # | Topic |\n|---|---|\n| 1 | Jam |\n| 2 | Rope Care |\n| 3 | Glim |", ABC),
    ("plain lines", "Jam\nRope Care\nGlim", ABC),
    ("one line", "Jam, Rope Care, and Glim.", ABC),
    ("one line", "1. Jam 2. Rope Care 3. Glim", ABC),
    ("definitions", "1. Jam: what one spreads\n2. **Glim**: a glow", ["Jam: what one spreads", "Glim: a glow"]),
    ("grouped", "1. Making:\n   - How is zorviul made?\n2. Growing:\n   - Where does glim grow?", Q),
    ("grouped", "**Making**\n- How is zorviul made?\n\n**Growing**\n- Where does glim grow?", Q),
    ("wrapped", "1. How is\n   zorviul made?\n2. Where does\n   glim grow?", Q),
    ("reasoning", "<think>1. no 2. none</think>\n1. How is zorviul made?\n2. Where does glim grow?", Q),
    ("thoughts", "(Internal thought: go on)\n1. How is zorviul made?\n2. Where does glim grow?", Q),
    ("labels", "Q1: How is zorviul made?\nQ2: Where does glim grow?", Q),
    ("another language", "一、果酱\n二、绳子", ["果酱", "绳子"]),
    (
        "another language",
        "1. ¿Cómo se hace el zorviul?\n2. ¿Dónde crece?",
        ["¿Cómo se hace el zorviul?", "¿Dónde crece?"],
    ),
    ("empty", "", "empty"),
    ("empty", " \n\u200b--- ", "empty"),
    ("refused", "I'm sorry, but I cannot help with that.", "refused"),
    ("prose", "Jam is sweet. It keeps long. People like it. " * 20, "no_list"),
]

TWO = [("human", "How is jam made?"), ("gpt", "In a jar.")]
FOUR = [*TWO, ("human", "And glim?"), ("gpt", "At dawn.")]
BODY = "Red-LM: How is jam made?\nBase-LM: In a jar.\nRed-LM: And glim?\nBase-LM: At dawn."
DIALOGUES: list[tuple[str, str, object, bool]] = [
    ("clean", BODY, FOUR, True),
    ("thoughts", "Red-LM: (Internal thought: ask) How is jam made?\nBase-LM: In a jar.", TWO, True),
    (
        "nested thought",
        "Red-LM: (Internal thought: (be (very) kind) so) How is jam made?\nBase-LM: In a jar.",
        TWO,
        True,
    ),
    ("unclosed thought", "Red-LM: (Internal thought: be kind.\nHow is jam made?\nBase-LM: In a jar.", TWO, True),
    ("unclosed thought", "Red-LM: (Internal thought: be kind. How is jam made?\nBase-LM: In a jar.", TWO, True),
    ("thought line", "Red-LM:\nInternal thought: be kind.\nHow is jam made?\nBase-LM: In a jar.", TWO, True),
    ("thought line", "**Red-LM:** *[Internal Thought: kind]*\nHow is jam made?\n\n**Base-LM:** In a jar.", TWO, True),
    ("thought tag", "Red-LM: <thought: ask> How is jam made?\nBase-LM: In a jar.", TWO, True),
    ("renamed", "User: How is jam made?\nAssistant: In a jar.", TWO, True),
    ("renamed", "**Red LM**: How is jam made?\n**Base LM**: In a jar.", TWO, True),
    ("renamed", "Red-Team: How is jam made?\nAI: In a jar.", TWO, True),
    ("renamed", "Mira: How is jam made?\nTomo: In a jar.\nMira: And glim?\nTomo: At dawn.", FOUR, True),
    ("localized", "用户：How is jam made?\n助手：In a jar.", TWO, True),
    ("numbered", "1. Red-LM: How is jam made?\n2. Base-LM: In a jar.", TWO, True),
    ("preamble", "Sure, here is the conversation:\n\n" + BODY + "\n\n[End of conversation]", FOUR, True),
    ("continued prompt", "How is jam made?\nBase-LM: In a jar.", TWO, True),
    ("joined", "Red-LM: How is\nRed-LM: jam made?\nBase-LM: In a jar.", [("human", "How is\njam made?"), TWO[1]], True),
    ("cut", BODY + "\nRed-LM: And what of", FOUR, False),
    ("cut", BODY + "\nRed-LM: And rope?\nBase-LM:", FOUR, False),
    ("cut", BODY.replace("At dawn.", "At dawn, and"), [*FOUR[:3], ("gpt", "At dawn, and")], False),
    ("json", '[{"from": "human", "value": "How is jam made?"}, {"from": "gpt", "value": "In a jar."}]', TWO, True),
    ("refused", "I can't write that conversation.", "refused", False),
    ("no turns", "A talk about jam would be nice to have.", "no_dialogue", False),
    ("one sided", "Red-LM: How is jam made?\nRed-LM: And glim?", "one_sided", False),
]


def test_there_are_sixty_malformed_replies_of_at_least_fifteen_kinds() -> None:
    kinds = [kind for kind, *_ in LISTS] + [kind for kind, *_ in DIALOGUES]

    assert len(kinds) >= 60
    assert len(set(kinds)) >= 15


@pytest.mark.parametrize(("kind", "reply", "expected"), LISTS)
def test_a_list_is_read_or_refused_with_its_reason(kind: str, reply: str, expected: object) -> None:
    if isinstance(expected, str):
        with pytest.raises(Unparsable) as refused:
            parse_list(reply)
        assert refused.value.reason == expected
    else:
        assert parse_list(reply) == expected


@pytest.mark.parametrize(("kind", "reply", "expected", "complete"), DIALOGUES)
def test_a_dialogue_is_read_or_refused_with_its_reason(kind: str, reply: str, expected: object, complete: bool) -> None:
    if isinstance(expected, str):
        with pytest.raises(Unparsable) as refused:
            parse_dialogue(reply)
        assert refused.value.reason == expected
    else:
        turns, whole = parse_dialogue(reply)
        assert ([(turn.speaker, turn.text) for turn in turns], whole) == (expected, complete)


def test_more_than_was_wanted_is_cut() -> None:
    assert parse_list("1. Jam\n2. Rope\n3. Glim", wanted=2) == ["Jam", "Rope"]


def test_a_thought_is_kept_apart() -> None:
    turns, _ = parse_dialogue("Red-LM: (Internal thought: ask (softly)) Jam?\nBase-LM: Yes.")
    assert turns[0] == Turn("human", "Jam?", "ask (softly)")


@pytest.mark.parametrize(
    "reply",
    [
        "1. Jam: what one spreads\n2. Jam Jars: what holds it",
        "**Jam** - what one spreads\n**Jam Jars** – what holds it",
        '{"Jam": "what one spreads", "Jam Jars": "what holds it"}',
        '[{"topic": "Jam", "definition": "what one spreads"}, {"name": "Jam Jars", "definition": "what holds it"}]',
        "| Topic | Definition |\n|--|--|\n| Jam | what one spreads |\n| Jam Jars | what holds it |",
        "1. Jam\n   Definition: what one spreads\n2. Jam Jars\n   Definition: what holds it",
        "jam: what one spreads\nJAM JARS: what holds it\n",
    ],
)
def test_definitions_are_found_by_name(reply: str) -> None:
    assert parse_definitions(reply, ["Jam", "Jam Jars"]) == {"Jam": "what one spreads", "Jam Jars": "what holds it"}


def test_the_only_name_may_be_left_unsaid_but_no_other() -> None:
    assert parse_definitions("Definition: what one spreads", ["Jam"]) == {"Jam": "what one spreads"}
    assert parse_definitions("Glim: a glow", ["Jam", "Glim"]) == {"Glim": "a glow"}
    with pytest.raises(Unparsable, match="no_definitions"):
        parse_definitions("what one spreads", ["Jam", "Glim"])


def test_questions_are_harvested_without_greetings_thoughts_and_small_talk() -> None:
    turns = [
        Turn("human", "Hello! How are you? I like jam. How is jam made?"),
        Turn("gpt", "In a jar. Do you like it?"),
        Turn("human", "(Internal thought: now?) Thanks, where does glim grow? Tell me more."),
        Turn("human", "Tell me how rope is kept."),
        Turn("human", "How is jam made?"),
    ]

    assert harvest_questions(turns) == ["How is jam made?", "Where does glim grow?", "Tell me how rope is kept."]


PIECES = st.sampled_from(
    [
        "Red-LM: ", "Base-LM: ", "(Internal thought: ", "[", "]", "(", ")", "{", "}", '"', ",", "\n", "\n\n", "1. ",
        "2) ", "- ", "* ", "**", "jam", "Jam", "glim?", ". ", ": ", "|",
        "---", "```json\n", "<think>", "</think>", "用户：",
        "#", "I cannot", "\ud800", "\x00", "\u200b",
    ]
)  # fmt: skip
ANYTHING = st.text() | st.lists(PIECES, max_size=40).map("".join)


@settings(max_examples=120, deadline=None)
@given(ANYTHING)
def test_any_string_gives_something_or_a_reason(reply: str) -> None:
    for parse in (parse_list, parse_dialogue, lambda text: parse_definitions(text, ["jam", "glim", ""])):
        try:
            reason = "" if parse(reply) else "nothing"
        except Unparsable as refused:
            reason = refused.reason
        assert reason in {"", "empty", "refused", "no_list", "no_definitions", "no_dialogue", "one_sided"}
    assert all(harvest_questions([Turn("human", reply)]) or [True])


@settings(max_examples=100, deadline=None)
@given(ANYTHING)
def test_a_parsed_dialogue_takes_turns_and_says_something_in_each(reply: str) -> None:
    try:
        turns, _ = parse_dialogue(reply)
    except Unparsable:
        return
    assert [turn.speaker for turn in turns] == ["human", "gpt"] * (len(turns) // 2)
    assert all(turn.text.strip() for turn in turns)


@pytest.mark.parametrize(
    "piece",
    ["[", '{"a":', "(", "(Internal thought: ", "1. ", "- ", "*", " ", "\n", "Red-LM: a\n", "a: b\n", '"', "|", "?"],
)
def test_long_hostile_replies_take_no_long_time(piece: str) -> None:
    start = time.process_time()
    reply = piece * (40_000 // len(piece))
    for parse in (parse_list, parse_dialogue, lambda text: parse_definitions(text, ["jam"])):
        try:
            parse("x" + reply)
        except Unparsable:
            continue
    harvest_questions([Turn("human", reply)])
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("X-ray, ", "X-ray"),
        ("|a cell|", "a cell"),
        ("## Paint ;", "Paint"),
        ("--- | ---", ""),
        ("**", ""),
        ("a\\", "a"),
    ],
)
def test_an_item_loses_its_wrapping_and_nothing_else(item: str, text: str) -> None:
    assert clean(item) == text


def test_a_full_stop_in_every_second_line_makes_no_paragraphs_and_more_do() -> None:
    lines = ["Paint the wall. Then wait", "Sail the ferry", "Cook the soup. Then eat", "Sing"]
    assert parse_list("\n".join(lines[:2])) == lines[:2]
    assert parse_list("\n".join(lines)) == lines
    with pytest.raises(Unparsable, match="no_list"):
        parse_list("\n".join([*lines[:3], "Sing a song. Then rest"]))


def test_what_introduces_a_line_of_items_is_none_of_them() -> None:
    assert parse_list("The colours are: red, blue, and green.") == ["red", "blue", "green"]
