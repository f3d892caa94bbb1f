"""A local checkpoint as the harness wants it, loaded by this project's rules (safetensors, no code of its own)."""

from __future__ import annotations

from typing import Any

import torch
from lm_eval.models.huggingface import HFLM

from redinstruct.models.transformers import LocalModel
from redinstruct.progress import Progress
from redinstruct.utility_check.asking import TaskTally

CPU_BATCH, DEVICE_BATCH = 16, 64


class LocalLM(HFLM):  # type: ignore[misc]
    """The harness's own class around a loaded model; it counts what was done, and what had to be cut."""

    def __init__(self, local: LocalModel, batch_size: int | None = None) -> None:
        model, tokenizer = local.checkpoint
        default = CPU_BATCH if model.device.type == "cpu" else DEVICE_BATCH
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size or default)
        torch.set_num_threads(local.threads)
        self.tally = TaskTally()
        self._rows_done = self._rows = 0

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """As the harness's own."""
        self._rows_done, self._rows = 0, len(requests)
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None) -> Any:
        self.tally.seen += len(requests)
        self.tally.cut += sum(len(context) + len(wanted) > self.max_length + 1 for _, context, wanted in requests)
        return super()._loglikelihood_tokens(requests, disable_tqdm=disable_tqdm, override_bs=override_bs)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = True) -> Any:
        """As the harness's own."""
        self._rows_done, self._rows = 0, len(requests)
        self.tally.seen += len(requests)
        for request in requests:
            room = self.max_length - int(request.args[1].get("max_gen_toks", self.max_gen_toks))
            self.tally.cut += len(self.tok_encode(request.args[0])) > room
        return super().generate_until(requests, disable_tqdm=disable_tqdm)

    def _model_call(self, inps: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        logits = super()._model_call(inps, *args, **kwargs)
        self._count(len(inps))
        return logits

    def _model_generate(self, context: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        made = super()._model_generate(context, *args, **kwargs)
        self._count(len(context))
        return made

    def _count(self, rows: int) -> None:
        # One forward pass serves all one-token answers of a question, so that fewer rows than requests may be done.
        self._rows_done += rows
        self.tally.on_progress(Progress(min(self._rows_done, self._rows), self._rows))
