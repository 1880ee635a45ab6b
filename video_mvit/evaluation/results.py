"""What an evaluation says: numbers and their protocol, for machines and for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.metrics import Accuracies, measure
from video_mvit.evaluation.motion_tests import MEANING
from video_mvit.evaluation.predictions import MISSING, VideoResult
from video_mvit.files import replace_atomically

# What two evaluations must have in common for the predictions of one to serve the other.
IDENTITY = ("protocol", "normalisation", "list_sha1", "weights_sha1", "precision", "motion")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an evaluation was made of and how; the same whatever came out.

    Attributes:
        protocol: which views were averaged; see `describe_protocol`.
        normalisation: of their pixels; see `describe_normalisation`.
        motion: names of the tests of motion that were asked for.
        list_sha1: tells the list of present videos and their classes from another one.
        weights_sha1: tells the weights from others, whatever file they lie in.
        weights: what was in the checkpoint, EMA or raw.
        list_root: folder or address that the names of videos continue.
        versions: of Python, PyTorch and this package; and the device.
    """

    protocol: str
    normalisation: str
    motion: tuple[str, ...]
    precision: str
    list_sha1: str
    weights_sha1: str
    checkpoint: str
    weights: str
    list_root: str
    class_names: tuple[str, ...]
    versions: Mapping[str, str]

    @property
    def identity(self) -> dict[str, Any]:
        """In plain values, as JSON gives them back."""
        return json.loads(json.dumps({name: getattr(self, name) for name in IDENTITY}))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Accuracies are shares of the evaluated videos, `bounds` those of all that are listed.

    Listed videos that are `missing` or `unreadable` (name and reason) are named, never replaced.
    `time_s` and `clips_per_s` are of the last run, in which `num_resumed` videos were already done.
    """

    accuracies: Accuracies
    num_videos: int
    num_listed: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    time_s: float
    clips_per_s: float
    num_resumed: int
    origin: Origin

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Accuracies if all videos that are left out were wrong, and if all were right."""
        num_left_out = self.num_listed - self.num_videos
        shares = {"top1": self.accuracies.top1, "top5": self.accuracies.top5}
        return {
            name: (
                share * self.num_videos / self.num_listed,
                (share * self.num_videos + num_left_out) / self.num_listed,
            )
            for name, share in shares.items()
        }

    def to_json(self) -> str:
        """One flat object; `motion` holds the accuracies of the tests of motion."""
        content = asdict(self)
        origin, accuracies = content.pop("origin"), self.accuracies._asdict()
        content.pop("accuracies")
        protocol = origin.pop("protocol")
        origin.pop("motion")
        whole = {"protocol": protocol, **accuracies, "bounds": self.bounds, **content, **origin}
        return json.dumps(whole, indent=2)

    def write(self, path: Path) -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    def lines(self) -> dict[str, str]:
        """Name and text of each line of a short report."""
        numbers, origin = self.accuracies, self.origin
        lines = {
            "top-1": percent(numbers.top1),
            "top-5": percent(numbers.top5),
            "mean over classes": percent(numbers.mean_class_accuracy),
        }
        error = percent(numbers.calibration_error)
        lines["calibration error"] = f"{error}  (0: scores tell the accuracy)"
        for test, accuracy in numbers.motion.items():
            lines[f"top-1 {test}"] = f"{percent(accuracy)}  ({MEANING[test]})"
        lines["videos"] = f"{self.num_videos:,}"
        if self.num_videos < self.num_listed:
            low, high = self.bounds["top1"]
            lines["videos"] += (
                f" of {self.num_listed:,}: {len(self.missing)} missing, "
                f"{len(self.unreadable)} unreadable"
            )
            lines["top-1 of all listed"] = f"{percent(low)} to {percent(high)}"
        lines["protocol"] = origin.protocol
        lines["time"] = f"{self.time_s:.0f} s, {self.clips_per_s:.1f} clips/s"
        if self.num_resumed:
            lines["time"] += f"  ({self.num_resumed:,} videos were done before)"
        lines["checkpoint"] = origin.checkpoint
        if "EMA" in origin.weights:
            lines["checkpoint"] += "  (EMA weights)"
        return lines


def summarize(
    predictions: Sequence[VideoResult],
    origin: Origin,
    *,
    time_s: float,
    num_clips: int,
    num_resumed: int,
) -> Result:
    """The result of a list of predictions, one for each listed video.

    `num_clips` went through the network in `time_s`. Raises `ValueError` where no video is left.
    """
    left_out = [p for p in predictions if p.problem]
    return Result(
        accuracies=measure(predictions, len(origin.class_names)),
        num_videos=len(predictions) - len(left_out),
        num_listed=len(predictions),
        missing=tuple(p.video for p in left_out if p.problem == MISSING),
        unreadable={p.video: p.problem for p in left_out if p.problem != MISSING},
        time_s=time_s,
        clips_per_s=num_clips / time_s if time_s else 0.0,
        num_resumed=num_resumed,
        origin=origin,
    )


def summarize_again(before: Result, predictions: Sequence[VideoResult]) -> Result:
    """The result of these predictions in the place of an earlier one, whose run and time it was."""
    return summarize(
        predictions,
        before.origin,
        time_s=before.time_s,
        num_clips=round(before.clips_per_s * before.time_s),
        num_resumed=before.num_resumed,
    )


def read_result(path: Path) -> Result:
    """What `Result.write` wrote; raises `FileNotFoundError`, or `ValueError` in one sentence."""
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        motion = content["motion"]
        numbers = {name: content[name] for name in Accuracies._fields}
        origin = {field.name: content[field.name] for field in fields(Origin)}
        origin |= {"motion": tuple(motion), "class_names": tuple(origin["class_names"])}
        rest = {field.name: content[field.name] for field in fields(Result)[1:-1]}
        rest["missing"] = tuple(rest["missing"])
        return Result(accuracies=Accuracies(**numbers), origin=Origin(**origin), **rest)
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} is no results.json of this version of video-mvit evaluate; evaluate again"
        ) from None


def describe_protocol(sampler: Any, crop: Any) -> str:
    """Views as they are cut: clips x crops, frames and placement of a clip, sizes in pixels."""
    views = f"{sampler.num_clips}x{crop.num_crops}@{sampler.protocol}"
    resized = "" if crop.interpolation == "bilinear" else f" {crop.interpolation}"
    return f"{views} short{crop.short_side} crop{crop.size}{resized}"


def describe_normalisation(mean: Sequence[float], std: Sequence[float]) -> str:
    """What pixels in 0..1 are reduced by and divided by: "mean 0.45 0.45 0.45 std 0.2 0.2 0.2"."""
    return " ".join(["mean", *map(str, map(float, mean)), "std", *map(str, map(float, std))])


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two identities do not have in common, in words."""
    words = {
        "protocol": "other views",
        "normalisation": "another normalisation",
        "list_sha1": "another list of videos",
        "weights_sha1": "other weights",
        "precision": "another precision",
        "motion": "other tests of motion",
    }
    return [words[name] for name in IDENTITY if before.get(name) != now.get(name)]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
