"""Files that are broken, in every way that we know: each is an error with a reason, and soon."""

import logging
import os
import re
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from support.broken import (
    box_content,
    cut,
    damage_packet,
    empty_mp4,
    packet_places,
    patch,
    patch_box,
    write_huge_frame,
    write_sound,
    write_textured_video,
)
from support.videos import read_numbers

from video_mvit.data.datamodule import LoaderConfig, Split, VideoDataModule
from video_mvit.data.dataset import ClipKey, ClipPipeline, EvaluationDataset, TrainDataset
from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.reading import pyav_reader
from video_mvit.data.reading.containers import promised_size
from video_mvit.data.reading.open import (
    DecodeLimits,
    VideoDecodeError,
    examine_video,
    iterate_frames,
    open_video,
)
from video_mvit.data.sampling import ClipSpec, RandomClip, UniformClips
from video_mvit.data.transforms.cropping import RandomResizedCrop, UniformCrops

NUM_FRAMES = 40
X265 = {"x265-params": "log-level=none:pools=1:bframes=0:hash=1"}
VP8 = {"deadline": "realtime", "cpu-used": "8"}
MAX_GROWTH = 400 * 2**20  # bytes; ten times less than the headers below ask for
CLIP = ClipSpec(num_frames=4, frame_stride=2)
TRAIN = ClipPipeline(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=32))
TEST = ClipPipeline(
    sampler=UniformClips(clip=CLIP, num_clips=2), crop=UniformCrops(size=32, short_side=32)
)

Maker = Callable[[Path], Path]


def h264(folder: Path, name: str = "good.mp4") -> Path:
    return write_textured_video(folder / name)


def index_first(folder: Path) -> Path:
    options = {"movflags": "+faststart"}
    return write_textured_video(folder / "good.mp4", container_options=options)


def fragments(folder: Path) -> Path:
    options = {"movflags": "frag_keyframe+empty_moov"}
    return write_textured_video(folder / "good.mp4", container_options=options)


def webm(folder: Path) -> Path:
    return write_textured_video(folder / "good.webm", codec="libvpx", options=VP8)


def avi(folder: Path) -> Path:
    return write_textured_video(folder / "good.avi", codec="mpeg4")


def gif(folder: Path) -> Path:
    pictures = [Image.effect_noise((64, 64), 90) for _ in range(8)]
    pictures[0].save(folder / "good.gif", save_all=True, append_images=pictures[1:])
    return folder / "good.gif"


def ogg(folder: Path) -> Path:
    return write_textured_video(folder / "good.ogv", codec="libvpx", options=VP8)


def text(words: str) -> Maker:
    def make(folder: Path) -> Path:
        path = folder / "bad.mp4"
        path.write_text(words)
        return path

    return make


def list_of_files(folder: Path) -> Path:
    """A text that FFmpeg would follow to a video which is there."""
    return text(f"ffconcat version 1.0\nfile {h264(folder).name}\n")(folder)


def playlist(folder: Path) -> Path:
    """Another one, as web players read it; its second part would be fetched."""
    parts = [h264(folder, "good.ts").name, "http://127.0.0.1:9/more.ts"]
    return text("#EXTM3U\n" + "".join(f"#EXTINF:1,\n{part}\n" for part in parts))(folder)


def shortened(make_whole: Maker, share: float) -> Maker:
    def make(folder: Path) -> Path:
        whole = make_whole(folder)
        return cut(whole, whole.with_stem("bad"), share)

    return make


def with_box(*names: bytes, offset: int, number: int) -> Maker:
    def make(folder: Path) -> Path:
        new = struct.pack(">I", number)
        return patch_box(h264(folder), folder / "bad.mp4", names, offset, new)

    return make


def endless_media_data(make_whole: Maker) -> Maker:
    """Media data of 2**60 bytes, by a header that takes the place of an empty box before it."""

    def make(folder: Path) -> Path:
        whole = make_whole(folder)
        start = box_content(whole, b"mdat") - 16
        return patch(whole, folder / "bad.mp4", {start: struct.pack(">I4sQ", 1, b"mdat", 2**60)})

    return make


