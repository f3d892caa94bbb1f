"""The command line: thin, one file per verb, loaded when it is asked for.

Nothing but this module and click is imported before a verb is known, so that ``--help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

import click

from redinstruct.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, RedInstructError, did_you_mean
from redinstruct.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMPLETE = "_REDINSTRUCT_COMPLETE"
VERBS: dict[str, str] = {
    "demo": "See the effect on a tiny model that is trained here: no key, no GPU, no network.",
    "toyworld": "Build that tiny model as an ordinary checkpoint.",
    "eval": "Measure a model: ask a question bank under Standard, CoT and CoU prompts.",
    "judge": "Judge a run's answers again, by another judge; never samples.",
    "collect": "Collect questions and safe conversations from any teacher; red ones with --red.",
    "export": "Write a collection out for training or publishing, with a data card.",
    "align": "Fine-tune a checkpoint to be safer, guarded and resumable; prove it with eval and compare.",
    "utility": "Is a model still useful? TruthfulQA, MMLU, BBH, HHH, bias; before and after.",
    "loop": "All of it from one TOML file: measure, collect, align, measure again, compare; resumable.",
    "stress": "How long does a repair last? Attack a checkpoint: begun answers, tries, tuning, rounding.",
    "sweep": "Which recipe? Strategies x settings x seeds in one table, on one front.",
    "report": "Figures of one or more runs: rates, intervals, bounds, by topic.",
    "compare": "Before and after: better, worse, no difference shown, or not comparable.",
    "gate": "Does a run keep to a limit, for sure? Exit 0, 10 or 11.",
    "annotate": "Label a random part by hand, in the browser; the report then corrects the judge.",
    "labels": "People's labels: what they say, and to and from CSV, Argilla, Label Studio.",
    "view": "All runs of a folder in the browser: list, filter, compare two, open any report.",
    "list": "List the runs in a folder: what each is, and how far.",
    "show": "List a run's attempts, or read one.",
    "import": "Make a run of answers that were collected elsewhere.",
    "shard": "Deal a run out to machines without a common network.",
    "merge": "Put the shards of a run together again.",
    "plan": "What an eval would cost: calls, tokens, money. Asks nothing.",
    "banks": "List the known question banks, or fetch one.",
    "hub": "Push data and checkpoints to the Hugging Face hub, with their cards; pull them, pinned.",
    "models": "How to name a model, and what each kind reads.",
    "seal": "Encrypt a run's texts on the disk, or change the key.",
    "doctor": "What is installed here, which devices, addresses and keys are seen; never their values.",
    "completion": "Let your shell complete verbs, flags, banks, prompts and judges.",
    "purge": "Overwrite and remove a run folder.",
}


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are called; their one-line helps stand in :data:`VERBS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs in the order of the loop."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb's file."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"redinstruct.cli.{cmd_name}_command").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb that was named; of one that is none, the nearest."""
        if args and args[0] not in VERBS and not args[0].startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"no such verb: {args[0]!r}{did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, without importing them."""
        from click.shell_completion import CompletionItem

        verbs = [CompletionItem(verb, help=what) for verb, what in VERBS.items() if verb.startswith(incomplete)]
        return verbs or super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="redinstruct")
@click.pass_context
def root(context: click.Context) -> int:
    """Measure how often a language model can be talked into harm, and mend it (Red-Instruct).

    Start with `redinstruct plan` or `redinstruct eval`; each verb has its own --help.
    """
    if context.invoked_subcommand is None:
        from redinstruct.cli import console

        console.say(context.get_help(), multiline=True)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code. Every failure is one line on standard error."""
    try:
        with root.make_context("redinstruct", list(sys.argv[1:] if arguments is None else arguments)) as context:
            code = root.invoke(context)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        return _fail(_usage_line(error), EXIT_USAGE)
    except KeyboardInterrupt as stop:
        far = "".join(f", {told}" for told in getattr(stop, "__notes__", ()))
        return _fail(f"interrupted{far}; the same command goes on where it stopped", EXIT_INTERRUPTED, prefix="")
    except click.Abort:
        return _fail("stopped; nothing was done", EXIT_INTERRUPTED, prefix="")
    except RedInstructError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): nothing to say, and nobody to say it to.
        return EXIT_FAILED
    except Exception as error:
        return _unexpected(error)


def _usage_line(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    hint = f" (see {context.command_path} --help)" if context is not None else ""
    return f"{' '.join(error.format_message().split())}{hint}"


def _fail(message: str, code: int, prefix: str = "redinstruct: ") -> int:
    from redinstruct.cli import console

    console.note(f"{prefix}{message}")
    return code


def _unexpected(error: Exception) -> int:
    """A fault of ours: one line, and the traceback only where it was asked for; keys never."""
    import traceback

    from redinstruct.cli import console

    if os.environ.get("REDINSTRUCT_DEBUG"):
        console.note("".join(traceback.format_exception(error)), multiline=True)
    return _fail(
        f"internal error ({type(error).__name__}: {error}); set REDINSTRUCT_DEBUG=1 for the traceback", EXIT_FAILED
    )


def _complete() -> int:
    """Answer a shell that asks what may come next."""
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, "redinstruct", COMPLETE, os.environ[COMPLETE])


def entry() -> None:
    """The console script."""
    code = _complete() if COMPLETE in os.environ else main()
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # What is left in the buffer has nowhere to go; without this the interpreter says so in a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
