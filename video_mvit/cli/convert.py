"""Convert a weight file to another library's format, or to our own; a detector to detectron2's.

video-mvit convert source=MVITv2_S.pyth target=mvitv2_s.safetensors
video-mvit convert runs/finetune target=s.pyth format=slowfast
"""

import shlex
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.own_networks import is_own, read_network
from video_mvit.cli.tables import describe_card, describe_source, print_key_table, wide_console
from video_mvit.cli.weight_files import card_for, is_detector_file
from video_mvit.errors import UserError
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.convert import check_target, key_table, write_key_format
from video_mvit.weights.load import read_plain_source
from video_mvit.weights.model_card import ModelCard

# Format -> suffixes of the files of a detector.
DETECTOR_FORMATS = {"detectron2": (".pth", ".pkl"), "video_mvit": (".safetensors",)}


def main(cfg: DictConfig) -> None:
    """Convert, verify by re-reading, and print the key table."""
    console = wide_console()
    with exit_on_user_error():
        check_verb(cfg, "convert")
        target = Path(cfg.target)
        if cfg.format in DETECTOR_FORMATS and is_detector_file(cfg.source, cfg.weights, cfg.base):
            convert_detector(cfg, target)
            return
        check_target(target, cfg.format, overwrite=cfg.overwrite)
        # Strict: no tensor is missing, unexpected or of another shape.
        source, model = read_network(cfg, cfg.source)
        card, assumed = card_for(cfg, source, model)
        console.print(f"[bold]{cfg.source}[/]", describe_source(source, model), sep="\n  ")
        if is_own(cfg):
            dropped = write_own(target, source.state, cfg.format, card)
        else:
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
            place = shlex.quote(str(target))
            console.print(f"next: video-mvit predict checkpoint={place} VIDEO", markup=False)


def write_own(
    target: Path, state: Mapping[str, Tensor], key_format: str, card: ModelCard
) -> tuple[str, ...]:
    """Write a network that is no MViTv2 under its own names, verified; -> what was dropped: ()."""
    if key_format != "video_mvit":
        raise UserError(f"format={key_format} is of MViTv2; your own network has format=video_mvit")
    write_safetensors(target, state, card)
    again = read_plain_source(target, list(state)).state
    if any(name not in again or not again[name].equal(state[name]) for name in state):
        raise UserError(f"{target} was written, but differs after re-reading")
    return ()


def convert_detector(cfg: DictConfig, target: Path) -> None:
    """Write a detector under detectron2's names, which are ours, and verify it by re-reading."""
    from video_mvit.detection.weights import load_detector, write_detector  # needs an extra

    suffixes = DETECTOR_FORMATS[cfg.format]
    if target.suffix not in suffixes:
        raise UserError(f"{target} must end in {' or '.join(suffixes)} for {cfg.format} to read it")
    if target.exists() and not cfg.overwrite:
        raise UserError(f"{target} exists; overwrite=true replaces it")
    detector = load_detector(cfg.source, weights=cfg.weights)
    state = detector.state_dict()
    write_detector(target, state, detector.card)
    again = load_detector(target).state_dict()
    if any(name not in again or not again[name].equal(state[name]) for name in state):
        raise UserError(f"{target} was written, but differs after re-reading")
    console = wide_console()
    console.print(f"[bold]{target}[/]  {target.stat().st_size / 1e6:.1f} MB")
    console.print(f"  verified: {len(state)} tensors identical after re-reading")
