"""An explanation as numbers, as a strip of pictures, and as a page that loads nothing."""

import base64
import io
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import write_numbered_video

import video_mvit
from video_mvit.prediction.clips import read_clips
from video_mvit.prediction.explain import (
    Explanation,
    colour_scale,
    draw_strip,
    explain_clip,
    explain_video,
    overlay,
    render_page,
    shrink,
    write_explanation,
)
from video_mvit.prediction.explanation_index import list_explanations, write_index
from video_mvit.prediction.input_spec import input_spec_of
from video_mvit.prediction.scorer import Scorer

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


def an_explanation(num_frames: int = 4, label: str = "waving") -> Explanation:
    """All mass in the top left quarter of the last frame."""
    frames = np.full((num_frames, 32, 32, 3), 128, np.uint8)
    mass = np.zeros((num_frames, 32, 32), np.float32)
    mass[-1, :16, :16] = 1 / 256
    return Explanation(frames=frames, mass=mass, label=label, score=0.873)


def test_clip_is_explained_with_the_score_of_a_prediction() -> None:
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=3, num_frames=4).eval()
    torch.nn.init.normal_(model.head.projection.weight)
    spec = input_spec_of(
        model, ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)), {"class_names": ["run", "jump", "sit"]}
    )
    clip = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    found = explain_clip(model, clip, 2, spec)

    assert found.label == "sit"
    assert found.score == pytest.approx(float(Scorer(model, spec).score(clip[None])[0, 2]))
    assert np.array_equal(found.frames, clip.permute(0, 2, 3, 1).numpy())
    assert found.mass.shape == (4, 32, 32)
    assert found.mass.sum() == pytest.approx(1, abs=1e-5)
    assert found.density.mean() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="class 3 is not one of 3"):
        explain_clip(model, clip, 3, spec)


def test_colours_lie_where_the_mass_is() -> None:
    explanation = an_explanation()
    pictures = overlay(explanation, colour_scale(explanation)).astype(int)
    assert pictures.shape == (4, 32, 32, 3)
    bright = pictures[-1, :16, :16].sum(axis=2)
    assert bright.min() > 1.5 * pictures[-1, 16:, 16:].sum(axis=2).max()
    assert np.array_equal(pictures[0], pictures[1])  # frames without mass look alike


@pytest.mark.parametrize(("num_frames", "num_shown"), [(1, 1), (4, 4), (40, 16)])
def test_strip_shows_frames_above_their_overlays(num_frames: int, num_shown: int) -> None:
    figure = draw_strip(an_explanation(num_frames), "a clip")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert len(titles) == num_shown
    assert titles[0] == "frame 0"
    assert titles[-1] == f"frame {num_frames - 1}"
    assert figure.get_suptitle() == "waving  87.3 % in this clip   a clip"


def test_files_are_written_beside_each_other(tmp_path: Path) -> None:
    picture, page = write_explanation(an_explanation(label="$\\x$"), tmp_path, "clip.v2")
    assert (picture, page) == (tmp_path / "clip.v2.png", tmp_path / "clip.v2.html")
    with Image.open(picture) as image:
        assert image.width > image.height > 300
    assert "clip.v2" in page.read_text(encoding="utf-8")


def test_page_tells_the_score_of_the_clip_from_that_of_the_video() -> None:
    explanation = replace(an_explanation(), video_score=0.336)
    assert draw_strip(explanation, "a").get_suptitle() == (
        "waving  87.3 % in this clip, video 33.6 %   a"
    )
    page = render_page(explanation, "a")
    assert "<span>87.3 % in this clip, video 33.6 %</span>" in page
    assert "The score of the video is the mean over all its clips and crops." in page
    assert "The score of the video" not in render_page(an_explanation(), "a")


def test_index_leads_to_the_explanations_of_a_folder_and_to_nothing_else(tmp_path: Path) -> None:
    for name in ("b", "a <i> & 100%#"):
        page = render_page(an_explanation(label="<b>run"), name)
        (tmp_path / f"{name}.html").write_text(page)
    (tmp_path / "a <i> & 100%#.png").touch()
    (tmp_path / "thesis.html").write_text("<title>mine</title>")
    path = write_index(tmp_path)
    assert path == write_index(tmp_path) == tmp_path / "index.html"  # not in itself
    listed = list_explanations(tmp_path)
    assert [(each.page, each.picture) for each in listed] == [
        ("a <i> & 100%#.html", "a <i> & 100%#.png"),
        ("b.html", None),
    ]
    assert listed[1].title == "<b>run 87.3 % in this clip - b"
    text = path.read_text()
    assert "&lt;b&gt;run 87.3 %" in text
    assert "<b>" not in text
    links = [tmp_path / unquote(link) for link in re.findall(r'(?:href|src)="\./(.*?)"', text)]
    assert all(link.is_file() for link in links)
    assert len(links) == 3


