"""Roll-out of attention: mass is conserved, matrices agree, and the map lies where the model looks.

The reference builds every matrix in full, with loops over the grids and autograd through the
attention weights themselves.
"""

import itertools
from math import prod

import pytest
import torch
from torch import Tensor, nn

import video_mvit
from video_mvit.prediction import attention_rollout as rollout
from video_mvit.prediction.attention_rollout import (
    roll_out,
    spread_over_pixels,
    spread_over_windows,
)

TINY = {
    "num_frames": 4,
    "crop_size": 32,
    "embed_dim": 16,
    "depths": (1, 2, 1, 1),
    "num_classes": 5,
    "drop_path_rate": 0.0,
    "head_dropout": 0.0,
}
MODELS = {
    "cls": {},
    "mean": {"cls_token": False, "head": "mean"},
    "mean_leaves_cls_out": {"head": "mean"},
    "expands_in_mlp": {"expand_dim_in": "mlp"},
    "two_heads": {"num_heads": 2, "embed_dim": 32},
    "odd_grid": {"crop_size": 44, "stride_kv": (1, 4, 4)},
    "image": {"num_frames": 1, "stride_kv": (1, 4, 4)},
    "attentive": {"head": "attentive", "head_depth": 1, "head_num_heads": 4},
    "attentive_with_blocks": {"head": "attentive", "head_depth": 3, "head_num_heads": 2},
}


def tiny_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_s", **{**TINY, **MODELS[name]}).eval()
    for parameter in model.parameters():  # fresh weights are so small that attention is even
        nn.init.normal_(parameter, std=0.15)
    return model


def some_clip(model: nn.Module) -> Tensor:
    config = model.config
    size = (3, config.num_frames, config.crop_size, config.crop_size)
    return torch.randn(size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", MODELS)
def test_equals_dense_matrices_and_conserves_mass(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(name)
    clip = some_clip(model)
    monkeypatch.setattr(rollout, "NUM_WEIGHTS", 300)  # several slices of queries
    found = roll_out(model, clip, 3)
    monkeypatch.undo()

    assert tuple(found.shape) == model.config.patch_grid
    assert float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert float(found.min()) >= 0
    expected = dense_roll_out(model, clip, 3, monkeypatch)
    torch.testing.assert_close(found.flatten(), expected, rtol=1e-3, atol=1e-6)
    assert float(found.max()) > 2 * float(found.mean())  # not an even map, which is easy to equal


def dense_roll_out(
    model: nn.Module, clip: Tensor, class_index: int, monkeypatch: pytest.MonkeyPatch
) -> Tensor:
    """The same by (N', N) matrices of whole blocks: -> (T'*H'*W',)."""
    weights: list[Tensor] = []

    def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        weights.append((scale * q @ k.transpose(-1, -2)).softmax(dim=-1))
        return weights[-1] @ v

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attend)
    monkeypatch.setattr(
        "video_mvit.kernels.cpu_linear.mkl_lacks_avx512", lambda: False
    )  # attend as above
    entered, attended = [], []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
        block.attn.register_forward_hook(lambda _, __, out: attended.append(out))
    head_blocks = model.head.pooler.blocks if model.config.head == "attentive" else []
    for block in head_blocks:
        block.register_forward_pre_hook(lambda _, args: entered.append(args[0]))
        block.attn.register_forward_hook(lambda _, __, out: attended.append(out))
    logit = model(clip[None])[0, class_index]
    grads = torch.autograd.grad(logit, [*weights, *attended])
    grad_weights, grad_attended = grads[: len(weights)], grads[len(weights) :]

    n = model.schedule[-1].num_cls
    mass = torch.zeros(attended[-1].shape[1])
    if model.config.head == "attentive":
        (mass,) = (weights[-1] * grad_weights[-1])[0].clamp(min=0).mean(dim=0)  # of one query
        mass = mass / mass.sum()
        for i in range(len(entered) - 1, len(model.blocks) - 1, -1):
            counted = (weights[i] * grad_weights[i])[0].clamp(min=0).mean(dim=0)
            parts = [x[0].detach().square().sum(1, keepdim=True) for x in (attended[i], entered[i])]
            share = parts[0] / sum(parts) * (counted.sum(dim=1, keepdim=True) > 0)
            to_tokens = counted / counted.sum(dim=1, keepdim=True).clamp(min=1e-30)
            mass = mass @ (share * to_tokens + (1 - share) * torch.eye(len(mass)))
        mass = mass.detach()
    elif model.config.head == "cls":
        mass[0] = 1
    else:
        mass[n:] = 1 / (len(mass) - n)
    for i in reversed(range(len(model.blocks))):
        block, tokens = model.blocks[i], entered[i][0].detach()
        with torch.no_grad():
            counted = (weights[i] * grad_weights[i])[0].clamp(min=0).mean(dim=0)
            to_tokens = counted @ key_windows(block.spec)
            skip, skipped = skip_matrix(block, tokens, grad_attended[i][0])
            share = attended[i][0].square().sum(1, keepdim=True)
            share = share / (share + skipped.square().sum(1, keepdim=True))
            sums = to_tokens.sum(dim=1, keepdim=True)
            share = share * (sums > 0)  # none of the keys counts
            matrix = share * to_tokens / sums.clamp(min=1e-30) + (1 - share) * skip
            torch.testing.assert_close(matrix.sum(dim=1), torch.ones(len(matrix)))
            mass = mass @ matrix
    return mass[n:] / mass[n:].sum()


def cells(grid: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, grid)))


