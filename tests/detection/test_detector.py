"""The detector as a whole: golden outputs of detectron2, published sizes, any input."""

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from support.detectors import GOLDENS, TINY_BACKBONE, Golden, image, objects, rebuild, tiny_detector
from support.paths import GOLDEN

from video_mvit.detection.config import DETECTORS, DetectorConfig, detector_config
from video_mvit.detection.detector import PIXEL_MEAN, Detector, create_detector, finish
from video_mvit.detection.fpn import FPN
from video_mvit.detection.instances import Detections, Instances
from video_mvit.errors import UserError

HEADS = ["mask_rcnn", "cascade_batch_norm", "cascade_layer_norm"]
# Parameters as computed for detectron2's models; those of "_lsj" have 2048 more, the norms of the
# pyramid instead of its biases.
PARAMETERS = {
    "mask_rcnn_mvitv2_t": 43_679_568,
    "mask_rcnn_mvitv2_s": 54_376_464,
    "mask_rcnn_mvitv2_b": 70_978_992,
    "mask_rcnn_mvitv2_l": 232_942_608,
    "cascade_mask_rcnn_mvitv2_t": 75_847_614,
    "cascade_mask_rcnn_mvitv2_s": 86_544_510,
    "cascade_mask_rcnn_mvitv2_b": 103_147_038,
    "cascade_mask_rcnn_mvitv2_l": 265_110_654,
    "cascade_mask_rcnn_mvitv2_h": 718_155_998,
    "cascade_mask_rcnn_mvitv2_b_lsj": 103_147_038 + 2048,
    "cascade_mask_rcnn_mvitv2_l_lsj": 265_110_654 + 2048,
    "cascade_mask_rcnn_mvitv2_h_lsj": 718_155_998 + 2048,
}
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GOLDENS)
def test_detections_are_those_of_detectron2(name: str, device: str) -> None:
    golden = Golden(name)
    detector = golden.detector().eval().to(device)
    with torch.no_grad():
        batch, sizes = detector.batch([golden.image])
        levels = detector.proposal_generator([*detector.backbone(batch).values()])
        [proposals] = detector.proposal_generator.propose(levels, sizes)
    assert tuple(batch.shape[2:]) == tuple(golden.file["padded_hw"])
    golden.assert_same_proposals(proposals)
    found = [
        detector([golden.image], output_sizes=[golden.output_size], masks=masks)[0]
        for masks in ("pasted", "probabilities")
    ]
    golden.assert_same_detections(*found)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", GOLDENS)
def test_losses_and_gradients_are_those_of_detectron2(name: str, device: str) -> None:
    golden = Golden(name)
    detector = golden.detector().to(device)
    golden.assert_same_training(*golden.train(detector))
    if "running_names" in golden.file:
        state = detector.state_dict()
        norms = [float(state[name].norm()) for name in golden.file["running_names"]]
        np.testing.assert_allclose(norms, golden.file["running_norms"], rtol=1e-4)


def test_pyramid_with_layer_norm_is_that_of_detectron2() -> None:
    golden = np.load(GOLDEN / "detection" / "fpn_ln_tiny_128x96.npz")
    fpn = FPN(DetectorConfig(backbone=TINY_BACKBONE, heads="cascade_layer_norm"))
    assert rebuild(fpn) == set(golden["param_names"])
    x = np.random.default_rng(0).standard_normal(golden["input_shape"]).astype(np.float32)
    maps = fpn(torch.from_numpy(x))
    assert list(maps) == ["p2", "p3", "p4", "p5", "p6"]
    loss = torch.zeros(())
    for name, x in maps.items():
        assert x.shape == tuple(golden[f"{name}/shape"])
        expected = golden[f"{name}/sample"]
        index = np.random.default_rng(zlib.crc32(name.encode())).integers(0, x.numel(), 2000)
        got = x.detach().reshape(-1)[index[: len(expected)]]
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-4)
        drawn = np.random.default_rng(zlib.crc32(f"g:{name}".encode())).standard_normal(x.shape)
        loss = loss + (x * torch.from_numpy(drawn.astype(np.float32))).sum()
    loss.backward()
    for name, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True):
        is_zero = name.endswith("norm_k.bias") and norm < 1e-2
        found = fpn.get_parameter(str(name)).grad.norm()
        assert found == pytest.approx(norm, rel=5e-3, abs=1e-2 if is_zero else 1e-4)


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        detector = create_detector(name)
    assert sum(p.numel() for p in detector.parameters()) == PARAMETERS[name]


def test_every_published_detector_has_its_count_in_the_table() -> None:
    assert set(DETECTORS) == {*PARAMETERS, "mask_rcnn_mvitv2_demo"}


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("boxes", [[], [(4.0, 6.0, 40.0, 30.0)]], ids=["no_object", "one_object"])
def test_images_without_objects_train_every_parameter(heads: str, boxes: Any) -> None:
    detector = tiny_detector(heads=heads).train()
    losses = detector([image(50, 60), image(40, 64, seed=1)], [objects(), objects(*boxes)])
    torch.stack([*losses.values()]).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    if not boxes:
        assert losses["loss_mask"] == losses["loss_rpn_loc"] == 0


