"""Read, check and write the output folder of a detection evaluation."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from video_mvit.detection.coco_ap import GroundTruth, Row
from video_mvit.detection.result_schema import row_check_of
from video_mvit.detection.results import (
    IDENTITY,
    DetectionResult,
    RowsOfImages,
    read_detection_result,
    rows_of_file,
)
from video_mvit.errors import MissingFileError, UserError
from video_mvit.evaluation.output_folder import (
    REPORT,
    RESULTS,
    partial_files,
    partial_identities,
    refuse_others,
)
from video_mvit.evaluation.predictions import identity_of, read_partial_file
from video_mvit.files import replace_atomically
from video_mvit.schema import MismatchError, member, parse_json, row, sequence

DETECTIONS = "detections.json"  # COCO's result format: one list of rows
FILES = (RESULTS, DETECTIONS, REPORT)  # of a finished evaluation


def write_detections(path: Path, ground_truth: GroundTruth, found: RowsOfImages) -> None:
    """Write all rows as a COCO result file, one row per line, atomically."""
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", encoding="utf-8") as file,
    ):
        rows = map(json.dumps, rows_of_file(ground_truth, found))
        file.write("[")
        for number, row in enumerate(rows):
            file.write(f"{',' if number else ''}\n{row}")
        file.write("\n]\n")


def read_detections(
    path: Path, image_ids: Iterable[int], ground_truth: GroundTruth
) -> RowsOfImages:
    """Read a COCO result file; of the images, those without rows have an empty list."""
    if not path.is_file():
        raise MissingFileError(f"no detections {path}; video-mvit evaluate writes them")
    by_image: dict[int, list[Row]] = defaultdict(list)
    try:
        for found in sequence(row_check_of(ground_truth))(parse_json(path.read_bytes())):
            by_image[found["image_id"]].append(found)
    except MismatchError as error:
        raise UserError(
            f"{path} is not the COCO result file of these images: {error}; evaluate again"
        ) from None
    return {image_id: by_image[image_id] for image_id in image_ids}


def read_finished(folder: Path, ground_truth: GroundTruth) -> tuple[DetectionResult, RowsOfImages]:
    """Read numbers and rows of a finished evaluation; raises `UserError` in one sentence."""
    result = read_detection_result(folder / RESULTS)
    left_out = {*result.missing, *result.unreadable}
    evaluated = [
        image["id"] for image in ground_truth["images"] if image["file_name"] not in left_out
    ]
    return result, read_detections(folder / DETECTIONS, evaluated, ground_truth)


def read_resumed_detections(
    folder: Path, identity: Mapping[str, Any], ground_truth: GroundTruth
) -> RowsOfImages:
    """Read the rows of all images that this run or an earlier one has finished."""
    known: RowsOfImages = {}
    listed = {image["id"] for image in ground_truth["images"]}
    image_rows = row(member(listed), sequence(row_check_of(ground_truth)))
    if (folder / RESULTS).is_file():
        known = read_finished(folder, ground_truth)[1]
    for path in partial_files(folder):
        if identity_of(path) == identity:
            items = (item for _, item in read_partial_file(path, image_rows))
            known |= {image_id: list(rows) for image_id, rows in items}
    return known


def check_detection_folder(folder: Path, identity: Mapping[str, Any]) -> None:
    """Raise `UserError` where the folder holds another evaluation."""
    before: Sequence[Mapping[str, Any]] = partial_identities(folder)
    if (folder / RESULTS).is_file():
        try:
            before = [read_detection_result(folder / RESULTS).origin.identity]
        except UserError:
            before = [{}]
    refuse_others(folder, before, identity, IDENTITY)
