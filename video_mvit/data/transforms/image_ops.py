"""Operations of RandAugment on clips, as Pillow does them to images.

Letters: T frames, C = 3 (RGB), H x W pixels. Every function maps a uint8 clip (T, C, H, W), on any
device, and numbers known to the host to a new uint8 clip; all frames are treated alike, without
synchronization. Statistics of an image (mean, histogram) are computed per frame.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (19595, 38470, 7471)  # red, green, blue of 2**16 (Pillow `Convert.c`)
Matrix = tuple[float, float, float, float, float, float]  # of `move`
Size = tuple[int, int]  # height, width
GUARD = 2**-10  # of constant areas against rounding before truncation
Colour = tuple[int, int, int]  # red, green, blue of 0 to 255


def invert(clip: Tensor) -> Tensor:
    return torch.bitwise_not(clip)


def posterize(clip: Tensor, num_bits: int) -> Tensor:
    """Keep the highest bits of each value."""
    return torch.bitwise_and(clip, 256 - 2 ** (8 - num_bits))


def solarize(clip: Tensor, threshold: int) -> Tensor:
    """Invert values from the threshold on."""
    if threshold > 255:
        return clip
    return clip ^ (clip >= threshold).to(torch.uint8).neg()  # 255 or 0


def solarize_add(clip: Tensor, addition: int) -> Tensor:
    """Brighten values below 128; the addition is at most 127."""
    return clip + (clip < 128).to(torch.uint8) * addition


def auto_contrast(clip: Tensor) -> Tensor:
    """Stretch each channel of each frame to 0..255; constant ones are unchanged."""
    low, high = (each.unsqueeze(-1) for each in (clip.amin(dim=(2, 3)), clip.amax(dim=(2, 3))))
    table = to_bytes(stretching_table(low, high, torch.arange(256, device=clip.device)))
    return table.gather(2, clip.flatten(2).long()).view_as(clip)


def stretching_table(low: Tensor, high: Tensor, places: Tensor) -> Tensor:
    """Return what `auto_contrast` maps 0..255 to: (..., 1), (..., 1) -> (..., 256) float64.

    By the extreme values; `places` are 0..255. The result is for `to_bytes`.
    """
    span = high - low
    scale = 255.0 / span.clamp(min=1).double()
    return torch.where(span == 0, places, places * scale - low * scale)


def equalize(clip: Tensor) -> Tensor:
    """Equalize the histogram of each channel of each frame (Pillow `ImageOps.equalize`)."""
    values = clip.flatten(0, 1).flatten(1).long()  # (TC, HW)
    counts = torch.zeros(len(values), 256, dtype=torch.int64, device=values.device)
    one = torch.ones(1, 1, dtype=torch.int64, device=values.device)
    counts.scatter_add_(1, values, one.expand_as(values))
    places = torch.arange(256, device=values.device)
    largest = (places * (counts > 0)).amax(dim=1, keepdim=True)
    table = to_bytes(equalizing_table(counts, largest, places))
    return table.gather(1, values).view_as(clip)


def equalizing_table(counts: Tensor, largest: Tensor, places: Tensor) -> Tensor:
    """Return what `equalize` maps 0..255 to: (N, 256), (N, 1) -> (N, 256) int64.

    By histograms and the largest value of each; `places` are 0..255. The result is for `to_bytes`.
    """
    below = counts.cumsum(1) - counts
    step = below.gather(1, largest) // 255
    return torch.where(step == 0, places, (below + step // 2) // step.clamp(min=1))


def brightness(clip: Tensor, factor: float) -> Tensor:
    return to_bytes(clip * factor)


def contrast(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its mean grey."""
    return blend(mean_of(grey(clip).float()), clip, factor)


