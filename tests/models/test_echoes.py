"""The log-probabilities of a text's own tokens, as endpoints with ``/completions`` echo them."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from redinstruct.models import ModelError, Request, make_model
from redinstruct.models.echoes import tokens
from redinstruct.models.openai_api import _beside
from redinstruct.types import FailureReason, Message, Sampling
from tests.support.echoing import EchoingEndpoint, echoed, logprob, pieces
from tests.support.endpoint import Endpoint


def ask(stub: Endpoint, text: str, **fields: Any) -> Any:
    async def go() -> Any:
        model = make_model("openai-api/stub/m", environ=stub.env())
        try:
            return (await model.generate([Request((Message("user", text),), Sampling(), echo=True, **fields)]))[0]
        finally:
            await model.aclose()

    return asyncio.run(go())


def test_an_echo_holds_every_token_of_the_text_and_nothing_more() -> None:
    with EchoingEndpoint() as stub:
        found = ask(stub, "The sky is blue today.").choices
    assert [choice.token for choice in found] == pieces("The sky is blue today.")
    assert found[0].alternatives == ()
    assert [choice.alternatives[0] for choice in found[1:]] == [(p, logprob(p)) for p in pieces(" sky is blue today.")]
    assert all((" the", -0.5) in choice.alternatives for choice in found[1:])


def test_an_endpoint_without_it_is_told_apart() -> None:
    with EchoingEndpoint() as stub:
        stub.broken = True
        assert ask(stub, "The sky is blue.").choices == ()


def test_the_address_lies_beside_the_chat() -> None:
    chat = URL("https://host/openai/v1/chat/completions?api-version=1")
    assert str(_beside(chat)) == "https://host/openai/v1/completions?api-version=1"


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(["tokens", "text_offset", "token_logprobs", "top_logprobs"]),
        st.one_of(
            st.none(), st.integers(), st.lists(st.one_of(st.none(), st.floats(), st.text(max_size=3)), max_size=4)
        ),
    ),
    st.text(min_size=1, max_size=8),
)
def test_no_shape_makes_the_reader_fail(changes: dict[str, Any], text: str) -> None:
    given_logprobs = copy.deepcopy(echoed("a b c")["choices"][0]["logprobs"]) | changes
    found = tokens(given_logprobs, text)
    assert "".join(choice.token for choice in found) in ("", text)
    assert tokens(changes or None, text) == () or set(changes) >= {"text_offset", "token_logprobs"}


def chances(named: list[str], offsets: list[int] | None = None) -> dict[str, Any]:
    """What an endpoint says of these tokens: the n-th has the log-probability -n, the first has none."""
    where = [sum(map(len, named[:number])) for number in range(len(named))] if offsets is None else offsets
    own = [None, *(-float(number) for number in range(1, len(named)))]
    return {"tokens": named, "token_logprobs": own, "top_logprobs": [None] * len(named), "text_offset": where}


def read(logprobs: dict[str, Any], text: str) -> list[tuple[str, float | None]]:
    found = tokens(logprobs, text)
    return [(one.token, one.alternatives[0][1] if one.alternatives else None) for one in found]


@pytest.mark.parametrize("mark", ["<|begin_of_text|>", "<s>", "<bos>"])
def test_the_mark_that_begins_a_text_moves_no_token(mark: str) -> None:
    # vLLM: offsets are sums of the lengths of all that it calls a token.
    assert read(chances([mark, "The", " sky", " more"]), "The sky") == [("The", -1.0), (" sky", -2.0)]


def test_offsets_that_nobody_counted_are_not_needed() -> None:
    # SGLang says -1 for each.
    assert read(chances(["The", " sky", " more"], [-1, -1, -1]), "The sky") == [("The", None), (" sky", -1.0)]


@pytest.mark.parametrize(
    "halves", [["\ufffd", "\ufffd", "\ufffd"], ["", "", "\U0001f600"], ["", "\ufffd", "\ufffd"], ["\ufffd", "", ""]]
)
@pytest.mark.parametrize("rest", [[], [" sky"], ["s"]])
def test_a_character_of_several_tokens_is_the_first_ones(halves: list[str], rest: list[str]) -> None:
    text = "A \U0001f600" + "".join(rest)
    found = read(chances(["A", " ", *halves, *rest, " more"]), text)
    assert found[:5] == [("A", None), (" ", -1.0), ("\U0001f600", -2.0), ("", -3.0), ("", -4.0)]
    assert [piece for piece, _ in found[5:]] == rest


@pytest.mark.parametrize(
    "named", [["The", "sky", "is"], [" The", " sky", " is"], ["The", " sky", " is"], [" ", "The", "sky", " is"]]
)
def test_a_blank_that_decoding_lost_or_added_moves_no_token(named: list[str]) -> None:
    """vLLM decodes each token by itself: SentencePiece's blanks are lost, or put back in front of the first one too."""
    found = read(chances(["<s>", *named, "blue"]), "The sky is")
    assert [piece for piece, _ in found if piece] == ["The", " sky", " is"]
    assert [chance for _, chance in found] == [-float(number) for number in range(1, len(named) + 1)]


def test_tokens_of_another_text_are_none() -> None:
    assert read(chances(["Another", " text", " more"]), "The sky") == []
    assert read(chances(["token_id:17", "token_id:4"]), "The sky") == []


def test_tokens_that_are_bytes_are_placed_by_their_offsets() -> None:
    given = chances(["bytes:\\xe2\\x80", "bytes:\\x94", " sky", " more"], [0, 0, 1, 5])
    assert [piece for piece, _ in read(given, "\u2014 sky")] == ["", "\u2014", " sky"]


def test_a_failed_echo_has_its_reason() -> None:
    with Endpoint(always="shape") as stub:
        stub.answer = lambda head, raw: b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n"  # type: ignore[method-assign]
        with pytest.raises(ModelError) as raised:
            ask(stub, "The sky is blue.")
    assert raised.value.reason is FailureReason.NOT_FOUND
