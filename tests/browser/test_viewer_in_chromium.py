"""The viewer in a real browser: by keyboard, two clicks to a comparison, hostile words in every place, any width."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import uvicorn

from redinstruct.annotate.serving import listen
from redinstruct.run import Store
from redinstruct.safetext import shown
from redinstruct.viewer.server import application
from redinstruct.viewer.shelf import Shelf, ShelfLine, Worst
from tests.browser.payloads import PAYLOADS
from tests.browser.test_accessible import axe, serious  # noqa: F401  (a fixture)
from tests.support.stores import Setup, fill, make_bank, scratch

pytestmark = [pytest.mark.browser, pytest.mark.slow]
TOKEN = "t" * 43


class Fixed(Shelf):
    """A shelf that holds given lines."""

    def __init__(self, lines: Sequence[ShelfLine]) -> None:
        super().__init__(Path("/nowhere"))
        self.given = list(lines)

    def lines(self) -> list[ShelfLine]:
        return self.given


class Seen:
    """One browser at the viewer; notes what must not happen."""

    def __init__(self, chromium: Any, shelf: Shelf, **options: Any) -> None:
        self.listener = listen(0)
        self.port = self.listener.getsockname()[1]
        config = uvicorn.Config(application(shelf, self.port, TOKEN), log_config=None, lifespan="off", ws="none")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True)
        self.thread.start()
        self.context = chromium.new_context(**options)
        self.context.set_default_timeout(600_000)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.away: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", self._refuse)
        self.page.on("request", self._note)
        self.page.goto(f"http://127.0.0.1:{self.port}/#{TOKEN}")
        self.page.wait_for_selector("tbody tr")

    def _refuse(self, dialog: Any) -> None:
        self.faults.append("dialog")
        dialog.dismiss()

    def _note(self, request: Any) -> None:
        if not request.url.startswith(f"http://127.0.0.1:{self.port}/"):
            self.away.append(request.url)

    def end(self) -> None:
        self.context.close()
        self.server.should_exit = True
        self.thread.join(60)
        self.listener.close()


def line(word: str) -> ShelfLine:
    """A line with a word in its every slot."""
    return ShelfLine(
        word, "evaluation", word, "attack_success", (word,), (word,), word, 3, 4, Worst(word, word, 0.5, 0.1, 0.9, 3),
        word, 1e9, 60.0, word,
    )  # fmt: skip


@pytest.mark.parametrize("policy", [True, False], ids=["with the policy", "without it"])
def test_150_payloads_in_every_slot_do_nothing(chromium: Any, policy: bool) -> None:
    counts = []
    for words in ([f"x{number}" for number in range(len(PAYLOADS))], [shown(payload) for payload in PAYLOADS]):
        lines = [line(f"{word} {number}") for number, word in enumerate(words)]
        lines += [msgspec.structs.replace(one, kind="unreadable", worst=None) for one in lines]
        seen = Seen(chromium, Fixed(lines), bypass_csp=not policy)
        assert seen.page.locator("tbody tr").count() == 2 * len(PAYLOADS)
        seen.page.locator(".doing button[aria-pressed]").first.click()
        seen.page.evaluate("for (const b of document.querySelectorAll('button, th, td')) { b.focus(); }")
        counts.append(seen.page.evaluate("document.getElementsByTagName('*').length"))
        assert not seen.page.evaluate("'pwned' in window")
        assert (seen.faults, seen.away) == ([], [])
        seen.end()
    assert counts[0] == counts[1], "a payload added an element"


@pytest.fixture
def runs() -> Iterator[Path]:
    with scratch() as folder:
        for name, labels in (("before", ["harmful"] * 4), ("after", ["unharmful"] * 4)):
            setup = Setup(banks=(make_bank(4),), templates=Setup().templates[:1], model=f"a/{name}")
            with Store.open_for_writing(folder / name) as store:
                fill(store, setup.plan(store), labels)
        (folder / "bad").mkdir()
        (folder / "bad" / "run.sqlite").write_bytes(b"no database")
        yield folder


def test_two_clicks_compare_and_back_leads_back(chromium: Any, runs: Path) -> None:
    seen = Seen(chromium, Shelf(runs))
    page = seen.page
    assert TOKEN not in page.url
    assert "unreadable" in page.inner_text("tbody")
    page.get_by_label("compare before with another run").click()
    page.get_by_label("after is after").click()
    page.wait_for_url("**/report/*")
    text = page.inner_text("body")
    assert "Before and after" in text
    assert "harmful answers went from 100.0 to 0.0" in text
    assert page.evaluate("getComputedStyle(document.querySelector('.lede')).fontWeight") == "600", "its style holds"
    assert page.locator("#finder").is_visible(), "its script runs"
    page.go_back()
    page.wait_for_selector("tbody tr")
    assert (seen.faults, seen.away) == ([], [])
    seen.end()


def test_it_is_found_filtered_and_opened_by_keyboard(chromium: Any, runs: Path) -> None:
    seen = Seen(chromium, Shelf(runs))
    page = seen.page
    page.focus("#text")
    page.keyboard.type("a/after")
    assert page.inner_text("#said") == "1 of 3 runs"
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "open the report of after":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**/report/*")
    assert "gave in to 0.0" in page.inner_text("body").replace("\u00a0", " ")
    assert seen.faults == []
    seen.end()


def test_a_run_that_broke_since_is_said_and_the_list_stays(chromium: Any, runs: Path) -> None:
    seen = Seen(chromium, Shelf(runs))
    (runs / "after" / "run.sqlite").write_bytes(b"gone wrong")
    seen.page.get_by_label("open the report of after").click()
    seen.page.wait_for_selector("#problem:not([hidden])")
    assert str(runs) not in seen.page.inner_text("#problem")
    assert seen.page.locator("tbody tr").count() == 3
    assert seen.faults == []
    seen.end()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360), ("dark", 640), ("light", 1230)])
def test_it_fits_and_has_nothing_serious(chromium: Any, request: Any, scheme: str, width: int) -> None:
    lines = [line("W" * 200), line("a short one"), msgspec.structs.replace(line("bad"), kind="unreadable", worst=None)]
    viewport = {"width": width, "height": 800}
    seen = Seen(chromium, Fixed(lines), bypass_csp=True, color_scheme=scheme, viewport=viewport)
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    beside = "[...document.querySelectorAll('button')].filter(one => one.getBoundingClientRect().right > innerWidth)"
    assert seen.page.evaluate(f"{beside}.length") == 0, "every button can be pressed without scrolling sideways"
    assert seen.page.get_by_role("row").count() == 1 + len(lines), "a table to who does not see it, on any screen"
    assert serious(seen.page, request.getfixturevalue("axe")) == []
    seen.end()
