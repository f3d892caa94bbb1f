"""What a shell may complete at the tab key: names that are known, and files."""

from __future__ import annotations

from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem


def banks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The known banks, or a file."""
    from redinstruct.banks import KNOWN

    return _completed([name for name, known in KNOWN.items() if known.kind == "bank"], incomplete)


def prompts(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The shipped prompts, or a file."""
    from redinstruct.prompts.templates import SHIPPED

    return _completed(list(SHIPPED), incomplete)


def judges(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The judges."""
    from redinstruct.judges.registry import JUDGES

    return _completed(list(JUDGES), incomplete, files=False)


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """The kinds of models, and the fakes."""
    from redinstruct.models.scripted import BEHAVIOURS

    kinds = ["openai/", "openai-api/", "hf/", *(f"scripted/{name}" for name in sorted(BEHAVIOURS))]
    return _completed(kinds, incomplete, files=False)


def _completed(names: Sequence[str], incomplete: str, *, files: bool = True) -> list[CompletionItem]:
    """What a shell may complete: the names that begin so, or the files."""
    found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return [*found, *([CompletionItem(incomplete, type="file")] if files else [])]