def endless_element(name: str) -> Maker:
    """A Matroska element of 2**50 bytes."""

    def make(folder: Path) -> Path:
        whole = webm(folder)
        start = whole.read_bytes().index(bytes.fromhex(name)) + 4
        return patch(whole, folder / "bad.webm", {start: b"\1" + (2**50).to_bytes(7, "big")})

    return make


def unknown_codec(folder: Path) -> Path:
    whole = h264(folder)
    return patch(whole, folder / "bad.mp4", {box_content(whole, b"stsd", b"avc1") - 4: b"zzzz"})


def named_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "bad.mp4")
    return folder / "bad.mp4"


def folder_of_nothing(folder: Path) -> Path:
    (folder / "bad.mp4").mkdir()
    return folder / "bad.mp4"


def hidden_from_us(folder: Path) -> Path:
    path = h264(folder)
    path.chmod(0)
    return path


CUT = r"^truncated: \d+ of \d+ bytes are there$"
CUT_GIF = "^truncated: it ends within a frame$"
NO_INDEX = r"^no index \(moov\): the file was cut off, or is still being written$"
DAMAGED = "^damaged, or no video in a known format: "
UNREADABLE: dict[str, tuple[Maker, str]] = {
    "missing": (lambda folder: folder / "bad.mp4", "^No such file or directory$"),
    "empty": (text(""), "^an empty file$"),
    "text": (
        text("Video unavailable\n"),
        "^text, not a video$",
    ),
    "noise": (text("\0\1\2\3" * 99), DAMAGED),
    "folder": (folder_of_nothing, "^a folder without pictures$"),
    "named pipe": (named_pipe, "^not a file, but a pipe or device$"),
    "device": (lambda _: Path("/dev/zero"), "^not a file, but a pipe or device$"),
    "list of files": (list_of_files, "^a playlist of other files, not a video$"),
    "playlist": (playlist, "^a playlist of other files, not a video$"),
    "sound only": (lambda folder: write_sound(folder / "bad.mp4"), "^audio, no video$"),
    "zero frames": (lambda folder: empty_mp4(folder / "bad.mp4"), "^no frames$"),
    "unknown codec": (unknown_codec, "^its codec is unknown$"),
    "8K frame": (
        lambda folder: write_huge_frame(folder / "bad.avi"),
        "^no frame size, or one above 16777216 pixels$",
    ),
    **{
        f"mp4 {share}": (shortened(h264, share), reason)
        for share, reason in ((0.01, NO_INDEX), (0.3, NO_INDEX), (0.8, NO_INDEX), (0.97, CUT))
    },
    **{f"index first {share}": (shortened(index_first, share), CUT) for share in (0.02, 0.5, 0.99)},
    **{f"fragments {share}": (shortened(fragments, share), CUT) for share in (0.02, 0.5, 0.95)},
    **{f"webm {share}": (shortened(webm, share), CUT) for share in (0.02, 0.1, 0.5, 0.99)},
    **{f"avi {share}": (shortened(avi, share), CUT) for share in (0.5, 0.9)},
    **{f"gif {share}": (shortened(gif, share), CUT_GIF) for share in (0.1, 0.5, 0.9)},
    **{f"ogg {share}": (shortened(ogg, share), CUT) for share in (0.5, 0.9)},
    "endless cluster": (endless_element("1f43b675"), CUT),
    "endless segment": (endless_element("18538067"), CUT),
    "endless media data": (endless_media_data(h264), NO_INDEX),
    "too many times": (with_box(b"stts", offset=4, number=2**32 - 1), DAMAGED),
    "too many sizes": (with_box(b"stsz", offset=8, number=2**30), "^its index lists "),
    "no permission": (hidden_from_us, "^Permission denied$"),
}
READABLE: dict[str, Maker] = {
    "one frame": lambda folder: write_textured_video(folder / "one.mp4", num_frames=1),
    "absurd size beside the stream": with_box(b"avc1", offset=24, number=2**32 - 1),
    "absurd duration": with_box(b"mvhd", offset=16, number=2**32 - 1),
    "absurd duration of the stream": with_box(b"mdhd", offset=16, number=2**32 - 1),
    "a billion times": with_box(b"stts", offset=8, number=2**30),
    "endless media data behind the index": endless_media_data(index_first),
    "end of sound cut off": shortened(h264, 0.999),
}
NAMES = ["two words.mp4", 'it\'s "this".mp4', "视频 ü🙂.mp4", "-i.mp4", "%03d.mp4", "a:b?c*.mp4"]
NAMES += ["http:x.mp4", os.fsdecode(b"caf\xe9.mp4")]


