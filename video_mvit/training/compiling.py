"""Compile the blocks of a network for training steps, each on its own and for one shape.

`blocks` fuses what lies between the matrix products of a block; `cudagraph` also replays them as
PyTorch's CUDA graphs, which saves the launches. Steps of another number of clips, validation and
evaluation run as without. Hooks that are registered on modules inside a block after its first step
are not called, and drop path draws from the compiler's random numbers.
"""

import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.kernels import OPERATIONS

Mode = Literal["blocks", "cudagraph"]
NUM_KINDS = 64  # of blocks that are compiled, at most: a network has about 10
COMPILERS = ("g++", "clang++", "c++")


def compile_blocks(model: nn.Module, mode: Mode, num_clips: int) -> None:
    """Compile `model.blocks` in place, at the first training step of `num_clips` clips."""
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        name = type(model).__name__
        raise UserError(f"compile={mode} is for MViT classifiers, not for {name}; remove it")
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, NUM_KINDS)
    for block in blocks:
        # As `nn.Module.compile` does; copies and saved states of a module are without it.
        run = _CompiledBlock(block, mode, num_clips, begins_step=block is blocks[0])
        block._compiled_call_impl = run


class _CompiledBlock:
    """Calls a block: compiled in training steps of the given number of clips, else as it is."""

    def __init__(self, block: nn.Module, mode: Mode, num_clips: int, *, begins_step: bool) -> None:
        self.block, self.num_clips = block, num_clips
        self.marks_steps = begins_step and mode == "cudagraph"
        graphs: dict[str, Any] = {"triton.cudagraphs": True}
        options = graphs if mode == "cudagraph" else None
        self.compiled = torch.compile(
            block._call_impl, fullgraph=True, dynamic=False, options=options
        )
        self.is_ready = False

    def __call__(self, x: Tensor, *args: Any, **options: Any) -> Any:
        is_step = self.block.training and torch.is_grad_enabled() and len(x) == self.num_clips
        if not is_step:
            return self.block._call_impl(x, *args, **options)  # type: ignore[no-untyped-call]
        if not self.is_ready:
            try_kernels(x.device)
            self.is_ready = True
        if self.marks_steps:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        return self.compiled(x, *args, **options)


def try_kernels(device: torch.device) -> None:
    """Try every form that is tried before its use: not within a compiler, nor within a capture."""
    for operation in OPERATIONS:
        for form in operation.forms:
            if form.tried and device.type in form.devices:
                operation.works(form, device.index)


def check_compiling(
    mode: Mode,
    *,
    accelerator: str,
    precision: str,
    num_devices: int,
    accumulated: int,
    checkpointing: str,
) -> None:
    """Raise `UserError` where blocks cannot be compiled, or not yet are with these settings."""
    if checkpointing == "full":
        # PyTorch 2.13's generated code gives other outputs than the block on a CPU: seen, not known
        # why, and with fast kernels only.
        raise UserError(
            f"compile={mode} does not work with model.activation_checkpointing=full; try selective"
        )
    if missing := find_compiler():
        raise UserError(f"compile={mode} needs {missing}; install it, or remove compile")
    if mode == "blocks":
        return
    if accelerator == "cpu":
        raise UserError("compile=cudagraph needs a GPU; try compile=blocks")
    for is_asked, what in (
        (accumulated > 1, f"trainer.accumulate_grad_batches={accumulated}"),
        (precision in ("16-mixed", "16"), f"trainer.precision={precision}"),
        (num_devices > 1, f"{num_devices} devices"),
        (checkpointing != "none", f"model.activation_checkpointing={checkpointing}"),
    ):
        if is_asked:
            raise UserError(f"compile=cudagraph was not tried with {what} yet; try compile=blocks")


def find_compiler() -> str | None:
    """Return what generated code lacks on this machine, None if nothing."""
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "the C headers of Python"
    compilers = (os.environ.get("CXX", ""), *COMPILERS)
    return None if any(map(shutil.which, compilers)) else "a C++ compiler, such as g++"
