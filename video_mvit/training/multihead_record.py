"""What an evaluation with several heads writes to the loggers of its run."""

from collections.abc import Sequence

from pytorch_lightning.loggers import Logger

from video_mvit.class_heads import ALL, classes_of_heads
from video_mvit.evaluation.metrics import confusion_matrix
from video_mvit.evaluation.multihead_predictions import MultiHeadVideo, of_head
from video_mvit.evaluation.multihead_results import OF_ALL, MultiHeadResult
from video_mvit.evaluation.results import METRICS
from video_mvit.training.evaluation_record import draw_confusion, table_of_classes
from video_mvit.training.logger_content import log_picture, log_table


def record_multihead(
    log: Logger, result: MultiHeadResult, predictions: Sequence[MultiHeadVideo], step: int
) -> None:
    """Write an evaluation of a run to one of its loggers."""
    metrics = {f"test/{ALL}_{name}": getattr(result.together, name) for name in OF_ALL}
    for head, found in result.heads.items():
        metrics |= {f"test/{head}_{name}": getattr(found, name) for name in METRICS}
    log.log_metrics(metrics, step)
    classes = classes_of_heads(result.origin.class_names, result.sizes)
    for place, (head, names) in enumerate(classes.items()):
        of_this = of_head(predictions, place)
        matrix = draw_confusion(confusion_matrix(of_this, len(names)), names)
        log_picture(log, f"test/{head}_confusion", matrix, step)
        log_table(log, f"test/{head}_classes", table_of_classes(of_this, names), step)
    log.save()
