"""Whether something takes down what is computed, to compute it elsewhere or later."""

import torch


def is_exporting() -> bool:
    """Whether `torch.export` looks on, which knows PyTorch's operators alone.

    Not `torch.compiler.is_exporting`: up to PyTorch 2.12, it is true while compiling, too
    (pytorch/pytorch issue 176347).
    """
    return torch.compiler._is_exporting_flag


def is_recorded() -> bool:
    """Whether something that does not know operators of our own takes down what is computed."""
    if torch.compiler.is_compiling():
        return is_exporting()
    is_traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return is_traced or torch._C._are_functorch_transforms_active()
