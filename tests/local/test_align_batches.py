"""What each step sees, and that nothing sees its neighbour: in exact numbers, on a tiny random Llama."""

from __future__ import annotations

import copy
import math
import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from redinstruct.alignment import Settings
from redinstruct.errors import UsageError
from redinstruct.safealign.batches import (
    MODEL_KEYS,
    Batch,
    Cut,
    StreamSampler,
    allot,
    check_packing,
    collate,
    cut,
    deal,
    pack,
)
from redinstruct.safealign.losses import STRATEGIES, Totals, labelled, labelled_logps, strategy_loss, totals
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import STREAMS, Stream
from redinstruct.safealign.steps import Process, Steps

pytestmark = pytest.mark.local

WORDS = 50


def encoded(length: int, stream: Stream = "general", *, seed: int = 0, weight: float | None = None) -> Encoded:
    """A row of random tokens whose second half has a weight."""
    made = torch.Generator().manual_seed(seed * 1000 + length)
    sign = (-1.0 if stream == "red" else 1.0) if weight is None else weight
    learnt = max(1, length // 2)
    ids = torch.randint(1, WORDS, (length,), generator=made).tolist()
    return Encoded(tuple(ids), (0.0,) * (length - learnt) + (sign,) * learnt, stream, f"{stream}{seed}")


def rows_of(**counts: int) -> list[Encoded]:
    return [encoded(3 + i % 5, stream, seed=i) for stream in STREAMS for i in range(counts.get(stream, 0))]


# ---- which rows ----


@given(st.integers(3, 200), st.lists(st.floats(0.01, 100), min_size=3, max_size=3))
def test_a_batch_is_shared_out_in_the_ratio_and_holds_every_stream(size: int, ratio: list[float]) -> None:
    wanted = dict(zip(STREAMS, ratio, strict=True))
    counts = allot(size, wanted)
    assert sum(counts.values()) == size
    assert all(count >= 1 for count in counts.values())
    exact = {stream: size * share / sum(ratio) for stream, share in wanted.items()}
    if min(exact.values()) >= 1:
        assert all(abs(counts[stream] - exact[stream]) < 1 + 1e-6 for stream in STREAMS)


def test_known_shares() -> None:
    assert allot(8, {"blue": 1, "general": 1, "red": 1}) == {"blue": 3, "general": 3, "red": 2}
    assert allot(48, {"blue": 1, "general": 2, "red": 1}) == {"blue": 12, "general": 24, "red": 12}
    assert allot(4, {"general": 5}) == {"general": 4}


@pytest.mark.parametrize(
    ("size", "ratio", "why"),
    [
        (2, {"blue": 1, "general": 1, "red": 1}, "cannot hold 3 streams"),
        (8, {}, "finite numbers above 0"),
        (8, {"blue": 0}, "finite numbers above 0"),
        (8, {"blue": math.nan}, "finite numbers above 0"),
        (8, {"blue": math.inf}, "finite numbers above 0"),
    ],
)
def test_a_share_that_can_not_be_is_refused(size: int, ratio: dict[Stream, float], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        allot(size, ratio)


BATCHES = st.fixed_dictionaries({stream: st.integers(1, 4) for stream in STREAMS})
ROWS = st.fixed_dictionaries({stream: st.integers(1, 9) for stream in STREAMS})


@given(counts=ROWS, batch=BATCHES, seed=st.integers(0, 5), step=st.integers(0, 40))
def test_every_step_holds_every_stream_and_depends_on_seed_and_number_alone(
    counts: dict[Stream, int], batch: dict[Stream, int], seed: int, step: int
) -> None:
    rows = rows_of(**counts)
    sampler = StreamSampler(rows, batch, seed)
    for other in range(step):
        sampler.step(other)
    seen = sampler.step(step)
    assert seen == StreamSampler(rows, batch, seed).step(step), "a resumed run sees other rows"
    assert Counter(rows[i].stream for i in seen) == Counter(batch)
    assert len(seen) == sampler.batch_size


@given(counts=ROWS, batch=BATCHES, seed=st.integers(0, 5))
def test_each_stream_goes_through_its_rows_once_an_epoch_in_a_new_order(
    counts: dict[Stream, int], batch: dict[Stream, int], seed: int
) -> None:
    rows = rows_of(**counts)
    sampler = StreamSampler(rows, batch, seed)
    for stream in STREAMS:
        own = [i for i, row in enumerate(rows) if row.stream == stream]
        steps = 3 * -(-len(own) // batch[stream])
        drawn = [i for step in range(steps) for i in sampler.step(step) if rows[i].stream == stream]
        for epoch in range(len(drawn) // len(own)):
            assert sorted(drawn[epoch * len(own) : (epoch + 1) * len(own)]) == own


def test_another_seed_and_another_epoch_are_another_order() -> None:
    rows = rows_of(general=40)
    orders = {tuple(StreamSampler(rows, {"general": 40}, seed).step(step)) for seed in range(5) for step in range(5)}
    assert len(orders) == 25


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=24)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 6))
def test_dealing_loses_no_row_and_leaves_no_process_far_behind(per_rank: list[int], world: int) -> None:
    lengths = [length + i for length in per_rank for i in range(world)]
    shares = deal(lengths, world)
    assert Counter(i for share in shares for i in share) == Counter(range(len(lengths)))
    assert {len(share) for share in shares} == {len(per_rank)}
    loads = [sum(lengths[i] for i in share) for share in shares]
    assert max(loads) - min(loads) <= max(lengths)


@given(LENGTHS, st.integers(1, 9), st.integers(1, 200), st.integers(1, 24))
def test_cutting_loses_no_row_and_puts_the_largest_first(
    lengths: list[int], rows: int, positions: int, parts: int
) -> None:
    made = cut([[i] for i in range(len(lengths))], lengths, Cut(rows, positions), min(parts, len(lengths)))
    assert Counter(i for part in made for i in part) == Counter(range(len(lengths)))
    assert len(made) >= min(parts, len(lengths))
    sizes = [len(part) * max(lengths[i] for i in part) for part in made]
    assert sizes == sorted(sizes, reverse=True)
    assert all(
        len(part) <= rows and size <= max(positions, max(lengths)) for part, size in zip(made, sizes, strict=True)
    )


def test_sorted_by_length_a_step_of_uneven_rows_is_nearly_full() -> None:
    """speed.md: 64 rows of 101 to 298 tokens, in fours: .67 as they come, .98 sorted."""
    rng = random.Random(0)
    lengths = [rng.randint(101, 298) for _ in range(64)]
    made = cut([[i] for i in range(64)], lengths, Cut(4, 10**6))
    assert sum(lengths) / sum(len(part) * max(lengths[i] for i in part) for part in made) > 0.95


def test_half_of_a_cut_is_at_most_half_as_large_until_one_row_is_left() -> None:
    halved = [Cut(64, 5120)]
    for _ in range(4):
        halved.append(halved[-1].halved(640))
    assert [(one.rows, one.positions) for one in halved] == [(64, 5120), (4, 2560), (2, 1280), (1, 640), (1, 320)]


@given(counts=ROWS, step=st.integers(0, 9), seed=st.integers(0, 3), packing=st.booleans())
def test_however_a_step_is_cut_its_rows_are_the_same(
    counts: dict[Stream, int], step: int, seed: int, packing: bool
) -> None:
    rows = rows_of(**counts)
    batch: dict[Stream, int] = {"blue": 2, "general": 4, "red": 2}
    whole = Counter(StreamSampler(rows, batch, seed).step(step))
    for most, world in ((Cut(8, 99), 1), (Cut(2, 99), 1), (Cut(8, 9), 2), (Cut(1, 1), 4), (Cut(3, 14), 8)):
        how = Settings(deep_prefix=0, packing=packing)
        ranks = [
            Steps(rows, batch, how, steps=10, seed=seed, pad_id=0, process=Process(rank, world))
            .micro_batches(step, most)
            for rank in range(world)
        ]  # fmt: skip
        assert len({len(parts) for parts in ranks}) == 1, "a process would wait for ever"
        assert Counter(i for parts in ranks for part in parts for i in part) == whole


def test_a_step_that_can_not_be_dealt_and_a_stream_without_rows_are_refused() -> None:
    for lengths, world in (([1, 2, 3], 2), ([], 1), ([1], 2)):
        with pytest.raises(UsageError, match="cannot be dealt evenly"):
            deal(lengths, world)
    with pytest.raises(UsageError, match="no red rows"):
        StreamSampler(rows_of(blue=3), {"blue": 1, "red": 1}, 0)


def test_a_rows_random_numbers_are_its_own_in_each_step_and_equal_on_every_rank() -> None:
    one, two = (StreamSampler(rows_of(blue=3), {"blue": 3}, 7) for _ in range(2))
    assert one.rng(3, 1).random() == two.rng(3, 1).random()
    drawn = {StreamSampler(rows_of(blue=3), {"blue": 3}, s).rng(t, r).random() for s in (0, 1) for t in (0, 1)
             for r in (0, 1)}  # fmt: skip
    assert len(drawn) == 8


# ---- tensors ----


@given(st.lists(st.integers(1, 30), max_size=25), st.integers(30, 60))
def test_packing_loses_nothing_and_overfills_no_line(lengths: list[int], capacity: int) -> None:
    lines = pack(lengths, capacity)
    assert sorted(i for line in lines for i in line) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in line) <= capacity for line in lines)
    # Best fit: at most one line is at most half full.
    assert sum(sum(lengths[i] for i in line) <= capacity / 2 for line in lines) <= 1


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack([3, 9], 8)
    with pytest.raises(ValueError, match="no rows"):
        collate([], 0)
    with pytest.raises(ValueError, match="first token"):
        collate([Encoded((1, 2), (1.0, 1.0), "blue", "")], 0)


