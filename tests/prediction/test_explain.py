"""An explanation as numbers, as a strip of pictures, and as a page that loads nothing."""

import base64
import io
import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import video_mvit
from video_mvit.prediction.explain import (
    Explanation,
    colour_scale,
    draw_strip,
    explain_clip,
    overlay,
    render_page,
    write_explanation,
)
from video_mvit.prediction.input_spec import input_spec_of
from video_mvit.prediction.scorer import Scorer


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
    assert figure.get_suptitle() == "waving  87.3%   a clip"


def test_files_are_written_beside_each_other(tmp_path: Path) -> None:
    picture, page = write_explanation(an_explanation(label="$\\x$"), tmp_path, "clip.v2")
    assert (picture, page) == (tmp_path / "clip.v2.png", tmp_path / "clip.v2.html")
    with Image.open(picture) as image:
        assert image.width > image.height > 300
    assert "clip.v2" in page.read_text(encoding="utf-8")


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
    assert "http" not in text
    assert "<b>a" not in text
    assert "<i>x" not in text
    clip = json.loads(re.search(r"const clip = (.*);\n", text)[1])
    assert clip["shares"] == [0, 0, 0, 1]
    for frames in (clip["frames"], clip["overlays"]):
        pictures = [Image.open(io.BytesIO(base64.b64decode(f.partition(",")[2]))) for f in frames]
        assert [picture.size for picture in pictures] == 4 * [(256, 256)]
