"""Save the predictions of a regression as they come."""

from pathlib import Path
from typing import Any

from video_mvit.evaluation.regression_predictions import (
    ListedValues,
    PartialRegressionResults,
    RegressionVideo,
    values_of,
)
from video_mvit.evaluation.regression_results import read_regression_resumed
from video_mvit.training.classifier import VideoScores
from video_mvit.training.keep_predictions import KeepPredictions, check_scores


class KeepRegressionPredictions(KeepPredictions):
    """Save the values of every evaluated video at once, and skip those saved by an earlier run."""

    def read_earlier(self) -> tuple[dict[int, Any], int]:
        listed = ListedValues(names=self._data.test_names(), values=self._data.test_values())
        return read_regression_resumed(self._folder, self._identity, listed)

    def open_partial(self, path: Path) -> PartialRegressionResults:
        return PartialRegressionResults(path, self._identity)

    def predictions_of(self, scores: VideoScores | None) -> dict[int, RegressionVideo]:
        if scores is None:
            return {}
        names, truth, found = self._data.test_names(), self._data.test_values(), {}
        for index, each in zip(scores.video_index.tolist(), scores.scores, strict=True):
            check_scores(each, names[index])
            found[index] = RegressionVideo(
                video=names[index], truth=truth[index], values=values_of(each)
            )
        return found