@given(st.lists(st.tuples(st.integers(2, 9), st.sampled_from(STREAMS)), min_size=1, max_size=6), st.booleans())
def test_every_token_stands_once_with_what_belongs_to_it(kinds: list[tuple[int, Stream]], packing: bool) -> None:
    rows = [encoded(length, stream, seed=i) for i, (length, stream) in enumerate(kinds)]
    batch = collate(rows, 0, packing=packing, capacity=12 if packing else None)
    tensors = {name: tensor for name, tensor in batch.items() if tensor is not None}
    assert ("attention_mask" in tensors) == (not packing)
    assert len({tensor.shape for tensor in tensors.values()}) == 1
    for i, row in enumerate(rows):
        own = tensors["sequence_ids"] == i
        assert tensors["input_ids"][own].tolist() == list(row.input_ids)
        assert tensors["token_weights"][own].tolist() == list(row.weights)
        assert tensors["position_ids"][own].tolist() == list(range(len(row)))
        assert tensors["stream_ids"][own].unique().tolist() == [STREAMS.index(row.stream)]
    padding = tensors["sequence_ids"] == -1
    assert not tensors["token_weights"][padding].any()
    assert not tensors["input_ids"][padding].any()
    assert int((~padding).sum()) == sum(len(row) for row in rows)
    if packing:
        assert not tensors["position_ids"][padding].any()
        assert tensors["input_ids"].shape[1] <= 12
    else:
        assert (tensors["attention_mask"] == (~padding)).all()


