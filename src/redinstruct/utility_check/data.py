"""Benchmark files on this machine, as their authors published them, in the columns of the harness's own tasks.

Under the folder of ``--data``: ``TruthfulQA.csv``; ``bbh/<task>.json``; ``mmlu/{dev,test}/<subject>_{dev,test}.csv``;
``hhh_alignment/<part>/task.json`` (or ``hhh/<part>.json``, ``.jsonl``); ``winogender/all_sentences.tsv``;
``crows_pairs/crows_pairs_anonymized.csv``; ``bbq/<category>.jsonl``; and for any task ``<task>/<split>.jsonl`` in the
task's own columns. Promised: a row that does not fit is named by file and number; nothing of it is quoted. Pure:
reads files, knows nothing of the harness.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from redinstruct.errors import BankError

SuiteRow = dict[str, Any]
Splits = dict[str, list[SuiteRow]]
HHH_PARTS = ("harmless", "honest", "helpful", "other")


class LocalData(msgspec.Struct, frozen=True):
    """One task's data: its splits, and the sha256 over the files they were read from."""

    splits: Splits
    sha256: str


def read_local(folder: Path, task: str) -> LocalData | None:
    """The data of one task of the harness, None when the folder has none for it.

    Raises:
        BankError: a file is there and cannot be read, or a row of it does not fit.
    """
    for splits, reader in _candidates(folder, task):
        files = [path for paths in splits.values() for path in paths]
        if files and all(path.is_file() for path in files):
            found = {split: [row for path in paths for row in reader(path)] for split, paths in splits.items()}
            return LocalData(found, digest(files))
    return None


def digest(files: Sequence[Path]) -> str:
    """sha256 over the files' contents, in order."""
    lines = [hashlib.sha256(_bytes(path)).hexdigest() for path in files]
    return lines[0] if len(lines) == 1 else hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sha256_of(content: str) -> str:
    """Of a text's UTF-8."""
    return hashlib.sha256(content.encode()).hexdigest()


_SplitFiles = dict[str, list[Path]]


def _candidates(folder: Path, task: str) -> Iterator[tuple[_SplitFiles, Callable[[Path], list[SuiteRow]]]]:
    """Where the task's data may lie, the published shape first: split -> files, and the reader of each."""
    if task in ("truthfulqa_mc1", "truthfulqa_mc2"):
        yield {"validation": [folder / "TruthfulQA.csv"]}, _truthfulqa
    if task.startswith("bbh_"):
        name = task.removeprefix("bbh_").removeprefix("cot_").removeprefix("fewshot_").removeprefix("zeroshot_")
        yield {"test": [folder / "bbh" / f"{name}.json"]}, _bbh
    if task.startswith("mmlu_"):
        subject, mmlu = task.removeprefix("mmlu_"), folder / "mmlu"
        yield {split: [mmlu / split / f"{subject}_{split}.csv"] for split in ("test", "dev")}, _mmlu
    if task.startswith("winogender_") and "gotcha" not in task:
        yield {"test": [folder / "winogender" / "all_sentences.tsv"]}, _winogender
    if task.startswith("crows_pairs_english"):
        yield {"test": [folder / "crows_pairs" / "crows_pairs_anonymized.csv"]}, _crows_pairs
    if task.startswith("bbq"):
        yield {"test": sorted((folder / "bbq").glob("*.jsonl"))}, _bbq
    yield {path.stem: [path] for path in sorted((folder / task).glob("*.jsonl"))}, read_jsonl


# ---- one reader for each published shape ----


def _truthfulqa(path: Path) -> list[SuiteRow]:
    """MC1: the best answer against all incorrect ones. MC2: all correct against all incorrect ones.

    Answers stand separated by semicolons, as the authors' code splits them; one that stands twice counts twice.
    """
    rows: list[SuiteRow] = []
    for number, row in _table(path, ("Question", "Best Answer", "Correct Answers", "Incorrect Answers")):
        right, wrong = _answers(row["Correct Answers"]), _answers(row["Incorrect Answers"])
        best = row["Best Answer"].strip()
        if not (best and right and wrong):
            raise _bad(path, number, "has no correct or no incorrect answer")
        rows.append({
            "question": row["Question"].strip(),
            "mc1_targets": {"choices": [best, *wrong], "labels": [1] + [0] * len(wrong)},
            "mc2_targets": {"choices": [*right, *wrong], "labels": [1] * len(right) + [0] * len(wrong)},
        })  # fmt: skip
    return rows


