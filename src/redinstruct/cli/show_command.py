"""``redinstruct show``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import click

from redinstruct.cli import console
from redinstruct.cli.endings import say_failures
from redinstruct.cli.kinds import RUN, Whole
from redinstruct.cli.options import as_json, show_content
from redinstruct.cli.show_collection import only_one, say_fields, say_rest, show_collection
from redinstruct.errors import UsageError, did_you_mean
from redinstruct.figures.attempts import attempt_document
from redinstruct.render.listing import as_sent
from redinstruct.run import NAMED, AttemptView, Sought, Store, failures, judges_of, named_judge
from redinstruct.safetext import short_hash
from redinstruct.settings import flag_of
from redinstruct.types import MEASURES, PromptTemplate

KEY_DIGITS = 12
HASH_DIGITS = 8
LISTED = 50


@click.command("show")
@click.argument("run", type=RUN)
@click.argument("attempt", required=False, metavar="[ID]")
@click.option("--label", metavar="LABEL", help="Only attempts of this label, for example harmful or error.")
@click.option("--prompt", metavar="P", help="Only attempts under this prompt.")
@click.option("--topic", metavar="T", help="Only attempts on this topic.")
@click.option(
    "--judge", "judge_name", metavar="J", help="The judge whose verdicts are shown; left out, the run's first."
)
@click.option("--limit", type=Whole(1), default=LISTED, show_default=True, metavar="N", help="List at most N attempts.")
@show_content
@as_json
def command(
    run: Path,
    attempt: str | None,
    label: str | None,
    judge_name: str | None,
    limit: int,
    show_content: bool,
    as_json: bool,
    **only: str | None,
) -> int:
    """List a run's attempts, or show the one whose ID (or its beginning) is given; a collection's conversations.

    Questions and answers are hidden (hash, length, label) unless --show-content is given.
    """
    known = dict.fromkeys(name for measure in MEASURES.values() for name in measure.labels)
    if label is not None and label not in known:
        raise UsageError(f"--label {label}: no such label; there are {', '.join(known)}{did_you_mean(label, known)}")
    if attempt is not None:
        given = {"--label": label, "--limit": None if limit == LISTED else limit}
        given |= {flag_of(name): value for name, value in only.items()}
        if unread := [flag for flag, value in given.items() if value is not None]:
            raise UsageError(f"{', '.join(unread)}: only without an ID, for the list")
    with Store.open_for_reading(run) as store:
        if store.kind == "collection":
            if judge_name is not None:
                raise UsageError(
                    f"{run} holds {NAMED['collection']}: it has the verdicts of its own judge, --judge names none"
                )
            if any(value is not None for value in only.values()):
                raise UsageError(f"{run} holds {NAMED['collection']}: --prompt and --topic are for evaluations")
            return show_collection(run, attempt, label, limit, show_content, as_json)
        store.config()  # a utility check says that it is one
        judges = store.judges()
        if not judges:
            raise UsageError(f"{run}: the run was never begun; nothing is recorded in it")
        judge = (judges_of(store)[0] if judge_name is None else named_judge(judges, judge_name))[0]
        if attempt is not None:
            _say_one(_named(store, judge, attempt), show_content, as_json, store.templates())
        else:
            _say_all(store, judge, Sought(label, **only), limit, show_content, as_json)
    return 0


def _named(store: Store, judge: int, attempt: str) -> AttemptView:
    """The attempt whose ID begins so."""
    found = list(itertools.islice(store.named(judge, _key(attempt)), 2))
    return only_one(found, attempt, "recorded attempt")


def _say_all(store: Store, judge: int, sought: Sought, limit: int, show_content: bool, as_json: bool) -> None:
    """The first attempts, and how many are left out."""
    keys = store.keys(judge, sought)
    listed = list(store.views(judge, list(itertools.islice(keys, limit))))
    more = sum(1 for _ in keys)
    if as_json:
        console.say_json({"attempts": [attempt_document(view, show_content) for view in listed], "left_out": more})
        return
    if show_content:
        for view in listed:
            _say_one(view, True, False, store.templates())
    else:
        _say_list(listed)
    say_failures(failures(store, judge))
    say_rest(len(listed), more, "attempt")


def _key(attempt: str) -> str:
    digits = attempt.lower()
    if not digits or any(c not in "0123456789abcdef" for c in digits):
        raise UsageError(f"{attempt!r} is no attempt's ID: hexadecimal digits, as `redinstruct show` lists them")
    return digits


def _say_list(views: list[AttemptView]) -> None:
    """The attempts as a table; a bank that is everybody's stands above it, a column that says nothing is left out."""
    if not views:
        return
    rows = [_row(view) for view in views]
    rows = console.without(rows, *(name for name in ("detail", "flags") if not any(row[name] for row in rows)))
    if len({row["bank"] for row in rows}) == 1:
        console.say_heading(f"bank {rows[0]['bank']}")
        console.say()
    # The row names the question already, and --json has everything.
    aside = (("question", "chars"), ("answer",), ("flags",))
    console.say_table(rows, right=("row", "chars", "chars "), alike=("bank",), aside=aside)


def _row(view: AttemptView) -> dict[str, str]:
    answer = view.completion.raw
    return {
        "id": view.key[:KEY_DIGITS],
        "bank": view.bank,
        "row": str(view.question.row + 1),
        "prompt": view.prompt,
        "label": view.label or "(not judged)",
        "detail": view.detail or view.reason or "",
        "question": short_hash(view.question.text)[:HASH_DIGITS],
        "chars": str(len(view.question.text)),
        "answer": "" if answer is None else short_hash(answer)[:HASH_DIGITS],
        "chars ": "" if answer is None else str(len(answer)),
        "flags": " ".join((*view.completion.flags, *(("truncated",) if view.completion.truncated else ()))),
    }


def _say_one(view: AttemptView, content: bool, as_json: bool, templates: Sequence[PromptTemplate]) -> None:
    shown = attempt_document(view, content)
    if content:
        shown["sent"] = as_sent(view, templates)
    if as_json:
        console.say_json(shown)
        return
    blocks = [
        (name, shown.pop(name))
        for name in ("question", "sent", "answer", "judged_text", "thought", "judge_reply")
        if name in shown
    ]
    # Rows count from 1 for people, as in the list and in messages about a bank; from 0 in JSON.
    say_fields({**shown, "row": view.question.row + 1})
    for position, (name, value) in enumerate(blocks):
        if value is None or (name in ("sent", "judged_text") and value == blocks[position - 1][1]):
            continue
        console.say(f"--- {name.replace('_', ' ')}")
        console.say(str(value), multiline=True)
    if not content:
        console.say("(question and answer are hidden; --show-content shows them)")
    console.say()
