"""Norms of the heads: on one rank, on two, without boxes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.distributed as dist
from support.processes import run_ranks
from torch import Tensor, nn

from video_mvit.detection.layers import BoxBatchNorm, ChannelNorm, NormedConv


def features(num: int, seed: int) -> Tensor:
    return torch.randn(num, 3, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def fresh(kind: type[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    norm = kind(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, -1.0]))
        norm.running_mean.fill_(0.25)
    return norm


def trained(norm: nn.BatchNorm2d, x: Tensor, seed: int) -> dict[str, Tensor]:
    """One step of a loss that is a random sum over the output."""
    x = x.clone().requires_grad_()
    y = norm(x)
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(seed))).sum().backward()
    found = {"x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad, "y": y.detach()}
    return {**found, "mean": norm.running_mean, "variance": norm.running_var}  # type: ignore[dict-item]


def test_channel_norm_normalizes_each_position() -> None:
    x = features(2, 0)
    norm = ChannelNorm(3)
    norm.weight.data, norm.bias.data = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 1.0, 0.0])
    centered = x - x.mean(1, keepdim=True)
    expected = centered / (centered.square().mean(1, keepdim=True) + 1e-6).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


def test_a_conv_has_a_bias_or_a_norm() -> None:
    names = {norm: set(NormedConv(2, 4, 3, norm).state_dict()) for norm in ("none", "layer")}
    assert names == {"none": {"weight", "bias"}, "layer": {"weight", "norm.weight", "norm.bias"}}


def test_on_one_rank_it_is_plain_batch_norm() -> None:
    x = features(5, 0)
    plain, ours = trained(fresh(nn.BatchNorm2d), x, 1), trained(fresh(BoxBatchNorm), x, 1)
    assert all(torch.equal(plain[name], ours[name]) for name in plain)


def test_without_boxes_statistics_stay_and_gradients_are_zero() -> None:
    found = trained(fresh(BoxBatchNorm), features(0, 0), 1)
    assert found["weight"].tolist() == found["bias"].tolist() == [0, 0, 0]
    assert (found["mean"].tolist(), found["variance"].tolist()) == ([0.25] * 3, [1] * 3)
    assert found["y"].shape == (0, 3, 2, 2)


def step(nums: list[int]) -> dict[str, npt.NDArray[np.float32]]:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = trained(fresh(BoxBatchNorm), features(nums[rank], rank), 10 + rank)
    return {name: tensor.numpy() for name, tensor in found.items()}


@pytest.mark.slow
@pytest.mark.parametrize("nums", [[3, 5], [4, 0], [0, 0]], ids=str)
def test_on_two_ranks_it_is_batch_norm_over_the_boxes_of_both(nums: list[int]) -> None:
    ranks = run_ranks(step, 2, nums)
    # The same by the formula on one rank: means over all boxes, the biased variance.
    x = torch.cat([features(num, rank) for rank, num in enumerate(nums)]).requires_grad_()
    norm = fresh(BoxBatchNorm)
    mean, square = (values.sum((0, 2, 3)) / max(4 * len(x), 1) for values in (x, x.square()))
    variance = square - mean.square()
    y = (x - mean[:, None, None]) * (variance + norm.eps).rsqrt()[:, None, None]
    y = y * norm.weight[:, None, None] + norm.bias[:, None, None]
    drawn = [
        torch.randn(num, 3, 2, 2, generator=torch.Generator().manual_seed(10 + rank))
        for rank, num in enumerate(nums)
    ]
    (y * torch.cat(drawn)).sum().backward()

    def both(name: str) -> Any:
        return [torch.from_numpy(found[name]) for found in ranks]

    torch.testing.assert_close(torch.cat(both("y")), y.detach())
    torch.testing.assert_close(torch.cat(both("x")), x.grad)
    torch.testing.assert_close(torch.stack(both("weight")).sum(0), norm.weight.grad)
    torch.testing.assert_close(torch.stack(both("bias")).sum(0), norm.bias.grad)
    momentum = 0.1 if len(x) else 0.0
    for running_mean, running_variance in zip(both("mean"), both("variance"), strict=True):
        torch.testing.assert_close(running_mean, 0.25 + momentum * (mean.detach() - 0.25))
        expected = 1 + momentum * (variance.detach() - 1)
        torch.testing.assert_close(running_variance, expected)


@pytest.mark.parametrize("num", [0, 5])
def test_in_evaluation_it_takes_the_running_statistics(num: int) -> None:
    plain, ours = fresh(nn.BatchNorm2d).eval(), fresh(BoxBatchNorm).eval()
    torch.testing.assert_close(ours(features(num, 0)), plain(features(num, 0)))
