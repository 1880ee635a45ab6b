"""The Triton kernels of layer normalisation against the plain one, in float64.

On a GPU, or where there is none, on a CPU in Triton's interpreter (`conftest.py`).
"""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.kernels import layer_norm as norms
from video_mvit.kernels.dispatch import MAX_DIFFERENCE
from video_mvit.kernels.layer_norm import EPS, LayerNorm

kernels = pytest.importorskip(
    "video_mvit.kernels.triton_layer_norm", reason="there is no Triton here"
)
DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator).to(DEVICE)


def tokens(x: Tensor) -> Tensor:
    return x


def some_heads(x: Tensor) -> Tensor:
    return x.view(*x.shape[:2], 3, -1)[:, 1:, 1:].transpose(1, 2)  # behind a token, two of three


@pytest.mark.parametrize("lie", [tokens, some_heads])
@pytest.mark.parametrize("length", [6, 96])
@pytest.mark.parametrize("parts", [1, 512])
def test_outputs_and_gradients_are_those_of_plain_normalisation(
    lie: object, length: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "NUM_PARTS", parts)
    x = random(2, 50, length if lie is tokens else 3 * length).requires_grad_()
    weight, bias = (random(length, seed=seed).requires_grad_() for seed in (1, 2))
    ours = kernels.layer_norm(lie(x), weight, bias, EPS)
    plain = F.layer_norm(lie(x), (length,), weight, bias, EPS)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    direction = random(*plain.shape, seed=3)
    if direction.ndim == 4:
        direction = direction.transpose(1, 2).contiguous().transpose(1, 2)  # as heads come back
    for a, b in zip(
        torch.autograd.grad(ours, (x, weight, bias), direction),
        torch.autograd.grad(plain, (x, weight, bias), direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_gradient_of_heads_lies_as_they_do() -> None:
    x = random(2, 5, 3, 8).transpose(1, 2).requires_grad_()
    y = kernels.layer_norm(x, random(8), random(8), EPS)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.stride() == x.stride()


def test_module_takes_the_kernels_where_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, x = LayerNorm(8).to(DEVICE, torch.float64), random(2, 3, 8)
    with torch.no_grad():
        norm.weight.copy_(random(8))
    monkeypatch.setattr(norms, "_takes_triton", lambda _: False)
    plain = norm(x)
    monkeypatch.setattr(norms, "_takes_triton", lambda _: True)
    ours = norm(x)
    assert ours.grad_fn.name() != plain.grad_fn.name()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_trial_passes() -> None:
    with torch.inference_mode():
        assert norms.worst_difference(DEVICE) < MAX_DIFFERENCE
