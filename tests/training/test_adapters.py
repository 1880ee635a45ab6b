"""Low-rank adapters of a network: what is trained, what it computes, and that kernels see it."""

import weakref
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from support.processes import run_ranks
from support.training import Clips, Data, trainer
from torch import Tensor, nn

import video_mvit
from video_mvit import kernels
from video_mvit.errors import UserError
from video_mvit.kernels import cpu_linear
from video_mvit.models.mvit import MViT
from video_mvit.training import adapters as module
from video_mvit.training.adapters import KeepAdapterRecord, LoraAdapters, add_adapters
from video_mvit.training.checkpoints import Checkpoint
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.ema import EmaWeights
from video_mvit.training.optim import OptimConfig
from video_mvit.weights.adapters import merge_adapters, plain_names

pytest.importorskip("peft", reason="needs peft")


def network(**overrides: Any) -> MViT:
    """A network of two kinds of blocks, with weights that all matter; nothing random in it."""
    torch.manual_seed(0)
    sizes = {"depths": [1, 1, 1, 1], "embed_dim": 16, "crop_size": 32, "num_frames": 4}
    options = {**sizes, "num_classes": 4, "drop_path_rate": 0.0, "head_dropout": 0.0, **overrides}
    model = video_mvit.create_model("mvitv2_s", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def adapt(model: MViT, **options: Any) -> MViT:
    add_adapters(model, LoraAdapters(**options), model.config.depths)
    return model


def adapted(**options: Any) -> MViT:
    """The network with adapters that change its outputs."""
    model = network(**options)
    targets = ["attn.qkv", "attn.proj", "mlp.fc1"]
    adapt(model, rank=2, alpha=4, targets=targets, stages=[1, 2, 3, 4])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def clip() -> Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("stages", "blocks"), [([3, 4], {4, 5, 6, 7, 8}), ([2], {1, 2, 3}), ([1, 4], {0, 7, 8})]
)
def test_stages_are_those_of_the_network(stages: list[int], blocks: set[int]) -> None:
    model = adapt(network(depths=[1, 3, 3, 2]), stages=stages)
    adapted = {name.split(".")[1] for name, _ in model.named_parameters() if ".lora_" in name}
    assert adapted == {str(block) for block in blocks}


