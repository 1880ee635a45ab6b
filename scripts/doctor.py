"""Look in seconds at what breaks first: Python, packages, torch, decoders, the machine.

python scripts/doctor.py [--video FILE_OR_FOLDER] [--model mvitv2_s] [--json] [--quick]

One line for each thing, a command under each problem, one verdict. Exit code 0: pass, 1: fail.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from pathlib import Path
from typing import Callable, Iterator  # noqa: UP035

from finding import Finding, as_json, is_pass, laid_out, verdict

ROOT = Path(__file__).parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--video", type=Path, help="a video, or a folder of them, to try as well")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--model", default="mvitv2_s", help="to measure (default mvitv2_s)")
    parser.add_argument("--quick", action="store_true", help="measure nothing")
    given = parser.parse_args()
    show = None if given.json else make_printer()
    findings = []
    for finding in examine(given.video, None if given.quick else given.model):
        findings.append(finding)
        if show:
            show(finding)
    told = json.dumps(as_json(findings), indent=2) if given.json else f"\n{verdict(findings)}"
    sys.stdout.write(told + "\n")
    sys.exit(0 if is_pass(findings) else 1)


def examine(video: Path | None, model: str | None) -> Iterator[Finding]:
    """Another Python than the one that is needed is all there is to say.

    `model` is measured once all else is told and nothing of it is a problem.
    """
    from software_checks import check_python

    python = check_python((ROOT / "pyproject.toml").read_text(), platform.python_version())
    yield python
    if python.status == "ok":
        from examination import examine_environment, examine_pace, read_project

        is_sound = True
        for finding in examine_environment(read_project(), video):
            is_sound = is_sound and (finding.status != "problem" or finding.subject == "video")
            yield finding
        if model and is_sound:
            sys.stderr.write("measuring clips/s (--quick leaves it out) ...\n")
            yield examine_pace(model, video)


def make_printer() -> Callable[[Finding], None]:
    """Print findings as they come: with rich on a terminal where rich is not broken itself."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else None
    try:
        from rich.console import Console
        from rich.text import Text
    except Exception:  # a broken library is no reason to say nothing
        is_terminal = False

    def show(finding: Finding) -> None:
        parts = laid_out(finding, width)
        if is_terminal:
            console.print(Text.assemble(*parts), end="", soft_wrap=True)
        else:
            sys.stdout.write("".join(text for text, _ in parts))
            sys.stdout.flush()

    if is_terminal:
        console = Console(highlight=False)
    return show


if __name__ == "__main__":
    main()
