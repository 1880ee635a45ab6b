"""A person's mistake, told in one sentence: what was wrong, and where."""

import contextlib
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from video_mvit.data.decoding import VideoDecodeError

MISTAKES = (ValueError, OSError, VideoDecodeError, OmegaConfBaseException)
SCALARS = (bool, int, float, str, type(None))


@contextlib.contextmanager
def mistakes_in_one_sentence() -> Iterator[None]:
    """End with one sentence and exit code 1 where the person, not the program, was wrong."""
    try:
        yield
    except HydraException as error:  # wraps what a constructor said
        if not isinstance(error.__cause__, MISTAKES):
            raise
        _, _, key = str(error).rpartition("full_key: ")
        sys.exit(f"error: {error.__cause__}" + (f" (in {key})" if key else ""))
    except MISTAKES as error:
        sys.exit(f"error: {_sentence(error)}")
    except RuntimeError as error:  # how a loader passes on what its worker could not decode
        if VideoDecodeError.__name__ not in str(error):
            raise
        sys.exit(f"error: {_sentence(error)}")


def check_values(node: Any, key: str) -> None:
    """Raise `ValueError` with the full key where a plain value has not the type its target names.

    Nodes with `_target_` are checked against the signature they will be passed to.
    """
    hints = {}
    if OmegaConf.is_dict(node) and "_target_" in node:
        hints = _type_hints(get_object(node["_target_"]))
    keys = node.keys() if OmegaConf.is_dict(node) else range(len(node))
    for name in keys:
        value = node[name]
        if OmegaConf.is_config(value):
            check_values(value, f"{key}.{name}")
        elif name in hints and isinstance(value, SCALARS) and not _fits(value, hints[name]):
            raise ValueError(f"{key}.{name} is {value!r}, expected {_words(hints[name])}")


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if lines[0].startswith("Caught "):  # a worker's traceback: the error itself comes last
        return lines[-1].partition(": ")[2]
    return lines[0]


def _type_hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # a signature of another library that cannot be resolved at run time
        return {}


def _words(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has a plain type; what is not plain is not judged."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return hint not in SCALARS or isinstance(value, hint)
