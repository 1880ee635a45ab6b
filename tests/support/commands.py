"""Commands as a person starts them, and the configurations that they compose."""

import subprocess
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from support.paths import CONF

VIDEO_MVIT = (sys.executable, "-m", "video_mvit")
TIMEOUT_S = 300


def composed(config: str, *overrides: str, folder: Path = CONF) -> DictConfig:
    """What Hydra makes of a YAML file of `folder` and of what a person overrides."""
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(config, overrides=list(overrides))


def run_command(verb: str, *options: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `video-mvit verb options` to its end, whatever that is."""
    return subprocess.run(
        [*VIDEO_MVIT, verb, *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=TIMEOUT_S,
    )
