"""Networks as OpenVINO graphs: converted from a traced network, saved, and run on a CPU."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from video_mvit.errors import UserError, install_command

Precision = Literal["float32", "bf16", "int8"]
# What the graph computes in. Without a hint, as for int8, OpenVINO takes bf16 where the processor
# has it: the products of linear layers are of int8 then, and the rest is of bf16 or float32.
HINTS = {"float32": "f32", "bf16": "bf16"}
# Largest difference of int8 from float32, relative to the largest output: an MViTv2-S of random
# weights differs by 3 to 4 %, the demo's by 0.5 to 1 %.
INT8_TOLERANCE = 0.1


def import_openvino() -> Any:
    """Import OpenVINO without the package that reports imports and conversions to its makers.

    Raises `UserError` where it is not installed.
    """
    if find_spec("openvino") is None:
        raise UserError(f"OpenVINO is not installed; {install_command('openvino')}")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return importlib.import_module("openvino")


@functools.cache
def core() -> Any:
    """Return OpenVINO's core, one for the process.

    The CPU plugin of each gives the process a stack for signals, and with the core it puts the one
    before back: that of another core, which may be gone. The next signal, such as Ctrl-C, is then a
    segmentation fault.
    """
    return import_openvino().Core()


def convert(
    program: torch.export.ExportedProgram,
    example: Tensor,
    input_name: str,
    output_names: Sequence[str],
) -> Any:
    """Convert a traced network of one input to a graph with these names.

    The batch stays free, unless the network was traced for the single item of `example`. Raises
    `RuntimeError` if OpenVINO lacks an operation.
    """
    openvino = import_openvino()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # it calls what PyTorch renamed
            graph = openvino.convert_model(program)
    except openvino.frontend.OpConversionFailure as error:
        raise RuntimeError(str(error)) from error
    graph.reshape([1 if len(example) == 1 else -1, *example.shape[1:]])
    for port, name in zip(
        (*graph.inputs, *graph.outputs), (input_name, *output_names), strict=True
    ):
        port.get_tensor().set_names({name})
    return graph


def store_weights_as_int8(graph: Any) -> None:
    """Replace the weights of all linear layers of a graph by int8 and a scale per output channel.

    A channel's largest weight becomes 127 or -127, the others are rounded to the nearest step, so
    that no data is needed. OpenVINO quantizes what goes into such a layer as it runs, in groups of
    input channels, and multiplies in int8 where the processor can.
    """
    operations = importlib.import_module("openvino.opset13")
    for product in graph.get_ops():
        if product.get_type_name() != "MatMul":
            continue
        constant = product.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or len(constant.get_output_shape(0)) != 2:
            continue  # of two tensors, or of tables of relative positions
        weight = constant.get_data()
        input_axis = 1 if product.get_attributes()["transpose_b"] else 0
        largest = np.abs(weight).max(axis=input_axis, keepdims=True)
        scale = np.maximum(largest / 127, np.finfo(np.float32).tiny).astype(np.float32)
        with np.errstate(invalid="ignore"):  # NaN and Inf show in the outputs
            rounded = np.rint(weight / scale).astype(np.int8)
        converted = operations.convert(operations.constant(rounded), "f32")
        restored = operations.multiply(converted, operations.constant(scale))
        product.input(1).replace_source_output(restored.output(0))


def save(graph: Any, path: Path) -> None:
    """Write a graph with its weights as they are: NAME.xml, and NAME.bin beside it."""
    import_openvino().save_model(graph, path, compress_to_fp16=False)


def open_graph(path: Path, num_threads: int) -> Callable[[Tensor], tuple[Tensor, ...]]:
    """Return a function that runs a saved graph, a batch at a time, in float32 but for int8."""
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": num_threads}
    compiled = core().compile_model(core().read_model(path), "CPU", options)

    def run(batch: Tensor) -> tuple[Tensor, ...]:
        found = compiled({0: np.ascontiguousarray(batch.numpy())})
        return tuple(torch.from_numpy(found[port].copy()) for port in compiled.outputs)

    return run


def run_items(
    graph: Any, precision: Precision, num_threads: int, num_at_once: int
) -> Callable[[Tensor], Tensor]:
    """Return a function that runs a graph of one item on each of a batch: (N, ...) -> (N, ...).

    Up to `num_at_once` items run side by side, as many as OpenVINO finds best for the cores. An
    item that comes alone has all of them, by a second compilation when the first one comes.
    """
    openvino = import_openvino()
    options: dict[str, int | str] = {"INFERENCE_NUM_THREADS": num_threads}
    if precision in HINTS:
        options["INFERENCE_PRECISION_HINT"] = HINTS[precision]
    side_by_side = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "PERFORMANCE_HINT_NUM_REQUESTS": num_at_once,
    }
    compiled = core().compile_model(graph, "CPU", {**options, **side_by_side})
    queue = openvino.AsyncInferQueue(compiled)

    @functools.cache
    def alone() -> Any:
        return core().compile_model(graph, "CPU", {**options, "PERFORMANCE_HINT": "LATENCY"})

    def run(items: Tensor) -> Tensor:
        if len(items) == 1 and num_threads > 1:
            return torch.from_numpy(alone()({0: np.ascontiguousarray(items.numpy())})[0].copy())
        outputs: dict[int, Tensor] = {}

        def keep(request: Any, index: int) -> None:
            outputs[index] = torch.from_numpy(request.get_output_tensor(0).data.copy())

        queue.set_callback(keep)
        for index, item in enumerate(items.numpy()):
            queue.start_async({0: np.ascontiguousarray(item[None])}, index)
        queue.wait_all()
        return torch.cat([outputs[index] for index in range(len(items))])

    return run
