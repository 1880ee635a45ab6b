"""The backbone of detection: golden outputs of detectron2, its schedule, sizes, any image."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from support.paths import GOLDEN
from support.reference import rebuilt_weight
from torch import Tensor

from video_mvit import kernels
from video_mvit.errors import UserError
from video_mvit.models.backbone import Backbone, BackboneConfig, backbone_config

TINY: dict[str, Any] = {"depths": (1, 1, 2, 1), "embed_dim": 48}
TINY |= {"pretrain_crop_size": 64, "window": 16}
GOLDENS: dict[str, dict[str, Any]] = {
    "tiny_128x96": {},
    "tiny_odd_101x77": {},
    "tiny_no_window_128x96": {"window": 0},
    "tiny_kv8_128x96": {"stride_kv": 8},
    "tiny_abs_128x96": {
        "absolute_positions": True,
        "relative_positions": False,
        "pretrain_cls_token": False,
    },
    "tiny_abs_rel_128x96": {"absolute_positions": True},
    "tiny_no_residual_128x96": {"residual_pooling": False},
}


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return torch.from_numpy(x)


def rebuilt(config: BackboneConfig) -> Backbone:
    model = Backbone(config).eval()
    state = model.state_dict()
    model.load_state_dict(
        {name: rebuilt_weight(name, tuple(tensor.shape)) for name, tensor in state.items()}
    )
    return model


@pytest.mark.parametrize("form", ["fast", "plain"])
@pytest.mark.parametrize("name", GOLDENS)
def test_maps_and_gradients_are_those_of_detectron2(name: str, form: str) -> None:
    golden = np.load(GOLDEN / "detection" / f"backbone_{name}.npz")
    model = rebuilt(BackboneConfig(**(TINY | GOLDENS[name])))
    assert set(dict(model.named_parameters())) == set(golden["param_names"])
    block_norms: list[float] = []
    for block in model.blocks:
        block.register_forward_hook(lambda *call: block_norms.append(call[2][0].detach().norm()))
    image = noise(tuple(golden["input_shape"]), 0)

    with kernels.use(form) if form == "plain" else torch.enable_grad():
        maps = model(image)
        loss = torch.stack(
            [
                (x * noise(tuple(x.shape), zlib.crc32(f"g:{name}".encode()))).sum()
                for name, x in maps.items()
            ]
        ).sum()
        loss.backward()

    assert list(maps) == ["scale2", "scale3", "scale4", "scale5"]
    np.testing.assert_allclose(block_norms, golden["block_norm"], rtol=1e-4)
    for name, x in maps.items():
        assert x.shape == tuple(golden[f"{name}/shape"])
        expected = golden[f"{name}/sample"]
        index = np.random.default_rng(zlib.crc32(name.encode())).integers(0, x.numel(), 2000)
        got = x.detach().numpy().reshape(-1)[index[: len(expected)]]
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4)
    gradients = {name: p.grad.norm() for name, p in model.named_parameters() if p.grad is not None}
    for name, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True):
        # Where no key is padded, the bias shifts all scores alike: its gradient is rounding.
        is_zero = name.endswith("norm_k.bias") and norm < 1e-2
        assert gradients[name] == pytest.approx(norm, rel=5e-3, abs=1e-2 if is_zero else 1e-4)


# stride of Q, of K and V; windows of Q, of K and V, None where attention is global; table rows.
SCHEDULE_T = [
    (1, 4, 56, 14, 111),
    (2, 2, 28, 28, 55),
    (1, 4, None, None, 55),
    (2, 1, 14, 28, 55),
    (1, 1, 14, 14, 27),
    (1, 1, 14, 14, 27),
    (1, 1, 14, 14, 27),
    (1, 2, None, None, 27),
    (2, 1, 7, 14, 27),
    (1, 1, None, None, 13),
]


def test_schedule_of_t_is_the_published_one() -> None:
    with torch.device("meta"):
        model = Backbone(backbone_config("t"))
    for block, spec, expected in zip(model.blocks, model.schedule, SCHEDULE_T, strict=True):
        q, kv = spec.attended_thw
        windows = (q[1], kv[1]) if spec.window else (None, None)
        rows = len(block.attn.rel_pos_h)
        assert (spec.stride_q[1], spec.stride_kv[1], *windows, rows) == expected


@pytest.mark.parametrize(
    ("size", "num_parameters"),
    [("t", 23405664), ("s", 34102560), ("b", 50705088), ("l", 212484384), ("h", 665345408)],
)
def test_number_of_parameters_is_that_of_the_reference(size: str, num_parameters: int) -> None:
    with torch.device("meta"):
        model = Backbone(backbone_config(size))
    assert sum(p.numel() for p in model.parameters()) == num_parameters


@pytest.mark.parametrize("hw", [(32, 32), (5, 300), (1, 1)])
def test_an_image_of_any_size_gives_maps_of_four_strides(hw: tuple[int, int]) -> None:
    model = rebuilt(BackboneConfig(**TINY))
    with torch.no_grad():
        maps = model(noise((1, 3, *hw), 0))
    for stage, x in enumerate(maps.values()):
        stride = 4 * 2**stage
        assert x.shape == (1, 48 * 2**stage, -(-hw[0] // stride), -(-hw[1] // stride))
        assert x.isfinite().all()


def test_two_images_do_not_see_each_other() -> None:
    model = rebuilt(BackboneConfig(**TINY))
    images = noise((2, 3, 72, 100), 0)
    with torch.no_grad():
        both, second = model(images), model(images[1:])
    for name, x in both.items():
        torch.testing.assert_close(x[1:], second[name], rtol=0, atol=2e-5)


@pytest.mark.parametrize("mode", ["light", "selective", "full"])
def test_activation_checkpointing_changes_no_gradient(mode: Any) -> None:
    gradients = []
    for each in ("none", mode):
        model = rebuilt(BackboneConfig(**TINY, activation_checkpointing=each))
        sum(x.square().mean() for x in model(noise((1, 3, 96, 72), 0)).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"window": 12}, "window 12 is neither 0 nor a multiple of 8"),
        ({"stride_kv": 3}, "stride_kv 3 is none of"),
        ({"depths": (1, 2)}, "must be four positive numbers"),
    ],
)
def test_wrong_values_are_user_errors(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        BackboneConfig(**fields)


def test_unknown_size_is_a_user_error() -> None:
    with pytest.raises(UserError, match="unknown backbone size 'm'"):
        backbone_config("m")
