"""Check a composed configuration against the signatures of its targets."""

import collections.abc
import contextlib
import importlib
import importlib.util
import inspect
import math
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue

from video_mvit.cli.nearest import did_you_mean
from video_mvit.errors import UserError, install_command

EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}  # logger -> its package and extra


SCALARS = (bool, int, float, str, type(None))
LISTS = (list, Sequence, Iterable, tuple, set)
OF_HYDRA = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")  # how it instantiates
REFERENCE = re.compile(r"\$\{(?P<key>[\w.]+)\}")  # a value that is all another setting's
MAX_REFERENCES = 10  # of settings to each other
MAX_SHOWN = 60  # characters of a value


@dataclass(frozen=True)
class Range:
    """The numbers that an annotated type allows, ends included."""

    least: float
    most: float = math.inf

    def describe(self) -> str:
        """Return the numbers in words."""
        return f"from {self.least:,}" + ("" if self.most == math.inf else f" to {self.most:,}")


def check_values(node: Any, key: str) -> None:
    """Raise `UserError` with the full key where a value does not match its target.

    Nodes with `_target_` are checked for names and plain types of arguments. A value that refers to
    another setting is reported under the name of that.
    """
    if not OmegaConf.is_config(node):
        raise UserError(f"{key} is {shown(node)}, expected settings, as in its YAML file")
    hints: dict[str, Any] = {}
    if OmegaConf.is_dict(node) and "_target_" in node:
        target = _find_target(f"{key}._target_", node["_target_"])
        hints, parameters = _type_hints(target), _parameters(target)
        for name in node:
            if parameters and name not in parameters and name not in OF_HYDRA:
                raise UserError(f"unknown key {key}.{name}; known: {', '.join(parameters)}")
    for name in node if OmegaConf.is_dict(node) else range(len(node)):
        value, full = node[name], _origin(node, name, f"{key}.{name}")
        if name in hints:
            _check_argument(full, value, hints[name])
        if OmegaConf.is_dict(value) or _has_nodes(value):
            check_values(value, full)


def _has_nodes(value: Any) -> bool:
    """Return whether a value is a list with settings in it."""
    return OmegaConf.is_list(value) and any(map(OmegaConf.is_dict, value))


def _check_argument(key: str, value: Any, hint: Any) -> None:
    """Raise `UserError` where an argument of a target cannot become what its type says."""
    if not OmegaConf.is_dict(value):
        check_value(key, _plain(value), hint)
    elif "_target_" in value and not _may_be_object(hint):
        raise UserError(f"{key} is an object, expected {describe_hint(hint)}")
    elif "_target_" not in value and not _may_be_mapping(hint):
        raise UserError(f"{key} is a mapping without _target_, expected {describe_hint(hint)}")


def check_options(cfg: Any, hints: Mapping[str, Any]) -> None:
    """Raise `UserError` for an option, by its dotted key, of another type; absent ones pass."""
    for key, hint in hints.items():
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not OmegaConf.is_dict(node) or name not in node:
            continue
        with contextlib.suppress(MissingMandatoryValue, InterpolationToMissingValueError):
            check_value(key, _plain(node[name]), hint)


def check_entries(node: Any, key: str) -> None:
    """Raise `UserError` unless all entries of a group are objects to build."""
    for name in node:
        if not OmegaConf.is_dict(node[name]) or "_target_" not in node[name]:
            raise UserError(
                f"{key}.{name} is {shown(_plain(node[name]))}, expected settings with a _target_; "
                f"~{key}.{name} removes it"
            )


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _origin(node: Any, name: Any, key: str) -> str:
    """Return the key that a value comes from: its own, or that of the setting it refers to."""
    for _ in range(MAX_REFERENCES):
        child = node._get_node(name)
        raw = child._value() if child is not None else None
        match = REFERENCE.fullmatch(raw) if isinstance(raw, str) else None
        if match is None:
            return key
        key = match["key"]
        parent, _, name = key.rpartition(".")
        root = node._get_root()
        node = OmegaConf.select(root, parent) if parent else root
        if not OmegaConf.is_dict(node) or name not in node:
            return key
    return key


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
            raise UserError(f"{key} is {name!r}, {_what_is_missing(name, cause)}") from None
        raise cause from None


