"""Other engines compute what PyTorch does, or are refused in a sentence before they are used."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from support.commands import run_python
from torch import Tensor, nn

from video_mvit.data.transforms.augment import Normalize
from video_mvit.weights import engines, openvino_graphs
from video_mvit.weights.engines import (
    Engine,
    EngineName,
    EngineNetwork,
    check_engine,
    eager_run,
    open_engine,
)
from video_mvit.weights.export import trace
from video_mvit.weights.openvino_graphs import Precision

NAMES: list[tuple[Literal["onnxruntime", "openvino"], Precision]] = [
    ("onnxruntime", "float32"),
    ("openvino", "float32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
]
HOST = torch.device("cpu")


def needs(name: str) -> None:
    for module in ("openvino",) if name == "openvino" else ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(module) is None:
            pytest.skip(f"{module} is not installed")


def clips(num_clips: int) -> Tensor:
    generator = torch.Generator().manual_seed(num_clips)
    return torch.randint(0, 256, (num_clips, 4, 3, 32, 32), dtype=torch.uint8, generator=generator)


def from_pixels() -> nn.Module:
    """A small network: tests/cli/test_engines.py converts an MViTv2."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(4 * 3 * 32 * 32, 8), nn.GELU(), nn.Linear(8, 3)
    return nn.Sequential(Normalize(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4]), *layers).eval()


SIGNAL_AFTER_TWO_GRAPHS = """
import gc, os, signal, torch
from torch import nn
from video_mvit.weights.export import trace
from video_mvit.weights.openvino_graphs import convert, run_items

items, network = torch.ones(2, 4), nn.Linear(4, 3).eval()
graph = convert(trace(network, items[:1]), items[:1], "items", ["outputs"])
first, second = (run_items(graph, "float32", 1, 2) for _ in range(2))
first(items), second(items)
for run in ("first", "second"):
    del globals()[run]
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("asked to end"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.slow
def test_signal_arrives_when_the_graphs_of_openvino_are_gone(tmp_path: Path) -> None:
    needs("openvino")
    result = run_python(SIGNAL_AFTER_TWO_GRAPHS, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "asked to end\n"), result.stderr


@pytest.mark.slow
def test_clip_that_comes_alone_has_the_logits_that_it_has_beside_others() -> None:
    needs("openvino")
    network, items = from_pixels(), clips(3)
    graph = openvino_graphs.convert(trace(network, items[:1]), items[:1], "items", ["outputs"])
    run = openvino_graphs.run_items(graph, "float32", num_threads=2, num_at_once=3)
    alone = torch.cat([run(item) for item in items.split(1)])
    torch.testing.assert_close(alone, network(items), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(alone, run(items), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), NAMES)
def test_engine_gives_the_logits_of_any_number_of_clips_in_their_order(
    name: Literal["onnxruntime", "openvino"], precision: Precision
) -> None:
    needs(name)
    network = from_pixels()
    engine = open_engine(network, clips(2), name, precision, num_at_once=2)
    for num_clips in (1, 2, 7):  # more than run at once, too
        expected = eager_run(network, HOST, "float32")(clips(num_clips))
        tolerance = expected.abs().max().item() * engines.TOLERANCES[precision]
        found = engine.run(clips(num_clips))
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
        assert torch.equal(EngineNetwork(engine.run)(clips(num_clips)), found)
    assert (expected[1:] - expected[:-1]).abs().max() > 2 * tolerance  # a wrong order shows
    assert engine.difference <= engines.TOLERANCES[precision]


class Traced(nn.Module):
    """Computes something else where it is traced, as a faulty converter would make it."""

    def forward(self, clip: Tensor) -> Tensor:
        means = clip.flatten(1)[:, :3].float()
        return means + (60.0 if torch.compiler.is_exporting() else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), NAMES)
def test_engine_that_differs_is_not_used(
    name: Literal["onnxruntime", "openvino"], precision: Precision
) -> None:
    needs(name)
    message = rf"{name} was not used: its outputs are .* % from PyTorch's.* {precision}; use engine"
    with pytest.raises(ValueError, match=message):
        open_engine(Traced().eval(), clips(2), name, precision, num_at_once=2)


class Data(nn.Module):
    """Decides on what it sees, which a graph cannot."""

    def forward(self, clip: Tensor) -> Tensor:
        return clip.float().flatten(1) * (2 if clip.sum() > 0 else 3)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_network_that_cannot_be_converted_is_one_sentence(
    name: Literal["onnxruntime", "openvino"],
) -> None:
    needs(name)
    with pytest.raises(ValueError, match=rf"{name} cannot run this model, use engine=torch: .+"):
        open_engine(Data().eval(), clips(2), name, "float32", num_at_once=2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnxruntime", r"ONNX needs onnx, .*pip install 'onnx[<>].*' 'onnxruntime[<>]"),
        ("openvino", r"OpenVINO is not installed; pip install 'openvino[<>]"),
    ],
)
def test_missing_engine_is_one_sentence(
    name: Literal["onnxruntime", "openvino"], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("video_mvit.weights.export.find_spec", lambda _: None)
    monkeypatch.setattr(openvino_graphs, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=message):
        check_engine(name, "float32")


def test_onnx_runtime_has_no_bf16_on_a_cpu() -> None:
    needs("onnxruntime")
    with pytest.raises(ValueError, match="computes in float32 on a CPU; use engine=openvino"):
        check_engine("onnxruntime", "bf16")


@pytest.mark.parametrize("name", ["torch", "onnxruntime"])
def test_int8_is_of_openvino_alone(name: EngineName) -> None:
    with pytest.raises(ValueError, match=f"engine={name} does not compute in int8; use engine=op"):
        check_engine(name, "int8")


class Products(nn.Module):
    """A linear layer with an unused channel, a product with a constant, and one of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 8)
        self.matrix = nn.Parameter(torch.randn(8, 4))
        nn.init.zeros_(self.linear.weight[3])

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x) @ self.matrix
        return x @ x.transpose(1, 2)


