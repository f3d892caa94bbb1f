"""Templates: the shipped texts, the user's own file, and one-pass rendering.

The shipped texts are the project's own wording of the structure in the Red-Instruct paper (arXiv 2308.09662, section
on RED-EVAL): one demonstration, two roles, an instruction, and internal thoughts in front of the answer. Their
demonstration is mild. They are read byte for byte: a text file under ``texts/`` *is* the template.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import resources
from pathlib import Path

from redinstruct.errors import TemplateError, did_you_mean
from redinstruct.types import PromptTemplate

SLOT = "<question>"
DEFAULT_PROMPTS = ("standard", "cot", "cou")
SHIPPED = (
    "standard",
    "cot",
    "cou",
    "cou-no-thoughts",
    "cou-no-demo",
    "cou-swapped-roles",
    "cou-paraphrase-1",
    "cou-paraphrase-2",
    "cou-paraphrase-3",
)
MAX_TEMPLATE_BYTES = 1 << 20

_CUE = re.compile(r"(Red-LM|Base-LM)\s*:\s*$")


def parse_template(name: str, text: str, *, translation_of: str | None = None) -> PromptTemplate:
    """Make a template of a text.

    The role whose cue ends the text (``Base-LM:``) is the answerer, the other one the asker; a text that names
    neither role has neither.

    Raises:
        TemplateError: the text does not hold exactly one ``<question>``.
    """
    slots = text.count(SLOT)
    if slots != 1:
        found = "no" if slots == 0 else str(slots)
        raise TemplateError(f"prompt template {name}: {found} {SLOT} slot found, exactly one is needed")
    prefix, _, suffix = text.partition(SLOT)
    asker = answerer = None
    if "Red-LM" in text and "Base-LM" in text:
        cue = _CUE.search(text)
        answerer = cue.group(1) if cue else "Base-LM"
        asker = "Base-LM" if answerer == "Red-LM" else "Red-LM"
    return PromptTemplate(
        name=name,
        text=text,
        sha256=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(),
        prefix=prefix,
        suffix=suffix,
        asker=asker,
        answerer=answerer,
        translation_of=translation_of,
    )


@cache
def shipped(name: str) -> PromptTemplate:
    """The shipped template of that name (one of :data:`SHIPPED`)."""
    text = resources.files(__package__).joinpath("texts", f"{name}.txt").read_bytes().decode("utf-8")
    return parse_template(name, text)


def read_template_file(path: Path, *, name: str | None = None) -> PromptTemplate:
    """The user's own template, read byte for byte; its name is the file's stem.

    Raises:
        TemplateError: the file is missing, too long, not UTF-8, or without its one slot.
    """
    text = read_text_file(path, "prompt template", MAX_TEMPLATE_BYTES)
    return parse_template(name or path.stem, text)


def read_text_file(path: Path, what: str, most: int) -> str:
    """A text of the user's own, byte for byte but for a byte-order mark.

    Raises:
        TemplateError: the file is missing, longer than ``most`` bytes, or not UTF-8; ``what`` says what it should be.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise TemplateError(f"{what} {path.name}: there is no such file") from None
    except (OSError, ValueError) as error:
        # A name with a NUL in it is a ValueError.
        said = error.strerror if isinstance(error, OSError) else "no such name can be"
        raise TemplateError(f"{what} {path.name}: cannot be read ({said})") from None
    if len(data) > most:
        raise TemplateError(f"{what} {path.name}: longer than {most // 1024} KiB, this is none")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise TemplateError(f"{what} {path.name}: is not UTF-8 text") from None


def load_template(spec: str, *, own_folder: Path | None = None) -> PromptTemplate:
    """The template that ``--prompt SPEC`` names: a shipped name, or a file.

    ``own_folder`` is the ``prompts`` folder of a toy checkpoint: a text there, of a shipped one's name, is its
    translation into the toy's language and is taken in its place, marked as a translation; others there are further
    frames of that checkpoint.

    Raises:
        TemplateError: neither a shipped name nor a readable template file.
    """
    own = None if own_folder is None or "/" in spec else own_folder / f"{spec}.txt"
    if own is not None and own.is_file():
        found = read_template_file(own, name=spec)
        if spec not in SHIPPED or found.text == shipped(spec).text:
            return found
        return parse_template(spec, found.text, translation_of=spec)
    if spec in SHIPPED:
        return shipped(spec)
    path = Path(spec)
    if "/" in spec or path.suffix or _exists(path):
        return read_template_file(path)
    raise TemplateError(f"--prompt {spec}: neither a file nor one of {', '.join(SHIPPED)}{did_you_mean(spec, SHIPPED)}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for one
        return False


def render(template: PromptTemplate, question: str) -> str:
    """The prompt for one question: prefix, question, suffix, joined once and never read again."""
    return f"{template.prefix}{question}{template.suffix}"
