"""Rank-assisted prefilling: each try begins the answer with another of the model's own likeliest first tokens.

Whoever sees the ranks of the first token (many endpoints show twenty) need not know a harmful answer: behind the
refusal's first word stand others, and one of them may be the answer's. Try k begins with the k-th likeliest token that
is any text; the first is the greedy answer itself.

Source: Vega et al. 2023, "Bypassing the safety training of open-source LLMs with priming attacks" (arXiv 2312.12321),
for begun answers; that first tokens are searched instead is a simple form of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from redinstruct.models import Reply, Request
from redinstruct.models.transformers import LocalModel
from redinstruct.stressing.begun import AttackedModel, Beginning, BegunModel, RequestTurns, asked_of

SPARE = 5
"""So many ranks are looked at beyond those wanted: some tokens are blanks."""


class RankedModel(AttackedModel):
    """A request's seed above ``first`` says which rank its answer begins with."""

    def __init__(self, model: LocalModel, name: str, most: int, first: int) -> None:
        super().__init__(model, name)
        self._most, self._first = most, first
        self._ranks: dict[RequestTurns, list[str]] = {}

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Begin each answer by its rank's token, and go on greedily.

        Raises:
            ModelError: as the model's own.
        """
        greedy = [self._greedy(request) for request in batch]
        await self._look(greedy)
        begun: dict[int, list[int]] = {}
        for at, request in enumerate(batch):
            begun.setdefault((request.sampling.seed or 0) - self._first, []).append(at)
        replies: dict[int, Reply] = {}
        for rank, places in begun.items():
            own = [greedy[at] for at in places]
            model = BegunModel(self._model, self._name, {} if rank < 1 else self._beginnings(own, rank))
            replies |= zip(places, await model.generate(own), strict=True)
        return [replies[at] for at in range(len(batch))]

    def _greedy(self, request: Request) -> Request:
        sampling = msgspec.structs.replace(request.sampling, temperature=0.0, seed=None)
        return msgspec.structs.replace(request, sampling=sampling)

    async def _look(self, requests: Sequence[Request]) -> None:
        """Read the first token's ranks of every prompt that was not seen yet."""
        new = {asked_of(one.messages): one for one in requests if asked_of(one.messages) not in self._ranks}
        asked = [
            msgspec.structs.replace(
                one, sampling=msgspec.structs.replace(one.sampling, max_tokens=1), top_logprobs=self._most + SPARE
            )
            for one in new.values()
        ]
        replies = await self._model.generate(asked) if asked else ()
        for key, reply in zip(new, replies, strict=True):
            alternatives = reply.choices[0].alternatives if reply.choices else ()
            by_rank = sorted(alternatives, key=lambda one: -one[1])
            self._ranks[key] = list(dict.fromkeys(text.strip() for text, _ in by_rank if text.strip()))

    def _beginnings(self, requests: Sequence[Request], rank: int) -> dict[RequestTurns, Beginning]:
        found = {}
        for one in requests:
            ranks = self._ranks[asked_of(one.messages)]
            if rank < len(ranks):
                found[asked_of(one.messages)] = Beginning(ranks[rank], 1, "own")
        return found
