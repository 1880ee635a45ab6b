"""Adapter files: what is written is read, and what does not belong together is refused."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import video_mvit
from video_mvit.errors import UserError
from video_mvit.weights import load
from video_mvit.weights.adapter_files import Adapter, base_sha1, read_adapter, write_adapter
from video_mvit.weights.adapters import AdapterRecord, merge_adapters, plain_names, read_record
from video_mvit.weights.checkpoint_files import read_weight_file
from video_mvit.weights.model_card import ModelCard

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 8, "depths": (1, 1, 1, 1)}
NAMES = ("jump", "run", "sit")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Weights of five classes without a card, as others publish them."""
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_s", num_classes=5, **TINY)
    torch.save({"model_state": model.state_dict()}, tmp_path / "base.pyth")
    return tmp_path / "base.pyth"


@pytest.fixture
def adapter(base: Path) -> Adapter:
    """An adapter of one layer, with a head of three classes."""
    torch.manual_seed(1)
    model = video_mvit.create_model("mvitv2_s", num_classes=3, **TINY)
    head = {name: each for name, each in model.state_dict().items() if name.startswith("head.")}
    factors = {"lora_A": torch.randn(2, 8), "lora_B": torch.randn(24, 2)}
    state = head | {f"blocks.0.attn.qkv.{name}": each for name, each in factors.items()}
    digest = base_sha1(load.read_source(base).state, head)
    return Adapter(
        record=AdapterRecord(alpha=4, base_sha1=digest, base=None, own=tuple(head)),
        state=state,
        card=ModelCard(model=asdict(model.config), class_names=NAMES),
    )


@pytest.fixture
def path(adapter: Adapter, tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter.safetensors", adapter)
    return tmp_path / "adapter.safetensors"


def test_adapter_and_base_make_the_adapted_network(path: Path, base: Path) -> None:
    model = video_mvit.load_model(path, base=str(base))
    assert model.card is not None
    assert model.card.class_names == NAMES
    before, added = video_mvit.load_model(base).state_dict(), read_adapter(path).state
    product = added["blocks.0.attn.qkv.lora_B"] @ added["blocks.0.attn.qkv.lora_A"]
    for name, tensor in model.state_dict().items():
        if name == "blocks.0.attn.qkv.weight":
            torch.testing.assert_close(tensor, before[name] + 4 / 2 * product)
        else:
            assert torch.equal(tensor, added.get(name, before[name])), name


def test_published_base_is_found_by_its_name(
    adapter: Adapter, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "local_file", lambda name: {"mvitv2_s_k400": base}.get(name, name))
    published = replace(adapter, record=replace(adapter.record, base="mvitv2_s_k400"))
    write_adapter(tmp_path / "b.safetensors", published)
    assert video_mvit.load_model(tmp_path / "b.safetensors").config.num_classes == 3


def test_other_base_is_refused(path: Path, tmp_path: Path) -> None:
    model = video_mvit.create_model("mvitv2_s", num_classes=5, **TINY)
    torch.save(model.state_dict(), tmp_path / "other.pyth")
    with pytest.raises(UserError, match=r"belongs to other base weights than .*other\.pyth"):
        video_mvit.load_model(path, base=str(tmp_path / "other.pyth"))


def test_base_is_asked_for_and_only_of_adapters(path: Path, base: Path) -> None:
    with pytest.raises(UserError, match="is an adapter; base=FILE names the weights"):
        video_mvit.load_model(path)
    with pytest.raises(UserError, match=r"base\.pyth is no adapter, and only those have a base"):
        video_mvit.load_model(base, base=str(base))
    with pytest.raises(UserError, match="is an adapter, and this needs whole weights"):
        read_weight_file(path)


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: card.pop("base_sha1"), "does not say what its adapters belong to"),
        (lambda card: card.update(alpha=None), "does not say what its adapters belong to"),
        (lambda card: card.update(alpha=-1), "alpha is -1, expected a number above 0"),
        (lambda card: card.update(alpha="__import__"), "alpha is a text, expected a number"),
        (lambda card: card.update(base="../../etc/passwd"), "base is a text, expected a word"),
        (lambda card: card.update(base="secrets.pth"), "base=FILE names the weights"),
        (lambda card: card.update(weights_sha1="0"), "do not belong together, or are damaged"),
        (lambda card: card.update(format="video_mvit 1"), "is not the card of an adapter"),
        (lambda card: card.update(card=[]), "has no model card"),
        (lambda card: card["card"]["model"].update(_target_="os.system"), "unknown field"),
        (lambda card: card["card"]["model"].update(embed_dim=16), "its card says embed_dim 16"),
    ],
)
def test_card_is_data_that_is_checked(
    change: Callable[[dict[str, Any]], object], message: str, path: Path, base: Path
) -> None:
    rewrite(path.with_suffix(".json"), change)
    given = None if "secrets" in path.with_suffix(".json").read_text() else str(base)
    with pytest.raises(UserError, match=message):
        video_mvit.load_model(path, base=given)


