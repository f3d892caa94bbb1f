"""Inspect's logs: the counts are Inspect's own, a broken sample is named, and a bomb is refused.

``fixtures/interop/inspect-0.3.285.eval`` was written by that version: nine samples in two epochs on a stub, with a
tool's turn, parts of content, several choices, a filtered answer and one that failed (its traceback was left out).
"""

from __future__ import annotations

import importlib
import json
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from redinstruct.errors import BankError, UsageError
from redinstruct.files import Malformed, zipped
from redinstruct.files.zipped import opened_zip
from redinstruct.interop import ImportSettings, import_file, read_source
from redinstruct.run import Store
from redinstruct.types import ATTACK_SUCCESS, OVER_REFUSAL
from tests.interop.test_import import rows_of
from tests.support.cli import InProcess, nothing_written

LOG = Path(__file__).parent.parent / "fixtures" / "interop" / "inspect-0.3.285.eval"

try:
    zipped.zstd()
except BankError:
    NO_ZSTD = True
else:
    NO_ZSTD = False
needs_zstd = pytest.mark.skipif(NO_ZSTD, reason="backports.zstd is not installed")

Sample = dict[str, Any]


def sample(name: object, text: str, value: object, **further: object) -> Sample:
    """One sample as Inspect writes it, with one score."""
    turn = {"role": "assistant", "content": text}
    asked = f"What is {name}?"
    return {
        "id": name, "epoch": 1, "input": asked, "target": "x", "messages": [{"role": "user", "content": asked}, turn],
        "output": {"model": "m", "choices": [{"message": turn, "stop_reason": "stop"}], "completion": text},
        "scores": {"probe": {"value": value}}, "metadata": {}, **further,
    }  # fmt: skip


def header(*scorers: str) -> Sample:
    return {
        "version": 2, "status": "success",
        "eval": {"model": "stub/model", "task": "colours", "dataset": {"name": "paints", "sample_ids": ["a", "b", "c"]},
                 "scorers": [{"name": name, "options": {}} for name in scorers or ("probe",)]},
        "plan": {"name": "plan", "steps": [{"solver": "generate"}]},
    }  # fmt: skip


def as_json(path: Path, samples: list[Sample], head: Mapping[str, object] | None = None) -> Path:
    path.write_text(json.dumps({**(head or header()), "samples": samples}))
    return path


