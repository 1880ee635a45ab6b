"""Metrics of all scores of an epoch, of all ranks together."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class OfEpoch(Metric):
    """A number of all scores and labels (N, K) of an epoch; 0 where it is not defined.

    What is kept, as `kept_dtype`, has one dimension, as the nothing of a rank without videos.
    """

    kept_dtype = torch.float64
    scores: list[Tensor]
    truth: list[Tensor]
    full_state_update = False
    higher_is_better = True

    def __init__(self, num_classes: int, **options: Any) -> None:
        super().__init__(**options)
        self.num_classes = num_classes
        self.set_dtype(self.kept_dtype)  # also of what a rank without videos sends
        self.add_state("scores", default=[], dist_reduce_fx="cat")
        self.add_state("truth", default=[], dist_reduce_fx="cat")

    def measure(self, scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
        """Compute the number: (N, K), (N, K) -> (); None where it is not defined."""
        raise NotImplementedError

    def update(self, scores: Tensor, truth: Tensor) -> None:
        """Add videos: scores (B, K), and sets of classes or values (B, K)."""
        self.scores.append(scores.to(self.kept_dtype).flatten())
        self.truth.append(truth.to(self.kept_dtype).flatten())

    def compute(self) -> Tensor:
        scores, truth = (
            dim_zero_cat(parts).view(-1, self.num_classes).cpu().double().numpy()
            for parts in (self.scores, self.truth)
        )
        return torch.tensor(self.measure(scores, truth) or 0.0, device=self.device)
