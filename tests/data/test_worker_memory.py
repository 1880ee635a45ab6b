"""A worker that reads thousands of videos, good and broken ones, does not grow."""

import os
from pathlib import Path

import numpy as np
import pytest
from support.broken import cut, damage_packet, write_textured_video

from video_mvit.data.dataset import ClipKey, ClipPipeline, TrainDataset
from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.sampling import ClipSpec, RandomClip
from video_mvit.data.transforms.cropping import RandomResizedCrop

VIDEOS = {
    "a.mp4": "libx264",
    "b.mkv": "libx264",
    "c.avi": "mpeg4",
    "d.webm": "libvpx",
    "e.avi": "mjpeg",
    "f.ts": "libx264",
    "g.mp4": "mpeg4",
}
NUM_WARM, NUM_CLIPS = 300, 2000
MAX_GROWTH = 0.05


@pytest.mark.long
@pytest.mark.slow
def test_worker_that_reads_many_clips_does_not_grow(tmp_path: Path) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not say how much memory a process has")
    paths = [
        write_textured_video(tmp_path / name, codec=codec, size=(96 + 32 * i, 128 + 32 * i))
        for i, (name, codec) in enumerate(VIDEOS.items())
    ]
    paths.append(cut(paths[1], tmp_path / "cut.mkv", 0.5))
    paths.append(damage_packet(paths[0], tmp_path / "damaged.mp4", 1))
    data = TrainDataset(
        Manifest(
            root=str(tmp_path),
            names=PackedStrings.of(path.name for path in paths),
            labels=np.zeros(len(paths), np.int32),
            class_names=("a",),
        ),
        ClipPipeline(
            sampler=RandomClip(clip=ClipSpec(num_frames=8, frame_stride=2)),
            crop=RandomResizedCrop(size=32),
        ),
        seed=0,
    )
    num_open = len(os.listdir("/proc/self/fd"))
    warm = 0
    for i in range(NUM_CLIPS):
        assert data[ClipKey(i, i % len(paths))].clips
        if i == NUM_WARM:
            warm = _resident_pages()
    assert _resident_pages() < (1 + MAX_GROWTH) * warm
    assert len(os.listdir("/proc/self/fd")) == num_open


def _resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])
