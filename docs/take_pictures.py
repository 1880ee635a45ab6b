"""Take the pictures of the docs from runs that were evaluated; needs Chromium.

Start it where the runs were made: the videos of an evaluation are found from there.

python docs/take_pictures.py --demo runs/demo_0 --detector runs/shapes_0
"""

import argparse
import io
import shutil
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

import video_mvit
from video_mvit.data.reading.open import open_video
from video_mvit.detection.predict import ObjectFinder, detect_pictures, draw_found
from video_mvit.detection.results import read_detection_result
from video_mvit.detection.weights import load_detector
from video_mvit.evaluation.output_folder import read_folder
from video_mvit.prediction.explain import DPI, draw_strip, explain_video
from video_mvit.prediction.input_spec import input_spec_of
from video_mvit.prediction.timeline_chart import draw_strip_chart
from video_mvit.weights.convert import published_normalization

STATIC = Path(__file__).parent / "_static"
NUM_COLORS = 128  # of a PNG, so that it stays small
WIDTH, MARGIN = 1180, 24  # of a page, in pixels
NUM_DRAWN, DRAWN_WIDTH, GAP = 4, 284, 8  # images in a row, in pixels
MIN_SCORE = 0.6
NUM_CLASSES, NUM_JOINED = 4, 6  # of the video with a timeline, and videos of each


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("demo", "detector"):
        parser.add_argument(f"--{name}", type=Path)
    runs = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        if runs.demo:
            report = runs.demo / "evaluation" / "report.html"
            save(shot(browser, report, "#main", height=1000), "report.png")
            save(timeline(runs.demo), "timeline.png", width=900)
            save(explanation(runs.demo), "explanation.png", width=1100)
            save(shot(browser, report, "#errors", height=760), "report_errors.png")
            save((runs.demo / "curves.png").read_bytes(), "curves.png", width=760)
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


def timeline(run: Path) -> bytes:
    """The timeline of a long video: some test videos of each of four classes, one after another."""
    result, predictions = read_folder(run / "evaluation")
    classes = np.linspace(0, len(result.origin.class_names) - 1, NUM_CLASSES).round().tolist()
    frames = [
        read_all(f"{result.origin.list_root}/{each.video}")
        for label in classes
        for each in [p for p in predictions if p.label == label][:NUM_JOINED]
    ]
    model = video_mvit.load_model(run / "checkpoints" / "last.ckpt")
    found = video_mvit.predict(model, np.concatenate(frames), fps=30, timeline=True)
    with NamedTemporaryFile(suffix=".png") as file:
        draw_strip_chart(replace(found, video="four_motions.mp4"), Path(file.name))
        return Path(file.name).read_bytes()


def read_all(path: str) -> NDArray[np.uint8]:
    with open_video(path) as video:
        return video.read(range(video.num_frames))


def explanation(run: Path) -> bytes:
    """The explanation of the most confident prediction, as a strip."""
    result, predictions = read_folder(run / "evaluation")
    best = max((p for p in predictions if p.is_right), key=lambda p: p.scores[0])
    model = video_mvit.load_model(run / "checkpoints" / "last.ckpt")
    spec = input_spec_of(model, published_normalization(asdict(model.config)), {})
    path = f"{result.origin.list_root}/{best.video}"
    file = io.BytesIO()
    strip = draw_strip(explain_video(model, path, best.classes[0], spec), Path(best.video).stem)
    strip.savefig(file, dpi=DPI)
    return file.getvalue()


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
