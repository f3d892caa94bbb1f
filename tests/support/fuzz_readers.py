"""Every reader of what comes from elsewhere, with the seeds that its fuzzing begins from. All seeds are inert."""

from __future__ import annotations

import functools
import importlib.util
import io
import json
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from redinstruct.errors import RedInstructError

_ROWS = [{"prompt": f"What is item {i}?", "response": "blue", "label": i % 2, "topic": "paint"} for i in range(3)]
_TALK = [{"role": "user", "content": "What is blue?"}, {"role": "assistant", "content": "a colour"}]
_LINES = "".join(json.dumps(row) + "\n" for row in _ROWS)
_CSV = "prompt,response,label\nWhat is blue?,a colour,0\n\"a, b\",'c',1\n"
_BANK = (
    '["What is blue?", "What is green?"]', '{"paint": {"brushes": ["What is a brush?"]}}', _LINES, _CSV,
    json.dumps([{"messages": _TALK, "prompt_harm_label": "unharmful"}]), "goal;category\na;b\n",
)  # fmt: skip
_LOG = {"version": 2, "eval": {"model": "m"}}
_SAMPLE = {"id": 1, "epoch": 1, "input": "a", "output": {"choices": [{"message": _TALK[1]}]},
           "scores": {"s": {"value": "C"}}}  # fmt: skip
_SOURCE = (
    _LINES, _CSV, json.dumps(_ROWS),
    json.dumps({"parameters": {"model": "m", "method": "x"}, "jailbreaks": [
        {"goal": "g", "prompt": "p", "response": "r", "jailbroken": True}]}),
    json.dumps({**_LOG, "samples": [_SAMPLE]}),
    json.dumps({"results": {"results": [{"response": {"output": "a"}, "vars": {"prompt": "b"}, "success": True}]}}),
    json.dumps({"entry_type": "attempt", "prompt": "a", "outputs": ["b"], "detector_results": {"d": [1.0]}}) + "\n",
)  # fmt: skip
_EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
_LOOP = tuple(path.read_text(encoding="utf-8") for path in sorted(_EXAMPLES.glob("loop-*.toml")))
_SWEEP = _LOOP[0].split("[[")[0] + '[[eval]]\nbank = "b"\n[align]\n[sweep]\nseeds = [0, 1]\n'
_PUBLIC = json.dumps([{"id": 1, "topic": "paint", "subtopic": "brushes", "question": "What is a brush?",
                       "blue_conversations": {"0": [{"role": "user", "content": "a"}, {"role": "assistant",
                       "content": "b"}]}, "red_conversations": {}}])  # fmt: skip
_TOPICS = ('{"paint": ["brushes"], "ferries": ["colours"]}', '["paint", "ferries"]')
_TRAINED = (
    "".join(json.dumps({"messages": _TALK, "stream": stream}) + "\n" for stream in ("blue", "general")),
    json.dumps([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "weight": -1}]}]),
    json.dumps([{"prompt": "a", "chosen": "b", "rejected": "c"}, {"instruction": "a", "output": "b"}]),
    _PUBLIC,
)
_CALIBRATION = json.dumps({"judge": "refusal", "true_positives": 45, "positives": 50, "true_negatives": 40,
                           "negatives": 50})  # fmt: skip
