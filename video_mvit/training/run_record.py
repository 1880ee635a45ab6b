"""Tell loggers what a run is: settings, versions, state of the code, sample clips and curves."""

import logging
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.loggers import Logger
from torch import Tensor

from video_mvit.training.logger_content import Scalar, log_picture, log_settings, log_text
from video_mvit.training.loggers import LoggerGuards

PACKAGES = ("pytorch-lightning", "torchmetrics", "numpy", "av", "hydra-core")
NUM_CLIPS, NUM_FRAMES, SIDE = 4, 8, 112  # of the picture of sample clips
GIT_TIMEOUT_S = 10
logger = logging.getLogger(__name__)


class RunRecord(pl.Callback):
    """Log at the start of a run what it is made of, and at its end its learning curves.

    Also the first clips as the network gets them, after augmentation, once in a run. Each logger
    gets what it can keep; what it cannot write is a warning.

    Args:
        settings: hyperparameters, by dotted key.
        configuration: of which the run was built, as YAML.
        monitor: the validation metric of best.ckpt.
        curves: file that the learning curves are drawn to.
        keep_ids: is called once the loggers have begun, with all of them.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, Scalar],
        configuration: str,
        monitor: str,
        curves: Path,
        keep_ids: Callable[[Sequence[Logger]], None],
    ) -> None:
        self.settings, self.configuration = dict(settings), configuration
        self.monitor, self.curves, self.keep_ids = monitor, curves, keep_ids
        self._hook: Any = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        texts = {
            "run/config": self.configuration,
            "run/versions": _lines(software_versions(pl_module.device)),
            "run/git": _lines(git_state(Path.cwd())),
        }

        def write(log: Logger) -> None:
            log_settings(log, self.settings, self.monitor)
            for name, text in texts.items():
                log_text(log, name, text)

        write_to_loggers(trainer, write)
        try:
            self.keep_ids(trainer.loggers)
        except Exception as error:  # of a server, or a full disk
            logger.warning("a resumed run will be a new one to its loggers: %s", error)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step or batch_idx or not trainer.is_global_zero:
            return
        self._hook = pl_module.model.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda _, inputs: self._show_clips(trainer, inputs)
        )

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self.curves.is_file():
            return
        with Image.open(self.curves) as image:
            picture = np.asarray(image.convert("RGB"))
        step = trainer.global_step
        write_to_loggers(trainer, lambda log: log_picture(log, "run/curves", picture, step))

    def _show_clips(self, trainer: pl.Trainer, inputs: tuple[Any, ...]) -> None:
        """Log a strip of the clips (B, C, T, H, W) that a network is given, if it is given such."""
        clips = inputs[0] if inputs else None
        if isinstance(clips, Tensor) and clips.ndim == 5 and clips.shape[1] == 3:
            picture = strip_of(clips)
            write_to_loggers(trainer, lambda log: log_picture(log, "run/clips", picture))


def write_to_loggers(trainer: pl.Trainer, write: Callable[[Logger], None]) -> None:
    """Let each logger of a trainer write something; a failure does not end the run."""
    for each in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(each, LoggerGuards):
            for guard in each.guards:
                guard.write(write)


def strip_of(clips: Tensor) -> np.ndarray:
    """Return a picture of normalized clips (B, 3, T, H, W): a row for each, (H', W', 3) uint8.

    The range of each clip becomes that of the picture, whatever the normalization is.
    """
    clips = clips[:NUM_CLIPS].detach().float().cpu()
    num_frames = min(NUM_FRAMES, clips.shape[2])
    places = torch.linspace(0, clips.shape[2] - 1, num_frames).round().long()
    frames = clips[:, :, places].transpose(1, 2).flatten(0, 1)  # (B*T, 3, H, W)
    if max(frames.shape[-2:]) > SIDE:
        frames = F.interpolate(frames, scale_factor=SIDE / max(frames.shape[-2:]), mode="area")
    _, C, H, W = frames.shape
    frames = frames.view(len(clips), num_frames, C, H, W)
    low, high = (reduce(frames, (1, 2, 3, 4), keepdim=True) for reduce in (torch.amin, torch.amax))
    frames = (frames - low) / (high - low).clamp(min=1e-6) * 255
    picture = frames.permute(0, 3, 1, 4, 2).reshape(len(clips) * H, num_frames * W, C)
    return picture.round().to(torch.uint8).numpy()


def software_versions(device: torch.device) -> dict[str, str]:
    """Return the versions of Python and of what a training works with, and its device."""
    import video_mvit

    found = {"video_mvit": video_mvit.__version__, "python": platform.python_version()}
    found["torch"] = torch.__version__  # with the build
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    on_gpu = device.type == "cuda"
    found["device"] = torch.cuda.get_device_name() if on_gpu else f"{platform.machine()} CPU"
    return found


def git_state(folder: Path) -> dict[str, str]:
    """Return commit, branch and whether files differ of the repository that a folder is in.

    Without a repository, or without git, there is nothing to tell. Nothing that the repository
    configures is run.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {"commit": "none: not a git repository"}
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": commit,
        "branch": _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or "unknown",
        "changed files": "unknown" if changes is None else changes or "none",
    }


def _git(folder: Path, *words: str) -> str | None:
    """Return what git says of a folder; None where it fails."""
    safe = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
    try:
        done = subprocess.run(
            ["git", *safe, *words],
            cwd=folder,
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def _lines(facts: Mapping[str, str]) -> str:
    width = max(map(len, facts))
    lines: list[str] = []
    for name, text in facts.items():
        first, *others = text.splitlines() or [""]
        lines += [f"{name:<{width}}  {first}", *(f"{'':<{width}}  {line}" for line in others)]
    return "\n".join(lines)
