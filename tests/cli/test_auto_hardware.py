"""What auto means on a machine: accelerator, precision, loader processes, TF32."""

import logging
from types import SimpleNamespace

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from support.paths import CONF

from video_mvit import host
from video_mvit.cli import auto_hardware
from video_mvit.cli.auto_hardware import resolve_hardware, set_matmul_precision
from video_mvit.cli.run_folder import diff_settings, flat_settings
from video_mvit.data.datamodule import LoaderConfig, VideoDataModule
from video_mvit.errors import UserError


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=["data.root=/data", *overrides])


def machine(
    monkeypatch: pytest.MonkeyPatch, *, gpu: bool = False, bf16: bool = False, cores: int = 8
) -> None:
    """Pretend that torch finds a GPU, with or without bfloat16, and so many cores."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: bf16)
    for module in (host, auto_hardware):
        monkeypatch.setattr(module, "num_usable_cores", lambda: cores)


@pytest.mark.parametrize(
    ("gpu", "bf16", "accelerator", "precision"),
    [
        (True, True, "gpu", "bf16-mixed"),
        (True, False, "gpu", "16-mixed"),
        (False, True, "cpu", "32-true"),
    ],
)
def test_accelerator_and_precision_are_those_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    gpu: bool,  # noqa: FBT001
    bf16: bool,  # noqa: FBT001
    accelerator: str,
    precision: str,
) -> None:
    machine(monkeypatch, gpu=gpu, bf16=bf16)
    caplog.set_level(logging.INFO)
    cfg = composed()
    resolve_hardware(cfg, "training")
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == (accelerator, precision)
    assert f"precision {precision} (trainer.precision=" in caplog.text
    warnings = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert len(warnings) == (not gpu)


def test_what_is_given_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpu=True, bf16=True)
    given = ["trainer=cpu", "trainer.precision=bf16-mixed", "data.num_workers=3"]
    cfg = composed(*given)
    resolve_hardware(cfg, "training")
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("cpu", "bf16-mixed")
    assert cfg.data.num_workers == cfg.data.module.loader.num_workers == 3


@pytest.mark.parametrize(
    ("cores", "num_devices", "expected"),
    [(8, 1, 7), (1, 1, 1), (96, 8, 11), (96, 1, 16), (4, 8, 1)],
)
def test_loader_processes_share_the_cores_of_a_node(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    cores: int,
    num_devices: int,
    expected: int,
) -> None:
    machine(monkeypatch, cores=cores)
    caplog.set_level(logging.INFO)
    cfg = composed(f"trainer.devices={num_devices}")
    resolve_hardware(cfg, "training")
    assert cfg.data.module.loader.num_workers == expected
    assert f"{expected} loader processes per device, from {cores} usable cores" in caplog.text


def test_products_of_a_gpu_use_tf32_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", seen.append)
    caplog.set_level(logging.INFO)
    set_matmul_precision("cpu", "high")
    assert (seen, caplog.text) == ([], "")
    set_matmul_precision("gpu", "high")
    assert "float32_matmul=highest" in caplog.text
    set_matmul_precision("gpu", "highest")
    assert seen == ["high", "highest"]
    with pytest.raises(UserError, match="float32_matmul is 'tf32', expected one of highest, high"):
        resolve_hardware(composed("float32_matmul=tf32"))


@pytest.mark.slow
def test_run_resumes_on_another_machine_in_the_same_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(monkeypatch, gpu=True, bf16=True)
    before, same, other = composed(), composed("trainer.precision=bf16-mixed"), composed()
    resolve_hardware(before)
    machine(monkeypatch, cores=2)
    resolve_hardware(same)
    resolve_hardware(other)
    assert not diff_settings(flat_settings(before), flat_settings(same))
    found = diff_settings(flat_settings(before), flat_settings(other))
    assert found == ["trainer.precision: bf16-mixed, now 32-true"]


@pytest.mark.parametrize(("kind", "is_pinned"), [("cuda", True), ("cpu", False)])
def test_memory_is_pinned_for_a_gpu(kind: str, is_pinned: bool) -> None:  # noqa: FBT001
    loader = LoaderConfig(num_workers=0)
    data = VideoDataModule(train=None, val=None, test=None, num_classes=2, loader=loader)
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device(kind)))
    assert data._loader([1, 2], 1, list).pin_memory == is_pinned
