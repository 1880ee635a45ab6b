"""What an evaluation of numbers writes to the loggers of its run."""

from collections.abc import Sequence

from pytorch_lightning.loggers import Logger

from video_mvit.evaluation.regression_predictions import RegressionVideo
from video_mvit.evaluation.regression_results import RegressionResult
from video_mvit.text import printable
from video_mvit.training.logger_content import Table, log_table

COLUMNS = ("target", "MAE", "RMSE", "R2", "Pearson", "Spearman", "MAE of the training mean")


def record_regression(
    log: Logger, result: RegressionResult, _: Sequence[RegressionVideo], step: int
) -> None:
    """Write an evaluation of a run to one of its loggers."""
    numbers = {"mae": result.mae, "r2": result.r2}
    known = {f"test/{name}": value for name, value in numbers.items() if value is not None}
    log.log_metrics(known, step)
    rows = [
        (
            printable(name),
            each.mae,
            each.rmse,
            each.r2 or 0.0,
            each.pearson or 0.0,
            each.spearman or 0.0,
            each.baseline_mae,
        )
        for name, each in result.by_name.items()
    ]
    log_table(log, "test/targets", Table(COLUMNS, rows), step)
    log.save()
