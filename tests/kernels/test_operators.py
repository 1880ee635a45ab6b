"""How many operators a forward and backward pass starts on a GPU, counted without one."""

import pytest
import torch
from benchmarks.operators import count_operators, gpu_operators
from torch import nn

from video_mvit import kernels
from video_mvit.models.config import variant_config

BUDGET = 2_489  # operators of MViTv2-S, 16x224x224


def test_forward_and_backward_count_but_no_views_and_allocations() -> None:
    layer = nn.Linear(3, 4)
    x = torch.ones(2, 5, 3)

    def run() -> None:
        y = layer(x).transpose(1, 2).flatten(1)
        y.backward(torch.empty_like(y))

    # Flattening copies, there and back; the input needs no gradient, the bias a sum.
    expected = {"aten::addmm": 1, "aten::clone": 2, "aten::mm": 1, "aten::sum": 1}
    counts = count_operators(run)
    assert {name: counts[name] for name in expected} == expected
    assert not {"aten::view", "aten::t", "aten::empty_like", "aten::transpose"} & set(counts)


def test_triton_kernels_count_where_no_operator_encloses_them() -> None:
    norm = pytest.importorskip(
        "video_mvit.kernels.triton_layer_norm", reason="there is no Triton here"
    )
    pooling = pytest.importorskip("video_mvit.kernels.triton_pooling")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.ones(1, 4, 8, device=device)
    weight = torch.ones(8, 1, 1, 3, 3, device=device)
    counts = count_operators(lambda: norm.layer_norm(x, x[0, 0], x[0, 0], 1e-6))
    assert counts["triton::_forward_kernel"] == 1
    counts = count_operators(lambda: pooling.pool_tokens(x, weight, (1, 2, 2), (1, 1, 1), 0))
    assert dict(counts) == {"video_mvit::triton_pooled_tokens": 1}


def test_forms_of_a_gpu_are_chosen_only_within_the_context() -> None:
    operation = next(each for each in kernels.OPERATIONS if each.name == "layer_norm")
    example = operation.examples()[0]
    assert operation.choose(*example) is None
    with kernels.use("gpu"):
        form = operation.choose(*example)
    assert form in operation.forms
    assert operation.choose(*example) is None


@pytest.mark.slow
def test_a_pass_of_s_stays_within_its_budget_of_operators() -> None:
    counts = gpu_operators(variant_config("mvitv2_s"))
    assert counts.total() <= BUDGET, counts.most_common()
    assert counts["aten::_local_scalar_dense"] == 0