@pytest.fixture(params=list(UNREADABLE))
def unreadable(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    make, reason = UNREADABLE[request.param]
    path = make(tmp_path)
    if request.param == "no permission" and os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    return path, reason


def test_broken_file_is_an_error_with_its_reason_whoever_reads(
    unreadable: tuple[Path, str],
) -> None:
    path, reason = unreadable
    before = _peak_memory()
    for read in (
        lambda: open_video(path),
        lambda: examine_video(path),
        lambda: next(iter(iterate_frames(path))),
    ):
        with pytest.raises(VideoDecodeError) as caught:
            read()
        assert caught.value.path == str(path)
        assert _matches(reason, caught.value.reason), caught.value.reason
    assert _peak_memory() - before < MAX_GROWTH


def test_broken_file_is_replaced_in_training_and_missing_in_evaluation(
    unreadable: tuple[Path, str], tmp_path: Path
) -> None:
    path, reason = unreadable
    listed = make_manifest(tmp_path, [h264(tmp_path, "other.mp4"), path])
    item = TrainDataset(listed, TRAIN, 0)[ClipKey(0, 1)]
    assert (item.video_index, item.label, len(item.clips)) == (0, 0, 1)
    missing = EvaluationDataset(listed, TEST, {})[1]
    assert (missing.video_index, missing.label, missing.clips) == (1, 1, [])
    for note in (item.unreadable[0], missing.unreadable[0]):
        assert note.video_index == 1
        assert _matches(reason, note.reason)


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_long_file_that_was_cut_off_is_an_error_too(
    share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyav_reader, "IN_MEMORY_SIZE", 0)
    with pytest.raises(VideoDecodeError, match=r"truncated: \d+ of \d+ bytes are there"):
        open_video(shortened(index_first, share)(tmp_path))


def test_stream_that_starts_late_is_an_error(tmp_path: Path) -> None:
    """A recording whose programme changes; the gap is longer than what is searched for streams."""
    first, second = h264(tmp_path, "a.ts"), tmp_path / "b.ts"
    write_sound(second, codec="mp2", service="7")
    gap = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 40_000
    (tmp_path / "bad.ts").write_bytes(first.read_bytes() + gap + second.read_bytes())
    with pytest.raises(VideoDecodeError, match="another stream starts in the middle"):
        open_video(tmp_path / "bad.ts")


@pytest.mark.parametrize("name", READABLE)
def test_odd_but_whole_file_is_read(name: str, tmp_path: Path) -> None:
    path, before = READABLE[name](tmp_path), _peak_memory()
    with open_video(path) as video:
        last = video.num_frames - 1
        assert video.num_frames == (1 if name == "one frame" else NUM_FRAMES)
        assert read_numbers(video.read([last, 0, last])) == [last, 0, last]
    assert examine_video(path).num_frames == last + 1
    assert _peak_memory() - before < MAX_GROWTH


@pytest.mark.parametrize("name", NAMES)
def test_odd_name_is_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h264(tmp_path).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, name):
        with open_video(path) as video:
            assert read_numbers(video.read([7])) == [7]


def test_file_replaced_between_two_reads_is_read_as_it_is_then(tmp_path: Path) -> None:
    path, other = h264(tmp_path), write_textured_video(tmp_path / "other.mp4", num_frames=20)
    with open_video(path) as video:
        other.replace(path)
        assert read_numbers(video.read([30])) == [30]
    with open_video(path) as video:
        assert video.num_frames == 20
    path.write_bytes(b"")
    with pytest.raises(VideoDecodeError, match="an empty file"):
        open_video(path)


