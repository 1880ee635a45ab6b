"""The least that can be trained: for tests of what happens around a training step."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from video_mvit.training.checkpoints import AtomicCheckpointIO
from video_mvit.training.classifier import Batch, VideoClassifier
from video_mvit.training.optim import OptimConfig

NUM_CLASSES = 4
OPTIM = OptimConfig(
    name="sgd",
    lr=0.1,
    start_lr=0.1,
    end_lr=0.1,
    num_epochs=3,
    warmup_epochs=0,
    weight_decay=0.01,
)


class MeanColour(nn.Module):
    """Logits from the mean colour: (B, 3, T, H, W) -> (B, K)."""

    def __init__(self, num_classes: int = NUM_CLASSES) -> None:
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, clip: Tensor) -> Tensor:
        return self.linear(clip.mean((2, 3, 4)))


class Clips(Dataset[Batch]):
    """Batches of two random clips (with a view, to test on them); `bad` ones are infinite."""

    def __init__(self, num_batches: int, *, views: int = 0, bad: tuple[int, ...] = ()) -> None:
        shape = (num_batches, 2, *([views] if views else []), 3, 2, 4, 4)
        self.clips = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self.clips[list(bad)] = torch.inf

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Batch:
        places = 2 * index + torch.arange(2)
        return Batch(self.clips[index], places % NUM_CLASSES, places)


class Data(pl.LightningDataModule):
    def __init__(self, train: Clips, val: Clips | None = None) -> None:
        super().__init__()
        self.train, self.val = train, val

    def train_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(self.train, batch_size=None)

    def val_dataloader(self) -> Any:
        return DataLoader(self.val, batch_size=None) if self.val else []

    def train_video_path(self, index: int) -> str:
        return f"/videos/{index}.mp4"


class Weights(pl.Callback):
    """Weights of `MeanColour` after each batch."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        self.seen.append(pl_module.model.linear.weight.detach().clone())


def classifier(**overrides: Any) -> VideoClassifier:
    torch.manual_seed(0)
    options = {
        "num_classes": NUM_CLASSES,
        "preprocess": nn.Identity(),
        "optim": OPTIM,
        **overrides,
    }
    return VideoClassifier(MeanColour(), **options)


def trainer(*callbacks: pl.Callback, **overrides: Any) -> pl.Trainer:
    options = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "callbacks": list(callbacks),
        "plugins": [AtomicCheckpointIO()],
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        **overrides,
    }
    return pl.Trainer(**options)
