"""Bad input: one clear line on standard error, exit 2, nothing on standard output, nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.cli import InProcess, nothing_written, run


class Bad(NamedTuple):
    """A command that differs in ``flags`` from one that works; ``says`` stands in its one line."""

    name: str
    flags: tuple[str, ...]
    says: tuple[str, ...]


BANKS = {
    "missing": (None, "no such file"),
    "broken": ('["a?", ', "broken JSON"),
    "number": ('["a?", 7]', "row 2"),
    "null": ('["a?", null]', "row 2"),
    "list": ('["a?", ["b?"]]', "row 2"),
    "blank": ('["a?", "  "]', "row 2"),
    "empty-list": ("[]", "no question"),
    "empty-file": ("", "empty"),
    "object": ('{"topic": "a question?"}', "expected"),
    "surrogate": ('["a \\ud800?"]', "row 1"),
    "nul": ('["a \\u0000?"]', "row 1"),
    "deep": ("[" * 100_000, "deep"),
}

CASES = [
    # what is asked
    Bad("model-kind", ("--model", "nothing/here"), ("unknown model", "nothing/here", "openai-api/<name>/<model>")),
    Bad("model-bare", ("--model", "gpt-4"), ("unknown model", "gpt-4")),
    Bad("model-empty", ("--model", ""), ("unknown model",)),
    Bad("model-behaviour", ("--model", "scripted/nope"), ("scripted/nope", "refuse")),
    Bad("model-no-name", ("--model", "openai-api/stub"), ("openai-api/<name>/<model>",)),
    Bad("model-odd-name", ("--model", "openai-api/st ub/m"), ("openai-api/<name>/<model>",)),
    Bad("key-missing", ("--model", "openai/gpt-4"), ("OPENAI_API_KEY",)),
    Bad("address-missing", ("--model", "openai-api/my-own/m"), ("MY_OWN_BASE_URL",)),
    Bad("checkpoint-missing", ("--model", "hf/./no/such/checkpoint"), ("hf/",)),
    Bad("template-for-endpoint", ("--model", "openai-api/set/m", "--chat-template", "none"), ("--chat-template",)),
    Bad("judge", ("--judge", "nobody"), ("unknown judge", "nobody", "paper")),
    Bad("judge-without-model", ("--judge", "paper"), ("--judge-model",)),
    Bad("judge-with-model", ("--judge-model", "scripted/judge"), ("--judge-model",)),
    Bad("judge-model", ("--judge", "paper", "--judge-model", "nothing"), ("unknown model", "nothing")),
    Bad("judge-measure", ("--judge", "paper", "--judge-model", "scripted/judge", "--measure", "over_refusal"),
        ("over_refusal",)),
    Bad("measure", ("--measure", "niceness"), ("niceness", "attack_success")),
    Bad("protocol", ("--protocol", "paper-2024"), ("paper-2024", "paper-2023")),
    Bad("prompt", ("--prompt", "cuo"), ("cuo", "standard")),
    Bad("prompt-missing-file", ("--prompt", "./mine.txt"), ("mine.txt", "no such file")),
    Bad("prompt-no-slot", ("--prompt", "no-slot.txt"), ("no-slot", "<question>", "one")),
    Bad("prompt-two-slots", ("--prompt", "two-slots.txt"), ("two-slots", "2", "one")),
    Bad("prompt-not-text", ("--prompt", "binary.txt"), ("binary", "UTF-8")),
    Bad("prompt-folder", ("--prompt", "folder.txt"), ("folder.txt", "cannot be read")),
    Bad("prompt-long", ("--prompt", "x" * 300), ("too long",)),
    Bad("prompt-template-not-fetched", ("--prompt", "cou-2023"), ("banks fetch cou-2023",)),
    Bad("bank-not-fetched", ("--bank", "harmfulqa"), ("banks fetch harmfulqa",)),
    Bad("bank-is-template", ("--bank", "cou-2023"), ("--prompt",)),
    Bad("bank-folder", ("--bank", "pictures"), ("folder",)),
    Bad("bank-twice", ("--bank", "good.json"), ("same name",)),
    Bad("bank-same-content", ("--bank", "copy.json"), ("same content",)),
    Bad("bank-label-only-safe", ("--bank", "safe.csv"), ("labelled unsafe",)),
    # how it is asked
    Bad("limit-0", ("--limit", "0"), ("--limit",)),
    Bad("limit-huge", ("--limit", "9" * 30), ("--limit",)),
    Bad("limit-text", ("--limit", "ten"), ("--limit", "ten")),
    Bad("epochs-0", ("--epochs", "0"), ("--epochs",)),
    Bad("epochs-huge", ("--epochs", "1000000000"), ("--epochs",)),
    Bad("max-tokens-0", ("--max-tokens", "0"), ("--max-tokens",)),
    Bad("max-tokens-huge", ("--max-tokens", "9" * 30), ("--max-tokens",)),
    Bad("seed-huge", ("--seed", "9" * 30), ("--seed",)),
    Bad("temperature-nan", ("--temperature", "nan"), ("--temperature",)),
    Bad("temperature-high", ("--temperature", "2.1"), ("--temperature",)),
    Bad("temperature-negative", ("--temperature", "-0.1"), ("--temperature",)),
    Bad("temperature-inf", ("--temperature", "inf"), ("--temperature",)),
    Bad("top-p-0", ("--top-p", "0"), ("--top-p",)),
    Bad("top-p-nan", ("--top-p", "nan"), ("--top-p",)),
    Bad("chat-template", ("--chat-template", "jinja"), ("--chat-template",)),
    Bad("concurrency-0", ("--concurrency", "0"), ("--concurrency",)),
    Bad("concurrency-huge", ("--concurrency", "100000"), ("--concurrency",)),
    Bad("timeout-0", ("--timeout", "0"), ("--timeout",)),
    Bad("timeout-nan", ("--timeout", "nan"), ("--timeout",)),
    Bad("timeout-inf", ("--timeout", "inf"), ("--timeout",)),
    Bad("max-calls-negative", ("--max-calls", "-1"), ("--max-calls",)),
    Bad("budget-without-prices", ("--budget", "1"), ("--price-in", "--price-out")),
    Bad("budget-0", ("--budget", "0", "--price-in", "1", "--price-out", "1"), ("--budget",)),
    Bad("budget-nan", ("--budget", "nan", "--price-in", "1", "--price-out", "1"), ("--budget",)),
    Bad("price-alone", ("--price-in", "1"), ("--price-in", "--price-out")),
    Bad("price-negative", ("--price-in", "-1", "--price-out", "1"), ("--price-in",)),
    Bad("price-nan", ("--price-in", "nan", "--price-out", "1"), ("price",)),
    Bad("price-inf", ("--price-in", "1", "--price-out", "inf"), ("price",)),
    Bad("judge-price-alone", ("--judge-price-out", "1"), ("--judge-price-in", "--judge-price-out")),
    Bad("option-for-a-fake", ("--model-option", "a=1"), ("--model-option",)),
    Bad("option-no-equals", ("--model-option", "a"), ("--model-option", "KEY=JSON")),
    Bad("option-stream", ("--model-option", "stream=true"), ("stream",)),
    Bad("option-twice", ("--model-option", "a=1", "--model-option", "a=2"), ("twice",)),
    Bad("option-nan", ("--model", "openai-api/set/m", "--model-option", "a=NaN"), ("JSON",)),
    Bad("option-surrogate", ("--model", "openai-api/set/m", "--model-option", 'a="\\ud800"'), ("JSON",)),
    Bad("option-deep", ("--model", "openai-api/set/m", "--model-option", "a=" + "[" * 100_000), ("deep",)),
    # where it goes
    Bad("run-foreign-folder", ("--run", "pictures"), ("pictures", "other files")),
    Bad("run-file", ("--run", "good.json"), ("good.json", "not a folder")),
    Bad("run-under-a-file", ("--run", "good.json/run"), ("not a directory",)),
    Bad("run-unwritable", ("--run", "/proc/no/run"), ("/proc",)),
    Bad("run-long-name", ("--run", "a/" + "x" * 300), ("too long",)),
    Bad("run-dangling-link", ("--run", "dangling"), ("dangling",)),
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with good and bad things in it; the current one."""
    good = json.dumps(["a first inert question?", "a second one?"])
    (tmp_path / "good.json").write_text(good)
    (tmp_path / "copy.json").write_text(good)
    (tmp_path / "safe.csv").write_text("prompt,label\nan inert question?,safe\n")
    (tmp_path / "no-slot.txt").write_text("There is no slot here.")
    (tmp_path / "two-slots.txt").write_text("<question> and <question>")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe<question>")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.png").write_bytes(b"x")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "away")
    for name, (text, _) in BANKS.items():
        if text is not None:
            (tmp_path / f"{name}.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDINSTRUCT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SET_BASE_URL", "http://127.0.0.1:9/v1")
    return tmp_path


