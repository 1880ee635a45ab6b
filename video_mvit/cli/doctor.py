"""Check this installation: Python, packages, GPU, decoders, machine, speed.

One line for each check, a fix under each problem, one verdict. Exit code 0: pass, 1: fail.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

from video_mvit.doctor.examine import examine
from video_mvit.doctor.finding import format_lines, is_pass, verdict
from video_mvit.text import printable


def main() -> None:
    """Run all checks and exit with 0 (pass) or 1 (fail)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--video", type=Path, metavar="PATH", help="also try a video or a folder of them"
    )
    parser.add_argument("--model", default="mvitv2_s", help="model to measure (default mvitv2_s)")
    parser.add_argument("--quick", action="store_true", help="skip the measurement of clips/s")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    options = parser.parse_args()
    # Wrap and colour lines on a terminal only.
    is_terminal = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns if is_terminal else None
    findings = []
    for found in examine(options.video, None if options.quick else options.model):
        fix = printable(found.fix) if found.fix else None
        finding = replace(found, text=printable(found.text), fix=fix)
        findings.append(finding)
        if not options.json:
            sys.stdout.write("\n".join([*format_lines(finding, width), ""]))
            sys.stdout.flush()
    result = f"\n{verdict(findings)}\n"
    if options.json:
        summary = {"pass": is_pass(findings), "verdict": verdict(findings)}
        result = json.dumps({**summary, "findings": list(map(asdict, findings))}, indent=2) + "\n"
    sys.stdout.write(result)
    sys.exit(0 if is_pass(findings) else 1)
