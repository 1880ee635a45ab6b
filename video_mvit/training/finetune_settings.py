"""Suggest the settings of a fine-tune on a user's own videos, each with its reason.

Pure: statistics of the videos and facts about the model go in, suggestions come out. A value set by
the user is kept, and settings that depend on it follow it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from video_mvit.data.sampling import SHORT_SIDE, published_stride
from video_mvit.errors import UserError

TARGET_FPS = 30.0  # frame rate that strides refer to
SET_BY_USER = "set by you"

# A training step has about the activations of eight clips of MViTv2-S (16 frames, 224 pixels).
BASE_CLIPS, MAX_CLIPS = 8, 32
LARGE_COST = 4.0  # cost of a clip, in clips of S, above which activations are recomputed
NUM_STEPS = 3000  # target of a fine-tune, within the bounds on epochs
EPOCHS = (20, 100)
SCRATCH_EPOCHS = (200, 300)  # 200 is published for Kinetics-400
# Learning rates for 512 clips per step with AdamW: published for training from scratch
# (Kinetics-400); for fine-tuning a value between that and the 9.6e-3 of MaskFeat.
REFERENCE_CLIPS, SCRATCH_LR, FINE_TUNE_LR = 512, 1.6e-3, 4e-3
ADAPTER_RATE = 10  # times that of all weights: the second factors start at zero
END_SHARE = 0.01  # fraction of the learning rate at the start of warm-up and at the end
MIN_MIXED = 30  # mean videos per class from which MixUp/CutMix is used
NUM_REPLACED = 2  # unreadable videos tolerated in any list
# Flipping a clip of a class with such a word changes its class.
SIDES = {
    *("left", "right", "leftward", "leftwards", "rightward", "rightwards"),
    *("clockwise", "anticlockwise", "counterclockwise"),
}
KEYS: Mapping[str, Any] = {  # setting -> type of its value
    "model.name": str,
    "model.activation_checkpointing": str,
    "clip.num_frames": int,
    "clip.crop_size": int,
    "clip.frame_stride": int,
    "data.short_side": int,
    "data.num_classes": int | None,
    "data.normalize.mean": Sequence[float],
    "data.normalize.std": Sequence[float],
    "data.train_batch_size": int,
    "data.train_crop.flip_prob": float,
    "data.max_unreadable_fraction": float,
    "optim.num_epochs": int,
    "optim.warmup_epochs": float,
    "optim.reference_clips": int | None,
    "optim.lr": float,
    "optim.start_lr": float,
    "optim.end_lr": float,
    "optim.layer_decay": float | None,
    "augment.mixing": type(None),  # or as configured
    "label_smoothing": float,
    "init.reset": Sequence[str],
}
COUNTS = ("clip.num_frames", "clip.crop_size", "data.train_batch_size", "optim.num_epochs")


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """Training videos: number, classes, and lengths of a sample in seconds.

    Without `has_classes`, the names are those of targets, which are numbers.
    """

    num_videos: int
    class_names: tuple[str, ...]
    median_s: float
    shortest_s: float
    has_classes: bool = True


@dataclass(frozen=True, kw_only=True)
class WeightsInfo:
    """Contents of a weight file; `absent` are parts of the network that it lacks.

    `head` is the module of its last layer. Where it does not state a normalization, `mean` and
    `std` are the published ones.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    frame_stride: int | None = None
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    absent: tuple[str, ...] = ()
    head: str = "head"
    is_image: bool = False
    states_normalization: bool = False


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The model to train: a row of the table of variants and the fields that differ from it.

    `depth` is its number of blocks. `weights` is None for training from scratch. A network that is
    no MViTv2 has its class as `own_name`, and the configured `frame_stride`; its variant, depth and
    width are those of the MViTv2 that its cost is estimated by. `has_adapters`: low-rank adapters
    and the head are trained alone.
    """

    variant: str
    num_frames: int
    crop_size: int
    depth: int
    embed_dim: int
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: WeightsInfo | None = None
    own_name: str = ""
    frame_stride: int | None = None
    has_adapters: bool = False


class Suggestion(NamedTuple):
    """A configuration key, its value, and the reason."""

    key: str
    value: Any
    reason: str


def suggest_settings(
    data: DatasetStats, network: ModelInfo, set_by_user: Mapping[str, Any], num_devices: int = 1
) -> list[Suggestion]:
    """Return all settings in the order in which they are printed.

    `set_by_user` are the user's own values of `KEYS`, which win. Raises `UserError` for a single
    class, or a count that is not positive.
    """
    if data.has_classes and len(data.class_names) < 2:
        raise UserError(
            f"all {data.num_videos} training videos are of one class, {data.class_names[0]!r}; a "
            "classifier needs at least two classes, for example one folder each"
        )

    def decided(suggestion: Suggestion) -> Suggestion:
        return (
            Suggestion(suggestion.key, _set_by_user(set_by_user, suggestion), SET_BY_USER)
            if suggestion.key in set_by_user
            else suggestion
        )

    # Settings that must match the weights, and what depends on them.
    shape = {suggestion.key: suggestion for suggestion in map(decided, as_trained(network))}
    num_frames = shape["clip.num_frames"].value
    cost = _cost(network, num_frames, shape["clip.crop_size"].value)
    shape["clip.frame_stride"] = decided(_frame_stride(data, network, num_frames))
    # Batch size, epochs and learning rate follow from each other.
    batch = decided(_batch_size(data, cost, num_devices))
    num_steps = max(1, data.num_videos // (batch.value * num_devices))
    epochs = decided(_num_epochs(network, num_steps))
    lr = decided(_learning_rate(network))
    rest = [
        batch,
        *([decided(_checkpointing(cost, network))] if cost > LARGE_COST else []),
        epochs,
        _warmup(network, epochs.value),
        Suggestion(
            "optim.reference_clips",
            REFERENCE_CLIPS,
            "clips per step that the learning rate refers to",
        ),
        lr,
        *_bounds_of(lr),
        _layer_decay(network),
        _mixing(data, batch.value),
        Suggestion("label_smoothing", 0.1, "as in all published recipes"),
        _flip_prob(data),
        _unreadable_fraction(data.num_videos),
        *_reset(data, network),
    ]
    why = f"{'classes' if data.has_classes else 'targets'} of the training list"
    num_classes = Suggestion("data.num_classes", len(data.class_names), why)
    return [*shape.values(), decided(num_classes), *map(decided, rest)]


def as_trained(network: ModelInfo) -> list[Suggestion]:
    """Return the settings that must match the training of the weights."""
    weights = network.weights
    why = f"from {weights.name}" if weights else "no initial weights"
    clip_why = why if weights and not weights.is_image else f"from {network.variant}"
    if network.own_name and not weights:
        clip_why = "as configured"
    suggestions = [
        *([] if network.own_name else [Suggestion("model.name", network.variant, why)]),
        *(Suggestion(f"model.{name}", value, why) for name, value in network.options.items()),
        Suggestion("clip.num_frames", network.num_frames, clip_why),
        Suggestion("clip.crop_size", network.crop_size, clip_why),
        Suggestion("clip.frame_stride", *_trained_stride(network, network.num_frames)),
    ]
    short_side = round(network.crop_size * SHORT_SIDE)
    why_side = "validation resize before the crop; published: 256 for 224"
    suggestions.append(Suggestion("data.short_side", short_side, why_side))
    if weights:
        why = why if weights.states_normalization else "published for these weights"
        suggestions.append(Suggestion("data.normalize.mean", list(weights.mean), why))
        suggestions.append(Suggestion("data.normalize.std", list(weights.std), why))
    return suggestions


def _set_by_user(set_by_user: Mapping[str, Any], suggestion: Suggestion) -> Any:
    value = set_by_user[suggestion.key]
    if suggestion.key in COUNTS and (type(value) is not int or value < 1):
        raise UserError(f"{suggestion.key} is {value!r}, expected a positive int")
    return value


def _trained_stride(network: ModelInfo, num_frames: int) -> tuple[int, str]:
    """Return the stride of the weights, and its source."""
    if network.weights and network.weights.frame_stride:
        return network.weights.frame_stride, f"from {network.weights.name}"
    if network.frame_stride:
        return network.frame_stride, "as configured"
    return published_stride(num_frames), f"published for clips of {num_frames} frames"


def _frame_stride(data: DatasetStats, network: ModelInfo, num_frames: int) -> Suggestion:
    trained, why = _trained_stride(network, num_frames)
    fitting = int(data.median_s * TARGET_FPS / num_frames)
    stride = max(1, min(trained, fitting))
    lasts = f"a clip of {num_frames}x{stride} lasts {num_frames * stride / TARGET_FPS:.2g} s"
    length = f"the median video {data.median_s:.2g} s"
    if stride == trained:
        return Suggestion("clip.frame_stride", stride, f"{why}; {lasts}, {length}")
    needs = f"{num_frames}x{trained} would need {num_frames * trained / TARGET_FPS:.2g} s"
    return Suggestion("clip.frame_stride", stride, f"{lasts}, {length}; {needs}")


def _cost(network: ModelInfo, num_frames: int, crop_size: int) -> float:
    """Estimate the activations of a clip relative to MViTv2-S: pixels x channels x blocks."""
    pixels = num_frames / 16 * (crop_size / 224) ** 2
    return pixels * network.embed_dim / 96 * network.depth / 16


def _batch_size(data: DatasetStats, cost: float, num_devices: int) -> Suggestion:
    fitting = min(MAX_CLIPS, max(1, round(BASE_CLIPS / cost)))
    quarter = max(1, data.num_videos // (4 * num_devices))
    if quarter < fitting:
        where = f" on {num_devices} devices" if num_devices > 1 else ""
        why = f"a quarter of the {data.num_videos} training videos{where}"
        return Suggestion("data.train_batch_size", quarter, why)
    why = f"memory of about {max(fitting * cost, 0.1):.2g} clips of MViTv2-S 16x4"
    return Suggestion("data.train_batch_size", fitting, why)


def _checkpointing(cost: float, network: ModelInfo) -> Suggestion:
    if network.own_name:
        why = f"no choice for {network.own_name}, which create_model does not build"
        return Suggestion("model.activation_checkpointing", UNCHANGED, why)
    why = f"saves memory: a clip costs as much as {cost:.2g} clips of MViTv2-S"
    return Suggestion("model.activation_checkpointing", value="full", reason=why)


def _num_epochs(network: ModelInfo, num_steps: int) -> Suggestion:
    low, high = EPOCHS if network.weights else SCRATCH_EPOCHS
    num_epochs = min(high, max(low, round(NUM_STEPS / num_steps)))
    steps = (
        f"{num_steps:,} step{'s' * (num_steps > 1)} per epoch, {num_epochs * num_steps:,} in total"
    )
    if num_epochs in (low, high):
        bound = "at most" if num_epochs == high else "at least"
        steps += f"; {bound} {num_epochs} {'to fine-tune' if network.weights else 'from scratch'}"
    return Suggestion("optim.num_epochs", num_epochs, steps)


def _warmup(network: ModelInfo, num_epochs: int) -> Suggestion:
    if network.weights:
        value = min(5.0, num_epochs / 10)
        return Suggestion("optim.warmup_epochs", value, "a tenth of the epochs, at most 5")
    return Suggestion("optim.warmup_epochs", num_epochs * 0.15, "15 % of the epochs, as published")


def _learning_rate(network: ModelInfo) -> Suggestion:
    if network.weights is None:
        why = "published for training from scratch with AdamW; scaled to the clips per step"
        return Suggestion("optim.lr", SCRATCH_LR, why)
    if network.has_adapters:
        why = f"{ADAPTER_RATE} times that of all weights, as adapters need"
        return Suggestion("optim.lr", ADAPTER_RATE * FINE_TUNE_LR, why)
    why = (
        f"between {SCRATCH_LR:g} from scratch and 0.0096 of MaskFeat; scaled to the clips per step"
    )
    return Suggestion("optim.lr", FINE_TUNE_LR, why)


def _bounds_of(lr: Suggestion) -> list[Suggestion]:
    """Return start and end of the schedule; an invalid rate is reported elsewhere."""
    if not isinstance(lr.value, int | float):
        return []
    why = "1 % of the learning rate, as published"
    return [Suggestion(f"optim.{end}_lr", lr.value * END_SHARE, why) for end in ("start", "end")]


def _layer_decay(network: ModelInfo) -> Suggestion:
    if network.own_name:
        why = f"no choice for {network.own_name}, which create_model does not build"
        return Suggestion("optim.layer_decay", UNCHANGED, why)
    if network.weights is None:
        return Suggestion(
            "optim.layer_decay", 1.0, "no layer-wise lr decay when training from scratch"
        )
    if network.has_adapters:
        return Suggestion("optim.layer_decay", 1.0, "adapters of all layers start at zero")
    value = 0.75 if network.depth <= 24 else 0.875
    why = f"layer-wise lr decay, as in MaskFeat's {'S' if value < 0.8 else 'L'}"
    return Suggestion("optim.layer_decay", value, why)


def _mixing(data: DatasetStats, batch_size: int) -> Suggestion:
    """Return None to disable mixing, or `UNCHANGED` to keep the configured one."""
    per_class = data.num_videos / len(data.class_names)
    if batch_size < 2:
        return Suggestion("augment.mixing", None, "MixUp/CutMix needs two clips per step")
    if not data.has_classes:
        return Suggestion("augment.mixing", None, "targets rarely mix as pictures do")
    if per_class < MIN_MIXED:
        why = f"{per_class:.3g} videos per class; MixUp/CutMix is used from {MIN_MIXED}"
        return Suggestion("augment.mixing", None, why)
    return Suggestion(
        "augment.mixing", UNCHANGED, f"MixUp/CutMix: {per_class:.3g} videos per class"
    )


class _Unchanged:
    """Marks a setting that keeps its configured value."""

    def __repr__(self) -> str:
        return "as configured"


UNCHANGED = _Unchanged()


def _flip_prob(data: DatasetStats) -> Suggestion:
    sided = [name for name in data.class_names if SIDES & set(_words(name))]
    if sided:
        becomes = "become another class" if data.has_classes else "have another value"
        why = f"no flipping: {sided[0]!r} would {becomes}"
        return Suggestion("data.train_crop.flip_prob", 0.0, why)
    why = f"no {'class' if data.has_classes else 'target'} name mentions left or right"
    return Suggestion("data.train_crop.flip_prob", 0.5, why)


def _words(name: str) -> list[str]:
    """Split a class name into words: SwipeLeft, swipe_left and "Swipe left" -> swipe, left."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return [part.lower() for part in parts]


def _unreadable_fraction(num_videos: int) -> Suggestion:
    share = round(max(0.01, NUM_REPLACED / num_videos), 3)
    why = "1 % of the videos" if share == 0.01 else f"{NUM_REPLACED} of {num_videos} videos"
    return Suggestion(
        "data.max_unreadable_fraction", share, f"{why} may be unreadable and replaced"
    )


def _reset(data: DatasetStats, network: ModelInfo) -> list[Suggestion]:
    """Return the modules to reinitialize; inflation has a new head anyway."""
    weights = network.weights
    if weights is None or weights.is_image:
        return []
    head = weights.head
    absent = [part for part in ("norm", "head") if part in weights.absent]
    if "head" not in absent and weights.class_names is not None:
        if sorted(weights.class_names) == sorted(data.class_names):
            return [Suggestion("init.reset", absent, f"{weights.name} has exactly these classes")]
        why = f"new head: {weights.name} has {weights.num_classes} other classes"
    elif "head" not in absent:
        why = f"new head: {weights.name} has {weights.num_classes} classes without names"
    else:
        why = f"not in {weights.name}"
    return [Suggestion("init.reset", sorted({*absent, head}), why)]
