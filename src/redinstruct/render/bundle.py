"""A run for reviewers, in one file: all of its figures, every attempt's labels, and no text.

Promised: no question, answer, thought or reply of a judge, no words of an endpoint and no person's name is in it; the
same run gives the same bytes. Each file's sha256 stands in ``SHA256SUMS``, whose own sha256 is the bundle's digest.
Not promised: that it can not be told which known bank was asked; a question's hash tells that to who has the question.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from redinstruct.figures.attempts import attempt_document, attempt_rows
from redinstruct.figures.rates import read_report
from redinstruct.figures.report import Report, plain
from redinstruct.render.tables import csv_text
from redinstruct.run import AnnotationStore, Store
from redinstruct.safetext import in_json
from redinstruct.version import __version__

SCHEMA = "redinstruct.bundle/1"
SUMS = "SHA256SUMS"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip knows: no clock in it
_README = """A run of redinstruct, for reviewers: its figures, and every attempt's labels, without any text.

report.json     the figures (redinstruct.results/1); report.csv says the same
attempts.jsonl  one attempt of one judge a line: key, place, label, and hash and length of question and answer
people.jsonl    what people labelled, one act a line; people are numbered
about.json      what made it, and of what

To check that nothing was changed:

    sha256sum -c SHA256SUMS && sha256sum SHA256SUMS

The second line's hash is the digest that whoever gave you this has told you.
"""


class Bundle(msgspec.Struct, frozen=True):
    """A bundle's bytes, its digest (sha256 of ``SHA256SUMS``), and how many lines of attempts it has."""

    content: bytes
    digest: str
    attempts: int


def bundle(run: Path) -> Bundle:
    """The bundle of an evaluation or of a utility check.

    Raises:
        ConfigError: there is no such run in the folder, or it is sealed and there is no key.
        StoreError: it does not read.
    """
    report = _without_words(read_report([run]))
    attempts, people = list(_attempts(run, report)), list(_people(run, report))
    about = {"schema": SCHEMA, "redinstruct": __version__, "attempts": len(attempts), "people": len(people)}
    files = {
        "README.txt": _README,
        "about.json": _json(about),
        "attempts.jsonl": "".join(attempts),
        "people.jsonl": "".join(people),
        "report.csv": csv_text(report),
        "report.json": _json(plain(report)),
    }
    packed = {name: text.encode("utf-8", "backslashreplace") for name, text in files.items()}
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(packed.items())).encode()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in sorted({**packed, SUMS: sums}.items()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o600 << 16, 3
            archive.writestr(entry, data)
    return Bundle(held.getvalue(), hashlib.sha256(sums).hexdigest(), len(attempts))


def _without_words(report: Report) -> Report:
    """The figures without an endpoint's own words: nobody knows what these quote."""
    results = tuple(
        msgspec.structs.replace(
            result, failures=tuple(msgspec.structs.replace(failed, words="") for failed in result.failures)
        )
        for result in report.results
    )
    return msgspec.structs.replace(report, results=results)


def _attempts(run: Path, report: Report) -> Iterator[str]:
    if not report.results:
        return
    for one in attempt_rows([run]):
        told = attempt_document(one.view, content=False)
        del told["note"]
        yield _line({"judge_id": one.judge_id, **told})


def _people(run: Path, report: Report) -> Iterator[str]:
    if not report.results:
        return
    with Store.open_for_reading(run) as store:
        numbers: dict[str, int] = {}
        for one in AnnotationStore(store).standing():
            act = one.annotation
            number = numbers.setdefault(act.annotator, len(numbers) + 1)
            yield _line(
                {"id": one.key.hex(), "person": number, "act": act.act, "label": act.label, "detail": act.detail}
            )


def _line(value: object) -> str:
    return json.dumps(in_json(value)) + "\n"


def _json(value: object) -> str:
    return json.dumps(in_json(value), indent=2) + "\n"
