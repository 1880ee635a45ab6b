"""Peak memory of a training step of MViTv2-S 16x4, with all weights trained or with adapters.

python scripts/benchmarks/adapter_memory.py all none
python scripts/benchmarks/adapter_memory.py lora full

One process each: what the first measured step leaves behind would count as there before.
"""

import sys

import torch
from torch import Tensor

import video_mvit
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


def step_of(trained: str, checkpointing: str) -> TrialStep:
    """Build a network in training, and what a step of it is."""
    model = video_mvit.create_model("mvitv2_s", activation_checkpointing=checkpointing)
    if trained == "lora":
        add_adapters(model, LoraAdapters())

    def loss(num_clips: int) -> Tensor:
        clip = torch.zeros(num_clips, 3, 16, 224, 224)
        return model.train()(clip).square().mean()  # type: ignore[no-any-return]

    return TrialStep(optimizer=build_optimizer(model, OPTIM), loss=loss)


def main() -> None:
    """Measure what the command line names, and print a row."""
    trained, checkpointing = sys.argv[1:]
    if trained == "lora":
        import peft  # noqa: F401  # before the memory at the start is read

    need = measure_memory(lambda: step_of(trained, checkpointing), torch.device("cpu"), CLIPS)
    fixed, clip = need.fixed / 1e9, need.per_clip / 1e9
    row = f"{trained:<5} {checkpointing:<9} fixed {fixed:.2f} GB, a clip {clip:.2f} GB"
    sys.stdout.write(f"{row}, a step of 1 {fixed + clip:.2f} GB\n")


if __name__ == "__main__":
    main()
