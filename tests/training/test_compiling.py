"""Blocks compiled for training steps: equal to eager; left alone or refused elsewhere."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import video_mvit
from video_mvit.errors import UserError
from video_mvit.models.mvit import MViT
from video_mvit.training import compiling
from video_mvit.training.compiling import check_compiling, compile_blocks

SETTINGS: dict[str, Any] = {
    "accelerator": "gpu",
    "precision": "bf16-mixed",
    "num_devices": 1,
    "accumulated": 1,
    "checkpointing": "none",
}


def tiny_model(mode: str = "none") -> MViT:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"num_frames": 2, "crop_size": 32, "embed_dim": 8, "num_classes": 3}
    rates = {"drop_path_rate": 0.0, "head_dropout": 0.0, "activation_checkpointing": mode}
    return video_mvit.create_model("mvitv2_s", depths=(1, 1, 1, 1), **sizes, **rates).train()


def clips(num_clips: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_clips, 3, 2, 32, 32, generator=generator)


def record_compiling(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Instead of compiling, count calls of what would be compiled; its options, by block."""
    made: list[dict[str, Any]] = []

    def compile_nothing(function: Any, **options: Any) -> Any:
        entry = {**options, "calls": 0}
        made.append(entry)

        def call(*args: Any, **kwargs: Any) -> Any:
            entry["calls"] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(torch, "compile", compile_nothing)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["none", "selective"])
def test_a_step_has_the_outputs_and_gradients_of_eager(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Traced, differentiated and run by PyTorch; the generated code is another test's."""
    compile_any = torch.compile

    def without_inductor(function: Any, *, options: Any, **settings: Any) -> Any:
        assert options is None
        return compile_any(function, backend="aot_eager", **settings)

    monkeypatch.setattr(torch, "compile", without_inductor)
    torch._dynamo.reset()
    eager, compiled = tiny_model(mode), tiny_model(mode)
    compile_blocks(compiled, "blocks", 2)
    results = []
    for model in (eager, compiled):
        y = model(clips(2))
        results.append([y, *torch.autograd.grad(y.square().sum(), list(model.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_steps_of_other_sizes_validation_and_copies_run_as_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = record_compiling(monkeypatch)
    model = tiny_model()
    compile_blocks(model, "blocks", 2)
    model(clips(2))
    assert [each["calls"] for each in made] == [1, 1, 1, 1]
    model(clips(1))  # an uneven last batch
    with torch.no_grad():
        model(clips(2))
    model.eval()(clips(2))
    copy.deepcopy(model).train()(clips(2))  # of EMA
    assert [each["calls"] for each in made] == [1, 1, 1, 1]
    assert all(each["dynamic"] is False and each["fullgraph"] for each in made)


def test_cuda_graphs_are_those_of_the_compiler_and_kernels_are_tried_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []
    monkeypatch.setattr(compiling, "try_kernels", lambda _: order.append("trial"))
    mark = "cudagraph_mark_step_begin"
    monkeypatch.setattr(torch.compiler, mark, lambda: order.append("step"))
    made = record_compiling(monkeypatch)
    model = tiny_model()
    compile_blocks(model, "cudagraph", 2)
    assert all(each["options"] == {"triton.cudagraphs": True} for each in made)
    model(clips(2))
    model(clips(2))
    assert order == ["trial", "step", "trial", "trial", "trial", "step"]


def test_every_kernel_that_must_be_tried_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    wanted = {"layer_norm", "drop_path", "pool_tokens", "rel_pos_attention", "residual_merge"}
    wanted |= {"fold_queries", "fold_keys"}
    monkeypatch.setattr(
        "video_mvit.kernels.dispatch._works", lambda operation, *_: tried.append(operation.name)
    )
    compiling.try_kernels(torch.device("cuda", 0))
    assert set(tried) == wanted
    compiling.try_kernels(torch.device("cpu"))
    assert len(tried) == len(wanted)


@pytest.mark.parametrize(
    ("mode", "changed", "message"),
    [
        ("cudagraph", {"accelerator": "cpu"}, "compile=cudagraph needs a GPU"),
        ("cudagraph", {"precision": "16-mixed"}, "not tried with trainer.precision=16-mixed"),
        ("cudagraph", {"num_devices": 8}, "not tried with 8 devices"),
        ("cudagraph", {"accumulated": 4}, "not tried with trainer.accumulate_grad_batches=4"),
        ("cudagraph", {"checkpointing": "light"}, "model.activation_checkpointing=light"),
        ("blocks", {"checkpointing": "full"}, "does not work with model.activation_check"),
    ],
)
def test_what_was_not_tried_is_refused(
    monkeypatch: pytest.MonkeyPatch, mode: Any, changed: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(compiling, "find_compiler", lambda: None)
    check_compiling(mode, **SETTINGS)
    with pytest.raises(UserError, match=message):
        check_compiling(mode, **{**SETTINGS, **changed})


def test_machine_without_a_compiler_is_told_before_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiling.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match=r"compile=blocks needs (a C\+\+ compiler|the headers)"):
        check_compiling("blocks", **SETTINGS)


def test_other_networks_are_refused() -> None:
    with pytest.raises(UserError, match="compile=blocks is for MViT classifiers, not for Linear"):
        compile_blocks(nn.Linear(1, 1), "blocks", 2)
