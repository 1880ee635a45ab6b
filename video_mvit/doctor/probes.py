"""What `doctor.py` asks of libraries, each question in a process of its own: `probes.py NAME ...`.

Importing a broken library may end or hang the process. An answer is the last line printed, JSON.
A module of the package is imported without the package itself, which needs torch.
"""

import importlib
import json
import os
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parents[1]
NUM_FRAMES = 60  # of the video that is written
HEIGHT, WIDTH = 64, 96
NUM_BITS = 6
SOUGHT = (37, 5, 58, 22, 22, 0, 59)  # there and back again
MATMUL_SIDE = 256
CLIP_FRAMES = 16
NUM_LOOKED_AT = 4  # videos of a folder
MAX_LISTED = 20_000  # files; a whole data set is not walked through
MAX_DIFFERENCE = 8  # of 255, mean over a frame; readers round colours in their own ways


def torch_facts() -> dict[str, Any]:
    """Version, build and GPUs of torch; what it complains of where it sees none."""
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        is_there = torch.cuda.is_available()
    num_gpus = torch.cuda.device_count() if is_there else 0
    complaint = str(caught[0].message).splitlines()[0] if caught else None
    if not is_there and torch.version.cuda and complaint is None:
        complaint = _cuda_complaint(torch)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "architectures": torch.cuda.get_arch_list() if is_there else [],
        "complaint": complaint,
        "hidden": hidden if hidden in ("", "-1") else None,
        "gpus": [_gpu_facts(torch, index) for index in range(num_gpus)],
    }


def _cuda_complaint(torch: Any) -> str | None:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return None


def _gpu_facts(torch: Any, index: int) -> dict[str, Any]:
    major, minor = torch.cuda.get_device_capability(index)
    facts = {
        "name": torch.cuda.get_device_name(index),
        "capability": 10 * major + minor,
        "free": 0,
        "total": torch.cuda.get_device_properties(index).total_memory,
        "bf16": major >= 8,  # before, torch only emulates it
        "failure": None,
    }
    try:
        facts["free"] = torch.cuda.mem_get_info(index)[0]
        a = torch.ones(MATMUL_SIDE, MATMUL_SIDE, device=f"cuda:{index}")
        value = (a @ a).mean().item()
        if value != MATMUL_SIDE:
            facts["failure"] = f"the product of ones is {value:g}, not {MATMUL_SIDE}"
    except RuntimeError as error:
        facts["failure"] = str(error).splitlines()[0]
    return facts


def torchvision_facts() -> dict[str, Any]:
    """Whether torchvision imports beside this torch, its compiled operators too."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)
    return {"version": torchvision.__version__}


def write_numbered(path: str) -> dict[str, Any]:
    """Write an H.264 file with B-frames whose frame `i` shows `i` in binary, as bars."""
    import av
    import numpy as np

    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "24", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(NUM_FRAMES):
            bits = (i >> np.arange(NUM_BITS)) & 1
            row = np.repeat(bits * 200 + 20, WIDTH // NUM_BITS).astype(np.uint8)
            rgb = np.ascontiguousarray(np.broadcast_to(row[None, :, None], (HEIGHT, WIDTH, 3)))
            picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return {"bytes": os.path.getsize(path)}


def read_numbered(reader: str, path: str) -> dict[str, Any]:
    """Read some frames of that file in no order: which were wanted, which came."""
    open_video = _import("decoding").open_video
    with open_video(path, reader) as video:
        num_frames, frames = video.num_frames, video.read(SOUGHT)  # (T, H, W, 3)
    if frames.shape != (len(SOUGHT), HEIGHT, WIDTH, 3):
        return {"failure": f"frames of shape {frames.shape[1:]}, written were {HEIGHT}x{WIDTH}"}
    bars = frames.reshape(len(SOUGHT), HEIGHT, NUM_BITS, -1)
    bright = bars.mean(axis=(1, 3)) > 128
    shown = [sum(1 << bit for bit in range(NUM_BITS) if row[bit]) for row in bright]
    return {"num_frames": num_frames, "wanted": list(SOUGHT), "shown": shown}


def find_videos(place: str) -> dict[str, Any]:
    """A file itself, or some of the videos below a folder, spread over it."""
    suffixes = _import("manifest").VIDEO_SUFFIXES
    found: list[str] = [] if os.path.isdir(place) else [place]
    for folder, folders, names in os.walk(place):
        folders.sort()
        found += [os.path.join(folder, n) for n in sorted(names) if n.lower().endswith(suffixes)]
        if len(found) > MAX_LISTED:
            break
    count = min(NUM_LOOKED_AT, len(found))
    return {
        "paths": [found[i * len(found) // count] for i in range(count)],
        "suffixes": suffixes,
    }


def examine(path: str) -> dict[str, Any]:
    """What a file is, by decoding all of it with the default reader, or why it cannot be read."""
    decoding = _import("decoding")
    try:
        facts = decoding.examine_video(path)
    except decoding.VideoDecodeError as error:
        return {"reason": error.reason}
    return {
        "num_frames": facts.num_frames,
        "fps": facts.fps,
        "height": facts.size[0],
        "width": facts.size[1],
        "codec": facts.codec,
        "num_key_frames": facts.num_key_frames,
    }


def compare_with_default(reader: str, path: str) -> dict[str, Any]:
    """A clip in the middle of a file, by another reader and by the default one."""
    import numpy as np

    decoding = _import("decoding")
    try:
        with decoding.open_video(path) as video:
            num_frames = video.num_frames
            middle = max(num_frames - CLIP_FRAMES, 0) // 2
            wanted = list(range(middle, min(middle + CLIP_FRAMES, num_frames)))
            ours = video.read(wanted)
        with decoding.open_video(path, reader) as video:
            if video.num_frames != num_frames:
                return {"reason": f"{video.num_frames} frames, the file has {num_frames}"}
            other = video.read(wanted)
    except decoding.VideoDecodeError as error:
        return {"reason": error.reason}
    if other.shape != ours.shape:
        return {"reason": f"frames of {other.shape[1:3]}, a player shows {ours.shape[1:3]}"}
    difference = np.abs(ours.astype(np.int16) - other).mean(axis=(1, 2, 3)).max()
    if difference > MAX_DIFFERENCE:
        return {"reason": f"other frames than PyAV's (mean difference {difference:.0f} of 255)"}
    return {"difference": float(difference)}


def pace(model: str, num_cores: str, *paths: str) -> dict[str, Any]:
    """Clips a second, see `pace.measure_pace`."""
    from video_mvit.doctor.loader_speed import measure_pace

    return measure_pace(model, int(num_cores), paths)


def _import(name: str) -> Any:
    """A module of the data room."""
    if "video_mvit" not in sys.modules:
        package = types.ModuleType("video_mvit")
        package.__path__ = [str(PACKAGE)]
        sys.modules["video_mvit"] = package
    return importlib.import_module(f"video_mvit.data.{name}")


PROBES: Mapping[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (
        torch_facts,
        torchvision_facts,
        write_numbered,
        read_numbered,
        find_videos,
        examine,
        compare_with_default,
        pace,
    )
}


def main() -> None:
    name, *arguments = sys.argv[1:]
    try:
        answer = PROBES[name](*arguments)
    except BaseException as error:  # whatever a broken library raises is what is asked for
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        said = lines[0] if lines else ""
        answer = {"failure": f"{type(error).__name__}: {said}" if said else type(error).__name__}
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the end of a broken library may crash or hang too


if __name__ == "__main__":
    main()
