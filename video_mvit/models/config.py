"""What an MViTv2 is built from: configuration, block schedule, published variants."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from video_mvit.errors import UserError
from video_mvit.kernels.plain import Grid, conv_output_size

MLP_RATIO = 4
PATCH_STRIDE_HW = 4
MAX_HEAD_DEPTH = 12
Checkpointing = Literal["none", "light", "selective", "full"]  # the fastest first
CHOICES = {  # field -> allowed values
    "head": ("cls", "mean", "attentive"),
    "expand_dim_in": ("attention", "mlp"),
    "activation_checkpointing": get_args(Checkpointing),
}


@dataclass(frozen=True, kw_only=True)
class MViTConfig:
    """What a model is built from; the defaults are MViTv2-S 16x4 on Kinetics-400.

    Attributes:
        num_frames: 1 makes an image model (kernels of one frame); otherwise even, since patches
            take two frames.
        crop_size: side of the square input in pixels.
        stride_kv: (t, h, w) stride of K and V in the first stage; later stages divide it by the
            strides of Q.
        head: "cls" classifies the cls token, "mean" the average token. With `cls_token` and "mean",
            the cls token is left out and the mean is normalised after averaging (MaskFeat fine-
            tunes). "attentive" pools all tokens by attention, as probes do (`heads.py`).
        head_depth, head_num_heads: of an attentive head: its blocks, the last of which has the
            learned query, and the heads of each.
        expand_dim_in: where channels double between stages. Published weights need both: "mlp" is
            image L and MaskFeat.
        drop_path_rate: stochastic depth of the last block; it grows linearly from 0.
        head_init_scale: what a fresh head is multiplied with, weight and bias (MaskFeat fine-tunes:
            0.001, so that training starts at equal scores).
        activation_checkpointing: what is computed again in the backward pass to save memory:
            nothing, what is cheap ("light"), more ("selective"), or whole blocks ("full").
    """

    num_classes: int = 400
    num_frames: int = 16
    crop_size: int = 224
    depths: Sequence[int] = (1, 2, 11, 2)
    embed_dim: int = 96
    num_heads: int = 1
    stride_kv: Sequence[int] = (1, 8, 8)
    cls_token: bool = True
    head: Literal["cls", "mean", "attentive"] = "cls"
    head_depth: int = 1
    head_num_heads: int = 16
    expand_dim_in: Literal["attention", "mlp"] = "attention"
    drop_path_rate: float = 0.2
    head_dropout: float = 0.5
    head_init_scale: float = 1.0
    activation_checkpointing: Checkpointing = "none"

    def __post_init__(self) -> None:
        self._check_types()
        self._check_sizes()
        if self.num_classes < 1:
            raise UserError(f"num_classes {self.num_classes} must be positive")
        if self.head == "cls" and not self.cls_token:
            raise UserError("head 'cls' needs cls_token true; without a cls token use head 'mean'")
        if not 1 <= self.head_depth <= MAX_HEAD_DEPTH:
            raise UserError(f"head_depth {self.head_depth} is outside 1 to {MAX_HEAD_DEPTH}")
        dim = 8 * self.embed_dim
        if self.head == "attentive" and (self.head_num_heads < 1 or dim % self.head_num_heads):
            raise UserError(
                f"head_num_heads {self.head_num_heads} does not divide the {dim} channels of the "
                "last tokens"
            )
        for name in ("drop_path_rate", "head_dropout"):
            rate = getattr(self, name)
            if not 0 <= rate < 1:
                raise UserError(f"{name} {rate} is outside [0, 1)")
        if not self.head_init_scale > 0:
            raise UserError(f"head_init_scale {self.head_init_scale} must be positive")

    def _check_sizes(self) -> None:
        if self.num_frames != 1 and (self.num_frames < 1 or self.num_frames % 2 == 1):
            raise UserError(
                f"num_frames {self.num_frames} is neither 1 (image) nor a positive even number"
            )
        if self.crop_size < 1 or self.crop_size % PATCH_STRIDE_HW != 0:
            raise UserError(
                f"crop_size {self.crop_size} is not a positive multiple of the patch stride 4"
            )
        if len(self.depths) != 4 or min(self.depths) < 1:
            raise UserError(
                f"depths {self.depths} must be four positive numbers of blocks, one for each stage"
            )
        if len(self.stride_kv) != 3 or min(self.stride_kv) < 1:
            raise UserError(f"stride_kv {self.stride_kv} must be three positive numbers (t, h, w)")
        if self.num_heads < 1 or self.embed_dim < 1 or self.embed_dim % self.num_heads != 0:
            raise UserError(
                f"embed_dim {self.embed_dim} is not a positive multiple of num_heads "
                f"{self.num_heads}"
            )

    def _check_types(self) -> None:
        """Check plain types and choices; lists become tuples."""
        for name in ("depths", "stride_kv"):
            value = getattr(self, name)
            if not isinstance(value, Sequence) or not all(isinstance(n, int) for n in value):
                raise UserError(f"{name} is {value!r}, expected a list of int")
            object.__setattr__(self, name, tuple(value))
        for field in fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            is_kind = isinstance(value, int | float if kind is float else kind)
            if not is_kind or (isinstance(value, bool) and kind is not bool):
                raise UserError(f"{field.name} is {value!r}, expected {kind.__name__}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                known = ", ".join(map(repr, choices))
                raise UserError(f"{name} {getattr(self, name)!r} is none of {known}")

    @property
    def is_image(self) -> bool:
        return self.num_frames == 1

    @property
    def patch_kernel(self) -> Grid:
        return (1 if self.is_image else 3, 7, 7)

    @property
    def patch_stride(self) -> Grid:
        return (1 if self.is_image else 2, PATCH_STRIDE_HW, PATCH_STRIDE_HW)

    @property
    def pool_kernel(self) -> Grid:
        return (1 if self.is_image else 3, 3, 3)

    @property
    def patch_grid(self) -> Grid:
        return conv_output_size(
            (self.num_frames, self.crop_size, self.crop_size), self.patch_kernel, self.patch_stride
        )


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One block: channels are `dim`, after attention `dim_attn`, at the end `dim_out`.

    `thw` is the grid that enters. Detection alone uses the last four fields: `window` is the side
    of the windows on that grid in which attention stays (0: none), the next two are ablations, and
    flat pool weights have no time axis, as in its files.
    """

    dim: int
    dim_attn: int
    dim_out: int
    num_heads: int
    num_cls: int
    thw: Grid
    pool_kernel: Grid
    stride_q: Grid
    stride_kv: Grid
    drop_path: float
    window: int = 0
    relative_positions: bool = True
    residual_pooling: bool = True
    flat_pool_weights: bool = False

    @property
    def head_dim(self) -> int:
        return self.dim_attn // self.num_heads

    @property
    def has_time(self) -> bool:
        return self.pool_kernel[0] > 1

    @property
    def q_thw(self) -> Grid:
        return conv_output_size(self.thw, self.pool_kernel, self.stride_q)

    @property
    def kv_thw(self) -> Grid:
        return conv_output_size(self.thw, self.pool_kernel, self.stride_kv)

    @property
    def attended_thw(self) -> tuple[Grid, Grid]:
        """Grids of queries and keys that attend to each other: a window, or everything."""
        if not self.window:
            return self.q_thw, self.kv_thw
        (_, q_h, q_w), (_, kv_h, kv_w) = self.stride_q, self.stride_kv
        return (
            (1, self.window // q_h, self.window // q_w),
            (1, self.window // kv_h, self.window // kv_w),
        )


def block_schedule(config: MViTConfig) -> list[BlockSpec]:
    """Unroll stages into blocks.

    At the first block of each later stage Q is pooled, and heads and channels double.
    """
    specs: list[BlockSpec] = []
    dim, thw = config.embed_dim, config.patch_grid
    kv_t, kv_h, kv_w = config.stride_kv
    last = sum(config.depths) - 1
    for stage, depth in enumerate(config.depths):
        dim_stage = config.embed_dim * 2**stage
        for i in range(depth):
            stride_q = (1, 2, 2) if stage > 0 and i == 0 else (1, 1, 1)
            kv_h, kv_w = max(kv_h // stride_q[1], 1), max(kv_w // stride_q[2], 1)
            expands_in_mlp = config.expand_dim_in == "mlp" and stage < 3 and i == depth - 1
            spec = BlockSpec(
                dim=dim,
                dim_attn=dim_stage,
                dim_out=dim_stage * 2 if expands_in_mlp else dim_stage,
                num_heads=config.num_heads * 2**stage,
                num_cls=int(config.cls_token),
                thw=thw,
                pool_kernel=config.pool_kernel,
                stride_q=stride_q,
                stride_kv=(kv_t, kv_h, kv_w),
                drop_path=config.drop_path_rate * len(specs) / last,
            )
            specs.append(spec)
            dim, thw = spec.dim_out, spec.q_thw
    return specs


_S = MViTConfig()


_IMAGE_T = MViTConfig(
    num_classes=1000,
    num_frames=1,
    depths=(1, 2, 5, 2),
    stride_kv=(1, 4, 4),
    cls_token=False,
    head="mean",
    drop_path_rate=0.1,
    head_dropout=0.0,
)


_IMAGE_B = replace(_IMAGE_T, depths=(2, 3, 16, 3), drop_path_rate=0.3)


_IMAGE_L = replace(
    _IMAGE_T,
    depths=(2, 6, 36, 4),
    embed_dim=144,
    num_heads=2,
    expand_dim_in="mlp",
    drop_path_rate=0.5,
)


_IMAGE_H = replace(
    _IMAGE_T,
    depths=(4, 8, 60, 8),
    embed_dim=192,
    num_heads=3,
    cls_token=True,
    head="cls",
    drop_path_rate=0.6,
)


_IMAGE_21K: dict[str, Any] = {
    "num_classes": 19168,
    "cls_token": True,
    "head": "cls",
    "expand_dim_in": "attention",
}


VARIANTS: dict[str, MViTConfig] = {
    "mvitv2_s": _S,
    "mvitv2_b": replace(_S, num_frames=32, depths=(2, 3, 16, 3), drop_path_rate=0.3),
    "mvitv2_l": replace(
        _S,
        num_frames=40,
        crop_size=312,
        depths=(2, 6, 36, 4),
        embed_dim=144,
        num_heads=2,
        drop_path_rate=0.75,
    ),
    "mvitv2_demo": replace(  # for `make demo`: learns small motions on two CPU cores in minutes
        _S,
        num_frames=8,
        crop_size=32,
        depths=(1, 1, 1, 1),
        embed_dim=32,
        stride_kv=(1, 4, 4),
        cls_token=False,
        head="mean",
        drop_path_rate=0.0,
        head_dropout=0.0,
    ),
    "mvitv2_image_t": _IMAGE_T,
    "mvitv2_image_s": replace(_IMAGE_T, depths=(1, 2, 11, 2)),
    "mvitv2_image_b": _IMAGE_B,
    "mvitv2_image_l": _IMAGE_L,
    "mvitv2_image_h": _IMAGE_H,
    "mvitv2_image_b_21k": replace(_IMAGE_B, **_IMAGE_21K),
    "mvitv2_image_l_21k": replace(_IMAGE_L, **_IMAGE_21K),
    "mvitv2_image_h_21k": replace(_IMAGE_H, **_IMAGE_21K),
}


def variant_config(name: str, **overrides: Any) -> MViTConfig:
    """Configuration of a variant, some fields replaced; raises `ValueError` on unknown names."""
    if name not in VARIANTS:
        raise UserError(f"unknown model {name!r}; choose one of {', '.join(VARIANTS)}")
    known = [field.name for field in fields(MViTConfig)]
    if unknown := sorted(set(overrides) - set(known)):
        raise UserError(
            f"unknown model option {', '.join(unknown)}; choose from {', '.join(known)}"
        )
    return replace(VARIANTS[name], **overrides)
