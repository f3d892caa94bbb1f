"""Report pages for tests: a project with something in every slot, its strings replaced, and what a page is made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.prompts import parse_template
from redinstruct.render.overview import Project, read_runs
from redinstruct.run import AnnotationStore, Store
from redinstruct.types import Annotation, Completion, JudgeCard, Verdict
from tests.support.stores import Setup, make_bank
from tests.support.useful import check, right

CARD = JudgeCard(
    "rubric", "attack_success", "openai/judge", "ab" * 32, (("output", "line"), ("rubric", "mine")), notes=("a limit",)
)
STRONG = JudgeCard("guard", "attack_success", "openai/guard", "cd" * 32, (("kind", "family"),), notes=("another",))
SELFTEST = {
    "balanced_accuracy": 0.95, "sensitivity": 0.9, "specificity": 1.0, "cases": 20, "repeats": 3, "repeats_equal": 2,
    "battery": "0" * 12, "forced": True, "by_family": {"echo": [9, 10], "quoted": [10, 10]},
}  # fmt: skip
TEMPLATES = (
    parse_template("standard", "<question>"),
    parse_template("cou", "Red-LM: <question>\nBase-LM:", translation_of="cou"),
)


def full_run(folder: Path, model: str, *, flip: bool = False) -> Path:
    """A run with everything that a page can show: two banks, people's labels, a second judge on a part, failures."""
    setup = Setup(
        banks=(make_bank(6, "bank one"), make_bank(4, "bank two")), templates=TEMPLATES, card=CARD, model=model
    )
    labels = ["harmful", "unharmful", "harmful", "unharmful", "unparsable", "judge_refused"]
    with Store.open_for_writing(folder) as store:
        judge = setup.plan(store)
        store.add_selftest(judge, json.dumps(SELFTEST), 40, 5)
        for owed in store.owed(judge):
            row, place = owed.row, owed.row % 8
            if place > 5:
                failed = Completion(
                    "error", reason=f"reason {place}", note=f"the endpoint says {'no' * place}", tries=6
                )
                store.commit_completions([(row, 0, failed)])
                continue
            words = Completion("text", f"answer {row}", f"answer {row}", truncated=not row % 3, flags=("thought",))
            store.commit_completions([(row, 0, words)])
            label = labels[1 - place] if flip and place < 2 else labels[place]
            said = Verdict(label, ("complied", "refused", "partial", "garbled", None, None)[place],
                           None if place < 4 else f"cause {place}", f"the judge's reply {row}", 9, 2, 1,
                           note=None if place < 4 else f"the judge's endpoint says {'so' * place}")  # fmt: skip
            store.commit_verdicts([(row, 0, judge, 0, said)])
        strong = store.add_judge(STRONG)
        store.add_sample(strong, judge, 2)
        store.commit_verdicts([(row, 0, strong, 0, Verdict("harmful")) for row in (1, 2, 3, 8, 9, 10)])
        keys = [attempt.key for attempt in setup.attempts]
        AnnotationStore(store).record([(keys[i], Annotation("ann", "label", "harmful")) for i in (0, 1, 2, 3, 8, 9)])
        AnnotationStore(store).record([(keys[i], Annotation("bo", "label", "harmful")) for i in (0, 1)])
    return folder


def full_project(folder: Path) -> Project:
    """Two such runs and two utility checks, so that there is a before and an after of both."""
    return read_runs(
        [
            full_run(folder / "before", "openai/first"),
            full_run(folder / "after", "openai/last", flip=True),
            check(folder / "useful", {"task one": right(2, 3), "other": right(1, 2)}),
            check(folder / "useful-after", {"task one": right(1, 3), "other": right(1, 2)}, shots=0),
        ]
    )


CONTROLLED = frozenset(
    {
        "measure",
        "label",
        "outcome",
        "act",
        "method",
        "protocol",
        "key",
        "verdict",
        "direction",
        "clustered_by",
        "average",
        "limit_rule",
        "by",
        "beyond",
        "question_hash",
        "answer_hash",
    }
)
"""Fields that hold this project's own words: the store refuses, or never holds, any other."""
OWN_KEYS = frozenset({"parameters", "by_family", "reasons"})
"""Mappings whose keys are strangers' words."""


def replaced(project: Project, new: Callable[[str], str]) -> Project:
    """The project with every string that a stranger may have written put through ``new``, keys of mappings too."""

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            strange = name in OWN_KEYS
            return {new(k) if strange else k: walk(v, "" if strange else k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [walk(item, name) for item in value]
        return new(value) if isinstance(value, str) and name not in CONTROLLED else value

    return msgspec.convert(walk(msgspec.to_builtins(project), ""), Project)


def strings_of(project: Project) -> list[str]:
    """Every such string, each once."""
    found: dict[str, None] = {}

    def note(text: str) -> str:
        found[text] = None
        return text

    replaced(project, note)
    return list(found)


class Page(HTMLParser):
    """What a page is made of: its tags with the names of their attributes, in order; and its text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.shape: list[tuple[str, ...]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.shape.append((tag, *(name for name, _ in attrs)))
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.shape.append((f"/{tag}",))

    def handle_comment(self, data: str) -> None:
        self.shape.append(("comment",))

    def handle_decl(self, decl: str) -> None:
        self.shape.append(("declaration", decl))

    def handle_pi(self, data: str) -> None:
        self.shape.append(("instruction",))

    def unknown_decl(self, data: str) -> None:
        self.shape.append(("unknown",))

    def handle_data(self, data: str) -> None:
        self.text += data
