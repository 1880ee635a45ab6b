"""Layer normalization of tokens, wherever they lie in memory.

On a GPU, PyTorch's kernels reach a third of the possible rate for rows as short as those of heads,
copy what is not contiguous, and under autocast write float32, which the next layer rounds again;
the Triton form does it in one pass each way. Statistics and sums are in float32 at least.
"""

import torch
from torch import Tensor, nn

from video_mvit.kernels import plain
from video_mvit.kernels.dispatch import EAGER, Form, Operation


def _triton(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    from video_mvit.kernels.triton_layer_norm import layer_norm

    return layer_norm(x, weight, bias, eps)


def _examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (  # heads side by side in memory
            torch.randn(2, 35, 3, D, generator=generator)[:, :, 1:].transpose(1, 2),
            torch.randn(D, generator=generator),
            torch.randn(D, generator=generator),
            1e-6,
        )
        for D in (40, 96)
    ]


LAYER_NORM = Operation(
    name="layer_norm",
    plain=plain.layer_norm,
    forms=(
        Form(
            name="triton",
            run=_triton,
            devices=("cuda",),
            stages=EAGER,  # a compiler fuses it with what comes before and after
            applies=lambda x, *_: x.ndim in (3, 4) and x.stride(-1) == 1,
            tried=True,
        ),
    ),
    examples=_examples,
)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` of the last dimension that picks its kernel: (..., C) -> (..., C)."""

    def forward(self, x: Tensor) -> Tensor:
        return LAYER_NORM(x, self.weight, self.bias, self.eps)
