"""Take the pictures of the docs from a demo run and a fine-tuned one; needs Chromium.

python docs/take_pictures.py runs/demo_0 runs/finetune
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

STATIC = Path(__file__).parent / "_static"
NUM_COLORS = 128  # of a PNG, so that it stays small
WIDTH, MARGIN = 1180, 24  # of a page, in pixels


def main() -> None:
    demo, finetuned = map(Path, sys.argv[1:])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        report = demo / "evaluation" / "report.html"
        save(shot(browser, report, "#main", last="#confusions"), "report.png")
        report = finetuned / "evaluation" / "report.html"
        save(shot(browser, report, "#mistakes", height=760), "report_errors.png")
        browser.close()
    save((finetuned / "curves.png").read_bytes(), "curves.png", width=760)


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


def save(picture: bytes, name: str, width: int | None = None) -> None:
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if width:
        size = (width, image.height * width // image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    image.quantize(NUM_COLORS, dither=Image.Dither.NONE).save(STATIC / name, optimize=True)


if __name__ == "__main__":
    main()
