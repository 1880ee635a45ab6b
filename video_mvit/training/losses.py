"""Losses for rare and hard classes: focal loss, and logits adjusted by how frequent classes are.

Letters: B clips, K classes.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.errors import UserError

# A probability of 0 has no gradient to a power below 1.
SMALLEST = torch.finfo(torch.float32).eps


def focal_cross_entropy(
    logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None = None
) -> Tensor:
    """Return the mean focal loss of classes that exclude each other: (B, K), (B, K) -> ().

    `target` are shares that sum to 1. Each class counts (1 - p)^gamma of its cross-entropy (Lin et
    al. 2017, arXiv 1708.02002), times its weight; gamma 0 is cross-entropy.
    """
    log_p = logits.float().log_softmax(dim=-1)
    losses = -target * (1 - log_p.exp()).clamp(min=SMALLEST) ** gamma * log_p  # (B, K)
    return (losses if weight is None else losses * weight).sum(dim=-1).mean()


def focal_binary_cross_entropy(
    logits: Tensor, target: Tensor, gamma: float, weight: Tensor | None = None
) -> Tensor:
    """Return the mean focal loss of classes of their own: (B, K), (B, K) in 0..1 -> ().

    Each class counts (1 - p)^gamma where it is there, and p^gamma where it is not.
    """
    logits = logits.float()
    p = logits.sigmoid().clamp(SMALLEST, 1 - SMALLEST)
    present = target * (1 - p) ** gamma * F.softplus(-logits)
    losses = present + (1 - target) * p**gamma * F.softplus(logits)  # (B, K)
    return (losses if weight is None else losses * weight).mean()


def single_label_loss(
    logits: Tensor,
    target: Tensor,
    *,
    label_smoothing: float,
    focal_gamma: float | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Return the mean loss over clips: (B, K), class indices (B,) or probabilities (B, K) -> ()."""
    if focal_gamma is not None:
        soft = soft_targets(target, logits.shape[-1], label_smoothing)
        return focal_cross_entropy(logits, soft, focal_gamma, weight)
    if weight is None:
        return F.cross_entropy(logits, target, label_smoothing=label_smoothing)
    # The mean over clips: that over weights would undo them in batches of a single class.
    return F.cross_entropy(
        logits, target, weight=weight, label_smoothing=label_smoothing, reduction="none"
    ).mean()


def log_of(scores: Tensor) -> Tensor:
    """Return the logarithm of scores, -100 at least, as in torch's binary cross-entropy."""
    return scores.log().clamp(min=-100)


def logit_adjustment(tau: float | None, labels: Sequence[int], num_classes: int) -> list[float]:
    """Return what is added to the logits of each class in training: tau x log of its share.

    (Menon et al. 2021, arXiv 2007.07314.) A class without videos counts as if it had one. Shares
    are of all labels: of several heads, they differ from those of each by a factor, which softmax
    undoes. Empty for None.
    """
    if tau is None:
        return []
    counts = Counter(labels)
    return [tau * math.log(max(counts[label], 1) / len(labels)) for label in range(num_classes)]


def check_rare_classes(
    *, logit_adjustment: float | None, class_weights: object, balanced: object
) -> None:
    """Raise `UserError` where two options correct for rare classes."""
    options = {
        "logit_adjustment": logit_adjustment is not None,
        "class_weights": bool(class_weights),
        "data.balanced": bool(balanced),
    }
    given = [name for name, is_given in options.items() if is_given]
    if len(given) > 1:
        raise UserError(
            f"{given[0]} and {given[1]} both correct for rare classes; remove one of them"
        )


def soft_targets(target: Tensor, num_classes: int, label_smoothing: float) -> Tensor:
    """Return class indices (B,) or shares (B, K) as smoothed shares (B, K)."""
    if target.ndim == 1:
        target = F.one_hot(target, num_classes)
    return target.float() * (1 - label_smoothing) + label_smoothing / num_classes


def buffer_of(values: Sequence[float] | None) -> Tensor | None:
    """Return numbers of the classes as a tensor; None where there are none."""
    return torch.tensor(values) if values else None
