"""The page that an evaluation ends in: what it says, and that it says it to itself alone."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from support.evaluations import (
    CURVES,
    HOSTILE,
    PROTOCOL,
    many_predictions,
    origin,
    prediction,
    strips_of,
    summary,
)

from video_mvit.evaluation.figures import MAX_POINTS, draw_curves, thin
from video_mvit.evaluation.metrics import Bin, Confusion
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.report import (
    MAX_NAMES,
    MAX_TABLE_CLASSES,
    class_rows,
    confident_errors,
    render_report,
)
from video_mvit.evaluation.results import percent, summarize
from video_mvit.evaluation.summary_text import (
    calibration_sentence,
    motion_sentences,
    protocol_sentence,
)
from video_mvit.evaluation.thumbnails import matrix_picture, order_by_confusion, strip_pictures

EIGHT = [f"class {letter}" for letter in "abcdefgh"]


class Page(HTMLParser):
    """Tags with their attributes, and the text of elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] not in ("script", "style"):
            self.texts.append(data)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.tags)


def page_of(predictions: list[VideoResult], names: list[str]) -> str:
    """A report without curves and frames."""
    return render_report(summary(predictions, names), predictions, curves={}, strips={})


def picture(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_numbers_are_those_of_the_result() -> None:
    predictions = many_predictions(EIGHT, 206, 0.8)
    result = summary(predictions, EIGHT)
    strips = strips_of(predictions, (64, 64))
    text = Page(render_report(result, predictions, curves=CURVES, strips=strips)).text
    numbers = result.accuracies
    assert f"top-1 {percent(numbers.top1)} top-5 {percent(numbers.top5)}" in text
    assert f"mean class accuracy {percent(numbers.mean_class_accuracy)}" in text
    assert f"ECE (15 bins) {percent(numbers.calibration_error)}" in text
    assert "200 of 206 listed videos evaluated; 3 missing, 3 unreadable." in text
    low, high = result.bounds["top1"]
    assert f"top-1 is between {percent(low)} and {percent(high)}" in text
    assert percent(numbers.motion["frozen"]) in text
    for fact in (PROTOCOL, result.origin.list_sha1, result.origin.weights_sha1, "32-true", "cpu"):
        assert fact in text
    assert all(f"val/{EIGHT[(i) % 8]}/{i:05}.mp4" in text for i in range(200, 206))
    assert "no frames in 00200" in text
    assert "Accuracy on the validation list" in text


def test_page_loads_nothing_and_has_each_id_once() -> None:
    predictions = many_predictions(EIGHT, 100, 0.7)
    strips = strips_of(predictions, (64, 64))
    html = render_report(summary(predictions, EIGHT), predictions, curves=CURVES, strips=strips)
    assert "://" not in html
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, name)
    used = set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", html))
    assert {a or b for a, b in used} <= set(ids)


