"""The network against the official one, torchvision, timm and plain arithmetic."""

import copy
import json
import pickle
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.paths import GOLDEN
from support.reference import fit, rebuilt_weight, state_for, to_timm, to_torchvision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

import video_mvit
from video_mvit.kernels import cpu_linear
from video_mvit.models.config import (
    VARIANTS,
    MViTConfig,
    block_schedule,
    variant_config,
)
from video_mvit.models.mvit import MViT
from video_mvit.models.relative_positions import relative_index

GOLDEN_MODELS = {
    "video_s_16x4_224": ("mvitv2_s", {}),
    "video_s_8f_104": ("mvitv2_s", {"num_frames": 8, "crop_size": 104}),
    "video_stages1111_72d_4f_312": (
        "mvitv2_s",
        {"num_frames": 4, "crop_size": 312, "depths": (1, 1, 1, 1), "embed_dim": 72},
    ),
    "video_s_8f_112_dim_in_mlp_meanpool": (
        "mvitv2_s",
        {"num_frames": 8, "crop_size": 112, "expand_dim_in": "mlp", "head": "mean"},
    ),
    "image_t_224": ("mvitv2_image_t", {}),
    "image_t_cls_224": ("mvitv2_image_t", {"cls_token": True, "head": "cls"}),
}
# Parameters and GMACs per view as computed for the official code; image L and H also differ from
# their README (see there).
PUBLISHED = {
    "mvitv2_s": (34_537_744, 64.22),
    "mvitv2_b": (51_230_128, 224.47),
    "mvitv2_l": (213_390_112, 2823.4),
    "mvitv2_image_t": (24_173_320, 4.68),
    "mvitv2_image_s": (34_870_216, 6.96),
    "mvitv2_image_b": (51_472_744, 10.10),
    "mvitv2_image_l": (217_992_952, 43.71),
    "mvitv2_image_h": (666_879_912, 120.31),
}
# The official L has tables of 37 and 17 rows where its 312-pixel grids need 39 and 19, and resizes
# them in every forward pass; ours
# have the rows that are needed: 40 blocks x (h, w) x 2 rows x 72 channels more.
EXTRA_TABLE_ROWS = {"mvitv2_l": 40 * 2 * 2 * 72}
TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 5}


def tiny_model(**overrides: object) -> MViT:
    torch.manual_seed(0)
    return video_mvit.create_model(
        "mvitv2_s", **{**TINY, "head_dropout": 0.0, "drop_path_rate": 0.0, **overrides}
    )


