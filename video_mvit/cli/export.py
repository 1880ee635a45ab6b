"""Export a trained model, and verify what was written.

video-mvit export source=runs/train/checkpoints/best.ckpt target=model.onnx preprocess=true
"""

import time
from pathlib import Path

from omegaconf import DictConfig

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.tables import describe_card, describe_source, wide_console
from video_mvit.cli.weight_files import (
    card_for,
    interface_of,
    latencies,
    model_for,
    with_preprocessing,
)
from video_mvit.host import peak_resident_memory
from video_mvit.weights.export import check_target, export, write_about
from video_mvit.weights.load import read_source


def main(cfg: DictConfig) -> None:
    """Export, verify, and print interface and latency."""
    console = wide_console()
    with exit_on_user_error():
        target = Path(cfg.target)
        check_target(target, overwrite=cfg.overwrite)
        source = read_source(cfg.source)
        model = model_for(source)
        card, assumed = card_for(cfg, source, model)
        console.print(f"[bold]{cfg.source}[/]", describe_source(source, model), sep="\n  ")
        network = with_preprocessing(model, card) if cfg.preprocess else model
        about, examples = interface_of(model.config, preprocess=cfg.preprocess)
        start = time.perf_counter()
        written = export(network, examples, target, about)
        time_s, peak_gb = time.perf_counter() - start, (peak_resident_memory() or 0) / 1e9
        model_s, export_s = latencies(network, written.run, examples[-1], cfg.num_runs)
        about_path = write_about(target, card, about)
        lines = (
            f"input          {about.input}: {about.dtype} {about.layout}",
            f"               item shape {'x'.join(map(str, about.shape))}, any batch size up to 64",
            f"output         {about.output} of {model.config.num_classes} classes",
            *describe_card(card, assumed),
            f"verified       max |diff| {written.max_abs_diff:.1e} on batches of 1 and 2",
            f"latency        {1000 * export_s:.0f} ms per clip; PyTorch {1000 * model_s:.0f} ms",
            f"export took    {time_s:.0f} s including verification, peak {peak_gb:.1f} GB",
        )
        size_mb = sum(file.stat().st_size for file in written.files) / 1e6
        console.print(f"[bold]{target}[/]  {size_mb:.1f} MB, {about_path.name} beside it")
        console.print("  " + "\n  ".join(lines))
