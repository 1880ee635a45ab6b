"""What an evaluation says: numbers with their protocol, as JSON for machines and as lines for
people.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """Accuracies are shares of the evaluated videos; `protocol` says which views were averaged,
    e.g. "5x1@16x4 short256 crop224".
    """

    protocol: str
    top1: float
    top5: float
    frozen_top1: float | None
    num_videos: int
    num_missing: int
    seconds: float
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
        lines["time"] = f"{self.seconds:.0f} s"
        lines["checkpoint"] = self.checkpoint
        return lines


def describe_protocol(data: Mapping[str, Any], clip: Mapping[str, Any]) -> str:
    """Clips x crops @ frames x stride, short side and crop in pixels."""
    views = f"{data['num_clips']}x{data['num_crops']}@{clip['num_frames']}x{clip['frame_stride']}"
    return f"{views} short{data['short_side']} crop{clip['crop_size']}"
