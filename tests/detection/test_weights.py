"""Detectors in files: detectron2's, our own, and image classifiers to start from."""

import pickle
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support.reference import rebuilt_weight

from video_mvit import UserError, create_model, load_model
from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.detector import Detector
from video_mvit.detection.weights import (
    card_of,
    config_of,
    initialize_detector,
    load_detector,
    read_detector,
    write_detector,
)
from video_mvit.models.backbone import BackboneConfig
from video_mvit.weights.checkpoint_files import read_weight_file
from video_mvit.weights.initialize import FromWeights
from video_mvit.weights.model_card import ModelCard

BACKBONE = BackboneConfig(
    depths=(1, 1, 2, 1), embed_dim=16, num_heads=1, pretrain_crop_size=64, window=16
)
SMALL = {"fpn_channels": 16, "fc_channels": 24, "mask_channels": 8, "num_classes": 5}


def small_detector(heads: str = "mask_rcnn") -> Detector:
    detector = Detector(DetectorConfig(backbone=BACKBONE, heads=heads, **SMALL)).eval()  # type: ignore[arg-type]
    state = detector.state_dict()
    detector.load_state_dict(
        {
            name: rebuilt_weight(name, tuple(tensor.shape)) if tensor.ndim else tensor
            for name, tensor in state.items()
        }
    )
    return detector


def assert_same(one: Detector, other: Detector) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize("heads", ["mask_rcnn", "cascade_batch_norm", "cascade_layer_norm"])
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_file_of_detectron2_is_written_read_and_understood_without_a_card(
    tmp_path: Path, heads: str, suffix: str
) -> None:
    detector, path = small_detector(heads), tmp_path / f"det{suffix}"
    write_detector(path, detector.state_dict(), ModelCard(model={}))
    loaded = load_detector(path)
    assert_same(loaded, detector)
    square = 1024 if heads == "cascade_layer_norm" else 0
    assert loaded.config == DetectorConfig(
        backbone=BACKBONE,
        heads=heads,  # type: ignore[arg-type]
        square_pad=square,
        **SMALL,
    )
    assert not loaded.training


@pytest.mark.parametrize(("depths", "stride_kv"), [((1, 1, 1, 1), 4), ((1, 1, 2, 1), 8)])
def test_stride_of_keys_is_inferred_from_tables(
    tmp_path: Path, depths: tuple[int, ...], stride_kv: int
) -> None:
    backbone = replace(BACKBONE, depths=depths, stride_kv=stride_kv)
    detector = Detector(DetectorConfig(backbone=backbone, **SMALL))  # type: ignore[arg-type]
    torch.save({"model": detector.state_dict()}, tmp_path / "det.pth")
    assert load_detector(tmp_path / "det.pth").config.backbone == backbone


def test_card_keeps_what_shapes_do_not_tell(tmp_path: Path) -> None:
    detector, path = small_detector(), tmp_path / "det.safetensors"
    card = ModelCard(
        model=asdict(detector.config),
        class_names=tuple("abcde"),
        category_ids=(1, 2, 5, 7, 9),
        short_side=96,
        max_side=160,
    )
    write_detector(path, detector.state_dict(), card)
    loaded = load_detector(path, score_threshold=0.5, drop_path_rate=0.1)
    assert_same(loaded, detector)
    assert loaded.config.score_threshold == 0.5
    assert loaded.config.backbone.drop_path_rate == 0.1
    assert (loaded.card.class_names, loaded.card.category_ids) == (tuple("abcde"), (1, 2, 5, 7, 9))
    with pytest.raises(UserError, match=r"holds a detector; video_mvit.load_detector loads it"):
        load_model(str(path))


def test_pickle_of_detectron2_with_counters_anchors_and_settings(tmp_path: Path) -> None:
    detector, path = small_detector("cascade_batch_norm"), tmp_path / "det.pkl"
    arrays = {name: tensor.numpy() for name, tensor in detector.state_dict().items()}
    counter = "roi_heads.box_head.0.conv1.norm.num_batches_tracked"
    arrays[counter] = np.int64(7)
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4))
    arrays["pixel_mean"] = np.zeros((3, 1, 1))
    del arrays[counter.replace(".0.", ".1.")]
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone", "iteration": 9}))
    assert_same_but(load_detector(path), detector, counter)


def assert_same_but(one: Detector, other: Detector, counter: str) -> None:
    assert one.state_dict()[counter] == 7
    for name, tensor in one.state_dict().items():
        assert name.endswith("tracked") or torch.equal(tensor, other.state_dict()[name])


class Settings(dict):  # type: ignore[type-arg]
    """Pickled under the name of a class of another library."""


