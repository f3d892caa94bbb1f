"""Batched generation for a local causal model: greedy or sampled, with a shared prefix, stopping as early as it can.

An own loop rather than ``generate``: every prompt of a batch has its own seed, length limit and stop strings; finished
rows leave the batch; and on small models most of ``generate`` is overhead per token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from transformers import DynamicCache

from redinstruct.models.prefix_cache import CausalModel, Ids, PrefixCache, roomy

StopReason = Literal["stop", "length"]
_LIKELIEST = 256
"""Tokens of a vocabulary that are put in order to draw from, where no more are needed."""
_AT_ONCE = 2048
"""Tokens of prompts that a CPU reads at once: more gain nothing, and what lies between two layers leaves its caches."""
Alternatives = list[tuple[int, float]]
"""(token id, log-probability), the best first."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How one answer is decoded. ``temperature`` 0 is greedy; ``top_k`` 0 and ``top_p`` 1 keep every token.

    ``top_logprobs`` above 0 keeps that many alternatives of each token, by the model's own logits.
    """

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0


@dataclass(slots=True)
class _Row:
    """One prompt on its way: what has been generated, and why it ended."""

    prompt: Ids
    decoding: Decoding
    generator: torch.Generator | None
    made: list[int] = field(default_factory=list)
    finish: StopReason | None = None
    choices: list[Alternatives] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Generated:
    """The new token ids, without the end token, and why they end.

    ``choices`` holds, for each of them, the best alternatives with their log-probabilities, where they were asked for.
    """

    ids: list[int]
    finish: StopReason
    choices: list[Alternatives] = field(default_factory=list)


class Generator:
    """Generates for batches of token ids. ``decode`` turns ids into text; only stop strings need it."""

    def __init__(
        self,
        model: CausalModel,
        end_ids: Sequence[int],
        pad_id: int,
        decode: Callable[[list[int]], str],
        *,
        share_prefix: bool = True,
        at_once: int = _AT_ONCE,
    ) -> None:
        self.model = model
        self._at_once = at_once if model.device.type == "cpu" else 0
        self.prefixes = PrefixCache(model) if share_prefix else None
        self._end_ids = frozenset(end_ids)
        self.pad_id = pad_id
        self._decode = decode

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Ids], decodings: Sequence[Decoding], hint: Ids = ()) -> list[Generated]:
        """Answer every prompt, in order. ``hint`` is a prefix that these and later prompts are known to share."""
        rows = [_Row(prompt, how, _generator(how)) for prompt, how in zip(prompts, decodings, strict=True)]
        prefix = self.prefixes.shared(prompts, hint) if self.prefixes else ()
        room = max(len(prompt) for prompt in prompts) - len(prefix) + min(64, max(how.max_tokens for how in decodings))
        cache = self.prefixes.cache(prefix, room) if self.prefixes else self.model.new_cache(room)
        with self.model.attending(cache):
            self._to_the_end(rows, prefix, cache)
        return [Generated(row.made, row.finish or "length", row.choices[: len(row.made)]) for row in rows]

    def _to_the_end(self, rows: list[_Row], prefix: Ids, cache: DynamicCache) -> None:
        """Add tokens to every row until each is done."""
        ids, mask = self._padded([row.prompt[len(prefix) :] for row in rows], len(prefix))
        positions = _positions(ids, mask, len(prefix))
        active = rows
        while True:
            logits = self._logits(ids, mask, positions, cache, prefix)
            _note_alternatives(logits, active)
            tokens = _chosen(logits, active)
            for row, token in zip(active, tokens, strict=True):
                self._take(row, token)
            keep = [at for at, row in enumerate(active) if row.finish is None]
            if not keep:
                break
            ids = torch.tensor(tokens, device=ids.device)[:, None]
            positions = positions[:, -1:] + 1
            # Each time a quarter is done, the batch shrinks; a finished row costs as much as any other until then.
            if len(keep) <= 0.75 * len(active):
                chosen = torch.tensor(keep, device=ids.device)
                cache.batch_select_indices(chosen)
                active = [active[at] for at in keep]
                ids, positions = ids[chosen], positions[chosen]
                mask = mask[chosen] if mask is not None else None
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones((len(active), 1))], dim=1)

    def _logits(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: DynamicCache, prefix: Ids
    ) -> torch.Tensor:
        """Logits [batch, vocabulary] of the last position; prompts of a large batch are read a few rows at a time."""
        whole, rows = roomy(cache), max(1, self._at_once // ids.shape[1])
        if not self._at_once or ids.shape[1] == 1 or rows >= len(ids) or len(whole) != len(cache.layers):
            return self.model.logits(ids, mask, positions, cache)
        found, parts = [], []
        for at in range(0, len(ids), rows):
            part = slice(at, at + rows)
            own = self.prefixes.cache(prefix, 0) if self.prefixes else self.model.new_cache(0)
            found.append(self.model.logits(ids[part], mask[part] if mask is not None else None, positions[part], own))
            parts.append(roomy(own))
        for layer, made in zip(whole, zip(*parts, strict=True), strict=True):
            layer.take_over(made)
        return torch.cat(found)

    def _padded(self, rests: Sequence[Ids], shared: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids [batch, longest] with padding on the left, and the mask [batch, shared + longest] if there is padding."""
        longest = max(map(len, rests))
        ids = torch.tensor(
            [[self.pad_id] * (longest - len(rest)) + list(rest) for rest in rests], device=self.model.device
        )
        if all(len(rest) == longest for rest in rests):
            return ids, None
        mask = torch.ones((len(rests), shared + longest), dtype=torch.long, device=ids.device)
        for at, rest in enumerate(rests):
            mask[at, shared : shared + longest - len(rest)] = 0
        return ids, mask

    def _take(self, row: _Row, token: int) -> None:
        """Add a token to an unfinished row, and see whether it is done."""
        if row.finish is not None:
            return
        if token in self._end_ids:
            row.finish = "stop"
            return
        row.made.append(token)
        if row.decoding.stop:
            # A stop string of n bytes spans at most n tokens; a few more for what the decoder joins.
            tail = self._decode(row.made[-max(len(stop.encode()) for stop in row.decoding.stop) - 4 :])
            if any(stop in tail for stop in row.decoding.stop):
                row.finish = "stop"
                return
        if len(row.made) >= row.decoding.max_tokens:
            row.finish = "length"


