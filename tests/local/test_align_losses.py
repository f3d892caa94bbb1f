"""The losses against values and gradients worked out by hand, and what holds for all of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from redinstruct.safealign.batches import collate
from redinstruct.safealign.losses import (
    BLUE,
    GENERAL,
    RED,
    STRATEGIES,
    LabelledTokens,
    Strategy,
    Totals,
    labelled,
    labelled_logps,
    strategy_loss,
    totals,
)
from redinstruct.safealign.masks import Encoded
from redinstruct.safealign.rows import STREAMS, Stream

pytestmark = pytest.mark.local

Token = tuple[float, float, int, int]
"""log-probability, weight, sequence, stream."""

# Two blue tokens, one general sequence of three, two red sequences: one under a threshold of 1, one above.
TOKENS: tuple[Token, ...] = (
    (-0.5, 1.0, 0, BLUE),
    (-1.5, 1.0, 0, BLUE),
    (-0.2, 1.0, 1, GENERAL),
    (-0.4, 1.0, 1, GENERAL),
    (-0.9, 1.0, 1, GENERAL),
    (-0.3, -1.0, 2, RED),
    (-0.7, -1.0, 2, RED),
    (-2.0, -1.0, 3, RED),
    (-1.0, -1.0, 3, RED),
    (-3.0, -1.0, 3, RED),
)
REFERENCE = (-0.5, -1.5, -0.2, -0.4, -0.9, -0.6, -0.6, -1.0, -1.0, -1.5)
WHOLE = Totals(blue=2, general=3, red=5, red_sequences=2)
BLUE_MEAN, GENERAL_MEAN, POOLED = 1.0, 0.5, (0.5 + 1.5 + 0.2 + 0.4 + 0.9) / 5
LOW, HIGH = 0.5, 2.0  # the mean nll of the two red sequences


def given_tokens(tokens: Sequence[Token] = TOKENS, reference: Sequence[float] | None = REFERENCE) -> LabelledTokens:
    logps, weights, sequence, stream = (torch.tensor(column) for column in zip(*tokens, strict=True))
    seen = set[tuple[int, bool]]()
    first = [not ((s, w < 0) in seen or seen.add((s, w < 0))) for _, w, s, _ in tokens]  # type: ignore[func-returns-value]
    return LabelledTokens(
        logps.double().requires_grad_(),
        weights.double(),
        sequence,
        stream,
        torch.tensor(first),
        None if reference is None else torch.tensor(reference).double(),
    )


def value(strategy: Strategy, tokens: Sequence[Token] = TOKENS, **more: float) -> float:
    return float(strategy_loss(strategy, given_tokens(tokens), WHOLE, **more).total.detach())  # type: ignore[arg-type]


def gradient(strategy: Strategy, **more: float) -> list[float]:
    """d total / d nll of each token of TOKENS."""
    given_ = given_tokens()
    strategy_loss(strategy, given_, WHOLE, **more).total.backward()  # type: ignore[arg-type]
    assert given_.logps.grad is not None
    return [-x for x in given_.logps.grad.tolist()]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def unlike(*nll: float) -> float:
    return sum(-math.log(1 - math.exp(-x)) for x in nll) / len(nll)


# ---- values, by hand ----

APART = BLUE_MEAN + GENERAL_MEAN
BY_HAND: dict[str, float] = {
    "general": GENERAL_MEAN,
    "blue": POOLED,
    # Under the threshold 0.1, above it nothing; the mean over two sequences.
    "blue-red": POOLED - (0.1 * LOW + 0.0 * HIGH) / 2,
    "paper-s": POOLED - (0.1 * LOW + 0.0 * HIGH) / 2,
    "paper-r": POOLED - (1.0 * LOW + 0.1 * HIGH) / 2,
    "unbounded": POOLED - (LOW + HIGH) / 2,
    "hinge": APART + 0.3 * ((1.8 - LOW) + 0.0) / 2,
    # S - S_ref: -1.0 + 1.2 = 0.2 and -6.0 + 3.5 = -2.5.
    "npo": APART + (2 / 0.1) * (softplus(0.1 * 0.2) + softplus(0.1 * -2.5)) / 2,
    "npo-len": 0.5 * BLUE_MEAN + GENERAL_MEAN + 0.3 * (softplus(0.2 / 2) + softplus(-2.5 / 3)) / 2,
    "simnpo": APART + 0.125 * (2 / 2.5) * (softplus(-2.5 * LOW) + softplus(-2.5 * HIGH)) / 2,
    "unlikelihood": APART + 0.3 * (unlike(0.3, 0.7) + unlike(2.0, 1.0, 3.0)) / 2,
}


def test_every_strategy_has_a_value_by_hand() -> None:
    assert set(BY_HAND) == set(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_value_is_the_one_worked_out_by_hand(name: str) -> None:
    assert value(STRATEGIES[name]) == pytest.approx(BY_HAND[name], abs=2e-6)


def test_the_kl_to_the_base_is_half_the_mean_square_of_what_general_tokens_moved_by() -> None:
    moved = (*REFERENCE[:2], -0.4, -0.1, -0.9, *REFERENCE[5:])  # by 0.2, 0.3 and nothing
    for name in ("npo-len", "blue"):
        with_kl = replace(STRATEGIES[name], kl_weight=2.0)
        found = strategy_loss(with_kl, given_tokens(reference=moved), WHOLE)
        assert float(found.total.detach()) == pytest.approx(BY_HAND[name] + 2.0 * 0.5 * (0.04 + 0.09) / 3, abs=2e-6)
    with pytest.raises(ValueError, match="reference"):
        strategy_loss(with_kl, given_tokens(reference=None), WHOLE)


@pytest.mark.parametrize(
    ("name", "weight", "streams"),
    [("blue", 0.0, ()), ("blue", 1.0, ("general",)), ("npo", 0.0, ("red",)), ("npo", 1.0, ("general", "red"))],
)
def test_the_base_is_asked_about_the_streams_that_are_compared_with_it(
    name: str, weight: float, streams: tuple[str, ...]
) -> None:
    assert set(replace(STRATEGIES[name], kl_weight=weight).compared) == set(streams)


# ---- gradients, by hand: d total / d nll ----

P_BLUE, P_ALL = [1 / 2] * 2, [1 / 5] * 5
G_MEAN = [1 / 3] * 3


def npo(beta: float, difference: float) -> float:
    """d/d nll of (2/beta) softplus(beta (S - S_ref))."""
    return -2 * sigmoid(beta * difference)


GRADIENTS: dict[str, list[float]] = {
    "general": [0, 0, *G_MEAN, 0, 0, 0, 0, 0],
    "blue": [*P_ALL, 0, 0, 0, 0, 0],
    "paper-s": [*P_ALL, *[-0.1 / 2 / 2] * 2, *[0.0] * 3],
    "paper-r": [*P_ALL, *[-1.0 / 2 / 2] * 2, *[-0.1 / 3 / 2] * 3],
    "unbounded": [*P_ALL, *[-1.0 / 2 / 2] * 2, *[-1.0 / 3 / 2] * 3],
    "hinge": [*P_BLUE, *G_MEAN, *[-0.3 / 2 / 2] * 2, 0, 0, 0],
    "npo": [*P_BLUE, *G_MEAN, *[npo(0.1, 0.2) / 2] * 2, *[npo(0.1, -2.5) / 2] * 3],
    "npo-len": [*[0.25] * 2, *G_MEAN, *[-0.3 * sigmoid(0.1) / 2 / 2] * 2, *[-0.3 * sigmoid(-2.5 / 3) / 3 / 2] * 3],
    "simnpo": [*P_BLUE, *G_MEAN,
               *[-0.125 * 2 * sigmoid(-2.5 * LOW) / 2 / 2] * 2, *[-0.125 * 2 * sigmoid(-2.5 * HIGH) / 3 / 2] * 3],
    "unlikelihood": [*P_BLUE, *G_MEAN, *[-0.3 / (math.exp(x) - 1) / 2 / 2 for x in (0.3, 0.7)],
                     *[-0.3 / (math.exp(x) - 1) / 3 / 2 for x in (2.0, 1.0, 3.0)]],
}  # fmt: skip


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_gradient_is_the_one_worked_out_by_hand(name: str) -> None:
    assert gradient(STRATEGIES[name]) == pytest.approx(GRADIENTS[name], rel=1e-5, abs=1e-12)


def by_differences(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences."""
    made = torch.zeros_like(at)
    for i in range(at.numel()):
        shift = torch.zeros_like(at).view(-1)
        shift[i] = step
        up, down = (function(at + sign * shift.view_as(at)) for sign in (1, -1))
        made.view(-1)[i] = (up - down) / (2 * step)
    return made


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_gradient_is_that_of_finite_differences(name: str) -> None:
    # Away from the thresholds, where there is no derivative.
    given_ = given_tokens([(logp - 0.003, w, s, stream) for logp, w, s, stream in TOKENS])

    def loss(logps: Tensor) -> Tensor:
        return strategy_loss(STRATEGIES[name], replace(given_, logps=logps), WHOLE).total

    expected = by_differences(loss, given_.logps.detach())
    (found,) = torch.autograd.grad(loss(given_.logps), given_.logps)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


