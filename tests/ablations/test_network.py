"""Networks of ablations: MViTv2 where nothing is changed, else a dense formula."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from ablations.network import (
    AblatedAttention,
    Ablation,
    create_detector,
    create_model,
    joint_rows,
)
from torch import Tensor

import video_mvit
from video_mvit import kernels
from video_mvit.detection.detector import create_detector as create_published
from video_mvit.errors import UserError
from video_mvit.models.config import BlockSpec
from video_mvit.models.mvit import MultiScaleAttention
from video_mvit.models.relative_positions import relative_index

SPEC = BlockSpec(
    dim=24,
    dim_attn=24,
    dim_out=24,
    num_heads=2,
    num_cls=0,
    thw=(1, 12, 12),
    pool_kernel=(1, 3, 3),
    stride_q=(1, 1, 1),
    stride_kv=(1, 2, 2),
    drop_path=0.0,
)


def randomized(module: torch.nn.Module) -> Any:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module.eval()


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_nothing_changed_is_the_network_itself() -> None:
    ours = randomized(create_model("mvitv2_demo", num_classes=5))
    theirs = video_mvit.create_model("mvitv2_demo", num_classes=5).eval()
    theirs.load_state_dict(ours.state_dict())
    clip = noise(2, 3, 8, 32, 32)
    assert torch.equal(ours(clip), theirs(clip))


def test_hybrid_windows_of_the_detector_are_those_of_the_published_one() -> None:
    options: dict[str, Any] = {"attention": "pooling_hwin", "window": 16}
    ours = create_detector("mask_rcnn_mvitv2_demo", **options).eval()
    theirs = create_published("mask_rcnn_mvitv2_demo", num_classes=3).eval()
    backbone = randomized(theirs.backbone.bottom_up)
    ours.backbone.bottom_up.load_state_dict(backbone.state_dict())
    image = noise(1, 3, 96, 64)
    for a, b in zip(ours.backbone.bottom_up(image).values(), backbone(image).values(), strict=True):
        assert torch.equal(a, b)


def test_positions_of_a_detector_are_those_of_its_backbone() -> None:
    with pytest.raises(UserError, match="positions 'absolute' are of a classifier; a detector has"):
        create_detector("mask_rcnn_mvitv2_demo", positions="absolute")
    detector = create_detector("mask_rcnn_mvitv2_demo", relative_positions=False)
    assert not any("rel_pos" in name for name in detector.state_dict())


def dense(attention: AblatedAttention, x: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax of q.k / sqrt(D) + bias over allowed keys, times v, plus q; then the projection."""
    q, k, v = attention.pooled_qkv(x, attention.spec)
    scores = q @ k.transpose(2, 3) / attention.spec.head_dim**0.5 + bias
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    y = scores.softmax(dim=-1) @ v + q
    return attention.proj(y.transpose(1, 2).flatten(2))


def decomposed_bias(attention: AblatedAttention, q: Tensor, places: Any) -> Tensor:
    """q.(R_h + R_w) by the distance of each pair inside its window: `places` are (N, 2), (M, 2)."""
    (q_places, k_places), sizes = places, attention.sizes
    bias: Any = 0
    for axis, (name, size) in enumerate(zip("hw", sizes, strict=True)):
        rows = relative_index(*size)[q_places[:, axis]][:, k_places[:, axis]]  # (N, M)
        table = getattr(attention, f"rel_pos_{name}")[rows]  # (N, M, D)
        bias = bias + torch.einsum("bhnd,nmd->bhnm", q, table)
    return bias


