"""The plain MViTv2 of the benchmark computes what ours does, from the same state."""

from typing import Any

import pytest
import torch
from benchmarks.plain_mvit import PlainMViT, distances
from torch import Tensor, nn

from video_mvit.models.config import MViTConfig
from video_mvit.models.mvit import MViT, relative_index

TINY: dict[str, Any] = {
    "num_frames": 4,
    "crop_size": 64,
    "embed_dim": 16,
    "depths": (1, 2, 1, 1),
    "num_classes": 5,
}
IMAGE: dict[str, Any] = {"num_frames": 1, "stride_kv": (1, 4, 4)}
NETWORKS: dict[str, dict[str, Any]] = {
    "video": {},
    "two heads at first": {"num_heads": 2},
    "video, channels double in the mlp, mean": {"expand_dim_in": "mlp", "head": "mean"},
    "image": {**IMAGE, "cls_token": False, "head": "mean"},
    "image, cls token, channels double in the mlp": {**IMAGE, "expand_dim_in": "mlp"},
}


def pair(**overrides: Any) -> tuple[MViT, PlainMViT]:
    """Both networks in float64, with one state in which every tensor matters."""
    config = MViTConfig(**{**TINY, **overrides})
    ours, plain = MViT(config).double(), PlainMViT(config).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in ours.parameters():
        noise = torch.randn(parameter.shape, dtype=torch.float64, generator=generator)
        parameter.data += 0.2 * noise
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def results(model: nn.Module, clip: Tensor, direction: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the gradient of each parameter."""
    torch.manual_seed(0)  # of dropout and drop path
    logits = model(clip)
    (logits * direction).sum().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_and_all_gradients_are_those_of_our_network(name: str, training: bool) -> None:  # noqa: FBT001
    ours, plain = pair(**NETWORKS[name])
    clip = torch.randn(2, 3, ours.config.num_frames, 64, 64, dtype=torch.float64)
    direction = torch.randn(2, 5, dtype=torch.float64)
    logits, gradients = results(ours.train(training), clip, direction)
    plain_logits, plain_gradients = results(plain.train(training), clip, direction)
    torch.testing.assert_close(plain_logits, logits, rtol=0, atol=1e-10)
    assert set(gradients) == set(plain_gradients) == dict(plain.named_parameters()).keys()
    for parameter, gradient in gradients.items():
        scale = float(gradient.abs().max())
        # Where cls alone is classified, the last block's queries of the grid do not matter.
        is_of_queries = any(f"blocks.4.attn.{name}" in parameter for name in ("rel_pos", "pool_q"))
        assert scale > 0 or (is_of_queries and ours.config.head == "cls"), parameter
        torch.testing.assert_close(
            plain_gradients[parameter], gradient, rtol=0, atol=1e-10 * max(1.0, scale)
        )


def test_distances_round_as_in_our_network() -> None:
    for q_size, k_size in ((78, 10), (39, 10), (20, 20), (7, 14), (56, 7)):
        assert torch.equal(distances(q_size, k_size), relative_index(q_size, k_size))


def test_attention_matrix_exists() -> None:
    """Otherwise it would be no stand-in for the official code."""
    _, plain = pair()
    attention = plain.blocks[0].attn
    shapes = []
    original = attention.add_rel_pos

    def record(scores: Tensor, q: Tensor) -> Tensor:
        shapes.append(tuple(scores.shape))
        return original(scores, q)

    attention.add_rel_pos = record
    plain(torch.randn(2, 3, 4, 64, 64, dtype=torch.float64))
    num_queries, num_keys = 1 + 2 * 16 * 16, 1 + 2 * 2 * 2
    assert shapes == [(2, 1, num_queries, num_keys)]
