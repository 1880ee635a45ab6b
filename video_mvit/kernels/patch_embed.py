"""The convolution that turns pixels into patches.

Convolutions of three channels are slow on GPUs. There the pixels of a cell, as large as the stride,
become channels (space to depth), and a patch reads the cell that its centre is in and, on padded
axes, the cell before: 4 times faster.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.kernels import plain
from video_mvit.kernels.dispatch import TRACEABLE, Form, Operation
from video_mvit.kernels.plain import Grid


def space_to_depth(x: Tensor, cell: Sequence[int]) -> Tensor:
    """Make the pixels of each cell (t, h, w) channels, side by side in memory.

    (B, C, T, H, W) -> (B, t*h*w*C, T/t, H/h, W/w)
    """
    B, C, *thw = x.shape
    (T, H, W), (t, h, w) = (n // c for n, c in zip(thw, cell, strict=True)), cell
    x = x.view(B, C, T, t, H, h, W, w).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return x.reshape(B, T, H, W, t * h * w * C).permute(0, 4, 1, 2, 3)


def by_cells(clip: Tensor, weight: Tensor, bias: Tensor, stride: Grid, padding: Grid) -> Tensor:
    """As `plain.patch_embed`, with the pixels of a cell as channels."""
    if torch.is_autocast_enabled(clip.device.type):
        clip = clip.to(torch.get_autocast_dtype(clip.device.type))
    # Pad clip and kernel in front so that both are whole cells.
    before = [s if p > 0 else 0 for p, s in zip(padding, stride, strict=True)]
    missing = [b - p for b, p in zip(before, padding, strict=True)]
    clip, weight = (
        space_to_depth(F.pad(x, (w, 0, h, 0, t, 0)), stride)
        for x, (t, h, w) in ((clip, before), (weight, missing))
    )
    return F.conv3d(clip, weight, bias)


def _applies(clip: Tensor, weight: Tensor, _: Tensor, stride: Grid, padding: Grid) -> bool:
    kernel = weight.shape[2:]
    sizes = zip(clip.shape[2:], kernel, stride, padding, strict=True)
    return all(n % s == 0 and (k == s or k + (s - p) == 2 * s) for n, k, s, p in sizes)


def _examples() -> list[tuple[object, ...]]:
    generator = torch.Generator().manual_seed(0)
    shapes = [((3, 7, 7), (2, 4, 4), (1, 3, 3), 4), ((1, 7, 7), (1, 4, 4), (0, 3, 3), 1)]
    return [
        (
            torch.randn(2, 3, frames, 16, 24, generator=generator),
            torch.randn(8, 3, *kernel, generator=generator),
            torch.randn(8, generator=generator),
            stride,
            padding,
        )
        for kernel, stride, padding, frames in shapes
    ]


PATCH_EMBED = Operation(
    name="patch_embed",
    plain=plain.patch_embed,
    forms=(
        Form(name="cells", run=by_cells, devices=("cuda",), stages=TRACEABLE, applies=_applies),
    ),
    examples=_examples,
)


class PatchConv(nn.Conv3d):
    """`nn.Conv3d` of pixels that picks its kernel: (B, 3, T, H, W) -> (B, C, T', H', W')."""

    def forward(self, clip: Tensor) -> Tensor:
        return PATCH_EMBED(clip, self.weight, self.bias, self.stride, self.padding)
