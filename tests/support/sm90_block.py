"""Compile a block by Inductor for a GPU of compute capability 9.0 where there is none.

A step is traced with tensors of a CPU, since autograd asks for the card of any other, and with the
kernels of a GPU. What is traced, forward and backward, is then said to lie on a card whose
properties are invented, and Inductor and Triton generate code for it, which nothing runs. Attention
is one operator each way, as it is there.

Run as a script, in a process of its own: it compiles blocks of MViTv2-S, by their numbers, and
prints what was compiled as JSON.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._dynamo.device_interface import CudaInterface
from torch._inductor import compile_fx, scheduler
from torch._inductor.async_compile import AsyncCompile, _load_triton_kernel_from_source
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime import triton_helpers
from torch.fx.node import map_aggregate
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from support.sm90 import NoGpu
from video_mvit import kernels
from video_mvit.models.config import block_schedule, variant_config
from video_mvit.models.mvit import MultiScaleBlock

CARD = torch.device("cuda", 0)
NUM_CLIPS = 2
PROPERTIES = SimpleNamespace(
    name="H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65_536,
    max_threads_per_multi_processor=2_048,
    max_threads_per_block=1_024,
    shared_memory_per_block=49_152,
    shared_memory_per_block_optin=232_448,
    warp_size=32,
    total_memory=80 * 2**30,
    L2_cache_size=50 * 2**20,
)
CARD_ANSWERS: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_properties": lambda *_: PROPERTIES,
    "get_device_capability": lambda *_: (9, 0),
    "get_rng_state": lambda *_: torch.zeros(0),
    "set_rng_state": lambda *_: None,
    "_exchange_device": lambda _: 0,
    "_maybe_exchange_device": lambda _: 0,
}
SETTINGS = {
    "compile_threads": 1,
    "force_disable_caches": True,
    "use_static_triton_launcher": False,  # so that the compiled code is at hand
}


class Compilation:
    """What the backend of `torch.compile` made: bytes of each kernel, code that starts them."""

    def __init__(self) -> None:
        self.kernels: dict[str, int] = {}
        self.code: list[str] = []

    def backend(self, graph: Any, inputs: list[Any]) -> Any:
        """Compile a graph, forward and backward; what is returned gives zeros."""
        outputs = graph.graph.output_node().args[0]
        shapes = [each.meta["example_value"].shape for each in outputs]
        compile_fx.compile_fx(graph, inputs, inner_compile=self.compile_traced)
        return lambda *_: [torch.zeros(shape) for shape in shapes]

    def compile_traced(self, graph: Any, inputs: list[Any], **options: Any) -> Any:
        """Compile one direction as if its tensors lay on the card."""
        fake = torch._guards.detect_fake_mode(inputs)
        for node in graph.graph.nodes:
            node.args, node.kwargs = map_aggregate((node.args, node.kwargs), device_on_card)
        graph.recompile()
        with fake, self.invented_card():
            inputs = [on_card(x) if isinstance(x, Tensor) else x for x in inputs]
            FakeTensorProp(graph, fake).propagate_dont_convert_inputs(*inputs)
            return compile_fx.compile_fx_inner(graph, inputs, **options)

    @contextmanager
    def invented_card(self) -> Iterator[None]:
        """Within it, Inductor finds a GPU; it compiles kernels, and loads none of them."""
        import triton

        def compile_only(_: Any, name: str, source: str, **_options: str) -> Any:
            tuner = _load_triton_kernel_from_source(name, source)
            tuner.configs = tuner.configs[:1]  # the others are other sizes of the same
            tuner.precompile(warm_cache_only=True)
            for result in tuner.compile_results:
                self.kernels[name] = len(result.kernel.asm["cubin"])
            return tuner

        triton.runtime.driver.set_active(NoGpu())
        patches = [
            *(
                (owner, name, value)
                for owner in (torch.cuda, CudaInterface)
                for name, value in CARD_ANSWERS.items()
                if hasattr(owner, name)
            ),
            (AsyncCompile, "triton", compile_only),
            (GraphLowering, "save_output_code", self.code.append),
            (scheduler, "has_triton", lambda: True),
            (triton_helpers, "set_driver_to_gpu", lambda: None),
        ]
        with ExitStack() as stack:
            for owner, name, value in patches:
                stack.enter_context(mock.patch.object(owner, name, value))
            stack.enter_context(torch._inductor.config.patch(SETTINGS))
            yield


def on_card(x: Tensor) -> Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=CARD)


def device_on_card(x: Any) -> Any:
    return CARD if isinstance(x, torch.device) else x


def compile_block(number: int) -> dict[str, Any]:
    """Return kernels and launches of a step of a block of MViTv2-S, in bfloat16 by autocast."""
    spec = block_schedule(variant_config("mvitv2_s"))[number]
    with mock.patch("torch.nn.init.trunc_normal_"):  # the weights are never read
        block = MultiScaleBlock(spec).train()
    tokens = torch.zeros(NUM_CLIPS, kernels.plain.num_tokens(spec.thw, spec.num_cls), spec.dim)
    torch._dynamo.reset()
    done = Compilation()
    with (
        kernels.use("gpu"),
        torch.autocast("cpu", torch.bfloat16),
        torch._functorch.config.patch(force_non_lazy_backward_lowering=True),
    ):
        compiled = torch.compile(block, backend=done.backend, fullgraph=True, dynamic=False)
        compiled(tokens.requires_grad_())
    return {"kernels": done.kernels, "launches": [launches(code) for code in done.code]}


def launches(code: str) -> dict[str, int]:
    """Count what generated code starts: name -> number."""
    started = re.findall(
        r"\b(triton_\w+)\.run\(|\b(extern_kernels\.\w+|torch\.ops\.[\w.]+)\(", code
    )
    return Counter(kernel or operator for kernel, operator in started)


if __name__ == "__main__":
    blocks = {number: compile_block(int(number)) for number in sys.argv[1:]}
    sys.stdout.write(json.dumps(blocks))
