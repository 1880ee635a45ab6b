"""Made-up evaluations."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from video_mvit.evaluation.predictions import MISSING, VideoResult
from video_mvit.evaluation.report import videos_to_show
from video_mvit.evaluation.results import Origin, Result, summarize
from video_mvit.evaluation.strips import NUM_FRAMES, Strip, encode_strip, room_for

PROTOCOL = "5x1@16x4 offset short256 crop224"
HOSTILE = (
    "<script>alert(1)</script>",
    "\"quotes\" & 'more'",
    "</table></script><b>",
    "日本語",
    "رمي الكرة",
    "{{ 7 * 7 }}",
    "x" * 200,
)
CURVES = {
    "train/loss": [(i / 50, 2 / (1 + i)) for i in range(200)],
    "val/loss": [(1.0, 1.5), (2.0, 0.9), (4.0, 0.7)],
    "val/top1": [(1.0, 0.4), (2.0, 0.6), (4.0, 0.8)],
    "train/lr": [(i / 50, 1e-4 * i) for i in range(200)],
}


def origin(class_names: Sequence[str], **changes: object) -> Origin:
    known: dict[str, object] = {
        "protocol": PROTOCOL,
        "normalization": "mean 0.45 0.45 0.45 std 0.225 0.225 0.225",
        "motion": (),
        "precision": "32-true",
        "list_sha1": "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "weights_sha1": "3f786850e387550fdab836ed7e6dc881de23001b",
        "checkpoint": "runs/x/last.ckpt",
        "weights": "training checkpoint",
        "list_root": "videos",
        "class_names": tuple(class_names),
        "versions": {"python": "3.11.9", "torch": "2.11.0", "device": "cpu"},
    }
    return Origin(**{**known, **changes})  # type: ignore[arg-type]


def summary(predictions: Sequence[VideoResult], class_names: Sequence[str]) -> Result:
    motion = next((tuple(p.motion) for p in predictions if p.motion), ())
    return summarize(
        predictions,
        origin(class_names, motion=motion),
        time_s=10.0,
        num_clips=5 * len(predictions),
        num_resumed=0,
    )


def prediction(
    video: str,
    label: int,
    classes: Sequence[int],
    score: float = 0.6,
    motion: Mapping[str, int] | None = None,
) -> VideoResult:
    """Of the best class with `score`; each further one has half of what is left."""
    scores = [score, *((1 - score) / 2**i for i in range(1, len(classes)))]
    return VideoResult(
        video=video,
        label=label,
        classes=tuple(classes),
        scores=tuple(sorted(scores, reverse=True)),
        motion=motion or {},
    )


def many_predictions(class_names: Sequence[str], number: int, accuracy: float) -> list[VideoResult]:
    """Mistakes fall mostly on the next class; the last six videos are not there or not readable."""
    draw, num_classes = random.Random(0), len(class_names)
    found = []
    for i in range(number):
        label = i % num_classes
        video = f"val/{class_names[label]}/{i:05}.mp4"
        if i >= number - 6:
            problem = MISSING if i % 2 else f"no frames in {i:05}"
            found.append(VideoResult(video=video, label=label, problem=problem))
            continue
        best = [label, *((label + step) % num_classes for step in range(1, min(5, num_classes)))]
        if draw.random() > accuracy and num_classes > 1:
            best[:2] = best[1::-1] if draw.random() < 0.8 else [best[-1], best[0]]
            best = list(dict.fromkeys([*best, *range(num_classes)]))[: min(5, num_classes)]
        still = label if draw.random() < accuracy / 2 else draw.randrange(num_classes)
        found.append(prediction(video, label, best, draw.uniform(0.5, 1), {"frozen": still}))
    return found


def strips_of(predictions: Sequence[VideoResult], num_classes: int) -> dict[str, Strip]:
    """Noise, which compresses worst, for each of the videos that are shown."""
    shown = videos_to_show(predictions, num_classes)
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 90, 160, 3), dtype=np.uint8)
    strip = encode_strip(noise, room_for(len(shown)))
    assert strip is not None
    return dict.fromkeys(shown, strip)


TOLERANCE = 1e-5  # of scores: how processors round depends on the shape of a batch


def assert_same_predictions(found: Sequence[VideoResult], expected: Sequence[VideoResult]) -> None:
    """Assert the same videos once each, scores within the tolerance, and the same classes.

    Classes whose scores tie within the tolerance may change places.
    """
    assert [(each.video, each.label, each.problem) for each in found] == [
        (each.video, each.label, each.problem) for each in expected
    ]
    for a, b in zip(found, expected, strict=True):
        assert a.scores == pytest.approx(b.scores, rel=0, abs=TOLERANCE), a.video
        assert a.motion.keys() == b.motion.keys()
        for place, (one, other) in enumerate(zip(a.classes, b.classes, strict=True)):
            if one != other:
                tied = b.scores[b.classes.index(one)] if one in b.classes else b.scores[-1]
                assert abs(b.scores[place] - tied) <= TOLERANCE, a.video
