"""From a conversation to token ids and signed weights: in ten chat templates, an answer and its stop token, no more."""

from __future__ import annotations

import copy
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from redinstruct.errors import UsageError
from redinstruct.safealign.mask_picture import picture
from redinstruct.safealign.masks import (
    CONTROL,
    JOINED,
    TOO_LONG,
    Encoded,
    LearntAnswer,
    augment_deep_prefix,
    deep_prefixes,
    encode,
    encode_rows,
)
from redinstruct.safealign.rows import Row, Stream
from redinstruct.safealign.templates import VICUNA, bundled, choose, place, prompt, stop_tokens
from redinstruct.toyworld.tokenizer import build_tokenizer
from redinstruct.types import Message
from tests.support.chat_templates import FAMILIES, Family, tokenizer_of

pytestmark = pytest.mark.local

TOY = Family("toy", None, "</s>", " ", "</s>", bos="<s>")
TEN = (*FAMILIES, TOY)
LONG = 4096


def tokenizer_for(family: Family) -> PreTrainedTokenizerFast:
    return build_tokenizer() if family is TOY else tokenizer_of(family)


def talk(*turns: str, system: str | None = None) -> tuple[Message, ...]:
    """User and assistant in turns."""
    said = tuple(Message("assistant" if i % 2 else "user", text) for i, text in enumerate(turns))
    return said if system is None else (Message("system", system), *said)