def color(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with its greyscale version."""
    return blend(grey(clip).float(), clip, factor)


def sharpness(clip: Tensor, factor: float) -> Tensor:
    """Blend each frame with a smoothed one, whose outermost pixels are not smoothed."""
    return torch.stack([_sharpen(frame, factor) for frame in clip])


def _sharpen(frame: Tensor, factor: float) -> Tensor:
    """Sharpen one frame (C, H, W) at a time, which fits the cache of a CPU."""
    values = frame.float()
    return blend(smooth(values), values, factor)


def smooth(values: Tensor) -> Tensor:
    """Smooth frames (..., H, W) float of whole numbers, but for their outermost pixels."""
    sums = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    sums = sums[..., :-2] + sums[..., 1:-1] + sums[..., 2:]
    inner = values[..., 1:-1, 1:-1]
    smoothed = values.clone()
    smoothed[..., 1:-1, 1:-1] = sums.add_(inner, alpha=4).div_(13).add_(0.5).floor_()
    return smoothed


def shear_x(factor: float, _: Size) -> Matrix:
    return (1, factor, 0, 0, 1, 0)


def shear_y(factor: float, _: Size) -> Matrix:
    return (1, 0, 0, factor, 1, 0)


def translate_x(share: float, size: Size) -> Matrix:
    """Move by a share of the width."""
    return (1, 0, share * size[1], 0, 1, 0)


def translate_y(share: float, size: Size) -> Matrix:
    """Move by a share of the height."""
    return (1, 0, 0, 0, 1, share * size[0])


def rotate(degrees: float, size: Size) -> Matrix:
    """Rotate around the centre, counter-clockwise."""
    angle = -math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    cx, cy = size[1] / 2, size[0] / 2
    across, down = cx - cos * cx - sin * cy, cy + sin * cx - cos * cy
    return (cos, sin, across, -sin, cos, down)


def move(clip: Tensor, matrix: Matrix, fill: Colour) -> Tensor:
    """Sample pixels at x' = a x + b y + c, y' = d x + e y + f, bicubic; outside is `fill`.

    As Pillow `Geometry.c`: pixel centres at .5, kernel with a = -1, borders repeated by the kernel
    where x', y' is inside, values truncated rather than rounded.
    """
    T, C, H, W = clip.shape
    a, b, c, d, e, f = matrix
    x = torch.arange(W, device=clip.device, dtype=torch.float64) + 0.5
    y = torch.arange(H, device=clip.device, dtype=torch.float64).unsqueeze(1) + 0.5
    x, y = a * x + b * y + c, d * x + e * y + f  # (H, W) each
    is_inside = (x >= 0) & (x < W) & (y >= 0) & (y < H)
    columns, x_weights = _taps(x - 0.5, W, is_whole=b == 0 == c and a == 1)
    rows, y_weights = _taps(y - 0.5, H, is_whole=d == 0 == f and e == 1)
    places = rows.unsqueeze(-1) * W + columns.unsqueeze(-2)  # (H, W, taps, taps)
    weights = y_weights.unsqueeze(-1) * x_weights.unsqueeze(-2)
    pixels = clip.reshape(T * C, H * W).T.contiguous().float()  # one row holds all frames
    moved = F.embedding_bag(
        places.view(H * W, -1), pixels, per_sample_weights=weights.view(H * W, -1), mode="sum"
    )
    moved += GUARD
    empty = torch.cat([moved.new_full((1,), value) for value in fill]).repeat(T)  # (TC,)
    moved = torch.where(is_inside.view(-1, 1), moved, empty)
    return to_bytes(moved).T.reshape(clip.shape)


def _taps(at: Tensor, size: int, *, is_whole: bool) -> tuple[Tensor, Tensor]:
    """Return positions (H, W, 4) and weights of the cubic kernel on one axis; 1 tap if integer."""
    if is_whole:
        places = at.round().int().unsqueeze(-1)
        return places, torch.ones(1, device=at.device).expand(places.shape)
    first = at.floor()
    t = (at - first).float()
    weights = cubic_weights(t)
    places = first.int().unsqueeze(-1) + torch.arange(-1, 3, device=at.device, dtype=torch.int32)
    return places.clamp(0, size - 1), weights


def cubic_weights(t: Tensor) -> Tensor:
    """Return the weights (..., 4) of four neighbours by the distance from the second (...)."""
    square, until_two, behind_one = t * t, 2 - t, t - 1
    return torch.stack(
        [
            t * (t * until_two - 1),
            1 - square * until_two,
            t * (1 - t * behind_one),
            square * behind_one,
        ],
        dim=-1,
    )


def grey(clip: Tensor) -> Tensor:
    """Compute integer luma (T, 1, H, W), as Pillow's mode L."""
    values = clip.int()
    red, green, blue = values[:, 0:1], values[:, 1:2], values[:, 2:3]
    luma = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return luma.add_(2**15).bitwise_right_shift(16)


def mean_of(greys: Tensor) -> Tensor:
    """Return the rounded mean of each greyscale frame (T, 1, H, W) float: -> (T, 1, 1, 1)."""
    return (greys.mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()


def blend(other: Tensor, clip: Tensor, factor: float | Tensor) -> Tensor:
    """Blend: `clip` at factor 1, `other` at 0, extrapolated beyond (Pillow `Blend.c`)."""
    return to_bytes((clip - other).mul_(factor).add_(other))


def to_bytes(values: Tensor) -> Tensor:
    """Clip to 0..255 and truncate, in place."""
    return values.clamp_(0, 255).to(torch.uint8)
