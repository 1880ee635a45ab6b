"""The report in headless Chromium: at two widths, light and dark, by pointer and by keyboard."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.evaluations import CURVES, HOSTILE, many_predictions, strips_of, summary

from video_mvit.evaluation.report import render_report

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path"),
]

NARROW, WIDE = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
MANY = [f"doing thing {i:02}" for i in range(40)]


@pytest.fixture(scope="module")
def browser() -> Iterator["api.Browser"]:
    with api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of few classes with hostile names, and of many classes."""
    folder = tmp_path_factory.mktemp("reports")
    for name, classes in {"few": list(HOSTILE), "many": MANY}.items():
        predictions = many_predictions(classes, 206, 0.7)
        html = render_report(
            summary(predictions, classes),
            predictions,
            curves=CURVES,
            strips=strips_of(predictions, (48, 64)),
        )
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in ("few", "many")}


@pytest.fixture
def opened(browser: "api.Browser", pages: dict[str, Path]) -> Iterator["Opened"]:
    found = Opened(browser, pages)
    yield found
    found.close()


class Opened:
    """Opens pages, and collects what they complain of and ask for."""

    def __init__(self, browser: "api.Browser", pages: dict[str, Path]) -> None:
        self.browser, self.pages = browser, pages
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.contexts: list[api.BrowserContext] = []

    def __call__(self, name: str, **options: object) -> "api.Page":
        context = self.browser.new_context(**{"viewport": WIDE, **options})
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("dialog", lambda dialog: self.problems.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(self.pages[name].as_uri())
        return page

    def close(self) -> None:
        for context in self.contexts:
            context.close()


def class_order(page: "api.Page") -> list[str]:
    return page.locator("#class-table tbody tr:visible th").all_inner_texts()


def is_inside(inner: dict[str, float], outer: dict[str, float]) -> bool:
    return all(
        outer[start] <= inner[start] and inner[start] + inner[size] <= outer[start] + outer[size]
        for start, size in (("x", "width"), ("y", "height"))
    )


def values(page: "api.Page", column: int) -> list[float]:
    cells = page.locator(f"#class-table tbody td:nth-child({column})")
    return [float(cell.get_attribute("data-value")) for cell in cells.all()]


@pytest.mark.parametrize("name", ["few", "many"])
def test_page_loads_without_complaint_and_asks_for_nothing(opened: Opened, name: str) -> None:
    page = opened(name)
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    assert len(widths) == 12 * 8 + (name == "many")
    assert min(widths) > 0
    assert opened.problems == []
    asked = [url for url in opened.requests if not url.startswith("data:")]
    assert asked == [opened.pages[name].as_uri()]


@pytest.mark.parametrize("name", ["few", "many"])
@pytest.mark.parametrize("viewport", [NARROW, WIDE], ids=["narrow", "wide"])
def test_page_never_scrolls_sideways(opened: Opened, name: str, viewport: dict[str, int]) -> None:
    page = opened(name, viewport=viewport)
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == viewport["width"]


def test_letters_of_figures_can_be_read_on_a_narrow_screen(opened: Opened) -> None:
    page = opened("few", viewport=NARROW)
    heights = page.evaluate(
        "const scale = (text) => Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b);"
        "[...document.querySelectorAll('figure svg text')]"
        ".map((text) => parseFloat(getComputedStyle(text).fontSize) * scale(text))"
    )
    assert len(heights) > 30
    assert min(heights) > 9


def test_table_is_sorted_by_click(opened: Opened) -> None:
    page = opened("many")
    top1 = page.locator("#class-table th").nth(2)
    assert top1.get_attribute("aria-sort") == "ascending"
    assert values(page, 3) == sorted(values(page, 3))
    page.get_by_role("button", name="precision").click()
    assert values(page, 5) == sorted(values(page, 5), reverse=True)
    assert top1.get_attribute("aria-sort") is None
    header = page.get_by_role("columnheader", name="precision")
    assert header.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="precision").click()
    assert values(page, 5) == sorted(values(page, 5))
    assert header.get_attribute("aria-sort") == "ascending"


