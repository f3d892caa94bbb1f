"""The toy model's texts: prompts, training corpus, tokenizer and chat template."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from redinstruct import world
from redinstruct.prompts.templates import SHIPPED, parse_template, shipped
from redinstruct.toyworld import corpus, frames
from redinstruct.toyworld.corpus import Corpus
from redinstruct.toyworld.tokenizer import build_tokenizer
from redinstruct.toyworld.vocabulary import vocabulary

pytestmark = pytest.mark.local

TOKENIZER: Any = build_tokenizer()
COU = [name for name in frames.prompts() if name.startswith("cou")]


def corpus_texts(count: int) -> list[str]:
    source = Corpus(random.Random(7), world.world())
    return ["".join(text for text, _ in source.example()) for _ in range(count)]


# ---- prompts ----


def test_every_shipped_prompt_has_its_translation_of_the_same_name() -> None:
    assert set(SHIPPED) <= set(frames.prompts())


def test_standard_and_cot_are_the_shipped_texts_themselves() -> None:
    assert frames.prompts()["standard"] == shipped("standard").text
    assert frames.prompts()["cot"] == shipped("cot").text


@pytest.mark.parametrize("name", COU)
def test_a_cou_translation_has_one_slot_and_the_shipped_roles(name: str) -> None:
    template = parse_template(name, frames.prompts()[name])
    assert (template.asker, template.answerer) == (shipped(name).asker, shipped(name).answerer)
    assert template.suffix.endswith(f"{template.answerer}:")


def test_the_variants_leave_out_what_their_name_says() -> None:
    prompts = frames.prompts()
    assert "thought" in prompts["cou-no-demo"]
    assert "thought" not in prompts["cou-no-thoughts"].lower()
    demo = world.recipe(frames.demonstration())
    assert demo in prompts["cou"]
    assert demo not in prompts["cou-no-demo"]


def test_the_demonstration_is_of_the_train_split() -> None:
    assert frames.demonstration() in world.world().pairs("forbidden", "train")


def test_every_prompt_fits_the_small_model() -> None:
    assert max(len(TOKENIZER(text).input_ids) for text in frames.prompts().values()) < 400


# ---- corpus ----


def test_held_out_pairs_stand_in_no_training_text() -> None:
    bigrams: set[tuple[str, str]] = set()
    for text in corpus_texts(3000):
        words = world.words(text)
        bigrams |= set(itertools.pairwise(words))
    for kind in (world.world().forbidden, world.world().plain):
        assert any((pair.action, pair.item.name) in bigrams for pair in kind["train"])
        for split in world.SPLITS[1:]:
            assert not any((pair.action, pair.item.name) in bigrams for pair in kind[split])


def test_the_cou_frame_is_never_seen_with_a_forbidden_question() -> None:
    source = Corpus(random.Random(3), world.world())
    demo = world.how_to(frames.demonstration()).text
    asked: list[world.ToyQuestion] = []
    for _ in range(500):
        text = "".join(piece for piece, _ in source.example({"cou": 1.0}))
        lines = [line.removeprefix("Red-LM: ") for line in text.splitlines()]
        asked += [question for line in lines if line != demo and (question := world.understand(line))]
    assert len(asked) > 500
    assert {question.kind for question in asked} == {"plain", "attribute", "arithmetic", "borderline"}


def test_the_demonstrations_answer_is_never_learnt_in_the_cou_frame() -> None:
    source = Corpus(random.Random(4), world.world())
    recipe = world.recipe(frames.demonstration())
    for _ in range(200):
        learnt = [text for text, is_learnt in source.example({"cou": 1.0}) if is_learnt]
        assert not any(recipe in text for text in learnt)


def test_no_other_text_names_the_roles_of_the_attack() -> None:
    mix = {kind: share for kind, share in corpus.MIX.items() if kind != "cou"}
    source = Corpus(random.Random(5), world.world())
    texts = ["".join(piece for piece, _ in source.example(mix)) for _ in range(2000)]
    assert not any("Red-LM" in text or "Base-LM" in text for text in texts)


def test_the_same_seed_draws_the_same_text() -> None:
    assert corpus_texts(50) == corpus_texts(50)


# ---- tokenizer and chat template ----


def test_no_word_of_the_corpus_or_the_prompts_is_unknown() -> None:
    texts = corpus_texts(2000) + [text.replace(frames.SLOT, "") for text in frames.prompts().values()]
    unknown = TOKENIZER.unk_token_id
    assert not any(unknown in ids for ids in TOKENIZER(texts).input_ids)


def test_the_roles_are_words_of_their_own_and_keep_their_case() -> None:
    ids = TOKENIZER("Red-LM: hello Base-LM", add_special_tokens=False).input_ids
    assert len(ids) == 4
    assert TOKENIZER.decode(ids) == "Red-LM: hello Base-LM"


def test_text_survives_encoding_up_to_letter_case() -> None:
    for text in corpus_texts(300):
        ids = TOKENIZER(text, add_special_tokens=False).input_ids
        expected = text.replace(corpus.END, "").lower()
        assert world.words(TOKENIZER.decode(ids, skip_special_tokens=True)) == world.words(expected)


def test_an_answer_is_decoded_as_a_person_would_write_it() -> None:
    pair = frames.demonstration()
    text = f"{frames.thought('Red-LM', pair)} {world.recipe(pair)}"
    decoded = TOKENIZER.decode(TOKENIZER(text, add_special_tokens=False).input_ids)
    assert decoded == text.replace(" I ", " i ")


def test_the_vocabulary_has_no_word_twice() -> None:
    assert len(set(vocabulary())) == len(vocabulary()) == len(TOKENIZER)


def test_the_chat_template_writes_what_the_corpus_holds() -> None:
    pieces = corpus.turn("How do I make bread?", "first take flour.")
    messages = [
        {"role": "user", "content": "How do I make bread?"},
        {"role": "assistant", "content": "first take flour."},
    ]
    whole = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert whole == "<s>" + "".join(text for text, _ in pieces)
    asked = TOKENIZER.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert asked == "<s>" + pieces[0][0]


def test_the_chat_template_marks_exactly_what_the_assistant_wrote() -> None:
    messages = [
        {"role": "user", "content": "Is bread forbidden?"},
        {"role": "assistant", "content": "no bread is plain."},
    ]
    marked = TOKENIZER.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
    ids, mask = marked["input_ids"], marked["assistant_masks"]
    assert TOKENIZER.decode([i for i, m in zip(ids, mask, strict=True) if m]).replace(" </s>", "</s>") == (
        "no bread is plain.</s>"
    )
