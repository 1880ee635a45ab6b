"""Say which network some tensors are of, where it is no MViTv2."""

import re
from collections.abc import Mapping
from typing import Any

from video_mvit.weights.pickle_limits import quoted

ELSEWHERE = "; only MViTv2 weights are supported"
MAX_NAMES = 5000
MAX_NAME = 200  # longer names are of no network that is known here
START = r"(?:.+\.)?"  # wrappers and containers
# Patterns that each match a name, and what the network is then; the first row counts.
NETWORKS: tuple[tuple[tuple[str, ...], str], ...] = (
    ((r".*attn\._attention_pool_[qkv]\..*",), "a pytorchvideo MViTv1 (no relative positions)"),
    ((r".*(cls_positional_encoding\..*|pos_encoding\.spatial_pos)",), "an MViTv1"),
    ((START + r"blocks\.\d+\.attn\.(pool|norm)_[qkv]\..*",), "an MViTv1 (no relative positions)"),
    ((r".*s\d\.pathway1_.*",), "a SlowFast of the SlowFast code"),
    ((r".*s\d\.pathway0_.*",), "a ResNet or X3D of the SlowFast code"),
    ((START + r"(slow|fast)_path\..*",), "a SlowFast of mmaction2"),
    (
        (START + r"blocks\.\d+\.(multipathway_blocks|res_blocks)\..*",),
        "a pytorchvideo ResNet, SlowFast or X3D",
    ),
    ((START + r"layer[1-4]\.\d+\.conv\d\..*",), "a ResNet"),
    ((START + r"Mixed_\d\w\..*",), "an Inception network (I3D, S3D)"),
    (
        (START + r"(layers|features)\.\d+(\.blocks)?\.\d+\.attn\.relative_position_bias_table",),
        "a Swin Transformer",
    ),
    ((START + r"blocks[1-4]\.\d+\..*",), "a UniFormer"),
    ((START + r"blocks\.\d+\.temporal_(attn|fc|norm1)\..*",), "a TimeSformer"),
    ((START + r"pos_embed_(spatial|temporal)", START + r"blocks\.\d+\.attn\.qkv\..*"), "a Hiera"),
    ((START + r"blocks\.\d+\.attn\.rel_pos_[hw]", START + r"blocks\..*"), "a ViTDet or SAM"),
    ((START + r"visual\.transformer\.resblocks\..*",), "a CLIP model"),
    ((START + r"vision_model\.encoder\.layers\..*",), "a CLIP model"),
    ((START + r"videomae\.encoder\.layer\..*",), "a VideoMAE"),
    ((START + r"timesformer\.encoder\.layer\..*",), "a TimeSformer"),
    ((START + r"(vit|vivit)\.encoder\.layer\..*",), "a plain ViT"),
    ((START + r"encoder\.layers\.encoder_layer_\d+\..*",), "a plain ViT"),
    ((START + r"stages\.\d+\.(blocks\.)?\d+\.(conv_dw|dwconv)\..*",), "a ConvNeXt"),
)
# Pattern of a name, and what was done to the tensors, whatever network they are of.
PACKED: tuple[tuple[str, str], ...] = (
    (
        r".*\.lora_[AB]\..*",
        "it has LoRA adapters beside its weights; merge them (merge_and_unload of peft) and save "
        "it again",
    ),
    (
        r".*_?flat_param(_\d+)?",
        "its tensors are flattened by FSDP; save it with its full state dict",
    ),
    (
        r".*\._packed_params(\..*)?|.*\.(qweight|weight_packed)",
        "its weights are quantized; use those from before",
    ),
)
# All names in the blocks of a plain ViT.
VIT_BLOCK = re.compile(
    r"(attn\.(qkv|proj|q_norm|k_norm|norm)|norm[12]|mlp\.fc[12])\.(weight|bias)"
    r"|attn\.(q_bias|v_bias|relative_position_(bias_table|index))|gamma_[12]|ls[12]\.gamma"
)
BLOCK = re.compile(START + r"blocks\.\d+\.(?P<rest>.*)")
TRANSFORMER = re.compile(START + r"(layers?|resblocks)\.\d+\.(self_attn|attention|attn)\..*")


def describe_packed(state: Mapping[str, Any]) -> str:
    """Say in one sentence what has to be undone before tensors can be read; "" for nothing."""
    names = [name for name in list(state)[:MAX_NAMES] if len(name) <= MAX_NAME]
    found = (what for pattern, what in PACKED if any(map(re.compile(pattern).fullmatch, names)))
    return next(found, "")


def describe_other_network(state: Mapping[str, Any], supported: str) -> str:
    """Describe in one sentence what these tensors are; `supported` lists what can be read."""
    names = [name for name in list(state)[:MAX_NAMES] if len(name) <= MAX_NAME]
    for patterns, what in NETWORKS:
        if all(any(map(re.compile(pattern).fullmatch, names)) for pattern in patterns):
            return f"this is {what}{ELSEWHERE}"
    in_blocks = [match["rest"] for match in map(BLOCK.fullmatch, names) if match]
    if any(rest.startswith("attn.qkv.") for rest in in_blocks):
        if all(map(VIT_BLOCK.fullmatch, in_blocks)):
            with_own_biases = any(rest == "attn.q_bias" for rest in in_blocks)
            return (
                f"this is a plain ViT{' (VideoMAE or BEiT)' if with_own_biases else ''}{ELSEWHERE}"
            )
        return f"this is another transformer{_examples(state)}{ELSEWHERE}"
    if any(map(TRANSFORMER.fullmatch, names)):
        return f"this is another transformer{_examples(state)}{ELSEWHERE}"
    return f"this is another network{_examples(state)}{ELSEWHERE} (under the names of {supported})"


def _examples(state: Mapping[str, Any]) -> str:
    """Return how many tensors there are, and three names."""
    shown = [quoted(name) for name in list(state)[:: max(1, len(state) // 3)][:3]]
    return f" ({len(state)} tensors: {', '.join(shown)})"
