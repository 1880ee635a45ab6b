"""What `doctor.py` says of Python, packages, torch, its GPUs and torchvision, from plain facts."""

from __future__ import annotations

import re
import sys
from typing import Any, Callable, List, Mapping, Sequence  # noqa: UP035

from video_mvit.doctor.finding import Finding
from video_mvit.doctor.requirements import (
    needed_packages,
    normal_name,
    pins,
    python_range,
    satisfies,
)

MAX_NAMED = 4  # packages in one command; more are installed as a whole
# What torch says where there is no GPU at all (torch/cuda/__init__.py, c10/cuda).
NO_GPU = ("Found no NVIDIA driver", "No CUDA GPUs are available", "no CUDA-capable device")
FREE_SHARE = 0.5  # of a GPU's memory; with less, somebody else is likely there
INSTALL = f"{sys.executable} -m pip install"
Facts = Mapping[str, Any]
VersionOf = Callable[[str], "str | None"]


def check_python(pyproject: str, version: str) -> Finding:
    """The version of Python against what pyproject.toml asks for."""
    wanted = python_range(pyproject)
    if satisfies(version, wanted):
        return Finding("ok", "Python", f"{version}, {wanted} is needed")
    oldest = wanted.split(",")[0].lstrip(">=")
    remedy = f"make setup PYTHON=python{oldest} && video-mvit doctor"
    return Finding("problem", "Python", f"{version}, but {wanted} is needed", remedy)


def check_packages(pyproject: str, requirements: str, version_of: VersionOf) -> List[Finding]:  # noqa: UP006
    """Installed versions against what is needed, and against what was tested.

    Args:
        version_of: installed version of a package, None where it is not installed.
    """
    pinned, findings = pins(requirements), []
    needed = {normal_name(each.name): each for each in needed_packages(pyproject)}
    versions = {name: version_of(name) for name in {**needed, **pinned}}
    missing = [name for name in needed if versions[name] is None]
    wrong = [
        name
        for name, version in versions.items()
        if name in needed and version and not satisfies(version, needed[name].specifier)
    ]
    told = [f"{name} is missing" for name in missing]
    told += [f"{name} {versions[name]}, but {needed[name].specifier} is needed" for name in wrong]
    if told:
        remedy = _install([*missing, *wrong], pinned)
        findings.append(Finding("problem", "packages", "; ".join(told), remedy))
    other = [
        name
        for name, version in pinned.items()
        if name not in wrong and versions[name] and not _is_same(versions[name], version)
    ]
    if other:
        shown = ", ".join(f"{name} {versions[name]} (tested: {pinned[name]})" for name in other[:5])
        more = f" and {len(other) - 5} more" if len(other) > 5 else ""
        text = f"other versions than those tested: {shown}{more}"
        findings.append(Finding("warning", "packages", text, _install(other, pinned)))
    if not findings:
        text = f"all {len(needed)} that are needed are there, in the versions tested"
        findings.append(Finding("ok", "packages", text))
    return findings


def check_torch(facts: Facts, driver: str | None, torch_pin: str) -> List[Finding]:  # noqa: UP006
    """torch and the GPUs that it should see.

    Args:
        facts: of `probes.torch_facts`, or {"failure": why there are none}.
        driver: "NVIDIA H100, driver 570.1" as the driver says; None where there is none.
        torch_pin: the version to install, e.g. "2.13.0".
    """
    again = f"{INSTALL} --force-reinstall torch=={torch_pin}"
    if "failure" in facts:
        return [Finding("problem", "torch", facts["failure"], again)]
    build = f"built for CUDA {facts['cuda']}" if facts["cuda"] else "built for CPUs only"
    torch = Finding("ok", "torch", f"{facts['version']}, {build}")
    if facts["gpus"]:
        return [torch, *(_check_gpu(gpu, facts) for gpu in facts["gpus"])]
    return [torch, _without_gpu(facts, driver, again)]


