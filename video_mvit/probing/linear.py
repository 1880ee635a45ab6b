"""Linear probes: a grid of linear classifiers on standardized features, as one batched product.

A trained probe is folded with the standardization into the weights of the network's own head, so
that it takes features as they come.

Letters: P probes; M views; B videos; V views of each; C channels; K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.probing.extraction import SplitFeatures
from video_mvit.probing.fitting import Rates, Schedule, fit

SMALLEST_STD = 1e-6  # of a channel that varies


@dataclass(frozen=True, kw_only=True)
class LinearProbes(Schedule):
    """The grid of linear probes."""

    kind: ClassVar[str] = "linear"

    def fit(
        self, train: SplitFeatures, num_classes: int, rates: Sequence[Rates], seed: int
    ) -> "FittedLinear":
        """Train a probe for each of the rates."""
        x, labels = train.features.flatten(0, 1), train.labels  # (M, C)
        labels = labels.repeat_interleave(train.features.shape[1])
        mean, std = x.mean(dim=0), x.std(dim=0, correction=0)
        std = torch.where(std > SMALLEST_STD, std, torch.ones_like(std))
        x = (x - mean) / std
        # The problem is convex: all start at zero.
        weights: list[Tensor] = [nn.Parameter(torch.zeros(num_classes, x.shape[1])) for _ in rates]
        biases: list[Tensor] = [nn.Parameter(torch.zeros(num_classes)) for _ in rates]

        def backward(batch: Tensor) -> None:
            logits = torch.einsum("mc,pkc->pmk", x[batch], torch.stack(weights))
            logits = logits + torch.stack(biases)[:, None]  # (P, M, K)
            wanted = labels[batch].expand(len(weights), -1).flatten()
            # The sum over the probes, of which each has its own gradient.
            loss = F.cross_entropy(logits.flatten(0, 1), wanted, reduction="sum") / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]

        fit(list(zip(weights, biases, strict=True)), rates, self, len(x), backward, seed)
        # W (x - mean) / std + b = (W / std) x + (b - (W / std) mean)
        folded = torch.stack(weights).detach() / std  # (P, K, C)
        return FittedLinear(weight=folded, bias=torch.stack(biases).detach() - folded @ mean)


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLinear:
    """Trained probes of raw features: `weight` (P, K, C), `bias` (P, K)."""

    weight: Tensor
    bias: Tensor

    def scores(self, number: int, split: SplitFeatures) -> Tensor:
        """Return the softmax of a probe, averaged over the views of each video: -> (B, K)."""
        logits = F.linear(split.features, self.weight[number], self.bias[number])  # (B, V, K)
        return logits.softmax(dim=-1).mean(dim=1)

    def head(self, number: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what a network's configuration says of this head, and its tensors."""
        state = {"projection.weight": self.weight[number], "projection.bias": self.bias[number]}
        return {}, state