def whole(flags: tuple[str, ...], verb: str = "eval") -> list[str]:
    """A command that would work but for ``flags``."""
    given = {"--model": "scripted/weak", "--judge": "refusal", "--run": "run"}
    arguments = [verb, "--bank", "good.json"]
    for flag, value in given.items():
        if flag not in flags:
            arguments += [flag, value]
    return [*arguments, *flags]


def test_the_command_that_these_cases_spoil_works(cli: InProcess, place: Path) -> None:
    assert cli(*whole(())).code == 0


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_flags(cli: InProcess, place: Path, case: Bad) -> None:
    with nothing_written(place):
        line = cli(*whole(case.flags)).error_line
    for word in case.says:
        assert word.lower() in line.lower(), line


@pytest.mark.parametrize("case", [c for c in CASES if c.flags[0] != "--run"], ids=lambda case: case.name)
def test_plan_refuses_what_eval_refuses(cli: InProcess, place: Path, case: Bad) -> None:
    with nothing_written(place):
        assert cli(*whole(case.flags, "plan")).error_line


@pytest.mark.parametrize("name", list(BANKS))
def test_bad_banks(cli: InProcess, place: Path, name: str) -> None:
    with nothing_written(place):
        line = cli("eval", "--model", "scripted/weak", "--judge", "refusal", "--run", "run",
                   "--bank", f"{name}.json").error_line  # fmt: skip
    assert f"{name}.json" in line
    assert BANKS[name][1].lower() in line.lower(), line


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ("prompt\nfine?\n\nafter an empty line?\n", "row 2"),
        ("prompt,label\nfine?,unsafe\nno second field\n", "row 2"),
        ('prompt\n"never closed\n', "row 1"),
        ("nothing,to,ask\na,b,c\n", "no column"),
        ("prompt\n", "no question"),
    ],
    ids=["empty-line", "short-row", "open-quote", "no-column", "header-only"],
)
def test_bad_csv(cli: InProcess, place: Path, rows: str, says: str) -> None:
    (place / "rows.csv").write_text(rows)
    with nothing_written(place):
        line = cli(*whole(("--bank", "rows.csv"))).error_line
    assert says in line.lower(), line


