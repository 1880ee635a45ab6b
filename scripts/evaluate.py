"""Evaluate a checkpoint, averaging several views of each video.

python scripts/evaluate.py experiment=k400_mvitv2_s_16x4 data.root=/path/to/kinetics400
"""

import hydra
import pytorch_lightning as pl
from choosing import use_settings_of
from evaluation_run import check_options, evaluate, recompute
from launch import quiet_libraries
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig
from reporting import write_report
from rich.console import Console
from run_folder import is_first_process, open_folder


@hydra.main(version_base="1.3", config_path="../conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    quiet_libraries()
    with mistakes_in_one_sentence():
        check_options(cfg)
        open_folder(cfg.output, "evaluate")
        if cfg.choose and not cfg.reuse:
            use_settings_of(cfg, cfg.checkpoint)
        pl.seed_everything(cfg.seed, workers=True, verbose=False)
        result, predictions = recompute(cfg) if cfg.reuse else evaluate(cfg)
        if not is_first_process():
            return
        report = write_report(cfg, result, predictions)
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for name, text in {**result.lines(), "report": str(report)}.items():
        console.print(f"  {name:<22} {text}")


if __name__ == "__main__":
    main()
