"""Matrix products as convolutions: the same numbers, and nothing of it where it gains nothing."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from video_mvit.kernels import cpu_attention as attention
from video_mvit.kernels import cpu_linear as products
from video_mvit.kernels.cpu_linear import (
    Linear,
    gelu_linear,
    linear,
    times_transposed,
    transposed_times,
)
from video_mvit.models.config import VARIANTS
from video_mvit.models.mvit import MViT


def gelu_then_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(F.gelu(x), weight, bias)


MAPS = {False: (linear, F.linear), True: (gelu_linear, gelu_then_linear)}  # ours, PyTorch's


@pytest.fixture
def slow_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor where PyTorch's own products are slow."""
    monkeypatch.setattr(products, "_mkl_lacks_avx512", lambda: True)
    monkeypatch.setattr(products, "MIN_ELEMENTS", 0)


def close(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours.double(), expected.double(), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("slow_products")
@pytest.mark.parametrize("rows", [1, 5, 15, 16, 17, 700, 2048, 2100])
def test_products_are_those_of_matmul(rows: int) -> None:
    a, b, c = torch.randn(rows, 24), torch.randn(40, 24), torch.randn(rows, 40)
    bias = torch.randn(40)
    close(times_transposed(a, b), a.double() @ b.double().T)
    close(times_transposed(a, b, bias), a.double() @ b.double().T + bias)
    close(transposed_times(a, c), a.double().T @ c.double())


@pytest.mark.usefixtures("slow_products")
@pytest.mark.parametrize("num_threads", [1, 2])
def test_products_are_done_by_onednn(num_threads: int) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("PyTorch was built without oneDNN")
    a, b, before = torch.randn(700, 64), torch.randn(48, 64), torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            transposed_times(times_transposed(a, b), a)
    finally:
        torch.set_num_threads(before)
    names = {event.name for event in seen.events()}
    assert "aten::mkldnn_convolution" in names
    assert not {name for name in names if "slow_conv2d" in name}


@pytest.mark.usefixtures("slow_products")
def test_products_of_transposed_and_strided_matrices() -> None:
    a, b = torch.randn(300, 24), torch.randn(24, 40)
    close(times_transposed(a, b.T), a.double() @ b.double())
    wide = torch.randn(300, 72)
    close(transposed_times(wide[:, 24:48], a), wide[:, 24:48].double().T @ a.double())
    close(times_transposed(wide[:, 24:48], b.T), wide[:, 24:48].double() @ b.double())


@pytest.mark.usefixtures("slow_products")
@pytest.mark.parametrize("after_gelu", [False, True])
@pytest.mark.parametrize("shape", [(2, 150, 24), (300, 24), (1, 3, 5, 24)])
def test_linear_is_that_of_pytorch_with_its_gradients(
    shape: tuple[int, ...], after_gelu, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "MAX_GELUS", 24 * 128)  # 300 rows are three blocks
    map_of, expected_of = MAPS[after_gelu]
    inputs = [torch.randn(shape), torch.randn(40, 24), torch.randn(40)]
    inputs = [each.requires_grad_() for each in inputs]
    direction = torch.randn(*shape[:-1], 40)
    ours, expected = map_of(*inputs), expected_of(*(each.double() for each in inputs))
    close(ours, expected)
    with torch.no_grad():
        close(map_of(*inputs), expected)
    for got, want in zip(
        torch.autograd.grad(ours, inputs, direction),
        torch.autograd.grad(expected, inputs, direction.double()),
        strict=True,
    ):
        close(got, want)


@pytest.mark.usefixtures("slow_products")
@pytest.mark.parametrize("autocasts", [False, True])
def test_linear_takes_what_that_of_pytorch_takes(autocasts) -> None:
    layer, rows = Linear(24, 40), torch.randn(5, 24)
    without_bias = Linear(24, 40, bias=False)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocasts):
        assert layer(rows[0]).shape == (40,)
        assert layer(rows[:0]).shape == (0, 40)
        assert layer(rows[:0, None]).shape == (0, 1, 40)
        assert layer(rows[:0], after_gelu=True).shape == (0, 40)
        assert torch.equal(without_bias(rows), F.linear(rows, without_bias.weight))
        close(layer(rows, slice(8, 40)), layer(rows)[:, 8:])
        with pytest.raises(RuntimeError, match="dtype"):
            layer.double()(rows)


