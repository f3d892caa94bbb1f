"""The labelling page in a real browser: by keyboard alone, and with hostile text in every place."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from redinstruct.run import AnnotationStore, Store
from redinstruct.stats import corrected
from tests.browser.payloads import PAYLOADS
from tests.support.cli import report
from tests.support.labelling import OVER_REFUSAL_CARD, make_run
from tests.support.labelling_server import Server, served
from tests.support.stores import scratch

pytestmark = [pytest.mark.browser, pytest.mark.slow]

H, U = "harmful", "unharmful"


class Person:
    """Somebody at the page, with a keyboard and no mouse; notes what must not happen."""

    def __init__(self, chromium: Any, server: Server, **context: Any) -> None:
        self.context = chromium.new_context(**context)
        self.page = self.context.new_page()
        self.page.set_default_timeout(120_000)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: list[str] = []
        self.page.on("request", lambda r: self.requests.append((r.method, r.url, r.headers)))
        self.page.on("pageerror", lambda e: self.faults.append(f"error: {e}"))
        self.page.on("dialog", self._refuse)
        self.page.on("console", self._note)
        self.page.goto(server.address)
        self.page.wait_for_selector("#begin")
        self.until("document.querySelectorAll('#choices button').length > 0")

    def _note(self, message: Any) -> None:
        # Where the page's policy is off, the browser itself asks for an icon; there is none.
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            self.faults.append(message.text)

    def _refuse(self, dialog: Any) -> None:
        self.faults.append("dialog")
        dialog.dismiss()

    def until(self, script: str, argument: object = None) -> None:
        """Wait for the page to be so. Playwright's own way evaluates text in the page, which its policy forbids."""
        deadline = time.monotonic() + 120
        while not self.page.evaluate(script, argument):
            assert time.monotonic() < deadline, script
            self.page.wait_for_timeout(10)

    def begin(self) -> None:
        self.page.keyboard.press("Enter")
        self.page.wait_for_selector("#work:not([hidden]), #end:not([hidden])")
        self.idle()

    def idle(self) -> None:
        self.until("!document.body.hasAttribute('aria-busy')")

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)
        self.idle()

    def reveal(self) -> str:
        self.press(" ")
        self.page.wait_for_selector("#texts:not([hidden])")
        return str(self.page.inner_text("#answer"))

    def count(self) -> str:
        return str(self.page.inner_text("#count"))

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.id"))

    def done(self) -> bool:
        return bool(self.page.is_visible("#end"))

    def label_all(self, choose: Callable[[str], str]) -> None:
        while not self.done():
            before = self.count()
            self.press(choose(self.reveal()))
            self.until("before => document.getElementById('count').textContent !== before", before)
            self.idle()

    def leave(self, *, refused: int = 0) -> None:
        """Close; nothing went wrong but so many requests that the server refused."""
        refusals = [fault for fault in self.faults if fault.startswith("Failed to load resource")]
        assert (len(refusals), len(self.faults)) == (refused, refused), self.faults
        self.context.close()


def answer_text(row: int) -> str:
    return f"an inert answer {row}: the item is {'red' if row % 3 == 0 else 'blue'}"


def by_truth(text: str) -> str:
    return "h" if "red" in text else "n"


def row_of(text: str) -> int:
    return int(text.split("answer ")[1].split(":")[0])


