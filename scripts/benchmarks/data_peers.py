"""How other projects turn a video into a training clip: the yardsticks of `benchmark.py`.

Libraries are called as their documentation says, in one thread; a chain whose own decoder no longer
exists is rebuilt from its published description. Every loader raises `BaselineError` where its
library is missing or cannot start, and every task where it cannot read a video.
"""

import importlib
import math
import random
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peer_errors import LOAD_ERRORS, baseline_errors
from benchmarks.workloads import RAND_AUGMENT
from video_mvit.data.preparation.synthetic import Clip
from video_mvit.data.transforms.cropping import (
    crop_and_resize,
    random_resized_box,
    short_side_size,
)

CROP_SIZE, SHORT_SIDE = 224, 256
SCALE, RATIO, FLIP_RATE = (0.08, 1.0), (3 / 4, 4 / 3), 0.5
MEAN, STD = 0.45, 0.225


# A clip becomes frames (T, H, W, 3), one sample (C, T, H, W), or several of them (V, ...).
Task = Callable[[Clip], Tensor]


def decord_frames() -> Task:
    """Decoding with decord: clip -> (T, H, W, 3) uint8."""
    with baseline_errors("decord cannot be loaded", *LOAD_ERRORS):
        import decord

    errors = (decord.DECORDError, RuntimeError)

    def decode(clip: Clip) -> Tensor:
        with baseline_errors(f"decord cannot read {clip.path}", *errors):
            reader = decord.VideoReader(clip.path, num_threads=1)
            frames = reader.get_batch(clip.frame_indices.tolist())
        return torch.from_numpy(frames.asnumpy())

    return decode


def torchcodec_frames() -> Task:
    """Decoding with torchcodec after its scan of the file: clip -> (T, H, W, 3) uint8."""
    with baseline_errors("torchcodec cannot be loaded", *LOAD_ERRORS):
        decoders = importlib.import_module("torchcodec.decoders")
        try:
            decoders.VideoDecoder(b"no video")  # FFmpeg is looked for now, not at the import
        except (RuntimeError, ValueError) as error:
            if "Could not load libtorchcodec" in str(error):
                raise

    def decode(clip: Clip) -> Tensor:
        with baseline_errors(f"torchcodec cannot read {clip.path}", RuntimeError, ValueError):
            decoder = decoders.VideoDecoder(
                clip.path, seek_mode="exact", dimension_order="NHWC", num_ffmpeg_threads=1
            )
            frames: Tensor = decoder.get_frames_at(clip.frame_indices.tolist()).data
        return frames

    return decode


def pytorchvideo_sample(clip_duration_s: float, num_frames: int) -> Task:
    """`LabeledVideoDataset` with its PyAV decoder: clip -> (C, T, H, W) float, normalized."""
    data, transforms = _pytorchvideo()
    transform = transforms.ApplyTransformToKey(
        "video",
        torch.nn.Sequential(
            transforms.UniformTemporalSubsample(num_frames),
            transforms.Div255(),
            transforms.Normalize((MEAN,) * 3, (STD,) * 3),
            transforms.RandomResizedCrop(CROP_SIZE, CROP_SIZE, SCALE, RATIO),
            _horizontal_flip(),
        ),
    )
    datasets: dict[str, Any] = {}

    def sample(clip: Clip) -> Tensor:
        if clip.path not in datasets:
            datasets[clip.path] = data.LabeledVideoDataset(
                [(clip.path, {"label": 0})],
                data.make_clip_sampler("random", clip_duration_s),
                transform=transform,
                decode_audio=False,
                decoder="pyav",
            )
        random.seed(clip.seed)
        torch.manual_seed(clip.seed)
        with baseline_errors(f"pytorchvideo cannot read {clip.path}", RuntimeError, StopIteration):
            video: Tensor = next(iter(datasets[clip.path]))["video"]
        return video

    return sample


def slowfast_samples(num_frames: int, num_samples: int) -> Task:
    """The chain of SlowFast on its own recipe: clip -> (V, C, T, H, W) float, normalized.

    Every frame between the ends of the clip becomes RGB, then the frames that count are kept and
    scaled. Each sample turns them into floats, through PIL for RandAugment and back, normalizes and
    crops. Random erasing, which it does next, is left out.
    """
    from PIL import Image

    augment = _timm_rand_augment()

    def augment_frame(frame: Tensor) -> Tensor:
        """(C, H, W) float to PIL and back."""
        image = Image.fromarray((frame * 255).byte().permute(1, 2, 0).numpy())
        pixels = torch.from_numpy(np.array(augment(image)))
        return pixels.permute(2, 0, 1).contiguous().float() / 255

    def samples(clip: Clip) -> Tensor:
        frames = _short_side_scaled(_slowfast_segment(clip, num_frames))
        seeds = range(clip.seed, clip.seed + num_samples)
        return torch.stack([_slowfast_sample(frames, augment_frame, seed) for seed in seeds])

    return samples


