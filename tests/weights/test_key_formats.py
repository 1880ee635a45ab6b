"""Files of other libraries: recognised, translated there and back, the same logits."""

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.paths import GOLDEN
from support.reference import rebuilt_weight
from torch import Tensor

import video_mvit
from video_mvit.models.config import VARIANTS, variant_config
from video_mvit.models.mvit import MViT
from video_mvit.weights.architecture import infer_architecture
from video_mvit.weights.checkpoint_files import read_weight_file
from video_mvit.weights.initialize import FromWeights, initialize_from
from video_mvit.weights.key_formats import KEY_FORMATS, detect_format, to_key_format, to_official
from video_mvit.weights.load import read_source


def meta_state(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    monkeypatch.setattr(MViT, "init_weights", lambda _: None)
    with torch.device("meta"):
        return MViT(VARIANTS[name]).state_dict()


@pytest.mark.parametrize("name", VARIANTS)
def test_architecture_of_every_variant_is_read_off_its_shapes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = infer_architecture(meta_state(name, monkeypatch))
    assert read == {field: getattr(VARIANTS[name], field) for field in read}
    assert len(read) == 10


@pytest.mark.parametrize("key_format", KEY_FORMATS)
@pytest.mark.parametrize("name", ["mvitv2_demo", "mvitv2_image_t", "mvitv2_image_l"])
def test_round_trip_is_strict_and_bit_exact(
    key_format: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = meta_state(name, monkeypatch)
    ours = {
        name: torch.arange(t.numel() % 1000, dtype=torch.float32).sum()
        + torch.empty(t.shape).uniform_()
        for name, t in shapes.items()
        if name.startswith(("cls", "patch", "norm", "head", "blocks.0.", "blocks.1.", "blocks.2."))
    }
    kind = "image" if "image" in name else "video"
    if kind not in KEY_FORMATS[key_format].holds:
        with pytest.raises(ValueError, match=f"{key_format} has no {kind} MViTv2"):
            to_key_format(ours, KEY_FORMATS[key_format])
        return
    theirs, left_out = to_key_format(ours, KEY_FORMATS[key_format])
    assert all(part.split(".")[0] in ("norm", "head", "cls_token") for part in left_out)
    assert bool(left_out) == (key_format == "detectron2")
    found = detect_format(theirs)
    assert found.name == {"video_mvit": "slowfast"}.get(key_format, key_format) or kind == "image"
    back, unused = to_official(theirs, KEY_FORMATS[key_format])
    assert not unused
    assert set(back) == set(ours) - set(left_out)
    for key, tensor in back.items():
        assert torch.equal(tensor, ours[key]), key


MMACTION2 = """backbone.cls_token backbone.patch_embed.projection.bias backbone.blocks.0.norm1.bias
backbone.blocks.0.attn.qkv.bias backbone.blocks.0.attn.proj.bias
backbone.blocks.0.attn.pool_q.weight backbone.blocks.0.attn.norm_q.bias
backbone.blocks.0.attn.rel_pos_t backbone.blocks.0.mlp.fc1.bias backbone.blocks.1.proj.bias
backbone.norm3.bias cls_head.fc_cls.bias"""
TORCHVISION = """pos_encoding.class_token conv_proj.bias blocks.0.norm1.bias blocks.0.attn.qkv.bias
blocks.0.attn.project.0.bias blocks.0.attn.pool_q.pool.weight blocks.0.attn.pool_q.norm_act.0.bias
blocks.0.attn.rel_pos_t blocks.0.mlp.0.bias blocks.1.project.bias norm.bias head.1.bias"""


@pytest.mark.parametrize(
    ("key_format", "names"), [("mmaction2", MMACTION2), ("torchvision", TORCHVISION)]
)
def test_names_are_those_of_the_library(
    key_format: str, names: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, _ = to_key_format(meta_state("mvitv2_s", monkeypatch), KEY_FORMATS[key_format])
    assert set(names.split()) <= set(theirs)
    assert len(theirs) == 397


def test_detectron2_backbone_is_found_among_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, _ = to_key_format(meta_state("mvitv2_image_t", monkeypatch), KEY_FORMATS["detectron2"])
    assert theirs["backbone.bottom_up.patch_embed.proj.weight"].shape == (96, 3, 7, 7)
    assert theirs["backbone.bottom_up.blocks.0.attn.pool_q.weight"].shape == (96, 1, 3, 3)
    extra = {"roi_heads.x": torch.zeros(1), "backbone.bottom_up.scale5_norm.bias": torch.zeros(1)}
    assert detect_format({**theirs, **extra}).name == "detectron2"
    _, unused = to_official({**theirs, **extra}, KEY_FORMATS["detectron2"])
    assert set(unused) == set(extra)


def test_separate_projections_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    state = dict(meta_state("mvitv2_demo", monkeypatch))
    fused = torch.randn(96, 32)
    del state["blocks.0.attn.qkv.weight"]
    for part, rows in zip("qkv", fused.chunk(3), strict=True):
        state[f"blocks.0.attn.{part}.weight"] = rows
    official, _ = to_official(state, KEY_FORMATS["slowfast"])
    assert torch.equal(official["blocks.0.attn.qkv.weight"], fused)


def test_maskfeat_pretraining_starts_its_fine_tune(tmp_path: Path) -> None:
    """The pre-trained network has no norm and head, a mask token, and a last stage of 14 x 14."""
    fine_tune = variant_config(
        "mvitv2_s", num_frames=4, embed_dim=16, expand_dim_in="mlp", head="mean"
    )
    model = MViT(fine_tune)
    state = rebuilt({name: tensor.shape for name, tensor in model.state_dict().items()})
    for axis in "hw":
        state[f"blocks.15.attn.rel_pos_{axis}"] = torch.randn(27, 16)
    state = {name: t for name, t in state.items() if not name.startswith(("norm.", "head."))}
    more = {"mask_token": 1, "pred_head.projections.0.weight": 2, "hogs.0.weight_x": 3}
    path = tmp_path / "maskfeat.pyth"
    torch.save({"model_state": state | {name: torch.ones(n) for name, n in more.items()}}, path)
    source, plan = initialize_from(FromWeights(source=str(path), reset=["norm", "head"]), model)
    assert source.architecture["head"] == "mean"
    assert set(source.unused) == set(more)
    assert plan.counts() == {"loaded": len(state) - 2, "resized": 2, "new": 4, "unused": 3}


def rebuilt(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    return {name: rebuilt_weight(name, tuple(shape)) for name, shape in shapes.items()}


@pytest.mark.slow
def test_file_saved_by_torchvision_gives_its_logits(tmp_path: Path) -> None:
    theirs = pytest.importorskip("torchvision.models.video").mvit_v2_s().eval()
    theirs.load_state_dict(rebuilt({k: t.shape for k, t in theirs.state_dict().items()}))
    torch.save(theirs.state_dict(), tmp_path / "s.pth")
    ours = video_mvit.load_model(str(tmp_path / "s.pth"))
    clip = torch.randn(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip), theirs(clip), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suffix"),
    [("tiny", "pth"), ("tiny", "safetensors"), ("small", "safetensors"), ("base", "safetensors")],
)
def test_file_saved_by_timm_gives_its_logits(tmp_path: Path, name: str, suffix: str) -> None:
    theirs = pytest.importorskip("timm").create_model(f"mvitv2_{name}").eval()
    theirs.load_state_dict(rebuilt({k: t.shape for k, t in theirs.state_dict().items()}))
    path = tmp_path / f"model.{suffix}"
    if suffix == "pth":
        torch.save(theirs.state_dict(), path)
    else:
        save_file(theirs.state_dict(), path)
    ours = video_mvit.load_model(str(path))
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(image.unsqueeze(2)), theirs(image), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["video_s_8f_104", "video_s_8f_112_dim_in_mlp_meanpool", "image_t_224", "image_t_cls_224"],
)
def test_official_checkpoint_gives_the_golden_logits(tmp_path: Path, name: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    shapes = [tuple(json.loads(str(shape))) for shape in golden["param_shapes"]]
    state = rebuilt(dict(zip(map(str, golden["param_names"]), shapes, strict=True)))
    path = tmp_path / "checkpoint.pyth"
    torch.save({"epoch": 0, "model_state": state, "optimizer_state": {}, "cfg": "TRAIN: 1"}, path)
    model = video_mvit.load_model(str(path))
    shape = (len(golden["logits"]), 3, model.config.num_frames, *2 * [model.config.crop_size])
    clip = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    with torch.inference_mode():
        np.testing.assert_allclose(model(clip).numpy(), golden["logits"], rtol=0, atol=1e-4)


class Hostile:
    """Writes a file when a careless reader unpickles it."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("place", ["model_state", "state_dict", "model", None, "class_names"])
@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
def test_hostile_file_is_refused_and_nothing_runs(tmp_path: Path, place: str, how: str) -> None:
    harm = tmp_path / "harm"
    content: Any = {place or "weight": Hostile(harm)}
    if place == "class_names":
        content["state_dict"] = {}
    path = tmp_path / "hostile.pyth"
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=r"hostile\.pyth is refused: it would run posix\.mkdir"):
        read_weight_file(path)
    assert not harm.exists()
    with path.open("rb") as file:  # the gate: a careless reader does run it
        if how == "pickle":
            pickle.load(file)
            assert harm.exists()


def test_detectron2_pickle_of_arrays_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, _ = to_key_format(meta_state("mvitv2_image_t", monkeypatch), KEY_FORMATS["detectron2"])
    arrays = {name: np.ones(tuple(t.shape), np.float32) for name, t in theirs.items()}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "somebody"}))
    source = read_source(path)
    assert source.key_format == "detectron2"
    assert source.state["patch_embed.proj.weight"].shape == (96, 3, 1, 7, 7)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


T = torch.zeros(2)
WRONG = {
    "text": (b"weights: none\n", "is a text file, not weights"),
    "empty": (b"", "is empty"),
    "page": (b"<!DOCTYPE html><html>", "is a web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "half": (saved({"a": torch.zeros(9000)})[:9000], "is damaged or truncated"),
    "noise": (bytes(range(256)), "is not a supported weight file"),
    "other": (
        saved({"a": T, "b": T}),
        r"this is another network \(2 tensors: a, b\); only MViTv2 weights are supported",
    ),
    "optimizer": (saved({"optimizer": {}}), "contains no named tensors, only optimizer"),
    "list": (saved([T]), "contains a list without named tensors"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_file_is_told_in_one_sentence(tmp_path: Path, name: str) -> None:
    content, message = WRONG[name]
    path = tmp_path / "wrong.pyth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        video_mvit.load_model(str(path))
    assert "wrong.pyth" in str(error.value)
    assert "\n" not in str(error.value)


def test_half_a_safetensors_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    save_file({"a": torch.zeros(1000)}, path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"half\.safetensors is damaged or truncated"):
        read_weight_file(path)