def window(cell: tuple[int, ...], stride: tuple[int, ...], kernel: tuple[int, ...]) -> list[range]:
    return [
        range(c * s - k // 2, c * s + k // 2 + 1)
        for c, s, k in zip(cell, stride, kernel, strict=True)
    ]


def key_windows(spec: object) -> Tensor:
    """Each key's window of tokens, evenly: (Nkv, N)."""
    n = spec.num_cls
    matrix = torch.zeros(n + prod(spec.kv_thw), n + prod(spec.thw))
    matrix[:n, :n] = 1
    for row, key in enumerate(cells(spec.kv_thw)):
        reach = window(key, spec.stride_kv, spec.pool_kernel)
        for column, token in enumerate(cells(spec.thw)):
            matrix[n + row, n + column] = all(
                c in axis for c, axis in zip(token, reach, strict=True)
            )
    return matrix / matrix.sum(dim=1, keepdim=True)


def skip_matrix(block: nn.Module, tokens: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Whose value the skip path takes, (N', N), and those values (N', C')."""
    spec, n = block.spec, block.spec.num_cls
    values = block.proj(block.norm1(tokens)) if spec.dim != spec.dim_attn else tokens
    if spec.stride_q == (1, 1, 1):
        return torch.eye(len(tokens)), values
    matrix = torch.zeros(n + prod(spec.q_thw), len(tokens))
    matrix[:n, :n] = 1
    skipped = [values[:n]]
    for row, query in enumerate(cells(spec.q_thw)):
        reach = window(query, spec.stride_q, (1, 3, 3))
        places = [
            n + column
            for column, token in enumerate(cells(spec.thw))
            if all(c in axis for c, axis in zip(token, reach, strict=True))
        ]
        best, which = values[places].max(dim=0)
        counts = (best * grad[n + row]).clamp(min=0)
        counts = counts / counts.sum() if counts.sum() > 0 else counts + 1 / len(counts)
        for place, count in zip(which.tolist(), counts, strict=True):
            matrix[n + row, places[place]] += count
        skipped.append(best[None])
    return matrix, torch.cat(skipped)


def test_leaves_the_model_as_it_was() -> None:
    model = tiny_model("cls").requires_grad_(
        requires_grad=False
    )  # frozen weights are explained too
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        roll_out(model, some_clip(model), 0)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_mass_stays_where_no_key_counts() -> None:
    model = tiny_model("mean")
    nn.init.zeros_(model.head.projection.weight)  # no score depends on anything
    assert float(roll_out(model, some_clip(model), 0).sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("class_index", [-1, 5])
def test_refuses_a_class_that_is_not_there(class_index: int) -> None:
    model = tiny_model("cls")
    with pytest.raises(ValueError, match=rf"class {class_index} is not one of 5 \(0..4\)"):
        roll_out(model, some_clip(model), class_index)
    with pytest.raises(ValueError, match="training mode"):
        roll_out(model.train(), some_clip(model), 0)


@pytest.mark.parametrize("thw", [(4, 8, 8), (2, 11, 6), (1, 3, 3)])
@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (1, 4, 4)])
def test_windows_keep_mass(thw: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
    pooled = [(n - 1) // s + 1 for n, s in zip(thw, stride, strict=True)]
    mass = torch.rand(pooled, generator=torch.Generator().manual_seed(0))
    spread = spread_over_windows(mass, thw, (3, 3, 3), stride)
    assert tuple(spread.shape) == thw
    torch.testing.assert_close(spread.sum(), mass.sum())


def test_pixels_keep_mass_and_lie_around_the_centres_of_patches() -> None:
    config = tiny_model("cls").config  # patches of 3x7x7 pixels, 2x4x4 apart, from the first on
    mass = torch.zeros(config.patch_grid)
    mass[1, 2, 5] = 1
    pixels = spread_over_pixels(mass, config)
    assert tuple(pixels.shape) == (4, 32, 32)
    assert float(pixels.sum()) == pytest.approx(1)
    assert pixels.argmax() == torch.tensor(2 * 32 * 32 + 8 * 32 + 20)
    torch.testing.assert_close(
        pixels[2, 8, 17:24] * 4 / pixels.max(), torch.tensor([1, 2, 3, 4, 3, 2, 1.0])
    )
    for corner in ((0, 0, 0), (-1, -1, -1)):  # where half of what a patch reads is outside
        mass[corner] = 2
    assert float(spread_over_pixels(mass, config).sum()) == pytest.approx(5)
    even = spread_over_pixels(torch.ones(config.patch_grid), config)[2, 4:25, 4:25]
    torch.testing.assert_close(even, even.mean().expand_as(even))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["mean", "attentive"])
def test_map_lies_where_a_trained_model_looks(head: str) -> None:
    """A model that tells the colour of a small square looks at the square."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    options = {"num_classes": 3, "num_frames": 2, "head": head}
    if head == "attentive":
        options |= {"head_depth": 2, "head_num_heads": 4}
    model = video_mvit.create_model("mvitv2_demo", **options)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(40):
        clips, labels, _ = coloured_squares(16, generator)
        loss = nn.functional.cross_entropy(model(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    clips, labels, is_square = coloured_squares(32, generator)
    assert (model(clips).argmax(dim=1) == labels).float().mean() > 0.9
    maps = [
        spread_over_pixels(roll_out(model, clip, label), model.config)
        for clip, label in zip(clips, labels.tolist(), strict=True)
    ]
    mass_inside = torch.einsum("athw,bthw->ab", torch.stack(maps), is_square)
    of_others = mass_inside[~torch.eye(len(maps), dtype=torch.bool)].mean()
    assert float(mass_inside.diagonal().mean() / of_others) > 1.4  # 1.7; 2.5 after 160 steps


def coloured_squares(num: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise with a square somewhere: clips, its colours, and where it is (num, T, H, W)."""
    labels = torch.randint(3, (num,), generator=generator)
    corners = torch.randint(2, 20, (num, 2), generator=generator)
    clips = 0.5 * torch.randn(num, 3, 2, 32, 32, generator=generator)
    is_square = torch.zeros(num, 2, 32, 32)
    for clip, place, label, (top, left) in zip(
        clips, is_square, labels, corners.tolist(), strict=True
    ):
        place[:, top : top + 10, left : left + 10] = 1
        clip[label] += 2 * place
    return clips, labels, is_square
