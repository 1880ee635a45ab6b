"""Compile what runs on a GPU of compute capability 9.0 where there is none, and read the code.

Triton and the tools that come with it need no GPU for that. Run as a script, in a process of its
own: it compiles all Triton kernels for the arguments that blocks of MViTv2-S hand them, and prints
what was compiled as JSON.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

BFLOAT16 = {"dtype": torch.bfloat16, "requires_grad": True}


class NoGpu:
    """What Triton asks of a driver before it compiles; nothing can be launched on it."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@contextmanager
def compiled_not_launched() -> Iterator[list[dict[str, Any]]]:
    """Within it, kernels are compiled for the arguments of each launch, and not launched."""
    import triton
    from triton.runtime.jit import JITFunction

    found: dict[int, dict[str, Any]] = {}
    compiled: list[dict[str, Any]] = []
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, **options: Any) -> None:
        kernel = run(self, *args, **{**options, "warmup": True})
        if id(kernel) not in found:
            flags = {name: options[name] for name in ("IS_GRADIENT", "SPLITS") if name in options}
            found[id(kernel)] = {"name": self.fn.__name__, **flags, **facts_of(kernel)}
            compiled.append(found[id(kernel)])

    triton.runtime.driver.set_active(NoGpu())
    JITFunction.run = compile_only
    try:
        yield compiled
    finally:
        JITFunction.run = run


def facts_of(kernel: Any) -> dict[str, Any]:
    """Registers and bytes of local memory of a thread, shared memory, and widths of loads."""
    from triton.backends.nvidia import compiler

    tools = Path(compiler.__file__).parent / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(kernel.asm["cubin"])
        usage, code = (
            subprocess.run([tools / tool, option, path], capture_output=True, text=True, check=True)
            for tool, option in (("cuobjdump", "-res-usage"), ("nvdisasm", "-c"))
        )
    used = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout)
    assert used, usage.stdout
    widths = {
        each: [
            int(bits or 32) for bits in re.findall(rf"\b{each}\.E(?:\.[US]?(\d+))?\b", code.stdout)
        ]
        for each in ("LDG", "STG")
    }
    return {
        "registers": int(used[1]),
        "stack": int(used[2]),
        "spills": len(re.findall(r"\b(?:STL|LDL)\b", code.stdout)),
        "shared": kernel.metadata.shared,
        "load_bits": sorted(set(widths["LDG"])),
        "store_bits": sorted(set(widths["STG"])),
    }


def compile_pooling() -> None:
    """Of Q, K and V as they lie side by side in one projection: forward and backward."""
    from video_mvit.kernels import triton_pooling

    C = 96
    for thw, kernel, stride in (
        ((8, 56, 56), (3, 3, 3), (1, 1, 1)),
        ((8, 28, 28), (3, 3, 3), (1, 2, 2)),
        ((1, 56, 56), (1, 3, 3), (1, 4, 4)),
    ):
        num_tokens = 1 + thw[0] * thw[1] * thw[2]
        wide = torch.zeros(1, num_tokens, 3 * C, **BFLOAT16)
        weight = torch.zeros(C, 1, *kernel, **BFLOAT16)
        y = triton_pooling.pool_tokens(wide[..., C : 2 * C], weight, thw, stride, 1)
        # The gradient of the kernel compiles slowest; once will do.
        needed = (wide, weight) if max(stride) == 1 else (wide,)
        torch.autograd.grad(y, needed, torch.zeros_like(y))


def compile_layer_norm() -> None:
    from video_mvit.kernels import triton_layer_norm

    x = torch.zeros(1, 64, 96, **BFLOAT16)
    weight, bias = (torch.zeros(96, requires_grad=True) for _ in range(2))
    y = triton_layer_norm.layer_norm(x, weight, bias, 1e-6)
    torch.autograd.grad(y, (x, weight, bias), torch.zeros_like(y))


def compile_rel_pos() -> None:
    """Queries and keys with their relative positions, and queries added to what attention gives."""
    from video_mvit.kernels import triton_keys, triton_queries, triton_rel_pos

    thw, D = (8, 14, 14), 96
    q = torch.zeros(1, 2, 1 + 8 * 14 * 14, D, **BFLOAT16)
    tables = [torch.zeros(size, 8, D, **BFLOAT16) for size in thw]
    y = triton_queries.fold_queries(q, tables, thw, 128, 1)
    torch.autograd.grad(y, (q, *tables), torch.zeros_like(y))
    for sizes in ((8, 7, 7), (7, 7)):  # of a video, of an image
        triton_keys.fold_keys(q, sizes, 128, 1)
    triton_rel_pos.residual_merge(q, q, 1)


def compile_drop_path() -> None:
    from video_mvit.kernels import triton_drop_path

    x, draws = torch.zeros(2, 64, 96, **BFLOAT16), torch.zeros(2, dtype=torch.bfloat16)
    y = triton_drop_path.drop_path(x, draws, 0.1)
    torch.autograd.grad(y, x, torch.zeros_like(y))


if __name__ == "__main__":
    with compiled_not_launched() as kernels:
        compile_pooling()
        compile_layer_norm()
        compile_rel_pos()
        compile_drop_path()
    sys.stdout.write(json.dumps(kernels))
