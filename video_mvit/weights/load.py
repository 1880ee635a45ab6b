"""From a weight file of any supported key format to a plan for a model: read, convert, match.

Three operations are distinct. Resuming a run restores everything, exactly, and is not done here.
Starting from weights (`plan_load`) loads the network only; what stays as initialized must be named.
Inflating an image model is `inflate.py`.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from video_mvit.errors import UserError
from video_mvit.weights.adapter_files import Adapter, adapt, is_adapter, read_adapter
from video_mvit.weights.architecture import check_architecture, infer_architecture
from video_mvit.weights.checkpoint_files import WeightFile, read_weight_file, weight_file_at
from video_mvit.weights.hub import fetch, is_hub_id
from video_mvit.weights.key_formats import detect_format, to_official
from video_mvit.weights.load_plan import Plan, Row, Shape
from video_mvit.weights.model_card import OWN_NAMES, ModelCard
from video_mvit.weights.networks import FindPrefixes, mvitv2_prefixes, prefixes_of_model
from video_mvit.weights.pickle_limits import quoted
from video_mvit.weights.published_files import (
    PUBLISHED,
    fetch_published,
    is_published,
    published_name_at,
)

DETECTOR_PARTS = ("proposal_generator.", "roi_heads.")
OWN_PARTS = {"cls_token", "patch_embed", "blocks", "norm", "head", "backbone"}
NUM_NAMED = 3  # tensors that a message names before it only counts
logger = logging.getLogger(__name__)


class MismatchError(UserError):
    """Tensors that do not fit a model; the advice is for who starts from them.

    Attributes:
        problem: the sentence without the advice.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem} ({advice})")
        self.problem = problem


@dataclass(frozen=True, kw_only=True)
class Source:
    """A weight file in official names and our kernel layout.

    Attributes:
        container: kind of file, in words.
        key_format: names that it used.
        architecture: fields of `MViTConfig`, inferred from shapes, or of the card if there is one.
        unused: names of tensors that are not part of the network.
        class_names: in the order of the logits, if known.
    """

    path: str
    container: str
    key_format: str
    state: Mapping[str, Tensor]
    architecture: Mapping[str, Any]
    unused: tuple[str, ...]
    card: ModelCard | None
    class_names: tuple[str, ...] | None


def read_source(path: str | Path, weights: str = "ema", base: str | None = None) -> Source:
    """Read and convert a weight file, published weights by name, or "owner/name" of a hub.

    Of a file with several networks, `weights` selects "ema", "raw", or one by name; of an adapter,
    `base` names the weights that it was trained on. Raises `UserError` or `FileNotFoundError` if
    there is no MViTv2.
    """
    return source_of(read_file(path, weights, base=base), path)


def source_of(file: WeightFile, path: str | Path) -> Source:
    """Convert a file that was read from `path`; raises as `read_source` does."""
    tell_notes(file, path)
    if file.card and "backbone" in file.card.model:
        raise UserError(f"{path} holds a detector; video_mvit.load_detector loads it")
    if file.card and file.card.key_format == OWN_NAMES:
        raise UserError(
            f"{path} holds a network that is no MViTv2; model=NAME says which, a YAML file in the "
            "folder model of --config-dir (from Python: an nn.Module)"
        )
    try:
        key_format = detect_format(file.state)
        state, unused = to_official(file.state, key_format)
        architecture = file.card.model if file.card else infer_architecture(state)
        check_architecture(architecture, state)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return Source(
        path=str(path),
        container=file.container,
        key_format="video_mvit" if file.card else key_format.name,
        state=state,
        architecture=architecture,
        unused=(*unused, *file.others),
        card=file.card or _card_of_published(published_name_at(path), architecture),
        class_names=file.class_names,
    )


