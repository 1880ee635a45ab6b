"""What an evaluation says: numbers and their protocol, for machines and for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """Accuracies are shares of the evaluated videos; `protocol` says which views were averaged.

    Listed videos that are `missing` or `unreadable` (name and reason) are named, never replaced.
    `weights` says what was in the `checkpoint`, averaged or not. `list_sha1` tells the list of
    present videos and their classes from another one.
    """

    protocol: str
    top1: float
    top5: float
    frozen_top1: float | None
    num_videos: int
    num_listed: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    list_sha1: str
    class_names: tuple[str, ...]
    time_s: float
    checkpoint: str
    weights: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def bounds(self, accuracy: float) -> tuple[float, float]:
        """An accuracy if all videos that are left out were wrong, and if all were right."""
        num_right = accuracy * self.num_videos
        num_left_out = self.num_listed - self.num_videos
        return num_right / self.num_listed, (num_right + num_left_out) / self.num_listed

    def lines(self) -> Mapping[str, str]:
        """Name and text of each line of a short report."""
        lines = {"top-1": f"{100 * self.top1:.1f} %", "top-5": f"{100 * self.top5:.1f} %"}
        if self.frozen_top1 is not None:
            lines["top-1 on frozen clips"] = (
                f"{100 * self.frozen_top1:.1f} %  (one frame repeated: no motion)"
            )
        lines["videos"] = f"{self.num_videos}"
        if self.num_videos < self.num_listed:
            low, high = self.bounds(self.top1)
            lines["videos"] += (
                f" of {self.num_listed}: {len(self.missing)} missing, "
                f"{len(self.unreadable)} unreadable"
            )
            lines["top-1 of all listed"] = f"{100 * low:.1f} % to {100 * high:.1f} %"
        lines["protocol"] = self.protocol
        lines["time"] = f"{self.time_s:.0f} s"
        lines["checkpoint"] = self.checkpoint
        if "averaged" in self.weights:
            lines["checkpoint"] += "  (averaged weights)"
        return lines


def describe_protocol(sampler: Any, crop: Any) -> str:
    """Views as they are cut: clips x crops, frames and placement of a clip, sizes in pixels."""
    views = f"{sampler.num_clips}x{crop.num_crops}@{sampler.protocol}"
    resized = "" if crop.interpolation == "bilinear" else f" {crop.interpolation}"
    return f"{views} short{crop.short_side} crop{crop.size}{resized}"