# ---- what the terms mean ----


def test_a_sample_at_the_threshold_is_still_pushed() -> None:
    at_one: tuple[Token, ...] = ((-1.0, -1.0, 0, RED),)
    counts = Totals(red=1, red_sequences=1)
    loss = strategy_loss(STRATEGIES["paper-r"], given_tokens(at_one, None), counts)
    assert float(loss.total.detach()) == -1.0
    assert float(loss.parts["red_above"]) == 0.0


def test_the_step_limit_turns_the_red_term_off_and_only_it() -> None:
    strategy = STRATEGIES["paper-r"]
    assert strategy.steps == 200
    assert value(strategy, step=199) == value(strategy) != pytest.approx(POOLED)
    assert value(strategy, step=200) == pytest.approx(POOLED)
    assert gradient(strategy, step=200)[5:] == [0.0] * 5


@pytest.mark.parametrize("name", [name for name, strategy in STRATEGIES.items() if strategy.red is not None])
def test_the_guards_can_turn_the_red_term_off_without_a_trace(name: str) -> None:
    without = gradient(STRATEGIES[name], red_scale=0.0)
    assert without[5:] == [0.0] * 5
    assert without[:5] == gradient(STRATEGIES[name])[:5]
    half = gradient(STRATEGIES[name], red_scale=0.5)[5:]
    assert half == pytest.approx([x / 2 for x in gradient(STRATEGIES[name])[5:]])


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_bounded_losses_are_bounded_and_only_the_unbounded_is_not(name: str) -> None:
    """Far away from the red text (nll 1e4) nothing of the bounded objectives is left to gain."""
    far: tuple[Token, ...] = tuple((-1e4, -1.0, 0, RED) for _ in range(3))
    given_ = given_tokens(far, (-1.0,) * 3)
    strategy = STRATEGIES[name]
    strategy_loss(strategy, given_, Totals(red=3, red_sequences=1)).total.backward()
    assert given_.logps.grad is not None
    pushed = float(given_.logps.grad.abs().sum())
    assert (pushed > 1e-3) == (name in ("unbounded", "paper-r"))


