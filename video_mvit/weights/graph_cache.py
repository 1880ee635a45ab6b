"""Converted OpenVINO graphs of earlier runs, in a folder of the user's cache.

A graph is found by a digest of all that it was converted from: the traced program with its weights,
and the versions that convert. So no file says where another one lies, and a network that computes
something else has another graph. An engine compares a graph with PyTorch wherever it came from.
"""

import logging
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import video_mvit
from video_mvit.files import check_room, move_into_place
from video_mvit.weights import openvino_graphs
from video_mvit.weights.checkpoint_files import weights_sha1

FOLDER = "VIDEO_MVIT_CACHE"  # environment variable: folder of all caches, none where it is empty
MAX_BYTES = 2 * 10**9  # of all graphs; an MViTv2-S has 173 MB
DAY_S = 24 * 3600
logger = logging.getLogger(__name__)


def converted(program: torch.export.ExportedProgram, example: Tensor) -> Any:
    """Return the graph of a traced network, `items` -> `outputs`, of an earlier run if it is there.

    Raises `RuntimeError` if OpenVINO lacks an operation.
    """
    folder = cache_folder()
    has_values = all(isinstance(each, Tensor) for each in program.constants.values())
    if folder is None or not has_values:  # what is no tensor could not be told apart
        return openvino_graphs.convert(program, example, "items", ["outputs"])
    path = folder / f"{_digest(program, example)}.xml"
    if path.is_file():
        try:
            graph = openvino_graphs.core().read_model(path)
            os.utime(path.with_suffix(".bin"))
            return graph
        except (RuntimeError, OSError) as error:
            logger.info("%s cannot be read, converting again: %s", path, error)
    graph = openvino_graphs.convert(program, example, "items", ["outputs"])
    try:
        _keep(graph, path, sum(tensor.nbytes for tensor in program.state_dict.values()))
    except OSError as error:
        logger.info("the converted network was not kept: %s", error)
    return graph


def cache_folder() -> Path | None:
    """Return the folder, made where it is missing; None where nothing is to be kept.

    A folder that others may write to is not used.
    """
    try:
        given = os.environ.get(FOLDER)
        if given == "":
            return None
        base = os.environ.get("XDG_CACHE_HOME", "")
        home = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
        folder = (Path(given).expanduser() if given else home / "video_mvit") / "graphs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = folder.stat()
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None
    is_own = about.st_uid == os.getuid() and not about.st_mode & 0o022
    return folder if is_own and os.access(folder, os.W_OK) else None


def clear() -> None:
    """Remove all graphs, one of which may be damaged."""
    folder = cache_folder()
    if folder is not None:
        _trim(folder, max_bytes=0)


def _digest(program: torch.export.ExportedProgram, example: Tensor) -> str:
    """Hash everything that a conversion depends on."""
    openvino = openvino_graphs.import_openvino()
    text = "\n".join(
        (
            f"{video_mvit.__version__} {torch.__version__} {openvino.__version__}",
            f"{example.dtype} {tuple(example.shape)}",
            str(program.graph_signature),
            program.graph_module.print_readable(print_output=False),
        )
    )
    said = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    lifted = {f"\n{name}": value for name, value in program.constants.items()}
    return weights_sha1({**program.state_dict, **lifted, "\n\n": said})


def _keep(graph: Any, path: Path, num_bytes: int) -> None:
    """Write a graph and its weights; the graph comes last, so that one that is there is whole."""
    check_room(path.parent, 2 * num_bytes)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".draft.") as folder:
        draft = Path(folder, path.name)
        openvino_graphs.save(graph, draft)
        for suffix in (".bin", ".xml"):
            move_into_place(draft.with_suffix(suffix), path.with_suffix(suffix))
    _trim(path.parent, MAX_BYTES)


def _trim(folder: Path, max_bytes: int) -> None:
    """Remove the graphs that were not used for longest, and what killed processes left."""
    weights = sorted(folder.glob("*.bin"), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in weights:
        total += path.stat().st_size
        if total > max_bytes:
            path.with_suffix(".xml").unlink(missing_ok=True)
            path.unlink(missing_ok=True)
    for draft in folder.glob(".draft.*"):
        if time.time() - draft.stat().st_mtime > DAY_S:
            shutil.rmtree(draft, ignore_errors=True)