@pytest.mark.parametrize("side", [12, 10])
def test_shifted_windows_are_attention_among_the_tokens_of_a_moved_window(side: int) -> None:
    spec = replace(SPEC, thw=(1, side, side), window=4)
    ablation = Ablation(attention="pooling_swin", window=8)
    attention = randomized(AblatedAttention(spec, ablation, is_shifted=True))
    x = noise(2, side * side, 24).requires_grad_()
    found = attention(x)
    # The same by hand: where each token lies in windows that begin half a window to the left.
    places, windows = [], []
    for grid, size in ((side, 4), (side // 2, 2)):
        cells = torch.tensor(list(product(range(grid), range(grid))))
        moved = cells + size - size // 2  # windows of the shifted grid begin at multiples of size
        places.append(moved % size)
        windows.append(moved.div(size, rounding_mode="floor"))
    mask = (windows[0][:, None] == windows[1][None]).all(dim=-1)
    q, _, _ = attention.pooled_qkv(x, spec)
    bias = decomposed_bias(attention, q, places)
    if side == 12:  # whole windows; padded keys would take part
        expected = dense(attention, x, bias, mask)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
        gradients = [
            torch.autograd.grad(each.square().sum(), [x, *attention.parameters()])
            for each in (found, expected)
        ]
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
    else:
        assert found.shape == (2, side * side, 24)
        assert found.isfinite().all()
        # A token far from the border sees its own window and no other.
        gradient = torch.autograd.grad(found[0, 0].sum(), x)[0][0].abs().sum(dim=-1)
        assert set(gradient.nonzero().flatten().tolist()) <= {
            i * side + j for i in range(4) for j in range(4)
        }


def test_joint_positions_are_an_embedding_of_each_pair() -> None:
    spec = replace(SPEC, thw=(2, 4, 6), pool_kernel=(3, 3, 3), stride_kv=(1, 2, 2))
    attention = randomized(AblatedAttention(spec, Ablation(positions="joint"), is_shifted=False))
    x = noise(2, 2 * 4 * 6, 24)
    table = attention.rel_pos_joint.reshape(3, 7, 11, 12)
    q, _, _ = attention.pooled_qkv(x, spec)
    bias = torch.zeros(2, 2, 48, 2 * 2 * 3)
    for n, (t, h, w) in enumerate(product(range(2), range(4), range(6))):
        for m, (kt, kh, kw) in enumerate(product(range(2), range(2), range(3))):
            # Keys are twice as coarse: their distance is in steps of queries.
            row = table[t - kt + 1, h - 2 * kh + 2, w - 2 * kw + 4]
            bias[:, :, n, m] = q[:, :, n] @ row
    torch.testing.assert_close(attention(x), dense(attention, x, bias, None), atol=2e-5, rtol=1e-4)


def test_joint_rows_of_equal_tables_are_the_sum_of_their_axes() -> None:
    rows = joint_rows([(2, 2), (3, 3)])
    assert rows.shape == (6, 6)
    assert rows[0, 0] == 1 * 5 + 2  # no distance
    assert rows.unique().numel() == 3 * 5


def test_q_is_pooled_where_it_is_strided_alone() -> None:
    model = randomized(create_model("mvitv2_demo", num_classes=5, q_pooling="strided"))
    pools = [[name for name, _ in block.attn.named_parameters()] for block in model.blocks]
    assert ["pool_q.weight" in names for names in pools] == [False, True, True, True]
    attention = model.blocks[0].attn
    x = noise(2, 4 * 8 * 8, 32)
    q, _, _ = attention.pooled_qkv(x, attention.spec)
    assert torch.equal(q, attention.heads(attention.qkv(x).chunk(3, dim=-1)[0]))
    model(noise(1, 3, 8, 32, 32)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_residual_pooling_adds_q_to_the_output_of_attention() -> None:
    with_q, without = (
        randomized(AblatedAttention(SPEC, Ablation(residual_pooling=on), is_shifted=False))
        for on in (True, False)
    )
    x = noise(2, 144, 24)
    q, _, _ = with_q.pooled_qkv(x, SPEC)
    expected = without(x) + with_q.proj(q.transpose(1, 2).flatten(2)) - with_q.proj.bias
    torch.testing.assert_close(with_q(x), expected, atol=2e-5, rtol=1e-4)


def test_absolute_positions_are_added_to_the_patches() -> None:
    model = randomized(create_model("mvitv2_demo", num_classes=5, positions="absolute"))
    plain = randomized(create_model("mvitv2_demo", num_classes=5, positions="none"))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "pos_embed"})
    plain.patch_embed.register_forward_hook(lambda *call: call[2] + model.pos_embed)
    clip = noise(2, 3, 8, 32, 32)
    assert torch.equal(model(clip), plain(clip))


def test_full_attention_pools_no_keys() -> None:
    model = create_model("mvitv2_demo", num_classes=5, attention="full")
    assert {block.spec.stride_kv for block in model.blocks} == {(1, 1, 1)}


def test_unchanged_attention_is_the_one_of_the_network_plain_and_fast() -> None:
    ours = randomized(AblatedAttention(SPEC, Ablation(), is_shifted=False))
    theirs = MultiScaleAttention(SPEC).eval()
    theirs.load_state_dict(ours.state_dict())
    x = noise(2, 144, 24)
    with kernels.use("plain"):
        plain = ours(x)
    torch.testing.assert_close(theirs(x), plain, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": "relative"}, "positions 'relative' is none of none, absolute"),
        ({"attention": "hwin"}, "attention 'hwin' needs a window"),
        ({"attention": "hwin", "window": 28}, "window 28 is neither 0 nor a multiple of 8"),
        ({"attention": "swin", "window": 8}, "windows are for images"),
        ({"positions": "joint", "cls_token": True}, "without a cls token"),
    ],
)
def test_impossible_ablations_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        create_model("mvitv2_demo", num_classes=5, **options)


def test_detector_without_pyramid_has_the_last_map_at_every_stride() -> None:
    options: dict[str, Any] = {"attention": "pooling_hwin", "window": 16, "pyramid": False}
    detector = create_detector("mask_rcnn_mvitv2_demo", **options).eval()
    pyramid = detector.backbone(noise(1, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in pyramid.values()] == [
        (16, 24),
        (8, 12),
        (4, 6),
        (2, 3),
        (1, 2),
    ]
    assert torch.equal(pyramid["p2"][:, :, ::8, ::8], pyramid["p5"])