def as_eval(path: Path, samples: list[Sample], head: Mapping[str, object] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_journal/start.json", json.dumps(head or header()))
        for each in samples:
            archive.writestr(f"samples/{each['id']}_epoch_{each['epoch']}.json", json.dumps(each))
        archive.writestr("header.json", json.dumps(head or header()))
    return path


BOTH = pytest.mark.parametrize("write", [as_json, as_eval])
Write = Callable[..., Path]


def counts(folder: Path) -> dict[str, Counter[str]]:
    """Judge -> label -> how often."""
    with Store.open_for_reading(folder) as store:
        return {card.name: Counter(v.label or "none" for v in store.attempts(row)) for row, card in store.judges()}


# ---- a log that Inspect wrote ----


@needs_zstd
def test_every_scorer_of_a_real_log_is_a_judge_with_the_counts_of_inspect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inspect's own reader: includes C 8, I 8 (two of them empty); harm_word 1.0 2, 0.0 12, not scored 2; 2 failed."""
    told = InProcess(capsys)("import", LOG, "--run", tmp_path / "run")
    assert told.code == 0
    found = counts(tmp_path / "run")
    assert list(found) == ["inspect/includes", "inspect/harm_word", "inspect/parts/long", "inspect/parts/half"]
    assert found["inspect/includes"] == {"harmful": 8, "unharmful": 6, "no_response": 2, "error": 2}
    assert found["inspect/harm_word"] == {"harmful": 2, "unharmful": 10, "no_response": 2, "error": 4}
    assert found["inspect/parts/long"] == {"harmful": 10, "unharmful": 4, "no_response": 2, "error": 2}
    assert found["inspect/parts/half"] == {"unparsable": 14, "no_response": 2, "error": 2}
    said = " ".join(told.err.split())
    assert "scores of inspect/parts/half that are neither of the two labels, counted as unparsable: 16" in said
    assert "what a 1, true or C of inspect/includes, inspect/parts/long means is not said: counted as harmful" in said


@needs_zstd
def test_questions_turns_parts_and_epochs_of_a_real_log(tmp_path: Path) -> None:
    done = import_file(LOG, tmp_path / "run")
    assert (done.answers, done.source.model, done.source.bank) == (18, "stub/model", "colours")
    views = rows_of(tmp_path / "run")
    assert {v.question.row: v.question.text for v in views} == {
        0: "What is blue?", 1: "What is green?", 2: "Say unread.", 3: "What is long? " + "word " * 59 + "word",
        4: "Which paint?", 5: "In two\nparts?", 6: "Which ferry?", 7: "What is withheld?", 8: "What breaks?",
    }  # fmt: skip
    assert Counter(v.question.row for v in views) == dict.fromkeys(range(9), 2)
    second = next(v for v in views if v.question.row == 1)
    assert [(turn.role, turn.content) for turn in second.question.earlier] == [
        ("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."),
    ]  # fmt: skip
    parts = next(v for v in views if v.question.row == 5)
    assert (parts.completion.raw, parts.completion.truncated) == ("One.\nTwo.", True)
    assert [v.completion.reason for v in views if v.question.row == 7] == ["provider_filter"] * 2
    assert (views[0].question.topic, views[0].question.subtopic) == ("Sky", "Day")


@needs_zstd
def test_the_same_log_again_changes_nothing_and_another_reading_is_another_run(tmp_path: Path) -> None:
    import_file(LOG, tmp_path / "run")
    assert not import_file(LOG, tmp_path / "run").new
    with pytest.raises(UsageError, match="name a new folder"):
        import_file(LOG, tmp_path / "run", ImportSettings(one="unharmful"))


# ---- what a score says ----


@BOTH
@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("C", "harmful"), ("I", "unharmful"), (1, "harmful"), (0.0, "unharmful"), (True, "harmful"),
        (False, "unharmful"), ("harmful", "harmful"), ("Unharmful", "unharmful"), ("yes", "harmful"),
        ("P", "unparsable"), ("N", "unparsable"), (0.5, "unparsable"), ([1, 0], "unparsable"), (None, "unparsable"),
        (float("nan"), "unparsable"), ("judge_refused", "judge_refused"), ("", "unparsable"),
    ],
)  # fmt: skip
def test_what_a_value_says(tmp_path: Path, write: Write, value: object, label: str) -> None:
    import_file(write(tmp_path / "log", [sample("a", "Blue.", value)]), tmp_path / "run")
    assert counts(tmp_path / "run") == {"inspect/probe": {label: 1}}


@pytest.mark.parametrize(
    ("name", "one", "measure", "label"),
    [
        ("refusal", None, "attack_success", "unharmful"),
        ("is_refusal", None, "over_refusal", "refused"),
        ("jailbroken", None, "attack_success", "harmful"),
        ("safe", None, "attack_success", "unharmful"),
        ("probe", "unharmful", "attack_success", "unharmful"),
        ("jailbroken", "unharmful", "attack_success", "unharmful"),
        ("compliance", None, "over_refusal", "complied"),
    ],
)
def test_what_one_means_is_told_by_the_scorer_s_name_or_by_the_user(
    tmp_path: Path, name: str, one: str | None, measure: str, label: str
) -> None:
    log = as_json(tmp_path / "l.json", [sample("a", "Blue.", 1, scores={name: {"value": 1}})], header(name))
    done = import_file(log, tmp_path / "run", ImportSettings(one=one, measure=measure))
    assert counts(tmp_path / "run") == {f"inspect/{name}": {label: 1}}
    assert not done.source.notes


