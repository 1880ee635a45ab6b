"""Checks of Python, packages, torch, GPUs, libraries and videos, on facts with one known fault."""

import shlex
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet
from support.paths import ROOT

from video_mvit.doctor import software_checks
from video_mvit.doctor.finding import Finding
from video_mvit.doctor.software_checks import (
    check_extras,
    check_library,
    check_packages,
    check_python,
    check_torch,
    check_video,
    read_extras,
    read_ranges,
)

GIB = 2**30
METADATA = """\
Metadata-Version: 2.4
Name: video-mvit
Version: 1
Requires-Dist: torch<2.14,>=2.11
Requires-Dist: av>=17
Requires-Dist: winlib; sys_platform == "os400"
Provides-Extra: zoo
Provides-Extra: all
Provides-Extra: dev
Requires-Dist: torchvision<0.29; extra == "zoo"
Requires-Dist: oldlib>=8; sys_platform == "os400" and extra == "zoo"
Requires-Dist: video-mvit[zoo]; extra == "all"
Requires-Dist: pytest>=8; extra == "dev"
"""
REQUIRED = {"torch": ">=2.11,<2.14", "av": ">=17"}
OPTIONAL = {"torchvision": "<0.29"}
RANGES = {**REQUIRED, **OPTIONAL}
GPU = {
    "name": "H100",
    "capability": "sm_90",
    "free": 79 * GIB,
    "total": 80 * GIB,
    "bf16": True,
    "failure": "",
}
TORCH = {
    "version": "2.13.0",
    "cuda": "13.0",
    "architectures": ["sm_80", "sm_90"],
    "complaint": "",
    "visible": None,
    "driver": None,
    "gpus": [GPU],
}
VIDEO = {
    "num_frames": 900,
    "num_key_frames": 9,
    "fps": 30,
    "is_variable": False,
    "size": [240, 426],
    "codec": "h264",
}


def all_words(finding: Finding) -> str:
    return f"{finding.text} | {finding.fix}"


def test_supported_pythons_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    supported = SpecifierSet(project["requires-python"])
    for version in ["3.8.18", *(f"3.{minor}.2" for minor in range(9, 20))]:
        finding = check_python(version)
        assert finding.status == ("ok" if supported.contains(version) else "problem"), version


def test_ranges_are_read_from_the_metadata_of_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "video_mvit-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)
    assert read_ranges() == (REQUIRED, OPTIONAL)
    assert read_extras() == {"zoo": ["torchvision"]}


def test_extras_are_optional_whichever_are_installed() -> None:
    extras = {"zoo": ["torchvision"], "export": ["onnx", "onnxscript"], "hub": ["huggingface-hub"]}
    installed = {"torchvision": "0.28", "onnx": "1.2", "onnxscript": None, "huggingface-hub": None}
    finding = check_extras(extras, installed)
    assert finding.status == "ok"
    assert finding.text.startswith("installed: zoo; not installed, and needed for ")
    assert finding.text.endswith(": export, hub")
    assert check_extras({}, {}).text == "none"


