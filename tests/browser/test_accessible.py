"""Nothing serious for people with a screen reader, a keyboard, poor sight: axe-core over every page of this project.

axe-core comes from npm by `make axe` and is not kept here; without it these tests are skipped, and say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redinstruct.render.page import render
from tests.support.pages import full_project
from tests.support.stores import scratch

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PLACE = Path(os.environ.get("REDINSTRUCT_AXE", Path(__file__).parents[2] / "build" / "axe" / "package" / "axe.min.js"))
OPEN = """() => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  document.querySelector("#finder tbody button, .doing button")?.click();
}"""
FOUND = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .map((one) => `${one.id}: ${one.nodes[0].target} (${one.nodes.length})`)"""


@pytest.fixture(scope="module")
def axe() -> str:
    if not PLACE.is_file():
        pytest.skip("no axe-core on this machine: pages were not looked at by it (make axe)")
    return PLACE.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page() -> Iterator[Path]:
    with scratch() as folder:
        file = folder / "page.html"
        file.write_text(render(full_project(folder), show_content=True), encoding="utf-8")
        yield file


def serious(tab: Any, axe: str) -> list[str]:
    """What axe-core calls serious or critical on the page that is open."""
    tab.evaluate(axe)
    found: list[str] = tab.evaluate(FOUND)
    return found


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 640)])
def test_a_report_has_nothing_serious(chromium: Any, axe: str, page: Path, scheme: str, width: int) -> None:
    context = chromium.new_context(bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 900})
    context.set_default_timeout(600_000)
    tab = context.new_page()
    tab.goto(page.as_uri())
    assert serious(tab, axe) == []
    tab.evaluate(OPEN)
    assert serious(tab, axe) == []
    context.close()


def test_axe_sees_a_fault(chromium: Any, axe: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text("<html><title>x</title><button></button><img src='data:,'></html>", encoding="utf-8")
    context = chromium.new_context()
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert {one.partition(":")[0] for one in serious(tab, axe)} >= {"button-name", "image-alt", "html-has-lang"}
    context.close()
