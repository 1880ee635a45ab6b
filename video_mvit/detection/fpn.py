"""The feature pyramid (Lin et al., arXiv 1612.03144) on the maps of the backbone."""

import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.layers import Norm, NormedConv, init_caffe2
from video_mvit.models.backbone import Backbone

LEVELS = (2, 3, 4, 5)  # "scale2" is 1/4 of the image, "scale5" 1/32
STRIDES = (4, 8, 16, 32, 64)  # of p2 to p6


class FPN(nn.Module):
    """Pyramid of maps of equal channels: (B, 3, H, W) normalized -> "p2" to "p6".

    H and W are multiples of 32; the strides are `STRIDES`.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.bottom_up = Backbone(config.backbone)
        norm: Norm = "layer" if config.heads == "cascade_layer_norm" else "none"
        dim = config.fpn_channels
        for i, level in enumerate(LEVELS):
            lateral = NormedConv(config.backbone.embed_dim * 2**i, dim, 1, norm)
            output = NormedConv(dim, dim, 3, norm)
            init_caffe2(lateral)
            init_caffe2(output)
            self.add_module(f"fpn_lateral{level}", lateral)
            self.add_module(f"fpn_output{level}", output)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.bottom_up(image)
        pyramid: dict[str, Tensor] = {}
        coarser: Tensor | None = None
        for level in reversed(LEVELS):
            x = self.get_submodule(f"fpn_lateral{level}")(maps[f"scale{level}"])
            # Add the coarser map, each of its pixels four times.
            if coarser is not None:
                x = x + F.interpolate(coarser, scale_factor=2.0, mode="nearest")
            coarser = x
            pyramid[f"p{level}"] = self.get_submodule(f"fpn_output{level}")(x)
        # The coarsest map serves large proposals only: every second pixel of p5.
        pyramid["p6"] = F.max_pool2d(pyramid["p5"], kernel_size=1, stride=2)
        return dict(sorted(pyramid.items()))
