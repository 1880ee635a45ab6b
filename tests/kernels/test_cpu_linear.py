"""Float32 products as convolutions: the same numbers, in stock linear layers, where faster."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from video_mvit.kernels import cpu_attention, cpu_linear
from video_mvit.kernels.cpu_linear import LINEAR, fast_linear, matmul_nt, matmul_tn
from video_mvit.models.config import VARIANTS
from video_mvit.models.mvit import MViT


@pytest.fixture(autouse=True)
def slow_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where PyTorch's own products are slow."""
    monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda: True)
    monkeypatch.setattr(cpu_linear, "MIN_ELEMENTS", 0)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 5, 15, 16, 17, 700, 2048, 2100])
def test_products_are_those_of_matmul(rows: int) -> None:
    a, b, c = torch.randn(rows, 24), torch.randn(40, 24), torch.randn(rows, 40)
    bias = torch.randn(40)
    close(matmul_nt(a, b), a.double() @ b.double().T)
    close(matmul_nt(a, b, bias), a.double() @ b.double().T + bias)
    close(matmul_tn(a, c), a.double().T @ c.double())
    wide = torch.randn(rows, 72)
    close(matmul_tn(wide[:, 24:48], a), wide[:, 24:48].double().T @ a.double())


@pytest.mark.parametrize("num_threads", [1, 2])
def test_products_are_done_by_onednn(num_threads: int) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch was built without oneDNN")
    a, b, before = torch.randn(700, 64), torch.randn(48, 64), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            matmul_tn(matmul_nt(a, b), a)
    finally:
        torch.set_num_threads(before)
    names = {event.name for event in seen.events()}
    assert "aten::mkldnn_convolution" in names
    assert not {name for name in names if "slow_conv2d" in name}


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_linear_gives_no_gradient_to_what_is_frozen(frozen: tuple[int, ...]) -> None:
    inputs = [torch.randn(300, 24), torch.randn(40, 24), torch.randn(40)]
    for i, each in enumerate(inputs):
        each.requires_grad_(i not in frozen)
    LINEAR(*inputs).sum().backward()
    assert [each.grad is None for each in inputs] == [i in frozen for i in range(3)]
    wanted = [each for each in inputs if each.requires_grad]
    expected = torch.autograd.grad(F.linear(*inputs).sum(), wanted)
    for each, gradient in zip(wanted, expected, strict=True):
        torch.testing.assert_close(each.grad, gradient, rtol=1e-4, atol=1e-4)


class Weight(Tensor):
    """A subclass, as quantized and distributed weights are."""


@pytest.mark.parametrize(
    "args",
    [
        (torch.randn(24), torch.randn(40, 24), torch.randn(40)),
        (torch.randn(0, 24), torch.randn(40, 24), torch.randn(40)),
        (torch.randn(5, 24), torch.randn(40, 24).as_subclass(Weight), torch.randn(40)),
        (torch.randn(5, 24).double(), torch.randn(40, 24).double(), torch.randn(40).double()),
        (torch.randn(5, 24).bfloat16(), torch.randn(40, 24).bfloat16(), None),
    ],
    ids=["row", "empty", "subclass", "float64", "bfloat16"],
)
def test_what_gains_nothing_is_left_to_pytorch(args: tuple[Tensor, ...]) -> None:
    form = LINEAR.choose(*args)
    assert form is None
    assert LINEAR.choose(torch.randn(5, 24), torch.randn(40, 24), torch.randn(40)) is not None
    with torch.autocast("cpu", torch.bfloat16):
        assert LINEAR.choose(torch.randn(5, 24), torch.randn(40, 24), torch.randn(40)) is None


def test_stock_layers_take_the_fast_form_within_the_mode_only() -> None:
    layer, x = nn.Linear(24, 40), torch.randn(5, 24)
    with fast_linear(x):
        inside = layer(x)
    assert "_LinearBackward" in inside.grad_fn.name()
    assert "_LinearBackward" not in layer(x).grad_fn.name()
    close(inside, layer(x))
    double = nn.Linear(24, 40).double()
    with fast_linear(x.double()):
        assert torch.equal(double(x.double()), F.linear(x.double(), double.weight, double.bias))


def test_network_is_the_same_with_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(VARIANTS["mvitv2_demo"], crop_size=64, embed_dim=48, num_heads=2)
    # Of one clip in 150, rounding moves a maximum of the skip path, and gradients with it.
    clip = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(cpu_attention, "MIN_SCORES", 0)
    results = []
    for is_slow in (False, True):
        monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda is_slow=is_slow: is_slow)
        torch.manual_seed(0)
        model = MViT(config)
        logits = model(clip)
        logits.square().sum().backward()
        results.append({name: p.grad for name, p in model.named_parameters()})
        results[-1]["logits"] = logits.detach()
    assert any(not torch.equal(results[0][name], results[1][name]) for name in results[0])
    for name, expected in results[0].items():
        difference = (results[1][name] - expected).norm()
        assert difference <= 1e-4 * float(expected.norm()) + 1e-6, name
