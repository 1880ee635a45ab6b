"""Load and write detectors, and start one from an image classifier.

Names are detectron2's, which are ours. Three kinds of files hold a detector: those of detectron2
(`.pkl`, `.pth`), training checkpoints, and exported models, which have a card.
"""

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from video_mvit.detection.categories import coco_categories
from video_mvit.detection.config import DetectorConfig
from video_mvit.detection.detector import Detector
from video_mvit.detection.roi_heads import BOX_SIDE
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically
from video_mvit.models.backbone import STRIDES_KV, BackboneConfig, backbone_schedule
from video_mvit.models.config import PATCH_STRIDE_HW
from video_mvit.weights.architecture import check_tables, check_widths, infer_architecture
from video_mvit.weights.checkpoint_files import (
    WeightFile,
    write_checkpoint,
    write_safetensors,
)
from video_mvit.weights.initialize import FromWeights
from video_mvit.weights.key_formats import check_num_dims
from video_mvit.weights.load import (
    Source,
    holds_detector,
    is_part,
    new_row,
    plan_load,
    provenance_of,
    raise_mismatch,
    read_file,
    resize_rel_pos,
    source_of,
    tell_notes,
    unused_row,
    words,
)
from video_mvit.weights.load_plan import Action, Plan, Row, Shape
from video_mvit.weights.model_card import ModelCard

BACKBONE = "backbone.bottom_up."
# What detectron2 stores and a detector computes.
EXTRAS = ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator.")
COUNTER = ".num_batches_tracked"  # absent from files without integers
IN_IMAGE_MODEL = (f"{BACKBONE}patch_embed.", f"{BACKBONE}blocks.")
CLASSIFIER_PARTS = ("cls_token", "norm.", "head.")
COCO_CLASSES = 80
TEST_SIDES = {False: (800, 1333), True: (1024, 1024)}  # short, longest; True: padded to a square


def load_detector(path: str | Path, *, weights: str = "ema", **overrides: Any) -> Detector:
    """Load a detector from a file, in evaluation mode.

    Takes a file of detectron2 (`.pkl` or `.pth`, of `projects/MViTv2` and `projects/ViTDet`), a
    training checkpoint, or an exported model. The configuration is that of its card, or inferred
    from the shapes; names of classes and so on are in `detector.card`.

    Args:
        weights: of a file with several networks: "ema" (the raw weights where there is no EMA),
            "raw", or the name of the container or prefix of one.
        overrides: fields of `DetectorConfig` or of its `BackboneConfig`, for example
            `score_threshold`.

    Raises:
        UserError, FileNotFoundError: in one sentence, if nothing matches.
    """
    source = read_detector(path, weights)
    config = override(config_of(source), overrides)
    detector = Detector(config)
    plan_detector(source, shapes_of(detector)).apply(detector)
    detector.card = card_of(source, config)
    return detector.eval()


def read_detector(path: str | Path, weights: str = "ema") -> Source:
    """Read the file of a detector; raises `UserError` if it holds something else."""
    return detector_source_of(read_file(path, weights), path)


def detector_source_of(file: WeightFile, path: str | Path) -> Source:
    """Take a file that was read from `path` as a detector; raises as `read_detector` does."""
    if not holds_detector(file.state):
        raise UserError(
            f"{path} holds no detector: it has no proposal_generator and roi_heads; a detector "
            "starts from a classifier with init.source"
        )
    tell_notes(file, path)
    unused = tuple(name for name in file.state if name.startswith(EXTRAS))
    return Source(
        path=str(path),
        container=file.container,
        key_format="video_mvit" if file.card else "detectron2",
        state={name: tensor for name, tensor in file.state.items() if name not in unused},
        architecture=file.card.model if file.card else {},
        unused=(*unused, *file.others),
        card=file.card,
        class_names=file.class_names,
    )


def config_of(source: Source) -> DetectorConfig:
    """Return the configuration of the card, or infer it from shapes (the window from the tables).

    Raises `UserError` where a detector needs more than there is.
    """
    try:
        config = _inferred(source) if source.card is None else _of_card(source.card.model)
        _check_sizes(config, source.state)
    except KeyError as error:
        raise UserError(f"{source.path} is no whole detector: it lacks {error}") from None
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from None
    return config


