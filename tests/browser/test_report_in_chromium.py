"""The report in a real browser: no script runs, nothing is asked for, it fits the screen, and it can be read."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redinstruct.render.overview import Project, read_runs
from redinstruct.render.page import render
from redinstruct.run import Store
from redinstruct.types import Completion, Verdict
from tests.browser.payloads import JS, PAYLOADS
from tests.support.pages import full_project, replaced, strings_of
from tests.support.stores import Setup, make_bank, scratch

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
    # Apart from the list of attempts, which a script lets one search through, it says the same.
    text = "(document.getElementById('attempts').remove(), document.body.innerText)"
    without = visit(page, text, touch=False, java_script_enabled=False).found
    with_script = visit(page, text, touch=False).found
    assert "Configuration and cost" in without
    assert without.replace("\t", " ").split() == with_script.replace("\t", " ").split()


_FOUND = """async () => {
  const finder = document.getElementById("finder");
  const shown = () => [...finder.querySelectorAll("tbody tr:not(.one)")].map((row) => row.cells[0].innerText);
  const told = () => finder.querySelector("[role=status]").textContent;
  const by = (field) => finder.querySelector(`select[data-field=${field}]`);
  const choose = (field, part) => {
    by(field).value = part ? [...by(field).options].find((o) => o.textContent.startsWith(part)).value : "";
    by(field).dispatchEvent(new Event("change"));
  };
  const type = (text) => {
    const search = finder.querySelector("input");
    search.value = text;
    search.dispatchEvent(new Event("input"));
  };
  const answers = {all: told(), listed: document.getElementById("listed").hidden};
  choose("label", "harmful"); answers.harmful = told();
  choose("prompt", "cou"); answers.both = told();
  choose("label", ""); choose("prompt", "");
  choose("topic", "second"); answers.topic = told();
  choose("topic", "");
  type("ANSWER 3"); answers.text = [told(), shown().length];
  const button = finder.querySelector("tbody button");
  button.click();
  answers.opened = [button.getAttribute("aria-expanded"), finder.querySelector(".one").innerText];
  button.click();
  answers.closed = [button.getAttribute("aria-expanded"), finder.querySelector(".one")];
  type("no such words"); answers.none = [told(), shown().length];
  return answers;
}"""


def test_attempts_are_found_by_label_prompt_topic_and_text_and_one_opens(project: Project, visit: Any) -> None:
    found = visit(render(project, show_content=True), _FOUND, touch=False).found
    assert (found["all"], found["listed"]) == ("40 of 40 attempts", True)
    views = [view for run in project.runs if run.listing is not None for view in run.listing.views]
    harmful = [view for view in views if view.label == "harmful"]
    assert found["harmful"] == f"{len(harmful)} of 40 attempts"
    assert found["both"] == f"{sum(view.prompt == 'cou' for view in harmful)} of 40 attempts"
    assert found["topic"] == f"{sum(view.question.topic == 'second' for view in views)} of 40 attempts"
    told = sum("answer 3" in (view.completion.raw or "") for view in views)
    assert found["text"] == [f"{told} of 40 attempts", told]
    expanded, words = found["opened"]
    assert expanded == "true"
    for part in ("What is item", "The prompt as it was sent", "answer 3", "the judge's reply 3"):
        assert part in words
    assert found["closed"] == ["false", None]
    assert found["none"] == ["0 of 40 attempts", 0]


def test_hidden_content_is_named_where_an_attempt_opens(project: Project, visit: Any) -> None:
    ask = "(document.querySelector('#finder tbody button').click(), document.querySelector('#finder .one').innerText)"
    words = visit(render(project), ask, touch=False).found
    assert "Its texts are not on this page: redinstruct show RUN" in words
    assert "What is item" not in words


def large(folder: Path, attempts: int) -> Path:
    """A run of so many attempts, each answered and judged."""
    questions = attempts // 2
    setup = Setup(banks=(make_bank(questions),))
    with Store.open_for_writing(folder) as store:
        judge = setup.plan(store)
        said = Completion("text", "an inert answer", "an inert answer")
        store.commit_completions([(row, 0, said) for row in range(1, attempts + 1)])
        store.commit_verdicts(
            [(row, 0, judge, 0, Verdict("unharmful" if row % 3 else "harmful")) for row in range(1, attempts + 1)]
        )
    return folder


def cpu_seconds(browser: Any, page: Path, ask: str) -> tuple[float, Any]:
    """Seconds of the renderer's CPU from the page's beginning until it has answered, by Chromium's own count."""
    context = browser.new_context()
    tab = context.new_page()
    session = context.new_cdp_session(tab)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    tab.goto(page.as_uri())
    found = tab.evaluate(ask)
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    context.close()
    return metrics["TaskDuration"], found


def test_a_report_of_a_hundred_thousand_attempts_opens_in_a_second_of_cpu(chromium: Any, tmp_path: Path) -> None:
    page = tmp_path / "large.html"
    with scratch() as folder:
        page.write_text(render(read_runs([large(folder / "run", 100_000)])), encoding="utf-8")
    opened, hidden = cpu_seconds(chromium, page, "document.getElementById('finder').hidden")
    assert hidden, "the list is read when somebody comes near it"
    near = """async () => {
      document.getElementById("attempts").scrollIntoView();
      while (document.getElementById("finder").hidden) await new Promise(requestAnimationFrame);
      return document.querySelector("#finder [role=status]").textContent;
    }"""
    read, told = cpu_seconds(chromium, page, near)
    assert told == "100,000 of 100,000 attempts"
    assert opened < 1, (opened, read)


_FIRST_SCREEN = """() => [...document.querySelectorAll(".answers div")].map((one) => {
  const [box, of] = [one.getBoundingClientRect(), (tag) => one.querySelector(tag).innerText];
  return [of("dt"), box.top >= 0 && box.bottom <= innerHeight, of("dd")];
})"""


def test_the_first_screen_holds_all_five_answers(project: Project, visit: Any) -> None:
    found = visit(render(project), _FIRST_SCREEN, touch=False, viewport={"width": 1280, "height": 800}).found
    assert [question for question, _, _ in found] == [
        "What was tested?", "How bad was it?", "What helped?", "What did it cost?", "How sure is it?",
    ]  # fmt: skip
    assert all(there for _, there, _ in found), found
    assert all(len(answer) > 20 for _, _, answer in found)
