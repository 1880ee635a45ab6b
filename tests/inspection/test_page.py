"""The page about a data set: bounded, escaped, complete; and in Chromium, by pointer."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.evaluations import HOSTILE

from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.inspection.clips import ClassShare, ClipPair
from video_mvit.inspection.copies import Copies, Place
from video_mvit.inspection.films import make_films, size_of_films
from video_mvit.inspection.page import (
    Findings,
    is_page,
    property_tables,
    render_page,
    warnings_of,
    write_page,
)
from video_mvit.inspection.videos import GLANCE_SIDE, NUM_GLANCES, OpenedVideo, Split

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
MAX_BYTES = 8_000_000
NUM_LINES = """names => names.map(name => {
  const range = document.createRange();
  range.selectNodeContents(name);
  return range.getClientRects().length;
})"""


def video(duration_s: float = 2.0, codec: str = "h264") -> OpenedVideo:
    return OpenedVideo(
        num_frames=60,
        fps=30.0,
        is_variable=False,
        duration_s=duration_s,
        size=(48, 64),
        codec=codec,
        glances=np.zeros((NUM_GLANCES, GLANCE_SIDE, GLANCE_SIDE, 3), np.uint8),
    )


def split(name: str, names: tuple[str, ...], num_each: int, **changes: object) -> Split:
    labels = np.repeat(np.arange(len(names), dtype=np.int32), num_each)
    manifest = Manifest(
        root="/videos",
        names=PackedStrings.of(f"{names[k]}/{i}.mp4" for i, k in enumerate(labels)),
        labels=labels,
        class_names=names,
        missing=PackedStrings.of([f"{HOSTILE[0]}.mp4"]),
    )
    known: dict[str, object] = {"opened": {0: video()}, "unreadable": {1: HOSTILE[0]}}
    return Split(name=name, manifest=manifest, **{**known, **changes})  # type: ignore[arg-type]


def findings(names: tuple[str, ...], *, noise: bool = False, **changes: object) -> Findings:
    draws = np.random.default_rng(0)
    size = size_of_films(2 * len(names))
    shape = (size.num_frames, size.height, size.height, 3)
    grey = np.full(shape, 128, np.uint8)

    def clip() -> np.ndarray:
        return draws.integers(0, 256, shape).astype(np.uint8) if noise else grey

    pairs = [
        ClipPair(2 * k, k, clip(), clip(), (ClassShare(names[k], 0.7), ClassShare(names[0], 0.3)))
        for k in range(len(names))
    ]
    known: dict[str, object] = {
        "root": f"/videos/{HOSTILE[0]}",
        "splits": [split("train", names, 2), split("val", names, 2)],
        "pairs": pairs,
        "copies": [
            Copies(
                "same bytes",
                (Place("train", "a.mp4", names[0]), Place("val", HOSTILE[0], names[1])),
            )
        ],
        "clip_s": 2.1,
        "settings": {"clip": "16x4", "augmentation": "rand-m7", "normalization": "mean 0.45"},
    }
    return Findings(**{**known, **changes})  # type: ignore[arg-type]


def test_names_of_files_and_classes_are_text() -> None:
    page = render_page(findings(HOSTILE))
    assert page.count("<script>") == 1
    assert "\x1b" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.slow
@pytest.mark.parametrize("noise", [False, True])
def test_page_of_400_classes_is_bounded(noise: bool) -> None:  # noqa: FBT001
    names = tuple(f"class {i}" for i in range(400))
    page = render_page(findings(names, noise=noise))
    assert len(page.encode()) < MAX_BYTES
    num_films = page.count('role="img"')
    assert num_films == 800 if not noise else 100 < num_films < 800


def test_pictures_beyond_the_budget_are_left_out() -> None:
    draws = np.random.default_rng(0)
    clips = [draws.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8) for _ in range(6)]
    films = make_films(clips, budget=1)
    assert films == [None] * 6
    assert [film is not None for film in make_films(clips)] == [True] * 6


def test_warnings_say_what_to_look_at() -> None:
    page = render_page(findings(("a", "b", "c")))
    for sentence in (
        "1 video of val is also in train: what is measured on it is too high.",
        "2 videos in 1 group of copies are listed under several classes.",
        "1 video of train cannot be read.",
        "1 listed video of val is not on disk.",
        "1 of 1 videos of train are shorter than a clip of 2.1 s: their last frame repeats.",
    ):
        assert sentence in page


def test_copies_are_counted_by_video() -> None:
    def places(*splits: str) -> tuple[Place, ...]:
        return tuple(Place(split, f"{i}.mp4", "a") for i, split in enumerate(splits))

    copies = [
        Copies("same bytes", places("train", "train", "val", "val", "test")),
        Copies("same pictures", places("val", "test")),
        Copies("same pictures", places("train", "train", "train")),
    ]
    splits = [split(name, ("a", "b"), 2) for name in ("train", "val", "test")]
    assert warnings_of(findings(("a", "b"), splits=splits, copies=copies))[:4] == [
        "2 videos of val are also in train: what is measured on them is too high.",
        "1 video of test is also in train: what is measured on it is too high.",
        "2 videos of test are also in val.",
        "3 videos in 1 group of copies are of one split and class.",
    ]


def test_clean_data_set_has_nothing_to_look_at() -> None:
    names = ("a", "b")
    clean = split("train", names, 2, unreadable={}, opened={0: video(5.0)})
    clean = Split(
        name="train",
        manifest=clean.manifest.take([0, 1, 2, 3]),
        opened=clean.opened,
        unreadable={},
    )
    object.__setattr__(clean.manifest, "missing", PackedStrings.of(()))
    page = render_page(findings(names, splits=[clean], copies=[]))
    assert "Nothing found that should be looked at before training." in page
    assert 'class="warning"' not in page


def test_rare_kinds_are_counted_together_and_lengths_in_bins() -> None:
    codecs = ["h264"] * 5 + [f"codec{i}" for i in range(10)]
    opened = {i: video(1.0 + i, codec) for i, codec in enumerate(codecs)}
    tables = property_tables([split("train", ("a", "b"), 20, opened=opened)])
    assert tables["codec"][0].counts == (5,)
    assert tables["codec"][-1][:2] == ("3 others", (3,))
    assert sum(row.counts[0] for row in tables["length"]) == 15
    assert [row.name for row in tables["size"]] == ["64 x 48"]
    for rows in tables.values():
        assert sum(row.share for row in rows) == pytest.approx(1)


def test_page_is_recognized_and_other_files_are_not(tmp_path: Path) -> None:
    path = tmp_path / "browse.html"
    assert not is_page(path)
    write_page(path, findings(("a", "b")))
    assert is_page(path)
    other = tmp_path / "thesis.html"
    other.write_text("<html>my thesis</html>")
    assert not is_page(other)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
def test_page_in_a_browser_filters_and_stops(tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    write_page(tmp_path / "browse.html", findings(tuple(f"class {i}" for i in range(12))))
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"file://{tmp_path}/browse.html")
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        lines = page.locator(".facts dt").evaluate_all(NUM_LINES)
        assert set(lines) == {1}  # no word is broken
        page.fill("#filter", "class 11")
        assert page.locator("#class-table tbody tr:visible").count() == 1
        film = page.locator(".film:visible").first
        state = "element => getComputedStyle(element).animationPlayState"
        assert film.evaluate(state) == "running"
        page.click("#motion")
        assert film.evaluate(state) == "paused"
        assert re.fullmatch("Play clips", page.inner_text("#motion"))
        browser.close()
    assert problems == []
