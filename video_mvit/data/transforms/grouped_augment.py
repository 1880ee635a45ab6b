"""RandAugment of a whole batch in a number of operators that does not grow with it, for GPUs.

Draws and pixels are those of `rand_augment`'s loop over clips, which is the faster one on a CPU.
Here the next operations of all clips are applied together where they are of one family: lookups in
tables of 256 values, blends with another picture, or moves.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from video_mvit.data.transforms import image_ops as ops
from video_mvit.data.transforms.operations import OPERATIONS, Draw, matrix_of

FRAME_TABLES = ("equalize", "auto_contrast")  # lookups whose tables depend on the frame
BLENDS = ("color", "contrast", "sharpness")
ORDER = {name: place for place, name in enumerate((*FRAME_TABLES, *BLENDS))}  # within a step
LOOKUP, BLEND, MOVE = range(3)  # families
VALUES = np.arange(256)


class Step(NamedTuple):
    """Operations of one family, each on another clip of the batch, in the order of `ORDER`."""

    family: int
    clips: list[int]
    draws: list[Draw]

    def num(self, name: str) -> int:
        """Return how many of the operations have this name."""
        return sum(draw.name == name for draw in self.draws)


def family_of(draw: Draw) -> int:
    """Return the family of an operation."""
    return MOVE if OPERATIONS[draw.name].is_move else BLEND if draw.name in BLENDS else LOOKUP


def plan_steps(draws: Sequence[Sequence[Draw]]) -> list[Step]:
    """Put the operations of all clips into steps, next the family that most clips wait for."""
    steps: list[Step] = []
    left = {clip: list(each) for clip, each in enumerate(draws) if each}
    while left:
        families = {clip: family_of(each[0]) for clip, each in left.items()}
        family = Counter(families.values()).most_common(1)[0][0]
        clips = [clip for clip, each in families.items() if each == family]
        clips.sort(key=lambda clip: ORDER.get(left[clip][0].name, len(ORDER)))
        steps.append(Step(family, clips, [left[clip].pop(0) for clip in clips]))
        left = {clip: each for clip, each in left.items() if each}
    return steps


def augment_together(clips: Tensor, draws: Sequence[Sequence[Draw]], fill: ops.Colour) -> Tensor:
    """Apply the operations of each clip of a uint8 batch (B, T, C, H, W), in order: -> a copy."""
    steps, clips = plan_steps(draws), clips.clone()
    places = upload([np.array(step.clips) for step in steps], clips.device)
    families = {
        LOOKUP: _lookups([step for step in steps if step.family == LOOKUP], clips),
        BLEND: _blends([step for step in steps if step.family == BLEND], clips),
        MOVE: _moves([step for step in steps if step.family == MOVE], clips, fill),
    }
    for step, where in zip(steps, places, strict=True):
        function = next(families[step.family])
        clips.index_copy_(0, where, function(clips.index_select(0, where)))
    return clips


Functions = Iterator[Callable[[Tensor], Tensor]]  # of clips (N, T, C, H, W), one for each step


def upload(arrays: Sequence[NDArray[Any]], device: torch.device) -> Sequence[Tensor]:
    """Copy arrays (N, ...) to the device in one go that the host does not wait for."""
    if not arrays:
        return ()
    joined = torch.from_numpy(np.concatenate(arrays))
    if device.type == "cuda":
        joined = joined.pin_memory().to(device, non_blocking=True)
    return torch.split(joined, [len(each) for each in arrays])


def _lookups(steps: Sequence[Step], clips: Tensor) -> Functions:
    for step, tables in zip(
        steps, upload([_tables(step) for step in steps], clips.device), strict=True
    ):

        def look_up(some: Tensor, step: Step = step, tables: Tensor = tables) -> Tensor:
            values = some.flatten(3).flatten(1, 2).long()  # (N, TC, HW)
            parts, num_equalized = [], step.num("equalize")
            num_framed = num_equalized + step.num("auto_contrast")
            if num_equalized:
                counts = ops.histogram(values[:num_equalized].flatten(0, 1))
                parts.append(ops.equalizing_table(counts).view(num_equalized, -1, 256))
            if num_framed > num_equalized:
                framed = values[num_equalized:num_framed]
                low, high = framed.amin(2, keepdim=True), framed.amax(2, keepdim=True)
                parts.append(ops.stretching_table(low, high))
            if len(tables):
                parts.append(tables.unsqueeze(1).expand(-1, values.shape[1], -1))
            return torch.cat(parts).gather(2, values).view(some.shape)

        yield look_up


def _tables(step: Step) -> NDArray[np.uint8]:
    """Return what operations map 0..255 to (N, 256), of those where that is the same everywhere."""
    draws = [draw for draw in step.draws if draw.name not in FRAME_TABLES]
    return np.array([_table(each) for each in draws], np.uint8).reshape(-1, 256)


def _table(draw: Draw) -> Any:
    """Return what one operation of `image_ops` maps 0..255 to, computed on the host."""
    number: Any = OPERATIONS[draw.name].number(draw)
    match draw.name:
        case "invert":
            return 255 - VALUES
        case "posterize":
            return VALUES & (256 - 2 ** (8 - number))
        case "solarize":
            return np.where(number > VALUES, VALUES, 255 - VALUES)
        case "solarize_add":
            return np.where(VALUES < 128, VALUES + number, VALUES)
        case "brightness":
            return (VALUES.astype(np.float32) * np.float32(number)).clip(0, 255)
    raise NotImplementedError(draw.name)


def _blends(steps: Sequence[Step], clips: Tensor) -> Functions:
    T, C, H, W = clips.shape[1:]
    numbers = [np.repeat([OPERATIONS[d.name].number(d) for d in step.draws], T) for step in steps]
    uploaded = upload([each.astype(np.float32) for each in numbers], clips.device)
    for step, factors in zip(steps, uploaded, strict=True):
        num_grey = T * step.num("color")
        num_blurred = num_grey + T * step.num("contrast")

        def blend(
            some: Tensor,
            num_grey: int = num_grey,
            num_flat: int = num_blurred,
            factors: Tensor = factors,
        ) -> Tensor:
            frames = some.flatten(0, 1)
            values, others = frames.float(), []
            if num_flat:
                greys = ops.grey(frames[:num_flat]).float()
                others.append(greys[:num_grey].expand(-1, C, -1, -1))
                others.append(ops.mean_of(greys[num_grey:]).expand(-1, C, H, W))
            if num_flat < len(frames):
                others.append(ops.smooth(values[num_flat:]))
            blended = ops.blend(torch.cat(others), values, factors.view(-1, 1, 1, 1))
            return blended.view(some.shape)

        yield blend


def _moves(steps: Sequence[Step], clips: Tensor, fill: ops.Colour) -> Functions:
    if not steps:
        return
    T, C, H, W = clips.shape[1:]
    draws = [draw for step in steps for draw in step.draws]
    matrices = [matrix_of(each, (H, W)) for each in draws]
    slots = [slot for step in steps for slot in range(len(step.draws))]
    numbers = np.concatenate([np.ravel(matrices), slots, (W, H), np.tile(fill, T)])
    (uploaded,) = upload([numbers.astype(np.float64)], clips.device)
    sizes = [6 * len(draws), len(draws), 2, T * C]
    of_moves, slot, size, empty = torch.split(uploaded, sizes)
    empty = empty.float()
    places, *others = _taps(of_moves.view(-1, 2, 3, 1, 1), size.view(2, 1, 1), (H, W))
    places += (H * W * slot).int().view(-1, 1, 1)  # of the clip within its step
    taps = (places, *others)
    of_steps = [torch.split(each, [len(step.draws) for step in steps]) for each in taps]
    for places, weights, is_inside in zip(*of_steps, strict=True):

        def move(
            some: Tensor,
            places: Tensor = places,
            weights: Tensor = weights,
            is_inside: Tensor = is_inside,
        ) -> Tensor:
            N = len(some)
            pixels = some.reshape(N, T * C, H * W).transpose(1, 2)
            pixels = pixels.to(torch.float32, memory_format=torch.contiguous_format)
            moved = F.embedding_bag(
                places.flatten(0, 1),
                pixels.flatten(0, 1),  # one row holds all frames
                per_sample_weights=weights.flatten(0, 1),
                mode="sum",
            )
            moved += ops.GUARD
            moved = ops.to_bytes(torch.where(is_inside.view(-1, 1), moved, empty))
            return moved.view(N, H * W, T * C).transpose(1, 2).reshape(some.shape)

        yield move


def _taps(matrices: Tensor, size: Tensor, shape: ops.Size) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels (M, HW, 16) that moves sample, their weights, and what is inside (M, HW).

    As `image_ops.move` by matrices (M, 2, 3, 1, 1), of which the first row is of the columns; the
    upper end of both coordinates is `size` (2, 1, 1), width first.
    """
    (H, W), device = shape, matrices.device
    x = torch.arange(W, device=device, dtype=torch.float64) + 0.5
    y = torch.arange(H, device=device, dtype=torch.float64).unsqueeze(1) + 0.5
    across, down, constant = matrices.unbind(2)  # (M, 2, 1, 1) each
    at = across * x + down * y + constant  # (M, 2, H, W)
    is_inside = ((at >= 0) & (at < size)).all(1).flatten(1)
    at -= 0.5
    first = at.floor()
    weights = ops.cubic_weights((at - first).float())  # (M, 2, H, W, 4)
    places = first.int().unsqueeze(-1) + torch.arange(-1, 3, device=device, dtype=torch.int32)
    last = (size.int() - 1).unsqueeze(-1)
    columns, rows = torch.minimum(places.clamp_(min=0), last).unbind(1)
    places = rows.unsqueeze(-1) * W + columns.unsqueeze(-2)
    x_weights, y_weights = weights.unbind(1)
    weights = y_weights.unsqueeze(-1) * x_weights.unsqueeze(-2)
    return places.view(-1, H * W, 16), weights.view(-1, H * W, 16), is_inside
