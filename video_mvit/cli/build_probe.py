"""Build the parts of a probing: the frozen network, the lists, the cache, the grids."""

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from video_mvit.api import load_model
from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.engines import engine_device, resolve_precision, run_of
from video_mvit.cli.run_folder import find_checkpoint
from video_mvit.data.dataset import ClipPipeline
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.sampling import SegmentFrames
from video_mvit.errors import UserError
from video_mvit.evaluation.results import describe_normalization, describe_protocol
from video_mvit.evaluation.view_scores import ClipPasses, clips_at_once
from video_mvit.models.mvit import MViT
from video_mvit.prediction.features import Extractor
from video_mvit.prediction.input_spec import OVERRIDES as OF_INPUT
from video_mvit.prediction.input_spec import InputSpec, Sampling, input_spec_of
from video_mvit.prediction.scorer import FromPixels
from video_mvit.probing.extraction import HeadInputs, Kept, sizes_kept
from video_mvit.probing.features_cache import FeatureCache
from video_mvit.probing.selection import Probes, check_folds
from video_mvit.weights.checkpoint_files import weights_sha1
from video_mvit.weights.convert import published_normalization

# Fields of a network's configuration that change no features.
OF_TRAINING = {
    "activation_checkpointing",
    "drop_path_rate",
    "head_dropout",
    "head_init_scale",
    "num_classes",
}
NUM_FOLDS = 5  # where the validation list is the one whose number is told
SPLITS = ("train", "val", "test")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A list of videos, and those of it that a scan found unreadable."""

    manifest: Manifest
    known_bad: Mapping[int, str]


@dataclass(frozen=True, kw_only=True)
class ProbingParts:
    """What a probing works with, and where it writes; `val` decides, unless there are folds."""

    model: MViT
    checkpoint: Path
    spec: InputSpec
    pipeline: ClipPipeline
    extractor: Extractor
    cache: FeatureCache
    lists: Mapping[str, Listed]
    num_folds: int | None
    kinds: Sequence[Probes]
    class_names: tuple[str, ...]
    config: DictConfig


def build_probing(cfg: DictConfig) -> ProbingParts:
    """Load the network, read the lists, and check everything before any video is read."""
    path = find_checkpoint(cfg.checkpoint, None)
    model = load_model(str(path), weights=cfg.weights, base=cfg.base)
    assert isinstance(model, MViT)
    given: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(OF_INPUT)), resolve=True)
    spec = input_spec_of(model, published_normalization(asdict(model.config)), given)
    pipeline = spec.pipeline(cfg.num_clips, cfg.num_crops)
    lists, class_names = read_lists(cfg, spec)
    num_views = pipeline.sampler.num_clips * pipeline.crop.num_crops  # type: ignore[attr-defined]
    check_values(cfg.probe, "probe")
    if not cfg.probe.kinds:
        raise UserError("probe.kinds names no probe to train")
    if model.config.head == "attentive":
        raise UserError(f"{path} has an attentive head; probe the network that it was made from")
    kept: Kept = "tokens" if "attentive" in cfg.probe.kinds else "features"
    device = torch.device(engine_device(cfg))
    network = FromPixels(spec, HeadInputs(model.to(device), kept)).eval()
    return ProbingParts(
        model=model,
        checkpoint=path,
        spec=spec,
        pipeline=pipeline,
        extractor=Extractor(
            run=run_of(cfg, network, spec.thw, logger.info),
            passes=ClipPasses(clips_at_once(spec.thw, device)),
            device=device,
        ),
        cache=FeatureCache(
            Path(cfg.cache),
            {
                "weights_sha1": weights_sha1(model.state_dict()),
                "protocol": describe_protocol(pipeline.sampler, pipeline.crop),
                "normalization": describe_normalization(spec.mean, spec.std),
                "precision": precision_of(cfg),
                "network": {
                    key: value
                    for key, value in asdict(model.config).items()
                    if key not in OF_TRAINING
                },
            },
            sizes_kept(model, kept, num_views),
        ),
        lists=lists,
        num_folds=num_folds_of(cfg, lists),
        kinds=[build(cfg.probe[kind]) for kind in dict.fromkeys(cfg.probe.kinds)],
        class_names=class_names,
        config=cfg,
    )


def precision_of(cfg: DictConfig) -> str:
    """Return precision and engine, as results name them."""
    return resolve_precision(cfg) + ("" if cfg.engine == "torch" else f", {cfg.engine}")


def read_lists(cfg: DictConfig, spec: InputSpec) -> tuple[dict[str, Listed], tuple[str, ...]]:
    """Read the list of each split, and the classes, which are those of the training list."""
    cfg = copy.deepcopy(cfg)
    sizes = {"num_frames": spec.num_frames, "crop_size": spec.crop_size}
    cfg.clip = {**sizes, "frame_stride": spec.frame_stride}
    cfg.data.short_side = spec.short_side
    lists: dict[str, Listed] = {}
    class_names: tuple[str, ...] | None = None
    for name in SPLITS:
        check_values(cfg.data.module[name], f"data.module.{name}")
        split = build(cfg.data.module[name])
        manifest = split.read(class_names)
        class_names = class_names or manifest.class_names
        if name == "test":
            check_sampling(spec.sampling, split.pipeline.sampler)
        logger.info("%s list: %s", name, manifest.summary())
        manifest, known_bad = split.apply_scan_report(manifest, 1.0)
        lists[name] = Listed(manifest=manifest, known_bad=known_bad)
    assert class_names
    return lists, class_names


def check_sampling(sampling: Sampling, of_data: object) -> None:
    """Raise `UserError` where an evaluation would sample other frames than the probe sees."""
    wanted = "segments" if isinstance(of_data, SegmentFrames) else "strided"
    if sampling != wanted:
        raise UserError(
            f"sampling is {sampling} for these weights, but the data set is evaluated with "
            f"{wanted}; add sampling={wanted}, or choose another data=..."
        )


def num_folds_of(cfg: DictConfig, lists: Mapping[str, Listed]) -> int | None:
    """Return how many folds of the training list decide; None where the validation list does.

    It does where none of its videos is trained on, nor among those whose number is told. Warns of
    videos that are both.
    """
    train, val, test = (set(_paths(lists[name].manifest)) for name in SPLITS)
    if both := train & test:
        logger.warning(
            "%s of the %s test videos are training videos as well, so that the result is not of "
            "unseen videos alone; the first is %s",
            *(f"{len(both):,}", f"{len(test):,}", min(both)),
        )
    if cfg.probe.num_folds is not None:
        check_folds(cfg.probe.num_folds, len(lists["train"].manifest))
        return int(cfg.probe.num_folds)
    if not val & (train | test):
        return None
    counts = torch.from_numpy(lists["train"].manifest.labels).long().bincount()
    num_folds = max(2, min(NUM_FOLDS, int(counts[counts > 0].min())))
    logger.info(
        "the validation list has videos that are %s: probes are chosen by %d-fold cross-validation "
        "on the training list",
        "reported on" if val & test else "trained on",
        num_folds,
    )
    return num_folds


def _paths(manifest: Manifest) -> list[str]:
    return [os.path.abspath(manifest.path(i)) for i in range(len(manifest))]
