"""Measure one detector, or its backbone, in this process: detector_step.py REQUEST.

REQUEST is a `DetectorRequest` of detector.py as JSON. The answer is the last line printed, JSON:
bytes at the peak, bytes of libraries, seconds.
"""

import json
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.detector import DetectorRequest
from benchmarks.measurements import CHECKPOINTED
from benchmarks.workloads import Task, timed_s
from video_mvit import kernels
from video_mvit.detection.detector import create_detector
from video_mvit.detection.instances import Instances
from video_mvit.host import peak_resident_memory, resident_memory

NUM_OBJECTS = 8  # of an image, as in COCO


def main(text: str) -> None:
    request = DetectorRequest(**json.loads(text))
    torch.manual_seed(0)
    images = [torch.rand(3, request.side, request.side) * 255 for _ in range(request.num_images)]
    images = [image.to(request.device) for image in images]
    _warm_libraries()
    network, task = TASKS[request.network == "torchvision", request.part](request, images)
    tensors = [*network.parameters(), *network.buffers()]
    libraries = resident_memory("VmRSS") - sum(t.numel() * t.element_size() for t in tensors)
    autocast = torch.autocast(
        request.device, torch.bfloat16, enabled=request.precision == "bf16", cache_enabled=True
    )

    def run() -> None:
        with autocast, kernels.use("plain") if request.network == "plain" else nullcontext():
            task()

    times_s = [timed_s(run, request.device) for _ in range(1 + request.num_runs)]
    on_gpu = request.device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else peak_resident_memory()
    answer = {"peak": peak, "libraries": 0 if on_gpu else libraries, "times_s": times_s[1:]}
    print(json.dumps(answer))  # noqa: T201


def _warm_libraries() -> None:
    """Do one step of next to nothing: torch loads parts of itself when they are used."""
    layer = nn.Conv2d(3, 8, 3)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()


def backbone_task(request: DetectorRequest, images: list[Tensor]) -> tuple[nn.Module, Task]:
    """Return the backbone, and its forward and backward pass."""
    detector = create_detector(request.name, drop_path_rate=0.0, **_options(request))
    backbone = detector.backbone.bottom_up.to(request.device).train()
    batch = torch.stack(images) / 255

    def run() -> None:
        loss = torch.stack([x.float().square().mean() for x in backbone(batch).values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        backbone.zero_grad()

    return backbone, run


def detector_task(request: DetectorRequest, images: list[Tensor]) -> tuple[nn.Module, Task]:
    """Return the detector, and a training step."""
    detector = create_detector(request.name, **_options(request)).to(request.device).train()
    targets = [_objects(request) for _ in images]
    return detector, _step(detector, lambda: detector(images, targets))


def _options(request: DetectorRequest) -> dict[str, Any]:
    return {"activation_checkpointing": CHECKPOINTED.get(request.network, "none")}


def torchvision_task(request: DetectorRequest, images: list[Tensor]) -> tuple[nn.Module, Task]:
    """Return torchvision's Mask R-CNN with a ResNet-50, and a training step."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

    sizes = {"min_size": request.side, "max_size": request.side}
    detector = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, **sizes)
    detector = detector.to(request.device).train()
    targets = []
    for _ in images:
        objects = _objects(request)
        masks = torch.zeros(NUM_OBJECTS, request.side, request.side, dtype=torch.uint8)
        for mask, box in zip(masks, objects.boxes.int().tolist(), strict=True):
            mask[box[1] : box[3], box[0] : box[2]] = 1
        target = {"boxes": objects.boxes, "labels": objects.labels + 1, "masks": masks}
        targets.append({name: tensor.to(request.device) for name, tensor in target.items()})
    return detector, _step(detector, lambda: detector([x / 255 for x in images], targets))


def _step(detector: nn.Module, losses: Any) -> Task:
    optimizer = torch.optim.AdamW(detector.parameters(), lr=1e-4, fused=True)

    def run() -> None:
        loss = torch.stack([loss.float() for loss in losses().values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return run


def _objects(request: DetectorRequest) -> Instances:
    """Draw rectangles of a tenth to a half of the side."""
    rng, side = np.random.default_rng(0), request.side
    corner = rng.uniform(0, side / 2, (NUM_OBJECTS, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(side / 10, side / 2, (NUM_OBJECTS, 2))], 1)
    polygons = [[box[[0, 1, 2, 1, 2, 3, 0, 3]]] for box in boxes]
    return Instances(
        boxes=torch.from_numpy(boxes).float().to(request.device),
        labels=torch.from_numpy(rng.integers(0, 80, NUM_OBJECTS)).to(request.device),
        masks=polygons,
    )


TASKS = {
    (False, "backbone"): backbone_task,
    (False, "detector"): detector_task,
    (True, "detector"): torchvision_task,
}

if __name__ == "__main__":
    main(sys.argv[1])
