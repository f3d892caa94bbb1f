"""What a shell may complete at the tab key: names that are known, and files."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem


def _banks() -> Iterable[str]:
    from redinstruct.banks import KNOWN

    return [name for name, known in KNOWN.items() if known.kind == "bank"]


def _prompts() -> Iterable[str]:
    from redinstruct.prompts.templates import SHIPPED

    return SHIPPED


def _judges() -> Iterable[str]:
    from redinstruct.judges.registry import JUDGES

    return JUDGES


def _models() -> Iterable[str]:
    from redinstruct.models.scripted import BEHAVIOURS

    return ["openai/", "openai-api/", "hf/", *(f"scripted/{name}" for name in sorted(BEHAVIOURS))]


NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "model": _models, "banks": _banks, "prompts": _prompts, "judge": _judges,
}  # fmt: skip
"""Setting -> the names that it is known to take; imported when a shell asks."""
FILES = ("banks", "prompts")
"""Those that take a file, too."""


def completed(_: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The names of a setting that begin so, or the files."""
    found = [CompletionItem(name) for name in NAMES[param.name or ""]() if name.startswith(incomplete)]
    return [*found, *([CompletionItem(incomplete, type="file")] if param.name in FILES else [])]
