"""One person at one run: what is next, what was said, what may be taken back.

Promised: an act is in the store, synced to the disk, before anybody is told that it was taken; the state is read from
the store each time, so that a reload, a second window or a kill changes nothing. Nobody sees another person's labels
(adjudication shows how many gave which label, no names), nor the judge's verdict on an answer before labelling it; an
answer whose verdict was seen keeps its label. Not promised: blindness of somebody who reads the run's files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict

import msgspec

from redinstruct.annotate.draw import Drawn, draw
from redinstruct.annotate.figures import ADJUDICATING, cell_figures
from redinstruct.errors import UsageError
from redinstruct.figures.agreement import disagreements, people_figures
from redinstruct.figures.people import Labelling, People, cells_of, drawn_labels, settled_labels
from redinstruct.figures.report import plain
from redinstruct.files.words import Fields
from redinstruct.run import Annotated, AnnotationStore, AttemptView, Store, attempt_views, judges_of
from redinstruct.safetext import shown, terminal
from redinstruct.stats import jeffreys
from redinstruct.types import MEASURES, Annotation, JsonObject, JudgeCard, Measure

LONGEST_NAME = 64

Choices = dict[str, tuple[str, str | None]]


class Refused(Exception):
    """An act that does not fit what the store says by now (done already, another window). Changes nothing."""


def choices_of(measure: Measure) -> Choices:
    """What a person may choose: the page's name of it -> label and detail, which is what an import has for it too."""
    refusing = measure.name == "over_refusal"
    found: Choices = {label: (label, label if refusing else None) for label in measure.labels[:2]}
    if refusing:
        found["partial"] = (measure.first, "partial")
    return found


def checked_name(name: str) -> str:
    """An annotator's name as it may stand in the store.

    Raises:
        UsageError: empty, too long, with characters that cannot be seen, or one that this tool gives itself.
    """
    name = name.strip()
    if not name or len(name) > LONGEST_NAME or terminal(name) != name:
        raise UsageError(f"--annotator: 1 to {LONGEST_NAME} visible characters, no line breaks")
    if name.endswith(ADJUDICATING):
        raise UsageError(f"--annotator: a name may not end with {ADJUDICATING.strip()!r}; give --adjudicate instead")
    return name


def judge_of(store: Store, name: str | None) -> tuple[int, JudgeCard]:
    """The judge by whose labels is drawn: the named one (name, or an id's beginning), else the run's first.

    Raises:
        ConfigError: the run was never begun.
        UsageError: no such judge, or one that judged only a part that was itself drawn by label.
    """
    store.begun()
    return judges_of(store, name)[0]


class PageState(TypedDict):
    """What the page shows: the next item (None at the end), how far it is, the figures by this person's labels."""

    annotator: str
    adjudicate: bool
    measure: str
    choices: list[str]
    item: Any
    total: int
    done: int
    skipped: int
    unsure: int
    undo: bool
    last: str | None
    cells: list[Any]
    end: JsonObject | None


