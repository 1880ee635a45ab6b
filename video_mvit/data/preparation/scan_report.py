"""Scan reports: what decoding all videos of a list showed, kept in a file.

A scan report is a file of JSON lines: a header that identifies the list, then one record per video,
in the order they were read. It is appended to as results arrive, so that an interrupted scan
resumes. Records are found by the video's name in the manifest (in shards: its own name).
"""

import contextlib
import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple, TextIO

from video_mvit.data.frame_clock import describe_rate
from video_mvit.data.lists.manifest import SHARD_PLACE, Manifest
from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.header_index import MAX_FINGERPRINT, UNKNOWN
from video_mvit.data.reading.segments import segment_at
from video_mvit.errors import MissingFileError, UserError
from video_mvit.files import move_into_place, temporary_path
from video_mvit.schema import (
    MAX_INT64,
    Check,
    MismatchError,
    number,
    one_of,
    optional,
    parse_json,
    record,
    text,
    whole,
)

MAX_COUNT = 2**31
MAX_DIGEST = 64  # characters of a digest or the name of a codec
HEADER = record(
    {
        "list_sha1": text(MAX_DIGEST),
        "num_videos": whole(),
        "num_missing": whole(),
        "root": text(),
    }
)
RECORD = record(
    {
        "name": text(),
        "size": whole(),
        "mtime_ns": whole(-MAX_INT64),
        "num_frames": whole(0, MAX_COUNT),
        "fps": number(0, MAX_COUNT),
        "is_variable": one_of(*(False, True)),
        "duration_s": number(0, MAX_COUNT),
        "height": whole(0, MAX_COUNT),
        "width": whole(0, MAX_COUNT),
        "codec": text(MAX_DIGEST),
        "num_key_frames": whole(0, MAX_COUNT),
        "fingerprint": whole(UNKNOWN, MAX_FINGERPRINT),
        "error": optional(text()),
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScannedVideo:
    """One video: `size` in bytes and `mtime_ns` of its file, and what decoding all of it showed.

    `fingerprint` is of its index of packets (see `header_index`). `error` is the reason if it is
    unreadable; the numbers are 0 then.
    """

    name: str
    size: int
    mtime_ns: int
    num_frames: int = 0
    fps: float = 0.0
    is_variable: bool = False
    duration_s: float = 0.0
    height: int = 0
    width: int = 0
    codec: str = ""
    num_key_frames: int = 0
    fingerprint: int = UNKNOWN
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScanReport:
    """Records by name, for the list with digest `list_sha1` of `num_videos` below `root`.

    `num_missing` more videos are listed, but not on disk.
    """

    list_sha1: str
    num_videos: int
    num_missing: int
    root: str
    records: Mapping[str, ScannedVideo]

    def unreadable(self) -> dict[str, str]:
        """Return the reasons of unreadable videos, by name."""
        return {name: each.error for name, each in self.records.items() if each.error}

    def summary(self) -> list[str]:
        """Summarize number, size and properties of the videos in lines."""
        good = [each for each in self.records.values() if each.error is None]
        num_bad = len(self.records) - len(good)
        num_bytes = sum(each.size for each in self.records.values())
        lines = [
            f"{len(self.records):,} videos, {size_text(num_bytes)}, {num_bad:,} unreadable, "
            f"{self.num_missing:,} missing"
        ]
        if good:
            minutes = sum(each.duration_s for each in good) / 60
            length = f"{minutes / 60:,.1f} hours" if minutes >= 60 else f"{minutes:.1f} minutes"
            num_frames = sum(each.num_frames for each in good)
            gop = num_frames / max(sum(each.num_key_frames for each in good), 1)
            lines += [
                f"{length}, {num_frames:,} frames, a key frame every {gop:.0f}",
                describe_mix(
                    describe_rate(each.fps, is_variable=each.is_variable) for each in good
                ),
                describe_mix(f"{each.width}x{each.height}" for each in good),
                describe_mix(each.codec for each in good),
            ]
        return lines


class Stamp(NamedTuple):
    """Size and modification time of a file, to detect changes; None without a time."""

    size: int
    mtime_ns: int | None


def size_text(num_bytes: int) -> str:
    """Format a size in MB or GB."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"


def own_name(name: str) -> str:
    """Return the name of a video in its list, without its place in a shard."""
    return SHARD_PLACE.sub("", name)


def stamp_of(path: str) -> Stamp:
    """Return the stamp of a file, a folder of images, or a member of a shard.

    Raises `OSError` if it does not exist.
    """
    if member := SHARD_PLACE.match(path):
        return Stamp(int(member[0][:-1].rpartition("+")[2]), None)
    place = frame_place(path)
    path = path if place is None else place.folder
    status = os.stat(path)
    if place is None:
        return Stamp(status.st_size, status.st_mtime_ns)
    with os.scandir(path) as entries:
        return Stamp(sum(entry.stat().st_size for entry in entries), status.st_mtime_ns)


def stamp_or_none(path: str) -> Stamp | None:
    """Return the stamp of what `stamp_of` takes, or of a part of it; None if it does not exist."""
    segment = segment_at(path)
    try:
        return stamp_of(path if segment is None else segment.path)
    except OSError:
        return None


def is_current(scanned: ScannedVideo, stamp: Stamp) -> bool:
    """Return whether a record is of the file as it is now."""
    return scanned.size == stamp.size and stamp.mtime_ns in (None, scanned.mtime_ns)


def find_scan_report(path: Path) -> Path:
    """Return the path of a scan report, or of version 0.1's if only that exists."""
    old = path.with_name(f"{path.name.removesuffix('.scan.jsonl')}.ledger.jsonl")
    return old if old.is_file() and not path.exists() else path


def read_scan_report(path: str | Path) -> ScanReport:
    """Read a scan report.

    An incomplete last line is skipped; of two records, the later one counts. Raises
    `FileNotFoundError`, or `UserError` with the line that is damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the scan report that mode=scan writes")
    if not path.is_file():
        raise MissingFileError(f"no scan report {path}; video-mvit prepare mode=scan writes it")
    lines = path.read_bytes().split(b"\n")[:-1]  # drop an incomplete last line
    header = _parse(path, 1, lines[0] if lines else b"", HEADER)
    records: dict[str, ScannedVideo] = {}
    for line_number, line in enumerate(lines[1:], start=2):
        scanned = ScannedVideo(**_parse(path, line_number, line, _check_record))
        records[scanned.name] = scanned
    return ScanReport(**header, records=records)


@contextlib.contextmanager
def append_to(
    path: Path, manifest: Manifest, known: Mapping[str, ScannedVideo]
) -> Iterator[TextIO]:
    """Rewrite a scan report with header and known records, and keep it open for appending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = temporary_path(path)
    with contextlib.ExitStack() as stack:
        if path.exists():
            _lock(stack.enter_context(path.open("rb")), path)
        file = stack.enter_context(part.open("w", encoding="utf-8"))
        _lock(file, path)
        stack.callback(part.unlink, missing_ok=True)  # if it could not be replaced
        write_lines(file, [header_of(manifest), *map(asdict, known.values())])
        move_into_place(part, path)
        yield file


def header_of(manifest: Manifest) -> dict[str, Any]:
    """Return the header of a scan report of a list."""
    return {
        "list_sha1": manifest.digest(),
        "num_videos": len(manifest),
        "num_missing": len(manifest.missing),
        "root": manifest.root,
    }


def _check_record(value: Any) -> Any:
    """Check a record; older reports have no variable rates, and no fingerprints."""
    absent = {"is_variable": False, "fingerprint": UNKNOWN}
    return RECORD({**absent, **value} if isinstance(value, Mapping) else value)


def _parse(path: Path, line_number: int, line: bytes, check: Check) -> dict[str, Any]:
    try:
        return check(parse_json(line))  # type: ignore[no-any-return]
    except MismatchError as error:
        if line_number == 1:
            raise UserError(f"{path} is not a scan report: its first line is {error}") from None
        raise UserError(
            f"{path} line {line_number} is not a record of a video: {error}; delete the line and "
            "run video-mvit prepare mode=scan again"
        ) from None


def _lock(file: IO[Any], path: Path) -> None:
    """Lock a file against a second scan."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{path} is being written by another scan; wait until it ends") from None


def write_lines(file: TextIO, contents: Iterable[Mapping[str, Any]]) -> None:
    """Append lines to an open scan report."""
    file.writelines(json.dumps(content) + "\n" for content in contents)
    file.flush()


def describe_mix(kinds: Iterable[str]) -> str:
    """Describe the most common values: "30 fps 81 %, 25 fps 12 %, other 7 %"."""
    counts = Counter(kinds)
    total, top = counts.total(), counts.most_common(4)
    if len(counts) > len(top):
        top = [*top[:3], ("other", total - sum(count for _, count in top[:3]))]
    return ", ".join(f"{kind} {_percent(count / total)}" for kind, count in top)


def _percent(share: float) -> str:
    return (
        f"{100 * share:.0f} %"
        if share in (0, 1) or 0.005 <= share < 0.995
        else ("< 1 %" if share < 0.5 else "> 99 %")
    )
