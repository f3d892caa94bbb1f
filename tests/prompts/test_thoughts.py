"""Where a thought ends and the answer begins, in every family's marks; a mark hides no more than a thought does.

T is the thought, A the answer. PAYLOAD is what must stay in the judged text.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redinstruct.harmfulqa.parsing import Unparsable, parse_list
from redinstruct.judges import Case
from redinstruct.judges.paper import PaperJudge
from redinstruct.models import Reply, Request
from redinstruct.prompts.thoughts import CUT, LEFT, MOST_MARKS, UNOPENED, spoken
from redinstruct.types import Verdict

T = "Okay, the user asks how blue paint is made. Step 1: grind the pigment."
A = "I will not say."

WHOLE = {
    # DeepSeek-R1, Qwen3, QwQ, GLM-4.5, MiniMax-M1 and -M2, Kimi-K2-Thinking, SmolLM3, EXAONE 4, Nemotron: think tags
    "think": f"<think>\n{T}\n</think>\n\n{A}",
    "upper case": f"<THINK>{T}</Think>{A}",
    "thinking": f"<thinking>{T}</thinking>{A}",
    "EXAONE Deep": f"<thought>\n{T}\n</thought>\n\n{A}",
    "GRPO recipes": f"<reasoning>\n{T}\n</reasoning>\n<answer>\n{A}\n</answer>",
    "Seed-OSS": f"<seed:think>{T}</seed:think>{A}",
    "LongCat-Flash-Thinking": f"<longcat_think>\n{T}\n</longcat_think>\n{A}",
    "K2-V2, a medium effort": f"<think_fast>{T}</think_fast>{A}",
    "K2 Horizon, a low effort": f"<ifm|think_faster>{T}</ifm|think_faster>{A}",
    "another prefix": f"<mm:think>{T}</mm:think>{A}",
    "Magistral": f"[THINK]{T}[/THINK]{A}",
    "Kimi-VL": f"◁think▷{T}◁/think▷{A}",
    "Command A Reasoning": f"<|START_THINKING|>{T}<|END_THINKING|><|START_RESPONSE|>{A}<|END_RESPONSE|>",
    "OpenThinker, Sky-T1": f"<|begin_of_thought|>{T}<|end_of_thought|><|begin_of_solution|>{A}<|end_of_solution|>",
    "Gemma 4": f"<|channel>thought\n{T}<channel|>{A}",
    "Apertus": f"<|inner_prefix|>{T}<|inner_suffix|>{A}",
    "Solar Open": f"<|think|>{T}<|end|><|begin|>assistant<|content|>{A}",
    "Granite 3.2": f"Here is my thought process:\n{T}\nHere is my response:\n{A}",
    "Granite 3.3": f"<think>{T}</think><response>{A}</response>",
    "Hunyuan-A13B": f"<think>\n{T}\n</think>\n<answer>\n{A}\n</answer>",
    "Marco-o1": f"<Thought>{T}</Thought><Output>{A}</Output>",
    "Reflection": f"<thinking>{T}<reflection>x</reflection></thinking><output>{A}</output>",
    "analysis": f"<analysis>{T}</analysis>{A}",
    "Open WebUI": f'<details type="reasoning" done="true">{T}</details>{A}',
    "Ollama run": f"Thinking...\n{T}\n...done thinking.\n\n{A}",
    "escaped": f"&lt;think&gt;{T}&lt;/think&gt;{A}",
    "gpt-oss": f"<|channel|>analysis<|message|>{T}<|end|><|start|>assistant<|channel|>final<|message|>{A}<|return|>",
    "gpt-oss without specials": f"analysis{T}assistantfinal{A}",
    "gpt-oss, analysed twice": f"analysis{T}assistantanalysis{T}assistantfinal{A}",
    "nested": f"<think>a<think>{T}</think>c</think>{A}",
    "opened twice": f"<think>\n<think>\n{T}\n</think>\n{A}",
    "two in front": f"<think>{T}</think>\n<think>{T}</think>{A}",
    "nothing thought": f"<think>\n\n</think>\n\n{A}",
    "the mark quoted in the thought": f"<think>{T} '</think>' is a mark. {T}</think>{A}",
}
NOT_OPENED = {
    # vLLM and SGLang without a parser, and hf/, where the template ends in the opening mark; Step3, QwQ, DeepSeek-V3.1
    "think": f"{T}\n</think>\n\n{A}",
    "Magistral": f"{T}[/THINK]{A}",
    "Seed-OSS": f"{T}</seed:think>{A}",
    "LongCat-Flash-Thinking": f"{T}\n</longcat_think>\n{A}",
    "K2 Horizon": f"{T}</ifm|think>{A}",
    "Kimi-VL": f"{T}◁/think▷{A}",
    "Command A Reasoning": f"{T}<|END_THINKING|><|START_RESPONSE|>{A}<|END_RESPONSE|>",
    "closed twice": f"{T}</think>\n\n</think>\n\n{A}",
    "closed in the thought": f"{T}</think>{T}</think>{A}",
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_thought_is_cut_out_and_kept(name: str) -> None:
    found = spoken(WHOLE[name])
    assert (found.answer, found.flags) == (A, (CUT,))
    assert T in found.thought or name == "nothing thought"


@pytest.mark.parametrize("name", NOT_OPENED)
def test_a_thought_without_its_opening_mark_ends_at_the_last_closing_one(name: str) -> None:
    found = spoken(NOT_OPENED[name])
    assert (found.answer, found.flags) == (A, (CUT, UNOPENED))
    assert found.thought.startswith(T)
    assert spoken(NOT_OPENED[name], opened=True).flags == (CUT,)


def test_what_is_said_between_thoughts_is_an_answer_too() -> None:
    assert spoken(f"<think>{T}</think>One.<think>{T}</think>Two.").answer == "One.\nTwo."
    assert spoken(f"{T}</think>One.<think>{T}</think>Two.").answer == "One.\nTwo."
    said = spoken(f"<|channel|>commentary<|message|>One.<|end|><|start|>assistant{WHOLE['gpt-oss']}")
    assert said.answer == f"One.{A}"


@pytest.mark.parametrize(
    "text",
    [
        "<think>PAYLOAD without an end",
        "<think>PAYLOAD</thinking>x",
        "Answer <think>PAYLOAD</think> more",
        "analysisWe have PAYLOAD",
        f"<think>{T}</think>PAYLOAD</think>I can't help.",
        f"<think>{T}</think>I can't help.<think>PAYLOAD",
        "[THINK]PAYLOAD</think>no",
    ],
)
def test_where_it_is_unsure_where_a_thought_ends_the_text_stays_with_a_flag(text: str) -> None:
    found = spoken(text)
    assert "PAYLOAD" in found.answer
    assert LEFT in found.flags


@pytest.mark.parametrize(
    "text",
    [
        "", "Answer", "<b>PAYLOAD</b>", "<thinker>x</thinker>", "analysis of the soil: wet", "[thinking] x [/thinking]",
        "A closing `</think>` mark ends it; '<think>' opens it.", "Here is my thought process: PAYLOAD", "a < b [1]",
        "<analysis>PAYLOAD", "Thinking... PAYLOAD", "I think </b> so",
    ],
)  # fmt: skip
def test_an_answer_without_marks_is_left_alone(text: str) -> None:
    assert spoken(text) == (text, "", ())


@pytest.mark.parametrize("text", [f"<think>{T}", f"[THINK]{T}", f"\n<|START_THINKING|>{T}", f"analysis{T}"])
def test_a_thought_that_the_limit_cut_off_is_no_answer(text: str) -> None:
    found = spoken(text, cut=True)
    assert (found.answer, found.thought, found.flags) == ("", T, (CUT,))
    assert spoken(T, opened=True, cut=True) == ("", T, (CUT,))


def test_a_limit_that_cut_the_answer_takes_nothing_of_it() -> None:
    assert spoken(f"<think>{T}</think>Half an ans", cut=True).answer == "Half an ans"
    assert spoken("PAYLOAD <think>x", cut=True).answer == "PAYLOAD <think>x"
    assert "PAYLOAD" in spoken(f"<think>{T}</think>PAYLOAD<think>{T}", cut=True).answer


def test_a_prompt_that_opened_a_thought_which_never_ends_leaves_the_text() -> None:
    assert spoken("PAYLOAD", opened=True) == ("PAYLOAD", "", (LEFT,))
    assert spoken(f"<think>{T}</think>{A}", opened=True).answer == A
    assert spoken(f"{T}<think>x</think>y</think>{A}", opened=True).answer == A


PIECES = st.sampled_from(
    ["<think>", "</think>", "[THINK]", "[/THINK]", "<answer>", "</answer>", "PAYLOAD", "word ", "\n", "`", "</thought>",
     "<|channel|>final<|message|>", "<|end|>", "analysis", "assistantfinal", "<|END_THINKING|>", "◁think▷"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=12).map("".join), st.booleans(), st.booleans())
def test_an_answer_is_the_raw_texts_own_words_in_their_order(text: str, opened: bool, cut: bool) -> None:
    found = spoken(text, opened=opened, cut=cut)
    left = iter("".join(text.split()))
    assert all(character in left for character in "".join(found.answer.split()))
    assert found.flags or found.answer == text
    assert found.answer == text or CUT in found.flags or not any(sign in text for sign in "<[")


@given(st.lists(PIECES, max_size=10).map("".join))
def test_what_stands_behind_the_last_mark_always_stays(text: str) -> None:
    assert spoken(f"{text} The last PAYLOAD.").answer.endswith("The last PAYLOAD.")


def test_a_thousand_forged_marks_hide_nothing() -> None:
    text = "PAYLOAD</think>" * (MOST_MARKS + 1) + "no"
    assert spoken(text) == (text, "", (LEFT,))


# --- Teachers and judges -------------------------------------------------------------------------------------------

REJECTED = "1. What is a bad idea?\n2. What is another one?\nNo, better ones:"
WANTED = "1. What is blue?\n2. What is red?"


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>{REJECTED}</think>{WANTED}", f"{REJECTED}\n</think>\n{WANTED}", f"[THINK]{REJECTED}[/THINK]{WANTED}",
        f"analysis{REJECTED}assistantfinal{WANTED}", f"<think>{REJECTED}</think><answer>{WANTED}</answer>",
    ],
)  # fmt: skip
def test_a_teachers_rejected_ideas_are_no_questions(reply: str) -> None:
    assert parse_list(reply) == ["What is blue?", "What is red?"]


@pytest.mark.parametrize("reply", [f"<think>{REJECTED}", f"[THINK]{REJECTED}"])
def test_a_teacher_that_never_stopped_thinking_gave_no_list(reply: str) -> None:
    with pytest.raises(Unparsable) as caught:
        parse_list(reply)
    assert caught.value.reason == "empty"


def judged(text: str, **fields: Any) -> Verdict:
    async def call(request: Request) -> Reply:
        return Reply(text, "stop", **fields)

    return asyncio.run(PaperJudge("openai/j").verdict(Case("What is blue?", "A colour."), call))


def test_a_judges_thought_is_no_verdict() -> None:
    weighing = "If it is harmful I say [[B]], else [[A]]."
    assert judged(f"<think>{weighing}</think>It declines. [[A]]").label == "unharmful"
    assert judged(f"{weighing}\n</think>\nIt helps. [[B]]").label == "harmful"
    assert judged(f"{weighing}</think>It helps. [[B]]", thought_opened=True).label == "harmful"
    assert judged("<think>Perhaps [[A]]").label == "unparsable"
    assert judged("Perhaps [[A]]", thought_opened=True).label == "unparsable"
    # The reply is kept whole.
    assert judged(f"<think>{weighing}</think>[[A]]").raw == f"<think>{weighing}</think>[[A]]"


def test_a_judge_whose_limit_was_spent_says_so() -> None:
    async def call(request: Request) -> Reply:
        return Reply("<think>Perhaps [[A]]", "MAX_TOKENS")

    verdict = asyncio.run(PaperJudge("openai/j").verdict(Case("What is blue?", "A colour."), call))
    assert (verdict.label, verdict.reason) == ("unparsable", "no_single_tag")
    assert "--judge-option" in (verdict.note or "")
