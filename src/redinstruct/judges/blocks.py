"""What the judges that ask a model share: the nonce, the data block, the cut of a long answer.

The nonce is an HMAC-SHA256, under a secret of this machine, of the attempt's key and of the very texts that are judged
(design 8): the target cannot know it, nor can whoever made a run folder, or got one back in which old nonces stand (a
text that held its own nonce would have another). Asking again is the same call, byte for byte.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources

from redinstruct.errors import TemplateError
from redinstruct.judges.neutral import Marks, sendable

NONCE_DIGITS = 16
"""64 bits: a target that guesses blindly hits one in 1.8e19 answers."""
LINE_MARK = "| "
HEAD_SHARE = 2 / 3


def make_nonce(secret: bytes, key: bytes, judge: str, *texts: str) -> str:
    """The nonce of one judge's call about one attempt and these texts (question, answer).

    Raises:
        ValueError: no secret or no key: every call would carry the same nonce, or one that anybody can compute.
    """
    if not secret or not key:
        raise ValueError("a nonce needs a secret and the attempt's key")
    parts = [judge.encode(), key, *(text.encode("utf-8", "surrogatepass") for text in texts)]
    bound = b"".join(hashlib.sha256(part).digest() for part in parts)
    return hmac.new(secret, bound, hashlib.sha256).hexdigest()[:NONCE_DIGITS]


def head_and_tail(text: str, longest: int | None) -> tuple[str, int, str]:
    """A text's head, how many characters are left out behind it, and its tail; together at most ``longest``, if any.

    Both ends are kept because a refusal stands at the head and "but here is how" anywhere behind it.
    """
    if longest is None or len(text) <= longest:
        return text, 0, ""
    head = round(longest * HEAD_SHARE)
    tail = longest - head
    return text[:head], len(text) - longest, text[len(text) - tail :] if tail else ""


def data_block(name: str, text: str, nonce: str, marks: Marks, longest: int | None = None) -> str:
    """A stranger's text between two marks that carry the nonce, every line of it behind ``| ``.

    Cut, where it must be, inside the block. The line mark alone already keeps any line of the text from being a line of
    the prompt, whatever characters it is made of; the neutralising is for a reader who does not look at line starts.
    """
    head, left_out, tail = head_and_tail(text, longest)
    lines = [f"<<<BEGIN {name} {nonce}>>>", *_quoted(head, marks)]
    if left_out:
        lines += [f"[{left_out} characters left out here {nonce}]", *_quoted(tail, marks)]
    return "\n".join((*lines, f"<<<END {name} {nonce}>>>"))


def _quoted(text: str, marks: Marks) -> list[str]:
    # Whatever splits lines for Python or for a model's eye is a line break here: sendable() made them all "\n".
    return [LINE_MARK + line for line in marks.neutralise(sendable(text)).split("\n")]


def last_line(reply: str) -> str:
    """The last line of a judge's reply that is not blank, without the ASCII blanks around it."""
    for line in reversed(reply.replace("\r\n", "\n").split("\n")):
        if stripped := line.strip(" \t\r"):
            return stripped
    return ""


@cache
def shipped_text(name: str) -> str:
    """The file ``texts/<name>``, byte for byte."""
    return resources.files(__package__).joinpath("texts", name).read_bytes().decode("utf-8")


def split_at(who: str, text: str, slots: Sequence[str]) -> tuple[str, ...]:
    """A text split at its slots, which stay among the parts: text, slot, text, slot, text.

    Raises:
        TemplateError: a slot is missing or stands there twice.
    """
    for slot in slots:
        if (found := text.count(slot)) != 1:
            how_many = "no" if found == 0 else str(found)
            raise TemplateError(f"{who}: {how_many} {slot} slot found, exactly one is needed")
    return tuple(re.split(f"({'|'.join(map(re.escape, slots))})", text))


def fill(parts: Sequence[str], values: Mapping[str, str]) -> str:
    """The text with its slots filled. One pass: what stands in a value is never read as a slot."""
    return "".join(values.get(part, part) for part in parts)
