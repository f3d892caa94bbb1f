"""``redinstruct completion``."""

from __future__ import annotations

import click

from redinstruct.cli import COMPLETE, console, root
from redinstruct.errors import EXIT_DONE

_HOW = {
    "bash": 'eval "$(redinstruct completion bash)"   # in ~/.bashrc (bash 4.4 or newer)',
    "zsh": 'eval "$(redinstruct completion zsh)"   # in ~/.zshrc, after compinit',
    "fish": "redinstruct completion fish > ~/.config/fish/completions/redinstruct.fish",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_HOW)))
def command(shell: str) -> int:
    """What makes a shell complete verbs, flags, banks, prompts and judges at the tab key.

    \b
    bash   eval "$(redinstruct completion bash)"    in ~/.bashrc (bash 4.4 or newer)
    zsh    eval "$(redinstruct completion zsh)"     in ~/.zshrc, after compinit
    fish   redinstruct completion fish > ~/.config/fish/completions/redinstruct.fish
    """  # noqa: D301  (\b is click's mark for "leave these lines")
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(root, {}, "redinstruct", COMPLETE)
    console.say(f"# {_HOW[shell]}")
    console.say(made.source_template % made.source_vars(), multiline=True)
    return EXIT_DONE
