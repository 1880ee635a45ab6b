"""What the files of a detection evaluation hold, to be checked before they are used."""

from collections.abc import Collection, Mapping
from typing import Any

from video_mvit.detection.coco_ap import ApNumbers, ClassAp
from video_mvit.detection.data.annotations import check_run_lengths, decode_run_lengths
from video_mvit.schema import (
    MAX_INT64,
    Check,
    MismatchError,
    anything,
    member,
    number,
    one_of,
    optional,
    record,
    row,
    sequence,
    table,
    text,
    whole,
)

MAX_RLE = 2**27  # characters of a mask
SHARE = optional(number(-1.0, 1.0))
KIND_NAMES = ("box", "mask")
AP_NUMBERS = record(dict.fromkeys(ApNumbers._fields, SHARE))
CLASS_AP = record(
    {
        **dict.fromkeys(ClassAp._fields, SHARE),
        "category_id": whole(-MAX_INT64),
        "name": text(),
        "num_objects": whole(),
    }
)
DETECTION_RESULT = record(
    {
        "protocol": text(),
        "settings": table(anything),
        "evaluator": one_of("pycocotools", "faster-coco-eval"),
        **dict.fromkeys(("precision", "annotations_sha1", "weights_sha1"), text()),
        **dict.fromkeys(("checkpoint", "weights", "image_root"), text()),
        "class_names": sequence(text(), low=1),
        "category_ids": sequence(whole(-MAX_INT64), low=1),
        "versions": table(text()),
        "box": AP_NUMBERS,
        "mask": optional(AP_NUMBERS),
        **dict.fromkeys(("box_classes", "mask_classes"), sequence(CLASS_AP)),
        "bounds": table(row(number(-1.0, 1.0), number(-1.0, 1.0)), KIND_NAMES),
        "curves": table(table(sequence(number(-1.0, 1.0))), KIND_NAMES),
        **dict.fromkeys(("num_images", "num_listed", "num_objects"), whole()),
        **dict.fromkeys(("num_detections", "num_resumed"), whole()),
        "missing": sequence(text()),
        "unreadable": table(text()),
        **dict.fromkeys(("time_s", "images_per_s"), number(0.0)),
    }
)


def row_check(sizes: Mapping[int, tuple[int, int]], category_ids: Collection[int]) -> Check:
    """Return the check of a row of detections; `sizes` are (height, width) by image id."""
    fields = record(
        {
            "image_id": member(sizes),
            "category_id": member(frozenset(category_ids)),
            "bbox": row(*(number(),) * 4),
            "score": number(0.0, 1.0),
            "segmentation": record({"size": row(whole(1), whole(1)), "counts": text(MAX_RLE)}),
        }
    )

    def check(value: Any) -> dict[str, Any]:
        found: dict[str, Any] = fields(value)
        size, mask = sizes[found["image_id"]], found["segmentation"]
        if mask["size"] != size:
            raise MismatchError("its mask has another size than the image")
        try:
            counts = mask["counts"].encode("ascii")
            check_run_lengths(decode_run_lengths(counts), size[0] * size[1])
        except ValueError as error:
            reason = "characters of no RLE" if isinstance(error, UnicodeError) else error
            raise MismatchError(f"its mask: {reason}") from None
        return {**found, "bbox": list(found["bbox"]), "segmentation": {**mask, "size": list(size)}}

    return check


def row_check_of(ground_truth: Mapping[str, Any]) -> Check:
    """Return the check of a row of detections in images of a ground truth."""
    sizes = {each["id"]: (each["height"], each["width"]) for each in ground_truth["images"]}
    return row_check(sizes, [each["id"] for each in ground_truth["categories"]])
