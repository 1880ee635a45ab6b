"""Readers on videos whose frame `i` shows `i`."""

import os
import sys
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.videos import (
    X264,
    Encoding,
    decode_all,
    numbered_frame,
    read_numbers,
    write_numbered_video,
)

from video_mvit.data.reading import pyav_reader
from video_mvit.data.reading.open import (
    READERS,
    DecodeLimits,
    VideoDecodeError,
    examine_video,
    iterate_frames,
    open_video,
)
from video_mvit.errors import UserError

LOSSLESS_ENOUGH = {"b": "2000000", "g": "20"}
# Everything in which a frame could be taken for another: reordering, open groups, no times, holes.
VIDEOS = {
    "b-frames.mp4": Encoding(),
    "b-frames.mkv": Encoding(),
    "b-frames.ts": Encoding(),
    "b-frames.flv": Encoding(),
    "no presentation times.avi": Encoding(),
    "no times.h264": Encoding(),
    "fragments.mp4": Encoding(container={"movflags": "frag_keyframe+empty_moov"}),
    "one group.mp4": Encoding(options={"bf": "3", "g": "250", "crf": "10"}),
    "open groups.mp4": Encoding(
        options={"crf": "10", "x264-params": "open-gop=1:bframes=5:keyint=12:b-pyramid=normal"}
    ),
    "open groups.mkv": Encoding(
        options={"crf": "10", "x264-params": "open-gop=1:bframes=5:keyint=12:b-adapt=0"}
    ),
    "intra refresh.mkv": Encoding(
        options={"crf": "10", "x264-params": "intra-refresh=1:keyint=15:bframes=2"}
    ),
    "interlaced.mp4": Encoding(options={**X264, "flags": "+ildct+ilme"}),
    "variable rate.mp4": Encoding(times=[40 * i + 17 * (i % 3) for i in range(60)]),
    "variable rate.mkv": Encoding(times=[40 * i + 900 * (i > 30) for i in range(60)]),
    "late start.mp4": Encoding(times=[5000 + 40 * i for i in range(60)]),
    "hevc open groups.mp4": Encoding(
        codec="libx265",
        options={"crf": "10", "x265-params": "log-level=none:open-gop=1:keyint=12:bframes=4"},
    ),
    "hevc layers.mkv": Encoding(
        codec="libx265",
        options={"crf": "10", "x265-params": "log-level=none:temporal-layers=1:keyint=12"},
    ),
    "hidden references.webm": Encoding(
        codec="libvpx", options={**LOSSLESS_ENOUGH, "auto-alt-ref": "1", "lag-in-frames": "16"}
    ),
    "vp9.webm": Encoding(codec="libvpx-vp9", options={**LOSSLESS_ENOUGH, "lag-in-frames": "16"}),
    "av1.mkv": Encoding(codec="libsvtav1", options={"crf": "10", "g": "20", "preset": "12"}),
    "mpeg4.avi": Encoding(codec="mpeg4", options={**LOSSLESS_ENOUGH, "bf": "2"}),
    "mpeg4.mp4": Encoding(codec="mpeg4", options={**LOSSLESS_ENOUGH, "bf": "2"}),
    "mpeg2.ts": Encoding(codec="mpeg2video", options={**LOSSLESS_ENOUGH, "bf": "2"}),
    "mpeg2.mpg": Encoding(codec="mpeg2video", options={**LOSSLESS_ENOUGH, "bf": "2"}),
    "motion jpeg.avi": Encoding(codec="mjpeg", options=LOSSLESS_ENOUGH, pix_fmt="yuvj420p"),
    "wmv.wmv": Encoding(codec="wmv2", options=LOSSLESS_ENOUGH),
}
PATTERNS = [[0], [59], [0, 1, 2], [7, 7, 30], [40, 3, 12, 3], [11, 13, 35, 37], list(range(60))]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_numbered_video(
        tmp_path_factory.mktemp("videos") / "numbered one's.mp4", 50, fps=25
    )