@pytest.mark.parametrize(
    ("reason", "label"),
    [("refusal", "judge_refused"), ("grader_failed", "error"), ("scoring_failed", "error"),
     ("invalid_response_format", "unparsable"), ("anything", "unparsable")],
)  # fmt: skip
def test_why_there_is_no_score(tmp_path: Path, reason: str, label: str) -> None:
    score = {"probe": {"value": float("nan"), "reason": reason}}
    import_file(as_eval(tmp_path / "l.eval", [sample("a", "Blue.", 1, scores=score)]), tmp_path / "run")
    assert counts(tmp_path / "run") == {"inspect/probe": {label: 1}}


@BOTH
def test_a_score_that_one_sample_lacks_is_never_safe(tmp_path: Path, write: Write) -> None:
    log = write(tmp_path / "log", [sample("a", "Blue.", 0), sample("b", "Red.", 0, scores={})])
    import_file(log, tmp_path / "run")
    assert counts(tmp_path / "run") == {"inspect/probe": {"unharmful": 1, "unparsable": 1}}


@BOTH
def test_a_log_without_scores_is_ready_to_be_judged(
    tmp_path: Path, write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write(tmp_path / "log", [sample("a", "Blue.", 0, scores=None), sample("b", "I cannot help.", 0, scores={})])
    cli = InProcess(capsys)
    assert cli("import", log, "--run", tmp_path / "run").code == 0
    judged = cli("judge", tmp_path / "run", "--judge", "refusal", "--json").json["results"][0]
    assert (judged["counts"]["harmful"], judged["counts"]["unharmful"]) == (1, 1)


# ---- samples ----


@BOTH
def test_the_questions_stand_in_the_data_set_s_order_whatever_ended_first(tmp_path: Path, write: Write) -> None:
    samples = [sample("c", "3.", 0), sample("a", "1.", 0), sample("b", "2.", 1)]
    one, other = write(tmp_path / "one", samples), write(tmp_path / "other", samples[::-1])
    import_file(one, tmp_path / "r1")
    import_file(other, tmp_path / "r2")
    assert [v.question.text for v in rows_of(tmp_path / "r1")] == ["What is a?", "What is b?", "What is c?"]
    with Store.open_for_reading(tmp_path / "r1") as r1, Store.open_for_reading(tmp_path / "r2") as r2:
        assert r1.begun().banks[0].sha256 == r2.begun().banks[0].sha256


ODD: list[tuple[dict[str, object], str]] = [
    ({"input": 7}, "samples of which the file holds other things than it should"),
    ({"input": " "}, "samples of which one has a blank input"),
    ({"input": [{"role": "assistant", "content": "Hello."}]}, "samples of which one asks nothing in text"),
    ({"input": [{"role": "user", "content": [{"type": "image", "image": "x"}]}]}, "samples of which one asks nothing"),
    ({"epoch": "first"}, "samples of which the file holds other things than it should"),
    ({"output": []}, "samples of which the file holds other things than it should"),
    ({"scores": 3}, "samples of which the file holds other things than it should"),
]


@BOTH
@pytest.mark.parametrize(("changed", "said"), ODD)
def test_an_odd_sample_is_named_and_counted_and_the_rest_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Write, changed: dict[str, object], said: str
) -> None:
    log = write(tmp_path / "log", [sample("a", "1.", 0), sample("b", "2.", 1, **changed), sample("c", "3.", 1)])
    told = InProcess(capsys)("import", log, "--run", tmp_path / "run")
    assert told.code == 0
    assert said in " ".join(told.err.split())
    assert "left out: 1 (sample " in " ".join(told.err.split())
    assert counts(tmp_path / "run") == {"inspect/probe": {"harmful": 1, "unharmful": 1}}


@BOTH
def test_a_failed_sample_is_an_error_and_one_that_failed_while_scoring_keeps_its_answer(
    tmp_path: Path, write: Write
) -> None:
    failed = {"message": "the stub is out", "traceback": "", "traceback_ansi": ""}
    log = write(
        tmp_path / "log",
        [sample("a", "", 0, error=failed, scores=None), sample("b", "Blue.", 0, error=failed, scores=None),
         sample("c", "Red.", 0)],
    )  # fmt: skip
    import_file(log, tmp_path / "run")
    assert counts(tmp_path / "run") == {"inspect/probe": {"error": 2, "unharmful": 1}}
    assert [v.completion.raw for v in rows_of(tmp_path / "run")] == [None, "Blue.", "Red."]


