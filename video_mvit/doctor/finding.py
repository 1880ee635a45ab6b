"""What `doctor.py` found: one line for each thing looked at, one verdict for all.

Nothing here needs more than the standard library; it also runs on a Python that is too old.
"""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Sequence, Tuple  # noqa: UP035

STATUSES = ("ok", "warning", "problem")
COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red", "remedy": "cyan"}
INDENT = 26  # columns before the text of a line
MIN_TEXT_WIDTH = 30  # narrower terminals get longer lines


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        status: "ok"; "warning": works, worse than it could; "problem": will break a run.
        subject: what was looked at, in a word or two.
        text: what was found, with its numbers.
        remedy: a command that mends it, or one step; every problem has one.
    """

    status: str
    subject: str
    text: str
    remedy: str | None = None

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status {self.status!r} is none of {', '.join(STATUSES)}")
        if self.status == "problem" and not self.remedy:
            raise ValueError(f"{self.subject}: a problem needs a remedy")


def is_pass(findings: Sequence[Finding]) -> bool:
    return all(finding.status != "problem" for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence: pass or fail, and how much of what."""
    counts = [
        (sum(finding.status == status for finding in findings), status)
        for status in ("problem", "warning")
    ]
    told = [f"{n} {status}{'s' if n > 1 else ''}" for n, status in counts if n]
    if is_pass(findings):
        return "pass" + (f", with {told[0]}" if told else ": nothing found that would break a run")
    return f"fail: {' and '.join(told)}; the commands above mend the problems"


def as_json(findings: Sequence[Finding]) -> Dict[str, Any]:  # noqa: UP006
    return {
        "pass": is_pass(findings),
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def laid_out(finding: Finding, width: int | None) -> List[Tuple[str, str]]:  # noqa: UP006
    """Lines of a finding, each as parts of (text, colour); `width` None: no line is broken.

    A remedy is one line however long it is, so that it can be copied.
    """
    room = max(width - INDENT, MIN_TEXT_WIDTH) if width else sys.maxsize
    first, *rest = textwrap.wrap(finding.text, room, break_on_hyphens=False) or [""]
    parts = [
        (f"{finding.status:<9}", COLOURS[finding.status]),
        (f"{finding.subject:<{INDENT - 9}}{first}\n", ""),
    ]
    parts += [(" " * INDENT + line + "\n", "") for line in rest]
    if finding.remedy:
        parts.append((" " * INDENT + finding.remedy + "\n", COLOURS["remedy"]))
    return parts
