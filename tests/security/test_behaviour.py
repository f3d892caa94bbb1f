"""What A7, A8, A9, A13 and A16 promise, tried: hostile files are given, hostile words go through, canaries are sought.

Each is shown to find a planted fault. The syntax bans that stand beside them are in ``test_attack_surface``.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import pkgutil
import random
import re
import signal
import stat
import string
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import redinstruct
from redinstruct.checkpoints import check
from redinstruct.errors import RedInstructError
from redinstruct.models import Reply, Request, failures, scripted, waits
from redinstruct.run import Store
from tests.models.test_endpoint_model import (
    test_an_answer_of_50_megabytes_takes_less_than_20_and_is_refused as three_giants,
)
from tests.support.cli import ROOT, InProcess, here
from tests.support.fuzz_readers import readers
from tests.support.tally import security, tally

# ---- A7: files that run code when they are unpickled ---------------------------------------------------------------


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, sentinel: Path) -> None:
        self._sentinel = sentinel

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self._sentinel),)


def pickles(sentinel: Path, count: int) -> Iterator[bytes]:
    """Hostile pickles: every protocol, bare, in lists, in a zip as torch writes them, cut, with text before them."""
    dice = random.Random(7)
    for number in range(count):
        data = pickle.dumps(dice.choice([Bomb(sentinel), [Bomb(sentinel)], {"a": Bomb(sentinel)}]), number % 6)
        form = number % 5
        if form == 1:
            data = data[: dice.randrange(1, len(data))]
        elif form == 2:
            data = dice.choice([b"", b"[", b'{"a": 1}\n', b"\x80\x04."]) + data
        elif form == 3:
            place = sentinel.parent / "packed.zip"
            with zipfile.ZipFile(place, "w") as packed:
                packed.writestr("archive/data.pkl", data)
            data = place.read_bytes()
            place.unlink()
        yield data


def given_to_every_reader(sentinel: Path, read: Callable[[Path], object] | None = None) -> tuple[int, int, list[str]]:
    """How many files were given, how many ran code, and what else than one line of ours was said."""
    place, ran, wrong, tried = sentinel.parent, 0, list[str](), 0
    known = readers()
    every: dict[str, Callable[[Path], object]] = {
        **{name: reader.read for name, reader in known.items()},
        "run": lambda path: Store.open_for_reading(path.parent / "run"),
        "checkpoint": lambda path: check(path.parent / "checkpoint", "hf/x"),
    }
    for number, data in enumerate(pickles(sentinel, 300)):
        name = sorted(every)[number % len(every)]
        path = place / f"given.{('jsonl', 'json', 'csv', 'pkl')[number % 4]}"
        (place / "run").mkdir(exist_ok=True)
        (place / "checkpoint").mkdir(exist_ok=True)
        (place / "checkpoint" / "config.json").write_text('{"model_type": "llama"}')
        weights = ("pytorch_model.bin", "model.safetensors", "model.pt", "optimizer.pt")[number % 4]
        for file in (path, place / "run" / "run.sqlite", place / "checkpoint" / weights):
            file.write_bytes(data)
        tried += 1
        try:
            (read or every[name])(path)
        except RedInstructError as error:
            wrong += [f"{name}: {error}"] if "\n" in str(error) else []
        except Exception as error:
            if name not in known or not isinstance(error, known[name].no):
                wrong.append(f"{name}: {error!r}")
        if sentinel.exists():
            ran += 1
            sentinel.rmdir()
        (place / "checkpoint" / weights).unlink()
    return tried, ran, wrong


@security
def test_a7_no_file_is_unpickled(tmp_path: Path) -> None:
    tried, ran, wrong = given_to_every_reader(tmp_path / "sentinel")
    tally("A7: hostile pickles given to every reader: code that ran", tried, ran)
    tally("A7: the same: neither read as text nor refused in one line", tried, len(wrong), "; ".join(wrong[:1]))
    _, ran, _ = given_to_every_reader(tmp_path / "sentinel", lambda path: pickle.loads(path.read_bytes()))
    tally("A7: mutants that are not found", 1, int(not ran))


# ---- A8: code that comes with a checkpoint -------------------------------------------------------------------------


def repositories(place: Path, sentinel: Path) -> dict[str, Path]:
    """Checkpoints that bring code, or ask for it, in every way that configurations have."""
    kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoModel", "AutoTokenizer", "AutoProcessor")
    auto = dict.fromkeys(kinds, "evil.Evil")
    asked: dict[str, dict[str, Any]] = {
        **{f"auto_map, {kind}": {"auto_map": {kind: "evil.Evil"}} for kind in auto},
        "auto_map of another": {"auto_map": {"AutoConfig": "somebody/else--evil.Evil"}},
        "auto_map, an unknown type": {"model_type": "evil", "auto_map": auto},
        "auto_map within": {"text_config": {"auto_map": auto}},
        "custom pipelines": {"custom_pipelines": {"x": {"impl": "evil.Evil"}}, "auto_map": auto},
        **{f"kernels {key}, {value}": {key: value} for key in ("_attn_implementation", "attn_implementation",
           "_attn_implementation_internal", "_attn_implementation_autoset") for value in ("somebody/kernel", "a/b:c")},
        "kernels within": {"vision_config": {"_attn_implementation_internal": "somebody/kernel"}},
        "kernels as a list": {"_attn_implementation": ["somebody/kernel"]},
        "kernels as a map": {"attn_implementation": {"": "somebody/kernel"}},
    }  # fmt: skip
    made = {}
    for number, (name, config) in enumerate(asked.items()):
        folder = place / f"repository-{number}"
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 1, **config}))
        (folder / "evil.py").write_text(f"import os\nos.mkdir({str(sentinel)!r})\nclass Evil: pass\n")
        (folder / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{}")
        made[name] = folder
    return made


def loaded(folder: Path) -> object:
    from redinstruct.checkpoints.loading import load_causal

    return load_causal(folder, "hf/x")


@security
@pytest.mark.local
def test_a8_no_code_of_a_checkpoint_runs(tmp_path: Path) -> None:
    sentinel = tmp_path / "sentinel"
    made, wrong, ran = repositories(tmp_path, sentinel), list[str](), 0
    for name, folder in made.items():
        try:
            loaded(folder)
            wrong.append(name)
        except RedInstructError as error:
            wrong += [name] if "\n" in str(error) else []
        ran += sentinel.exists()
    tally("A8: repositories with code of their own: code that ran", len(made), ran)
    tally("A8: the same: not refused in one line", len(made), len(wrong), "; ".join(wrong[:2]))
    spoiled = next(iter(made.values()))
    subprocess.run([sys.executable, "-c", "import evil"], cwd=spoiled, check=True)
    tally("A8: mutants that are not found", 1, int(not sentinel.exists()))


# ---- A9: words that would be code ----------------------------------------------------------------------------------

_MARK = "zq9canary"


def words(sentinel: Path) -> list[str]:
    """What models say that somewhere would be code: Python, shell, templates, format strings, SQL, patterns, markup."""
    act = f"__import__('os').mkdir('{sentinel}')"
    return [
        f"{_MARK} {text}"
        for text in (
            act, f"`mkdir {sentinel}`", f"$(mkdir {sentinel})", f"; mkdir {sentinel} #", f"| mkdir {sentinel}",
            f"{{{{ {act} }}}}", "{{ ''.__class__.__mro__[1].__subclasses__() }}", f"{{% set x = {act} %}}",
            "{0.__class__.__init__.__globals__}", "%(x)s %n %s", "${jndi:x}", "#{1+1}", f"<%= {act} %>",
            f"'); DROP TABLE attempts; -- {act}", '"; ATTACH DATABASE "x" AS y; --', "(a+)+$ [](.*)+?^$|",
            f"<script>{act}</script>", f"!!python/object/apply:os.mkdir ['{sentinel}']", f"=cmd|'mkdir {sentinel}'!A1",
            f"```python\n{act}\n```", f"[[A]] {act}", "\\g<0> \\1", f"import os; os.mkdir('{sentinel}')",
        )
    ]  # fmt: skip


_LISTENING: list[str] = []
_hooked = False


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if _LISTENING and event in ("compile", "exec", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        said = repr([getattr(one, "co_consts", one) for one in arguments[:2]])
        if _MARK in said:
            _LISTENING.append(event)


def runs_of_code(work: Callable[[], object]) -> list[str]:
    """What was compiled, carried out or started with the mark in it."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_heard)  # it stays, deaf
        _hooked = True
    _LISTENING.append("listening")
    try:
        work()
        return _LISTENING[1:]
    finally:
        _LISTENING.clear()


