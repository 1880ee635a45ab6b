"""Model card: a JSON file beside the weights that describes them, in plain values."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from video_mvit.class_heads import check_heads
from video_mvit.errors import MissingFileError, UserError
from video_mvit.renamed import rename_card
from video_mvit.weights.card_schema import (
    EVALUATION,
    check_card,
    check_evaluation,
    has_results,
    read_json,
)

FORMAT = "video_mvit 1"
OWN_NAMES = "own"  # key format of a network that is no MViTv2
MAX_RESULTS_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """All that is needed to use a model, and its measured accuracy, if known.

    Attributes:
        model: fields of `MViTConfig`, or of `DetectorConfig`; of another network its num_classes,
            num_frames and crop_size.
        variant: row of the table of variants that it is based on.
        frame_stride: frames between two sampled frames at 30 frames per second.
        short_side: pixels of the short side of a frame before the test crop.
        max_side: most pixels of the long side; of detectors.
        sampling: of test clips: "strided", or one frame of each of "segments".
        interpolation: how frames are resized: "bilinear" or "bicubic".
        mean, std: normalization of pixels in 0..1, for R, G, B.
        class_names: in the order of the logits.
        category_ids: of the classes in annotation files; of detectors.
        task: "multi_label" of a network whose logits are of one class each (sigmoid), "multi_head"
            of one with several heads, "regression" of one whose logits are standardized values;
            None of one whose classes exclude each other (softmax).
        heads: of a network of several: their names and numbers of classes, in the order of the
            logits, each a softmax; its class names are such as "verb: open".
        combine_views: how scores of views become those of a video, "mean" or "max"; of multi_label.
        target_mean, target_std: of a regression: a value is a logit times the standard deviation of
            its target plus the mean; `class_names` are the names of the targets.
        key_format: of the file that the weights came from; "own" of a network that is no MViTv2.
        license: of the weights that training started from, if known: an SPDX identifier.
        origin: name of the published weights that it was made from, if any.
        evaluation: from `video-mvit evaluate`: protocol, accuracies, hash of the list.
    """

    model: Mapping[str, Any]
    variant: str | None = None
    frame_stride: int | None = None
    short_side: int | None = None
    max_side: int | None = None
    sampling: str | None = None
    interpolation: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    category_ids: tuple[int, ...] | None = None
    task: str | None = None
    heads: Mapping[str, int] | None = None
    combine_views: str | None = None
    target_mean: tuple[float, ...] | None = None
    target_std: tuple[float, ...] | None = None
    key_format: str | None = None
    license: str | None = None
    origin: str | None = None
    evaluation: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std", "class_names", "category_ids", "target_mean", "target_std"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        num_classes = self.model.get("num_classes")
        if self.class_names is not None and num_classes not in (None, len(self.class_names)):
            raise UserError(f"{len(self.class_names)} class names for {num_classes} classes")
        if self.heads is not None:
            check_heads(self.heads, self.class_names, num_classes)

    def write(self, path: Path, weights_sha1: str | None = None) -> None:
        path.write_text(self.to_json(weights_sha1) + "\n", encoding="utf-8")

    def to_json(self, weights_sha1: str | None = None) -> str:
        """Format the card, with the hash of the weights that it lies beside, if any."""
        head = {"format": FORMAT, "weights_sha1": weights_sha1}
        known = {name: value for name, value in head.items() if value is not None}
        return json.dumps({**known, **asdict(self)}, indent=2, ensure_ascii=False)


def read_card(text: str, where: str) -> ModelCard:
    """Read a card from its JSON text; `where` names the file in errors (`UserError`)."""
    return read_card_and_hash(text, where)[0]


def read_card_and_hash(text: str, where: str) -> tuple[ModelCard, str | None]:
    """Read a card and the hash of its weights, None if it has none; raises as `read_card`."""
    content = read_json(text, where)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{where} is not a model card (format {FORMAT!r})")
    weights_sha1 = content.get("weights_sha1")
    if not isinstance(weights_sha1, str | None):
        raise UserError(f"{where}: weights_sha1 is not a text")
    return card_of(content, where), weights_sha1


def card_of(content: Mapping[str, Any], where: str) -> ModelCard:
    """Return the card with these values, of any container, once they are checked.

    Unknown fields are of later versions, and ignored. Raises `UserError` that names the field.
    """
    known = {field.name for field in fields(ModelCard)}
    values = {name: value for name, value in rename_card(content).items() if name in known}
    check_card(values, where)
    if values.get("evaluation") is not None:
        results = values["evaluation"].items()
        values["evaluation"] = {name: value for name, value in results if name in EVALUATION}
    return ModelCard(**values)


def describe_numbers(result: Mapping[str, Any]) -> str:
    """Tell the main number of an evaluation in a few words."""
    if "mae" in result:
        r2 = "" if result.get("r2") is None else f", R2 {result['r2']:.3f}"
        return f"mean absolute error {result['mae']:.4g}{r2}"
    titles = {"map": "mAP", "all_top1": "top-1 of all heads together", "top1": "top-1"}
    name, shown = next(pair for pair in titles.items() if pair[0] in result)
    return f"{shown} {100 * result[name]:.1f} %"


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """Read the metrics of a results.json of video-mvit evaluate, with their protocol.

    Raises `FileNotFoundError` or `UserError`.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no results {path}; video-mvit evaluate writes them")
    content = None
    if path.stat().st_size <= MAX_RESULTS_BYTES:
        content = read_json(path.read_text(encoding="utf-8", errors="replace"), str(path))
    if not isinstance(content, dict) or not has_results(content):
        raise UserError(f"{path} is not a results.json of video-mvit evaluate")
    found = {name: content[name] for name in EVALUATION if name in content}
    check_evaluation(found, str(path))
    return found
