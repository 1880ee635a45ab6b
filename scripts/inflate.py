"""Make a video model of an image model, and prove what a still clip then gives.

python scripts/inflate.py source=mvitv2_s_in1k.pyth model=mvitv2_s target=s_inflated.safetensors
"""

import sys
from pathlib import Path

import hydra
from inflation import card_of, inflated, prove, video_config
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig
from plan_table import describe_card, describe_model, print_plan, print_proof, wide_console

from video_mvit.weights.convert import check_target, write_dialect
from video_mvit.weights.load import read_source


@hydra.main(version_base="1.3", config_path="../conf", config_name="inflate")
def main(cfg: DictConfig) -> None:
    console = wide_console()
    with mistakes_in_one_sentence():
        target = Path(cfg.target)
        check_target(target, "video_mvit", overwrite=cfg.overwrite)
        source = read_source(cfg.source)
        config = video_config(cfg, source)
        model, plan = inflated(source, config, cfg.rule, cfg.head, cfg.seed)
        card = card_of(cfg, source, model)
        write_dialect(target, model.state_dict(), "video_mvit", card)
        print_plan(console, source, plan)
        console.print(f"\n[bold]{target}[/]  {target.stat().st_size / 1e6:.1f} MB, read back")
        console.print(f"  {describe_model(model)}", *describe_card(card), sep="\n  ")
        console.print("\na still clip through it, its image through the image model:")
        proofs = prove(source, target, cfg.rule, cfg.seed)
        print_proof(console, proofs)
        if any(difference.fails for proof in proofs.values() for difference in proof):
            sys.exit("error: a still clip differs where it must not; do not use this file")


if __name__ == "__main__":
    main()
