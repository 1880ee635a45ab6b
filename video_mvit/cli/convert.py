"""Convert a weight file to another library's format, or to our own.

video-mvit convert source=MVITv2_S.pyth target=mvitv2_s.safetensors
video-mvit convert source=runs/train/checkpoints/best.ckpt target=s.pyth format=slowfast
"""

from pathlib import Path

from omegaconf import DictConfig

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.tables import describe_card, describe_source, print_key_table, wide_console
from video_mvit.cli.weight_files import card_for, model_for
from video_mvit.weights.convert import check_target, key_table, write_key_format
from video_mvit.weights.load import read_source


def main(cfg: DictConfig) -> None:
    """Convert, verify by re-reading, and print the key table."""
    console = wide_console()
    with exit_on_user_error():
        target = Path(cfg.target)
        check_target(target, cfg.format, overwrite=cfg.overwrite)
        source = read_source(cfg.source)
        model = model_for(source)  # strict: no tensor is missing, unexpected or of another shape
        card, assumed = card_for(cfg, source, model)
        console.print(f"[bold]{cfg.source}[/]", describe_source(source, model), sep="\n  ")
        dropped = write_key_format(target, source.state, cfg.format, card)
        print_key_table(console, key_table(source.state, source.key_format, cfg.format))
        console.print(f"[bold]{target}[/]  {target.stat().st_size / 1e6:.1f} MB")
        num_verified = len(source.state) - len(dropped)
        console.print(f"  verified: {num_verified} tensors identical after re-reading")
        if dropped:
            console.print(f"  dropped, not part of {cfg.format}: {', '.join(dropped)}")
        if cfg.format == "video_mvit":
            console.print(f"[bold]{target.with_suffix('.json')}[/]")
            for line in describe_card(card, assumed):
                console.print(f"  {line}")
