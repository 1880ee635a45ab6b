"""Push an exported model to a Hugging Face style hub.

python scripts/push.py source=model.safetensors repo=owner/name
"""

from pathlib import Path

import hydra
from mistakes import mistakes_in_one_sentence
from omegaconf import DictConfig
from plan_table import wide_console

from video_mvit.weights.hub import push


@hydra.main(version_base="1.3", config_path="../conf", config_name="push")
def main(cfg: DictConfig) -> None:
    console = wide_console()
    with mistakes_in_one_sentence():
        source = Path(cfg.source)
        address = push(source, cfg.repo, private=cfg.private)
        console.print(f"[bold]{address}[/]  {source.stat().st_size / 1e6:.1f} MB and its card")
        console.print(f'  video_mvit.load_model("{cfg.repo}"), or init.source={cfg.repo}')


if __name__ == "__main__":
    main()
