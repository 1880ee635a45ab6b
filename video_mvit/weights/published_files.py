"""Published weights by name: where their authors keep them, and what they say of them.

A file is fetched only when its name is asked for, by PyTorch's downloader, into a cache folder:
`weights` below that of the environment variable VIDEO_MVIT_CACHE, or the one of `torch.hub`. The
licence is that of the repository which publishes the file; none states another one for its weights.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import torch
from filelock import FileLock

from video_mvit.errors import UserError
from video_mvit.files import replace_atomically
from video_mvit.weights.checkpoint_files import read_weight_file

CACHE_VARIABLE = "VIDEO_MVIT_CACHE"
META = "https://dl.fbaipublicfiles.com"
VIDEOS = f"{META}/pyslowfast/model_zoo/mvitv2/pysf_video_models"
MASKED = f"{META}/pyslowfast/masked_models"
IMAGES = f"{META}/mvit/mvitv2_models"
DETECTORS, LSJ = f"{META}/detectron2/MViTv2", f"{META}/detectron2/ViTDet/COCO"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VIDEO = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A weight file on the web, and what its authors say of it.

    Attributes:
        address: where the authors publish it.
        license: SPDX identifier of the repository that publishes it.
        sha256: first hexadecimal digits of the file's SHA-256, where the authors state any.
        data: what it was trained on.
        numbers: published accuracies, such as {"top1": 0.81}, or AP.
        views: of the accuracies, clips x crops.
        frame_stride, short_side, mean, std: of a clip; None: of no use, or not stated.
    """

    address: str
    data: str
    license: str = "Apache-2.0"
    sha256: str | None = None
    numbers: Mapping[str, float]
    views: str | None = None
    frame_stride: int | None = None
    short_side: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @property
    def file_name(self) -> str:
        return self.address.rpartition("/")[2]


def _video(
    address: str, numbers: Mapping[str, float], views: str | None, stride: int, **others: Any
) -> PublishedFile:
    large = "_L_40x3" in address
    mean, std = IMAGENET if large else VIDEO
    values = {"data": "Kinetics-400", "short_side": 312 if large else 256, **others}
    return PublishedFile(
        address=address,
        numbers=numbers,
        views=views,
        frame_stride=stride,
        mean=mean,
        std=std,
        **values,
    )


def _image(name: str, data: str, **numbers: float) -> PublishedFile:
    mean, std = IMAGENET
    return PublishedFile(
        address=f"{IMAGES}/{name}.pyth",
        data=data,
        numbers=numbers,
        short_side=256,
        mean=mean,
        std=std,
    )


def _detector(folder: str, place: str, box: float, mask: float) -> PublishedFile:
    return PublishedFile(
        address=f"{folder}/{place}.pkl", data="COCO", numbers={"box_ap": box, "mask_ap": mask}
    )


