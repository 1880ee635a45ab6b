"""Layers of the pyramid and the heads: convolutions with a norm, and the norms."""

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["none", "batch", "layer"]


class ChannelNorm(nn.Module):
    """Normalize the channels of each position: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, eps=1e-6)
        return x.permute(0, 3, 1, 2)


class SumOverRanks(torch.autograd.Function):
    """Sum a tensor over the ranks, and its gradient likewise: each rank's loss depends on all."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return SumOverRanks.forward(ctx, gradient)


class BoxBatchNorm(nn.BatchNorm2d):
    """Batch norm over the boxes of all ranks, of which a rank may have any number, also none.

    Each rank's means count as often as it has boxes. Running statistics take the biased variance,
    except on a single rank, which is plain `BatchNorm2d`.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        is_alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if self.training and is_alone and len(x) > 0:
            return super().forward(x)
        values = x.float()
        mean, variance = self.running_mean, self.running_var
        if self.training:
            sums = torch.cat([values.mean((2, 3)).sum(0), values.square().mean((2, 3)).sum(0)])
            sums = torch.cat([sums, sums.new_full((1,), len(x))])
            sums = sums if is_alone else SumOverRanks.apply(sums)  # type: ignore[no-untyped-call]
            num_boxes = sums[-1].detach()
            mean, square = (sums[:-1] / num_boxes.clamp(min=1)).chunk(2)
            variance = square - mean.square()
            # Where no rank has boxes, the statistics stay.
            momentum = self.momentum * num_boxes.clamp(max=1)
            self.running_mean.lerp_(mean.detach(), momentum)
            self.running_var.lerp_(variance.detach(), momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        shift = self.bias - mean * scale
        return (values * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


NORMS = {"none": nn.Identity, "batch": BoxBatchNorm, "layer": ChannelNorm}


class NormedConv(nn.Conv2d):
    """Convolve at stride 1, keeping the size, then normalize; a bias only where no norm follows."""

    def __init__(self, dim_in: int, dim_out: int, kernel: int, norm: Norm = "none") -> None:
        super().__init__(dim_in, dim_out, kernel, padding=kernel // 2, bias=norm == "none")
        self.norm = NORMS[norm](dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x))  # type: ignore[no-any-return]


class ReluConv(NormedConv):
    """A `NormedConv` of 3x3 and ReLU."""

    def __init__(self, dim_in: int, dim_out: int, norm: Norm = "none") -> None:
        super().__init__(dim_in, dim_out, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


def init_caffe2(layer: nn.Conv2d | nn.Linear) -> None:
    """Initialize as Caffe2's "Xavier" fill does, bias 0."""
    nn.init.kaiming_uniform_(layer.weight, a=1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_fan_out(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Initialize by the Kaiming normal rule over the fan-out, bias 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
