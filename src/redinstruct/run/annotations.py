"""People's part of the run store: what they said of an answer, and which answers they were shown.

The same promises as the rest of the store: rows are only added, and a committed one is synced to the disk before
anybody is told. ``undo`` is a row too: it takes back the annotator's newest act on that answer.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from redinstruct.errors import StoreError
from redinstruct.run.database import Store
from redinstruct.run.rows import SELECT_VERDICTS, VerdictRow, blob, over_newest
from redinstruct.safetext import restore, storable
from redinstruct.types import Annotation, Verdict


class Annotated(msgspec.Struct, frozen=True):
    """One standing act: the attempt's key (32 bytes), and what a person did."""

    key: bytes
    annotation: Annotation


class Draw(msgspec.Struct, frozen=True):
    """A random sample of a judge's answers, for people to label: its row, the judge's row, its body (JSON)."""

    row: int
    judge: int
    body: str


SettleRule = Literal["unanimous", "majority"]
UNANIMOUS: SettleRule = "unanimous"
MAJORITY: SettleRule = "majority"


def settle(acts: Sequence[Annotation], rule: SettleRule = UNANIMOUS) -> Annotation | None:
    """What people settled on for one answer: the adjudicated label, else that of all, or (majority) of more than half.

    None where they differ, or nobody labelled it.
    """
    last = [a for a in acts if a.act == "adjudicate"]
    if last:
        return last[-1]
    votes = Counter(a.label for a in acts if a.label is not None)
    label, count = next(iter(votes.most_common(1)), (None, 0))
    if label is None or (count < votes.total() and (rule == UNANIMOUS or 2 * count <= votes.total())):
        return None
    return next(a for a in acts if a.label == label)


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
        with self.store.writing("recording labels", durable=True) as db:
            for key, a in acts:
                said = map(storable, (a.label, a.detail, a.origin))
                values = (storable(a.annotator), a.act, *said, now, key)
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
        with self.store.reading("reading labels") as db:
            for number, (key, attempt, annotator, act, *texts) in enumerate(db.execute(statement)):
                label, detail, origin = map(restore, texts)
                name = restore(annotator) or ""
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
        """Attempt key -> the label that people settled on, by the run's :meth:`rule` (:func:`settle`)."""
        rule = self.rule()
        said = by_answer(entry for entry in self.standing() if entry.annotation.label is not None)
        found = {key: settle(labels, rule) for key, labels in said.items()}
        return {key: settled for key, settled in found.items() if settled is not None}

    def rule(self) -> SettleRule:
        """By which rule several people's labels of one answer settle: a setting of the run."""
        with self.store.reading("reading how labels settle") as db:
            row = db.execute("SELECT value FROM meta WHERE key = 'settle'").fetchone()
        return MAJORITY if row is not None and blob(row[0]) == MAJORITY.encode() else UNANIMOUS

    def set_rule(self, rule: SettleRule) -> None:
        """Record the rule; every figure follows it from now on.

        Raises:
            StoreError: the store cannot be written.
        """
        with self.store.writing("recording how labels settle", durable=True) as db:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('settle', ?)", (rule.encode(),))

    def follow_people(self, judge: int, found: Mapping[bytes, Verdict]) -> int:
        """Record what people settled on as the newest verdicts of the card that stands for them; returns how many.

        ``found`` holds it by attempt key. A verdict that people no longer support becomes ``unparsable``.

        Raises:
            StoreError: the store does not read, or cannot be written.
        """
        new: list[VerdictRow] = []
        with self.store.reading("reading verdicts") as db:
            rows = list(over_newest(db, SELECT_VERDICTS, (judge,)))
        for attempt, key, asked, number, label, detail in rows:
            verdict = found.get(blob(key))
            if verdict is None and label is not None:
                verdict = Verdict("unparsable", reason="no_label")
            if verdict is not None and (verdict.label, verdict.detail) != (label, detail):
                new.append((attempt, asked, judge, 0 if number is None else number + 1, verdict))
        if new:
            self.store.commit_verdicts(new)
        return len(new)

    def topics(self) -> dict[bytes, str | None]:
        """Attempt key -> its question's topic, for every attempt of the run."""
        statement = "SELECT a.key, q.topic FROM attempts a JOIN questions q ON q.id = a.question"
        with self.store.reading("reading topics") as db:
            return {blob(key): restore(topic) for key, topic in db.execute(statement)}

    def add_draw(self, judge: int, body: str) -> int:
        """Keep which answers were drawn for labelling (JSON), before the first of them is shown; returns its row."""
        with self.store.writing("recording a draw", durable=True) as db:
            cursor = db.execute("INSERT INTO draws (judge, body, at) VALUES (?, ?, ?)", (judge, body, time.time()))
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def draws(self) -> list[Draw]:
        """Every draw, in order."""
        with self.store.reading("reading the draws") as db:
            return [
                Draw(row, judge, str(body))
                for row, judge, body in db.execute("SELECT id, judge, body FROM draws ORDER BY id")
            ]


def by_answer(standing: Iterable[Annotated]) -> dict[bytes, list[Annotation]]:
    """Attempt key -> what was said of it, by everybody."""
    found: dict[bytes, list[Annotation]] = {}
    for entry in standing:
        found.setdefault(entry.key, []).append(entry.annotation)
    return found


def by_annotator(standing: Sequence[Annotated]) -> Mapping[str, dict[bytes, Annotation]]:
    """Annotator -> attempt key -> what they said, adjudications apart (they are nobody's independent label)."""
    found: dict[str, dict[bytes, Annotation]] = {}
    for entry in standing:
        if entry.annotation.act != "adjudicate":
            found.setdefault(entry.annotation.annotator, {})[entry.key] = entry.annotation
    return found
