"""Transcoded videos: the same frames at the same times, cheaper to decode, or an error."""

import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import inf
from pathlib import Path

import av
import numpy as np
import pytest
from support.videos import read_numbers, write_numbered_video

from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.preparation.copy_quality import measure_decoding, measure_psnr
from video_mvit.data.preparation.transcode import TranscodeSpec, output_size, transcode
from video_mvit.data.preparation.transcode_job import (
    TranscodeJob,
    TranscodeReport,
    target_names,
    transcode_list,
)
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, iterate_frames, open_video
from video_mvit.data.sampling import ClipSpec, RandomClip

SPEC = TranscodeSpec(short_side=48, gop=8, crf=18, preset="veryfast")
LIMITS = DecodeLimits()


def write_frames(path: Path, times: list[int], pixels: str = "yuv420p", **colours: int) -> Path:
    """Frames that grow brighter to the right and over time, at times in ms."""
    with av.open(str(path), "w") as container:
        codec = "ffv1" if pixels == "bgr0" else "libx264"
        stream = container.add_stream(
            codec, rate=25, options={"crf": "10"} if pixels != "bgr0" else {}
        )
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        for i, time_ms in enumerate(times):
            row = np.linspace(20, 180, 96) + 2 * i
            rgb = np.stack([row, row * 0.7, row * 0.4], -1).astype(np.uint8)
            image = np.ascontiguousarray(np.broadcast_to(rgb, (64, 96, 3)))
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format=pixels,
                dst_colorspace=colours.get("colorspace"),
                dst_color_range=colours.get("color_range"),
            )
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path: Path) -> Path:
    """The same MP4 with the order to show it turned by a quarter, in its track header."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 44
    matrix = (0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    content[place : place + 36] = b"".join(n.to_bytes(4, "big", signed=True) for n in matrix)
    path.write_bytes(content)
    return path


def frames_of(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return video.read(range(video.num_frames))


def test_every_frame_is_there_in_order(tmp_path: Path) -> None:
    source = write_numbered_video(tmp_path / "source.mp4", 50, fps=25)
    assert transcode(str(source), tmp_path / "x/target.mp4", SPEC, LIMITS) == 50
    assert read_numbers(frames_of(tmp_path / "x/target.mp4")) == list(range(50))
    with open_video(tmp_path / "x/target.mp4") as video:
        assert (video.fps, video.size, video.codec) == (25.0, (48, 48), "h264")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["target.mp4"]


def test_key_frames_come_regularly_and_no_frame_waits_for_a_later_one(tmp_path: Path) -> None:
    source = write_numbered_video(tmp_path / "source.mp4", 30)
    transcode(str(source), tmp_path / "target.mp4", SPEC, LIMITS)
    with av.open(str(tmp_path / "target.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    assert [i for i, packet in enumerate(packets) if packet.is_keyframe] == [0, 8, 16, 24]
    assert all(packet.pts == packet.dts for packet in packets)


def test_uneven_times_stay_uneven_and_start_at_zero(tmp_path: Path) -> None:
    times = [300 + 40 * i + 7 * (i % 3) for i in range(20)]
    source = write_frames(tmp_path / "source.mkv", times)
    transcode(str(source), tmp_path / "target.mp4", SPEC, LIMITS)
    found = [float(frame.time) for frame in iterate_frames(tmp_path / "target.mp4")]
    np.testing.assert_allclose(found, [(t - 300) / 1000 for t in times], atol=1e-9)


@pytest.mark.parametrize(
    ("pixels", "colours"),
    [
        ("yuv420p", {}),
        ("yuv420p", {"colorspace": 1}),  # BT.709
        ("yuvj420p", {"color_range": 2}),  # full range
        ("yuv444p", {}),
        ("bgr0", {}),
    ],
)
def test_colours_stay(tmp_path: Path, pixels: str, colours: dict[str, int]) -> None:
    source = write_frames(tmp_path / "source.mkv", [40 * i for i in range(10)], pixels, **colours)
    spec = TranscodeSpec(short_side=64, gop=8, crf=10, preset="veryfast")
    transcode(str(source), tmp_path / "target.mp4", spec, LIMITS)
    before, after = frames_of(source).astype(float), frames_of(tmp_path / "target.mp4")
    assert np.abs(before - after).mean() < 2.5
    assert np.abs((before - after).mean(axis=(0, 1, 2))).max() < 2


def test_turned_video_is_written_upright(tmp_path: Path) -> None:
    source = turned(write_frames(tmp_path / "source.mp4", [40 * i for i in range(10)]))
    before = frames_of(source)
    assert before.shape[1:3] == (96, 64)
    spec = TranscodeSpec(short_side=64, gop=8, crf=10, preset="veryfast")
    transcode(str(source), tmp_path / "target.mp4", spec, LIMITS)
    assert next(iterate_frames(tmp_path / "target.mp4")).rotation == 0
    after = frames_of(tmp_path / "target.mp4")
    assert np.abs(before.astype(float) - after).mean() < 2


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((256, 340), 128, (128, 170)),
        ((1080, 1920), 256, (256, 456)),
        ((1920, 1080), 256, (456, 256)),
        ((240, 426), 256, (240, 426)),  # never larger
        ((121, 161), 256, (120, 160)),  # even
        ((1, 1000), 256, (2, 1000)),
    ],
)
def test_output_size_is_even_and_never_larger(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    assert output_size(size, short_side) == expected


def test_damaged_video_leaves_nothing_behind(tmp_path: Path) -> None:
    source = write_numbered_video(tmp_path / "source.mkv", 60)
    content = bytearray(source.read_bytes())
    half = len(content) // 2
    content[half : half + 300] = bytes(300)
    source.write_bytes(content)
    with pytest.raises(VideoDecodeError, match=r"source\.mkv"):
        transcode(str(source), tmp_path / "x/target.mp4", SPEC, LIMITS)
    assert list((tmp_path / "x").iterdir()) == []


def test_frames_that_were_not_written_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from video_mvit.data.preparation import transcode as transcoding

    source = write_numbered_video(tmp_path / "source.mp4", 20)
    whole = iterate_frames
    monkeypatch.setattr(transcoding, "iterate_frames", lambda *a: list(whole(*a))[:15].__iter__())
    with pytest.raises(VideoDecodeError, match="15 of 20 frames were written"):
        transcode(str(source), tmp_path / "target.mp4", SPEC, LIMITS)
    assert not (tmp_path / "target.mp4").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"short_side": 255}, "short_side 255 must be even"),
        ({"gop": 0}, "gop 0 must be positive"),
        ({"crf": 60}, "crf 60 is outside 0 to 51"),
    ],
)
def test_impossible_spec_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TranscodeSpec(**{"short_side": 256, "gop": 12, "crf": 22, "preset": "medium", **values})


def manifest_of(root: Path, *names: str) -> Manifest:
    return Manifest(
        root=str(root),
        names=PackedStrings.of(names),
        labels=np.zeros(len(names), np.int32),
        class_names=("a",),
    )


def test_targets_have_the_name_of_their_source(tmp_path: Path) -> None:
    names = target_names(manifest_of(tmp_path, "a/b.webm", "7", "s.tar!1+2!c/d.AVI", "v1.5"))
    assert names == ["a/b.mp4", "7.mp4", "c/d.mp4", "v1.5.mp4"]


def test_targets_of_videos_that_differ_in_suffix_only_keep_apart(tmp_path: Path) -> None:
    names = target_names(manifest_of(tmp_path, "a.webm", "a.mp4", "1.mov", "1.AVI"))
    assert names == ["a.webm.mp4", "a.mp4", "1.mp4", "1.AVI.mp4"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("a.mp4", "a.webm", "a.webm.mp4"),
            r"'a\.webm' and 'a\.webm\.mp4' would both be written to a\.webm\.mp4",
        ),
        (("../a.mp4",), r"'\.\./a\.mp4' is outside"),
        (("/a.mp4",), r"'/a\.mp4' is outside"),
    ],
)
def test_targets_that_would_collide_or_escape_are_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        target_names(manifest_of(tmp_path, *names))


@pytest.fixture
def videos(tmp_path: Path) -> Manifest:
    for i in range(4):
        write_numbered_video(tmp_path / f"in/a/{i}.mkv", 20 + i)
    (tmp_path / "in/a/2.mkv").write_bytes(b"no video")
    return manifest_of(tmp_path / "in", *(f"a/{i}.mkv" for i in range(4)))


def done(manifest: Manifest, folder: Path, **settings: object) -> tuple[TranscodeReport, list[int]]:
    progress: list[int] = []
    values = {"folder": folder, "report": folder / "train.transcode-0-of-1.jsonl", "spec": SPEC}
    job = TranscodeJob(**{**values, "decode_limits": LIMITS, "num_workers": 1, **settings})
    return transcode_list(manifest, job, progress.append), progress


def test_list_goes_on_over_bad_videos_and_again_only_over_what_is_left(
    videos: Manifest, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    report, progress = done(videos, folder)
    assert list(report.bad) == ["a/2.mp4"]
    assert (report.num_written, progress) == (3, [0, 1, 1, 1, 1])
    assert sorted(path.name for path in (folder / "a").iterdir()) == ["0.mp4", "1.mp4", "3.mp4"]
    assert '"name": "a/2.mp4", "error": ' in report.path.read_text().splitlines()[1]
    (folder / "a/1.mp4").unlink()
    (folder / "a/1.mp4.part").touch()
    report, progress = done(videos, folder)
    assert (report.num_written, len(report.pairs), progress) == (1, 3, [2, 1, 1])
    assert not (folder / "a/1.mp4.part").exists()
    sizes = [
        sum(Path(side).stat().st_size for side in part) for part in zip(*report.pairs, strict=True)
    ]
    assert report.num_bytes == tuple(sizes)


def test_parts_of_a_list_are_disjoint_and_whole(videos: Manifest, tmp_path: Path) -> None:
    found = []
    for part in range(2):
        report, _ = done(
            videos,
            tmp_path / "out",
            part=part,
            num_parts=2,
            report=tmp_path / f"out/train.transcode-{part}-of-2.jsonl",
        )
        found.append([target.name for _, target in report.pairs] + list(report.bad))
    assert [sorted(names) for names in found] == [["0.mp4", "a/2.mp4"], ["1.mp4", "3.mp4"]]


def test_copies_of_another_kind_are_not_mixed(videos: Manifest, tmp_path: Path) -> None:
    done(videos.take([0]), tmp_path / "out")
    other = TranscodeSpec(short_side=32, gop=8, crf=18, preset="veryfast")
    with pytest.raises(ValueError, match=r"holds videos written with .*'short_side': 48"):
        done(videos.take([0]), tmp_path / "out", spec=other)


def test_sources_are_not_written_over(videos: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="contains the source videos"):
        done(videos, tmp_path / "in")


def test_part_outside_the_job_is_refused(videos: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part 2 of 2"):
        done(videos, tmp_path / "out", part=2, num_parts=2)


@pytest.mark.slow
def test_measured_times_are_those_of_source_and_target(tmp_path: Path) -> None:
    large = write_numbered_video(tmp_path / "large.mp4", 60, size=(1024, 1024))
    small = write_numbered_video(tmp_path / "small.mp4", 60)
    sampler = RandomClip(clip=ClipSpec(num_frames=8, frame_stride=2))
    before_s, after_s = measure_decoding([(str(large), small)] * 2, sampler)
    assert before_s > 1.5 * after_s > 0
    before_s, after_s = measure_decoding([(str(small), large)] * 2, sampler)
    assert after_s > 1.5 * before_s > 0


def test_copy_of_key_frames_alone_has_every_frame_at_its_place(tmp_path: Path) -> None:
    source = write_numbered_video(tmp_path / "source.mp4", 30)
    target = tmp_path / "intra.mp4"
    transcode(str(source), target, replace(SPEC, gop=1), LIMITS)
    with av.open(str(target)) as container:
        assert all(p.is_keyframe for p in container.demux(video=0) if p.size)
    with open_video(target) as video:
        assert read_numbers(video.read([29, 3, 17])) == [29, 3, 17]


def test_psnr_falls_with_quality_and_is_infinite_for_the_same_file(tmp_path: Path) -> None:
    source = write_frames(tmp_path / "source.mp4", [40 * i for i in range(30)])
    decibels = []
    for crf in (10, 40):
        target = tmp_path / f"{crf}.mp4"
        transcode(str(source), target, replace(SPEC, gop=1, crf=crf), LIMITS)
        decibels.append(measure_psnr([(str(source), target)]))
    assert 90 > decibels[0] > decibels[1] + 5 > 15
    assert measure_psnr([(str(source), source)]) == inf


def test_time_of_encoding_is_not_counted_as_time_of_reading(tmp_path: Path) -> None:
    source = write_numbered_video(tmp_path / "source.mp4", 70)
    assert transcode(str(source), tmp_path / "target.mp4", SPEC, DecodeLimits(time_s=1e-6)) == 70


@pytest.mark.slow
def test_video_that_takes_too_long_is_bad_and_leaves_nothing(tmp_path: Path) -> None:
    write_numbered_video(tmp_path / "in/long.mp4", 250, size=(512, 512))
    decode_limits = DecodeLimits(time_s=0.01)
    report, _ = done(
        manifest_of(tmp_path / "in", "long.mp4"), tmp_path / "out", decode_limits=decode_limits
    )
    said = "took longer than 0.06 s to transcode; decode_limits.time_s=0.02 allows twice as much"
    assert report.bad == {"long.mp4": said}
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".jsonl"]


def work_here(
    work: Callable[[object], object], items: Sequence[object], **_: object
) -> Iterator[tuple[object, object]]:
    """The work of `map_in_processes`, in this process."""
    return ((item, work(item)) for item in items)


def test_full_folder_ends_the_job_and_leaves_no_half_of_a_file(
    videos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from video_mvit.data.preparation import transcode_job

    monkeypatch.setattr(transcode_job, "map_in_processes", work_here)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # fails like a full disk
    try:
        with pytest.raises(ValueError, match=r"out is full: File too large; free some space and"):
            done(videos, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out/a").iterdir()) == []


def test_job_that_is_stopped_leaves_no_half_of_a_file(videos: Manifest, tmp_path: Path) -> None:
    halves = [tmp_path / f"out/a/{i}.mp4.part" for i in range(2)]

    def stop(num_videos: int) -> None:
        if num_videos:
            halves[1].touch()
            raise KeyboardInterrupt

    job = {"folder": tmp_path / "out", "report": tmp_path / "out/r.jsonl", "spec": SPEC}
    with pytest.raises(KeyboardInterrupt):
        transcode_list(videos, TranscodeJob(**job, decode_limits=LIMITS, num_workers=1), stop)
    assert not any(path.exists() for path in halves)


def test_copy_of_a_variable_rate_has_its_clock(tmp_path: Path) -> None:
    times = [300 + 33 * i + (500 + 140 * (i - 20)) * (i >= 20) for i in range(40)]
    source = write_frames(tmp_path / "source.mkv", times)
    transcode(str(source), tmp_path / "target.mp4", SPEC, LIMITS)
    with open_video(source) as before, open_video(tmp_path / "target.mp4") as after:
        assert before.clock.is_variable
        assert after.clock.times_s is not None
        expected = before.clock.times_s[:-1]
        np.testing.assert_allclose(after.clock.times_s[:-1], expected, atol=1e-4)
        assert after.clock.duration_s == pytest.approx(before.clock.duration_s, abs=0.01)


def test_copy_of_joined_recordings_is_at_their_rate(tmp_path: Path) -> None:
    part = write_numbered_video(tmp_path / "part.ts", 30).read_bytes()
    (tmp_path / "joined.ts").write_bytes(part + part)
    transcode(str(tmp_path / "joined.ts"), tmp_path / "target.mp4", SPEC, LIMITS)
    with open_video(tmp_path / "target.mp4") as video:
        assert (video.num_frames, video.fps, video.clock.times_s) == (60, 30.0, None)
        assert read_numbers(video.read(range(60))) == [*range(30), *range(30)]
