"""Between messages and a checkpoint's tokens, for every engine that reads its folder: what is asked, and what was said.

One rendering and one reading for ``hf/`` and ``vllm/``, so that equal tokens are equal texts.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import GenerationConfig, PreTrainedTokenizerBase

from redinstruct.checkpoints import chats
from redinstruct.errors import ModelSpecError
from redinstruct.models.adapting import SYSTEM, Adapted, folded
from redinstruct.models.base import ModelError, Options, Reply, Request, TokenChoice
from redinstruct.models.decoding import Decoding, Generated
from redinstruct.models.prefix_cache import Ids
from redinstruct.prompts.thoughts import ends_opened, is_mark
from redinstruct.types import FailureReason, Message

_UNSUPPORTED = {
    "num_beams": 1, "no_repeat_ngram_size": 0, "typical_p": 1.0, "penalty_alpha": None, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "top_h": None, "bad_words_ids": None, "suppress_tokens": None, "begin_suppress_tokens": None,
    "sequence_bias": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "min_new_tokens": 0,
    "min_length": 0, "exponential_decay_length_penalty": None, "guidance_scale": 1.0, "encoder_repetition_penalty": 1.0,
}  # fmt: skip
"""Settings of a checkpoint's generation_config that are not followed, each with the value that switches it off."""


_BLANKS = str.maketrans({"\N{LOWER ONE EIGHTH BLOCK}": " ", "\u0120": " ", "\u010a": "\n"})
"""How SentencePiece and byte-level tokenizers write blanks and line breaks."""


class ChatTokens:
    """A checkpoint's tokenizer, its chat template, and its own generation_config."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        defaults: GenerationConfig,
        *,
        name: str,
        chat_template: str = "native",
        options: Options | None = None,
    ) -> None:
        """``name`` is the id that outputs show; ``options`` go to the chat template.

        Raises:
            ModelSpecError: ``native`` is asked of a tokenizer that has no chat template.
        """
        if chat_template not in ("native", "none"):
            raise ModelSpecError(f"--chat-template {chat_template}: native or none")
        if chat_template == "native" and not tokenizer.chat_template:
            raise ModelSpecError(f"{name}: its tokenizer has no chat template; use --chat-template none")
        self.name = name
        self.tokenizer = tokenizer
        self._template = chat_template
        self._options = dict(options or {})
        chats.check_options(self._options, "--model-option chat_template_kwargs")
        self._defaults = defaults
        self.ends = _end_ids(defaults.eos_token_id, tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(self.ends), 0))
        special = {number: token.content for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._marks = frozenset(number for number, token in special.items() if is_mark(token))
        self._unsaid = {*tokenizer.all_special_ids, *special} - self._marks
        self._adapted = Adapted()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the chat template does not take, and what it is given instead."""
        return tuple(f"{self.name} {note}" for note in self._adapted.notes.values())

    def prompt(self, request: Request) -> Ids:
        """A request's tokens. Raises ``ModelError``: empty, or the template refuses it."""
        ids = self.ids(self.rendered(request.messages))
        if not ids:
            raise ModelError(FailureReason.BAD_REQUEST, note="the prompt is empty")
        return ids

    def ids(self, text: str) -> Ids:
        """A rendered text's tokens. A native template writes the special ones itself."""
        return tuple(self.tokenizer(text, add_special_tokens=self._template == "none").input_ids)

    def rendered(self, messages: Sequence[Message]) -> str:
        """The text that the model reads. Raises ``ModelError``."""
        if self._template == "none":
            return "\n".join(message.content for message in messages)
        messages = self._adapted.messages(tuple(messages))
        continues = messages[-1].role == "assistant"
        try:
            return chats.render(
                self.tokenizer,
                chats.own_template(self.tokenizer) or "",
                messages,
                asking=not continues,
                continuing=continues,
                options=self._options,
            )
        except chats.TemplateRefused as error:
            if any(message.role == SYSTEM for message in messages):
                text = self.rendered(folded(tuple(messages)))
                self._adapted.learn([SYSTEM], None)
                return text
            left_out = isinstance(error, chats.LeavesOut)
            note = f"the chat template {error if left_out else f'refused the messages ({error})'}"
            raise ModelError(FailureReason.BAD_REQUEST, note=note) from error

    def hint(self, request: Request) -> Ids:
        """The tokens of everything up to the end of the request's shared prefix, the template's head included."""
        if not request.prefix or not request.messages[-1].content.startswith(request.prefix):
            return ()
        # An end that no text holds shows where the prefix ends in the rendered prompt.
        mark = "\N{OBJECT REPLACEMENT CHARACTER}"
        *earlier, last = request.messages
        text = self.rendered([*earlier, Message(last.role, request.prefix + mark)])
        head = text.split(mark)[0]
        return self.ids(head)

    def decoding(self, request: Request, prompt: Ids, positions: int) -> Decoding:
        """The request's sampling, and where it says nothing the checkpoint's own generation_config.

        ``positions``: how many tokens the model reads in all. Raises ``ModelError`` where the prompt leaves no room.
        """
        asked, own = request.sampling, self._defaults
        room = positions - len(prompt)
        if room < 1:
            note = f"the prompt has {len(prompt)} tokens, the model reads {positions}"
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
                f"{self.name}: its generation_config sets {', '.join(set_)}, which is not followed here;"
                " give --temperature (0 is greedy), or take it out of generation_config.json"
            )

    def reply(self, generated: Generated, prompt: Ids, request: Request) -> Reply:
        """What was said, up to a stop string."""
        text = self.text(generated.ids)
        cuts = [at for stop in request.sampling.stop if (at := text.find(stop)) >= 0]
        return Reply(
            text=text[: min(cuts)] if cuts else text,
            finish_reason=generated.finish,
            tokens_in=len(prompt),
            tokens_out=len(generated.ids),
            thought_opened=ends_opened(str(self.tokenizer.decode(list(prompt[-32:])))),
            choices=tuple(
                TokenChoice(self._piece(token), tuple((self._piece(other), chance) for other, chance in alternatives))
                for token, alternatives in zip(generated.ids, generated.choices, strict=False)
            ),
        )

    def _piece(self, token: int) -> str:
        """One token as it stands in a text, its leading blank kept (decoding it alone would lose that)."""
        return str(self.tokenizer.convert_ids_to_tokens(token)).translate(_BLANKS)

    def text(self, ids: list[int]) -> str:
        """Tokens as they were said: without special ones, but for marks of thoughts."""
        if self._marks.isdisjoint(ids):
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        # Marks of thoughts stay where they are special tokens: without them a thought could not be told from an answer.
        return str(self.tokenizer.decode([i for i in ids if i not in self._unsaid], skip_special_tokens=False))


def _end_ids(*given: int | list[int] | None) -> list[int]:
    ids: list[int] = []
    for value in given:
        ids += value if isinstance(value, list) else [] if value is None else [value]
    return ids


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
