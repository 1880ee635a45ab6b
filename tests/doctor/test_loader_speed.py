"""How many loader processes follow from two speeds, and that both are measured."""

from pathlib import Path

import pytest
from support.videos import write_numbered_video

from video_mvit.doctor import loader_speed


@pytest.mark.parametrize(
    ("loader", "device", "num_cores", "num_workers", "status"),
    [
        (14, 0.3, 1, 1, "ok"),
        (14, 15, 2, 1, "ok"),  # one process is nearly enough
        (14, 50, 8, 4, "ok"),
        (14, 200, 8, 15, "warning"),
    ],
)
def test_number_of_loader_processes_follows_from_speeds(
    loader: float, device: float, num_cores: int, num_workers: int, status: str
) -> None:
    facts = {"loader": loader, "device": device}
    finding = loader_speed.check_speed(facts, "mvitv2_s", num_cores)
    assert f"data.num_workers={num_workers}," in finding.text
    assert finding.status == status


@pytest.mark.parametrize(
    ("device", "num_cores", "profile", "num_workers"),
    [(140, 8, "fast_decoding", 5), (300, 8, "intra", 6), (3000, 8, "intra", 58)],
)
def test_copy_that_would_do_is_named(
    device: float, num_cores: int, profile: str, num_workers: int
) -> None:
    finding = loader_speed.check_speed({"loader": 15, "device": device}, "mvitv2_s", num_cores)
    assert finding.fix is not None
    assert f"transcode={profile} (copies for which data.num_workers={num_workers} does)" in (
        finding.fix
    )


def test_failed_measurement_is_a_problem() -> None:
    assert loader_speed.check_speed({"failure": "no such model"}, "x", 2).status == "problem"


def test_speeds_of_a_small_model_and_video_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_speed, "LOADER_TIME_S", 0)
    video = write_numbered_video(tmp_path / "a.mp4", 70)
    facts = loader_speed.measure_speed("mvitv2_demo", str(video))
    assert facts.keys() == {"loader", "device"}
    assert all(0 < speed < 1e6 for speed in facts.values())
