"""How a conversation becomes text, and where in that text each answer stands.

Promised: each learnt answer is rendered as generation will see it. Its prompt is, character for character, what the
model will be given (the earlier messages, rendered to ask); after it come the marks that the template itself writes
before an answer (an empty thought, a channel), which belong to the prompt and are not learnt; then the answer; then a
stop token, so that the model learns to end. A conversation that a template cannot carry so is refused, never guessed.

Many templates write an earlier answer otherwise than the last one (reasoning models drop its thoughts), so every answer
is rendered as the last one of its own conversation; where that is how it stands in a longer one, the two share a row.

A tokenizer's own template is always used where it has one, since that is what the model will be asked in. A tokenizer
without a template gets ``vicuna_v1.1`` (FastChat, Zheng et al. 2023; the template of Starling).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from functools import lru_cache
from importlib.resources import files

import msgspec
from transformers import PreTrainedTokenizerBase

from redinstruct.checkpoints import chats
from redinstruct.errors import UsageError
from redinstruct.files.words import Fields
from redinstruct.prompts.thoughts import NAME
from redinstruct.safetext import terminal
from redinstruct.types import Message

VICUNA = "vicuna_v1.1"
MAX_TEMPLATE = 2**18
ROLES = "the template refuses these roles"
UNLIKE = "the prompt of an answer is not what it is later rendered as"
NOT_AFTER = "an answer does not follow its prompt"
CHANGED = "the template writes another text than the answer's"
LEFT_OUT = "the template leaves out what is asked"
NO_STOP = "an answer ends without a stop token"

_TAG = r"<[^<>\s][^<>\n]{0,48}>|\[/?[A-Z_]{2,24}\]|\[\|[^\[\]\n]{1,40}\|\]"
_MARKS = re.compile(rf"\s*(?:(?:{_TAG})(?:[^<>\[\]]{{0,40}}?(?:{_TAG}))*\s*)?")
"""What a template may put before an answer: white space, or marks (``<think></think>``,
``<|channel|>final<|message|>``)."""
_LAST_TAG = re.compile(rf"({_TAG})\s*$")
_LONGEST_MARKS = 400
_PIECES = re.compile(rf"({_TAG}|\s+)")
_THOUGHT_END = re.compile(rf"</(?i:{NAME})>|\[/THINK\]")


class Template(msgspec.Struct, frozen=True):
    """A chat template. ``own``: it came with the tokenizer. ``options`` go to it with every conversation."""

    name: str
    text: str
    own: bool
    options: Fields = msgspec.field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Of the UTF-8 text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def identity(self) -> str:
        """What two runs in the same template have in common: its text and its options."""
        options = msgspec.json.encode(dict(self.options), order="sorted").decode()
        return self.sha256 if not self.options else f"{self.sha256} {options}"


class Placed(msgspec.Struct, frozen=True):
    """One answer in its text: the prompt is ``text[:asked]``, the template's marks before the answer end at ``start``,
    and ``text[start:end]`` is learnt, its stop token last.
    """

    text: str
    asked: int
    start: int
    end: int


class Unrenderable(Exception):
    """A conversation has no faithful rendering; ``reason`` says why, in the words of a dropped row's count."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def bundled(name: str = VICUNA) -> Template:
    """A template that ships with the package."""
    if name != VICUNA:
        raise UsageError(f"{terminal(name)}: no such chat template is bundled, only {VICUNA}")
    text = (files("redinstruct.safealign") / "texts" / f"{name}.jinja").read_text(encoding="utf-8")
    return Template(name, text.rstrip("\n"), own=False)