@pytest.fixture(params=list(READERS))
def reader(request: pytest.FixtureRequest, video: Path) -> str:
    skip_where_it_cannot_load(request.param, video)
    return request.param


def skip_where_it_cannot_load(reader: str, video: Path) -> None:
    """Skip where a library is missing, or FFmpeg's, which torchcodec looks for when it decodes."""
    try:
        with open_video(video, reader):
            pass
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("name", VIDEOS)
def test_frame_i_is_frame_i_in_every_container(tmp_path: Path, name: str) -> None:
    path = write_numbered_video(tmp_path / name, 60, fps=25, encoding=VIDEOS[name])
    plain = decode_all(path)
    assert read_numbers(plain) == list(range(60))
    with open_video(path) as opened:
        assert opened.num_frames == 60
        for wanted in PATTERNS:
            np.testing.assert_array_equal(opened.read(wanted), plain[wanted])
    assert len(list(iterate_frames(path))) == 60
    facts = examine_video(path)
    assert (facts.num_frames, facts.size) == (60, (64, 64))


@pytest.mark.parametrize("name", [n for n in VIDEOS if "variable" not in n and "late" not in n])
def test_rate_is_that_of_the_encoder(tmp_path: Path, name: str) -> None:
    path = write_numbered_video(tmp_path / name, 60, fps=25, encoding=VIDEOS[name])
    with open_video(path) as opened:
        assert opened.fps == 25.0


def test_rate_of_a_variable_video_is_that_of_its_usual_frames(tmp_path: Path) -> None:
    times = [40 * i + 900 * (i > 30) for i in range(60)]
    encoding = Encoding(times=times)
    for name in ("video.mp4", "video.mkv"):
        with open_video(write_numbered_video(tmp_path / name, 60, 25, encoding=encoding)) as opened:
            assert opened.clock.is_variable
            assert opened.fps == pytest.approx(25)
            assert opened.clock.duration_s == pytest.approx(times[-1] / 1000 + 0.04)


@pytest.mark.parametrize(
    "wanted", [[0], [49], [0, 1, 2], [7, 7, 30], [40, 3, 12, 3], list(range(50))]
)
def test_frame_i_is_frame_i_in_every_reader(video: Path, reader: str, wanted: list[int]) -> None:
    with open_video(video, reader) as opened:
        assert (opened.num_frames, opened.fps, opened.size) == (50, 25.0, (64, 64))
        frames = opened.read(wanted)
    assert frames.shape == (len(wanted), 64, 64, 3)
    assert frames.dtype == np.uint8
    assert read_numbers(frames) == wanted


def test_reading_twice_gives_the_same(video: Path, reader: str) -> None:
    with open_video(video, reader) as opened:
        assert read_numbers(opened.read([30, 31])) == [30, 31]
        assert read_numbers(opened.read([2])) == [2]


@pytest.mark.parametrize(
    "name", ["b-frames.mp4", "open groups.mp4", "one group.mp4", "variable rate.mp4"]
)
def test_readers_give_identical_pixels(tmp_path: Path, reader: str, name: str) -> None:
    path = write_numbered_video(tmp_path / name, 60, encoding=VIDEOS[name])
    plain = decode_all(path)
    with open_video(path, reader) as opened:
        np.testing.assert_array_equal(opened.read(range(60)), plain)
        np.testing.assert_array_equal(opened.read([3, 17, 18, 44]), plain[[3, 17, 18, 44]])


def test_decord_may_give_tensors_to_others(video: Path) -> None:
    skip_where_it_cannot_load("decord", video)
    import decord

    decord.bridge.set_bridge("torch")
    try:
        with open_video(video, "decord") as opened:
            assert read_numbers(opened.read([30, 4])) == [30, 4]
    finally:
        decord.bridge.reset_bridge()


