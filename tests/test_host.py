"""Cores and memory that a job or a container allows."""

from pathlib import Path

from video_mvit.host import cgroup_cores, cgroup_memory


def test_limits_of_a_control_group_and_of_those_around_it_count(tmp_path: Path) -> None:
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
