"""The page that an evaluation ends in: what it says, and that it says it to itself alone."""

import base64
import io
import json
import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

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
from support.videos import write_numbered_video

from video_mvit.evaluation.error_list import MAX_ERRORS, NUM_SHOWN, link_to, shown_errors
from video_mvit.evaluation.intervals import wilson
from video_mvit.evaluation.learning_curves import (
    FEW_POINTS,
    MAX_POINTS,
    draw_curves,
    thin,
    training_loss,
)
from video_mvit.evaluation.metrics import Bin, Confusion
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.report import MAX_NAMES, render_report, videos_to_show
from video_mvit.evaluation.report_files import write_report
from video_mvit.evaluation.report_tables import (
    MAX_MAP_CLASSES,
    MAX_TABLE_CLASSES,
    class_rows,
    worst_classes,
)
from video_mvit.evaluation.results import summarize
from video_mvit.evaluation.strips import encode_strip, read_strips, room_for
from video_mvit.evaluation.summary_text import (
    calibration_sentence,
    motion_sentences,
    protocol_sentence,
)
from video_mvit.evaluation.thumbnails import matrix_picture, order_by_confusion
from video_mvit.text import percent

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
    strips = strips_of(predictions, 8)
    text = Page(render_report(result, predictions, curves=CURVES, strips=strips)).text
    numbers = result.accuracies
    low, high = wilson(round(200 * numbers.top1), 200)
    assert f"top-1 {percent(numbers.top1)} {100 * low:.1f}\u2013{100 * high:.1f} top-5" in text
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
    strips = strips_of(predictions, 8)
    html = render_report(summary(predictions, EIGHT), predictions, curves=CURVES, strips=strips)
    assert set(re.findall(r"(\w*)://", html)) == {"file"}  # of links to the videos
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "base")
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
        allowed = ("#", "file:///") if tag == "a" else ("#",)
        assert (attributes.get("href") or "#").startswith(allowed), tag
    used = set(re.findall(r"url\(#([^)]*)\)|href=\"#([^\"]*)\"", html))
    assert {a or b for a, b in used} <= {*ids, ""}


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
    strips = strips_of(predictions, 400)
    html = render_report(summary(predictions, names), predictions, curves=CURVES, strips=strips)
    assert len(html.encode()) < 8e6
    assert Page(html).count("img") == 400 + NUM_SHOWN + 1
    shown = json.loads(re.search(r'id="error-data">(.*?)</script>', html)[1])
    assert len(shown["errors"]) == min(
        sum(not p.is_right and not p.problem for p in predictions), MAX_ERRORS
    )


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
    assert text.count("No errors.") == 2
    assert "top-5 is always 100" in text
    for absent in ("Temporal ablation", "Training curves", "left out", "missing"):
        assert absent not in text


def test_report_without_right_videos_and_without_frames() -> None:
    predictions = [prediction(f"{i}", 0, (1, 0, 2)) for i in range(3)]
    text = Page(page_of(predictions, ["a", "b", "c"])).text
    assert text.count("the true class is ranked second") == 3
    assert "plays where the pointer is" not in text


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
    half, all_right, none = rows
    assert (half.num_videos, half.recall.share, half.recall_in_top5.share) == (2, 0.5, 0.5)
    assert (half.precision.share, half.f1.share) == (1.0, pytest.approx(2 / 3))
    assert (half.most_common_error, half.num_most_common) == ("all", 1)
    assert half.recall.interval == wilson(1, 2)
    assert (all_right.precision.share, all_right.f1.share) == (0.5, pytest.approx(2 / 3))
    assert (none.recall, none.recall_in_top5, none.precision, none.f1) == (None,) * 4
    assert [row.name for row in worst_classes(rows)] == ["half", "all"]


def test_errors_say_the_rank_of_the_true_class() -> None:
    predictions = [
        prediction("third", 2, (0, 1, 2), 0.9),
        prediction("absent", 5, (0, 1, 2), 0.8),
        prediction("right", 0, (0, 1, 2), 0.99),
    ]
    frames = np.zeros((3, 8, 8, 3), np.uint8)
    first, second = shown_errors(
        predictions, EIGHT, {"third": encode_strip(frames, 999)}, "/videos"
    )
    assert (first.video, first.name, first.rank) == ("third", "class c", 3)
    assert first.top_classes[0] == ("class a", 0.9, False)
    assert first.top_classes[2].is_right
    assert (first.strip.num_frames, second.strip, second.rank) == (3, None, None)


def test_strip_has_its_frames_side_by_side_and_is_small() -> None:
    frames = np.repeat(np.arange(0, 160, 20, dtype=np.uint8), 480 * 640 * 3)
    strip = encode_strip(frames.reshape(8, 480, 640, 3), 40_000)
    assert (strip.width, strip.height, strip.num_frames) == (224, 168, 8)
    image = picture(strip.address)
    assert image.size == (8 * 224, 168)
    shown = np.asarray(image).reshape(168, 8, 224, 3).mean(axis=(0, 2, 3))
    assert np.abs(shown - np.arange(0, 160, 20)).max() < 3


@pytest.mark.parametrize("room", [40_000, 6_000, 2_500])
def test_strip_of_noise_fits_the_room(room: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 240, 320, 3), dtype=np.uint8)
    strip = encode_strip(noise, room)
    assert len(base64.b64decode(strip.address.partition(",")[2])) <= room
    assert encode_strip(noise, 100) is None