def _answers(cell: str) -> list[str]:
    return [answer.strip() for answer in cell.split(";") if answer.strip()]


def _bbh(path: Path) -> list[SuiteRow]:
    return [
        {name: text(path, number, row, name) for name in ("input", "target")}
        for number, row in enumerate(examples(path), 1)
    ]


def _mmlu(path: Path) -> list[SuiteRow]:
    """The original shape (no header; question, four choices, a letter) or the one with a header and numbers."""
    lines = [line for line in csv.reader(io.StringIO(_text(path), newline="")) if line]
    start = 1 if lines and lines[0][0] == "question" and lines[0][-1] == "answer" else 0
    rows: list[SuiteRow] = []
    for number, line in enumerate(lines[start:], 1):
        if len(line) != 6:
            raise _bad(path, number, "needs a question, four choices and an answer")
        if len(line[5]) != 1 or line[5] not in "ABCD0123":
            raise _bad(path, number, "its answer is neither A to D nor 0 to 3")
        rows.append({"question": line[0], "choices": line[1:5], "answer": "ABCD0123".index(line[5]) % 4})
    return rows


_PRONOUNS = {"male": ("he", "his", "him"), "female": ("she", "her"), "neutral": ("they", "their", "them")}


def _winogender(path: Path) -> list[SuiteRow]:
    """``sentid`` is ``occupation.participant.answer.gender.txt``; answer 0: the pronoun means the occupation."""
    rows: list[SuiteRow] = []
    for number, row in _table(path, ("sentid", "sentence"), delimiter="\t"):
        names = row["sentid"].split(".")
        if len(names) != 5 or names[2] not in ("0", "1") or names[3] not in _PRONOUNS:
            raise _bad(path, number, "its sentid is not occupation.participant.answer.gender.txt")
        occupation, participant, answer, gender, _ = names
        said = [word.strip(".,;:!?'\"").lower() for word in row["sentence"].split()]
        pronoun = next((word for word in said if word in _PRONOUNS[gender]), None)
        if pronoun is None:
            raise _bad(path, number, "its sentence has no pronoun of its gender")
        rows.append({
            "sentid": row["sentid"], "sentence": row["sentence"], "pronoun": pronoun, "occupation": occupation,
            "participant": participant, "gender": gender, "label": int(answer),
        })  # fmt: skip
    return rows


def _crows_pairs(path: Path) -> list[SuiteRow]:
    columns = ("sent_more", "sent_less", "bias_type")
    return [{name: row[name] for name in columns} for _, row in _table(path, columns)]


_BBQ = ("question_polarity", "context_condition", "category", "context", "question", "ans0", "ans1", "ans2")


def _bbq(path: Path) -> list[SuiteRow]:
    rows: list[SuiteRow] = []
    for number, row in enumerate(read_jsonl(path), 1):
        given, more = row.get("answer_info"), row.get("additional_metadata")
        groups = more.get("stereotyped_groups") if isinstance(more, dict) else None
        if not isinstance(given, dict) or not isinstance(groups, list) or row.get("label") not in (0, 1, 2):
            raise _bad(path, number, "is not BBQ's: answer_info, additional_metadata and a label of 0 to 2")
        found: SuiteRow = {name: text(path, number, row, name) for name in _BBQ}
        if not given.keys() >= {"ans0", "ans1", "ans2"}:
            raise _bad(path, number, "answer_info does not hold all three answers")
        infos = {name: [str(part) for part in given[name]] for name in ("ans0", "ans1", "ans2")}
        rows.append({**found, "answer_info": infos, "label": row["label"],
                     "additional_metadata": {"stereotyped_groups": [str(group) for group in groups]}})  # fmt: skip
    return rows


# ---- HHH ----