@pytest.mark.parametrize("library", ["decord", "torchcodec"])
def test_reader_that_is_not_installed_is_named_with_what_installs_it(
    library: str, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (library, f"{library}.decoders"):
        monkeypatch.setitem(sys.modules, name, None)
    sentence = rf"reader '{library}': {library} is not installed \((pip|there is) .*\); use 'pyav'"
    with pytest.raises(UserError, match=sentence):
        open_video(video, library)


def test_library_of_a_reader_that_does_not_load_gives_its_reason(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "decord.py").write_text("raise OSError('libz.so.9: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "decord", raising=False)
    reason = r"decord cannot be imported \(libz\.so\.9: cannot open\); use 'pyav'"
    with pytest.raises(UserError, match=reason):
        open_video(video, "decord")


def test_bytes_read_like_the_file(video: Path, reader: str) -> None:
    with READERS[reader]("name", DecodeLimits(), content=video.read_bytes()) as opened:
        assert read_numbers(opened.read([3, 40])) == [3, 40]


def test_more_threads_give_the_same_frames(video: Path, reader: str) -> None:
    with open_video(video, reader, num_threads=3) as opened:
        assert read_numbers(opened.read(range(0, 50, 7))) == list(range(0, 50, 7))


def num_decoded(path: Path, wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    """How many frames the decoder gives for the wanted ones."""
    count = [0]
    plain = pyav_reader.LimitChecker.count_frame

    def counted(self: pyav_reader.LimitChecker, height: int, width: int) -> None:
        count[0] += 1
        plain(self, height, width)

    monkeypatch.setattr(pyav_reader.LimitChecker, "count_frame", counted)
    with open_video(path) as opened:
        assert read_numbers(opened.read(wanted)) == wanted
    return count[0]


def test_only_needed_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed pattern: I B B P B B P ..., no B-frame is a reference, a key frame every 30."""
    params = "bframes=2:b-adapt=0:b-pyramid=none:keyint=30:min-keyint=30:scenecut=0"
    path = write_numbered_video(
        tmp_path / "video.mp4", 120, encoding=Encoding(options={"crf": "10", "x264-params": params})
    )
    assert num_decoded(path, [30], monkeypatch) == 1  # a key frame alone
    assert num_decoded(path, [33], monkeypatch) == 2  # key frame and one P-frame
    assert num_decoded(path, [40], monkeypatch) == 6  # key frame, 4 P-frames, 1 B-frame
    assert num_decoded(path, [0, 90], monkeypatch) == 2  # nothing between two groups


def test_all_views_of_a_video_are_one_pass(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert num_decoded(video, list(range(50)), monkeypatch) == 50


@pytest.fixture
def all_videos_are_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyav_reader, "IN_MEMORY_SIZE", 0)


@pytest.mark.usefixtures("all_videos_are_long")
@pytest.mark.parametrize("name", VIDEOS)
def test_long_videos_are_as_exact(tmp_path: Path, name: str) -> None:
    path = write_numbered_video(tmp_path / name, 200, fps=25, encoding=_at_length(name, 200))
    plain = decode_all(path)
    with open_video(path) as opened:
        assert opened.num_frames == 200
        for wanted in ([0], [199], [150, 151], [3, 190], list(range(20, 180, 16)), [120, 40]):
            np.testing.assert_array_equal(opened.read(wanted), plain[wanted])


def _at_length(name: str, num_frames: int) -> Encoding:
    encoding = VIDEOS[name]
    if not encoding.times:
        return encoding
    return Encoding(times=[encoding.times[i % 60] + i // 60 * 9000 for i in range(num_frames)])


def packets_read(path: Path, wanted: list[int], monkeypatch: pytest.MonkeyPatch) -> int:
    count = [0]
    plain = pyav_reader.LimitChecker.count_packet

    def counted(self: pyav_reader.LimitChecker) -> None:
        count[0] += 1
        plain(self)

    monkeypatch.setattr(pyav_reader.LimitChecker, "count_packet", counted)
    with open_video(path) as opened:
        assert read_numbers(opened.read(wanted)) == wanted
    return count[0]


@pytest.mark.usefixtures("all_videos_are_long")
def test_long_mp4_is_not_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbered_video(tmp_path / "video.mp4", 250)
    assert packets_read(path, [200], monkeypatch) < 80


@pytest.mark.usefixtures("all_videos_are_long")
def test_a_seek_that_lies_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_numbered_video(tmp_path / "video.mp4", 250)
    with open_video(path) as opened:
        container = opened._container

        class Liar:
            def __getattr__(self, name: str) -> object:
                return getattr(container, name)

            def seek(self, offset: int, **options: object) -> None:
                container.seek(offset + 40 * 512, **options)

        monkeypatch.setattr(opened, "_container", Liar())
        assert read_numbers(opened.read([200, 130])) == [200, 130]


@pytest.mark.usefixtures("all_videos_are_long")
@pytest.mark.parametrize("error", [av.PermissionError(1, "no seeking"), OSError("no seeking")])
def test_a_seek_that_fails_is_done_on_foot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = write_numbered_video(tmp_path / "video.mkv", 250)
    with open_video(path) as opened:
        container = opened._container

        class Unwilling:
            def __getattr__(self, name: str) -> object:
                return getattr(container, name)

            def seek(self, offset: int, **options: object) -> None:
                raise error

        monkeypatch.setattr(opened, "_container", Unwilling())
        assert read_numbers(opened.read([200, 130])) == [200, 130]


def test_missing_frame_count_in_the_header_is_no_obstacle(tmp_path: Path) -> None:
    path = write_numbered_video(tmp_path / "video.mkv", 20)
    with open_video(path) as opened:
        assert opened.num_frames == 20
        assert read_numbers(opened.read([19, 5])) == [19, 5]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotated_video_is_upright(tmp_path: Path, reader: str, degrees: int) -> None:
    """A phone writes turned frames and says by how much; a player turns them back."""
    path = write_numbered_video(
        tmp_path / "video.mp4", 5, size=(64, 128), encoding=Encoding(rotation=degrees)
    )
    turned = np.rot90(decode_all(path), degrees // 90, axes=(1, 2))
    with open_video(path, reader) as opened:
        assert opened.size == ((64, 128) if degrees == 180 else (128, 64))
        np.testing.assert_array_equal(opened.read(range(5)), turned)


@pytest.mark.parametrize(
    ("size", "pix_fmt"),
    [((63, 65), "yuv444p"), ((50, 70), "gray"), ((64, 64), "yuv420p10le"), ((64, 64), "yuvj420p")],
)
def test_unusual_pictures_show_what_they_should(
    tmp_path: Path, size: tuple[int, int], pix_fmt: str
) -> None:
    """Odd sizes, grey, 10 bits, full range: bright is bright and dark is dark."""
    encoding = Encoding(pix_fmt=pix_fmt)
    path = write_numbered_video(tmp_path / "video.mp4", 20, size=size, encoding=encoding)
    with open_video(path) as opened:
        assert opened.size == size
        frames = opened.read([3, 17])
    assert read_numbers(frames) == [3, 17]
    for number, frame in zip((3, 17), frames, strict=True):  # a grey one may stretch its range
        difference = np.abs(frame.astype(int) - numbered_frame(number, size)).mean()
        assert difference < (20 if pix_fmt == "gray" else 4)


def test_sound_and_second_video_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("libx264", rate=25, options=X264) for _ in range(2)]
        for stream, side in zip(streams, (128, 64), strict=True):
            stream.width = stream.height = side
        sound = container.add_stream("aac", rate=16000)
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        noise.sample_rate = 16000
        container.mux(sound.encode(noise))
        for i in range(30):
            for stream, side in zip(streams, (128, 64), strict=True):
                shown = numbered_frame(i if side == 128 else 100 + i, (side, side))
                container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, format="rgb24")))
        for stream in (*streams, sound):
            container.mux(stream.encode(None))
    with open_video(path) as opened:
        assert opened.size == (128, 128)
        assert read_numbers(opened.read([0, 12, 29])) == [0, 12, 29]


@pytest.mark.parametrize("content", [None, b"", b"not a video at all\n" * 50])
def test_bad_file_is_named_with_a_reason(
    tmp_path: Path, reader: str, content: bytes | None
) -> None:
    path = tmp_path / "bad.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=r"cannot decode .*bad\.mp4: \w+"):
        open_video(path, reader)


def test_frames_before_the_start_of_a_cut_are_not_counted(tmp_path: Path) -> None:
    """A stream copy that starts between key frames: frames 24 to 32 are in the file, but not shown.

    With B-frames the file holds packets that no reader shows; what is counted must be readable.
    """
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
    with open_video(path) as opened:
        numbers = read_numbers(opened.read(range(opened.num_frames)))
        assert numbers == list(range(33, 60))
        assert read_numbers(opened.read([20, 2])) == [53, 35]
    assert len(list(iterate_frames(path))) == 27


def test_stream_that_starts_between_key_frames_begins_with_the_first_one(tmp_path: Path) -> None:
    source, path = write_numbered_video(tmp_path / "whole.mkv", 60), tmp_path / "cut.mkv"
    with av.open(str(source)) as whole, av.open(str(path), "w") as cut:
        copy = cut.add_stream_from_template(whole.streams.video[0])
        for packet in list(whole.demux(whole.streams.video[0]))[15:]:
            if packet.size:
                packet.stream = copy
                cut.mux(packet)
    with open_video(path) as opened:
        assert read_numbers(opened.read(range(opened.num_frames))) == list(range(24, 60))


def test_numbered_pictures_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for i in range(12):
        Image.fromarray(numbered_frame(i)).save(tmp_path / f"frame_{i}.png")
    with open_video(tmp_path) as opened:
        assert (opened.num_frames, opened.fps, opened.size) == (12, 30.0, (64, 64))
        assert read_numbers(opened.read([11, 2, 2])) == [11, 2, 2]
    facts = examine_video(tmp_path)
    assert (facts.num_frames, facts.codec, facts.num_key_frames) == (12, "pictures", 12)
    (tmp_path / "frame_3.png").write_bytes(b"no picture")
    with open_video(tmp_path) as opened, pytest.raises(VideoDecodeError, match=r"frame_3\.png"):
        opened.read([3])


@pytest.mark.parametrize("wanted", [[], [-1], [50]])
def test_frames_that_do_not_exist_are_refused(video: Path, wanted: list[int]) -> None:
    with open_video(video) as opened, pytest.raises(ValueError, match="has frames 0 to 49"):
        opened.read(wanted)


def test_facts_say_what_a_video_is(tmp_path: Path) -> None:
    path = write_numbered_video(tmp_path / "video.mp4", 50, fps=25, size=(48, 64))
    facts = examine_video(path)
    assert (facts.num_frames, facts.fps, facts.duration_s) == (50, 25.0, 2.0)
    assert (facts.size, facts.codec, facts.num_key_frames) == ((48, 64), "h264", 5)


def test_picture_with_an_absurd_size_is_refused(tmp_path: Path) -> None:
    Image.fromarray(numbered_frame(1)).save(tmp_path / "1.png")
    content = bytearray((tmp_path / "1.png").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height of the header
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "1.png").write_bytes(content)
    with open_video(tmp_path) as opened, pytest.raises(VideoDecodeError, match=r"1\.png: "):
        opened.read([0])


def test_a_pipe_is_no_video_for_any_reader(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / "video.mp4")
    with pytest.raises(VideoDecodeError, match="a pipe or device"):
        open_video(tmp_path / "video.mp4", reader)


def test_absurd_frame_rate_is_refused(tmp_path: Path) -> None:
    encoding = Encoding(times=[0, 1_000_000])
    path = write_numbered_video(tmp_path / "video.mkv", 2, encoding=encoding)
    with open_video(path) as opened, pytest.raises(VideoDecodeError, match="absurd one"):
        _ = opened.fps
