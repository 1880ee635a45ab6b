"""Save the predictions of an evaluation with several labels as they come."""

from pathlib import Path
from typing import Any

from video_mvit.evaluation.multilabel_predictions import (
    ListedSets,
    MultiLabelVideo,
    PartialMultiLabelResults,
    scores_of,
)
from video_mvit.evaluation.multilabel_results import Results, read_multilabel_resumed
from video_mvit.training.classifier import VideoScores
from video_mvit.training.keep_predictions import KeepPredictions, check_scores


class KeepMultiLabelPredictions(KeepPredictions):
    """Save the scores of every evaluated video at once, and skip those saved by an earlier run."""

    def read_earlier(self) -> tuple[dict[int, Any], int]:
        listed = ListedSets(
            names=self._data.test_names(),
            labels=self._data.test_classes(),
            num_classes=len(self._data.class_names),
        )
        return read_multilabel_resumed(self._folder, self._identity, listed)

    def open_partial(self, path: Path) -> PartialMultiLabelResults:
        return PartialMultiLabelResults(path, self._identity)

    def predictions_of(self, scores: VideoScores | None) -> Results:
        if scores is None:
            return {}
        names, found = self._data.test_names(), {}
        rows = zip(scores.video_index.tolist(), scores.label, scores.scores, strict=True)
        for index, label, each in rows:
            check_scores(each, names[index])
            found[index] = MultiLabelVideo(
                video=names[index],
                labels=tuple(label.nonzero().flatten().tolist()),
                scores=scores_of(each),
            )
        return found
