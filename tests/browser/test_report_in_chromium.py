"""The report in a real browser: no script runs, nothing is asked for, it fits the screen, and it can be read."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from redinstruct.render.overview import Project
from redinstruct.render.page import render
from tests.browser.payloads import JS, PAYLOADS
from tests.support.pages import full_project, replaced, strings_of
from tests.support.stores import scratch

pytestmark = [pytest.mark.browser, pytest.mark.slow]
COUNT = "document.getElementsByTagName('*').length"


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with scratch() as folder:
        yield full_project(folder)


def with_payloads(project: Project, first: int, step: int = 1) -> str:
    """The page with a payload in every slot: from ``PAYLOADS[first]`` on, ``step`` apart."""
    numbers = {text: number for number, text in enumerate(strings_of(project))}

    def new(text: str) -> str:
        number = numbers[text]
        return f"{PAYLOADS[(first + step * number) % len(PAYLOADS)]} {number}"

    return render(replaced(project, new), show_content=True)


def test_payloads_in_every_slot_do_nothing_even_without_the_policy(project: Project, visit: Any) -> None:
    assert len(set(PAYLOADS)) == 150
    numbers = {text: number for number, text in enumerate(strings_of(project))}
    inert = render(replaced(project, lambda text: f"x{numbers[text]}"), show_content=True)
    expected = visit(inert, COUNT).found
    assert visit(with_payloads(project, 0), COUNT, policy=False) == ([], [], False, expected)


@pytest.mark.parametrize("policy", [True, False], ids=["with the policy", "without it"])
def test_each_of_150_payloads_in_every_slot(project: Project, visit: Any, policy: bool) -> None:
    counts = set()
    for number in range(len(PAYLOADS)):
        seen = visit(with_payloads(project, number, step=0), COUNT, policy=policy)
        assert (seen.dialogs, seen.requests, seen.pwned) == ([], [], False), PAYLOADS[number]
        counts.add(seen.found)
    assert len(counts) == 1, "a payload added an element"


def test_a_hole_would_be_seen_and_the_policy_would_stop_it(project: Project, visit: Any) -> None:
    """The tests above can fail; and were a value ever shown raw, the page's own policy is a second net."""
    page, callers = render(project), []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, caller = server.accept()
                    callers.append(caller)
                    connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        away = f"http://127.0.0.1:{server.getsockname()[1]}/"
        holed = page.replace("</main>", f"<img src={away}><img src=x onerror='{JS}'><script>{JS}</script></main>")
        assert holed != page
        stopped = visit(holed)
        assert (stopped.pwned, stopped.dialogs, callers) == (False, [], [])
        seen = visit(holed, policy=False)
        assert seen.pwned
        assert seen.dialogs
        assert callers
        assert away in seen.requests
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)


# Every text's colour against what lies behind it, by WCAG 2's formula; the smallest ratio, and whose.
_CONTRAST = """() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = parse(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const shape = ["circle", "rect"].includes(element.localName) || element.matches("line.bounds, path");
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const drawn = own && !["script", "style", "title"].includes(element.localName);
    if (!drawn && !shape) continue;
    const style = getComputedStyle(element);
    const ink = element.matches("line.bounds") ? style.stroke : element.namespaceURI.endsWith("svg") ? style.fill
      : style.color;
    const [a, b] = [light(parse(ink)), light(behind(element))].sort((x, y) => y - x);
    // Graphics need 3 : 1, text 4.5 : 1.
    const ratio = (a + 0.05) / (b + 0.05) / (shape ? 3 / 4.5 : 1);
    if (ratio < worst[0]) worst = [ratio, `${element.localName}.${element.getAttribute("class")}`];
  }
  return [...worst, document.documentElement.scrollWidth <= innerWidth];
}"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 390)])
def test_it_has_contrast_and_fits_the_screen(project: Project, visit: Any, scheme: str, width: int) -> None:
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    ratio, whose, fits = visit(render(project, show_content=True), _CONTRAST, **options).found
    assert ratio >= 4.5, whose
    assert fits, "the page is wider than the screen"


def test_it_fits_the_screen_whatever_the_names_are(project: Project, visit: Any) -> None:
    numbers = {text: number for number, text in enumerate(strings_of(project))}
    for filler in ("W" * 300, "word " * 80, "长" * 200, "\u0644" * 200):
        page = render(replaced(project, lambda t, f=filler: f"{f}{numbers[t]}"), show_content=True)  # type: ignore[misc]
        for width in (320, 390, 1440):
            fits = "document.documentElement.scrollWidth <= innerWidth"
            assert visit(page, fits, viewport={"width": width, "height": 800}).found, (filler[:3], width)


_SORTED = """() => {
  const table = document.querySelector("table[data-sortable]");
  const shown = () => [...table.tBodies[0].rows].map((row) => row.cells[1].dataset.value);
  const states = [shown()];
  const button = table.querySelectorAll("thead button")[1];
  for (let i = 0; i < 2; i += 1) { button.click(); states.push(shown()); }
  return [states, button.closest("th").getAttribute("aria-sort"), table.querySelectorAll("thead button").length];
}"""


def test_a_topic_table_sorts_under_its_own_policy_and_reads_without_script(project: Project, visit: Any) -> None:
    page = render(project)
    (_, down, up), state, buttons = visit(page, _SORTED, touch=False).found
    values = list(map(float, down))
    assert values == sorted(values, reverse=True)
    assert list(map(float, up)) == sorted(values)
    assert state == "ascending"
    assert buttons >= 4
    text = "document.body.innerText"
    without = visit(page, text, touch=False, java_script_enabled=False).found
    with_script = visit(page, text, touch=False).found
    assert without.replace("\t", " ").split() == with_script.replace("\t", " ").split()
