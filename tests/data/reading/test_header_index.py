"""A header that a scan vouches for: the same frames without demuxing, and no effect elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.videos import X264, Encoding, read_numbers, write_numbered_video

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.reading import packet_reader
from video_mvit.data.reading.containers import Source, open_container
from video_mvit.data.reading.header_index import MAX_FINGERPRINT, UNKNOWN
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, examine_video, open_video
from video_mvit.data.reading.pyav_reader import PyAVReader

INTRA = {"g": "1", "bf": "0", "crf": "10"}
VOUCHED = {
    "b-frames.mp4": Encoding(),
    "one group.mp4": Encoding(options={"bf": "3", "g": "250", "crf": "10"}),
    "intra.mp4": Encoding(options=INTRA),
    "intra, late.mp4": Encoding(options=INTRA, times=[5000 + 40 * i for i in range(60)]),
    "intra, four colours.mp4": Encoding(options=INTRA, pix_fmt="yuv444p"),
    "intra, interlaced.mp4": Encoding(options={**INTRA, "flags": "+ildct+ilme"}),
    "variable rate.mp4": Encoding(times=[40 * i + 17 * (i % 3) for i in range(60)]),
    "late start.mp4": Encoding(times=[5000 + 40 * i for i in range(60)]),
    "interlaced.mp4": Encoding(options={**X264, "flags": "+ildct+ilme"}),
}
OTHERS = {
    "b-frames.mkv": Encoding(),
    "fragments.mp4": Encoding(container={"movflags": "frag_keyframe+empty_moov"}),
    "open groups.mp4": Encoding(
        options={"crf": "10", "x264-params": "open-gop=1:bframes=5:keyint=12:b-pyramid=normal"}
    ),
}
WANTED = ([59], [0], [3, 40], [55, 2, 30], list(range(60)))


@pytest.fixture
def num_demuxed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the packets that readers demux, in its only element."""
    count = [0]
    demux = PyAVReader._demux

    def counted(self: PyAVReader):  # type: ignore[no-untyped-def]
        for packet in demux(self):
            count[0] += 1
            yield packet

    monkeypatch.setattr(PyAVReader, "_demux", counted)
    return count


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """From what each container was opened: its header alone, or its first frames, too."""
    found: list[str] = []

    def opened(path: str, content: bytes | None, limits: DecodeLimits, source: Source) -> Any:
        found.append(source)
        return open_container(path, content, limits, source)

    monkeypatch.setattr(packet_reader, "open_container", opened)
    return found


def times_of(clock: FrameClock) -> tuple[float, ...]:
    times_s = (clock.time_s(i) for i in range(clock.num_frames))
    return (clock.fps, clock.is_variable, clock.duration_s, *times_s)


@pytest.mark.parametrize("name", VOUCHED)
def test_vouched_header_gives_the_same_frames_and_times(
    tmp_path: Path, name: str, num_demuxed: list[int]
) -> None:
    path = write_numbered_video(tmp_path / name, 60, fps=25, encoding=VOUCHED[name])
    fingerprint = examine_video(path).fingerprint
    assert 0 < fingerprint <= MAX_FINGERPRINT
    for content in (None, path.read_bytes()):
        place = path
        if content is not None:  # as a member of a shard
            place = tmp_path / f"{path.name}.tar!0+{len(content)}!{name}"
            (tmp_path / f"{path.name}.tar").write_bytes(content)
        with open_video(path) as plain:
            num_demuxed[0] = 0
            with open_video(place, fingerprint=fingerprint) as video:
                assert num_demuxed[0] == 0
                assert times_of(video.clock) == times_of(plain.clock)
                assert isinstance(video, PyAVReader)
                assert (video.num_frames, video.is_simple) == (60, True)
                for wanted in WANTED:
                    frames = video.read(wanted)
                    assert read_numbers(frames) == wanted
                    assert np.array_equal(frames, plain.read(wanted))
                numbers = [i for i, _ in video.read_in_order(np.arange(60))]
                assert numbers == list(range(60))


def test_only_what_is_decoded_is_fetched(tmp_path: Path, num_demuxed: list[int]) -> None:
    encoding = Encoding(options=INTRA)
    path = write_numbered_video(tmp_path / "intra.mp4", 60, fps=25, encoding=encoding)
    fingerprint = examine_video(path).fingerprint
    num_demuxed[0] = 0
    with open_video(path, fingerprint=fingerprint) as video:
        video.read([8, 20, 32])
    assert num_demuxed == [3]


