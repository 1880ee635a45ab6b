"""What a detector is built from: configuration and published variants."""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from video_mvit.errors import UserError
from video_mvit.models.backbone import BackboneConfig, backbone_config

STRIDE = 32  # of the coarsest map of the backbone: sides are padded to a multiple of it
CHOICES = {  # field -> allowed values
    "heads": ("mask_rcnn", "cascade_batch_norm", "cascade_layer_norm"),
    "suppression": ("nms", "soft_nms"),
}
SHARES = ("score_threshold", "nms_threshold")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """What a detector is built from; the defaults are those of the paper's Mask R-CNN.

    Attributes:
        heads: "mask_rcnn" has one box head of two linear layers; a cascade has three of four
            convolutions and one linear layer, which batch norm (detectron2 `projects/MViTv2`) or,
            as in the pyramid, layer norm (`projects/ViTDet`) follows.
        square_pad: side in pixels to which images are padded; 0 pads to the largest of a batch.
        num_anchors_sampled, num_boxes_sampled: of an image, for the losses of the proposals and of
            the box heads.
        num_candidates_train, num_candidates_test: proposals of each pyramid level before NMS.
        num_proposals: of an image, after NMS.
        score_threshold: lowest score of a detection.
        suppression: "soft_nms" lowers the scores of overlapping detections (arXiv 1704.04503), as
            the best results of the paper do; published tables are with "nms".
        nms_threshold: IoU above which a detection suppresses another one of its class.
    """

    backbone: BackboneConfig
    num_classes: int = 80
    heads: Literal["mask_rcnn", "cascade_batch_norm", "cascade_layer_norm"] = "mask_rcnn"
    square_pad: int = 0
    fpn_channels: int = 256
    fc_channels: int = 1024
    mask_channels: int = 256
    num_anchors_sampled: int = 256
    num_candidates_train: int = 2000
    num_candidates_test: int = 1000
    num_proposals: int = 1000
    num_boxes_sampled: int = 512
    score_threshold: float = 0.05
    suppression: Literal["nms", "soft_nms"] = "nms"
    nms_threshold: float = 0.5
    num_detections: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "square_pad" else 1
            if field.type is int and not (type(value) is int and value >= least):
                raise UserError(f"{field.name} is {value!r}, expected an integer from {least} on")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(map(repr, choices))
                raise UserError(f"{name} {getattr(self, name)!r} is none of {known}")
        for name in SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} is outside [0, 1]")
        if self.square_pad % STRIDE:
            raise UserError(f"square_pad {self.square_pad} is not a multiple of {STRIDE}")

    @property
    def is_cascade(self) -> bool:
        return self.heads != "mask_rcnn"


def _table() -> dict[str, DetectorConfig]:
    """Return the published detectors, with drop path as trained, and that of the demo."""
    drop_path = {"t": 0.2, "s": 0.2, "b": 0.4, "l": 0.5, "h": 0.6}
    backbones = {
        size: backbone_config(size, drop_path_rate=rate) for size, rate in drop_path.items()
    }
    backbones["h"] = replace(backbones["h"], activation_checkpointing="full")
    table = {f"mask_rcnn_mvitv2_{s}": DetectorConfig(backbone=backbones[s]) for s in "tsbl"}
    for size, backbone in backbones.items():
        cascade = DetectorConfig(backbone=backbone, heads="cascade_batch_norm")
        table[f"cascade_mask_rcnn_mvitv2_{size}"] = cascade
    for size in "blh":
        cascade = table[f"cascade_mask_rcnn_mvitv2_{size}"]
        table[f"cascade_mask_rcnn_mvitv2_{size}_lsj"] = replace(
            cascade, heads="cascade_layer_norm", square_pad=1024
        )
    table["mask_rcnn_mvitv2_demo"] = DetectorConfig(  # learns in minutes on two CPU cores
        backbone=BackboneConfig(
            depths=(1, 1, 1, 1), embed_dim=32, pretrain_crop_size=64, window=16
        ),
        num_classes=3,
        fpn_channels=64,
        fc_channels=128,
        mask_channels=64,
        num_candidates_train=300,
        num_candidates_test=300,
        num_proposals=100,
        num_boxes_sampled=32,
    )
    return table


DETECTORS = _table()


def detector_config(name: str, **overrides: Any) -> DetectorConfig:
    """Return the configuration of a detector, some fields of it or of its backbone replaced."""
    if name not in DETECTORS:
        raise UserError(f"unknown detector {name!r}; choose one of {', '.join(DETECTORS)}")
    of_backbone = {field.name for field in fields(BackboneConfig)}
    known = of_backbone | {field.name for field in fields(DetectorConfig)}
    if unknown := sorted(set(overrides) - known):
        raise UserError(
            f"unknown detector option {', '.join(unknown)}; choose from {', '.join(sorted(known))}"
        )
    config = DETECTORS[name]
    inner = {key: value for key, value in overrides.items() if key in of_backbone}
    outer = {key: value for key, value in overrides.items() if key not in of_backbone}
    backbone = replace(outer.pop("backbone", config.backbone), **inner)
    return replace(config, backbone=backbone, **outer)
