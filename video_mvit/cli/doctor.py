"""Look in seconds at what breaks first: Python, packages, torch, decoders, the machine.

video-mvit doctor [--video FILE_OR_FOLDER] [--model mvitv2_s] [--json] [--quick]

One line for each thing, a command under each problem, one verdict. Exit code 0: pass, 1: fail.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from video_mvit.doctor.examine import examine, make_printer
from video_mvit.doctor.finding import as_json, is_pass, verdict


def main() -> None:
    """Run all checks and exit with 0 (pass) or 1 (fail)."""
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
