"""The page of a run in a browser: drawn, quiet, alone, and usable by keyboard and on a phone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_run import HOSTILE, written

import dsconvert as ds

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("vl_convert", reason="needs dsconvert[report]")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SCREENS = {
    **{"desktop": (1280, 900), "phone": (390, 844)},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = written(tmp_path_factory.mktemp("page"))
    ds.report(folder)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


class Opened:
    """A page with all that it said and asked for."""

    def __init__(self, browser: Any, place: Path, screen: str = "desktop", scheme: str = "light"):
        width, height = SCREENS[screen]
        self.context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append("a dialog") or dialog.dismiss())
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(place.as_uri())
        self.drawn()

    def drawn(self) -> None:
        self.page.wait_for_function("document.documentElement.dataset.drawn === 'yes'")

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_drawn_without_a_word_and_asks_for_nothing(browser, place, screen, scheme):
    with Opened(browser, place, screen, scheme) as opened:
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith("data:")] == [place.as_uri()]
        assert opened.page.locator("figure svg").count() == 4
        wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert not opened.page.evaluate(wide)
        for box in opened.page.locator("figure svg").all():
            shape = box.bounding_box()
            assert shape["width"] > 0.7 * min(SCREENS[screen][0], 1088)
            assert shape["x"] + shape["width"] <= SCREENS[screen][0]


def test_a_name_in_a_model_file_is_a_text(browser, place):
    with Opened(browser, place) as opened:
        assert opened.page.locator("img").count() == 0
        opened.page.get_by_text("All 2 convolutions").click()
        assert opened.page.get_by_role("rowheader", name=HOSTILE).is_visible()


def test_hovering_shows_the_figures(browser, place):
    with Opened(browser, place) as opened:
        point = opened.page.locator("figure[data-chart=pareto] .mark-symbol.role-mark path").last
        point.hover(force=True)
        tip = opened.page.locator("#vg-tooltip-element")
        tip.wait_for(state="visible")
        assert "tflite" in tip.inner_text()
        assert "KiB" in tip.inner_text()


def test_the_theme_is_switched_and_the_charts_with_it(browser, place):
    with Opened(browser, place) as opened:
        ground = "getComputedStyle(document.body).backgroundColor"
        label = "document.querySelector('figure .role-axis-label text').getAttribute('fill')"
        before = opened.page.evaluate(ground), opened.page.evaluate(label)
        opened.page.locator("#theme").click()
        opened.page.wait_for_function(f"{label} !== {before[1]!r}")
        assert opened.page.evaluate(ground) != before[0]
        assert opened.said == []


def test_all_that_can_be_done_is_within_reach_of_the_keyboard(browser, place):
    with Opened(browser, place) as opened:
        reached = set()
        for _ in range(60):
            opened.page.keyboard.press("Tab")
            told = "(e => e.id || e.dataset.copy || e.textContent.trim() || e.ariaLabel)"
            reached.add(opened.page.evaluate(f"{told}(document.activeElement)"))
        assert {"Skip to the figures", "theme", "use-0", "Files", "Environment"} <= reached
        opened.page.get_by_text("Environment").focus()
        opened.page.keyboard.press("Enter")
        assert opened.page.get_by_role("rowheader", name="python").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser, place, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    with Opened(browser, place, scheme=scheme) as opened:
        for one in opened.page.locator("details").all():
            one.evaluate("e => e.open = true")
        found = axe.Axe().run(opened.page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in serious]
        assert not told


def test_printing_shows_what_is_folded(browser, place, tmp_path):
    with Opened(browser, place) as opened:
        opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert opened.page.locator("details:not([open])").count() == 0
        opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert opened.page.locator("details[open]").count() == 0
