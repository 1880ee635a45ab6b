"""Drop path beyond the twin test: it draws what pytorchvideo's layer draws."""

import pytest
import torch
from pytorchvideo.layers.drop_path import DropPath as Reference

from video_mvit.kernels import DropPath


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("drop_prob", [0.0, 0.2])
@pytest.mark.parametrize("is_training", [True, False])
def test_draws_and_results_are_those_of_pytorchvideo(
    drop_prob: float, *, is_training: bool, dtype: torch.dtype
) -> None:
    clips = torch.randn(64, 5, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    results = []
    for layer in (DropPath(drop_prob), Reference(drop_prob)):
        x = clips.clone().requires_grad_()
        torch.manual_seed(7)
        y = layer.train(is_training)(x)
        y.float().square().sum().backward()
        results.append((y, x.grad, torch.rand(1)))  # and leaves the generator where it was
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
