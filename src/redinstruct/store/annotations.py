"""People's part of the run store: what they said of an answer, and which answers they were shown.

The same promises as the rest of the store: rows are only added, and a committed one is synced to the disk before
anybody is told. ``undo`` is a row too: it takes back the annotator's newest act on that answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import msgspec

from redinstruct.errors import StoreError
from redinstruct.store.database import Store, _reading
from redinstruct.store.rows import blob, restored, stored
from redinstruct.types import Annotation


class Annotated(msgspec.Struct, frozen=True):
    """One standing act: the attempt's key (32 bytes), and what a person did."""

    key: bytes
    annotation: Annotation


class Draw(msgspec.Struct, frozen=True):
    """A random sample of a judge's answers, for people to label: its row, the judge's row, its body (JSON)."""

    row: int
    judge: int
    body: str


class AnnotationStore:
    """The annotations in an open :class:`Store`; used by one thread at a time, as that is."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def record(self, acts: Sequence[tuple[bytes, Annotation]]) -> None:
        """Commit acts on attempts (by key), in one transaction, synced to the disk.

        Each is about the attempt's newest answer.

        Raises:
            StoreError: an attempt has no answer to annotate, or the store cannot be written.
        """
        statement = (
            "INSERT INTO annotations (attempt, asked, annotator, act, label, detail, origin, at)"
            " SELECT c.attempt, max(c.asked), ?, ?, ?, ?, ?, ? FROM completions c"
            " JOIN attempts a ON a.id = c.attempt WHERE a.key = ? GROUP BY c.attempt"
        )
        now = time.time()
        with self.store._transaction("recording labels", durable=True) as db:
            for key, a in acts:
                values = (stored(a.annotator), a.act, stored(a.label), stored(a.detail), stored(a.origin), now, key)
                if db.execute(statement, values).rowcount != 1:
                    raise StoreError(f"attempt {key.hex()[:12]} has no answer that could be labelled")

    def standing(self) -> list[Annotated]:
        """What stands, in the order it was said: every annotator's newest act on each answer, undone ones out."""
        statement = (
            "SELECT a.key, n.attempt, n.annotator, n.act, n.label, n.detail, n.origin FROM annotations n"
            " JOIN attempts a ON a.id = n.attempt"
            " WHERE n.asked = (SELECT max(asked) FROM completions WHERE attempt = n.attempt) ORDER BY n.id"
        )
        acts: dict[tuple[int, str], list[Annotated]] = {}
        order: dict[tuple[int, str], int] = {}
        with _reading("reading labels"):
            for number, (key, attempt, annotator, act, *texts) in enumerate(self.store._db.execute(statement)):
                label, detail, origin = map(restored, texts)
                name = restored(annotator) or ""
                of = acts.setdefault((attempt, name), [])
                if act == "undo":
                    if of:
                        of.pop()
                    continue
                found = msgspec.convert(
                    {"annotator": name, "act": act, "label": label, "detail": detail, "origin": origin}, Annotation
                )
                of.append(Annotated(blob(key), found))
                order[attempt, name] = number
        return [acts[who][-1] for who in sorted(order, key=order.__getitem__) if acts[who]]

    def settled(self) -> dict[bytes, Annotation]:
        """Attempt key -> the label that people settled on: the adjudicated one, else the one that all agree on.

        Left out: answers on which people disagree and nobody adjudicated, and those that nobody could label.
        """
        said: dict[bytes, list[Annotation]] = {}
        for entry in self.standing():
            if entry.annotation.label is not None:
                said.setdefault(entry.key, []).append(entry.annotation)
        found: dict[bytes, Annotation] = {}
        for key, labels in said.items():
            last = [a for a in labels if a.act == "adjudicate"]
            if last:
                found[key] = last[-1]
            elif len({a.label for a in labels}) == 1:
                found[key] = labels[0]
        return found

    def topics(self) -> dict[bytes, str | None]:
        """Attempt key -> its question's topic, for every attempt of the run."""
        statement = "SELECT a.key, q.topic FROM attempts a JOIN questions q ON q.id = a.question"
        with _reading("reading topics"):
            return {blob(key): restored(topic) for key, topic in self.store._db.execute(statement)}

    def add_draw(self, judge: int, body: str) -> int:
        """Keep which answers were drawn for labelling (JSON), before the first of them is shown; returns its row."""
        with self.store._transaction("recording a draw", durable=True) as db:
            cursor = db.execute("INSERT INTO draws (judge, body, at) VALUES (?, ?, ?)", (judge, body, time.time()))
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def draws(self) -> list[Draw]:
        """Every draw, in order."""
        with _reading("reading the draws"):
            return [
                Draw(row, judge, str(body))
                for row, judge, body in self.store._db.execute("SELECT id, judge, body FROM draws ORDER BY id")
            ]


def by_annotator(standing: Sequence[Annotated]) -> Mapping[str, dict[bytes, Annotation]]:
    """Annotator -> attempt key -> what they said, adjudications apart (they are nobody's independent label)."""
    found: dict[str, dict[bytes, Annotation]] = {}
    for entry in standing:
        if entry.annotation.act != "adjudicate":
            found.setdefault(entry.annotation.annotator, {})[entry.key] = entry.annotation
    return found
