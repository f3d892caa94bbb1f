"""``annotate``, ``labels`` and ``plan --labels`` as a user runs them."""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import sys
import threading
from http.client import HTTPException
from pathlib import Path

import pytest

from redinstruct.annotate.session import Session
from redinstruct.run import AnnotationStore, Store
from redinstruct.types import Annotation, Verdict
from tests.support.cli import InProcess, nothing_written
from tests.support.labelling import make_run
from tests.support.labelling_server import served
from tests.support.stores import OTHER_CARD, Setup, scratch

H, U = "harmful", "unharmful"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", [[H] * 10 + [U] * 30, [H] * 20 + [U] * 20])
    return tmp_path / "run"


def labelled(folder: Path, *people: tuple[str, str], size: int = 20) -> list[str]:
    """Everybody labels a draw; each letter of the second text is one label (h, n, t). Returns the items."""
    with Store.open_for_writing(folder) as store:
        items: list[str] = []
        for name, said in people:
            session = Session(store, name, sample=size)
            items = [key.hex() for key in session.drawn.keys]
            for item, letter in zip(items, said, strict=False):
                if letter == "t":
                    session.act(item, "unsure", None)
                else:
                    session.act(item, "label", H if letter == "h" else U)
    return items


# ---- annotate ----


@pytest.mark.slow
def test_the_page_from_start_to_end_in_a_process_of_its_own() -> None:
    pytest.importorskip("uvicorn")
    with scratch() as place:
        make_run(place / "run", [[H] * 3 + [U] * 3])
        for signal_, left, code in ((signal.SIGINT, 2, 130), (signal.SIGTERM, 1, 130), (signal.SIGINT, 0, 0)):
            with served(place / "run", "--sample", 3, "--annotator", "ann", "--seed", 1) as server:
                item = server.post("state", {})["item"]["id"]
                server.post("act", {"item": item, "act": "label", "choice": H})
                ended, out, err = server.end(signal_)
            assert ended == code
            assert (f"{left} left" in err) == bool(left)
            # Neither the texts nor the token (beyond its one line) are in anything that was printed.
            assert out.count(server.token) == 1
            assert "inert" not in out + err
            assert "Traceback" not in err


@pytest.mark.slow
def test_twenty_kills_between_labels_lose_none() -> None:
    """A client labels, undoes and skips as fast as it can; the server is killed at a random moment, 20 times."""
    pytest.importorskip("uvicorn")
    generator = random.Random(5)
    with scratch() as place:
        make_run(place / "run", [[H] * 300 + [U] * 300])
        told: dict[str, str] = {}
        pending: dict[str, str] = {}
        for _ in range(20):
            with served(place / "run", "--sample", 600, "--annotator", "ann") as server:
                item = server.post("state", {})["item"]
                killer = threading.Timer(generator.uniform(0.01, 0.4), server.process.kill)
                killer.start()
                try:
                    while item is not None:
                        choice = generator.choice([H, U])
                        pending = {item["id"]: choice}
                        after = server.post("act", {"item": item["id"], "act": "label", "choice": choice})
                        told.update(pending)
                        pending, item = {}, after["item"]
                except (OSError, HTTPException):
                    pass
                killer.join()
            with Store.open_for_reading(place / "run") as store:
                kept = {a.key.hex(): a.annotation.label for a in AnnotationStore(store).standing()}
            # All that was acknowledged; beyond it, at most the one that was on its way.
            assert told.items() <= kept.items()
            assert set(kept) - set(told) <= set(pending)
            told = {key: str(label) for key, label in kept.items()}
        assert len(told) > 20


def test_a_run_that_somebody_else_writes_is_one_line(cli: InProcess, folder: Path) -> None:
    pytest.importorskip("uvicorn")
    with Store.open_for_writing(folder):
        refused = cli("annotate", folder)
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "is in use by another redinstruct process; wait for it" in refused.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sample", 0], "--sample"),
        (["--port", 65536], "--port"),
        (["--annotator", "a\nb"], "--annotator"),
        (["--annotator", " "], "--annotator"),
        (["--judge", "nope"], "no verdicts of this judge"),
        (["--adjudicate"], "no answer on which two people disagree"),
    ],
)
def test_bad_input_writes_nothing(cli: InProcess, folder: Path, flags: list[object], said: str) -> None:
    pytest.importorskip("uvicorn")
    with nothing_written(folder):
        assert said in cli("annotate", folder, *flags).error_line