def _inferred(source: Source) -> DetectorConfig:
    state, body = source.state, _body(source.state)
    found = infer_architecture(body)
    if found["expand_dim_in"] == "mlp":
        raise UserError("its channels double in the MLP, which no detector has")
    is_cascade = "roi_heads.box_head.0.conv1.weight" in state
    has_batch_norm = "roi_heads.box_head.0.conv1.norm.running_mean" in state
    cascade = "cascade_batch_norm" if has_batch_norm else "cascade_layer_norm"
    first = "0." if is_cascade else ""
    return DetectorConfig(
        backbone=_backbone_of(found, body),
        num_classes=_length(state, f"roi_heads.box_predictor.{first}cls_score.bias") - 1,
        heads=cascade if is_cascade else "mask_rcnn",  # type: ignore[arg-type]
        square_pad=1024 if is_cascade and not has_batch_norm else 0,
        fpn_channels=_length(state, "backbone.fpn_lateral2.weight"),
        fc_channels=_length(state, f"roi_heads.box_head.{first}fc1.bias"),
        mask_channels=_length(state, "roi_heads.mask_head.mask_fcn1.weight"),
    )


def _length(state: Mapping[str, Tensor], name: str) -> int:
    return next(iter(tuple(state[name].shape)), 0)


def _body(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the backbone under their names in it."""
    body = {n.removeprefix(BACKBONE): t for n, t in state.items() if n.startswith(BACKBONE)}
    check_num_dims(body, kernel_dims=4)
    return body


def _check_sizes(config: DetectorConfig, state: Mapping[str, Tensor]) -> None:
    """Raise `UserError` or `KeyError` unless these are the tensors of such a detector.

    Called before it is built: it then has about as many values as the file. Layers that others
    determine are left out; `load.py` names them.
    """
    backbone, body = config.backbone, _body(state)
    dim, fpn = backbone.embed_dim, config.fpn_channels
    fc, mask = config.fc_channels, config.mask_channels
    widths = {"depths": backbone.depths, "embed_dim": dim, "expand_dim_in": "attention"}
    check_widths(body, widths)
    side, first = backbone.pretrain_crop_size // PATCH_STRIDE_HW, "0." if config.is_cascade else ""
    check_tables(sum(backbone.depths), (1, side))
    expected: dict[str, Shape] = {
        f"{BACKBONE}patch_embed.proj.bias": (dim,),
        "backbone.fpn_output2.weight": (fpn, fpn, 3, 3),
        f"roi_heads.box_head.{first}fc1.weight": (fc, fpn * BOX_SIDE**2),
        f"roi_heads.box_predictor.{first}cls_score.weight": (config.num_classes + 1, fc),
        "roi_heads.mask_head.mask_fcn1.weight": (mask, fpn, 3, 3),
        "roi_heads.mask_head.deconv.weight": (mask, mask, 2, 2),
        "roi_heads.mask_head.predictor.weight": (config.num_classes, mask, 1, 1),
    }
    if not config.is_cascade:
        expected["roi_heads.box_head.fc2.weight"] = (fc, fc)
    if backbone.relative_positions:
        table = (2 * side - 1, dim // backbone.num_heads)
        expected[f"{BACKBONE}blocks.0.attn.rel_pos_h"] = table
    if backbone.absolute_positions:
        expected[f"{BACKBONE}pos_embed"] = (1, side**2 + backbone.pretrain_cls_token, dim)
    for name, shape in expected.items():
        if tuple(state[name].shape) != shape:
            there = words(tuple(state[name].shape))
            raise UserError(f"its {name} is of {there}, expected {words(shape)}")


def _backbone_of(found: Mapping[str, Any], body: Mapping[str, Tensor]) -> BackboneConfig:
    """Return the configuration of a backbone; its K/V stride is the one with such tables."""
    config = BackboneConfig(
        depths=found["depths"],
        embed_dim=found["embed_dim"],
        num_heads=found["num_heads"],
        pretrain_crop_size=found["crop_size"],
        window=found["crop_size"] // PATCH_STRIDE_HW,
        absolute_positions="pos_embed" in body,
    )
    sides = [(len(body[f"blocks.{i}.attn.rel_pos_h"]) + 1) // 2 for i in range(sum(config.depths))]
    for stride_kv in STRIDES_KV:
        config = replace(config, stride_kv=stride_kv)
        specs = backbone_schedule(config)
        if [max(spec.q_thw[1], spec.kv_thw[1]) for spec in specs] == sides:
            return config
    raise UserError("its relative positions fit no stride of keys and values")


def _of_card(values: Mapping[str, Any]) -> DetectorConfig:
    """Return the configuration that a card holds as plain values."""
    try:
        backbone = BackboneConfig(**values["backbone"])
        return DetectorConfig(**{**values, "backbone": backbone})
    except (KeyError, ValueError) as error:
        raise UserError(f"its card describes no detector: {error}") from None


def override(config: DetectorConfig, overrides: Mapping[str, Any]) -> DetectorConfig:
    """Replace fields of a detector, or of its backbone."""
    known = asdict(config)
    if unknown := sorted(set(overrides) - {*known, *known["backbone"]}):
        raise UserError(f"unknown detector option {', '.join(unknown)}")
    inner = {name: value for name, value in overrides.items() if name in known["backbone"]}
    outer = {name: value for name, value in overrides.items() if name not in inner}
    return replace(config, backbone=replace(config.backbone, **inner), **outer)


def plan_detector(
    source: Source,
    shapes: Mapping[str, Shape],
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Plan:
    """Plan every tensor of a detector from the file of a detector; raises as `plan_load`."""
    counters = [name for name in shapes if name.endswith(COUNTER) and name not in source.state]
    return plan_load(source, shapes, (*reset, *counters), ignore)


def plan_from_classifier(source: Source, shapes: Mapping[str, Shape]) -> Plan:
    """Plan a detector whose backbone starts from an image classifier, the rest as initialized.

    Patches and blocks are taken one to one; tables are resized where the classifier was built for
    images of another size. Its norm, head and cls token find no place. Raises `UserError` if the
    classifier is another network.
    """
    found = source.architecture
    if found.get("num_frames") != 1:
        raise UserError(f"{source.path} holds a video model; a detector starts from an image model")
    if found.get("expand_dim_in") == "mlp":
        raise UserError(
            f"{source.path} doubles its channels in the MLP, as the L trained on ImageNet-1K alone "
            "does; no detector can, so start from weights trained on ImageNet-21K"
        )
    state: dict[str, Tensor] = {}
    rows: list[Row] = []
    missing, misshaped = [], []
    for name, shape in shapes.items():
        inner = name.removeprefix(BACKBONE)
        if not name.startswith(IN_IMAGE_MODEL):
            rows.append(new_row(source, name, shape, "fresh"))
        elif inner not in source.state:
            missing.append(inner)
        else:
            tensor = source.state[inner]
            if tensor.ndim == len(shape) + 1:  # kernels of one frame lose their time axis
                tensor = tensor.squeeze(2)
            before: Shape = tuple(tensor.shape)
            action: Action = "loaded"
            if "rel_pos" in name and before[1:] == shape[1:] and before != shape:
                tensor, action = resize_rel_pos(tensor, shape[0]), "resized"
            elif before != shape:
                misshaped.append(f"{inner} ({words(before)} in the file, {words(shape)} here)")
            state[name] = tensor
            rows.append(Row(name=name, action=action, source=before, target=shape))
    rest = [name for name in source.state if f"{BACKBONE}{name}" not in state]
    unexpected = [name for name in rest if not name.startswith(CLASSIFIER_PARTS)]
    raise_mismatch(source.path, missing, unexpected, misshaped)
    rows += [unused_row(source, name, "of the classifier") for name in rest]
    rows += [unused_row(source, name, "not of the network") for name in source.unused]
    return Plan(rows=tuple(rows), state=state, path=source.path)


def initialize_detector(init: FromWeights, detector: Detector) -> tuple[Source, Plan]:
    """Set the weights of a detector from those of a detector or of an image classifier.

    Raises `UserError` if the file does not match.
    """
    shapes = shapes_of(detector)
    file = read_file(init.source, init.weights)
    if holds_detector(file.state):
        source = detector_source_of(file, init.source)
        plan = plan_detector(source, shapes, init.reset, init.ignore)
    else:
        source = source_of(file, init.source)
        plan = plan_from_classifier(source, shapes)
        for part in init.reset:
            if not any(is_part(name, part) for name in shapes):
                raise UserError(f"reset names {part!r}, but the model has no such module")
    plan.apply(detector)
    return source, plan


def shapes_of(detector: Detector) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in detector.state_dict().items()}


def card_of(source: Source, config: DetectorConfig) -> ModelCard:
    """Return the card of the file, or one with what its kind of file implies."""
    if source.card is not None:
        return replace(source.card, model=asdict(config))
    names, ids = None, None
    if config.num_classes == COCO_CLASSES:
        categories = coco_categories()
        names, ids = tuple(categories.values()), tuple(categories)
    short_side, max_side = TEST_SIDES[config.square_pad > 0]
    return ModelCard(
        model=asdict(config),
        short_side=short_side,
        max_side=max_side,
        interpolation="bilinear",
        class_names=names,
        category_ids=ids,
        key_format=source.key_format,
        **provenance_of(source),
    )


def write_detector(path: Path, state: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a detector: `.safetensors` with its card; `.pth` and `.pkl` as detectron2 reads them.

    Raises `UserError` for another suffix.
    """
    if path.suffix == ".safetensors":
        write_safetensors(path, state, card)
    elif path.suffix == ".pth":
        write_checkpoint(path, {"model": {n: t.detach().clone() for n, t in state.items()}})
    elif path.suffix == ".pkl":
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}
        with replace_atomically(path) as temporary:
            # Only the key decides that detectron2 matches names exactly.
            content = {"model": arrays, "__author__": "video_mvit"}
            temporary.write_bytes(pickle.dumps(content, protocol=4))
    else:
        raise UserError(f"{path} must end in .safetensors, .pth or .pkl")
