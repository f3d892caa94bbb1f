"""``hf/...``: any causal checkpoint of transformers, from a folder or from the hub, behind the one model interface.

Promised: no code of the checkpoint is run (``checkpoints``), weights are safetensors; a batch's answers come in its
order; greedy answers equal those of transformers' ``generate``, token for token (or part where the two best logits lie
within 1e-4); a sampled answer depends on its own seed and not on its neighbours. Out of memory halves the batch.
Not here: where batches come from, retries, budgets (the engine's).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from redinstruct import checkpoints
from redinstruct.checkpoints import chats
from redinstruct.checkpoints.embedded import folder_of
from redinstruct.checkpoints.loading import check_folder, load_causal, load_tokenizer
from redinstruct.errors import ModelSpecError
from redinstruct.models.adapting import SYSTEM, Adapted, folded
from redinstruct.models.base import ModelError, Reply, Request, TokenChoice
from redinstruct.models.decoding import Decoding, Generated, Generator
from redinstruct.models.likelihood import log_likelihoods
from redinstruct.models.memory import is_out_of_memory
from redinstruct.models.prefix_cache import CausalModel, Ids
from redinstruct.prompts.thoughts import ends_opened, is_mark
from redinstruct.types import FailureReason, Message

DEFAULT_BATCH = 32
"""On a CPU 32 prompts at once are faster than 100."""
DEVICE_BATCH = 64
T = TypeVar("T")
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
_UNSUPPORTED = {
    "num_beams": 1, "no_repeat_ngram_size": 0, "typical_p": 1.0, "penalty_alpha": None, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "top_h": None, "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "sequence_bias": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "min_new_tokens": 0,
    "min_length": 0, "exponential_decay_length_penalty": None, "guidance_scale": 1.0, "encoder_repetition_penalty": 1.0,
}  # fmt: skip
"""Settings of a checkpoint's generation_config that are not followed, each with the value that switches it off."""


