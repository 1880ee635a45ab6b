"""What the doctor asks of libraries, each question in a process of its own (`run_probe.ask`).

Importing a broken library may end or hang the process. The answer is the last line printed, JSON;
a probe raises, or returns a "failure", where something does not work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from typing import Any

from video_mvit.doctor.loader_speed import measure_speed

__all__ = ["measure_speed"]  # a probe, too

SIDE, NUM_FRAMES, LEVELS_PER_FRAME = 64, 60, 4  # of the video that is written
FRAMES = [37, 5, 58, 22, 22, 0, 59]  # read from it, forwards and backwards
MATMUL_SIDE = 256
CLIP_FRAMES = 16
MAX_DIFFERENCE = 8  # of 255, mean over a frame; readers round colours differently


def torch_facts() -> dict[str, Any]:
    """Return version, build and GPUs of torch, and what is known where it finds no GPU."""
    import torch

    has_gpu, complaint = torch.cuda.is_available(), ""
    if torch.version.cuda and not has_gpu:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:
            complaint = str(error).partition("\n")[0]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "architectures": torch.cuda.get_arch_list() if has_gpu else [],
        "gpus": [_gpu_facts(i) for i in range(torch.cuda.device_count())] if has_gpu else [],
        "complaint": complaint,
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "driver": None if has_gpu else _driver_facts(),
    }


def _gpu_facts(index: int) -> dict[str, Any]:
    import torch

    properties = torch.cuda.get_device_properties(index)
    failure, free = "", 0
    try:
        free = torch.cuda.mem_get_info(index)[0]
        ones = torch.ones(MATMUL_SIDE, MATMUL_SIDE, device=f"cuda:{index}")
        if not (ones @ ones == MATMUL_SIDE).all():
            failure = "the product of ones is wrong"
    except RuntimeError as error:
        failure = str(error).partition("\n")[0]
    return {
        "name": properties.name,
        "capability": f"sm_{properties.major}{properties.minor}",
        "free": free,
        "total": properties.total_memory,
        "bf16": properties.major >= 8,  # older GPUs only emulate it
        "failure": failure,
    }


def _driver_facts() -> str | None:
    """Return the first GPU and its driver as nvidia-smi reports them, None without a GPU."""
    command = "nvidia-smi --query-gpu=name,driver_version --format=csv,noheader"
    status, output = subprocess.getstatusoutput(command)
    name, _, driver = output.partition("\n")[0].rpartition(", ")
    return f"{name} (driver {driver})" if name and status == 0 else None


def torchvision_facts() -> dict[str, Any]:
    """Call a compiled operator of torchvision, which fails where it does not match torch."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)
    return {}


def read_numbered(reader: str) -> dict[str, Any]:
    """Write an H.264 video with B-frames whose brightness is the frame's number; read it."""
    import av
    import numpy as np

    from video_mvit.data.reading.open import READERS, DecodeLimits

    with tempfile.TemporaryDirectory(prefix="doctor_") as folder:
        path = f"{folder}/numbered.mp4"
        with av.open(path, "w") as container:
            stream = container.add_stream("libx264", rate=30, options={"g": "24", "bf": "2"})
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            for i in range(NUM_FRAMES):
                picture = np.full((SIDE, SIDE, 3), i * LEVELS_PER_FRAME, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode(None))
        with READERS[reader](path, DecodeLimits()) as video:
            frames = video.read(FRAMES)  # (T, H, W, 3)
    actual = [round(level) for level in frames.mean(axis=(1, 2, 3)) / LEVELS_PER_FRAME]
    return {"failure": f"gives frames {actual} instead of {FRAMES}"} if actual != FRAMES else {}


def examine_video(path: str) -> dict[str, Any]:
    """Decode a whole file with the default reader; return what it is."""
    from video_mvit.data.reading import open as reading

    return asdict(reading.examine_video(path))


def compare_readers(path: str, expected: str, actual: str) -> dict[str, Any]:
    """Read a clip in the middle of a file with two readers and compare it."""
    import numpy as np

    from video_mvit.data.reading.open import READERS, DecodeLimits

    counts, clips = [], []
    for reader in (expected, actual):
        with READERS[reader](path, DecodeLimits()) as video:
            start = max(video.num_frames - CLIP_FRAMES, 0) // 2
            clip = video.read(range(start, min(start + CLIP_FRAMES, video.num_frames)))
            counts.append(video.num_frames)
            clips.append(clip.astype(np.int16))
    if counts[0] != counts[1]:
        return {"failure": f"{counts[1]} frames, {expected} reads {counts[0]}"}
    if clips[0].shape != clips[1].shape:
        return {"failure": f"frames of {clips[1].shape}, {expected} reads {clips[0].shape}"}
    if np.abs(clips[0] - clips[1]).mean(axis=(1, 2, 3)).max() > MAX_DIFFERENCE:
        return {"failure": f"other frames than {expected} reads"}
    return {}


def main() -> None:
    name, *arguments = sys.argv[1:]
    try:
        answer = globals()[name](*arguments)
    except BaseException as error:  # whatever a broken library raises is the answer
        # A `VideoDecodeError` has a reason that does not repeat the path.
        words = [type(error).__name__, *str(error).strip().splitlines()[:1]]
        answer = {"failure": getattr(error, "reason", None) or ": ".join(words)}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a broken library may crash or hang at exit, too
