"""The order of the checks: findings come as soon as they are known, the slow ones last."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path

from video_mvit.doctor import loader_speed, machine_checks
from video_mvit.doctor import software_checks as software
from video_mvit.doctor.finding import Finding, is_pass
from video_mvit.doctor.run_probe import ask

NUM_VIDEOS = 4  # tried of a folder
MAX_FILES = 20_000  # listed of a folder; a large data set is not walked completely
SPEED_TIMEOUT_S = 600.0  # a step on a slow or busy CPU takes a minute


def examine(place: Path | None, model: str | None) -> Iterator[Finding]:
    """Check the installation, then the user's videos, then the speed of training `model`.

    Args:
        place: a video, or a folder of them.
        model: None to measure nothing; it is measured only where the installation works.
    """
    # For a Python that is not supported, nothing else is worth saying.
    python = software.check_python(platform.python_version())
    yield python
    if python.status == "problem":
        return
    findings = []
    for finding in check_installation():
        findings.append(finding)
        yield finding
    working = {finding.subject for finding in findings if finding.status == "ok"}
    # Without the default reader, the user's videos cannot be judged.
    readable: list[str] = []
    if place and software.DEFAULT_READER in working:
        paths = find_videos(place)
        if not paths:
            fix = "give a video, or a folder of videos: --video PATH"
            yield Finding("problem", "video", f"no video found at {place}", fix)
        for path in paths:
            facts = ask("examine_video", path)
            yield software.check_video(path, facts)
            readable += [path] if "failure" not in facts else []
        readers = [name for name in software.OTHER_READERS if name in working]
        yield from compare_readers(readers, readable)
    if model and is_pass(findings):
        from video_mvit.host import num_usable_cores

        sys.stderr.write("measuring clips/s (skip this with --quick) ...\n")
        speeds = ask("measure_speed", model, *readable, timeout_s=SPEED_TIMEOUT_S)
        yield loader_speed.check_speed(speeds, model, num_usable_cores())


def check_installation() -> Iterator[Finding]:
    """Check the packages, the machine, then what the packages can do."""
    run_folder = Path.cwd() / "runs"
    try:
        required, optional = software.read_ranges()
    except ModuleNotFoundError as error:
        text = f"{error.name} is not installed for {sys.executable}; torch and decoders not checked"
        fix = "make setup && make doctor (in the checkout), or: python -m pip install ."
        yield Finding("problem", "packages", text, fix)
        yield from machine_checks.check_machine(run_folder)
        return
    ranges = {**optional, **required}
    installed = {name: software.version_of(name) for name in ranges}
    yield software.check_packages(required, optional, installed)
    yield software.check_extras(software.read_extras(), installed)
    yield from machine_checks.check_machine(run_folder)
    yield from check_libraries(ranges)


def check_libraries(ranges: Mapping[str, str]) -> Iterator[Finding]:
    """Try torch, torchvision and the readers, side by side, each in a process of its own."""
    questions = {"torch": ["torch_facts"], "torchvision": ["torchvision_facts"]}
    for reader in (software.DEFAULT_READER, *software.OTHER_READERS):
        questions[reader] = ["read_numbered", reader]
    with ThreadPoolExecutor(max(os.cpu_count() or 1, 2)) as pool:
        answers = {name: pool.submit(ask, *question) for name, question in questions.items()}
        yield from software.check_torch(answers.pop("torch").result(), ranges)
        for name, answer in answers.items():
            version = software.version_of(software.LIBRARIES[name][0][0])
            yield software.check_library(name, answer.result(), version, ranges)


def find_videos(place: Path) -> list[str]:
    """Return a video itself, or a few of those below a folder, spread over it."""
    from video_mvit.data.reading.formats import VIDEO_SUFFIXES

    if place.is_file():
        return [str(place)]
    files = islice(place.rglob("*"), MAX_FILES)
    paths = sorted(
        str(path)
        for path in files
        if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
    )
    return paths[:: max(len(paths) // NUM_VIDEOS, 1)][:NUM_VIDEOS]


def compare_readers(readers: Sequence[str], paths: Sequence[str]) -> Iterator[Finding]:
    """Compare readers, where installed, with the default one on readable videos."""
    for reader, path in product(filter(software.version_of, readers), paths):
        facts = ask("compare_readers", path, software.DEFAULT_READER, reader)
        if "failure" in facts:
            fix = f"use data.reader={software.DEFAULT_READER}, which reads it"
            yield Finding("warning", reader, f"{path}: {facts['failure']}", fix)
