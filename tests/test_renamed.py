"""One table of renames: complete, true, told by commands and imports, and in the changelog."""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support.paths import CONF, ROOT

from video_mvit import renamed
from video_mvit.cli import main
from video_mvit.cli.renamed_options import find_in_config, find_in_words
from video_mvit.models.config import MViTConfig


def table() -> dict[str, str]:
    """All renames, as the changelog lists them."""
    values = {
        f"{option}={old}": f"{option}={new}"
        for option in ("weights", "init.weights")
        for old, new in renamed.OPTION_VALUES[option].items()
    }
    values |= {
        f"model.checkpoint_activations={str(old).lower()}": f"model.activation_checkpointing={new}"
        for old, new in renamed.OPTION_VALUES["model.activation_checkpointing"].items()
    }
    values |= {"compile=true": "compile=blocks", "compile=false": "compile=null"}
    parts = (renamed.COMMANDS, renamed.OPTIONS, renamed.GROUP_CHOICES, values, renamed.LOG_KEYS)
    parts = (*parts, renamed.FILES, renamed.CLASSES, renamed.MODULES)
    return {old: new for part in parts for old, new in part.items()}


def test_changelog_has_the_whole_table() -> None:
    _, _, section = (ROOT / "CHANGELOG.md").read_text().partition("## Renamed in 0.2.0")
    section = section.partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(.+)` \| `(.+)` \|$", section, re.MULTILINE)) == table()


@pytest.mark.parametrize("module", sorted(set(renamed.MODULES.values())))
def test_new_module_exists(module: str) -> None:
    assert importlib.util.find_spec(module)


@pytest.mark.parametrize("path", renamed.CLASSES.values())
def test_new_class_exists(path: str) -> None:
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(import_module(module), name), type)


def composed_keys() -> Iterator[str]:
    """Dotted keys that some command knows."""

    def below(content: dict[str, object], prefix: str) -> Iterator[str]:
        for key, value in content.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from below(value, f"{prefix}{key}.")

    options = ["augment=published", "callbacks=ema", "data=demo", "init=weights", "trainer=cpu"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for config, overrides in (
            ("evaluate", options),
            ("prepare", options),
            ("convert", []),
            ("predict", []),
        ):
            content = OmegaConf.to_container(compose(config, overrides))
            assert isinstance(content, dict)
            assert find_in_config(content) is None
            yield from below(content, "")


@pytest.mark.slow
def test_every_option_is_there_under_its_new_name_only() -> None:
    keys = {*composed_keys(), *(f"model.{field.name}" for field in fields(MViTConfig))}
    assert set(renamed.OPTIONS.values()) <= keys
    assert not set(renamed.OPTIONS) & keys
    for choice in renamed.GROUP_CHOICES.values():
        group, _, name = choice.partition("=")
        assert (CONF / group / f"{name}.yaml").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["choose=true"], "the option choose is now called auto_settings"),
        (
            ["+data.module.val.views.budget.time_s=3"],
            "the option data.module.val.views.budget.time_s is now called "
            "data.module.val.pipeline.decode_limits.time_s",
        ),
        (["data=ucf101,own"], "data=own is now called data=custom"),
        (["weights=average"], "weights=average is now called weights=ema"),
        (
            ["+model.checkpoint_activations=true"],
            "model.checkpoint_activations=true is now called model.activation_checkpointing=full",
        ),
        (["compile=true"], "compile=true is now called compile=blocks"),
        (["compile=False"], "compile=False is now called compile=null"),
        (["rule=average", "data.root=choose", "-m"], None),
    ],
)
def test_old_name_on_the_command_line_is_told(words: list[str], sentence: str | None) -> None:
    assert find_in_words(words) == sentence


def test_command_stops_with_the_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["video-mvit", "train", "accept_changes=true"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == (
        "error: the option accept_changes is now called allow_config_changes"
    )


def test_old_names_in_files_of_ones_own_are_told(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults:\n  - override /data: own\n")
    found = find_in_words(["--config-dir", str(tmp_path), "experiment=mine"])
    assert found == f"{tmp_path}/mine.yaml: data=own is now called data=custom"
    found = find_in_config({"data": {"budget": {"time_s": 1}}})
    assert found == "the option data.budget is now called data.decode_limits"
    found = find_in_config({"compile": False})
    assert found == "compile=false is now called compile=null"
    found = find_in_config({"callbacks": {"mine": {"_target_": "video_mvit.guard.FiniteLoss"}}})
    assert found == (
        "callbacks.mine._target_ is video_mvit.guard.FiniteLoss, which is now called "
        "video_mvit.training.nonfinite.NonFiniteLossGuard"
    )


@pytest.mark.parametrize("module", renamed.MODULES)
def test_old_module_says_where_it_is_now(module: str) -> None:
    with pytest.raises(ImportError, match=f"{module} is now {renamed.MODULES[module]}"):
        import_module(module)


def test_old_import_names_the_class_and_loads_nothing() -> None:
    code = (
        "import sys, video_mvit\nprint('torch' in sys.modules, 'video_mvit.renamed' in sys.modules)"
    )
    code += "\nfrom video_mvit.guard import FiniteLoss"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert result.stdout == "False False\n"
    assert "FiniteLoss is now video_mvit.training.nonfinite.NonFiniteLossGuard" in result.stderr
