"""From lists of videos to features of every view, each extracted once by a frozen network.

Letters: B videos; V views of each; N tokens of a view; C channels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from video_mvit.data.dataset import ClipPipeline
from video_mvit.data.lists.division import source_of
from video_mvit.data.lists.manifest import Manifest
from video_mvit.errors import UserError
from video_mvit.models.mvit import MViT
from video_mvit.prediction.features import Extractor, extract_views
from video_mvit.probing.features_cache import FeatureCache, Sizes, Views, as_stored, identity

Kept = Literal["features", "tokens"]
CPU = torch.device("cpu")


class HeadInputs(nn.Module):
    """What heads see of clips: (B, 3, T, H, W) -> (B, 1 + N, C), first the input of the own head.

    With `kept="features"` there are no tokens, N = 0; else they are those of `forward_features`.
    """

    def __init__(self, model: MViT, kept: Kept) -> None:
        super().__init__()
        self.model, self.kept = model, kept

    def forward(self, clip: Tensor) -> Tensor:
        x = self.model.encode(clip)
        features = self.model.head_input(x)[:, None]  # (B, 1, C)
        if self.kept == "features":
            return features
        return torch.cat([features, self.model.norm(x)], dim=1)  # (B, 1 + N, C)


def sizes_kept(model: MViT, kept: Kept, num_views: int) -> Sizes:
    """Return how much is kept of each video."""
    last = model.schedule[-1]
    T, H, W = last.q_thw
    num_tokens = T * H * W + last.num_cls if kept == "tokens" else 0
    return Sizes(num_views=num_views, num_tokens=num_tokens, dim=last.dim_out)


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitFeatures:
    """Features of the readable videos of a list.

    Attributes:
        features: inputs of the head, (B, V, C) float32.
        views: what is kept of each video, with its tokens, if they are.
        labels: of the videos, (B,) int64.
        indices: their places in the list, (B,) int64.
        sources: a number for each source video that they are clips of, (B,) int64.
        device: that computes with tokens.
    """

    features: Tensor
    views: Sequence[Views]
    labels: Tensor
    indices: Tensor
    sources: Tensor
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: Tensor) -> "SplitFeatures":
        """Select videos by their places among these: (B',) int64."""
        return SplitFeatures(
            features=self.features[chosen],
            views=[self.views[i] for i in chosen.tolist()],
            labels=self.labels[chosen],
            indices=self.indices[chosen],
            sources=self.sources[chosen],
            device=self.device,
        )

    def tokens(self, rows: Tensor) -> Tensor:
        """Return tokens of views, counted through all videos: (M,) int64 -> (M, N, C) float32."""
        num_views = self.features.shape[1]
        found = []
        for row in rows.tolist():
            tokens = self.views[row // num_views].tokens
            assert tokens is not None
            found.append(tokens[row % num_views])
        return torch.stack(found).to(self.device).float()


def extract_missing(
    cache: FeatureCache,
    videos: Mapping[str, str],
    extractor: Extractor,
    pipeline: ClipPipeline,
    on_video: Callable[[], object],
) -> dict[str, str]:
    """Add the features of videos to a cache that has none of them; -> unreadable ones, and why.

    `videos` are paths and what they were known by (`identity`) before they were read. What was
    extracted is kept, however this ends. `on_video` is called after each.
    """
    unreadable: dict[str, str] = {}
    try:
        for video, found in extract_views(extractor, list(videos), pipeline):
            if isinstance(found, str):
                unreadable[video] = found
            elif identity(video) != videos[video]:
                unreadable[video] = "it changed while it was read"
            else:
                cache.add(videos[video], as_stored(found))
            on_video()
    finally:
        cache.write()
    return unreadable


def features_of(
    cache: FeatureCache,
    manifest: Manifest,
    known_by: Mapping[int, str],
    unreadable: Mapping[int, str],
    device: torch.device,
) -> SplitFeatures:
    """Return the features of a list, known by these identities; `unreadable` ones are left out."""
    indices = [i for i in range(len(manifest)) if i not in unreadable]
    if not indices:
        raise UserError(
            f"none of the {len(manifest)} videos in {manifest.root} can be read; the first is "
            f"{manifest.path(0)}: {unreadable[0]}"
        )
    views = [cache[known_by[i]] for i in indices]
    numbers: dict[str, int] = {}
    sources = [numbers.setdefault(source_of(manifest.names[i]), len(numbers)) for i in indices]
    return SplitFeatures(
        features=torch.stack([each.features for each in views]),
        views=views,
        labels=torch.from_numpy(manifest.labels[indices]).long(),
        indices=torch.tensor(indices),
        sources=torch.tensor(sources),
        device=device,
    )