@pytest.mark.parametrize(
    "factors",
    [
        {"lora_A": torch.ones(2, 8)},
        {"lora_B": torch.ones(24, 2)},
        {"lora_A": torch.ones(2, 8), "lora_B": torch.ones(24, 3)},
        {"lora_A": torch.ones(0, 8), "lora_B": torch.ones(24, 0)},
        {"lora_A": torch.ones(2, 1), "lora_B": torch.ones(24, 2)},
        {"lora_A": torch.ones(2, 8).int(), "lora_B": torch.ones(24, 2).int()},
    ],
)
def test_factors_must_fit_their_layer(factors: dict[str, Tensor]) -> None:
    state = {"a.weight": torch.ones(24, 8), **{f"a.{name}": each for name, each in factors.items()}}
    with pytest.raises(UserError, match="f: the adapter of a does not fit a layer there"):
        merge_adapters(state, 1, "f")


def test_infinite_factors_are_refused_as_infinite_weights_are(
    adapter: Adapter, base: Path, tmp_path: Path
) -> None:
    state = {**adapter.state, "blocks.0.attn.qkv.lora_A": torch.full((2, 8), torch.inf)}
    write_adapter(tmp_path / "inf.safetensors", replace(adapter, state=state))
    with pytest.raises(UserError, match="has NaN or infinite values"):
        video_mvit.load_model(tmp_path / "inf.safetensors", base=str(base))


def test_damage_is_found(path: Path, base: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="do not belong together, or are damaged"):
        video_mvit.load_model(path, base=str(base))
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"damaged or truncated"):
        video_mvit.load_model(path, base=str(base))
    path.write_bytes(content)
    path.with_suffix(".json").unlink()
    with pytest.raises(UserError, match="is an adapter without its card"):
        video_mvit.load_model(path, base=str(base))


def test_names_of_peft_become_ours() -> None:
    layer = "blocks.0.attn.qkv"
    names = ("base_layer.weight", "base_layer.bias", "lora_A.default.weight")
    plain = plain_names(dict.fromkeys([f"{layer}.{name}" for name in names], torch.ones(1)))
    assert list(plain) == [f"{layer}.weight", f"{layer}.bias", f"{layer}.lora_A"]


def test_record_of_a_checkpoint_is_checked(tmp_path: Path) -> None:
    for content in (None, [], {"alpha": 1}, {"alpha": 1, "base_sha1": "a", "own": [1]}):
        with pytest.raises(UserError, match="here"):
            read_record(content, "here")
    state = {"model.a.base_layer.weight": torch.ones(2, 2), "model.a.lora_A.default.weight": 0}
    saved = {"state_dict": state, "class_names": [], "card": {}, "adapter": {"alpha": 1}}
    torch.save(saved, tmp_path / "a.ckpt")
    with pytest.raises(UserError):
        read_weight_file(tmp_path / "a.ckpt")


def test_other_files_are_no_adapters(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    (tmp_path / "short.safetensors").write_bytes(b"\xff" * 9)
    for name in ("other.safetensors", "short.safetensors", "missing.safetensors"):
        with pytest.raises((UserError, FileNotFoundError)):
            video_mvit.load_model(tmp_path / name)
