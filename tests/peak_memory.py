"""Peak memory in MiB of one training step: python peak_memory.py video_mvit|torchvision"""

import resource
import sys

import torch
import torchvision

import video_mvit

torch.manual_seed(0)
models = {
    "video_mvit": lambda: video_mvit.create_model("mvitv2_s"),
    "torchvision": torchvision.models.video.mvit_v2_s,
}
model = models[sys.argv[1]]().train()
model(torch.randn(1, 3, 16, 224, 224)).square().sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)  # noqa: T201