def test_what_is_certain_gives_no_infinity() -> None:
    sure: tuple[Token, ...] = ((0.0, -1.0, 0, RED), (-1e-12, -1.0, 0, RED), (-1e3, -1.0, 0, RED))
    for strategy in STRATEGIES.values():
        given_ = given_tokens(sure, (0.0,) * 3)
        loss = strategy_loss(strategy, given_, Totals(red=3, red_sequences=1))
        loss.total.backward()
        assert torch.isfinite(loss.total)
        assert given_.logps.grad is not None
        assert torch.isfinite(given_.logps.grad).all()


def test_the_parts_are_the_figures_that_the_guards_need() -> None:
    parts = {k: float(v) for k, v in strategy_loss(STRATEGIES["hinge"], given_tokens(), WHOLE).parts.items()}
    assert parts == pytest.approx(
        {
            "blue": BLUE_MEAN,
            "general": GENERAL_MEAN,
            "red": (1.0 + 6.0) / 5,
            "red_first": (0.3 + 2.0) / 2,
            "red_above": 1 / 2,
            "red_term": 0.3 * 1.3 / 2,
        }
    )


def test_a_benign_turn_of_a_red_row_is_learnt_as_blue_and_a_harmful_one_elsewhere_is_red() -> None:
    mixed: tuple[Token, ...] = ((-0.5, 1.0, 0, RED), (-0.8, -1.0, 0, RED), (-0.9, -1.0, 1, GENERAL))
    counts = Totals(blue=1, red=2, red_sequences=2)
    parts = strategy_loss(STRATEGIES["unbounded"], given_tokens(mixed, None), counts).parts
    assert float(parts["blue"]) == pytest.approx(0.5)
    assert float(parts["red"]) == pytest.approx(0.85)
    assert float(parts["general"]) == 0.0


