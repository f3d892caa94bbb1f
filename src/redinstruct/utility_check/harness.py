"""One task of lm-evaluation-harness, carried out as a library: its prompts, shots, filters and metrics, our rows.

Local data changes nothing but the source: a generated file includes the harness's own and overrides ``dataset_path``.
Promised: without ``download``, nothing goes over the network; a task that runs code that a model wrote is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from redinstruct.engine import LimitReached
from redinstruct.errors import RedInstructError, UsageError
from redinstruct.figures.scores import STRIPPED, Metric, TaskCard, item_ids
from redinstruct.files.atomic import write_file
from redinstruct.run import UtilityTaskRow
from redinstruct.run.rows import to_json
from redinstruct.safetext import terminal
from redinstruct.utility_check.data import LocalData

FEWSHOT_SEED = 1234
"""The harness's own default: its command line draws the same shots."""
_PROMPT_KEYS = ("description", "doc_to_text", "doc_to_target", "doc_to_choice", "target_delimiter", "fewshot_delimiter",
                "fewshot_config", "output_type", "filter_list", "process_docs", "process_results")  # fmt: skip
PROBABILITIES = frozenset({"multiple_choice", "loglikelihood", "loglikelihood_rolling"})
"""Output types that need a text's own log-probabilities."""


def needs_tokens(task: Any) -> bool:
    """Whether a loaded task is scored by the single tokens of an answer, and not by how likely all of it is."""
    kind = str(task.OUTPUT_TYPE)
    return kind in PROBABILITIES - {"multiple_choice"} or (
        kind != "generate_until" and "exact_match" in task.aggregation()
    )


def version() -> str:
    """The harness and its version."""
    import lm_eval

    return f"lm-eval {lm_eval.__version__}"


