"""Weights that anyone can rebuild from names and shapes, and the names other libraries use."""

import re
import zlib
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def rebuilt_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The rule by which the golden outputs were made: one generator for each official name."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    mean, std = 0.0, 1 / np.sqrt(np.prod(shape[1:]))
    if "rel_pos" in name or name.endswith((".bias", "running_mean")):
        mean, std = 0.0, 0.1
    elif "running_var" in name:
        mean, std = 0.3, 0.03
    elif "norm" in name:
        mean, std = 1.0, 0.1
    elif "pool_" in name:
        mean, std = 0.0, 0.2
    elif name in ("cls_token", "pos_embed"):
        mean, std = 0.0, 0.5
    return torch.from_numpy((mean + std * x).astype(np.float32))


def fit(weight: Tensor, shape: torch.Size) -> Tensor:
    """An official tensor in our shape: 2-D kernels get a frame axis, tables are resized."""
    if weight.ndim == 2 and weight.shape != shape:
        return F.interpolate(weight.T[None], size=shape[0], mode="linear")[0].T
    return weight.unsqueeze(2) if weight.ndim == 4 else weight


def to_torchvision(name: str) -> str:
    """Official name -> torchvision `MViT` name."""
    if name == "cls_token":
        return "pos_encoding.class_token"
    for pattern, replacement in (
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^head\.projection\.", "head.1."),
        (r"\.attn\.proj\.", ".attn.project.0."),
        (r"^(blocks\.\d+)\.proj\.", r"\1.project."),
        (r"\.(pool_[qkv])\.weight", r".\1.pool.weight"),
        (r"\.norm_([qkv])\.", r".pool_\1.norm_act.0."),
        (r"\.mlp\.fc1\.", ".mlp.0."),
        (r"\.mlp\.fc2\.", ".mlp.3."),
    ):
        name = re.sub(pattern, replacement, name)
    return name


def to_timm(name: str, depths: tuple[int, ...]) -> str:
    """Official name -> timm `mvitv2_*` name."""
    name = re.sub(r"^head\.projection\.", "head.fc.", name)
    if not (match := re.match(r"blocks\.(\d+)\.(.*)", name)):
        return name
    block, rest = int(match[1]), match[2]
    stage = 0
    while block >= depths[stage]:
        block -= depths[stage]
        stage += 1
    rest = re.sub(r"^proj\.", "shortcut_proj_attn.", rest)
    return f"stages.{stage}.blocks.{block}.{rest}"


def state_for(
    state: Mapping[str, Tensor], other: Mapping[str, Tensor], rename: Mapping[str, str]
) -> dict[str, Tensor]:
    """Our state under the names and shapes of another library, each of its tensors named."""
    renamed = {rename[name]: tensor for name, tensor in state.items()}
    assert set(renamed) == set(other)
    return {name: renamed[name].reshape(tensor.shape) for name, tensor in other.items()}
