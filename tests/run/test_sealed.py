"""Sealed runs: no text on the disk, figures without a key, texts with it, and one line where it is missing or wrong."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import redinstruct
from redinstruct.errors import ConfigError, DamagedStore, UsageError
from redinstruct.run import Store, check_run_folder
from redinstruct.run.encryption import FILE_NAME, KEY_NAME, NEW_NAME, attach, sealing
from redinstruct.run.resealing import reseal
from redinstruct.run.stress import evaluations_of
from tests.figures.test_stressed import stress_run
from tests.support.cli import InProcess, tree
from tests.support.stores import Setup, fill

pytest.importorskip("cryptography", reason="sealing needs the package cryptography")

KEY, OTHER = "k" * 8 + "1a2b3c4d5e6f", "z" * 8 + "6f5e4d3c2b1a"
CANARY = "zorviul"
QUESTIONS = [f"What is {CANARY} number {n}?" for n in range(6)] + [f"what is  {CANARY} number 0?"]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)


@pytest.fixture
def bank(place: Path) -> Path:
    (place / "bank.json").write_text(json.dumps(QUESTIONS))
    return place / "bank.json"


@contextlib.contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing is written."""
    before = tree(folder)
    yield
    assert tree(folder) == before


def ask(cli: InProcess, bank: Path, run: Path, *flags: object, model: str = "scripted/comply") -> None:
    done = cli("eval", "--model", model, "--bank", bank, "--judge", "refusal", "--run", run, *flags)
    assert done.code == 0, done.err


def bytes_of(run: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(run.iterdir()))


def figures(cli: InProcess, run: Path, *more: object) -> list[str]:
    found = [cli("report", run, *more, "--json").out, cli("report", run, *more).out]
    return [*found, cli("gate", run, "--max-rate", 0.5, "--json").out]


