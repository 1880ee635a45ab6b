"""Checks of Python, packages, torch, GPUs, torchvision and decoders, from plain facts."""

from __future__ import annotations

import importlib.metadata
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from video_mvit.doctor.finding import Finding, grade

DISTRIBUTION = "video-mvit"
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 13)  # an old Python has no metadata to read them from
# What torch says where there is no GPU at all (torch/cuda/__init__.py, c10/cuda).
NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "no CUDA-capable device")
MIN_FREE = 0.5  # of a GPU's memory; with less, another program probably uses it
DEFAULT_READER = "pyav"
OTHER_READERS = ("decord", "torchcodec")
# The packages of a library, its own first, and what it is needed for (None: every run).
LIBRARIES: dict[str, tuple[list[str], str | None]] = {
    "torchvision": (["torchvision", "torch"], "pytorchvideo's models"),
    DEFAULT_READER: (["av"], None),
    **{reader: ([reader], f"data.reader={reader}") for reader in OTHER_READERS},
}
MAX_KEY_FRAME_DISTANCE = 100  # frames; a clip that starts between takes long to decode
TRANSCODE = "video-mvit prepare data=custom data.root=FOLDER mode=transcode output=COPY"


def check_python(version: str) -> Finding:
    """Compare the version of Python with the supported ones."""
    oldest, newest = ("{}.{}".format(*pair) for pair in (OLDEST_PYTHON, NEWEST_PYTHON))
    text = f"{version} ({oldest} to {newest} is needed)"
    if OLDEST_PYTHON <= tuple(map(int, version.split(".")[:2])) <= NEWEST_PYTHON:
        return Finding("ok", "Python", text)
    return Finding("problem", "Python", text, f"make setup PYTHON=python{oldest} && make doctor")


