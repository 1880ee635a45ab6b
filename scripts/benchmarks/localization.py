"""Measure how much of a model's attention lies on the moving shape of the demo's videos.

python scripts/localization.py runs/demo_0/checkpoints/last.ckpt
"""

import argparse
import itertools
from dataclasses import asdict

import numpy as np
import torch
from rich.console import Console

import video_mvit
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.data.frame_clock import FrameClock
from video_mvit.data.preparation.demo import (
    FPS,
    MOTIONS,
    SCENES,
    SIDE,
    demo_boxes,
    render_demo_video,
)
from video_mvit.data.sampling import UniformClips
from video_mvit.errors import UserError
from video_mvit.prediction.explain import explain_clip
from video_mvit.prediction.input_spec import InputSpec, input_spec_of
from video_mvit.text import percent
from video_mvit.weights.convert import published_normalization

TEST_SPLIT = 2  # place of the split in the seeds of the demo's videos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--num-videos", type=int, default=320, help="of the test split")
    parser.add_argument("--seed", type=int, default=0, help="of the demo")
    with exit_on_user_error():
        report(parser.parse_args())


def report(options: argparse.Namespace) -> None:
    if options.num_videos < 1:
        raise UserError(f"--num-videos is {options.num_videos}, expected a positive number")
    model = video_mvit.load_model(options.checkpoint)
    known = {"short_side": model.config.crop_size, "frame_stride": 4}
    spec = input_spec_of(model, published_normalization(asdict(model.config)), known)
    labels = SCENES if set(SCENES) <= set(spec.class_names) else MOTIONS
    videos = zip(range(options.num_videos), itertools.cycle(labels), strict=False)
    found = np.array(
        [measure(model, spec, label, (options.seed, TEST_SPLIT, j)) for j, label in videos]
    )
    inside, area = found.mean(axis=0)
    above = (found[:, 0] > found[:, 1]).mean()
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"attention inside the shape's box  {percent(inside)}, on {percent(area)} of the area"
    )
    console.print(f"times the share of the area       {inside / area:.2f}")
    console.print(f"videos where it is more than once {percent(above)} of {len(found)}")


def measure(
    model: video_mvit.MViT, spec: InputSpec, label: str, seed: tuple[int, ...]
) -> tuple[float, float]:
    """Share of the attention for the true class, and of the area, inside the shape's box."""
    frames = render_demo_video(label, np.random.default_rng(seed))
    boxes = demo_boxes(label, np.random.default_rng(seed))
    sampler = UniformClips(clip=spec.clip)
    (indices,) = sampler(FrameClock(num_frames=len(frames), fps=FPS), np.random.default_rng(0))
    clip = torch.from_numpy(frames[indices]).permute(0, 3, 1, 2)  # (T, C, H, W)
    (clip,) = spec.crop()(clip, np.random.default_rng(0))
    explanation = explain_clip(model, clip, spec.class_names.index(label), spec)
    scale = SIDE // spec.crop_size
    inside = boxes[indices].reshape(-1, spec.crop_size, scale, spec.crop_size, scale)
    inside_share = inside.mean(axis=(2, 4))  # (T, H, W)
    return float((explanation.mass * inside_share).sum()), float(inside_share.mean())


if __name__ == "__main__":
    main()
