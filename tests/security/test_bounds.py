"""A15, A17 to A20: requests to the labelling page, locked dependencies, SQL, money, questions that come again.

Each is tried at its size, and shown to find mutants that were planted.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from redinstruct.engine.limits import Spending
from redinstruct.harmfulqa.similarity import NEAR, NearIndex
from tests import test_structure
from tests.engine import test_engine_limits
from tests.engine.test_engine_limits import test_concurrent_jobs_never_overrun_calls_or_budget as overrun
from tests.support.near import FAMILIES
from tests.support.tally import security, tally

Rule = Callable[[str, list[tuple[bytes, bytes]]], object]


@security
def test_a15_the_labelling_page_answers_what_it_may() -> None:
    pytest.importorskip("starlette")
    from redinstruct.annotate.guard import refusal
    from tests.annotate.test_annotate_guard import MATRIX, PORT, TOKEN, named, oracle

    def disagreements(rule: Rule) -> int:
        wrong = 0
        for host, origin, site, method, kind, token in MATRIX:
            headers = [*named(host, origin, site, kind, token), (b"content-length", b"2")]
            wrong += (rule(method, headers) is None) != oracle(host, origin, site, method, kind, token)
        return wrong

    def ours(method: str, headers: list[tuple[bytes, bytes]]) -> object:
        return refusal(method, headers, PORT, TOKEN)

    def blind_to(name: bytes, value: bytes) -> Rule:
        """The rule that takes this header for what it should be."""
        return lambda method, headers: ours(method, [*((n, v) for n, v in headers if n != name), (name, value)])

    tally("A15: requests to the labelling page: another answer than the oracle's", len(MATRIX), disagreements(ours))
    here = f"127.0.0.1:{PORT}".encode()
    mutants = [
        blind_to(b"host", here), blind_to(b"origin", b"http://" + here), blind_to(b"sec-fetch-site", b"same-origin"),
        blind_to(b"content-type", b"application/json"), blind_to(b"authorization", f"Bearer {TOKEN}".encode()),
    ]  # fmt: skip
    tally("A15: mutants that are not found", len(mutants), sum(not disagreements(one) for one in mutants))


@security
def test_a17_every_locked_distribution_has_its_hash() -> None:
    locks = Path(__file__).parents[2] / "requirements"
    entries = [
        entry
        for name in ("core.txt", "dev.txt", "local.txt")
        for entry in re.split(r"\n(?=[a-z])", (locks / name).read_text(encoding="utf-8"))
        if re.match(r"[a-z].*==", entry)
    ]

    def unhashed(locked: list[str]) -> int:
        return sum("--hash=sha256:" not in entry for entry in locked)

    tally("A17: locked distributions: one without a hash", len(entries), unhashed(entries))
    planted = [entries[0].partition(" \\")[0], entries[0].replace("sha256", "md5")]
    tally("A17: mutants that are not found", 2, 2 - unhashed(planted))


@security
def test_a18_every_statement_is_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    count, made = test_structure.statements_of_text()
    tally("A18: places that give SQLite a statement: made of anything but constants", count, len(made))
    planted = {
        "x.py": "def f(db, key):\n    db.execute(f'SELECT {key} FROM runs')\n",
        "y.py": "def f(db, key):\n    db.execute('SELECT ' + key)\n",
        "z.py": "def f(db, key):\n    db.executemany('DELETE FROM runs WHERE %s' % key, [])\n",
    }
    monkeypatch.setattr(test_structure, "house", lambda: {name: ast.parse(text) for name, text in planted.items()})
    caught = {line.partition(":")[0] for line in test_structure.statements_of_text()[1]}
    tally("A18: mutants that are not found", len(planted), len(set(planted) - caught))


@security
def test_a19_nothing_is_spent_beyond_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    one_schedule: Callable[[int, int, float], None] = overrun.hypothesis.inner_test  # type: ignore[attr-defined]

    def overrun_in(count: int) -> int:
        dice, wrong = random.Random(19), 0
        for seed in range(count):
            try:
                one_schedule(seed, dice.randrange(1, 41), dice.uniform(0.5, 30.0))
            except AssertionError:
                wrong += 1
        return wrong

    tally("A19: schedules of faults: calls or money beyond the bound", 2_000, overrun_in(2_000))
    missed = 0
    for calls, money in ((1, 1.0), (0, 1.5), (10**6, 1.0)):
        monkeypatch.setattr(
            test_engine_limits, "Spending", lambda c, b, more=calls, times=money: Spending(c + more, b * times)
        )
        missed += not overrun_in(200)
    tally("A19: mutants that are not found", 3, missed)


@security
def test_a20_a_question_of_a_bank_is_found_in_other_words() -> None:
    things = ("kettle", "ladder", "basket", "curtain", "basin", "barrel", "lantern", "anchor", "bridge", "orchard")
    uses = ("mend", "paint", "measure", "carry", "clean", "draw", "store", "weigh", "polish", "label")
    bank = [f"What is the best way for people to {use} an old {thing} at home?" for use in uses for thing in things]
    index, dice = NearIndex(), random.Random(20)
    for number, question in enumerate(bank):
        index.add(str(number), question)
    planted = [change(question, dice) for question in bank for change in FAMILIES.values()]
    told = [text for text in planted if text is not None][:200]

    def lost(near: Callable[[str], bool]) -> int:
        return max(0, sum(not near(text) for text in told) - len(told) // 100)

    tally("A20: a bank's questions changed a little: over 1 of 100 not found", len(told),
          lost(lambda text: (found := index.nearest(text)) is not None and found[1] >= NEAR))  # fmt: skip
    grams = {words[at : at + 13] for words in (tuple(q.lower().split()) for q in bank) for at in range(len(words) - 12)}

    def by_thirteen(text: str) -> bool:
        words = tuple(text.lower().split())
        return any(words[at : at + 13] in grams for at in range(len(words) - 12))

    mutants: list[Callable[[str], bool]] = [
        lambda text: text in bank,
        lambda text: " ".join(text.lower().split()) in {" ".join(one.lower().split()) for one in bank},
        by_thirteen,
    ]
    tally("A20: mutants that are not found", len(mutants), sum(not lost(mutant) for mutant in mutants))
