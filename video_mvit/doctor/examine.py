"""The order in which `doctor.py` looks at things: questions are asked at once, told one by one."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterator  # noqa: UP035

from video_mvit.doctor.decoder_checks import (
    PACKAGES,
    READERS,
    check_file,
    check_folder,
    check_other_reader,
    check_written,
)
from video_mvit.doctor.finding import Finding, laid_out
from video_mvit.doctor.machine_checks import check_pace, look_at_machine, usable_cores
from video_mvit.doctor.requirements import pins
from video_mvit.doctor.run_probe import ask, driver_of_gpus
from video_mvit.doctor.software_checks import (
    check_packages,
    check_python,
    check_torch,
    check_torchvision,
)

ROOT = Path(__file__).resolve().parents[2]
RUN_FOLDER = ROOT / "runs"


@dataclass(frozen=True)
class Project:
    """What the project's own files say: texts of pyproject.toml and requirements.txt."""

    pyproject: str
    requirements: str


def read_project() -> Project:
    return Project((ROOT / "pyproject.toml").read_text(), (ROOT / "requirements.txt").read_text())


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine_environment(project: Project, video: Path | None) -> Iterator[Finding]:
    """Everything but measurements; what is known soonest comes first."""
    with ThreadPoolExecutor(max(os.cpu_count() or 1, 2)) as pool:
        torch = pool.submit(ask, "torch_facts")
        torchvision = pool.submit(ask, "torchvision_facts") if version_of("torchvision") else None
        decoders = pool.submit(_examine_decoders, project, video)
        yield from check_packages(project.pyproject, project.requirements, version_of)
        yield from look_at_machine(RUN_FOLDER, video)
        pin = pins(project.requirements)["torch"]
        yield from check_torch(torch.result(), driver_of_gpus(), pin)
        yield _about_torchvision(torchvision)
        yield from decoders.result()


def _about_torchvision(answer: Future[dict[str, Any]] | None) -> Finding:
    if answer is None:
        return check_torchvision(None, None, ())
    needs = importlib.metadata.requires("torchvision") or ()
    return check_torchvision(answer.result(), version_of("torchvision"), needs)


def _examine_decoders(project: Project, video: Path | None) -> list[Finding]:
    findings, pinned = [], pins(project.requirements)
    with tempfile.TemporaryDirectory(prefix="doctor_") as folder:
        path = str(Path(folder, "numbered.mp4"))
        written = ask("write_numbered", path)
        for reader in READERS:
            version = version_of(PACKAGES[reader])
            is_there = version is not None or reader == READERS[0]
            facts = written
            if is_there and "failure" not in written:
                facts = ask("read_numbered", reader, path)
            findings.append(check_written(reader, facts, version, pinned))
    if video is not None:
        findings += _examine_videos(video)
    return findings


def _examine_videos(place: Path) -> Iterator[Finding]:
    if not place.exists():
        return  # told with the disk of the data
    found = ask("find_videos", str(place))
    nothing = check_folder(str(place), found)
    if nothing is not None:
        yield nothing
        return
    for path in found["paths"]:
        finding = check_file(path, ask("examine", path))
        yield finding
        for reader in READERS[1:]:
            if finding.status != "problem" and version_of(PACKAGES[reader]):
                other = check_other_reader(reader, path, ask("compare_with_default", reader, path))
                if other is not None:
                    yield other


def examine_pace(model: str, video: Path | None) -> Finding:
    """How many loader processes feed this device, measured on the user's videos where given."""
    paths = ask("find_videos", str(video)).get("paths", []) if video else []
    readable = [path for path in paths if "num_frames" in ask("examine", path)]
    cores = usable_cores()
    return check_pace(ask("pace", model, str(cores), *readable), model, cores)


def examine(video: Path | None, model: str | None) -> Iterator[Finding]:
    """Another Python than the one that is needed is all there is to say.

    `model` is measured once all else is told and nothing of it is a problem.
    """

    python = check_python((ROOT / "pyproject.toml").read_text(), platform.python_version())
    yield python
    if python.status == "ok":
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
