"""Choose the form of an operation: plain, or a fast one where its conditions hold.

`Operation` is a row of the table in `kernels/__init__.py`: a name, the plain twin, its fast forms
and example arguments. The choice at run time, the trial of Triton kernels on a GPU and the twin
test all walk that table. Compilers and drivers fail in many ways, and a wrong result is worse than
a slow one: Triton kernels that fail or differ from the plain twin are left out, with a warning.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

MAX_DIFFERENCE = 1e-4  # of float32 kernels, relative to the largest number
Stage = Literal["eager", "compile", "record"]
EAGER: tuple[Stage, ...] = ("eager",)
COMPILABLE: tuple[Stage, ...] = ("eager", "compile")
TRACEABLE: tuple[Stage, ...] = ("eager", "compile", "record")
Forms = Literal["fast", "plain", "gpu"]
_forms: Forms = "fast"
_tried: dict[tuple[str, int], bool] = {}


def _always(*_: Any) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Form:
    """A fast form of an operation.

    Attributes:
        devices: types of device that it runs on.
        stages: "eager", "compile" (its operators are known to compilers), "record" (made of
            PyTorch's own operators: exports, traces and function transforms may see it).
        applies: whether it takes these arguments.
        tried: whether it is compared with the plain twin on each device before it is used.
    """

    name: str
    run: Callable[..., Tensor]
    devices: tuple[str, ...]
    stages: tuple[Stage, ...]
    applies: Callable[..., bool] = _always
    tried: bool = False


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of the network: calling it runs the first form that applies, else plain."""

    name: str
    plain: Callable[..., Tensor]
    forms: tuple[Form, ...]
    examples: Callable[[], list[tuple[Any, ...]]]

    def __call__(self, *args: Any) -> Tensor:
        form = self.choose(*args)
        return self.plain(*args) if form is None else form.run(*args)

    def choose(self, *args: Any) -> Form | None:
        """Return the form that `args` get, None for the plain one."""
        if _forms == "plain":
            return None
        device: torch.device = torch.device("cuda") if _forms == "gpu" else args[0].device
        for form in self.forms:
            if device.type not in form.devices or _stage() not in form.stages:
                continue
            if form.applies(*args) and (not form.tried or self.works(form, device.index)):
                return form
        return None

    def works(self, form: Form, device_index: int) -> bool:
        """Return whether a form gives on a GPU what the plain twin gives; tried once."""
        return _forms == "gpu" or _works(self, form, device_index)


@contextmanager
def use(forms: Forms) -> Iterator[None]:
    """Run networks with plain kernels only, or with fast ones, within a `with` block.

    "gpu" chooses as on a GPU where all Triton kernels work, wherever tensors are: to count what
    would be started there.
    """
    global _forms
    before, _forms = _forms, forms
    try:
        yield
    finally:
        _forms = before


def _stage() -> Stage:
    if torch.compiler.is_compiling():
        # Not `torch.compiler.is_exporting`: up to PyTorch 2.12 it is true while compiling, too
        # (pytorch/pytorch issue 176347).
        is_exporting = getattr(torch.compiler, "_is_exporting_flag", True)  # PyTorch 2.6 cannot say
        return "record" if is_exporting else "compile"
    is_traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if is_traced or torch._C._are_functorch_transforms_active():
        return "record"
    return "eager"


def _works(operation: Operation, form: Form, device_index: int) -> bool:
    key = (f"{operation.name}/{form.name}", device_index)
    if key not in _tried:
        device = torch.device("cuda", device_index)
        reason = _trial(operation, form, device)
        _tried[key] = reason is None
        if reason is not None:
            logger.warning(
                "the %s form of %s is not used on %s, which will be slower: %s",
                form.name,
                operation.name,
                device,
                reason,
            )
    return _tried[key]


# What `torch.compiler.assume_constant_result` does, without importing the compiler: 3 s.
_works._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _trial(operation: Operation, form: Form, device: torch.device) -> str | None:
    """Return why a form must not be used on a device, None where it may."""
    # A block that is being checkpointed must not count the tensors of the trial as its own.
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x)
    try:
        with hooks:
            difference = max_difference(operation, form, device)
    except Exception as error:  # none may end a training
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None if difference < MAX_DIFFERENCE else f"they differ by {difference:.1g}"


def max_difference(
    operation: Operation, form: Form, device: torch.device, dtype: torch.dtype = torch.float32
) -> float:
    """Return the largest difference of a form from the plain twin in float64 on the CPU.

    Over outputs and all gradients of all examples, each relative to its largest number; NaN where
    any of them is.
    """
    differences = []
    with torch.inference_mode(mode=False), torch.enable_grad():
        for example in operation.examples():
            found = _results(form.run, example, device, dtype)
            expected = _results(operation.plain, example, torch.device("cpu"), torch.float64)
            differences += [
                (a - b).abs().max() / b.abs().max().clamp(min=1e-30)
                for a, b in zip(found, expected, strict=True)
                if b.numel()
            ]
    return float(torch.stack(differences).max())


def _results(
    run: Callable[..., Tensor], example: Sequence[Any], device: torch.device, dtype: torch.dtype
) -> list[Tensor]:
    """Return output and gradients for an example, in float64 on the CPU."""
    leaves: list[Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, Tensor):
            leaves.append(value.to(device, dtype).requires_grad_())
            return leaves[-1]
        return [leaf(each) for each in value] if isinstance(value, list) else value

    with torch.autocast(device.type, enabled=False):
        y = run(*(leaf(value) for value in example))
        slope = torch.linspace(0, 1, y.numel(), dtype=y.dtype, device=y.device)
        gradients = torch.autograd.grad(y, leaves, slope.view_as(y))
    return [x.detach().to("cpu", torch.float64) for x in (y, *gradients)]


def on_device_of(x: Tensor) -> AbstractContextManager[object]:
    """Make the GPU of a tensor the current one, on which Triton launches kernels."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