def hush() -> None:
    """Keep the libraries' progress bars and notes off the terminal: the command line alone writes there."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)


def go_offline() -> None:
    """No library fetches anything from now on, in this process."""
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    import huggingface_hub.constants

    # Read from the environment when first imported, which is over by now.
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    import datasets

    datasets.config.HF_HUB_OFFLINE = True
    datasets.config.HF_DATASETS_OFFLINE = True


def make_ready(*, download: bool) -> None:
    """Before any data is read: no progress bars, and without ``download`` no network."""
    import datasets

    datasets.disable_progress_bars()
    if not download:
        go_offline()


def write_local(folder: Path, task: str, original: Path, data: LocalData) -> Path:
    """A task file that includes the harness's own and changes only where its data comes from; returns its path.

    It can be used with the harness's own command line, too (``--include_path``).
    """
    place = folder / task
    place.mkdir(mode=0o700)
    files: dict[str, str] = {}
    for split, rows in data.splits.items():
        path = place / f"{split}.jsonl"
        write_file(path, "".join(json.dumps(row) + "\n" for row in rows), public=True)
        files[split] = str(path)
    changed = {
        "include": str(original),
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": files, "cache_dir": str(folder / "cache")},
    }
    # JSON is YAML, and needs no library to be written.
    write_file(place / f"{task}.yaml", json.dumps(changed, indent=1), public=True)
    return place / f"{task}.yaml"


def load(task: str, file: Path, shots: int | None) -> Any:
    """The harness's task that a file defines, its data loaded.

    Raises:
        UsageError: its data is not on this machine, or it is of a kind that is not run here.
    """
    from lm_eval.tasks import TaskManager

    try:
        found = TaskManager(include_defaults=False).load([str(file)])["tasks"][task]
    except Exception as error:
        raise UsageError(
            f"--suite {task}: its data is not here ({type(error).__name__}); give --data DIR, or let it be fetched "
            "with --download"
        ) from error
    if getattr(found, "UNSAFE_CODE", False):
        raise UsageError(f"--suite {task}: runs code that the model wrote, which this tool never does")
    if getattr(found, "MULTIMODAL", False):
        raise UsageError(f"--suite {task}: needs pictures or sound, and this tool asks by text")
    own = found.get_config("num_fewshot")
    if shots is not None and own != 0:
        found.set_config(key="num_fewshot", value=shots)
    elif own is None:
        found.set_config(key="num_fewshot", value=0)
    found.set_fewshot_seed(seed=FEWSHOT_SEED)
    return found


def run(task: Any, lm: Any, *, limit: int | None, chat_template: str, source: str) -> UtilityTaskRow:
    """Carry out one loaded task; ``chat_template`` is ``native`` or ``none``.

    Raises:
        RedInstructError: the harness could not do it.
    """
    import numpy as np
    import torch
    from lm_eval.evaluator import evaluate

    name = task.config.task
    random.seed(0)
    np.random.seed(FEWSHOT_SEED)
    torch.manual_seed(FEWSHOT_SEED)
    templated = chat_template == "native"
    try:
        with warnings.catch_warnings(action="ignore"):
            found = evaluate(
                lm=lm,
                task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
                limit=limit,
                bootstrap_iters=0,
                log_samples=True,
                apply_chat_template=templated,
                fewshot_as_multiturn=templated,
            )
    except (RedInstructError, LimitReached, KeyboardInterrupt):
        raise
    except Exception as error:
        said = terminal(str(error).strip().splitlines()[0])[:200] if str(error).strip() else "no reason given"
        raise RedInstructError(f"{name}: the harness stopped ({type(error).__name__}: {said})") from error
    return _row(task, found, limit, chat_template, source, lm.tally.told())


def _row(
    task: Any, found: Mapping[str, Any], limit: int | None, template: str, source: str, notes: tuple[str, ...]
) -> UtilityTaskRow:
    name = task.config.task
    by_filter: dict[str, list[Mapping[str, Any]]] = {}
    for sample in found["samples"][name]:
        by_filter.setdefault(str(sample["filter"]), []).append(sample)
    for samples in by_filter.values():
        samples.sort(key=lambda sample: int(sample["doc_id"]))
    first = next(iter(by_filter.values()))
    contents = [json.dumps(sample["doc"], sort_keys=True, default=str) for sample in first]
    metrics: list[Metric] = []
    values: list[tuple[float | None, ...]] = []
    for name_of_filter, samples in by_filter.items():
        for metric in samples[0]["metrics"]:
            column = [_number(sample[metric]) for sample in samples]
            whole = _is_mean(task, metric) and all(not isinstance(value, str) for value in column)
            metrics.append(_metric(task, metric, name_of_filter, found["results"][name], per_item=whole))
            if whole:
                values.append(tuple(value for value in column if not isinstance(value, str)))
    if (stripped := _stripped(task, first)) is not None:
        metrics.append(Metric(STRIPPED, higher_is_better=True))
        values.append(stripped[0])
        notes += (f"{stripped[1]:,} answers are right but for blanks around them; the harness counts them wrong",)
    card = TaskCard(
        task=name,
        version=str(getattr(task, "VERSION", None) or "none"),
        harness=version(),
        output_type=str(task.OUTPUT_TYPE),
        shots=int(task.get_config("num_fewshot") or 0),
        chat_template=template,
        source=source,
        total=len(task.eval_docs),
        limit=limit,
        metrics=tuple(metrics),
        prompt_sha256=prompt_digest(task),
        generation=json.dumps(task.get_config("generation_kwargs") or {}, sort_keys=True, default=str),
        notes=notes,
    )
    return UtilityTaskRow(name, to_json(card), item_ids(name, contents), tuple(values))


def _stripped(task: Any, samples: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, ...], int] | None:
    """Whether each answer is right but for blanks around it, and how many the harness counts as wrong for them."""
    if task.OUTPUT_TYPE != "generate_until" or "exact_match" not in samples[0]["metrics"]:
        return None
    own = [float(sample["exact_match"]) for sample in samples]
    said = [str(sample["filtered_resps"][0]).strip() == str(sample["target"]).strip() for sample in samples]
    found = tuple(max(mine, float(right)) for mine, right in zip(own, said, strict=True))
    close = sum(right and not mine for mine, right in zip(own, said, strict=True))
    return (found, close) if close else None


def prompt_digest(task: Any) -> str:
    """sha256 over what makes prompts and scores of a task's rows: texts, shots, filters, functions; not the data."""
    config = task.dump_config()
    kept = {key: config.get(key) for key in _PROMPT_KEYS}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def _metric(task: Any, metric: str, of: str, results: Mapping[str, Any], *, per_item: bool) -> Metric:
    reported = _number(results.get(f"{metric},{of}"))
    return Metric(
        name=metric,
        higher_is_better=task.higher_is_better().get(metric) is not False,
        filter=of,
        reported=None if isinstance(reported, str) else reported,
        per_item=per_item,
    )


def _is_mean(task: Any, metric: str) -> bool:
    from lm_eval.api.metrics import mean

    return task.aggregation().get(metric, mean) is mean


def _number(value: Any) -> float | str | None:
    """A finite number, None for a value that is not defined, ``"none"`` for what is no number at all."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return "none"
    return number if math.isfinite(number) else None
