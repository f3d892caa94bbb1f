"""A model that answers elsewhere as the harness wants it: an endpoint, or a checkpoint that workers hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from lm_eval.api.model import LM

from redinstruct.models import Request
from redinstruct.types import Message, Sampling
from redinstruct.utility_check.asking import Asker

MAX_TOKENS = 256
"""Of a generated answer, where the task says nothing: the harness's own default."""
MOST_STOPS = 4
"""As many as every endpoint takes; at the others the answer is cut here."""
AS_CHAT = "the endpoint has no /completions: asked as chat messages, under its own template"


class RemoteLM(LM):  # type: ignore[misc]
    """The harness's interface over a model of this project."""

    def __init__(self, asker: Asker) -> None:
        super().__init__()
        self._asker = asker
        self.tally = asker.tally

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """``(log-probability, whether it is the greedy answer)`` of each (context, continuation)."""
        return self._asker.echoed([(str(request.args[0]), str(request.args[1])) for request in requests])

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-probability of each whole text, its first token left out."""
        return [found for found, _ in self._asker.echoed([("", str(request.args[0])) for request in requests])]

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each context, cut at the first stop.

        Contexts are plain text, and go to ``/completions``. Where an endpoint has none they are asked as a user's
        message, under its own template, and the card says so.
        """
        asked, stops = [], []
        for request in requests:
            context, settings = request.args
            until = settings.get("until") or []
            stops.append([until] if isinstance(until, str) else list(until))
            sampled = float(settings.get("temperature") or 0.0) if settings.get("do_sample") else 0.0
            limit = int(settings.get("max_gen_toks") or settings.get("max_tokens") or MAX_TOKENS)
            sent = tuple(stop for stop in stops[-1] if stop)[:MOST_STOPS]
            sampling = Sampling(max_tokens=limit, temperature=sampled, stop=sent)
            asked.append(Request((Message("user", str(context)),), sampling, plain=True))
        if asked and not self._asker.computes and not self._asker.takes(asked[0]):
            self.tally.notes = (AS_CHAT,)
            asked = [msgspec.structs.replace(request, plain=False) for request in asked]
        replies = self._asker.say(asked)
        return [_cut(reply.answer, stop) for reply, stop in zip(replies, stops, strict=True)]


def _cut(text: str, stops: Sequence[str]) -> str:
    cuts = [at for stop in stops if stop and (at := text.find(stop)) >= 0]
    return text[: min(cuts)] if cuts else text
