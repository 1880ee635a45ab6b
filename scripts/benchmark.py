"""Measure this project beside others on this machine, and say which bounds hold.

python scripts/benchmark.py target=data videos=[/path/to/a.mp4,/path/to/b.mp4]
python scripts/benchmark.py target=augment
"""

from collections.abc import Callable, Mapping
from typing import Any

import hydra
from benchmark_augment import run_augment_benchmark
from benchmark_data import run_data_benchmark
from launch import build
from mistakes import check_values, mistakes_in_one_sentence
from omegaconf import DictConfig
from rich.console import Console

TARGETS: Mapping[str, Callable[[Any, Console], object]] = {
    "data": run_data_benchmark,
    "augment": run_augment_benchmark,
}


@hydra.main(version_base="1.3", config_path="../conf", config_name="benchmark")
def main(cfg: DictConfig) -> None:
    with mistakes_in_one_sentence():
        if cfg.target not in TARGETS:
            raise ValueError(f"target is {cfg.target!r}, expected one of {', '.join(TARGETS)}")
        check_values(cfg[cfg.target], cfg.target)
        settings = build(cfg[cfg.target])
        TARGETS[cfg.target](settings, Console(highlight=False, width=160))


if __name__ == "__main__":
    main()
