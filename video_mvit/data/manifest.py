"""Which videos a data set has and what they show: a reader for each published form of list.

Files are looked up by listing folders, never opened. A video that is named but not on disk is
listed as missing, never guessed.
"""

import csv
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Videos of one split: `paths[i]` shows `class_names[labels[i]]`; `missing` are not on disk."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)


class ManifestSource(Protocol):
    """Where a manifest comes from.

    Reading raises `ValueError` or `FileNotFoundError` with the file and line that is wrong.
    """

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        """Read it, with the labels in the given order of classes, or sorted by name."""


@dataclass(frozen=True, kw_only=True)
class KineticsSource:
    """A split of Kinetics-400, 600 or 700: the official csv and a folder of videos.

    The csv has the columns `label,youtube_id,time_start,time_end,split`. Files are
    `<folder>/<label>/<youtube_id>_<start>_<end>.mp4` or `<folder>/<youtube_id>_<start>_<end>.mp4`,
    with six-digit seconds.
    """

    manifest: str
    folder: str

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        rows = self._read_rows()
        names = (
            tuple(class_names)
            if class_names is not None
            else tuple(sorted({label for _, label, _ in rows}))
        )
        label_index = {name: i for i, name in enumerate(names)}
        for line, label, _ in rows:
            if label not in label_index:
                raise ValueError(
                    f"{self.manifest} line {line}: label {label!r} is not among the {len(names)} "
                    "classes of the data set"
                )
        wanted = [(label, stem, (f"{label}/{stem}", stem)) for _, label, stem in rows]
        return _find_videos(Path(self.folder), wanted, label_index, names)

    def _read_rows(self) -> list[tuple[int, str, str]]:
        """Line number, label and file stem of every row."""
        path = _existing_file(self.manifest)
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            needed = ("label", "youtube_id", "time_start", "time_end")
            if absent := [name for name in needed if name not in (reader.fieldnames or ())]:
                raise ValueError(
                    f"{path} line 1: no column {', '.join(absent)}; a Kinetics csv has "
                    f"{', '.join(needed)}"
                )
            rows = []
            for row in reader:
                try:
                    start, end = int(row["time_start"]), int(row["time_end"])
                except (TypeError, ValueError):
                    text = ",".join(str(value) for value in row.values())
                    raise ValueError(
                        f"{path} line {reader.line_num}: {text!r} has no whole seconds of start "
                        "and end"
                    ) from None
                rows.append(
                    (reader.line_num, row["label"], f"{row['youtube_id']}_{start:06d}_{end:06d}")
                )
        if not rows:
            raise ValueError(f"{path} lists no videos")
        return rows


@dataclass(frozen=True, kw_only=True)
class SomethingSource:
    """A split of Something-Something v2: the official json files and a folder of `<id>.webm`."""

    labels: str
    manifest: str
    folder: str

    def read(self, class_names: Sequence[str] | None = None) -> Manifest:
        numbers = {str(name): int(number) for name, number in _read_json(self.labels, dict).items()}
        if sorted(numbers.values()) != list(range(len(numbers))):
            raise ValueError(f"{self.labels}: class numbers are not 0 to {len(numbers) - 1}")
        names = tuple(sorted(numbers, key=lambda name: numbers[name]))
        if class_names is not None and tuple(class_names) != names:
            raise ValueError(
                f"{self.labels}: its {len(names)} classes are not the {len(class_names)} classes "
                "of the data set"
            )
        wanted = []
        for entry in _read_json(self.manifest, list):
            label = str(entry.get("template", "")).replace("[", "").replace("]", "")
            if label not in numbers or "id" not in entry:
                raise ValueError(
                    f"{self.manifest}: {entry!r} has no id or no template that {self.labels} knows"
                )
            wanted.append((label, str(entry["id"]), (str(entry["id"]),)))
        return _find_videos(Path(self.folder), wanted, numbers, names)


def _find_videos(
    folder: Path,
    wanted: Sequence[tuple[str, str, tuple[str, ...]]],
    label_index: dict[str, int],
    names: tuple[str, ...],
) -> Manifest:
    """Match (label, name, possible stems) rows with the files that lie below a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder of videos")
    files = (path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    on_disk = {path.relative_to(folder).with_suffix("").as_posix(): path for path in files}
    paths, labels, missing = [], [], []
    for label, name, stems in wanted:
        path = next((on_disk[stem] for stem in stems if stem in on_disk), None)
        if path is None:
            missing.append(name)
        else:
            paths.append(path)
            labels.append(label_index[label])
    if not paths:
        raise FileNotFoundError(
            f"none of the {len(wanted)} listed videos is in {folder}; "
            f"looked for {wanted[0][2][0]}.mp4 first"
        )
    if missing:
        logger.warning(
            "%d of %d listed videos are not in %s, first: %s",
            len(missing),
            len(wanted),
            folder,
            missing[0],
        )
    return Manifest(
        paths=tuple(paths), labels=tuple(labels), class_names=names, missing=tuple(missing)
    )


def _existing_file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it should be the list of videos")
    return path


def _read_json(name: str, kind: type) -> Any:
    path = _existing_file(name)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(content, kind):
        raise ValueError(
            f"{path}: expected a JSON {'object' if kind is dict else 'list'}, "
            f"got {type(content).__name__}"
        )
    return content
