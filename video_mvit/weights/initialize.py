"""Initialize a network from existing weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn

from video_mvit.errors import UserError
from video_mvit.weights.class_names import label_permutation, reorder_head
from video_mvit.weights.inflate import plan_inflation
from video_mvit.weights.key_formats import has_official_names
from video_mvit.weights.load import Source, plan_load, read_plain_source, read_source
from video_mvit.weights.load_plan import Plan, Shape
from video_mvit.weights.networks import check_choice


@dataclass(frozen=True, kw_only=True)
class FromWeights:
    """Load the network of a weight file; see `load.plan_load`.

    An adapter goes into the weights that `base` names.
    """

    source: str
    reset: Sequence[str] = ()
    ignore: Sequence[str] = ()
    weights: str = "ema"
    base: str | None = None

    def __post_init__(self) -> None:
        check_choice(self.weights)

    def plan(self, source: Source, shapes: dict[str, Shape]) -> Plan:
        return plan_load(source, shapes, self.reset, self.ignore)


@dataclass(frozen=True, kw_only=True)
class FromImage:
    """Inflate an image model; see `inflate.plan_inflation`."""

    source: str
    rule: Literal["center", "average"] = "center"
    head: Literal["new", "keep"] = "new"
    weights: str = "ema"

    def __post_init__(self) -> None:
        check_choice(self.weights)

    def plan(self, source: Source, shapes: dict[str, Shape]) -> Plan:
        return plan_inflation(source, shapes, self.rule, self.head)


def initialize_from(
    init: FromWeights | FromImage, model: nn.Module, class_names: Sequence[str] | None = None
) -> tuple[Source, Plan]:
    """Set the model's weights, with its head in the order of `class_names`; -> what was loaded.

    A model that is not an MViTv2 reads files with its own names. The head is the last module.
    Raises `UserError` if the file does not match, or its head has other classes.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    is_mvitv2 = has_official_names(shapes)
    if isinstance(init, FromImage) and not is_mvitv2:
        raise UserError("only an MViTv2 can be inflated; this is another network")
    if is_mvitv2:
        source = read_source(init.source, init.weights, getattr(init, "base", None))
    else:
        source = read_plain_source(init.source, list(shapes), init.weights)
    plan = init.plan(source, shapes)
    head = list(shapes)[-1].rpartition(".")[0]
    if class_names and source.class_names and f"{head}.weight" in plan.state:
        plan = _in_class_order(plan, source, class_names, head)
    plan.apply(model)
    return source, plan


def _in_class_order(plan: Plan, source: Source, class_names: Sequence[str], head: str) -> Plan:
    assert source.class_names is not None
    try:
        permutation = label_permutation(source.class_names, class_names)
    except ValueError as error:
        start = "head" if head.startswith("head.") else head
        raise UserError(f"{source.path}: {error}; reset=[{start}] starts a new head") from None
    if permutation == list(range(len(permutation))):
        return plan
    rows = tuple(
        replace(row, note="classes in the order of the data set")
        if row.name.startswith(f"{head}.")
        else row
        for row in plan.rows
    )
    state = reorder_head(plan.state, permutation, f"{head}.")
    return replace(plan, rows=rows, state=state)
