"""Other networks that compute MViTv2, for the same clips and where possible with the same weights.

A baseline is built from our configuration; what it has no place for raises `BaselineError`, which
says so in a row of the table. Libraries are imported only where they
are asked for.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peer_errors import LOAD_ERRORS, BaselineError, baseline_errors
from video_mvit import kernels
from video_mvit.models.config import MViTConfig, block_schedule, variant_config
from video_mvit.models.mvit import MViT
from video_mvit.weights.key_formats import KEY_FORMATS, to_key_format

KEY_FORMAT_OF = {"plain": "video_mvit", "torchvision": "torchvision", "timm": "timm"}
SPREADS = {"rel_pos": 0.1, "bias": 0.1, "pool_": 0.2, "cls_token": 0.5}  # of drawn weights, by name
NORM_SPREAD = 0.1  # around 1


def comparable_config(name: str, **options: Any) -> MViTConfig:
    """A variant with some fields replaced, and nothing random in it.

    Raises `ValueError` on unknown names and impossible values.
    """
    return replace(variant_config(name, **options), drop_path_rate=0.0, head_dropout=0.0)


def draw_weights(model: nn.Module, seed: int) -> None:
    """Draw weights with which each tensor shows in the logits, which fresh ones do not do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            found = [spread for part, spread in SPREADS.items() if part in name]
            drawn = torch.randn(parameter.shape, generator=generator)
            if not found and "norm" in name:
                parameter.copy_(1 + NORM_SPREAD * drawn)
            else:
                fan_in = max(1, parameter[0].numel())
                parameter.copy_(drawn * (found[0] if found else fan_in**-0.5))


def build_baseline(name: str, config: MViTConfig) -> nn.Module:
    """A network (B, 3, T, H, W) -> (B, K) with weights of its own; raises `BaselineError`."""
    return BUILDERS[name](config)


def give_weights(name: str, baseline: nn.Module, ours: MViT) -> bool:
    """Copy our weights; False where the baseline is another network, which has no place for them.

    Raises `BaselineError` where a tensor has no place, or one of another shape.
    """
    if name not in KEY_FORMAT_OF:
        return False
    state, left = to_key_format(ours.state_dict(), KEY_FORMATS[KEY_FORMAT_OF[name]])
    expected = baseline.state_dict()
    if left or state.keys() != expected.keys():
        odd = sorted({*left, *(state.keys() ^ expected.keys())})
        raise BaselineError(f"{odd[0]} is not in both networks")
    for key, tensor in state.items():
        if tensor.shape != expected[key].shape:
            shapes = f"{list(expected[key].shape)}, ours {list(tensor.shape)}"
            raise BaselineError(f"its {key} has another shape for this clip, {shapes}")
    baseline.load_state_dict(state)
    return True


def difference(ours: nn.Module, baseline: nn.Module, clip: Tensor) -> float:
    """The most by which logits differ, all in float32; of NaN, NaN."""
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        return float((ours(clip) - baseline(clip)).abs().max())


def _torchvision(config: MViTConfig) -> nn.Module:
    if config.is_image or config.head != "cls" or config.expand_dim_in != "attention":
        raise BaselineError(
            "it has video models with a cls token and channels that double in attention"
        )
    with baseline_errors("torchvision cannot be loaded", *LOAD_ERRORS):
        from torchvision.models.video.mvit import MSBlockConfig
        from torchvision.models.video.mvit import MViT as TorchvisionMViT
    settings = [
        MSBlockConfig(
            num_heads=spec.num_heads,
            input_channels=spec.dim,
            output_channels=spec.dim_out,
            kernel_q=list(spec.pool_kernel),
            kernel_kv=list(spec.pool_kernel),
            stride_q=list(spec.stride_q),
            stride_kv=list(spec.stride_kv),
        )
        for spec in block_schedule(config)
    ]
    network: nn.Module = TorchvisionMViT(
        spatial_size=(config.crop_size, config.crop_size),
        temporal_size=config.num_frames,
        block_setting=settings,
        residual_pool=True,
        residual_with_cls_embed=False,
        rel_pos_embed=True,
        proj_after_attn=True,
        dropout=config.head_dropout,
        stochastic_depth_prob=config.drop_path_rate,
        num_classes=config.num_classes,
    )
    return network


def _timm(config: MViTConfig) -> nn.Module:
    if not config.is_image or config.cls_token != (config.head == "cls"):
        raise BaselineError(
            "it has image models, with a cls token that is classified or without one"
        )
    with baseline_errors("timm cannot be loaded", *LOAD_ERRORS):
        from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
    settings = MultiScaleVitCfg(
        depths=tuple(config.depths),
        embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        expand_attn=config.expand_dim_in == "attention",
        use_cls_token=config.cls_token,
        stride_kv_adaptive=(config.stride_kv[1], config.stride_kv[2]),
    )
    network: nn.Module = MultiScaleVit(
        settings,
        img_size=(config.crop_size,) * 2,
        num_classes=config.num_classes,
        drop_rate=config.head_dropout,
        drop_path_rate=config.drop_path_rate,
    )
    network.register_forward_pre_hook(lambda _, clips: clips[0].squeeze(2))  # its images are 4-D
    return network


def _pytorchvideo(config: MViTConfig) -> nn.Module:
    """MViTv1 of the depths and widths of ours: no relative positions, no residual pooling."""
    if config.is_image or config.cls_token != (config.head == "cls"):
        raise BaselineError(
            "it has video models, with a cls token that is classified or without one"
        )
    with baseline_errors("pytorchvideo's models cannot be loaded", *LOAD_ERRORS):
        from pytorchvideo.models.vision_transformers import (
            create_multiscale_vision_transformers,
        )
    firsts = [sum(config.depths[:stage]) for stage in (1, 2, 3)]
    doubled = [[block, 2.0] for block in firsts]
    network: nn.Module = create_multiscale_vision_transformers(
        spatial_size=config.crop_size,
        temporal_size=config.num_frames,
        cls_embed_on=config.cls_token,
        depth=sum(config.depths),
        patch_embed_dim=config.embed_dim,
        num_heads=config.num_heads,
        embed_dim_mul=doubled,
        atten_head_mul=doubled,
        pool_q_stride_size=[[block, 1, 2, 2] for block in firsts],
        pool_kv_stride_adaptive=list(config.stride_kv),
        pool_kvq_kernel=list(config.pool_kernel),
        droppath_rate_block=config.drop_path_rate,
        head_dropout_rate=config.head_dropout,
        head_num_classes=config.num_classes,
    )
    return network


class PlainMViT(MViT):
    """Our network with plain kernels: the paper written down, an attention matrix that exists."""

    def forward(self, clip: Tensor) -> Tensor:
        with kernels.use("plain"):
            return super().forward(clip)


BUILDERS: Mapping[str, Callable[[MViTConfig], nn.Module]] = {
    "plain": PlainMViT,
    "torchvision": _torchvision,
    "timm": _timm,
    "pytorchvideo": _pytorchvideo,
}
