"""The network of an evaluation, which must be the one that the checkpoint was trained as."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from video_mvit.cli.saved_settings import as_list
from video_mvit.errors import UserError
from video_mvit.models.config import variant_config
from video_mvit.weights.load import MismatchError, read_source

# Fields whose tensors have one shape each; tables of positions are resized to other grids.
FIXED = ("depths", "embed_dim", "num_heads", "cls_token", "expand_dim_in", "num_classes")
ADVICE = (
    "evaluate with the settings of the training, which video-mvit evaluate RUN_FOLDER takes from "
    "there"
)


def check_network(
    model: DictConfig, checkpoint: Path, weights: str, base: str | None = None
) -> None:
    """Raise `UserError` where the settings of an MViTv2 are not those of the checkpoint's.

    Before the network is built: settings may come from a run folder, which must not decide how
    much memory is taken.
    """
    wanted: Any = OmegaConf.to_container(model, resolve=True)
    config = variant_config(**{key: value for key, value in wanted.items() if key != "_target_"})
    found = read_source(checkpoint, weights, base).architecture
    for name in FIXED:
        here = getattr(config, name)
        if name in found and as_list(found[name]) != as_list(here):
            raise UserError(
                f"{checkpoint} is of a network with {name} {as_list(found[name])}, the settings of "
                f"one with {as_list(here)}; {ADVICE}"
            )


@contextlib.contextmanager
def advising_settings() -> Iterator[None]:
    """Advise on the settings where tensors do not fit: an evaluation starts nothing anew."""
    try:
        yield
    except MismatchError as error:
        raise UserError(f"{error.problem}; {ADVICE}") from None