def test_index_replaces_no_other_page(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(render_page(an_explanation(), "index"))
    before = (tmp_path / "index.html").read_bytes()
    assert write_index(tmp_path) is None
    assert (tmp_path / "index.html").read_bytes() == before


class Links(HTMLParser):
    """What a page would load, and what it says in its title."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href")]


def test_name_that_is_no_utf8_is_shown_with_a_mark(tmp_path: Path) -> None:
    picture, page = write_explanation(an_explanation(), tmp_path, os.fsdecode(b"caf\xe9"))
    assert "caf\ufffd" in page.read_text(encoding="utf-8")
    assert picture.exists()


def test_page_loads_nothing_and_holds_every_frame() -> None:
    text = render_page(an_explanation(label="<b>a & b</b>"), "</script><i>x")
    links = Links()
    links.feed(text)
    assert links.found == []
    assert "://" not in text
    assert "<b>a" not in text
    assert "<i>x" not in text
    clip = json.loads(re.search(r"const clip = (.*);\n", text)[1])
    assert clip["shares"] == [0, 0, 0, 1]
    assert clip["names"][3] == "frame 3"
    assert {opened(each).size for each in clip["frames"]} == {(256, 256)}
    assert [opened(each).size for each in clip["maps"]] == 4 * [(32, 32)]
    opacity = np.asarray(opened(clip["maps"][3]).convert("RGBA"))[..., 3].astype(int)
    assert opacity[4:12, 4:12].min() > opacity[20:, 20:].max() + 100


def opened(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


def test_page_of_a_video_shows_its_own_frames_with_their_times(tmp_path: Path) -> None:
    video = write_numbered_video(tmp_path / "clip.mp4", 30, fps=10, size=(48, 80))
    model = video_mvit.create_model("mvitv2_demo", num_classes=3, num_frames=4).eval()
    torch.nn.init.normal_(model.head.projection.weight)
    spec = input_spec_of(
        model,
        ((0.4, 0.5, 0.6), (0.2, 0.3, 0.4)),
        {"class_names": ["run", "jump", "sit"], "frame_stride": 3, "short_side": 36},
    )
    found = explain_video(model, str(video), 1, spec)
    clip = read_clips(str(video), spec.pipeline(1, 1)).clips[0]
    assert np.array_equal(found.frames, clip.permute(0, 2, 3, 1).numpy())
    assert found.source.frames.shape == (4, 48, 80, 3)
    assert np.allclose(np.diff(found.source.times_s), 0.1, atol=0.11)
    # The short side of 48 becomes 36, and of 60 x 36 the middle 32 x 32 is seen.
    assert found.source.box == pytest.approx((2 / 36, 14 / 60, 32 / 36, 32 / 60))
    text = render_page(found, "clip")
    shown = json.loads(re.search(r"const clip = (.*);\n", text)[1])
    assert shown["names"] == [f"{time_s:.2f} s" for time_s in found.source.times_s]
    assert "inside the outline, 32 x 32 pixels" in text
    assert [opened(each).size for each in shown["frames"]] == 4 * [(320, 192)]  # enlarged
    figure = draw_strip(found, "clip")
    assert [axis.get_title() for axis in figure.axes if axis.get_title()] == shown["names"]


def test_large_frames_stay_as_large_as_a_page_needs() -> None:
    assert shrink(np.zeros((1080, 1920, 3), np.uint8)).shape == (1080, 1920, 3)
    assert shrink(np.zeros((2160, 3840, 3), np.uint8)).shape == (1080, 1920, 3)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the path")
def test_map_is_shown_and_hidden(tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api")
    page_path = tmp_path / "a.html"
    page_path.write_text(render_page(an_explanation(), "a clip"), encoding="utf-8")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(page_path.as_uri())
        assert page.locator("#map").is_visible()
        page.keyboard.press("m")
        assert not page.locator("#map").is_visible()
        page.get_by_label("Map").check()
        assert page.locator("#map").is_visible()
        first = page.locator("#frame").get_attribute("src")
        page.keyboard.press("End")
        assert page.locator("#says").inner_text() == "frame 3, 100.0 %"
        assert page.locator("#map").get_attribute("src") != first
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert problems == []
        browser.close()