ENCODERS = {
    "cabac.mp4": ("libx264", {}),
    "cavlc.mkv": ("libx264", {"coder": "vlc", "bf": "0"}),
    "mpeg4.avi": ("mpeg4", {}),
    "checked.mp4": ("libx265", X265),
    "pictures.avi": ("mjpeg", {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_damage_is_an_error_where_it_matters_and_nowhere_else(name: str, tmp_path: Path) -> None:
    """Frames 20 to 29 are decoded on their own, but for those shown shortly before them;
    frames without times, as in AVI, are counted from the first, and lost from the damage on.
    """
    codec, options = ENCODERS[name]
    whole = write_textured_video(
        tmp_path / name, codec=codec, size=(192, 256), options={"sc_threshold": "0", **options}
    )
    with open_video(whole) as video:
        expected = video.read(range(NUM_FRAMES))
    num_errors = 0
    for seed, packet in enumerate(range(20, 30, 3)):
        bad = damage_packet(whole, tmp_path / f"bad {name}", packet, seed=seed)
        for i in range(NUM_FRAMES):
            try:
                with open_video(bad) as video:
                    frame = video.read([i])[0]
            except VideoDecodeError as error:
                assert error.reason.startswith("damaged: ")  # noqa: PT017
                assert 16 <= i < (NUM_FRAMES if whole.suffix == ".avi" else 30)
                num_errors += 1
            else:
                np.testing.assert_array_equal(frame, expected[i])
        with pytest.raises(VideoDecodeError, match="damaged: "):
            examine_video(bad)
    assert num_errors >= 4


def test_damaged_picture_without_a_decoder_error_is_not_concealed(tmp_path: Path) -> None:
    """Zeros decode to something legal, and the decoder fills in what is missing then."""
    whole = write_textured_video(tmp_path / "whole.mp4", size=(192, 256))
    assert examine_video(whole).num_frames == NUM_FRAMES
    place, size = packet_places(whole)[1]
    bad = patch(whole, tmp_path / "bad.mp4", {place + size // 4: bytes(size // 3)})
    with pytest.raises(VideoDecodeError, match="damaged: "), open_video(bad) as video:
        video.read(range(10))


@pytest.mark.parametrize(
    ("decode_limits", "reason"),
    [
        (DecodeLimits(num_packets=39), "^more than 39 packets to read$"),
        (DecodeLimits(num_pixels=64 * 64 * 2), "^more than 8192 pixels to decode$"),
        (DecodeLimits(frame_pixels=64 * 64 - 1), "pixels$"),
        (DecodeLimits(time_s=1e-9), "^took longer than 1e-09 s$"),
    ],
)
def test_work_above_the_decode_limits_is_an_error_that_says_so(
    decode_limits: DecodeLimits, reason: str, tmp_path: Path
) -> None:
    path = h264(tmp_path)
    with (
        pytest.raises(VideoDecodeError) as caught,
        open_video(path, decode_limits=decode_limits) as video,
    ):
        video.read(range(10))
    assert _matches(reason, caught.value.reason), caught.value.reason
    with pytest.raises(VideoDecodeError):
        examine_video(path, decode_limits)


@pytest.mark.parametrize("make", [h264, fragments, webm, avi])
def test_whole_file_promises_no_more_than_there_is(make: Maker, tmp_path: Path) -> None:
    path = make(tmp_path)
    with path.open("rb") as file:
        promised = promised_size(file)
    assert promised is not None
    assert 0.5 * path.stat().st_size < promised <= path.stat().st_size


def test_broadcast_that_lost_a_packet_is_damaged_there(tmp_path: Path) -> None:
    whole = write_textured_video(tmp_path / "whole.ts", size=(192, 256))
    place, lost = packet_places(whole)[35][0] + 188, tmp_path / "lost.ts"
    content = whole.read_bytes()
    lost.write_bytes(content[:place] + content[place + 188 :])
    with open_video(lost) as video, open_video(whole) as intact:
        assert video.num_frames == NUM_FRAMES
        np.testing.assert_array_equal(video.read(range(20)), intact.read(range(20)))
        with pytest.raises(VideoDecodeError, match="damaged: a packet is not whole"):
            video.read(range(30, NUM_FRAMES))


def test_reader_that_met_damage_stays_failed(tmp_path: Path) -> None:
    """Else, the second time, HEVC gives frames that refer to what it could not decode."""
    whole = write_textured_video(
        tmp_path / "whole.mp4", codec="libx265", size=(192, 256), options=X265
    )
    with open_video(damage_packet(whole, tmp_path / "bad.mp4", 20)) as video:
        for frame in (20, 21, 22):
            with pytest.raises(VideoDecodeError, match="damaged: "):
                video.read([frame])


def test_nothing_stays_open(tmp_path: Path) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system does not list open files")
    good, before = h264(tmp_path), None
    sound, short = write_sound(tmp_path / "s.mp4"), shortened(index_first, 0.5)(tmp_path)
    bad = damage_packet(good, tmp_path / "damaged.mp4", 25)
    for _ in range(3):
        with open_video(good) as video:
            video.read([3])
        next(iterate_frames(good))
        for path in (sound, short, bad, tmp_path / "missing.mp4"):
            with pytest.raises(VideoDecodeError):
                examine_video(path)
        now = len(os.listdir("/proc/self/fd"))
        before = before or now
    assert now == before


class ListSource:
    """A manifest that needs no list."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def read(self, class_names: object = None) -> Manifest:
        return self.manifest


class Counter(pl.LightningModule):
    """The smallest model: it sees which videos arrive."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

    def training_step(self, batch: object, batch_idx: int) -> torch.Tensor:
        return self.weight * 0

    def test_step(self, batch: object, batch_idx: int) -> None:
        self.seen += batch.video_index.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def zoo(tmp_path: Path) -> Manifest:
    """One video of each broken kind at even places, a good one at odd places."""
    good, paths = h264(tmp_path), []
    for i, (name, (make, _)) in enumerate(UNREADABLE.items()):
        folder = tmp_path / f"{i}"
        folder.mkdir()
        if name not in ("no permission", "8K frame"):
            paths += [make(folder), good]
    return make_manifest(tmp_path, paths)


@pytest.mark.slow
def test_whole_run_lists_every_broken_file_once(
    zoo: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, model = make_data(zoo, max_unreadable_fraction=1.0), Counter()
    with caplog.at_level(logging.WARNING, "video_mvit"):
        make_trainer(tmp_path).fit(model, datamodule=data)
        make_trainer(tmp_path).test(model, datamodule=data, verbose=False)
    broken = set(range(0, len(zoo), 2))
    assert model.seen == list(range(1, len(zoo), 2))
    assert set(data.unreadable["train"]) == set(data.unreadable["test"]) == broken
    for split, effect in (
        ("train", "replaced by another sample"),
        ("test", "excluded from the result"),
    ):
        told = [r.getMessage() for r in caplog.records if r.getMessage().endswith(effect)]
        assert len(told) == len(broken)
        for index, reason in data.unreadable[split].items():
            assert sum(f"{zoo.path(index)}: {reason}; " in line for line in told) == 1


def test_run_stops_above_the_stated_share(zoo: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"training videos are unreadable so far, more than"):
        make_trainer(tmp_path).fit(
            Counter(), datamodule=make_data(zoo, max_unreadable_fraction=0.1)
        )


def make_manifest(root: Path, paths: list[Path]) -> Manifest:
    return Manifest(
        root=str(root),
        names=PackedStrings.of(os.path.relpath(path, root) for path in paths),
        labels=np.arange(len(paths), dtype=np.int32) % 2,
        class_names=("a", "b"),
    )


def make_data(manifest: Manifest, *, max_unreadable_fraction: float) -> VideoDataModule:
    source = ListSource(manifest)
    return VideoDataModule(
        train=Split(source=source, pipeline=TRAIN, batch_size=2),
        val=Split(source=source, pipeline=TEST, batch_size=2),
        test=Split(source=source, pipeline=TEST, batch_size=2),
        num_classes=2,
        loader=LoaderConfig(num_workers=0, max_unreadable_fraction=max_unreadable_fraction),
    )


def make_trainer(folder: Path) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        use_distributed_sampler=False,
    )


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def _peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