def test_a_sealed_run_holds_no_text_and_gives_the_same_figures_with_and_without_its_key(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(cli, bank, place / "plain")
    ask(cli, bank, place / "sealed", "--seal")
    assert CANARY.encode() in bytes_of(place / "plain")
    assert CANARY.encode() not in bytes_of(place / "sealed")
    told = figures(cli, place / "plain")
    assert figures(cli, place / "sealed") == told
    shown = cli("show", place / "sealed", "--show-content", "--json")
    assert CANARY in shown.out
    assert shown.out == cli("show", place / "plain", "--show-content", "--json").out
    monkeypatch.delenv(KEY_NAME)
    assert figures(cli, place / "sealed") == told
    assert cli("compare", place / "sealed", place / "plain").code == 0
    judge = ("judge", place / "sealed", "--judge", "paper", "--judge-model", "scripted/judge")
    for words in (("show", place / "sealed"), judge, ("report", place / "sealed", "--out", place / "p.html")):
        with unchanged(place):
            refused = cli(*words)
        assert refused.code == 2, words
        assert KEY_NAME in refused.error_line
        assert "sealed" in refused.error_line


def test_a_sealed_run_is_resumed_and_judged_again(cli: InProcess, place: Path, bank: Path) -> None:
    flags = ("--model", "scripted/echo", "--bank", bank, "--judge", "refusal", "--run", place / "run")
    assert cli("eval", *flags, "--seal", "--max-calls", 4).code == 11
    assert cli("eval", *flags).code == 0
    assert cli("judge", place / "run", "--judge", "paper", "--judge-model", "scripted/judge").code == 0
    assert CANARY.encode() not in bytes_of(place / "run")


def test_a_wrong_key_is_one_line_and_changes_nothing(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(cli, bank, place / "run", "--seal")
    monkeypatch.setenv(KEY_NAME, OTHER)
    for words in (("show", place / "run"), ("report", place / "run"), ("seal", place / "run", "--rotate")):
        with unchanged(place):
            refused = cli(*words)
        assert refused.code == 2
        assert "another key" in refused.error_line
        assert OTHER not in refused.err
    monkeypatch.setenv(KEY_NAME, "short")
    assert "at least 16 characters" in cli("show", place / "run").error_line


def test_no_key_and_a_run_in_clear_are_refused_before_anything_is_asked(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--model", "scripted/echo", "--bank", bank, "--judge", "refusal", "--run")
    assert cli("eval", *flags, place / "plain", "--max-calls", 0).code == 11
    with unchanged(place):
        assert "redinstruct seal" in cli("eval", *flags, place / "plain", "--seal").error_line
    monkeypatch.delenv(KEY_NAME)
    with unchanged(place):
        refused = cli("eval", *flags, place / "new", "--seal")
    assert refused.code == 2
    assert KEY_NAME in refused.error_line


def test_a_run_is_sealed_later_and_its_key_is_changed(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = place / "run"
    ask(cli, bank, run)
    told, shown = figures(cli, run), cli("show", run, "--show-content", "--json").out
    assert cli("seal", run).code == 0
    assert CANARY.encode() not in b"".join(
        path.read_bytes() for path in place.rglob("*") if path != bank and path.is_file()
    )
    assert (figures(cli, run), cli("show", run, "--show-content", "--json").out) == (told, shown)
    assert "sealed already" in cli("seal", run).error_line
    assert NEW_NAME in cli("seal", run, "--rotate").error_line
    before = bytes_of(run)
    monkeypatch.setenv(NEW_NAME, OTHER)
    assert cli("seal", run, "--rotate").code == 0
    assert "another key" in cli("show", run).error_line
    (place / "key").write_text(OTHER + "\n")
    monkeypatch.delenv(KEY_NAME)
    monkeypatch.setenv(FILE_NAME, str(place / "key"))
    assert cli("show", run, "--show-content", "--json").out == shown
    assert before != bytes_of(run)


def test_shards_and_what_is_merged_of_them_stay_sealed(cli: InProcess, place: Path, bank: Path) -> None:
    flags = ("--model", "scripted/echo", "--bank", bank, "--judge", "refusal")
    assert cli("eval", *flags, "--run", place / "run", "--seal", "--max-calls", 4).code == 11
    done = cli("shard", place / "run", "--of", 2, "--out", place / "parts")
    assert done.code == 0, done.err
    parts = [place / "parts" / name for name in ("1", "2")]
    for part in parts:
        assert cli("eval", *flags, "--run", part).code == 0
    assert cli("merge", place / "run", *parts, "--run", place / "whole").code == 0
    for folder in (*parts, place / "whole"):
        assert CANARY.encode() not in bytes_of(folder)
    assert CANARY in cli("show", place / "whole", "--show-content", "--json").out


def test_a_collection_is_sealed_and_exported(cli: InProcess, place: Path) -> None:
    flags = ("--teacher", "scripted/red-teacher", "--per-subtopic", 2, "--blue", 1, "--run", place / "run", "--seal")
    topics = place / "topics.json"
    topics.write_text(json.dumps({"the zor family": ["make"]}))
    assert cli("collect", *flags, "--topics", topics).code == 0
    assert cli("export", place / "run", "--to", "harmfulqa", "--out", place / "out.json").code == 0
    said = [turn["value"] for row in json.loads((place / "out.json").read_text())
            for turn in row["blue_conversations"]["0"]]  # fmt: skip
    assert said
    held = bytes_of(place / "run")
    assert not [words for words in said if words.encode() in held]


def test_a_text_that_was_changed_or_moved_does_not_read(cli: InProcess, place: Path, bank: Path) -> None:
    ask(cli, bank, place / "run", "--seal", model="scripted/echo")
    with Store.open_for_reading(place / "run") as store:
        found = store.db.execute("SELECT raw, attempt, asked FROM main.completions ORDER BY id LIMIT 2").fetchall()
        (one, attempt, asked), (two, _, _) = found
    with sqlite3.connect(":memory:", isolation_level=None) as db:
        db.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
        for table in ("questions", "completions", "verdicts", "calls"):
            db.execute("CREATE TABLE %s (id INTEGER)" % table)  # noqa: UP031
        with Store.open_for_reading(place / "run") as store:
            row = store.db.execute("SELECT value FROM main.meta WHERE key = 'seal'").fetchone()
        db.execute("INSERT INTO meta VALUES ('seal', ?)", row)
        seal = attach(db, place / "run", writes=True)
    db.close()
    assert CANARY in str(seal.unseal("completions.raw", one, attempt, asked))
    flipped = one[:-1] + bytes([one[-1] ^ 1])
    looks = one[:1] + bytes([one[1] ^ 1]) + one[2:]
    for value in (two, flipped, looks, one[:20], "clear"):
        with pytest.raises(DamagedStore):
            seal.unseal("completions.raw", value, attempt, asked)
    with pytest.raises(DamagedStore):
        seal.unseal("completions.judged", one, attempt, asked)


def test_sealing_without_a_key_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_NAME)
    with sealing(), pytest.raises(ConfigError, match="openssl rand"):
        check_run_folder(place / "new")
    monkeypatch.setenv(FILE_NAME, "/nowhere/key")
    with sealing(), pytest.raises(UsageError, match="can not be read"):
        check_run_folder(place / "new")
    check_run_folder(place / "new")


def test_a_run_that_a_function_begins_is_sealed_too(place: Path, bank: Path) -> None:
    for name, on in (("sealed", True), ("clear", False)):
        with sealing(on):
            redinstruct.evaluate(model="scripted/echo", bank=bank, judge="refusal", run=place / name)
        assert (CANARY.encode() in bytes_of(place / name)) != on
    assert redinstruct.report(place / "sealed") == redinstruct.report(place / "clear")
    reseal(place / "clear")
    assert CANARY.encode() not in bytes_of(place / "clear")


LOOP = """
model = "scripted/weak"
[collect]
teacher = "scripted/red-teacher"
judge = "refusal"
topics = "topics.json"
per_subtopic = 1
blue = 1
[[eval]]
name = "harm"
banks = ["bank.json"]
judge = "refusal"
prompts = ["standard"]
"""


def test_every_run_of_a_sealed_loop_is_sealed(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "topics.json").write_text(json.dumps({"the zor family": ["make"]}))
    (place / "loop.toml").write_text(LOOP)
    done = cli("loop", place / "loop.toml", "--seal")
    assert done.code == 0, done.err
    stores = [store.parent for store in place.rglob("run.sqlite")]
    assert len(stores) == 2
    said = json.loads(cli("show", next(s for s in stores if "collect" in str(s)), "--show-content", "--json").out)
    texts = [CANARY, *(call for call in json.dumps(said).split('"') if len(call) > 30 and " " in call)]
    assert len(texts) > 1
    for run in stores:
        held = bytes_of(run)
        assert not [text for text in texts if text.encode() in held], run
    assert cli("loop", place / "loop.toml", "--seal").code == 0
    monkeypatch.delenv(KEY_NAME)
    assert KEY_NAME in cli("loop", place / "loop.toml", "--seal").error_line


@pytest.mark.parametrize(
    "words",
    [
        ("demo", "--quick", "--out", "out"),
        ("demo", "--real", "--out", "out"),
        ("stress", "--model", "hf/x", "--bank", "bank.json", "--judge", "exact", "--run", "out"),
        ("loop", "loop.toml"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_without_a_key_a_long_verb_ends_before_anything_is_done(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    (place / "loop.toml").write_text(LOOP)
    monkeypatch.delenv(KEY_NAME)
    monkeypatch.chdir(place)
    with unchanged(place):
        assert KEY_NAME in cli(*words, "--seal").error_line


@pytest.mark.parametrize("verb", [("seal",), ("purge", "--yes")])
def test_what_a_seal_left_that_was_killed_at_its_end_is_overwritten(
    cli: InProcess, place: Path, bank: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    run = place / "run"
    ask(cli, bank, run)
    with monkeypatch.context() as patch:
        patch.setattr("redinstruct.run.purging._empty_and_remove", lambda folder: 0)  # the new store stands
        assert cli("seal", run).code == 0
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == [".run.purging"]
    assert cli(verb[0], run, *verb[1:]).code == 0
    assert not [path for path in place.iterdir() if path.name.startswith(".")]
    assert run.exists() == (verb[0] == "seal")


@pytest.mark.parametrize("with_key", [True, False])
def test_a_fault_of_this_program_on_a_sealed_run_is_not_called_damage(
    place: Path, monkeypatch: pytest.MonkeyPatch, with_key: bool
) -> None:
    with sealing(), Store.open_for_writing(place / "run") as store:
        fill(store, Setup().plan(store), ["harmful", "unharmful"])
    if not with_key:
        monkeypatch.delenv(KEY_NAME)
    with pytest.raises(ZeroDivisionError), Store.open_for_reading(place / "run"):
        raise ZeroDivisionError


def test_of_a_stress_run_the_attacks_are_sealed_and_get_the_new_key_too_and_a_kill_between_them_is_gone_on_from(
    cli: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stress_run(place / "run")
    whole = evaluations_of(run)
    assert len(whole) == 12
    done: list[Path] = []

    def killed_at(number: int, rotate: bool) -> None:
        from redinstruct.run.whole import remade_run

        def dies(folder: Path, write: Callable[[Store], object]) -> None:
            if len(done) == number:
                raise KeyboardInterrupt
            done.append(folder)
            remade_run(folder, write)

        with monkeypatch.context() as patch:
            patch.setattr("redinstruct.run.resealing.remade_run", dies)
            with pytest.raises(KeyboardInterrupt):
                reseal(run, rotate=rotate)

    killed_at(3, rotate=False)
    assert cli("seal", run).code == 0
    assert not [one for one in whole if b"an inert answer" in (one / "run.sqlite").read_bytes()]
    assert "is sealed already" in cli("seal", run).error_line
    monkeypatch.setenv(NEW_NAME, OTHER)
    done.clear()
    killed_at(4, rotate=True)
    assert cli("seal", run, "--rotate").code == 0
    monkeypatch.setenv(KEY_NAME, OTHER)
    for one in whole:
        with Store.open_for_reading(one) as store:
            assert store.sealed
            assert next(iter(store.attempts(1))).completion.raw == "an inert answer"


def test_attacks_that_were_left_in_clear_are_sealed_by_the_same_command(cli: InProcess, place: Path) -> None:
    """As an earlier version left them, which sealed the undisturbed model's answers alone."""
    run = stress_run(place / "run", benign=False)
    aside = run.with_name("aside")
    (run / "attacks").rename(aside)
    assert cli("seal", run).code == 0
    aside.rename(run / "attacks")
    assert cli("seal", run).code == 0
    assert not [one for one in evaluations_of(run) if b"an inert answer" in (one / "run.sqlite").read_bytes()]
