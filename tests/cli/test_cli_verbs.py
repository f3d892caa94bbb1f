"""The verbs that read: report, show, plan, banks, models, purge; and the command line's own manners."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest

from redinstruct import banks
from tests.support.cli import InProcess, command, environment, nothing_written, on_terminal
from tests.support.endpoint import Endpoint

HOSTILE = (
    "Plain \x1b[31mred\x1b[0m \x1b]52;c;aGk=\x07 clip \x1b]8;;http://127.0.0.1/\x07link\x1b]8;;\x07 over\rwritten "
    "\u202ereversed\u202c zero\u200bwidth \x9b2J c1 \U000e0041tag \x7f\x00 end\nsecond line\ttab"
)
FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    path = tmp_path / "inert.json"
    questions = {
        "First topic": {"Sub a": [f"Inert a{i}?" for i in range(8)]},
        "Second": {"Sub b": [f"Inert b{i}?" for i in range(4)]},
    }
    path.write_text(json.dumps(questions))
    return path


@pytest.fixture
def folder(cli: InProcess, bank: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    assert cli(*evaluate(bank, run)).code == 0
    return run


def evaluate(bank: Path, run: Path, *more: object, model: str = "scripted/weak") -> list[object]:
    return ["eval", "--model", model, "--bank", bank, "--judge", "refusal", "--run", run, *more]


# ---- report ----


def test_a_report_is_a_table_with_both_conventions_and_its_caveats(cli: InProcess, folder: Path) -> None:
    result = cli("report", folder)
    assert (result.code, result.err) == (0, "")
    for word in ("scripted/weak", "attack success", "uncorrected", "inert", "standard", "cot", "cou", "baseline",
                 "paper's convention", "bounds", "95 %", "Wilson"):  # fmt: skip
        assert word in result.out, word


def test_attempts_without_a_verdict_bring_out_both_conventions_the_bounds_and_why(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mixed.json"
    path.write_text(json.dumps(["a?", "b?", "c? fault:filtered", "d? fault:404", "e?"]))
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        said = cli(*evaluate(path, tmp_path / "run", "--prompt", "standard", model="openai-api/stub/m"))
    for word in ("% of judged", "% of all", "bounds", "no", "response", "scored", "provisional"):
        assert word in said.out, word
    for reason in ("not_found 1", "provider_filter 1"):
        assert reason in said.err, reason


def test_by_topic_adds_a_table_per_prompt(cli: InProcess, folder: Path) -> None:
    out = cli("report", folder, "--by-topic").out
    assert out.count("First topic") == 3
    assert "inert, cou: by topic" in out
    assert "First topic" not in cli("report", folder).out


def test_several_runs_stand_in_one_report(cli: InProcess, folder: Path, bank: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert cli(*evaluate(bank, other, model="scripted/refuse")).code == 0
    both = cli("report", folder, other, "--json")
    single = [r for one in (folder, other) for r in cli("report", one, "--json").json["results"]]
    assert both.json["results"] == single
    out = cli("report", folder, other).out
    assert "scripted/weak" in out
    assert "scripted/refuse" in out


def test_two_judge_models_are_told_apart(cli: InProcess, folder: Path) -> None:
    for judge in ("scripted/judge", "scripted/refuse"):
        assert cli("judge", folder, "--judge", "paper", "--judge-model", judge).code == 0
    out = cli("report", folder).out
    assert "paper on scripted/judge" in out
    assert "paper on scripted/refuse" in out


def test_csv_has_a_line_per_result_and_topic_and_no_formula(cli: InProcess, tmp_path: Path) -> None:
    bank = tmp_path / "=cmd.json"
    bank.write_text(json.dumps({"=HYPERLINK(1)": {"s": ["x?"]}, "@SUM": {"s": ["y?"]}}))
    cli(*evaluate(bank, tmp_path / "run"))
    target = tmp_path / "figures.csv"
    assert cli("report", tmp_path / "run", "--csv", target).code == 0
    rows = list(csv.DictReader(io.StringIO(target.read_text())))
    assert len(rows) == 9
    assert {row["topic"] for row in rows} == {"", "'=HYPERLINK(1)", "'@SUM"}
    for row in rows:
        assert not any(cell.startswith(("=", "+", "@", "\t")) for cell in row.values())
        assert int(row["first"]) + int(row["second"]) == int(row["total"])


def test_csv_is_replaced_whole_or_left_as_it_was(
    cli: InProcess, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "figures.csv"
    target.write_text("old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, nothing_written(tmp_path):
        patch.setattr(Path, "replace", full)
        assert "No space left" in cli("report", folder, "--csv", target).error_line
    assert cli("report", folder, "--csv", target).code == 0
    assert target.read_text().startswith('"model",')
    assert "cannot be written" in cli("report", folder, "--csv", tmp_path / "no" / "where.csv").error_line


def test_csv_to_a_device_writes_there_and_does_not_replace_it(cli: InProcess, folder: Path) -> None:
    assert cli("report", folder, "--csv", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()


def test_reporting_changes_nothing_in_the_run(cli: InProcess, folder: Path) -> None:
    before = (folder / "run.sqlite").read_bytes()
    for arguments in (["report", folder], ["show", folder], ["report", folder, "--json"]):
        cli(*arguments)
    assert (folder / "run.sqlite").read_bytes() == before


# ---- show ----


def test_the_list_of_attempts_hides_what_was_said(cli: InProcess, folder: Path) -> None:
    for arguments in (["show", folder], ["show", folder, "--json"]):
        out = cli(*arguments).out
        assert "Inert" not in out
        assert "sorry" not in out
        assert "unharmful" in out


def test_a_label_selects_and_more_are_counted(cli: InProcess, folder: Path) -> None:
    found = cli("show", folder, "--label", "harmful", "--json", "--limit", 3).json
    assert {a["label"] for a in found["attempts"]} == {"harmful"}
    assert len(found["attempts"]) == 3
    assert found["left_out"] > 0
    assert "more (--limit)" in cli("show", folder, "--limit", 3).err
    nothing = cli("show", folder, "--label", "judge_refused")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "no such attempt\n")
    assert "no such label" in cli("show", folder, "--label", "naughty").error_line


def test_the_beginning_of_an_id_shows_one_attempt(cli: InProcess, folder: Path) -> None:
    listed = cli("show", folder, "--json").json["attempts"]
    for attempt in listed[:3]:
        hidden = cli("show", folder, attempt["id"][:12])
        assert attempt["id"] in hidden.out
        assert re.search(rf"^row: +{attempt['row'] + 1}$", hidden.out, re.MULTILINE), "as in the list"
        assert "Inert" not in hidden.out
        assert "--show-content" in hidden.out
        shown = cli("show", folder, attempt["id"][:12].upper(), "--show-content")
        assert "Inert" in shown.out
        assert "--- answer" in shown.out
    assert cli("show", folder, listed[0]["id"], "--json", "--show-content").json["question"].startswith("Inert")
    assert "no recorded attempt" in cli("show", folder, "0" * 64).error_line
    assert "hexadecimal" in cli("show", folder, "%").error_line
    assert "more than one" in cli("show", folder, *ambiguous(listed)).error_line


def ambiguous(listed: list[dict[str, str]]) -> list[str]:
    firsts = [attempt["id"][0] for attempt in listed]
    return [next(digit for digit in firsts if firsts.count(digit) > 1)]


def test_another_judges_verdicts_are_shown_by_name(cli: InProcess, folder: Path) -> None:
    assert "no verdicts of this judge" in cli("show", folder, "--judge", "paper").error_line
    cli("judge", folder, "--judge", "paper", "--judge-model", "scripted/judge")
    attempt = cli("show", folder, "--judge", "paper", "--json", "--show-content").json["attempts"][0]
    assert "[[" in attempt["judge_reply"]


@pytest.fixture
def hostile_run(cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    bank = tmp_path / "hostile.jsonl"
    text = HOSTILE.replace("\x00", "")
    bank.write_text(json.dumps({"prompt": text, "topic": text}) + "\n")
    with Endpoint(respond=lambda _: HOSTILE) as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        run = tmp_path / "hostile"
        result = cli(*evaluate(bank, run, "--prompt", "standard", model="openai-api/stub/m"))
        assert result.code == 0
        assert not FORBIDDEN.search(result.out + result.err)
    return run


def test_hostile_text_never_reaches_the_terminal_raw(cli: InProcess, hostile_run: Path) -> None:
    for verb, *more in (
        ("show",), ("show", "--show-content"), ("show", "--json", "--show-content"),
        ("report", "--by-topic"), ("report", "--json"),
    ):  # fmt: skip
        result = cli(verb, hostile_run, *more)
        assert result.code == 0
        assert not FORBIDDEN.search(result.out + result.err), (verb, more)
    # It is visible, and in JSON it is still the same text.
    assert r"\x1b]52" in cli("show", hostile_run, "--show-content").out
    attempt = cli("show", hostile_run, "--json", "--show-content").json["attempts"][0]
    assert attempt["answer"] == HOSTILE


def test_hostile_text_does_not_steer_a_real_terminal(hostile_run: Path) -> None:
    _, shown = on_terminal("show", hostile_run, "--show-content")
    ours = re.sub("\x1b\\[[0-9;]*m", "", shown.replace("\r\n", "\n"))
    assert not FORBIDDEN.search(ours)


def test_a_hostile_error_message_is_one_tame_line(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "many.json"
    bank.write_text(json.dumps([f"inert {i}?" for i in range(30)]))
    body = json.dumps({"error": {"message": HOSTILE}}).encode()
    monkeypatch.setitem(
        __import__("tests.support.endpoint", fromlist=["FAULTS"]).FAULTS,
        "hostile",
        lambda: b"HTTP/1.1 401 X\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
    )
    with Endpoint(always="hostile") as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        line = cli(*evaluate(bank, tmp_path / "run", model="openai-api/stub/m")).error_line
    assert not FORBIDDEN.search(line)


# ---- plan ----


def test_a_plan_counts_calls_tokens_and_money_and_asks_nothing(
    cli: InProcess, bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_BASE_URL", "http://127.0.0.1:9/v1")
    base = ["plan", "--model", "openai-api/stub/m", "--bank", bank, "--judge", "paper"]
    base += ["--judge-model", "openai-api/stub/j", "--epochs", 2]
    with nothing_written(tmp_path):
        document = cli(*base, "--json").json
        assert document["schema"] == "redinstruct.plan/1"
        assert document["total"]["attempts"] == 12 * 3 * 2
        assert document["total"]["calls"] == 12 * 3 * 2 * 2
        assert document["total"]["cost"] is None
        for name in ("attempts", "calls", "tokens_in", "tokens_out"):
            assert document["total"][name] == sum(row[name] for row in document["rows"])
        money = cli(*base, "--json", "--price-in", 2, "--price-out", 8).json["total"]
        assert money["cost"] == pytest.approx((money["tokens_in"] * 2 + money["tokens_out"] * 8) / 1e6)
        dearer = cli(
            *base, "--json", "--price-in", 2, "--price-out", 8, "--judge-price-in", 20, "--judge-price-out", 80
        )
        assert dearer.json["total"]["cost"] > money["cost"]
        out = cli(*base, "--price-in", 2, "--price-out", 8, "--budget", 0.01).out
        assert "total" in out
        assert "$" in out
        assert "may end the run" in out
        written = money["tokens_out"]
        longer = ("--model-option", "max_tokens=5000", "--judge-option", "max_completion_tokens=9000")
        assert cli(*base, "--json", *longer).json["total"]["tokens_out"] == 12 * 3 * 2 * (5000 + 9000) > written
        unbounded = cli(*base, "--price-in", 2, "--price-out", 8, "--budget", 1, "--judge-option", "max_tokens=null")
        assert "max_completion_tokens" in unbounded.error_line
        assert "No prices given" in cli(*base).out


def test_a_plan_takes_every_flag_of_eval(cli: InProcess, bank: Path) -> None:
    from redinstruct.cli import root

    def flags(verb: str) -> set[str]:
        command = root.get_command(click.Context(root), verb)
        assert command is not None
        return {flag for parameter in command.params for flag in parameter.opts}

    assert flags("eval") <= flags("plan")
    base = ["plan", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal"]
    assert "may end the run earlier" in cli(*base, "--stop-when-decided", 0.1).out
    assert "--stop-when-decided" in cli(*base, "--stop-when-decided", 2).error_line


def test_a_plan_for_a_run_counts_what_is_still_owed(cli: InProcess, folder: Path, bank: Path) -> None:
    base = ["plan", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run", folder]
    done = cli(*base, "--json").json["total"]
    assert (done["attempts"], done["recorded"], done["calls"]) == (36, 36, 0)
    more = cli(*base, "--json", "--epochs", 2).json["total"]
    assert (more["attempts"], more["recorded"], more["calls"]) == (72, 36, 36)
    assert "recorded" in cli(*base).out
    assert "--max-tokens was 500" in cli(*base, "--max-tokens", 7).error_line


def test_a_plan_for_a_shard_counts_its_part(cli: InProcess, tmp_path: Path, bank: Path) -> None:
    flags = [
        "--model",
        "scripted/weak",
        "--bank",
        bank,
        "--judge",
        "refusal",
        "--prompt",
        "standard",
        "--prompt",
        "cou",
    ]
    run, parts = tmp_path / "run", tmp_path / "parts"
    assert cli("eval", *flags, "--run", run, "--max-calls", 4).code == 11
    assert cli("shard", run, "--of", 3, "--out", parts).code == 0
    owed = cli("plan", *flags, "--run", run, "--json").json["total"]["calls"]
    planned = [cli("plan", *flags, "--run", parts / str(n), "--json").json for n in (1, 2, 3)]
    assert [one["total"]["attempts"] for one in planned] == [one["total"]["calls"] for one in planned]
    assert sum(one["total"]["calls"] for one in planned) == owed > 0
    assert cli("eval", *flags, "--run", parts / "1").code == 0
    done = cli("plan", *flags, "--run", parts / "1", "--json").json["total"]
    assert (done["recorded"], done["calls"]) == (planned[0]["total"]["attempts"], 0)
    assert "can not extend it" in cli("plan", *flags, "--run", parts / "2", "--epochs", 2).error_line


def test_a_plan_counts_the_errors_that_would_be_asked_again(
    cli: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = tmp_path / "b.json"
    bank.write_text(json.dumps(["What is one?", "fault:400 two?", "fault:422 three?"]))
    flags = ["--model", "openai-api/stub/m", "--bank", bank, "--judge", "refusal", "--prompt", "standard"]
    flags += ["--run", tmp_path / "run"]
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        assert cli("eval", *flags).code == 11
        assert cli("plan", *flags, "--keep-errors", "--json").json["total"]["calls"] == 0
        planned = cli("plan", *flags, "--json").json["total"]["calls"]
        before = stub.requests
        assert cli("eval", *flags).code == 11
        assert planned == stub.requests - before == 2


# ---- banks, models ----


CONTENT = b'["an inert question?", "another inert question?"]'


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = CONTENT if self.path == "/good.json" else b'["changed?"]'
            self.send_response(200 if self.path != "/missing.json" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    inert = banks.KnownBank("inertqa", "bank", "two", "https://127.0.0.1/x.json", digest, 2, "CC0-1.0", "nobody")
    monkeypatch.setattr(banks, "KNOWN", {**banks.KNOWN, "inertqa": inert})
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "cache"))


def test_the_known_banks_are_listed_by_reference(cli: InProcess) -> None:
    out = cli("banks").out
    for name in ("harmfulqa", "dangerousqa", "xstest", "cou-2023", "1,960", "not fetched"):
        assert name in out
    listed = {b["name"]: b for b in cli("banks", "--json").json["banks"]}
    assert listed["harmfulqa"]["questions"] == 1960
    assert len(listed["xstest"]["sha256"]) == 64


@pytest.mark.usefixtures("known")
def test_a_bank_is_fetched_by_name_checked_and_asked(cli: InProcess, server: str, tmp_path: Path) -> None:
    ask = ["eval", "--model", "scripted/weak", "--bank", "inertqa", "--judge", "refusal", "--json"]
    assert "banks fetch inertqa" in cli(*ask, "--run", tmp_path / "early").error_line
    fetched = cli("banks", "fetch", "inertqa", "--url", f"{server}/good.json")
    assert fetched.code == 0
    assert "sha256 as pinned" in fetched.out
    states = {b["name"]: b["state"] for b in cli("banks", "--json").json["banks"]}
    assert states["inertqa"] == "fetched"
    result = cli(*ask, "--run", tmp_path / "run")
    assert {(r["bank"], r["planned"]) for r in result.json["results"]} == {("inertqa", 2)}


@pytest.mark.usefixtures("known")
def test_a_fetched_file_with_another_hash_is_refused_and_not_kept(cli: InProcess, server: str, tmp_path: Path) -> None:
    line = cli("banks", "fetch", "inertqa", "--url", f"{server}/changed.json").error_line
    assert "nothing was kept" in line
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))
    missing = cli("banks", "fetch", "inertqa", "--url", f"{server}/missing.json")
    assert missing.code == 1
    assert "404" in missing.err
    assert missing.err.count("\n") == 1
    assert "unknown bank" in cli("banks", "fetch", "nope").error_line
    assert "https" in cli("banks", "fetch", "inertqa", "--url", "ftp://127.0.0.1/x").error_line


def test_models_says_how_to_name_one_and_what_it_reads(cli: InProcess) -> None:
    out = cli("models").out
    for word in ("openai/", "openai-api/", "hf/", "scripted/", "_BASE_URL", "_API_KEY", "paper", "refusal", "exact"):
        assert word in out
    assert {"models", "judges"} == set(cli("models", "--json").json)


# ---- purge ----


def test_purge_removes_the_run_and_nothing_else(cli: InProcess, folder: Path, bank: Path) -> None:
    result = cli("purge", folder, "--yes")
    assert result.code == 0
    assert not folder.exists()
    assert bank.exists()
    assert "no run" in cli("purge", folder).error_line


def test_purge_without_a_standard_input_asks_nobody(folder: Path) -> None:
    """As a service starts a child: `<&-`."""
    close = ["sh", "-c", 'exec "$@" <&-', "sh"]
    done = subprocess.run([*close, *command("purge", folder)], env=environment(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not folder.exists()


def test_purge_refuses_what_is_no_run(cli: InProcess, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(folder)
    with nothing_written(tmp_path):
        for place in ("pictures", "link", "inert.json", "nowhere"):
            assert re.search("no run|not a run", cli("purge", tmp_path / place, "--yes").error_line)


def test_purge_asks_on_a_terminal(folder: Path) -> None:
    code, shown = on_terminal("purge", folder, answer="n\n")
    assert code == 130
    assert "nothing was done" in shown
    assert folder.exists()
    code, _ = on_terminal("purge", folder, answer="y\n")
    assert code == 0
    assert not folder.exists()


# ---- manners ----


def test_no_verb_prints_the_help(cli: InProcess) -> None:
    result = cli()
    assert (result.code, result.err) == (0, "")
    assert result.out == cli("--help").out
    assert "eval" in result.out
    assert len(result.out.splitlines()) > 10


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["--nope"], ["eval", "--nope"], ["eval"], ["report"], ["show"], ["judge", "x"], ["purge"], ["plan"],
     ["report", "a", "--csv"], ["banks", "nope"], ["banks", "fetch"], ["toyworld"], ["models", "extra"],
     ["eval", "--limit", "many"]],
    ids=" ".join,
)  # fmt: skip
def test_a_wrong_command_is_one_line_and_exit_2(cli: InProcess, arguments: list[str]) -> None:
    line = cli(*arguments).error_line
    assert line.startswith("redinstruct: ")
    assert "Usage:" not in line
    assert len(line) < 300


def test_the_demo_needs_a_folder(cli: InProcess, bank: Path) -> None:
    assert "is not a folder" in cli("demo", "--out", bank).error_line


@pytest.mark.parametrize("verb", ["report", "show", "judge", "purge"])
def test_a_folder_without_a_run_is_one_line_and_exit_2(cli: InProcess, tmp_path: Path, verb: str) -> None:
    more = ["--judge", "refusal"] if verb == "judge" else []
    with nothing_written(tmp_path):
        for place in (tmp_path, tmp_path / "nowhere", tmp_path / ("long" * 200)):
            cli(verb, place, *more).error_line  # noqa: B018


def test_a_store_that_is_none_is_one_line(cli: InProcess, folder: Path) -> None:
    (folder / "run.sqlite").write_bytes(b"not a database, but long enough to look like one" * 100)
    for name in ("run.sqlite-wal", "run.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    for verb in ("report", "show"):
        result = cli(verb, folder)
        assert (result.code, result.out) == (2, "")
        assert result.err.count("\n") == 1
        assert "damaged" in result.err


def test_a_reader_that_goes_away_gets_no_traceback(folder: Path) -> None:
    process = subprocess.Popen(
        command("show", folder, "--show-content"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(30) == 1
    assert err == b""


def test_output_that_cannot_be_written_is_one_line(folder: Path) -> None:
    for arguments in (["report", folder], ["report", folder, "--json"]):
        with Path("/dev/full").open("wb") as full:
            done = subprocess.run(command(*arguments), env=environment(), stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 1
        assert done.stderr.decode() == "redinstruct: standard output cannot be written (No space left on device)\n"


def test_a_terminal_without_unicode_is_served_in_ascii(folder: Path) -> None:
    for arguments in (["report", folder], ["show", folder, "--show-content"], ["report", folder, "--json"], ["banks"]):
        done = subprocess.run(
            command(*arguments), env=environment({"PYTHONIOENCODING": "ascii"}), capture_output=True, check=True
        )
        assert done.stdout.isascii()
        assert b"\\u2" not in done.stdout


@pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
def test_tables_are_readable_on_a_terminal(
    tmp_path: Path, bank: Path, folder: Path, columns: int, cli: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = tmp_path / "a-bank-with-a-longer-name.json"
    mixed.write_text(json.dumps({"Some topic": {"s": [f"a{i}?" for i in range(9)]},
                                 "Other": {"s": ["b? fault:filtered", "c? fault:404"]}}))  # fmt: skip
    with Endpoint() as stub:
        for name, value in stub.env().items():
            monkeypatch.setenv(name, value)
        run = tmp_path / "mixed"
        cli(*evaluate(mixed, run, "--prompt", "cou-paraphrase-1", "--prompt", "cot", model="openai-api/stub/model-70b"))
    for arguments in (["report", folder], ["report", run, "--by-topic"], ["show", run], ["models"], ["banks"],
                      ["plan", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal"]):  # fmt: skip
        code, shown = on_terminal(*arguments, columns=columns)
        assert code == 0
        lines = re.sub("\x1b\\[[0-9;]*m", "", shown).replace("\r\n", "\n").split("\n")
        assert max(map(len, lines)) <= columns, arguments
        if arguments[0] == "show":
            assert sum(bool(re.match(r"[0-9a-f]{12}  ", line)) for line in lines) == 22, shown
        # No figure is torn over two lines.
        assert not re.search(r"\[ *[0-9.]+,\s*$", "\n".join(lines), re.MULTILINE), shown


def test_a_column_without_a_word_folds_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    from redinstruct.cli import console

    console.say_table([{"model": "base", "rate": "0.0% [0.0%, 24.2%]", "n": "12", "": ""}], right=("rate", "n"))
    assert "base   0.0% [0.0%, 24.2%]  12" in capsys.readouterr().out
