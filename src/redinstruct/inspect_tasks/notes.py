"""What a sample carries of ours in its metadata, so that solvers, scorers and ``import`` know what it is."""

from __future__ import annotations

import msgspec

from redinstruct.files import Fields
from redinstruct.interop.inspect_rows import KEY
from redinstruct.prompts import SHIPPED, parse_template, shipped
from redinstruct.types import PromptTemplate


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """Of which bank, under which prompt. ``template`` is the text of one that is not shipped, ``system`` said first."""

    question: str | None = None
    bank: str | None = None
    prompt: str = "standard"
    template: str | None = None
    system: str | None = None
    seed: int | None = None

    @property
    def frame(self) -> PromptTemplate:
        """The prompt's template."""
        return shipped(self.prompt) if self.template is None else parse_template(self.prompt, self.template)


def note_of(metadata: Fields | None) -> Note:
    """A sample's note; of a sample of another task, that it asks its question as it stands."""
    held = (metadata or {}).get(KEY)
    return msgspec.convert(held, type=Note) if isinstance(held, dict) else Note()


def kept(note: Note) -> Fields:
    """The note, as metadata holds it."""
    return {KEY: msgspec.to_builtins(note)}


def text_of(template: PromptTemplate) -> str | None:
    """A template's text, where it is not a shipped one."""
    known = template.name in SHIPPED and shipped(template.name).sha256 == template.sha256
    return None if known else template.text