def _positions(ids: torch.Tensor, mask: torch.Tensor | None, shared: int) -> torch.Tensor:
    """Positions [batch, length] of ``ids``, counting real tokens only, after ``shared`` cached ones."""
    if mask is None:
        return torch.arange(shared, shared + ids.shape[1], device=ids.device).expand(ids.shape)
    return (mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]


def _generator(how: Decoding) -> torch.Generator | None:
    """A row's own stream of random numbers, so that its answer does not depend on its neighbours."""
    if how.temperature == 0:
        return None
    generator = torch.Generator()
    if how.seed is None:
        generator.seed()
    else:
        generator.manual_seed(how.seed)
    return generator


def _chosen(logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
    """The next token of each row, from logits [batch, vocabulary]."""
    for at, row in enumerate(rows):
        if row.decoding.repetition_penalty != 1.0:
            _penalise(logits[at], row)
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    sampled = [at for at, row in enumerate(rows) if row.generator is not None and row.finish is None]
    if sampled:
        picked = _sampled(logits[sampled], [rows[at] for at in sampled])
        for at, token in zip(sampled, picked, strict=True):
            tokens[at] = token
    return tokens


def _note_alternatives(logits: torch.Tensor, rows: Sequence[_Row]) -> None:
    """Keep the best alternatives of the token that is about to be chosen, for the rows that asked for them."""
    for at, row in enumerate(rows):
        if row.decoding.top_logprobs and row.finish is None:
            best = logits[at].log_softmax(dim=-1).topk(min(row.decoding.top_logprobs, logits.shape[-1]))
            row.choices.append(list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))


def _penalise(logits: torch.Tensor, row: _Row) -> None:
    """Make tokens that already stand in prompt or answer less likely (Keskar et al. 2019, arXiv 1909.05858)."""
    seen = torch.tensor(sorted({*row.prompt, *row.made}), device=logits.device)
    scores, penalty = logits[seen], row.decoding.repetition_penalty
    logits[seen] = torch.where(scores < 0, scores * penalty, scores / penalty)


def _sampled(logits: torch.Tensor, rows: Sequence[_Row]) -> list[int]:
    """Draw one token a row: temperature, then top-k, top-p and min-p, then the inverse of the cumulated probabilities.

    Nearly always the token is among the likeliest few, and those alone are put in order; which they are is known from
    the sum over all. Rows for which that is not enough are sorted whole, and get the same token as if all had been.
    """
    heat = torch.tensor([row.decoding.temperature for row in rows], device=logits.device)[:, None]
    draws = torch.cat([torch.rand(1, generator=row.generator) for row in rows]).to(logits.device)[:, None]
    scores = logits / heat
    tokens, known = _drawn(scores, [row.decoding for row in rows], draws, min(_LIKELIEST, logits.shape[-1]))
    left = [at for at, found in enumerate(known) if not found]
    if left:
        few = [rows[at].decoding for at in left]
        for at, token in zip(left, _drawn(scores[left], few, draws[left], logits.shape[-1])[0], strict=True):
            tokens[at] = token
    return tokens


def _drawn(
    scores: torch.Tensor, how: Sequence[Decoding], draws: torch.Tensor, width: int
) -> tuple[list[int], list[bool]]:
    """Each row's token by its ``width`` likeliest, and whether more of them would give the same."""
    device, size = scores.device, scores.shape[-1]
    top_k = torch.tensor([one.top_k or size for one in how], device=device)[:, None]
    top_p = torch.tensor([one.top_p for one in how], device=device)[:, None]
    min_p = torch.tensor([one.min_p for one in how], device=device)[:, None]
    if width == size:
        ordered, order = torch.sort(scores, dim=-1, descending=True, stable=True)
    else:
        ordered, order = torch.topk(scores, width, dim=-1)
    among = torch.arange(width, device=device)[None] < top_k
    ordered = ordered.masked_fill(~among, float("-inf"))
    # Where top-k is narrower than what is looked at, the probabilities are those among it.
    whole = torch.where(
        (top_k <= width) & (top_k < size), ordered.logsumexp(-1, keepdim=True), scores.logsumexp(-1, keepdim=True)
    )
    chances = (ordered - whole).exp()
    # A token stays while the ones before it do not yet reach top_p: the first always stays.
    kept = (chances.cumsum(dim=-1) - chances < top_p) & (chances >= min_p * chances[:, :1]) & among
    sums = (chances * kept).cumsum(dim=-1)
    closed = (~kept[:, -1:] & (top_k >= size)) | (top_k <= width) | (width == size)
    free = (top_k >= size) & (top_p >= 1) & (min_p == 0)
    target = draws * torch.where(closed & ~free, sums[:, -1:], torch.ones_like(draws))
    at = (sums <= target).sum(dim=-1, keepdim=True)
    known = closed | (free & (at < width))
    tokens: list[int] = order.gather(1, at.clamp(max=width - 1))[:, 0].tolist()
    return tokens, known[:, 0].tolist()
