"""The ablations of the paper: what varies in each, and what the paper measured.

Numbers: Li et al. (arXiv 2112.01526), tables 4, 6, 7 and 9 (IN-1K top-1 of the image models, COCO
box AP of Mask R-CNN, both in percent). The variants are those of `conf/ablation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from omegaconf import OmegaConf

from video_mvit.cli.help import conf_folder

Variant = tuple[tuple[str, str], ...]  # option -> value, as on the command line


@dataclass(frozen=True, kw_only=True)
class Table:
    """One ablation.

    Attributes:
        name: of the file in `conf/ablation`, and of the folder of its runs.
        title: of its section.
        about: what was run here, and what differs from the paper.
        measure: column of accuracy here, in percent.
        labels: variant in words -> values of its options, in the order of the paper.
        paper: variant in words -> values of the columns of `columns`; variants that the paper does
            not have are left out.
        published: size in words -> network and options with which time and memory of a step are
            measured; nothing where variants cost the same.
    """

    name: str
    title: str
    about: str
    measure: str
    labels: Mapping[str, tuple[str, ...]]
    columns: Sequence[str] = ("IN-1K top-1", "box AP")
    paper: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    published: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def options(self) -> list[str]:
        """Return the options that vary, in the order of the file."""
        return list(self._params())

    def variants(self) -> dict[Variant, str]:
        """Return the words for each choice of the options."""
        return {
            tuple(zip(self.options(), values, strict=True)): name
            for name, values in self.labels.items()
        }

    def choices(self) -> dict[str, list[str]]:
        """Return the values that the file sweeps over, by option."""
        return {name: str(values).split(",") for name, values in self._params().items()}

    def _params(self) -> Mapping[str, object]:
        settings = OmegaConf.load(str(conf_folder() / "ablation" / f"{self.name}.yaml"))
        return OmegaConf.to_container(settings.hydra.sweeper.params)  # type: ignore[return-value]


PICTURES = "Pictures of 32 classes (place, size and direction of a shape), the demo's network"
IMAGE_S = {"name": "mvitv2_image_s", "num_classes": 1000}
VIDEO_S = {"name": "mvitv2_s", "num_classes": 400, "cls_token": False, "head": "mean"}
CLASSIFIERS = {"224x224": IMAGE_S, "16x224x224": VIDEO_S}
DETECTOR = {"name": "mask_rcnn_mvitv2_s", "num_classes": 80, "window": 56}

TABLES = (
    Table(
        name="positions",
        title="Positions (table 6)",
        about=f"{PICTURES}.",
        measure="top-1",
        labels={
            "none": ("none",),
            "absolute": ("absolute",),
            "joint relative": ("joint",),
            "decomposed relative": ("decomposed",),
            "absolute + decomposed": ("both",),
        },
        paper={
            "none": (83.3, 49.2),
            "absolute": (83.5, 49.3),
            "joint relative": (83.6, 49.9),
            "decomposed relative": (83.6, 49.9),
            "absolute + decomposed": (83.7, 49.8),
        },
        published=CLASSIFIERS,
    ),
    Table(
        name="residual",
        title="Residual pooling and pooling of Q (table 7)",
        about=f"{PICTURES}.",
        measure="top-1",
        labels={
            "neither": ("strided", "false"),
            "residual": ("strided", "true"),
            "Q in all blocks + residual": ("all", "true"),
            "Q in all blocks": ("all", "false"),
        },
        paper={
            "neither": (83.3, 48.5),
            "residual": (83.6, 49.3),
            "Q in all blocks + residual": (83.6, 49.9),
            "Q in all blocks": (83.1, 48.5),
        },
        published=CLASSIFIERS,
    ),
    Table(
        name="pooling",
        title="Attention: pooled, in windows, in full (table 4)",
        about=(
            "The same pictures at 64 pixels, depths 1, 2, 2, 1, windows of 8 tokens in the first "
            "stage. Rows without pooling are ViT-B in the paper, MViTv2 with unpooled keys here."
        ),
        measure="top-1",
        labels={
            "full": ("full",),
            "Swin": ("swin",),
            "Hwin": ("hwin",),
            "pooling": ("pooling",),
            "pooling + Swin": ("pooling_swin",),
            "pooling + Hwin": ("pooling_hwin",),
        },
        paper={
            "full": (82.0, 46.6),
            "Swin": (80.4, 45.1),
            "Hwin": (82.1, 46.1),
            "pooling": (83.6, 50.8),
            "pooling + Swin": (82.8, 48.9),
            "pooling + Hwin": (83.0, 49.9),
        },
        published={"224x224": IMAGE_S | {"window": 32}},
    ),
    Table(
        name="pooling_detection",
        title="The same of a detector (table 4)",
        about=(
            "The demo's detector with depths 1, 2, 2, 1 and windows of 16 tokens in the first "
            "stage. Backbones start from fresh weights; the paper's were trained on images."
        ),
        measure="box AP",
        labels={
            "full": ("full",),
            "Swin": ("swin",),
            "Hwin": ("hwin",),
            "pooling": ("pooling",),
            "pooling + Swin": ("pooling_swin",),
            "pooling + Hwin": ("pooling_hwin",),
        },
        columns=("box AP",),
        paper={
            "full": (46.6,),
            "Swin": (45.1,),
            "Hwin": (46.1,),
            "pooling": (50.8,),
            "pooling + Swin": (48.9,),
            "pooling + Hwin": (49.9,),
        },
        published={"1024x1024": DETECTOR},
    ),
    Table(
        name="inflation",
        title="From images to video (section 5.3)",
        about=(
            "Videos of the demo's eight motions without colours (3,008, two epochs); the image "
            "model was trained on pictures of their shapes. "
            "The paper compares with training from scratch, and inflates to the middle."
        ),
        measure="top-1",
        labels={
            "from scratch": ("",),
            "inflated, kernels in the middle": ("center",),
            "inflated, kernels averaged": ("average",),
        },
    ),
    Table(
        name="fpn",
        title="Pyramid of maps (table 9)",
        about=(
            "The demo's detector. Without a pyramid, the paper's heads have anchors on the last "
            "map alone; here this map, 3x3 for the demo's 96 pixels, stands in at every stride."
        ),
        measure="box AP",
        labels={"without": ("false",), "with": ("true",)},
        columns=("box AP", "mask AP"),
        paper={"without": (47.0, 41.4), "with": (49.9, 45.1)},
        published={"1024x1024": DETECTOR | {"attention": "pooling_hwin"}},
    ),
)
