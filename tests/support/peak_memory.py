"""Peak memory in MiB of one training step: python peak_memory.py video_mvit|torchvision MODE"""

import sys
from pathlib import Path

import torch
import torchvision

import video_mvit

torch.manual_seed(0)
models = {
    "video_mvit": lambda: video_mvit.create_model("mvitv2_s", activation_checkpointing=sys.argv[2]),
    "torchvision": torchvision.models.video.mvit_v2_s,
}
model = models[sys.argv[1]]().train()
model(torch.randn(1, 3, 16, 224, 224)).square().sum().backward()
# Not getrusage, whose peak begins with that of the process that started this one.
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(int(status["VmHWM"].split()[0]) / 1024)  # noqa: T201
