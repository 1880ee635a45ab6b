"""A detector in training, where commands on a CPU do not come: float16 with a scaler."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision
from support.detectors import image, objects, tiny_detector
from support.training import trainer
from torch.utils.data import DataLoader

from video_mvit.detection.instances import DetectionBatch
from video_mvit.detection.optim import DetectionOptimConfig
from video_mvit.detection.training import DetectorModule

pytestmark = pytest.mark.slow
OPTIM = DetectionOptimConfig(
    lr=1e-3, num_steps=3, drops=[], reference_images=None, warmup_steps=0, weight_decay=0
)


def batch(index: int) -> DetectionBatch:
    return DetectionBatch(
        images=[image(64, 64, seed=index)],
        targets=[objects((4, 6, 40, 30))],
        image_index=torch.tensor([index]),
        original_sizes=[(64, 64)],
    )


class Batches(pl.LightningDataModule):
    """Six batches that stay where they are."""

    def train_dataloader(self) -> DataLoader[DetectionBatch]:
        return DataLoader([batch(i) for i in range(6)], batch_size=None)

    def transfer_batch_to_device(self, batch: DetectionBatch, *_: object) -> DetectionBatch:
        return batch


class Steps(pl.Callback):
    """A weight, and the gradients' scale, after each batch."""

    def __init__(self, scaler: torch.amp.GradScaler) -> None:
        self.scaler = scaler
        self.weights: list[torch.Tensor] = []
        self.scales: list[float] = []

    def on_train_batch_end(self, _: Any, pl_module: pl.LightningModule, *rest: object) -> None:
        self.weights.append(pl_module.model.backbone.fpn_output2.weight.detach().clone())
        self.scales.append(self.scaler.get_scale())


@pytest.mark.parametrize("heads", ["mask_rcnn", "cascade_batch_norm"])
def test_scaler_of_half_precision_steps_after_accumulated_batches(heads: str) -> None:
    """A scale that overflows is halved and leaves its step out; all later steps are made."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, backoff_factor=2.0**-56)
    steps = Steps(scaler)
    run = trainer(
        steps,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        plugins=[MixedPrecision("16-mixed", "cpu", scaler)],
    )
    module = DetectorModule(tiny_detector(heads=heads), optim=OPTIM)
    run.fit(module, datamodule=Batches())
    assert steps.scales == [2.0**60, 16, 16, 16, 16, 16]
    is_changed = [
        not torch.equal(a, b) for a, b in zip(steps.weights, steps.weights[1:], strict=False)
    ]
    assert is_changed == [False, False, True, False, True]
    assert all(parameter.isfinite().all() for parameter in module.parameters())
