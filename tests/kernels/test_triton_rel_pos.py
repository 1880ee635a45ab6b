"""The Triton kernels that join queries and merge heads against plain copies, in float64.

On a GPU, or where there is none, on a CPU in Triton's interpreter (`conftest.py`).
"""

import os

import pytest
import torch
from torch import Tensor

from video_mvit.kernels import rel_pos as heads
from video_mvit.kernels.dispatch import MAX_DIFFERENCE

kernels = pytest.importorskip("video_mvit.kernels.triton_rel_pos", reason="there is no Triton here")
DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
B, h, T, H, W, D = 2, 3, 2, 3, 5, 12


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(DEVICE)


def assert_same(ours: Tensor, plain: Tensor, leaves: list[Tensor]) -> None:
    assert torch.equal(ours, plain)
    direction = random(*plain.shape, seed=9)
    for a, b in zip(
        torch.autograd.grad(ours, leaves, direction),
        torch.autograd.grad(plain, leaves, direction),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("num_cls", [0, 1])
@pytest.mark.parametrize("sizes", [(8, 16, 8), (8, 16)])  # of a video, of an image
@pytest.mark.parametrize("padding", [0, 4])
def test_queries_are_joined_as_by_plain_copies(
    num_cls: int, sizes: tuple[int, ...], padding: int
) -> None:
    num_lines = B * h * T * H
    cls = [random(B, h, 1, D, seed=1).requires_grad_()] * num_cls
    grid = random(B, h, T * H * W, D, seed=2).requires_grad_()
    *others, last = sizes
    terms = [random(num_lines * W, n, seed=n).requires_grad_() for n in others]
    terms.append(random(W, num_lines, last, seed=7).requires_grad_())
    width = D + sum(sizes) + padding
    ours, plain = (join(cls, grid, terms, width) for join in (kernels.join, heads._join))
    assert_same(ours, plain, [*cls, grid, *terms])


@pytest.mark.parametrize("num_cls", [0, 1])
def test_heads_are_merged_as_by_plain_copies(num_cls: int) -> None:
    x = random(B, h, num_cls + T * H * W, D + 4, seed=1).requires_grad_()
    q = random(B, h, T * H * W, D, seed=2).requires_grad_()
    ours, plain = (merge(x[..., :D], q, num_cls) for merge in (kernels.merge, heads._merge))
    assert_same(ours, plain, [x, q])


def test_kernels_are_taken_where_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    x, q = random(B, h, T * H * W, D).requires_grad_(), random(B, h, T * H * W, D)
    terms = [random(B * h * T * H * W, 8), random(W, B * h * T * H, 8)]
    names = []
    for takes in (True, False):
        monkeypatch.setattr(heads, "_takes_triton", lambda _, takes=takes: takes)
        outputs = heads.merge_heads(x, q, 0), heads.join_queries([], x, terms, D + 16)
        names.append([y.grad_fn.name() for y in outputs])
    assert all(a != b for a, b in zip(*names, strict=True))


def test_trial_passes() -> None:
    with torch.inference_mode():
        assert heads.worst_difference(DEVICE) < MAX_DIFFERENCE
