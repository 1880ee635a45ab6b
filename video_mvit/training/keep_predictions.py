"""Save the predictions of an evaluation as they come, so that it resumes after a kill."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl

from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import (
    VideoResults,
    log_resumed,
    new_partial_path,
    read_resumed,
)
from video_mvit.evaluation.predictions import (
    Listed,
    PartialResults,
    VideoResult,
    best_classes,
)
from video_mvit.training.classifier import VideoScores
from video_mvit.training.distributed import gather_over_ranks


class TestVideos(Protocol):
    """The part of a data module that is used here."""

    already_tested: Set[int]
    class_names: tuple[str, ...]

    def test_names(self) -> Sequence[str]:
        """Return the names of the listed test videos, in their order."""

    def test_labels(self) -> Sequence[int]:
        """Return their labels."""


class KeepPredictions(pl.Callback):
    """Save every evaluated video at once, and skip those saved by an earlier run."""

    def __init__(self, output: Path, identity: Mapping[str, Any], data: TestVideos) -> None:
        self._folder, self._identity, self._data = output, identity, data
        self.resumed: VideoResults = {}
        self.new: VideoResults = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read earlier results on rank 0 and share them with all ranks."""
        names = self._data.test_names()
        read = None
        if trainer.is_global_zero:
            labels, num_classes = self._data.test_labels(), len(self._data.class_names)
            listed = Listed(names=names, labels=labels, num_classes=num_classes)
            read = read_resumed(self._folder, self._identity, listed)
        self.resumed, first_number = gather_over_ranks(read)[0]
        self._data.already_tested = self.resumed.keys()
        log_resumed(len(self.resumed), len(names), "videos")
        path = new_partial_path(self._folder, first_number + trainer.global_rank)
        self._partial = PartialResults(path, self._identity)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: object,
    ) -> None:
        for index, prediction in self._predictions(outputs).items():
            self.new[index] = prediction
            self._partial.add(index, prediction)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._partial.close()

    def _predictions(self, scores: VideoScores | None) -> VideoResults:
        if scores is None:
            return {}
        names = self._data.test_names()
        motion = {test: each.argmax(dim=1).tolist() for test, each in scores.motion.items()}
        rows = zip(scores.video_index.tolist(), scores.label.tolist(), scores.scores, strict=True)
        predictions = {}
        for place, (index, label, each) in enumerate(rows):
            if not each.isfinite().all():
                raise UserError(
                    f"{names[index]}: the model gives NaN or Inf scores; its weights are damaged, "
                    "or trainer.precision is too low"
                )
            classes, values = best_classes(each)
            predictions[index] = VideoResult(
                video=names[index],
                label=label,
                classes=classes,
                scores=values,
                motion={test: found[place] for test, found in motion.items()},
            )
        return predictions
