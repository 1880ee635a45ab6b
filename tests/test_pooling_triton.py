"""The Triton pooling kernels against the plain pooling, in float64.

On a GPU, or where there is none, on a CPU in Triton's interpreter (`conftest.py`).
"""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from video_mvit import pooling
from video_mvit.pooling import DepthwisePool, depthwise_conv3d

kernels = pytest.importorskip("video_mvit.pooling_triton", reason="there is no Triton here")
IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if IS_INTERPRETED else "cuda")


@pytest.mark.parametrize(
    ("thw", "kernel", "stride", "channels"),
    [
        ((3, 5, 4), (3, 3, 3), (1, 1, 1), 6),
        ((2, 9, 7), (3, 3, 3), (1, 2, 2), 6),
        ((4, 9, 8), (3, 3, 3), (1, 3, 3), 3),
        ((3, 9, 8), (3, 3, 3), (1, 4, 8), 3),
        ((1, 6, 5), (1, 3, 3), (1, 2, 2), 70),  # an image, more channels than a tile has
        ((2, 4, 3), (1, 3, 3), (1, 1, 2), 6),
    ],
)
def test_outputs_and_gradients_are_those_of_plain_pooling(
    thw: tuple[int, int, int],
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    channels: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    options: dict[str, Any] = {"dtype": torch.float64, "generator": generator}

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, **options).to(DEVICE)

    wide = random(2, *thw, 3 * channels).requires_grad_()
    weight = random(channels, 1, *kernel).requires_grad_()
    part = wide[..., channels : 2 * channels]  # as k comes out of one projection
    monkeypatch.setattr(pooling, "_fast_path", lambda *_: "triton")
    ours = depthwise_conv3d(part, weight, stride)
    plain = pooling._forward(part, weight, stride)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    direction = random(*plain.shape)
    for a, b in zip(
        torch.autograd.grad(ours, (wide, weight), direction),
        torch.autograd.grad(plain, (wide, weight), direction),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_gradient_of_the_kernel_is_summed_over_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "NUM_PARTS", 2)  # of 10 tiles
    x, grad = torch.randn(2, 2, 3, 5, 7, 4, dtype=torch.float64, device=DEVICE)
    shape = [4, 1, 3, 3, 3]
    ours = kernels.weight_gradient(grad, x, shape, [1, 1, 1])
    plain = pooling._weight_gradient(grad.cpu(), x.cpu(), shape, [1, 1, 1])
    torch.testing.assert_close(ours.cpu(), plain, rtol=0, atol=1e-11)


def test_channels_may_lie_apart() -> None:
    x = torch.randn(1, 4, 2, 5, 4, device=DEVICE).permute(0, 2, 3, 4, 1)
    weight = torch.randn(4, 1, 1, 3, 3, device=DEVICE)
    stride, shape = (1, 1, 1), list(x.shape)
    ours = kernels.depthwise_forward(x, weight, stride)
    torch.testing.assert_close(ours, pooling._forward(x, weight, stride))
    ours = kernels.input_gradient(x, weight, shape, stride)
    plain = pooling._forward(x, weight.flip(3, 4), stride)
    torch.testing.assert_close(ours, plain)


def test_pooling_takes_the_kernels_and_compiles_to_one_graph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pool = DepthwisePool(4, (1, 3, 3), (1, 2, 2))
    torch.nn.init.normal_(pool.weight)
    pool, x = pool.to(DEVICE), torch.randn(1, 1, 5, 4, 8, device=DEVICE)
    monkeypatch.setattr(pooling, "_fast_path", lambda *_: None)
    plain = pool(x)
    calls = []
    forward = kernels.depthwise_forward
    monkeypatch.setattr(pooling, "_fast_path", lambda *_: "triton")
    monkeypatch.setattr(
        kernels, "depthwise_forward", lambda *args: calls.append(args) or forward(*args)
    )
    torch.testing.assert_close(pool(x), plain)
    assert len(calls) == 1
    monkeypatch.setattr(kernels, "depthwise_forward", forward)
    torch._dynamo.reset()
    compiled = torch.compile(pool, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), plain)


def test_trial_tells_kernels_that_work_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():  # as in an evaluation that is the first use
        assert pooling.worst_difference(DEVICE) < pooling.MAX_DIFFERENCE

    plain = pooling._forward

    def wrong(x: torch.Tensor, weight: torch.Tensor, stride: pooling.Grid) -> torch.Tensor:
        return plain(x, weight, stride) * torch.nan

    monkeypatch.setattr(pooling, "_forward", wrong)
    assert np.isnan(pooling.worst_difference(DEVICE))


@pytest.mark.parametrize(
    ("trial", "reason"),
    [
        (lambda *_: 0.5, "they differ by 0.5"),
        (lambda *_: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda *_: float("nan"), "they differ by nan"),
    ],
)
def test_kernels_that_do_not_work_are_left_out(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    trial: Any,
    reason: str,
) -> None:
    monkeypatch.setattr(pooling, "worst_difference", trial)
    monkeypatch.setattr(pooling, "_tried", {})
    with caplog.at_level(logging.WARNING, "video_mvit"):
        assert not pooling.triton_works(0)
        assert not pooling.triton_works(0)
    assert [record.getMessage() for record in caplog.records] == [
        f"Triton pooling is left out on cuda:0, which will be slower: {reason}"
    ]


def test_trial_is_made_while_a_compiler_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pooling, "worst_difference", lambda *_: 0.0)
    monkeypatch.setattr(pooling, "_tried", {})
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="eager")
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if pooling.triton_works(0) else x

    assert float(add(torch.zeros(()))) == 1
    assert pooling._tried == {0: True}


COMPILE = """
import torch, triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from video_mvit import pooling_triton as kernels

def compile_for(capability, kernel, tile, **constants):
    P, PC, VECTOR, warps = tile
    constants |= {"P": P, "PC": PC, "VECTOR": VECTOR, "SUM": tl.float32}
    pointers = {"source", "weight", "made", "x", "grad", "parts"}
    signature = {
        name: "constexpr" if name in constants else "*bf16" if name in pointers else "i32"
        for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=constants)
    options = {"num_warps": warps}
    triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)

for capability, frames, stride in ((80, 3, 1), (90, 3, 1), (90, 3, 2), (90, 3, 3), (90, 1, 2)):
    sizes = {"KT": frames, "SH": stride, "SW": stride}
    for is_gradient in (False, True):
        sizes["IS_GRADIENT"] = is_gradient
        compile_for(capability, kernels._walk_kernel, kernels.WALK, **sizes)
    del sizes["IS_GRADIENT"]
    compile_for(capability, kernels._weight_kernel, kernels.SUMS, **sizes)
print("all compiled")
"""


def test_kernels_compile_for_a_gpu_that_is_not_here(tmp_path: Path) -> None:
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["all compiled"], done.stderr
