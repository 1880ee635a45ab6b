"""auto_settings=true: choose settings from the user's videos and weights, print and apply them."""

import copy
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.help import conf_folder
from video_mvit.cli.num_classes import quiet_lists
from video_mvit.cli.own_networks import CREATE_MODEL, sizes_in
from video_mvit.cli.run_folder import find_checkpoint, flat, is_first_process, num_devices
from video_mvit.cli.saved_settings import (
    OF_CLIP,
    SIZES,
    as_list,
    check_architecture,
    problem_of,
    read_suggestions,
    setting_hints,
)
from video_mvit.cli.tables import print_suggestions, wide_console
from video_mvit.cli.tasks import parts_of_task
from video_mvit.cli.weight_files import NON_STRUCTURAL_FIELDS, has_part
from video_mvit.cli.words import words_for_settings
from video_mvit.data.sanity_check import measure_lengths
from video_mvit.errors import UserError
from video_mvit.files import replace_atomically
from video_mvit.models.config import VARIANTS, MViTConfig, variant_config
from video_mvit.training.finetune_settings import (
    KEYS,
    SET_BY_USER,
    UNCHANGED,
    DatasetStats,
    ModelInfo,
    Suggestion,
    WeightsInfo,
    as_trained,
    suggest_settings,
)
from video_mvit.weights.checkpoint_files import WeightFile
from video_mvit.weights.convert import published_normalization
from video_mvit.weights.initialize import FromImage
from video_mvit.weights.load import Source, read_file, read_source

logger = logging.getLogger(__name__)

SETTINGS_FILE = "config/auto_settings.yaml"  # in the run folder; a resumed run reads it
OLD_SETTINGS_FILE = "config/chosen.yaml"  # of version 0.1
# Choosing one of these groups does not count as setting the keys in it.
OTHER_GROUPS = ("data", "init", "experiment", "trainer", "logger", "callbacks")


def apply_auto_settings(cfg: DictConfig, card: Mapping[str, Any] | None = None) -> None:
    """Choose what the command line leaves open, from videos and weights, and print it.

    A resumed run keeps its settings, which must be those of the model `card` in its checkpoint.
    Raises `UserError` or `FileNotFoundError` where there is nothing to train on.
    """
    path = Path(cfg.run_dir, SETTINGS_FILE)
    saved = _saved_settings(cfg) if cfg.resume_from else None
    if saved:
        kept = list(values_set_by_user(cfg, [*setting_hints(), *SIZES]))
        began = read_suggestions(saved, kept)
        if card is not None:
            check_architecture(began, card, saved, kept)
        set_by_user = values_set_by_user(cfg, [suggestion.key for suggestion in began])
        suggestions = [
            suggestion._replace(value=set_by_user.get(suggestion.key, suggestion.value))
            for suggestion in began
        ]
        facts = [f"settings of the run in {cfg.run_dir}, from {saved}"]
    else:
        network = replace(model_info(cfg), has_adapters=bool(cfg.get("adapter")))
        set_by_user = values_set_by_user(
            cfg, [*KEYS, *(f"model.{name}" for name in network.options)]
        )
        data, described = dataset_stats(cfg)
        suggestions = suggest_settings(data, network, set_by_user, num_devices(cfg))
        facts = [described, *([describe(network)] if network.weights else [])]
    if cfg.memory == "auto":  # which decides that itself
        suggestions = [each for each in suggestions if each.key != "model.activation_checkpointing"]
    if not parts_of_task(cfg).has_smoothing:
        suggestions = [each for each in suggestions if each.key != "label_smoothing"]
    apply(cfg, [suggestion for suggestion in suggestions if suggestion.key not in set_by_user])
    words = words_for_settings()
    _show(facts, [_as_set(s, words) if s.key in set_by_user else s for s in suggestions], path)


def use_settings_of(cfg: DictConfig, checkpoint: str) -> None:
    """Set model, clip, classes and normalization to those of a trained model."""
    path = find_checkpoint(checkpoint, cfg.run_dir)
    if is_own_network(cfg):
        file = read_file(path, cfg.get("weights", "ema"))
        network, architecture = own_model_info(cfg, file), sizes_in(file)._asdict()
    else:
        source = read_source(path, cfg.get("weights", "ema"), cfg.get("base"))
        network, architecture = video_model_info(source, str(path)), dict(source.architecture)
    suggestions = as_trained(network)
    num_classes = architecture.get("num_classes")
    suggestions.append(Suggestion("data.num_classes", num_classes, f"from {path}"))
    set_by_user = values_set_by_user(cfg, [suggestion.key for suggestion in suggestions])
    apply(cfg, [suggestion for suggestion in suggestions if suggestion.key not in set_by_user])
    logger.info(
        "%s: clips of %dx%d, %d pixels, %s classes",
        path,
        cfg.clip.num_frames,
        cfg.clip.frame_stride,
        cfg.clip.crop_size,
        cfg.data.num_classes,
    )


