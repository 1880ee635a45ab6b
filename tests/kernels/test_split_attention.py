"""Attention to parts of the keys beyond the twin test: which blocks take it, and what backends."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend

from video_mvit import kernels
from video_mvit.kernels import rel_pos, split_attention
from video_mvit.kernels.folding import folded_width
from video_mvit.models.config import block_schedule, variant_config


@pytest.mark.parametrize(
    ("variant", "fields", "widest", "parts"),
    [
        ("mvitv2_s", {}, 136, (1, 1, 2)),
        ("mvitv2_b", {"num_frames": 32}, 144, (1, 2, 2)),
        ("mvitv2_l", {"num_frames": 40, "crop_size": 312}, 144, (1, 2, 2)),
    ],
)
def test_widest_blocks_of_published_models_are_split_to_128(
    variant: str, fields: dict[str, Any], widest: int, parts: tuple[int, int, int]
) -> None:
    blocks = block_schedule(variant_config(variant, **fields))
    widths = [folded_width(block.head_dim, block.kv_thw) for block in blocks]
    wide = [block for block, width in zip(blocks, widths, strict=True) if width > 128]
    assert (max(widths), len(wide)) == (widest, 3)
    for block in wide:
        assert split_attention.num_parts(block.head_dim, block.kv_thw) == parts


@pytest.mark.parametrize(
    ("dtype", "size", "expected"),
    [
        (torch.bfloat16, 13, "split"),
        (torch.float16, 13, "split"),
        (torch.float32, 13, "folded"),  # no fast attention takes it
        (torch.bfloat16, 8, "folded"),  # narrow enough
        (torch.bfloat16, 60, "folded"),  # too wide even in halves
    ],
)
def test_keys_are_split_on_a_gpu_only_where_they_must_and_can_be(
    dtype: torch.dtype, size: int, expected: str
) -> None:
    q_thw, kv_thw = (1, 5, 4), (1, 17 if size > 8 else 8, size)
    q, k, v = (torch.zeros(1, 1, n, 96, dtype=dtype) for n in (20, kv_thw[1] * size, 20))
    tables = [torch.zeros(n, kernels.round_up(m), 96) for n, m in ((5, kv_thw[1]), (4, size))]
    args = q, k, v, tables, (q_thw, kv_thw), 0
    with kernels.use("gpu"):
        form = rel_pos.REL_POS_ATTENTION.choose(*args)
    assert form is not None
    assert form.name == expected
    assert rel_pos.REL_POS_ATTENTION.choose(*args) is rel_pos.REL_POS_ATTENTION.forms[-1]


def test_backends_of_a_gpu_are_asked_in_order_of_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    fused = F.scaled_dot_product_attention

    def attend(*args: Tensor, scale: float) -> Tensor:
        seen.append(torch._C._get_sdp_priority_order())
        return fused(*args, scale=scale)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    before = torch._C._get_sdp_priority_order()
    example = rel_pos.ATTENTION.examples()[0]
    with kernels.use("gpu"):
        rel_pos.ATTENTION(*example)
    order = ["CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"]
    assert [SDPBackend(number).name for number in seen[0][:4]] == order
    assert torch._C._get_sdp_priority_order() == before


def test_flash_attention_of_a_gpu_gets_arguments_of_the_right_shapes() -> None:
    """On tensors without numbers, which take its way; the numbers are tested on a CPU."""
    operands = [
        torch.empty(2, 3, n, 128, dtype=torch.bfloat16, device="meta", requires_grad=True)
        for keys in (50, 41)
        for n in (20, keys, keys)
    ]
    x = split_attention._MergedAttention.apply(*operands)
    assert x.shape == (2, 3, 20, 128)
    gradients = torch.autograd.grad(x, operands, torch.empty_like(x))
    assert [grad.shape for grad in gradients] == [operand.shape for operand in operands]