Settings.__module__, Settings.__qualname__ = "fvcore.common.config", "CfgNode"


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_settings_beside_tensors_are_dropped_unseen(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("fvcore.common.config")
    module.CfgNode = Settings  # type: ignore[attr-defined]
    for name in ("fvcore", "fvcore.common"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "fvcore.common.config", module)
    Settings.__name__ = "CfgNode"
    detector, path = small_detector(), tmp_path / f"det{suffix}"
    settings = Settings(MODEL=Settings(NAME="x"))
    if suffix == ".pkl":
        arrays = {name: tensor.numpy() for name, tensor in detector.state_dict().items()}
        path.write_bytes(pickle.dumps({"model": arrays, "cfg": settings}))
    else:
        torch.save({"model": detector.state_dict(), "cfg": settings}, path)
    monkeypatch.delitem(sys.modules, "fvcore.common.config")
    assert_same(load_detector(path), detector)
    assert "fvcore.common.config" not in sys.modules


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("executed",)


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_code_in_a_file_is_named_and_not_run(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"det{suffix}"
    content = {"model": {"a": Evil()}}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(UserError, match=r"is refused: it would run .*print"):
        read_weight_file(path)
    assert capsys.readouterr().out == ""


def test_classifier_gives_the_backbone_and_the_rest_starts_fresh(tmp_path: Path) -> None:
    options = {"depths": (1, 1, 2, 1), "embed_dim": 16, "crop_size": 64, "num_classes": 7}
    classifier, path = create_model("mvitv2_image_t", **options), tmp_path / "image.pyth"
    state = classifier.state_dict()
    flat = {
        name: tensor.squeeze(2) if tensor.ndim == 5 else tensor for name, tensor in state.items()
    }
    for content in (state, flat):
        torch.save({"model_state": content}, path)
        detector = small_detector()
        _, plan = initialize_detector(FromWeights(source=str(path)), detector)
        for name, tensor in flat.items():
            if name.startswith(("blocks.", "patch_embed.")):
                found = detector.state_dict()[f"backbone.bottom_up.{name}"]
                assert torch.equal(found, tensor)
        fresh = {row.name for row in plan.rows if row.action == "new"}
        expected = {
            name
            for name in detector.state_dict()
            if not name.startswith(("backbone.bottom_up.blocks", "backbone.bottom_up.patch_embed"))
        }
        assert fresh == expected
        unused = {row.name for row in plan.rows if row.action == "unused"}
        assert unused == {
            "norm.weight",
            "norm.bias",
            "head.projection.weight",
            "head.projection.bias",
        }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_frames": 4}, "holds a video model; a detector starts from an image model"),
        ({"expand_dim_in": "mlp"}, "doubles its channels in the MLP"),
        ({"depths": (1, 1, 1, 1)}, "does not fit this model; "),
    ],
)
def test_other_classifiers_are_refused_with_the_reason(
    tmp_path: Path, options: dict[str, object], problem: str
) -> None:
    base = {"depths": (1, 1, 2, 1), "embed_dim": 16, "crop_size": 64, "num_classes": 7}
    path = tmp_path / "image.pyth"
    torch.save(create_model("mvitv2_image_t", **(base | options)).state_dict(), path)
    with pytest.raises(UserError, match=problem):
        initialize_detector(FromWeights(source=str(path)), small_detector())


def test_detector_with_other_classes_starts_without_their_layers(tmp_path: Path) -> None:
    path, other = (
        tmp_path / "det.pth",
        Detector(
            DetectorConfig(backbone=BACKBONE, **(SMALL | {"num_classes": 9}))  # type: ignore[arg-type]
        ),
    )
    detector = small_detector()
    write_detector(path, detector.state_dict(), ModelCard(model={}))
    with pytest.raises(UserError, match=r"of another shape: roi_heads.box_predictor.cls_score"):
        initialize_detector(FromWeights(source=str(path)), other)
    reset = ["roi_heads.box_predictor", "roi_heads.mask_head.predictor"]
    initialize_detector(FromWeights(source=str(path), reset=reset), other)
    name = "roi_heads.mask_head.deconv.weight"
    assert torch.equal(other.state_dict()[name], detector.state_dict()[name])


def test_files_without_a_detector_or_with_half_of_one_say_so(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"blocks.0.x": torch.ones(1)}, path)
    with pytest.raises(UserError, match="holds no detector"):
        load_detector(path)
    state = small_detector().state_dict()
    del state["roi_heads.box_head.fc1.bias"]
    torch.save({"model": state}, path)
    with pytest.raises(UserError, match=r"no whole detector: it lacks 'roi_heads.box_head.fc1"):
        load_detector(path)


def test_detector_of_80_classes_has_the_categories_of_coco(tmp_path: Path) -> None:
    detector = Detector(DetectorConfig(backbone=BACKBONE, **(SMALL | {"num_classes": 80})))  # type: ignore[arg-type]
    path = tmp_path / "coco.pth"
    torch.save({"model": detector.state_dict()}, path)
    source = read_detector(path)
    card = card_of(source, config_of(source))
    assert card.class_names is not None
    assert card.category_ids is not None
    assert (card.class_names[0], card.class_names[79]) == ("person", "toothbrush")
    assert (card.category_ids[10], card.category_ids[11], card.category_ids[79]) == (11, 13, 90)
    assert (card.short_side, card.max_side) == (800, 1333)