def pillow_rand_augment() -> Callable[[Tensor, int], Tensor]:
    """The published policy through Pillow, frame by frame: uint8 (T, C, H, W), seed -> the same."""
    from PIL import Image

    augment = _timm_rand_augment()

    def augment_clip(clip: Tensor, seed: int) -> Tensor:
        frames = []
        for frame in clip.permute(0, 2, 3, 1).numpy():
            random.seed(seed)  # one decision for all frames
            np.random.seed(seed)
            frames.append(np.asarray(augment(Image.fromarray(frame))))
        return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)

    return augment_clip


def _timm_rand_augment() -> Callable[[Any], Any]:
    with baseline_errors("timm, whose RandAugment it uses, cannot be loaded", *LOAD_ERRORS):
        from PIL import Image
        from timm.data.auto_augment import rand_augment_transform
    options = {"interpolation": Image.Resampling.BICUBIC, "img_mean": (128, 128, 128)}
    augment: Callable[[Any], Any] = rand_augment_transform(RAND_AUGMENT, options)
    return augment


def _slowfast_segment(clip: Clip, num_frames: int) -> Tensor:
    """Decode a whole segment from the key frame before it, keep T of it: -> (T, H, W, 3) uint8."""
    frames = []
    with (
        baseline_errors(f"its decoder cannot read {clip.path}", av.FFmpegError, ValueError),
        av.open(clip.path) as container,
    ):
        stream = container.streams.video[0]
        stream.thread_type, stream.thread_count = "NONE", 1
        assert stream.time_base is not None
        first_pts = stream.start_time or 0
        start_pts = first_pts + math.floor(clip.start_s / stream.time_base)
        container.seek(start_pts, stream=stream)
        end_pts = first_pts + math.ceil(clip.end_s / stream.time_base)
        for frame in container.decode(stream):
            if frame.pts is None or frame.pts < start_pts:
                continue
            if frame.pts >= end_pts:
                break
            frames.append(torch.from_numpy(frame.to_ndarray(format="rgb24")))
        kept = torch.linspace(0, len(frames) - 1, num_frames).long()
        return torch.stack([frames[int(index)] for index in kept])


def _short_side_scaled(frames: Tensor) -> Tensor:
    """(T, H, W, 3) with any short side -> (T, 3, H', W') with one of 256, uint8."""
    frames = frames.permute(0, 3, 1, 2)  # (T, 3, H, W)
    size = short_side_size(frames.shape[2], frames.shape[3], SHORT_SIDE)
    if size == tuple(frames.shape[2:]):
        return frames
    return F.interpolate(frames, size, mode="bilinear")


def _slowfast_sample(
    frames: Tensor, augment_frame: Callable[[Tensor], Tensor], seed: int
) -> Tensor:
    """Augment, normalize and crop: (T, C, H, W) uint8 -> (C, T, size, size) float."""
    augmented = []
    for frame in frames.float() / 255:
        random.seed(seed)  # one decision for all frames
        np.random.seed(seed)
        augmented.append(augment_frame(frame))
    clip = (torch.stack(augmented) - MEAN) / STD  # (T, C, H, W)
    generator = np.random.default_rng(seed)
    box = random_resized_box(clip.shape[2], clip.shape[3], SCALE, RATIO, generator)
    clip = crop_and_resize(clip, box, CROP_SIZE, CROP_SIZE)
    if generator.random() < FLIP_RATE:
        clip = clip.flip(3)
    return clip.transpose(0, 1)  # (C, T, H, W)


def _pytorchvideo() -> tuple[ModuleType, ModuleType]:
    """Its data and its transforms."""
    with baseline_errors("pytorchvideo cannot be loaded", *LOAD_ERRORS):
        import torchvision.transforms._functional_tensor as functional_tensor

        # Its transforms import this module by a name that torchvision has given up.
        sys.modules.setdefault("torchvision.transforms.functional_tensor", functional_tensor)
        import pytorchvideo.data
        import pytorchvideo.transforms
    if "decord" in sys.modules:  # importing it makes decord give tensors, in the whole process
        sys.modules["decord"].bridge.set_bridge("native")
    return pytorchvideo.data, pytorchvideo.transforms


def _horizontal_flip() -> torch.nn.Module:
    from torchvision.transforms import RandomHorizontalFlip

    flip: torch.nn.Module = RandomHorizontalFlip(FLIP_RATE)
    return flip