# From the READMEs of facebookresearch/SlowFast (projects/mvitv2, projects/maskfeat_ssl), mvit and
# detectron2 (projects/MViTv2, projects/ViTDet), and torchvision's `MViT_V2_S_Weights`.
PUBLISHED: Mapping[str, PublishedFile] = {
    "mvitv2_s_k400": _video(
        f"{VIDEOS}/MViTv2_S_16x4_k400_f302660347.pyth", {"top1": 0.81, "top5": 0.946}, "5x1", 4
    ),
    "mvitv2_b_k400": _video(
        f"{VIDEOS}/MViTv2_B_32x3_k400_f304025456.pyth", {"top1": 0.829, "top5": 0.957}, "5x1", 3
    ),
    "mvitv2_l_k400": _video(
        f"{VIDEOS}/MViTv2_L_40x3_k400_f306903192.pyth", {"top1": 0.861, "top5": 0.97}, "5x3", 3
    ),
    "mvitv2_s_k400_torchvision": _video(
        "https://download.pytorch.org/models/mvit_v2_s-ae3be167.pth",
        {"top1": 0.80757, "top5": 0.94665},
        "5x1",
        4,
        license="BSD-3-Clause",
        sha256="ae3be167",
    ),
    "mvitv2_s_maskfeat": _video(
        f"{MASKED}/k400_MVIT_S_MaskFeat_PT_epoch_00300.pyth",
        {},
        None,
        4,
        data="Kinetics-400, self-supervised",
    ),
    "mvitv2_l_maskfeat": _video(
        f"{MASKED}/k400_MVIT_L_MaskFeat_PT_epoch_00800.pyth",
        {},
        None,
        4,
        data="Kinetics-400, self-supervised",
    ),
    "mvitv2_image_t_in1k": _image("MViTv2_T_in1k", "ImageNet-1K", top1=0.823),
    "mvitv2_image_s_in1k": _image("MViTv2_S_in1k", "ImageNet-1K", top1=0.836),
    "mvitv2_image_b_in1k": _image("MViTv2_B_in1k", "ImageNet-1K", top1=0.844),
    "mvitv2_image_l_in1k": _image("MViTv2_L_in1k", "ImageNet-1K", top1=0.853),
    "mvitv2_image_b_in21k": _image("MViTv2_B_in21k", "ImageNet-21K"),
    "mvitv2_image_l_in21k": _image("MViTv2_L_in21k", "ImageNet-21K"),
    "mvitv2_image_h_in21k": _image("MViTv2_H_in21k", "ImageNet-21K"),
    "mask_rcnn_mvitv2_t_coco": _detector(
        DETECTORS, "mask_rcnn_mvitv2_t_3x/f307611773/model_final_1a1c30", 0.483, 0.438
    ),
    "cascade_mask_rcnn_mvitv2_t_coco": _detector(
        DETECTORS, "cascade_mask_rcnn_mvitv2_t_3x/f308344828/model_final_c6967a", 0.522, 0.45
    ),
    "cascade_mask_rcnn_mvitv2_s_coco": _detector(
        DETECTORS, "cascade_mask_rcnn_mvitv2_s_3x/f308344647/model_final_279baf", 0.532, 0.46
    ),
    "cascade_mask_rcnn_mvitv2_b_coco": _detector(
        DETECTORS, "cascade_mask_rcnn_mvitv2_b_3x/f308109448/model_final_421a91", 0.541, 0.467
    ),
    "cascade_mask_rcnn_mvitv2_b_in21k_coco": _detector(
        DETECTORS, "cascade_mask_rcnn_mvitv2_b_in12k_3x/f309003202/model_final_be5168", 0.549, 0.474
    ),
    "cascade_mask_rcnn_mvitv2_l_coco": _detector(
        DETECTORS,
        "cascade_mask_rcnn_mvitv2_l_in12k_lsj_50ep/f308099658/model_final_c41c5a",
        0.558,
        0.483,
    ),
    "cascade_mask_rcnn_mvitv2_h_coco": _detector(
        DETECTORS,
        "cascade_mask_rcnn_mvitv2_h_in12k_lsj_3x/f309013744/model_final_30d36b",
        0.561,
        0.485,
    ),
    "cascade_mask_rcnn_mvitv2_b_lsj_coco": _detector(
        LSJ, "cascade_mask_rcnn_mvitv2_b_in21k/f325820315/model_final_8c3da3", 0.556, 0.481
    ),
    "cascade_mask_rcnn_mvitv2_l_lsj_coco": _detector(
        LSJ, "cascade_mask_rcnn_mvitv2_l_in21k/f325607715/model_final_2141b0", 0.557, 0.483
    ),
    "cascade_mask_rcnn_mvitv2_h_lsj_coco": _detector(
        LSJ, "cascade_mask_rcnn_mvitv2_h_in21k/f326187358/model_final_2234d7", 0.559, 0.483
    ),
}


def is_published(name: str) -> bool:
    """Return whether a text names published weights, and no file or folder here."""
    return name in PUBLISHED and not Path(name).exists()


def cache_folder() -> Path:
    """Return the folder of downloaded weights: below VIDEO_MVIT_CACHE, else of `torch.hub`."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / "weights"
    return Path(torch.hub.get_dir(), "checkpoints")


def published_name_at(path: str | Path) -> str | None:
    """Return the name of the published weights that a path is: by name, or in the cache folder."""
    if is_published(str(path)):
        return str(path)
    place = Path(path)
    if place.parent != cache_folder():
        return None
    return next((name for name, each in PUBLISHED.items() if each.file_name == place.name), None)


def fetch_published(name: str) -> Path:
    """Return the path of published weights in the cache folder, downloading them if needed.

    A file is kept only if its SHA-256, where one is stated, is right and it can be read to its end.
    Processes that need the same file wait for the one that fetches it. Raises `UserError`, with the
    address and where to put the file, if it cannot be had.
    """
    file, folder = PUBLISHED[name], cache_folder()
    path = folder / file.file_name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{file.file_name}.lock"):
            if not path.is_file():
                logger.warning("%s: fetching %s into %s", name, file.address, folder)
                logger.warning("%s: licence of the publishing repository: %s", name, file.license)
                with replace_atomically(path) as temporary:
                    torch.hub.download_url_to_file(file.address, str(temporary), file.sha256)
                    read_weight_file(temporary)
    except (OSError, RuntimeError, UserError) as error:
        raise UserError(
            f"{name} is not in {folder}, and cannot be fetched ({_reason(error)}); get "
            f"{file.address} in another way and put it there as {file.file_name}"
        ) from None
    return path


def _reason(error: Exception) -> str:
    """Return why a download failed, in a few words."""
    if isinstance(error, HTTPError):
        return f"status {error.code}"
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    if isinstance(error, UserError):
        return "what came is no whole weight file"
    return (str(reason).strip().splitlines() or [type(error).__name__])[0]
