"""The public functions of `video_mvit`: build, load and use a model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from torch import nn

from video_mvit.errors import UserError
from video_mvit.models.config import MViTConfig, variant_config
from video_mvit.models.mvit import MViT
from video_mvit.weights.initialize import FromWeights, initialize_from
from video_mvit.weights.load import plan_load, read_source

if TYPE_CHECKING:
    from video_mvit.prediction.predictor import Prediction
    from video_mvit.prediction.sources import VideoSource


def create_model(name: str, **overrides: Any) -> MViT:
    """Build a model with fresh weights: a row of `models.config.VARIANTS`, some fields replaced.

    `create_model("mvitv2_s", num_classes=174)(clip)` maps normalized float clips (B, 3, 16, 224,
    224) to logits (B, 174). Raises `UserError` on an unknown name, an unknown field or an
    impossible value.
    """
    return MViT(variant_config(name, **overrides))


ModelT = TypeVar("ModelT", bound=nn.Module)
# Fields of a card that a new head does not have.
OF_HEAD: dict[str, Any] = dict.fromkeys(
    ("class_names", "task", "heads", "combine_views", "target_mean", "target_std")
)


@overload
def load_model(
    path_or_hub_id: str | Path,
    *,
    model: ModelT,
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
    weights: str = "ema",
    base: str | None = None,
) -> ModelT: ...


@overload
def load_model(
    path_or_hub_id: str | Path,
    *,
    model: None = None,
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
    weights: str = "ema",
    base: str | None = None,
    **overrides: Any,
) -> MViT: ...


def load_model(
    path_or_hub_id: str | Path,
    *,
    model: nn.Module | None = None,
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
    weights: str = "ema",
    base: str | None = None,
    **overrides: Any,
) -> nn.Module:
    """Load a model with the weights of a file, or of "owner/name" on a hub, in evaluation mode.

    Any file with an MViTv2 classifier works: an exported model, a training checkpoint, or a file of
    SlowFast, mvit, torchvision, timm or mmaction2; the architecture is inferred from the shapes.
    Other information of an exported file or checkpoint (class names, normalization, ...) is in
    `model.card`. `load_model("MVITv2_S.pyth", num_classes=12, reset=["head"])` starts a fine-tune:
    with `reset`, the model is in training mode, as part of it is still to be trained.

    Args:
        model: a network of your own to set the weights of, from a file with its names; it is
            returned. None: an MViTv2 is built.
        reset: modules that stay as initialized; see `video_mvit.weights.load.plan_load`.
        ignore: modules of the file that are not used.
        weights: of a file with several networks: "ema" (the raw weights where there is no EMA),
            "raw", or the name of the container or prefix of one.
        base: of an adapter, the weights that it was trained on; None: the published ones that its
            card names.
        overrides: fields of `MViTConfig` that replace those of the file, for example `crop_size`.

    Raises:
        UserError, FileNotFoundError: in one sentence, if nothing matches.
    """
    if model is not None:
        return _load_own(model, str(path_or_hub_id), weights, reset, ignore, overrides)
    source = read_source(path_or_hub_id, weights, base)
    built = MViT(variant_config("mvitv2_s", **{**source.architecture, **overrides}))
    shapes = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    plan = plan_load(source, shapes, reset, ignore)
    plan.apply(built)
    if source.card is not None:
        keeps_head = "head.projection.weight" in plan.state
        card = source.card if keeps_head else replace(source.card, **OF_HEAD)
        built.card = replace(
            card,
            model=asdict(built.config),
            short_side=None if "crop_size" in overrides else card.short_side,
            evaluation=None if overrides or reset else card.evaluation,
        )
    return built.train(mode=bool(reset))


def _load_own(
    model: nn.Module,
    path: str,
    weights: str,
    reset: Sequence[str],
    ignore: Sequence[str],
    overrides: Mapping[str, Any],
) -> nn.Module:
    """Set the weights of a network that the caller built, and its card, if the file has one."""
    if overrides:
        raise UserError(f"{', '.join(overrides)} are of an MViTv2; build your own model with them")
    init = FromWeights(source=path, reset=reset, ignore=ignore, weights=weights)
    source, _ = initialize_from(init, model)
    if source.card is not None:
        card = replace(source.card, **OF_HEAD, evaluation=None) if reset else source.card
        vars(model)["card"] = card
    return model.train(mode=bool(reset))


@overload
def predict(
    model: nn.Module, video: "VideoSource", *, fps: float | None = None, **options: Any
) -> "Prediction": ...


@overload
def predict(
    model: nn.Module, video: "Sequence[VideoSource]", *, fps: float | None = None, **options: Any
) -> "list[Prediction]": ...


def predict(  # noqa: PLR0913
    model: nn.Module,
    video: "VideoSource | Sequence[VideoSource]",
    *,
    fps: float | None = None,
    num_clips: int | None = None,
    num_crops: int | None = None,
    timeline: bool | Literal["auto"] = "auto",
    min_score: float = 0.5,
    **overrides: Any,
) -> "Prediction | list[Prediction]":
    """Predict a video: the mean softmax over its views, as in an evaluation.

    `predict(load_model("best.ckpt"), "clip.mp4").top(5)` gives names and scores of five classes.
    For many files, `video_mvit.prediction.predictor.predict_videos` yields each as soon as it is
    ready.

    Args:
        model: of `load_model`, which may be a network of your own.
        video: a path of a video, picture or folder of pictures; an address that fsspec reads
            (`https://`, `s3://`, ...); the bytes of a file; a file opened for reading bytes; frames
            (T, H, W, 3) uint8, RGB, as a NumPy array or tensor. A list of them gives a list of
            predictions, where one that cannot be read has the reason in `.problem`.
        fps: frames per second, of an array.
        num_clips, num_crops: views of the video; None: 5 x 1, or 1 x 3 for segment-based models.
        timeline: also slide a window of one clip over the video, which gives `.segments`; "auto":
            if it is longer than ten clips.
        min_score: segments in which no class scores so much are uncertain, their label is None.
        overrides: fields that the model's card lacks, or that replace them: `frame_stride`,
            `short_side`, `sampling`, `interpolation`, `mean`, `std`, `class_names`.

    Raises:
        VideoDecodeError: if the video cannot be read.
        UserError, FileNotFoundError: in one sentence, if a value is invalid.
    """
    from video_mvit.data.reading.open import VideoDecodeError
    from video_mvit.prediction.input_spec import input_spec_of
    from video_mvit.prediction.predictor import Options, predict_videos
    from video_mvit.prediction.scorer import Scorer
    from video_mvit.prediction.sources import local_files
    from video_mvit.weights.convert import published_normalization

    model = getattr(model, "module", model)  # of DataParallel
    if not isinstance(model, nn.Module):
        raise UserError(f"model is of type {type(model).__name__}, expected one of load_model")
    config = getattr(model, "config", None)
    architecture = asdict(config) if isinstance(config, MViTConfig) else {}
    spec = input_spec_of(model, published_normalization(architecture), overrides)
    options = Options(
        num_clips=num_clips, num_crops=num_crops, timeline=timeline, min_score=min_score
    )
    is_list = isinstance(video, list | tuple)
    sources: Any = video if is_list else [video]
    with local_files(sources, fps) as files:
        found = predict_videos(Scorer(model, spec), [file.path for file in files], options)
        predictions = [
            replace(each, video=file.name) for each, file in zip(found, files, strict=True)
        ]
    if is_list:
        return predictions
    if predictions[0].problem:
        raise VideoDecodeError(predictions[0].video, predictions[0].problem)
    return predictions[0]
