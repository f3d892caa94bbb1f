"""A model asked without the harness: an endpoint that fails is denied, or lost; it is never a figure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from redinstruct.errors import EndpointDenied, EndpointLost, RedInstructError
from redinstruct.models import ModelError, Reply, Request
from redinstruct.types import FailureReason, Message, Sampling
from redinstruct.utility_check.asking import Asker

REQUESTS = [Request((Message("user", f"What is item {number}?"),), Sampling(max_tokens=1)) for number in range(6)]


class Fails:
    """Answers so many requests, and then fails for that reason."""

    id = "openai-api/fake/m"
    batch_size = 1

    def __init__(self, after: int, reason: FailureReason) -> None:
        self.left, self._reason = after, reason

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        self.left -= 1
        if self.left < 0:
            raise ModelError(self._reason, note="as it said")
        return [Reply("x")]

    async def aclose(self) -> None:
        pass


@pytest.mark.parametrize(("after", "error"), [(0, EndpointDenied), (3, EndpointLost)])
@pytest.mark.parametrize("reason", [FailureReason.UNAUTHORIZED, FailureReason.QUOTA])
def test_one_failing_call_ends_the_task_with_the_endpoint_s_words(
    after: int, error: type[RedInstructError], reason: FailureReason
) -> None:
    with pytest.raises(error, match="as it said"):
        Asker(Fails(after, reason), 1).say(REQUESTS)


def test_a_fault_of_what_was_asked_is_neither() -> None:
    with pytest.raises(RedInstructError, match="bad_request: as it said") as caught:
        Asker(Fails(3, FailureReason.BAD_REQUEST), 1).say(REQUESTS)
    assert caught.value.exit_code == 1


def test_an_endpoint_without_completions_says_why_it_gives_no_probabilities() -> None:
    assert Asker(Fails(0, FailureReason.NOT_FOUND), 1).why_no_probabilities() == "not_found: as it said"
