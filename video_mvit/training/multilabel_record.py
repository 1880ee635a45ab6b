"""What an evaluation with several labels writes to the loggers of its run."""

from collections.abc import Sequence

from pytorch_lightning.loggers import Logger

from video_mvit.evaluation.multilabel_predictions import MultiLabelVideo
from video_mvit.evaluation.multilabel_results import MultiLabelResult
from video_mvit.text import printable
from video_mvit.training.logger_content import Table, log_table

COLUMNS = ("class", "videos", "average precision", "recall", "precision", "F1")


def record_multilabel(
    log: Logger, result: MultiLabelResult, _: Sequence[MultiLabelVideo], step: int
) -> None:
    """Write an evaluation of a run to one of its loggers."""
    numbers = result.numbers._asdict()
    numbers.pop("num_classes")
    log.log_metrics({f"test/{name}": value for name, value in numbers.items()}, step)
    rows = [
        (
            printable(result.origin.class_names[each.label]),
            each.num_videos,
            each.average_precision or 0.0,
            each.recall or 0.0,
            each.precision or 0.0,
            each.f1 or 0.0,
        )
        for each in result.classes
        if each.num_videos
    ]
    log_table(log, "test/classes", Table(COLUMNS, sorted(rows, key=lambda row: row[2])), step)
    log.save()
