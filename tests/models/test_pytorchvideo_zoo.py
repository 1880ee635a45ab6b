"""Networks of pytorchvideo: logits always, published sizes, the same commands."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import composed, run_command
from torch import nn

from video_mvit.cli.build import build_all
from video_mvit.data.preparation.demo import MOTIONS, write_demo_dataset
from video_mvit.models import pytorchvideo_zoo as zoo
from video_mvit.models.config import VARIANTS
from video_mvit.models.mvit import MViT
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.optim import parameter_groups
from video_mvit.weights.initialize import FromImage, FromWeights, initialize_from

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

SMALL = {"num_frames": 4, "crop_size": 32}
# Model file -> its function, its published clip, and the millions of parameters that its authors
# state (pytorchvideo's model zoo; the MViT paper has 36.6).
PUBLISHED = {
    "x3d_s": (zoo.x3d, "13x6", 3.79),
    "slow_r50": (zoo.slow_r50, "8x8", 32.45),
    "mvit_v1_b": (zoo.mvit_v1_b, "16x4", 36.61),
}


def classifier_of(*overrides: str) -> VideoClassifier:
    machine = ["trainer=cpu", "trainer.precision=32-true", "data.num_workers=1"]
    return build_all(composed("config", "data.root=/data", "run_dir=/run", *machine, *overrides))[0]


@pytest.mark.parametrize("name", PUBLISHED)
def test_model_file_builds_the_published_network(name: str) -> None:
    _, clip, millions = PUBLISHED[name]
    model = classifier_of(f"model={name}", f"clip={clip}").model
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(num_parameters / 1e6, 2) == millions


@pytest.mark.parametrize("name", PUBLISHED)
def test_output_is_logits_in_training_and_in_evaluation(name: str) -> None:
    torch.manual_seed(0)
    model = PUBLISHED[name][0](num_classes=5, **SMALL)
    clip = torch.randn(2, 3, 4, 32, 32)
    for is_training in (True, False):
        logits = model.train(is_training)(clip)
        assert logits.shape == (2, 5)
        assert logits.min() < 0
        assert ((logits.sum(dim=1) - 1).abs() > 0.01).all()


def test_recipe_of_mvitv2_is_that_of_mvitv1() -> None:
    model = classifier_of("experiment=k400_mvitv2_s_16x4", "trainer=cpu", "model=mvit_v1_b").model
    assert model.blocks[-1].drop_path.drop_prob == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: zoo.x3d(num_classes=2, num_frames=4, crop_size=24), "crop_size 24 is smaller"),
        (lambda: zoo.slow_r50(num_classes=2, num_frames=4, crop_size=31), "smaller than 32"),
        (lambda: zoo.mvit_v1_b(num_classes=2, num_frames=13, crop_size=32), "num_frames 13 is not"),
        (lambda: zoo.mvit_v1_b(num_classes=2, num_frames=4, crop_size=182), "crop_size 182 is not"),
        (
            lambda: zoo.x3d(num_classes=2, **SMALL)(torch.zeros(1, 3, 8, 32, 32)),
            r"clips of shape \(1, 3, 8, 32, 32\); .* = \(B, 3, 4, 32, 32\)",
        ),
    ],
)
def test_clip_that_does_not_fit_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("error", [ImportError("No module"), RuntimeError("operator nms\nmore")])
def test_missing_or_broken_torchvision_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(zoo.importlib, "import_module", fail)
    with pytest.raises(ValueError, match=r"(module|nms)\); pip install 'torchvision[<>]"):
        zoo.x3d(num_classes=2, **SMALL)


@pytest.mark.parametrize("name", PUBLISHED)
def test_layer_decay_is_refused(name: str) -> None:
    model = PUBLISHED[name][0](num_classes=2, **SMALL)
    assert len(parameter_groups(model, 0.05)) == 2
    with pytest.raises(ValueError, match=r"layer_decay needs a model of patch_embed, .*; set"):
        parameter_groups(model, 0.05, 0.75)


def save_checkpoint(path: Path, model: nn.Module, names: tuple[str, ...]) -> str:
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "class_names": list(names), "card": {}}, path)
    return str(path)


@pytest.mark.parametrize("name", PUBLISHED)
def test_checkpoint_loads_with_its_head_in_the_order_of_the_data(name: str, tmp_path: Path) -> None:
    theirs, ours = (PUBLISHED[name][0](num_classes=3, **SMALL).eval() for _ in range(2))
    path = save_checkpoint(tmp_path / "last.ckpt", theirs, ("a", "b", "c"))
    source, plan = initialize_from(FromWeights(source=path), ours, ("c", "a", "b"))
    clip = torch.randn(1, 3, 4, 32, 32)
    torch.testing.assert_close(ours(clip), theirs(clip)[:, [2, 0, 1]])
    assert source.class_names == ("a", "b", "c")
    assert {row.action for row in plan.rows} == {"loaded"}
    assert sum(bool(row.note) for row in plan.rows) == 2
    with pytest.raises(ValueError, match=r"last\.ckpt: .*reset=\[(blocks\.5\.proj|head)\] starts"):
        initialize_from(FromWeights(source=path), ours, ("c", "a", "other"))


def test_files_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "x.ckpt", zoo.x3d(num_classes=3, **SMALL), ("a", "b", "c"))
    more = zoo.x3d(num_classes=4, **SMALL)
    with pytest.raises(ValueError, match=r"2 of another shape: blocks\.5\.proj\.weight \(3x2048"):
        initialize_from(FromWeights(source=path), more)
    initialize_from(FromWeights(source=path, reset=["blocks.5.proj"]), more)
    with pytest.raises(ValueError, match=r"does not fit this model; \d+ missing: "):
        initialize_from(FromWeights(source=path), zoo.slow_r50(num_classes=3, **SMALL))
    with pytest.raises(ValueError, match="a pytorchvideo ResNet, SlowFast or X3D"):
        initialize_from(FromWeights(source=path), MViT(VARIANTS["mvitv2_demo"]))
    with pytest.raises(ValueError, match="this is another network"):
        initialize_from(FromImage(source=path), more)


def test_position_tables_of_another_clip_are_explained(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "v1.ckpt", zoo.mvit_v1_b(num_classes=2, **SMALL), ("a", "b"))
    longer = zoo.mvit_v1_b(num_classes=2, num_frames=8, crop_size=32)
    with pytest.raises(ValueError, match=r"pos_embed_temporal .*fit one num_frames and crop_size"):
        initialize_from(FromWeights(source=path), longer)


def test_x3d_trains_resumes_and_evaluates_through_the_same_commands(tmp_path: Path) -> None:
    write_demo_dataset(tmp_path, {"train": 8, "val": 4, "test": 5}, 0, lambda _: None)
    options = ["experiment=demo", f"data.root={tmp_path}", f"run_dir={tmp_path}/run"]
    options += ["model=x3d_s", "+model.depth_factor=1.0", "clip.num_frames=4", "data.num_workers=0"]
    options += ["data.train_batch_size=4", "data.eval_batch_size=4"]
    first = ["trainer.max_steps=2", "optim.num_epochs=2"]
    resumed = ["optim.num_epochs=2", "resume_from=last", "allow_config_changes=true"]
    for verb, more in (
        ("train", first),
        ("train", resumed),
        ("evaluate", ["checkpoint=last"]),
    ):
        result = run_command(verb, *options, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert (results["num_videos"], len(results["class_names"])) == (5, len(MOTIONS))
    assert results["protocol"] == "5x1@4x4 offset short32 crop32"
