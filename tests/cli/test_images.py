"""Pictures through the commands: train an image model, evaluate it, make a video model of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import run_command

from video_mvit.data.preparation.demo import write_demo_dataset

TINY = ["model=mvitv2_image_t", "+model.depths=[1,1,1,1]", "+model.embed_dim=16"]
pytestmark = pytest.mark.slow


def write_pictures(root: Path) -> None:
    """Two classes as ImageNet lies on a disk, grey and colour, of several sizes."""
    generator = np.random.default_rng(0)
    for split, num in (("train", 4), ("val", 3)):
        for label in ("n01440764", "n01443537"):
            (root / split / label).mkdir(parents=True)
            for i in range(num):
                pixels = generator.integers(0, 256, (40 + 8 * i, 60), np.uint8)
                mode = "L" if i else "RGB"
                picture = Image.fromarray(pixels).convert(mode)
                picture.save(root / split / label / f"{label}_{i}.JPEG")


def run(verb: str, cwd: Path, *options: str) -> str:
    result = run_command(verb, *options, cwd=cwd)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_image_model_trains_evaluates_and_inflates(tmp_path: Path) -> None:
    pictures, run_dir = tmp_path / "pictures", tmp_path / "image"
    write_pictures(pictures)
    (pictures / "val" / "n01440764" / "n01440764_1.JPEG").write_bytes(b"\xff\xd8\xff")
    shared = [f"data.root={pictures}", f"run_dir={run_dir}", "trainer=cpu", "data.num_workers=0"]
    shared += ["experiment=in1k_mvitv2_t", *TINY, "clip.crop_size=32", "data.num_classes=2"]
    shared += ["data.short_side=37"]
    said = run("train", tmp_path, *shared, "data.train_batch_size=4", "trainer.max_steps=2")
    assert "checked 8 of 8 training videos: all readable; single pictures; " in said
    assert "rate 3.91e-06: scaled from 0.00025 for 256 clips per step to 4 (4 videos)" in said
    run("evaluate", tmp_path, *shared, "checkpoint=last")
    results = json.loads((run_dir / "evaluation" / "results.json").read_text())
    assert results["protocol"] == "1x1@1x1 offset short37 crop32 bicubic"
    assert (results["num_videos"], results["num_listed"]) == (5, 6)
    assert list(results["unreadable"]) == ["n01440764/n01440764_1.JPEG"]
    assert results["class_names"] == ["n01440764", "n01443537"]

    videos, image = tmp_path / "videos", run_dir / "checkpoints" / "last.ckpt"
    write_demo_dataset(videos, {"train": 8, "val": 2, "test": 2}, 0, lambda _: None)
    video = ["experiment=demo", f"data.root={videos}", f"run_dir={tmp_path}/video"]
    video += ["data.num_workers=0", "data.train_batch_size=2", "trainer.max_steps=2"]
    video += [*TINY[1:], "init=inflate", f"init.source={image}"]
    said = run("train", tmp_path, *video, "optim.lr=0", "optim.start_lr=0", "optim.end_lr=0")
    assert "last.ckpt: training checkpoint, video_mvit names" in said
    assert "the weights were trained with mean [0.485, 0.456, 0.406]" in said
    before, after = (
        torch.load(path, weights_only=True)["state_dict"]["model.patch_embed.proj.weight"]
        for path in (image, tmp_path / "video" / "checkpoints" / "last.ckpt")
    )
    assert torch.equal(after[:, :, 1], before[:, :, 0])
    assert not after[:, :, 0].any()
