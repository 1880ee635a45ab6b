"""Tables and lines about weights and settings for the terminal."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import nn

from video_mvit.cli.terminal import Terminal
from video_mvit.models.mvit import MViT
from video_mvit.prediction.input_spec import sizes_of
from video_mvit.text import width_of
from video_mvit.training.finetune_settings import SET_BY_USER, Suggestion
from video_mvit.weights.convert import KeyRow
from video_mvit.weights.inflate import Rule
from video_mvit.weights.inflation_check import TOLERANCE, Difference
from video_mvit.weights.load import Source
from video_mvit.weights.load_plan import Plan, table_rows
from video_mvit.weights.model_card import ModelCard, describe_numbers

OPTIONAL_FIELDS = ("frame_stride", "class_names", "evaluation")
PLAIN = str.maketrans("", "", "[]'")
STYLES = {"loaded": "green", "resized": "cyan", "inflated": "cyan", "new": "yellow"}


def wide_console() -> Console:
    """Return a console as wide as the terminal, or 120 columns without one."""
    return Terminal(width=width_of(sys.stdout) or 120)


def print_plan(console: Console, source: Source, plan: Plan) -> None:
    """Print what a file is, one line per kind of tensor, and totals."""
    console.print(f"{source.path}: {source.container}, {source.key_format} names")
    table = table_of("", "tensors", "name", "in file", "in model", "note")
    for row in table_rows(plan):
        action = f"[{STYLES.get(row.action, 'dim')}]{row.action}[/]"
        shown = (row.name.replace("[", r"\\["), row.source, row.target, row.note)
        table.add_row(action, str(row.num_tensors), *shown)
    console.print(table)
    console.print(", ".join(f"{number} {action}" for action, number in plan.counts().items()))


def print_key_table(console: Console, rows: Sequence[KeyRow]) -> None:
    """Print how each kind of tensor was renamed; nothing if no name changes."""
    if all(row.source == row.target for row in rows):
        return
    table = table_of("tensors", "before", "now")
    for row in rows:
        now = "[yellow]dropped[/]" if row.target is None else row.target
        table.add_row(str(row.num_tensors), row.source, "same" if now == row.source else now)
    console.print(table)


def print_proof(console: Console, proofs: Mapping[Rule, Sequence[Difference]]) -> None:
    """Print the largest differences on a static clip by rule, and where they are expected."""
    table = table_of("max |diff|", *proofs, "max value", "expected")
    for row in zip(*proofs.values(), strict=True):
        styles = ["red" if d.fails else "green" if d.is_equal else "yellow" for d in row]
        shown = [f"[{style}]{d.largest:.1e}[/]" for style, d in zip(styles, row, strict=True)]
        equal = [rule for rule, d in zip(proofs, row, strict=True) if not d.why_not]
        expected = {0: "differs", len(proofs): "equal"}.get(len(equal), f"equal for {equal[:1]}")
        table.add_row(row[0].place, *shown, f"{row[0].scale:.1f}", expected.translate(PLAIN))
    console.print(table)
    console.print(f"equal: max |diff| at most {TOLERANCE:g} of the largest value")
    for rule, differences in proofs.items():
        reasons = dict.fromkeys(reason for d in differences for reason in d.why_not)
        if reasons:
            console.print(f"{rule} is expected to differ, since {'; '.join(reasons)}")


def print_suggestions(
    console: Console, facts: Sequence[str], choices: Sequence[Suggestion]
) -> None:
    """Print what the settings are based on, and each with value and reason."""
    for fact in facts:
        console.print(fact)
    table = table_of("setting", "value", "note")
    table.columns[-1].header = "why"
    for choice in choices:
        style = "bold" if choice.reason == SET_BY_USER else "cyan"
        table.add_row(choice.key, f"[{style}]{_value(choice.value)}[/]", escape(choice.reason))
    console.print(table)


def _value(value: Any) -> str:
    """Format a value as a command-line override."""
    if isinstance(value, list | tuple):
        return escape(f"[{','.join(map(_value, value))}]")
    if isinstance(value, dict):
        return ", ".join(f"{k}={_value(v)}" for k, v in value.items() if k != "_target_")
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def describe_source(source: Source, model: nn.Module) -> str:
    """Describe a weight file: container, key format and model."""
    return f"{source.container}, {source.key_format} names: {describe_model(model)}"


def describe_model(model: nn.Module) -> str:
    """Describe a model in one line."""
    name, sizes = type(model).__name__, sizes_of(model)
    if isinstance(model, MViT):
        name = f"MViTv2 of {sum(model.config.depths)} blocks"
    clip = "image" if sizes.num_frames == 1 else f"{sizes.num_frames} frames"
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{name}, {clip}, {sizes.crop_size} pixels, {sizes.num_classes} classes, "
        f"{num_parameters / 1e6:.1f} M parameters"
    )


def describe_card(card: ModelCard, assumed: Sequence[str] = ()) -> Iterator[str]:
    """Yield a line for each field of a card, and one for the missing fields."""
    if card.variant:
        yield f"variant        {card.variant}"
    if card.mean and card.std:
        known = "  (published recipe; override with mean=[...] std=[...])" if assumed else ""
        yield f"normalization  mean {_numbers(card.mean)}, std {_numbers(card.std)}{known}"
    if card.frame_stride:
        yield f"frame stride   {card.frame_stride}"
    if names := card.class_names:
        what = "targets    " if card.task == "regression" else "class names"
        yield f"{what}    {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
    if card.task == "multi_label":
        yield f"labels         several a video, views by their {card.combine_views or 'mean'}"
    if card.heads:
        sizes = (f"{head} ({size} classes)" for head, size in card.heads.items())
        yield f"heads          {', '.join(sizes)}"
    if result := card.evaluation:
        yield f"evaluation     {describe_numbers(result)}, {result['protocol']}"
    unknown = [name for name in OPTIONAL_FIELDS if getattr(card, name) is None]
    if unknown:
        yield f"not specified  {', '.join(unknown)}"


def _numbers(values: Sequence[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"


def table_of(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        justify: Literal["right", "left"] = "right" if column == "tensors" else "left"
        table.add_column(column, justify=justify, no_wrap=column != "note")
    return table