def values_set_by_user(cfg: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Return the values of those keys that the user's overrides set, alone or by group."""
    overrides = words_for_settings()
    set_by_user = {
        key: _as_plain(OmegaConf.select(cfg, key)) for key in keys if is_set_by_user(key, overrides)
    }
    absent = [key for key in set_by_user if not _is_present(cfg, key)]
    set_by_user = {key: value for key, value in set_by_user.items() if key not in absent}
    if "augment.mixing" in keys and "mixing" not in cfg.augment:  # an augmentation of one's own
        set_by_user["augment.mixing"] = None
    return set_by_user


def _as_set(suggestion: Suggestion, overrides: Sequence[str]) -> Suggestion:
    """Say who has set a value: the user, or a file that one of the words chooses."""
    key, value, _ = suggestion
    setting = [word for word in overrides if is_set_by_user(key, [word])]
    group = f"{key.partition('.')[0]}="
    files = [word for word in setting if word.startswith((group, "debug="))]
    reason = SET_BY_USER if files != setting else f"from {files[-1]}" if files else "as configured"
    if key == "augment.mixing" and value is not None:  # many numbers
        value = UNCHANGED
    return Suggestion(key, value, reason)


def _is_present(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return name in (OmegaConf.select(cfg, parent) if parent else cfg)


def is_set_by_user(key: str, overrides: Sequence[str]) -> bool:
    """Return whether overrides set a key, a part of it, its parent, its group or a debug preset."""
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")
        if name == "debug" and is_set_by_user(key, keys_of_preset(override.partition("=")[2])):
            return True
        is_in = key.startswith(f"{name}.") and name not in OTHER_GROUPS
        if name == key or is_in or name.startswith(f"{key}."):
            return True
    return False


def keys_of_preset(name: str) -> list[str]:
    """Return the keys that a debug preset sets, which come before what is chosen for a run."""
    file = conf_folder() / "debug" / f"{name}.yaml"
    return list(flat(yaml.safe_load(file.read_text(encoding="utf-8")))) if file.is_file() else []


def apply(cfg: DictConfig, suggestions: Sequence[Suggestion]) -> None:
    """Write suggestions into the configuration; raises `UserError` for values that do not fit."""
    for key, value, reason in suggestions:
        if value is UNCHANGED:
            continue
        if problem := problem_of(key, as_list(value)):
            raise UserError(f"{problem} ({reason}); set it as an option")
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)


def dataset_stats(cfg: DictConfig) -> tuple[DatasetStats, str]:
    """Collect statistics of the data set, and describe them in one line."""
    cfg = copy.deepcopy(cfg)  # building resolves references before the settings are final
    check_values(cfg.data.module, "data.module")
    train, val = (build(cfg.data.module[name]) for name in ("train", "val"))
    with quiet_lists():
        manifest = train.read(None)
        num_val = len(val.read(manifest.class_names))
    lengths = measure_lengths(manifest, train.pipeline, seed=cfg.seed)
    data = DatasetStats(
        num_videos=len(manifest),
        class_names=manifest.class_names,
        median_s=statistics.median(lengths),
        shortest_s=min(lengths),
        has_classes=parts_of_task(cfg).has_classes,
    )
    what = "classes" if data.has_classes else "targets"
    in_words = (
        f"{cfg.data.root}: {len(manifest):,} training videos, {num_val:,} validation videos, "
        f"{len(manifest.class_names)} {what}; {_in_words(lengths)} ({len(lengths)} sampled)"
    )
    return data, in_words


def _in_words(lengths: Sequence[float]) -> str:
    """Return how long videos are: "1.7 to 4.1 s long, median 3.1 s", or "2 s long"."""
    low, high = f"{min(lengths):.2g}", f"{max(lengths):.2g}"
    if low == high:
        return f"{low} s long"
    return f"{low} to {high} s long, median {statistics.median(lengths):.2g} s"


def model_info(cfg: DictConfig) -> ModelInfo:
    """Describe the model of the weights that `init` names, else the configured one."""
    if "_target_" in cfg.init:
        check_values(cfg.init, "init")
    if is_own_network(cfg):
        is_image = "_target_" in cfg.init and get_class(cfg.init._target_) is FromImage
        if is_image:
            raise UserError("only an MViTv2 can be inflated; use init=weights, or init=scratch")
        weights = cfg.init.get("weights", "ema")
        file = read_file(cfg.init.source, weights) if "_target_" in cfg.init else None
        return own_model_info(cfg, file)
    if "_target_" in cfg.init:
        source = read_source(cfg.init.source, cfg.init.get("weights", "ema"), cfg.init.get("base"))
        network = video_model_info(source, cfg.init.source)
        assert network.weights is not None
        if network.weights.is_image and get_class(cfg.init._target_) is not FromImage:
            raise UserError(f"{source.path} is an image model; init=inflate makes it a video model")
        return network
    if cfg.model.get("name") not in VARIANTS:
        raise UserError(f"model.name is {cfg.model.get('name')!r}, none of {', '.join(VARIANTS)}")
    own = {name: value for name, value in cfg.model.items() if name in _field_names()}
    options = {name: own[name] for name in own if name not in OF_CLIP}
    return _facts(cfg.model.name, variant_config(cfg.model.name, **_as_plain(options)), {}, None)


def is_own_network(cfg: DictConfig) -> bool:
    """Return whether the configured network is no MViTv2."""
    return bool(cfg.model.get("_target_") != CREATE_MODEL)


def own_model_info(cfg: DictConfig, file: WeightFile | None) -> ModelInfo:
    """Describe a network that is no MViTv2, as its weights say, else as it is configured.

    Its cost is taken for that of MViTv2-S.
    """
    name = str(cfg.model.get("what", cfg.model._target_)).rpartition(".")[2]
    like = VARIANTS["mvitv2_s"]
    sizes = {field: cfg.clip[field] for field in ("num_frames", "crop_size")}
    weights = None
    if file is not None:
        card, (mean, std) = file.card, published_normalization({})
        said = card.model if card else {}
        sizes = {field: said.get(field, size) for field, size in sizes.items()}
        weights = WeightsInfo(
            name=os.path.basename(file.path),
            mean=(card and card.mean) or mean,
            std=(card and card.std) or std,
            frame_stride=card.frame_stride if card else None,
            class_names=file.class_names,
            num_classes=len(file.class_names or ()) or None,
            head=list(file.state)[-1].rpartition(".")[0],
            states_normalization=bool(card and card.mean and card.std),
        )
    return ModelInfo(
        variant="mvitv2_s",
        **sizes,
        depth=sum(like.depths),
        embed_dim=like.embed_dim,
        weights=weights,
        own_name=name,
        frame_stride=cfg.clip.frame_stride,
    )


def video_model_info(source: Source, path: str) -> ModelInfo:
    """Describe the video model in a file, or the one that its image model is inflated to."""
    config = variant_config("mvitv2_s", **source.architecture)
    name = next(
        (
            name
            for name, row in VARIANTS.items()
            if not row.is_image and (row.depths, row.embed_dim) == (config.depths, config.embed_dim)
        ),
        "mvitv2_s",
    )
    fixed = ("depths", "embed_dim", "num_heads", "expand_dim_in")  # which inflation keeps
    compared = fixed if config.is_image else _field_names()
    options = {
        field: getattr(config, field)
        for field in compared
        if field not in (*NON_STRUCTURAL_FIELDS, *OF_CLIP)
        and getattr(config, field) != getattr(VARIANTS[name], field)
    }
    card = source.card
    mean, std = published_normalization(source.architecture)
    weights = WeightsInfo(
        name=os.path.basename(path),
        mean=(card and card.mean) or mean,
        std=(card and card.std) or std,
        frame_stride=card.frame_stride if card else None,
        class_names=source.class_names,
        num_classes=source.architecture.get("num_classes"),
        absent=tuple(part for part in ("norm", "head") if not has_part(source.state, part)),
        is_image=config.is_image,
        states_normalization=bool(card and card.mean and card.std),
    )
    return _facts(name, VARIANTS[name] if config.is_image else config, options, weights)


def describe(network: ModelInfo) -> str:
    weights = network.weights
    assert weights is not None
    what = "image model" if weights.is_image else f"{network.num_frames} frames"
    names = "" if weights.class_names else " without names"
    classes = f"{weights.num_classes} classes{names}" if weights.num_classes else "no head"
    name = network.own_name or network.variant
    return (
        f"{weights.name}: {name}, {what}, {network.crop_size} pixels, {classes}, "
        f"stride {weights.frame_stride or 'unknown'}"
    )


def _facts(
    variant: str, config: MViTConfig, options: Mapping[str, Any], weights: WeightsInfo | None
) -> ModelInfo:
    return ModelInfo(
        variant=variant,
        num_frames=config.num_frames,
        crop_size=config.crop_size,
        depth=sum(config.depths),
        embed_dim=config.embed_dim,
        options=options,
        weights=weights,
    )


def _field_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(MViTConfig))


def _as_plain(value: Any) -> Any:
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _saved_settings(cfg: DictConfig) -> Path | None:
    """Return the file of the settings that a run began with; None without any."""
    paths = [Path(cfg.run_dir, name) for name in (SETTINGS_FILE, OLD_SETTINGS_FILE)]
    return next((path for path in paths if path.is_file()), None)


def _show(facts: Sequence[str], suggestions: Sequence[Suggestion], path: Path) -> None:
    if not is_first_process():
        return
    print_suggestions(wide_console(), facts, suggestions)
    rows = [
        {"key": key, "reason": reason, **({"value": value} if _can_return(key, value) else {})}
        for key, value, reason in suggestions
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(path) as temporary:  # atomic: other ranks may be reading it
        OmegaConf.save(OmegaConf.create(rows), temporary)


def _can_return(key: str, value: Any) -> bool:
    """Return whether a resumed run can read a value back; else its user has to give it again."""
    return value is not UNCHANGED and not problem_of(key, as_list(value))
