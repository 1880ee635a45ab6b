"""Layer normalisation of tokens, wherever they lie in memory.

On a GPU, PyTorch's kernels reach a third of the possible rate for rows as short as those of heads,
copy what is not contiguous, and under autocast write float32, which the next layer rounds again.
`norms_triton.py` does it in one pass each way, once a trial has shown that it works there.
Statistics and sums are in float32 at least.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.kernels.dispatch import difference_from_plain, kernels_work

EPS = 1e-6


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` of the last dimension, on a GPU in the type of its input.

    (B, N, C) or (B, h, N, D), of any strides -> the same shape.
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        if _takes_triton(x):
            from video_mvit.kernels.triton_layer_norm import layer_norm

            return layer_norm(x, self.weight, self.bias, self.eps)
        return super().forward(x)


def _takes_triton(x: Tensor) -> bool:
    """A compiler writes such kernels itself, together with what comes before and after."""
    if x.device.type != "cuda" or x.ndim not in (3, 4) or x.stride(-1) != 1:
        return False
    return not torch.compiler.is_compiling() and kernels_work(
        "normalisation", x.device.index, worst_difference
    )


def worst_difference(device: torch.device) -> float:
    """Largest difference of Triton's outputs and gradients from PyTorch's, over a few shapes."""
    from video_mvit.kernels.triton_layer_norm import layer_norm

    differences = [0.0]
    for length in (40, 96):

        def heads(x: Tensor, length: int = length) -> Tensor:  # of a part of the channels
            B, N, _ = x.shape
            return x.view(B, N, 3, length)[:, :, 1:].transpose(1, 2)

        def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return layer_norm(heads(x), weight, bias, EPS)

        def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return F.layer_norm(heads(x), weight.shape, weight, bias, EPS)

        shapes = ((2, 70, 3 * length), (length,), (length,))
        differences.append(difference_from_plain(ours, plain, shapes, device))
    return float(torch.tensor(differences).max())
