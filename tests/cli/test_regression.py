"""Videos with numbers as a person meets them: train, evaluate, predict, export, compare."""

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf, open_dict
from support.commands import composed, run_command
from support.training import MeanColour

from video_mvit import create_model, load_model, predict
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.run_folder import Run
from video_mvit.cli.tables import describe_card
from video_mvit.cli.tasks import (
    check_card,
    check_monitor,
    refuse_other_tasks,
    resolve_task,
    scale_in_card,
)
from video_mvit.cli.train import build_parts, resolve
from video_mvit.cli.weight_files import interface_of, with_preprocessing
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.lists.manifest import PackedStrings
from video_mvit.data.lists.regression_manifest import RegressionManifest
from video_mvit.data.preparation.demo import demo_velocity, write_demo_dataset
from video_mvit.errors import UserError
from video_mvit.prediction.input_spec import Sizes
from video_mvit.training.finetune_settings import DatasetStats, ModelInfo, suggest_settings
from video_mvit.weights.export import Interface, export
from video_mvit.weights.model_card import ModelCard, card_of, read_card, read_evaluation

LEAST = ("clip.num_frames=4", "clip.crop_size=32", "data.short_side=32", "data.num_workers=0")
CARD = {
    "model": {"num_classes": 2, "num_frames": 4, "crop_size": 32},
    "class_names": ("angle", "speed"),
    "task": "regression",
    "target_mean": (1.0, -20.0),
    "target_std": (0.5, 1e3),
}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's videos; how fast their shapes move to the right and down are the numbers."""
    root = tmp_path_factory.mktemp("numbers")
    write_demo_dataset(root, {"train": 16, "val": 8}, 0, lambda _: None)
    for number, split in enumerate(("train", "val")):
        rows = ["path,right,down"]
        for path in sorted((root / split).rglob("*.mp4")):
            seed = (0, number, int(path.stem.removeprefix(split).partition("_")[0]))
            speeds = demo_velocity(path.parent.name, np.random.default_rng(seed))
            rows.append(",".join([str(path.relative_to(root)), *map(str, speeds)]))
        (root / f"{split}_speed.csv").write_text("\n".join(rows))
    return root


def speeds(root: Path, *more: str) -> list[str]:
    return [
        *("experiment=demo", "data=regression", f"data.root={root}", "optim.num_epochs=1"),
        *(f"data.train_list={root}/train_speed", f"data.val_list={root}/val_speed"),
        *("data.train_batch_size=8", "augment=published", "callbacks=ema", *LEAST, *more),
    ]


