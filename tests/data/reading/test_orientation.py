"""Frames as a player shows them: the eight orientations are read, all else is refused."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.broken import patch_box
from support.videos import decode_all

from video_mvit.data.preparation.transcode import TranscodeSpec, transcode
from video_mvit.data.reading.open import (
    DecodeLimits,
    VideoDecodeError,
    examine_video,
    iterate_frames,
    open_video,
)
from video_mvit.prediction.annotate import upright

Matrix = tuple[float, float, float, float]
Turn = Callable[[np.ndarray], np.ndarray]
# What a player does to a stored frame (H, W, 3), by the matrix in the file.
SHOWN: dict[Matrix, Turn] = {
    (1, 0, 0, 1): lambda frame: frame,
    (0, 1, -1, 0): lambda frame: np.rot90(frame, -1),  # a quarter clockwise
    (-1, 0, 0, -1): lambda frame: frame[::-1, ::-1],
    (0, -1, 1, 0): lambda frame: np.rot90(frame, 1),
    (-1, 0, 0, 1): lambda frame: frame[:, ::-1],  # a front camera
    (1, 0, 0, -1): lambda frame: frame[::-1],
    (0, 1, 1, 0): lambda frame: frame.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda frame: frame[::-1, ::-1].transpose(1, 0, 2),
}


def asymmetric_frame(number: int) -> np.ndarray:
    """-> (64, 96, 3), with no orientation like another."""
    frame = np.full((64, 96, 3), 30 + 4 * number, np.uint8)
    frame[:20, :30] = (220, 60, 60)
    frame[:20, 60:] = (60, 60, 220)
    frame[50:, :30] = (60, 220, 60)
    return frame


def write_video(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4", "g": "6"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(asymmetric_frame(number), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def with_matrix(source: Path, path: Path, matrix: Matrix, perspective: float = 0.0) -> Path:
    """A copy that is to be shown by a matrix, in the header of its track."""
    a, b, c, d = (round(entry * 2**16) for entry in matrix)
    packed = struct.pack(">9i", a, b, round(perspective * 2**16), c, d, 0, 0, 0, 2**30)
    return patch_box(source, path, [b"tkhd"], 40, packed)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "stored.mp4")


@pytest.mark.parametrize("matrix", SHOWN)
def test_file_is_read_as_a_player_shows_it(stored: Path, tmp_path: Path, matrix: Matrix) -> None:
    path = with_matrix(stored, tmp_path / "video.mp4", matrix)
    expected = np.stack([SHOWN[matrix](frame) for frame in decode_all(stored)])
    with open_video(path) as video:
        assert video.size == expected.shape[1:3]
        np.testing.assert_array_equal(video.read(range(12)), expected)
        np.testing.assert_array_equal(video.read([9, 2]), expected[[9, 2]])
    assert examine_video(path).size == expected.shape[1:3]
    for frame, shown in zip(iterate_frames(path), expected, strict=True):
        assert np.abs(upright(frame).astype(int) - shown).mean() < 1
        half = upright(frame, (shown.shape[0] // 2, shown.shape[1] // 2)).astype(int)
        assert np.abs(half - shown[::2, ::2]).mean() < 8


@pytest.mark.parametrize("matrix", SHOWN)
def test_transcoded_copy_is_upright(stored: Path, tmp_path: Path, matrix: Matrix) -> None:
    source = with_matrix(stored, tmp_path / "source.mp4", matrix)
    spec = TranscodeSpec(short_side=64, gop=8, crf=8, preset="veryfast")
    transcode(str(source), tmp_path / "copy.mp4", spec, DecodeLimits())
    with open_video(source) as before, open_video(tmp_path / "copy.mp4") as after:
        assert before.size == after.size
        difference = before.read([0, 7]).astype(int) - after.read([0, 7])
    assert np.abs(difference).mean() < 4
    assert not next(iterate_frames(tmp_path / "copy.mp4")).side_data.get("DISPLAYMATRIX")


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (1, 0.002, -0.002, 1)])
def test_matrix_that_says_nothing_turns_nothing(
    stored: Path, tmp_path: Path, matrix: Matrix
) -> None:
    with open_video(with_matrix(stored, tmp_path / "video.mp4", matrix)) as video:
        np.testing.assert_array_equal(video.read(range(12)), decode_all(stored))


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        ((0.7071, 0.7071, -0.7071, 0.7071), "turned by 45 degrees, no quarter turn"),
        ((0.9848, -0.1736, 0.1736, 0.9848), "turned by -10 degrees, no quarter turn"),
        ((2, 0, 0, 2), r"scaled or skewed, by \(2 0, 0 2\)"),
        ((2, 0, 0, 1), r"scaled or skewed, by \(2 0, 0 1\)"),
        ((0, 0.5, -0.5, 0), "scaled or skewed"),
        ((1, 0.5, 0, 1), r"scaled or skewed, by \(1 0.5, 0 1\)"),
        ((1, 1, 1, 1), "scaled or skewed"),
        ((-0.7071, 0.7071, 0.7071, 0.7071), "scaled or skewed"),
    ],
)
def test_other_matrix_is_refused_with_what_it_does(
    stored: Path, tmp_path: Path, matrix: Matrix, reason: str
) -> None:
    path = with_matrix(stored, tmp_path / "video.mp4", matrix)
    with open_video(path) as video, pytest.raises(VideoDecodeError, match=reason):
        video.read([3])
    with pytest.raises(VideoDecodeError, match=reason):
        next(iterate_frames(path))


def test_perspective_is_refused(stored: Path, tmp_path: Path) -> None:
    path = with_matrix(stored, tmp_path / "video.mp4", (1, 0, 0, 1), perspective=1.5)
    with open_video(path) as video, pytest.raises(VideoDecodeError, match="scaled or skewed"):
        video.read([3])


def with_orientation_in_stream(source: Path, path: Path, option: str) -> Path:
    """A copy whose H.264 stream itself says an orientation, at its first frame."""
    with av.open(str(source)) as before, av.open(str(path), "w") as after:
        stream = before.streams.video[0]
        copy = after.add_stream_from_template(stream)
        insertion = av.BitStreamFilterContext(
            f"h264_metadata=display_orientation=insert:{option}", stream, copy
        )
        for packet in before.demux(stream):
            for changed in insertion.filter(packet if packet.size else None):
                changed.stream = copy
                after.mux(changed)
    return path


def test_orientation_in_the_stream_is_obeyed(tmp_path: Path) -> None:
    source = write_video(tmp_path / "source.mp4")
    flipped = with_orientation_in_stream(source, tmp_path / "a.mp4", "flip=horizontal")
    with open_video(flipped) as video:
        np.testing.assert_array_equal(video.read([0])[0], decode_all(source)[0][:, ::-1])
    with open_video(flipped) as video, pytest.raises(VideoDecodeError, match="orientation changes"):
        video.read(range(6))  # the other frames say nothing
    odd = with_orientation_in_stream(source, tmp_path / "b.mp4", "rotate=30")
    with open_video(odd) as video, pytest.raises(VideoDecodeError, match=r"turned by -?30 degrees"):
        video.read([0])


def test_file_and_stream_that_disagree_are_refused(tmp_path: Path) -> None:
    source = with_matrix(write_video(tmp_path / "a.mp4"), tmp_path / "b.mp4", (-1, 0, 0, 1))
    both = with_orientation_in_stream(source, tmp_path / "c.mp4", "rotate=180")
    both = with_matrix(both, tmp_path / "d.mp4", (-1, 0, 0, 1))
    with open_video(both) as video, pytest.raises(VideoDecodeError, match="different orientations"):
        video.read([0])


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
def test_exif_of_motion_jpeg_is_obeyed(tmp_path: Path, orientation: int) -> None:
    """Frames with side data that PyAV does not know, as cameras write them."""
    exif, content = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(asymmetric_frame(3)).save(content, "JPEG", quality=95, exif=exif)
    path = tmp_path / "video.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        for i in range(3):
            packet = av.Packet(content.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = i
            container.mux(packet)
    (tmp_path / "picture.jpg").write_bytes(content.getvalue())
    with open_video(path) as video, open_video(tmp_path / "picture.jpg") as picture:
        frames, (expected,) = video.read(range(3)), picture.read([0])
    assert frames.shape[1:] == expected.shape
    assert np.abs(frames.astype(int) - expected).mean() < 4