def test_strips_are_read_from_videos_and_unreadable_ones_left_out(tmp_path: Path) -> None:
    write_numbered_video(tmp_path / "good.mp4", 30)
    write_numbered_video(tmp_path / "short.mp4", 3)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    found = read_strips(str(tmp_path), ["good.mp4", "bad.mp4", "short.mp4", "gone.mp4"])
    assert {video: strip.num_frames for video, strip in found.items()} == {
        "good.mp4": 8,
        "short.mp4": 3,
    }
    assert room_for(600) < room_for(10)


def test_each_class_has_an_example_whatever_the_accuracy() -> None:
    right = [
        prediction(f"{i}", i % 8, (i % 8, 0 if i % 8 else 1), 0.5 + i / 100) for i in range(16)
    ]
    assert videos_to_show(right, 8) == [f"{i}" for i in range(8, 16)]
    mixed = [*right, prediction("wrong", 7, (1, 2), 0.99)]
    shown = videos_to_show(mixed, 8)
    assert shown[0] == "15"  # the class with an error first, by its correct video
    assert shown[-1] == "wrong"
    html = render_report(summary(right, EIGHT), right, curves={}, strips=strips_of(right, 8))
    assert Page(html).count("img") == 8


def test_numbers_of_the_matrix_lead_to_their_videos() -> None:
    predictions = many_predictions(EIGHT, 206, 0.7)
    page = Page(page_of(predictions, EIGHT))
    pairs = {attributes["data-pair"] for tag, attributes in page.tags if "data-pair" in attributes}
    wrong = {f"{p.label},{p.classes[0]}" for p in predictions if not p.problem and not p.is_right}
    assert pairs == wrong
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert {f"class-{i}" for i in range(8)} <= ids
    strips = strips_of(predictions, 8)
    result = summary(predictions, EIGHT)
    page = Page(render_report(result, predictions, curves={}, strips=strips))
    # A number of correct videos leads to the example, and to all errors of its class from there.
    leads = [(a["href"], a["data-class"]) for _, a in page.tags if "data-class" in a]
    for label in range(8):
        assert (f"#class-{label}", f"{label}") in leads
        assert leads.count(("#errors", f"{label}")) >= 2  # from the example, and from the table


def test_videos_are_linked_where_they_are_files() -> None:
    assert link_to("/data/my videos", "a#b/ü.mp4") == "file:///data/my%20videos/a%23b/%C3%BC.mp4"
    assert link_to("/data", os.fsdecode(b"caf\xe9.mp4")) == "file:///data/caf%E9.mp4"
    assert link_to("https://host/x", "a b.mp4") == "https://host/x/a%20b.mp4"
    assert link_to("s3://bucket", "a.mp4") is None
    assert link_to("/data", "shard-000003.tar!512+12345!a.mp4") is None
    for root in ("javascript:alert(1)", "javascript:alert(1)//", "data:text/html,"):
        assert link_to(root, "x").startswith("file:///")


@pytest.mark.slow
def test_number_of_classes_decides_no_allocation() -> None:
    """A results file may claim a million classes; a square of them would not fit into memory."""
    names = [f"{i}" for i in range(100_000)]
    html = page_of([prediction("a", 99_999, (3, 4, 5))], names)
    assert len(html) < 2e6
    assert "The 2,000 classes with the lowest recall." in Page(html).text
    assert len(names) > MAX_MAP_CLASSES


def test_long_names_fill_no_page() -> None:
    names = ["x" * 10**6, "y" * 10**6]
    predictions = [prediction("v" * 10**5, i % 2, (1 - i % 2, i % 2)) for i in range(50)]
    assert len(page_of(predictions, names)) < 2e6


def test_report_and_picture_of_a_run_show_the_same_training_loss() -> None:
    """With few single steps, those of one batch each, epoch means are shown."""
    steps = [(0.5, 1.0), (1.5, 3.0)]
    means = [(1.0, 2.0), (2.0, 1.0)]
    assert training_loss({"train/loss": steps, "train/epoch_loss": means}) == ("training", means)
    assert training_loss({"train/loss": steps})[0] == "training (smoothed)"
    many = [(i / 10, 1 / (1 + i)) for i in range(FEW_POINTS)]
    label, smoothed = training_loss({"train/loss": many, "train/epoch_loss": means})
    assert (label, len(smoothed)) == ("training (smoothed)", FEW_POINTS)


def test_thumbnails_can_be_left_out(tmp_path: Path) -> None:
    write_numbered_video(tmp_path / "outside.mp4", 8)
    write_numbered_video(tmp_path / "videos" / "a.mp4", 8)
    # The second one is a correct example of its class, out of the folder of videos.
    predictions = [prediction("a.mp4", 0, (1, 0)), prediction("../outside.mp4", 1, (1, 0))]
    root = str(tmp_path / "videos")
    result = replace(summary(predictions, ["x", "y"]), origin=origin(["x", "y"], list_root=root))
    (tmp_path / "out").mkdir()
    pages = {
        shown: write_report(tmp_path / "out", result, predictions, {}, thumbnails=shown).read_text()
        for shown in (True, False)
    }
    assert [Page(pages[shown]).count("img") for shown in (True, False)] == [2, 0]


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
    sure = [Bin(0.8, 0.9, 100, 0.85, 0.6), Bin(0.9, 1.0, 0, 0.0, 0.0)]
    assert calibration_sentence(sure) == (
        "The mean score is 85.0 %, the accuracy 60.0 %: overconfident."
    )
    assert "underconfident" in calibration_sentence([Bin(0.8, 0.9, 100, 0.85, 0.95)])
    assert "well calibrated" in calibration_sentence([Bin(0.8, 0.9, 10, 0.85, 0.855)])
    few = calibration_sentence([Bin(0.4, 0.5, 6, 0.41, 2 / 6)])
    assert few.endswith("no more apart than chance allows with 6 videos.")


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