def _card_of_published(name: str | None, architecture: Mapping[str, Any]) -> ModelCard | None:
    """Return what is known of published weights, as the card that their file lacks."""
    if name is None:
        return None
    file = PUBLISHED[name]
    return ModelCard(
        model=architecture,
        frame_stride=file.frame_stride,
        short_side=file.short_side,
        mean=file.mean,
        std=file.std,
        license=file.license,
        origin=name,
    )


def provenance_of(source: Source) -> dict[str, Any]:
    """Return what a card keeps of the weights it started from: their `license` and `origin`."""
    name = published_name_at(source.path)
    if source.card is None and name:
        return {"license": PUBLISHED[name].license, "origin": name}
    card = source.card
    return {"license": card and card.license, "origin": card and card.origin}


def read_plain_source(path: str | Path, model_names: Sequence[str], weights: str = "ema") -> Source:
    """Read a weight file under the names of a model that is not an MViTv2.

    Raises as `read_source` does.
    """
    file = read_file(path, weights, prefixes_of_model(model_names))
    tell_notes(file, path)
    return Source(
        path=str(path),
        container=file.container,
        key_format="its own",
        state=file.state,
        architecture=file.card.model if file.card else {},
        unused=file.others,
        card=file.card,
        class_names=file.class_names,
    )


def read_file(
    path: str | Path,
    weights: str = "ema",
    find_prefixes: FindPrefixes = mvitv2_prefixes,
    base: str | None = None,
) -> WeightFile:
    """Read a weight file, published weights, or "owner/name" of a hub, under their own names.

    An adapter is merged into its base weights: those of `base`, else the published ones that its
    card names.
    """
    place = weight_file_at(local_file(path))
    if is_adapter(place):
        return _read_adapted(read_adapter(place), str(path), weights, base)
    file = read_weight_file(place, weights, find_prefixes)
    if base is not None:
        raise UserError(f"{path} is no adapter, and only those have a base; remove base=...")
    return file


def _read_adapted(adapter: Adapter, path: str, weights: str, base: str | None) -> WeightFile:
    """Read the base weights of an adapter, and merge it into them; raises as `read_source`."""
    named = adapter.record.base
    name = base or (named if named in PUBLISHED else None)
    if name is None:
        raise UserError(f"{path} is an adapter; base=FILE names the weights that it was trained on")
    return WeightFile(
        path=path,
        container=f"adapter of {name}",
        state=adapt(adapter, read_source(name, weights).state, path, name),
        card=adapter.card,
        class_names=adapter.card.class_names,
    )


def local_file(path: str | Path) -> str | Path:
    """Return where a file is: that of published weights or of a hub is fetched if needed."""
    if is_published(str(path)):
        return fetch_published(str(path))
    return fetch(str(path)) if is_hub_id(str(path)) else path


def tell_notes(file: WeightFile, path: str | Path) -> None:
    """Log the prefix that was left out, and a line for each choice in reading a file."""
    if file.prefix:
        logger.info("%s: %s", path, file.container)
    for note in file.notes:
        logger.warning("%s %s", path, note)


def holds_detector(state: Mapping[str, Any]) -> bool:
    """Return whether tensors of these names are a detector's."""
    return all(any(name.startswith(part) for name in state) for part in DETECTOR_PARTS)


