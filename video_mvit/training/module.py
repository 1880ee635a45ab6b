"""What every trained network shares: random numbers of a step, sharding, what checkpoints hold."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torchmetrics import MeanMetric

from video_mvit.errors import UserError
from video_mvit.training.deferred import DeferredScalar
from video_mvit.training.device_copies import beside_network
from video_mvit.training.distributed import watch_parameters
from video_mvit.training.freezing import FreezingSchedule, describe_freezing, freeze_parts
from video_mvit.training.resumption import Resumption, unlogged_metrics

logger = logging.getLogger(__name__)

PARAM_DTYPES = {"bf16-mixed": torch.bfloat16}  # of sharded weights in a step, by precision


class TrainedModule(pl.LightningModule):
    """A network `model` in training; all randomness of a step comes from seed, epoch, step, rank.

    Checkpoints keep `class_names`, the `card` of the model and the `settings` of the run, in plain
    values. Parts named in `freeze` are not trained, those in `freeze_epochs` not in as many epochs
    (see `freezing.py`). Callbacks ask for the rest:

    Attributes:
        unit: what a sample is called, in the plural.
        shown: names of validation metrics in 0..1 that a summary shows, in order.
    """

    unit = "clips"
    shown: tuple[str, ...] = ()

    def __init__(  # noqa: PLR0913
        self,
        model: nn.Module,
        *,
        seed: int = 0,
        class_names: Sequence[str] = (),
        card: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        freeze: Sequence[str] = (),
        freeze_epochs: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        self.freeze_names = list(freeze)
        self._frozen = freeze_parts(model, freeze)  # a list, so that they are no submodules
        self.freezing = FreezingSchedule(model, freeze_epochs or {})
        self.class_names, self.card = list(class_names), dict(card or {})
        self.settings = dict(settings or {})
        self.epoch_loss = MeanMetric(nan_strategy="disable")
        self._resumption: Resumption | None = None
        self._ema_model: list[nn.Module] = []  # in a list, so that it is not a submodule

    def blocks(self) -> Iterable[nn.Module]:
        """Return the parts of the network that are sharded one by one."""
        return getattr(self.model, "blocks", ())

    def num_samples(self, batch: Any) -> int:
        """Return the number of samples in a batch."""
        raise NotImplementedError

    def network_to_count(self) -> nn.Module | None:
        """Return the network whose FLOPs are counted once, if they are the same in each step."""
        return None

    def example_input(self, batch: Any) -> Tensor | None:
        """Return what `network_to_count` takes for one sample, of which only the shape counts."""
        return None

    def batch_content(self, batch: Any) -> dict[str, Any]:
        """Return the tensors of a batch to save, where its loss is NaN or Inf."""
        raise NotImplementedError

    def batch_files(self, batch: Any, data: Any) -> list[str]:
        """Return the files that a batch was read from, each once."""
        raise NotImplementedError

    def generator_of_step(self, batch_idx: int) -> np.random.Generator:
        """Return the random generator of a training step of this rank."""
        return np.random.default_rng([self.seed, self.current_epoch, batch_idx, self.global_rank])

    def validate_ema(self, ema_model: nn.Module | None) -> None:
        """Validate this average of the weights as well from now on; None: no longer."""
        self._ema_model = [] if ema_model is None else [ema_model]

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002
        super().train(mode)
        for part in (*self._frozen, *self.freezing.frozen_modules()):
            part.eval()
        return self

    def configure_model(self) -> None:
        """Shard the weights over all devices, block by block, if the strategy shards."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        policy = sharding_policy(str(self.trainer.precision))
        for block in self.blocks():
            fully_shard(block, mesh=mesh, mp_policy=policy)
        fully_shard(self.model, mesh=mesh, mp_policy=policy)

    def on_validation_start(self) -> None:
        self._gather_weights()

    def on_validation_end(self) -> None:
        for part in self._spread_parts():
            part.set_reshard_after_forward(reshard_after_forward=True, recurse=False)
            part.reshard()

    def on_test_start(self) -> None:
        self._gather_weights()

    def _gather_weights(self) -> None:
        """Gather all weights on each device: ranks may have different numbers of batches."""
        for part in self._spread_parts():
            part.set_reshard_after_forward(reshard_after_forward=False, recurse=False)
            part.unshard()

    def _spread_parts(self) -> list[FSDPModule]:
        return [module for module in self.model.modules() if isinstance(module, FSDPModule)]

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        return beside_network(lambda: move_data_to_device(batch, device), device)

    def log_loss(self, loss: Tensor, batch_size: int) -> None:
        """Log the loss of a training step, and keep it for guards; the host does not wait for it.

        `prog_bar=True` would read it in each step: `ProgressBar` takes it when it is logged.
        """
        loss = loss.detach()
        self.deferred_loss = DeferredScalar(loss)
        self.log("train/loss", loss, batch_size=batch_size)
        self.epoch_loss.update(loss)
        self.log_epoch_loss()

    def log_learning_rate(self, lr: float, batch_size: int) -> None:
        """Log the learning rate of a training step, as a number that stays on the host."""
        self.log("train/lr", torch.tensor(lr), batch_size=batch_size)

    def on_train_epoch_end(self) -> None:
        # That of the last step: steps are logged at an interval that short runs do not reach.
        group = self.trainer.optimizers[0].param_groups[0]
        lr = group["lr"] / group.get("lr_scale", 1.0)
        self.log("train/epoch_lr", torch.tensor(lr))

    def log_epoch_loss(self) -> None:
        """Log the mean loss of the epoch at its end, over all ranks and starts of the run."""
        self.log("train/epoch_loss", self.epoch_loss, on_step=False, on_epoch=True)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._refuse_other_parts(checkpoint.get("freeze") or [])
        self._keep_provenance(checkpoint.get("card"))
        self._resumption = Resumption(self.trainer, checkpoint)
        # Before ranks are set up, which look once at what is trained.
        if self.freezing.begin_epoch(self._resumption.position.num_epochs):
            self.train()
        if self._resumption.position.num_batches and "epoch_loss" in checkpoint:
            total, num_batches = checkpoint["epoch_loss"]
            self.epoch_loss.update(torch.empty(0))  # a metric warns if it is read without any
            self.epoch_loss.mean_value += total
            self.epoch_loss.weight += num_batches

    def on_train_start(self) -> None:
        if self._resumption is not None:
            if self._resumption.end_is_due:
                self.log_epoch_loss()
            self._resumption.catch_up(self.trainer)
            self._resumption = None

    def on_train_epoch_start(self) -> None:
        if self.freezing.begin_epoch(self.current_epoch):
            self.train()
            watch_parameters(self.trainer)
            logger.info("epoch %d: %s", self.current_epoch + 1, describe_freezing(self.model))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["unlogged_metrics"] = unlogged_metrics(self.trainer)
        so_far = (self.epoch_loss.mean_value, self.epoch_loss.weight)
        checkpoint["epoch_loss"] = [
            float(self.trainer.strategy.reduce(each, reduce_op="mean")) for each in so_far
        ]
        checkpoint["freeze"] = self.freeze_names
        checkpoint["class_names"] = self.class_names
        checkpoint["card"] = self.card
        checkpoint["settings"] = self.settings

    def _keep_provenance(self, card: object) -> None:
        """Keep what the card of a resumed run says of the weights that it started from."""
        if self.card and isinstance(card, Mapping):
            kept = {name: card.get(name) for name in ("license", "origin")}
            self.card |= {name: text for name, text in kept.items() if isinstance(text, str)}

    def _refuse_other_parts(self, names: object) -> None:
        """Raise `UserError` where a checkpoint was trained with other frozen parts."""
        if names != self.freeze_names:
            raise UserError(
                f"optim.freeze is {self.freeze_names}, but the run to resume had other parts, and "
                "its optimizer knows no others; init=weights init.source=... starts a new run from "
                "its weights"
            )


def sharding_policy(precision: str) -> MixedPrecisionPolicy:
    """Return in which types sharded weights are sent, and gradients summed: as `precision` says.

    Each device keeps its shard of the weights in float32. What flows between blocks is left as it
    is, under autocast: float32.
    """
    dtype = PARAM_DTYPES.get(precision)
    return MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=dtype, cast_forward_inputs=False)
