"""What results of every kind tell of a list: which videos were evaluated, how, and how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

from video_mvit.evaluation.predictions import MISSING
from video_mvit.evaluation.results import Origin
from video_mvit.files import replace_atomically


class ListedVideo(Protocol):
    """A listed video: its name, and the reason where it was not evaluated."""

    @property
    def video(self) -> str: ...
    @property
    def problem(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class ListedResult:
    """The part of a result that does not depend on the kind of labels.

    Listed videos that are `missing` or `unreadable` (name and reason) are named, never replaced.
    `time_s` and `clips_per_s` are of the last run, which resumed with `num_resumed` videos.
    """

    num_videos: int
    num_listed: int
    missing: tuple[str, ...]
    unreadable: Mapping[str, str]
    time_s: float
    clips_per_s: float
    num_resumed: int
    origin: Origin

    def to_json(self) -> str:
        """Serialize to one flat object."""
        raise NotImplementedError

    def write(self, path: Path) -> None:
        with replace_atomically(path) as temporary:
            temporary.write_text(self.to_json() + "\n", encoding="utf-8")

    def closing_lines(self) -> dict[str, str]:
        """Return the last lines of the terminal summary: videos, views, time, weights."""
        lines = {"videos": f"{self.num_videos:,}"}
        if self.num_videos < self.num_listed:
            lines["videos"] += (
                f" of {self.num_listed:,}: {len(self.missing)} missing, "
                f"{len(self.unreadable)} unreadable"
            )
        lines["protocol"] = self.origin.protocol
        lines["time"] = f"{self.time_s:.0f} s, {self.clips_per_s:.1f} clips/s"
        if self.num_resumed:
            lines["time"] += f"  ({self.num_resumed:,} videos resumed from an earlier run)"
        ema = "  (EMA weights)" if "EMA" in self.origin.weights else ""
        lines["checkpoint"] = f"{self.origin.checkpoint}{ema}"
        return lines


def account_of(
    predictions: Sequence[ListedVideo],
    origin: Origin,
    *,
    time_s: float,
    num_clips: int,
    num_resumed: int,
) -> dict[str, Any]:
    """Return the fields of a `ListedResult`; `num_clips` went through the network in `time_s`."""
    left_out = [p for p in predictions if p.problem]
    return {
        "num_videos": len(predictions) - len(left_out),
        "num_listed": len(predictions),
        "missing": tuple(p.video for p in left_out if p.problem == MISSING),
        "unreadable": {p.video: p.problem for p in left_out if p.problem != MISSING},
        "time_s": time_s,
        "clips_per_s": num_clips / time_s if time_s else 0.0,
        "num_resumed": num_resumed,
        "origin": origin,
    }


def account_before(before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the time of an earlier run, from the values of its results.json."""
    return {
        "time_s": before["time_s"],
        "num_clips": round(before["clips_per_s"] * before["time_s"]),
        "num_resumed": before["num_resumed"],
    }


def origin_in(content: Mapping[str, Any]) -> Origin:
    """Return the setup of an evaluation that was read from its results.json."""
    known = {field.name: content[field.name] for field in fields(Origin) if field.name != "motion"}
    return Origin(**known, motion=())
