"""Exports of detectors: read back, run and equal to the detector on drawn pictures."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from video_mvit import UserError, create_detector
from video_mvit.detection.detector import Detector
from video_mvit.detection.export import (
    Agreement,
    ExportableDetector,
    compare_objects,
    drawn,
    export_detector,
)

pytestmark = pytest.mark.slow
SIZE = (96, 64)
SMALL = {"embed_dim": 16, "fpn_channels": 16, "fc_channels": 24, "mask_channels": 8}
FEW = {"num_candidates_test": 60, "num_proposals": 40, "num_detections": 10}


def detector_of(name: str, **overrides: object) -> Detector:
    torch.manual_seed(0)
    backbone = {"depths": (1, 1, 1, 1), "pretrain_crop_size": 64, "window": 16, "num_heads": 1}
    detector = create_detector(
        name, num_classes=3, **(SMALL | FEW | backbone | overrides | {"score_threshold": 0.0})
    )
    with torch.no_grad():  # weights large enough for a wrong one to show
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return detector.eval()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("mask_rcnn_mvitv2_t", ".pt2"),
        pytest.param("mask_rcnn_mvitv2_t", ".onnx", marks=pytest.mark.long),
        pytest.param("cascade_mask_rcnn_mvitv2_t", ".onnx", marks=pytest.mark.long),
        pytest.param("cascade_mask_rcnn_mvitv2_t", ".pt2", marks=pytest.mark.long),
    ],
)
def test_detector_is_exported_as_it_is(tmp_path: Path, name: str, suffix: str) -> None:
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(package, reason=f"{package} is not installed")
    written = export_detector(detector_of(name), tmp_path / f"det{suffix}", SIZE)
    assert written.agreement.num_objects > 0
    assert not written.agreement.problem()
    assert all(path.exists() for path in written.files)
    # On a picture that the export has not been compared on.
    other = compare_objects(written.model, written.run, drawn(SIZE)[5:6])
    assert other.num_objects > 0
    assert not other.problem()


@pytest.mark.long
def test_onnx_takes_images_of_any_size(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    written = export_detector(detector_of("mask_rcnn_mvitv2_t"), tmp_path / "det.onnx", None)
    assert written.about.shape == (3, "H", "W")
    # On sizes that the export has not been compared on, with windows cut by the border.
    for size in ((64, 64), (96, 224), (160, 128)):
        other = compare_objects(written.model, written.run, drawn(size)[:2])
        assert other.num_objects > 0
        assert not other.problem()


def test_any_size_is_refused_where_the_size_is_fixed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without square_pad takes images of any size"):
        export_detector(detector_of("mask_rcnn_mvitv2_t"), tmp_path / "det.pt2", None)
    padded = detector_of("mask_rcnn_mvitv2_t", square_pad=256)
    with pytest.raises(UserError, match="without square_pad takes images of any size"):
        export_detector(padded, tmp_path / "det.onnx", None)


def test_pyramid_is_exported_for_any_number_of_images(tmp_path: Path) -> None:
    detector = detector_of("mask_rcnn_mvitv2_t")
    written = export_detector(detector, tmp_path / "pyramid.pt2", SIZE, part="backbone")
    images = torch.stack(drawn(SIZE)[:3])
    for found, expected in zip(written.run(images), written.model(images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    assert list(written.about.outputs) == ["p2", "p3", "p4", "p5", "p6"]


def test_difference_is_noticed_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that moves every box by a pixel is refused."""
    plain = ExportableDetector.forward

    def moved(self: ExportableDetector, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        boxes, *others = plain(self, image)
        return boxes + 1, *others

    monkeypatch.setattr(ExportableDetector, "forward", moved)
    with pytest.raises(UserError, match=r"det.pt2 was not written: .* objects differ by more than"):
        export_detector(detector_of("mask_rcnn_mvitv2_t"), tmp_path / "det.pt2", SIZE)
    assert not list(tmp_path.iterdir())


def test_few_objects_may_be_chosen_otherwise_by_rounding() -> None:
    assert Agreement(num_objects=100, num_unpaired=3).problem()
    assert not Agreement(num_objects=100, num_unpaired=2, maps=1e-5).problem()
    assert Agreement(maps=float("nan")).problem()


def test_soft_suppression_is_refused(tmp_path: Path) -> None:
    detector = detector_of("mask_rcnn_mvitv2_t", suppression="soft_nms")
    with pytest.raises(UserError, match="soft NMS cannot be exported"):
        export_detector(detector, tmp_path / "det.pt2", SIZE)
