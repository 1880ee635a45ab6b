"""Describe the metrics of an evaluation in sentences."""

import re
from bisect import bisect
from collections.abc import Sequence

from video_mvit.evaluation.intervals import wilson
from video_mvit.evaluation.metrics import Bin
from video_mvit.evaluation.results import Result
from video_mvit.text import percent

# The sentence depends on the share of the accuracy above chance level that an ablation keeps: below
# 0.1 the first, below 0.5 the second, below 0.9 the third, else the fourth. Boundaries are ours.
KEPT = (0.1, 0.5, 0.9)
SENTENCES = {
    "frozen": (
        "Relies on motion: chance level on a static clip.",
        "Relies mostly on motion: accuracy more than halves on a static clip.",
        "Recognizes most videos from a single frame, the others by motion.",
        "Barely uses motion: a static clip gives nearly the same accuracy.",
    ),
    "reversed": (
        "Sensitive to temporal direction: chance level on reversed clips.",
        "Largely sensitive to temporal direction: accuracy more than halves on reversed clips.",
        "Partly sensitive to temporal direction.",
        "Insensitive to temporal direction.",
    ),
    "shuffled": (
        "Relies on frame order: chance level on shuffled clips.",
        "Relies mostly on frame order: accuracy more than halves on shuffled clips.",
        "Relies partly on frame order.",
        "Insensitive to frame order.",
    ),
}
NEAR_CHANCE = 0.05  # above chance level; an ablation can then lose too little to tell
MAX_CALIBRATED_GAP = 0.01  # largest gap between mean score and accuracy of a calibrated model


def motion_sentences(result: Result) -> list[str]:
    """Interpret each temporal ablation; empty without ablations."""
    numbers = result.accuracies
    random = 1 / len(result.origin.class_names)
    above = numbers.top1 - random
    if not numbers.motion:
        return []
    if above < NEAR_CHANCE:
        return ["The accuracy is too close to chance level for these ablations to tell anything."]
    return [
        SENTENCES[test][bisect(KEPT, (accuracy - random) / above)]
        for test, accuracy in numbers.motion.items()
    ]


def accuracy_sentence(result: Result) -> str:
    num_right = round(result.accuracies.top1 * result.num_videos)
    videos = "video" if result.num_videos == 1 else "videos"
    return (
        f"{num_right:,} of {result.num_videos:,} {videos} correct; "
        f"chance level {chance_level(result)}."
    )


def chance_level(result: Result) -> str:
    """Return the accuracy of a uniform random guess, with three significant digits."""
    return f"{100 / len(result.origin.class_names):.3g} %"


def calibration_sentence(bins: Sequence[Bin]) -> str:
    """Say whether the model is over- or underconfident on average, as far as the videos tell."""
    num_videos = sum(b.num_videos for b in bins)
    score = sum(b.num_videos * b.confidence for b in bins) / num_videos
    accuracy = sum(b.num_videos * b.accuracy for b in bins) / num_videos
    start = f"The mean score is {percent(score)}, the accuracy {percent(accuracy)}: "
    if abs(score - accuracy) < MAX_CALIBRATED_GAP:
        return f"{start}well calibrated on average."
    low, high = wilson(round(num_videos * accuracy), num_videos)
    if low <= score <= high:
        return f"{start}no more apart than chance allows with {num_videos:,} videos."
    return f"{start}{'overconfident' if score > accuracy else 'underconfident'}."


def protocol_sentence(protocol: str) -> str:
    """Spell out a protocol such as `5x1@16x4 offset short256 crop224`; "" for other forms."""
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
