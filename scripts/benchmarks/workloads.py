"""What `benchmark.py` does with a network, ours or another: forward passes and training steps."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.models.config import MViTConfig

Task = Callable[[], object]
LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.05  # what a step costs does not depend on them
NUM_KINDS = 64  # of blocks that are compiled, at most
RAND_AUGMENT = "rand-m7-n4-mstd0.5-inc1"  # of the MViTv2 recipes
ERASE_PROB = 0.25
MEAN, STD = [0.45] * 3, [0.225] * 3


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Which network, how it runs, and on what.

    Attributes:
        name: what `config` is called.
        precision: 32, or bf16, which is autocast as with `trainer.precision=bf16-mixed`.
        batch_size: clips of a pass.
        compile: ours and the others through `torch.compile`, whole, or "blocks": each block on its
            own, which takes a third of the time to compile.
        augmented: a training step begins with uint8 clips and augments them as published.
    """

    name: str
    config: MViTConfig
    precision: Literal[32, "bf16"] = 32
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = 1
    compile: Literal[False, True, "blocks"] = False
    augmented: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size {self.batch_size} must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed {self.seed} must be 0 or more")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("device is cuda, but torch finds none; try device=cpu")

    @property
    def matmul_precision(self) -> str:
        """As `video_mvit.training.throughput.matmul_rate` calls it."""
        return str(self.precision)

    def describe_clips(self, num_clips: int) -> str:
        """Which network takes how many clips, in which precision, for a table's title."""
        T, side = self.config.num_frames, self.config.crop_size
        return f"{self.name}, {num_clips} clips of {T}x{side}x{side}, precision {self.precision}"

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def compile_network(network: nn.Module, setting: Setting) -> None:
    """In place; PyTorch compiles when it is first used."""
    if setting.compile == "blocks":
        compile_blocks(network)
    else:
        network.compile()


def compile_blocks(network: nn.Module) -> None:
    """Compile each block of a network on its own, in place."""
    torch._dynamo.config.recompile_limit = NUM_KINDS  # not all blocks are equal
    for block in network.blocks:  # type: ignore[union-attr]
        block.compile()


def draw_clips(setting: Setting) -> Tensor:
    """Normalized clips (B, 3, T, H, W) on the device, of noise."""
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
    prepare: Callable[[], tuple[Tensor, Tensor]] = lambda: (clips, labels)  # noqa: E731
    if setting.augmented:
        prepare = _augmentation(clips, labels, setting)

    def backward() -> None:
        inputs, targets = prepare()
        with setting.autocast():
            loss = F.cross_entropy(network(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]

    return backward


def _augmentation(
    clips: Tensor, labels: Tensor, setting: Setting
) -> Callable[[], tuple[Tensor, Tensor]]:
    """What a training step does first: the published augmentation, with new draws each time."""
    import numpy as np  # these only here: memory is measured, too

    from video_mvit.data.transforms.augment import Augment, Normalize
    from video_mvit.data.transforms.mixup import Mixing

    augment = Augment(policy=RAND_AUGMENT, erase_prob=ERASE_PROB, mixing=Mixing())
    normalize = Normalize(mean=MEAN, std=STD).to(clips.device)
    generator = np.random.default_rng(setting.seed)
    frames = (255 * torch.rand_like(clips)).to(torch.uint8).transpose(1, 2).contiguous()

    def prepare() -> tuple[Tensor, Tensor]:
        return augment(  # type: ignore[no-any-return]
            frames,
            labels,
            normalize=normalize,
            num_classes=setting.config.num_classes,
            generator=generator,
        )

    return prepare


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
