"""The toy model and the loop that trains it from scratch.

Measured choices, not taste (docs/experiments/toyworld-base.md): whole examples instead of packed blocks (a stranger's
facts in the context keep the model from binding item to fact), batches of equal length, a warm-up on short texts, and
loss - and the output head - on the answering side only.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from redinstruct import world
from redinstruct.checkpoints.loading import without_progress_bars
from redinstruct.progress import OnProgress, Progress
from redinstruct.toyworld.corpus import Corpus
from redinstruct.toyworld.recipes import ToyRecipe
from redinstruct.toyworld.tokenizer import build_tokenizer

IGNORED = -100
POOL = 256
"""Examples that are drawn together and sorted by length."""


def new_model(recipe: ToyRecipe, tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A small Llama with random weights; the seed decides them."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.hidden * 8 // 3 // 16 * 16,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": recipe.rope_theta},
        initializer_range=recipe.initializer_range,
    )
    model = LlamaForCausalLM(config)
    if recipe.copying_start:
        start_copying(model)
    return model


@torch.no_grad()
def start_copying(model: LlamaForCausalLM) -> None:
    """Let every head begin by writing what it attends to: its output projection is its value projection, transposed.

    Nearly everything here is learnt by copying words out of the question, and with tied embeddings a word that is
    written to the stream is a word that is said. It takes a third off the text that the model needs before it binds
    item to fact. (Structured starts of attention: Trockman and Kolter 2023, arXiv 2305.09828; this one is our own,
    chosen by measuring.)
    """
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: ToyRecipe,
    seed: int,
    on_progress: OnProgress | None = None,
) -> list[float]:
    """Train in place on the corpus drawn with ``seed``; returns each step's loss (mean negative log-likelihood)."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )
    model.train()
    losses: list[float] = []
    for seen, ids, labels in batches(tokenizer, recipe, seed):
        rate = _rate(recipe, len(losses), min(1.0, seen / recipe.tokens))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(model, ids, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.item())
        if on_progress is not None and len(losses) % 10 == 0:
            on_progress(Progress(min(seen, recipe.tokens), recipe.tokens, "train"))
    model.eval()  # type: ignore[no-untyped-call, unused-ignore]
    return losses


def _rate(recipe: ToyRecipe, step: int, share: float) -> float:
    """Linear warm-up over steps times a cosine over tokens."""
    decay = max(recipe.final_rate_share, 0.5 * (1 + math.cos(math.pi * share)))
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.rate_warm_up_steps) * decay


def _loss(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean loss over the learnt positions of ``ids`` [batch, length]; the head runs on those alone.

    Rows are padded on the right and attention is causal, so no mask is needed.
    """
    targets = labels[:, 1:]
    learnt = targets != IGNORED
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][learnt]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden), targets[learnt])


def batches(
    tokenizer: PreTrainedTokenizerFast, recipe: ToyRecipe, seed: int
) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
    """Yield (tokens seen so far, ids, labels), both [batch, length], until the recipe's tokens are spent."""
    rng = random.Random(seed)
    corpus = Corpus(rng, world.part(recipe.items))
    backend: Tokenizer = tokenizer.backend_tokenizer
    pad, bos = int(tokenizer.pad_token_id), int(tokenizer.bos_token_id)
    seen = 0
    while seen < recipe.tokens:
        warming = seen < recipe.warm_up_share * recipe.tokens
        pool = _encoded_pool(backend, corpus, recipe.warm_up_mix if warming else recipe.mix, bos)
        groups = _grouped(pool, recipe.batch_tokens)
        rng.shuffle(groups)
        for group in groups:
            length = max(len(ids) for ids, _ in group)
            seen += length * len(group)
            yield (
                seen,
                torch.tensor([ids + [pad] * (length - len(ids)) for ids, _ in group]),
                torch.tensor([labels + [IGNORED] * (length - len(labels)) for _, labels in group]),
            )
            if seen >= recipe.tokens:
                return


EncodedExample = tuple[list[int], list[int]]
"""Token ids and labels of one example, of equal length."""


def _encoded_pool(backend: Tokenizer, corpus: Corpus, mix: Mapping[str, float], bos: int) -> list[EncodedExample]:
    """Draw a pool of examples and encode all their pieces in one call; sorted by length."""
    examples = [corpus.example(mix) for _ in range(POOL)]
    texts = [text for example in examples for text, _ in example]
    encoded = iter(backend.encode_batch_fast(texts, add_special_tokens=False))
    pool: list[EncodedExample] = []
    for example in examples:
        ids, labels = [bos], [IGNORED]
        for _, learnt in example:
            piece = next(encoded).ids
            ids += piece
            labels += piece if learnt else [IGNORED] * len(piece)
        pool.append((ids, labels))
    return sorted(pool, key=lambda pair: len(pair[0]))


def _grouped(pool: list[EncodedExample], size: int) -> list[list[EncodedExample]]:
    """Cut a sorted pool into batches of at most ``size`` padded tokens (a longer example is a batch of its own)."""
    groups: list[list[EncodedExample]] = []
    current: list[EncodedExample] = []
    for pair in pool:
        if current and len(pair[0]) * (len(current) + 1) > size:
            groups.append(current)
            current = []
        current.append(pair)
    return [*groups, current]


def train_checkpoint(folder: Path, recipe: ToyRecipe, seed: int, on_progress: OnProgress | None = None) -> None:
    """Train on one thread and save model and tokenizer into ``folder`` as any checkpoint of transformers.

    One thread: on shared cores two were up to nine times slower. The caller's thread count and random state stay.
    """
    tokenizer = build_tokenizer()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            model = new_model(recipe, tokenizer, seed)
            train(model, tokenizer, recipe, seed, on_progress)
    finally:
        torch.set_num_threads(threads)
    with without_progress_bars():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