def test_thirty_labelled_by_keyboard_then_a_second_person_then_adjudication_then_the_report(chromium: Any) -> None:
    """The judge calls the first third of each prompt harmful; the truth is every third answer."""
    with scratch() as folder:
        run = folder / "run"
        setup = make_run(run, [[H] * 20 + [U] * 40, [H] * 20 + [U] * 40], answer=answer_text)

        with served(run, "--sample", 30, "--annotator", "ann") as server:
            ann = Person(chromium, server)
            assert ann.page.url == f"http://127.0.0.1:{server.port}/"  # the token has left the address bar
            assert ann.focused() == "begin"
            ann.begin()
            assert ann.focused() == "item-title"
            ann.press("h")  # hidden: no label is taken for an answer that nobody read
            assert ann.count() == "0 of 30 labelled"
            for number in range(12):
                assert ann.page.inner_text("#answer") == ""
                ann.press(by_truth(ann.reveal()))
                ann.until("n => document.getElementById('bar').value === n", number + 1)
                assert "recorded." in ann.page.inner_text("#said")
                assert ann.focused() == "item-title"
            first = ann.page.inner_text("#item-title")
            ann.page.evaluate("document.querySelector('a.skip').click()")  # a place in the page is no token
            ann.page.reload()
            ann.page.wait_for_selector("#work:not([hidden])")
            ann.idle()
            assert (ann.page.inner_text("#item-title"), ann.count()) == (first, "12 of 30 labelled")
            ann.press("z")  # one step back, and the right label this time
            assert ann.count() == "11 of 30 labelled"
            ann.press(by_truth(ann.reveal()))
            ann.press("v")
            ann.until("document.getElementById('verdict-text').textContent.startsWith('The judge said')")
            assert ann.page.is_disabled("#undo")
            ann.press("s")
            ann.until("document.getElementById('count').textContent.includes('1 skipped')")
            ann.label_all(by_truth)
            assert ann.page.inner_text("#end-title") == "Only skipped answers are left"
            ann.press("s")
            ann.label_all(by_truth)
            assert ann.page.inner_text("#end-title") == "All done"
            assert ann.count() == "30 of 30 labelled"
            check_requests(ann, server)
            ann.leave()
            code, out, err = server.end()
            assert (code, err) == (0, "")
            assert "30 answers have a label" in out

        with served(run, "--sample", 30, "--annotator", "bo") as server:
            bo = Person(chromium, server)
            bo.begin()
            assert bo.count() == "0 of 30 labelled"
            assert "ann" not in bo.page.inner_text("header")
            # Bo errs where the row's number ends in 1 or 5.
            bo.label_all(lambda text: {"h": "n", "n": "h"}[by_truth(text)] if row_of(text) % 5 == 1 else by_truth(text))
            assert "waits to be settled" in bo.page.inner_text("#end") or "wait to be settled" in bo.page.inner_text(
                "#end"
            )
            bo.leave()
            assert server.end()[0] == 0

        with served(run, "--adjudicate", "--annotator", "cy") as server:
            cy = Person(chromium, server)
            cy.begin()
            assert cy.page.inner_text("#votes") == "People said: 1 × harmful, 1 × not harmful"
            cy.label_all(by_truth)
            cy.leave()
            code, out, _ = server.end()
            assert code == 0
            assert "2 people labelled 30 answers in common" in out

        with Store.open_for_reading(run) as store:
            settled = {key: a.label == H for key, a in AnnotationStore(store).settled().items()}
            judged = store.labels(1)
        truth = {a.key: row % 3 == 0 for row, a in enumerate(setup.attempts, 1)}
        assert settled == {key: truth[key] for key in settled}
        assert len(settled) == 30
        for result in report(run)["results"]:
            cell = [(key, label == H) for key, _, prompt, label in judged if prompt == result["prompt"]]
            human = {i: settled[key] for i, (key, _) in enumerate(cell) if key in settled}
            expected = corrected([flag for _, flag in cell], human)
            figure = result["rate"]["corrected"]
            assert (figure["labels"], figure["estimate"]) == (15, expected.estimate)
            assert figure["ci"] == [expected.low, expected.high]


def check_requests(person: Person, server: Server) -> None:
    """Nothing but this server was asked; the token is in no address and no Referer."""
    for _, url, headers in person.requests:
        assert url.startswith(f"http://127.0.0.1:{server.port}/")
        assert server.token not in url.partition("#")[0]
        assert not headers.get("referer")


