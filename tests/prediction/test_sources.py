"""Videos that are no files: addresses, bytes, open files, arrays; else refused by their type."""

import functools
import http.server
import io
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image
from support.videos import write_numbered_video
from torch import nn

import video_mvit
from video_mvit.data.reading import remote
from video_mvit.data.reading.open import VideoDecodeError, open_video
from video_mvit.errors import UserError
from video_mvit.models.mvit import MViT
from video_mvit.prediction import sources
from video_mvit.prediction.inputs import find_pictures, find_videos
from video_mvit.prediction.sources import fetched, local_files
from video_mvit.weights.model_card import ModelCard


@pytest.fixture(scope="module")
def model() -> MViT:
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=3).eval()
    model.card = ModelCard(
        model=asdict(model.config), frame_stride=4, short_side=40, class_names=("a", "b", "c")
    )
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_numbered_video(folder / "a b.mp4", 40)
    Image.new("RGB", (50, 40), (200, 0, 0)).save(folder / "p.jpg")
    (folder / "empty").mkdir()
    return folder


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def address(folder: Path) -> Iterator[str]:
    handler = functools.partial(QuietHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_every_source_of_a_video_gives_the_same_scores(
    model: MViT, folder: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "a b.mp4"
    content = path.read_bytes()
    monkeypatch.setenv("HOME", str(folder))
    with fsspec.open("memory://videos/a b.mp4", "wb") as file:
        file.write(content)
    expected = video_mvit.predict(model, str(path)).scores
    given: list[Any] = [
        *(
            path,
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            path.open("rb"),
        ),
        *("~/a b.mp4", f"file://{path}", f"file://localhost{path}", path.as_uri()),
        *("memory://videos/a b.mp4", f"{address}/a%20b.mp4"),
    ]
    found = video_mvit.predict(model, given)
    assert [each.problem for each in found] == [""] * len(given)
    assert all(torch.equal(each.scores, expected) for each in found)
    names = [each.video for each in found]
    assert names == [str(path), *["<bytes>"] * 3, "<file object>", str(path), *given[6:]]


@pytest.mark.parametrize(
    ("num_frames", "size", "fps"),
    [
        (1, (5, 7), 30),
        (10, (48, 65), 29.97),
        (33, (64, 63), 7.3),
        (40, (9, 33), 0.5),
        (7, (8, 8), 240),
    ],
)
def test_array_is_read_pixel_by_pixel_at_its_rate(
    num_frames: int, size: tuple[int, int], fps: float
) -> None:
    shape = (num_frames, *size, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for given in (frames, torch.from_numpy(frames), np.asfortranarray(frames)):
        with local_files([given], fps) as [file], open_video(file.path) as video:
            assert np.array_equal(video.read(range(num_frames)), frames)
            assert video.fps == pytest.approx(fps, rel=1e-6)


def test_array_gives_the_scores_of_its_frames(model: MViT, folder: Path) -> None:
    with open_video(folder / "a b.mp4") as video:
        frames = video.read(range(video.num_frames))
    expected = video_mvit.predict(model, folder / "a b.mp4")
    found = video_mvit.predict(model, frames, fps=30)
    assert torch.equal(found.scores, expected.scores)
    assert (found.video, found.num_frames, found.duration_s) == ("<array>", 40, expected.duration_s)
    for each in video_mvit.predict(model, [frames, torch.from_numpy(frames)], fps=30):
        assert torch.equal(each.scores, expected.scores)


def test_picture_is_one_from_anywhere(model: MViT, folder: Path, address: str) -> None:
    path = folder / "p.jpg"
    expected = video_mvit.predict(model, path).scores
    for given in (path.read_bytes(), path.open("rb"), f"{address}/p.jpg"):
        found = video_mvit.predict(model, given)
        assert found.num_frames == 1
        assert torch.equal(found.scores, expected)


SECRET = "content that no message may show"


@pytest.mark.parametrize(
    ("given", "fps", "message"),
    [
        (0, None, r"video is the number 0: cameras are not read; record a file"),
        (None, None, r"video is of type NoneType, expected a path, an address, bytes, a file"),
        (True, None, r"video is of type bool, expected"),
        (1.5, None, r"video is of type float, expected"),
        ({"a": SECRET}, None, r"video is of type dict, expected"),
        ({SECRET}, None, r"video is of type set, expected"),
        (object(), None, r"video is of type object, expected"),
        ("", None, r"video is an empty text"),
        ([["a.mp4"]], None, r"video is of type list, expected"),
        (np.zeros((4, 8, 8, 3), np.uint8), None, r"fps is not given, .* fps=30"),
        (np.zeros((4, 8, 8, 3), np.uint8), 0, r"fps is 0, and an array needs"),
        (np.zeros((4, 8, 8, 3), np.uint8), float("nan"), r"fps is nan, and an array"),
        (np.zeros((4, 8, 8, 3), np.uint8), SECRET, r"fps is no number, and an array"),
        (np.zeros((4, 8, 8, 3)), 30, r"array of float64, 4x8x8x3; expected uint8 \(T, H, W, 3\)"),
        (torch.zeros(1, 3, 8, 32, 32), 30, r"array of float32, 1x3x8x32x32; expected uint8"),
        (np.zeros((0, 8, 8, 3), np.uint8), 30, r"array of uint8, 0x8x8x3; expected"),
        (np.array(SECRET), 30, r"array of <U32, no dimension; expected uint8"),
        ("a.mp4", 30, r"fps is the rate of an array of frames; a file has its own"),
        (io.StringIO(SECRET), None, r"the open file gives text, .* mode 'rb'"),
        (io.BytesIO(), None, r"nothing left to read; file.seek\(0\)"),
        ("/dev/video0", None, r"no file or folder /dev/video0; cameras are not read"),
        ("none.mp4", None, r"no file or folder none.mp4$"),
        ("*.mp4", None, r"no file or folder \*.mp4; for a pattern, pass find_videos\(pattern\)"),
        ("nothing://a.mp4", None, r"nothing://a.mp4 cannot be read: Protocol not known"),
        ("memory://none.mp4", None, r"there is nothing at memory://none.mp4"),
    ],
)
def test_anything_else_is_refused_by_its_type(
    model: MViT, given: Any, fps: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        video_mvit.predict(model, given, fps=fps)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_closed_file_and_folder_without_pictures_are_refused(model: MViT, folder: Path) -> None:
    with (folder / "p.jpg").open("rb") as file:
        pass
    with pytest.raises(UserError, match="the open file cannot be read: read of closed file"):
        video_mvit.predict(model, file)
    with pytest.raises(UserError, match=r"empty is a folder without pictures; .*find_videos"):
        video_mvit.predict(model, folder / "empty")


def test_content_that_is_no_video_is_told_without_a_word_of_it(model: MViT) -> None:
    with pytest.raises(VideoDecodeError, match=r"cannot decode <bytes>: ") as caught:
        video_mvit.predict(model, SECRET.encode())
    assert SECRET not in str(caught.value)
    good, bad = video_mvit.predict(model, [np.zeros((9, 8, 8, 3), np.uint8)], fps=9), b"\0" * 99
    assert not good[0].problem
    assert [each.problem != "" for each in video_mvit.predict(model, [bad, bad])] == [True, True]


def test_what_is_no_model_is_refused_by_its_type() -> None:
    for given in ("best.ckpt", None, nn.Linear(1, 1)):
        with pytest.raises(UserError, match=r"(model is of type|a Linear) .*load_model"):
            video_mvit.predict(given, "a.mp4")  # type: ignore[call-overload]


def test_model_behind_a_wrapper_is_found(model: MViT, folder: Path) -> None:
    wrapped: Any = nn.DataParallel(model)
    found = video_mvit.predict(wrapped, folder / "a b.mp4")
    assert torch.equal(found.scores, video_mvit.predict(model, folder / "a b.mp4").scores)


def test_address_is_fetched_once_and_no_more_than_allowed(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{address}/p.jpg"
    with fetched(["a.mp4", place]) as files:
        assert files[0] == ("a.mp4", "a.mp4")
        assert Path(files[1].path).read_bytes()[:2] == b"\xff\xd8"
    assert not Path(files[1].path).exists()
    monkeypatch.setattr(sources, "LARGEST", 10)
    with pytest.raises(UserError, match="is larger than 10 bytes"), fetched([place]):
        pass
    with (
        pytest.raises(UserError, match="there is nothing at http"),
        fetched([f"{address}/none.mp4"]),
    ):
        pass


def test_name_of_an_address_leads_nowhere_else(tmp_path: Path) -> None:
    with fsspec.open("memory://x/..%2f..%2fevil.mp4", "wb") as file:
        file.write(b"x")
    with fetched(["memory://x/..%2f..%2fevil.mp4"]) as [found]:
        assert Path(found.path).name == "evil.mp4"
        assert Path(found.path).parent.name == "0"
    assert not remote.is_address(str(tmp_path))
    assert not remote.is_address("C:/a.mp4")


def test_places_may_be_addresses(folder: Path) -> None:
    path = folder / "a b.mp4"
    assert find_videos([path.as_uri(), "https://x.org/a.mp4"]) == [str(path), "https://x.org/a.mp4"]
    assert find_pictures((folder / "p.jpg").as_uri()) == [str(folder / "p.jpg")]
    with pytest.raises(FileNotFoundError, match="no file or folder 0; cameras are not read"):
        find_videos("0")
