"""Take the pictures of the docs from runs that were evaluated; needs Chromium.

python docs/take_pictures.py --demo runs/demo_0 --finetuned runs/finetune
python docs/take_pictures.py --detector runs/shapes_0
"""

import argparse
import io
import shutil
from itertools import islice
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from video_mvit.detection.predict import ObjectFinder, detect_pictures, draw_found
from video_mvit.detection.results import read_detection_result
from video_mvit.detection.weights import load_detector

STATIC = Path(__file__).parent / "_static"
NUM_COLORS = 128  # of a PNG, so that it stays small
WIDTH, MARGIN = 1180, 24  # of a page, in pixels
NUM_DRAWN, DRAWN_WIDTH, GAP = 4, 284, 8  # images in a row, in pixels
MIN_SCORE = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("demo", "finetuned", "detector"):
        parser.add_argument(f"--{name}", type=Path)
    runs = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        if runs.demo:
            report = runs.demo / "evaluation" / "report.html"
            save(shot(browser, report, "#main", last="#classes"), "report.png")
        if runs.finetuned:
            report = runs.finetuned / "evaluation" / "report.html"
            save(shot(browser, report, "#errors", height=760), "report_errors.png")
            save((runs.finetuned / "curves.png").read_bytes(), "curves.png", width=760)
        if runs.detector:
            report = runs.detector / "evaluation" / "report.html"
            save(shot(browser, report, "#main", last="#curves"), "detection_report.png")
            errors = shot(browser, report, "#false-positives", height=660)
            save(errors, "detection_errors.png", width=900)
            save(detections(runs.detector), "detections.png")
        browser.close()


def shot(
    browser: Browser, page: Path, first: str, last: str = "", height: float | None = None
) -> bytes:
    """A page from the top of one element to the end of another, or so many pixels high."""
    tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
    tab.goto(page.resolve().as_uri())
    top = tab.locator(first).bounding_box()
    end = tab.locator(last).bounding_box() if last else None
    assert top
    bottom = end["y"] + end["height"] if end else top["y"] + top["height"]
    high = min(bottom - top["y"], height or float("inf")) + MARGIN
    clip = {"x": 0, "y": top["y"] - MARGIN, "width": WIDTH, "height": high + MARGIN}
    picture = tab.screenshot(full_page=True, clip=clip)  # type: ignore[arg-type]
    tab.close()
    return picture


def detections(run: Path) -> bytes:
    """The first evaluated images in which the detector finds several classes, side by side."""
    detector = load_detector(run / "checkpoints" / "last.ckpt")
    card, origin = detector.card, read_detection_result(run / "evaluation" / "results.json").origin
    finder = ObjectFinder(
        detector=detector,
        class_names=card.class_names,
        short_side=card.short_side,
        max_side=card.max_side,
        min_score=MIN_SCORE,
    )
    paths = sorted(str(path) for path in Path(origin.image_root).iterdir())
    several = (
        each
        for each in detect_pictures(finder, paths)
        if each.found and len(each.found.labels.unique()) > 1
    )
    drawn = [Image.fromarray(draw_found(finder, each)) for each in islice(several, NUM_DRAWN)]
    width = NUM_DRAWN * (DRAWN_WIDTH + GAP) - GAP
    row = Image.new("RGB", (width, DRAWN_WIDTH), "white")
    for place, image in enumerate(drawn):
        image.thumbnail((DRAWN_WIDTH, DRAWN_WIDTH))
        row.paste(image, (place * (DRAWN_WIDTH + GAP), 0))
    file = io.BytesIO()
    row.save(file, "PNG")
    return file.getvalue()


def save(picture: bytes, name: str, width: int | None = None) -> None:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if width:
        size = (width, image.height * width // image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.quantize(NUM_COLORS, dither=Image.Dither.NONE).save(STATIC / name, optimize=True)


if __name__ == "__main__":
    main()
