"""How many classes there are, where `data.num_classes` is not given: the data or the model says."""

import contextlib
import copy
import logging
from collections.abc import Iterator

from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.run_folder import find_checkpoint
from video_mvit.errors import UserError
from video_mvit.weights.load import read_file, source_of


def fill_num_classes(cfg: DictConfig, checkpoint: str | None = None) -> None:
    """Set `data.num_classes`, if it is open, to what a checkpoint or the training list has.

    A value that is given stays: it is checked where the list and the weights are read.
    """
    if not OmegaConf.is_missing(cfg.data, "num_classes") and cfg.data.num_classes is not None:
        return
    cfg.data.num_classes = None  # also where a YAML file of the user's demands a value
    of_model = None if checkpoint is None else _of_checkpoint(cfg, checkpoint)
    cfg.data.num_classes = of_model or _of_list(cfg)


@contextlib.contextmanager
def quiet_lists() -> Iterator[None]:
    """Silence the log of reading lists that are read again later, with their log."""
    part = logging.getLogger("video_mvit.data")
    level = part.level
    part.setLevel(logging.ERROR)
    try:
        yield
    finally:
        part.setLevel(level)


def _of_checkpoint(cfg: DictConfig, name: str) -> int | None:
    """Return the number of classes of a checkpoint; None where it does not say."""
    path = find_checkpoint(name, cfg.run_dir)
    file = read_file(path, cfg.get("weights", "ema"), base=cfg.get("base"))
    if file.class_names:
        return len(file.class_names)
    with contextlib.suppress(UserError):  # no MViTv2: only its list knows
        return source_of(file, path).architecture.get("num_classes")
    return None


def _of_list(cfg: DictConfig) -> int:
    cfg = copy.deepcopy(cfg)  # building resolves references, which a run records as they are
    check_values(cfg.data.module.train, "data.module.train")
    with quiet_lists():
        return len(build(cfg.data.module.train).read(None).class_names)