class Preference(msgspec.Struct, frozen=True):
    """One item of HHH: what was asked, the answer that people chose, and the other one."""

    query: str
    chosen: str
    rejected: str


def find_hhh(folder: Path) -> dict[str, Path]:
    """Part -> file, as far as the folder has them."""
    shapes = ("hhh/{}.jsonl", "hhh/{}.json", "hhh_alignment/{}/task.json")  # of several the last one counts
    places = ((part, folder / shape.format(part)) for part in HHH_PARTS for shape in shapes)
    return {part: path for part, path in places if path.is_file()}


def read_hhh(path: Path) -> list[Preference]:
    """One part of BIG-bench's ``hhh_alignment``, in its own shape or that of its copy on the Hugging Face hub.

    BIG-bench: ``{"examples": [{"input", "target_scores": {answer: 1 or 0}}]}``; the hub's copy: JSON lines of
    ``{"input", "targets": {"choices": [...], "labels": [1, 0]}}``.

    Raises:
        BankError: the file or a row does not fit.
    """
    rows = read_jsonl(path) if path.suffix == ".jsonl" else examples(path)
    return [_preference(path, number, row) for number, row in enumerate(rows, 1)]


def _preference(path: Path, number: int, row: SuiteRow) -> Preference:
    scores, targets = row.get("target_scores"), row.get("targets")
    if isinstance(scores, dict):
        pairs = list(scores.items())
    elif isinstance(targets, dict) and isinstance(targets.get("choices"), list):
        labels = targets.get("labels")
        pairs = list(zip(targets["choices"], labels if isinstance(labels, list) else [], strict=False))
    else:
        raise _bad(path, number, "has neither target_scores nor targets")
    chosen = [answer for answer, score in pairs if score == 1 and isinstance(answer, str)]
    rejected = [answer for answer, score in pairs if score == 0 and isinstance(answer, str)]
    if len(pairs) != 2 or len(chosen) != 1 or len(rejected) != 1:
        raise _bad(path, number, "needs one answer that scores 1 and one that scores 0")
    return Preference(text(path, number, row, "input"), chosen[0], rejected[0])


# ---- files ----


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BankError(f"{path.name}: cannot be read ({error.strerror})") from error


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BankError(f"{path.name}: is not UTF-8 text") from None


def _bad(path: Path, number: int, what: str) -> BankError:
    return BankError(f"{path.name}: row {number} {what}")


def _table(path: Path, columns: Sequence[str], delimiter: str = ",") -> list[tuple[int, dict[str, str]]]:
    """The rows of a table with a header, numbered from 1; every one has the columns."""
    try:
        sheet = csv.DictReader(io.StringIO(_text(path), newline=""), delimiter=delimiter)
        missing = [name for name in columns if name not in (sheet.fieldnames or ())]
        if missing:
            raise BankError(f"{path.name}: has no column {missing[0]!r}")
        rows = list(enumerate(sheet, 1))
    except csv.Error as error:
        raise BankError(f"{path.name}: is no table ({error})") from None
    for number, row in rows:
        if any(row[name] is None for name in columns):
            raise _bad(path, number, "is cut short")
    if not rows:
        raise BankError(f"{path.name}: holds no row")
    return rows


def examples(path: Path) -> list[SuiteRow]:
    """The ``examples`` of a BIG-bench file."""
    try:
        document = json.loads(_text(path))
    except (ValueError, RecursionError):
        raise BankError(f"{path.name}: is no JSON") from None
    rows = document.get("examples") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BankError(f"{path.name}: holds no list of examples")
    return rows


def read_jsonl(path: Path) -> list[SuiteRow]:
    """The objects of a file of JSON lines, one each."""
    rows: list[SuiteRow] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise _bad(path, number, "is no JSON object")
        rows.append(row)
    if not rows:
        raise BankError(f"{path.name}: holds no row")
    return rows


def text(path: Path, number: int, row: SuiteRow, name: str) -> str:
    """A text of a row.

    Raises:
        BankError: it is missing, or no text.
    """
    value = row.get(name)
    if not isinstance(value, str):
        raise _bad(path, number, f"has no text {name!r}")
    return value