def _what_is_missing(name: str, cause: BaseException) -> str:
    """Say which part of a dotted name is not there, and what is there with a similar name."""
    module, last = None, ""
    place, _, rest = name.partition(".")
    with contextlib.suppress(ImportError):
        module = importlib.import_module(place)
    while module is not None and rest:
        last, _, left = rest.partition(".")
        found = getattr(module, last, None)
        if found is None:
            with contextlib.suppress(ImportError):
                found = importlib.import_module(f"{place}.{last}")
        if found is None:
            names = [each for each in dir(module) if not each.startswith("_")]
            return f"but {place} has no {last!r}{did_you_mean(last, names)}"
        module, place, rest = found, f"{place}.{last}", left
    return f"which cannot be imported: {cause}"


def check_value(key: str, value: Any, hint: Any) -> None:
    """Raise `UserError` if a plain value does not have a plain type."""
    if not fits(value, hint):
        raise UserError(f"{key} is {shown(value)}, expected {describe_hint(hint)}")


def shown(value: Any) -> str:
    """Return a value as a person writes it in YAML, shortened."""
    words = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return words[value]
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def check_extras(loggers: Any) -> None:
    """Raise `UserError` if the package of a logger is not installed."""
    for name, node in loggers.items():
        package = EXTRAS.get(node["_target_"].rpartition(".")[2])
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"logger.{name} needs the package {package}, which is not installed; "
                f"{install_command(package)}"
            )


def _type_hints(target: Any) -> dict[str, Any]:
    try:
        function = target.__init__ if inspect.isclass(target) else target
        return get_type_hints(function, include_extras=True)
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
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return (
            f"{describe_hint(options[0])} {' and '.join(each.describe() for each in options[1:])}"
        )
    if origin in (Union, types.UnionType):
        parts = list(dict.fromkeys(map(describe_hint, options)))
        return " or ".join(sorted(parts, key="null".__eq__))
    if origin is Literal:
        words = [each if isinstance(each, str) else shown(each) for each in options]
        return f"one of {', '.join(words)}" if len(words) > 1 else words[0]
    if origin is tuple and ... not in options:
        return f"a list of {len(options)} {describe_hint(options[0])}"
    if origin in LISTS and options:
        return f"a list of {describe_hint(options[0])}"
    if hint in (str, Path):
        return "text"
    if hint is type(None) or hint in SCALARS:
        return "null" if hint is type(None) else str(hint.__name__)
    return (
        "settings with a _target_" if _is_class(origin or hint) and hint is not dict else "settings"
    )


def fits(value: Any, hint: Any) -> bool:
    """Return whether a plain value has a plain type.

    Of an object, only a mapping may become one; types that are no classes always fit.
    """
    origin, options = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, options[0]) and all(_is_within(value, each) for each in options[1:])
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in options)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in options)
    if origin is tuple and ... not in options:
        is_as_long = isinstance(value, list) and len(value) == len(options)
        return is_as_long and all(map(fits, value, options))
    if origin in LISTS:
        return isinstance(value, list) and all(fits(item, options[0]) for item in value)
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, str)
    if hint in SCALARS:
        return isinstance(value, hint)
    return isinstance(value, dict) if _is_class(origin or hint) else True


def _is_within(value: Any, allowed: Range) -> bool:
    return value is None or allowed.least <= value <= allowed.most


def _is_class(hint: Any) -> bool:
    return inspect.isclass(hint) and hint not in (object, *LISTS)


def _may_be_mapping(hint: Any) -> bool:
    """Return whether a type allows plain mappings."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(map(_may_be_mapping, get_args(hint)))
    plain = get_origin(hint) or hint
    return plain in (dict, Mapping, collections.abc.Mapping) or not (
        _is_class(plain) or plain in (Literal, Annotated, *LISTS)
    )


def _may_be_object(hint: Any) -> bool:
    """Return whether a type allows objects, which a mapping with `_target_` makes."""
    options = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return any(map(_may_be_object, options))
    return hint not in SCALARS and get_origin(hint) not in (Literal, Annotated)
