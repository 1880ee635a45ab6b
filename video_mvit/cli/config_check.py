"""Check a composed configuration against the signatures of its targets."""

import importlib.util
import inspect
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import OmegaConf

from video_mvit.errors import UserError

EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}  # logger -> its package and extra


SCALARS = (bool, int, float, str, type(None))


def check_values(node: Any, key: str) -> None:
    """Raise `UserError` with the full key where a value does not match its target.

    Nodes with `_target_` are checked for names and plain types of arguments.
    """
    hints: dict[str, Any] = {}
    if OmegaConf.is_dict(node) and "_target_" in node:
        target = _find_target(f"{key}._target_", node["_target_"])
        hints, parameters = _type_hints(target), _parameters(target)
        for name in node:
            if parameters and name not in parameters and name != "_target_":
                raise UserError(f"unknown key {key}.{name}; known: {', '.join(parameters)}")
    for name in node if OmegaConf.is_dict(node) else range(len(node)):
        value = node[name]
        plain = OmegaConf.to_container(value) if OmegaConf.is_list(value) else value
        if OmegaConf.is_dict(value):
            check_values(value, f"{key}.{name}")
        elif name in hints:
            check_value(f"{key}.{name}", plain, hints[name])


def _find_target(key: str, name: str) -> Any:
    """Import what `_target_` names; a failure inside of that module keeps its traceback."""
    try:
        return get_object(name)
    except ImportError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        missing = getattr(cause, "name", None)
        if isinstance(cause, AttributeError) or (missing and f"{name}.".startswith(f"{missing}.")):
            raise UserError(f"{key} is {name!r}, which cannot be imported: {cause}") from None
        raise cause from None


def check_value(key: str, value: Any, hint: Any) -> None:
    """Raise `UserError` if a plain value does not have a plain type."""
    if not fits(value, hint):
        raise UserError(f"{key} is {value!r}, expected {describe_hint(hint)}")


def check_extras(loggers: Any) -> None:
    """Raise `UserError` if the package of a logger is not installed."""
    for name, node in loggers.items():
        package = EXTRAS.get(node["_target_"].rpartition(".")[2])
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"logger.{name} needs the package {package}, which is not installed; "
                f'pip install "video-mvit[{package}]"'
            )


def _type_hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except NameError:  # unresolvable annotations of another library
        return {}


def _parameters(target: Any) -> Sequence[str]:
    """Return the parameter names of a callable; empty if it takes any or has no signature."""
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # builtin without a signature
        return ()
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    return () if takes_any else tuple(parameters)


def arguments_of(node: Any) -> list[str] | None:
    """Return the names of the arguments of a node's target; None if it takes any."""
    return list(_parameters(_find_target("_target_", node["_target_"]))) or None


def describe_hint(hint: Any) -> str:
    """Return a plain type in words."""
    options = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(describe_hint, options))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, options))
    if get_origin(hint) is tuple:
        return f"a list of {len(options)} {describe_hint(options[0])}"
    if get_origin(hint) is Sequence:
        return f"a list of {describe_hint(options[0])}"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value has a plain type; other types always fit."""
    options = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(fits(value, option) for option in options)
    if get_origin(hint) is Literal:
        return value in options
    if get_origin(hint) is tuple:
        is_as_long = isinstance(value, list) and len(value) == len(options)
        return is_as_long and all(map(fits, value, options))
    if get_origin(hint) is Sequence:
        return isinstance(value, list) and all(fits(item, options[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    return hint not in SCALARS or isinstance(value, hint)
