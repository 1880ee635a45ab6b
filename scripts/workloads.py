"""What `benchmark.py` does with a network, ours or another: forward passes and training steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.mvit import MViTConfig

Task = Callable[[], object]
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.05  # what a step costs does not depend on them


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Which network, how it runs, and on what.

    Attributes:
        name: what `config` is called.
        precision: 32, or bf16, which is autocast as with `trainer.precision=bf16-mixed`.
        batch_size: clips of a pass.
        compile: ours and the others through `torch.compile`.
    """

    name: str
    config: MViTConfig
    precision: Literal[32, "bf16"] = 32
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = 1
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size {self.batch_size} must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must be 0 or more")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is cuda, but torch finds none; try device=cpu")

    @property
    def matmul_precision(self) -> str:
        """As `video_mvit.speed.matmul_rate` calls it."""
        return str(self.precision)

    def describe_clips(self, num_clips: int) -> str:
        """Which network takes how many clips, in which precision, for a table's title."""
        T, side = self.config.num_frames, self.config.crop_size
        return f"{self.name}, {num_clips} clips of {T}x{side}x{side}, precision {self.precision}"

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def draw_clips(setting: Setting) -> Tensor:
    """Normalised clips (B, 3, T, H, W) on the device, of noise."""
    config, generator = setting.config, torch.Generator().manual_seed(setting.seed)
    shape = (setting.batch_size, 3, config.num_frames, config.crop_size, config.crop_size)
    return torch.randn(shape, generator=generator).to(setting.device)


def forward_task(network: nn.Module, clips: Tensor, setting: Setting) -> Task:
    """Logits of a batch of clips, in evaluation."""
    network.eval()

    def forward() -> Tensor:
        with torch.inference_mode(), setting.autocast():
            return network(clips)  # type: ignore[no-any-return]

    return forward


def gradient_task(network: nn.Module, clips: Tensor, setting: Setting) -> Task:
    """Forward and backward pass of a training step, without the update."""
    backward = _backward_task(network, clips, setting)

    def gradients() -> None:
        backward()
        network.zero_grad()

    return gradients


def step_task(network: nn.Module, clips: Tensor, setting: Setting) -> Task:
    """A training step with AdamW."""
    backward = _backward_task(network, clips, setting)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )

    def step() -> None:
        backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _backward_task(network: nn.Module, clips: Tensor, setting: Setting) -> Task:
    network.train()
    labels = torch.arange(len(clips), device=clips.device) % setting.config.num_classes

    def backward() -> None:
        with setting.autocast():
            loss = F.cross_entropy(network(clips), labels)
        loss.backward()  # type: ignore[no-untyped-call]

    return backward


def timed_s(task: Task, device: str) -> float:
    """Seconds that a task takes until its device is done."""
    _synchronize(device)
    start = time.perf_counter()
    task()
    _synchronize(device)
    return time.perf_counter() - start


def _synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