_BLANKS = str.maketrans({"\N{LOWER ONE EIGHTH BLOCK}": " ", "\u0120": " ", "\u010a": "\n"})
"""How SentencePiece and byte-level tokenizers write blanks and line breaks."""
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
        share_prefix: bool = True,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a loaded model. ``name`` is the id that outputs show; ``template_options`` go to its chat template.

        ``batch_size`` None is 32 on a CPU and 64 elsewhere, ``threads`` None one for a small model and torch's own
        choice for others.

        Raises:
            ModelSpecError: ``native`` is asked of a tokenizer that has no chat template.
        """
        if chat_template not in ("native", "none"):
            raise ModelSpecError(f"--chat-template {chat_template}: native or none")
        if chat_template == "native" and not tokenizer.chat_template:
            raise ModelSpecError(f"{name}: its tokenizer has no chat template; use --chat-template none")
        self._name = name
        self._tokenizer = tokenizer
        self._template = chat_template
        self._options = dict(template_options or {})
        chats.check_options(self._options, "--model-option chat_template_kwargs")
        self._batch_size = batch_size or (DEFAULT_BATCH if model.device.type == "cpu" else DEVICE_BATCH)
        self._fits = self._batch_size
        self._defaults = model.generation_config
        self._causal = CausalModel(model)
        if not self._causal.takes_cache:
            raise ModelSpecError(f"{name}: its architecture has no attention cache, which batched generation needs")
        ends = _end_ids(self._defaults.eos_token_id, tokenizer.eos_token_id)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(ends), 0)
        self._generator = Generator(self._causal, ends, int(pad), self._text, share_prefix=share_prefix)
        small = sum(weights.numel() for weights in model.parameters()) < SMALL
        self._threads = threads or (1 if small else torch.get_num_threads())
        self._worker: ThreadPoolExecutor | None = None
        special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._marks = frozenset(number for number, token in special.items() if is_mark(token))
        self._unsaid = {*tokenizer.all_special_ids, *special} - self._marks
        self._adapted = Adapted()
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
        share_prefix: bool = True,
        template_options: Mapping[str, Any] | None = None,
    ) -> LocalModel:
        """Load a checkpoint folder, or a repository of the hub (from its local cache first).

        ``dtype`` None is fp32 on a CPU and the checkpoint's own elsewhere; ``device`` None is the GPU if there is one.

        Raises:
            ModelSpecError: nothing usable is there, or it is refused.
        """
        folder, shown = _located(source)
        check_folder(folder, shown)
        place = _device(device)
        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        tokenizer = load_tokenizer(folder, shown)
        model: Any = load_causal(folder, shown, dtype=dtype or (torch.float32 if place.type == "cpu" else "auto"))
        return cls(
            model.to(place).eval(),
            tokenizer,
            name=f"{shown}@{checkpoints.digest(folder)[:12]}",
            chat_template=chat_template,
            batch_size=batch_size,
            threads=threads,
            share_prefix=share_prefix,
            template_options=template_options,
        )

    @property
    def id(self) -> str:
        """``hf/<folder>@<12 hex of the files' digest>``."""
        return self._name

    @property
    def batch_size(self) -> int:
        """How many requests it takes at once."""
        return self._batch_size

    @property
    def notes(self) -> tuple[str, ...]:
        """What its chat template does not take, and what it is given instead."""
        return tuple(f"{self.id} {note}" for note in self._adapted.notes.values())

    @property
    def checkpoint(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The loaded model and its tokenizer, for who computes probabilities with them (``utility``)."""
        return self._causal.model, self._tokenizer

    @property
    def threads(self) -> int:
        """How many threads it computes with."""
        return self._threads

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
        prompts = [self._prompt(request) for request in batch]
        decodings = [self._decoding(request, prompt) for request, prompt in zip(batch, prompts, strict=True)]
        hint = self._hint(batch[0]) if batch else ()
        made = self._within_memory(len(prompts), lambda part: self._generator(prompts[part], decodings[part], hint))
        return [
            self._reply(generated, prompt, request)
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
        head = self._rendered((Message("user", question),))
        blanks = len(head) - len(head.rstrip())
        if blanks:
            head, answer = head[:-blanks], head[-blanks:] + answer
        special = self._template == "none"
        context = tuple(self._tokenizer(head, add_special_tokens=special).input_ids)
        whole = tuple(self._tokenizer(head + answer, add_special_tokens=special).input_ids)
        over = len(whole) - 1 - self._causal.positions  # the last token is not read, only predicted
        if over > 0 and not (cut and over < len(context)):
            note = f"question and answer have {len(whole)} tokens, the model reads {self._causal.positions}"
            raise ModelError(FailureReason.BAD_REQUEST, note=note)
        self.cut += over > 0
        return context[max(0, over) :], whole[len(context) :]

    # ---- from request to tokens ----

    def _prompt(self, request: Request) -> Ids:
        text = self._rendered(request.messages)
        # A native template writes the special tokens itself.
        ids = self._tokenizer(text, add_special_tokens=self._template == "none").input_ids
        if not ids:
            raise ModelError(FailureReason.BAD_REQUEST, note="the prompt is empty")
        return tuple(ids)

    def _rendered(self, messages: Sequence[Message]) -> str:
        if self._template == "none":
            return "\n".join(message.content for message in messages)
        messages = self._adapted.messages(tuple(messages))
        continues = messages[-1].role == "assistant"
        try:
            return chats.render(
                self._tokenizer,
                chats.own_template(self._tokenizer) or "",
                messages,
                asking=not continues,
                continuing=continues,
                options=self._options,
            )
        except chats.Refused as error:
            if any(message.role == SYSTEM for message in messages):
                text = self._rendered(folded(tuple(messages)))
                self._adapted.learn([SYSTEM], None)
                return text
            note = f"the chat template refused the messages ({error})"
            raise ModelError(FailureReason.BAD_REQUEST, note=note) from error

    def _hint(self, request: Request) -> Ids:
        """The tokens of everything up to the end of the request's shared prefix, the template's head included."""
        if not request.prefix or not request.messages[-1].content.startswith(request.prefix):
            return ()
        # An end that no text holds shows where the prefix ends in the rendered prompt.
        mark = "\N{OBJECT REPLACEMENT CHARACTER}"
        *earlier, last = request.messages
        text = self._rendered([*earlier, Message(last.role, request.prefix + mark)])
        head = text.split(mark)[0]
        ids = self._tokenizer(head, add_special_tokens=self._template == "none").input_ids
        return tuple(ids)

    def _decoding(self, request: Request, prompt: Ids) -> Decoding:
        """The request's sampling, and where it says nothing the checkpoint's own generation_config."""
        asked, own = request.sampling, self._defaults
        room = self._causal.positions - len(prompt)
        if room < 1:
            note = f"the prompt has {len(prompt)} tokens, the model reads {self._causal.positions}"
            raise ModelError(FailureReason.BAD_REQUEST, note=note)
        temperature = asked.temperature
        if temperature is None:
            self._check_defaults()
            temperature = (1.0 if own.temperature is None else own.temperature) if own.do_sample else 0.0
        return Decoding(
            max_tokens=min(asked.max_tokens, room),
            temperature=temperature,
            top_k=own.top_k or 0,
            top_p=asked.top_p if asked.top_p is not None else _or(own.top_p, 1.0),
            min_p=_or(own.min_p, 0.0),
            repetition_penalty=_or(own.repetition_penalty, 1.0),
            seed=asked.seed,
            stop=asked.stop,
            top_logprobs=request.top_logprobs,
        )

    def _check_defaults(self) -> None:
        set_ = [
            name for name, off in _UNSUPPORTED.items() if getattr(self._defaults, name, None) not in (None, off, [])
        ]
        if set_:
            raise ModelSpecError(
                f"{self._name}: its generation_config sets {', '.join(set_)}, which is not followed here;"
                " give --temperature (0 is greedy), or take it out of generation_config.json"
            )

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
                    raise ModelError(FailureReason.LOCAL_MODEL, note=_first_line(error)) from error
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

    def _reply(self, generated: Generated, prompt: Ids, request: Request) -> Reply:
        text = self._text(generated.ids)
        cuts = [at for stop in request.sampling.stop if (at := text.find(stop)) >= 0]
        return Reply(
            text=text[: min(cuts)] if cuts else text,
            finish_reason=generated.finish,
            tokens_in=len(prompt),
            tokens_out=len(generated.ids),
            thought_opened=ends_opened(str(self._tokenizer.decode(list(prompt[-32:])))),
            choices=tuple(
                TokenChoice(self._piece(token), tuple((self._piece(other), chance) for other, chance in alternatives))
                for token, alternatives in zip(generated.ids, generated.choices, strict=False)
            ),
        )

    def _piece(self, token: int) -> str:
        """One token as it stands in a text, its leading blank kept (decoding it alone would lose that)."""
        return str(self._tokenizer.convert_ids_to_tokens(token)).translate(_BLANKS)

    def _text(self, ids: list[int]) -> str:
        if self._marks.isdisjoint(ids):
            return str(self._tokenizer.decode(ids, skip_special_tokens=True))
        # Marks of thoughts stay where they are special tokens: without them a thought could not be told from an answer.
        return str(self._tokenizer.decode([i for i in ids if i not in self._unsaid], skip_special_tokens=False))


def _device(name: str | None) -> torch.device:
    """The device of this name; None is the GPU if there is one.

    Raises:
        ModelSpecError: there is no such device here.
    """
    try:
        place = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelSpecError(f"--device {name}: torch has none of that name here ({_first_line(error)})") from None
    return place


def _located(source: str | Path) -> tuple[Path, str]:
    """The folder of a checkpoint, and the name under which outputs show it (never a path)."""
    folder = folder_of(source)
    if folder.is_dir():
        return folder, f"hf/{folder.resolve().name}"
    shown = f"hf/{folder.name}"
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise ModelSpecError(f"{shown}: no such folder")
    for local in (True, False):
        try:
            return Path(snapshot_download(str(source), allow_patterns=_HUB_FILES, local_files_only=local)), shown
        except HFValidationError:
            break
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError):
            continue
    raise ModelSpecError(f"{shown}: no such folder, and the hub does not give a repository of that name")


def _end_ids(*given: int | list[int] | None) -> list[int]:
    ids: list[int] = []
    for value in given:
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return ids


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _first_line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0])[:200] if lines else type(error).__name__
