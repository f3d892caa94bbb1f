"""Chat templates, as they are published, held against what training in them teaches: right, dropped, refused, wrong.

    python -m benchmarks.templates FOLDER... [--collapsed FOLDER] [--tokenizer CHECKPOINT] [--json]

A FOLDER holds ``.jinja`` files (at any depth), or checkpoints' ``tokenizer_config.json``; one that is
laid out for reading (chat_templates is) goes with --collapsed. Each template is tried on a dozen small conversations
under the tokenizer given, its own where a ``tokenizer.json`` lies beside the ``tokenizer_config.json``, or a stand-in
whose special tokens are those that the template writes. What is learnt is compared with what transformers renders when
it asks: token for token the same prompt, the answer's text and nothing else, and an end that generation stops at.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from redinstruct.checkpoints import chats
from redinstruct.errors import UsageError
from redinstruct.safealign.masks import encode
from redinstruct.safealign.rows import Row
from redinstruct.safealign.templates import Template, choose
from redinstruct.types import Message

U, A, S = "user", "assistant", "system"
CHATS: dict[str, list[tuple[str, str]]] = {
    "one turn": [(U, "Where is the ferry?"), (A, "It leaves at nine.")],
    "two turns": [(U, "Where is the ferry?"), (A, "It leaves at nine."), (U, "And back?"), (A, "At six, from pier 4.")],
    "three turns": [(U, "Hello."), (A, "Good day."), (U, "Which?"), (A, "The blue one."), (U, "When?"), (A, "Soon.")],
    "system": [(S, "You are brief."), (U, "Where is the ferry?"), (A, "It leaves at nine.")],
    "two users": [(U, "Hello."), (U, "Where is the ferry?"), (A, "It leaves at nine.")],
    "blanks": [(U, "Where is it? "), (A, "  It leaves\n\nat nine.\n"), (U, "\nAnd back?"), (A, "\n\nAt six.  ")],
    "short": [(U, "2+2?"), (A, "4"), (U, "#?"), (A, "!")],
    "a word of a mark": [(U, "Which?"), (A, "think"), (U, "And?"), (A, "final")],
    "a list": [(U, "Which?"), (A, "- one\n- two\n\n1. three"), (U, "More?"), (A, "`x` <b>four</b> [5]")],
    "a thought": [(U, "Where?"), (A, "<think>\nLet me see.\n</think>\n\nAt the pier.")],
}
_TOKENS = re.compile(
    r"<[|｜/]?[A-Za-z_▁][^<>\s'\"{}%]{0,40}>|\[/?[A-Z_]{3,24}\]|<｜[^<>]{1,40}｜>|\[\|[^\[\]\n]{1,40}\|\]"
)
_NOT_SPECIAL = {"<think>", "</think>", "<tool_call>", "</tool_call>", "<b>", "<tools>", "</tools>", "<s>", "</s>"}


def stand_in(text: str) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer with the tokens that the template writes; its end is what follows an answer."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words = ["Where is the ferry? It leaves at nine.\n\n", "\n\n\n", "think final"] * 9
    core.train_from_iterator(words, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    found = sorted(set(_TOKENS.findall(text)) | {"<s>", "</s>", "<pad>"})
    plain = {token for token in found if token in _NOT_SPECIAL - {"<s>", "</s>"}}
    core.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in found if token not in plain]
    )
    core.add_tokens([AddedToken(token, special=False, normalized=False) for token in sorted(plain)])
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    said = [Message("user", "q1"), Message("assistant", "zqz")]
    try:
        tail = chats.render(made, text, said).rpartition("zqz")[2].lstrip()
    except chats.TemplateRefused:
        tail = ""
    end = next((token for token in found if tail.startswith(token) and token not in plain), None)
    if end is not None:
        made.eos_token = end
    return made


def check(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[str, str]:
    """The outcome of one template, and why."""
    tokenizer.chat_template = text
    try:
        template = choose(tokenizer)
    except UsageError as error:
        return "refused", str(error).removeprefix("its chat template cannot be trained in: ")
    wrong, dropped = [], []
    for name, chat in CHATS.items():
        messages = tuple(Message(role, said) for role, said in chat)  # type: ignore[arg-type]
        weights = tuple(1.0 if message.role == A else None for message in messages)
        rows, lost = encode(Row(name, messages, weights, "blue"), tokenizer, template, 4096)
        dropped += [f"{name}: {reason}" for reason in dict.fromkeys(lost)]
        wrong += [f"{name}: {fault}" for fault in faults(messages, rows, lost, tokenizer, template)]
    if wrong:
        return "wrong", "; ".join(dict.fromkeys(wrong))
    return ("rows dropped", "; ".join(dropped)) if dropped else ("right", "")


def faults(
    messages: tuple[Message, ...], rows: list[Any], lost: list[str], tokenizer: Any, template: Template
) -> list[str]:
    """What is taught otherwise than it is asked. ``rows`` are the encoded rows of one conversation."""
    found = []
    places = [at for at, message in enumerate(messages) if message.role == A]
    answers = [(row, answer) for row in rows for answer in row.answers]
    if len(answers) + len(lost) != len(places):
        found.append(f"{len(places)} answers, {len(answers)} learnt")
    for row, answer in answers:
        learnt = tokenizer.decode(list(row.input_ids[answer.start : answer.end - 1]), skip_special_tokens=False)
        at = next((i for i in places if same(learnt, messages[i].content)), None)
        if at is None:
            found.append(f"learns {learnt!r}")
            continue
        asked = chats.render(tokenizer, template.text, messages[:at], asking=True)  # as hf/ models are asked
        ids = tuple(tokenizer(asked, add_special_tokens=False).input_ids)
        if row.input_ids[: len(ids)] != ids or answer.start < len(ids):
            found.append("its prompt is not what is asked")
        if tokenizer.convert_ids_to_tokens(row.input_ids[answer.end - 1]) != tokenizer.eos_token:
            found.append(f"ends with {tokenizer.convert_ids_to_tokens(row.input_ids[answer.end - 1])!r}")
    return found


def same(learnt: str, said: str) -> bool:
    """Whether what is learnt is the answer, but for white space and for the mark that its prompt holds already."""
    squeezed = "".join(learnt.split())
    return squeezed in ("".join(said.split()), "".join(said.split()).removeprefix("<think>"))


def templates_in(folders: list[Path], collapsed: list[Path]) -> dict[str, str]:
    """Name -> text. ``collapsed``: folders whose templates are laid out, and are used without that."""
    found: dict[str, str] = {}
    for folder in collapsed:
        for path in sorted(folder.rglob("*.jinja")):
            text = path.read_text(encoding="utf-8").replace("    ", "").replace("\n", "")
            found[str(path.relative_to(folder.parent))] = text
    for folder in folders:
        for path in sorted(folder.rglob("*.jinja")):
            found[str(path.relative_to(folder.parent))] = path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("tokenizer_config.json")):
            text = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
            if isinstance(text, str):
                found[str(path.parent.relative_to(folder.parent))] = text
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--collapsed", action="append", type=Path, default=[], metavar="FOLDER")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for name, text in templates_in(options.folders, options.collapsed).items():
        homes = [folder.parent / name for folder in options.folders]
        own = [home for home in homes if all((home / f).is_file() for f in ("tokenizer.json", "tokenizer_config.json"))]
        place = options.tokenizer or next(iter(own), None)
        real = place and AutoTokenizer.from_pretrained(place, local_files_only=True)
        outcome, why = check(text, real or stand_in(text))
        rows.append((name, hashlib.sha256(text.encode()).hexdigest()[:12], outcome, why))
    counts = Counter(outcome for _, _, outcome, _ in rows)
    if options.json:
        print(json.dumps({"rows": rows, "counts": counts}, indent=1))
    else:
        print("| template | sha256 | outcome | why |\n|---|---|---|---|")
        for row in rows:
            print("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |")
        print(", ".join(f"{outcome} {count}" for outcome, count in counts.most_common()))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
