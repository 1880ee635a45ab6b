"""Other libraries decode what they read as PyAV does; PyAV reads all else, and one line says so."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.broken import cut, patch_box
from support.videos import Encoding, decode_all, read_numbers, write_numbered_video

from video_mvit.data.reading import checked_reader
from video_mvit.data.reading.open import READERS, DecodeLimits, VideoDecodeError, open_video
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.errors import UserError

BRIGHT = 255  # of a frame that the stub decodes


class Stub:
    """A library that reads every file, all frames bright."""

    def __init__(self, path: str, decode_limits: DecodeLimits, **options: Any) -> None:
        with PyAVReader(path, decode_limits, **options) as reader:
            self.num_frames, self.fps, self.codec = reader.num_frames, reader.fps, reader.codec
            self.size = reader.size

    def read(self, frame_indices: Any) -> np.ndarray:
        return np.full((len(frame_indices), *self.size, 3), BRIGHT, np.uint8)

    def __enter__(self) -> "Stub":
        return self

    def __exit__(self, *exception: object) -> None:
        pass


class Miscounting(Stub):
    def __init__(self, path: str, decode_limits: DecodeLimits, **options: Any) -> None:
        super().__init__(path, decode_limits, **options)
        self.num_frames += 3


class Refusing(Stub):
    def __init__(self, path: str, decode_limits: DecodeLimits, **_: Any) -> None:
        raise VideoDecodeError(path, "CHECK failed at line 93")


class Failing(Stub):
    def read(self, frame_indices: Any) -> np.ndarray:
        raise VideoDecodeError("path", f"no more frames: {frame_indices}")


@pytest.fixture
def read_by(monkeypatch: pytest.MonkeyPatch) -> Callable[..., np.ndarray]:
    """Read the first frames of a file with a library in the place of torchcodec."""

    def read(path: Path, library: type[Stub] = Stub, name: str = "torchcodec") -> np.ndarray:
        monkeypatch.setitem(READERS, name, library)
        with open_video(path, name) as video:
            return video.read([0, 3, 1])

    checked_reader._tell_once.cache_clear()
    return read


def is_bright(frames: np.ndarray) -> bool:
    return bool((frames == BRIGHT).all())


X264 = {"g": "12", "bf": "2"}


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_library_decodes_a_plain_file(
    tmp_path: Path, name: str, read_by: Callable[..., np.ndarray]
) -> None:
    assert is_bright(read_by(write_numbered_video(tmp_path / name, 20)))


@pytest.mark.parametrize("library", [Miscounting, Refusing, Failing])
def test_pyav_takes_over_from_a_library_that_fails(
    tmp_path: Path, library: type[Stub], read_by: Callable[..., np.ndarray]
) -> None:
    path = write_numbered_video(tmp_path / "a.mp4", 20)
    assert read_numbers(read_by(path, library)) == [0, 3, 1]


ODD = {
    "a.ts": Encoding(),
    "a.avi": Encoding(codec="mpeg4", options={"b": "2000000"}),
    "a.flv": Encoding(),
    "no times.h264": Encoding(),
    "open groups.mp4": Encoding(
        options={"crf": "10", "x264-params": "open-gop=1:bframes=5:keyint=12:b-pyramid=normal"}
    ),
    "intra refresh.mp4": Encoding(
        options={"crf": "10", "x264-params": "intra-refresh=1:keyint=15:bframes=2"}
    ),
    "10 bits.mp4": Encoding(pix_fmt="yuv420p10le"),
    "interlaced.mp4": Encoding(options={**X264, "flags": "+ildct+ilme"}),
    "turned.mp4": Encoding(rotation=90),
}


@pytest.mark.parametrize("name", ODD)
def test_pyav_reads_what_libraries_read_in_another_way(
    tmp_path: Path, name: str, read_by: Callable[..., np.ndarray]
) -> None:
    path = write_numbered_video(tmp_path / name, 20, size=(64, 64), encoding=ODD[name])
    assert not is_bright(read_by(path))


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (0, 1, 1, 0)])
def test_mirrored_file_is_mirrored_by_every_reader(
    tmp_path: Path, matrix: tuple[int, ...], read_by: Callable[..., np.ndarray]
) -> None:
    plain = write_numbered_video(tmp_path / "a.mp4", 20)
    a, b, c, d = ((entry << 16).to_bytes(4, "big", signed=True) for entry in matrix)
    path = patch_box(plain, tmp_path / "b.mp4", [b"tkhd"], 40, a + b + bytes(4) + c + d + bytes(4))
    with open_video(path) as video:
        np.testing.assert_array_equal(read_by(path), video.read([0, 3, 1]))
    assert not np.array_equal(read_by(path), decode_all(path)[[0, 3, 1]])


def test_decord_does_not_decode_hevc(tmp_path: Path, read_by: Callable[..., np.ndarray]) -> None:
    encoding = Encoding(codec="libx265", options={"x265-params": "log-level=none:open-gop=0"})
    path = write_numbered_video(tmp_path / "a.mp4", 20, encoding=encoding)
    assert is_bright(read_by(path))
    assert not is_bright(read_by(path, Stub, "decord"))


def test_one_line_says_that_pyav_takes_over(
    tmp_path: Path, read_by: Callable[..., np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("a.ts", "b.ts"):
        read_by(write_numbered_video(tmp_path / name, 20))
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == (
        "data.reader=torchcodec: PyAV reads other containers than MP4, MOV, MKV and WebM"
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.webm", "a.mkv", "a.mp4"])
@pytest.mark.parametrize("reader", list(READERS))
def test_cut_file_is_not_read_short(tmp_path: Path, name: str, reader: str) -> None:
    vp8 = Encoding(codec="libvpx", options={"b": "2000000", "g": "20"})
    options = {"container": {"movflags": "+faststart"}} if name == "a.mp4" else {}
    encoding = vp8 if name == "a.webm" else Encoding(**options)
    whole = write_numbered_video(tmp_path / name, 60, encoding=encoding)
    with pytest.raises(VideoDecodeError, match="truncated"):
        open_video(cut(whole, tmp_path / f"cut {name}", 0.5), reader)


@pytest.mark.slow  # importing torchcodec takes seconds
@pytest.mark.parametrize("reader", list(READERS))
def test_every_reader_refuses_frames_that_do_not_exist(tmp_path: Path, reader: str) -> None:
    path = write_numbered_video(tmp_path / "a.mp4", 5)
    try:
        video = open_video(path, reader)
    except UserError as error:
        pytest.skip(str(error))
    with video, pytest.raises(UserError, match="has frames 0 to 4"):
        video.read([7])