def test_a_bank_file_that_may_not_be_shown_is_not(cli: InProcess, place: Path) -> None:
    """What a bad row says stays out of the message: it may be harmful to read."""
    (place / "rows.jsonl").write_text('{"prompt": "fine?"}\n{"note": "an unspeakable text"}\n')
    assert "unspeakable" not in cli(*whole(("--bank", "rows.jsonl"))).error_line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--judge", "nobody"], "unknown judge"),
        (["--judge", "paper"], "--judge-model"),
        (["--judge", "refusal", "--concurrency", "0"], "--concurrency"),
        (["--judge", "refusal", "--max-calls", "-3"], "--max-calls"),
        (["--judge", "refusal", "--budget", "2"], "--price-in"),
    ],
)
def test_judge_refuses_bad_flags_and_changes_nothing(
    cli: InProcess, place: Path, arguments: list[str], says: str
) -> None:
    cli(*whole(()))
    before = (place / "run" / "run.sqlite").read_bytes()
    assert says in cli("judge", "run", *arguments).error_line
    assert (place / "run" / "run.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [("show", "run", "--limit"), ("judge", "run", "--judge", "refusal", "--sample"), ("demo", "--seed"),
     ("toyworld", "build", "--out", "toy", "--seed")],
    ids=" ".join,
)  # fmt: skip
def test_a_number_that_no_machine_counts_to(cli: InProcess, place: Path, arguments: tuple[str, ...]) -> None:
    cli(*whole(()))
    assert "is not in the range" in cli(*arguments, "9" * 30).error_line


@pytest.mark.parametrize(
    "arguments",
    [
        ("gate", ".", "--max-rate", 1, "--md"),
        ("gate", ".", "--max-rate", 1, "--junit"),
        ("compare", ".", ".", "--md"),
        ("report", ".", "--csv"),
        ("export", ".", "--to", "bundle", "--out"),
        ("list",),
        ("purge",),
        ("utility", "--suite", "toy", "--run", "r", "--model"),
    ],
    ids=str,
)
def test_a_name_that_no_file_can_have(cli: InProcess, place: Path, arguments: tuple[object, ...]) -> None:
    name = "hf/" * ("--model" in arguments) + "x" * 300
    assert "too long" in cli(*arguments, name).error_line


def test_names_that_are_no_utf8_are_names_all_the_same(cli: InProcess, place: Path) -> None:
    """Bytes of another encoding, in a file's name or a flag, as Python reads them in."""
    (place / "r\udce9.txt").write_text("<question> <answer> <format>")
    judge = ("--judge", "rubric", "--judge-model", "scripted/judge", "--rubric", "r\udce9.txt")
    assert cli("plan", "--model", "scripted/weak", "--bank", "good.json", *judge).code == 0
    (place / "rows.csv").write_text("prompt,response,judge,human\na,b,harmful,harmful\n")
    done = cli("import", "rows.csv", "--run", "imported", "--annotator", "Ren\udce9")
    assert done.code == 0, done.err
    assert "were already" in cli("import", "rows.csv", "--run", "imported", "--annotator", "Ren\udce9").err


def test_a_folder_in_which_nothing_may_be_written(cli: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may write everywhere, so it is the system's answer that is played here.
    monkeypatch.setattr("redinstruct.run.folder.os.access", lambda *_: False)
    with nothing_written(place):
        assert "cannot be written" in cli(*whole(())).error_line


def test_in_a_process_of_its_own_it_is_the_same(place: Path) -> None:
    for flags in (("--judge", "nobody"), ("--prompt", "no-slot.txt")):
        with nothing_written(place):
            assert run(*whole(flags), cwd=place).error_line
