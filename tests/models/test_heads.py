"""The attentive head: golden outputs, initialization, and a network that has one."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from support.paths import GOLDEN
from support.reference import rebuilt_weight

import video_mvit
from video_mvit.errors import UserError
from video_mvit.models.heads import AttentiveHead
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.model_card import ModelCard

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 5}


def attentive(depth: int = 2, num_heads: int = 4, **changes: object) -> MViT:
    torch.manual_seed(0)
    options = {**TINY, "head": "attentive", "head_depth": depth, "head_num_heads": num_heads}
    return video_mvit.create_model("mvitv2_s", **{**options, **changes}).eval()


def ours(name: str) -> str:
    return name.replace("linear.", "projection.")


def test_logits_and_gradients_are_those_of_the_reference() -> None:
    golden = np.load(GOLDEN / "attentive_probe_d96_depth4.npz")
    head = AttentiveHead(96, 10, 0.0, num_heads=4, depth=4)
    weights = {
        ours(name): rebuilt_weight(name, tuple(json.loads(shape)))
        for name, shape in zip(golden["param_names"], golden["param_shapes"], strict=True)
    }
    head.load_state_dict(weights)
    x = np.random.default_rng(0).standard_normal(golden["input_shape"]).astype(np.float32)
    logits = head(torch.from_numpy(x))
    np.testing.assert_allclose(logits.detach(), golden["logits"], atol=1e-4)
    g = np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)
    (logits * torch.from_numpy(g)).sum().backward()
    parameters = dict(head.named_parameters())
    for name, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True):
        found = parameters[ours(name)].grad
        assert found is not None
        assert float(found.norm()) == pytest.approx(norm, rel=1e-3, abs=1e-4), name


def test_initialization_weakens_what_is_added_more_often() -> None:
    torch.manual_seed(0)
    head = AttentiveHead(64, 3, 0.0, num_heads=4, depth=3)
    head.init_weights()
    pooler, std = head.pooler, 0.02
    for weight, share in (
        (pooler.blocks[0].attn.qkv.weight, 1),
        (pooler.blocks[0].attn.proj.weight, math.sqrt(2)),
        (pooler.blocks[1].mlp.fc2.weight, 2),
        (pooler.cross_attention_block.mlp.fc2.weight, 2),
        (pooler.cross_attention_block.xattn.kv.weight, 1),
    ):
        assert float(weight.detach().std()) == pytest.approx(std / share, rel=0.1)
    assert float(pooler.blocks[0].mlp.fc1.bias.abs().max()) == 0
    assert float(head.projection.weight.detach().abs().max()) <= 1 / 8


def test_a_network_with_an_attentive_head_is_saved_and_loaded(tmp_path: Path) -> None:
    model = attentive()
    clip = torch.randn(2, 3, 4, 32, 32)
    with torch.inference_mode():
        expected = model(clip)
        tokens, _ = model.forward_features(clip)
        assert torch.equal(model.head(tokens), expected)
    path = tmp_path / "m.safetensors"
    write_safetensors(path, model.state_dict(), ModelCard(model=asdict(model.config)))
    loaded = video_mvit.load_model(path)
    with torch.inference_mode():
        assert torch.equal(loaded(clip), expected)
    # Without its card: shapes tell all but the number of heads.
    (tmp_path / "m.json").unlink()
    plain = video_mvit.load_model(path, head_num_heads=4, stride_kv=model.config.stride_kv)
    assert plain.config.head_depth == 2
    with torch.inference_mode():
        torch.testing.assert_close(plain(clip), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"head_depth": 3}, "its card says head_depth 3, its tensors are of 2"),
        ({"head_depth": 12}, "its card says head_depth 12, its tensors are of 2"),
        ({"head_depth": 13}, "head_depth is 13, expected an integer from 1 to 12"),
        ({"head": "cls"}, "its card says head cls, it has an attentive one"),
    ],
)
def test_a_card_does_not_decide_how_large_the_head_is(
    tmp_path: Path, said: dict[str, object], complaint: str
) -> None:
    model, path = attentive(), tmp_path / "m.safetensors"
    write_safetensors(path, model.state_dict(), ModelCard(model={**asdict(model.config), **said}))
    with pytest.raises(UserError, match=complaint):
        video_mvit.load_model(path)


def test_tensors_of_other_sizes_do_not_decide_either(tmp_path: Path) -> None:
    model, path = attentive(), tmp_path / "m.safetensors"
    card = ModelCard(model=asdict(model.config))
    name = "head.pooler.blocks.0.mlp.fc1.weight"
    write_safetensors(path, {**model.state_dict(), name: torch.zeros(1)}, card)
    with pytest.raises(UserError, match=r"blocks\.0\.mlp\.fc1\.weight is of \(1,\), expected"):
        video_mvit.load_model(path)
    plain = video_mvit.create_model("mvitv2_s", **TINY)
    write_safetensors(path, plain.state_dict(), card)
    with pytest.raises(UserError, match="its card says head attentive, it has no attentive one"):
        video_mvit.load_model(path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"num_heads": 3}, "head_num_heads 3 does not divide the 128 channels"),
        ({"depth": 0}, "head_depth 0 is outside 1 to 12"),
    ],
)
def test_heads_that_cannot_be_are_refused(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        attentive(**changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_an_attentive_head_is_exported_for_any_number_of_clips() -> None:
    head, tokens = attentive().head, torch.randn(2, 5, 128)
    batch = torch.export.Dim("batch")
    program = torch.export.export(head, (tokens,), dynamic_shapes=({0: batch},))
    for num_clips in (1, 3):
        x = torch.randn(num_clips, 5, 128)
        torch.testing.assert_close(program.module()(x), head(x))
