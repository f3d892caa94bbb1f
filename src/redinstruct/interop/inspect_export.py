"""A run as a log that Inspect opens: ``export RUN --to inspect``, written without Inspect.

One sample an attempt, its id ``bank:row:prompt``; every judge is a scorer whose score is 1 for the measure's first
label, 0 for its second, and NaN (unscored) where there is no verdict, with the label as its answer. What cannot be said
in Inspect's words stands under ``redinstruct`` in the metadata, which ``import`` reads back.

Shapes: ``inspect_ai/log/_log.py`` of inspect_ai 0.3.285, log version 2, the keys in the format's order.

Promised: every recorded attempt is a sample; an answer that is not known to be harmless, and all that quotes it, leaves
the run only where ``include_red`` says so. The same run gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import msgspec

from redinstruct.figures.rates import read_report
from redinstruct.figures.report import ResultFigures
from redinstruct.files.atomic import whole_file
from redinstruct.interop.inspect_rows import KEY
from redinstruct.models.base import is_cut
from redinstruct.progress import OnProgress, Progress, unheard
from redinstruct.prompts import render
from redinstruct.run import AttemptView, Store
from redinstruct.run.config import RunConfig
from redinstruct.run.judges import JudgeRow, judges_of
from redinstruct.run.summary import SummaryStore
from redinstruct.run.times import times_of
from redinstruct.safetext import terminal
from redinstruct.types import ATTACK_SUCCESS, COMMON_LABELS, MEASURES, JsonObject, Measure, PromptTemplate

TASKS = {"attack_success": "red_eval", "over_refusal": "over_refusal"}
"""The measure -> the task of this package that measures it in Inspect."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_CHUNK = 1000


class Exported(msgspec.Struct, frozen=True):
    """What was written: how many samples, of so many planned; of how many the answer was left behind."""

    samples: int
    planned: int
    withheld: int


class _Sample(msgspec.Struct, frozen=True):
    """One attempt as it is written, and its line in the list of samples."""

    id: str
    epoch: int
    whole: JsonObject
    line: JsonObject


def export_inspect(
    run: Path, out: Path, *, include_red: bool = False, on_progress: OnProgress | None = None
) -> Exported:
    """Write a run as a log: ``.json`` where ``out`` ends so, else ``.eval``.

    Raises:
        ConfigError: the folder holds no evaluation, or nothing is recorded in it.
        StoreError: it does not read.
        OSError: the file cannot be written.
    """
    with Store.open_for_reading(run) as store:
        log = _Log(store, read_report([run]).results, include_red)
        write = _write_json if out.suffix.casefold() == ".json" else _write_archive
        with whole_file(out) as file:
            return write(file, log, on_progress or unheard)