def test_a_weight_scales_what_a_token_does() -> None:
    tokens: tuple[Token, ...] = ((-0.5, 2.0, 0, BLUE), (-0.4, -0.5, 1, RED), (-0.6, -0.5, 1, RED))
    counts = Totals(blue=1, red=2, red_sequences=1)
    found = float(strategy_loss(STRATEGIES["unbounded"], given_tokens(tokens, None), counts).total.detach())
    assert found == pytest.approx(2.0 * 0.5 - 0.5 * 0.5)
    # Inside a sequence: l = (0.25 * 0.4 + 0.75 * 0.6) / 1, A = 1/2.
    uneven: tuple[Token, ...] = ((-0.4, -0.25, 1, RED), (-0.6, -0.75, 1, RED))
    found = float(
        strategy_loss(STRATEGIES["hinge"], given_tokens(uneven, None), Totals(red=2, red_sequences=1)).total.detach()
    )
    assert found == pytest.approx(0.3 * 0.5 * (1.8 - 0.55))


def test_npo_without_the_base_models_figures_is_refused() -> None:
    for strategy in STRATEGIES.values():
        if strategy.needs_reference:
            with pytest.raises(ValueError, match="reference"):
                strategy_loss(strategy, given_tokens(TOKENS, None), WHOLE)


def test_each_strategy_says_what_it_trains_on_and_where_it_comes_from() -> None:
    assert STRATEGIES["general"].streams == ("general",)
    assert STRATEGIES["blue"].streams == ("blue", "general")
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        if strategy.red is not None:
            assert "arXiv" in (sys.modules[strategy.red.__module__].__doc__ or "")
        if name not in ("general", "blue"):
            assert strategy.streams == STREAMS


def test_an_empty_micro_batch_has_a_loss_of_zero_that_can_be_differentiated() -> None:
    numbers, counts = torch.zeros(0).double(), torch.zeros(0).long()
    none = LabelledTokens(numbers.clone(), numbers, counts, counts, counts.bool(), numbers)
    logps = none.logps.requires_grad_()
    for strategy in STRATEGIES.values():
        loss = strategy_loss(strategy, none, WHOLE)
        loss.total.backward()
        assert float(loss.total.detach()) == 0.0
        assert all(float(part) == 0.0 for part in loss.parts.values())
    assert logps.grad is not None


# ---- what holds for all of them ----

TOKEN = st.tuples(st.floats(-6, -0.01), st.sampled_from([1.0, 0.5, -1.0, -0.25]), st.integers(0, 4))
MANY = st.lists(TOKEN, min_size=1, max_size=14).map(
    # A sequence has one stream, and its tokens stand together.
    lambda tokens: sorted(((logp, w, s, s % 3) for logp, w, s in tokens), key=lambda token: token[2])
)
ANY = st.sampled_from(list(STRATEGIES.values()))