STAGES = (
    ("eval", "--model", "scripted/weak", "--bank", "bank.json", "--judge", "paper", "--judge-model", "scripted/judge",
     "--prompt", "cou", "--run", "run"),
    ("judge", "run", "--judge", "refusal"),
    ("report", "run", "--show-content", "--out", "a.html", "--jsonl", "a.jsonl", "--md", "a.md", "--csv", "a.csv",
     "--junit", "a.xml"),
    ("show", "run", "--show-content"),
    ("gate", "run", "--max-rate", "1"),
    ("compare", "run", "run"),
    ("collect", "--teacher", "scripted/red-teacher", "--answerer", "scripted/weak", "--judge", "refusal", "--topics",
     "topics.json", "--per-subtopic", "2", "--blue", "1", "--run", "collection"),
    ("show", "collection", "--show-content"),
    ("export", "collection", "--to", "messages", "--include-red", "--out", "out.jsonl"),
    ("export", "run", "--to", "inspect", "--out", "log.json"),
    ("export", "run", "--to", "bundle", "--out", "bundle.json"),
)  # fmt: skip


def with_more(own: scripted.Behaviour, more: scripted.Behaviour) -> scripted.Behaviour:
    return lambda request: Reply(f"{own(request).text}\n{more(request).text}")


@security
def test_a9_no_word_of_a_model_is_carried_out(cli: InProcess, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel = place / "sentinel"
    said = words(sentinel)
    (place / "bank.json").write_text(json.dumps([f"What is item {i}? {text}" for i, text in enumerate(said)]))
    (place / "topics.json").write_text(json.dumps({said[0]: [said[5], said[9]]}))
    monkeypatch.chdir(place)

    def hostile(request: Request) -> Reply:
        return Reply(said[len(request.messages[-1].content) % len(said)])

    monkeypatch.setitem(scripted.BEHAVIOURS, "weak", hostile)
    for name in ("judge", "red-teacher"):
        monkeypatch.setitem(scripted.BEHAVIOURS, name, with_more(scripted.BEHAVIOURS[name], hostile))
    heard, codes = list[str](), list[int]()
    for stage in STAGES:
        heard += runs_of_code(lambda stage=stage: codes.append(cli(*stage).code))  # type: ignore[misc]
    assert set(codes) <= {0, 10, 11}, dict(zip(STAGES, codes, strict=True))
    shown = (place / "a.jsonl").read_text()
    assert sum(json.dumps(text)[1:20] in shown for text in said) > 5, "the words did not go through"
    tried = len(said) * len(STAGES)
    tally("A9: words of models that are code, through every stage: carried out", tried, len(heard) + sentinel.exists())
    mutants: list[Callable[[str], object]] = [
        lambda text: compile(text, "<x>", "eval", dont_inherit=True),
        lambda text: os.system(f": {text!r}"),
        lambda text: subprocess.run(["true", text], check=True),
    ]

    def carried_out(mutant: Callable[[str], object]) -> None:
        try:
            mutant(f"'{_MARK}'")
        except SyntaxError:
            return

    missed = [mutant for mutant in mutants if not runs_of_code(lambda m=mutant: carried_out(m))]  # type: ignore[misc]
    tally("A9: mutants that are not found", len(mutants), len(missed))


# ---- A13: giants, and patterns that never end ----------------------------------------------------------------------

MB = 1 << 20
SOURCES = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "src" / "redinstruct").rglob("*.py"))]


