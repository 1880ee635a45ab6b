"""Peers of the network: the same weights where they have a place, and reasons where not."""

import sys
from typing import Any

import pytest
import torch
from benchmarks.model_peers import (
    BUILDERS,
    build_baseline,
    comparable_config,
    difference,
    draw_weights,
    give_weights,
)
from benchmarks.peer_errors import BaselineError
from torch import Tensor, nn

from video_mvit.models.mvit import MViT

TINY: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_classes": 5}
VIDEO: dict[str, Any] = {**TINY, "num_frames": 4, "crop_size": 32}
IMAGE: dict[str, Any] = {**TINY, "crop_size": 64}


def ours_of(name: str, options: dict[str, Any]) -> tuple[MViT, Tensor]:
    """Our network with drawn weights, and clips for it."""
    ours = MViT(comparable_config(name, **options)).eval()
    draw_weights(ours, 0)
    side = ours.config.crop_size
    generator = torch.Generator().manual_seed(0)
    return ours, torch.randn(2, 3, ours.config.num_frames, side, side, generator=generator)


def peer_of(name: str, ours: MViT) -> nn.Module:
    try:
        return build_baseline(name, ours.config).eval()
    except BaselineError as error:
        if "cannot be loaded" in str(error):
            pytest.skip(str(error))
        raise


CAN: list[tuple[str, str, dict[str, Any]]] = [
    ("plain", "mvitv2_s", VIDEO),
    ("plain", "mvitv2_s", {**VIDEO, "expand_dim_in": "mlp", "head": "mean"}),
    ("plain", "mvitv2_image_t", IMAGE),
    ("torchvision", "mvitv2_s", VIDEO),
    ("torchvision", "mvitv2_s", {**VIDEO, "num_heads": 2, "stride_kv": (1, 4, 4)}),
    ("timm", "mvitv2_image_t", IMAGE),
    ("timm", "mvitv2_image_t", {**IMAGE, "expand_dim_in": "mlp", "stride_kv": (1, 8, 8)}),
]


@pytest.mark.parametrize(("baseline", "name", "options"), CAN)
def test_peer_with_our_weights_gives_our_logits(
    baseline: str, name: str, options: dict[str, Any]
) -> None:
    ours, clip = ours_of(name, options)
    network = peer_of(baseline, ours)
    assert difference(ours, network, clip) > 0.1  # with weights of its own
    assert give_weights(baseline, network, ours)
    assert difference(ours, network, clip) < 1e-4
    assert difference(ours.train(), network.train(), clip) < 1e-4  # nothing random is left


def test_every_drawn_tensor_shows_in_the_logits() -> None:
    ours, clip = ours_of("mvitv2_s", VIDEO)
    ours(clip).square().sum().backward()
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None
        assert parameter.abs().max() > 0.01
        # Cls alone is classified, and a constant added to all keys changes no softmax.
        idle = ("blocks.4.attn.rel_pos", "blocks.4.attn.pool_q", "norm_k.bias")
        assert parameter.grad.abs().max() > 1e-4 or any(part in name for part in idle), name


def test_timm_differs_where_it_adds_queries_to_cls() -> None:
    options = {**IMAGE, "cls_token": True, "head": "cls"}
    ours, clip = ours_of("mvitv2_image_t", options)
    network = peer_of("timm", ours)
    assert give_weights("timm", network, ours)
    assert difference(ours, network, clip) > 0.01


def test_pytorchvideo_is_another_network_of_the_same_shape() -> None:
    ours, clip = ours_of("mvitv2_s", VIDEO)
    network = peer_of("pytorchvideo", ours)
    assert not give_weights("pytorchvideo", network, ours)
    assert network(clip).shape == ours(clip).shape
    assert len(network.blocks) == len(ours.blocks)
    assert [b.attn.num_heads for b in network.blocks] == [
        b.attn.spec.num_heads for b in ours.blocks
    ]
    counts = [sum(p.numel() for p in model.parameters()) for model in (network, ours)]
    assert counts[0] == pytest.approx(counts[1], rel=0.3)


@pytest.mark.parametrize(
    ("baseline", "name", "options"),
    [
        ("torchvision", "mvitv2_image_t", IMAGE),
        ("torchvision", "mvitv2_s", {**VIDEO, "head": "mean"}),
        ("torchvision", "mvitv2_s", {**VIDEO, "expand_dim_in": "mlp"}),
        ("timm", "mvitv2_s", VIDEO),
        ("timm", "mvitv2_image_t", {**IMAGE, "cls_token": True}),
        ("pytorchvideo", "mvitv2_image_t", IMAGE),
    ],
)
def test_network_that_a_peer_does_not_have_is_told(
    baseline: str, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(BaselineError, match=r"it has (video|image) models"):
        build_baseline(baseline, comparable_config(name, **options))


def test_tables_of_another_size_are_told() -> None:
    ours, _ = ours_of("mvitv2_s", {**VIDEO, "depths": (1, 1, 1, 2), "crop_size": 112})
    network = peer_of("torchvision", ours)
    with pytest.raises(BaselineError, match=r"its blocks\.4\.attn\.rel_pos_h has another shape"):
        give_weights("torchvision", network, ours)


@pytest.mark.parametrize(
    ("baseline", "module"),
    [
        ("torchvision", "torchvision.models.video.mvit"),
        ("timm", "timm.models.mvitv2"),
        ("pytorchvideo", "pytorchvideo.models.vision_transformers"),
    ],
)
def test_missing_library_is_told(
    baseline: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name, options = ("mvitv2_image_t", IMAGE) if baseline == "timm" else ("mvitv2_s", VIDEO)
    with pytest.raises(BaselineError, match="cannot be loaded: "):
        build_baseline(baseline, comparable_config(name, **options))


def test_every_peer_is_known_by_name() -> None:
    assert list(BUILDERS) == ["plain", "torchvision", "timm", "pytorchvideo"]
