"""Run a network through another inference engine on a CPU: ONNX Runtime or OpenVINO.

The network is traced for one item and converted. What comes out is compared with the network in
PyTorch, in float32, before anything else is run through it.
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.weights import graph_cache, openvino_graphs
from video_mvit.weights.export import need_onnx, open_export, trace, write_program
from video_mvit.weights.openvino_graphs import INT8_TOLERANCE, Precision

EngineName = Literal["torch", "onnxruntime", "openvino"]
# Largest difference from float32, relative to the largest output. bf16 has 8 bits: an MViTv2-S
# differs by 1 to 2 %, in PyTorch as in OpenVINO.
TOLERANCES: dict[Precision, float] = {"float32": 1e-4, "bf16": 0.05, "int8": INT8_TOLERANCE}
TorchPrecision = Literal["float32", "bf16"]
Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A way to run a network on items (N, ...), and how it compares with PyTorch.

    Attributes:
        run: maps items on the host to the outputs (N, ...) of the network, float32 on the host.
        difference: largest one from PyTorch in float32, relative to the largest output.
        item_s, torch_s: seconds for a single item, here and in PyTorch at the same precision; in
            float32 beside int8.
        items_per_s: of a few items at once.
        prepare_s: seconds to trace, convert and compare.
    """

    name: EngineName
    precision: Precision
    run: Run
    difference: float
    item_s: float
    torch_s: float
    items_per_s: float
    prepare_s: float

    def describe(self, unit: str) -> str:
        """Say in a line how fast it is and how near to PyTorch."""
        in_float32 = " in float32" if self.precision == "int8" else ""
        return (
            f"engine {self.name}, {self.precision}: {1000 * self.item_s:.1f} ms a {unit}, PyTorch "
            f"{1000 * self.torch_s:.1f} ms{in_float32}; {self.items_per_s:.1f} {unit}s/s; "
            f"outputs within {100 * self.difference:.2g} % of PyTorch's in float32; "
            f"ready after {self.prepare_s:.0f} s"
        )


class EngineNetwork(nn.Module):
    """What an engine computes, as a module without weights: items (N, ...) -> outputs (N, ...)."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self._run = run

    def forward(self, items: Tensor) -> Tensor:
        return self._run(items)


def check_engine(name: EngineName, precision: Precision) -> None:
    """Raise `UserError` if an engine is not installed, or does not compute in this precision."""
    if precision == "int8" and name != "openvino":
        raise UserError(f"engine={name} does not compute in int8; use engine=openvino for int8")
    if name == "openvino":
        openvino_graphs.import_openvino()
    if name == "onnxruntime":
        need_onnx("onnxruntime")
        if precision == "bf16":
            raise UserError(
                "engine=onnxruntime computes in float32 on a CPU; use engine=openvino for bf16"
            )


def eager_run(network: nn.Module, device: torch.device, precision: TorchPrecision) -> Run:
    """Return a function that runs a network in PyTorch: items and outputs are on the host."""

    def run(items: Tensor) -> Tensor:
        is_mixed = precision == "bf16"
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
            output: Tensor = network(items.to(device))
        return output.float().cpu()

    return run


def open_engine(
    network: nn.Module,
    examples: Tensor,
    name: Literal["onnxruntime", "openvino"],
    precision: Precision,
    num_at_once: int,
) -> Engine:
    """Convert a network in evaluation mode on a CPU, compare it on examples, and measure it.

    Args:
        examples: items (N, ...) of the only shape that the engine will be given.
        num_at_once: items that are given together, at most.

    Raises:
        UserError: if the engine is missing, cannot convert the network, or gives other outputs.
    """
    check_engine(name, precision)
    start = time.perf_counter()
    host = torch.device("cpu")
    expected = eager_run(network, host, "float32")(examples)
    try:
        run = _converted(network, examples[:1], name, precision, num_at_once)
        found = run(examples)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{name} cannot run this model, use engine=torch: {reason}") from error
    largest = expected.abs().max().clamp_min(1e-6)  # a new head may give zeros
    difference = ((found - expected).abs().max() / largest).item()
    if not difference <= TOLERANCES[precision]:
        if name == "openvino":
            graph_cache.clear()  # a damaged graph would be refused for ever
        raise UserError(
            f"{name} was not used: its outputs are {100 * difference:.2g} % from PyTorch's, more "
            f"than {100 * TOLERANCES[precision]:g} % in {precision}; use engine=torch"
        )
    prepare_s = time.perf_counter() - start
    eager = eager_run(network, host, "bf16" if precision == "bf16" else "float32")
    eager(examples[:1])
    run(examples[:1])
    return Engine(
        name=name,
        precision=precision,
        run=run,
        difference=difference,
        item_s=_seconds(run, examples[:1]),
        torch_s=_seconds(eager, examples[:1]),
        items_per_s=len(examples) / _seconds(run, examples),
        prepare_s=prepare_s,
    )


def _converted(
    network: nn.Module, example: Tensor, name: str, precision: Precision, num_at_once: int
) -> Run:
    """Trace and convert a network of one item; return what runs it on each of several."""
    program = trace(network, example)
    num_threads = torch.get_num_threads()
    if name == "openvino":
        graph = graph_cache.converted(program, example)
        if precision == "int8":
            openvino_graphs.store_weights_as_int8(graph)
        return openvino_graphs.run_items(graph, precision, num_threads, num_at_once)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "network.onnx")
        write_program(program, example, path, "items", ["outputs"])
        run_one = open_export(path, num_threads)
    return lambda items: torch.cat([run_one(item) for item in torch.split(items, 1)])


def _seconds(run: Run, items: Tensor) -> float:
    start = time.perf_counter()
    run(items)
    return time.perf_counter() - start
