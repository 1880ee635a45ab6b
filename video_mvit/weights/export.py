"""Export networks as `torch.export` programs, ONNX and OpenVINO graphs, for any batch size.

An export is read back, run and compared with the network before it is moved into place.
"""

import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from video_mvit.errors import MissingFileError, UserError, install_command
from video_mvit.files import check_room, move_into_place, replace_atomically
from video_mvit.weights import openvino_graphs
from video_mvit.weights.model_card import ModelCard
from video_mvit.weights.openvino_graphs import INT8_TOLERANCE

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FORMAT = "video_mvit export 1"
SUFFIXES = (".pt2", ".onnx", ".xml")
MAX_BATCH_SIZE = 64
TOLERANCE = 1e-4  # of logits; probabilities are smaller
ROUNDING = 2**-22  # of float32, relative, where a mean is added
Weights = Literal["float32", "int8"]
Run = Callable[[Tensor], Tensor]
RunAll = Callable[[Tensor], tuple[Tensor, ...]]


class ToUnits(nn.Module):
    """Map standardized values (B, K) to values in the units of their targets."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, standardized: Tensor) -> Tensor:
        return standardized * self.std + self.mean


class WithPreprocessing(nn.Module):
    """Map cropped uint8 frames (B, T, C, H, W) to probabilities or values (B, num_classes).

    `activation` makes them of logits; None: softmax.
    """

    def __init__(
        self, preprocess: nn.Module, model: nn.Module, activation: Run | None = None
    ) -> None:
        super().__init__()
        self.activation = activation or nn.Softmax(dim=-1)
        self.preprocess = preprocess
        self.model = model

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.model(self.preprocess(frames))
        return self.activation(logits)


@dataclass(frozen=True, kw_only=True)
class Interface:
    """Input and output of an export, for users without this package.

    Attributes:
        layout: names of the input's axes; B is any batch size from 1 to 64.
        shape: of one item, without B.
        output: "logits" or "probabilities". Logits become those by softmax, by sigmoid where the
            task is multi_label, and by the softmax of each of its `heads` where it is multi_head;
            then views are combined, as the card says. In a regression, "standardized", or "values":
            standardized ones times target_std plus target_mean of the card; those of views are
            averaged.
        weights: what those of linear layers are stored as.
    """

    input: str
    dtype: str
    layout: str
    shape: tuple[int, ...]
    output: str
    weights: Weights = "float32"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A verified export: maximum difference from the network, and a function to run it.

    `difference` is `max_abs_diff` relative to the largest output.
    """

    files: tuple[Path, ...]
    max_abs_diff: float
    difference: float
    run: Run


def check_target(path: Path, *, overwrite: bool, weights: Weights = "float32") -> None:
    """Raise `UserError` or `FileNotFoundError` if nothing can be exported to this path."""
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path} must end in .pt2 (torch.export program), .onnx or .xml (OpenVINO)")
    if weights == "int8" and path.suffix != ".xml":
        raise UserError(f"{path}: precision=int8 is for OpenVINO; use a target that ends in .xml")
    if not path.parent.is_dir():
        raise MissingFileError(f"no folder {path.parent} to write {path.name} to")
    binary = [path.with_suffix(".bin")] if path.suffix == ".xml" else []
    for present in (path, *binary, _beside(path)):
        if present.exists() and not overwrite:
            raise UserError(f"{present} exists; overwrite=true replaces it")
    if path.suffix == ".onnx":
        need_onnx("export")
    if path.suffix == ".xml":
        openvino_graphs.import_openvino()


def export(
    network: nn.Module,
    examples: Sequence[Tensor],
    path: Path,
    about: Interface,
    scale: float = 1.0,
) -> Written:
    """Export a network in evaluation mode as its suffix says, and verify it on all examples.

    Args:
        examples: inputs of different batch sizes; the first is traced and has at least two items.
        scale: of the outputs, if they are logits times a number.

    Raises:
        UserError: if an output differs by more than the tolerance; nothing is written then.
    """
    if len(examples[0]) < 2:
        raise UserError("the first example needs a batch of two, or its size is fixed to one")
    with draft_of(path, network) as draft:
        program = trace(network, examples[0])
        write_program(program, examples[0], draft, about.input, [about.output], about.weights)
        del program
        diff, largest = compare(network, open_export(draft), examples)
        tolerance = TOLERANCE * scale + (largest * ROUNDING if scale != 1 else 0)
        tolerance = tolerance if about.weights == "float32" else INT8_TOLERANCE * largest
        if not diff <= tolerance:
            raise UserError(
                f"{path} was not written: its {about.output} are {diff:.1e} from the model's, "
                f"more than {tolerance:.2g}"
            )
        files = keep(draft, path)
    relative = diff / max(largest, 1e-6)  # a new head may give zeros
    return Written(files=files, max_abs_diff=diff, difference=relative, run=open_export(path))


