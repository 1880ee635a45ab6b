"""Small detectors, their weights by name, and what detectron2 computes with these weights."""

import json
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from support.paths import GOLDEN
from support.reference import rebuilt_weight
from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.detector import Detector
from video_mvit.detection.instances import Detections, Instances
from video_mvit.models.backbone import BackboneConfig

TINY_BACKBONE = BackboneConfig(depths=(1, 1, 2, 1), embed_dim=48, pretrain_crop_size=64, window=16)
TINY: dict[str, Any] = {
    "backbone": TINY_BACKBONE,
    "num_classes": 5,
    "fpn_channels": 64,
    "fc_channels": 128,
    "mask_channels": 64,
}
GOLDENS: dict[str, dict[str, Any]] = {
    "mask_rcnn_tiny_160x192": {},
    "cascade_tiny_160x192": {"heads": "cascade_batch_norm"},
    "cascade_ln_tiny_square256": {"heads": "cascade_layer_norm", "square_pad": 256},
}


def tiny_detector(**overrides: Any) -> Detector:
    """A detector of 32 channels that is quick, with few samples."""
    torch.manual_seed(0)
    quick = {
        "backbone": BackboneConfig(
            depths=(1, 1, 1, 1), embed_dim=16, pretrain_crop_size=64, window=16
        ),
        "fpn_channels": 16,
        "fc_channels": 16,
        "mask_channels": 16,
        "num_candidates_train": 100,
        "num_candidates_test": 100,
        "num_proposals": 50,
        "num_boxes_sampled": 32,
    }
    return Detector(DetectorConfig(**(TINY | quick | overrides)))


def rectangle(*box: float) -> list[np.ndarray]:
    x0, y0, x1, y1 = box
    return [np.array([x0, y0, x1, y0, x1, y1, x0, y1], dtype=np.float64)]


def objects(*boxes: tuple[float, float, float, float]) -> Instances:
    """Rectangles, of class 0, 1, ..."""
    return Instances(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)),
        masks=[rectangle(*box) for box in boxes],
    )


def image(height: int, width: int, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def rebuild(module: nn.Module) -> set[str]:
    """Give a module the weights that its names and shapes stand for; return the names."""
    state = {
        name: rebuilt_weight(name, tuple(tensor.shape))
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    module.load_state_dict(state, strict=False)
    return set(state)


class Golden:
    """What detectron2 computed: one image detected, and one training step on it."""

    def __init__(self, name: str) -> None:
        self.file = np.load(GOLDEN / "detection" / f"{name}.npz")
        self.config = DetectorConfig(**(TINY | GOLDENS[name]))
        drawn = np.random.default_rng(int(self.file["image_seed"]))
        pixels = drawn.integers(0, 256, (3, *self.file["image_hw"]))
        self.image = torch.from_numpy(pixels.astype(np.float32))
        height, width = map(int, self.file["out_hw"])
        self.output_size = (height, width)
        self.targets = Instances(
            boxes=torch.from_numpy(self.file["gt_boxes"]),
            labels=torch.from_numpy(self.file["gt_classes"]),
            masks=[[np.array(polygon)] for polygon in json.loads(str(self.file["gt_polygons"]))],
        )

    def detector(self) -> Detector:
        detector = Detector(self.config)
        assert rebuild(detector) == set(self.file["param_names"])
        return detector

    def train(self, detector: Detector) -> tuple[dict[str, float], dict[str, float]]:
        """Return losses and norms of gradients where the first boxes are drawn, not random ones."""
        detector.train()
        with mock.patch("torch.randperm", torch.arange):
            losses: dict[str, Tensor] = detector([self.image], [self.targets])
        torch.stack([*losses.values()]).sum().backward()
        norms = {
            name: -1.0 if parameter.grad is None else float(parameter.grad.norm())
            for name, parameter in detector.named_parameters()
        }
        return {name: float(loss.detach()) for name, loss in losses.items()}, norms

    def assert_same_proposals(self, proposals: Tensor) -> None:
        distance = torch.cdist(
            torch.from_numpy(self.file["proposal_boxes"]), proposals.cpu(), p=torch.inf
        )
        assert distance.shape[0] == distance.shape[1]
        assert distance.min(dim=1).values.max() < 0.05

    def assert_same_detections(self, pasted: Detections, probabilities: Detections) -> None:
        """Compare detections in any order: those of equal class and, to 0.05 px, equal box."""
        expected = self.file
        assert len(pasted.boxes) == len(expected["boxes"])
        distance = np.abs(pasted.boxes.cpu().numpy()[None] - expected["boxes"][:, None]).max(-1)
        distance[pasted.labels.cpu().numpy()[None] != expected["classes"][:, None]] = np.inf
        assert distance.min(axis=1).max() < 0.05
        order = torch.from_numpy(distance.argmin(axis=1))
        scores, masks = pasted.scores.cpu()[order], probabilities.masks.cpu()[order]
        np.testing.assert_allclose(scores, expected["scores"], rtol=0, atol=2e-4)
        values = masks.flatten(1)
        np.testing.assert_allclose(values.mean(1), expected["mask_prob_mean"], rtol=0, atol=2e-3)
        np.testing.assert_allclose(values.std(1), expected["mask_prob_std"], rtol=0, atol=2e-3)
        areas = pasted.masks.cpu()[order].sum((1, 2))
        np.testing.assert_allclose(areas, expected["mask_area"], rtol=2e-3, atol=4)

    def assert_same_training(self, losses: dict[str, float], norms: dict[str, float]) -> None:
        expected = dict(zip(self.file["loss_names"], self.file["loss_values"], strict=True))
        assert losses == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}
        for name, norm in zip(self.file["grad_names"], self.file["grad_norms"], strict=True):
            # Where no key is padded, the bias shifts all scores alike: its gradient is rounding.
            is_zero = name.endswith("norm_k.bias") and norm < 1e-2
            bound = 1e-2 if is_zero else 1e-3 + 1e-2 * abs(norm)
            assert abs(norms[str(name)] - norm) <= bound, name


def random_boxes(num: int, seed: int, side: float = 100.0) -> Tensor:
    """Boxes of any place and at least a pixel in a square: -> (num, 4)."""
    corners = torch.rand(num, 2, 2, generator=torch.Generator().manual_seed(seed)) * (side - 1)
    corners = corners.sort(dim=1).values
    return torch.cat([corners[:, 0], corners[:, 1] + 1], dim=1)
