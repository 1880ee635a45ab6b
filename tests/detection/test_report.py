"""The page of a detection evaluation: what it says, and that it says it to itself alone."""

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.coco import CATEGORY_IDS, ORIGIN, SIZE, random_data, row
from support.evaluations import HOSTILE

pytest.importorskip("pycocotools")

from video_mvit.detection.report import (
    MAX_TABLE_CLASSES,
    NUM_PICTURES,
    render_detection_report,
    write_detection_report,
)
from video_mvit.detection.results import DetectionResult, points, summarize_detections

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def evaluated(root: Path, names: tuple[str, ...], **problems: str) -> tuple[DetectionResult, dict]:
    """A result of random data with these names of classes, and the arguments of its report."""
    ground_truth, found = random_data()
    ids = (*CATEGORY_IDS, *range(100, 96 + len(names)))
    ground_truth["categories"] = [
        {"id": i, "name": name} for i, name in zip(ids, names, strict=True)
    ]
    left_out = {int(key[1:]): reason for key, reason in problems.items()}
    kept = {i: rows for i, rows in found.items() if i not in left_out}
    origin = replace(ORIGIN, class_names=names, category_ids=ids, image_root=str(root))
    result = summarize_detections(ground_truth, kept, left_out, origin, time_s=2.0, num_resumed=0)
    return result, {"ground_truth": ground_truth, "found": kept}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for image in random_data()[0]["images"]:
        pixels = rng.integers(0, 255, (*SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])
    return folder


def pictures(page: str) -> list[Image.Image]:
    codes = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(code))) for code in codes]


def test_page_has_the_numbers_of_the_result(root: Path, tmp_path: Path) -> None:
    result, content = evaluated(root, ORIGIN.class_names, i5="missing", i8="cut in half")
    page = write_detection_report(tmp_path, result, **content).read_text()
    for numbers in (result.box, result.mask):
        for value in numbers:
            assert f">{points(value)}</td>" in page or value is None
    low, high = result.bounds["box"]
    assert f"box AP is between {points(low)} and {points(high)}" in page
    assert "18 of 20 listed images evaluated; 1 missing, 1 unreadable" in page
    assert "cut in half" in page
    assert page.count("<svg") == 2
    found = pictures(page)
    assert 0 < len(found) <= 2 * NUM_PICTURES
    assert max(picture.width for picture in found) <= 420
    assert len(page) < 1_500_000


def test_page_is_self_contained_and_escapes_what_comes_from_data(tmp_path: Path) -> None:
    result, content = evaluated(tmp_path, HOSTILE[:4], i5="<img src=x>")
    origin = replace(result.origin, checkpoint=HOSTILE[0], settings={HOSTILE[2]: HOSTILE[0]})
    page = render_detection_report(replace(result, origin=origin), **content)
    assert not pictures(page)  # no files there
    assert "The image cannot be read." in page
    for text in ("<script>alert", "</table></script><b>", "<img src=x>"):
        assert text not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_many_classes_have_a_picture_as_matrix(root: Path) -> None:
    names = tuple(f"class {i}" for i in range(MAX_TABLE_CLASSES))
    result, content = evaluated(root, names)
    page = render_detection_report(result, **content)
    assert '<div class="map"' in page
    assert '<table class="matrix"' not in page


def test_images_can_be_left_out_of_the_page(root: Path, tmp_path: Path) -> None:
    result, content = evaluated(root, ORIGIN.class_names)
    page = write_detection_report(tmp_path, result, **content, thumbnails=False).read_text()
    assert pictures(page) == []
    assert "cannot be read" not in page
    assert "nearest: " in page


def test_page_without_detections_and_without_objects() -> None:
    ground_truth, found = random_data()
    empty = {i: [] for i in found}
    result = summarize_detections(ground_truth, empty, {}, ORIGIN, time_s=1, num_resumed=0)
    page = render_detection_report(result, ground_truth, empty)
    assert "No false positives." in page
    nothing = {**ground_truth, "annotations": []}
    found = empty | {5: [row(5, 1, (1, 1, 20, 20), 0.5)]}
    result = summarize_detections(nothing, found, {}, ORIGIN, time_s=1, num_resumed=0)
    page = render_detection_report(result, nothing, found)
    assert "No misses." in page
    assert "no object there" in page


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
def test_page_fits_screens_and_asks_for_nothing(root: Path, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    said: list[str] = []
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        many = tuple(f"class {i}" for i in range(MAX_TABLE_CLASSES))
        for names in (HOSTILE[3:], many):
            result, content = evaluated(root, names, i5="missing")
            path = write_detection_report(tmp_path, result, **content)
            for width in (390, 1280):
                page = browser.new_page(viewport={"width": width, "height": 900})
                page.on("console", lambda message: said.append(message.text))
                page.on("pageerror", lambda error: said.append(str(error)))
                page.on("request", lambda request: said.append(request.url))
                page.goto(path.as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.evaluate("[...document.images].every((each) => each.naturalWidth)")
                page.get_by_role("button", name="mask AP").click()
                header = page.get_by_role("columnheader", name="mask AP")
                assert header.get_attribute("aria-sort") == "descending"
            if page.locator("#map").count():
                page.locator("#map").focus()
                page.keyboard.press("ArrowRight")
                assert re.search(r": \d+ of \d+ objects", page.locator("#readout").inner_text())
        browser.close()
    assert [text for text in said if not text.startswith(("data:", "file:"))] == []
