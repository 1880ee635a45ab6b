"""What an evaluation says: numbers and their protocol, for machines and for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """Accuracies are shares of the evaluated videos; `protocol` says which views were averaged."""

    protocol: str
    top1: float
    top5: float
    frozen_top1: float | None
    num_videos: int
    num_missing: int
    time_s: float
    checkpoint: str

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def lines(self) -> Mapping[str, str]:
        """Name and text of each line of a short report."""
        missing = f", {self.num_missing} listed but not on disk" if self.num_missing else ""
        lines = {"top-1": f"{100 * self.top1:.1f} %", "top-5": f"{100 * self.top5:.1f} %"}
        if self.frozen_top1 is not None:
            lines["top-1 on frozen clips"] = (
                f"{100 * self.frozen_top1:.1f} %  (one frame repeated: no motion)"
            )
        lines["videos"] = f"{self.num_videos}{missing}"
        lines["protocol"] = self.protocol
        lines["time"] = f"{self.time_s:.0f} s"
        lines["checkpoint"] = self.checkpoint
        return lines


def describe_protocol(sampler: Any, crop: Any) -> str:
    """Views as they are cut: clips x crops, frames and placement of a clip, sizes in pixels."""
    views = f"{sampler.num_clips}x{crop.num_crops}@{sampler.protocol}"
    return f"{views} short{crop.short_side} crop{crop.size}"