@pytest.mark.slow
def test_weights_of_linear_layers_are_int8_within_half_a_step_of_each_channel() -> None:
    needs("openvino")
    torch.manual_seed(0)
    network, example = Products().eval(), torch.randn(1, 5, 16)
    graph = openvino_graphs.convert(trace(network, example), example, "items", ["outputs"])
    openvino_graphs.store_weights_as_int8(graph)
    found = [
        tuple(torch.tensor(part.get_data()) for part in parts)
        for operation in graph.get_ops()
        if operation.get_type_name() == "Multiply"
        and (parts := _rounded_and_scale(operation)) is not None
    ]
    weights = {8: network.linear.weight.detach(), 4: network.matrix.detach().T}
    assert sorted(len(rounded) for rounded, _ in found) == [4, 8]
    for rounded, scale in found:
        weight = weights[len(rounded)]
        largest = weight.abs().amax(1, keepdim=True)
        torch.testing.assert_close(scale, (largest / 127).clamp_min(1e-37))
        assert ((rounded * scale - weight).abs() <= 0.501 * scale).all()
        assert torch.equal(rounded.abs().amax(1, keepdim=True), 127 * (largest > 0))


def _rounded_and_scale(product: Any) -> tuple[Any, Any] | None:
    converted, scale = (product.input_value(index).get_node() for index in (0, 1))
    if converted.get_type_name() != "Convert":
        return None
    rounded = converted.input_value(0).get_node()
    assert rounded.get_element_type().to_dtype() == "int8"
    return rounded, scale


@pytest.mark.slow
def test_openvino_reports_nothing_to_its_makers() -> None:
    needs("openvino")
    code = """
from video_mvit.weights.openvino_graphs import import_openvino
import_openvino()
import openvino.tools.ovc.telemetry_utils as utils
print(utils.tm.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_line_of_an_engine_says_latency_throughput_and_difference() -> None:
    engine = Engine(
        name="openvino",
        precision="bf16",
        run=lambda items: items,
        difference=0.0123,
        item_s=0.887,
        torch_s=1.075,
        items_per_s=1.2345,
        prepare_s=34.4,
    )
    assert engine.describe("clip") == (
        "engine openvino, bf16: 887.0 ms a clip, PyTorch 1075.0 ms; 1.2 clips/s; outputs within "
        "1.2 % of PyTorch's in float32; ready after 34 s"
    )
    described = replace(engine, precision="int8").describe("clip")
    assert "int8: 887.0 ms a clip, PyTorch 1075.0 ms in float32; 1.2 clips/s" in described


def test_bf16_of_pytorch_is_autocast_and_float32_is_exact() -> None:
    network = from_pixels()
    exact, mixed = (eager_run(network, HOST, each)(clips(2)) for each in ("float32", "bf16"))
    with torch.inference_mode():
        assert torch.equal(exact, network(clips(2)))
    assert exact.dtype == mixed.dtype == torch.float32
    assert 0 < (exact - mixed).abs().max() < engines.TOLERANCES["bf16"] * exact.abs().max()