@pytest.mark.parametrize("mode", ["none", "full"])
def test_nothing_is_kept_or_computed_again_below_the_lowest_adapter(mode: Any) -> None:
    """Where most of the tokens are, and of the memory of a step."""
    model = adapt(network(activation_checkpointing=mode), stages=[3, 4]).train()
    calls: list[str] = []
    for name, part in model.named_modules():
        if name.endswith("attn.qkv"):
            part.register_forward_hook(lambda *_, name=name: calls.append(name))
    saved: list[weakref.ref[Tensor]] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(weakref.ref(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        tokens = model.blocks[1](model.blocks[0](model._embed(clip())))
    assert not tokens.requires_grad
    kept = [each for each in saved if each() is not None and each() is not tokens]
    assert kept == []
    model(clip()).sum().backward()
    again = 2 if mode == "full" else 1
    expected = {f"blocks.{i}.attn.qkv": again if i > 1 else 1 for i in range(4)}
    assert {name: calls.count(name) - (name[7] in "01") for name in expected} == expected


def merged(model: MViT) -> dict[str, Tensor]:
    return merge_adapters(plain_names(model.state_dict()), 4, "the network")


def test_only_adapters_and_whole_parts_are_trained_and_nothing_changes_at_first() -> None:
    model, before = network(), network()
    adapt(model, whole=["blocks.0-1.attn.rel_pos_t"])
    assert torch.equal(model(clip()), before(clip()))
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    layers = [f"blocks.{i}.attn.{part}" for i in (2, 3) for part in ("qkv", "proj")]
    factors = {f"{layer}.lora_{each}.default.weight" for layer in layers for each in "AB"}
    tables = {f"blocks.{i}.attn.rel_pos_t" for i in range(2)}
    assert trained == {*factors, *tables, "head.projection.weight", "head.projection.bias"}
    assert plain_names(model.state_dict()).keys() >= before.state_dict().keys()


def test_whole_parts_get_no_adapter() -> None:
    model = adapt(network(), whole=["blocks.2"])
    adapted = {name.split(".")[1] for name, _ in model.named_parameters() if ".lora_" in name}
    assert adapted == {"3"}
    assert model.blocks[2].attn.qkv.weight.requires_grad


def test_a_bias_of_an_adapted_layer_can_be_trained_as_it_is() -> None:
    model = adapt(network(), whole=["blocks.3.attn.qkv.bias"])
    trained = [name for name, each in model.named_parameters() if each.requires_grad]
    assert "blocks.3.attn.qkv.base_layer.bias" in trained
    assert "blocks.2.attn.qkv.base_layer.bias" not in trained


def test_merged_weights_are_plain_and_compute_the_same() -> None:
    model, plain = adapted().eval(), network().eval()
    before = plain(clip())
    plain.load_state_dict(merged(model))  # strict
    torch.testing.assert_close(plain(clip()), model(clip()), rtol=0, atol=1e-5)
    assert not torch.allclose(plain(clip()), before, atol=0.01)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    output = model(clip())
    named = {name: each for name, each in model.named_parameters() if each.requires_grad}
    found = torch.autograd.grad(output.square().sum(), list(named.values()))
    return {"output": output.detach(), **dict(zip(named, found, strict=True))}


@pytest.mark.parametrize("mode", ["none", "light", "selective", "full"])
def test_fast_kernels_give_what_plain_ones_give(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs and all gradients; where products are convolutions, on any processor."""
    monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda: True)
    monkeypatch.setattr(cpu_linear, "MIN_ELEMENTS", 0)
    model = adapted(activation_checkpointing=mode).train()
    fast = gradients(model)
    with kernels.use("plain"):
        plain = gradients(model)
    assert fast.keys() == plain.keys()
    for name, tensor in plain.items():
        atol = 1e-4 * float(tensor.abs().max())
        torch.testing.assert_close(fast[name], tensor, rtol=1e-3, atol=atol, msg=name)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    with kernels.fast_linear(x):
        return nn.functional.linear(x, weight, None)


def pool(x: Tensor, weight: Tensor) -> Tensor:
    return kernels.pool_tokens(x, weight.view(8, 1, 3, 3, 3), (2, 4, 8), (1, 2, 2), 0)


@pytest.mark.parametrize(("layer", "shape"), [(linear, (4, 8)), (pool, (8, 27))])
def test_frozen_layers_keep_no_input(
    layer: Any, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of a weight is all that needs it: most of the memory of a step."""
    monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda: True)
    monkeypatch.setattr(cpu_linear, "MIN_ELEMENTS", 0)
    x, weight = torch.randn(2, 64, 8, requires_grad=True), torch.randn(shape)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = layer(x, weight)
    assert kept == [weight.numel()]
    (frozen,) = torch.autograd.grad(y.square().sum(), [x])
    (trained,) = torch.autograd.grad(layer(x, weight.requires_grad_()).square().sum(), [x])
    assert torch.equal(frozen, trained)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank 0 must be positive"),
        ({"alpha": 0}, "alpha 0 must be from 1"),
        ({"targets": []}, "targets is empty"),
        (
            {"targets": ["qk"]},
            r"names qk, which is no linear layer to adapt; there are attn\.qkv, ",
        ),
        ({"targets": ["head.projection"]}, "names head.projection, which is no linear layer to"),
        ({"stages": []}, r"stages is \[\]; name some of \[1, 2, 3, 4\]"),
        ({"stages": [0, 3]}, r"stages is \[0, 3\]; name some of"),
        ({"whole": ["blocks.9"]}, "adapter.whole names blocks.9 which the network does not have"),
    ],
)
def test_adapters_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapt(network(), **options)


def test_missing_package_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PEFT", "no_such_package")
    with pytest.raises(UserError, match="needs no_such_package; pip install"):
        adapt(network())


