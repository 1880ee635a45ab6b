"""Transcode the videos of a list in several processes; a started job resumes.

A report of JSON lines holds a summary, then each failed video with its reason.
"""

import contextlib
import errno
import json
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

import av

from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.preparation.scan_report import own_name, size_text, stamp_of
from video_mvit.data.preparation.transcode import TranscodeSpec, transcode
from video_mvit.data.preparation.worker_pool import WorkerCrashed, WorkerTimedOut, map_in_processes
from video_mvit.data.reading.formats import VIDEO_SUFFIXES
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError
from video_mvit.errors import UserError
from video_mvit.files import temporary_path
from video_mvit.schema import MismatchError, parse_json

SUFFIX = ".mp4"
NUM_SHOWN = 5  # bad videos in a summary
MAX_HEADER = 2**16  # bytes of the header of a report
# Wall time per time limit: encoding is most of the work, and the machine may be busy. With 600 s,
# an hour of video is written in real time.
TIME_FACTOR = 6.0


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
