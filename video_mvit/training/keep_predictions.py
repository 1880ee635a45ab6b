"""Save the predictions of an evaluation as they come, so that it resumes after a kill."""

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from torch import Tensor

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

    def test_classes(self) -> Sequence[tuple[int, ...]]:
        """Return their classes, where they have several."""

    def test_values(self) -> Sequence[tuple[float, ...]]:
        """Return their values, where these are numbers."""


class KeepPredictions(pl.Callback):
    """Save every evaluated video at once, and skip those saved by an earlier run."""

    def __init__(self, output: Path, identity: Mapping[str, Any], data: TestVideos) -> None:
        self._folder, self._identity, self._data = output, identity, data
        self.resumed: dict[int, Any] = {}
        self.new: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Read earlier results on rank 0 and share them with all ranks."""
        names = self._data.test_names()
        read = self.read_earlier() if trainer.is_global_zero else None
        self.resumed, first_number = gather_over_ranks(read)[0]
        self._data.already_tested = self.resumed.keys()
        log_resumed(len(self.resumed), len(names), "videos")
        path = new_partial_path(self._folder, first_number + trainer.global_rank)
        self._partial = self.open_partial(path)

    def read_earlier(self) -> tuple[dict[int, Any], int]:
        """Return the results of an earlier run, and a number for the next file of them."""
        labels, num_classes = self._data.test_labels(), len(self._data.class_names)
        listed = Listed(names=self._data.test_names(), labels=labels, num_classes=num_classes)
        return read_resumed(self._folder, self._identity, listed)

    def open_partial(self, path: Path) -> Any:
        """Open a file for the results of this run."""
        return PartialResults(path, self._identity)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        *_: object,
    ) -> None:
        for index, prediction in self.predictions_of(outputs).items():
            self.new[index] = prediction
            self._partial.add(index, prediction)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._partial.close()

    def predictions_of(self, scores: VideoScores | None) -> dict[int, Any]:
        """Return the results of the videos of a batch, by index in the list."""
        if scores is None:
            return {}
        names = self._data.test_names()
        motion = {test: each.argmax(dim=1).tolist() for test, each in scores.motion.items()}
        rows = zip(scores.video_index.tolist(), scores.label.tolist(), scores.scores, strict=True)
        predictions: VideoResults = {}
        for place, (index, label, each) in enumerate(rows):
            check_scores(each, names[index])
            classes, values = best_classes(each)
            predictions[index] = VideoResult(
                video=names[index],
                label=label,
                classes=classes,
                scores=values,
                motion={test: found[place] for test, found in motion.items()},
            )
        return predictions


def check_scores(scores: Tensor, name: str) -> None:
    """Raise `UserError` where a score of a video is NaN or Inf."""
    if not scores.isfinite().all():
        raise UserError(
            f"{name}: the model gives NaN or Inf scores; its weights are damaged, or "
            "trainer.precision is too low"
        )
