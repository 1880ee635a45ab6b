"""RandAugment of a whole batch in a number of operators that does not grow with it, for GPUs.

Draws and pixels are those of `rand_augment`'s loop over clips, which is the faster one on a CPU.
Here the next operations of all clips are applied together where they are of one family: lookups in
tables of 256 values, blends with another picture, or moves.
"""

import itertools
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
NUM_FAMILIES = 3
LOOKUP, BLEND, MOVE = range(NUM_FAMILIES)
LUMA = np.array(ops.LUMA, np.float32) / 2**16  # exact, and so are sums of its products with bytes
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
    """Put the operations of all clips into steps, next the family that most clips wait for.

    Where families in turn take fewer steps, which are at most three times the operations of a clip,
    that is the order.
    """
    by_need = _plan(draws, itertools.repeat(None))
    if len(by_need) <= NUM_FAMILIES * max((len(each) for each in draws), default=0):
        return by_need
    return _plan(draws, itertools.cycle(range(NUM_FAMILIES)))


def _plan(draws: Sequence[Sequence[Draw]], order: Iterator[int | None]) -> list[Step]:
    """Plan steps of the families in `order`; None: that which most clips wait for."""
    steps: list[Step] = []
    left = {clip: list(each) for clip, each in enumerate(draws) if each}
    while left:
        families = {clip: family_of(each[0]) for clip, each in left.items()}
        family = next(order)
        if family is None:
            family = Counter(families.values()).most_common(1)[0][0]
        elif family not in families.values():
            continue
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
    if not steps:
        return
    num_rows, num_pixels = clips.shape[1:3].numel(), clips.shape[3:].numel()
    # What all steps share: 0..255, a one for each pixel, and histograms to be filled.
    places = torch.arange(256, device=clips.device)
    one = torch.ones(1, 1, dtype=torch.int64, device=clips.device).expand(num_rows, num_pixels)
    equalized = [step.num("equalize") for step in steps]
    empty = torch.zeros(sum(equalized), num_rows, 256, dtype=torch.int64, device=clips.device)
    all_tables = upload([_tables(step) for step in steps], clips.device)
    for step, tables, counts in zip(steps, all_tables, torch.split(empty, equalized), strict=True):

        def look_up(
            some: Tensor, step: Step = step, tables: Tensor = tables, counts: Tensor = counts
        ) -> Tensor:
            values = some.flatten(3).flatten(1, 2).long()  # (N, TC, HW)
            parts, num_equalized = [tables.unsqueeze(1).expand(-1, num_rows, -1)], len(counts)
            num_framed = num_equalized + step.num("auto_contrast")
            if num_framed:
                high = values[:num_framed].amax(2, keepdim=True)
            if num_framed > num_equalized:
                low = values[num_equalized:num_framed].amin(2, keepdim=True)
                parts.insert(0, ops.stretching_table(low, high[num_equalized:], places))
            if num_equalized:
                some_values = values[:num_equalized]
                counts.scatter_add_(2, some_values, one.expand_as(some_values))
                largest = high[:num_equalized].flatten(0, 1)
                table = ops.equalizing_table(counts.flatten(0, 1), largest, places)
                parts.insert(0, table.view_as(counts))
            table = torch.cat(parts)
            table = ops.to_bytes(table) if num_framed else table
            return table.gather(2, values).view(some.shape)

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
    luma, *uploaded = upload([LUMA, *(each.astype(np.float32) for each in numbers)], clips.device)
    for step, factors in zip(steps, uploaded, strict=True):
        num_grey = T * step.num("color")
        num_flat = num_grey + T * step.num("contrast")

        def blend(
            some: Tensor,
            num_grey: int = num_grey,
            num_flat: int = num_flat,
            factors: Tensor = factors,
        ) -> Tensor:
            values, others = some.flatten(0, 1).float(), []
            if num_flat:
                # As `ops.grey` and `ops.mean_of`, whose last rounding is that of all.
                greys = (values[:num_flat] * luma.view(C, 1, 1)).sum(1, keepdim=True)
                greys = greys.add_(0.5).floor_()
                others.append(greys[:num_grey].expand(-1, C, -1, -1))
            if num_flat > num_grey:
                means = greys[num_grey:].mean(dim=(1, 2, 3), keepdim=True)
                others.append(means.expand(-1, C, H, W))
            others.append(values[num_flat:])
            other = torch.cat(others)
            if num_flat < len(values):
                # As `ops.smooth`: the outermost pixels stay.
                sums = F.avg_pool2d(values[num_flat:], 3, stride=1, divisor_override=1)
                inner = other[num_flat:, :, 1:-1, 1:-1]
                inner.copy_(sums.add_(inner, alpha=4).div_(13))
            other.add_(0.5).floor_()
            return ops.blend(other, values, factors.view(-1, 1, 1, 1)).view(some.shape)

        yield blend


def _moves(steps: Sequence[Step], clips: Tensor, fill: ops.Colour) -> Functions:
    if not steps:
        return
    T, C, H, W = clips.shape[1:]
    draws = [draw for step in steps for draw in step.draws]
    matrices = [matrix_of(each, (H, W)) for each in draws]
    # Pixel centres, upper ends of both coordinates, the colour of empty pixels.
    numbers = (np.ravel(matrices), np.arange(W) + 0.5, np.arange(H) + 0.5, (W, H), np.tile(fill, T))
    uploaded = upload([np.array(each, np.float64) for each in numbers], clips.device)
    of_moves, x, y, ends, empty = uploaded
    empty = empty.float()
    # Where the clips of a step begin, four neighbours, last pixels.
    begins = [H * W * slot for step in steps for slot in range(len(step.draws))]
    wholes = (begins, (-1, 0, 1, 2), (W - 1, H - 1))
    begin, *limits = upload([np.array(each, np.int32) for each in wholes], clips.device)
    # Where pixels are sampled, in float64 as `image_ops.move` does.
    across, down, constant = of_moves.view(-1, 2, 3, 1, 1).unbind(2)  # (M, 2, 1, 1) each
    at = across * x + down * y.unsqueeze(1) + constant  # (M, 2, H, W)
    is_inside = ((at >= 0) & (at < ends.view(2, 1, 1))).all(1).flatten(1)
    places, weights = _taps(at, *limits)
    taps = (places.add_(begin.view(-1, 1, 1)), weights, is_inside)
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


def _taps(at: Tensor, neighbours: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels (M, HW, 16) that moves sample, and their weights; changes `at`.

    As `image_ops.move`, at columns and rows (M, 2, H, W) of which the `last` ones are (2,);
    `neighbours` are -1, 0, 1, 2.
    """
    H, W = at.shape[-2:]
    at -= 0.5
    first = at.floor()
    x_weights, y_weights = ops.cubic_weights((at - first).float()).unbind(1)  # (M, H, W, 4) each
    weights = y_weights.unsqueeze(-1) * x_weights.unsqueeze(-2)
    places = first.int().unsqueeze(-1) + neighbours
    columns, rows = torch.minimum(places.clamp_(min=0), last.view(2, 1, 1, 1)).unbind(1)
    places = rows.unsqueeze(-1) * W + columns.unsqueeze(-2)
    return places.view(-1, H * W, 16), weights.view(-1, H * W, 16)
