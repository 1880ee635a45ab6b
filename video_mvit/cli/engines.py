"""The options `engine` and `precision` of predict, evaluate and extract."""

from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.evaluation.view_scores import clips_at_once
from video_mvit.kernels.cpu_linear import multiplies_bfloat16
from video_mvit.weights.engines import EngineName, Run, check_engine, eager_run, open_engine
from video_mvit.weights.openvino_graphs import Precision

NUM_COMPARED = 2  # clips


def choose_precision(engine: EngineName, device: str) -> Precision:
    """Return bf16 where the device multiplies it natively and the engine has it, else float32."""
    if engine == "onnxruntime":
        return "float32"
    if device == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = multiplies_bfloat16()
    return "bf16" if has_bf16 else "float32"


def engine_device(cfg: DictConfig) -> str:
    """Return the device of the options `device` and `engine`: a GPU where there is one.

    Raises `UserError` if they contradict each other.
    """
    if cfg.engine == "torch":
        wants_gpu = cfg.device == "cuda" or (cfg.device == "auto" and torch.cuda.is_available())
        return "cuda" if wants_gpu else "cpu"
    if cfg.device == "cuda":
        raise UserError(f"engine={cfg.engine} runs on a CPU; use device=cpu, or engine=torch")
    return "cpu"


def resolve_precision(cfg: DictConfig) -> Precision:
    """Return the precision of the options; raises `UserError` if the engine does not have it."""
    device = engine_device(cfg)
    chosen = choose_precision(cfg.engine, device) if cfg.precision == "auto" else cfg.precision
    check_engine(cfg.engine, chosen)
    return chosen


def run_of(
    cfg: DictConfig, network: nn.Module, thw: tuple[int, int, int], say: Callable[[str], object]
) -> Run:
    """Return what runs a network of raw clips, as the options say; `say` gets a line about it.

    The network is on the device already, in evaluation mode.
    """
    precision = resolve_precision(cfg)
    if cfg.engine == "torch":
        assert precision != "int8"
        if cfg.precision == "auto" and precision == "bf16":
            say("precision bf16 (precision=float32 computes in float32)")
        return eager_run(network, torch.device(engine_device(cfg)), precision)
    return open_on_clips(network, thw, cfg.engine, precision, say)


def open_on_clips(
    network: nn.Module,
    thw: tuple[int, int, int],
    name: EngineName,
    precision: Precision,
    say: Callable[[str], object],
) -> Run:
    """Open an engine for raw clips of T, H, W, once it is compared; `say` gets a line about it."""
    assert name != "torch"
    num_at_once = clips_at_once(thw, torch.device("cpu"))
    engine = open_engine(network, example_clips(thw), name, precision, num_at_once)
    say(engine.describe("clip"))
    return engine.run


def example_clips(thw: tuple[int, int, int]) -> Tensor:
    """Return random clips to compare engines on: (N, T, C, H, W) uint8."""
    T, H, W = thw
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (NUM_COMPARED, T, 3, H, W), dtype=torch.uint8, generator=generator)
