"""Measure this project beside others on this machine, and say which bounds hold.

python scripts/benchmark.py target=model against=[torchvision,plain] precision=bf16
python scripts/benchmark.py target=train
python scripts/benchmark.py target=train train.experiment=k400_mvitv2_s_16x4 device=cuda
python scripts/benchmark.py target=step model=mvitv2_b clip=32x3 device=cuda batch_size=8
python scripts/benchmark.py target=evaluate model=mvitv2_image_t clip=image against=[timm]
python scripts/benchmark.py target=memory batch_size=4
python scripts/benchmark.py target=growth against=[torchvision] growth.num_frames=[8,16,32]
python scripts/benchmark.py target=data videos=[/path/to/a.mp4,/path/to/b.mp4]
python scripts/benchmark.py target=augment
python scripts/benchmark.py target=detector detector.sides=[512,800] precision=bf16
python scripts/benchmark.py target=ap
python scripts/benchmark.py target=annotations
python scripts/benchmark.py target=jitter
python scripts/benchmark.py target=engines engines.batch_sizes=[1,4]
"""

from collections.abc import Callable, Mapping
from typing import Any

import hydra
from benchmarks.annotations import run_annotations_benchmark
from benchmarks.augment import run_augment_benchmark
from benchmarks.average_precision import run_ap_benchmark
from benchmarks.data import run_data_benchmark
from benchmarks.detector import run_detector_benchmark
from benchmarks.engines import run_engines_benchmark
from benchmarks.growth import run_growth_benchmark
from benchmarks.jitter import run_jitter_benchmark
from benchmarks.memory import run_memory_benchmark
from benchmarks.model import run_model_benchmark
from benchmarks.train import run_train_benchmark
from omegaconf import DictConfig
from rich.console import Console

from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.errors import UserError

# Target -> the node of the configuration that it reads, and what it does.
TARGETS: Mapping[str, tuple[str, Callable[[Any, Console], object]]] = {
    "model": ("network", run_model_benchmark),
    "step": ("network", run_model_benchmark),
    "evaluate": ("network", run_model_benchmark),
    "train": ("train", run_train_benchmark),
    "memory": ("memory", run_memory_benchmark),
    "growth": ("growth", run_growth_benchmark),
    "data": ("data", run_data_benchmark),
    "augment": ("augment", run_augment_benchmark),
    "detector": ("detector", run_detector_benchmark),
    "ap": ("ap", run_ap_benchmark),
    "annotations": ("annotations", run_annotations_benchmark),
    "jitter": ("jitter", run_jitter_benchmark),
    "engines": ("engines", run_engines_benchmark),
}


@hydra.main(version_base="1.3", config_path="benchmarks", config_name="benchmark")
def main(cfg: DictConfig) -> None:
    with exit_on_user_error():
        if cfg.target not in TARGETS:
            raise UserError(f"target is {cfg.target!r}, expected one of {', '.join(TARGETS)}")
        node, run = TARGETS[cfg.target]
        check_values(cfg[node], node)
        run(build(cfg[node]), Console(highlight=False, width=160))


if __name__ == "__main__":
    main()
