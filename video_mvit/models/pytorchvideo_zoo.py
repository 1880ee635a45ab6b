"""Networks of pytorchvideo's zoo that train through the same command: X3D, Slow ResNet, MViTv1.

Each function gives a network with fresh weights that maps normalised float clips (B, 3, T, H, W) of
one shape to logits (B, K), in training and in evaluation, under pytorchvideo's parameter names.
pytorchvideo builds them with torchvision (extra `zoo`), which is imported by these functions only.
"""

import importlib
from functools import partial
from typing import Any

from torch import Tensor, nn

from video_mvit.errors import UserError, install_command

SPATIAL_STRIDE = 32  # of X3D and ResNet, from pixels to the last grid
MVIT_STRIDE = (2, 4)  # frames and pixels of MViTv1's patches
IMPORT_ERRORS = (ImportError, OSError, RuntimeError)  # of a torchvision for another PyTorch


def x3d(
    *, num_classes: int, num_frames: int, crop_size: int, depth_factor: float = 2.2
) -> nn.Module:
    """X3D of width factor 2: `depth_factor` 2.2 is XS, S and M (by their clips), 5 is L.

    Raises `ValueError` where the clip does not fit, or torchvision is missing.
    """
    _check_grid("X3D", crop_size)
    network = _builder("x3d", "create_x3d")(
        input_clip_length=num_frames,
        input_crop_size=crop_size,
        model_num_class=num_classes,
        depth_factor=depth_factor,
        head_activation=None,
    )
    return _of_one_shape(network, num_frames, crop_size)


def slow_r50(*, num_classes: int, num_frames: int, crop_size: int) -> nn.Module:
    """The Slow pathway of SlowFast alone, a ResNet of 50 layers. Raises as `x3d`."""
    _check_grid("Slow R50", crop_size)
    side = -(-crop_size // SPATIAL_STRIDE)
    network = _builder("resnet", "create_resnet")(
        model_num_class=num_classes,
        model_depth=50,
        stem_conv_kernel_size=(1, 7, 7),
        head_pool_kernel_size=(num_frames, side, side),
        head_activation=None,
    )
    return _of_one_shape(network, num_frames, crop_size)


def mvit_v1_b(
    *, num_classes: int, num_frames: int, crop_size: int, drop_path_rate: float = 0.2
) -> nn.Module:
    """MViTv1-B with separate tables of positions in space and time, which fix its clip.

    Drop path as SlowFast `MVIT_B_16x4_CONV.yaml`. Raises as `x3d`.
    """
    for name, value, stride in zip(
        ("num_frames", "crop_size"), (num_frames, crop_size), MVIT_STRIDE, strict=True
    ):
        if value < stride or value % stride:
            raise UserError(f"{name} {value} is not a positive multiple of {stride}, of MViTv1")
    doubled = [[1, 2.0], [3, 2.0], [14, 2.0]]  # from these blocks on
    network = _builder("vision_transformers", "create_multiscale_vision_transformers")(
        spatial_size=crop_size,
        temporal_size=num_frames,
        embed_dim_mul=doubled,
        atten_head_mul=doubled,
        pool_q_stride_size=[[block, 1, 2, 2] for block, _ in doubled],
        pool_kv_stride_adaptive=[1, 8, 8],
        pool_kvq_kernel=[3, 3, 3],
        droppath_rate_block=drop_path_rate,
        head_num_classes=num_classes,
    )
    return _of_one_shape(network, num_frames, crop_size)


def _builder(module: str, name: str) -> Any:
    """A function of `pytorchvideo.models`, whose every module imports torchvision."""
    try:
        return getattr(importlib.import_module(f"pytorchvideo.models.{module}"), name)
    except IMPORT_ERRORS as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise UserError(
            f"models of pytorchvideo need torchvision, which is missing or does not fit this "
            f"PyTorch ({reason}); {install_command('zoo')} brings it"
        ) from None


def _check_grid(model: str, crop_size: int) -> None:
    if crop_size < SPATIAL_STRIDE:
        raise UserError(f"crop_size {crop_size} is smaller than {SPATIAL_STRIDE}, of {model}")


def _of_one_shape(network: nn.Module, num_frames: int, crop_size: int) -> nn.Module:
    """The network, which refuses clips of another shape than it was built for."""
    expected = (3, num_frames, crop_size, crop_size)
    network.register_forward_pre_hook(partial(_check_clip, expected))
    return network


def _check_clip(expected: tuple[int, ...], _: nn.Module, clips: tuple[Tensor, ...]) -> None:
    (clip,) = clips
    if tuple(clip.shape[1:]) != expected:
        raise UserError(
            f"got clips of shape {tuple(clip.shape)}; this model was built for (batch, RGB, "
            f"num_frames, crop_size, crop_size) = (B, {', '.join(map(str, expected))})"
        )
