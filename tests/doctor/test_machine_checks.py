"""Checks of the machine, on numbers of machines that have too little."""

from pathlib import Path

import pytest

from video_mvit.doctor import machine_checks

GIB = 2**30


@pytest.mark.parametrize(("num_usable", "status"), [(8, "ok"), (1, "warning")])
def test_single_core_is_a_warning(num_usable: int, status: str) -> None:
    assert machine_checks.check_cores(num_usable, 64).status == status


@pytest.mark.parametrize(
    ("usable", "status"), [(32 * GIB, "ok"), (3 * GIB, "warning"), (GIB, "problem")]
)
def test_little_memory_is_found(usable: int, status: str) -> None:
    assert machine_checks.check_memory(usable).status == status


def test_small_shared_memory_is_a_problem_with_a_size_that_is_enough() -> None:
    assert machine_checks.check_shared_memory(8 * GIB, 8, 16).status == "ok"
    small = machine_checks.check_shared_memory(2**26, 8, 16)
    assert small.status == "problem"
    assert "0.0625 GiB free" in small.text
    assert "size=2G" in str(small.fix)


@pytest.mark.parametrize(("soft", "status"), [(128, "problem"), (300, "warning"), (1024, "ok")])
def test_few_open_files_are_found(soft: int, status: str) -> None:
    finding = machine_checks.check_open_files(soft, 2000, 8)
    assert finding.status == status
    assert finding.fix == (None if status == "ok" else "ulimit -n 2000")


@pytest.mark.parametrize(
    ("free", "status"),
    [(None, "problem"), (GIB, "problem"), (3 * GIB, "warning"), (99 * GIB, "ok")],
)
def test_full_or_read_only_disk_is_found(free: int | None, status: str) -> None:
    assert machine_checks.check_run_folder(Path("runs"), free).status == status


def test_space_of_a_folder_that_does_not_exist_yet_is_that_of_its_parent(tmp_path: Path) -> None:
    assert (machine_checks.writable_bytes(tmp_path / "not" / "yet") or 0) > 0


def test_batch_size_is_that_of_training() -> None:
    from omegaconf import OmegaConf
    from support.paths import CONF

    settings = OmegaConf.load(CONF / "data" / "videos.yaml")
    assert machine_checks.read_batch_size() == settings.train_batch_size


def test_this_machine_is_checked_completely(tmp_path: Path) -> None:
    subjects = [each.subject for each in machine_checks.check_machine(tmp_path / "runs")]
    assert subjects[0] == "cores"
    assert subjects[-1] == "run folder"
    assert len(set(subjects)) == len(subjects)
