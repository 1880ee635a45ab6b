"""Verify an inflation: a static clip through the video model vs. its image through the image model.

Differences are measured in the stem, in each stage and in the logits. A static clip repeats one
image. The two configurations determine where both must be equal, which is stated beside each
number.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

TOLERANCE = 1e-4  # of the largest value, which is at least 1


class Network(Protocol):
    """The methods of a network that are used here; `video_mvit.models.mvit.MViT` has them."""

    config: Any
    patch_embed: Any

    def __call__(self, clip: Tensor, /) -> Tensor: ...

    def forward_stages(self, clip: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Maximum absolute difference in one place; empty `why_not` if equality is expected."""

    place: str
    largest: float
    scale: float
    why_not: tuple[str, ...]

    @property
    def is_equal(self) -> bool:
        """Return whether the difference is within the tolerance."""
        return self.largest <= TOLERANCE * max(1.0, self.scale)

    @property
    def fails(self) -> bool:
        """Return whether equality is expected and missed."""
        return not self.why_not and not self.is_equal


def compare_static_clip(
    image_model: Network, video_model: Network, image: Tensor, rule: str
) -> list[Difference]:
    """Compare stem (clip borders separately), stages and logits.

    Args:
        image_model, video_model: networks of the same crop size and classes.
        image: normalized, (1, 3, 1, H, W).
    """
    configs = image_model.config, video_model.config
    clip = image.expand(-1, -1, configs[1].num_frames, -1, -1)
    with torch.inference_mode():
        stem = [_stem(image_model, image), _stem(video_model, clip)]
        stages = [image_model.forward_stages(image), video_model.forward_stages(clip)]
        logits = [image_model(image), video_model(clip)]
    num_borders = _num_border_frames(configs[1])
    inside = slice(num_borders, None)
    border = () if rule == "center" else ("a tap of its stem reads padding at the first frames",)
    image_config, video_config = (asdict(config) for config in configs)
    why_not = reasons(image_config, video_config, rule)
    places: list[tuple[str, Tensor, Tensor, tuple[str, ...]]] = [
        ("stem, inside the clip", stem[0], stem[1][:, :, inside], ()),
        ("stem, at its first frames", stem[0], stem[1][:, :, :num_borders], border),
    ]
    for i, (theirs, ours) in enumerate(zip(*stages, strict=True), start=1):
        places.append((f"stage {i}", theirs, ours, why_not))
    if image_config["head"] != video_config["head"]:
        why_not = (*why_not, "its head classifies the cls token, not the mean of all tokens")
    places.append(("logits", logits[0], logits[1], why_not))
    return [_difference(*place) for place in places]


def reasons(image: Mapping[str, Any], video: Mapping[str, Any], rule: str) -> tuple[str, ...]:
    """Return why stages and logits of a static clip may differ from its image; empty: equal.

    Args:
        image, video: fields of the two configurations.
    """
    strides = ["x".join(map(str, config["stride_kv"])) for config in (image, video)]
    why = (
        (rule != "center", "every average over time loses a tap at the ends of the clip"),
        (
            image["cls_token"] != video["cls_token"],
            "only one of the two has a cls token, which all tokens attend to",
        ),
        (
            image["cls_token"] and video["cls_token"],
            "the cls token is one key among more in a clip",
        ),
        (strides[0] != strides[1], f"K and V are pooled by {strides[1]}, there by {strides[0]}"),
    )
    return tuple(text for holds, text in why if holds)


def _stem(network: Network, clip: Tensor) -> Tensor:
    """Embed patches without the bias, which would mask differences.

    (B, 3, T, H, W) -> (B, C, T', H', W')
    """
    proj = network.patch_embed.proj
    patches: Tensor = proj(clip) - proj.bias.view(1, -1, 1, 1, 1)
    return patches


def _num_border_frames(config: Any) -> int:
    """Return the output frames of the stem that read padding before the clip."""
    padding, stride = config.patch_kernel[0] // 2, config.patch_stride[0]
    return int(-(-padding // stride))


def _difference(place: str, theirs: Tensor, ours: Tensor, why_not: tuple[str, ...]) -> Difference:
    return Difference(
        place=place,
        largest=(ours - theirs).abs().max().item(),
        scale=theirs.abs().max().item(),
        why_not=why_not,
    )
