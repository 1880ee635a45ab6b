"""Objects of Python in place of settings: a model, rows, transforms given to the library functions.

The settings then hold a reference, which says what the object is. What is given is known during the
call alone.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from video_mvit.errors import UserError

TAKE = f"{__name__}.take"
ROWS = "video_mvit.data.lists.rows.Rows"
AUGMENT = "video_mvit.data.transforms.augment.Augment"
_GIVEN: ContextVar[Mapping[str, Any] | None] = ContextVar("given", default=None)


@contextlib.contextmanager
def giving(objects: Mapping[str, Any]) -> Iterator[None]:
    """Let `take` return these objects in the block."""
    token = _GIVEN.set(objects)
    try:
        yield
    finally:
        _GIVEN.reset(token)


def take(given: str, what: str) -> Any:
    """Return a given object; of a network a copy to train, so that the caller's stays as it is.

    Raises `UserError` outside of the call that it was given to.
    """
    objects = _GIVEN.get() or {}
    if given not in objects:
        raise UserError(
            f"{given} was a {what} in Python when this run began; give it again, with "
            f"{given}=... of the library function"
        )
    found = objects[given]
    return copy.deepcopy(found).train() if given == "model" else found


def refer(cfg: DictConfig, objects: Mapping[str, Any]) -> None:
    """Let settings refer to the objects that are given."""
    model = objects.get("model")
    if model is not None and not isinstance(model, nn.Module):
        raise UserError(f"model is of type {type(model).__name__}, expected an nn.Module")
    nodes = {
        name: OmegaConf.create({"_target_": TAKE, "given": name, "what": _kind(value)})
        for name, value in objects.items()
    }
    with open_dict(cfg):
        if "model" in nodes:
            cfg.model = nodes["model"]
        for name in ("rows", "val_rows"):
            if name in nodes:
                cfg.data[name] = nodes[name]
        if "test_rows" in nodes:
            root = None if OmegaConf.is_missing(cfg.data, "root") else cfg.data.root
            cfg.data.sources.test = {"_target_": ROWS, "rows": nodes["test_rows"], "root": root}
            if OmegaConf.is_missing(cfg.data, "rows"):  # the run was given its own, in Python
                cfg.data.rows = nodes["test_rows"]
        if "transforms" in nodes and "_target_" not in cfg.augment:
            cfg.augment = {"_target_": AUGMENT, "policy": None}
        if "transforms" in nodes:
            cfg.augment.transforms = nodes["transforms"]


def _kind(value: Any) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
