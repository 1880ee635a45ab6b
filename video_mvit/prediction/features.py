"""Extract features of videos, one vector each, the mean over its views, with resumable output."""

import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import Tensor, nn

from video_mvit.data.dataset import ClipPipeline
from video_mvit.data.lists.text import read_lines
from video_mvit.data.reading.reader import first_line
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import ClipPasses
from video_mvit.files import check_room, replace_atomically
from video_mvit.prediction.clips import VideoClips
from video_mvit.prediction.prefetch import read_groups
from video_mvit.prediction.scorer import check_finite
from video_mvit.schema import MismatchError, anything, parse_json, table

Kind = Literal["cls", "mean", "stage1", "stage2", "stage3", "stage4"]
SUFFIXES = (".safetensors", ".npz")
PART_S = 10.0  # seconds of work that a kill may lose
SETTINGS = "settings.json"
PART_ERRORS = (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error, MemoryError)
Vector = NDArray[np.float32]


class FeatureNetwork(nn.Module):
    """Features of clips: `cls` or `mean` of the normalized last tokens, or the mean of a stage.

    A network that is no MViT has the features that its own `forward_features` gives: (N, 3, T, H,
    W) -> (N, D), as `mean`. Raises `UserError` if the model has no such features.
    """

    def __init__(self, model: Any, kind: Kind) -> None:
        super().__init__()
        if kind not in get_args(Kind):
            raise UserError(f"features is {kind!r}, expected {', '.join(get_args(Kind))}")
        self.is_mvit = hasattr(model, "forward_stages")
        if not self.is_mvit:
            _check_own_features(model, kind)
        elif kind == "cls" and not model.config.cls_token:
            raise UserError("this model has no cls token; use features=mean")
        self.model, self.kind = model, kind

    def forward(self, clip: Tensor) -> Tensor:
        """Compute the features of normalized clips: (N, C, T, H, W) -> (N, D)."""
        if self.kind.startswith("stage"):
            maps: list[Tensor] = self.model.forward_stages(clip)
            return maps[int(self.kind[-1]) - 1].mean(dim=(2, 3, 4))
        if not self.is_mvit:
            return self._own_features(clip)
        tokens: Tensor = self.model.forward_features(clip)[0]
        if self.kind == "cls":
            return tokens[:, 0]
        return tokens[:, int(self.model.config.cls_token) :].mean(dim=1)

    def _own_features(self, clip: Tensor) -> Tensor:
        features = self.model.forward_features(clip)
        if isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(clip):
            return features
        found = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise UserError(
            f"{type(self.model).__name__}.forward_features returned {found} for {len(clip)} clips; "
            "expected a vector for each, (N, D)"
        )


