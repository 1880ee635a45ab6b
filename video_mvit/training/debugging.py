"""Whether a network can learn a few videos by heart, as any that is wired up rightly can."""

import logging

import pytorch_lightning as pl

from video_mvit.errors import UserError
from video_mvit.training.module import TrainedModule

logger = logging.getLogger(__name__)


class OverfitCheck(pl.Callback):
    """End training once the mean loss of an epoch is at most `target`, and fail if it never is.

    Which videos, and without which augmentation, is for the settings to say.
    """

    def __init__(self, target: float = 0.1) -> None:
        if target <= 0:
            raise UserError(f"callbacks.overfit.target {target} must be positive")
        self.target = target
        self.losses: list[float] = []  # of the epochs

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, TrainedModule)
        self.losses.append(float(pl_module.epoch_loss.compute()))  # of all ranks
        if self.losses[-1] <= self.target:
            trainer.should_stop = True

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.losses:
            return
        first, last = self.losses[0], self.losses[-1]
        course = (
            f"loss {first:.3g} in the first epoch, {last:.3g} in the last of {len(self.losses)}"
        )
        if last > self.target:
            raise UserError(
                f"debug=overfit: {course}, {self.target:g} was the aim: the network did not learn "
                "a few videos by heart; look at their labels and the normalization, try another "
                "optim.lr, ++model.drop_path_rate=0, or more optim.num_epochs"
            )
        logger.info("debug=overfit succeeded: %s", course)
