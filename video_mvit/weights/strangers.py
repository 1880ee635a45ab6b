"""What a file holds that is no MViTv2: said in words, from the names of its tensors."""

import re
from collections.abc import Mapping
from typing import Any

ELSEWHERE = "; this loads MViTv2 weights only"
# Pattern that some name matches, and what the file is then. The first that fits counts.
STRANGERS: tuple[tuple[str, str], ...] = (
    (r"attn\._attention_pool_[qkv]\.", "a pytorchvideo MViTv1 (no relative positions)"),
    (r"(^|\.)(pos_embed_spatial|pos_embed_temporal|cls_positional_encoding\..*)$", "an MViTv1"),
    (r"^blocks\.\d+\.attn\.pool_[qkv]", "an MViTv1 (no relative positions)"),
    (r"^s\d\.pathway\d+_", "a SlowFast or ResNet of the SlowFast code"),
    (r"(^|\.)layer[1-4]\.\d+\.conv1\.weight$", "a ResNet"),
    (r"relative_position_bias_table$", "a Swin Transformer"),
    (r"^blocks\.\d+\.(multipathway_blocks|res_blocks)\.", "a pytorchvideo ResNet, SlowFast or X3D"),
    (
        r"(^|\.)blocks\.\d+\.attn\.(qkv|q_bias|proj)",
        "a plain ViT (VideoMAE, DeiT, TimeSformer ...)",
    ),
    (r"(^|\.)(encoder\.)?layers?\.\d+\.(self_attn|attention)\.", "another transformer"),
)


def describe_stranger(state: Mapping[str, Any]) -> str:
    """One sentence: what these tensors are, and what would be loaded."""
    for pattern, what in STRANGERS:
        compiled = re.compile(pattern)
        if any(compiled.search(name) for name in state):
            return f"this is {what}{ELSEWHERE}"
    examples = ", ".join(list(state)[:3])
    return f"none of the known MViTv2 dialects has its {len(state)} tensors ({examples}, ...)"
