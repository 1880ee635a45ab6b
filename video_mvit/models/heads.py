"""Heads of a classifier: from what the network says of a clip to logits.

Shapes: B clips; C channels; K classes.
"""

from torch import Tensor, nn


class Head(nn.Module):
    """Dropout and linear classifier: (B, C) -> logits (B, K), in training and in evaluation."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.projection = nn.Linear(dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.dropout(x))  # type: ignore[no-any-return]