def test_table_is_sorted_by_keyboard_through_each_column(opened: Opened) -> None:
    page = opened("many")
    assert class_order(page) != MANY
    page.locator("#class-table thead button").first.focus()
    page.keyboard.press("Enter")
    assert class_order(page) == MANY
    page.keyboard.press("Space")
    assert class_order(page) == MANY[::-1]
    for name in ("videos", "recall", "recall in top 5", "precision", "most common error"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
        page.keyboard.press("Enter")
        sorted_by = page.locator("#class-table [aria-sort]")
        assert sorted_by.all_inner_texts() == [name]


def test_table_is_filtered(opened: Opened) -> None:
    page = opened("few")
    page.locator("#filter").fill("SCRIPT alert")
    names = page.locator("#class-table tbody tr:visible")
    assert 0 < names.count() < len(HOSTILE)
    assert page.locator("#shown").inner_text() == f"{names.count()} of {len(HOSTILE)} classes"
    page.locator("#filter").fill("nothing like it")
    assert names.count() == 0
    page.locator("#filter").fill("")
    assert names.count() == len(HOSTILE)
    assert page.locator("#shown").inner_text() == ""


def test_theme_follows_the_system_and_the_button(opened: Opened) -> None:
    look = (
        "[getComputedStyle(document.body).backgroundColor,"
        " getComputedStyle(document.querySelector('figure svg text')).fill]"
    )
    light, dark = (
        opened("few", color_scheme="light"),
        opened("few", color_scheme="dark"),
    )
    by_light, by_dark = light.evaluate(look), dark.evaluate(look)
    assert all(a != b for a, b in zip(by_light, by_dark, strict=True))
    button = light.get_by_role("button", name="Dark")
    button.click()
    assert light.evaluate(look) == by_dark
    light.get_by_role("button", name="Light").click()
    assert light.evaluate(look) == by_light


def test_map_is_read_and_zoomed_by_keyboard(opened: Opened) -> None:
    page = opened("many")
    row = page.locator(".pairs tbody tr").first
    label, predicted, count = (row.locator("th, td").nth(i).inner_text() for i in range(3))
    whole = page.locator(".sheet").bounding_box()["width"]
    row.get_by_role("button").press("Enter")
    readout = page.locator("#readout")
    assert readout.inner_text().startswith(f"{label}, predicted as {predicted}: {count} of ")
    zoomed = page.locator(".sheet").bounding_box()["width"]
    assert zoomed == pytest.approx(8 * whole)
    assert page.locator(".cursor").is_visible()
    page.locator("#map").focus()
    page.keyboard.press("ArrowRight")
    assert not readout.inner_text().startswith(f"{label}, predicted as {predicted}:")
    page.keyboard.press("ArrowLeft")
    for _ in range(3):
        page.keyboard.press("Shift+ArrowDown")
    assert is_inside(page.locator(".cursor").bounding_box(), page.locator("#map").bounding_box())
    row.get_by_role("button").press("Enter")
    page.locator("#map").focus()
    page.keyboard.press("-")
    assert readout.inner_text().startswith(f"{label}, predicted as {predicted}: {count} of ")
    assert page.locator(".sheet").bounding_box()["width"] == pytest.approx(4 * whole)
    page.get_by_role("button", name="Whole").click()
    assert page.locator(".sheet").bounding_box()["width"] == pytest.approx(whole)


def test_map_is_read_by_pointer(opened: Opened) -> None:
    page = opened("many")
    box = page.locator(".sheet").bounding_box()
    cell = box["width"] / len(MANY)
    page.locator(".sheet").hover(position={"x": 3.5 * cell, "y": 5.5 * cell})
    order = json.loads(page.locator("#map-data").text_content())["order"]
    label, predicted = MANY[order[5]], MANY[order[3]]
    readout = page.locator("#readout").inner_text()
    assert readout.startswith(f"{label}, predicted as {predicted}: ")


def test_first_stop_of_the_keyboard_skips_to_the_numbers(opened: Opened) -> None:
    page = opened("few")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the numbers"
    assert page.locator(".skip").bounding_box()["width"] > 50
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    page.keyboard.press("Tab")
    assert page.evaluate(outline) == "solid"


@pytest.mark.parametrize("name", ["few", "many"])
def test_page_says_everything_without_scripts(opened: Opened, name: str) -> None:
    page = opened(name, java_script_enabled=False)
    assert page.get_by_role("button").count() == 0
    for heading in ("Confusion matrix", "Classes", "Training curves", "Videos left out"):
        assert page.get_by_role("heading", name=heading).is_visible()
    num_classes = len(HOSTILE) if name == "few" else len(MANY)
    assert page.locator("#class-table tbody tr:visible").count() == num_classes
    assert page.locator(".map img" if name == "many" else ".matrix").is_visible()
    assert opened.problems == []