DOORS: dict[str, tuple[Callable[[str], object], ...]] = {
    "redinstruct.models.failures.": (
        lambda text: failures.status_error(400, {}, text.encode()),
        lambda text: failures.status_error(
            500, {}, json.dumps({"error": dict.fromkeys(("code", "type", "message"), text)}).encode()
        ),
    ),
    "redinstruct.models.waits.": (
        lambda text: waits.asked({"Retry-After": text}, [("retry_after", text)], [text]),
        lambda text: waits.refilled({"x-ratelimit-reset-requests": text, "ratelimit": text}),
    ),
}
"""Rooms that cut a text before any pattern of theirs sees it: they are tried by their doors, with the same texts."""
_WAYS = {"sub": "search", "subn": "search", "split": "search", "findall": "search", "finditer": "search"}


def ways(name: str) -> set[str]:
    """How a pattern of that name is used anywhere in the package: each place in a text, its beginning, or the whole.

    A pattern that is only given the first so many characters of a text is in none.
    """
    used = [use for text in SOURCES for use in re.findall(rf"\b{name}\.(\w+)\(([^()]*)", text)]
    if used and all("[:" in given for _, given in used):
        return set()
    return {_WAYS.get(way, way) for way, _ in used} & {"search", "match", "fullmatch"} or {"search"}