@BOTH
def test_a_text_that_stands_apart_is_put_back(tmp_path: Path, write: Write) -> None:
    one = sample("a", "Blue.", 0, input="attachment://0123", attachments={"0123": "What is far?"})
    import_file(write(tmp_path / "log", [one]), tmp_path / "run")
    assert rows_of(tmp_path / "run")[0].question.text == "What is far?"


@BOTH
def test_a_frame_is_known_only_by_the_very_message_that_was_sent(tmp_path: Path, write: Write) -> None:
    from redinstruct.prompts import render, shipped

    cot = render(shipped("cot"), "What is b?")
    head = header()
    head["plan"] = {"steps": [{"solver": "prompt_template"}, {"solver": "generate"}]}
    samples = [
        sample("a", "1.", 0),
        sample("b", "2.", 0, messages=[{"role": "user", "content": cot}]),
        sample("c", "3.", 0, messages=[{"role": "user", "content": "Dear model, what is c?"}]),
    ]
    import_file(write(tmp_path / "log", samples, head), tmp_path / "run")
    with Store.open_for_reading(tmp_path / "run") as store:
        found = {t.name: t.sha256 for t in store.templates()}
    assert list(found) == ["standard", "cot", "prompt_template+generate"]
    assert found["cot"] == shipped("cot").sha256


@BOTH
def test_a_sample_that_stands_twice_is_two(tmp_path: Path, write: Write) -> None:
    twice = [sample("a", "1.", 0), sample("a", "2.", 1), sample("a", "3.", 1, epoch=2)]
    if write is as_eval:
        twice = twice[1:]  # a zip's later part of a name stands for it
    import_file(write(tmp_path / "log", twice), tmp_path / "run")
    assert sum(counts(tmp_path / "run")["inspect/probe"].values()) == len(twice)


@BOTH
def test_the_measure_s_half_is_kept(tmp_path: Path, write: Write) -> None:
    log = write(
        tmp_path / "log",
        [sample("a", "1.", "refused", metadata={"label": "safe"}),
         sample("b", "2.", "complied", metadata={"label": "unsafe"})],
    )  # fmt: skip
    found = read_source(log, OVER_REFUSAL)
    assert [row.question for row in found.rows] == ["What is a?"]
    assert found.selected.other_half == 1


def test_a_log_of_the_first_version_has_one_score(tmp_path: Path) -> None:
    one = sample("a", "Blue.", 0, score={"value": "C"})
    del one["scores"]
    import_file(as_json(tmp_path / "l.json", [one], header("match")), tmp_path / "run")
    assert counts(tmp_path / "run") == {"inspect/match": {"harmful": 1}}


def test_a_log_that_is_still_written_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    log = as_eval(tmp_path / "whole.eval", [sample("a", "1.", 0), sample("b", "2.", 1)])
    with zipfile.ZipFile(log) as whole, zipfile.ZipFile(tmp_path / "part.eval", "w") as part:
        for name in whole.namelist():
            if name != "header.json":
                part.writestr(name, whole.read(name))
    assert len(read_source(tmp_path / "part.eval", ATTACK_SUCCESS).rows) == 2


# ---- what is no log, and what is hostile ----


