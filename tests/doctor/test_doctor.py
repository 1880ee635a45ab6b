"""Every check of `doctor.py` on facts of a machine that has exactly this wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.broken import cut
from support.paths import ROOT
from support.videos import write_numbered_video

from video_mvit.doctor import decoder_checks, machine_checks, probes, software_checks
from video_mvit.doctor import examine as examination
from video_mvit.doctor import loader_speed as pace
from video_mvit.doctor.finding import Finding, as_json, is_pass, laid_out, verdict
from video_mvit.doctor.machine_checks import LoaderNeed
from video_mvit.doctor.requirements import applies, parse_requirements, satisfies
from video_mvit.doctor.run_probe import ask
from video_mvit.host import cgroup_cores, cgroup_memory

GIB = 2**30
PYPROJECT = """
[project]
requires-python = ">=3.11,<3.14"
dependencies = ["torch>=2.11,<2.14", "av>=17,<19", "winlib>=1; sys_platform == 'win32'"]
"""
REQUIREMENTS = "av==18.1.0\ntorch==2.13.0\ntimm==1.0.31 ; sys_platform == 'linux'\n"
NEED = LoaderNeed(num_workers=8, batch_clips=16)
GPU = {
    "name": "H100",
    "capability": 90,
    "free": 79 * GIB,
    "total": 80 * GIB,
    "bf16": True,
    "failure": None,
}
TORCH = {
    "version": "2.13.0",
    "cuda": "13.0",
    "architectures": ["sm_80", "sm_90"],
    "complaint": None,
    "hidden": None,
    "gpus": [GPU],
}
READ = {"wanted": [3, 1], "shown": [3, 1]}


def told(finding: Finding) -> tuple[str, str]:
    return finding.status, f"{finding.text} {finding.remedy}"


# Findings and the verdict.


def test_a_problem_without_a_remedy_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a remedy"):
        Finding("problem", "disk", "full")


def test_warnings_pass_and_problems_fail() -> None:
    warning, problem = Finding("warning", "a", "b"), Finding("problem", "c", "d", "e")
    assert is_pass([warning])
    assert verdict([warning, warning]) == "pass, with 2 warnings"
    assert not is_pass([warning, problem])
    assert verdict([warning, problem]).startswith("fail: 1 problem and 1 warning;")
    assert as_json([problem])["pass"] is False


def test_long_text_is_wrapped_for_a_terminal_and_a_command_never() -> None:
    finding = Finding("problem", "disk", "full " * 40, "rm " + "x" * 100)
    lines = "".join(text for text, _ in laid_out(finding, 80)).splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1].strip() == finding.remedy
    assert len("".join(text for text, _ in laid_out(finding, None)).splitlines()) == 2


# Python and packages.


@pytest.mark.parametrize(
    ("version", "specifier", "fits"),
    [
        ("2.13.0+cu130", ">=2.11,<2.14", True),
        ("2.14.0", ">=2.11,<2.14", False),
        ("2.9.1", ">=2.11", False),
        ("2.11", "==2.11.0", True),
    ],
)
def test_versions_are_compared_by_number(version: str, specifier: str, fits: bool) -> None:  # noqa: FBT001
    assert satisfies(version, specifier) is fits


def test_requirements_for_other_machines_are_left_out() -> None:
    assert not applies("(sys_platform == 'os400' or os_name == 'x') and python_version >= '3'")
    assert applies("python_full_version >= '3.9' and sys_platform != 'os400'")
    assert [each.name for each in parse_requirements("a==1 ; os_name == 'x'\nb>=2  # c")] == ["b"]


@pytest.mark.parametrize(("version", "status"), [("3.10.4", "problem"), ("3.12.1", "ok")])
def test_python_is_held_against_its_range(version: str, status: str) -> None:
    finding = software_checks.check_python(PYPROJECT, version)
    assert finding.status == status
    assert status == "ok" or finding.remedy.startswith("make setup PYTHON=python3.11")


@pytest.mark.parametrize(
    ("versions", "statuses", "words"),
    [
        ({"torch": "2.13.0+cu130", "av": "18.1.0"}, ["ok"], "all 2"),
        ({"torch": "2.13.0"}, ["problem"], "av is missing None install av==18.1.0"),
        ({"torch": "2.9.0", "av": "18.1.0"}, ["problem"], "2.9.0, but >=2.11,<2.14"),
        ({"torch": "2.12.0", "av": "18.1.0"}, ["warning"], "torch 2.12.0 (tested: 2.13.0)"),
        ({"torch": "2.13.0", "av": "18.1.0", "timm": "1.0.2"}, ["warning"], "timm 1.0.2"),
    ],
)
def test_packages_are_held_against_needs_and_pins(
    versions: dict[str, str], statuses: list[str], words: str
) -> None:
    findings = software_checks.check_packages(PYPROJECT, REQUIREMENTS, versions.get)
    assert [finding.status for finding in findings] == statuses
    text = " ".join(told(findings[0])[1].split())
    for part in words.split(" None "):
        assert part in text


# torch, GPUs, torchvision.


@pytest.mark.parametrize(
    ("changes", "driver", "status", "words"),
    [
        ({}, "H100", "ok", "bf16"),
        ({"gpus": []}, None, "warning", "trainer=cpu"),
        ({"gpus": [], "complaint": "Found no NVIDIA driver on"}, None, "warning", "none found"),
        ({"gpus": [], "cuda": None}, "H100 (driver 580)", "problem", "for CPUs only"),
        ({"gpus": [], "complaint": "driver is too old (11040)"}, "H100", "problem", "CUDA 13.0"),
        ({"gpus": [], "complaint": "unknown error"}, "H100", "problem", "unknown error"),
        ({"gpus": [], "hidden": ""}, "H100", "warning", "unset CUDA_VISIBLE_DEVICES"),
        ({"gpus": [{**GPU, "capability": 61}]}, "P40", "problem", "is sm_61"),
        ({"gpus": [{**GPU, "failure": "CUDA error"}]}, "H100", "problem", "not multiply"),
        ({"gpus": [{**GPU, "free": GIB}]}, "H100", "warning", "1 of 80 GiB free"),
        ({"gpus": [{**GPU, "bf16": False}]}, "V100", "warning", "16-mixed"),
    ],
)
def test_each_fault_of_a_gpu_is_told(
    changes: dict[str, object], driver: str | None, status: str, words: str
) -> None:
    torch, gpu = software_checks.check_torch({**TORCH, **changes}, driver, "2.13.0")
    assert torch.status == "ok"
    assert told(gpu)[0] == status
    assert words in told(gpu)[1]


@pytest.mark.parametrize(
    ("capability", "architectures", "is_supported"),
    [
        (86, ["sm_80"], True),
        (90, ["sm_80"], False),
        (120, ["sm_80", "compute_90"], True),
        (100, ["sm_90a"], False),
        (75, ["sm_80", "compute_80"], False),
    ],
)
def test_code_runs_on_its_own_and_later_gpus(
    capability: int,
    architectures: list[str],
    is_supported: bool,  # noqa: FBT001
) -> None:
    assert software_checks.is_supported(capability, architectures) is is_supported


def test_a_broken_torch_is_one_problem() -> None:
    (finding,) = software_checks.check_torch({"failure": "OSError: libcudart"}, None, "2.13.0")
    assert told(finding)[0] == "problem"
    assert "libcudart" in finding.text
    assert finding.remedy.endswith("torch==2.13.0")


def test_a_torchvision_for_another_torch_is_told_with_the_pair() -> None:
    check, needs = software_checks.check_torchvision, ("numpy", "torch (==2.12.0)")
    assert check(None, None, ()).status == "ok"
    assert check({"version": "1"}, "0.27.0", needs).status == "ok"
    broken = check({"failure": "RuntimeError: operator nms"}, "0.27.0", needs)
    assert broken.status == "problem"
    assert broken.remedy.endswith("torchvision==0.27.0 torch==2.12.0")


# The machine.


def test_one_core_is_a_warning() -> None:
    assert machine_checks.check_cores(8, 8).status == "ok"
    assert told(machine_checks.check_cores(1, 64))[0] == "warning"


@pytest.mark.parametrize(
    ("available", "limit", "status"),
    [
        (32 * GIB, None, "ok"),
        (None, None, "ok"),
        (32 * GIB, GIB, "problem"),
        (3 * GIB, None, "warning"),
    ],
)
def test_memory_is_the_least_of_what_is_there_and_allowed(
    available: int | None, limit: int | None, status: str
) -> None:
    assert machine_checks.check_memory(available, limit).status == status


def test_small_shared_memory_is_a_problem_with_a_size_that_does() -> None:
    assert machine_checks.check_shared_memory(8 * GIB, NEED).status == "ok"
    small = machine_checks.check_shared_memory(2**26, NEED)
    assert small.status == "problem"
    assert "64 MiB free" in small.text
    assert "size=2G" in small.remedy


@pytest.mark.parametrize(("soft", "status"), [(128, "problem"), (300, "warning"), (1024, "ok")])
def test_few_open_files_are_told(soft: int, status: str) -> None:
    assert machine_checks.check_open_files(soft, 4096, NEED).status == status


@pytest.mark.parametrize(
    ("free", "status"), [(GIB, "problem"), (3 * GIB, "warning"), (99 * GIB, "ok")]
)
def test_a_full_disk_is_told(free: int, status: str) -> None:
    assert machine_checks.judge_disk("run folder", "runs", free).status == status


def test_a_folder_that_cannot_be_written_to_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine_checks.check_disk("run folder", tmp_path / "not" / "yet").status != "problem"
    monkeypatch.setattr(os, "access", lambda *_: False)
    finding = machine_checks.check_disk("run folder", tmp_path / "runs")
    assert told(finding)[0] == "problem"
    assert "cannot be written" in finding.text


def test_data_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert machine_checks.check_data_disk(tmp_path).status == "ok"
    assert machine_checks.check_data_disk(tmp_path / "none").status == "problem"


def test_the_need_of_the_loader_follows_the_configuration() -> None:
    need = machine_checks.read_loader_need("num_workers: 3\ntrain_batch_size: 5 # videos\n")
    assert need == LoaderNeed(3, 5)
    assert need.shared_bytes == 3 * 2 * 5 * 16 * 3 * 224 * 224
    machine_checks.read_loader_need(machine_checks.VIDEO_SETTINGS.read_text())


def test_limits_of_a_container_and_of_those_around_it_count(tmp_path: Path) -> None:
    inner = tmp_path / "job" / "step"
    inner.mkdir(parents=True)
    assert cgroup_cores(tmp_path, "job/step") is None
    assert cgroup_memory(tmp_path, "job/step") is None
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "job" / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "job" / "memory.max").write_text("1048576\n")
    assert cgroup_cores(tmp_path, "job/step") == 1.5
    assert cgroup_memory(tmp_path, "job/step") == 2**20


# Clips a second.


@pytest.mark.parametrize(
    ("loader", "device", "num_cores", "num_workers"),
    [(14, 0.3, 2, 1), (14, 50, 8, 4), (14, 200, 8, None)],
)
def test_workers_follow_from_what_one_gives_and_the_device_takes(
    loader: float, device: float, num_cores: int, num_workers: int | None
) -> None:
    facts = {"loader": loader, "device": device, **pace.judge(loader, device, num_cores)}
    assert facts["num_workers"] == num_workers
    finding = machine_checks.check_pace(facts, "mvitv2_s", num_cores)
    assert finding.status == ("ok" if num_workers else "warning")
    wanted = f"data.num_workers={num_workers} is enough" if num_workers else "15 would be needed"
    assert wanted in finding.text


def test_what_cannot_be_measured_is_a_problem() -> None:
    finding = machine_checks.check_pace({"failure": "ValueError: unknown"}, "x", 2)
    assert finding.status == "problem"


def test_the_paces_of_a_small_model_and_small_videos_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "LOADER_TIME_S", 0.1)
    video = write_numbered_video(tmp_path / "a.mp4", 70)
    facts = pace.measure_pace("mvitv2_demo", 2, [str(video)])
    assert 0.05 < facts["loader"] < 1e5  # clips a second, on any machine
    assert 0.05 < facts["device"] < 1e5


# Libraries that break the process.


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("raise ImportError('libcudart.so.13: cannot open')", "ImportError: libcudart.so.13"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import os; os._exit(3)", "exit code 3"),
        ("import time; time.sleep(60)", "no answer after"),
    ],
)
def test_a_library_that_breaks_the_process_is_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    (tmp_path / "torch.py").write_text(content)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert words in ask("torch_facts", timeout_s=3)["failure"]


def test_decoders_work_where_torch_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = str(tmp_path / "numbered.mp4")
    assert ask("write_numbered", path)["bytes"] > 0
    facts = ask("read_numbered", "pyav", path)
    assert facts["shown"] == facts["wanted"] == list(probes.SOUGHT)


# Decoders and the user's own videos.


@pytest.mark.parametrize(
    ("reader", "facts", "version", "status", "words"),
    [
        ("pyav", READ, "18", "ok", "frames it is asked for"),
        ("pyav", {"failure": "ImportError: no av"}, None, "problem", "av==18"),
        ("pyav", {**READ, "shown": [3, 0]}, "18", "problem", "wrong frames: [3, 0] for [3, 1]"),
        ("decord", {**READ, "shown": [3, 0]}, "0.6", "warning", "wrong frames"),
        ("decord", READ, None, "ok", "not installed"),
        (
            "torchcodec",
            {"failure": f"ValueError: {decoder_checks.NO_FFMPEG}'s shared libraries"},
            "0.17",
            "warning",
            "apt-get install ffmpeg",
        ),
    ],
)
def test_a_decoder_is_judged_by_the_frames_it_gives(
    reader: str, facts: dict[str, object], version: str | None, status: str, words: str
) -> None:
    finding = decoder_checks.check_written(reader, facts, version, {"av": "18"})
    assert told(finding)[0] == status
    assert words in told(finding)[1]


def test_the_phrase_of_missing_ffmpeg_is_that_of_the_reader() -> None:
    from video_mvit.data.reading.torchcodec_reader import NOT_LOADED

    assert decoder_checks.NO_FFMPEG in NOT_LOADED


def test_a_truncated_video_is_a_problem_and_a_whole_one_is_not(tmp_path: Path) -> None:
    whole = write_numbered_video(tmp_path / "whole.mp4", 40)
    broken = cut(whole, tmp_path / "broken.mp4", 0.6)
    good = decoder_checks.check_file(str(whole), probes.examine(str(whole)))
    assert good.status == "ok"
    assert "40 frames of 64x64, 30 fps, h264" in good.text
    bad = decoder_checks.check_file(str(broken), probes.examine(str(broken)))
    assert bad.status == "problem"
    assert "cut off" in bad.text


def test_a_video_with_one_key_frame_is_a_warning() -> None:
    facts = {"num_frames": 900, "fps": 30, "height": 2, "width": 2, "codec": "h264"}
    finding = decoder_checks.check_file("a.mp4", {**facts, "num_key_frames": 1})
    assert told(finding)[0] == "warning"
    assert "transcode" in finding.remedy


def test_a_reader_with_other_frames_is_a_warning(tmp_path: Path) -> None:
    path = str(write_numbered_video(tmp_path / "a.mp4", 30))
    same = probes.compare_with_default("decord", path)
    assert decoder_checks.check_other_reader("decord", path, same) is None
    other = decoder_checks.check_other_reader("decord", path, {"reason": "other frames"})
    assert other is not None
    assert other.status == "warning"


def test_a_folder_gives_some_videos_spread_over_it_or_a_problem(tmp_path: Path) -> None:
    empty = probes.find_videos(str(tmp_path))
    nothing = decoder_checks.check_folder("there", empty)
    assert nothing is not None
    assert nothing.status == "problem"
    for i in range(8):
        (tmp_path / f"{i}.MP4").touch()
    (tmp_path / "notes.txt").touch()
    found = probes.find_videos(str(tmp_path))
    assert [Path(path).stem for path in found["paths"]] == ["0", "2", "4", "6"]
    assert decoder_checks.check_folder("there", found) is None


# The command.


def test_the_environment_of_the_tests_is_examined_line_by_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examination, "ask", lambda *_: {"failure": "broken"})
    findings = list(examination.examine_environment(examination.read_project(), None))
    status = {finding.subject: finding.status for finding in findings}
    assert status["torch"] == status["pyav"] == "problem"
    assert {"packages", "cores", "memory", "open files", "run folder"} <= set(status)


def test_the_command_says_fail_and_needs_no_library() -> None:
    """-S: not one installed package can be imported, and none is found."""
    result = subprocess.run(
        [sys.executable, "-S", str(ROOT / "scripts" / "doctor.py")],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        timeout=120,
        check=False,
    )
    assert result.returncode == 1, result.stderr
    assert not result.stderr
    assert "torch is missing" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("fail: ")