def version_of(package: str) -> str | None:
    """Return the installed version of a package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def read_ranges() -> tuple[dict[str, str], dict[str, str]]:
    """Return versions that this machine needs by package: of required ones, of the extras'.

    Raises `ModuleNotFoundError` where `packaging` or the metadata of this package is missing.
    """
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    from packaging.requirements import Requirement

    extras = set(distribution.metadata.get_all("Provides-Extra") or ()) - {"dev"}
    required, optional = {}, {}
    for requirement in map(Requirement, distribution.requires or ()):
        if requirement.name == DISTRIBUTION:  # an extra made of others
            continue
        versions = ",".join(sorted(map(str, requirement.specifier), reverse=True))
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            required[requirement.name] = versions
        elif any(marker.evaluate({"extra": extra}) for extra in extras):
            optional[requirement.name] = versions
    return required, optional


def read_extras() -> dict[str, list[str]]:
    """Return the packages of each optional extra, of those that this machine can have.

    Raises as `read_ranges` does.
    """
    distribution = importlib.metadata.distribution(DISTRIBUTION)
    from packaging.requirements import Requirement

    found: dict[str, list[str]] = {}
    for requirement in map(Requirement, distribution.requires or ()):
        marker = requirement.marker
        if requirement.name == DISTRIBUTION or marker is None or marker.evaluate({"extra": ""}):
            continue
        for extra in set(distribution.metadata.get_all("Provides-Extra") or ()) - {"dev"}:
            if marker.evaluate({"extra": extra}):
                found.setdefault(extra, []).append(requirement.name)
    return found


def check_extras(
    extras: Mapping[str, Iterable[str]], installed: Mapping[str, str | None]
) -> Finding:
    """Say which optional extras are complete; none of them has to be."""
    complete = {name: all(installed[each] for each in extras[name]) for name in sorted(extras)}
    parts = {
        "installed": [name for name, is_there in complete.items() if is_there],
        "not installed, and needed for features of their own only": [
            name for name, is_there in complete.items() if not is_there
        ],
    }
    text = "; ".join(f"{words}: {', '.join(names)}" for words, names in parts.items() if names)
    return Finding("ok", "extras", text or "none")


def pip_install(names: Iterable[str], ranges: Mapping[str, str], flag: str = "--upgrade") -> str:
    """Return the command that installs packages in versions that are needed."""
    packages = " ".join(f'"{name}{ranges.get(name, "")}"' for name in names)
    return f"{shlex.quote(sys.executable)} -m pip install {flag} {packages}"


def check_packages(
    required: Mapping[str, str], optional: Mapping[str, str], installed: Mapping[str, str | None]
) -> Finding:
    """Compare installed versions with those that are needed; optional packages may be missing."""
    from packaging.specifiers import SpecifierSet

    ranges, faults = {**optional, **required}, {}
    for name, versions in ranges.items():
        version = installed[name]
        if version is None and name in required:
            faults[name] = f"{name} is missing"
        elif version and not SpecifierSet(versions).contains(version, prereleases=True):
            faults[name] = f"{name} {version}, but {versions} is needed"
    text = f"all {len(required)} required packages are installed in supported versions"
    text, fix = "; ".join(faults.values()) or text, pip_install(faults, ranges)
    is_problem = any(name in required for name in faults)
    return grade("packages", text, fix, problem=is_problem, warning=bool(faults))


def check_torch(facts: Mapping[str, Any], ranges: Mapping[str, str]) -> Iterator[Finding]:
    """Check torch and the GPUs that it should find, from `probes.torch_facts`."""
    reinstall = pip_install(["torch"], ranges, "--force-reinstall")
    if "failure" in facts:
        yield Finding("problem", "torch", f"cannot be imported: {facts['failure']}", reinstall)
        return
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPUs only"
    yield Finding("ok", "torch", f"{facts['version']}, built for {build}")
    yield from (_check_gpu(gpu, facts) for gpu in facts["gpus"])
    if not facts["gpus"]:
        yield _explain_missing_gpu(facts, reinstall)


def _check_gpu(gpu: Mapping[str, Any], torch: Mapping[str, Any]) -> Finding:
    """Check that a GPU computes, its free memory and bf16."""
    if gpu["failure"]:
        text = f"{gpu['name']} cannot multiply matrices: {gpu['failure']}"
        fix = "nvidia-smi (shows its state and who uses it)"
        if "no kernel image" in gpu["failure"]:
            text += f" ({gpu['capability']}; torch has {' '.join(torch['architectures'])})"
            fix = "install a build for this GPU: pytorch.org/get-started/previous-versions"
        return Finding("problem", "GPU", text, fix)
    text = f"{gpu['name']}, {gpu['free'] / 2**30:.0f} of {gpu['total'] / 2**30:.0f} GiB free"
    if gpu["free"] < MIN_FREE * gpu["total"]:
        return Finding("warning", "GPU", f"{text}: other programs use its memory", "nvidia-smi")
    text += ", multiplies matrices, " + ("has bf16" if gpu["bf16"] else "no bf16")
    return grade("GPU", text, "use trainer.precision=16-mixed", warning=not gpu["bf16"])


def _explain_missing_gpu(torch: Mapping[str, Any], reinstall: str) -> Finding:
    driver, complaint = torch["driver"], torch["complaint"]
    if driver and torch["visible"] in ("", "-1"):
        text = f"CUDA_VISIBLE_DEVICES={torch['visible']!r} hides {driver}"
        return Finding("warning", "GPU", text, "unset CUDA_VISIBLE_DEVICES")
    if not driver and (not complaint or any(each in complaint for each in NO_GPU)):
        from video_mvit.host import cpu_expectation

        fix = "none needed: commands take the CPU, and trainer=gpu insists on a GPU"
        return Finding("warning", "GPU", cpu_expectation(), fix)
    text, fix = f"{driver or 'a GPU'} cannot be used: ", "nvidia-smi (shows the fault), then reboot"
    if not torch["cuda"]:
        return Finding("problem", "GPU", f"{text}torch is built for CPUs only", reinstall)
    if "too old" in complaint:
        fix = f"install an NVIDIA driver for CUDA {torch['cuda']} (nvidia.com/drivers), reboot"
    return Finding("problem", "GPU", text + (complaint or "torch gives no reason"), fix)


def check_library(
    name: str, facts: Mapping[str, Any], version: str | None, ranges: Mapping[str, str]
) -> Finding:
    """Check torchvision or a reader, from `probes.torchvision_facts` or `probes.read_numbered`.

    Args:
        version: installed version, None where it is not installed.
    """
    packages, use = LIBRARIES[name]
    if version is None and use:
        return Finding("ok", name, f"not installed; needed for {use} only")
    failure = facts.get("failure", "")
    fix = pip_install(packages, ranges, "--force-reinstall")
    if "FFmpeg" in failure:
        fix = "apt-get install ffmpeg (or conda install ffmpeg)"
    text = f"does not work: {failure}" if failure else f"{version}, works"
    # What imports a broken torchvision fails, too.
    is_problem = bool(failure) and name not in OTHER_READERS
    return grade(name, text, fix, problem=is_problem, warning=bool(failure))


def check_video(path: str, facts: Mapping[str, Any]) -> Finding:
    """Check one of the user's videos, from `probes.examine_video`."""
    if "failure" in facts:
        fix = f"ffmpeg -v error -i {shlex.quote(path)} -f null - (shows errors); get the file again"
        if "not a video" in facts["failure"]:  # FFmpeg would follow a playlist
            fix = "get the file again"
        return Finding("problem", "video", f"{path}: {facts['failure']}", fix)
    (height, width), num_frames = facts["size"], facts["num_frames"]
    num_key_frames = facts["num_key_frames"]
    text = f"{path}: {num_frames} frames of {width}x{height}, {num_key_frames} key frames, "
    rate = f"{facts['fps']:.4g} fps" + " variable" * facts["is_variable"]
    text += f"{rate}, {facts['codec']}"
    is_slow = num_frames > MAX_KEY_FRAME_DISTANCE * max(num_key_frames, 1)
    text += ": clips are slow to decode" * is_slow
    return grade("video", text, TRANSCODE, warning=is_slow)
