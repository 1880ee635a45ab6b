"""The result of an evaluation: metrics with their protocol, as JSON and as lines of text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.intervals import Interval
from video_mvit.evaluation.metrics import NUM_BINS, Accuracies, measure, measure_intervals
from video_mvit.evaluation.motion_tests import MEANING
from video_mvit.evaluation.predictions import MISSING, VideoResult
from video_mvit.files import replace_atomically
from video_mvit.renamed import RESULT_FIELDS, rename_keys
from video_mvit.schema import (
    Check,
    MismatchError,
    anything,
    number,
    parse_json,
    record,
    row,
    sequence,
    table,
    text,
    whole,
)
from video_mvit.text import percent

# What two evaluations must share for one to resume from the predictions of the other, and how a
# difference is called.
IDENTITY = {
    "protocol": "different views",
    "normalization": "a different normalization",
    "list_sha1": "a different list of videos",
    "weights_sha1": "different weights",
    "precision": "a different precision",
    "motion": "different ablations",
}


SHARE = number(0.0, 1.0)
METRICS = Accuracies._fields[:-1]  # without those of `motion`
RESULT_OBJECT = table(anything)
RESULT_NAMES: dict[str, Check] = {
    **dict.fromkeys(METRICS, SHARE),
    "motion": table(SHARE, MEANING),
    "intervals": table(row(SHARE, SHARE), METRICS),
    **dict.fromkeys(("protocol", "normalization", "precision", "list_sha1"), text()),
    **dict.fromkeys(("weights_sha1", "checkpoint", "weights", "list_root"), text()),
    "class_names": sequence(text(), low=1),
    "versions": table(text()),
    "num_videos": whole(1),
    **dict.fromkeys(("num_listed", "num_resumed"), whole()),
    "missing": sequence(text()),
    "unreadable": table(text()),
    **dict.fromkeys(("time_s", "clips_per_s"), number(0.0)),
}
RESULT = record(RESULT_NAMES)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Inputs and setup of an evaluation, independent of its result.

    Attributes:
        protocol: which views were averaged; see `describe_protocol`.
        normalization: of their pixels; see `describe_normalization`.
        motion: names of the temporal ablations.
        list_sha1: hash of the list of present videos and their classes.
        weights_sha1: hash of the weights, independent of the file format.
        weights: what was in the checkpoint, EMA or raw.
        list_root: folder or address that video names are relative to.
        versions: of Python, PyTorch and this package; and the device.
    """

    protocol: str
    normalization: str
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
        """Return what identifies the evaluation, in plain JSON values."""
        return json.loads(json.dumps({name: getattr(self, name) for name in IDENTITY}))  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Result:
    """Metrics of the evaluated videos; `bounds` are accuracies over all listed ones.

    `intervals` are 95 % intervals of the metrics, by name; files of older versions have none.

    Listed videos that are `missing` or `unreadable` (name and reason) are named, never replaced.
    `time_s` and `clips_per_s` are of the last run, which resumed with `num_resumed` videos.
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
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """Compute accuracies with all excluded videos counted as wrong, and as correct."""
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
        """Serialize to one flat object; `motion` holds the accuracies of the temporal ablations."""
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
        """Return name and text of each line of the terminal summary."""
        numbers, origin = self.accuracies, self.origin
        lines = {
            "top-1": percent(numbers.top1),
            "top-5": percent(numbers.top5),
            "mean class accuracy": percent(numbers.mean_class_accuracy),
        }
        error = percent(numbers.calibration_error)
        lines[f"ECE ({NUM_BINS} bins)"] = f"{error}  (0 = perfectly calibrated)"
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
            lines["time"] += f"  ({self.num_resumed:,} videos resumed from an earlier run)"
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
    """Summarize predictions, one for each listed video.

    `num_clips` went through the network in `time_s`. Raises `UserError` where no video is left.
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
        intervals=measure_intervals(predictions, len(origin.class_names)),
    )


def summarize_again(before: Result, predictions: Sequence[VideoResult]) -> Result:
    """Recompute a result from predictions, with the setup and time of an earlier one."""
    return summarize(
        predictions,
        before.origin,
        time_s=before.time_s,
        num_clips=round(before.clips_per_s * before.time_s),
        num_resumed=before.num_resumed,
    )


def read_result(path: Path) -> Result:
    """Read what `Result.write` wrote; raises `FileNotFoundError` or `UserError`."""
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    try:
        whole_file = RESULT_OBJECT(parse_json(path.read_bytes()))
        known = {"intervals": {}, **rename_keys(whole_file, RESULT_FIELDS)}
        content = RESULT({name: known[name] for name in known if name in RESULT_NAMES})
        if not content["num_videos"] <= content["num_listed"]:
            raise MismatchError("more videos were evaluated than are listed")
    except MismatchError as error:
        raise UserError(
            f"{path} is not a results.json of this version of video-mvit evaluate: {error}; "
            "evaluate again"
        ) from None
    origin = {each.name: content[each.name] for each in fields(Origin)}
    origin["motion"] = tuple(content["motion"])
    apart = ("accuracies", "origin")
    rest = {each.name: content[each.name] for each in fields(Result) if each.name not in apart}
    rest["intervals"] = {name: Interval(*each) for name, each in content["intervals"].items()}
    accuracies = Accuracies(**{name: content[name] for name in Accuracies._fields})
    return Result(accuracies=accuracies, origin=Origin(**origin), **rest)


def describe_protocol(sampler: Any, crop: Any) -> str:
    """Describe the views: clips x crops, frames and placement of a clip, sizes in pixels."""
    views = f"{sampler.num_clips}x{crop.num_crops}@{sampler.protocol}"
    resized = "" if crop.interpolation == "bilinear" else f" {crop.interpolation}"
    return f"{views} short{crop.short_side} crop{crop.size}{resized}"


def describe_normalization(mean: Sequence[float], std: Sequence[float]) -> str:
    """Describe the normalization of pixels in 0..1: "mean 0.45 0.45 0.45 std 0.2 0.2 0.2"."""
    return " ".join(["mean", *map(str, map(float, mean)), "std", *map(str, map(float, std))])


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], words: Mapping[str, str] = IDENTITY
) -> list[str]:
    """Describe how two identities differ."""
    return [said for name, said in words.items() if before.get(name) != now.get(name)]