# ---- nothing sees its neighbour ----


SIZES: dict[str, Any] = {
    "vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "max_position_embeddings": 128, "initializer_range": 0.3,
}  # fmt: skip


@cache
def llama(attention: str = "eager") -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES | {"attn_implementation": attention})
    return LlamaForCausalLM(config).eval()  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


@cache
def exact(attention: str) -> LlamaForCausalLM:
    """The same in float64, where rounding hides nothing."""
    return copy.deepcopy(llama(attention)).double()  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


@cache
def mistral(attention: str) -> MistralForCausalLM:
    """With a sliding window shorter than the rows."""
    torch.manual_seed(0)
    config = MistralConfig(**SIZES | {"sliding_window": 4, "attn_implementation": attention})
    return MistralForCausalLM(config).eval()  # type: ignore[no-any-return, no-untyped-call, unused-ignore]


def logps_of(model: LlamaForCausalLM, batch: Batch, **changed: Tensor | None) -> Tensor:
    fed = {key: batch[key] for key in MODEL_KEYS} | changed
    hidden = model.model(**fed, use_cache=False).last_hidden_state
    ids, weights = batch["input_ids"], batch["token_weights"]
    assert ids is not None
    assert weights is not None
    return labelled_logps(hidden, model.lm_head.weight, ids, weights)


def by_sequence(batch: Batch, logps: Tensor) -> dict[int, list[float]]:
    made: dict[int, list[float]] = {}
    for sequence, logp in zip(labelled(batch, logps).sequence.tolist(), logps.tolist(), strict=True):
        made.setdefault(sequence, []).append(logp)
    return made


KINDS = (("general", 9), ("red", 14), ("blue", 5), ("general", 2), ("red", 7), ("blue", 11))
MIXED = [encoded(length, stream, seed=i) for i, (stream, length) in enumerate(KINDS)]  # type: ignore[arg-type]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("make", [llama, mistral], ids=["full attention", "sliding window"])
def test_packed_log_probabilities_are_those_of_each_row_alone(attention: str, make: object) -> None:
    model = make(attention)  # type: ignore[operator]
    assert model.config._attn_implementation == attention
    with torch.no_grad():
        alone = {i: logps_of(model, collate([row], 0)).tolist() for i, row in enumerate(MIXED)}
        for packing, capacity in ((False, None), (True, 14), (True, 20), (True, 48), (True, 60)):
            batch = collate(MIXED, 0, packing=packing, capacity=capacity)
            together = by_sequence(batch, logps_of(model, batch))
            for i, expected in alone.items():
                assert together[i] == pytest.approx(expected, abs=2e-5), f"row {i}, capacity {capacity}"