def _check_own_features(model: nn.Module, kind: Kind) -> None:
    """Raise `UserError` if a network that is no MViT does not have such features."""
    name = type(model).__name__
    if not callable(getattr(model, "forward_features", None)):
        raise UserError(
            f"{name} has no features: give it a method forward_features(clip) that maps clips (N, "
            "3, T, H, W) to vectors (N, D)"
        )
    if kind != "mean":
        raise UserError(
            f"features={kind} is of an MViTv2; {name} has features=mean, of its forward_features"
        )


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Features of raw clips, a few at a time.

    `run` maps clips (N, T, C, H, W) uint8 to features (N, D), both on the host; it computes on a
    device.
    """

    run: Callable[[Tensor], Tensor]
    passes: ClipPasses
    device: torch.device

    def __call__(self, clips: Tensor) -> Tensor:
        """Extract features of raw clips: (N, T, C, H, W) uint8 -> (N, D) float32 on the host.

        Raises `UserError` if one is NaN or Inf.
        """
        return check_finite(self.passes.run(self.run, clips, self.device), "features")


def extract_features(
    extractor: Extractor, videos: Sequence[str], pipeline: ClipPipeline
) -> Iterator[tuple[str, Vector | str]]:
    """Yield each video with its features (D,), or the reason why it is unreadable, in order."""
    for video, found in extract_views(extractor, videos, pipeline):
        yield video, found if isinstance(found, str) else found.mean(dim=0).numpy()


def extract_views(
    extractor: Extractor, videos: Sequence[str], pipeline: ClipPipeline
) -> Iterator[tuple[str, Tensor | str]]:
    """Yield each video with what is extracted of its views (V, ...), or why it is unreadable."""
    clips_per_pass = extractor.passes.clips_per_pass
    assert clips_per_pass is not None
    for group in read_groups(videos, pipeline, clips_per_pass):
        clips = [
            video_clips.clips for _, video_clips in group if isinstance(video_clips, VideoClips)
        ]
        features = extractor(torch.cat(clips)) if clips else torch.empty(0)
        of_videos = iter(torch.split(features, [len(each) for each in clips]))
        for video, video_clips in group:
            yield video, next(of_videos) if isinstance(video_clips, VideoClips) else video_clips


class Parts:
    """Partial results in files beside the target, so that a kill costs little.

    Raises `UserError` if they were extracted with other settings.
    """

    def __init__(self, target: Path, settings: Mapping[str, Any]) -> None:
        self.folder = target.with_name(target.name + ".parts")
        self.known: dict[str, Vector] = {}
        self._new: dict[str, Vector] = {}
        self._written_at = time.monotonic()
        self._settings = dict(settings)
        self._paths = sorted(self.folder.glob("*.npz"))
        if self._paths:
            self._check(self._read_settings(), settings)
        for path in self._paths:
            self.known |= read_part(path)

    def _read_settings(self) -> dict[str, Any]:
        path = self.folder / SETTINGS
        try:
            return table(anything)(parse_json(path.read_bytes()))  # type: ignore[no-any-return]
        except (MismatchError, OSError) as error:
            raise UserError(
                f"{path} does not hold the settings of the features beside it: "
                f"{first_line(error)}; overwrite=true extracts them again"
            ) from None

    def _check(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for name in now:
            if before.get(name) != now[name]:
                raise UserError(
                    f"{self.folder} contains features with {name} {before.get(name)!r}, not "
                    f"{now[name]!r}; choose another output, or overwrite=true"
                )

    def add(self, video: str, features: Vector) -> None:
        self.known[video] = self._new[video] = features
        if time.monotonic() - self._written_at > PART_S:
            self.write()

    def write(self) -> None:
        """Write what has not been written yet."""
        if self._new:
            self.folder.mkdir(exist_ok=True)
            if not self._paths:
                with replace_atomically(self.folder / SETTINGS) as temporary:
                    temporary.write_text(json.dumps(self._settings))
            path = self.folder / f"{len(self._paths):06d}.npz"
            with replace_atomically(path) as temporary:
                _save_npz(temporary, self._new, {})
            self._paths.append(path)
        self._new, self._written_at = {}, time.monotonic()


def read_part(path: Path) -> dict[str, Vector]:
    """Read some features by video; raises `UserError` for anything but what `Parts` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            stored = sum(info.file_size for info in archive.infolist())
        if stored > path.stat().st_size:  # compressed, or larger than the file
            raise ValueError("its sizes are wrong")
        with np.load(path, allow_pickle=False) as part:
            videos, features = part["videos"], part["features"]
        if videos.ndim != 1 or videos.dtype.kind != "U" or features.dtype != np.float32:
            raise ValueError("it holds arrays of other kinds")
        if features.ndim != 2 or len(features) != len(videos) or not np.isfinite(features).all():
            raise ValueError("its features are not one finite row for each video")
    except PART_ERRORS as error:
        raise UserError(
            f"{path} does not hold features of an earlier run: {first_line(error)}; remove it, and "
            "its videos are read again"
        ) from None
    return dict(zip(videos.tolist(), features, strict=True))


def join_parts(
    parts: Parts, videos: Sequence[str], target: Path, settings: Mapping[str, Any]
) -> None:
    """Write the features of videos, in their order, as one file, and remove the parts."""
    features = {video: parts.known[video] for video in videos if video in parts.known}
    save = _save_npz if target.suffix == ".npz" else _save_safetensors
    with replace_atomically(target) as temporary:
        save(temporary, features, settings)
    shutil.rmtree(parts.folder)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise `UserError` if features cannot be written there."""
    if target.suffix not in SUFFIXES:
        raise UserError(f"output {target} must end in one of {', '.join(SUFFIXES)}")
    if not target.parent.is_dir():
        raise UserError(f"no folder {target.parent} to write {target.name} to")
    if target.exists() and not overwrite:
        raise UserError(f"{target} exists; overwrite=true replaces it")


def remove_parts(target: Path) -> None:
    """Remove what an interrupted extraction left; the target must be locked."""
    shutil.rmtree(target.with_name(target.name + ".parts"), ignore_errors=True)


def read_list(path: Path) -> list[str]:
    """Read videos from a list, one path per line."""
    if videos := list(dict.fromkeys(line.strip() for _, line in read_lines(str(path)))):
        return videos
    raise UserError(f"{path} lists no video; expected one path per line")


def _save_npz(path: Path, features: Mapping[str, Vector], settings: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            videos=np.array(list(features), np.str_),
            features=np.stack(list(features.values())),
            settings=np.array(json.dumps(dict(settings))),
        )


def _save_safetensors(
    path: Path, features: Mapping[str, Vector], settings: Mapping[str, Any]
) -> None:
    says = {"videos": json.dumps(list(features)), "settings": json.dumps(dict(settings))}
    stacked = np.stack(list(features.values()))
    check_room(path.parent, stacked.nbytes)
    save_file({"features": stacked}, path, metadata=says)
