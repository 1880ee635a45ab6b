"""One dataset for all: a manifest says which videos, a sampler which frames, a crop which windows.

A training item is one clip `(C, T, H, W)`; an evaluation item is one whole video, all its views
`(V, C, T, H, W)`, decoded once. Clips leave as uint8; normalisation happens on the device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from video_mvit.data.decoding import READERS
from video_mvit.data.manifest import Manifest
from video_mvit.data.sampling import ClipSampler, join_clips

# A crop maps the frames of a clip (T, C, H, W) to one or more windows (T, C, size, size), all
# uint8.
Crop = Callable[[Tensor, np.random.Generator], list[Tensor]]


class Sample(NamedTuple):
    """A uint8 clip (C, T, H, W) or all views (V, C, T, H, W) of a video; or a batch of them."""

    clip: Tensor
    label: int | Tensor
    video_index: int | Tensor


@dataclass(frozen=True, kw_only=True)
class Views:
    """How videos become clips: which frames, which windows, read by which reader."""

    sampler: ClipSampler
    crop: Crop
    reader: str = "pyav"

    def __post_init__(self) -> None:
        if self.reader not in READERS:
            raise ValueError(f"unknown reader {self.reader!r}; choose one of {', '.join(READERS)}")


class TrainDataset(Dataset[Sample]):
    """One random clip of each video."""

    def __init__(self, manifest: Manifest, views: Views) -> None:
        self.manifest, self.views = manifest, views

    def __len__(self) -> int:
        return len(self.manifest)

    def __getitem__(self, index: int) -> Sample:
        clip = read_views(self.manifest, index, self.views)[0]
        return Sample(clip, self.manifest.labels[index], index)


class EvaluationDataset(TrainDataset):
    """All views of each video, clips outside, crops inside."""

    def __getitem__(self, index: int) -> Sample:
        clips = torch.stack(read_views(self.manifest, index, self.views))
        return Sample(clips, self.manifest.labels[index], index)


def read_views(manifest: Manifest, index: int, views: Views) -> list[Tensor]:
    """Decode a video once and cut all its views: -> list of (C, T, H, W) uint8.

    Raises `VideoDecodeError`. Random choices come from torch's generator of this process, which a
    data loader seeds when it starts a worker.
    """
    generator = np.random.default_rng(int(torch.randint(2**62, ())))
    with READERS[views.reader](manifest.paths[index]) as video:
        clips = views.sampler(video.num_frames, video.fps, generator)
        wanted, places = join_clips(clips)
        frames = torch.from_numpy(video.read(wanted))
    frames = frames.permute(0, 3, 1, 2)  # (T, C, H, W), channels last in memory
    windows = [window for place in places for window in views.crop(frames[place], generator)]
    return [window.transpose(0, 1).contiguous() for window in windows]
