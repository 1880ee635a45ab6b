"""Small H.264 videos whose frame `i` shows `i`, and a demo data set small enough for a test."""

from pathlib import Path

import av
import numpy as np

SIDE = 64


def write_numbered_video(
    path: Path, num_frames: int, fps: int = 30, size: tuple[int, int] = (SIDE, SIDE)
) -> Path:
    """Frame `i` is `i` in binary, one bright or dark bar for each of eight bits; B-frames, a key
    frame every 12.
    """
    height, width = size
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        options = {"bf": "2", "g": "12", "crf": "10"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(num_frames):
            bits = [(i >> bit) & 1 for bit in range(8)]
            row = np.repeat(np.array(bits, np.uint8) * 220 + 16, width // 8)
            frame = np.broadcast_to(row[None, :, None], (height, width, 3))
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts = i
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def read_numbers(frames: np.ndarray) -> list[int]:
    """Numbers that frames (T, H, W, 3) of a numbered video show."""
    bars = frames.reshape(*frames.shape[:2], 8, -1, 3).mean(axis=(1, 3, 4)) > 128
    return [int(sum(1 << bit for bit in range(8) if row[bit])) for row in bars]
