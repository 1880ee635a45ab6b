"""What every trained network shares: random numbers of a step, sharding, what checkpoints hold."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard


class TrainedModule(pl.LightningModule):
    """A network `model` in training; all randomness of a step comes from seed, epoch, step, rank.

    Checkpoints keep `class_names`, the `card` of the model and the `settings` of the run, in plain
    values. Callbacks ask for the rest:

    Attributes:
        unit: what a sample is called, in the plural.
        shown: names of validation metrics in 0..1 that a summary shows, in order.
    """

    unit = "clips"
    shown: tuple[str, ...] = ()

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int = 0,
        class_names: Sequence[str] = (),
        card: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        self.class_names, self.card = list(class_names), dict(card or {})
        self.settings = dict(settings or {})
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

    def configure_model(self) -> None:
        """Shard the weights over all devices, block by block, if the strategy shards."""
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        mesh = self.device_mesh["data_parallel"]
        for block in self.blocks():
            fully_shard(block, mesh=mesh)
        fully_shard(self.model, mesh=mesh)

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

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark an epoch as complete that ended before the checkpoint.

        The trainer writes the checkpoint before it counts the epoch, and where the length of the
        training is given in steps it would repeat the end of that epoch and so skip the next one.
        """
        loops = checkpoint["loops"]["fit_loop"]
        epoch, batch = loops["epoch_progress"], loops["epoch_loop.batch_progress"]
        if epoch["current"]["processed"] == epoch["current"]["ready"]:
            for progress in (epoch["current"], epoch["total"]):
                progress["completed"] = progress["processed"]
            batch["current"] = dict.fromkeys(batch["current"], 0)
            batch["is_last_batch"] = False

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["class_names"] = self.class_names
        checkpoint["card"] = self.card
        checkpoint["settings"] = self.settings
