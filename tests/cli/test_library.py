"""Training, fine-tuning and evaluation from Python are the commands, and leave nothing behind."""

import logging
import os
import random
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from support.own_network import network, own_project
from support.videos import write_numbered_video
from torch import Tensor

import video_mvit
from video_mvit.errors import UserError

pytestmark = pytest.mark.slow

NAMES = ("hold", "pull", "push")
EVALUATED = ("trainer=cpu", "data.num_workers=0", "data.num_clips=1")
SMALL = ("trainer=cpu", "data.num_workers=0", "logger={}", "~callbacks.curves")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a network of one's own, and six short videos of each of three classes."""
    folder = tmp_path_factory.mktemp("project")
    for label, name in enumerate(NAMES):
        for i in range(6):
            write_numbered_video(folder / "videos" / name / f"{label}{i}.mp4", 24)
    with own_project(folder):
        yield folder


@pytest.fixture
def inside(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(project)
    return project


def rows_of(folder: Path) -> list[tuple[str, str]]:
    return [
        (str(path.relative_to(folder)), path.parent.name)
        for path in sorted(folder.glob("videos/*/*.mp4"))
    ]


def state_of_the_process() -> list[Any]:
    return [
        random.getstate(),
        np.random.get_state()[1].tolist(),
        torch.get_rng_state().tolist(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        dict(os.environ),
        logging.getLogger().handlers,
        logging.getLogger().level,
        logging.getLogger("pytorch_lightning").level,
        logging.getLogRecordFactory(),
        list(warnings.filters),
        [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)],
        GlobalHydra.instance().is_initialized(),
        HydraConfig.initialized(),
    ]


def assert_same(now: list[Any], before: list[Any]) -> None:
    for one, other in zip(now, before, strict=True):
        assert one == other


def test_training_and_evaluation_of_objects_leave_the_process_as_it_was(inside: Path) -> None:
    own, seen = network(len(NAMES)), []
    modes = set()
    own.register_forward_hook(lambda module, *_: modes.add(module.training))
    assert callable(video_mvit.train)  # imported from here on
    before = state_of_the_process()

    def darker(clip: Tensor) -> Tensor:
        seen.append(tuple(clip.shape))
        return clip // 2

    weights = own.head.weight.detach().clone()  # type: ignore[union-attr, operator]
    trained = video_mvit.train(
        *SMALL,
        *("clip=8x4", "data.train_batch_size=4", "optim.num_epochs=1", "optim.warmup_epochs=0"),
        *("run_dir=runs/own", "data.short_side=36", "clip.crop_size=32"),
        model=own,
        rows=rows_of(inside),
        transforms=[darker],
    )
    assert_same(state_of_the_process(), before)
    assert modes == {True, False}  # though it was given in evaluation mode
    assert trained.folder == Path("runs/own")
    assert trained.last.is_file()
    assert trained.metrics["val/top1"] >= 0
    assert (8, 3, 32, 32) in seen
    assert torch.equal(own.head.weight, weights)  # type: ignore[union-attr, arg-type]
    # The checkpoint says what it is, and can be used.
    loaded = video_mvit.load_model(trained.last, model=network(len(NAMES)))
    assert loaded.card.class_names == NAMES  # type: ignore[union-attr]
    assert loaded.card.frame_stride == 4  # type: ignore[union-attr]
    assert video_mvit.predict(loaded, "videos/hold/00.mp4").scores.sum() == pytest.approx(1)
    # An evaluation of the result needs nothing else; another list may be given.
    before = state_of_the_process()
    evaluated = video_mvit.evaluate(trained, "checkpoint=last", *EVALUATED)
    assert_same(state_of_the_process(), before)
    assert evaluated.folder == Path("runs/own/evaluation")
    assert evaluated.report.is_file()
    other = video_mvit.evaluate(
        "runs/own", "checkpoint=last", *EVALUATED, "output=other", model=own, rows=rows_of(inside)
    )
    assert other.metrics["num_videos"] == 18 > evaluated.metrics["num_videos"]
    assert 0 <= other.metrics["top1"] <= 1
    log = (inside / "runs/own/train.log").read_text()
    assert "epoch 1/1" in log
    assert (inside / "runs/own/evaluation/evaluate.log").read_text() not in log


@pytest.mark.usefixtures("inside")
def test_fine_tuning_chooses_settings_as_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    trained = video_mvit.finetune(
        "videos", None, "model=mvitv2_demo", "optim.num_epochs=1", *SMALL, "run_dir=runs/tuned"
    )
    assert "optim.layer_decay" in capsys.readouterr().out
    model = video_mvit.load_model(trained.last)
    assert model.card is not None
    assert model.card.class_names == NAMES
    assert model.card.variant == "mvitv2_demo"


def test_mistakes_are_user_errors(inside: Path) -> None:
    for arguments, objects, sentence in (
        (["experiment=nothing"], {}, "experiment=nothing is no choice of experiment"),
        (["optim.epochs=3"], {}, "there is no option optim.epochs"),
        (["label_smoothing=abc"], {}, "label_smoothing is 'abc', expected float"),
        ([], {"val_rows": rows_of(inside)}, "val_rows are given without rows"),
        (["data=demo"], {"rows": rows_of(inside)}, "rows and data=... both name the data set"),
    ):
        with pytest.raises(UserError, match=sentence):
            video_mvit.train(*arguments, "run_dir=runs/refused", **objects)
    assert not (inside / "runs/refused").exists()


def test_error_in_own_code_is_raised_as_it_is_and_logged(inside: Path) -> None:
    def broken(clip: Tensor) -> Tensor:
        height, width = clip.shape
        return clip.reshape(height, width)

    with pytest.raises(ValueError, match="too many values to unpack"):
        video_mvit.train(
            *SMALL, "clip=8x4", "run_dir=runs/broken", rows=rows_of(inside), transforms=[broken]
        )
    text = (inside / "runs/broken/train.log").read_text()
    assert f'File "{__file__}", line ' in text
