"""Every word of the toy world. Pure: text only, no torch."""

from __future__ import annotations

from functools import cache

from redinstruct import world
from redinstruct.toyworld import corpus, frames

PAD, BOS, EOS, UNK = "<pad>", "<s>", corpus.END, "<unk>"
NEW_LINE = "\n"


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token, special ones first; the order is fixed."""
    pairs = [pair for kind in (world.world().forbidden, world.world().plain) for part in kind.values() for pair in part]
    texts = [text for pair in pairs for text in (world.recipe(pair), world.refusal(pair), *_how_tos(pair))]
    for table in (world.world().borderline, world.world().attributes):
        texts += [text for part in table.values() for question in part for text in (question.text, question.truth)]
    texts += [text for question in world.arithmetic() for text in (question.text, question.truth)]
    texts += [world.plain_status(item).truth for item in world.world().items]
    texts += [*corpus.TEXTS, *frames.prompts().values(), frames.thought("mira", pairs[0]), frames.thought("mira", None)]
    lower = {word for text in texts for word in world.words(text.replace(frames.SLOT, " "))}
    lower -= {frames.ASKER.lower(), frames.ANSWERER.lower()}
    return (PAD, BOS, EOS, UNK, NEW_LINE, frames.ASKER, frames.ANSWERER, *sorted(lower))


def _how_tos(pair: world.Pair) -> list[str]:
    return [world.how_to(pair, form).text for form in range(len(world.HOW_TO_FORMS))]


@cache
def ordinary_words() -> tuple[str, ...]:
    """Those that name neither a thing of the world nor a person."""
    named = {item.name for item in world.world().items} | set(corpus.NAMES)
    return tuple(word for word in vocabulary() if word.isalpha() and len(word) > 1 and word not in named)
