"""Find the network among the tensors of a file, whatever it was wrapped in and saved beside.

A file is searched by its content: containers may be nested and have any name. Of each state dict,
the names of a network begin with a prefix, that of the module which held it, and what stands
behind the prefix are the names of the network itself. Names of wrappers in between are left out.
"""

import re
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.text import printable, short
from video_mvit.weights.pickle_limits import quoted

Tree = Mapping[str, Any]  # names -> tensors or arrays
# Finds the prefixes of the networks among names; "" stands for no prefix.
FindPrefixes = Callable[[Sequence[str]], list[str]]
# Numbers that trainers keep beside the weights, by the last part of their names.
BOOKKEEPING = {"n_averaged", "steps", "num_updates", "decay", "total_ops", "total_params"}
MAX_NESTING = 6
MAX_ITEMS = 20  # of a list or tuple
MAX_STATES = 10_000
MAX_NETWORKS = 20
MAX_NAME = 1000  # longer names are of no network
# Modules of torch.compile, FSDP, activation checkpointing and Fabric around others.
WRAPPER = re.compile(
    r"(?:_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|_forward_module)\."
)
POOLING = re.compile(r"(?P<prefix>.*?)(?:stages\.\d\.)?blocks\.\d+\.attn\.pool_[qkv]\..*weight")
POSITIONS = re.compile(r"(?P<prefix>.*?)(?:stages\.\d\.)?blocks\.\d+\.attn\.rel_pos_[thw]")
# Prefixes that are part of a library's names, and a tensor that shows it ("": always).
KEPT_PREFIXES = (
    ("backbone.bottom_up.", ""),  # detectron2
    ("backbone.", "patch_embed.projection.weight"),  # mmaction2
)
EMA_WORDS = {"ema", "swa", "averaged", "average", "shadow"}
# Trainers that save the EMA as the model: a key that shows it -> that of the raw weights.
SWAPPED = {
    "message_hub": "ema_state_dict",  # mmengine
    "current_model_state": "current_model_state",  # Lightning's WeightAveraging
}


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network in a file.

    Attributes:
        keys: of the containers that it is in.
        prefix: of its names, as they are in the file.
        state: its tensors or arrays, without prefix and wrappers.
        others: names in the same container that are not of this or another network.
        kind: "ema" or "raw".
    """

    keys: tuple[str, ...]
    prefix: str
    state: Tree
    others: tuple[str, ...] = ()
    kind: str = "raw"

    @property
    def place(self) -> str:
        """Containers and prefix in one word, "state_dict.student"; "" for none."""
        return ".".join((*self.keys, *self.prefix.removesuffix(".").split("."))).strip(".")


def mvitv2_prefixes(names: Sequence[str]) -> list[str]:
    """Find the prefixes before the names of MViTv2s of any key format."""
    found = []
    names = [name for name in names if len(name) <= MAX_NAME]
    for pattern in (POOLING, POSITIONS):
        matches = [match for match in map(pattern.fullmatch, names) if match]
        found.append(dict.fromkeys(match["prefix"] for match in matches))
    prefixes = [prefix for prefix in found[1] if prefix in found[0]]
    prefixes = [prefix for prefix in prefixes if not prefix or prefix.endswith(".")]
    known = set(names)
    return list(dict.fromkeys(_without_kept(prefix, known) for prefix in prefixes))


def prefixes_of_model(model_names: Sequence[str]) -> FindPrefixes:
    """Return what finds the prefixes before most of the names of a model of another kind."""
    wanted = set(model_names)
    depth = 1 + max((name.count(".") for name in wanted), default=0)

    def find(names: Sequence[str]) -> list[str]:
        counts: Counter[str] = Counter()
        for name in names:
            parts = name.split(".") if len(name) <= MAX_NAME else []
            for i in range(max(0, len(parts) - depth), len(parts)):
                if ".".join(parts[i:]) in wanted:
                    counts[".".join([*parts[:i], ""])] += 1
        most = max(counts.values(), default=0)
        if 2 * most < len(wanted):
            return []
        if counts[""] == len(wanted):
            return [""]
        return [prefix for prefix, count in counts.items() if count == most]

    return find


def find_networks(
    content: Mapping[Any, Any] | Sequence[Any], find_prefixes: FindPrefixes
) -> list[Network]:
    """Find every network in the content of a file, copies of one left out."""
    networks: list[Network] = []
    keys_there = set(content) if isinstance(content, Mapping) else set()
    raw = {key for sign, key in SWAPPED.items() if {sign, key} <= keys_there}
    for keys, tree in state_dicts(content):
        for found in _networks_of(keys, tree, find_prefixes):
            network = replace(found, kind=_kind(found, raw))
            twin = next((i for i, each in enumerate(networks) if _is_same(network, each)), None)
            if twin is None:
                networks.append(network)
            elif network.kind == "raw":  # an EMA that is still the network itself
                networks[twin] = network
            if len(networks) == MAX_NETWORKS:
                return networks
    return networks


def state_dicts(content: Any) -> Iterator[tuple[tuple[str, ...], Tree]]:
    """Yield the keys and the tensors of each container that has tensors of its own."""
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), content)])
    for _ in range(MAX_STATES):
        if not waiting:
            return
        keys, value = waiting.popleft()
        if isinstance(value, list | tuple):
            value = {str(i): part for i, part in enumerate(value[:MAX_ITEMS])}
            tree: Tree = {}
        else:
            tree = {name: part for name, part in value.items() if _is_tensor(name, part)}
        if tree:
            yield keys, tree
        if len(keys) < MAX_NESTING and len(waiting) < MAX_STATES:
            waiting += [
                ((*keys, name), part)
                for name, part in value.items()
                if isinstance(name, str) and isinstance(part, Mapping | list | tuple) and part
            ]


def check_choice(weights: Any) -> None:
    """Raise `UserError` unless a value can name a network of a file."""
    if not isinstance(weights, str) or not weights:
        raise UserError(
            f"weights is {short(weights)}, expected ema, raw, or the name of a network in the file"
        )


def choose_network(networks: Sequence[Network], weights: str, path: str) -> Network:
    """Choose one of the networks of a file: "ema", "raw", or the name of its place.

    Raises `UserError` where there is none, or more than one.
    """
    named = weights not in ("ema", "raw")
    if named:
        found = [network for network in networks if weights == network.place]
        found = found or [each for each in networks if weights in each.place.split(".")]
    else:
        found = [network for network in networks if network.kind == weights]
        if not found and weights == "ema":
            found = list(networks)
    if len(found) == 1:
        return found[0]
    places = [_shown(network.place) for network in networks]
    if not found and not named:
        raise UserError(f"{path} has EMA weights alone ({places[0]}); weights=ema takes them")
    if not found:
        raise UserError(
            f"{path} has no network {printable(weights)!r}, only {', '.join(places) or 'none'}"
        )
    places = [_shown(network.place) for network in found]
    raise UserError(
        f"{path} holds {len(found)} networks of one kind: {', '.join(places[:4])}; "
        f"weights={places[0]} takes the first"
    )


def choice_in_words(networks: Sequence[Network], chosen: Network) -> str:
    """Say which of several networks was chosen, and what chooses another one; "" for one."""
    others = [network for network in networks if network is not chosen]
    if not others:
        return ""
    other = next((each for each in others if each.kind != chosen.kind), others[0])
    value = other.kind if other.kind != chosen.kind else other.place
    kinds = {"ema": "the EMA weights", "raw": "the raw weights"}
    return (
        f"holds {len(networks)} networks; {kinds[chosen.kind]} in {_shown(chosen.place)} are used, "
        f"weights={_shown(value)} takes those in {_shown(other.place)}"
    )


def others_in_words(network: Network) -> str:
    """Say what is in the place of a network and not of it; "" for nothing."""
    if not network.others:
        return ""
    names, num_more = network.others, len(network.others) - 3
    more = f" and {num_more} more" if num_more > 0 else ""
    return (
        f"has a network in {_shown(network.place)}; not of it and not used: "
        f"{', '.join(map(quoted, names[:3]))}{more}"
    )


def _networks_of(
    keys: tuple[str, ...], tree: Tree, find_prefixes: FindPrefixes
) -> Iterator[Network]:
    """Yield the networks of one state dict, each with the names that begin with its prefix."""
    raw_names = _without_wrappers(tree)
    prefixes = find_prefixes(list(raw_names))[:MAX_NETWORKS]
    prefixes.sort(key=len, reverse=True)  # of two that fit a name, the longer one is meant
    parts: dict[str, dict[str, str]] = {prefix: {} for prefix in prefixes}
    others = []
    for name, raw_name in raw_names.items():
        if name.rpartition(".")[2] in BOOKKEEPING:
            continue
        prefix = next((each for each in prefixes if name.startswith(each)), None)
        if prefix is None:
            others.append(raw_name)
        else:
            parts[prefix][name.removeprefix(prefix)] = raw_name
    for prefix, names in parts.items():
        yield Network(
            keys=keys,
            prefix=_raw_prefix(prefix, names),
            state={name: tree[raw_name] for name, raw_name in names.items()},
            others=tuple(others),
        )


def _without_wrappers(tree: Tree) -> dict[str, str]:
    """Return names without wrappers -> names in the file; one that would be twice is kept."""
    names = {name: name for name in tree}
    for name in tree:
        plain = WRAPPER.sub("", name)
        if plain not in names:
            names[plain] = names.pop(name)
    return names


def _raw_prefix(prefix: str, names: Mapping[str, str]) -> str:
    """Return the prefix as it is in the file, with the wrappers in it."""
    plain = (raw.removesuffix(name) for name, raw in names.items() if raw.endswith(name))
    return next(plain, prefix)


def _without_kept(prefix: str, names: set[str]) -> str:
    for kept, sign in KEPT_PREFIXES:
        is_whole = prefix == kept or prefix.endswith("." + kept)
        if is_whole and (not sign or prefix + sign in names):
            return prefix.removesuffix(kept)
    return prefix


def _kind(network: Network, raw_keys: set[str]) -> str:
    if raw_keys:
        return "raw" if raw_keys.intersection(network.keys[:1]) else "ema"
    words = set(re.split(r"[^a-z]+", network.place.lower()))
    return "ema" if words & EMA_WORDS else "raw"


def _is_same(one: Network, other: Network) -> bool:
    """Return whether two networks have the same values under the same names."""
    if one.state.keys() != other.state.keys():
        return False
    return all(_equal(one.state[name], other.state[name]) for name in one.state)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(np.array_equal(one, other))


def _is_tensor(name: Any, value: Any) -> bool:
    return isinstance(name, str) and isinstance(value, Tensor | np.ndarray | np.number)


def _shown(place: str) -> str:
    return quoted(place) if place else "the file itself"