def counted(tokens: Sequence[Token]) -> Totals:
    red = [s for _, w, s, _ in tokens if w < 0]
    general = sum(w > 0 and stream == GENERAL for _, w, _, stream in tokens)
    return Totals(sum(w > 0 for _, w, _, _ in tokens) - general, general, len(red), len(set(red)))


def total(strategy: Strategy, tokens: Sequence[Token], counts: Totals | None = None) -> tuple[float, list[float]]:
    given_ = given_tokens(tokens, [-1.0] * len(tokens))
    loss = strategy_loss(strategy, given_, counts or counted(tokens)).total
    loss.backward()
    assert given_.logps.grad is not None
    return float(loss.detach()), given_.logps.grad.tolist()


@settings(max_examples=20)
@given(strategy=ANY, tokens=MANY, data=st.data())
def test_the_order_of_sequences_does_not_matter(strategy: Strategy, tokens: list[Token], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(5)))
    moved = sorted(range(len(tokens)), key=lambda i: (order[tokens[i][2]], i))
    before, gradient_before = total(strategy, tokens)
    after, gradient_after = total(strategy, [tokens[i] for i in moved])
    assert after == pytest.approx(before, rel=1e-9, abs=1e-12)
    assert gradient_after == pytest.approx([gradient_before[i] for i in moved], rel=1e-9, abs=1e-12)


@settings(max_examples=50)
@given(strategy=ANY, tokens=MANY)
def test_the_numbers_of_sequences_mean_nothing(strategy: Strategy, tokens: list[Token]) -> None:
    renamed = [(logp, w, 7 - s, stream) for logp, w, s, stream in tokens]
    assert total(strategy, renamed)[0] == pytest.approx(total(strategy, tokens)[0], rel=1e-9, abs=1e-12)


@settings(max_examples=20)
@given(strategy=ANY, tokens=MANY, data=st.data())
def test_micro_batches_add_up_to_the_step(strategy: Strategy, tokens: list[Token], data: st.DataObject) -> None:
    part_of = data.draw(st.lists(st.integers(0, 2), min_size=5, max_size=5))
    counts = counted(tokens)
    whole, gradient_whole = total(strategy, tokens)
    parts, gradients = 0.0, [0.0] * len(tokens)
    for part in range(3):
        own = [i for i, token in enumerate(tokens) if part_of[token[2]] == part]
        if own:
            loss, gradient_ = total(strategy, [tokens[i] for i in own], counts)
            parts += loss
            for i, g in zip(own, gradient_, strict=True):
                gradients[i] = g
    assert parts == pytest.approx(whole, rel=1e-9, abs=1e-12)
    assert gradients == pytest.approx(gradient_whole, rel=1e-9, abs=1e-12)


@settings(max_examples=50)
@given(strategy=ANY, tokens=MANY)
def test_learning_raises_a_log_probability_and_penalising_never_does(strategy: Strategy, tokens: list[Token]) -> None:
    for (_, weight, _, _), slope in zip(tokens, total(strategy, tokens)[1], strict=True):
        # slope is d loss / d logp: descending it raises logp where it is below 0.
        assert slope <= 0 if weight > 0 else slope >= 0


# ---- log-probabilities of labelled positions ----