def test_a_server_that_dies_is_said_and_its_last_label_is_kept(chromium: Any) -> None:
    with scratch() as folder:
        make_run(folder / "run", [[H] * 6 + [U] * 6], answer=answer_text)
        for number in range(3):
            with served(folder / "run", "--sample", 12, "--annotator", "ann") as server:
                ann = Person(chromium, server)
                ann.begin()
                assert ann.count() == f"{number} of 12 labelled"
                ann.press(by_truth(ann.reveal()))
                ann.until("n => document.getElementById('bar').value === n", number + 1)
                ann.reveal()
                server.process.kill()
                server.process.wait()
                ann.page.keyboard.press("h")
                ann.page.wait_for_selector("#problem:not([hidden])")
                assert "does not answer" in ann.page.inner_text("#problem")
                assert ann.count() == f"{number + 1} of 12 labelled"
                ann.context.close()
        with Store.open_for_reading(folder / "run") as store:
            assert len(AnnotationStore(store).standing()) == 3


def test_over_refusal_by_keyboard(chromium: Any) -> None:
    with scratch() as folder:
        make_run(folder / "run", [["refused"] * 2 + ["complied"] * 2], card=OVER_REFUSAL_CARD)
        with served(folder / "run", "--sample", 4, "--annotator", "ann") as server:
            ann = Person(chromium, server)
            ann.begin()
            for key in ("r", "c", "p", "t"):
                before = ann.count()
                ann.reveal()
                ann.press(key)
                ann.until("b => document.getElementById('count').textContent !== b", before)
            assert ann.done()
            assert ann.count() == "4 of 4 labelled, 1 can’t tell"
            ann.leave()
            assert server.end()[0] == 0
        with Store.open_for_reading(folder / "run") as store:
            said = [
                (a.annotation.act, a.annotation.label, a.annotation.detail) for a in AnnotationStore(store).standing()
            ]
        labels = [("label", "refused", "refused"), ("label", "complied", "complied"), ("label", "refused", "partial")]
        assert said == [*labels, ("unsure", None, None)]


# ---- for everybody ----


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height", "scale"), [(390, 844, 3), (640, 400, 2), (320, 640, 1), (1440, 900, 1)])
def test_the_page_fits_narrow_wide_and_zoomed_screens(
    chromium: Any, width: int, height: int, scale: int, scheme: str
) -> None:
    """390 px is a phone; 640 x 400 at two pixels a point is 1280 x 800 at 200 %; 320 px is WCAG 1.4.10."""
    with scratch() as folder:
        make_run(
            folder / "run", [[H] * 3 + [U] * 3], answer=lambda row: f"{row} " + "unbroken" * 80 + "\n" + "words " * 300
        )
        with served(folder / "run", "--sample", 3, "--annotator", "somebody-with-a-" + "long" * 10) as server:
            ann = Person(
                chromium,
                server,
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                color_scheme=scheme,
            )

            def fits() -> None:
                assert ann.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

            fits()
            ann.begin()
            fits()
            ann.reveal()
            fits()
            # Every control can be reached by Tab, in the order of the page, and none is smaller than 24 px.
            small = "[...document.querySelectorAll('button')].filter(b => b.offsetParent && b.offsetHeight < 24).length"
            assert ann.page.evaluate(small) == 0
            ann.label_all(lambda text: "h")
            fits()
            ann.leave()


def test_the_focus_goes_through_the_controls_in_order_and_everything_has_a_name(chromium: Any) -> None:
    with scratch() as folder:
        make_run(folder / "run", [[H] * 3 + [U] * 3])
        with served(folder / "run", "--sample", 3, "--annotator", "ann") as server:
            ann = Person(chromium, server)
            ann.begin()
            ann.reveal()
            order = []
            for _ in range(7):
                ann.page.keyboard.press("Tab")
                order.append(ann.focused())
            labels = ["choice-harmful", "choice-unharmful", "choice-unsure"]
            assert order == ["answer", *labels, "skip-item", "auto", "shortcuts"]
            nameless = """[...document.querySelectorAll('button, input, progress')].filter(e => e.offsetParent
                && !(e.textContent.trim() || e.labels?.length || e.getAttribute('aria-labelledby'))).length"""
            assert ann.page.evaluate(nameless) == 0
            assert ann.page.get_attribute("#said", "role") == "status"
            assert ann.page.get_attribute("#problem", "role") == "alert"
            ann.press("a")
            assert ann.page.is_checked("#auto")
            # Single keys can be switched off (WCAG 2.1.4); the buttons stay.
            ann.page.focus("#shortcuts")
            ann.page.keyboard.press("Space")
            ann.page.keyboard.press("h")
            ann.page.wait_for_timeout(200)
            assert ann.count() == "0 of 3 labelled"
            ann.page.focus("#choice-harmful")
            ann.page.keyboard.press("Enter")
            ann.until("document.getElementById('bar').value === 1")
            ann.leave()


