"""Attentive probes: a grid of small attention heads on all tokens of the frozen network.

All heads of a grid see the same batches of tokens, one after the other, so that memory is that of
one. They start from the same weights.

Letters: P probes; M views; B videos; V views of each; N tokens; C channels; K classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.models.config import MAX_HEAD_DEPTH
from video_mvit.models.heads import AttentiveHead
from video_mvit.probing.extraction import SplitFeatures
from video_mvit.probing.fitting import Rates, Schedule, fit

VIEWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class AttentiveProbes(Schedule):
    """The grid of attentive probes.

    Attributes:
        depth: blocks of each; the last pools the tokens with one learned query.
        num_heads: of the attention.
    """

    depth: int = 1
    num_heads: int = 16
    kind: ClassVar[str] = "attentive"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.depth <= MAX_HEAD_DEPTH:
            raise UserError(f"depth {self.depth} is outside 1 to {MAX_HEAD_DEPTH}")
        if self.num_heads < 1:
            raise UserError(f"num_heads {self.num_heads} must be positive")

    def fit(
        self, train: SplitFeatures, num_classes: int, rates: Sequence[Rates], seed: int
    ) -> "FittedAttentive":
        """Train a probe for each of the rates."""
        num_views, dim = train.features.shape[1:]
        if dim % self.num_heads:
            raise UserError(
                f"probe.attentive.num_heads is {self.num_heads}, which does not divide the {dim} "
                "channels of the tokens"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first = AttentiveHead(dim, num_classes, 0.0, num_heads=self.num_heads, depth=self.depth)
            first.init_weights()
        heads = [copy.deepcopy(first).to(train.device) for _ in rates]
        labels = train.labels.repeat_interleave(num_views).to(train.device)

        def backward(batch: Tensor) -> None:
            tokens = train.tokens(batch)  # (M, N, C)
            for head in heads:
                loss = F.cross_entropy(head(tokens), labels[batch])
                loss.backward()  # type: ignore[no-untyped-call]

        parameters = [list(head.parameters()) for head in heads]
        fit(parameters, rates, self, len(labels), backward, seed)
        return FittedAttentive(heads=[head.eval() for head in heads])


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedAttentive:
    """Trained attentive heads."""

    heads: Sequence[AttentiveHead]

    @torch.inference_mode()
    def scores(self, number: int, split: SplitFeatures) -> Tensor:
        """Return the softmax of a probe, averaged over the views of each video: -> (B, K)."""
        num_videos, num_views = split.features.shape[:2]
        found = [
            self.heads[number](split.tokens(rows)).softmax(dim=-1).cpu()
            for rows in torch.split(torch.arange(num_videos * num_views), VIEWS_AT_ONCE)
        ]
        return torch.cat(found).reshape(num_videos, num_views, -1).mean(dim=1)

    def head(self, number: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what a network's configuration says of this head, and its tensors."""
        head = self.heads[number]
        attention = head.pooler.cross_attention_block.xattn
        says = {
            "head": "attentive",
            "head_depth": 1 + len(head.pooler.blocks),
            "head_num_heads": attention.num_heads,
        }
        return says, head.state_dict()