@pytest.mark.slow
def test_numbers_go_through_every_verb(data_root: Path, tmp_path: Path) -> None:
    result = run_command("train", *speeds(data_root, "run_dir=run"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "16 videos, right -" in result.stdout
    assert "best val/ema_r2" in result.stdout
    run = tmp_path / "run"

    (next((data_root / "val").rglob("*.mp4"))).rename(data_root / "moved.mp4")
    views = ("data.num_clips=2", "data.num_workers=0")
    result = run_command("evaluate", "run", *views, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    content = json.loads((run / "evaluation" / "results.json").read_text())
    assert content["task"] == "regression"
    assert (content["num_videos"], content["num_listed"]) == (7, 8)
    assert set(content["targets"]) == {"right", "down"}
    page = (run / "evaluation" / "report.html").read_text()
    assert "Largest errors" in page
    assert "data:image/webp" in page
    again = run_command("evaluate", "run", "reuse=predictions", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads((run / "evaluation" / "results.json").read_text()) == content

    compared = run_command("compare", "run", "run", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "MAE right over the same 7 videos: +0 " in compared.stdout

    check_predictions(data_root, run, tmp_path)
    model = load_model(run / "checkpoints" / "best.ckpt")
    card = replace(model.card, evaluation=read_evaluation(run / "evaluation" / "results.json"))
    assert card.evaluation["mae"] == content["mae"]
    read = read_card(card.to_json(), "card")
    assert (read.task, read.target_std) == ("regression", card.target_std)
    assert f"mean absolute error {content['mae']:.4g}" in " ".join(describe_card(card))


def check_predictions(data_root: Path, run: Path, tmp_path: Path) -> None:
    """Check that a command, Python and an export say the same of a video."""
    video = str(next((data_root / "val").rglob("*.mp4")))
    said = run_command(
        *("predict", "run", video, "format=json", "timeline=true", "num_clips=1", "device=cpu"),
        *("annotate=seen.mp4", "timeline_picture=line.png"),
        cwd=tmp_path,
    )
    assert said.returncode == 0, said.stderr
    content = json.loads(said.stdout)
    assert set(content["values"]) == {"right", "down"}
    assert len(content["windows"]) > 1
    assert (tmp_path / "seen.mp4").stat().st_size
    assert (tmp_path / "line.png").stat().st_size
    model = load_model(run / "checkpoints" / "best.ckpt")
    found = predict(model, video, num_clips=1).values()
    assert found == pytest.approx(content["values"], rel=1e-4)
    refused = run_command("predict", "run", video, "explain=true", cwd=tmp_path)
    assert "explain shows what speaks for a class" in refused.stderr


def test_options_of_classes_are_refused_and_r2_is_monitored() -> None:
    for group, name in (("checkpoints_progress", "val/r2"), ("ema", "val/ema_r2")):
        cfg = composed("config", "data=regression", "data.root=/d", f"callbacks={group}")
        resolve_task(cfg)
        assert cfg.callbacks.best.monitor == name
        check_verb(cfg, "train")
    for option, value in {
        **{"data.balanced": True, "data.shards": "/s", "logit_adjustment": 1.0},
        **{"label_smoothing": 0.1, "class_weights": "balanced", "focal_gamma": 2.0},
    }.items():
        changed = copy.deepcopy(cfg)
        OmegaConf.update(changed, option, value)
        with pytest.raises(UserError, match=f"{option} is for "):
            resolve_task(changed)
    with pytest.raises(UserError, match="motion is for videos of one class"):
        resolve_task(composed("evaluate", "data=regression", "data.root=/d", "motion=[frozen]"))
    for verb in ("browse", "probe"):
        with pytest.raises(UserError, match=f"{verb} is for videos of one class"):
            refuse_other_tasks(cfg, verb)


def values_of_validation(values: list[list[float]]) -> VideoDataModule:
    manifest = RegressionManifest(
        root="/d",
        names=PackedStrings.of(f"{i}.mp4" for i in range(len(values))),
        labels=np.zeros(len(values), np.int32),
        class_names=("angle", "speed"),
        values=np.array(values),
    )
    return cast(
        VideoDataModule,
        SimpleNamespace(manifests={"val": manifest}, class_names=("angle", "speed")),
    )


def test_a_metric_that_validation_does_not_define_chooses_no_checkpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    constant = values_of_validation([[1.0, 2.0], [1.0, 2.0]])
    for group, prefix in (("checkpoints_progress", "val/"), ("ema", "val/ema_")):
        cfg = composed("config", "data=regression", "data.root=/d", f"callbacks={group}")
        resolve_task(cfg)
        advice = f"callbacks.best.monitor={prefix}mae callbacks.best.mode=min"
        for data in (constant, values_of_validation([[1.0, 2.0]])):
            with pytest.raises(UserError, match=f"have the same 'angle', 'speed', so .* {advice}"):
                check_monitor(cfg, data)
        with open_dict(cfg):
            check_monitor(OmegaConf.merge(cfg, {"trainer": {"limit_val_batches": 0}}), constant)
        OmegaConf.update(cfg, "callbacks.best.monitor", f"{prefix}mae")
        check_monitor(cfg, constant)
        del cfg.callbacks.best
        check_monitor(cfg, constant)
    cfg = composed("config", "data=regression", "data.root=/d")
    resolve_task(cfg)
    caplog.clear()
    check_monitor(cfg, values_of_validation([[1.0, 2.0], [3.0, 2.0]]))
    assert "have the same 'speed', which does not count" in caplog.text
    caplog.clear()
    check_monitor(cfg, values_of_validation([[1.0, 2.0], [3.0, 4.0]]))
    assert not caplog.text


def build_numbers(root: Path, folder: Path, *more: str) -> None:
    cfg = composed("config", *speeds(root, f"run_dir={folder}", *more))
    run = Run(
        folder=folder, resume_from=None, path=None, checkpoint={}, replaces=False, overrides=()
    )
    build_parts(resolve(cfg, run))


@pytest.mark.slow
def test_what_cannot_be_trained_is_told_before_the_first_step(
    data_root: Path, tmp_path: Path
) -> None:
    header, *rows = (data_root / "val_speed.csv").read_text().splitlines()
    there = [row for row in rows if (data_root / row.partition(",")[0]).exists()]
    (tmp_path / "one.csv").write_text(f"{header}\n{there[0]}")
    with pytest.raises(UserError, match="validation list have the same 'right', 'down'"):
        build_numbers(data_root, tmp_path / "run", f"data.val_list={tmp_path}/one")
    text = (data_root / "train_speed.csv").read_text()
    (tmp_path / "long.csv").write_text(text.replace("down", "d" * 501))
    with pytest.raises(UserError, match=r"long: 'ddd.* is not a text of at most 500 characters"):
        build_numbers(
            data_root, tmp_path / "run", f"data.train_list={tmp_path}/long", "data.val_list=null"
        )


def test_a_network_is_not_evaluated_on_data_of_another_task() -> None:
    cfg = composed("evaluate", "data=regression", "data.root=/d")
    one = composed("evaluate", "data=custom", "data.root=/d")
    card = ModelCard(**CARD)
    check_card(cfg, card, "x.ckpt")
    for config, other in ((cfg, ModelCard(model={})), (one, card)):
        with pytest.raises(UserError, match=r"x\.ckpt was trained for"):
            check_card(config, other, "x.ckpt")
    with pytest.raises(UserError, match="does not say how its targets were standardized"):
        check_card(cfg, None, "x.pyth")
    assert scale_in_card(card) == {"target_mean": (1.0, -20.0), "target_std": (0.5, 1e3)}
    assert scale_in_card(None) == scale_in_card(ModelCard(model={})) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_std": [0.5, 0.0]}, "target_std is a list, expected a list of a number above 0"),
        ({"target_std": [0.5, -1.0]}, "a number above 0"),
        ({"target_std": [0.5, float("nan")]}, "a number above 0"),
        ({"target_std": [0.5, float("inf")]}, "a number above 0"),
        ({"target_std": [0.5, "1"]}, "a number above 0"),
        ({"target_std": [0.5]}, "target_std has 1 values for 2 targets"),
        ({"target_mean": [0.5] * 3}, "target_mean has 3 values for 2 targets"),
        ({"target_mean": [0.5, float("nan")]}, "a number from"),
        ({"target_mean": None}, "has no target_mean"),
        ({"class_names": None}, "has no class_names"),
        ({"class_names": ["a", "a"]}, "two targets have the same name"),
        ({"evaluation": {"protocol": "p", "mae": -1.0}}, "mae is -1.0"),
    ],
)
def test_a_card_that_does_not_say_the_scale_is_refused(
    change: Mapping[str, Any], message: str
) -> None:
    assert card_of(CARD, "card").target_std == (0.5, 1e3)
    with pytest.raises(UserError, match=message):
        card_of({**CARD, **change}, "card")


def tiny() -> tuple[torch.nn.Module, ModelCard]:
    model = create_model("mvitv2_demo", num_classes=2, num_frames=4, crop_size=32).eval()
    model.card = ModelCard(**{**CARD, "mean": (0.45,) * 3, "std": (0.225,) * 3})
    return model, model.card


def test_an_export_gives_values_in_their_units(tmp_path: Path) -> None:
    card = ModelCard(**{**CARD, "mean": (0.45,) * 3, "std": (0.225,) * 3})
    model, sizes = MeanColour(2).eval(), Sizes(4, 32, 2)
    frames = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        logits = model((frames.transpose(1, 2) / 255 - 0.45) / 0.225)
    expected = logits * torch.tensor([0.5, 1e3]) + torch.tensor([1.0, -20.0])
    about, _ = interface_of(sizes, preprocess=True, weights="float32", task=card.task)
    assert about.output == "values"
    plain, _ = interface_of(sizes, preprocess=False, weights="float32", task=card.task)
    assert plain.output == "standardized"
    network = with_preprocessing(model, card)
    written = export(network, (frames, frames[:1]), tmp_path / "x.pt2", about, scale=1e3)
    torch.testing.assert_close(written.run(frames), expected)


class Drifting(torch.nn.Module):
    """Differs from what is exported of it by an offset: (B, C, T, H, W) -> (B,)."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        offset = self.offset if torch.compiler.is_exporting() else 0.0
        return 1000 * x.mean(dim=(1, 2, 3, 4)) + offset


def test_an_export_may_differ_in_proportion_to_the_scale_of_its_targets(tmp_path: Path) -> None:
    examples = (torch.rand(2, 3, 4, 8, 8), torch.rand(1, 3, 4, 8, 8))
    about = Interface(input="clip", dtype="float32", layout="", shape=(3, 4, 8, 8), output="values")
    path = tmp_path / "x.pt2"
    for offset, scale in ((0.05, 1.0), (0.5, 1000.0)):
        with pytest.raises(UserError, match="was not written: its values are"):
            export(Drifting(offset), examples, path, about, scale)
    assert export(Drifting(0.05), examples, path, about, 1000.0).max_abs_diff > 0.04


def test_predictions_are_values_and_have_no_top() -> None:
    model, card = tiny()
    frames = np.zeros((8, 32, 32, 3), np.uint8)
    found = predict(model, frames, fps=30, num_clips=1)
    clip = torch.full((1, 3, 4, 32, 32), -2.0)
    with torch.inference_mode():
        angle, speed = model(clip)[0].tolist()
    expected = {"angle": 0.5 * angle + 1, "speed": 1e3 * speed - 20}
    assert found.values() == pytest.approx(expected, rel=1e-5)
    assert found.segments == ()
    with pytest.raises(UserError, match="predicts numbers"):
        found.top()
    with pytest.raises(UserError, match="min_score is for classes"):
        predict(model, frames, fps=30, min_score=0.2)
    model.card = None
    with pytest.raises(UserError, match="tells classes, not numbers"):
        predict(model, frames, fps=30, num_clips=1).values()
    assert card.task == "regression"


def test_a_fine_tuning_chooses_no_mixing_and_allows_one_target() -> None:
    data = DatasetStats(
        num_videos=10_000, class_names=("angle",), median_s=9, shortest_s=9, has_classes=False
    )
    network = ModelInfo(variant="mvitv2_s", num_frames=16, crop_size=224, depth=16, embed_dim=96)
    found = {each.key: each for each in suggest_settings(data, network, {})}
    assert found["augment.mixing"].value is None
    assert found["data.num_classes"].reason == "targets of the training list"
    with pytest.raises(UserError, match="needs at least two classes"):
        suggest_settings(replace(data, has_classes=True), network, {})
