"""Tools of the PyTorch world on the network: hooks, LoRA, quantization, pruning, weight norm.

They rely on stock layers that are called as modules, once per forward pass, with what their names
say.
"""

import copy
from collections import Counter
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import video_mvit
from video_mvit.kernels import cpu_linear
from video_mvit.models.mvit import MViT

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

LAYERS = ["qkv", "proj", "fc1", "fc2"]


@pytest.fixture(autouse=True, params=[False, True], ids=["products", "convolutions"])
def products_as_convolutions(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On processors of both kinds: where linear layers take the fast form, and where not."""
    monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda: request.param)
    monkeypatch.setattr(cpu_linear, "MIN_ELEMENTS", 0)


def network() -> MViT:
    """The demo model with weights that all matter; nothing random in training."""
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def clip() -> Tensor:
    return torch.randn(2, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(clip())


def linear_layers(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]


@pytest.mark.parametrize("training", [False, True])
def test_every_hook_fires_once_in_each_pass(training: bool) -> None:  # noqa: FBT001
    model = network().train(training)
    forward: Counter[str] = Counter()
    backward: Counter[str] = Counter()

    def count(counter: Counter[str], name: str) -> Callable[..., None]:
        return lambda *_: counter.update([name])

    names = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList):
            names.add(name)
            module.register_forward_hook(count(forward, name))
            module.register_full_backward_hook(count(backward, name))
    model(clip().requires_grad_()).sum().backward()
    assert forward == dict.fromkeys(names, 1)
    assert backward == dict.fromkeys(names, 1)


def test_hooks_see_what_the_names_say() -> None:
    model, seen = network(), {}
    block = model.blocks[1]
    block.mlp.fc1.register_forward_hook(lambda _, __, out: seen.update(fc1=out))
    block.mlp.fc2.register_forward_pre_hook(lambda _, args: seen.update(fc2=args[0]))
    block.attn.qkv.register_forward_hook(lambda _, __, out: seen.update(qkv=out))
    block.attn.pool_q.register_forward_hook(lambda _, args, out: seen.update(q=args[0], pooled=out))
    block.attn.norm_q.register_forward_pre_hook(lambda _, args: seen.update(heads=args[0]))
    logits(model)
    spec = block.spec
    torch.testing.assert_close(seen["fc2"], F.gelu(seen["fc1"]))
    assert seen["qkv"].shape[2] == 3 * spec.dim_attn
    assert torch.equal(seen["q"], seen["qkv"][..., : spec.dim_attn])
    assert torch.equal(seen["heads"].transpose(1, 2).flatten(2), seen["pooled"])


@pytest.mark.parametrize("part", ["pool_q", "pool_k", "pool_v", "norm_q", "qkv", "proj"])
def test_wrapped_modules_are_called(part: str) -> None:
    class Wrapper(nn.Module):
        calls = 0

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Tensor) -> Tensor:
            Wrapper.calls += 1
            return 2 * self.inner(*args)

    model = network()
    attention = model.blocks[1].attn
    setattr(attention, part, Wrapper(getattr(attention, part)))
    assert not torch.allclose(logits(model), logits(network()))
    assert Wrapper.calls == 1


@pytest.mark.parametrize("targets", [*([name] for name in LAYERS), LAYERS], ids=" ".join)
@pytest.mark.parametrize("training", [False, True])
def test_lora_equals_merged_weights(targets: list[str], training: bool) -> None:  # noqa: FBT001
    peft = pytest.importorskip("peft", reason="needs peft")
    # Of `proj`, attention's and the skip path's are linear; that of patches is a convolution.
    pattern = rf"blocks\..*\.({'|'.join(targets)})"
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=pattern, lora_dropout=0.0)
    adapted = peft.get_peft_model(network(), config).train(training)
    generator = torch.Generator().manual_seed(1)
    num_adapted = 0
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
                num_adapted += 1
    blocks = [name for name in linear_layers(network()) if name.startswith("blocks.")]
    assert num_adapted == len([name for name in blocks if name.rpartition(".")[2] in targets])
    merged = copy.deepcopy(adapted).merge_and_unload().eval()
    torch.testing.assert_close(logits(adapted), logits(merged), rtol=0, atol=1e-5)
    assert float((logits(merged) - logits(network())).abs().max()) > 0.1


def test_dynamic_quantization_replaces_every_linear_layer() -> None:
    quantized = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)
    kinds = [type(module) for module in quantized.modules()]
    replaced = sum("quantized.dynamic" in kind.__module__ for kind in kinds)
    assert replaced >= len(linear_layers(network()))
    assert nn.Linear not in kinds
    difference = float((logits(quantized) - logits(network())).abs().max())
    assert 0 < difference < 0.2


@pytest.mark.parametrize("name", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
def test_torchao_quantizes_every_linear_layer(name: str) -> None:
    quantization = pytest.importorskip("torchao.quantization", reason="needs torchao")
    model = network()
    quantization.quantize_(model, getattr(quantization, name)())
    kinds = {
        layer: type(module.weight).__name__
        for layer, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    assert list(kinds) == linear_layers(network())
    assert not {"Parameter", "Tensor"} & set(kinds.values())
    difference = float((logits(model) - logits(network())).abs().max())
    assert 0 < difference < 0.2


def test_pruned_weights_are_the_ones_that_count() -> None:
    masked, permanent = network(), network()
    for name in linear_layers(masked):
        for model in (masked, permanent):
            prune.l1_unstructured(model.get_submodule(name), "weight", amount=0.5)
        layer = permanent.get_submodule(name)
        prune.remove(layer, "weight")
        assert int((layer.weight == 0).sum()) == pytest.approx(layer.weight.numel() / 2, abs=1)
    torch.testing.assert_close(logits(masked), logits(permanent))
    assert not torch.allclose(logits(masked), logits(network()), atol=1e-2)


def test_weight_norm_keeps_the_function_and_scales_it() -> None:
    model = network()
    for name in linear_layers(model):
        parametrizations.weight_norm(model.get_submodule(name))
    torch.testing.assert_close(logits(model), logits(network()), rtol=1e-4, atol=1e-5)
    fc1 = model.blocks[0].mlp.fc1
    with torch.no_grad():
        fc1.parametrizations.weight.original0.mul_(3)
    assert not torch.allclose(logits(model), logits(network()), atol=1e-3)
