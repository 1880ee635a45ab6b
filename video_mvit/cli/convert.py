"""Convert a weight file to another library's names, or to our own form.

video-mvit convert source=MVITv2_S.pyth target=mvitv2_s.safetensors
video-mvit convert source=runs/train/checkpoints/best.ckpt target=s.pyth dialect=slowfast
"""

from pathlib import Path

from omegaconf import DictConfig

from video_mvit.cli.errors import mistakes_in_one_sentence
from video_mvit.cli.tables import describe_card, describe_source, print_key_table, wide_console
from video_mvit.cli.weight_files import card_for, model_for
from video_mvit.weights.convert import check_target, key_table, write_dialect
from video_mvit.weights.load import read_source


def main(cfg: DictConfig) -> None:
    console = wide_console()
    with mistakes_in_one_sentence():
        target = Path(cfg.target)
        check_target(target, cfg.dialect, overwrite=cfg.overwrite)
        source = read_source(cfg.source)
        model = model_for(source)  # strict: no tensor is missing, unexpected or of another shape
        card, assumed = card_for(cfg, source, model)
        console.print(f"[bold]{cfg.source}[/]", describe_source(source, model), sep="\n  ")
        dropped = write_dialect(target, source.state, cfg.dialect, card)
        print_key_table(console, key_table(source.state, source.dialect, cfg.dialect))
        console.print(f"[bold]{target}[/]  {target.stat().st_size / 1e6:.1f} MB")
        console.print(f"  read back, all {len(source.state) - len(dropped)} tensors bit for bit")
        if dropped:
            console.print(f"  left out, {cfg.dialect} has no place for them: {', '.join(dropped)}")
        if cfg.dialect == "video_mvit":
            console.print(f"[bold]{target.with_suffix('.json')}[/]")
            for line in describe_card(card, assumed):
                console.print(f"  {line}")
