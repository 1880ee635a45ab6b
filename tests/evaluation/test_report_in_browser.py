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
    sizes = {"few": (list(HOSTILE), 206), "many": (MANY, 206), "beyond": (MANY, 760)}
    for name, (classes, number) in sizes.items():
        predictions = many_predictions(classes, number, 0.7)
        html = render_report(
            summary(predictions, classes),
            predictions,
            curves=CURVES,
            strips=strips_of(predictions, len(classes)),
        )
        (folder / f"{name}.html").write_text(html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in sizes}


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
    page.wait_for_function("[...document.images].every((image) => image.complete)")
    widths = page.evaluate("[...document.images].map((image) => image.naturalWidth)")
    num_classes = len(HOSTILE) if name == "few" else len(MANY)
    assert len(widths) == num_classes + 10 + (name == "many")  # of ten errors at a time
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
    columns = ("support", "recall", "recall in top 5", "precision", "F1", "most common error")
    for name in columns:
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


def titles(page: "api.Page") -> list[str]:
    return page.locator("#error-list h3").all_inner_texts()


@pytest.mark.parametrize("name", ["few", "many"])
def test_errors_are_browsed_by_page(opened: Opened, name: str) -> None:
    page = opened(name)
    place = page.locator("#errors .place").first
    seen, total = [], int(place.inner_text().rpartition(" ")[2])
    assert place.inner_text() == f"1 to 10 of {total}"
    turn = page.locator("#error-tools-after").get_by_role("button", name="Next page")
    while turn.is_enabled():
        seen += page.locator("#error-list .path").all_inner_texts()
        turn.click()
    seen += page.locator("#error-list .path").all_inner_texts()
    assert len(set(seen)) == len(seen) == total
    assert place.inner_text().endswith(f" to {total} of {total}")
    assert opened.problems == []


def test_errors_beyond_the_first_are_made_like_them(opened: Opened) -> None:
    page = opened("beyond")
    turn = page.locator("#error-tools").get_by_role("button", name="Next page")
    for _ in range(20):
        turn.click()
    assert page.locator("#errors .place").first.inner_text() == "201 to 210 of 224"
    items = page.locator("#error-list li")
    assert items.count() == 10
    first = items.first
    assert "predicted as" in first.locator("h3").inner_text()
    assert first.locator("tr").count() == 5
    assert first.locator("tr.right").count() == 1
    assert first.locator("tr.wrong td").inner_text().endswith(" %")
    assert first.locator(".rank").inner_text().startswith("the true class is ranked ")
    assert first.locator("a.path").get_attribute("href").startswith("file:///")
    assert first.locator("img").count() == 0
    assert opened.problems == []


def test_number_of_the_matrix_leads_to_its_videos(opened: Opened) -> None:
    page = opened("few")
    link = page.locator(".matrix a[data-pair]").first
    number = int(link.inner_text())
    label, predicted = map(int, link.get_attribute("data-pair").split(","))
    link.click()
    assert page.locator("#errors .place").first.inner_text().endswith(f" of {number}")
    assert len(set(titles(page))) == 1
    assert HOSTILE[label] in titles(page)[0]
    assert HOSTILE[predicted] in titles(page)[0]
    assert page.locator("#errors h2").bounding_box()["y"] < WIDE["height"]
    chip = page.locator("#error-chip")
    assert chip.inner_text().startswith(f"{HOSTILE[label]} predicted as {HOSTILE[predicted]} ")
    chip.click()
    assert page.locator("#errors .place").first.inner_text().startswith("1 to 10 of ")
    page.locator(".matrix .right a").first.click()
    assert page.evaluate("document.querySelector(':target').matches('.examples li')")
    # Below, the errors are those of this class; the example leads there.
    (true,) = {title.partition(" predicted as ")[0] for title in titles(page)}
    assert page.locator(":target .example-name").inner_text() == true
    page.locator(":target a[data-class]").click()
    assert page.url.endswith("#errors")
    assert {title.partition(" predicted as ")[0] for title in titles(page)} == {true}
    assert opened.problems == []


def test_cell_of_the_map_leads_to_its_videos(opened: Opened) -> None:
    page = opened("many")
    row = page.locator(".pairs tbody tr").first
    row.get_by_role("button").press("Enter")
    page.locator("#map").focus()
    page.keyboard.press("Enter")
    count = row.locator("td").nth(1).inner_text()
    assert page.locator("#errors .place").first.inner_text().endswith(f" of {count}")
    page.locator(".aside a").first.click()
    assert len({title.partition(" predicted")[0] for title in titles(page)}) == 1


def test_strip_plays_where_the_pointer_is(opened: Opened) -> None:
    page = opened("few")
    moves = "(image) => getComputedStyle(image).animationName"
    card = page.locator(".examples li").first
    picture = card.locator("img")
    assert picture.evaluate(moves) == "none"
    card.hover()
    assert picture.evaluate(moves) == "play"
    page.locator("h1").hover()
    assert picture.evaluate(moves) == "none"
    frame, sheet = card.locator(".strip").bounding_box(), picture.bounding_box()
    assert sheet["width"] == pytest.approx(8 * frame["width"], rel=0.01)
    assert sheet["x"] == pytest.approx(frame["x"] - 4 * frame["width"], abs=1)  # the fifth frame


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
