"""Peak memory of a training step of MViTv2-S 16x4, with all weights trained or with adapters.

cd scripts && python -m benchmarks.adapter_memory none
cd scripts && python -m benchmarks.adapter_memory full 3 4

The numbers are the stages with adapters; without any, all weights are trained. One process each:
what the first measured step leaves behind would count as there before. Memory that is freed goes
back to the system at once, as it does on a GPU: a fragmented heap would count for more.
"""

import os
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import video_mvit
from benchmarks.measurements import EXACT_HEAP
from video_mvit.training.adapters import LoraAdapters, add_adapters
from video_mvit.training.memory_fit import TrialStep, measure_memory
from video_mvit.training.optim import OptimConfig, build_optimizer

CLIPS = (1, 3)  # of the two steps that a line is drawn through
OPTIM = OptimConfig(
    name="adamw",
    lr=1e-4,
    start_lr=1e-4,
    end_lr=1e-4,
    num_epochs=1,
    warmup_epochs=0,
    weight_decay=0.05,
)


def step_of(checkpointing: str, stages: Sequence[int]) -> TrialStep:
    """Build a network in training, and what a step of it is."""
    model = video_mvit.create_model("mvitv2_s", activation_checkpointing=checkpointing)
    if stages:
        add_adapters(model, LoraAdapters(stages=stages), model.config.depths)

    def loss(num_clips: int) -> Tensor:
        clip = torch.zeros(num_clips, 3, 16, 224, 224)
        return model.train()(clip).square().mean()  # type: ignore[no-any-return]

    return TrialStep(optimizer=build_optimizer(model, OPTIM), loss=loss)


def main() -> None:
    """Measure what the command line names, and print a row."""
    if not EXACT_HEAP.items() <= os.environ.items():
        command = [sys.executable, "-m", "benchmarks.adapter_memory", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **EXACT_HEAP})
    checkpointing, *numbers = sys.argv[1:]
    stages = [int(number) for number in numbers]
    if stages:
        import peft  # noqa: F401  # before the memory at the start is read

    need = measure_memory(lambda: step_of(checkpointing, stages), torch.device("cpu"), CLIPS)
    fixed, clip = need.fixed / 1e9, need.per_clip / 1e9
    trained = f"adapters of stages {', '.join(numbers)}" if stages else "all weights"
    row = f"{trained}, {checkpointing}: fixed {fixed:.2f} GB, a clip {clip:.2f} GB"
    sys.stdout.write(f"{row}, a step of 1 {fixed + clip:.2f} GB\n")


if __name__ == "__main__":
    main()