def tiny_clip(batch_size: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(
        batch_size, 3, 4, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_logits_and_gradients_match_official_network(name: str) -> None:
    golden = np.load(GOLDEN / f"{name}.npz")
    variant, overrides = GOLDEN_MODELS[name]
    model = video_mvit.create_model(
        variant, num_classes=golden["logits"].shape[1], **overrides
    ).eval()
    shapes = [tuple(json.loads(str(shape))) for shape in golden["param_shapes"]]
    official = {
        str(name): rebuilt_weight(str(name), shape).requires_grad_()
        for name, shape in zip(golden["param_names"], shapes, strict=True)
    }
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(official)
    fitted = {key: fit(weight, parameters[key].shape) for key, weight in official.items()}
    model.load_state_dict(fitted)
    clip_shape = (len(golden["logits"]), 3, model.config.num_frames, *2 * [model.config.crop_size])
    clip = torch.from_numpy(np.random.default_rng(0).standard_normal(clip_shape).astype(np.float32))
    block_norms: list[float] = []

    def record(_block: nn.Module, _args: object, out: Tensor) -> None:
        block_norms.append(out[0].detach().norm().item())

    for block in model.blocks:
        block.register_forward_hook(record)

    logits = model(clip)
    direction = np.random.default_rng(1).standard_normal(logits.shape).astype(np.float32)
    (logits * torch.from_numpy(direction)).sum().backward()
    torch.autograd.backward(list(fitted.values()), [parameters[key].grad for key in fitted])

    np.testing.assert_allclose(logits.detach().numpy(), golden["logits"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(block_norms, golden["block_norm"], rtol=1e-4)
    norms = [float(official[str(key)].grad.norm()) for key in golden["grad_names"]]
    np.testing.assert_allclose(norms, golden["grad_norms"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_logits_match_torchvision_with_shared_random_weights() -> None:
    torchvision_models = pytest.importorskip("torchvision.models.video")
    ours = video_mvit.create_model("mvitv2_s").eval()
    theirs = torchvision_models.mvit_v2_s().eval()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(
        {name: rebuilt_weight(name, tuple(shape)) for name, shape in shapes.items()}
    )
    names = {name: to_torchvision(name) for name in shapes}
    theirs.load_state_dict(state_for(ours.state_dict(), theirs.state_dict(), names))
    clip = torch.randn(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(clip), theirs(clip), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "timm_name"), [("t", "tiny"), ("s", "small"), ("b", "base")])
def test_image_logits_match_timm_with_shared_random_weights(variant: str, timm_name: str) -> None:
    timm = pytest.importorskip("timm")
    ours = video_mvit.create_model(f"mvitv2_image_{variant}").eval()
    theirs = timm.create_model(f"mvitv2_{timm_name}").eval()
    shapes = {name: tensor.shape for name, tensor in ours.state_dict().items()}
    ours.load_state_dict(
        {name: rebuilt_weight(name, tuple(shape)) for name, shape in shapes.items()}
    )
    names = {name: to_timm(name, tuple(ours.config.depths)) for name in shapes}
    theirs.load_state_dict(state_for(ours.state_dict(), theirs.state_dict(), names))
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(ours(image.unsqueeze(2)), theirs(image), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_gmacs_match_published(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = VARIANTS[name]
    monkeypatch.setattr(MViT, "init_weights", lambda _: None)
    with torch.device("meta"), torch.no_grad():
        model = MViT(config).to("meta").eval()
        clip = torch.empty(1, 3, config.num_frames, config.crop_size, config.crop_size)
        with FlopCounterMode(display=False) as counter:
            model(clip)
    num_parameters, gmacs = PUBLISHED[name]
    assert sum(p.numel() for p in model.parameters()) == num_parameters + EXTRA_TABLE_ROWS.get(
        name, 0
    )
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "num_tensors"), [("mvitv2_s", 397), ("mvitv2_b", 589), ("mvitv2_image_t", 242)]
)
def test_state_dict_has_official_number_of_tensors(name: str, num_tensors: int) -> None:
    assert len(video_mvit.create_model(name).state_dict()) == num_tensors


@pytest.mark.parametrize(
    ("q_size", "k_size", "num_rounded"),
    [
        (78, 10, 103),
        (39, 10, 38),
        (39, 20, 0),
        (20, 20, 0),
        (20, 10, 0),
        (10, 20, 0),
        (56, 7, 0),
        (28, 14, 0),
        (14, 14, 0),
    ],
)
def test_relative_index_rounds_as_official_float32(
    q_size: int, k_size: int, num_rounded: int
) -> None:
    q, k = torch.arange(q_size)[:, None], torch.arange(k_size)[None, :]
    larger = max(q_size, k_size)
    exact = (q * larger * k_size - (k - (k_size - 1)) * larger * q_size) // (q_size * k_size)
    index = relative_index(q_size, k_size)
    assert int((index != exact).sum()) == num_rounded
    assert int(index.min()) == 0
    assert int(index.max()) <= 2 * larger - 2


def test_block_schedule_matches_published_small() -> None:
    rows = [
        (s.dim, s.dim_attn, s.num_heads, s.thw, s.q_thw, s.kv_thw, round(s.drop_path, 5))
        for s in block_schedule(VARIANTS["mvitv2_s"])
    ]
    assert rows[:4] == [
        (96, 96, 1, (8, 56, 56), (8, 56, 56), (8, 7, 7), 0.0),
        (96, 192, 2, (8, 56, 56), (8, 28, 28), (8, 14, 14), 0.01333),
        (192, 192, 2, (8, 28, 28), (8, 28, 28), (8, 7, 7), 0.02667),
        (192, 384, 4, (8, 28, 28), (8, 14, 14), (8, 14, 14), 0.04),
    ]
    assert {row[:6] for row in rows[4:14]} == {(384, 384, 4, (8, 14, 14), (8, 14, 14), (8, 7, 7))}
    assert rows[14:] == [
        (384, 768, 8, (8, 14, 14), (8, 7, 7), (8, 14, 14), 0.18667),
        (768, 768, 8, (8, 7, 7), (8, 7, 7), (8, 7, 7), 0.2),
    ]


def test_table_rows_match_published() -> None:
    model = video_mvit.create_model("mvitv2_s")
    assert [len(block.attn.rel_pos_h) for block in model.blocks] == [111, 55, 55, 27] + [
        27
    ] * 10 + [27, 13]
    assert {len(block.attn.rel_pos_t) for block in model.blocks} == {15}
    image = video_mvit.create_model("mvitv2_image_t")
    assert [len(block.attn.rel_pos_h) for block in image.blocks] == [111, 55, 55, 55] + [27] * 5 + [
        13
    ]


def test_no_attention_matrix_is_ever_built() -> None:
    """With unpooled keys a matrix of (queries x keys) would be by far the largest tensor."""
    sizes: list[int] = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            tensors = [t for t in torch.utils._pytree.tree_leaves(out) if isinstance(t, Tensor)]
            sizes.extend(t.numel() for t in tensors)
            return out

    model = tiny_model(crop_size=64, stride_kv=(1, 1, 1))
    with Record():
        model(torch.randn(1, 3, 4, 64, 64)).sum().backward()
    num_tokens = 2 * 16 * 16
    assert max(sizes) >= num_tokens * 4 * 16  # the hidden layer of the first MLP was seen
    assert max(sizes) < num_tokens * num_tokens


def gradients(model: MViT, clip: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    model(clip).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


MODES = ("light", "selective", "full")


@pytest.mark.parametrize("mode", MODES)
def test_activation_checkpointing_keeps_names_logits_and_gradients(mode: str) -> None:
    plain, checkpointed = (tiny_model(activation_checkpointing=each) for each in ("none", mode))
    assert list(plain.state_dict()) == list(checkpointed.state_dict())
    clip = tiny_clip()
    torch.testing.assert_close(plain(clip), checkpointed(clip))
    expected, got = gradients(plain, clip), gradients(checkpointed, clip)
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient)


@pytest.mark.parametrize("mode", MODES)
def test_activation_checkpointing_repeats_the_same_drop_path(mode: str) -> None:
    """A mask drawn anew in the backward pass would make gradients disagree with the loss."""
    results = []
    for each in ("none", mode):
        model = tiny_model(activation_checkpointing=each, drop_path_rate=0.5).double()
        torch.manual_seed(3)
        results.append(gradients(model, tiny_clip(8, torch.float64)))
    for name, gradient in results[0].items():
        torch.testing.assert_close(results[1][name], gradient)


@pytest.mark.parametrize("is_slow", [False, True])  # products as convolutions, or not
def test_each_mode_keeps_less_for_the_backward_pass(
    is_slow: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_linear, "mkl_lacks_avx512", lambda: is_slow)
    monkeypatch.setattr(cpu_linear, "MIN_ELEMENTS", 0)
    products: dict[str, int] = {}

    class CountProducts(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func.name() in ("aten::addmm", "aten::mm", "aten::mkldnn_convolution"):
                products[mode] += 1
            return func(*args, **(kwargs or {}))

    for mode in ("none", *MODES):
        model, clip, products[mode] = tiny_model(activation_checkpointing=mode), tiny_clip(), 0
        with CountProducts():
            model(clip).sum().backward()
    # `selective` computes fc1 of each block again, and qkv of the three blocks that widen.
    assert products["none"] == products["light"]
    assert products["none"] + len(model.blocks) + 3 == products["selective"] < products["full"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", *MODES])
def test_tools_of_pytorch_work_in_each_mode(mode: str) -> None:
    model, clip = tiny_model(activation_checkpointing=mode), tiny_clip()
    expected = gradients(model, clip)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        for name, gradient in gradients(twin, clip).items():
            torch.testing.assert_close(gradient, expected[name])
    # Parameters swapped for one call, gradients to them.
    other = {name: p.detach().clone().requires_grad_() for name, p in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        swapped = {name: p.detach() for name, p in other.items()}

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, parameters, (clip,)).square().sum()

    if mode == "none":  # PyTorch's checkpointing knows no function transforms
        for name, gradient in torch.func.grad(loss)(swapped).items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
        found = torch.autograd.grad(loss(other), list(other.values()))
        for name, gradient in zip(other, found, strict=True):
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(loss(swapped), loss(other))


def test_model_returns_logits_in_training_and_evaluation() -> None:
    model, clip = tiny_model(), tiny_clip()
    assert torch.equal(model.train()(clip), model.eval()(clip))
    assert model(clip).detach().sum(dim=1)[0].item() != pytest.approx(1)


def test_features_and_stage_maps_have_documented_shapes() -> None:
    model, clip = tiny_model(), tiny_clip()
    tokens, thw = model.forward_features(clip)
    assert tokens.shape == (2, 1 + 2 * 1 * 1, 128)
    assert thw == (2, 1, 1)
    torch.testing.assert_close(model.head(tokens[:, 0]), model(clip))
    shapes = [tuple(stage.shape) for stage in model.forward_stages(clip)]
    assert shapes == [(2, 16, 2, 8, 8), (2, 32, 2, 4, 4), (2, 64, 2, 2, 2), (2, 128, 2, 1, 1)]


@pytest.mark.parametrize("method", ["forward", "forward_features"])
def test_inference_lets_go_of_the_tokens_of_earlier_blocks(method: str) -> None:
    model = tiny_model().eval()
    outputs: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def record(_block: nn.Module, _args: object, out: Tensor) -> None:
        alive.append(sum(reference() is not None for reference in outputs))
        outputs.append(weakref.ref(out))

    for block in model.blocks:
        block.register_forward_hook(record)
    with torch.no_grad():
        getattr(model, method)(tiny_clip())
    assert alive == [0, 1, 1, 1]  # only the input of the block that has just run


def test_stage_maps_hold_the_tokens_of_their_stage() -> None:
    model, clip = tiny_model(), tiny_clip()
    last = model.forward_stages(clip)[-1].flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.norm(last), model.forward_features(clip)[0][:, 1:])


def test_initialisation_is_the_official_one() -> None:
    model = video_mvit.create_model("mvitv2_s")
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            expected = 0.02
            if name != "patch_embed.proj.bias":  # the convolution keeps PyTorch's uniform bias
                assert torch.equal(parameter, torch.full_like(parameter, expected)), name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        elif parameter.numel() > 2000:
            assert float(parameter.std()) == pytest.approx(0.02, rel=0.1), name


def test_every_norm_has_the_official_epsilon() -> None:
    """Too small a difference for the golden outputs to see: 1e-5 is PyTorch's, 1e-6 the paper's."""
    norms = [m for m in tiny_model().modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 4 * 5 + 1
    assert {norm.eps for norm in norms} == {1e-6}


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((3, 4, 32, 32), torch.float32),
        ((1, 1, 4, 32, 32), torch.float32),
        ((1, 3, 8, 32, 32), torch.float32),
        ((1, 3, 4, 32, 36), torch.float32),
        ((1, 3, 4, 32, 32), torch.uint8),
    ],
)
def test_wrong_clip_is_refused_with_both_shapes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    with pytest.raises(
        ValueError, match=r"got a clip of shape .* built for .*\(B, 3, 4, 32, 32\)"
    ) as error:
        tiny_model()(torch.zeros(shape, dtype=dtype))
    assert str(shape) in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_frames": 5}, "num_frames 5"),
        ({"num_frames": 0}, "num_frames 0"),
        ({"crop_size": 30}, "crop_size 30 is not a positive multiple of the patch stride 4"),
        ({"depths": (1, 2, 3)}, r"depths \(1, 2, 3\)"),
        ({"embed_dim": 10, "num_heads": 3}, "embed_dim 10"),
        ({"head": "max"}, "head 'max'"),
        ({"cls_token": False}, "needs cls_token"),
        ({"expand_dim_in": "both"}, "expand_dim_in 'both'"),
        ({"drop_path_rate": 1.5}, "drop_path_rate 1.5"),
        ({"head_init_scale": 0.0}, "head_init_scale 0.0 must be positive"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"num_classes": "many"}, "num_classes is 'many', expected int"),
        ({"stride_kv": (1, 0, 8)}, "stride_kv"),
        ({"num_clases": 3}, "unknown model option num_clases"),
    ],
)
def test_impossible_configuration_is_refused_by_name(
    overrides: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        variant_config("mvitv2_s", **overrides)


def test_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="mvitv2_image_t"):
        video_mvit.create_model("mvitv3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides", "millions"),
    [
        ("mvitv2_image_b_21k", {}, 65.44),
        ("mvitv2_image_l_21k", {"num_classes": 1000}, 213.636),
        ("mvitv2_image_h_21k", {"num_classes": 1000}, 666.880),
    ],
)
def test_21k_forms_have_published_parameters(
    name: str, overrides: dict[str, int], millions: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MViT, "init_weights", lambda _: None)
    with FakeTensorMode():
        model = video_mvit.create_model(name, **overrides)
    count = sum(p.numel() for p in model.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.005 if millions < 100 else 0.0005)


def test_fresh_head_is_scaled_and_nothing_else() -> None:
    """SlowFast `video_model_builder.py`, `HEAD_INIT_SCALE`."""
    plain, scaled = tiny_model().state_dict(), tiny_model(head_init_scale=0.001).state_dict()
    for name, tensor in plain.items():
        scale = 0.001 if name.startswith("head.") else 1.0
        torch.testing.assert_close(scaled[name], scale * tensor, msg=name)


@pytest.mark.slow
def test_regularisation_reaches_the_modules() -> None:
    model = video_mvit.create_model("mvitv2_s", crop_size=32, num_frames=4)
    rates = [block.drop_path1.drop_prob for block in model.blocks]
    assert rates == [block.drop_path2.drop_prob for block in model.blocks]
    assert rates == pytest.approx([0.2 * i / 15 for i in range(16)])
    assert model.head.dropout.p == 0.5
    clip = tiny_clip()
    assert not torch.equal(model.train()(clip), model(clip))
    assert torch.equal(model.eval()(clip), model(clip))


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.endswith("21k")])
def test_21k_forms_have_cls_token_and_19168_classes(name: str) -> None:
    config = VARIANTS[name]
    assert (config.num_classes, config.cls_token, config.head) == (19168, True, "cls")
    assert config.expand_dim_in == "attention"


@pytest.mark.slow
def test_exported_program_gives_the_same_logits_for_any_batch() -> None:
    model = tiny_model().eval()
    any_batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(model, (tiny_clip(),), dynamic_shapes=(any_batch,))
    with torch.no_grad():
        for batch_size in (1, 2, 5):
            clip = tiny_clip(batch_size)
            torch.testing.assert_close(program.module()(clip), model(clip))


def test_config_takes_lists_and_keeps_tuples() -> None:
    config = MViTConfig(depths=[1, 1, 1, 1], stride_kv=[1, 4, 4])
    assert (config.depths, config.stride_kv) == ((1, 1, 1, 1), (1, 4, 4))


def test_bfloat16_autocast_stays_close_to_float32() -> None:
    model, clip = tiny_model(), tiny_clip()
    expected = gradients(model, clip)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clip)
    logits.float().square().sum().backward()
    total = torch.cat([g.flatten() for g in expected.values()])
    got = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert float(F.cosine_similarity(total, got, dim=0)) > 0.99
