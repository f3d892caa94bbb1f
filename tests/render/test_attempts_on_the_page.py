"""The attempts on a page: an index of all of them, texts of some, what was sent; and nothing of it is markup."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from redinstruct.prompts import load_template
from redinstruct.render import overview
from redinstruct.render.listing import data_block
from redinstruct.render.overview import read_runs
from redinstruct.render.page import html_page
from redinstruct.run import Store, attempt_index
from redinstruct.safetext import short_hash
from redinstruct.types import Completion, Message, Verdict
from tests.browser.payloads import PAYLOADS
from tests.support.pages import Page, full_run
from tests.support.stores import Setup, fill, make_bank, scratch, text

P, N = "harmful", "unharmful"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def index_in(page: str) -> dict[str, Any]:
    (block,) = re.findall(r'<script type="application/json" id="index">(.*?)</script>', page, re.DOTALL)
    found: dict[str, Any] = json.loads(block)
    return found


def test_the_index_holds_every_attempt_and_no_text(tmp_path: Path) -> None:
    run = full_run(tmp_path / "run", "openai/m")
    found = index_in(html_page([run]))
    with Store.open_for_reading(run) as store:
        views = {view.key[:12]: view for view in store.attempts(1)}
    assert len(found["rows"]) == len(views) == 20
    words = found["words"]
    for _, key, bank, row, epoch, prompt, topic, label, why, question, q_chars, answer, a_chars, flags in found["rows"]:
        view = views[key]
        assert (words[bank], words[prompt], words[topic]) == (view.bank, view.prompt, view.question.topic)
        assert (row, epoch, None if label < 0 else words[label]) == (view.question.row, view.epoch, view.label)
        assert (None if why < 0 else words[why]) == (view.detail or view.reason)
        assert (question, q_chars) == (short_hash(view.question.text)[:8], len(view.question.text))
        raw = view.completion.raw
        assert (answer, a_chars) == (("", -1) if raw is None else (short_hash(raw)[:8], len(raw)))
        told = [*view.completion.flags, *(["truncated"] if view.completion.truncated else [])]
        assert ("" if flags < 0 else words[flags]) == " ".join(told)
    assert "answer 1" not in words
    assert found["runs"] == ["1: openai/m"]


def test_the_index_comes_in_the_order_of_the_list_and_says_what_it_leaves_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = Setup(banks=(make_bank(9),), templates=Setup().templates[:1])
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, setup.plan(store), [N, P, "unparsable"] * 3)
    listing = read_runs([tmp_path / "run"]).runs[0].listing
    assert listing is not None
    assert [one.label for one in listing.index] == [P] * 3 + ["unparsable"] * 3 + [N] * 3
    assert [one.key for one in listing.index] == [view.key[:12] for view in listing.views]
    monkeypatch.setattr(overview, "MOST_INDEXED", 4)
    page = html_page([tmp_path / "run"])
    assert "Of 4 attempts, 5 more are in" in " ".join(Page(page).text.split())
    assert len(index_in(page)["rows"]) == 4


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_word_leaves_the_data_block_and_every_one_comes_back(payload: str) -> None:
    block = data_block(msgspec.defstruct("Held", [("words", list[str])])([payload.encode("utf-8", "replace").decode()]))
    assert not set(block) & set("<>&")
    assert json.loads(block)["words"] == [payload.encode("utf-8", "replace").decode()]


def test_one_attempt_shows_what_was_sent_said_thought_and_judged(tmp_path: Path) -> None:
    bank = make_bank(1)
    earlier = (Message("user", "an earlier turn"), Message("assistant", "an earlier reply"))
    bank = msgspec.structs.replace(bank, questions=(msgspec.structs.replace(bank.questions[0], earlier=earlier),))
    template = load_template("cou")
    setup = Setup(banks=(bank,), templates=(template,))
    said = Completion("text", "(thinks) the answer", "the answer", thought="the thought", note="a note")
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = setup.plan(store)
        store.commit_completions([(1, 0, said)])
        store.commit_verdicts([(1, 0, judge, 0, Verdict(P, raw="the judge says so", note="the judge's endpoint"))])
    shown = Page(html_page([tmp_path / "run"], show_content=True)).text
    sent = f"{template.prefix}{bank.questions[0].text}{template.suffix}"
    for words in (sent, "(thinks) the answer", "the thought", "the judge says so", "an earlier turn",
                  "an earlier reply", "a note", "the judge's endpoint", "The prompt as it was sent"):  # fmt: skip
        assert words in shown, words
    hidden = html_page([tmp_path / "run"])
    for words in (template.suffix[-40:], "the answer", "the thought", "the judge says so", "an earlier"):
        assert words not in hidden, words


def test_tries_are_drawn_where_questions_were_asked_several_times(tmp_path: Path) -> None:
    setup = Setup(banks=(make_bank(4),), templates=Setup().templates[:1], epochs=3)
    with Store.open_for_writing(tmp_path / "run") as store:
        fill(store, setup.plan(store), [P, N, N, N, N, P, N, N, N, N, N, N])
    page = html_page([tmp_path / "run"])
    assert page.count('<svg class="curve"') == 1
    assert "16.7 % in 1 try, 50.0 % in 3" in " ".join(Page(page).text.split())
    with Store.open_for_writing(tmp_path / "once") as store:
        once = msgspec.structs.replace(setup, epochs=1)
        fill(store, once.plan(store), [P, N, N, N])
    assert "In several tries" not in html_page([tmp_path / "once"])


def test_an_answer_asked_again_stands_there_once_as_it_is_now(tmp_path: Path) -> None:
    with Store.open_for_writing(tmp_path / "run") as store:
        judge = Setup().plan(store)
        store.commit_completions([(1, 0, Completion("error", reason="timeout"))])
        store.commit_completions([(1, 1, text("now it answers"))])
        store.commit_verdicts([(1, 1, judge, 0, Verdict(N)), (1, 1, judge, 1, Verdict(P))])
    with Store.open_for_reading(tmp_path / "run") as store:
        (one,) = attempt_index(store, judge)
    assert (one.label, one.answer_chars) == (P, len("now it answers"))