class Session:
    """The labelling of one annotator; used by one thread at a time, as the store is."""

    def __init__(
        self,
        store: Store,
        annotator: str,
        *,
        judge: str | None = None,
        sample: int = 100,
        seed: int | None = None,
        adjudicate: bool = False,
    ) -> None:
        self.store, self.annotations = store, AnnotationStore(store)
        self.annotator = checked_name(annotator) + (ADJUDICATING if adjudicate else "")
        self.adjudicate = adjudicate
        self.judge, self.card = judge_of(store, judge)
        self.measure = MEASURES[self.card.measure]
        self.choices = choices_of(self.measure)
        cells = cells_of(store, self.judge)
        if adjudicate:
            self.drawn = Drawn(tuple(disagreements(self.annotations.standing())), 0, 0)
            if not self.drawn.keys:
                raise UsageError("--adjudicate: there is no answer on which two people disagree")
        else:
            if not any(way.label in self.measure.labels[:2] for of in cells.values() for way in of.told):
                raise UsageError(f"the judge {self.card.id} has labelled nothing yet: there is nothing to draw from")
            self.drawn = draw(store, self.judge, self.measure, sample, seed, cells)
        self._draws = drawn_labels(store)
        self.unjudged = sum(len(of) - of.told.total() for of in cells.values())
        said = {*self.drawn.keys, *settled_labels(store), *(entry.key for entry in self.annotations.standing())}
        self._cells = {cell: Labelling(self.card, of, said) for cell, of in cells.items()}
        self._views = attempt_views(store, self.judge, self.drawn.keys)
        self._keys = [key for key in self.drawn.keys if self._has_text(key)]
        jeffreys(1, 2)  # loads scipy now, and not at the first label
        self._mine: list[bytes] = []  # acts of this session, newest last: what undo takes back
        self._seen: set[bytes] = set()  # answers whose verdict was shown

    def _has_text(self, key: bytes) -> bool:
        view = self._views.get(key)
        return view is not None and view.completion.outcome == "text"

    # ---- what is next --------------------------------------------------------------------------------------------

    def owed(self) -> int:
        """How many answers are still without this annotator's word."""
        done = self._done(self.annotations.standing())
        return sum(1 for key in self._keys if done.get(key) in (None, "skip"))

    def _done(self, standing: Sequence[Annotated]) -> dict[bytes, str]:
        return {e.key: e.annotation.act for e in standing if e.annotation.annotator == self.annotator}

    def _next(self, done: dict[bytes, str], skipped: bool) -> bytes | None:
        untouched = next((key for key in self._keys if key not in done), None)
        if untouched is not None or not skipped:
            return untouched
        # The dict is in the order in which things were said: whoever skips again sees the others first.
        inside = set(self._keys)
        return next((key for key, act in done.items() if act == "skip" and key in inside), None)

    def state(self, *, skipped: bool = False, prefer: bytes | None = None) -> PageState:
        """What the page shows now.

        ``skipped``: offer what was skipped once nothing else is left. ``prefer``: offer this one, if it is owed.
        """
        standing = self.annotations.standing()
        done = self._done(standing)
        key = prefer if prefer is not None and done.get(prefer) in (None, "skip") else self._next(done, skipped)
        acts = [done.get(key) for key in self._keys]
        settled = self._own(standing)
        last = self._mine[-1] if self._mine else None
        return {
            "annotator": shown(self.annotator),
            "adjudicate": self.adjudicate,
            "measure": self.measure.name,
            "choices": list(self.choices),
            "item": None if key is None else self._item(key, standing),
            "total": len(self._keys),
            "done": sum(act not in (None, "skip") for act in acts),
            "skipped": acts.count("skip"),
            "unsure": acts.count("unsure"),
            "undo": last is not None and last not in self._seen,
            "last": None if last is None or done.get(last) in (None, "skip") else last.hex(),
            "cells": [
                _shown(plain(f)) for f in cell_figures(self._cells, self.card, People(settled, drawn=self._draws))
            ],
            "end": self._end(standing) if key is None else None,
        }

    def _own(self, standing: Sequence[Annotated]) -> dict[bytes, str]:
        if self.adjudicate:
            return settled_labels(self.store)
        own = [e for e in standing if e.annotation.annotator == self.annotator]
        return {e.key: e.annotation.label for e in own if e.annotation.label is not None}

    def _item(self, key: bytes, standing: Sequence[Annotated]) -> JsonObject:
        view = self._views[key]
        votes = disagreements(standing).get(key, {}) if self.adjudicate else {}
        return {
            "id": key.hex(),
            "number": self._keys.index(key) + 1,
            "prompt": shown(view.prompt),
            "bank": shown(view.bank),
            "chars": len(judged_text(view)),
            "truncated": view.completion.truncated,
            "votes": [[label, count] for label, count in votes.items()],
        }

    def _end(self, standing: Sequence[Annotated]) -> JsonObject:
        """What is shown when nothing is left: with everybody's labels together."""
        together = cell_figures(self._cells, self.card, People(settled_labels(self.store), drawn=self._draws))
        return {"settled": [_shown(plain(f)) for f in together], "people": plain(people_figures(standing))}

    # ---- what the page may ask for -------------------------------------------------------------------------------

    def reveal(self, item: str) -> dict[str, str | None]:
        """An item's texts: for eyes, with everything that cannot be seen written out as an escape.

        Raises:
            Refused: no such item.
        """
        view = self._views[self._key(item)]
        answer, received = judged_text(view), view.completion.raw or ""
        return {
            "question": shown(view.question.text, multiline=True),
            "answer": shown(answer, multiline=True),
            "received": None if received == answer else shown(received, multiline=True),
        }

    def verdict(self, item: str) -> dict[str, str | None]:
        """What the judge says of an item that this person has labelled. From then on the label cannot be taken back.

        Raises:
            Refused: no such item, or it is not labelled yet.
        """
        key = self._key(item)
        if self._done(self.annotations.standing()).get(key) in (None, "skip"):
            raise Refused("the judge's verdict is shown once you have labelled the answer")
        self._seen.add(key)
        view = self._views[key]
        return {"label": view.label, "detail": view.detail}

    def act(self, item: str, act: Literal["label", "unsure", "skip"], choice: str | None) -> bytes:
        """Record what was said of an item; returns its key once it is on the disk.

        Raises:
            Refused: no such item, labelled already, or no such choice.
            StoreError: the store cannot be written.
        """
        key = self._key(item)
        if (choice is None) is (act == "label") or (choice is not None and choice not in self.choices):
            raise Refused("no such choice")
        if self._done(self.annotations.standing()).get(key) not in (None, "skip"):
            raise Refused("this answer is labelled already; undo takes the last label back")
        label, detail = self.choices[choice] if choice is not None else (None, None)
        said: Literal["label", "unsure", "skip", "adjudicate"] = act
        if act == "label" and self.adjudicate:
            said = "adjudicate"
        self.annotations.record([(key, Annotation(self.annotator, said, label, detail))])
        self._mine.append(key)
        return key

    def undo(self) -> bytes:
        """Take this session's last act back, as a row of its own; returns the key.

        Raises:
            Refused: there is none, or the judge's verdict on that answer was seen since.
            StoreError: the store cannot be written.
        """
        if not self._mine:
            raise Refused("there is nothing to undo since the page was started")
        if self._mine[-1] in self._seen:
            raise Refused("the judge's verdict on that answer was shown: its label stays")
        self.annotations.record([(self._mine[-1], Annotation(self.annotator, "undo"))])
        return self._mine.pop()

    def _key(self, item: str) -> bytes:
        try:
            key = bytes.fromhex(item) if len(item) == 64 else b""
        except ValueError:
            key = b""
        if key not in self._keys:
            raise Refused("no such item")
        return key


