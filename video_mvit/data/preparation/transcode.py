"""Transcode videos so that decoding a random clip is cheap.

Smaller frames, short key frame intervals, no B-frames and simple entropy coding: less work per
frame, and fewer unneeded frames. Every frame keeps its time.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from math import ceil, inf, log10
from pathlib import Path
from typing import NamedTuple, TextIO

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import Colorspace, Interpolation
from numpy.typing import NDArray

from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.preparation.scan import own_name, size_text, stamp_of
from video_mvit.data.preparation.worker_pool import WorkerCrashed, WorkerTimedOut, map_in_processes
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, iterate_frames, open_video
from video_mvit.data.reading.orientation import (
    UPRIGHT,
    Orientation,
    orientation_of,
    turn_upright,
)
from video_mvit.data.sampling import ClipSampler
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically, temporary_path
from video_mvit.schema import MismatchError, parse_json

SUFFIX, PIXELS = ".mp4", "yuv420p"
NUM_SHOWN = 5  # bad videos in a summary
MAX_HEADER = 2**16  # bytes of the header of a report
NUM_MEASURED, CLIPS_MEASURED = 16, 3  # videos, and clips of each
FIRST_COMPARED, LAST_COMPARED, EVERY_COMPARED = 0, 61, 20  # frames whose PSNR is measured
FINEST_TICK = Fraction(1, 90_000)  # seconds; the clock of MPEG
# Wall time per time limit: encoding is most of the work, and the machine may be busy. With 600 s,
# an hour of video is written in real time.
TIME_FACTOR = 6.0


@dataclass(frozen=True, kw_only=True)
class TranscodeSpec:
    """Encoder settings: short side in pixels, key frame interval, x264's `crf` and preset.

    A lower `crf` gives higher quality and larger files. Raises `UserError` for impossible values.
    """

    short_side: int
    gop: int
    crf: int
    preset: str

    def __post_init__(self) -> None:
        if self.short_side < 2 or self.short_side % 2:
            raise UserError(f"short_side {self.short_side} must be even and positive")
        if self.gop < 1:
            raise UserError(f"gop {self.gop} must be positive")
        if not 0 <= self.crf <= 51:
            raise UserError(f"crf {self.crf} is outside 0 to 51")

    @property
    def options(self) -> dict[str, str]:
        """Return x264's options: no B-frames, no arithmetic coding, no deblocking."""
        gop = str(self.gop)
        return {
            "preset": self.preset,
            "tune": "fastdecode",
            "crf": str(self.crf),
            "bf": "0",
            "g": gop,
            "keyint_min": gop,
            "sc_threshold": "0",
        }