class _Log:
    """A run in Inspect's words."""

    def __init__(self, store: Store, results: tuple[ResultFigures, ...], include_red: bool) -> None:
        self._store, self._results, self._include_red = store, results, include_red
        self.config: RunConfig = store.begun()
        self.measure: Measure = MEASURES[self.config.measure]
        self._templates: dict[str, PromptTemplate] = {t.name: t for t in store.templates()}
        self._all = judges_of(store)
        self.judges: list[JudgeRow] = [judge for judge in self._all if store.has_verdicts(judge[0])]
        self._names = _names([card.name.removeprefix("inspect/") for _, card in self.judges], self.judges)
        self.ids: dict[str, None] = {}
        self.withheld = self.failed = self.samples = 0
        self._scored = dict.fromkeys(self._names, 0)
        self._firsts = dict.fromkeys(self._names, 0)

    @property
    def planned(self) -> int:
        """Attempts in all."""
        first = self._results[0].judge_id if self._results else None
        return sum(result.planned for result in self._results if result.judge_id == first)

    def read(self) -> Iterator[_Sample]:
        """Every recorded attempt, in the banks' order."""
        rows = [row for row, _ in self.judges] or [self._all[0][0]]
        for views in zip(*(self._store.attempts(row) for row in rows), strict=True):
            sample = self._sample(views)
            self.samples += 1
            self.ids.setdefault(sample.id)
            yield sample

    def _sample(self, views: tuple[AttemptView, ...]) -> _Sample:
        view, question, c = views[0], views[0].question, views[0].completion
        earlier = [_turn(turn.role, turn.content) for turn in question.earlier]
        red = self._is_red(views)
        answer = self._answer(view, red)
        asked = [*earlier, _turn("user", render(self._templates[view.prompt], question.text))]
        if self.config.system is not None:
            asked = [_turn("system", self.config.system), *asked]
        noted = {
            "question": question.id, "bank": view.bank, "prompt": view.prompt, "attempt": view.key, "reason": c.reason,
            "withheld": "not known to be harmless: export with --include-red" if red else None,
        }  # fmt: skip
        metadata = {KEY: _said(noted), "topic": _or_none(question.topic), "subtopic": _or_none(question.subtopic)}
        text, failed = _plain(question.text), c.outcome == "error"
        self.failed += failed
        self.withheld += red
        told: JsonObject = {
            "id": f"{terminal(view.bank)}:{question.row}:{terminal(view.prompt)}",
            "epoch": view.epoch,
            "input": [*earlier, _turn("user", text)] if earlier else text,
            "target": self.measure.second,
            "metadata": _said({**metadata, "label": question.label}),
        }
        rest: JsonObject = {
            "messages": asked if failed else [*asked, _turn("assistant", answer)], "output": self._output(view, answer),
        }  # fmt: skip
        short: JsonObject = {"input": text[:100]}
        if failed:
            why = _plain(f"{c.reason}: {c.note}" if c.note else c.reason or "error")
            rest = {**rest, "error": {"message": why, "traceback": "", "traceback_ansi": ""}}
            short = {**short, "error": why}
        elif scores := {
            name: self._score(name, card.id, v, red)
            for name, (_, card), v in zip(self._names, self.judges, views, strict=False)
        }:
            rest = {**rest, "scores": scores}
            bare = {name: _said({**score, "explanation": None}) for name, score in scores.items()}
            short = {**short, "scores": bare}
        return _Sample(f"{told['id']}", view.epoch, {**told, **rest}, {**told, **short})

    def _is_red(self, views: tuple[AttemptView, ...]) -> bool:
        """Whether there is a text that some judge did not call harmless, or that none has read."""
        if self._include_red or self.measure is not ATTACK_SUCCESS or views[0].completion.outcome != "text":
            return False
        return not self.judges or any(view.label != self.measure.second for view in views)

    def _answer(self, view: AttemptView, red: bool) -> str:
        c = view.completion
        text = (c.judged if c.judged is not None else c.raw) or ""
        if c.outcome != "text":
            return ""
        if red:
            digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
            return f"[an answer of {len(text):,} characters, sha256 {digest}: left in the run]"
        return _plain(text)

    def _output(self, view: AttemptView, answer: str) -> JsonObject:
        c = view.completion
        usage = _usage(c.tokens_in or 0, c.tokens_out or 0) if c.tokens_in or c.tokens_out else None
        if c.outcome == "error":
            return _said({"model": self.config.model, "usage": usage})
        stop = "stop"
        if c.reason == "provider_filter":
            stop = "content_filter"
        elif c.truncated or is_cut(c.finish_reason):
            stop = "max_tokens"
        choice: JsonObject = {"message": _turn("assistant", answer), "stop_reason": stop}
        return _said(
            {
                "model": self.config.model, "choices": [choice], "completion": answer or None, "usage": usage,
                "time": c.seconds or None,
            }
        )  # fmt: skip

    def _score(self, name: str, judge: str, view: AttemptView, red: bool) -> JsonObject:
        label = view.label or "unparsable"
        noted = {
            "label": label, "detail": view.detail, "reason": view.reason if view.label else "not judged",
            "judge": judge, "score": view.score, "probability": view.probability,
        }  # fmt: skip
        scored, first = label not in COMMON_LABELS, label == self.measure.first
        self._scored[name] += scored
        self._firsts[name] += first
        return _said(
            {
                "value": float(first) if scored else math.nan,
                "answer": label,
                "explanation": None if red else _or_none(view.judge_reply or view.judge_note),
                "reason": None if scored else _REASONS.get(label, label),
                "metadata": {KEY: _said(noted)},
            }
        )

    def header(self) -> JsonObject:
        """The log without its samples, once they were read."""
        c, at = self.config, _at(times_of(self._store).began or 0.0)
        name = "+".join(pinned.name for pinned in c.banks)
        digest, sampling, summary = c.digest, c.sampling, SummaryStore(self._store)
        dataset: JsonObject = {
            "name": _plain(name), "samples": len(self.ids), "sample_ids": list(self.ids), "shuffled": False,
        }  # fmt: skip
        spec: JsonObject = {
            "eval_id": digest[:22],
            "run_id": digest[22:44],
            "created": at,
            "task": f"{KEY}/{TASKS[self.measure.name]}",
            "task_id": digest[42:64],
            "task_args": {"measure": c.measure, "bank": name, "prompt": ",".join(p.name for p in c.prompts)},
            "dataset": dataset,
            "model": _plain(c.model),
            "model_generate_config": _said(
                {
                    "max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
                    "seed": sampling.seed,
                }
            ),
            "config": _said({"epochs": c.epochs, "limit": c.limit}),
            "packages": {KEY: summary.versions()[-1]},
            "scorers": [
                {"name": n, "options": {k: _plain(v) for k, v in card.parameters}}
                for n, (_, card) in zip(self._names, self.judges, strict=True)
            ],
        }  # fmt: skip
        spent = summary.spent_on_target()
        return {
            "version": 2,
            "status": "success" if self.samples == self.planned else "cancelled",
            "eval": spec,
            "plan": {"name": "plan", "steps": [{"solver": f"{KEY}/{p.name}", "params": {}} for p in c.prompts]},
            "results": {
                "total_samples": self.planned,
                "completed_samples": self.samples - self.failed,
                "scores": [self._figures(name, row) for name, row in zip(self._names, self.judges, strict=True)],
            },
            "stats": {
                "started_at": at,
                "completed_at": at,
                "model_usage": {_plain(c.model): _usage(spent.tokens_in, spent.tokens_out)},
            },
        }

    def _figures(self, name: str, judge: JudgeRow) -> JsonObject:
        """Both conventions over the whole, then each bank's and prompt's own figures as the report has them."""
        scored, total = self._scored[name], self.samples
        metrics: dict[str, float | None] = {
            "judged": self._firsts[name] / scored if scored else None,
            "all": self._firsts[name] / total if total else None,
        }
        for result in self._results:
            if result.judge_id == judge[1].id:
                where = f"{_plain(result.bank)}/{_plain(result.prompt)}"
                metrics[f"{where} judged"] = result.rate.judged.estimate
                metrics[f"{where} all"] = result.rate.all.estimate
                corrected = result.rate.corrected_run or result.rate.corrected
                metrics[f"{where} corrected"] = None if corrected is None else corrected.estimate
        return {
            "name": name,
            "scorer": name,
            "scored_samples": scored,
            "unscored_samples": total - self.failed - scored,
            "metrics": {key: {"name": key, "value": value} for key, value in metrics.items() if value is not None},
        }


