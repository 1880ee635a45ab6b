"""Drop path (stochastic depth, arXiv 1603.09382): skip a residual branch for some clips."""

import torch
from pytorchvideo.layers import drop_path
from torch import Tensor

from video_mvit.kernels import plain
from video_mvit.kernels.dispatch import EAGER, Form, Operation


def _triton(x: Tensor, draws: Tensor, drop_prob: float) -> Tensor:
    from video_mvit.kernels.triton_drop_path import drop_path

    return drop_path(x, draws, drop_prob)


def _examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(6, 35, 24, generator=generator),
            torch.rand(6, 1, 1, generator=generator),
            drop_prob,
        )
        for drop_prob in (0.25, 0.5)
    ]


DROP_PATH = Operation(
    name="drop_path",
    plain=plain.drop_path,
    forms=(Form(name="triton", run=_triton, devices=("cuda",), stages=EAGER, tried=True),),
    examples=_examples,
)


class DropPath(drop_path.DropPath):  # type: ignore[misc]
    """pytorchvideo's layer, with its draws, that picks its kernel: (B, ...) -> (B, ...)."""

    def forward(self, x: Tensor) -> Tensor:
        if self.drop_prob == 0 or not self.training:
            return x
        shape = (len(x),) + (1,) * (x.ndim - 1)
        draws = torch.rand(shape, dtype=x.dtype, device=x.device)
        return DROP_PATH(x, draws, self.drop_prob)