def check_torchvision(facts: Facts | None, version: str | None, needs: Sequence[str]) -> Finding:
    """torchvision, where it is there, against the torch that it was built for.

    Args:
        facts: of `probes.torchvision_facts`.
        version: installed, or None.
        needs: its requirements, from its own metadata.
    """
    if version is None or facts is None:
        text = "not installed; only pytorchvideo's networks (model=x3d_s ...) need it"
        return Finding("ok", "torchvision", text)
    if "failure" not in facts:
        return Finding("ok", "torchvision", f"{version}, fits torch")
    torch = next((each for each in needs if re.match(r"torch\b", each)), "torch").replace(" ", "")
    torch = re.sub(r"[()]", "", torch)
    text = f"{version}, which is built for {torch}, breaks whatever imports it: {facts['failure']}"
    remedy = f"{INSTALL} --force-reinstall torchvision=={version} {torch}"
    return Finding("problem", "torchvision", text, remedy)


def _install(names: Sequence[str], pinned: Mapping[str, str]) -> str:
    if len(names) > MAX_NAMED:
        return f"{INSTALL} -r requirements.txt"
    return f"{INSTALL} " + " ".join(f"{n}=={pinned[n]}" if n in pinned else n for n in names)


def _is_same(version: str | None, pin: str) -> bool:
    return (version or "").partition("+")[0] == pin  # "+cu130" names a build


def _without_gpu(facts: Facts, driver: str | None, again: str) -> Finding:
    complaint = str(facts["complaint"] or "")
    if driver and facts["hidden"] is not None:
        text = f"CUDA_VISIBLE_DEVICES={facts['hidden']!r} hides {driver}"
        return Finding("warning", "GPU", text, "unset CUDA_VISIBLE_DEVICES")
    if driver is None and (not complaint or any(each in complaint for each in NO_GPU)):
        text = "none found: training runs on the CPU, which takes days for real data"
        return Finding("warning", "GPU", text, "add trainer=cpu to the commands")
    if not facts["cuda"]:
        text = f"{driver} is there, but torch is built for CPUs only"
        return Finding("problem", "GPU", text, again)
    text = f"{driver or 'a GPU'} cannot be used: {complaint or 'torch does not say why'}"
    if "too old" in complaint:
        remedy = f"install an NVIDIA driver for CUDA {facts['cuda']} (nvidia.com/drivers), reboot"
        return Finding("problem", "GPU", text, remedy)
    return Finding("problem", "GPU", text, "nvidia-smi (it names the fault), then reboot")


def _check_gpu(gpu: Facts, facts: Facts) -> Finding:
    """One GPU: can torch's build use it, does it multiply, is its memory free, has it bf16."""
    name, free, total = gpu["name"], gpu["free"], gpu["total"]
    if not is_supported(gpu["capability"], facts["architectures"]):
        made_for = ", ".join(facts["architectures"])
        text = f"{name} is sm_{gpu['capability']}, torch {facts['version']} is built for {made_for}"
        step = "take the build for this GPU at pytorch.org/get-started/previous-versions"
        return Finding("problem", "GPU", text, step)
    if gpu["failure"]:
        text = f"{name} does not multiply: {gpu['failure']}"
        return Finding("problem", "GPU", text, "nvidia-smi (who uses it, what is its state?)")
    text = f"{name}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free, multiplies"
    if free < FREE_SHARE * total:
        return Finding("warning", "GPU", f"{text}; others use its memory", "nvidia-smi")
    if not gpu["bf16"]:
        text += "; it has no bf16"
        return Finding("warning", "GPU", text, "use trainer.precision=16-mixed, not bf16-mixed")
    return Finding("ok", "GPU", f"{text}, bf16")


def is_supported(capability: int, architectures: Sequence[str]) -> bool:
    """Whether code for some of "sm_80", "compute_90", ... runs on a GPU of capability 80, 90, ...

    Machine code runs on GPUs of its own major version and the same or a later minor one, an
    intermediate form (compute_) on all later ones (CUDA C++ Programming Guide, compatibility).
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)([af]?)", architecture)
        if match is None:
            continue
        form, number, is_bound = match.group(1), int(match.group(2)), bool(match.group(3))
        if number == capability:
            return True
        is_near = form == "compute" or number // 10 == capability // 10
        if number < capability and is_near and not is_bound:
            return True
    return False
