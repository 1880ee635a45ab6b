"""Plan of how each tensor enters a model, made before anything is changed.

A plan is made from names and shapes (`load.py`, `inflate.py`), can be printed as a table, and is
then applied. Names are the official ones, which are our own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor, nn

from video_mvit.errors import UserError

Shape = tuple[int, ...]
Action = Literal["loaded", "resized", "inflated", "new", "unused"]
ACTIONS: tuple[Action, ...] = ("loaded", "resized", "inflated", "new", "unused")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One tensor: official name, and shapes in the file (None if new) and in the model.

    `target` is None if the file's tensor is not used. `note` is the method or reason, in few words.
    """

    name: str
    action: Action
    source: Shape | None
    target: Shape | None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rows for all tensors of the file and of the model; `state` holds those to set.

    Rows with action "new" keep the model's values unless `state` has some (zero temporal tables).
    `path` names the file in errors.
    """

    rows: tuple[Row, ...]
    state: Mapping[str, Tensor]
    path: str = "the file"

    def apply(self, model: nn.Module) -> None:
        """Set the model's tensors; those without a value here stay as they are.

        Raises `UserError` that names a tensor whose values no trained model has.
        """
        before = model.state_dict()
        for name, tensor in self.state.items():
            if problem := _problem(tensor, before[name]):
                raise UserError(f"{self.path}: {name} {problem}")
        model.load_state_dict({**before, **self.state})

    def counts(self) -> Mapping[str, int]:
        """Return the number of tensors for each action that occurs, in a fixed order."""
        actions = [row.action for row in self.rows]
        return {action: actions.count(action) for action in ACTIONS if action in actions}


def _problem(tensor: Tensor, target: Tensor) -> str:
    """Say what is wrong with the values of a tensor for its place in a model; "" for nothing."""
    if tensor.dtype == target.dtype and not target.is_floating_point():
        return ""
    if tensor.is_floating_point() != target.is_floating_point() or tensor.is_complex():
        return (
            f"is of {_type(tensor)}, expected {_type(target)}; use the weights as they were before "
            "they were quantized or changed"
        )
    if tensor.is_floating_point() and tensor.numel():
        # A sum would overflow in float16; NaN passes through to both ends.
        ends = torch.stack(torch.aminmax(tensor.to(target.dtype)))
        if not ends.isfinite().all():
            return (
                "has NaN or infinite values; the training diverged, or the file is damaged: use an "
                "earlier checkpoint, or copy the file again"
            )
    return ""


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """Tensors of several blocks with the same name, action, shapes and note: one table row."""

    name: str
    num_tensors: int
    action: Action
    source: str
    target: str
    note: str


def table_rows(plan: Plan) -> list[TableRow]:
    """Return the plan as table rows: plain copies by module, everything else in full.

    `blocks.3.attn.rel_pos_t` and its like in other blocks become `blocks.{3-13}.attn.rel_pos_t`.
    """
    order = {action: i for i, action in enumerate(ACTIONS)}
    keyed = [(order[row.action], *_family(row), row) for row in plan.rows]
    keyed.sort(key=lambda entry: entry[:3])
    table = []
    for _, group in groupby(keyed, key=lambda entry: entry[:3]):
        table.append(_joined([entry[3] for entry in group]))
    return table


def _family(row: Row) -> tuple[str, str]:
    """Return the key that rows of one table row share: name without block numbers, and change."""
    parts = row.name.split(".")
    if module := _fresh_module(row):
        return (module, row.note)
    if row.action == "loaded":  # weight and bias of all blocks share a row, whatever their shapes
        return (".".join([*parts[:1], "*"] if parts[0] == "blocks" else parts[:1]), row.note)
    name = ".".join("*" if part.isdigit() else part for part in parts)
    return (name, f"{row.source} {row.target} {row.note}")


def _fresh_module(row: Row) -> str:
    """Return the part of a detector that a new tensor belongs to, numbers left out, or ""."""
    is_detector = row.name.startswith(("backbone.", "proposal_generator.", "roi_heads."))
    is_fresh = is_detector and row.action == "new"
    return re.sub(r"\d+", "*", row.name.rpartition(".")[0]) if is_fresh else ""


def _joined(rows: Sequence[Row]) -> TableRow:
    first = rows[0]
    blocks = sorted({int(row.name.split(".")[1]) for row in rows if row.name.startswith("blocks.")})
    name, source, target = first.name, _words(first.source), _words(first.target)
    if blocks:
        rest = first.name.split(".")[2:] if first.action != "loaded" else []
        spans = ",".join(_spans(blocks))
        name = ".".join(["blocks", f"{{{spans}}}" if len(blocks) > 1 else spans, *rest])
    elif first.action == "loaded":
        name = first.name.split(".")[0]
    if module := _fresh_module(first):
        name = module
    if first.action == "loaded" or module:
        source = target = ""
    return TableRow(
        name=name,
        num_tensors=len(rows),
        action=first.action,
        source=source,
        target=target,
        note=first.note,
    )


def _words(shape: Shape | None) -> str:
    return "" if shape is None else "x".join(map(str, shape))


def _spans(numbers: Sequence[int]) -> Iterator[str]:
    """Format numbers as spans: 1, 2, 3, 7 -> "1-3", "7"."""
    start = previous = numbers[0]
    for number in [*numbers[1:], None]:
        if number is None or number != previous + 1:
            yield f"{start}-{previous}" if previous > start else f"{start}"
            if number is None:
                return
            start = number
        previous = number