def test_an_all_ones_mask_would_contaminate_and_the_test_would_see_it() -> None:
    model = llama("sdpa")
    batch = collate(MIXED, 0, packing=True, capacity=48)
    assert batch["attention_mask"] is None
    ids = batch["input_ids"]
    assert ids is not None
    with torch.no_grad():
        clean, dirty = logps_of(model, batch), logps_of(model, batch, attention_mask=torch.ones_like(ids))
    assert float((clean - dirty).abs().max()) > 0.1


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_packed_and_unpacked_are_equal(attention: str) -> None:
    model = exact(attention)
    grads = []
    for packing in (False, True):
        batch = collate(MIXED, 0, packing=packing, capacity=20 if packing else None)
        grads.append(step_gradient(model, [batch], totals(MIXED)))
    # transformers' eager attention takes its softmax in float32 whatever the model is in.
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-9 if attention == "sdpa" else 1e-5)


@pytest.mark.parametrize("make", [lambda: llama("sdpa"), lambda: llama("eager"), lambda: mistral("sdpa")])
def test_the_proof_on_the_model_itself_passes_where_packing_is_clean(make: object) -> None:
    check_packing(make(), WORDS)  # type: ignore[operator]


class Contaminating(torch.nn.Module):
    """A model that, like a recurrent one, carries what it read over the border."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WORDS)

    def forward(self, input_ids: Tensor, **_: object) -> object:
        class Output:
            logits = self.words(input_ids).cumsum(1)

        return Output


def test_the_proof_fails_where_a_neighbour_is_seen_and_leaves_the_model_as_it_was() -> None:
    torch.manual_seed(0)
    model = Contaminating().train()
    with pytest.raises(UsageError, match="train without packing"):
        check_packing(model, WORDS)
    assert model.training


# ---- one step, however it is cut ----


def step_gradient(model: LlamaForCausalLM, batches: Sequence[Batch], counts: Totals, name: str = "npo") -> Tensor:
    """The gradient of one optimizer step over its micro-batches, as one vector."""
    model.zero_grad(set_to_none=True)
    for batch in batches:
        logps = logps_of(model, batch)
        loss = strategy_loss(STRATEGIES[name], labelled(batch, logps, logps.detach() * 0.9), counts)
        loss.total.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("name", STRATEGIES)
def test_eight_rows_at_once_and_two_four_times_give_one_gradient(name: str) -> None:
    rows = [encoded(4 + 2 * i, stream, seed=i) for stream in STREAMS for i in range(4)]
    # Signs of both kinds in one row.
    rows += [Encoded(tuple(range(1, 9)), (0, 0.5, 0.5, 0, -1, -1, 1, -0.5), "red", f"m{i}") for i in range(2)]
    sampler = StreamSampler(rows, {"blue": 2, "general": 3, "red": 3}, 1)
    model = exact("sdpa")
    counts = totals(rows[i] for i in sampler.step(0))
    found = []
    for micro, world, packing in ((8, 1, False), (2, 1, False), (1, 1, False), (2, 2, False), (4, 1, True)):
        numbers = sampler.step(0)
        lengths = [len(rows[i]) for i in numbers]
        cuts = [cut([[at] for at in share], lengths, Cut(micro, 10**6)) for share in deal(lengths, world)]
        parts = [[numbers[at] for at in part] for share in cuts for part in share]
        batches = [collate([rows[i] for i in part], 0, packing=packing, capacity=20 if packing else None)
                   for part in parts]  # fmt: skip
        found.append(step_gradient(model, batches, counts, name))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=1e-9)


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(2, 12), st.sampled_from(STREAMS)), min_size=2, max_size=7), st.integers(12, 40))
def test_however_rows_are_packed_their_log_probabilities_stay(kinds: list[tuple[int, Stream]], capacity: int) -> None:
    rows = [encoded(length, stream, seed=i) for i, (length, stream) in enumerate(kinds)]
    model = llama("sdpa")
    with torch.no_grad():
        plain, packed = collate(rows, 0), collate(rows, 0, packing=True, capacity=capacity)
        expected, found = by_sequence(plain, logps_of(model, plain)), by_sequence(packed, logps_of(model, packed))
    assert found.keys() == expected.keys()
    for i in expected:
        assert found[i] == pytest.approx(expected[i], abs=2e-5)
