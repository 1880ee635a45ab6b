"""`torch.compile` of the whole network: one graph, equal to eager, for many batch sizes."""

import shutil
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import video_mvit
from video_mvit.models.mvit import MViT

pytestmark = pytest.mark.slow
BATCH_SIZES = (2, 4, 3, 8, 5, 6, 7)


def can_compile() -> bool:
    return bool(shutil.which("g++")) and Path(sysconfig.get_path("include"), "Python.h").is_file()


def tiny_model(**overrides: Any) -> MViT:
    torch.manual_seed(0)
    torch._dynamo.reset()
    counters.clear()
    sizes: dict[str, Any] = {"num_frames": 4, "crop_size": 32, "embed_dim": 16}
    rates = {"drop_path_rate": 0.0, "head_dropout": 0.0}
    depths = {"depths": (1, 1, 1, 1), "num_classes": 3}
    return video_mvit.create_model("mvitv2_s", **{**sizes, **rates, **depths, **overrides})


def clip(batch_size: int) -> Tensor:
    generator = torch.Generator().manual_seed(batch_size)
    return torch.randn(batch_size, 3, 4, 32, 32, generator=generator)


def graphs() -> int:
    """How many graphs were compiled since the last `tiny_model`."""
    return counters["stats"]["unique_graphs"]


def gradients(model: MViT, output: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(output.square().sum(), list(model.parameters())))


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"cls_token": False, "head": "mean"}, marks=pytest.mark.long)],
)
def test_evaluation_is_one_graph_for_all_batches_of_two_and_more(options: dict[str, Any]) -> None:
    model = tiny_model(**options).eval()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch.inference_mode():
        for batch_size in BATCH_SIZES:
            torch.testing.assert_close(compiled(clip(batch_size)), model(clip(batch_size)))
        assert graphs() == 1
        torch.testing.assert_close(compiled(clip(1)), model(clip(1)))
        assert graphs() == 2  # a single clip has a graph of its own
        compiled(clip(8))
        compiled(clip(1))
    assert graphs() == 2


@pytest.mark.long
def test_training_is_one_graph_with_the_gradients_of_eager() -> None:
    model = tiny_model().train()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch_size in BATCH_SIZES:
        expected, found = model(clip(batch_size)), compiled(clip(batch_size))
        torch.testing.assert_close(found, expected)
        pairs = zip(gradients(model, found), gradients(model, expected), strict=True)
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert graphs() == 1


@pytest.mark.long
@pytest.mark.skipif(not can_compile(), reason="needs g++ and the headers of Python")
def test_generated_code_gives_the_tokens_of_eager() -> None:
    """Of the block that pools queries, keys, values and the skip path, and widens."""
    model = tiny_model().eval()
    block = model.blocks[1]
    compiled = torch.compile(block, fullgraph=True, dynamic=True)
    with torch.inference_mode():
        for batch_size in (2, 3, 8):
            tokens = model.blocks[0](model._embed(clip(batch_size)))
            close = {"rtol": 1e-4, "atol": 1e-5}
            torch.testing.assert_close(compiled(tokens), block(tokens), **close)