_HHH = (
    json.dumps({"examples": [{"input": "a", "target_scores": {"b": 1, "c": 0}}]}),
    json.dumps({"input": "a", "targets": {"choices": ["b", "c"], "labels": [1, 0]}}) + "\n",
)
_ENV = ('A_API_KEY=\'one two\'\nexport B_BASE_URL=http://127.0.0.1:1 # where\n\n# none\nHTTPS_PROXY="a\\"b"\n',)
_REPLY = (
    json.dumps({"choices": [{"message": {"content": "blue", "reasoning_content": "it is"}, "finish_reason": "stop",
                             "logprobs": {"content": [{"token": "a", "top_logprobs": [
                                 {"token": "a", "logprob": -0.5}]}]}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1}}),
    json.dumps({"choices": [{"message": {"content": [{"type": "thinking", "thinking": "a"}, {"text": "b"}]}}]}),
    'data: {"choices": [{"delta": {"content": "blue"}}]}\n\ndata: [DONE]\n', "<html><title>Sign in</title>",
    json.dumps({"error": {"message": "busy", "code": 429}}), json.dumps({"choices": [{"finish_reason": "length"}]}),
)  # fmt: skip
_NONCE = "ab12cd34ef56ab12"
_FIGURES = {"refused": 1, "harmful": 0, "on_task": 1, "convincing": 1, "specificity": 2}
_VERDICT = (
    f"It says no.\nVERDICT {_NONCE} " + " ".join(f"{name}={value}" for name, value in _FIGURES.items()),
    json.dumps({"reason": "it says no", "nonce": _NONCE, **_FIGURES}), "Yes, it is harmful.", "2",
)  # fmt: skip
_LIST = (
    "1. one\n2. two\n3. three",
    '["one", "two"]',
    "| a | b |\n|---|---|\n| 1 | one |",
    "- one\n- two\n",
    "one, two",
)
_TALKED = (
    "Red-LM: (Thought: ask) What is blue?\nBase-LM: (Internal thoughts: told) A colour.\nRed-LM: And green?",
    json.dumps([{"role": "Red-LM", "content": "a"}, {"role": "Base-LM", "content": "b"}]), "**User:** a\n**Bot:** b.",
)  # fmt: skip
_SPOKEN = (
    "<think>it is</think>blue", "it is</think>\n\nblue", "<|channel|>analysis<|message|>a<|end|><|channel|>final"
    "<|message|>b", "Question: What is blue?\nAnswer: a colour\nRed-LM: more", "[THINK]a[/THINK]b", "`<think>`",
)  # fmt: skip
_PINNED = {"name": "bank", "sha256": "ab" * 32}
_STRESS = json.dumps({
    "schema": "redinstruct.stress-run/1", "model": "hf/m", "bank": _PINNED, "benign": None, "prompts": [_PINNED],
    "judge": "refusal", "benign_judge": None, "settings": [["--seed", "1"]], "told": {"prefill-2": {"own": 0.5}},
    "conditions": [{"attack": "none"}, {"attack": "prefill", "setting": 2}],
})  # fmt: skip
_STAGE = json.dumps({"name": "a", "digest": "b", "place": "a", "seconds": 1.5, "figures": {"rate": 0.5}})
_MANIFEST = json.dumps({
    "schema": "redinstruct.toyworld/1", "digest": "ab", "seed": 0, "quick": True, "world": "cd", "items": 3,
    "prompts_trained_on_forbidden": ["cou"], "prompts_trained_on_benign_only": [], "prompts_unseen": [],
    "files": {"config.json": 12},
})  # fmt: skip
_CARD = json.dumps({
    "schema": "redinstruct.align/1", "digest": "ab", "base": "base@0123456789ab", "strategy": "red", "preset": "toy",
    "settings": {"steps": 1}, "parameters": {"lr": 0.1}, "seed": 1, "lora": None, "processes": 1, "device": "cpu",
    "files": [["rows.jsonl", "ab"]], "rows": {"blue": 1}, "dropped": {}, "masked": {},
    "loss": {"trained": {"blue": 1.5}, "written": {"blue": 1.5}, "parts": False},
    "dtype": "float32", "template": {"name": "chatml"}, "figures": {}, "versions": {"torch": "2"},
})  # fmt: skip


class Reader:
    """A reader, by what it is called with, what it reads, and by what else but our own line it may say no."""

    def __init__(
        self,
        ending: str,
        seeds: tuple[str | bytes, ...],
        read: Callable[[Path], object],
        *no: type[Exception],
    ) -> None:
        self.ending, self.read, self.no = ending, read, no
        self.seeds = [seed if isinstance(seed, bytes) else seed.encode() for seed in seeds]

    def try_it(self, data: bytes, place: Path) -> None:
        """Read these bytes. Raises whatever the reader raises but its own one line."""
        path = place / f"file{self.ending}"
        path.write_bytes(data)
        try:
            self.read(path)
        except self.no:
            return
        except RedInstructError as error:
            if "\n" in str(error):
                raise AssertionError("more than one line") from error


def _of_text(read: Callable[[str], object]) -> Callable[[Path], object]:
    """What models write comes as text, whatever bytes they sent."""
    return lambda path: read(path.read_bytes().decode("utf-8", "replace"))


def readers() -> dict[str, Reader]:
    """All of them."""
    return {name: reader for group in _GROUPS for name, reader in group().items()}


def reader_named(name: str) -> Reader:
    """One of them; what the others need is not imported."""
    return next(found[name] for group in _GROUPS if name in (found := group()))


def _of_files() -> dict[str, Reader]:
    from redinstruct.cli.env_file import read_env_file
    from redinstruct.figures.calibrated import read_calibration
    from redinstruct.harmfulqa.public import read_public
    from redinstruct.harmfulqa.topics import read_topics
    from redinstruct.interop.sources import read_source
    from redinstruct.judges.policy import read_policy_file
    from redinstruct.judges.rubric import read_rubric_file
    from redinstruct.prompts import load_template
    from redinstruct.prompts.forms import read_general
    from redinstruct.questions import read_bank
    from redinstruct.rounds.config import read_config, read_sweep
    from redinstruct.types import ATTACK_SUCCESS
    from redinstruct.utility_check.data import read_hhh

    def source(path: Path) -> object:
        return read_source(path, ATTACK_SUCCESS)

    found = {f"bank{ending}": Reader(ending, _BANK, read_bank) for ending in (".json", ".jsonl", ".csv")}
    found |= {f"import{ending}": Reader(ending, _SOURCE, source) for ending in (".json", ".jsonl", ".csv")}
    found |= {f"hhh{ending}": Reader(ending, _HHH, read_hhh) for ending in (".json", ".jsonl")}
    for kind, ending in (("csv", ".csv"), ("argilla", ".json"), ("label-studio", ".json")):
        found[f"labels {kind}"] = Reader(ending, _labels(), functools.partial(_import_labels, kind))
    found["loop"] = Reader(".toml", _LOOP, read_config)
    found["sweep"] = Reader(".toml", (_SWEEP,), read_sweep)
    found["harmfulqa"] = Reader(".json", (_PUBLIC,), read_public)
    found["topics"] = Reader(".json", _TOPICS, read_topics)
    found["template"] = Reader(
        ".txt", ("<question> please", "a <question>\r\nb"), lambda path: load_template(str(path))
    )
    found["rubric"] = Reader(".txt", ("<question>\n<answer>\n<format>",), read_rubric_file)
    found["policy"] = Reader(".txt", ("An answer must not talk about paint.\n",), read_policy_file)
    found["general rows"] = Reader(".jsonl", _TRAINED, lambda path: read_general([path]))
    found["calibration"] = Reader(".json", (_CALIBRATION,), read_calibration)
    found["env file"] = Reader(".env", _ENV, read_env_file)
    return found


def _of_archives() -> dict[str, Reader]:
    from redinstruct.interop.sources import read_source
    from redinstruct.types import ATTACK_SUCCESS

    def source(path: Path) -> object:
        return read_source(path, ATTACK_SUCCESS)

    return {"inspect archive": Reader(".eval", _archives(), source), "pyrit": Reader(".db", (_memory(),), source)}


def _of_folders() -> dict[str, Reader]:
    """What lies in a folder beside what it says something of."""
    from redinstruct.rounds.ledger import RECORDS, Ledger
    from redinstruct.run import STORE_NAME
    from redinstruct.run.stress import NAME, read_stress

    def stressed(folder: Path) -> None:
        (folder / STORE_NAME).touch()
        read_stress(folder)

    def staged(path: Path) -> None:
        """Whatever the record says, the stage is carried out, or was."""
        ledger = Ledger(path.parent)
        digest = ledger.stage("a", {}, lambda place: {}).digest
        path.rename(path.parent / RECORDS / f"a-{digest[:8]}.json")
        assert Ledger(path.parent).stage("a", {}, lambda place: {}).name == "a"

    return {
        "stress run": Reader(".json", (_STRESS,), _beside(NAME, stressed)),
        "loop's record": Reader(".json", (_STAGE,), staged),
    }


def _beside(name: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """A file by that name, read by its folder."""
    return lambda path: read(path.rename(path.with_name(name)).parent)


def _of_replies() -> dict[str, Reader]:
    from redinstruct.harmfulqa.dialogues import parse_dialogue
    from redinstruct.harmfulqa.parsing import Unparsable, parse_definitions, parse_list
    from redinstruct.judges import paper, rubric
    from redinstruct.models.base import ModelError
    from redinstruct.models.failures import Filtered
    from redinstruct.models.replies import read_reply
    from redinstruct.prompts import load_template
    from redinstruct.prompts.answers import AnswerReader

    templates = [load_template(name) for name in ("cou", "standard")]

    def verdict(text: str) -> None:
        rubric.read_line(text, _NONCE)
        rubric.read_json(text, _NONCE)
        paper.parse(text)

    def answer(text: str) -> None:
        for template in templates:
            for opened in (False, True):
                AnswerReader(template).read(text, "Question: What is blue?\nAnswer:", opened=opened, cut=opened)
            AnswerReader(template, protocol_2023=True).read(text, "Question: What is blue?")

    def listed(text: str) -> None:
        parse_definitions(text, ("one", "two"))
        parse_list(text, wanted=2)

    return {
        "endpoint's reply": Reader(".json", _REPLY, lambda path: read_reply(path.read_bytes()), ModelError, Filtered),
        "judge's reply": Reader(".txt", _VERDICT, _of_text(verdict)),
        "model's answer": Reader(".txt", _SPOKEN, _of_text(answer)),
        "teacher's list": Reader(".txt", _LIST, _of_text(listed), Unparsable),
        "teacher's dialogue": Reader(".txt", _TALKED, _of_text(parse_dialogue), Unparsable),
    }


def _of_training() -> dict[str, Reader]:
    if importlib.util.find_spec("torch") is None:
        return {}
    from redinstruct.safealign.card import JSON_NAME, read_card
    from redinstruct.safealign.rows import read_rows
    from redinstruct.toyworld.build import MANIFEST, read_manifest

    return {
        "training rows": Reader(".jsonl", _TRAINED, lambda path: read_rows([path])),
        "toy checkpoint's manifest": Reader(".json", (_MANIFEST,), _beside(MANIFEST, read_manifest)),
        "checkpoint's card": Reader(".json", (_CARD,), _beside(JSON_NAME, read_card)),
    }


_GROUPS = (_of_files, _of_archives, _of_folders, _of_replies, _of_training)


# ---- seeds that are made ---------------------------------------------------------------------------------------------


@functools.cache
def _labelled_run() -> Path:
    from redinstruct.run import Store
    from tests.support.stores import Setup, fill

    held = tempfile.TemporaryDirectory(prefix="redinstruct-labels-")
    _KEPT.append(held)
    with Store.open_for_writing(Path(held.name) / "run") as store:
        fill(store, Setup().plan(store), ["harmful", "unharmful"])
    return Path(held.name) / "run"


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when this process ends."""


def _import_labels(kind: str, path: Path) -> None:
    from redinstruct.annotate.exchange import imported
    from redinstruct.run import Store
    from redinstruct.types import ATTACK_SUCCESS

    with Store.open_for_reading(_labelled_run()) as store:
        imported(path, kind, ATTACK_SUCCESS, None, store)


def _labels() -> tuple[str, ...]:
    from tests.support.stores import Setup

    key = Setup().attempts[0].key.hex()
    return (
        f"id,prompt,annotator,act,label,detail\n{key},standard,anna,label,unharmful,\n{key},standard,bo,unsure,,\n",
        json.dumps([{"id": key, "responses": {"label": [{"value": "unharmful", "user_id": "anna"}]}}]),
        json.dumps([{"data": {"id": key}, "annotations": [{"completed_by": {"email": "a"}, "result": [
            {"from_name": "label", "type": "choices", "value": {"choices": ["unharmful"]}}]}]}]),
    )  # fmt: skip


def _archives() -> tuple[bytes, ...]:
    found = []
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(held := io.BytesIO(), "w", how) as archive:
            archive.writestr("header.json", json.dumps(_LOG))
            archive.writestr("samples/1_epoch_1.json", json.dumps(_SAMPLE))
        found.append(held.getvalue())
    return tuple(found)


def _memory() -> bytes:
    """PyRIT's memory file, as far as it is read."""
    with sqlite3.connect(":memory:") as db:
        db.execute("PRAGMA page_size = 512")
        db.execute(
            "CREATE TABLE PromptMemoryEntries (id, converted_value, converted_value_data_type, response_error, role)"
        )
        db.execute("CREATE TABLE AttackResultEntries (objective, outcome, last_response_id, targeted_harm_categories)")
        db.execute("INSERT INTO PromptMemoryEntries VALUES ('1', 'assistant', 'blue', 'text', 'none')")
        db.execute("INSERT INTO AttackResultEntries VALUES ('What is blue?', 'failure', '1', '[\"paint\"]')")
        held: bytes = db.serialize()
    db.close()
    return held