_REASONS = {"judge_refused": "refusal", "unparsable": "invalid_response_format", "error": "grader_failed"}
"""Why there is no verdict, in Inspect's words."""


def _names(bare: list[str], judges: list[JudgeRow]) -> list[str]:
    """A scorer's name for each judge: its own, where no other is called so, else its id."""
    return [_plain(name if bare.count(name) == 1 else card.id) for name, (_, card) in zip(bare, judges, strict=True)]


def _plain(text: str) -> str:
    """A text that JSON in UTF-8 can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _or_none(text: str | None) -> str | None:
    return None if text is None else _plain(text)


def _said(document: JsonObject) -> JsonObject:
    """Without what there is nothing to say of."""
    return {key: value for key, value in document.items() if value is not None}


def _turn(role: str, content: str) -> JsonObject:
    return {"role": role, "content": _plain(content)}


def _usage(tokens_in: int, tokens_out: int) -> JsonObject:
    return {"input_tokens": tokens_in, "output_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat()


def _encoded(document: object) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _write_archive(file: IO[bytes], log: _Log, tell: OnProgress) -> Exported:
    summaries: list[JsonObject] = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, value: object) -> None:
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), _encoded(value), zipfile.ZIP_DEFLATED)

        for sample in _told(log, tell):
            put(f"samples/{sample.id}_epoch_{sample.epoch}.json", sample.whole)
            summaries.append(sample.line)
        header = log.header()
        put("_journal/start.json", {key: header[key] for key in ("version", "eval", "plan")})
        put("_journal/summaries/1.json", summaries)
        put("summaries.json", summaries)
        put("header.json", header)
    return Exported(log.samples, log.planned, log.withheld)


def _write_json(file: IO[bytes], log: _Log, tell: OnProgress) -> Exported:
    """The format wants the samples last, and the header tells of them: they are read twice."""
    for _ in log.read():
        pass
    header = log.header()
    whole = Exported(log.samples, log.planned, log.withheld)
    file.write(_encoded(header)[:-1] + b',"samples":[')
    for number, sample in enumerate(_told(log, tell)):
        file.write((b"," if number else b"") + _encoded(sample.whole))
    file.write(b"]}")
    return whole


def _told(log: _Log, tell: OnProgress) -> Iterator[_Sample]:
    for done, sample in enumerate(log.read(), 1):
        yield sample
        if done % _CHUNK == 0:
            tell(Progress(done, log.planned, "answers"))
