"""What the numbers of an evaluation mean, in sentences for people."""

import re
from bisect import bisect
from collections.abc import Sequence

from video_mvit.evaluation.metrics import Bin
from video_mvit.evaluation.results import Result, percent

# Where a test of motion keeps less than these shares of what the accuracy has above guessing, the
# first, second or third sentence holds; else the fourth. Boundaries are ours, for reading only.
KEPT = (0.1, 0.5, 0.9)
VERDICTS = {
    "frozen": (
        "It lives on motion: with one frame repeated, it can only guess.",
        "It needs motion for most of what it recognises.",
        "It recognises most videos by a single frame, the rest by motion.",
        "It hardly uses motion: a single frame tells it as much as the clip.",
    ),
    "reversed": (
        "It knows which way time runs: played backwards, it takes videos for other classes.",
        "Played backwards, it takes most videos for other classes.",
        "Which way time runs matters for some videos.",
        "Which way time runs hardly matters to it.",
    ),
    "shuffled": (
        "It needs the order of frames: shuffled, it can only guess.",
        "It needs the order of frames for most of what it recognises.",
        "The order of frames matters for some videos.",
        "The order of frames hardly matters to it.",
    ),
}
NEAR_GUESSING = 0.05  # above it; there is too little to lose then
EVEN = 0.01  # mean score and accuracy that are as near say the same


def motion_sentences(result: Result) -> list[str]:
    """What each test of motion says of the model; nothing without tests."""
    numbers = result.accuracies
    random = 1 / len(result.origin.class_names)
    above = numbers.top1 - random
    if not numbers.motion:
        return []
    if above < NEAR_GUESSING:
        return ["Its accuracy is so near to guessing that these tests say nothing."]
    return [
        VERDICTS[test][bisect(KEPT, (accuracy - random) / above)]
        for test, accuracy in numbers.motion.items()
    ]


def accuracy_sentence(result: Result) -> str:
    num_right = round(result.accuracies.top1 * result.num_videos)
    videos = "video" if result.num_videos == 1 else "videos"
    return (
        f"Right for {num_right:,} of {result.num_videos:,} {videos}; "
        f"guessing gives {guessing(result)}."
    )


def guessing(result: Result) -> str:
    """The accuracy of choosing classes at random; of many classes, it needs more digits."""
    return f"{100 / len(result.origin.class_names):.3g} %"


def calibration_sentence(bins: Sequence[Bin]) -> str:
    """Whether scores are higher or lower than the accuracy."""
    num_videos = sum(b.num_videos for b in bins)
    score = sum(b.num_videos * b.confidence for b in bins) / num_videos
    accuracy = sum(b.num_videos * b.accuracy for b in bins) / num_videos
    start = f"The mean score is {percent(score)}, the accuracy {percent(accuracy)}: "
    if abs(score - accuracy) < EVEN:
        return f"{start}together, scores say what to expect."
    how = "surer of itself than it should be" if score > accuracy else "better than it says"
    return f"{start}the model is {how}."


def protocol_sentence(protocol: str) -> str:
    """`5x1@16x4 offset short256 crop224` in words; nothing where it has another form."""
    form = r"(\d+)x(\d+)@(\d+)(?:x(\d+))? (\w+) short(\d+) crop(\d+)(?: (\w+))?"
    if not (found := re.fullmatch(form, protocol)):
        return ""
    clips, crops, frames, stride, _, side, size, interpolation = found.groups()
    views = f"{_count(clips, 'clip')} x {_count(crops, 'crop')} of each video"
    placed = f" of stride {stride}" if stride else ", one of each equal part"
    resized = f", {interpolation}" if interpolation else ""
    averaged = "" if clips == crops == "1" else "; scores averaged"
    return (
        f"{views}{averaged}. A clip has {_count(frames, 'frame')}{placed}; short side resized to "
        f"{side} pixels{resized}, crop of {size}."
    )


def _count(number: str, what: str) -> str:
    return f"{number} {what}" if number == "1" else f"{number} {what}s"