def row(
    *turns: str, weights: tuple[float, ...] | None = None, system: str | None = None, stream: Stream = "blue"
) -> Row:
    messages = talk(*turns, system=system)
    given_ = iter(weights or (1.0,) * (len(turns) // 2))
    return Row("r", messages, tuple(next(given_) if m.role == "assistant" else None for m in messages), stream)


def only(row: Row, tokenizer: PreTrainedTokenizerFast, max_length: int = LONG) -> Encoded:
    """The one row that the conversation becomes."""
    (made,), lost = encode(row, tokenizer, choose(tokenizer), max_length)
    assert not lost
    return made


def why(row: Row, tokenizer: PreTrainedTokenizerFast, max_length: int = LONG) -> list[str]:
    """Why nothing of the conversation is learnt."""
    made, lost = encode(row, tokenizer, choose(tokenizer), max_length)
    assert not made
    return lost


def encoded(row: Row, family: Family, max_length: int = LONG) -> Encoded:
    return only(row, tokenizer_for(family), max_length)


def texts(made: Encoded, family: Family) -> list[str]:
    """What each run of equally weighted tokens says."""
    return [str(tokenizer_for(family).decode(list(made.input_ids[a.start : a.end]))) for a in made.answers]


def asked_for(row: Row, family: Family, at: int) -> list[int]:
    """The tokens that the model is given when it is asked for message ``at``, by transformers' own rendering."""
    tokenizer = tokenizer_for(family)
    chat = [{"role": message.role, "content": message.content} for message in row.messages[:at]]
    template = None if tokenizer.chat_template else bundled().text
    text = tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


ten = pytest.mark.parametrize("family", TEN, ids=lambda family: family.name)


def check(made: Encoded, row: Row, family: Family) -> None:
    """Everything that is promised of an encoded row."""
    tokenizer = tokenizer_for(family)
    at = [i for i, weight in enumerate(row.weights) if weight]
    assert len(made.weights) == len(made.input_ids)
    assert made.weights[0] == 0
    assert any(made.weights)
    inside = set[int]()
    for answer, i in zip(made.answers, at, strict=False):
        assert list(made.input_ids[: answer.start]) == asked_for(row, family, i), "the model is asked in other words"
        assert set(made.weights[answer.start : answer.end]) == {row.weights[i]}
        if not answer.cut:
            last = tokenizer.decode([made.input_ids[answer.end - 1]])
            assert last == family.stop.strip(), "the stop token is not learnt"
        inside |= set(range(answer.start, answer.end))
    assert {i for i, weight in enumerate(made.weights) if weight} == inside


@ten
def test_only_the_answers_and_their_stop_tokens_are_learnt(family: Family) -> None:
    asked = row("what is in the box?", "a lamp.", "where is it?", "on the table.")
    made = encoded(asked, family)
    check(made, asked, family)
    if family is not TOY:  # the toy writes words that it does not know as <unk>
        assert texts(made, family) == [f"{family.before}{said}{family.stop}" for said in ("a lamp.", "on the table.")]


@ten
def test_each_answer_has_its_own_signed_weight(family: Family) -> None:
    asked = row("hello", "what is it?", "where?", "in the box", "now?", "yes", weights=(0.5, 0.0, -1.0), stream="red")
    made = encoded(asked, family)
    check(made, asked, family)
    assert [answer.weight for answer in made.answers] == [0.5, -1.0]
    assert set(made.weights) == {0.0, 0.5, -1.0}


@ten
def test_a_system_message_is_never_learnt(family: Family) -> None:
    asked = row("what?", "a lamp.", system="the garden is green.")
    tokenizer = tokenizer_for(family)
    if not family.system:
        assert why(asked, tokenizer) == ["the template refuses these roles"]
        return
    made = only(asked, tokenizer)
    check(made, asked, family)
    assert "garden" not in "".join(texts(made, family))
    assert "garden" in tokenizer.decode(list(made.input_ids)) or family is TOY


@ten
def test_an_empty_user_turn_and_a_masked_empty_answer_hurt_nothing(family: Family) -> None:
    asked = row("", "a lamp.", "where?", "", "is it?", "on the table.", weights=(1.0, 0.0, 1.0))
    made = encoded(asked, family)
    assert len(made.answers) == 2
    check(made, asked, family)


@ten
def test_truncation_keeps_what_it_can_and_says_so(family: Family) -> None:
    asked = row("what is in the box?", "a lamp.", "where is it?", "it is on the table.")
    whole = encoded(asked, family)
    first, second = whole.answers
    cut = encoded(asked, family, second.start + 2)
    assert cut.truncated
    assert cut.input_ids == whole.input_ids[: second.start + 2]
    assert cut.weights == whole.weights[: second.start + 2]
    assert [answer.cut for answer in cut.answers] == [False, True]
    check(cut, asked, family)
    tokenizer = tokenizer_for(family)
    assert why(asked, tokenizer, first.start) == [TOO_LONG] * 2
    assert not whole.truncated


@ten
def test_what_is_rendered_is_what_transformers_renders(family: Family) -> None:
    tokenizer = tokenizer_for(family)
    template = choose(tokenizer)
    messages = talk("what?", "a lamp.", "where?", "there.")
    chat = [{"role": message.role, "content": message.content} for message in messages]
    own = None if tokenizer.chat_template else template.text
    expected = tokenizer.apply_chat_template(chat, chat_template=own, tokenize=False)
    found = place(template, tokenizer, messages)
    assert str(expected).startswith(found.text), "and what follows the stop token is nobody's"
    asked = tokenizer.apply_chat_template(chat[:3], chat_template=own, tokenize=False, add_generation_prompt=True)
    assert prompt(template, tokenizer, messages[:3]) == asked


TURN = st.text(st.sampled_from("abe \n.?é灯🙂<|[]/#:'\"{}%"), max_size=12)


@settings(max_examples=15)
@ten
@given(data=st.data())
def test_whatever_is_said_no_token_of_a_prompt_is_learnt(family: Family, data: st.DataObject) -> None:
    turns = data.draw(st.lists(TURN, min_size=2, max_size=6).filter(lambda turns: len(turns) % 2 == 0))
    said = [turn if i % 2 == 0 or turn.strip() else "a lamp" for i, turn in enumerate(turns)]
    asked = row(*said)
    tokenizer = tokenizer_for(family)
    made, lost = encode(asked, tokenizer, choose(tokenizer), data.draw(st.integers(1, 120)))
    assert set(lost) <= {TOO_LONG, JOINED}
    if len(made) == 1 and not lost:
        check(made[0], asked, family)


# ---- templates that cannot be trained in ----

HEAD = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'U: ' + message['content'] + '\n' }}"
)
TAIL = "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"


def own(body: str, tail: str = TAIL) -> PreTrainedTokenizerFast:
    """A tokenizer whose template writes an answer like this."""
    family = next(family for family in FAMILIES if family.name == "alpaca")
    return tokenizer_of(family, template=HEAD + "{% else %}" + body + tail)


MARK, UNMARK = "{% generation %}", "{% endgeneration %}"
ANSWER = "{{ ' ' + message['content'] }}"


