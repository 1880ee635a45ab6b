"""The one schema of model cards: types, ranges and sizes of every value, in every container.

A card comes from a file, so that nothing of it is believed: a value of another type or size is
refused with its name. That the fields of a network are those of its configuration is tested.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from video_mvit.class_heads import MAX_HEADS, check_heads
from video_mvit.errors import UserError
from video_mvit.weights.pickle_limits import quoted

MAX_CARD_BYTES = 4 * 2**20
MAX_CLASSES = 50_000
MAX_NAME_LENGTH = 500
MAX_SIDE = 4096
MAX_CROP = 2048
MAX_VALUE = 1e30  # of a target of a regression
WORD = re.compile(r"[\w.+-]{1,100}", re.ASCII)
Check = Callable[[Any], str]  # -> what was expected instead, or ""


def integer(least: int, most: int) -> Check:
    def check(value: Any) -> str:
        is_right = type(value) is int and least <= value <= most
        return "" if is_right else f"an integer from {least} to {most}"

    return check


def number(least: float, most: float, *, above: bool = False) -> Check:
    def check(value: Any) -> str:
        is_right = type(value) in (int, float) and least <= value <= most
        is_right = is_right and not (above and value == least)
        return "" if is_right else f"a number {'above' if above else 'from'} {least} to {most}"

    return check


def choice(*options: str) -> Check:
    def check(value: Any) -> str:
        return "" if type(value) is str and value in options else f"one of {', '.join(options)}"

    return check


def listed(item: Check, least: int, most: int) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, list | tuple) or not least <= len(value) <= most:
            return f"a list of {least if least == most else f'{least} to {most}'} values"
        return next((f"a list of {wanted}" for wanted in map(item, value) if wanted), "")

    return check


def boolean(value: Any) -> str:
    return "" if type(value) is bool else "true or false"


def word(value: Any) -> str:
    is_right = type(value) is str and WORD.fullmatch(value) is not None
    return "" if is_right else "a word of at most 100 letters, digits and . _ + -"


def text(value: Any) -> str:
    if type(value) is not str or len(value) > MAX_NAME_LENGTH:
        return f"a text of at most {MAX_NAME_LENGTH} characters"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "a text in Unicode"
    return ""


def accuracies(value: Any) -> str:
    is_right = isinstance(value, Mapping) and len(value) <= 20
    is_right = is_right and not any(text(name) for name in value)
    is_right = is_right and not any(number(0, 1)(part) for part in value.values())
    return "" if is_right else "at most 20 names with numbers from 0 to 1"


def head_sizes(value: Any) -> str:
    is_right = isinstance(value, Mapping) and 0 < len(value) <= MAX_HEADS
    is_right = is_right and not any(text(name) for name in value)
    is_right = is_right and not any(integer(1, MAX_CLASSES)(size) for size in value.values())
    return "" if is_right else f"1 to {MAX_HEADS} names with numbers of classes"


def accuracies_of_heads(value: Any) -> str:
    is_right = isinstance(value, Mapping) and len(value) <= MAX_HEADS
    is_right = is_right and not any(text(name) for name in value)
    is_right = is_right and not any(map(accuracies, value.values()))
    return "" if is_right else f"at most {MAX_HEADS} names with accuracies"


RATE = number(0, 1)
CHECKPOINTING = choice("none", "light", "selective", "full")
DEPTHS = listed(integer(1, 1000), 4, 4)
CLASSIFIER: Mapping[str, Check] = {  # the fields of MViTConfig
    "num_classes": integer(1, MAX_CLASSES),
    "num_frames": integer(1, 1024),
    "crop_size": integer(1, MAX_CROP),
    "depths": DEPTHS,
    "embed_dim": integer(1, 8192),
    "num_heads": integer(1, 1024),
    "stride_kv": listed(integer(1, 64), 3, 3),
    "cls_token": boolean,
    "head": choice("cls", "mean", "attentive"),
    "head_depth": integer(1, 12),
    "head_num_heads": integer(1, 1024),
    "expand_dim_in": choice("attention", "mlp"),
    "drop_path_rate": RATE,
    "head_dropout": RATE,
    "head_init_scale": number(0, 1000, above=True),
    "activation_checkpointing": CHECKPOINTING,
}
BACKBONE: Mapping[str, Check] = {  # of BackboneConfig
    "depths": DEPTHS,
    "embed_dim": integer(1, 8192),
    "num_heads": integer(1, 1024),
    "pretrain_crop_size": integer(1, MAX_CROP),
    "window": integer(0, MAX_SIDE),
    "stride_kv": integer(1, 64),
    "relative_positions": boolean,
    "absolute_positions": boolean,
    "pretrain_cls_token": boolean,
    "residual_pooling": boolean,
    "drop_path_rate": RATE,
    "activation_checkpointing": CHECKPOINTING,
}
COUNT = integer(1, 100_000)  # of boxes
DETECTOR: Mapping[str, Check] = {  # of DetectorConfig, without its backbone
    "num_classes": integer(1, MAX_CLASSES),
    "heads": choice("mask_rcnn", "cascade_batch_norm", "cascade_layer_norm"),
    "square_pad": integer(0, MAX_SIDE),
    "fpn_channels": integer(1, 8192),
    "fc_channels": integer(1, 65536),
    "mask_channels": integer(1, 8192),
    "num_anchors_sampled": COUNT,
    "num_candidates_train": COUNT,
    "num_candidates_test": COUNT,
    "num_proposals": COUNT,
    "num_boxes_sampled": COUNT,
    "score_threshold": RATE,
    "suppression": choice("nms", "soft_nms"),
    "nms_threshold": RATE,
    "num_detections": COUNT,
}
CARD: Mapping[str, Check] = {
    "variant": word,
    "frame_stride": integer(1, 100_000),
    "short_side": integer(1, MAX_SIDE),
    "max_side": integer(1, MAX_SIDE),
    "sampling": choice("strided", "segments"),
    "interpolation": choice("bilinear", "bicubic"),
    "mean": listed(number(-1000, 1000), 3, 3),
    "std": listed(number(0, 1000, above=True), 3, 3),
    "class_names": listed(text, 1, MAX_CLASSES),
    "category_ids": listed(integer(0, 2**31), 1, MAX_CLASSES),
    "task": choice("single_label", "multi_label", "multi_head", "regression"),
    "heads": head_sizes,
    "combine_views": choice("mean", "max"),
    "target_mean": listed(number(-MAX_VALUE, MAX_VALUE), 1, MAX_CLASSES),
    "target_std": listed(number(0, MAX_VALUE, above=True), 1, MAX_CLASSES),
    "key_format": word,
    "license": word,
    "origin": word,
}
EVALUATION: Mapping[str, Check] = {  # of results.json, what others need to compare the number
    "protocol": text,
    "map": RATE,
    "all_top1": RATE,
    "all_top5": RATE,
    "heads": accuracies_of_heads,
    "mae": number(0, 2 * MAX_VALUE),
    "r2": number(-1e300, 1),
    "top1": RATE,
    "top5": RATE,
    "mean_class_accuracy": RATE,
    "calibration_error": RATE,
    "motion": accuracies,
    "num_videos": integer(0, 2**32),
    "num_listed": integer(0, 2**32),
    "list_sha1": word,
    "weights_sha1": word,
}
NEEDED_RESULTS = (  # of one label, of several, of several heads, of numbers
    ("protocol", "top1", "top5"),
    ("protocol", "map"),
    ("protocol", "all_top1"),
    ("protocol", "mae"),
)


def read_json(text: str, where: str) -> Any:
    """Parse JSON; raises `UserError` for damage, deep nesting, NaN and keys that occur twice."""
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        raise UserError(f"{where} is not JSON that anybody writes for a model") from None


def check_card(values: Mapping[str, Any], where: str) -> None:
    """Check the fields of a card that are known; `where` names its file in a `UserError`."""
    model = values.get("model")
    if not isinstance(model, Mapping):
        raise UserError(f"{where} has no model configuration")
    is_detector = "backbone" in model
    check_fields(model, DETECTOR if is_detector else CLASSIFIER, f"{where}: model", strict=True)
    if is_detector:
        backbone = model["backbone"]
        if not isinstance(backbone, Mapping):
            raise UserError(f"{where}: model.backbone is a {_kind(backbone)}, expected its fields")
        check_fields(backbone, BACKBONE, f"{where}: model.backbone", strict=True)
    check_fields(values, CARD, where, strict=False)
    if values.get("evaluation") is not None:
        check_evaluation(values["evaluation"], f"{where}: evaluation")
    _check_counts(values, model, where)


def check_evaluation(values: Any, where: str) -> None:
    """Check the results of an evaluation; raises `UserError`."""
    if not isinstance(values, Mapping) or not has_results(values):
        raise UserError(f"{where} has no protocol, or none of top1 and top5, map, all_top1 or mae")
    check_fields(values, EVALUATION, where, strict=False)


def has_results(values: Mapping[str, Any]) -> bool:
    """Return whether the numbers of an evaluation are there, of any task."""
    return any(set(names) <= set(values) for names in NEEDED_RESULTS)


def check_class_names(names: Any, where: str) -> None:
    """Check a list of class names, which may be empty; raises `UserError`."""
    if wanted := listed(text, 0, MAX_CLASSES)(names):
        raise UserError(f"{where}: class_names is a {_kind(names)}, expected {wanted}")


def check_fields(
    values: Mapping[str, Any], checks: Mapping[str, Check], where: str, *, strict: bool
) -> None:
    """Check the values that have a check; None stands for no value. `strict`: no other fields."""
    for name, value in values.items():
        if name not in checks:
            if strict and name != "backbone":
                raise UserError(f"{where} has an unknown field {quoted(name)}")
        elif value is None and not strict:
            continue
        elif wanted := checks[name](value):
            separator = "." if strict else ": "
            raise UserError(f"{where}{separator}{name} is {_shown(value)}, expected {wanted}")


def _check_counts(values: Mapping[str, Any], model: Mapping[str, Any], where: str) -> None:
    names, ids = values.get("class_names"), values.get("category_ids")
    num_classes = model.get("num_classes")
    if names is not None and num_classes not in (None, len(names)):
        raise UserError(f"{where}: {len(names)} class names for {num_classes} classes")
    if values.get("task") == "regression":
        _check_targets(values, num_classes, where)
    if ids is not None and num_classes not in (None, len(ids)):
        raise UserError(f"{where}: {len(ids)} category_ids for {num_classes} classes")
    heads = values.get("heads")
    if (heads is None) == (values.get("task") == "multi_head"):
        raise UserError(f"{where}: heads are of the task multi_head, which needs them")
    if heads is not None:
        try:
            check_heads(heads, names, num_classes)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None


def _check_targets(values: Mapping[str, Any], num_classes: int | None, where: str) -> None:
    """Check that a card of numbers names each of its targets, and says its scale."""
    for name in ("class_names", "target_mean", "target_std"):
        value = values.get(name)
        if value is None:
            raise UserError(f"{where}: a card of a regression has no {name}")
        if len(value) != num_classes:
            raise UserError(f"{where}: {name} has {len(value)} values for {num_classes} targets")
    if len(set(values["class_names"])) < len(values["class_names"]):
        raise UserError(f"{where}: two targets have the same name")


def _shown(value: Any) -> str:
    """Return a number as it is, anything else by its kind."""
    is_number = isinstance(value, int | float) and abs(value) < 1e15
    return repr(value) if is_number or value is None else f"a {_kind(value)}"


def _kind(value: Any) -> str:
    kind = type(value).__name__
    kinds = {"dict": "mapping", "str": "text", "tuple": "list"}
    return kinds.get(kind, kind)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise UserError(f"{quoted(twice)} occurs twice")
    return content


def _no_constant(name: str) -> Any:
    raise UserError(f"{name} is not a number of JSON")