@pytest.mark.parametrize("num_classes", [len(HOSTILE), MAX_TABLE_CLASSES + 1])
def test_names_are_text_whatever_they_hold(num_classes: int) -> None:
    names = [HOSTILE[i % len(HOSTILE)] + " " * (i // len(HOSTILE)) for i in range(num_classes)]
    predictions = [
        prediction(f"{i}<img src=x onerror=alert(1)>\udcff' \".mp4", i % num_classes, (0, 1, 2))
        for i in range(3 * num_classes)
    ]
    predictions.append(VideoResult(video="</li>\udcff", label=0, problem="</td><script>"))
    html = page_of(predictions, names)
    html.encode("utf-8")
    page, plain = Page(html), Page(page_of(predictions[:-1], [f"{i}" for i in range(num_classes)]))
    assert page.count("script") == plain.count("script")
    assert (page.count("img"), page.count("b")) == (plain.count("img"), 0)
    assert not [name for _, attributes in page.tags for name in attributes if name[:2] == "on"]
    for name in HOSTILE:
        assert name in page.text
    assert "0<img src=x onerror=alert(1)>\ufffd' \".mp4" in page.text


@pytest.mark.slow
def test_large_report_is_small_enough() -> None:
    names = [f"doing something with object {i}" for i in range(400)]
    predictions = many_predictions(names, 20_000, 0.7)
    strips = strips_of(predictions, (240, 320))  # noise, the largest JPEG there are
    html = render_report(summary(predictions, names), predictions, curves=CURVES, strips=strips)
    assert len(html.encode()) < 5e6
    assert Page(html).count("img") == 12 * 8 + 1


@pytest.mark.slow
def test_report_of_almost_nothing_but_unreadable_videos() -> None:
    names = [f"class {i}" for i in range(400)]
    predictions = [
        VideoResult(video=f"val/{i:060}.mp4", label=i % 400, problem="no frames " * 10)
        for i in range(19_999)
    ]
    predictions.append(prediction("ok.mp4", 3, (4, 3, 2, 1, 0)))
    html = page_of(predictions, names)
    assert len(html.encode()) < 5e6
    text = Page(html).text
    assert "0 of 1 video correct; chance level 0.25 %." in text
    assert f"The first {MAX_NAMES:,}; results.json has all." in text
    assert f"val/{MAX_NAMES - 1:060}.mp4" in text
    assert f"val/{MAX_NAMES:060}.mp4" not in text


def test_report_of_one_video_of_one_class() -> None:
    text = Page(page_of([prediction("v.mp4", 0, (0,), 1.0)], ["only"])).text
    assert "1 video of 1 class" in text
    assert "No errors." in text
    assert "No errors." in text
    assert "top-5 is always 100 %" in text
    for absent in ("Temporal ablation", "Training curves", "left out", "missing"):
        assert absent not in text


def test_report_without_right_videos_and_without_frames() -> None:
    predictions = [prediction(f"{i}", 0, (1, 0, 2)) for i in range(3)]
    text = Page(page_of(predictions, ["a", "b", "c"])).text
    assert text.count("No frames of this video.") == 3
    assert text.count("the true class is ranked second") == 3


@pytest.mark.slow
def test_same_evaluation_gives_the_same_bytes() -> None:
    predictions = many_predictions(EIGHT, 60, 0.7)
    result = summary(predictions, EIGHT)
    pages = {render_report(result, predictions, curves=CURVES, strips={}) for _ in range(2)}
    assert len(pages) == 1


def test_weakest_classes_come_first_and_those_without_videos_last() -> None:
    predictions = [
        prediction("a", 2, (2, 1)),
        prediction("b", 0, (2, 1)),
        prediction("c", 0, (0, 1)),
    ]
    rows = class_rows(predictions, ["half", "none", "all"])
    assert [row.name for row in rows] == ["half", "all", "none"]
    assert rows[0] == ("half", 2, 0.5, 0.5, 1.0, "all", 1)
    assert rows[1].precision == 0.5
    assert (rows[2].top1, rows[2].top5, rows[2].precision) == (None, None, None)


def test_errors_say_the_rank_of_the_true_class() -> None:
    predictions = [
        prediction("third", 2, (0, 1, 2), 0.9),
        prediction("absent", 5, (0, 1, 2), 0.8),
        prediction("right", 0, (0, 1, 2), 0.99),
    ]
    first, second = confident_errors(
        predictions, EIGHT, {"third": np.zeros((3, 8, 8, 3), np.uint8)}
    )
    assert (first.video, first.label, first.rank) == ("third", "class c", 3)
    assert first.top_classes[0] == ("class a", 0.9, False)
    assert first.top_classes[2].is_right
    assert (len(first.pictures), second.pictures, second.rank) == (3, (), None)


def test_strip_is_spread_over_the_frames_and_small() -> None:
    frames = np.repeat(np.arange(0, 160, 10, dtype=np.uint8), 480 * 640 * 3)
    found = [picture(address) for address in strip_pictures(frames.reshape(16, 480, 640, 3))]
    assert {image.size for image in found} == {(128, 96)}
    shown = [np.asarray(image).mean() for image in found]
    expected = [0, 20, 40, 60, 90, 110, 130, 150]
    assert np.abs(np.subtract(shown, expected)).max() < 3


def test_confused_classes_stand_beside_each_other() -> None:
    pairs = [Confusion(0, 4, 3), Confusion(4, 0, 3), Confusion(4, 2, 5), Confusion(1, 1, 9)]
    order = order_by_confusion(pairs, 6)
    assert sorted(order) == list(range(6))
    places = [order.index(label) for label in (0, 2, 4)]
    assert max(places) - min(places) == 2


def test_matrix_picture_shows_each_count_in_its_cell() -> None:
    cells = [Confusion(0, 0, 3), Confusion(0, 2, 1), Confusion(2, 1, 4)]
    pixels = np.asarray(picture(matrix_picture(cells, (2, 0, 1))))
    rows, columns = np.nonzero(pixels[..., 3])
    assert list(zip(rows, columns, strict=True)) == [(0, 2), (1, 0), (1, 1)]
    assert pixels[0, 2, 3] == 255  # all videos of the class
    assert pixels[1, 0, 3] < pixels[1, 1, 3] < 255
    assert (pixels[1, 1, :3] != pixels[1, 0, :3]).any()  # right and wrong


def test_long_curves_are_averaged_and_short_ones_are_not() -> None:
    points = [(float(i), float(i % 2)) for i in range(10_000)]
    assert len(thin(points)) <= MAX_POINTS
    assert {value for _, value in thin(points)[:-1]} == {0.5}
    assert thin(points[:3]) == points[:3]
    assert thin([]) == []
    assert list(draw_curves({"val/top1": [(1.0, 0.5)], "val/loss": []})) == [
        "Accuracy on the validation list"
    ]
    assert draw_curves({}) == {}


@pytest.mark.parametrize(
    ("top1", "frozen", "words"),
    [
        (0.99, 0.125, "Relies on motion"),
        (0.99, 0.10, "Relies on motion"),
        (0.90, 0.40, "mostly on motion"),
        (0.90, 0.70, "most videos from a single frame"),
        (0.90, 0.88, "Barely uses motion"),
        (0.15, 0.14, "too close to chance level"),
    ],
)
def test_motion_is_judged_by_what_is_left_above_chance_level(
    top1: float, frozen: float, words: str
) -> None:
    result = summary([prediction("a", 0, (0, 1))], EIGHT)
    accuracies = result.accuracies._replace(top1=top1, motion={"frozen": frozen})
    changed = type(result)(**{**vars(result), "accuracies": accuracies})
    (sentence,) = motion_sentences(changed)
    assert words in sentence


def test_calibration_is_told_in_words() -> None:
    sure = [Bin(0.8, 0.9, 10, 0.85, 0.6), Bin(0.9, 1.0, 0, 0.0, 0.0)]
    assert calibration_sentence(sure) == (
        "The mean score is 85.0 %, the accuracy 60.0 %: overconfident."
    )
    assert "underconfident" in calibration_sentence([Bin(0.8, 0.9, 10, 0.85, 0.95)])
    assert "well calibrated" in calibration_sentence([Bin(0.8, 0.9, 10, 0.85, 0.855)])


def test_protocol_is_told_in_words() -> None:
    assert protocol_sentence(PROTOCOL) == (
        "5 clips x 1 crop of each video; scores averaged. A clip has 16 frames of stride 4; short "
        "side resized to 256 pixels, crop of 224."
    )
    assert protocol_sentence("1x1@16 segments short224 crop224 bicubic") == (
        "1 clip x 1 crop of each video. A clip has 16 frames, one of each equal part; short side "
        "resized to 224 pixels, bicubic, crop of 224."
    )
    assert protocol_sentence("all frames") == ""


def test_time_of_a_resumed_evaluation_is_told() -> None:
    predictions = [prediction(f"{i}", 0, (0, 1)) for i in range(4)]
    result = summarize(predictions, origin(["a", "b"]), time_s=2.0, num_clips=5, num_resumed=3)
    text = Page(render_report(result, predictions, curves={}, strips={})).text
    assert "2 s, 2.5 clips/s; 3 videos evaluated by an earlier run" in text
