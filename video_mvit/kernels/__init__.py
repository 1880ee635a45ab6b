"""Operations of the network by name, each with a plain twin and fast forms behind it.

`OPERATIONS` is the table: the choice at run time, the trial of Triton kernels on a GPU and the twin
test walk it. `with kernels.use("plain"):` runs a network with the plain twins alone.
"""

from video_mvit.kernels.cpu_linear import LINEAR, fast_linear
from video_mvit.kernels.dispatch import Form, Forms, Operation, use
from video_mvit.kernels.drop_path import DROP_PATH, DropPath
from video_mvit.kernels.folding import FOLD_KEYS, FOLD_QUERIES, fold
from video_mvit.kernels.layer_norm import LAYER_NORM, LayerNorm
from video_mvit.kernels.patch_embed import PATCH_EMBED, PatchConv
from video_mvit.kernels.plain import Grid, conv_output_size, round_up
from video_mvit.kernels.pooling import MAX_POOL_TOKENS, POOL_TOKENS, max_pool_tokens, pool_tokens
from video_mvit.kernels.rel_pos import (
    ATTENTION,
    REL_POS_ATTENTION,
    RESIDUAL_MERGE,
    rel_pos_attention,
    residual_merge,
)
from video_mvit.kernels.windows import window_attention

__all__ = [
    "OPERATIONS",
    "DropPath",
    "Form",
    "Forms",
    "Grid",
    "LayerNorm",
    "Operation",
    "PatchConv",
    "conv_output_size",
    "fast_linear",
    "fold",
    "max_pool_tokens",
    "pool_tokens",
    "rel_pos_attention",
    "residual_merge",
    "round_up",
    "use",
    "window_attention",
]

OPERATIONS = (
    LINEAR,
    LAYER_NORM,
    PATCH_EMBED,
    POOL_TOKENS,
    MAX_POOL_TOKENS,
    REL_POS_ATTENTION,
    ATTENTION,
    FOLD_QUERIES,
    FOLD_KEYS,
    RESIDUAL_MERGE,
    DROP_PATH,
)
