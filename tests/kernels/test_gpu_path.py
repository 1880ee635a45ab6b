"""The whole network on the kernels of a GPU, on a CPU in Triton's interpreter."""

import os

import pytest
import torch
from torch import Tensor

from video_mvit import kernels
from video_mvit.kernels.dispatch import Operation
from video_mvit.models.config import MViTConfig
from video_mvit.models.mvit import MViT

pytest.importorskip("triton", reason="there is no Triton here")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="kernels run on a GPU here")
def test_logits_and_gradients_are_those_of_plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pooling takes most of the time, and has tests of its own.
    monkeypatch.setattr(Operation, "works", lambda self, *_: self.name != "pool_tokens")
    torch.manual_seed(0)
    config = MViTConfig(
        num_frames=4,
        crop_size=32,
        depths=(1, 1, 1, 1),
        embed_dim=4,
        stride_kv=(1, 4, 4),
        num_classes=5,
        drop_path_rate=0.8,
    )
    model = MViT(config).double().train()
    clips = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    expected, found = (pass_through(model, clips, forms) for forms in ("plain", "gpu"))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def pass_through(model: MViT, clips: Tensor, forms: kernels.Forms) -> list[Tensor]:
    model.zero_grad()
    torch.manual_seed(1)  # of dropout and drop path
    with kernels.use(forms):
        logits = model(clips)
        logits.square().sum().backward()
    return [logits, *(parameter.grad for parameter in model.parameters())]
