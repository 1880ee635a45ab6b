"""What was done with each tensor of a weight file, as a table for a person."""

from rich import box
from rich.console import Console
from rich.table import Table

from video_mvit.weights.load import Source
from video_mvit.weights.plan import Plan, table_rows

STYLES = {"loaded": "green", "resized": "cyan", "inflated": "cyan", "new": "yellow"}


def print_plan(console: Console, source: Source, plan: Plan) -> None:
    """One line of what the file is, one for each kind of tensor, one of totals."""
    console.print(f"{source.path}: {source.container}, {source.dialect} names")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("", "tensors", "name", "in the file", "in the model", "note"):
        table.add_column(column, justify="right" if column == "tensors" else "left")
    for row in table_rows(plan):
        action = f"[{STYLES.get(row.action, 'dim')}]{row.action}[/]"
        shown = (row.name.replace("[", r"\\["), row.source, row.target, row.note)
        table.add_row(action, str(row.num_tensors), *shown)
    console.print(table)
    console.print(", ".join(f"{number} {action}" for action, number in plan.counts().items()))