class Record(pl.Callback):
    """Keeps the latest losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_train_batch_end(self, _: Any, __: Any, outputs: Any, *___: Any) -> None:
        self.losses.append(float(outputs["loss"]))


def classifier() -> VideoClassifier:
    model = network()
    torch.manual_seed(1)
    adapt(model, rank=2, stages=[2, 4])
    optim = OptimConfig(
        name="adamw",
        lr=0.01,
        start_lr=0.01,
        end_lr=0.01,
        num_epochs=2,
        warmup_epochs=0,
        weight_decay=0.05,
        layer_decay=0.75,
    )
    return VideoClassifier(model, num_classes=4, preprocess=nn.Identity(), optim=optim)


def fitted(
    *callbacks: pl.Callback, max_epochs: int, **options: Any
) -> tuple[VideoClassifier, list[float]]:
    """Train in two steps an epoch."""
    trained, record = classifier(), Record()
    chosen = {"max_epochs": max_epochs, "num_sanity_val_steps": 0}
    resumed = {name: options.pop(name) for name in ("ckpt_path",) if name in options}
    fit = trainer(record, *callbacks, **chosen, **options)
    fit.fit(trained, Data(AsClips(2)), weights_only=True, **resumed)
    return trained, record.losses


class AsClips(Clips):
    """Batches of two clips of the network's size."""

    def __init__(self, num_batches: int) -> None:
        super().__init__(num_batches)
        generator = torch.Generator().manual_seed(0)
        self.clips = torch.randn(num_batches, 2, 3, 4, 32, 32, generator=generator)


def test_run_with_adapters_is_resumed_exactly_with_its_average_and_record(tmp_path: Path) -> None:
    saving = {"dirpath": str(tmp_path), "filename": "first", "save_on_train_epoch_end": True}
    record = {"alpha": 16, "base_sha1": "0", "base": None, "own": ["head.projection.bias"]}
    ema = EmaWeights()
    whole, losses = fitted(ema, max_epochs=2)
    fitted(
        EmaWeights(),
        KeepAdapterRecord(record),
        Checkpoint(**saving),
        max_epochs=1,
        enable_checkpointing=True,
    )
    path = tmp_path / "first.ckpt"
    ema_again, kept = EmaWeights(), KeepAdapterRecord({})
    again, later = fitted(ema_again, kept, max_epochs=2, ckpt_path=path)
    assert kept.record == record
    assert losses[2:] == later
    for one, other in ((whole.model, again.model), (ema._ema_model, ema_again._ema_model)):
        assert one is not None
        assert other is not None
        found = other.state_dict()
        assert all(torch.equal(tensor, found[name]) for name, tensor in one.state_dict().items())
    # The base is as it was, in the run and in its average.
    base = network().state_dict()
    for model in (again.model, ema_again._ema_model):
        assert model is not None
        state = plain_names(model.state_dict())
        assert all(
            torch.equal(tensor, state[name]) is not name.startswith("head.")
            for name, tensor in base.items()
        )


@pytest.mark.long  # each rank imports peft
def test_adapters_are_trained_alike_on_all_ranks() -> None:
    """DDP finds a gradient for every parameter that it waits for, and none for the others."""
    first, second = run_ranks(trained_states, 2)
    alone = network().state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert name.startswith("head.") or "lora" in name or torch.equal(tensor, alone[name]), name
    assert any(bool(tensor.any()) for name, tensor in first.items() if name.endswith("lora_B"))


def trained_states() -> dict[str, Tensor]:
    """Weights after an epoch on two ranks."""
    model, _ = fitted(max_epochs=1, devices=2, strategy="ddp")
    return plain_names(model.model.state_dict())


def test_bfloat16_trains_adapters() -> None:
    before = classifier().model.state_dict()
    model, losses = fitted(max_epochs=1, precision="bf16-mixed")
    assert all(loss == loss for loss in losses)
    changed = {
        name for name, each in model.model.state_dict().items() if not each.equal(before[name])
    }
    assert changed == {name for name, each in model.model.named_parameters() if each.requires_grad}
