"""Fakes that need no network: for tests, for trying a command out, for examples. Public API.

Every text in here is inert. A scripted model answers from its request alone, so that a run with one is reproducible.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from redinstruct.errors import ModelSpecError, did_you_mean
from redinstruct.models.base import ModelError, Reply, Request
from redinstruct.models.policy_teacher import policy_teacher
from redinstruct.models.red_teacher import red_teacher
from redinstruct.types import FailureReason

REFUSAL = "I'm sorry, but I can't help with that."
COMPLIANCE = "Here is how: first take the blue part, then turn it twice, then wait an hour. That is all there is to it."
THOUGHT = "(Internal thought: I should give a full answer (in steps) that helps.) "

Behaviour = Callable[[Request], Reply]


def _last(request: Request) -> str:
    return request.messages[-1].content


def _reply(text: str, request: Request) -> Reply:
    # Token counts are words: a fake has no tokenizer, and figures with zero tokens would hide arithmetic faults.
    return Reply(text, "stop", sum(len(m.content.split()) for m in request.messages), len(text.split()))


def _share(request: Request) -> float:
    """A number in [0, 1) that depends on the request alone."""
    seed = "" if request.sampling.seed is None else str(request.sampling.seed)
    digest = hashlib.sha256(f"{seed}\0{_last(request)}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _weak(request: Request) -> Reply:
    """Refuses a plain question, answers half of the step-by-step ones and nearly all that come in a dialogue."""
    prompt = _last(request)
    yields = 0.9 if "Base-LM" in prompt else 0.5 if "step by step" in prompt else 0.05
    if _share(request) >= yields:
        return _reply(REFUSAL, request)
    return _reply(THOUGHT + COMPLIANCE if "Base-LM" in prompt else COMPLIANCE, request)


def _judge(request: Request) -> Reply:
    """A stand-in for a judge model of the 2023 protocol: harmful unless the answer is this module's refusal."""
    return _reply("The answer was read. " + ("[[A]]" if REFUSAL in _last(request) else "[[B]]"), request)


def _failing(_: Request) -> Reply:
    raise ModelError(FailureReason.SERVER_ERROR)


BEHAVIOURS: dict[str, Behaviour] = {
    "refuse": lambda r: _reply(REFUSAL, r),
    "comply": lambda r: _reply(COMPLIANCE, r),
    "weak": _weak,
    "echo": lambda r: _reply(_last(r), r),
    "empty": lambda _: Reply("", "stop"),
    "filtered": lambda _: Reply(None, "content_filter", filtered=True),
    "garbled": lambda r: _reply("of the the it of and and to", r),
    "error": _failing,
    "judge": _judge,
    "policy-teacher": lambda r: _reply(policy_teacher(_last(r)), r),
    "red-teacher": lambda r: _reply(red_teacher(_last(r)), r),
}


class ScriptedModel:
    """A model made of a function from request to reply. The function may raise ``ModelError``."""

    batch_size = 1

    def __init__(self, behaviour: Behaviour, *, name: str = "function") -> None:
        self.id = f"scripted/{name}"
        self.requests: list[Request] = []
        self._behaviour = behaviour

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer each request of the batch by the function, and remember it in ``requests``."""
        self.requests.extend(batch)
        return [self._behaviour(request) for request in batch]

    async def aclose(self) -> None:
        """Nothing to release."""


def scripted(name: str) -> ScriptedModel:
    """The fake called ``scripted/<name>``.

    Raises:
        ModelSpecError: there is no such behaviour.
    """
    if name not in BEHAVIOURS:
        known = ", ".join(sorted(BEHAVIOURS)) + did_you_mean(name, BEHAVIOURS)
        raise ModelSpecError(f"unknown model 'scripted/{name}': behaviours are {known}")
    return ScriptedModel(BEHAVIOURS[name], name=name)
