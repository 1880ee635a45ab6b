"""Readers on videos whose frame `i` shows `i`."""

from pathlib import Path

import numpy as np
import pytest
from videos import read_numbers, write_numbered_video

from video_mvit.data.decoding import READERS, PyAVReader, VideoDecodeError


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered_video(
        tmp_path_factory.mktemp("videos") / "numbered one's.mp4", 50, fps=25
    )


@pytest.fixture(params=list(READERS))
def reader(request: pytest.FixtureRequest) -> str:
    if request.param == "decord":
        pytest.importorskip("decord", reason="decord has no wheel for this platform")
    return request.param


@pytest.mark.parametrize(
    "wanted", [[0], [49], [0, 1, 2], [7, 7, 30], [40, 3, 12, 3], list(range(50))]
)
def test_frame_i_is_frame_i(video: Path, reader: str, wanted: list[int]) -> None:
    with READERS[reader](video) as opened:
        assert (opened.num_frames, opened.fps) == (50, 25.0)
        frames = opened.read(wanted)
    assert frames.shape == (len(wanted), 64, 64, 3)
    assert frames.dtype == np.uint8
    assert read_numbers(frames) == wanted


def test_reading_twice_gives_the_same(video: Path, reader: str) -> None:
    with READERS[reader](video) as opened:
        assert read_numbers(opened.read([30, 31])) == [30, 31]
        assert read_numbers(opened.read([2])) == [2]


def test_readers_give_identical_pixels(video: Path) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    frames = []
    for open_reader in READERS.values():
        with open_reader(video) as opened:
            frames.append(opened.read(range(50)))
    np.testing.assert_array_equal(frames[0], frames[1])


def test_missing_frame_count_in_the_header_is_no_obstacle(tmp_path: Path) -> None:
    path = write_numbered_video(tmp_path / "video.mkv", 20)
    with PyAVReader(path) as opened:
        assert opened.num_frames == 20
        assert read_numbers(opened.read([19, 5])) == [19, 5]


@pytest.mark.parametrize("content", [None, b"", b"not a video at all\n" * 50])
def test_bad_file_is_named_with_a_reason(
    tmp_path: Path, reader: str, content: bytes | None
) -> None:
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=r"cannot decode .*bad\.mp4: \w+"):
        READERS[reader](path)


def test_truncated_video_is_an_error_not_a_shorter_clip(tmp_path: Path) -> None:
    path = write_numbered_video(tmp_path / "video.mkv", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with PyAVReader(path) as opened:
        num_frames = opened.num_frames
        assert 0 < num_frames < 60
        with pytest.raises(VideoDecodeError, match="cannot be decoded"):
            opened.read([59])


def test_frames_before_the_start_of_a_cut_are_not_counted(tmp_path: Path) -> None:
    """A stream copy that starts between key frames: frames 24 to 32 are in the file, but not shown.

    With B-frames the file holds packets that no reader shows; what is counted must be readable.
    """
    import av

    source, path = write_numbered_video(tmp_path / "whole.mp4", 60), tmp_path / "cut.mp4"
    with av.open(str(source)) as whole, av.open(str(path), "w") as cut:
        stream = whole.streams.video[0]
        copy = cut.add_stream_from_template(stream)
        tick = round(1 / 30 / float(stream.time_base))
        for packet in whole.demux(stream):
            if packet.size and packet.pts >= 24 * tick:
                packet.pts, packet.dts = packet.pts - 33 * tick, packet.dts - 33 * tick
                packet.stream = copy
                cut.mux(packet)
    with PyAVReader(path) as opened:
        numbers = read_numbers(opened.read(range(opened.num_frames)))
    assert numbers == list(range(33, 60))


def test_audio_only_file_has_no_video_stream(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        sound.sample_rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(VideoDecodeError, match="no video stream"):
        PyAVReader(path)