def test_only_scanned_key_frames_are_opened_by_their_header(
    tmp_path: Path, sources: list[str]
) -> None:
    intra, other = (
        write_numbered_video(tmp_path / f"{name}.mp4", 60, fps=25, encoding=encoding)
        for name, encoding in (("intra", Encoding(options=INTRA)), ("other", Encoding()))
    )
    fingerprint = examine_video(intra).fingerprint
    for path, known, expected in (
        (intra, UNKNOWN, ["frames"]),
        (intra, fingerprint, ["header"]),
        (intra, fingerprint + 1, ["header", "frames"]),
        (other, examine_video(other).fingerprint, ["frames"]),
    ):
        sources.clear()
        with open_video(path, fingerprint=known) as video:
            assert video.num_frames == 60
        assert sources == expected


def test_frames_opened_by_their_header_are_turned_upright(
    tmp_path: Path, sources: list[str]
) -> None:
    encoding = Encoding(options=INTRA, rotation=90)
    path = write_numbered_video(tmp_path / "turned.mp4", 9, fps=25, encoding=encoding)
    fingerprint = examine_video(path).fingerprint
    with open_video(path) as plain, open_video(path, fingerprint=fingerprint) as video:
        assert sources[-1] == "header"
        assert np.array_equal(video.read([4]), plain.read([4]))


@pytest.mark.parametrize("name", OTHERS)
def test_header_that_tells_too_little_is_not_vouched_for(tmp_path: Path, name: str) -> None:
    path = write_numbered_video(tmp_path / name, 60, fps=25, encoding=OTHERS[name])
    assert examine_video(path).fingerprint == UNKNOWN
    with open_video(path, fingerprint=1) as video:
        assert read_numbers(video.read([59, 3])) == [59, 3]


def test_fingerprint_of_another_file_has_no_effect(tmp_path: Path, num_demuxed: list[int]) -> None:
    intra = Encoding(options=INTRA)
    path = write_numbered_video(tmp_path / "video.mp4", 60, fps=25, encoding=intra)
    fingerprint = examine_video(path).fingerprint
    write_numbered_video(path, 50, fps=25, encoding=intra)  # it was replaced
    for wrong in (fingerprint, 1, MAX_FINGERPRINT):
        num_demuxed[0] = 0
        with open_video(path, fingerprint=wrong) as video:
            assert num_demuxed[0] == 50
            assert read_numbers(video.read([49, 3])) == [49, 3]


def test_header_that_lists_other_times_is_demuxed(tmp_path: Path, num_demuxed: list[int]) -> None:
    path = write_numbered_video(tmp_path / "video.mp4", 60, fps=25)
    fingerprint = examine_video(path).fingerprint
    content = bytearray(path.read_bytes())
    place = content.index(b"ctts") + 12  # the first run: packets, then their offset
    first = int.from_bytes(content[place + 4 : place + 8], "big")
    content[place + 4 : place + 8] = (first + 512).to_bytes(4, "big")
    path.write_bytes(content)
    num_demuxed[0] = 0
    with open_video(path, fingerprint=fingerprint):
        assert num_demuxed[0] == 60


def test_other_packets_behind_the_same_header_are_one_sentence(tmp_path: Path) -> None:
    path = write_numbered_video(
        tmp_path / "video.mp4", 60, fps=25, encoding=Encoding(options=INTRA)
    )
    fingerprint = examine_video(path).fingerprint
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x65\x88", b"\x41\x88"))  # no picture starts anew
    with (
        open_video(path, fingerprint=fingerprint) as video,
        pytest.raises(VideoDecodeError, match="its packets are not those that its header lists"),
    ):
        video.read([30])


def test_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    encoding = Encoding(container={"movflags": "faststart"})
    path = write_numbered_video(tmp_path / "video.mp4", 60, fps=25, encoding=encoding)
    fingerprint = examine_video(path).fingerprint
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VideoDecodeError, match=r"truncated: \d+ of \d+ bytes are there"):
        open_video(path, fingerprint=fingerprint)
