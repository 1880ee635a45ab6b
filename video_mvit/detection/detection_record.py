"""Tell the loggers of a detector's run how it was evaluated: AP, and AP by class."""

from collections.abc import Iterator

from pytorch_lightning.loggers import Logger

from video_mvit.detection.results import DetectionResult
from video_mvit.text import printable
from video_mvit.training.logger_content import Scalar, Table, log_table

COLUMNS = ("class", "objects", "box AP", "mask AP")


def record_detections(log: Logger, result: DetectionResult, step: int) -> None:
    """Write an evaluation of a detector's run to one of its loggers."""
    named = {"box": result.box, **({"mask": result.mask} if result.mask else {})}
    metrics = {
        f"test/{kind}_{name}": value
        for kind, numbers in named.items()
        for name, value in numbers._asdict().items()
        if value is not None
    }
    log.log_metrics(metrics, step)
    log_table(log, "test/classes", Table(COLUMNS, list(_rows(result))), step)
    log.save()


def _rows(result: DetectionResult) -> Iterator[tuple[Scalar, ...]]:
    masks = {each.category_id: each.ap for each in result.mask_classes}
    for each in result.box_classes:
        mask_ap = masks.get(each.category_id)
        box_ap = "" if each.ap is None else each.ap
        yield printable(each.name), each.num_objects, box_ap, "" if mask_ap is None else mask_ap