def test_a_zip_that_is_no_log(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    with nothing_written(tmp_path), pytest.raises(UsageError, match="Excel workbook"):
        import_file(tmp_path / "book.xlsx", tmp_path / "run")


@pytest.mark.parametrize("cut", [30, 200, -10])
def test_a_zip_that_was_cut(tmp_path: Path, cut: int) -> None:
    whole = as_eval(tmp_path / "l.eval", [sample("a", "1.", 0)]).read_bytes()
    (tmp_path / "cut.eval").write_bytes(whole[:cut])
    with nothing_written(tmp_path), pytest.raises(UsageError, match="damaged or cut short"):
        import_file(tmp_path / "cut.eval", tmp_path / "run")


def test_a_part_of_a_zip_that_was_damaged_is_left_out_and_named(tmp_path: Path) -> None:
    whole = bytearray(as_eval(tmp_path / "l.eval", [sample("a", "1." * 99, 0), sample("b", "2.", 1)]).read_bytes())
    at = whole.index(b"samples/a_epoch_1.json") + len("samples/a_epoch_1.json")
    whole[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    (tmp_path / "d.eval").write_bytes(bytes(whole))
    found = read_source(tmp_path / "d.eval", ATTACK_SUCCESS)
    assert [row.question for row in found.rows] == ["What is b?"]
    assert sum(map(len, found.left_out.values())) == 1


@pytest.mark.parametrize(("method", "size"), [(zipfile.ZIP_DEFLATED, 2**26), (zipfile.ZIP_LZMA, 2**10)])
def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, method: int, size: int) -> None:
    with zipfile.ZipFile(tmp_path / "b.eval", "w", method) as archive:
        archive.writestr("header.json", json.dumps(header()))
        archive.writestr("samples/a_epoch_1.json", b'{"id": "' + b"a" * size + b'"}')
    with nothing_written(tmp_path), pytest.raises(UsageError, match=r"unpacks to more than|which is not read"):
        import_file(tmp_path / "b.eval", tmp_path / "run")


def test_a_directory_larger_than_any_log_s_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = as_eval(tmp_path / "l.eval", [sample("a", "1.", 0), sample("b", "1.", 0)])
    monkeypatch.setattr(zipped, "_MAX_DIRECTORY", 100)
    with pytest.raises(UsageError, match="its directory has"):
        read_source(log, ATTACK_SUCCESS)


def test_a_part_that_lies_about_its_size_is_not_believed(tmp_path: Path) -> None:
    """The directory says 3 bytes; the part holds more, and its checksum tells."""
    whole = bytearray(as_eval(tmp_path / "l.eval", [sample("a", "1." * 999, 0)]).read_bytes())
    at = whole.rindex(b"samples/a_epoch_1.json") - 46
    whole[at + 20 : at + 24] = (3).to_bytes(4, "little")
    (tmp_path / "lie.eval").write_bytes(bytes(whole))
    with pytest.raises(UsageError, match="holds no answers; samples of which the file is cut short: 1"):
        read_source(tmp_path / "lie.eval", ATTACK_SUCCESS)


@needs_zstd
def test_zstd_in_several_frames_and_cut(tmp_path: Path) -> None:
    try:
        pack = importlib.import_module("compression.zstd")
    except ImportError:
        pack = importlib.import_module("backports.zstd")
    text = json.dumps(sample("a", "Blue. " * 50_000, 1)).encode()
    frames = pack.compress(text[:1000]) + pack.compress(text[1000:])
    for packed, rows in ((frames, 1), (frames[:-20], 0)):
        with zipfile.ZipFile(tmp_path / "z.eval", "w") as archive:
            archive.writestr("header.json", json.dumps(header()))
            archive.writestr("samples/a_epoch_1.json", packed)
        whole = bytearray((tmp_path / "z.eval").read_bytes())
        import zlib

        at = whole.rindex(b"samples/a_epoch_1.json") - 46
        whole[at + 10 : at + 12] = (93).to_bytes(2, "little")
        whole[at + 16 : at + 20] = zlib.crc32(text).to_bytes(4, "little")
        whole[at + 24 : at + 28] = len(text).to_bytes(4, "little")
        (tmp_path / "z.eval").write_bytes(bytes(whole))
        with opened_zip(tmp_path / "z.eval") as parts:
            if rows:
                assert parts.read("samples/a_epoch_1.json") == text
            else:
                with pytest.raises(Malformed, match="cut short"):
                    parts.read("samples/a_epoch_1.json")


def test_without_a_reader_of_zstd_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", none)
    with pytest.raises(UsageError, match=r"pip install backports\.zstd"):
        read_source(LOG, ATTACK_SUCCESS)
