"""Facts about a person's videos and weights, and the settings chosen from them, printed and set."""

import copy
import logging
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.run_folder import find_checkpoint, is_first_process, num_devices
from video_mvit.cli.tables import print_choices, wide_console
from video_mvit.cli.weight_files import FREE, has_part
from video_mvit.data.sanity_check import measure_lengths
from video_mvit.models.config import VARIANTS, MViTConfig, variant_config
from video_mvit.training.finetune_settings import (
    GIVEN,
    KEEP,
    KEYS,
    Choice,
    DataFacts,
    NetworkFacts,
    WeightFacts,
    as_trained,
    choose,
)
from video_mvit.weights.convert import published_normalisation
from video_mvit.weights.initialize import FromImage
from video_mvit.weights.load import Source, read_source

logger = logging.getLogger(__name__)

CHOSEN = "config/chosen.yaml"  # in the run folder; a resumed run goes on with it
OF_CLIP = ("num_classes", "num_frames", "crop_size")  # fields of a network with keys of their own
# Groups of which a person's choice says nothing of these settings: which data, not how to train.
OTHER_GROUPS = ("data", "init", "experiment", "trainer", "logger", "callbacks")


def choose_settings(cfg: DictConfig) -> None:
    """Set what the command line leaves open, from the videos and the weights, and print it all.

    A run that is resumed goes on as it began. Raises `ValueError` or `FileNotFoundError` in one
    sentence where there is nothing to train on.
    """
    path = Path(cfg.run_dir, CHOSEN)
    if cfg.resume_from and path.is_file():
        began = _read_choices(path)
        given = given_values(cfg, [choice.key for choice in began])
        choices = [
            Choice(choice.key, given[choice.key], GIVEN) if choice.key in given else choice
            for choice in began
        ]
        facts = [f"settings of the run in {cfg.run_dir}, from {path}"]
    else:
        network = network_facts(cfg)
        given = given_values(cfg, [*KEYS, *(f"model.{name}" for name in network.options)])
        data, described = data_facts(cfg)
        choices = choose(data, network, given, num_devices(cfg))
        facts = [described, *([describe(network)] if network.weights else [])]
    if cfg.memory == "auto":  # decides that itself
        choices = [each for each in choices if each.key != "model.activation_checkpointing"]
    apply(cfg, [choice for choice in choices if choice.key not in given])
    _show(facts, choices, path)


def use_settings_of(cfg: DictConfig, checkpoint: str) -> None:
    """Set network, clip, classes and normalisation to those of a trained model, for evaluation."""
    path = find_checkpoint(checkpoint, cfg.run_dir)
    source = read_source(path)
    choices = as_trained(video_network(source, str(path)))
    num_classes = source.architecture.get("num_classes")
    choices.append(Choice("data.num_classes", num_classes, f"of {path}"))
    given = given_values(cfg, [choice.key for choice in choices])
    apply(cfg, [choice for choice in choices if choice.key not in given])
    logger.info(
        "%s: clips of %dx%d, %d pixels, %s classes",
        path,
        cfg.clip.num_frames,
        cfg.clip.frame_stride,
        cfg.clip.crop_size,
        cfg.data.num_classes,
    )


def given_values(cfg: DictConfig, keys: Sequence[str]) -> dict[str, Any]:
    """Values of those keys that the person's own overrides set, alone or with their group."""
    overrides = HydraConfig.get().overrides.task
    given = {key: _as_plain(OmegaConf.select(cfg, key)) for key in keys if is_given(key, overrides)}
    absent = [key for key in given if not _is_present(cfg, key)]
    given = {key: value for key, value in given.items() if key not in absent}
    if "augment.mixing" in keys and "_target_" not in cfg.augment:  # augment=none
        given["augment.mixing"] = None
    return given


def _is_present(cfg: DictConfig, key: str) -> bool:
    parent, _, name = key.rpartition(".")
    return name in (OmegaConf.select(cfg, parent) if parent else cfg)


def is_given(key: str, overrides: Sequence[str]) -> bool:
    """Whether overrides set a key: it itself, what it is in or holds, or its group."""
    for override in overrides:
        name = override.lstrip("+~").partition("=")[0].partition("@")[0].replace("/", ".")
        is_in = key.startswith(f"{name}.") and name not in OTHER_GROUPS
        if name == key or is_in or name.startswith(f"{key}."):
            return True
    return False


def apply(cfg: DictConfig, choices: Sequence[Choice]) -> None:
    for choice in choices:
        if choice.value is not KEEP:
            OmegaConf.update(cfg, choice.key, choice.value, merge=False, force_add=True)