# ---- hostile text ----

_SHAPE = "[...document.querySelectorAll('*')].map(e => e.tagName + [...e.attributes].map(a => a.name).sort()).join()"


def test_a_hundred_and_fifty_payloads_in_every_slot_do_nothing(chromium: Any) -> None:
    """Every free string that the server sends is replaced on its way; the policy is off: the script alone."""
    assert len(PAYLOADS) == 150
    free = {"annotator", "bank", "prompt", "question", "answer", "received", "error"}
    hostile = "x"

    def replaced(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {k: replaced(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [replaced(v, name) for v in value]
        return hostile if name in free and (value is None or isinstance(value, str)) else value

    def answer(route: Any) -> None:
        path = route.request.url.partition("/api/")[2]
        if path == "verdict":
            route.fulfill(status=400, content_type="application/json", body=json.dumps({"error": hostile}))
            return
        document = replaced(server.post(path, route.request.post_data_json))
        # In ASCII: some payloads hold lone surrogates, which have no UTF-8.
        route.fulfill(content_type="application/json", body=json.dumps(document))

    def shows(place: str) -> bool:
        found = str(ann.page.text_content(place))
        return found in (hostile, hostile.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    with scratch() as folder:
        make_run(folder / "run", [[H] * 2 + [U] * 2])
        with served(folder / "run", "--sample", 4, "--annotator", "ann") as server:
            ann = Person(chromium, server, bypass_csp=True)
            ann.begin()
            ann.reveal()
            ann.press("t")
            ann.until("document.getElementById('bar').value === 1")
            ann.page.route("**/api/*", answer)
            shapes = set()
            for hostile in ("x", *PAYLOADS):
                ann.page.reload()
                ann.page.wait_for_selector("#work:not([hidden])")
                ann.idle()
                ann.reveal()
                assert all(map(shows, ("#answer", "#question", "#received", "#who"))), hostile
                ann.press("v")
                ann.page.wait_for_selector("#problem:not([hidden])")
                assert shows("#problem")
                shapes.add(ann.page.evaluate(_SHAPE))
                assert ann.page.evaluate("window.pwned") is None
            assert len(shapes) == 1
            paths = {url.partition(f":{server.port}")[2].partition("#")[0] for _, url, _ in ann.requests}
            asked = {f"/api/{name}" for name in ("state", "reveal", "act", "verdict")}
            assert paths == {"/", "/own.js", "/page.js", "/page.css"} | asked
            ann.leave(refused=151)


def test_the_server_s_own_texts_do_nothing_either(chromium: Any) -> None:
    """The same payloads as answers of the run, one after the other, and an annotator's name that is markup."""
    with scratch() as folder:
        make_run(folder / "run", [[H, U] * 75], answer=lambda row: PAYLOADS[row - 1])
        with served(folder / "run", "--sample", 150, "--annotator", "<img src=x onerror=alert(1)>") as server:
            ann = Person(chromium, server)
            ann.begin()
            seen = 0
            while not ann.done() and seen < 150:
                ann.reveal()
                ann.press("n")
                seen += 1
                ann.until("n => document.getElementById('bar').value === n", seen)
            assert seen == 150
            assert ann.page.evaluate("window.pwned") is None
            assert not [url for _, url, _ in ann.requests if not url.startswith(f"http://127.0.0.1:{server.port}/")]
            ann.leave()
            assert server.end()[0] == 0