@contextmanager
def draft_of(path: Path, network: nn.Module) -> Iterator[Path]:
    """Yield where an export is written until it is verified; what is not kept is removed."""
    check_room(path.parent, sum(tensor.nbytes for tensor in network.state_dict().values()))
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder, path.name)


def keep(draft: Path, path: Path) -> tuple[Path, ...]:
    """Move the files of a verified export to where it was asked for; return them."""
    names = sorted(file.name for file in draft.parent.iterdir())
    for name in names:
        move_into_place(draft.parent / name, path.parent / name)
    return tuple(path.parent / name for name in names)


def trace(network: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Trace a network to a graph for any batch size; with an example of one item, for one."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH_SIZE)
    shapes = ({0: batch},) if len(example) > 1 else None
    with torch.no_grad():
        return torch.export.export(network, (example,), dynamic_shapes=shapes, strict=False)


def open_export(path: Path, num_threads: int | None = None) -> Run:
    """Return a function that runs an exported file of one output on a CPU."""
    run = open_outputs(path, num_threads)

    def run_only(batch: Tensor) -> Tensor:
        (output,) = run(batch)
        return output

    return run_only


def open_outputs(path: Path, num_threads: int | None = None) -> RunAll:
    """Return a function that runs an exported file of any number of outputs on a CPU."""
    num_threads = num_threads or torch.get_num_threads()
    if path.suffix == ".onnx":
        return _open_onnx(path, num_threads)
    if path.suffix == ".xml":
        return openvino_graphs.open_graph(path, num_threads)
    program = torch.export.load(path).module()

    def run(batch: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            found = program(batch)
        return (found,) if isinstance(found, Tensor) else tuple(found)

    return run


def compare(network: nn.Module, run: Run, examples: Sequence[Tensor]) -> tuple[float, float]:
    """Return the largest absolute difference, and the largest output; NaN if one is NaN."""
    differences, outputs = [], []
    for example in examples:
        with torch.inference_mode():
            expected = network(example)
        differences.append((run(example) - expected).abs().max())
        outputs.append(expected.abs().max())
    return torch.stack(differences).max().item(), torch.stack(outputs).max().item()


def write_about(path: Path, card: ModelCard, about: "DataclassInstance") -> Path:
    """Write a description beside the file, NAME.onnx.json, NAME.pt2.json or NAME.xml.json."""
    content: Mapping[str, Any] = {
        "format": FORMAT,
        "interface": asdict(about),
        "classes": card.class_names,
        "card": asdict(card),
    }
    beside = _beside(path)
    text = json.dumps(content, indent=2, ensure_ascii=False)
    with replace_atomically(beside) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return beside


def _beside(path: Path) -> Path:
    """Return the path of the description; NAME.json would be the card of NAME.safetensors."""
    return path.with_name(f"{path.name}.json")


def write_program(
    program: torch.export.ExportedProgram,
    example: Tensor,
    path: Path,
    input_name: str,
    output_names: Sequence[str],
    weights: Weights = "float32",
) -> None:
    """Write a traced network as .pt2, or with these names as .onnx or .xml.

    `weights` of linear layers may be int8 in .xml.
    """
    if path.suffix == ".pt2":
        torch.export.save(program, path)
        return
    if path.suffix == ".xml":
        graph = openvino_graphs.convert(program, example, input_name, output_names)
        if weights == "int8":
            openvino_graphs.store_weights_as_int8(graph)
        openvino_graphs.save(graph, path)
        return
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")
        onnx_program = torch.onnx.export(
            program,
            (example,),
            dynamo=True,
            optimize=True,
            verbose=False,
            input_names=[input_name],
            output_names=output_names,
        )
    assert onnx_program is not None
    onnx_program.save(path)


def _open_onnx(path: Path, num_threads: int) -> RunAll:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(batch: Tensor) -> tuple[Tensor, ...]:
        outputs = session.run(None, {name: np.ascontiguousarray(batch.numpy())})
        return tuple(map(torch.from_numpy, outputs))

    return run


def need_onnx(extra: str) -> None:
    """Raise `UserError` if a package that writes or runs ONNX is missing."""
    modules = ("onnx", "onnxscript", "onnxruntime")
    if missing := [module for module in modules if find_spec(module) is None]:
        raise UserError(f"ONNX needs {', '.join(missing)}; {install_command(extra)}")


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Silence developer messages of exporters."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
