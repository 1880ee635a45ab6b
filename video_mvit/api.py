"""The public functions of `video_mvit`: build, load and use a model."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Literal, overload

from video_mvit.errors import UserError
from video_mvit.models.config import MViTConfig, variant_config
from video_mvit.models.mvit import MViT
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


def load_model(
    path_or_hub_id: str,
    *,
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
    weights: str = "ema",
    **overrides: Any,
) -> MViT:
    """Load a model with the weights of a file, or of "owner/name" on a hub, in evaluation mode.

    Any file with an MViTv2 classifier works: an exported model, a training checkpoint, or a file of
    SlowFast, mvit, torchvision, timm or mmaction2; the architecture is inferred from the shapes.
    Other information of an exported file or checkpoint (class names, normalization, ...) is in
    `model.card`. `load_model("MVITv2_S.pyth", num_classes=12, reset=["head"])` starts a fine-tune.

    Args:
        reset: modules that stay as initialized; see `video_mvit.weights.load.plan_load`.
        ignore: modules of the file that are not used.
        weights: of a file with several networks: "ema" (the raw weights where there is no EMA),
            "raw", or the name of the container or prefix of one.
        overrides: fields of `MViTConfig` that replace those of the file, for example `crop_size`.

    Raises:
        UserError, FileNotFoundError: in one sentence, if nothing matches.
    """
    source = read_source(path_or_hub_id, weights)
    model = MViT(variant_config("mvitv2_s", **{**source.architecture, **overrides}))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    plan = plan_load(source, shapes, reset, ignore)
    plan.apply(model)
    if source.card is not None:
        keeps_head = "head.projection.weight" in plan.state
        model.card = replace(
            source.card,
            model=asdict(model.config),
            short_side=None if "crop_size" in overrides else source.card.short_side,
            class_names=source.card.class_names if keeps_head else None,
            evaluation=None if overrides or reset else source.card.evaluation,
        )
    return model.eval()


@overload
def predict(
    model: MViT, video: "VideoSource", *, fps: float | None = None, **options: Any
) -> "Prediction": ...


@overload
def predict(
    model: MViT, video: "Sequence[VideoSource]", *, fps: float | None = None, **options: Any
) -> "list[Prediction]": ...


def predict(  # noqa: PLR0913
    model: MViT,
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
    if not isinstance(getattr(model, "config", None), MViTConfig):
        raise UserError(f"model is of type {type(model).__name__}, expected one of load_model")
    spec = input_spec_of(model, published_normalization(asdict(model.config)), overrides)
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
