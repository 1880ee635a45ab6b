"""Measure transcoded copies against their sources: how fast they decode, and what they lose."""

import time
from collections.abc import Sequence
from itertools import islice
from math import inf, log10
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from video_mvit.data.preparation.transcode import shrink
from video_mvit.data.reading.open import iterate_frames, open_video
from video_mvit.data.sampling import ClipSampler

NUM_MEASURED, CLIPS_MEASURED = 16, 3  # videos, and clips of each
FIRST_COMPARED, LAST_COMPARED, EVERY_COMPARED = 0, 61, 20  # frames whose PSNR is measured


def measure_decoding(
    pairs: Sequence[tuple[str, Path]], sampler: ClipSampler, seed: int = 0
) -> tuple[float, float]:
    """Measure CPU seconds per random clip of some sources and their targets, interleaved."""
    generator, seconds, num_clips = np.random.default_rng(seed), [0.0, 0.0], 0
    step = max(len(pairs) // NUM_MEASURED, 1)
    for pair in pairs[::step][:NUM_MEASURED]:
        with open_video(pair[0]) as video:
            clips = [sampler(video.clock, generator)[0] for _ in range(CLIPS_MEASURED)]
        for clip in clips:
            num_clips += 1
            for side, path in enumerate(map(str, pair)):
                start_s = time.process_time()
                with open_video(path) as video:
                    video.read(clip)
                seconds[side] += time.process_time() - start_s
    return seconds[0] / max(num_clips, 1), seconds[1] / max(num_clips, 1)


def measure_psnr(pairs: Sequence[tuple[str, Path]]) -> float:
    """Measure the PSNR of luma in dB over some frames of some targets and their sources.

    The sources are shrunk as for the targets; infinite for equal frames.
    """
    step = max(len(pairs) // NUM_MEASURED, 1)
    errors: list[float] = []
    for source, target in pairs[::step][:NUM_MEASURED]:
        frames = zip(iterate_frames(source), iterate_frames(target), strict=False)
        for before, after in islice(frames, FIRST_COMPARED, LAST_COMPARED, EVERY_COMPARED):
            wanted = _luma(shrink(before, min(after.height, after.width)))
            found = _luma(after)
            if wanted.shape == found.shape:
                errors.append(float(np.square(wanted - found).mean()))
    mean = sum(errors) / max(len(errors), 1)
    return 10 * log10(255**2 / mean) if mean else inf


def _luma(picture: av.VideoFrame) -> NDArray[np.float32]:
    """Return the brightness of a planar frame: (H, W)."""
    return picture.to_ndarray()[: picture.height].astype(np.float32)
