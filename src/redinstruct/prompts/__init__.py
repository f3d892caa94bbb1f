"""The prompt templates and the way from a model's raw text to the text that a judge reads.

``render`` fills the one slot in one pass: what stands in a question is never read again as a template.
``judged_text`` is the other direction (see :mod:`redinstruct.prompts.answers`).
"""

from __future__ import annotations

from redinstruct.prompts.answers import AnswerReader, JudgedText
from redinstruct.prompts.templates import (
    DEFAULT_PROMPTS,
    SHIPPED,
    load_template,
    parse_template,
    read_template_file,
    read_text_file,
    render,
    shipped,
)

__all__ = [
    "DEFAULT_PROMPTS", "SHIPPED", "AnswerReader", "JudgedText", "load_template", "parse_template",
    "read_template_file", "read_text_file", "render", "shipped",
]  # fmt: skip
