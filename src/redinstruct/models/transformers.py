"""``hf/...``: any causal checkpoint of transformers, from a folder or from the hub, behind the one model interface.

Promised: no code of the checkpoint is run (``checkpoints``), weights are safetensors; a batch's answers come in its
order; greedy answers equal those of transformers' ``generate``, token for token (or part where the two best logits lie
within 1e-4); a sampled answer depends on its own seed and not on its neighbours. Out of memory halves the batch.
Not here: where batches come from, retries, budgets (the engine's).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from redinstruct import checkpoints
from redinstruct.banks.known import behind_a_form, hub_address
from redinstruct.checkpoints.embedded import folder_of
from redinstruct.checkpoints.loading import check_folder, load_causal, load_tokenizer
from redinstruct.checkpoints.products import packed
from redinstruct.errors import ModelSpecError
from redinstruct.models.base import ModelError, Options, Reply, Request
from redinstruct.models.chat_tokens import ChatTokens
from redinstruct.models.decoding import Generator
from redinstruct.models.likelihood import log_likelihoods
from redinstruct.models.memory import is_out_of_memory
from redinstruct.models.prefix_cache import CausalModel, Ids
from redinstruct.types import FailureReason, Message

DEFAULT_BATCH = 32
"""On a CPU 32 prompts at once are faster than 100."""
DEVICE_BATCH = 64
T = TypeVar("T")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
SMALL = 50_000_000
"""Parameters below which more threads cost more than they bring: two on loaded cores were up to nine times slower."""


class LocalModel:
    """A causal language model in this process; it answers in one thread of its own."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        name: str,
        chat_template: str = "native",
        batch_size: int | None = None,
        threads: int | None = None,
        template_options: Options | None = None,
    ) -> None:
        """Wrap a loaded model. ``name`` is the id that outputs show; ``template_options`` go to its chat template.

        ``batch_size`` None is 32 on a CPU and 64 elsewhere, ``threads`` None one for a small model and torch's own
        choice for others.

        Raises:
            ModelSpecError: ``native`` is asked of a tokenizer that has no chat template.
        """
        self._chat = ChatTokens(
            tokenizer, model.generation_config, name=name, chat_template=chat_template, options=template_options
        )
        self._batch_size = batch_size or (DEFAULT_BATCH if model.device.type == "cpu" else DEVICE_BATCH)
        self._fits = self._batch_size
        self._causal = CausalModel(model)
        if not self._causal.takes_cache:
            raise ModelSpecError(f"{name}: its architecture has no attention cache, which batched generation needs")
        chat = self._chat
        pad = chat.pad if chat.pad < self._causal.tokens else 0
        self._generator = Generator(self._causal, chat.ends, pad, chat.text)
        small = sum(weights.numel() for weights in model.parameters()) < SMALL
        self._threads = threads or (1 if small else torch.get_num_threads())
        self._worker: ThreadPoolExecutor | None = None
        self.cut = 0
        """Texts that lost their beginnings so far (:meth:`likelihoods`)."""

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        chat_template: str = "native",
        batch_size: int | None = None,
        threads: int | None = None,
        dtype: torch.dtype | str | None = None,
        device: str | None = None,
        template_options: Options | None = None,
    ) -> LocalModel:
        """Load a checkpoint folder, or a repository of the hub (from its local cache first).

        ``dtype`` None is fp32 on a CPU and the checkpoint's own elsewhere; ``device`` None is the GPU if there is one.

        Raises:
            ModelSpecError: nothing usable is there, or it is refused.
        """
        folder, shown = located(source)
        check_folder(folder, shown)
        place = _device(device)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        tokenizer = load_tokenizer(folder, shown)
        model: Any = load_causal(folder, shown, dtype=dtype or (torch.float32 if place.type == "cpu" else "auto"))
        return cls(
            packed(model.to(place).eval()),
            tokenizer,
            name=f"{shown}@{checkpoints.digest(folder)[:12]}",
            chat_template=chat_template,
            batch_size=batch_size,
            threads=threads,
            template_options=template_options,
        )

    @property
    def id(self) -> str:
        """``hf/<folder>@<12 hex of the files' digest>``."""
        return self._chat.name

    @property
    def batch_size(self) -> int:
        """How many requests it takes at once."""
        return self._batch_size

    @property
    def notes(self) -> tuple[str, ...]:
        """What its chat template does not take, and what it is given instead."""
        return self._chat.notes

    @property
    def checkpoint(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The loaded model and its tokenizer, for who computes probabilities with them (``utility``)."""
        return self._causal.model, self._chat.tokenizer

    @property
    def threads(self) -> int:
        """How many threads it computes with."""
        return self._threads

    def prompts(self, batch: Sequence[Request]) -> list[Ids]:
        """The tokens that the model reads of each request. Raises ``ModelError``."""
        return [self._known(self._chat.prompt(request)) for request in batch]

    def _known(self, ids: Ids) -> Ids:
        """The same tokens, of which the model has an embedding each: a tokenizer may have gained some that it has not.

        Raises:
            ModelError: it has not.
        """
        for token in ids:
            if token >= self._causal.tokens:
                note = f"the prompt holds token {token} of its tokenizer, the model has {self._causal.tokens} tokens"
                raise ModelError(FailureReason.BAD_REQUEST, note=note)
        return ids

    async def generate(self, batch: Sequence[Request]) -> Sequence[Reply]:
        """Answer a batch, in order, in the model's own thread.

        Raises:
            ModelError: the batch cannot be answered (a prompt that does not fit, a template that refuses the roles).
        """
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, "local-model", torch.set_num_threads, (self._threads,))
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._worker, self.answer, list(batch))

    async def aclose(self) -> None:
        """Let the thread end and forget the prefixes."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None
        if self._generator.prefixes is not None:
            self._generator.prefixes.clear()

    def answer(self, batch: Sequence[Request]) -> list[Reply]:
        """:meth:`generate` in the calling thread."""
        prompts = self.prompts(batch)
        decodings = [self._chat.decoding(r, p, self._causal.positions) for r, p in zip(batch, prompts, strict=True)]
        hint = self._chat.hint(batch[0]) if batch else ()
        made = self._within_memory(len(prompts), lambda part: self._generator(prompts[part], decodings[part], hint))
        return [
            self._chat.reply(generated, prompt, request)
            for generated, prompt, request in zip(made, prompts, batch, strict=True)
        ]

    def likelihoods(self, pairs: Sequence[tuple[str, str]], *, cut: bool = False) -> list[float]:
        """The natural log-probability of each answer to its question, in order; in the calling thread.

        The question is a user's message where the chat template is native, else the text itself. Blanks between the two
        count to the answer. With ``cut``, what is longer than the model reads loses its beginning, and is counted in
        :attr:`cut`.

        Raises:
            ModelError: one is longer than the model reads, or the memory does not hold it.
        """
        torch.set_num_threads(self._threads)
        split = [self._split(question, answer, cut=cut) for question, answer in pairs]
        pad = self._generator.pad_id
        return self._within_memory(len(split), lambda part: log_likelihoods(self._causal, split[part], pad))

    def _split(self, question: str, answer: str, *, cut: bool) -> tuple[Ids, Ids]:
        """The tokens of the rendered question and of its answer, cut apart after both were put into tokens as one."""
        head = self._chat.rendered((Message("user", question),))
        blanks = len(head) - len(head.rstrip())
        if blanks:
            head, answer = head[:-blanks], head[-blanks:] + answer
        context, whole = self._chat.ids(head), self._known(self._chat.ids(head + answer))
        over = len(whole) - 1 - self._causal.positions  # the last token is not read, only predicted
        if over > 0 and not (cut and over < len(context)):
            note = f"question and answer have {len(whole)} tokens, the model reads {self._causal.positions}"
            raise ModelError(FailureReason.BAD_REQUEST, note=note)
        self.cut += over > 0
        return context[max(0, over) :], whole[len(context) :]

    # ---- from tokens to replies ----

    def _within_memory(self, rows: int, work: Callable[[slice], list[T]]) -> list[T]:
        """What comes of all rows, part by part of the size that fits; a part that does not fit is halved, and so are
        all later ones.
        """
        made: list[T] = []
        while len(made) < rows:
            try:
                made += work(slice(len(made), len(made) + self._fits))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise ModelError(FailureReason.LOCAL_MODEL, note=first_line(error)) from error
                size = min(self._fits, rows - len(made))
                if size == 1:
                    raise ModelError(FailureReason.LOCAL_MODEL, note="out of memory with one prompt") from error
                self._fits = size // 2
            else:
                continue
            # Outside the except clause, so that the failed batch's tensors are no longer held by its traceback.
            self._free()
        return made

    def _free(self) -> None:
        if self._generator.prefixes is not None:
            self._generator.prefixes.clear()
        if self._causal.device.type == "cuda":
            torch.cuda.empty_cache()


def _device(name: str | None) -> torch.device:
    """The device of this name; None is the GPU if there is one.

    Raises:
        ModelSpecError: there is no such device here.
    """
    try:
        place = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelSpecError(f"--device {name}: torch has none of that name here ({first_line(error)})") from None
    return place


def located(source: str | Path) -> tuple[Path, str]:
    """The folder of a checkpoint, and the name under which outputs show it (never a path)."""
    folder = folder_of(source)
    if folder.is_dir():
        return folder, f"hf/{folder.resolve().name}"
    name, _, revision = str(source).partition("@")
    shown = f"hf/{Path(name).name}"
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelSpecError(f"{shown}: no such folder")
    for local in (True, False):
        try:
            found = snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=_HUB_FILES,
                local_files_only=local,
                endpoint=hub_address(),
            )
            return Path(found), shown
        except GatedRepoError:
            raise ModelSpecError(behind_a_form(name, f"{hub_address()}/{name}")) from None
        except RevisionNotFoundError:
            raise ModelSpecError(f"{shown}: no revision {revision} there") from None
        except HFValidationError:
            break
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
            continue
    raise ModelSpecError(f"{shown}: no such folder, and the hub does not give a repository of that name")


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0])[:200] if lines else type(error).__name__