def patterns() -> dict[str, re.Pattern[Any]]:
    """Every pattern that stands in a module of the package, by its place and the ways in which it is used."""
    found: dict[str, re.Pattern[Any]] = {}
    for module in pkgutil.walk_packages(redinstruct.__path__, "redinstruct."):
        if module.name.endswith("__main__"):
            continue
        try:
            names = vars(importlib.import_module(module.name))
        except ImportError:
            continue  # an extra that is not here
        for name, value in names.items():
            several = value if isinstance(value, (tuple, list)) else value.values() if isinstance(value, dict) else ()
            for number, one in enumerate((value, *several)):
                if isinstance(one, re.Pattern) and one.pattern not in {p.pattern for p in found.values()}:
                    found.update({f"{module.name}.{name}[{number}].{way}": one for way in sorted(ways(name))})
    return found


def adversaries(pattern: str, dice: random.Random) -> Iterator[str]:
    """A mebibyte each: one kind of character, or the pattern's own pieces, again and again; the last one fails."""
    pieces = [piece for piece in re.split(r"[\\()\[\]{}|?*+^$.]+", pattern) if piece] or ["a"]
    for unit in ("a", " ", "\n", "(", "0", "-", "*", "a ", "\t x", ".a", *dice.sample(pieces, min(4, len(pieces)))):
        yield (unit * (MB // len(unit) + 1))[:MB] + "\0"
    yield "".join(dice.choices([*pieces, " ", "\n"], k=MB // 4))[:MB]


class TooLong(Exception):
    pass


def seconds_over(pattern: re.Pattern[Any], limit: float, way: str = "search", name: str = "") -> list[str]:
    """The adversaries over which a pattern, or the door of its room, takes more processor time than the limit."""
    slow = []
    doors = next((doors for room, doors in DOORS.items() if name.startswith(room)), (getattr(pattern, way),))

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGVTALRM, stop)
    try:
        source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
        for text, door in product(adversaries(source, random.Random(repr(source))), doors):
            given: Any = text if isinstance(pattern.pattern, str) else text.encode()
            for _ in range(3):  # a machine that is busy is asked again
                signal.setitimer(signal.ITIMER_VIRTUAL, limit)
                try:
                    door(given)
                    break
                except TooLong:
                    continue
                finally:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            else:
                slow.append(text[:20])
    finally:
        signal.signal(signal.SIGVTALRM, before)
    return slow


@security
def test_a13_no_pattern_takes_long_over_a_mebibyte() -> None:
    every = patterns()
    slow = {
        name: found for name, one in every.items() if (found := seconds_over(one, 0.5, name.rpartition(".")[2], name))
    }
    tally("A13: our patterns on a mebibyte of the worst: over half a second", len(every), len(slow),
          "; ".join(f"{name} {texts[0]!r}" for name, texts in list(slow.items())[:3]))  # fmt: skip
    planted = [re.compile(r"(a+)+$"), re.compile(r"(\s*\n)*x"), re.compile(r"(a|a)*b")]
    tally("A13: mutants that are not found", len(planted), sum(not seconds_over(one, 0.5) for one in planted))


@security
def test_a13_giant_replies_are_refused_in_little_memory() -> None:
    three_giants()
    tally("A13: replies of 50 MB, one an error, one packed: over 20 MB of memory, or read", 3, 0)


# ---- A16: who can read a run, and what a report shows ---------------------------------------------------------------

UMASKS = (0o000, 0o002, 0o007, 0o022, 0o027, 0o077, 0o177, 0o277)
VERBS = """
import os, sys
from pathlib import Path
from redinstruct.cli import main
os.chdir(sys.argv[1])
for umask in sys.argv[2:]:
    os.umask(int(umask, 8))
    Path(umask).mkdir(mode=0o700)
    os.chmod(umask, 0o700)
    os.chdir(umask)
    for words in (
        "eval --model scripted/weak --bank ../bank.json --judge refusal --run run",
        "report run --show-content --out a.html --jsonl a.jsonl --md a.md --csv a.csv --junit a.xml",
        "import ../rows.jsonl --run imported",
        "collect --teacher scripted/red-teacher --topics ../topics.json --per-subtopic 1 --blue 1 --run collection",
        "export collection --to messages --include-red --out out.jsonl",
        "eval --model scripted/weak --bank ../bank.json --judge refusal --run owed --max-calls 0",
        "shard owed --of 2 --out shards",
    ):
        code = main(words.split())
        assert code in (0, 11), (umask, words, code)
    os.chdir("..")
"""


def readable(folder: Path) -> tuple[int, list[str]]:
    """How many files and folders of runs and of texts stand there, and those that others can read."""
    found = [path for path in folder.rglob("*") if path.name not in ("bank.json", "rows.jsonl", "topics.json")]
    return len(found), [str(path) for path in found if stat.S_IMODE(path.stat().st_mode) & 0o077]


@security
def test_a16_what_is_written_is_its_owners_under_any_umask(place: Path) -> None:
    (place / "bank.json").write_text('["What is blue?", "What is red?"]')
    (place / "rows.jsonl").write_text('{"prompt": "What is blue?", "response": "A colour.", "label": 0}\n')
    (place / "topics.json").write_text('{"ferries": ["colours"]}')
    done = subprocess.run(
        [sys.executable, "-c", VERBS, str(place), *(f"{umask:03o}" for umask in UMASKS)], cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    tried, open_to_others = readable(place)
    tally(f"A16: files under {len(UMASKS)} umasks: others can read them", tried, len(open_to_others),
          "; ".join(open_to_others[:2]))  # fmt: skip
    (place / "000" / "a.html").chmod(0o644)
    tally("A16: mutants that are not found", 1, int(not readable(place)[1]))


@security
def test_a16_a_report_shows_no_text_unless_it_is_asked_to(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(16)
    marks = ["".join(dice.choices(string.ascii_lowercase, k=14)) for _ in range(1_000)]
    (place / "bank.json").write_text(json.dumps([f"What is {mark}?" for mark in marks[:500]]))
    said = dict(zip((f"What is {mark}?" for mark in marks[:500]), marks[500:], strict=True))
    monkeypatch.setitem(
        scripted.BEHAVIOURS, "weak", lambda request: Reply(f"It is {said[request.messages[-1].content]}.")
    )
    monkeypatch.chdir(place)
    done = here("eval", "--model", "scripted/weak", "--bank", "bank.json", "--judge", "refusal", "--prompt", "standard",
                "--run", "run")  # fmt: skip
    assert done.code == 0, done.err
    files = ("a.html", "a.jsonl", "a.md", "a.csv", "a.xml")
    flags = ("--out", "--jsonl", "--md", "--csv", "--junit")

    def shown(*more: str) -> int:
        told = [
            here(*verb, *more)
            for verb in (("report", "run", *sum(zip(flags, files, strict=True), ())), ("show", "run"))
        ]
        text = "".join(one.out + one.err for one in (done, *told)) + "".join((place / f).read_text() for f in files)
        text += "".join(here(*verb).out for verb in (("report", "run", "--json"), ("list", "."), ("gate", "run",
                        "--max-rate", "1", "--json"), ("compare", "run", "run")))  # fmt: skip
        return sum(mark in text for mark in marks)

    tally("A16: canaries of 1,000 in questions and answers: shown without --show-content", 1_000, shown())
    tally("A16: mutants that are not found (the same with --show-content)", 1_000, 1_000 - shown("--show-content"))