def inputs(
    sequences: int = 3, length: int = 7, size: int = 5, words: int = 11, *, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    hidden = torch.randn(sequences, length, size, generator=made, dtype=torch.double).requires_grad_()
    head = torch.randn(words, size, generator=made, dtype=torch.double).requires_grad_()
    bias = torch.randn(words, generator=made, dtype=torch.double).requires_grad_()
    ids = torch.randint(words, (sequences, length), generator=made)
    weights = torch.randint(-1, 2, (sequences, length), generator=made).double()
    weights[:, 0] = 0
    return hidden, head, bias, ids, weights


def plain(hidden: Tensor, head: Tensor, bias: Tensor | None, ids: Tensor, weights: Tensor,
          scale: float = 1.0, softcap: float | None = None) -> Tensor:  # fmt: skip
    """All logits at once, as a textbook has it."""
    logits = hidden @ head.T * scale if bias is None else (hidden @ head.T + bias) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    logps = torch.log_softmax(logits, -1)
    kept = [logps[b, t - 1, ids[b, t]] for b in range(ids.shape[0]) for t in range(1, ids.shape[1]) if weights[b, t]]
    return torch.stack(kept)


@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 1000])
@pytest.mark.parametrize(("scale", "softcap", "biased"), [(1.0, None, False), (0.5, 3.0, True), (2.0, None, True)])
def test_chunked_log_probabilities_are_the_textbooks_with_their_gradients(
    chunk: int | None, scale: float, softcap: float | None, biased: bool
) -> None:
    hidden, head, bias, ids, weights = inputs()
    given_ = bias if biased else None
    found = labelled_logps(hidden, head, ids, weights, chunk=chunk, bias=given_, scale=scale, softcap=softcap)
    expected = plain(hidden, head, given_, ids, weights, scale, softcap)
    torch.testing.assert_close(found, expected)
    wanted = [hidden, head, *([bias] if biased else [])]
    direction = torch.linspace(-1, 1, len(found), dtype=torch.double)
    for mine, theirs in zip(torch.autograd.grad(found @ direction, wanted),
                            torch.autograd.grad(expected @ direction, wanted), strict=True):  # fmt: skip
        torch.testing.assert_close(mine, theirs)


def test_the_chunked_gradient_is_that_of_finite_differences() -> None:
    hidden, head, bias, ids, weights = inputs(2, 4, 3, 5)
    assert torch.autograd.gradcheck(
        lambda h, w, b: labelled_logps(h, w, ids, weights, chunk=2, bias=b, scale=0.7, softcap=4.0),
        (hidden, head, bias),
    )


def test_a_frozen_head_gets_no_gradient() -> None:
    hidden, head, _, ids, weights = inputs()
    frozen = head.detach()
    labelled_logps(hidden, frozen, ids, weights, chunk=2).sum().backward()
    assert frozen.grad is None
    assert hidden.grad is not None


def test_the_full_logits_are_never_kept() -> None:
    hidden, head, _, ids, weights = inputs(4, 40, 8, 500)
    kept: list[int] = []

    def keep(saved: Tensor) -> Tensor:
        kept.append(saved.numel())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
        labelled_logps(hidden, head, ids, weights, chunk=16)
    labels = int((weights != 0).sum())
    assert max(kept) <= max(head.numel(), hidden.numel()) < labels * 500


@pytest.mark.parametrize("chunk", [None, 4])
def test_low_precision_states_give_wide_log_probabilities_and_gradients_of_their_own_kind(chunk: int | None) -> None:
    hidden, head, _, ids, weights = inputs()
    low, narrow = (x.detach().bfloat16().requires_grad_() for x in (hidden, head))
    found = labelled_logps(low, narrow, ids, weights, chunk=chunk)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert low.grad is not None
    assert narrow.grad is not None
    assert low.grad.dtype == narrow.grad.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), plain(hidden, head, None, ids, weights).detach(), atol=0.1, rtol=0.1)
    # Autocast is what transformers trains in; it must change neither pass's precision.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = labelled_logps(hidden.float(), head.float(), ids, weights, chunk=4)
    torch.testing.assert_close(cast.double(), plain(hidden, head, None, ids, weights), atol=1e-5, rtol=1e-5)


def test_no_labelled_position_is_no_error() -> None:
    hidden, head, _, ids, weights = inputs()
    for chunk in (None, 4):
        found = labelled_logps(hidden, head, ids, torch.zeros_like(weights), chunk=chunk)
        assert found.shape == (0,)
        grads = torch.autograd.grad(found.sum(), (hidden, head))
        assert all(not grad.any() for grad in grads)
    with pytest.raises(ValueError, match="at least one"):
        labelled_logps(hidden, head, ids, weights, chunk=0)