def data_facts(cfg: DictConfig) -> tuple[DataFacts, str]:
    """Counts from the lists, lengths from a look at some training videos; and that in words."""
    cfg = copy.deepcopy(cfg)  # building fills in what is referred to, before it is chosen
    check_values(cfg.data.module, "data.module")
    train, val = (build(cfg.data.module[name]) for name in ("train", "val"))
    with _silent("video_mvit.data"):  # the lists are read again, and say then what is to be said
        manifest = train.read(None)
        num_val = len(val.read(manifest.class_names))
    lengths = measure_lengths(manifest, train.views, seed=cfg.seed)
    data = DataFacts(
        num_videos=len(manifest),
        class_names=manifest.class_names,
        median_s=statistics.median(lengths),
        shortest_s=min(lengths),
    )
    in_words = (
        f"{cfg.data.root}: {len(manifest):,} videos to train on, {num_val:,} to validate on, "
        f"{len(manifest.class_names)} classes; {data.shortest_s:.2g} to {max(lengths):.2g} s long, "
        f"median {data.median_s:.2g} s ({len(lengths)} looked at)"
    )
    return data, in_words


def network_facts(cfg: DictConfig) -> NetworkFacts:
    """The network of the weights that `init` names, else the variant that `model` names."""
    if "_target_" in cfg.init:
        check_values(cfg.init, "init")
        source = read_source(cfg.init.source)
        network = video_network(source, cfg.init.source)
        assert network.weights is not None
        if network.weights.is_image and get_class(cfg.init._target_) is not FromImage:
            raise ValueError(
                f"{source.path} is an image model; init=inflate makes it a video model"
            )
        return network
    if cfg.model.get("name") not in VARIANTS:
        raise ValueError(
            f"settings are chosen for MViTv2 ({', '.join(VARIANTS)}), not for "
            f"{cfg.model.get('name') or cfg.model._target_}; choose=false leaves them as they are"
        )
    own = {name: value for name, value in cfg.model.items() if name in _field_names()}
    options = {name: own[name] for name in own if name not in OF_CLIP}
    return _facts(cfg.model.name, variant_config(cfg.model.name, **_as_plain(options)), {}, None)


def video_network(source: Source, path: str) -> NetworkFacts:
    """The video network that a file holds, or that its image network becomes."""
    config = variant_config("mvitv2_s", **source.architecture)
    name = next(
        (
            name
            for name, row in VARIANTS.items()
            if not row.is_image and (row.depths, row.embed_dim) == (config.depths, config.embed_dim)
        ),
        "mvitv2_s",
    )
    fixed = ("depths", "embed_dim", "num_heads", "expand_dim_in")  # that inflation keeps
    compared = fixed if config.is_image else _field_names()
    options = {
        field: getattr(config, field)
        for field in compared
        if field not in (*FREE, *OF_CLIP)
        and getattr(config, field) != getattr(VARIANTS[name], field)
    }
    card = source.card
    mean, std = published_normalisation(source.architecture)
    weights = WeightFacts(
        name=os.path.basename(path),
        mean=(card and card.mean) or mean,
        std=(card and card.std) or std,
        frame_stride=card.frame_stride if card else None,
        class_names=source.class_names,
        num_classes=source.architecture.get("num_classes"),
        absent=tuple(part for part in ("norm", "head") if not has_part(source.state, part)),
        is_image=config.is_image,
        states_normalisation=bool(card and card.mean and card.std),
    )
    return _facts(name, VARIANTS[name] if config.is_image else config, options, weights)


def describe(network: NetworkFacts) -> str:
    weights = network.weights
    assert weights is not None
    what = "an image model" if weights.is_image else f"{network.num_frames} frames"
    names = "" if weights.class_names else " without names"
    classes = f"{weights.num_classes} classes{names}" if weights.num_classes else "no classes"
    return (
        f"{weights.name}: {network.variant}, {what}, {network.crop_size} pixels, {classes}, "
        f"stride {weights.frame_stride or 'not stated'}"
    )


def _facts(
    variant: str, config: MViTConfig, options: Mapping[str, Any], weights: WeightFacts | None
) -> NetworkFacts:
    return NetworkFacts(
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


def _read_choices(path: Path) -> list[Choice]:
    rows = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(rows, list)
    return [Choice(row["key"], row.get("value", KEEP), row["reason"]) for row in rows]


def _show(facts: Sequence[str], choices: Sequence[Choice], path: Path) -> None:
    if not is_first_process():
        return
    print_choices(wide_console(), facts, choices)
    rows = [
        {"key": key, "reason": reason, **({} if value is KEEP else {"value": value})}
        for key, value, reason in choices
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(".new")
    OmegaConf.save(OmegaConf.create(rows), written)
    os.replace(written, path)  # other ranks of a resumed run may be reading it


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep what a part of the package logs to itself."""
    part = logging.getLogger(name)
    level = part.level
    part.setLevel(logging.ERROR)
    try:
        yield
    finally:
        part.setLevel(level)
