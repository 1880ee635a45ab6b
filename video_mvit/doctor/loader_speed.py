"""How many clips a second a loader process gives and this device takes; hence how many processes.

One thread, as a loader process has; one short run each, so that numbers are right to a fifth or so.
"""

import itertools
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CROP_SIZE = 224
LOADER_TIME_S, MIN_CLIPS = 2.5, 4
NUM_GENERATED = 2
GPU_BATCH, GPU_STEPS = 8, 6
MANY_BATCHES = 10_000  # a steady state


def measure_pace(model: str, num_cores: int, paths: Sequence[str]) -> dict[str, Any]:
    """Clips a second of a loader process and of training steps, and the processes needed.

    `paths` are videos that can be read; without any, some are generated. Raises `ValueError` on a
    model that there is not.
    """
    import torch

    from video_mvit import create_model
    from video_mvit.data.preparation.synthetic import generated_video

    network = create_model(model)
    with tempfile.TemporaryDirectory(prefix="doctor_") as folder:
        given = list(paths) or [
            str(generated_video(Path(folder), 0, n)) for n in range(NUM_GENERATED)
        ]
        loader = loader_pace(given)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    taken = device_pace(network, device)
    return {"loader": loader, "device": taken, **judge(loader, taken, num_cores)}


def judge(loader: float, device: float, num_cores: int) -> dict[str, Any]:
    """From clips a second: processes needed (None: more than cores), and what else would help."""
    from video_mvit.training.data_wait import TRANSCODED, LoaderStats, advise

    if loader >= device:
        return {"num_workers": 1, "help": None}
    stats = LoaderStats(
        num_workers=1,
        num_cores=num_cores,
        num_batches=MANY_BATCHES,
        clips_per_s=loader,
        data_wait_fraction=1 - loader / device,
    )
    advice = advise(stats)
    if advice is None:  # one process is nearly enough
        return {"num_workers": 1, "help": None}
    needed = math.ceil(device / loader - 1e-6)
    help_ = None if advice.num_workers else f"{needed} would be needed; {TRANSCODED}"
    return {"num_workers": advice.num_workers, "help": help_}


def loader_pace(paths: Sequence[str]) -> float:
    """Clips of 16x4 at 224 pixels that one thread decodes and crops in a second."""
    import numpy as np
    import torch

    from video_mvit.data.dataset import ClipPipeline, read_views
    from video_mvit.data.preparation.synthetic import CLIP
    from video_mvit.data.sampling import RandomClip
    from video_mvit.data.transforms.cropping import RandomResizedCrop

    pipeline = ClipPipeline(sampler=RandomClip(clip=CLIP), crop=RandomResizedCrop(size=CROP_SIZE))
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        read_views(paths[0], pipeline, np.random.default_rng(0))  # loads the libraries
        start = time.perf_counter()
        for num_clips, path in enumerate(itertools.cycle(paths), 1):
            read_views(path, pipeline, np.random.default_rng(num_clips))
            time_s = time.perf_counter() - start
            if num_clips >= MIN_CLIPS and time_s > LOADER_TIME_S:
                return num_clips / time_s
    finally:
        torch.set_num_threads(num_threads)
    raise AssertionError("videos are read over and over")


def device_pace(network: Any, device: Any) -> float:
    """Clips a second of training steps: on a GPU in bf16, on a CPU one step of one clip.

    The first steps are not counted: they get memory from the system, which may take ten times as
    long as the step.
    """
    import torch
    import torch.nn.functional as F

    is_gpu = device.type == "cuda"
    network = network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, fused=True)
    config: Any = network.config
    batch = GPU_BATCH if is_gpu else 1
    shape = (batch, 3, config.num_frames, config.crop_size, config.crop_size)
    clip = torch.randn(shape, device=device)
    labels = torch.zeros(batch, dtype=torch.long, device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_gpu):
            loss = F.cross_entropy(network(clip), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    def run(num_steps: int) -> float:
        start = time.perf_counter()
        for _ in range(num_steps):
            step()
        if is_gpu:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    num_steps = GPU_STEPS if is_gpu else 1
    run(num_steps)
    return batch * num_steps / run(num_steps)