@pytest.mark.parametrize(
    ("body", "tail", "why"),
    [
        ("A:" + ANSWER + "{{ '[end]' }}", TAIL, "ends without a stop token"),
        ("{{ 'Bot:' }}" + ANSWER + "{{ eos_token }}", TAIL, "not what it is later rendered as"),
        ("A:" + ANSWER + "{{ eos_token }}", "{% endif %}{% endfor %}", "does not follow its prompt"),
        ("A: so{{ message['content'] + eos_token }}", TAIL, "does not follow its prompt"),
        ("A: {{ message['content'] | upper + eos_token }}", TAIL, "another text than the answer's"),
        ("{{ raise_exception(message['content']) }}", TAIL, "refuses these roles"),
        ("{{ message.__class__.__mro__ }}", TAIL, "refuses these roles|another text"),
        ("{{ nothing.at.all }}", TAIL, "refuses these roles"),
        ("{% for i in range(10**9) %}x{% endfor %}", TAIL, "refuses these roles"),
    ],
)
def test_a_template_that_would_teach_something_else_is_refused_before_training(body: str, tail: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        choose(own(body, tail))
    assert "two" not in str(caught.value)
    assert "vicuna" not in str(caught.value), "another template is another model"
    assert "\n" not in str(caught.value)


USERS = "{% if message['role'] == 'user' %}{{ 'U: '"
ANSWERS = "{% elif message['role'] == 'assistant' %}{{ 'A: ' + message['content'] + eos_token }}"


def bare(users: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose template writes a user's turn like this, and nothing of a system's."""
    family = next(family for family in FAMILIES if family.name == "alpaca")
    return tokenizer_of(family, template="{% for message in messages %}" + users + ANSWERS + TAIL)


@pytest.mark.parametrize("said", ["'\n'", "message['content'] | upper", "message['content'][:2]"])
def test_a_template_that_leaves_out_what_is_asked_is_refused_before_training(said: str) -> None:
    with pytest.raises(UsageError, match="leaves out what is asked"):
        choose(bare(USERS.replace("'U: '", said) + " }}"))


def test_a_row_whose_system_message_the_template_leaves_out_is_not_learnt_as_if_it_had_none() -> None:
    tokenizer = bare(USERS + " + message['content'] + '\n' }}")
    assert why(row("what?", "a lamp.", system="the garden is green."), tokenizer) == [
        "the template leaves out what is asked"
    ]
    assert said(only(row("what?", "a lamp."), tokenizer), tokenizer) == [" a lamp.</s>"]


@pytest.mark.parametrize("end", ["\n", "", "U: "], ids=["blank", "nothing", "text of the next turn"])
def test_where_a_template_ends_no_answer_the_tokenizers_own_end_is_learnt(end: str) -> None:
    body = "A:" + ANSWER + "{{ '" + end.replace("\n", "\\n") + "' if not loop.last else '' }}"
    tokenizer = own(body)
    made = only(row("what?", "a lamp."), tokenizer)
    assert said(made, tokenizer) == [" a lamp.</s>"]


def test_the_mark_of_the_next_turn_is_not_learnt_as_an_end() -> None:
    tokenizer = copy.deepcopy(own("A:" + ANSWER + "{{ '<|user|>' }}"))
    tokenizer.add_tokens([AddedToken("<|user|>", special=True)])
    tokenizer.chat_template = str(tokenizer.chat_template).replace("'U: '", "'<|user|>'")
    assert said(only(row("what?", "a lamp."), tokenizer), tokenizer) == [" a lamp.</s>"]


def said(made: Encoded, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What each answer teaches."""
    return [str(tokenizer.decode(list(made.input_ids[answer.start : answer.end]))) for answer in made.answers]


def test_the_marks_of_training_templates_change_nothing() -> None:
    for body in ("A:" + MARK + ANSWER + "{{ eos_token }}" + UNMARK, "A:" + MARK + ANSWER + UNMARK + "{{ eos_token }}"):
        tokenizer = own(body)
        assert said(only(row("what?", "a lamp."), tokenizer), tokenizer) == [" a lamp.</s>"]


def test_a_template_that_asks_for_the_date_gets_the_same_one_every_day() -> None:
    body = "{{ 'A: ' + message['content'] + eos_token }}"
    head = "{{ 'Today is ' + strftime_now('%d %b %Y') + '\n' }}"
    family = next(family for family in FAMILIES if family.name == "alpaca")
    tokenizer = tokenizer_of(family, template=head + HEAD + "{% else %}" + body + TAIL)
    assert prompt(choose(tokenizer), tokenizer, talk("what?")).startswith("Today is 01 Jan 2026\n")


def alpaca(body: str, tail: str = TAIL) -> PreTrainedTokenizerFast:
    tokenizer = copy.deepcopy(own(body, tail))
    tokenizer.add_tokens(["<think>", "</think>"])
    return tokenizer


THOUGHT = "<think>\n\n</think>\n\n"
LAST_THINKS = (
    "{{ 'A: ' + ('"
    + THOUGHT.replace("\n", "\\n")
    + "' if loop.last else '') + message['content'] + eos_token + '\n' }}"
)


def test_an_empty_thought_that_the_template_writes_stands_in_the_prompt_and_each_answer_is_rendered_as_the_last() -> (
    None
):
    # As Qwen 3 does: the last answer, and only that, has a block for thoughts, which no prompt holds.
    tokenizer = alpaca(LAST_THINKS)
    one, _ = encode(row("what?", "a lamp."), tokenizer, choose(tokenizer), LONG)
    made, lost = encode(row("what?", "a lamp.", "where?", "there."), tokenizer, choose(tokenizer), LONG)
    assert not lost
    assert [said(each, tokenizer) for each in made] == [["a lamp.</s>"], ["there.</s>"]]
    assert made[0] == one[0], "the same prompt has one target"
    for each in made:
        (answer,) = each.answers
        assert str(tokenizer.decode(list(each.input_ids[: answer.start]))).endswith(f"A: {THOUGHT}")
    own_thought = row("what?", "<think>\nso\n</think>\n\na lamp.")
    thinks = "{{ 'A: ' + message['content'] + eos_token + '\n' }}"
    learnt = said(only(own_thought, alpaca(thinks)), tokenizer)
    assert learnt == [" <think>\nso\n</think>\n\na lamp.</s>"]


def test_a_thought_that_the_prompt_opens_is_closed_before_the_answer() -> None:
    # As DeepSeek-R1 does: the prompt opens a thought, and no rendered answer has one.
    body = "{{ 'A:' + message['content'].split('</think>')[-1] + eos_token }}"
    tokenizer = alpaca(body, TAIL.replace("A:", "A:<think>\\n"))
    made = only(row("what?", "a lamp."), tokenizer)
    assert said(made, tokenizer) == ["a lamp.</s>"]
    assert str(tokenizer.decode(list(made.input_ids[: made.answers[0].start]))).endswith("A:<think>\n\n</think>\n\n")
    thinking = only(row("what?", "<think>\nso\n</think>\n\na lamp."), tokenizer)
    assert said(thinking, tokenizer) == ["so\n</think>\n\na lamp.</s>"]


def test_a_deep_prefix_stands_after_the_templates_marks() -> None:
    tokenizer = alpaca(LAST_THINKS)
    blue = only(row("what?", "i will not say."), tokenizer)
    red = only(row("what?", "a lamp.", weights=(-1.0,), stream="red"), tokenizer)
    deep = augment_deep_prefix(blue, deep_prefixes([red]), random.Random(3), share=1.0)
    text = tokenizer.decode(list(deep.input_ids))
    assert deep.prefixed
    assert text.count("<think>") == 1
    assert "</think>\n\na" in text


@pytest.mark.parametrize("answer", ["\n\na lamp.\n", "  a lamp. "])
def test_the_white_space_around_an_answer_is_not_learnt(answer: str) -> None:
    tokenizer = own("{{ 'A:\n' + message['content'] + eos_token }}", TAIL.replace("A:", "A:\\n"))
    assert said(only(row("what?", answer), tokenizer), tokenizer) == ["a lamp.</s>"]


def test_options_go_to_the_template_and_are_a_part_of_what_it_is() -> None:
    body = "{{ 'A: ' + message['content'] + eos_token }}"
    tokenizer = own(body, TAIL.replace("'A:'", "'A:' + (' loud' if loud else '')"))
    quiet, loud = choose(tokenizer), choose(tokenizer, options={"loud": False})
    assert prompt(quiet, tokenizer, talk("what?")) == prompt(loud, tokenizer, talk("what?"))
    assert quiet.identity != loud.identity
    with pytest.raises(UsageError, match=r"does not follow|not what it is"):
        choose(tokenizer, options={"loud": True})


def test_white_space_after_the_stop_token_is_not_learnt() -> None:
    tokenizer = own("A:" + ANSWER + "{{ eos_token + '\n\n' }}")
    made = only(row("what?", "a lamp."), tokenizer)
    assert tokenizer.decode([made.input_ids[made.answers[-1].end - 1]]) == "</s>"


def test_a_named_template_wins_over_the_tokenizers_own() -> None:
    tokenizer = tokenizer_for(TOY)
    assert choose(tokenizer).own
    assert choose(tokenizer, VICUNA) == bundled()
    with pytest.raises(UsageError, match="no such chat template"):
        choose(tokenizer, "other")


def test_the_bundled_template_is_fastchats_byte_for_byte() -> None:
    # FastChat's vicuna_v1.1: sep " ", sep2 "</s>"; the form in which Vicuna and Starling were trained.
    vicuna = next(family for family in FAMILIES if family.name == "vicuna")
    text = place(bundled(), tokenizer_of(vicuna), talk("Hello!", "Hi!", "How are you?", "Well.")).text
    head = (
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions."
    )
    assert text == head + " USER: Hello! ASSISTANT: Hi!</s>USER: How are you? ASSISTANT: Well.</s>"
    assert len(bundled().sha256) == 64


def test_a_tokenizer_without_an_end_or_without_offsets_is_refused() -> None:
    tokenizer = own("A:" + ANSWER + "{{ eos_token }}")
    tokenizer.eos_token = None
    with pytest.raises(UsageError, match="no end-of-sequence"):
        choose(tokenizer)
    with pytest.raises(UsageError, match="fast tokenizer"):
        choose(object())  # type: ignore[arg-type]


def test_a_begin_token_or_padding_never_ends_an_answer() -> None:
    tokenizer = tokenizer_for(TOY)
    assert stop_tokens(tokenizer) == ("</s>",)


# ---- rows ----


def test_a_control_token_in_a_text_drops_the_row_instead_of_ending_an_answer_there() -> None:
    tokenizer = tokenizer_for(TOY)
    for bad in (row("hello </s> human: hello", "once."), row("hello", "once. </s> human: once")):
        assert why(bad, tokenizer) == [CONTROL]


def test_dropped_rows_are_counted_by_reason() -> None:
    tokenizer = tokenizer_for(TOY)
    rows = [row("hello", "once."), row("hello", "<s>"), row(" ".join(["hello"] * 50), "once."), row("hello", "</s>")]
    made = encode_rows(rows, tokenizer, choose(tokenizer), 40)
    assert [len(made.of(stream)) for stream in ("blue", "general", "red")] == [1, 0, 0]
    assert made.dropped == {CONTROL: 2, TOO_LONG: 1}


def test_an_answer_whose_first_token_would_swallow_the_prompts_end_is_put_into_tokens_apart() -> None:
    # This tokenizer has met "hello hello" and makes of the prompt's last letter and the answer's first one token.
    tokenizer = own("{{ 'A:t' + message['content'] + eos_token }}", TAIL.replace("A:", "A:t"))
    made = only(row("what?", "he lamp"), tokenizer)
    asked = tokenizer(prompt(choose(tokenizer), tokenizer, talk("what?")), add_special_tokens=False)["input_ids"]
    assert list(made.input_ids[: made.answers[0].start]) == asked, "as it is asked"
    assert said(made, tokenizer) == ["he lamp</s>"]


def test_an_answer_that_the_template_cannot_carry_is_left_out_and_the_others_stay() -> None:
    tokenizer = own("{{ 'A: ' + message['content'].replace('lamp', 'box') + eos_token }}")
    rows = [row("what?", "a lamp.", "where?", "there."), row("what?", "a lamp.")]
    found = encode_rows(rows, tokenizer, choose(tokenizer), LONG)
    assert [said(each, tokenizer) for each in found.rows] == [[" there.</s>"]]
    reason = "the template writes another text than the answer's"
    assert (found.masked, found.dropped) == ({reason: 1}, {reason: 1})


# ---- deep-prefix augmentation ----


def made(ids: range, answers: tuple[LearntAnswer, ...], stream: Stream) -> Encoded:
    weights = [0.0] * len(ids)
    for answer in answers:
        weights[answer.start : answer.end] = [answer.weight] * (answer.end - answer.start)
    return Encoded(tuple(ids), tuple(weights), stream, stream, answers)


BLUE = made(range(100, 120), (LearntAnswer(5, 8, 1.0, "x"), LearntAnswer(12, 17, 1.0, "y")), "blue")
RED = made(range(200, 215), (LearntAnswer(4, 15, -1.0, "y"),), "red")


def test_the_refusal_is_learnt_after_a_part_of_the_red_answer_that_is_not() -> None:
    prefixes = deep_prefixes([RED, BLUE])
    assert prefixes == {"y": (tuple(range(204, 214)),)}, "the stop token is no part of what may stand before"
    rng = random.Random(0)
    depths = set()
    for _ in range(200):
        deep = augment_deep_prefix(BLUE, prefixes, rng, share=1.0)
        k = deep.prefixed
        depths.add(k)
        assert deep.input_ids == (*range(100, 112), *range(204, 204 + k), *range(112, 117))
        assert deep.weights == (0.0,) * (12 + k) + (1.0,) * 5
        assert deep.stream == "blue"
        (answer,) = deep.answers
        assert deep.input_ids[answer.start : answer.end] == tuple(range(112, 117))
    assert depths == set(range(1, 11))


def test_at_most_so_many_tokens_of_the_red_answer_stand_before() -> None:
    rng = random.Random(1)
    prefixes = deep_prefixes([RED])
    assert {augment_deep_prefix(BLUE, prefixes, rng, share=1.0, max_tokens=3).prefixed for _ in range(100)} == {1, 2, 3}


def test_half_of_the_rows_are_augmented_and_always_the_same_ones() -> None:
    prefixes = deep_prefixes([RED])
    runs = [
        [augment_deep_prefix(BLUE, prefixes, random.Random(seed), share=0.5) for seed in range(400)] for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert 160 < sum(deep.prefixed > 0 for deep in runs[0]) < 240


def test_rows_without_a_red_twin_red_rows_and_rows_that_would_not_fit_stay_as_they_are() -> None:
    prefixes = deep_prefixes([RED])
    stranger = made(range(300, 310), (LearntAnswer(3, 6, 1.0, "z"),), "general")
    for _ in range(20):
        assert augment_deep_prefix(stranger, prefixes, random.Random(0), share=1.0) is stranger
        assert augment_deep_prefix(RED, prefixes, random.Random(0), share=1.0) is RED
    assert augment_deep_prefix(BLUE, prefixes, random.Random(0), share=1.0, max_length=17) is BLUE
    assert augment_deep_prefix(BLUE, {}, random.Random(0), share=1.0) is BLUE


@ten
def test_twins_are_found_by_what_the_user_said_whatever_was_answered(family: Family) -> None:
    blue = encoded(row("what?", "a lamp.", "where?", "i will not say."), family)
    red = encoded(row("what?", "a box.", "where?", "there.", weights=(0.0, -1.0), stream="red"), family)
    deep = augment_deep_prefix(blue, deep_prefixes([red]), random.Random(0), share=1.0)
    assert deep.prefixed
    assert deep.input_ids[-1] == blue.input_ids[blue.answers[-1].end - 1]
    other = encoded(row("which?", "a box.", "where?", "there.", weights=(0.0, -1.0), stream="red"), family)
    assert augment_deep_prefix(blue, deep_prefixes([other]), random.Random(0), share=1.0) is blue


# ---- the picture ----


@ten
def test_the_picture_shows_every_token_with_its_weight(family: Family) -> None:
    shown = picture(encoded(row("hello?", "what?", "now?", "yes.", weights=(1.0, -0.5), stream="red"), family),
                    tokenizer_for(family))  # fmt: skip
    text = shown.text()
    assert text.count("[+ ") == 1
    assert text.count("[- 0.5 ") == 1
    assert len(shown.tokens) == len(shown.weights)
    assert set(shown.weights) == {0.0, 1.0, -0.5}


HOSTILE = ("</text><script>x()</script>", "\x1b[31m red", "\u202e evil", "]]>&amp;", "a\x00b", "\n\n\t ")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_only_shown(text: str) -> None:
    family = FAMILIES[0]
    shown = picture(encoded(row(text, f"a{text}"), family), tokenizer_for(family))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown.text())
