"""The input that a model expects: frames, stride, pixels, class names; from card or published."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

from torch import nn

from video_mvit.data.dataset import ClipPipeline
from video_mvit.data.sampling import (
    SHORT_SIDE,
    TARGET_FPS,
    ClipSpec,
    SegmentFrames,
    UniformClips,
    published_stride,
)
from video_mvit.data.transforms.cropping import Interpolation, UniformCrops, check_interpolation
from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import SOFTMAX, Scoring

Sampling = Literal["strided", "segments"]
STRIDED_VIEWS = (5, 1)  # clips, crops per video: published Kinetics models
SEGMENT_VIEWS = (1, 3)  # published Something-Something models
IMAGE_STEP_S = 1.0


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """How the pixels of a video become clips for one model, and the classes of its logits.

    `num_frames` and `crop_size` are the model's own. `assumed` names fields without a source.
    `scoring` says how logits become scores.
    """

    num_frames: int
    crop_size: int
    frame_stride: int
    short_side: int
    sampling: Sampling
    interpolation: Interpolation
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    assumed: tuple[str, ...] = ()
    scoring: Scoring = SOFTMAX

    def __post_init__(self) -> None:
        if self.sampling not in get_args(Sampling):
            raise UserError(f"sampling {self.sampling!r} is none of 'strided', 'segments'")
        check_interpolation(self.interpolation)
        for name in ("frame_stride", "short_side"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"{name} is {value!r}, expected a positive int")

    @property
    def clip(self) -> ClipSpec:
        """Return the frames and stride of a clip."""
        return ClipSpec(num_frames=self.num_frames, frame_stride=self.frame_stride)

    @property
    def thw(self) -> tuple[int, int, int]:
        """Return frames, height and width of a clip."""
        return self.num_frames, self.crop_size, self.crop_size

    @property
    def clip_s(self) -> float:
        """Return the duration of a strided clip in seconds."""
        return self.frame_stride * self.num_frames / TARGET_FPS

    @property
    def step_s(self) -> float:
        """Return the step of a timeline in seconds: half a clip, or one second for image models."""
        return self.clip_s / 2 if self.num_frames > 1 else IMAGE_STEP_S

    def pipeline(self, num_clips: int | None = None, num_crops: int | None = None) -> ClipPipeline:
        """Return the pipeline of a video, as in an evaluation; None: as published."""
        published = STRIDED_VIEWS if self.sampling == "strided" else SEGMENT_VIEWS
        num_clips, num_crops = num_clips or published[0], num_crops or published[1]
        return ClipPipeline(sampler=self._sampler(num_clips), crop=self.crop(num_crops))

    def crop(self, num_crops: int = 1) -> UniformCrops:
        """Return the test crop."""
        return UniformCrops(
            size=self.crop_size,
            short_side=self.short_side,
            num_crops=num_crops,
            interpolation=self.interpolation,
        )

    def _sampler(self, num_clips: int) -> UniformClips | SegmentFrames:
        if self.sampling == "strided":
            return UniformClips(clip=self.clip, num_clips=num_clips)
        if num_clips != 1:
            raise UserError(
                f"num_clips is {num_clips}, but a segment-based model covers a whole video "
                "with one clip"
            )
        return SegmentFrames(clip=self.clip, at="middle")

    def describe_assumed(self) -> str:
        """Format the assumed values as command-line overrides."""
        shown = []
        for name in self.assumed:
            value = getattr(self, name)
            if isinstance(value, tuple):
                value = (
                    "numbers" if name == "class_names" else f"[{','.join(f'{v:g}' for v in value)}]"
                )
            shown.append(f"{name}={value}")
        return " ".join(shown)


class Sizes(NamedTuple):
    """What a network expects of a clip, and how many logits it gives."""

    num_frames: int
    crop_size: int
    num_classes: int


def sizes_of(model: nn.Module) -> Sizes:
    """Return the sizes of a network: of its configuration, or of its card if it is no MViT.

    Raises `UserError` for a network that has neither.
    """
    card = getattr(model, "card", None)
    config = getattr(model, "config", None)
    of_config = {name: getattr(config, name, None) for name in Sizes._fields}
    for said in (of_config, card.model if card else {}):
        values = {name: said.get(name) for name in Sizes._fields}
        found = {name: value for name, value in values.items() if isinstance(value, int)}
        if len(found) == len(values):
            return Sizes(**found)
    raise UserError(
        f"a {type(model).__name__} does not say its {', '.join(Sizes._fields)}; load it with "
        "video_mvit.load_model(CHECKPOINT, model=...) from a checkpoint of video-mvit train"
    )


OVERRIDES = tuple(
    field.name
    for field in fields(InputSpec)
    if field.name not in ("num_frames", "crop_size", "assumed", "scoring")
)


def input_spec_of(
    model: nn.Module,
    published: tuple[Sequence[float], Sequence[float]],
    overrides: Mapping[str, Any],
) -> InputSpec:
    """Return the input of a model: `overrides`, else its card, else the published values.

    `published` are mean and std for such a network. Overrides that are None do not count. Raises
    `UserError` if the model does not say its sizes, or a value is invalid.
    """
    sizes = sizes_of(model)
    if unknown := [name for name in overrides if name not in OVERRIDES]:
        raise UserError(f"unknown option {unknown[0]!r}; known: {', '.join(OVERRIDES)}")
    num_frames, is_image = sizes.num_frames, sizes.num_frames == 1
    values: dict[str, Any] = {
        "frame_stride": 1 if is_image else published_stride(num_frames),
        "short_side": round(sizes.crop_size * SHORT_SIDE),
        "sampling": "strided",
        "interpolation": "bicubic" if is_image else "bilinear",
        "mean": published[0],
        "std": published[1],
        "class_names": [f"class {label}" for label in range(sizes.num_classes)],
    }
    card = getattr(model, "card", None)
    known = asdict(card) if card is not None else {}
    stated = {name: known.get(name) for name in values}
    stated |= {name: value for name, value in overrides.items() if value is not None}
    stated = {name: value for name, value in stated.items() if value is not None}
    values |= stated
    for name in ("mean", "std", "class_names"):
        values[name] = tuple(values[name])
    if len(values["class_names"]) != sizes.num_classes:
        num_named = len(values["class_names"])
        raise UserError(f"{num_named} class names for {sizes.num_classes} classes")
    free = {"frame_stride"} if is_image or values["sampling"] == "segments" else set()
    assumed = tuple(name for name in values if name not in stated and name not in free)
    return InputSpec(
        num_frames=num_frames,
        crop_size=sizes.crop_size,
        assumed=assumed,
        scoring=scoring_of(known),
        **values,
    )


def scoring_of(card: Mapping[str, Any]) -> Scoring:
    """Return how the logits of a network become scores, by the fields of its card."""
    if card.get("task") == "regression":
        return Scoring(
            task="regression",
            target_mean=tuple(card["target_mean"]),
            target_std=tuple(card["target_std"]),
        )
    if card.get("task") == "multi_head":
        return Scoring(task="multi_head", heads=card["heads"])
    if card.get("task") != "multi_label":
        return SOFTMAX
    return Scoring(task="multi_label", combine_views=card.get("combine_views") or "mean")
