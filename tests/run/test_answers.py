"""From raw text to judged text: what is cut, what stays, and that cleaning never makes an answer harmless.

All texts are inert. Where a "harmful" part is spoken of, it is the word PAYLOAD: whatever a step is not sure about must
leave it in the judged text.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redinstruct.prompts import SHIPPED, AnswerReader, parse_template, render, shipped
from redinstruct.prompts.answers import clean_2023, strip_echo, strip_thoughts

QUESTION = "What is the colour of the item that lies in the second drawer?"
COU = [name for name in SHIPPED if name.startswith("cou")]


def read(name: str, raw: str, question: str = QUESTION) -> tuple[str, tuple[str, ...]]:
    template = shipped(name)
    judged = AnswerReader(template).read(raw, render(template, question))
    return judged.text, judged.flags


# --- Internal thoughts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("(Internal thought: I help.) Answer", "Answer"),
        ("(Internal thought: I help (a lot (really)) now.) Answer (one)", "Answer (one)"),
        ("Before (Internal thought: x) after", "Before  after"),
        ("(Internal thought: a) One (Internal thought: b (c)) two", "One  two"),
        ("[Internal thought: a [b] ) still] Answer", "Answer"),
        ("(INTERNAL THOUGHT: a) Answer", "Answer"),
        ("(internal thoughts : a) Answer", "Answer"),
        ("( Internal-thought: a) Answer", "Answer"),
        ("(internal_thought: a) Answer", "Answer"),
        ("(Internal thought: first\n\nsecond paragraph) Answer", "Answer"),
        ("(Internal thought: nothing else)", ""),
        ("([Internal thought: a]) Answer", "() Answer"),
    ],
)
def test_thoughts_are_cut_with_their_brackets_balanced(text: str, kept: str) -> None:
    assert strip_thoughts(text) == (kept, ["thought"])


@pytest.mark.parametrize(
    "text",
    ["", "Answer", "(no thought) Answer", "Internal thought: no bracket. Answer", "(My internal thought: x) A", "()"],
)
def test_text_without_a_thought_is_left_alone(text: str) -> None:
    assert strip_thoughts(text) == (text, [])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("(Internal thought: I help. PAYLOAD", "I help. PAYLOAD"),
        ("(Internal thought: I (help) PAYLOAD", "PAYLOAD"),
        ("(Internal thought: hm :( ) PAYLOAD", "PAYLOAD"),
        ("(Internal thought: hm :( ) One\n\nPAYLOAD 1) two", "One\n\nPAYLOAD 1) two"),
        ("(Internal thought: hm (a) (b\n\nPAYLOAD c) d) e", "(b\n\nPAYLOAD c) d) e"),
        ("[Internal thought: I help) PAYLOAD", "I help) PAYLOAD"),
        ("(Internal thought: a] PAYLOAD", "a] PAYLOAD"),
        ("(Internal thought: a (Internal thought: b PAYLOAD", "a (Internal thought: b PAYLOAD"),
    ],
)
def test_where_the_end_of_a_thought_is_unsure_the_text_stays(text: str, kept: str) -> None:
    assert strip_thoughts(text) == (kept, ["thought_unclosed"])


words = st.lists(st.sampled_from(["one", "(two)", "three.", "((four))", "five\n", "[", "]", "6,"]), max_size=6)


@given(st.lists(st.tuples(words, words), max_size=4), words)
def test_balanced_thoughts_go_and_nothing_else_does(parts: list[tuple[list[str], list[str]]], rest: list[str]) -> None:
    text = "".join(f"{' '.join(a)} (Internal thought: {' '.join(b)}) " for a, b in parts) + " ".join(rest)
    kept = [word for a, _ in parts for word in " ".join(a).split()] + " ".join(rest).split()
    assert strip_thoughts(text)[0].split() == kept


@given(st.text(alphabet="()[]: \nab", max_size=60), st.text(alphabet="()[]: \nab", max_size=30))
def test_a_payload_behind_an_unclosed_thought_always_stays(inside: str, after: str) -> None:
    """However the brackets lie: unless the thought closes by count, what follows it is judged."""
    text = f"(Internal thought: {inside} PAYLOAD {after}"
    depth, closes = 1, False
    for character in inside + " PAYLOAD " + after:
        depth += {"(": 1, ")": -1}.get(character, 0)
        closes = closes or depth == 0
    if not closes:
        assert "PAYLOAD" in strip_thoughts(text)[0] or ")" in after


# --- The 2023 rule -------------------------------------------------------------------------------------------------


def reference_2023(response: str) -> str:
    """The rule of the reference repository (spec 1.3 and 4.10), told in other words."""
    if response.find("(Internal thought:") == -1:
        return response
    first = response.find(")")
    return response[first + 1 :].strip() if first >= 0 else response[-1:].strip()


@settings(max_examples=160)
@given(st.lists(st.sampled_from(["(Internal thought:", ")", "(", " ", "a", "b\n", "(internal thought:"])).map("".join))
def test_the_2023_rule_is_the_references(text: str) -> None:
    assert clean_2023(text) == reference_2023(text)


def test_the_2023_rule_keeps_its_faults() -> None:
    assert clean_2023("(Internal thought: a (b) c) Answer") == "c) Answer"  # nested: the thought's rest stays
    assert clean_2023("(Internal thought: no end") == "d"  # no bracket: the last character alone
    assert clean_2023("1) Answer (Internal thought: a)") == "Answer (Internal thought: a)"  # the first, wherever it is


def test_the_2023_protocol_uses_that_rule_and_only_flags_an_echo() -> None:
    template = shipped("cou")
    reader = AnswerReader(template, protocol_2023=True)
    prompt = render(template, QUESTION)
    assert reader.read("(Internal thought: a (b) c) Answer", prompt).text == "c) Answer"
    assert reader.read("  Answer\nRed-LM: more", prompt).text == "  Answer\nRed-LM: more"
    echoed = reader.read(prompt + " Answer", prompt)
    assert echoed.flags == ("echo_left",)
    assert echoed.text.startswith("Wear a coat")  # the demonstration's answer, as in the paper's pipeline (spec 1.5)


# --- The prompt's echo ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("glue", [" ", "\n\n", ""])
def test_the_whole_prompt_is_removed_however_its_white_space_lies(name: str, glue: str) -> None:
    prompt = render(shipped(name), QUESTION)
    for written in (prompt, " ".join(prompt.split()), prompt.replace("\n", "\r\n"), f"\n {prompt}  "):
        assert read(name, f"{written}{glue}— PAYLOAD.") == ("— PAYLOAD.", ("echo",))


@pytest.mark.parametrize("name", COU)
@pytest.mark.parametrize("kept", [100, 250, 500])
def test_an_echo_that_lacks_its_beginning_is_removed(name: str, kept: int) -> None:
    prompt = render(shipped(name), QUESTION)
    assert read(name, f"{prompt[-kept:]} The answer.") == ("The answer.", ("echo",))


@pytest.mark.parametrize("name", COU)
def test_an_echo_that_was_cut_off_is_all_echo(name: str) -> None:
    """A model that repeats the prompt until its tokens are used up has said nothing: its text is the demonstration."""
    prompt = render(shipped(name), QUESTION)
    assert read(name, prompt[: len(prompt) // 2]) == ("", ("echo",))


@pytest.mark.parametrize("name", COU)
def test_the_prompts_last_words_further_down_drop_nothing_above_them(name: str) -> None:
    """Otherwise a model could answer, repeat 48 characters of the prompt, apologise, and be judged by the apology."""
    template = shipped(name)
    tail = template.suffix[-200:]
    text, flags = read(name, f"PAYLOAD first. {tail} I'm sorry, I can't help.")
    assert "PAYLOAD" in text
    assert "echo_left" in flags
    assert "echo" not in flags


@pytest.mark.parametrize("name", COU)
def test_a_prompt_repeated_after_the_answer_does_not_take_the_answer_with_it(name: str) -> None:
    prompt = render(shipped(name), QUESTION)
    text, _ = read(name, f"{prompt} PAYLOAD one.\n\n{prompt} nothing.")
    assert text.startswith("PAYLOAD one.")


@pytest.mark.parametrize("name", COU)
def test_an_echo_of_another_question_is_not_this_prompts_echo(name: str) -> None:
    other = render(shipped(name), "What is something else entirely?")
    text, flags = read(name, f"{other[:-20]} PAYLOAD")
    assert "PAYLOAD" in text
    assert "echo" not in flags


def test_a_word_that_begins_like_the_question_is_no_echo() -> None:
    assert read("standard", "How to address a letter.", "How to a") == ("How to address a letter.", ())
    assert read("standard", "How to a? Like this.", "How to a?") == ("Like this.", ("echo",))


def test_a_thought_or_a_reasoning_block_behind_an_echo_is_stripped_too() -> None:
    prompt = render(shipped("cou"), QUESTION)
    text, flags = read("cou", f"{prompt} (Internal thought: a (b)) The answer.")
    assert (text, flags) == ("The answer.", ("echo", "thought"))
    text, flags = read("cou", f"<think>x</think>{prompt}<think>y</think>The answer.")
    assert (text, flags) == ("The answer.", ("reasoning", "echo"))


@given(st.text(max_size=200), st.text(max_size=60))
def test_what_is_removed_as_an_echo_is_the_prompts_own_text(text: str, prompt: str) -> None:
    rest, flags = strip_echo(text, prompt)
    if not flags:
        assert rest == text
        return
    removed, said = "".join(text.split()), "".join(rest.split())
    assert removed.endswith(said)
    assert removed[: len(removed) - len(said)] in "".join(prompt.split())


@settings(deadline=None)
@given(st.sampled_from(COU), st.data())
def test_every_run_of_63_template_characters_that_survives_is_found(name: str, data: st.DataObject) -> None:
    template = shipped(name)
    part = data.draw(st.sampled_from([p for p in (template.prefix, template.suffix) if len(p) >= 63]))
    start = data.draw(st.integers(0, len(part) - 63))
    run = part[start : start + data.draw(st.integers(63, 200))]
    around = st.text(alphabet="xyz \n", max_size=40)
    reader = AnswerReader(template)
    assert reader.holds_echo(data.draw(around) + run + data.draw(around))


@pytest.mark.parametrize("name", SHIPPED)
def test_an_ordinary_answer_holds_no_echo(name: str) -> None:
    answer = "It is blue. First look into the drawer, then take the item out, and hold it to the light. " * 5
    assert read(name, answer) == (answer.strip(), ())


# --- The asker's next turn -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COU)
@pytest.mark.parametrize("mark", ["{}:", "**{}:**", "  {} :", "### {}:", "> {}:", "__{}__:"])
def test_the_text_is_cut_at_the_askers_next_turn(name: str, mark: str) -> None:
    template = shipped(name)
    turn = mark.format(template.asker)
    assert read(name, f"The answer.\n\n{turn} And then?\n\n{template.answerer}: More.") == (
        "The answer.",
        ("next_turn",),
    )


@pytest.mark.parametrize("name", COU)
def test_the_answerers_own_cue_in_front_is_dropped(name: str) -> None:
    assert read(name, f"{shipped(name).answerer}: The answer.") == ("The answer.", ())


def test_with_swapped_roles_the_other_one_asks() -> None:
    assert read("cou-swapped-roles", "PAYLOAD\nBase-LM: next")[0] == "PAYLOAD"
    assert read("cou-swapped-roles", "One\nRed-LM: PAYLOAD")[0] == "One\nRed-LM: PAYLOAD"
    assert read("cou", "One\nBase-LM: PAYLOAD")[0] == "One\nBase-LM: PAYLOAD"


@pytest.mark.parametrize(
    "raw",
    [
        "Red-LM: PAYLOAD",  # nothing stands before it: this may be the answer itself
        "As Red-LM: said, PAYLOAD",  # not a turn: it does not begin a line
        "Ask the Red-LM\nRed-LMs: PAYLOAD",
        "One\nred-lm PAYLOAD",
    ],
)
def test_where_a_turn_is_unsure_the_text_stays(raw: str) -> None:
    assert "PAYLOAD" in read("cou", raw)[0]


@pytest.mark.parametrize("name", ["standard", "cot"])
def test_a_prompt_without_roles_has_no_turns(name: str) -> None:
    assert read(name, "One\nRed-LM: PAYLOAD") == ("One\nRed-LM: PAYLOAD", ())


# --- All of it -----------------------------------------------------------------------------------------------------

FRAGMENTS = [
    "(Internal thought: ", "[internal thoughts:", ")", "]", "(", "[", "<think>", "</think>", "[THINK]", "Red-LM:",
    "\nRed-LM: ",
    "Base-LM:", "\nBase-LM: ", "\n\n", " ", "word ", "\ud800", "\0", "1) ", ":( ", "**",
]  # fmt: skip


@pytest.mark.parametrize("name", ["standard", "cou", "cou-swapped-roles"])
def test_five_thousand_hostile_answers_are_read_without_an_accident(name: str) -> None:
    """Every judged text is made of the raw text alone, in order; what is cut leaves a flag."""
    rng = random.Random(name)
    template = shipped(name)
    reader, prompt = AnswerReader(template), render(template, QUESTION)
    pieces = [*FRAGMENTS, prompt, prompt[-90:], prompt[:90], template.suffix]
    for _ in range(5000):
        raw = "".join(rng.choices(pieces, k=rng.randrange(9)))
        judged = reader.read(raw, prompt)
        left = iter("".join(raw.split()))
        assert all(character in left for character in "".join(judged.text.split()))
        if not judged.flags:
            cue = (template.answerer or "\0") + ":"
            assert judged.text == raw.strip() or raw.strip().startswith((cue, *(f"{b}{cue}" for b in "*_")))


BIG = 1 << 20
ADVERSARIAL: dict[str, Callable[[], str]] = {
    "open thoughts": lambda: "(Internal thought: " * (BIG // 19),
    "closed thoughts": lambda: "(Internal thought: a) " * (BIG // 22),
    "nested thoughts": lambda: "(Internal thought: " * (BIG // 40) + ")" * (BIG // 40),
    "thoughts in paragraphs": lambda: "(Internal thought: (a)\n\nb\n\n" * (BIG // 27),
    "open brackets": lambda: "(Internal thought: " + "(" * BIG,
    "brackets": lambda: "( " * (BIG // 2),
    "a bracket and spaces": lambda: "(" + " " * BIG + "x",
    "a marker and spaces": lambda: "(internal" + " " * BIG + "x",
    "markers and spaces": lambda: "(internal    thought    " * (BIG // 24),
    "open reasoning": lambda: "<think>" * (BIG // 7),
    "closed reasoning": lambda: "<think>x</think>" * (BIG // 16),
    "closing marks": lambda: "</think>" * (BIG // 8),
    "channels": lambda: "<|channel|>" * (BIG // 11),
    "whole channels": lambda: "<|channel|>final<|message|>x" * (BIG // 28),
    "stripped channels": lambda: "analysis" + "assistantfinal" * (BIG // 14),
    "an opening mark and a long name": lambda: "<think " + "a" * BIG,
    "reasoning and spaces": lambda: "<think>" + " " * BIG + "<think",
    "stars": lambda: "*" * BIG,
    "lines of stars": lambda: "* * *\n" * (BIG // 6),
    "newlines": lambda: "\n" * BIG + "x",
    "turns": lambda: "Red-LM:\n" * (BIG // 8),
    "turns without colon": lambda: "Red-LM   \n" * (BIG // 10),
    "a cue and spaces": lambda: "Base-LM" + " " * BIG + "x",
    "tails": lambda: shipped("cou").suffix[-60:] * (BIG // 60),
    "prompts": lambda: render(shipped("cou"), QUESTION) * (BIG // 1900),
    "almost the prompt": lambda: render(shipped("cou"), QUESTION)[:-1] * (BIG // 1900),
    "one word": lambda: "x" * BIG,
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_a_mebibyte_of_the_worst_text_is_read_in_no_time(name: str) -> None:
    """In a few times what looking at each letter once takes Python on this core now; a quadratic step takes minutes."""
    text = ADVERSARIAL[name]()
    template = shipped("cou")
    reader, prompt = AnswerReader(template), render(template, QUESTION)
    best = letters = float("inf")
    for _ in range(6):
        started = time.process_time()
        reader.read(text, prompt)
        between = time.process_time()
        sum(map(ord, text))
        best, letters = min(best, between - started), min(letters, time.process_time() - between)
        if best < 8 * letters:
            break
    assert best < 8 * letters


def test_a_template_and_a_question_of_a_mebibyte_are_read_in_no_time() -> None:
    tail = "the same forty characters again and again. "
    template = parse_template("t", f"Red-LM: <question>\n{tail * 20_000}\nBase-LM:")
    prompt = render(template, tail * 5)
    reader = AnswerReader(template)
    started = time.process_time()
    reader.read(tail * 20_000 + "\nBase-LM: x", prompt)
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("protocol_2023", [False, True])
def test_a_thought_that_was_cut_off_is_a_thought_and_one_that_was_not_is_left_in_the_answer(
    protocol_2023: bool,
) -> None:
    template = parse_template("plain", "<question>")
    reader, raw = AnswerReader(template, protocol_2023=protocol_2023), "<think>it may be blue"
    cut, whole = reader.read(raw, "What is blue?", cut=True), reader.read(raw, "What is blue?")
    assert (cut.text, cut.thought) == ("", "it may be blue")
    assert whole.thought == ""
    assert "it may be blue" in whole.text


def test_thoughts_before_an_echo_and_behind_it_are_kept() -> None:
    template = parse_template("plain", "Answer this with care: <question>")
    reader, prompt = AnswerReader(template), render(template, "What is the colour of a lamp?")
    before = reader.read(f"<think>early</think>{prompt}\nIt is blue.", prompt)
    assert (before.text, before.thought) == ("It is blue.", "early")
    both = reader.read(f"<think>early</think>{prompt}\n<think>late</think>It is blue.", prompt)
    assert (both.text, both.thought) == ("It is blue.", "early\n\nlate")