@pytest.mark.usefixtures("slow_products")
@pytest.mark.parametrize("after_gelu", [False, True])
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_linear_gives_no_gradient_to_what_is_frozen(frozen: tuple[int, ...], after_gelu) -> None:
    inputs = [torch.randn(300, 24), torch.randn(40, 24), torch.randn(40)]
    for i, each in enumerate(inputs):
        each.requires_grad_(i not in frozen)
    map_of, expected_of = MAPS[after_gelu]
    map_of(*inputs).sum().backward()
    assert [each.grad is None for each in inputs] == [i in frozen for i in range(3)]
    wanted = [each for each in inputs if each.requires_grad]
    expected = torch.autograd.grad(expected_of(*inputs).sum(), wanted)
    for each, gradient in zip(wanted, expected, strict=True):
        torch.testing.assert_close(each.grad, gradient, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("autocasts", [False, True])
def test_gelu_is_not_kept(autocasts) -> None:
    x, layer = torch.randn(300, 24, requires_grad=True), Linear(24, 40)
    kept: list[Tensor] = []
    pack = lambda tensor: (kept.append(tensor), tensor)[1]  # noqa: E731
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocasts),
    ):
        layer(x.bfloat16() if autocasts else x, after_gelu=True)
    assert sum(tensor.numel() for tensor in kept) <= 300 * 24 + 24 * 40


def test_double_gelu_linear_is_that_of_pytorch_with_its_gradients() -> None:
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in ((30, 8), (5, 8), (5,))]
    assert torch.autograd.gradcheck(gelu_linear, [each.requires_grad_() for each in inputs])
    assert torch.equal(gelu_linear(*inputs), gelu_then_linear(*inputs))


@pytest.mark.usefixtures("slow_products")
def test_recomputation_ends_before_a_trailing_product(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = times_transposed

    def spy(*args: Tensor) -> Tensor:
        calls.append(len(args))
        return real(*args)

    monkeypatch.setattr(products, "times_transposed", spy)
    monkeypatch.setattr(products, "_LINEAR", products._LINEAR._replace(apply=spy))
    layer, x = Linear(24, 40), torch.randn(300, 24, requires_grad=True)
    checkpoint(lambda x: layer(x.sin()), x, use_reentrant=False).sum().backward()
    assert calls == [3, 2]  # forward with a bias, gradient of the input; not forward again
    expected = torch.autograd.grad(F.linear(x.sin(), layer.weight, layer.bias).sum(), x)[0]
    close(x.grad, expected)


@pytest.mark.usefixtures("slow_products")
@pytest.mark.parametrize(
    ("dtype", "autocasts"), [(torch.float64, False), (torch.float64, True), (torch.bfloat16, False)]
)
def test_other_precisions_are_left_to_pytorch(
    dtype: torch.dtype, autocasts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "times_transposed", None)
    layer, x = Linear(24, 40).to(dtype), torch.randn(300, 24, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocasts):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize("after_gelu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linear_under_autocast_is_that_of_pytorch_with_its_gradients(
    dtype: torch.dtype, after_gelu
) -> None:
    map_of, expected_of = MAPS[after_gelu]
    x = torch.randn(2, 150, 24, dtype=dtype)
    inputs = [x, torch.randn(40, 24), torch.randn(40)]
    inputs = [each.requires_grad_() for each in inputs]
    direction = torch.randn(2, 150, 40).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        ours, expected = map_of(*inputs), expected_of(*inputs)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-2 * float(expected.abs().max()))
    for got, want in zip(
        torch.autograd.grad(ours, inputs, direction),
        torch.autograd.grad(expected, inputs, direction),
        strict=True,
    ):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2 * float(want.abs().max()))


def test_processors_with_fast_products_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    for library in (torch.backends.mkl, torch.backends.mkldnn):
        monkeypatch.setattr(library, "is_available", lambda: True)

    def facts(name: str, *, has_avx512: bool) -> bool:
        capabilities = {"cpu_name": name, "avx512_f": has_avx512}
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        return products._mkl_lacks_avx512()

    assert facts("AMD EPYC 9V74", has_avx512=True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not facts("AMD EPYC 9V74", has_avx512=True)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert not facts("AMD EPYC 7763", has_avx512=False)
    assert not facts("Intel(R) Xeon(R) Platinum 8480C", has_avx512=True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "aarch64"})
    assert not products._mkl_lacks_avx512()


def test_network_is_the_same_with_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(VARIANTS["mvitv2_demo"], crop_size=64, embed_dim=48, num_heads=2)
    # Of one clip in 150, rounding moves a maximum of the skip path, and gradients with it.
    clip = torch.randn(2, 3, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(products, "MIN_ELEMENTS", 0)
    monkeypatch.setattr(attention, "MIN_SCORES", 0)
    results = []
    for are_slow in (False, True):
        monkeypatch.setattr(products, "_mkl_lacks_avx512", lambda are_slow=are_slow: are_slow)
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
