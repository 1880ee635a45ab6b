"""Measure how many clips/s a loader process gives and training takes: how many processes it needs.

One thread, as a loader process has; one short run each, so that numbers are right to about 20 %.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from video_mvit.copies import choose_copy, workers_for
from video_mvit.doctor.finding import Finding, grade
from video_mvit.doctor.software_checks import TRANSCODE

LOADER_TIME_S, MIN_CLIPS = 2.5, 4
NUM_GENERATED = 2  # videos, where the user gives none
FRAME_STRIDE = 4
GPU_BATCH, GPU_STEPS = 8, 6
TOLERATED_SHORTAGE = 0.1  # of a loader process


def check_speed(facts: Mapping[str, Any], model: str, num_cores: int) -> Finding:
    """Derive the number of loader processes from the answer of `measure_speed`."""
    if "failure" in facts:
        text = f"cannot be measured: {facts['failure']}"
        return Finding("problem", "speed", text, "add --quick, or try --model mvitv2_s")
    needed = facts["device"] / facts["loader"]
    num_workers = workers_for(needed, TOLERATED_SHORTAGE)
    text = f"a loader process gives {facts['loader']:.3g} clips/s, training {model} takes "
    text += f"{facts['device']:.3g}: needs data.num_workers={num_workers}, a core each, "
    text += f"{num_cores} cores usable"
    profile, num_left = choose_copy(needed, num_cores, TOLERATED_SHORTAGE)
    fix = f"{TRANSCODE} transcode={profile} (copies for which data.num_workers={num_left} does)"
    return grade("speed", text, fix, warning=num_workers >= max(num_cores, 2))


def measure_speed(model: str, *paths: str) -> dict[str, float]:
    """Measure clips/s of one loader process, by default on generated videos, and of training."""
    from video_mvit import create_model
    from video_mvit.data.preparation.synthetic import generated_video

    network: Any = create_model(model)
    with tempfile.TemporaryDirectory(prefix="doctor_") as folder:
        if not paths:
            paths = tuple(str(generated_video(Path(folder), 0, n)) for n in range(NUM_GENERATED))
        loader = time_loader(paths, network.config.num_frames, network.config.crop_size)
    return {"loader": loader, "device": time_training(network)}


def time_loader(paths: Sequence[str], num_frames: int, crop_size: int) -> float:
    """Return the clips/s that one thread decodes and crops."""
    import numpy as np
    import torch

    from video_mvit.data.dataset import ClipPipeline, read_views
    from video_mvit.data.sampling import ClipSpec, RandomClip
    from video_mvit.data.transforms.cropping import RandomResizedCrop

    clip = ClipSpec(num_frames=num_frames, frame_stride=FRAME_STRIDE)
    views = ClipPipeline(sampler=RandomClip(clip=clip), crop=RandomResizedCrop(size=crop_size))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    read_views(paths[0], views, np.random.default_rng(0))  # not counted: loads libraries
    start, time_s, num_clips = time.perf_counter(), 0.0, 0
    while num_clips < MIN_CLIPS or time_s < LOADER_TIME_S:
        read_views(paths[num_clips % len(paths)], views, np.random.default_rng(num_clips))
        time_s, num_clips = time.perf_counter() - start, num_clips + 1
    torch.set_num_threads(num_threads)
    return num_clips / time_s


def time_training(network: Any) -> float:
    """Return the clips/s of training steps: on a GPU in bf16, on a CPU one step of one clip."""
    import torch
    import torch.nn.functional as F

    is_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if is_gpu else "cpu")
    batch, num_steps = (GPU_BATCH, GPU_STEPS) if is_gpu else (1, 1)
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    side = network.config.crop_size
    clips = torch.randn(batch, 3, network.config.num_frames, side, side, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def run_steps() -> float:
        start = time.perf_counter()
        for _ in range(num_steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=is_gpu):
                loss = F.cross_entropy(network(clips), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()
        if is_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    run_steps()  # not counted: allocating memory can take ten times as long as a step
    return batch * num_steps / run_steps()