def plan_load(
    source: Source,
    shapes: Mapping[str, Shape],
    reset: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Plan:
    """Plan every tensor of the model from the file, with tables resized where grids differ.

    Args:
        shapes: names and shapes of the model's tensors.
        reset: modules that stay as initialized, for example "head".
        ignore: modules of the file that are not used, for example "cls_token".

    Raises:
        UserError: naming the tensors that are missing, unexpected or of another shape.
    """
    for option, patterns, names in (("reset", reset, shapes), ("ignore", ignore, source.state)):
        for pattern in patterns:
            if not any(is_part(name, pattern) for name in names):
                there = "the model" if option == "reset" else source.path
                raise UserError(f"{option} names {pattern!r}, but {there} has no such module")
    new = [name for name in shapes if any(is_part(name, part) for part in reset)]
    ignored = [name for name in source.state if any(is_part(name, part) for part in ignore)]
    state, rows = fit(source, shapes, skipped={*new, *ignored})
    rows += [new_row(source, name, shapes[name], "reset") for name in new]
    rows += [unused_row(source, name, "ignored") for name in ignored if name not in new]
    rows += [unused_row(source, name, "not of the network") for name in source.unused]
    return Plan(rows=tuple(rows), state=state, path=source.path)


def fit(
    source: Source, shapes: Mapping[str, Shape], skipped: Collection[str]
) -> tuple[dict[str, Tensor], list[Row]]:
    """Match tensors of the file to names of the model, resizing tables; -> state, rows.

    Names in `skipped` are ignored on both sides. Raises `UserError` on any other mismatch.
    """
    state: dict[str, Tensor] = {}
    rows: list[Row] = []
    misshaped: list[str] = []
    wanted = [name for name in shapes if name not in skipped]
    for name in wanted:
        if name not in source.state:
            continue
        tensor, shape = source.state[name], shapes[name]
        before: Shape = tuple(tensor.shape)
        if before == shape:
            state[name] = tensor
            rows.append(Row(name=name, action="loaded", source=before, target=shape))
        elif "rel_pos" in name and before[1:] == shape[1:]:
            state[name] = resize_rel_pos(tensor, shape[0])
            rows.append(Row(name=name, action="resized", source=before, target=shape))
        else:
            misshaped.append(f"{name} ({words(before)} in the file, {words(shape)} here)")
    missing = [name for name in wanted if name not in source.state]
    unexpected = [name for name in source.state if name not in shapes and name not in skipped]
    raise_mismatch(source.path, missing, unexpected, misshaped)
    return state, rows


def resize_rel_pos(table: Tensor, num_rows: int) -> Tensor:
    """Resize a relative position table linearly, half-pixel: (R, D) -> (num_rows, D).

    The official code does the same in every forward pass (SlowFast `attention.py:48-66`).
    """
    resized = F.interpolate(table.float().T[None], size=num_rows, mode="linear")[0].T
    return resized.to(table.dtype).contiguous()


def raise_mismatch(
    path: str, missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str]
) -> None:
    """Raise one `UserError` with three short lists, unless all three are empty."""
    unexpected = [quoted(name) for name in unexpected]
    lists = (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
    found = [f"{len(names)} {what}: {shortened(names)}" for what, names in lists if names]
    if not found:
        return
    advice = "list in reset what may stay as initialized, in ignore what to skip"
    extra = dict.fromkeys(name.partition(".")[0] for name in unexpected)
    is_beside = all(name.isidentifier() and name not in OWN_PARTS for name in extra)
    if not missing and not misshaped and len(extra) <= NUM_NAMED and is_beside:
        advice = f"ignore=[{','.join(extra)}] skips them"
    if all(part.startswith("head.") for part in (*missing, *unexpected, *misshaped)):
        advice = "reset=[head] starts a new head"
    elif any("pos_embed" in part for part in misshaped):
        advice = "position tables fit one num_frames and crop_size, those of the training"
    raise MismatchError(f"{path} does not fit this model; {'; '.join(found)}", advice)


def shortened(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def is_part(name: str, module: str) -> bool:
    """Return whether a tensor belongs to a module (or is it): "head.projection.bias"."""
    return name == module or name.startswith(module + ".")


def new_row(source: Source, name: str, shape: Shape, note: str) -> Row:
    found = source.state.get(name)
    before = None if found is None else tuple(found.shape)
    return Row(name=name, action="new", source=before, target=shape, note=note)


def unused_row(source: Source, name: str, note: str) -> Row:
    found = source.state.get(name)
    before = None if found is None else tuple(found.shape)
    return Row(name=name, action="unused", source=before, target=None, note=note)


def words(shape: Shape) -> str:
    return "x".join(map(str, shape))
