"""A run folder of version 0.1 resumes, evaluates and loads as if it had been written today.

`golden/run_0_1` was written by that version's train command (its options: config/overrides.yaml)
from the data set that `write_demo_dataset` generates below.
"""

import csv
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from support.commands import run_command
from support.paths import GOLDEN

import video_mvit
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.evaluation.output_folder import RESULTS
from video_mvit.evaluation.results import read_result
from video_mvit.renamed import GROUP_CHOICES, rename_option
from video_mvit.training.curves import read_rows
from video_mvit.training.old_checkpoints import translate_checkpoint
from video_mvit.weights.checkpoint_files import read_weight_file

OLD_RUN = GOLDEN / "run_0_1"
CHECKPOINT = OLD_RUN / "checkpoints" / "e000.ckpt"
NUM_VIDEOS = {"train": 16, "val": 8, "test": 8}


def options() -> list[str]:
    """What the run was started with, in today's names."""
    given = yaml.safe_load((OLD_RUN / "config" / "overrides.yaml").read_text())
    pairs = [GROUP_CHOICES.get(each, each).partition("=") for each in given]
    return [f"{rename_option(key)}={value}" for key, _, value in pairs]


def losses(metrics: Path) -> dict[int, float]:
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the run saw it: `data` and `run` in it."""
    folder = tmp_path_factory.mktemp("old")
    write_demo_dataset(folder / "data", NUM_VIDEOS, 0, lambda _: None)
    shutil.copytree(OLD_RUN, folder / "run")
    return folder


@pytest.mark.slow
def test_old_run_resumes_with_the_losses_that_it_had(folder: Path) -> None:
    result = run_command("train", *options(), "resume_from=e000", cwd=folder)
    assert result.returncode == 0, result.stderr
    old = losses(OLD_RUN / "metrics" / "version_0" / "metrics.csv")
    new = losses(folder / "run" / "metrics" / "version_1" / "metrics.csv")
    assert list(new) == [4, 5, 6, 7]
    # Rounding differs between processors and kernels.
    assert list(new.values()) == pytest.approx([old[step] for step in new], abs=1e-4)


@pytest.mark.slow
def test_old_run_evaluates(folder: Path) -> None:
    chosen = ["checkpoint=e000", "weights=ema", "output=evaluation"]
    shared = [each for each in options() if not each.startswith(("callbacks", "optim", "trainer"))]
    result = run_command("evaluate", *shared, *chosen, cwd=folder)
    assert result.returncode == 0, result.stderr
    found = read_result(folder / "evaluation" / RESULTS)
    assert found.num_videos == NUM_VIDEOS["test"]
    assert "EMA" in found.origin.weights


def test_old_checkpoint_loads_with_its_card() -> None:
    model = video_mvit.load_model(str(CHECKPOINT))
    content = torch.load(CHECKPOINT, weights_only=True)
    assert model.config.embed_dim == 4
    assert (model.card.key_format, model.card.frame_stride) == ("video_mvit", 4)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, content["average"][name])
    raw = read_weight_file(CHECKPOINT, "raw").state
    assert torch.equal(raw["norm.weight"], content["state_dict"]["model.norm.weight"])


def test_translation_leaves_no_old_name_and_changes_nothing_new() -> None:
    translated = translate_checkpoint(torch.load(CHECKPOINT, weights_only=True))
    assert translate_checkpoint(translated) == translated
    assert translated["callbacks"]["NonFiniteLossGuard"] == {"num_skipped": 0}
    assert translated["callbacks"]["EmaWeights"] == {"num_updates": 4}
    (best,) = (key for key in translated["callbacks"] if "'val/ema_top1'" in key)
    assert translated["callbacks"][best]["monitor"] == "val/ema_top1"
    settings = translated["settings"]
    assert settings["callbacks.ema._target_"] == "video_mvit.training.ema.EmaWeights"
    assert settings["callbacks.best.monitor"] == "val/ema_top1"
    assert settings["data.module.train.pipeline.decode_limits"] == "${data.decode_limits}"
    assert settings["data.module.val.scan_report"] == "${data.scan_reports}/val.scan.jsonl"


def test_old_logs_draw_the_curves_of_today() -> None:
    names = {name for row in read_rows(OLD_RUN / "metrics") for name in row.values}
    assert {"val/ema_top1", "speed/mfu"} <= names
    assert "val/average_top1" not in names