@pytest.mark.parametrize(
    ("versions", "status", "words"),
    [
        ({"torch": "2.13.0+cu130", "av": "18.1"}, "ok", "all 2 required packages"),
        ({"torch": "2.13.0"}, "problem", 'av is missing | pip install --upgrade "av>=17"'),
        ({"torch": "2.9.0", "av": "18"}, "problem", "torch 2.9.0, but >=2.11,<2.14 is needed"),
        ({"torch": "2.14.0", "av": "18"}, "problem", '--upgrade "torch>=2.11,<2.14"'),
        ({"torch": "2.12.1rc1", "av": "18", "torchvision": "0.28"}, "ok", "all 2"),
        ({"torch": "2.12", "av": "18", "torchvision": "0.30"}, "warning", '"torchvision<0.29"'),
    ],
)
def test_versions_are_compared_with_the_ranges(
    versions: dict[str, str], status: str, words: str
) -> None:
    installed = {name: versions.get(name) for name in RANGES}
    finding = check_packages(REQUIRED, OPTIONAL, installed)
    assert finding.status == status
    assert words in all_words(finding).replace(f"{shlex.quote(sys.executable)} -m ", "")


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({}, "ok", "bf16"),
        ({"gpus": []}, "warning", "no GPU was found"),
        ({"gpus": [], "cuda": None}, "warning", "trainer=gpu"),
        ({"gpus": [], "complaint": "Found no NVIDIA driver on"}, "warning", "no GPU was found"),
        ({"gpus": [], "cuda": None, "driver": "H100 (driver 580)"}, "problem", "for CPUs only"),
        ({"gpus": [], "driver": "H100", "complaint": "is too old"}, "problem", "for CUDA 13.0"),
        ({"gpus": [], "driver": "H100", "complaint": "unknown error"}, "problem", "unknown error"),
        ({"gpus": [], "driver": "H100", "visible": ""}, "warning", "unset CUDA_VISIBLE_DEVICES"),
        ({"gpus": [{**GPU, "failure": "no kernel image is"}]}, "problem", "sm_90; torch has sm_80"),
        ({"gpus": [{**GPU, "failure": "CUDA error"}]}, "problem", "cannot multiply"),
        ({"gpus": [{**GPU, "free": GIB}]}, "warning", "1 of 80 GiB free"),
        ({"gpus": [{**GPU, "bf16": False}]}, "warning", "16-mixed"),
    ],
)
def test_each_fault_of_a_gpu_is_found(changes: dict[str, Any], status: str, words: str) -> None:
    torch, gpu = check_torch({**TORCH, **changes}, RANGES)
    assert torch.status == "ok"
    assert gpu.status == status
    assert words in all_words(gpu)


def test_broken_torch_is_one_problem() -> None:
    (finding,) = check_torch({"failure": "OSError: libcudart"}, RANGES)
    assert finding.status == "problem"
    assert "libcudart" in finding.text
    assert finding.fix is not None
    assert finding.fix.endswith('--force-reinstall "torch>=2.11,<2.14"')


@pytest.mark.parametrize(
    ("name", "failure", "version", "status", "words"),
    [
        ("pyav", "", "18", "ok", "18, works"),
        ("pyav", "ImportError: no av", None, "problem", '--force-reinstall "av>=17"'),
        ("pyav", "gives frames [1]", "18", "problem", "gives frames [1]"),
        ("decord", "gives frames [1]", "0.6", "warning", "gives frames [1]"),
        ("decord", "No module", None, "ok", "needed for data.reader=decord only"),
        ("torchcodec", "does not find FFmpeg's", "0.17", "warning", "apt-get install ffmpeg"),
        ("torchvision", "No module", None, "ok", "pytorchvideo"),
        ("torchvision", "", "0.28", "ok", "works"),
        (
            "torchvision",
            "operator nms",
            "0.28",
            "problem",
            '"torchvision<0.29" "torch>=2.11,<2.14"',
        ),
    ],
)
def test_each_fault_of_a_library_is_found(
    name: str, failure: str, version: str | None, status: str, words: str
) -> None:
    facts = {"failure": failure} if failure else {}
    finding = check_library(name, facts, version, RANGES)
    assert finding.status == status
    assert words in all_words(finding)


def test_message_of_missing_ffmpeg_is_recognised() -> None:
    from video_mvit.data.reading.torchcodec_reader import NOT_LOADED

    finding = check_library("torchcodec", {"failure": NOT_LOADED}, "0.17", RANGES)
    assert finding.fix is not None
    assert "ffmpeg" in finding.fix


def test_video_with_few_key_frames_is_a_warning() -> None:
    whole = check_video("a.mp4", VIDEO)
    assert whole.status == "ok"
    assert "900 frames of 426x240" in whole.text
    slow = check_video("a.mp4", {**VIDEO, "num_key_frames": 1})
    assert slow.status == "warning"
    assert slow.fix == software_checks.TRANSCODE


def test_unreadable_video_is_a_problem_with_its_reason() -> None:
    finding = check_video("a b.mp4", {"failure": "cut off"})
    assert finding.status == "problem"
    assert finding.text == "a b.mp4: cut off"
    assert "'a b.mp4'" in str(finding.fix)
