"""Hostile videos and pictures: playlists, indexes that promise millions, headers that lie."""

import io
import logging
import multiprocessing
import random
import struct
import sys
import types
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.broken import cut, write_textured_video
from support.mp4 import MANY, box, with_run, with_sample_sizes
from support.mutate import mutated
from support.processes import TIMEOUT_S

from video_mvit.data.reading import images, mp4_index, reader
from video_mvit.data.reading.decord_reader import DecordReader
from video_mvit.data.reading.open import (
    READERS,
    DecodeLimits,
    VideoDecodeError,
    examine_video,
    open_video,
)
from video_mvit.data.reading.torchcodec_reader import TorchcodecReader
from video_mvit.detection.data.images import read_image
from video_mvit.detection.data.mask_folder import read_objects
from video_mvit.evaluation.strips import read_frames
from video_mvit.prediction.annotate import timed_frames
from video_mvit.prediction.clips import decode_limits_for

SECRET = "the secret words of another file"
PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{good}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{good}'\n",
    "dash": '<?xml version="1.0"?><MPD profiles="urn:mpeg:dash:profile:isoff-live:2011"></MPD>',
    "text": f"{SECRET}\n",
}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What decord and torchcodec, replaced by stubs, were asked to open."""
    asked: list[object] = []

    def open_anything(file: object, *_: object, **__: object) -> None:
        asked.append(file)
        raise RuntimeError("opened")

    decord = types.SimpleNamespace(
        VideoReader=open_anything,
        DECORDError=RuntimeError,
        nd=types.SimpleNamespace(NDArray=object),
    )
    torchcodec = types.SimpleNamespace(VideoDecoder=open_anything)
    monkeypatch.setitem(sys.modules, "decord", decord)
    monkeypatch.setitem(sys.modules, "torchcodec", types.SimpleNamespace(decoders=torchcodec))
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", torchcodec)
    return asked


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_playlist_called_a_video_is_refused_by_every_reader_before_it_is_opened(
    kind: str, name: str, opened: list[object], tmp_path: Path
) -> None:
    good = write_textured_video(tmp_path / "good.ts", num_frames=5)
    path = tmp_path / "bad.mp4"
    path.write_text(PLAYLISTS[kind].format(good=good))
    for content in (None, path.read_bytes()):
        with pytest.raises(VideoDecodeError) as caught:
            READERS[name](str(path), DecodeLimits(), content=content)
        assert SECRET not in str(caught.value)
    assert not opened


@pytest.mark.parametrize("kind", [DecordReader, TorchcodecReader])
def test_playlist_that_goes_on_as_a_video_is_not_opened_by_other_libraries(
    kind: Callable[..., object], opened: list[object], tmp_path: Path
) -> None:
    good = write_textured_video(tmp_path / "good.ts", num_frames=5)
    for name, start in (
        ("a.ts", PLAYLISTS["hls"].format(good=good).encode()),
        ("b.flv", b"FLV\x01\x05 <MPD dash:profile"),
    ):
        (tmp_path / name).write_bytes(start + good.read_bytes())
        with pytest.raises(VideoDecodeError):
            kind(str(tmp_path / name), DecodeLimits())
    assert not opened
    with pytest.raises(VideoDecodeError, match="opened"):
        kind(str(good), DecodeLimits())
    assert opened == [str(good)]


def test_no_place_that_opens_media_follows_a_playlist_or_quotes_a_file(tmp_path: Path) -> None:
    good = write_textured_video(tmp_path / "good.ts", num_frames=5)
    for kind, words in PLAYLISTS.items():
        path = tmp_path / f"{kind}.mp4"
        path.write_text(words.format(good=good))
        assert read_frames(str(path)) is None
        assert decode_limits_for(str(path)) == DecodeLimits()
        for read in (examine_video, open_video, lambda p: next(timed_frames(str(p)))):
            with pytest.raises(VideoDecodeError) as caught:
                read(path)
            assert caught.value.reason == (
                "text, not a video" if kind == "text" else "a playlist of other files, not a video"
            )


def test_file_that_is_a_link_to_itself_is_unreadable(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.png"):
        path = tmp_path / name
        path.symlink_to(path)
        with pytest.raises(VideoDecodeError, match="symbolic links"):
            open_video(path)


@pytest.mark.parametrize("each", [0, 1])
def test_index_of_millions_of_samples_is_refused_unread(each: int, tmp_path: Path) -> None:
    good = write_textured_video(tmp_path / "good.mp4", num_frames=5)
    bad = with_sample_sizes(good, tmp_path / "bad.mp4", each, MANY)
    before = _memory()
    for read in (open_video, examine_video):
        with pytest.raises(VideoDecodeError, match="its index lists"):
            read(bad)
    assert _memory() - before < 50 * 2**20


def test_fragment_of_millions_of_samples_is_refused_unread(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov"}
    good = write_textured_video(tmp_path / "good.mp4", num_frames=5, container_options=options)
    assert examine_video(good).num_frames == 5
    with pytest.raises(VideoDecodeError, match=r"its index lists 40,000,0\d\d samples, more than"):
        open_video(with_run(good, tmp_path / "bad.mp4", MANY))


def _sizes(count: int) -> bytes:
    return box(b"stsz", struct.pack(">III", 0, 0, count))


def test_index_of_many_bytes_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_textured_video(tmp_path / "good.mp4", num_frames=5)
    monkeypatch.setattr(mp4_index, "MAX_HEADER", 100)
    with path.open("rb") as file:
        assert mp4_index.find_excess(file) == "its index has more than 100 bytes"


HIDDEN_INDEXES = {
    "in its place": box(
        b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", _sizes(MANY)))))
    ),
    "directly in the track": box(b"moov", box(b"trak", _sizes(MANY))),
    "at the top": box(b"stbl", _sizes(MANY)),
    "behind an unknown box": box(b"abcd", b"12") + box(b"moov", _sizes(MANY)),
    "in a format": box(b"moov", box(b"trak", box(b"stsd", bytes(99), _sizes(MANY)))),
    "in metadata": box(b"moov", box(b"meta", bytes(4), box(b"hdlr", bytes(24)), _sizes(MANY))),
    "in many tracks": box(b"moov", *[box(b"trak", _sizes(500_000))] * 9),
    "without end": struct.pack(">I4s", 0, b"moov") + _sizes(MANY),
    "of wrong size": struct.pack(">I4s", 2**31, b"moov") + _sizes(MANY),
    "of 64 bits": struct.pack(">I4sQ", 1, b"moov", 36) + _sizes(MANY),
    "compressed": box(b"moov", box(b"cmov", bytes(20))),
    "compressed and hidden": box(b"free", bytes(4), b"cmvd"),
    "beyond the file": box(b"moov", box(b"stsz", struct.pack(">III", 0, 1000, 1000))),
}


@pytest.mark.parametrize("name", HIDDEN_INDEXES)
def test_samples_are_counted_wherever_the_table_is(name: str) -> None:
    content = box(b"ftyp", b"isom\0\0\0\0isom") + HIDDEN_INDEXES[name]
    assert mp4_index.find_excess(io.BytesIO(content)) is not None


def test_long_uncompressed_sound_is_no_excess(tmp_path: Path) -> None:
    path = tmp_path / "sound.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=48_000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 48_000), np.int16), "s16", "mono")
        sound.sample_rate = 48_000
        for second in range(100):
            sound.pts = 48_000 * second
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with path.open("rb") as file:
        assert mp4_index.find_excess(file) is None


def test_file_of_headers_alone_ends_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mp4_index, "MAX_BOXES", 50)
    content = box(b"ftyp", b"isom") + box(b"free") * 100
    assert mp4_index.find_excess(io.BytesIO(content)) == "it has more than 50 parts"


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_pictures_of_huge_declared_size_are_refused_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(_png(30_000, 30_000, zlib.compress(bytes(2**20))))
    before = _memory()
    for read in (open_video, read_image, lambda p: open_video(p.parent).read([0])):
        with pytest.raises(VideoDecodeError, match=r"30000x30000|exceeds limit"):
            read(path)
    with pytest.raises(VideoDecodeError):
        read_objects(str(path), (30_000, 30_000))
    assert _memory() - before < 50 * 2**20


def test_folder_of_pictures_is_read_one_by_one_and_never_beyond_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        Image.new("RGB", (200, 100), (i, 0, 0)).save(tmp_path / f"{i}.png")
    decoded: list[int] = []
    decode = images.decode_picture
    monkeypatch.setattr(
        images, "decode_picture", lambda *words: decoded.append(1) or decode(*words)
    )
    monkeypatch.setattr(reader, "MAX_READ_BYTES", 6 * 3 * 200 * 100)
    with open_video(tmp_path) as video:
        assert video.read([11, 3])[:, 0, 0, 0].tolist() == [11, 3]
        assert len(decoded) == 2
        with pytest.raises(VideoDecodeError, match="12 frames of 200x100 at once take more than"):
            video.read(range(12))
        assert len(decoded) == 3
    assert examine_video(tmp_path).num_frames == 12


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("maximum recursion depth")])
def test_lack_of_memory_is_a_reason_of_the_video(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    video = write_textured_video(tmp_path / "a.mp4", num_frames=5)
    Image.new("RGB", (20, 10)).save(tmp_path / "1.png")
    monkeypatch.setattr(images, "decode_picture", fail)
    monkeypatch.setattr("video_mvit.data.reading.pyav_reader.turn_upright", fail)
    for path in (video, tmp_path / "1.png"):
        with (
            pytest.raises(VideoDecodeError, match="not enough memory to read it"),
            open_video(path) as opened,
        ):
            opened.read([0])


def read_all(folder: Path, result: Path, name: str) -> None:
    """Runs in a process of its own, which may crash: one line for each file, and the memory."""
    av.logging.set_level(av.logging.PANIC)
    logging.disable()
    limits, before = DecodeLimits(time_s=10.0), _memory()
    with result.open("w") as lines:
        for path in sorted(folder.iterdir()):
            try:
                with open_video(path, name, limits) as video:
                    video.read([0, video.num_frames - 1])
                outcome = "read"
            except VideoDecodeError:
                outcome = "refused"
            except Exception as error:
                outcome = repr(error)
            lines.write(f"{outcome}\n")
            lines.flush()
        lines.write(f"{_memory() - before}\n")


CODECS = {"a.mp4": "libx264", "b.webm": "libvpx", "c.avi": "mpeg4", "d.ts": "libx264"}


@pytest.mark.parametrize(
    ("name", "num_files"),
    [
        pytest.param("torchcodec", 40, marks=pytest.mark.slow),
        pytest.param("pyav", 4000, marks=pytest.mark.long),
        pytest.param("torchcodec", 1000, marks=pytest.mark.long),
        pytest.param("decord", 1000, marks=pytest.mark.long),
    ],
)
def test_mutated_videos_are_read_or_refused_by_every_reader(
    name: str, num_files: int, tmp_path: Path
) -> None:
    rng, folder, result = random.Random(3), tmp_path / "mutants", tmp_path / "result"
    folder.mkdir()
    sources = [
        write_textured_video(tmp_path / file, codec=codec, num_frames=8)
        for file, codec in CODECS.items()
    ]
    skip_without(name, sources[0])
    for i in range(num_files):
        source = sources[i % len(sources)]
        (folder / f"{i:05}{source.suffix}").write_bytes(mutated(source.read_bytes(), rng))
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=read_all, args=(folder, result, name))
    process.start()
    process.join(TIMEOUT_S + num_files / 10)
    is_hung = process.is_alive()
    process.kill()
    *outcomes, growth = result.read_text().splitlines()
    assert not is_hung
    assert process.exitcode == 0, f"after file {len(outcomes)}"
    assert set(outcomes) <= {"read", "refused"}
    assert len(outcomes) == num_files
    assert int(growth) < 400 * 2**20


def skip_without(name: str, video: Path) -> None:
    try:
        open_video(video, name)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("num_files", [100, pytest.param(3000, marks=pytest.mark.long)])
def test_mutated_pictures_are_read_or_refused(num_files: int, tmp_path: Path) -> None:
    rng, noise = random.Random(5), np.random.default_rng(0)
    sources = []
    for suffix, mode in ((".png", "RGB"), (".jpg", "RGB"), (".png", "P"), (".png", "RGBA")):
        file = io.BytesIO()
        pixels = noise.integers(0, 255, (24, 32, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(file, {".png": "PNG", ".jpg": "JPEG"}[suffix])
        sources.append((suffix, file.getvalue()))
    for i in range(num_files):
        suffix, content = sources[i % len(sources)]
        path = tmp_path / f"1{suffix}"
        path.write_bytes(mutated(content, rng))
        for read in (
            lambda p: open_video(p).read([0]),
            read_image,
            lambda p: read_objects(str(p), (24, 32)),
        ):
            try:
                read(path)
            except VideoDecodeError as error:
                assert error.reason  # noqa: PT017


def _memory() -> int:
    """Peak memory of this process in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return int(status["VmHWM"].split()[0]) * 1024


def test_cut_video_is_still_told_from_a_damaged_one(tmp_path: Path) -> None:
    good = write_textured_video(tmp_path / "good.mp4", num_frames=5)
    with pytest.raises(VideoDecodeError, match="no index"):
        open_video(cut(good, tmp_path / "cut.mp4", 0.5))