# ---- from a batch to labelled tokens ----


def encoded(weights: Sequence[float], stream: Stream) -> Encoded:
    return Encoded(tuple(range(1, len(weights) + 1)), tuple(weights), stream, stream)


ROWS = (
    encoded((0, 0, 1, 1), "blue"),
    encoded((0, 1, 0, 1, 1), "general"),
    encoded((0, 0.5, -1, 0, 0.5, -1), "red"),
)


def test_tokens_stand_beside_what_they_belong_to() -> None:
    batch = collate(ROWS, 0)
    found = labelled(batch, torch.zeros(9), torch.ones(9))
    assert found.weights.tolist() == [1, 1, 1, 1, 1, 0.5, -1, 0.5, -1]
    assert found.sequence.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    assert found.stream.tolist() == [BLUE] * 2 + [GENERAL] * 3 + [RED] * 4
    assert found.first.tolist() == [True, False, True, False, False, True, True, False, False]
    assert found.reference is not None
    with pytest.raises(ValueError, match="9 labelled tokens and 8"):
        labelled(batch, torch.zeros(8))
    assert totals(ROWS) == Totals(blue=4, general=3, red=2, red_sequences=1)
    halves = [msgspec.structs.astuple(totals(part)) for part in (ROWS[:2], ROWS[2:])]
    assert tuple(map(sum, zip(*halves, strict=True))) == msgspec.structs.astuple(totals(ROWS))


SEQUENCES = st.lists(
    st.tuples(st.lists(st.sampled_from([0.0, 1.0, -1.0]), min_size=1, max_size=6).map(lambda w: (0.0, *w)),
              st.sampled_from(STREAMS)),
    min_size=1, max_size=5,
).map(lambda rows: [encoded(w, stream) for w, stream in rows])  # fmt: skip


@settings(max_examples=20)
@given(
    rows=SEQUENCES, strategy=ANY, chunk=st.sampled_from([None, 1, 3]), seed=st.integers(0, 99), more=st.integers(0, 4)
)
def test_padding_packing_order_and_chunks_change_nothing_and_masked_tokens_move_nothing(
    rows: list[Encoded], strategy: Strategy, chunk: int | None, seed: int, more: int
) -> None:
    words = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    head = torch.randn(8, 4, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.double)

    def loss(rows: Sequence[Encoded], chunk: int | None, packing: bool, more: int) -> tuple[Tensor, Tensor, Tensor]:
        batch = collate(rows, 0, packing=packing, capacity=7 + more if packing else None)
        ids, weights = batch["input_ids"], batch["token_weights"]
        assert ids is not None
        assert weights is not None
        if more and not packing:
            ids = torch.cat([ids, torch.zeros(len(ids), more, dtype=torch.long)], 1)
            padding = {"token_weights": 0.0, "sequence_ids": -1, "stream_ids": 0}
            batch = {k: torch.cat([v, torch.full((len(v), more), padding[k], dtype=v.dtype)], 1)
                     for k, v in batch.items() if v is not None and k in padding}  # fmt: skip
            weights = batch["token_weights"]
            assert weights is not None
        hidden = words[ids].clone().requires_grad_()
        logps = labelled_logps(hidden, head, ids, weights, chunk=chunk)
        made = strategy_loss(strategy, labelled(batch, logps, torch.full_like(logps, -1)), totals(rows)).total
        made.backward()
        assert hidden.grad is not None
        return made.detach(), hidden.grad, weights

    plainly, grad, weights = loss(rows, None, False, 0)
    unused = torch.ones_like(weights, dtype=torch.bool)
    unused[:, :-1] = weights[:, 1:] == 0  # the state at t predicts token t + 1
    assert not grad[unused].any()
    for other in (loss(rows, chunk, False, more), loss(rows[::-1], chunk, False, 0), loss(rows, chunk, True, more)):
        torch.testing.assert_close(other[0], plainly, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(other[1].square().sum(), grad.square().sum(), rtol=1e-9, atol=1e-9)
