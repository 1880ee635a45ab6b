"""What a check found: one line each, and one verdict for all."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]
COLOURS = {"ok": "\033[32m", "warning": "\033[33m", "problem": "\033[1;31m"}
RESET = "\033[0m"
INDENT = 26  # columns before the text of a finding
MIN_TEXT_WIDTH = 30  # on a narrower terminal, lines are longer than it


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    status: Status  # "warning": works, but worse than it could; "problem": breaks a run
    subject: str  # what was checked, in a word or two
    text: str  # what was found, with its numbers
    fix: str | None = None  # a command or one step that solves it; every problem has one

    def __post_init__(self) -> None:
        if self.status == "problem" and not self.fix:
            raise ValueError(f"{self.subject}: a problem needs a fix")


def grade(
    subject: str, text: str, fix: str, *, problem: bool = False, warning: bool = False
) -> Finding:
    """Return a finding whose status follows from conditions; `fix` is left out where it is ok."""
    status: Status = "problem" if problem else "warning" if warning else "ok"
    return Finding(status, subject, text, None if status == "ok" else fix)


def is_pass(findings: Sequence[Finding]) -> bool:
    return all(finding.status != "problem" for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """Return pass or fail in one sentence, with the number of problems and warnings."""
    statuses = [finding.status for finding in findings]
    counts = {status: statuses.count(status) for status in ("problem", "warning")}
    text = " and ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n)
    if not is_pass(findings):
        return f"fail: {text}; run the commands above to fix the problems"
    return f"pass, with {text}" if text else "pass: no problems found"


def format_lines(finding: Finding, width: int | None = None) -> list[str]:
    """Format a finding as lines: wrapped and in colour for a terminal of `width`, else plain.

    A fix is one line however long it is, so that it can be copied.
    """
    room = max(width - INDENT, MIN_TEXT_WIDTH) if width else sys.maxsize
    first, *rest = textwrap.wrap(finding.text, room, break_on_hyphens=False)
    status = f"{finding.status:<9}"
    if width:
        status = f"{COLOURS[finding.status]}{status}{RESET}"
    rest += [finding.fix] if finding.fix else []
    return [f"{status}{finding.subject:<17}{first}", *(" " * INDENT + line for line in rest)]
