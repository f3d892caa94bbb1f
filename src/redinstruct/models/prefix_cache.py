"""The keys and values of a prompt's unchanging beginning, computed once and spread over every batch (design 6).

Nearly three quarters of a Chain-of-Utterances prompt precede the question. Their attention keys and values do not
depend on what follows, so they are computed for one row, kept, and copied into each batch's cache. The caches are
transformers' own classes; the layer below differs from ``DynamicLayer`` in one thing: it has room to grow, so that a
new token does not copy all that came before.

Not promised: bit-equal logits. The same sums are added in another order, so that answers may part where the two best
logits lie within about 1e-4.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from redinstruct.models.cascade import BEFORE, cascading

Ids = tuple[int, ...]

MIN_SHARED = 8
"""Fewer common tokens than this are not worth a forward pass of their own."""
KEPT = 4
"""Prefixes kept per model: a run has one per prompt template."""
_ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc, no-untyped-call, unused-ignore]
    """A ``DynamicLayer`` whose keys and values, each [batch, heads, length, width], are views of larger buffers."""

    def __init__(self, room: int = _ROOM) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]
        self.room = room
        self._buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        *args: object,  # noqa: ARG002 - DynamicLayer's signature
        **kwargs: object,  # noqa: ARG002
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new positions in place; returns all keys and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        needed = held + key_states.shape[-2]
        if self._buffers is None or needed > self._buffers[0].shape[-2]:
            self._buffers = (
                self._grown(key_states, self.keys, held, needed),
                self._grown(value_states, self.values, held, needed),
            )
        keys, values = self._buffers
        keys[..., held:needed, :] = key_states
        values[..., held:needed, :] = value_states
        self.keys, self.values = keys[..., :needed, :], values[..., :needed, :]
        return self.keys, self.values

    def _grown(self, like: torch.Tensor, old: torch.Tensor | None, held: int, needed: int) -> torch.Tensor:
        batch, heads, _, width = like.shape
        buffer = like.new_empty((batch, heads, needed + max(self.room, needed // 8), width))
        if held and old is not None:
            # A prefix of one row is spread over the batch by this very copy.
            buffer[..., :held, :] = old
        return buffer

    def start_from(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Begin with these keys and values, each [1, heads, length, width]; the first update spreads them."""
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def held(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values so far."""
        if self.keys is None or self.values is None:
            raise ValueError("the layer holds nothing yet")
        return self.keys, self.values

    def take_over(self, parts: Sequence[RoomyLayer]) -> None:
        """Hold the rows of these layers, of equal length, one after the other; the layers are emptied."""
        first, *_ = keys = [part.held()[0] for part in parts]
        self.lazy_initialization(first, first)
        held, rows = first.shape[-2], sum(map(len, keys))
        made = []
        for name in ("keys", "values"):
            buffer = self._grown(first[:1].expand(rows, -1, -1, -1), None, 0, held)
            torch.cat([getattr(part, name) for part in parts], out=buffer[..., :held, :])
            made.append(buffer)
            for part in parts:
                setattr(part, name, None)
        self._buffers = (made[0], made[1])
        self.keys, self.values = (buffer[..., :held, :] for buffer in made)
        for part in parts:
            part._buffers = None

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows of the batch; the buffers are made anew on the next update."""
        super().batch_select_indices(indices)
        self._buffers = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row; the buffers are made anew on the next update."""
        super().batch_repeat_interleave(repeats)
        self._buffers = None


class CascadeLayer(RoomyLayer):
    """The keys and values of a batch's rows after a prefix, which stays one row and is not among them."""

    def __init__(self, room: int = _ROOM) -> None:
        super().__init__(room)
        self.before: tuple[torch.Tensor, torch.Tensor] | None = None

    def start_from(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Stand after these keys and values, each [1, heads, length, width]."""
        self.before = (keys, values)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the new positions; returns the rows' own, which know what stands before them."""
        if self.before is None:
            return super().update(key_states, value_states, *args, **kwargs)
        before, self.before = self.before, None  # its length counts only rows' own here
        try:
            keys, values = super().update(key_states, value_states, *args, **kwargs)
        finally:
            self.before = before
        setattr(keys, BEFORE, before)
        return keys, values

    def get_seq_length(self) -> int:
        """Positions, the prefix's included."""
        own: int = super().get_seq_length()
        return own + (self.before[0].shape[-2] if self.before is not None else 0)


def common_prefix(rows: Sequence[Ids]) -> int:
    """How many leading tokens all the rows have in common."""
    # The least and the greatest row of a sorted list differ no later than any other two.
    first, last = min(rows), max(rows)
    for at, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return at
    return min(len(first), len(last))


class CausalModel:
    """A causal model of transformers, called the same way whatever its version names the cache argument."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.config = model.config.get_text_config(decoder=True)
        parameters = inspect.signature(model.forward).parameters
        self.positions = int(getattr(self.config, "max_position_embeddings", None) or 2**31)
        embeddings: Any = model.get_input_embeddings()
        self.tokens = int(embeddings.weight.shape[0])
        self._cache_name = "cache" if "cache" in parameters else "past_key_values"
        self._takes = frozenset(parameters)
        self._attention = self.config._attn_implementation
        self.takes_cache = self._cache_name in self._takes
        layers = DynamicCache(config=model.config).layers
        # Sliding windows and recurrent states count positions in ways that a prefix of one row cannot be spread into.
        self.can_share = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        self._layer: type[RoomyLayer] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return torch.device(self.model.device)

    def new_cache(self, room: int = _ROOM, layer: type[RoomyLayer] | None = None) -> DynamicCache:
        """An empty cache of the kind that this model needs."""
        cache = DynamicCache(config=self.model.config)
        if self.can_share:
            cache.layers = [(layer or RoomyLayer)(room) for _ in cache.layers]
        return cache

    @torch.inference_mode()
    def sharing(self) -> type[RoomyLayer] | None:
        """How this very model shares a prefix: attended to once a batch, spread over it, or (None) not at all.

        Proved once, on rows of unlike length after a common beginning: the logits of a first and of a second step must
        be those of each row read alone. Position biases that count padding, say, fail here.
        """
        if self.can_share and self._layer is None:
            ways = (CascadeLayer, RoomyLayer) if self.device.type == "cpu" else (RoomyLayer,)
            self._layer = next((way for way in ways if self._proved(way)), None)
            self.can_share = self._layer is not None
        return self._layer

    def _proved(self, layer: type[RoomyLayer]) -> bool:
        numbers = random.Random(2308)
        prefix, *rows = (
            [numbers.randrange(self.config.vocab_size) for _ in range(length)] for length in (2 * MIN_SHARED, 5, 2)
        )
        try:
            with cascading(self.config) if layer is CascadeLayer else contextlib.nullcontext():
                found = self._shared_logits(layer, prefix, rows)
        except Exception:  # whatever an attention of another kind does with such keys
            return False
        alone = []
        for row in rows:
            ids = torch.tensor([[*prefix, *row]], device=self.device)
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
            cache = self.new_cache()
            both = [self.logits(ids, None, positions, cache)]
            both.append(self.logits(ids[:, -1:], None, positions[:, -1:] + 1, cache))
            alone.append(torch.cat(both))
        expected = torch.stack(alone)
        wide = expected.dtype == torch.float32 and self.model.dtype == torch.float32
        allowed = (1e-4 if wide else 0.05) * float(expected.abs().max().clamp(min=1.0))
        return bool((found - expected).abs().max() <= allowed)

    def _shared_logits(
        self, layer: type[RoomyLayer], prefix: Sequence[int], rows: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Logits [rows, 2, vocabulary] after each row, and after its last token once more."""
        one = self.new_cache()
        ids = torch.tensor([prefix], device=self.device)
        with self._own_attention():
            self.logits(ids, None, torch.arange(len(prefix), device=ids.device)[None], one)
        cache = self.new_cache(layer=layer)
        for to, made in zip(roomy(cache), roomy(one), strict=True):
            to.start_from(*made.held())
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=self.device)
        own = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        mask = torch.cat([own.new_ones((len(rows), len(prefix))), own], dim=1)
        positions = (mask.cumsum(dim=1) - 1)[:, len(prefix) :]
        first = self.logits(ids, mask, positions, cache)
        mask = torch.cat([mask, mask.new_ones((len(rows), 1))], dim=1)
        second = self.logits(ids[:, -1:], mask, positions[:, -1:] + 1, cache)
        return torch.stack([first, second], dim=1)

    def attending(self, cache: DynamicCache) -> contextlib.AbstractContextManager[None]:
        """Attend as this cache needs it."""
        cascade = any(layer.before is not None for layer in cache.layers if isinstance(layer, CascadeLayer))
        return cascading(self.config) if cascade else contextlib.nullcontext()

    @contextlib.contextmanager
    def _own_attention(self) -> Iterator[None]:
        """The model's own attention, within :func:`cascading` too."""
        now = self.config._attn_implementation
        self.config._attn_implementation = self._attention
        try:
            yield
        finally:
            self.config._attn_implementation = now

    def logits(
        self, ids: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        """Logits [batch, vocabulary] of each row's last position, in fp32; ``cache`` grows by ``ids`` [batch, length].

        ``mask`` [batch, cached + length] marks real tokens; None when all are.
        """
        arguments: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "use_cache": True}
        arguments[self._cache_name] = cache
        if "position_ids" in self._takes:
            arguments["position_ids"] = positions
        if "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = 1
        logits: torch.Tensor = self.model(**arguments).logits[:, -1]
        return logits.float()


class PrefixCache:
    """The prefixes of one model, the most recently used ones kept."""

    def __init__(self, model: CausalModel, kept: int = KEPT) -> None:
        self._model = model
        self._kept = kept
        self._layers: OrderedDict[Ids, list[tuple[torch.Tensor, torch.Tensor]]] = OrderedDict()

    def clear(self) -> None:
        """Forget everything: when memory runs out."""
        self._layers.clear()

    def shared(self, rows: Sequence[Ids], hint: Ids = ()) -> Ids:
        """The prefix to share between these prompts: the hinted one as far as it holds, else what they have in common.

        Empty when there is nothing worth sharing. At least one token of each row stays outside it.
        """
        if not self._model.sharing():
            return ()
        limit = min(len(row) for row in rows) - 1
        length = min(common_prefix([*rows, hint] if hint else rows), limit)
        for ids in self._layers:
            # A little shorter but already there is better than a little longer and new.
            if 0.9 * length <= len(ids) <= limit and all(row[: len(ids)] == ids for row in rows):
                return ids
        if length < MIN_SHARED or (len(rows) == 1 and not hint):
            return ()
        return tuple(rows[0][:length])

    def cache(self, prefix: Ids, room: int) -> DynamicCache:
        """A cache that begins with the prefix (computed now if it is not kept), with room for ``room`` tokens more."""
        if not prefix:
            return self._model.new_cache(room)
        cache = self._model.new_cache(room, self._model.sharing())
        if prefix not in self._layers:
            self._layers[prefix] = self._computed(prefix)
            while len(self._layers) > self._kept:
                self._layers.popitem(last=False)
        self._layers.move_to_end(prefix)
        for layer, (keys, values) in zip(roomy(cache), self._layers[prefix], strict=True):
            layer.start_from(keys, values)
        return cache

    def _computed(self, prefix: Ids) -> list[tuple[torch.Tensor, torch.Tensor]]:
        ids = torch.tensor([prefix], device=self._model.device)
        cache = self._model.new_cache(room=0)
        self._model.logits(ids, None, torch.arange(len(prefix), device=ids.device)[None], cache)
        return [(keys.clone(), values.clone()) for keys, values in (layer.held() for layer in roomy(cache))]


def roomy(cache: DynamicCache) -> list[RoomyLayer]:
    """The layers of a cache that can share; every one of them is roomy (``CausalModel.new_cache``)."""
    return [layer for layer in cache.layers if isinstance(layer, RoomyLayer)]
