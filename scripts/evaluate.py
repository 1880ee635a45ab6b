"""Evaluate a checkpoint, averaging several views of each video.

python scripts/evaluate.py experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import time
from pathlib import Path

import hydra
import pytorch_lightning as pl
from choosing import use_settings_of
from launch import build_all, build_trainer, find_checkpoint, quiet_libraries
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig
from rich.console import Console
from run_folder import is_first_process, open_folder
from torch import nn

from video_mvit.evaluation.motion import FreezeFrames
from video_mvit.evaluation.report import Result, describe_protocol
from video_mvit.ranks import join
from video_mvit.weights.start import FromWeights, start_from


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    quiet_libraries()
    with mistakes_in_one_sentence():
        open_folder(cfg.output, "evaluate")
        if cfg.choose:
            use_settings_of(cfg, cfg.checkpoint)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        (classifier, data), trainer = build_all(cfg), build_trainer(cfg, logger=False)
        path = find_checkpoint(cfg.checkpoint, cfg.run_dir)
        act = FromWeights(source=str(path), weights=cfg.weights)
        source, _ = start_from(act, classifier.model)
        data.class_names = source.class_names or ()  # the lists follow this order
        data.setup("test")
        data.check_shares("test", trainer.world_size)
        start = time.perf_counter()
        metrics = trainer.test(classifier, datamodule=data, verbose=False)[0]
        time_s = time.perf_counter() - start
        unreadable = join(data.unreadable["test"])  # of all processes
        frozen_top1 = None
        if cfg.frozen:
            classifier.preprocess = nn.Sequential(FreezeFrames(), classifier.preprocess)
            frozen_top1 = trainer.test(classifier, datamodule=data, verbose=False)[0]["test/top1"]
    if not is_first_process():
        return
    views, manifest = data.splits["test"].views, data.manifests["test"]
    result = Result(
        protocol=describe_protocol(views.sampler, views.crop),
        top1=metrics["test/top1"],
        top5=metrics["test/top5"],
        frozen_top1=frozen_top1,
        num_videos=round(metrics["test/num_videos"]),
        num_listed=len(manifest) + len(manifest.missing),
        missing=tuple(manifest.missing),
        unreadable={manifest.names[i]: why for i, why in sorted(unreadable.items())},
        list_sha1=manifest.digest(),
        class_names=data.class_names,
        time_s=time_s,
        checkpoint=str(path),
        weights=source.container,
    )
    result.write(Path(cfg.output, "results.json"))
    console = Console(highlight=False, soft_wrap=True)
    for name, text in result.lines().items():
        console.print(f"  {name:<22} {text}")


if __name__ == "__main__":
    main()
