"""Save the predictions of an evaluation with several heads as they come."""

from pathlib import Path
from typing import Any

from video_mvit.class_heads import heads_of, within_heads
from video_mvit.evaluation.multihead_predictions import (
    ListedHeads,
    MultiHeadVideo,
    PartialMultiHeadResults,
    best_of_heads,
)
from video_mvit.evaluation.multihead_results import Results, read_multihead_resumed
from video_mvit.training.classifier import VideoScores
from video_mvit.training.keep_predictions import KeepPredictions, check_scores


class KeepMultiHeadPredictions(KeepPredictions):
    """Save the scores of every evaluated video at once, and skip those saved by an earlier run."""

    def read_earlier(self) -> tuple[dict[int, Any], int]:
        heads = heads_of(self._data.class_names)
        listed = ListedHeads(
            names=self._data.test_names(),
            labels=[within_heads(labels, heads) for labels in self._data.test_classes()],
            heads=heads,
        )
        return read_multihead_resumed(self._folder, self._identity, listed)

    def open_partial(self, path: Path) -> PartialMultiHeadResults:
        return PartialMultiHeadResults(path, self._identity)

    def predictions_of(self, scores: VideoScores | None) -> Results:
        if scores is None:
            return {}
        names, heads, found = self._data.test_names(), heads_of(self._data.class_names), {}
        rows = zip(scores.video_index.tolist(), scores.label.tolist(), scores.scores, strict=True)
        for index, labels, each in rows:
            check_scores(each, names[index])
            found[index] = MultiHeadVideo(
                video=names[index], labels=tuple(labels), best=best_of_heads(each, heads)
            )
        return found