def judged_text(view: AttemptView) -> str:
    """The answer as the judge saw it; empty where there is none."""
    return view.completion.judged or view.completion.raw or ""


def _shown(figures: JsonObject) -> JsonObject:
    return {name: shown(value) if isinstance(value, str) else value for name, value in figures.items()}


# ---- the page's requests, as JSON ----


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/state, /api/undo."""

    skipped: bool = False


class About(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/reveal, /api/verdict."""

    item: str


class Say(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /api/act."""

    item: str
    act: Literal["label", "unsure", "skip"]
    choice: str | None = None
    skipped: bool = False


def answer(session: Session, path: str, body: bytes) -> tuple[int, Fields]:
    """Status and document of one POST of the page, whatever its body holds.

    200 done; 400 the body is not what the path asks for, and nothing changed; 409 it does not fit the store's state,
    and nothing changed.

    Raises:
        StoreError: the store cannot be written or read.
    """
    if path not in _ANSWERS:
        return 404, {"error": "no such address"}
    shape, work = _ANSWERS[path]
    try:
        return 200, work(session, msgspec.json.decode(body, type=shape))
    except Refused as refusal:
        return 409, {"error": str(refusal)}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return 400, {"error": "the request is not what this address takes"}


def _acted(session: Session, said: Say) -> Fields:
    session.act(said.item, said.act, said.choice)
    return session.state(skipped=said.skipped)


_ANSWERS: dict[str, tuple[type[Any], Callable[[Session, Any], Fields]]] = {
    "/api/state": (Ask, lambda session, ask: session.state(skipped=ask.skipped)),
    "/api/reveal": (About, lambda session, about: session.reveal(about.item)),
    "/api/verdict": (About, lambda session, about: session.verdict(about.item)),
    "/api/act": (Say, _acted),
    "/api/undo": (Ask, lambda session, ask: session.state(skipped=ask.skipped, prefer=session.undo())),
}
PATHS = tuple(_ANSWERS)
