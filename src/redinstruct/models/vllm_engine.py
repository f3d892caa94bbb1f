"""``vllm/...``: a checkpoint answered by the vLLM of the user's own environment, without a server.

The same folder is checked, the same tokens are sent and read (``chat_tokens``) as for ``hf/``; vLLM makes the batches,
and keeps the prefixes that prompts share. Greedy texts in float32 equal those of ``hf/`` but for ties. vLLM's own
processes are children of this one. Its telemetry is off.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # standard output is the command's

from transformers import GenerationConfig
from vllm import AsyncEngineArgs, SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams
from vllm.v1.engine.async_llm import AsyncLLM

from redinstruct import checkpoints
from redinstruct.checkpoints.loading import check_folder, load_tokenizer
from redinstruct.errors import ModelSpecError
from redinstruct.models.base import ModelError, Options, Reply, Request
from redinstruct.models.chat_tokens import ChatTokens
from redinstruct.models.decoding import Decoding, Generated
from redinstruct.models.prefix_cache import Ids
from redinstruct.models.transformers import first_line, located
from redinstruct.types import FailureReason

T = TypeVar("T")


class _Loop:
    """An event loop of vLLM's own: its engine lives in one, while a run may have several, one after another."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True).start()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


class VllmModel:
    """A checkpoint behind vLLM's asynchronous engine."""

    batch_size = 1
    in_batches = True

    def __init__(self, engine: AsyncLLM, loop: _Loop, chat: ChatTokens, positions: int) -> None:
        self._engine, self._loop, self._chat, self._positions = engine, loop, chat, positions
        self._numbers = count()

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        chat_template: str = "native",
        template_options: Options | None = None,
        dtype: str | None = None,
        numbers: Mapping[str, float] | None = None,
    ) -> VllmModel:
        """Load a checkpoint folder, or a repository of the hub. ``numbers`` are settings of vLLM's own.

        Raises:
            ModelSpecError: nothing usable is there, it is refused, or vLLM cannot have it.
        """
        folder, shown = located(source)
        shown = shown.replace("hf/", "vllm/", 1)
        check_folder(folder, shown)
        try:
            defaults = GenerationConfig.from_pretrained(folder)
        except OSError:  # there is none
            defaults = GenerationConfig()
        name = f"{shown}@{checkpoints.digest(folder)[:12]}"
        chat = ChatTokens(
            load_tokenizer(folder, shown), defaults, name=name, chat_template=chat_template, options=template_options
        )
        loop = _Loop()
        try:
            engine = loop.start(_engine(folder, dtype, dict(numbers or {}))).result()
        except Exception as error:
            loop.stop()
            raise ModelSpecError(f"{shown}: vLLM cannot have it ({first_line(error)})") from None
        return cls(engine, loop, chat, int(engine.vllm_config.model_config.max_model_len))

    @property
    def id(self) -> str:
        """``vllm/<folder>@<12 hex of the files' digest>``."""
        return self._chat.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What its chat template does not take, and what it is given instead."""
        return self._chat.notes

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer each request. Raises ``ModelError``: it does not fit, or vLLM fails at it."""
        replies = []
        for request in batch:
            prompt = self._chat.prompt(request)
            decoding = self._chat.decoding(request, prompt, self._positions)
            generated = await asyncio.wrap_future(self._loop.start(self._answer(prompt, decoding, request)))
            replies.append(self._chat.reply(generated, prompt, request))
        return replies

    async def _answer(self, prompt: Ids, decoding: Decoding, request: Request) -> Generated:
        number = f"{next(self._numbers)}"
        try:
            stream = self._engine.generate(
                TokensPrompt(prompt_token_ids=list(prompt)), _sampling(decoding, request, self._chat.ends), number
            )
            async for output in stream:
                last = output.outputs[0]
        except Exception as error:
            raise ModelError(FailureReason.LOCAL_MODEL, note=first_line(error)) from None
        ids = list(last.token_ids)
        if ids and ids[-1] in self._chat.ends:  # the end is no part of what was said
            ids.pop()
        choices = [
            sorted(((token, chance.logprob) for token, chance in at.items()), key=lambda one: -one[1])
            for at in last.logprobs or ()
        ]
        return Generated(ids, "length" if last.finish_reason == "length" else "stop", choices)

    async def aclose(self) -> None:
        """End vLLM's processes. Safe to call twice."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await asyncio.wrap_future(self._loop.start(_ended(engine)))
            self._loop.stop()


async def _ended(engine: AsyncLLM) -> None:
    """Shut down, in the engine's own loop: its reader is stopped before it can find nobody there."""
    if engine.output_handler is not None:
        engine.output_handler.cancel()
        await asyncio.sleep(0)
    engine.shutdown()


async def _engine(folder: Path, dtype: str | None, numbers: Mapping[str, float]) -> AsyncLLM:
    import torch

    on_cpu = not torch.cuda.is_available()
    if dtype is None and on_cpu:
        dtype = "float32"  # as for hf/
    arguments = AsyncEngineArgs(
        model=str(folder), dtype=dtype or "auto", enable_prefix_caching=True, disable_log_stats=True,
        trust_remote_code=False, generation_config="vllm",
        use_tqdm_on_load=False, enforce_eager=on_cpu,  # compiling takes minutes there, and wins little
        **numbers,
    )  # fmt: skip
    return AsyncLLM.from_engine_args(arguments)


def _sampling(decoding: Decoding, request: Request, ends: list[int]) -> SamplingParams:
    return SamplingParams(
        max_tokens=decoding.max_tokens, temperature=decoding.temperature, top_p=decoding.top_p, top_k=decoding.top_k,
        min_p=decoding.min_p, repetition_penalty=decoding.repetition_penalty, seed=decoding.seed,
        stop=list(decoding.stop) or None, stop_token_ids=list(ends), logprobs=decoding.top_logprobs or None,
        skip_special_tokens=False, output_kind=RequestOutputKind.FINAL_ONLY,
        structured_outputs=_structure(request.response_format),
    )  # fmt: skip


def _structure(response_format: str | None) -> StructuredOutputsParams | None:
    """A judge's schema, from the field as an OpenAI-compatible endpoint has it."""
    if response_format is None:
        return None
    wanted = json.loads(response_format)
    if wanted.get("type") == "json_schema":
        return StructuredOutputsParams(json=wanted["json_schema"]["schema"])
    return StructuredOutputsParams(json_object=True)
