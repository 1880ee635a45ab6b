"""Push an exported model to a Hugging Face style hub.

video-mvit push source=model.safetensors repo=owner/name
"""

from pathlib import Path

from omegaconf import DictConfig

from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.tables import wide_console
from video_mvit.weights.hub import push


def main(cfg: DictConfig) -> None:
    """Upload the model and print its address."""
    console = wide_console()
    with exit_on_user_error():
        check_verb(cfg, "push")
        source = Path(cfg.source)
        address = push(source, cfg.repo, private=cfg.private)
        console.print(f"[bold]{address}[/]  {source.stat().st_size / 1e6:.1f} MB and its card")
        console.print(f'  video_mvit.load_model("{cfg.repo}"), or init.source={cfg.repo}')
