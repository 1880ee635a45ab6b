"""Starting a network from weights: the order of classes, and what is refused."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

import video_mvit
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.initialize import FromImage, FromWeights, initialize_from
from video_mvit.weights.load import read_source
from video_mvit.weights.model_card import ModelCard

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 3}


def tiny_model(**overrides: Any) -> MViT:
    return video_mvit.create_model("mvitv2_s", **{**TINY, **overrides}).eval()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[MViT, str]:
    model = tiny_model()
    path = tmp_path / "model.safetensors"
    write_safetensors(
        path,
        model.state_dict(),
        ModelCard(model=asdict(model.config), class_names=("jump", "run", "sit")),
    )
    return model, str(path)


def test_head_follows_the_order_of_the_data(saved: tuple[MViT, str]) -> None:
    theirs, path = saved
    ours = tiny_model()
    _, plan = initialize_from(FromWeights(source=path), ours, ("sit", "jump", "run"))
    clip = torch.randn(2, 3, 4, 32, 32)
    torch.testing.assert_close(ours(clip), theirs(clip)[:, [2, 0, 1]])
    noted = {row.name for row in plan.rows if row.note == "classes in the order of the data set"}
    assert noted == {"head.projection.weight", "head.projection.bias"}


def test_same_order_needs_no_note(saved: tuple[MViT, str]) -> None:
    theirs, path = saved
    ours = tiny_model()
    _, plan = initialize_from(FromWeights(source=path), ours, ("jump", "run", "sit"))
    assert torch.equal(ours.head.projection.weight, theirs.head.projection.weight)
    assert {row.note for row in plan.rows} == {""}


def test_other_classes_are_refused_unless_the_head_is_new(saved: tuple[MViT, str]) -> None:
    theirs, path = saved
    ours = tiny_model()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(ValueError, match=r"model\.safetensors: .*reset=\[head\] starts a new head"):
        initialize_from(FromWeights(source=path), ours, ("jump", "run", "swim"))
    assert all(torch.equal(before[name], tensor) for name, tensor in ours.state_dict().items())
    initialize_from(FromWeights(source=path, reset=["head"]), ours, ("jump", "run", "swim"))
    assert torch.equal(ours.norm.weight, theirs.norm.weight)
    assert torch.equal(ours.head.projection.weight, before["head.projection.weight"])


def test_image_model_is_inflated(tmp_path: Path) -> None:
    image = tiny_model(num_frames=1, cls_token=False, head="mean", stride_kv=(1, 4, 4))
    path = tmp_path / "image.safetensors"
    write_safetensors(path, image.state_dict(), ModelCard(model=asdict(image.config)))
    video = tiny_model()
    _, plan = initialize_from(FromImage(source=str(path)), video, ("a", "b", "c"))
    assert plan.counts()["inflated"] == 1 + 4 * 3
    assert not video.blocks[0].attn.rel_pos_t.any()
    kernel = video.patch_embed.proj.weight
    assert torch.equal(kernel[:, :, 1], image.patch_embed.proj.weight[:, :, 0])
    with pytest.raises(ValueError, match="does not fit this model"):
        initialize_from(FromWeights(source=str(path)), video)


def test_path_is_opened_as_a_file(saved: tuple[MViT, str]) -> None:
    source = read_source(saved[1])
    assert source.class_names == ("jump", "run", "sit")
    assert source.architecture == asdict(saved[0].config) | {
        "depths": [1, 1, 1, 1],
        "stride_kv": [1, 8, 8],
    }
