"""Files for other libraries: identical after re-reading, in the container that each one reads."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import video_mvit
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import read_weight_file, write_safetensors
from video_mvit.weights.convert import (
    check_target,
    key_table,
    published_normalization,
    write_key_format,
)
from video_mvit.weights.load import read_source
from video_mvit.weights.model_card import ModelCard, read_card, read_evaluation

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 3}


def tiny_model(**overrides: Any) -> MViT:
    return video_mvit.create_model("mvitv2_s", **{**TINY, **overrides}).eval()


def card_of(model: MViT) -> ModelCard:
    return ModelCard(model=asdict(model.config))


@pytest.mark.parametrize(
    ("key_format", "suffix", "num_frames"),
    [
        ("video_mvit", ".safetensors", 4),
        ("slowfast", ".pyth", 4),
        ("slowfast", ".pyth", 1),
        ("mvit", ".pyth", 1),
        ("torchvision", ".pth", 4),
        ("timm", ".safetensors", 1),
        ("timm", ".pth", 1),
        ("mmaction2", ".pth", 4),
    ],
)
def test_every_tensor_comes_back_bit_for_bit(
    tmp_path: Path, key_format: str, suffix: str, num_frames: int
) -> None:
    model = tiny_model(num_frames=num_frames, cls_token=False, head="mean")
    path = tmp_path / f"model{suffix}"
    assert write_key_format(path, model.state_dict(), key_format, card_of(model)) == ()
    loaded = video_mvit.load_model(str(path))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_containers_are_those_that_the_libraries_read(tmp_path: Path) -> None:
    model = tiny_model()
    found = {}
    for key_format in ("slowfast", "torchvision", "mmaction2"):
        path = tmp_path / f"{key_format}.{'pyth' if key_format == 'slowfast' else 'pth'}"
        write_key_format(path, model.state_dict(), key_format, card_of(model))
        found[key_format] = torch.load(path, weights_only=True)
    assert list(found["slowfast"]) == ["model_state"]
    assert "conv_proj.weight" in found["torchvision"]
    assert "backbone.patch_embed.projection.weight" in found["mmaction2"]["state_dict"]


def test_tensors_without_a_place_are_named(tmp_path: Path) -> None:
    model = tiny_model(num_frames=1, cls_token=False, head="mean")
    dropped = write_key_format(
        tmp_path / "backbone.pth", model.state_dict(), "detectron2", card_of(model)
    )
    assert set(dropped) == {
        "norm.weight",
        "norm.bias",
        "head.projection.weight",
        "head.projection.bias",
    }


def test_half_precision_is_kept(tmp_path: Path) -> None:
    model = tiny_model().to(torch.bfloat16)
    model.norm.weight.data.fill_(float("nan"))  # even a broken weight is the same weight
    write_key_format(tmp_path / "s.pyth", model.state_dict(), "slowfast", card_of(model))
    state = read_source(tmp_path / "s.pyth").state
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}


def rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half().float() for name, tensor in state.items()}


def retyped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "norm.bias": state["norm.bias"].view(torch.int32)}


def shortened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != "norm.bias"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (rounded, "differs after re-reading"),
        (retyped, "norm.bias differs after re-reading"),
        (shortened, "lacks norm.bias after re-reading"),
    ],
)
def test_a_file_that_reads_back_otherwise_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    model = tiny_model()

    def write(path: Path, state: dict[str, Tensor], _: Any) -> None:
        save_file(spoil(state), path)

    monkeypatch.setattr("video_mvit.weights.convert.write_safetensors", write)
    with pytest.raises(ValueError, match=message):
        write_key_format(
            tmp_path / "m.safetensors", model.state_dict(), "video_mvit", card_of(model)
        )


def test_strange_tensors_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    model = tiny_model()
    state = {**model.state_dict(), "blocks.0.attn.gate": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"no MViTv2 has blocks\.0\.attn\.gate"):
        write_key_format(tmp_path / "m.pth", state, "torchvision", card_of(model))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "key_format", "message"),
    [
        ("m.pth", "keras", "format is 'keras', expected one of video_mvit, slowfast"),
        ("m.pth", "video_mvit", r"m\.pth must end in \.safetensors for video_mvit to read it"),
        ("m.ckpt", "timm", r"must end in \.safetensors or \.pth or \.bin for timm"),
        ("old.safetensors", "video_mvit", "old.safetensors exists; overwrite=true"),
        ("card.safetensors", "video_mvit", "card.json exists; overwrite=true"),
        ("none/m.pth", "mmaction2", "no folder .*none to write m.pth to"),
    ],
)
def test_impossible_targets_are_refused(
    tmp_path: Path, name: str, key_format: str, message: str
) -> None:
    (tmp_path / "old.safetensors").touch()
    (tmp_path / "card.json").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_target(tmp_path / name, key_format, overwrite=False)
    if "exists" in message:
        check_target(tmp_path / name, key_format, overwrite=True)


def test_key_table_counts_every_tensor_once() -> None:
    state = tiny_model().state_dict()
    rows = key_table(state, "slowfast", "torchvision")
    assert sum(row.num_tensors for row in rows) == len(state)
    renamed = {row.source: row.target for row in rows}
    assert renamed["blocks.*.mlp.fc1.*"] == "blocks.*.mlp.0.*"
    assert renamed["norm.*"] == "norm.*"


def test_normalization_is_that_of_the_published_recipes() -> None:
    assert published_normalization({"num_frames": 16, "embed_dim": 96})[0] == (0.45, 0.45, 0.45)
    for architecture in ({"num_frames": 1, "embed_dim": 96}, {"num_frames": 40, "embed_dim": 144}):
        assert published_normalization(architecture) == (
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        )


def test_card_keeps_its_values_and_says_nothing_of_paths(tmp_path: Path) -> None:
    results = {"protocol": "5x1@16x4", "top1": 0.5, "top5": 0.9, "checkpoint": "/secret/last.ckpt"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    evaluation = read_evaluation(tmp_path / "results.json")
    assert evaluation == {"protocol": "5x1@16x4", "top1": 0.5, "top5": 0.9}
    card = ModelCard(model={"num_classes": 2}, class_names=("a", "é"), evaluation=evaluation)
    assert read_card(card.to_json(), "card") == card
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a results"):
        read_evaluation(tmp_path / "other.json")


def test_safetensors_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    state = dict(tiny_model().state_dict())
    for i in range(300):  # grows the header by eight bytes or so at a time
        write_safetensors(path, {**state, "x" * (8 * i + 1): torch.zeros(1)}, None)
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    assert len(read_weight_file(path).state) == len(state) + 1