def choose(tokenizer: PreTrainedTokenizerBase, name: str | None = None, options: Fields | None = None) -> Template:
    """The template to train in: the named bundled one, else the tokenizer's own, else ``vicuna_v1.1``.

    It is tried on one question and its answer first.

    Raises:
        UsageError: the tokenizer has no stop token, or is a slow one; or no answer can be placed in this template.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UsageError("its tokenizer gives no character offsets, which masks need; convert it to a fast tokenizer")
    if tokenizer.eos_token is None:
        raise UsageError("its tokenizer has no end-of-sequence token, so no answer could ever end; set eos_token")
    own = chats.own_template(tokenizer)
    if name is not None or not own:
        template = bundled(name or VICUNA)
    elif len(own) > MAX_TEMPLATE:
        raise UsageError(f"its chat template has {len(own)} characters, more than the {MAX_TEMPLATE} that are run")
    else:
        template = Template("own", own, own=True)
    template = msgspec.structs.replace(template, options=dict(options or {}))
    try:
        place(template, tokenizer, (Message("user", "one"), Message("assistant", "two")))
    except Unrenderable as error:
        raise UsageError(f"its chat template cannot be trained in: {error.reason}") from None
    return template


def told_of(template: Template, tokenizer: PreTrainedTokenizerBase, stops: Collection[int]) -> Fields:
    """What a card says of the template: its name and hash, its options, and the tokens that learnt answers end with."""
    return {
        "name": template.name,
        "sha256": template.sha256,
        "options": dict(template.options),
        "stops": [str(tokenizer.convert_ids_to_tokens(token)) for token in sorted(stops)],
    }


def prompt(template: Template, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
    """The text that asks for the next answer, special tokens written out (tokenize without adding any)."""
    return _run(template, tokenizer, messages, asking=True)


def place(template: Template, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> Placed:
    """Render a conversation whose last message is the answer to be learnt.

    Raises:
        Unrenderable: the template refuses the roles or leaves out what is asked, the answer does not follow its
            prompt, or it cannot end.
    """
    *before, answer = messages
    said = answer.content.strip()
    asked = prompt(template, tokenizer, before)
    whole = _run(template, tokenizer, [*before, Message(answer.role, said)])
    if whole.startswith(asked):
        mark = _LAST_TAG.search(asked)  # a prompt that opens the thought has the answer's own first mark
        shown = said.removeprefix(mark[1]).strip() if mark else said
        at, body = _answer_in(whole[len(asked) :], shown)
        start, end = len(asked) + at, len(asked) + at + body
        head = whole[:end]
    else:
        # The prompt opens a thought that the rendered answer lacks: it is closed before the answer is learnt.
        same = asked[: next(i for i, (a, b) in enumerate(zip(asked, f"{whole}\0", strict=False)) if a != b)]
        # An answer may begin with the mark's own first character.
        cuts = (len(same), same.rfind("<"), same.rfind("["))
        kept = next((cut for cut in cuts if cut >= 0 and _MARKS.fullmatch(asked, cut)), None)
        if kept is None:
            raise Unrenderable(UNLIKE)
        opened = asked[kept:]
        at, body = _answer_in(whole[kept:], _THOUGHT_END.split(said)[-1].strip())
        end = kept + at + body
        lead, own = _closed(opened, said)
        head, start = asked + lead + own, len(asked) + len(lead)
    stop = _stop(template, tokenizer, whole[end:])
    return Placed(head + stop, len(asked), start, len(head) + len(stop))


def _answer_in(rest: str, said: str) -> tuple[int, int]:
    """Where in what follows the prompt the answer begins, and how long it is there.

    White space before it is learnt, since the model has to write it; the template's own marks are not.
    """
    found = _after_marks(rest, re.escape(said))
    if found is None:  # a template may write an answer's thoughts with other white space around them
        found = _after_marks(rest, r"\s*".join(re.escape(piece) for piece in _PIECES.split(said) if piece.strip()))
    if found is None:
        raise Unrenderable(NOT_AFTER if said in rest else CHANGED)
    begin, end = found.span()
    return (begin, end - begin) if rest[:begin].strip() else (0, end)


def _after_marks(rest: str, pattern: str) -> re.Match[str] | None:
    """The first match that has only marks before it: an answer may be a word that stands in a mark, too."""
    for found in re.finditer(pattern, rest):
        if found.start() > _LONGEST_MARKS:
            break
        if _MARKS.fullmatch(rest, 0, found.start()) is not None:
            return found
    return None


def _closed(opened: str, said: str) -> tuple[str, str]:
    """What closes the thought that a prompt has opened, and what is learnt; a thought of the answer's own is learnt."""
    tags = re.findall(_TAG, opened)
    own = said
    for tag in tags:
        own = own.removeprefix(tag).lstrip("\n")
    if own != said or _THOUGHT_END.search(said):
        return "", own
    closers = [f"</{tag[1:]}" if tag[0] == "<" else f"[/{tag[1:]}" for tag in tags if tag[1] != "/"]
    return "".join(f"\n{closer}\n\n" for closer in closers), said


def _stop(template: Template, tokenizer: PreTrainedTokenizerBase, tail: str) -> str:
    """What ends an answer, with the white space before it: the template's stop token, else the tokenizer's own.

    A template may end its last answer with the mark of the next turn, or with nothing: neither is learnt.
    """
    eos = str(tokenizer.eos_token)
    rest = tail.lstrip()
    found = next((stop for stop in (*stop_tokens(tokenizer), *_own_marks(tokenizer)) if rest.startswith(stop)), None)
    if found is not None and (found == eos or found != _turn_mark(template, tokenizer)):
        return tail[: len(tail) - len(rest) + len(found)]
    if rest and found is None:
        raise Unrenderable(NO_STOP)
    return eos


def _turn_mark(template: Template, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that stands right before what a user says."""
    return _mark_before(tokenizer, template.text, msgspec.json.encode(dict(template.options)))


@lru_cache(maxsize=16)
def _mark_before(tokenizer: PreTrainedTokenizerBase, text: str, options: bytes) -> str | None:
    said = "zq"
    template = Template("", text, own=True, options=msgspec.json.decode(options))
    head = prompt(template, tokenizer, [Message("user", said)]).rpartition(said)[0].rstrip()
    return next((token for token in control_tokens(tokenizer) if head.endswith(token)), None)


def stop_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The special tokens with which an answer may end: all but those that begin, pad or stand for the unknown."""
    never = {tokenizer.bos_token, tokenizer.unk_token, tokenizer.pad_token, None} - {tokenizer.eos_token}
    return tuple(token for token in control_tokens(tokenizer) if token not in never)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Every token that means something else than its characters: in a message's text it would be an injection."""
    return _added(tokenizer, len(tokenizer), tuple(tokenizer.all_special_tokens))[0]


def _own_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Tokens that were added for a purpose without being special, ``<think>`` and its like."""
    return _added(tokenizer, len(tokenizer), tuple(tokenizer.all_special_tokens))[1]


# A tokenizer gains tokens without becoming another object: its size and special tokens are part of the key.
@lru_cache(maxsize=4)
def _added(
    tokenizer: PreTrainedTokenizerBase, _size: int, special: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The special added tokens and the others, the longest first."""
    added = tokenizer.added_tokens_decoder.values()
    control = {token.content for token in added if token.special} | set(special)
    marks = {token.content for token in added if token.content.strip()} - control
    longest_first = (tuple(sorted(texts, key=lambda text: (-len(text), text))) for texts in (control, marks))
    return next(longest_first), next(longest_first)


def _run(
    template: Template, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, asking: bool = False
) -> str:
    try:
        return chats.render(tokenizer, template.text, messages, asking=asking, options=template.options)
    except chats.LeavesOut:
        raise Unrenderable(LEFT_OUT) from None
    except chats.TemplateRefused:
        raise Unrenderable(ROLES) from None  # the template's own words may quote the conversation
