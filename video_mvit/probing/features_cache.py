"""Features of videos on disk: written in parts, resumed after a kill, read back bit for bit.

A cache has a folder for each combination of weights and protocol, whose settings are in it. A video
is known by its `identity`, so that one that was replaced is read again. The inputs of the head are
float32; tokens are float16, half their size, and are always used as they were stored: a second run
computes with the same numbers as the first.

Letters: B videos; V views of each; N tokens of a view; C channels.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from video_mvit.data.reading.frame_names import frame_place
from video_mvit.data.reading.segments import segment_at
from video_mvit.data.reading.tar_members import PLACE
from video_mvit.errors import UserError
from video_mvit.files import check_room, clear_leftovers, replace_atomically
from video_mvit.schema import MismatchError, anything, parse_json, sequence, table, text

SETTINGS = "settings.json"
PART_S = 10.0  # seconds of work that a kill may lose
PART_BYTES = 2**28  # of one file
MAX_SETTINGS_BYTES = 2**20
FEATURES, TOKENS = "features", "tokens"
DTYPES = {FEATURES: ("F32", torch.float32), TOKENS: ("F16", torch.float16)}


class Views(NamedTuple):
    """What is kept of a video: inputs of the head (V, C), and tokens (V, N, C), if they are."""

    features: Tensor
    tokens: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much is kept of each video; `num_tokens` 0 keeps none."""

    num_views: int
    num_tokens: int
    dim: int

    @property
    def num_bytes(self) -> int:
        """Return the bytes of a video."""
        return self.num_views * self.dim * (4 + 2 * self.num_tokens)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of a video."""
        shapes = {FEATURES: (self.num_views, self.dim)}
        if not self.num_tokens:
            return shapes  # type: ignore[return-value]
        return {**shapes, TOKENS: (self.num_views, self.num_tokens, self.dim)}


class FeatureCache:
    """The features of one network and one protocol; the folder must be locked for this process.

    Args:
        root: folder of all caches; this one is in a folder of it, `folder`.
        settings: all that decides the features, in plain JSON values.
    """

    def __init__(self, root: Path, settings: Mapping[str, Any], sizes: Sizes) -> None:
        self.sizes, self._settings = sizes, {**settings, "sizes": vars(sizes)}
        digest = hashlib.sha1(json.dumps(self._settings, sort_keys=True).encode())
        self.folder = root / digest.hexdigest()[:16]
        self._known: dict[str, Views] = {}
        self._new: dict[str, Views] = {}
        self._written_at = time.monotonic()
        self._next = 0

    def open(self) -> None:
        """Read what earlier runs have extracted; raises `UserError` for anything else there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(self.folder, "*.safetensors")
        path = self.folder / SETTINGS
        if not path.exists():
            with replace_atomically(path) as temporary:
                temporary.write_text(json.dumps(self._settings, indent=2))
        elif _read_settings(path) != json.loads(json.dumps(self._settings)):
            raise UserError(f"{path} is of other features; remove it, or choose another cache=...")
        for part in sorted(self.folder.glob("[0-9]*.safetensors")):
            self._known |= read_part(part, self.sizes)
            self._next = 1 + int(part.stem) if part.stem.isdecimal() else self._next

    def __contains__(self, video: str) -> bool:
        """Return whether the features of a video are known, by its `identity`."""
        return video in self._known

    def __getitem__(self, video: str) -> Views:
        return self._known[video]

    def check_room(self, num_videos: int) -> None:
        """Raise `OSError` where the features of so many videos do not fit on the disk."""
        check_room(self.folder, num_videos * self.sizes.num_bytes)

    def add(self, video: str, views: Views) -> None:
        """Keep the features of a video, by its `identity`; they are written with others."""
        self._known[video] = self._new[video] = views
        is_large = len(self._new) * self.sizes.num_bytes > PART_BYTES
        if is_large or time.monotonic() - self._written_at > PART_S:
            self.write()

    def write(self) -> None:
        """Write what has not been written yet, and let go of its memory."""
        if self._new:
            kept = list(self._new.values())
            tensors = {FEATURES: torch.stack([views.features for views in kept])}
            if self.sizes.num_tokens:
                tensors[TOKENS] = torch.stack([_tokens(views) for views in kept])
            path = self.folder / f"{self._next:06d}.safetensors"
            with replace_atomically(path) as temporary:
                check_room(self.folder, len(kept) * self.sizes.num_bytes)
                save_file(tensors, temporary, metadata={"videos": json.dumps(list(self._new))})
            self._next += 1
            self._known |= read_part(path, self.sizes)
        self._new, self._written_at = {}, time.monotonic()


def identity(video: str) -> str:
    """Return what a video is known by: its path, and size and time of change of what holds it.

    That is its file, the pictures of its folder, or the shard; of a part, the whole video.
    """
    if "://" in video:
        return json.dumps([video])
    path = os.path.abspath(video)
    try:
        return json.dumps([path, *_size_and_time(path)])
    except (OSError, ValueError):
        return json.dumps([path])


def _size_and_time(path: str) -> tuple[int, int]:
    if segment := segment_at(path):
        return _size_and_time(segment.path)
    if place := frame_place(path):
        with os.scandir(place.folder) as entries:
            found = [entry.stat() for entry in entries]
    else:
        shard = PLACE.match(path)
        found = [os.stat(shard["shard"] if shard else path)]
    times = [each.st_mtime_ns for each in found]
    return sum(each.st_size for each in found), max(times, default=0)


def read_part(path: Path, sizes: Sizes) -> dict[str, Views]:
    """Read a file of features by identity of the video; raises `UserError` for any other file.

    Tensors are mapped, not read: the memory they take is the system's to take back.
    """
    try:
        with safe_open(path, framework="pt") as file:
            videos = sequence(text())(parse_json((file.metadata() or {})["videos"].encode()))
            tensors = {}
            for name, shape in sizes.shapes.items():
                found = file.get_slice(name)
                if tuple(found.get_shape()) != (len(videos), *shape):
                    raise ValueError(f"its {name} are of another shape")
                if found.get_dtype() != DTYPES[name][0]:
                    raise ValueError(f"its {name} are of another type")
                tensors[name] = file.get_tensor(name)
                if not tensors[name].isfinite().all():
                    raise ValueError(f"its {name} are not finite")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} does not hold features of an earlier run: {error}; remove it, and its videos "
            "are read again"
        ) from None
    tokens = tensors.get(TOKENS, [None] * len(videos))
    views = map(Views, tensors[FEATURES], tokens)
    return dict(zip(videos, views, strict=True))


def as_stored(rows: Tensor) -> Views:
    """Return the views of a video as they are kept: (V, 1 + N, C), the head's input first."""
    features, tokens = rows[:, 0].float(), rows[:, 1:].half()
    if not tokens.isfinite().all():
        raise UserError("tokens of this network exceed the range of float16")
    return Views(features, tokens if tokens.shape[1] else None)


def _tokens(views: Views) -> Tensor:
    assert views.tokens is not None
    return views.tokens


def _read_settings(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            return table(anything)(parse_json(file.read(MAX_SETTINGS_BYTES)))
    except MismatchError:
        return None
