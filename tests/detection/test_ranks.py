"""Detectors on two ranks, one of which has nothing to find."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.distributed as dist
from support.detectors import image, objects, tiny_detector
from support.processes import run_ranks
from torch.nn.parallel import DistributedDataParallel

Arrays = dict[str, npt.NDArray[np.float32]]


def two_steps(heads: str) -> tuple[Arrays, Arrays, list[float]]:
    """Gradients of the second step, buffers after it, and both losses."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    detector = tiny_detector(heads=heads).train()
    wrapped = DistributedDataParallel(detector, broadcast_buffers=False)
    # The second rank has another size of image and no foreground.
    picture, target = [(image(64, 64), objects((4, 6, 40, 30))), (image(32, 96), objects())][rank]
    losses = []
    for _ in range(2):
        detector.zero_grad()
        loss = torch.stack([*wrapped([picture], [target]).values()]).sum()
        loss.backward()
        losses.append(float(loss.detach()))
    gradients = {
        name: parameter.grad.numpy()
        for name, parameter in detector.named_parameters()
        if parameter.grad is not None
    }
    buffers = {name: buffer.numpy() for name, buffer in detector.roi_heads.named_buffers()}
    return gradients, buffers, losses


@pytest.mark.slow
@pytest.mark.parametrize("heads", ["mask_rcnn", "cascade_batch_norm"])
def test_a_rank_without_foreground_trains_along(heads: str) -> None:
    (gradients, buffers, losses), (other_gradients, other_buffers, other_losses) = run_ranks(
        two_steps, 2, heads
    )
    assert set(gradients) == {name for name, _ in tiny_detector(heads=heads).named_parameters()}
    assert all(np.array_equal(gradients[name], other_gradients[name]) for name in gradients)
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    assert np.isfinite([losses, other_losses]).all()
    for name, buffer in buffers.items():
        assert np.array_equal(buffer, other_buffers[name]), name
        if name.endswith("running_mean"):
            assert np.abs(buffer).max() > 0, name
