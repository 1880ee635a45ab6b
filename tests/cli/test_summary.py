"""video-mvit summary: what it says of classifiers, detectors and networks of others."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from support.commands import composed

import video_mvit
from video_mvit.cli import summary
from video_mvit.cli.renamed_options import find_in_words
from video_mvit.cli.runs import expand_run
from video_mvit.errors import UserError

DEMO = ("model=mvitv2_demo", "clip=8x4", "clip.crop_size=32")


def lines_of(*words: str) -> list[str]:
    return list(summary.describe_classifier(composed("summary", *words)))


def test_stages_of_a_classifier() -> None:
    lines = lines_of(*DEMO, "model.name=mvitv2_demo", "+model.depths=[1,2,1,1]")
    assert lines[0] == "mvitv2_demo: 8x4 clips of 32 pixels, 400 classes"
    names = [line.split()[0] for line in lines[3:11]]
    stages = ["blocks.0", "blocks.1-2", "blocks.3", "blocks.4"]
    assert names == ["patch_embed", *stages, "norm", "head", "total"]
    assert lines[5].split()[:2] == ["blocks.1-2", "64x4x4x4"]
    assert max(map(len, lines)) <= 80


def test_classes_that_nobody_says_are_assumed() -> None:
    lines = lines_of("experiment=finetune")
    assert lines[0] == "mvitv2_s: 16x4 clips of 224 pixels, 400 classes"
    assert lines[1].startswith("  classes assumed: data.num_classes=N says how many")
    assert not any("assumed" in line for line in lines_of("experiment=finetune", "data=ucf101"))


def test_blocks_and_layers_add_up_to_the_same() -> None:
    totals = [
        next(line for line in lines_of(*DEMO, f"level={level}") if line.startswith("total"))
        for level in ("stages", "blocks", "layers")
    ]
    assert len(set(totals)) == 1


def test_step_is_estimated_for_the_configured_batch() -> None:
    words = (*DEMO, "data.train_batch_size=64", "data.num_samples=2", "callbacks=ema")
    *_, step, parts = lines_of(*words)
    assert step.startswith("a training step of 128 clips, estimated: ")
    assert "weights, gradients, AdamW and EMA; " in parts


def test_recomputation_is_not_estimated() -> None:
    *_, note = lines_of(*DEMO, "+model.activation_checkpointing=full")
    assert note.strip().startswith("without activation_checkpointing=full")


@pytest.mark.slow
def test_measured_step_is_said_with_device_and_precision() -> None:
    *_, measured = lines_of(*DEMO, "measure=true", "trainer=cpu", "data.num_workers=0")
    assert measured.strip().startswith("measured on this cpu, 32-true: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("image_size=[64,64]",), "image_size is for detectors"),
    ],
)
def test_what_a_classifier_cannot_say(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        lines_of(*words)


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs the extra zoo")
@pytest.mark.slow
def test_network_of_the_zoo_has_its_own_blocks() -> None:
    lines = lines_of("model=x3d_s", "clip=13x6")
    assert [line.split()[0] for line in lines if line.startswith("blocks.")] == [
        f"blocks.{i}" for i in range(6)
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.skipif(find_spec("pycocotools") is None, reason="needs the extra detection")
@pytest.mark.parametrize("heads", ["mask_rcnn", "cascade_batch_norm"])
@pytest.mark.slow
def test_parts_of_a_detector(heads: str) -> None:
    choices = ("data=coco", "optim=adamw_steps", "callbacks=detection")
    model = ("model=mask_rcnn_mvitv2_demo", f"+model.heads={heads}")
    cfg = composed("summary", *choices, *model, "image_size=[100,160]")
    lines = list(summary.describe_detector(cfg))
    assert "images of 128x160 pixels, 80 classes" in lines[0]
    names = [line.split()[0] for line in lines[3:] if line]
    parts = ["pyramid", "proposals", *["boxes"] * (3 if heads != "mask_rcnn" else 1), "masks"]
    assert names[: 6 + len(parts)] == ["patch_embed", *["stage"] * 4, *parts, "other"]
    assert max(map(len, lines)) <= 80
    assert all(float(line.split()[-3]) > 0 for line in lines[3 : 8 + len(parts)])


def test_command_line_without_words_has_no_old_names() -> None:
    assert find_in_words([]) is None


def test_run_folder_says_what_network_it_has(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config").mkdir()
    words = ["experiment=demo", "data.num_classes=null", "data.root=/data", "clip.crop_size=64"]
    (run / "config" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in words))
    network = video_mvit.create_model("mvitv2_demo", num_classes=3, crop_size=64)
    state = {f"model.{key}": value for key, value in network.state_dict().items()}
    content = {"state_dict": state, "class_names": ["a", "b", "c"]}
    torch.save(content, run / "checkpoints" / "best.ckpt")
    expanded = expand_run("summary", [str(run)])
    assert lines_of(*expanded)[0] == "mvitv2_demo: 8x4 clips of 64 pixels, 3 classes"
    with pytest.raises(UserError, match=r"is of a network with embed_dim 32, the settings of one"):
        lines_of(*expanded, "+model.embed_dim=64")