@pytest.mark.parametrize("heads", HEADS)
def test_no_proposal_trains_every_parameter_and_finds_nothing(
    heads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = tiny_detector(heads=heads)
    nothing = [torch.zeros(0, 4)]
    monkeypatch.setattr(detector.proposal_generator, "propose", lambda *_: nothing)
    statistics = {name: buffer.clone() for name, buffer in detector.named_buffers()}
    losses = detector.train()([image(32, 32)], [objects()])
    torch.stack([*losses.values()]).sum().backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None for parameter in detector.parameters())
    assert all(torch.equal(buffer, statistics[name]) for name, buffer in detector.named_buffers())
    [found] = detector.eval()([image(32, 32)])
    assert len(found.boxes) == len(found.scores) == len(found.labels) == 0
    assert found.masks.shape == (0, 32, 32)


@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_keeps_boxes_and_losses_in_float32(heads: str, dtype: torch.dtype) -> None:
    detector = tiny_detector(heads=heads, score_threshold=0.0)
    with torch.autocast("cpu", dtype=dtype):
        losses = detector.train()([image(64, 64)], [objects((4, 6, 40, 30))])
        [found] = detector.eval()([image(64, 64)])
    torch.stack([*losses.values()]).sum().backward()
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())
    assert found.boxes.dtype == found.scores.dtype == torch.float32
    assert len(found.boxes) > 0


def test_detections_are_scaled_to_the_output_sizes() -> None:
    detector = tiny_detector(score_threshold=0.0).eval()
    images = [image(48, 64), image(64, 40, seed=1)]
    plain = detector(images, masks="probabilities")
    scaled = detector(images, output_sizes=[(96, 192), (32, 20)], masks="probabilities")
    for found, same, factors in zip(scaled, plain, [(3.0, 2.0), (0.5, 0.5)], strict=True):
        torch.testing.assert_close(found.boxes, same.boxes * torch.tensor(factors * 2))
        assert torch.equal(found.scores, same.scores)
        assert torch.equal(found.masks, same.masks)
    pasted = detector(images, output_sizes=[(96, 192), (32, 20)])
    assert [each.masks.shape[1:] for each in pasted] == [(96, 192), (32, 20)]
    assert all((each.scores.diff() <= 0).all() for each in plain)


def test_boxes_that_the_output_does_not_show_are_dropped() -> None:
    boxes = torch.tensor([[10.0, 0, 20, 10], [40, 5, 40, 10], [30, 90, 60, 100]])
    found = Detections(
        boxes=boxes,
        scores=torch.tensor([0.9, 0.8, 0.7]),
        labels=torch.tensor([0, 1, 2]),
        masks=torch.ones(3, 28, 28),
    )
    shown = finish(found, (90, 60), (180, 30), "pasted")
    assert shown.boxes.tolist() == [[5, 0, 10, 20]]
    assert (shown.scores.tolist(), shown.labels.tolist()) == (pytest.approx([0.9]), [0])
    assert shown.masks.sum() == 5 * 20


def test_padding_is_the_mean_color_up_to_multiples_of_32() -> None:
    detector = tiny_detector()
    gray = torch.tensor(PIXEL_MEAN)[:, None, None].expand(3, 33, 20)
    batch, sizes = detector.batch([gray, image(10, 70)])
    assert batch.shape == (2, 3, 64, 96)
    assert sizes == [(33, 20), (10, 70)]
    assert batch[0].abs().max() == 0
    assert batch[1, :, 10:].abs().max() == batch[1, :, :, 70:].abs().max() == 0
    assert tiny_detector(square_pad=128).batch([gray])[0].shape == (1, 3, 128, 128)


def test_overrides_reach_the_detector_and_its_backbone() -> None:
    config = detector_config("mask_rcnn_mvitv2_s", num_classes=3, drop_path_rate=0.1, window=48)
    assert (config.num_classes, config.backbone.drop_path_rate) == (3, 0.1)
    assert (config.backbone.window, config.backbone.depths) == (48, (1, 2, 11, 2))
    assert detector_config("cascade_mask_rcnn_mvitv2_h").backbone.drop_path_rate == 0.6


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0, expected an integer from 1 on"),
        ({"num_proposals": 10.5}, "num_proposals is 10.5"),
        ({"heads": "cascade"}, "heads 'cascade' is none of 'mask_rcnn', 'cascade_batch_norm'"),
        ({"suppression": "soft"}, "suppression 'soft' is none of"),
        ({"score_threshold": 5.0}, "score_threshold 5.0 is outside"),
        ({"square_pad": 1000}, "square_pad 1000 is not a multiple of 32"),
        ({"windows": 3}, "unknown detector option windows; choose from .*window"),
    ],
)
def test_impossible_values_are_user_errors(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        detector_config("mask_rcnn_mvitv2_demo", **wrong)


def test_wrong_input_is_a_user_error() -> None:
    detector: Detector = tiny_detector()
    with pytest.raises(UserError, match=r"shape \(64, 64\), expected \(3, H, W\)"):
        detector.eval()([torch.zeros(64, 64)])
    with pytest.raises(UserError, match=r"needs targets; call eval\(\)"):
        detector.train()([image(32, 32)])
    with pytest.raises(UserError, match="unknown detector 'yolo'; choose one of mask_rcnn"):
        create_detector("yolo")


def test_a_bitmap_trains_like_the_polygon_that_it_shows() -> None:
    detector = tiny_detector().train()
    bitmap = np.zeros((64, 64), dtype=np.bool_)
    bitmap[8:40, 16:48] = True
    polygon = objects((16, 8, 48, 40))
    drawn = Instances(boxes=polygon.boxes, labels=polygon.labels, masks=[bitmap])
    losses = []
    for target in (polygon, drawn):
        torch.manual_seed(0)
        losses.append(detector([image(64, 64)], [target])["loss_mask"])
    torch.testing.assert_close(*losses, rtol=0, atol=2e-3)
