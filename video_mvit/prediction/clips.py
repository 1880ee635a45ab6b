"""Read clips of video files for a model, cropping frame by frame to hold few large frames."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from video_mvit.data.dataset import ClipPipeline
from video_mvit.data.reading.containers import open_container, shown_stream
from video_mvit.data.reading.open import VideoReader, open_video
from video_mvit.data.reading.pyav_reader import PyAVReader
from video_mvit.data.reading.reader import DecodeLimits, Frames, VideoDecodeError
from video_mvit.data.sampling import FrameIndices, join_clips
from video_mvit.data.transforms.cropping import UniformCrops

# Additional limits per second of video.
WORK_S, FRAMES_PER_S = 4.0, 120
MIN_BYTES_PER_S = 500  # a smaller file cannot be as long as it claims
FIXED_RNG = np.random.default_rng(0)  # test pipelines draw nothing


class VideoClips(NamedTuple):
    """All views of a video (V, T, C, H, W) uint8, its number of frames and its duration."""

    clips: Tensor
    num_frames: int
    duration_s: float


def read_clips(path: str, pipeline: ClipPipeline) -> VideoClips:
    """Decode a video once and cut all its views, clips outside and crops inside.

    The same pixels as in an evaluation. Raises `VideoDecodeError`.
    """
    assert isinstance(pipeline.crop, UniformCrops)
    with open_video(path, pipeline.reader, decode_limits_for(path)) as video:
        clock = video.clock
        wanted, places = join_clips(pipeline.sampler(clock, FIXED_RNG))
        windows = _cut_frames(video, wanted, pipeline.crop)  # (M, crops, C, H, W)
    crops = range(pipeline.crop.num_crops)
    clips = torch.stack([windows[place, crop] for place in places for crop in crops])
    return VideoClips(clips, clock.num_frames, clock.duration_s)


def decode_limits_for(path: str) -> DecodeLimits:
    """Return limits that grow with the stated duration, as far as the file size supports it."""
    decode_limits = DecodeLimits()
    try:
        size = os.path.getsize(path)
        with open_container(path, None, decode_limits) as container:
            stated_s = (container.duration or 0) / av.time_base
            stream = shown_stream(container, path)
            pixels = stream.height * stream.width
    except (VideoDecodeError, OSError):
        return decode_limits  # the problem is reported when it is read
    longest_s = size / MIN_BYTES_PER_S
    duration_s = min(stated_s, longest_s) if stated_s > 0 else longest_s
    return replace(
        decode_limits,
        num_packets=decode_limits.num_packets + int(duration_s * FRAMES_PER_S),
        num_pixels=decode_limits.num_pixels + int(duration_s * FRAMES_PER_S * pixels),
        time_s=decode_limits.time_s + duration_s * WORK_S,
    )


def _cut_frames(video: VideoReader, wanted: FrameIndices, crop: UniformCrops) -> Tensor:
    """Crop sorted distinct frames: -> (M, crops, C, H, W) uint8."""
    windows = torch.empty(len(wanted), crop.num_crops, 3, crop.size, crop.size, dtype=torch.uint8)
    for index, frame in each_frame(video, wanted):
        windows[int(np.searchsorted(wanted, index))] = cut_frame(frame, crop)
    return windows


def cut_frame(frame: Frames, crop: UniformCrops) -> Tensor:
    """Crop one frame: (H, W, 3) uint8 -> (crops, C, size, size) uint8."""
    pixels = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)[None]  # (1, C, H, W)
    return torch.cat(crop(pixels, FIXED_RNG))


def each_frame(video: VideoReader, wanted: FrameIndices) -> Iterator[tuple[int, Frames]]:
    """Yield (frame index, frame (H, W, 3)) of sorted distinct indices, in any order."""
    if isinstance(video, PyAVReader):
        yield from video.read_each(wanted)
        return
    for index in map(int, wanted):  # pictures have random access
        yield index, video.read([index])[0]