def output_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return an even (H, W) with this short side and the same aspect; never larger than before."""
    scale = min(short_side / min(size), 1.0)
    height, width = (max(2, 2 * round(side * scale / 2)) for side in size)
    return height, width


def transcode(source: str, target: Path, spec: TranscodeSpec, decode_limits: DecodeLimits) -> int:
    """Transcode a video, all frames upright at their times; returns the number of frames.

    The target appears complete or not at all. The time limit does not apply, since encoding runs in
    the thread of decoding; the caller limits it. Raises `VideoDecodeError` for a bad source,
    `OSError` if the target cannot be written.
    """
    decode_limits = replace(decode_limits, time_s=inf)
    with open_video(source, decode_limits=decode_limits) as video:
        clock = video.clock
    target.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(target) as temporary:
        _encode(iterate_frames(source, decode_limits), temporary, spec, clock)
        num_written = _count_packets(temporary)
        if num_written != clock.num_frames:
            raise VideoDecodeError(
                source, f"{num_written} of {clock.num_frames} frames were written"
            )
    return num_written


def _encode(
    frames: Iterator[av.VideoFrame], path: Path, spec: TranscodeSpec, clock: FrameClock
) -> None:
    """Encode frames into a file, the first one at time 0."""
    first = next(frames)
    tick = _fine_tick(first.time_base or FINEST_TICK)
    with av.open(str(path), "w", format="mp4") as container:
        rate = Fraction(clock.fps).limit_denominator(1001)  # 30000/1001 and the like
        stream = container.add_stream("libx264", rate=rate, options=spec.options)
        for number, (picture, ticks) in enumerate(_timed(chain([first], frames), tick, clock)):
            image = _shrink(picture, spec.short_side)
            if number == 0:
                context = stream.codec_context
                context.width, context.height, context.pix_fmt = image.width, image.height, PIXELS
                context.thread_count, context.time_base = 1, tick
                context.color_range, context.colorspace = image.color_range, image.colorspace
            elif (image.width, image.height) != (context.width, context.height):
                image = image.reformat(context.width, context.height)
            image.pts, image.time_base = ticks, tick
            image.pict_type = PictureType.NONE  # let the encoder choose the frame type
            container.mux(stream.encode(image))
        rest = stream.encode(None)
        if clock.is_variable and rest:
            last_s = clock.duration_s - clock.time_s(clock.num_frames - 1)
            rest[-1].duration = round(last_s / float(tick))
        container.mux(rest)


def _fine_tick(time_base: Fraction) -> Fraction:
    """Return a unit fraction of a time base, fine enough to shift a frame invisibly."""
    return time_base / ceil(time_base / FINEST_TICK)


def _timed(
    frames: Iterable[av.VideoFrame], tick: Fraction, clock: FrameClock
) -> Iterator[tuple[av.VideoFrame, int]]:
    """Yield frames with strictly increasing times in ticks from the first one.

    A frame without a time follows one frame after the previous one. The last frames of a decoder
    may lack a time base: it is that of the others.
    """
    ticks, start, base, step = 0, None, None, round(1 / (clock.fps * float(tick)))
    for number, picture in enumerate(frames):
        following = ticks + step if number else 0
        base = picture.time_base or base
        if clock.is_variable:
            ticks = max(round(clock.time_s(number) / float(tick)), ticks + 1 if number else 0)
        elif picture.pts is None or base is None:
            ticks = following
        else:
            shown = round(picture.pts * base / tick)
            start = shown - following if start is None else start
            ticks = max(shown - start, ticks + 1 if number else 0)
        yield picture, ticks


def _shrink(picture: av.VideoFrame, short_side: int) -> av.VideoFrame:
    """Convert a frame to the output size and pixel format, upright, with its colours."""
    height, width = output_size((picture.height, picture.width), short_side)
    is_rgb = picture.format.is_rgb
    image = picture.reformat(
        width,
        height,
        PIXELS,
        dst_colorspace=Colorspace.ITU601 if is_rgb else None,
        interpolation=Interpolation.AREA,
        threads=1,
    )
    return _upright(image, orientation_of(picture))


def _upright(image: av.VideoFrame, orientation: Orientation) -> av.VideoFrame:
    """Turn the three planes of a frame, without conversion to RGB."""
    if orientation == UPRIGHT:
        return image
    height, width = image.height, image.width
    planes = np.split(image.to_ndarray(), [height, height + height // 4])
    shapes = [(height, width), (height // 2, width // 2), (height // 2, width // 2)]
    turned = [
        turn_upright(plane.reshape(shape), orientation)
        for plane, shape in zip(planes, shapes, strict=True)
    ]
    packed = np.concatenate([plane.reshape(-1, turned[0].shape[1]) for plane in turned])
    upright = av.VideoFrame.from_ndarray(np.ascontiguousarray(packed), format=PIXELS)
    upright.color_range, upright.colorspace = image.color_range, image.colorspace
    return upright


def _count_packets(path: Path) -> int:
    with av.open(f"file:{path}", format="mp4") as container:
        return sum(packet.size > 0 for packet in container.demux(video=0))


class Outcome(NamedTuple):
    """Result of one video: bytes before and after, or the reason of a failure."""

    name: str
    num_bytes: tuple[int, int] = (0, 0)
    error: str | None = None
    is_folder_full: bool = False


class _Task(NamedTuple):
    name: str
    source: str
    target: Path


@dataclass(frozen=True, kw_only=True)
class TranscodeJob:
    """Output folder and settings of a job. Video `i` belongs to part `i` modulo `num_parts`.

    `report` is a file of JSON lines: a summary, then each failed video with its reason.
    """

    folder: Path
    report: Path
    spec: TranscodeSpec
    decode_limits: DecodeLimits
    num_workers: int
    part: int = 0
    num_parts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.part < self.num_parts:
            raise UserError(f"part {self.part} of {self.num_parts} is none of 0/n to n-1/n")


@dataclass(frozen=True, kw_only=True)
class TranscodeReport:
    """Counts of a job; `pairs` are (source, target) of the videos that exist now."""

    num_written: int
    num_bytes: tuple[int, int]
    bad: dict[str, str]
    pairs: list[tuple[str, Path]]
    path: Path

    def summary(self) -> list[str]:
        """Summarize videos, sizes and failures in lines."""
        num_there = len(self.pairs) - self.num_written
        before, after = map(size_text, self.num_bytes)
        lines = [
            f"{self.num_written:,} videos written, {num_there:,} were there, {len(self.bad):,} bad",
            f"{before} became {after}",
        ]
        lines += [f"bad: {name}: {error}" for name, error in islice(self.bad.items(), NUM_SHOWN)]
        if len(self.bad) > NUM_SHOWN:
            lines.append(f"and {len(self.bad) - NUM_SHOWN:,} more, all in {self.path}")
        return lines


def target_names(manifest: Manifest) -> list[str]:
    """Return the names with suffix .mp4; raises `UserError` if two coincide.

    Of videos that differ in the suffix only, the first becomes `1.mp4`, the others `1.mov.mp4`.
    """
    sources: dict[str, str] = {}
    originals = set(map(own_name, manifest.names))
    for name in map(own_name, manifest.names):
        stem, suffix = os.path.splitext(name)
        target = (stem if suffix.lower() in VIDEO_SUFFIXES else name) + SUFFIX
        if target != name and (target in originals or target in sources):
            target = name + SUFFIX
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise UserError(f"{name!r} is outside {manifest.root}; use a list of names below it")
        if target in sources:
            raise UserError(f"{sources[target]!r} and {name!r} would both be written to {target}")
        sources[target] = name
    return list(sources)


def transcode_list(
    manifest: Manifest, job: TranscodeJob, on_progress: Callable[[int], None]
) -> TranscodeReport:
    """Transcode the missing videos of one part of a list.

    `on_progress` receives the number of finished videos, first those of earlier runs. A bad video
    does not stop the job. Raises `UserError` if the job does not match the list or the folder, or
    the disk is full.
    """
    _check_folder(manifest, job)
    names = target_names(manifest)
    chosen = range(job.part, len(manifest), job.num_parts)
    tasks = [_Task(names[i], manifest.path(i), job.folder / names[i]) for i in chosen]
    done = [task for task in tasks if task.target.exists()]
    todo = [task for task in tasks if not task.target.exists()]
    on_progress(len(done))
    bad: dict[str, str] = {}
    num_bytes = [sum(sizes) for sizes in zip((0, 0), *map(_sizes, done), strict=True)]
    with _report_to(job, manifest) as file, contextlib.closing(_outcomes(todo, job)) as outcomes:
        for task, outcome in outcomes:
            if outcome.is_folder_full:
                raise UserError(
                    f"{job.folder} is full: {outcome.error}; free some space and start again to "
                    "resume"
                )
            if outcome.error is not None:
                bad[task.name] = outcome.error
                file.write(json.dumps({"name": task.name, "error": outcome.error}) + "\n")
                file.flush()
            else:
                done.append(task)
                num_bytes = [n + size for n, size in zip(num_bytes, outcome.num_bytes, strict=True)]
            on_progress(1)
    return TranscodeReport(
        num_written=len(todo) - len(bad),
        num_bytes=(num_bytes[0], num_bytes[1]),
        bad=bad,
        pairs=[(task.source, task.target) for task in done],
        path=job.report,
    )


def _outcomes(
    todo: Sequence[_Task], job: TranscodeJob
) -> Generator[tuple[_Task, Outcome], None, None]:
    """Yield the outcome of each video as it arrives, and remove partial files at any exit."""
    finished: set[_Task] = set()
    num_over = 0
    results = map_in_processes(
        partial(_transcode_task, spec=job.spec, decode_limits=job.decode_limits),
        todo,
        num_workers=job.num_workers,
        time_limit_s=job.decode_limits.time_s * TIME_FACTOR,
    )
    try:
        with contextlib.closing(results):
            for task, result in results:
                num_over += 1
                if isinstance(result, WorkerCrashed):
                    yield task, Outcome(task.name, error=_reason_of_loss(result, job.decode_limits))
                else:
                    finished.add(task)
                    yield task, result
    finally:  # videos start in order, one per process
        for task in todo[: num_over + job.num_workers]:
            if task not in finished:
                temporary_path(task.target).unlink(missing_ok=True)


def _reason_of_loss(lost: WorkerCrashed, decode_limits: DecodeLimits) -> str:
    if not isinstance(lost, WorkerTimedOut):
        return lost.reason
    twice = f"decode_limits.time_s={2 * decode_limits.time_s:g} allows twice as much"
    return f"{lost.reason} to transcode; {twice}"


def measure_decoding(
    pairs: Sequence[tuple[str, Path]], sampler: ClipSampler, seed: int = 0
) -> tuple[float, float]:
    """Measure CPU seconds per random clip of some sources and their targets, interleaved."""
    generator, seconds, num_clips = np.random.default_rng(seed), [0.0, 0.0], 0
    step = max(len(pairs) // NUM_MEASURED, 1)
    for pair in pairs[::step][:NUM_MEASURED]:
        with open_video(pair[0]) as video:
            clips = [sampler(video.clock, generator)[0] for _ in range(CLIPS_MEASURED)]
        for clip in clips:
            num_clips += 1
            for side, path in enumerate(map(str, pair)):
                start_s = time.process_time()
                with open_video(path) as video:
                    video.read(clip)
                seconds[side] += time.process_time() - start_s
    return seconds[0] / max(num_clips, 1), seconds[1] / max(num_clips, 1)


def measure_psnr(pairs: Sequence[tuple[str, Path]]) -> float:
    """Measure the PSNR of luma in dB over some frames of some targets and their sources.

    The sources are shrunk as for the targets; infinite for equal frames.
    """
    step = max(len(pairs) // NUM_MEASURED, 1)
    errors: list[float] = []
    for source, target in pairs[::step][:NUM_MEASURED]:
        frames = zip(iterate_frames(source), iterate_frames(target), strict=False)
        for before, after in islice(frames, FIRST_COMPARED, LAST_COMPARED, EVERY_COMPARED):
            wanted = _luma(_shrink(before, min(after.height, after.width)))
            found = _luma(after)
            if wanted.shape == found.shape:
                errors.append(float(np.square(wanted - found).mean()))
    mean = sum(errors) / max(len(errors), 1)
    return 10 * log10(255**2 / mean) if mean else inf


def _luma(picture: av.VideoFrame) -> NDArray[np.float32]:
    """Return the brightness of a planar frame: (H, W)."""
    return picture.to_ndarray()[: picture.height].astype(np.float32)


def _transcode_task(task: _Task, spec: TranscodeSpec, decode_limits: DecodeLimits) -> Outcome:
    try:
        transcode(task.source, task.target, spec, decode_limits)
    except VideoDecodeError as error:
        return Outcome(task.name, error=error.reason)
    except (OSError, av.FFmpegError) as error:  # raised by the writer
        is_folder_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = error.strerror or str(error)
        return Outcome(task.name, error=reason, is_folder_full=is_folder_full)
    return Outcome(task.name, _sizes(task))


def _sizes(task: _Task) -> tuple[int, int]:
    return stamp_of(task.source).size, task.target.stat().st_size


def _check_folder(manifest: Manifest, job: TranscodeJob) -> None:
    """Raise `UserError` if targets would overwrite sources, or mix with other settings."""
    if job.folder.resolve() == Path(manifest.root).resolve():
        raise UserError(f"output {job.folder} contains the source videos; choose another folder")
    for path in job.report.parent.glob("*.transcode-*.jsonl"):
        with path.open("rb") as file:
            spec = _spec_of(path, file.readline(MAX_HEADER))
        if spec != asdict(job.spec):
            raise UserError(
                f"{path.parent} holds videos written with {spec}, not {asdict(job.spec)}; choose "
                "another output"
            )


def _spec_of(path: Path, header: bytes) -> object:
    """Read the settings of an earlier job from the header of its report; None without one."""
    try:
        content = parse_json(header or b"{}")
    except MismatchError as error:
        raise UserError(
            f"{path} is not a report of mode=transcode: its first line is {error}; remove it if "
            f"the videos in {path.parent} have the same settings"
        ) from None
    return content.get("spec") if isinstance(content, dict) else None


@contextlib.contextmanager
def _report_to(job: TranscodeJob, manifest: Manifest) -> Iterator[TextIO]:
    job.report.parent.mkdir(parents=True, exist_ok=True)
    header = {"list_sha1": manifest.digest(), "root": manifest.root, "spec": asdict(job.spec)}
    with job.report.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        file.flush()
        yield file
