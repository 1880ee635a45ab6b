"""Without data.num_classes there are as many classes as the list or the trained model has."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from support.commands import composed
from support.touch import touch

from video_mvit.cli.build import build, classifier_arguments
from video_mvit.cli.num_classes import fill_num_classes
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.run_folder import diff_settings, flat_settings
from video_mvit.errors import UserError


def custom(root: Path, *overrides: str, config: str = "config") -> DictConfig:
    machine = ["trainer=cpu", "model=mvitv2_demo", "clip=8x4", f"run_dir={root}/run"]
    return composed(config, "data=custom", f"data.root={root}", *machine, *overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return touch(tmp_path, *(f"{part}/{name}/1.mp4" for part in ("train", "val") for name in "abc"))


def test_training_takes_the_number_of_the_list(folder: Path) -> None:
    cfg = custom(folder)
    assert cfg.data.num_classes is None
    fill_num_classes(cfg)
    assert cfg.data.num_classes == 3
    assert classifier_arguments(cfg)["model"].config.num_classes == 3
    demanded = custom(folder, "data.num_classes=???")  # as in a YAML file of the user's
    fill_num_classes(demanded)
    assert demanded.data.num_classes == 3


def test_reading_the_list_leaves_the_other_settings_as_a_run_records_them(folder: Path) -> None:
    """Else a run that was given the number could not be resumed without it."""
    cfg = custom(folder)
    given = flat_settings(custom(folder, "data.num_classes=3"))
    fill_num_classes(cfg)
    assert diff_settings(given, flat_settings(cfg)) == []


@pytest.mark.parametrize("names", [("a", "b", "c", "d"), None])
def test_evaluation_takes_the_number_of_the_model(
    folder: Path, names: tuple[str, ...] | None
) -> None:
    model = classifier_arguments(custom(folder, "data.num_classes=4"))["model"]
    content = {"state_dict": {f"model.{key}": value for key, value in model.state_dict().items()}}
    if names:
        content["class_names"] = names
    torch.save(content, folder / "trained.ckpt")
    cfg = custom(folder, f"checkpoint={folder}/trained.ckpt", config="evaluate")
    fill_num_classes(cfg, cfg.checkpoint)
    assert cfg.data.num_classes == 4


def test_another_network_without_class_names_has_those_of_the_list(folder: Path) -> None:
    torch.save({"state_dict": {"model.linear.weight": torch.zeros(7, 3)}}, folder / "own.ckpt")
    cfg = custom(folder, f"checkpoint={folder}/own.ckpt", config="evaluate")
    fill_num_classes(cfg, cfg.checkpoint)
    assert cfg.data.num_classes == 3


def test_given_number_stays_and_is_checked(folder: Path) -> None:
    cfg = custom(folder, "data.num_classes=5")
    fill_num_classes(cfg)
    data = build(cfg.data.module)
    with pytest.raises(UserError, match="num_classes is 5, but the training list has 3 classes"):
        data.setup("fit")
    data = build(cfg.data.module)
    data.class_names = ("a", "b", "c")
    with pytest.raises(UserError, match="num_classes is 5, but the model has 3 classes"):
        data.setup("test")


def test_published_data_sets_have_their_number() -> None:
    for name, number in {"kinetics400": 400, "ssv2": 174, "ucf101": 101}.items():
        cfg = composed("config", f"data={name}", "data.root=/data")
        fill_num_classes(cfg)  # reads nothing
        assert cfg.data.num_classes == number


def test_rows_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    for verb, config in (("train", "config"), ("evaluate", "evaluate")):
        cfg = composed(config, "data=rows", f"data.root={tmp_path}")
        with pytest.raises(UserError, match=r"data=rows has no rows: .* give them again, rows=\["):
            check_verb(cfg, verb)
