"""What a run takes from its machine where settings say auto: accelerator, precision, workers."""

import logging
from typing import Literal

import torch
from omegaconf import DictConfig

from video_mvit.cli.config_check import check_value
from video_mvit.cli.run_folder import is_first_process
from video_mvit.errors import UserError
from video_mvit.host import cpu_expectation, default_num_workers, num_usable_cores

MATMUL_PRECISIONS = ("highest", "high", "medium")  # of torch.set_float32_matmul_precision
GPU = ("gpu", "cuda")
logger = logging.getLogger(__name__)


def resolve_hardware(cfg: DictConfig, use: Literal["training", "other"] = "other") -> None:
    """Replace auto by what this machine has, in a configuration that is being resolved; say so.

    A training without a GPU is told what to expect.
    """
    trainer = cfg.trainer
    if cfg.float32_matmul not in MATMUL_PRECISIONS:
        raise UserError(
            f"float32_matmul is {cfg.float32_matmul!r}, expected one of "
            f"{', '.join(MATMUL_PRECISIONS)}"
        )
    if trainer.accelerator == "auto":
        trainer.accelerator = "gpu" if torch.cuda.is_available() else "cpu"
        if trainer.accelerator == "cpu" and use == "training" and is_first_process():
            logger.warning("%s (trainer=gpu insists on a GPU)", cpu_expectation())
    if trainer.precision == "auto":
        trainer.precision = choose_precision(trainer.accelerator)
        logger.info(
            "precision %s (trainer.precision=32-true computes in float32)"
            if trainer.precision != "32-true"
            else "precision %s (trainer.precision=bf16-mixed computes in bfloat16)",
            trainer.precision,
        )
    resolve_num_workers(cfg)


def resolve_num_workers(cfg: DictConfig) -> None:
    """Replace data.num_workers=auto by a number; say so."""
    if cfg.data.num_workers != "auto":
        return
    check_value("trainer.devices", cfg.trainer.devices, int)
    cfg.data.num_workers = default_num_workers(max(1, cfg.trainer.devices))
    logger.info(
        "%d loader processes per device, from %d usable cores (data.num_workers changes that)",
        cfg.data.num_workers,
        num_usable_cores(),
    )


def choose_precision(accelerator: str) -> str:
    """Mixed precision where the accelerator is fast at it."""
    if accelerator not in GPU:
        return "32-true"
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "bf16-mixed" if has_bfloat16 else "16-mixed"


def set_matmul_precision(accelerator: str, float32_matmul: str) -> None:
    """Set how exactly a GPU multiplies float32 in this process; a CPU stays exact."""
    if accelerator not in GPU:
        return
    torch.set_float32_matmul_precision(float32_matmul)
    if float32_matmul != "highest":
        logger.info(
            "float32 matrix products use TF32 or less (float32_matmul=highest: full float32)"
        )
