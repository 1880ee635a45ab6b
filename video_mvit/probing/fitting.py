"""Train the probes of a grid at once: same batches for all, each with rates of its own."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from video_mvit.errors import UserError

LARGEST = 1000.0  # learning rate or weight decay


class Rates(NamedTuple):
    """The place of a probe in its grid."""

    lr: float
    weight_decay: float

    def __str__(self) -> str:
        return f"lr {self.lr:g}, weight decay {self.weight_decay:g}"


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long the probes of a grid are trained: AdamW, the rate a cosine that ends at 0.

    Attributes:
        lr, weight_decay: values of the grid; every pair of them is tried.
        num_epochs: passes over all views of the training videos.
        min_steps: least number of steps, for few videos.
        batch_size: views of a step.
    """

    lr: Sequence[float]
    weight_decay: Sequence[float]
    num_epochs: int
    min_steps: int
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("num_epochs", "min_steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be positive")
        for name, least in (("lr", "above 0"), ("weight_decay", "from 0")):
            values = getattr(self, name)
            if not values or not all(
                0 <= each <= LARGEST and (each > 0 or least == "from 0") for each in values
            ):
                raise UserError(
                    f"{name} is {list(values)}, expected a list of numbers {least} to {LARGEST:g}"
                )

    @property
    def grid(self) -> list[Rates]:
        """Return every pair of the grid."""
        return [Rates(*pair) for pair in product(self.lr, self.weight_decay)]

    def num_steps(self, num_views: int) -> int:
        """Return the steps of a training on so many views."""
        return max(self.min_steps, self.num_epochs * math.ceil(num_views / self.batch_size))


def fit(
    parameters: Sequence[Sequence[Tensor]],
    rates: Sequence[Rates],
    schedule: Schedule,
    num_views: int,
    backward: Callable[[Tensor], object],
    seed: int,
) -> None:
    """Train probes, the parameters of each with its own rates.

    Args:
        backward: adds the gradients of all probes on a batch, given as numbers of views (M,).
        seed: of the order of the views, which is the same for all probes.
    """
    optimizer = torch.optim.AdamW(
        [
            {"params": list(own), "lr": pair.lr, "weight_decay": pair.weight_decay}
            for own, pair in zip(parameters, rates, strict=True)
        ],
        fused=True,
    )
    num_steps = schedule.num_steps(num_views)
    cosine = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / num_steps))
    )
    batches = _batches(num_views, schedule.batch_size, seed)
    for _ in range(num_steps):
        optimizer.zero_grad()
        backward(next(batches))
        optimizer.step()
        cosine.step()
    if not all(each.isfinite().all() for own in parameters for each in own):
        raise UserError("a probe has become NaN or Inf; lower the learning rates of its grid")


def _batches(num_views: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield numbers of views in batches, each view once in a pass, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.split(torch.randperm(num_views, generator=generator), size)