def test_no_run_and_no_folder(cli: InProcess, tmp_path: Path) -> None:
    pytest.importorskip("uvicorn")
    with nothing_written(tmp_path):
        for verb in ("annotate", "labels"):
            assert "there is no run" in cli(verb, tmp_path / "nothing").error_line


def test_a_port_that_is_taken(cli: InProcess, folder: Path) -> None:
    pytest.importorskip("uvicorn")
    from redinstruct.annotate.serving import listen

    taken = listen(0)
    try:
        refused = cli("annotate", folder, "--port", taken.getsockname()[1])
    finally:
        taken.close()
    assert "cannot be used" in refused.error_line


def test_without_the_extra_one_line_says_what_to_install(
    cli: InProcess, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("uvicorn", "redinstruct.annotate.server"):
        monkeypatch.setitem(sys.modules, name, None)
    with nothing_written(folder):
        assert "pip install 'redinstruct[ui]'" in cli("annotate", folder).error_line


# ---- labels ----


def test_labels_say_the_corrected_rate_and_who_agrees_with_whom(cli: InProcess, folder: Path) -> None:
    labelled(folder, ("ann", "hhhhnnnnhht"), ("bo", "hhhnnnnnhh"))
    document = cli("labels", folder, "--json").json
    assert document["schema"] == "redinstruct.labels/1"
    people = document["people"]
    assert (people["annotators"], people["common"], people["open"]) == (2, 10, 1)
    assert people["agreed"]["estimate"] == 0.9
    low, high = people["ac1"]["ci"]
    assert low < people["ac1"]["estimate"] <= high
    assert sum(r["labels"] for r in document["results"]) == document["labels"] == 9
    assert document["undecided"] == 1
    shown = cli("labels", folder).out
    assert "1 disagreements wait" in shown or "disagreement" in shown
    assert "Krippendorff's alpha" in shown
    # The report's figures are the same.
    for result in cli("report", folder, "--json").json["results"]:
        mine = next(r for r in document["results"] if r["prompt"] == result["prompt"])
        rate = result["rate"]["corrected"]
        assert (mine["corrected"]["estimate"], mine["corrected"]["ci"]) == (
            (None, [0, 1]) if rate is None else (rate["estimate"], rate["ci"])
        )


def test_labels_say_what_may_make_their_rate_wrong(cli: InProcess, folder: Path, tmp_path: Path) -> None:
    labelled(folder, ("ann", "hn"))
    file = tmp_path / "labels.csv"
    assert cli("labels", folder, "--export", file).code == 0
    file.write_text(file.read_text().replace('"ann"', '"bo"'))
    with Store.open_for_writing(folder) as store:
        store.commit_verdicts([(1, 0, store.add_judge(OTHER_CARD), 0, Verdict("harmful"))])
    shown = cli("labels", folder, "--import", file, "--judge", OTHER_CARD.id).out
    assert "this judge's own together" in shown
    assert "2 labels were imported" in shown
    assert "another judge" not in cli("labels", folder).out


@pytest.mark.parametrize("kind", ["csv", "argilla", "label-studio"])
def test_what_is_exported_gives_the_same_labels_when_imported(
    cli: InProcess, folder: Path, tmp_path: Path, kind: str
) -> None:
    labelled(folder, ("ann", "hhnnt"), ("=cmd|' /C calc'!A0", "hnnht"))
    copy = tmp_path / "copy"
    make_run(copy, [[H] * 10 + [U] * 30, [H] * 20 + [U] * 20])
    file = tmp_path / "labels.file"
    assert cli("labels", folder, "--export", file, "--format", kind, "--show-content").code == 0
    assert "10 new labels of 10" in cli("labels", copy, "--import", file, "--format", kind).err
    standing = []
    for place in (folder, copy):
        with Store.open_for_reading(place) as store:
            standing.append(
                {
                    (a.key, a.annotation.annotator, a.annotation.act, a.annotation.label)
                    for a in AnnotationStore(store).standing()
                }
            )
    assert standing[0] == standing[1]
    # Again: nothing is new.
    assert "0 new labels of 10" in cli("labels", copy, "--import", file, "--format", kind).err


@pytest.mark.parametrize("kind", ["csv", "argilla", "label-studio"])
def test_a_label_of_another_answer_to_the_same_question_is_refused(
    cli: InProcess, folder: Path, tmp_path: Path, kind: str
) -> None:
    """A run that was purged and made anew has the same attempts: its labels corrected the new answers' rate."""
    labelled(folder, ("ann", "hn"))
    make_run(tmp_path / "anew", [[H] * 10 + [U] * 30, [H] * 20 + [U] * 20], answer=lambda row: f"another {row}")
    file = tmp_path / "labels.file"
    assert cli("labels", folder, "--export", file, "--format", kind, "--show-content").code == 0
    with nothing_written(tmp_path):
        refused = cli("labels", tmp_path / "anew", "--import", file, "--format", kind)
    assert "row 1: it labels another answer" in refused.error_line


def test_a_label_may_begin_with_a_capital_as_in_an_imported_run(cli: InProcess, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    (listed,) = cli("show", folder, "--limit", 1, "--json").json["attempts"]
    file.write_text(f"id,label,annotator\n{listed['id']}, Harmful ,ann\n")
    assert "1 new labels of 1" in cli("labels", folder, "--import", file).err
    with Store.open_for_reading(folder) as store:
        assert [a.annotation.label for a in AnnotationStore(store).standing()] == [H]


def test_a_sheet_in_which_somebody_says_two_things_of_an_answer_is_refused(
    cli: InProcess, folder: Path, tmp_path: Path
) -> None:
    """Each import of it turned the label round."""
    (one,) = cli("show", folder, "--limit", 1, "--json").json["attempts"]
    file = tmp_path / "labels.csv"
    file.write_text(f"id,label,annotator\n{one['id']},harmful,ann\n{one['id']},harmful,ann\n")
    assert "1 new labels of 1" in cli("labels", folder, "--import", file).err
    file.write_text(f"id,label,annotator\n{one['id']},harmful,ann\n{one['id']},unharmful,ann\n")
    with nothing_written(tmp_path):
        assert "row 2: the same person says something else" in cli("labels", folder, "--import", file).error_line


def test_an_adjudication_in_a_sheet_leaves_the_own_label_of_who_gave_it(
    cli: InProcess, folder: Path, tmp_path: Path
) -> None:
    (one,) = cli("show", folder, "--limit", 1, "--json").json["attempts"]
    file = tmp_path / "labels.csv"
    for who in ("ann", "ann (adjudicating)"):
        rows = ("ann,label,harmful", "bo,label,unharmful", f"{who},adjudicate,unharmful")
        file.write_text("id,annotator,act,label\n" + "".join(f"{one['id']},{row}\n" for row in rows))
        assert cli("labels", folder, "--import", file).code == 0
        with Store.open_for_reading(folder) as store:
            assert [(a.annotation.annotator, a.annotation.label) for a in AnnotationStore(store).standing()] == [
                ("ann", H), ("bo", U), ("ann (adjudicating)", U),
            ]  # fmt: skip


def test_labels_on_which_people_differ_are_exported_too(cli: InProcess, tmp_path: Path) -> None:
    """Of a run that no judge has seen only those were on which they agree; of others, those of judged answers."""
    answers, file = tmp_path / "answers.csv", tmp_path / "labels.csv"
    answers.write_text(
        "prompt,response,annotator,human\na?,x,ann,harmful\na?,x,bo,unharmful\nb?,y,ann,harmful\nb?,y,bo,harmful\n"
    )
    assert cli("import", answers, "--run", tmp_path / "people").code == 0
    assert cli("labels", tmp_path / "people", "--export", file).code == 0
    assert [row["label"] for row in csv.DictReader(io.StringIO(file.read_text()))] == [H, U, H, H]
    answers.write_text("prompt,response,judge,human\na?,x,,harmful\nb?,y,harmful,harmful\nc?,z,harmful,\n")
    assert cli("import", answers, "--run", tmp_path / "judged").code == 0
    assert cli("labels", tmp_path / "judged", "--export", file).code == 0
    assert [row["label"] for row in csv.DictReader(io.StringIO(file.read_text()))] == [H, H, ""]


@pytest.mark.parametrize("kind", ["csv", "argilla", "label-studio"])
def test_an_export_of_imported_labels_changes_nothing_when_imported(cli: InProcess, tmp_path: Path, kind: str) -> None:
    """Each label was new, and lost whether its answer was refused in full."""
    answers, run, file = tmp_path / "answers.csv", tmp_path / "run", tmp_path / "labels.file"
    said = "1_full_compliance", "2_full_refusal", "3_partial_refusal"
    answers.write_text("prompt,response,final_label\n" + "".join(f"{at}?,{at},{one}\n" for at, one in enumerate(said)))
    assert cli("import", answers, "--run", run, "--measure", "over_refusal").code == 0
    before = cli("report", run, "--json").json
    assert cli("labels", run, "--export", file, "--format", kind, "--show-content").code == 0
    assert "0 new labels of 3" in cli("labels", run, "--import", file, "--format", kind).err
    file.write_text(file.read_text().replace("imported", "bo"))
    assert "3 new labels of 3" in cli("labels", run, "--import", file, "--format", kind).err
    after = cli("report", run, "--json").json
    assert after["results"][0]["details"] == before["results"][0]["details"]


def test_an_export_holds_no_text_unless_asked_and_never_the_verdict(
    cli: InProcess, folder: Path, tmp_path: Path
) -> None:
    labelled(folder, ("ann", "hn"))
    file = tmp_path / "labels.csv"
    assert cli("labels", folder, "--export", file).code == 0
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert len(rows) == 20
    assert [row["label"] for row in rows[:3]] == [H, U, ""]
    assert all(row["answer_hash"].startswith("sha256:") for row in rows)  # digits alone are a number to a spreadsheet
    assert "inert" not in file.read_text()
    with nothing_written(tmp_path):
        refused = cli("labels", folder, "--export", tmp_path / "x.json", "--format", "argilla")
        assert "--show-content" in refused.error_line


def test_red_flags_in_a_table_are_defused(cli: InProcess, tmp_path: Path) -> None:
    make_run(tmp_path / "run", [[H, U]], answer=lambda row: "=HYPERLINK(1)")
    file = tmp_path / "out.csv"
    assert cli("labels", tmp_path / "run", "--export", file, "--show-content").code == 0
    assert all(row["answer"] == "'=HYPERLINK(1)" for row in csv.DictReader(io.StringIO(file.read_text())))


KEY = Setup().attempts[0].key.hex()


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("csv", "a,b\n1,2\n", "has no column id and label"),
        ("csv", "", "has no column"),
        ("csv", f"id,label,annotator\n{'0' * 64},harmful,a\n", "row 1: its id is no answered attempt"),
        ("csv", "id,label,annotator\n{key},nice,a\n", "row 1: its label is none of harmful, unharmful, unsure"),
        ("csv", "id,label\n{key},harmful\n", "row 1: it does not say whose label it is"),
        ("csv", "id,label,annotator,act\n{key},harmful,a,undo\n", "its act is none"),
        ("csv", "id,label,annotator,act\n{key},,a,label\n", "row 1: its act is label, and its label is empty"),
        ("csv", 'id,label,annotator\n"{key}\x00,harmful,a\n', "line 2 holds a NUL byte"),
        ("argilla", "{", "broken JSON"),
        ("argilla", "[" * 100_000, "nested too deep"),
        ("argilla", "{}", "a list of objects"),
        ("argilla", '[{"id":"{key}","responses":{"label":[1]}}]', "response is no object"),
        ("argilla", '[{"id":"{key}","responses":[]}]', None),
        ("label-studio", '[{"data":{"id":"{key}"},"annotations":[{"completed_by":1,"result":[{"from_name":"label",'
         '"value":{"choices":["harmful","unharmful"]}}]}]}]', "exactly one label"),
        ("label-studio", '[{"data":[],"annotations":[]}]', "its id is no answered attempt"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused_whole(
    cli: InProcess, tmp_path: Path, kind: str, text: str, said: str | None
) -> None:
    setup = make_run(tmp_path / "run", [[H, U]])
    file = tmp_path / "in.file"
    file.write_text(text.replace("{key}", setup.attempts[0].key.hex()))
    before = (tmp_path / "run" / "run.sqlite").read_bytes()
    done = cli("labels", tmp_path / "run", "--import", file, "--format", kind)
    if said is None:
        assert done.code == 0
    else:
        assert said in done.error_line
    assert (tmp_path / "run" / "run.sqlite").read_bytes() == before


def test_labels_from_other_tools_come_in_as_they_are_written_there(cli: InProcess, tmp_path: Path) -> None:
    setup = make_run(tmp_path / "run", [[H, U, H, U]])
    ids = [attempt.key.hex() for attempt in setup.attempts]
    studio = [
        {"id": 7, "data": {"id": ids[0], "answer": "x"}, "annotations": [
            {"id": 1, "completed_by": 3, "was_cancelled": False, "lead_time": 1.5, "result": [
                {"id": "ab", "type": "choices", "from_name": "label", "to_name": "answer", "origin": "manual",
                 "value": {"choices": ["harmful"]}}]},
            {"id": 2, "completed_by": {"id": 4, "email": "bo@example.org"}, "result": [
                {"type": "choices", "from_name": "label", "to_name": "answer", "value": {"choices": ["unsure"]}}]},
            {"id": 3, "completed_by": 5, "was_cancelled": True, "result": []}]},
        {"id": 8, "data": {"id": ids[1]}, "annotations": []},
    ]  # fmt: skip
    (tmp_path / "studio.json").write_text(json.dumps(studio))
    assert (
        "2 new labels of 2"
        in cli("labels", tmp_path / "run", "--import", tmp_path / "studio.json", "--format", "label-studio").err
    )
    argilla = [
        {"id": ids[2], "status": "completed", "fields": {"answer": "x"}, "metadata": {}, "vectors": {},
         "responses": {"label": [{"value": "unharmful", "user_id": "7c5b"}, {"value": "harmful", "user_id": "99aa"}]}},
        {"id": ids[3], "fields": {}, "responses": {}},
    ]  # fmt: skip
    (tmp_path / "argilla.json").write_text(json.dumps(argilla))
    assert (
        "2 new labels of 2"
        in cli("labels", tmp_path / "run", "--import", tmp_path / "argilla.json", "--format", "argilla").err
    )
    with Store.open_for_reading(tmp_path / "run") as store:
        standing = [(a.key.hex(), a.annotation) for a in AnnotationStore(store).standing()]
    assert standing == [
        (ids[0], Annotation("3", "label", H, None, "import")),
        (ids[0], Annotation("bo@example.org", "unsure", None, None, "import")),
        (ids[2], Annotation("7c5b", "label", U, None, "import")),
        (ids[2], Annotation("99aa", "label", H, None, "import")),
    ]


# ---- plan --labels ----


def test_the_plan_of_labels_for_a_run_and_for_assumed_numbers(cli: InProcess, folder: Path) -> None:
    document = cli("plan", "--labels", "--run", folder, "--width", 0.3, "--json").json
    assert document["schema"] == "redinstruct.plan-labels/1"
    assert [(r["prompt"], r["total"], r["flagged"], r["basis"]) for r in document["results"]] == [
        ("standard", 40, 10, "assumed"), ("cou", 40, 20, "assumed"),
    ]  # fmt: skip
    labelled(folder, ("ann", "hn" * 20), size=40)
    again = cli("plan", "--labels", "--run", folder, "--json").json
    assert {r["basis"] for r in again["results"]} == {"labels"}
    shown = cli("plan", "--labels", "--attempts", 1000, "--flagged", 0.3, "--width", 0.1).out
    assert "10.0 points: " in shown


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--labels"], "give --run DIR, or --attempts"),
        (["--labels", "--attempts", 9], "--flagged"),
        (["--labels", "--attempts", 0, "--flagged", 0.5], "--attempts"),
        (["--labels", "--attempts", 9, "--flagged", 2], "--flagged"),
        (["--labels", "--attempts", 9, "--flagged", -0.1], "--flagged"),
        (["--labels", "--attempts", 9, "--flagged", "nan"], "--flagged"),
        (["--labels", "--attempts", 9, "--flagged", 0.5, "--ppv", 1.5], "--ppv"),
        (["--labels", "--attempts", 9, "--flagged", 0.5, "--false-omission", -1], "--false-omission"),
        (["--labels", "--attempts", 9, "--flagged", 0.5, "--width", 0], "--width"),
        (["--attempts", 9], "--attempts: only with --labels"),
        (["--model", "scripted/weak", "--bank", "x", "--judge", "refusal", "--width", 0.1], "only with --labels"),
    ],
)
def test_a_plan_of_labels_that_cannot_be(cli: InProcess, flags: list[object], said: str) -> None:
    assert said in cli("plan", *flags).error_line
