"""Every shipped experiment composes and instantiates; unknown keys and wrong values are named.

Those of detectors: `test_detection_conf.py`.
"""

import inspect
import re
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra.utils import get_object
from omegaconf import DictConfig
from pytorch_lightning.strategies import DDPStrategy
from support.commands import composed as composed_of
from support.paths import CONF

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.build import (
    build,
    build_all,
    build_trainer,
    choose_strategy,
)
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.run_folder import check_class_names, read_checkpoint
from video_mvit.detection.config import DETECTORS
from video_mvit.models.config import VARIANTS
from video_mvit.models.mvit import MViT

DEMO = ("experiment=demo", "data.num_classes=16")  # which are those of its list
EXPERIMENTS = sorted(
    path.stem for path in (CONF / "experiment").glob("*.yaml") if "rcnn" not in path.read_text()
)


def composed(*overrides: str, config: str = "config") -> DictConfig:
    """A configuration as a command uses it: what this machine decides is resolved."""
    cfg = composed_of(config, "data.root=/data", "run_dir=/run", *overrides)
    resolve_hardware(cfg)
    return cfg


@pytest.mark.slow
@pytest.mark.parametrize("config", ["config", "evaluate"])
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_experiment_composes_and_instantiates(experiment: str, config: str, tmp_path: Path) -> None:
    overrides = [f"experiment={experiment}", "trainer.accelerator=cpu", f"run_dir={tmp_path}"]
    if experiment in ("demo", "finetune"):  # chosen from the data
        overrides.append("data.num_classes=5")
    cfg = composed(*overrides, config=config)
    with torch.device("meta"):  # shapes, no values
        classifier, data = build_all(cfg)
    assert isinstance(classifier.model, MViT)
    assert classifier.model.config.num_frames == cfg.clip.num_frames
    assert classifier.model.config.num_classes == data.num_classes
    assert build_trainer(cfg).max_epochs == cfg.optim.num_epochs
    assert cfg.name == experiment


@pytest.mark.slow
def test_model_files_are_rows_of_the_table_or_of_the_zoo() -> None:
    for path in (CONF / "model").glob("*.yaml"):
        model = composed(f"model={path.stem}").model
        if model._target_.startswith("video_mvit.models.pytorchvideo_zoo."):  # built in test_zoo.py
            continue
        assert path.stem in {**VARIANTS, **DETECTORS}
        assert model.name == path.stem


PUBLISHED_AUGMENT = {
    "augment.policy": "rand-m7-n4-mstd0.5-inc1",
    "augment.erase_prob": 0.25,
    "augment.mixing.mixup_alpha": 0.8,
    "augment.mixing.cutmix_alpha": 1.0,
    "augment.mixing.prob": 1.0,
    "augment.mixing.switch_to_cutmix_prob": 0.5,
}
RECIPES = {
    "k400_mvitv2_s_16x4": {
        "optim.name": "adamw",
        "optim.reference_clips": 512,
        "optim.lr": 1.6e-3,  # 1e-4 for 32 clips
        "optim.start_lr": 1.6e-5,
        "optim.end_lr": 1.6e-5,
        "optim.num_epochs": 200,
        "optim.warmup_epochs": 30,
        "optim.weight_decay": 0.05,
        "data.train_batch_size": 16,
        "data.num_samples": 2,
        **PUBLISHED_AUGMENT,
        "data.train_crop.flip_prob": 0.5,
        "model.drop_path_rate": 0.2,
        "trainer.gradient_clip_val": 1.0,
        "label_smoothing": 0.1,
        "data.num_clips": 5,
        "data.num_crops": 1,
        "data.short_side": 256,
        "clip.num_frames": 16,
        "clip.frame_stride": 4,
    },
    "k400_mvitv2_b_32x3": {
        "optim.lr": 1.6e-3,
        "data.num_samples": 2,
        **PUBLISHED_AUGMENT,
        "optim.num_epochs": 200,
        "model.drop_path_rate": 0.3,
        "trainer.gradient_clip_val": 1.0,
        "clip.num_frames": 32,
        "clip.frame_stride": 3,
    },
    "ssv2_mvitv2_s_16x4": {
        "optim.name": "sgd",
        "optim.reference_clips": 16,
        "optim.lr": 2.5e-3,
        "data.num_samples": 1,
        **PUBLISHED_AUGMENT,
        "data.train_crop._target_": "video_mvit.data.transforms.cropping.ShortSideCrop",  # no flip
        "init.reset": ["head"],
        "optim.start_lr": 1e-4,
        "optim.end_lr": 1e-6,
        "optim.num_epochs": 100,
        "optim.warmup_epochs": 3,
        "optim.weight_decay": 1e-4,
        "model.drop_path_rate": 0.4,
        "trainer.gradient_clip_val": None,
        "label_smoothing": 0.1,
        "data.num_clips": 1,
        "data.num_crops": 3,
        "data.short_side": 224,
        "data.num_classes": 174,
    },
}
RECIPES["k600_mvitv2_b_32x3"] = {**RECIPES["k400_mvitv2_b_32x3"], "data.num_classes": 600}
RECIPES["k700_mvitv2_b_32x3"] = {**RECIPES["k400_mvitv2_b_32x3"], "data.num_classes": 700}
RECIPES["ssv2_mvitv2_b_32x3"] = {
    **RECIPES["ssv2_mvitv2_s_16x4"],
    "optim.lr": 1.5e-3,
    "clip.num_frames": 32,
    "model.name": "mvitv2_b",
}
RECIPES["ssv2_mvitv2_l_40x3"] = {
    "optim.name": "sgd",
    "optim.reference_clips": 8,
    "optim.lr": 1.25e-3,
    "optim.start_lr": 1e-6,
    "optim.end_lr": 1e-6,
    "optim.num_epochs": 40,
    "optim.warmup_epochs": 3,
    "optim.weight_decay": 1e-4,
    "augment.policy": "rand-m7-n4-mstd0.5-inc1",
    "augment.erase_prob": 0.25,
    "augment.mixing": None,
    "data.num_samples": 1,
    "data.train_batch_size": 8,
    "data.train_crop.short_side": [356, 446],
    "data.short_side": 312,
    "data.num_crops": 3,
    "data.normalize.mean": [0.485, 0.456, 0.406],
    "clip.num_frames": 40,
    "clip.crop_size": 312,
    "model.name": "mvitv2_l",
    "model.drop_path_rate": 0.75,
    "model.activation_checkpointing": "full",
    "trainer.gradient_clip_val": 2.0,
    "label_smoothing": 0.1,
    "init.reset": ["head"],
}
RECIPES["in1k_mvitv2_t"] = {
    "optim.name": "adamw",
    "optim.reference_clips": 256,
    "optim.lr": 2.5e-4,
    "optim.start_lr": 1e-8,
    "optim.end_lr": 1e-6,
    "optim.num_epochs": 300,
    "optim.warmup_epochs": 70,
    "optim.weight_decay": 0.05,
    "optim.layer_decay": 1.0,
    "data.train_batch_size": 256,
    "data.num_samples": 1,
    "data.num_classes": 1000,
    **PUBLISHED_AUGMENT,
    "augment.policy": "rand-m9-n6-mstd0.5-inc1",
    "augment.fill": [round(255 * mean) for mean in (0.485, 0.456, 0.406)],
    "data.train_crop._target_": "video_mvit.data.transforms.cropping.RandomResizedCrop",
    "data.train_crop.flip_prob": 0.5,
    "data.train_crop.interpolation": "bicubic",
    "data.module.val.pipeline.crop.interpolation": "bicubic",
    "data.module.test.pipeline.crop.interpolation": "bicubic",
    "data.short_side": 256,
    "data.num_clips": 1,
    "data.num_crops": 1,
    "data.normalize.mean": [0.485, 0.456, 0.406],
    "data.normalize.std": [0.229, 0.224, 0.225],
    "clip.num_frames": 1,
    "clip.crop_size": 224,
    "model.name": "mvitv2_image_t",
    "model.drop_path_rate": 0.1,
    "trainer.gradient_clip_val": 1.0,
    "label_smoothing": 0.1,
}
for size, drop_path_rate in (("s", 0.1), ("b", 0.3)):
    RECIPES[f"in1k_mvitv2_{size}"] = {
        **RECIPES["in1k_mvitv2_t"],
        "model.name": f"mvitv2_image_{size}",
        "model.drop_path_rate": drop_path_rate,
    }
RECIPES["k400_mvitv2_l_40x3"] = {
    "init._target_": "video_mvit.weights.initialize.FromImage",
    "init.rule": "center",
    "init.head": "new",
    "clip.num_frames": 40,
    "clip.frame_stride": 3,
    "clip.crop_size": 312,
    "model.name": "mvitv2_l",
    "model.drop_path_rate": 0.75,
    "model.activation_checkpointing": "full",
    "augment.policy": "rand-m7-n4-mstd0.5-inc1",
    "augment.erase_prob": 0.25,
    "augment.mixing": None,
    "label_smoothing": 0.1,
    "data.num_classes": 400,
    "data.num_samples": 1,
    "data.train_batch_size": 8,
    "data.train_crop._target_": "video_mvit.data.transforms.cropping.RandomResizedCrop",
    "data.train_crop.flip_prob": 0.5,
    "data.normalize.mean": [0.485, 0.456, 0.406],
    "data.normalize.std": [0.229, 0.224, 0.225],
    "data.num_clips": 5,
    "data.num_crops": 3,
    "data.short_side": 312,
    "optim.name": "adamw",
    "optim.reference_clips": 512,
    "optim.lr": 1.6e-3,
    "optim.end_lr": 1.6e-5,
    "optim.num_epochs": 30,
    "optim.warmup_epochs": 0,
    "optim.weight_decay": 0.05,
    "optim.layer_decay": 1.0,
    "trainer.gradient_clip_val": 1.0,
}
RECIPES["k600_mvitv2_l_40x3"] = {**RECIPES["k400_mvitv2_l_40x3"], "data.num_classes": 600}
RECIPES["k700_mvitv2_l_40x3"] = {**RECIPES["k400_mvitv2_l_40x3"], "data.num_classes": 700}
RECIPES["k400_maskfeat_mvitv2_s_16x4"] = {
    **RECIPES["k400_mvitv2_s_16x4"],
    "init._target_": "video_mvit.weights.initialize.FromWeights",
    "init.reset": ["norm", "head"],
    "model.name": "mvitv2_s",
    "model.head": "mean",
    "model.expand_dim_in": "mlp",
    "model.head_init_scale": 0.001,
    "model.head_dropout": 0.0,
    "model.drop_path_rate": 0.1,
    "augment.policy": "rand-m7-mstd0.5-inc1",
    "optim.reference_clips": 32,
    "optim.lr": 6e-4,
    "optim.start_lr": 1e-6,
    "optim.end_lr": 1e-6,
    "optim.num_epochs": 100,
    "optim.warmup_epochs": 20,
    "optim.layer_decay": 0.75,
    "trainer.gradient_clip_val": 5.0,
    "data.num_clips": 10,
}
RECIPES["k400_maskfeat_mvitv2_l_16x4"] = {
    **RECIPES["k400_maskfeat_mvitv2_s_16x4"],
    "model.name": "mvitv2_l",
    "model.drop_path_rate": 0.2,
    "clip.crop_size": 224,
    "data.num_samples": 1,
    "optim.reference_clips": 16,
    "optim.start_lr": 1e-8,
    "optim.end_lr": 1e-5,
    "optim.num_epochs": 75,
    "optim.warmup_epochs": 5,
    "optim.layer_decay": 0.875,
}


def test_every_experiment_has_its_recipe_in_the_table() -> None:
    assert {*RECIPES, "demo", "demo_pictures", "finetune"} == set(EXPERIMENTS)


@pytest.mark.parametrize("experiment", RECIPES)
def test_experiment_holds_the_published_recipe(experiment: str) -> None:
    cfg = composed(f"experiment={experiment}")
    for key, expected in RECIPES[experiment].items():
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == expected, key


@pytest.mark.parametrize(
    "override", ["sead=1", "optim.learning_rate=1", "model.depth=3", "data.root_dir=x"]
)
def test_unknown_key_fails_at_composition_with_its_name(override: str) -> None:
    with pytest.raises(ConfigCompositionException, match=override.split("=")[0]):
        composed(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lr=fast", "optim.lr is 'fast', expected float"),
        ("optim.name=adam", "optim.name is 'adam', expected one of adamw, sgd"),
        ("optim.num_epochs=true", "optim.num_epochs is true, expected int"),
        ("data.num_workers=many", "num_workers is 'many', expected int"),
        (
            "+data.module.test.num_videos=all",
            "data.module.test.num_videos is 'all', expected int or null",
        ),
        ("+model.dropout=1", "unknown model option dropout"),
        ("model.num_classes=lots", "num_classes is 'lots', expected int"),
        ("clip.crop_size=33", "crop_size 33 is not a positive multiple"),
        ("data.num_crops=2", "num_crops 2 is none of 1, 3"),
        ("data.reader=opencv", "unknown reader 'opencv'"),
        ("label_smoothing=2", "label_smoothing 2 is outside"),
        ("trainer.max_epochs=x", "trainer.max_epochs is 'x'"),
        ("+trainer.max_epoch=3", "unknown key trainer.max_epoch; known: "),
        ("augment=published augment.policy=rand-m11-inc1", "magnitude 11 is outside [0, 10]"),
        (
            "augment=published augment.policy=auto",
            "RandAugment policy 'auto', expected such as rand-m7",
        ),
        ("augment=published augment.mixing.prob=2", "prob 2 is outside [0, 1]"),
        (
            "augment=published augment.erase_prob=often",
            "augment.erase_prob is 'often', expected float",
        ),
        ("+optim.foo=1", "unknown key optim.foo; known: name, lr"),
        ("+data.train_crop.flip=0.5", "unknown key data.train_crop.flip"),
        ("+data.train_crop.interpolation=nearest", "interpolation is 'nearest', expected one of"),
        ("augment=published_images augment.fill=[1,2]", "fill [1, 2] must be three numbers"),
        ("data=imagenet data.sources.train.of=sound", "of is 'sound', expected one of video"),
        ("data.train_crop.scale=5", "data.train_crop.scale is 5, expected a list of 2 float"),
        (
            "data.train_crop.scale=[a,b]",
            "data.train_crop.scale is ['a', 'b'], expected a list of 2",
        ),
        ("data.train_crop.scale=[0.5]", "data.train_crop.scale is [0.5], expected a list of 2"),
        ("data.normalize.mean=0.5", "data.normalize.mean is 0.5, expected a list of 3 float"),
        ("label_smoothing=abc", "label_smoothing is 'abc', expected float"),
        ("+model.depths=3", "depths is 3, expected a list of int"),
        ("+model.depths=[1,a,1,1]", "expected a list of int"),
        ("data.normalize.std=[1,0,1]", "std positive"),
        ("augment=custom", "Missing mandatory value: augment.transforms"),
        ("augment=custom augment.transforms=[random.random]", "expected a list of settings with"),
        (
            "augment=custom augment.transforms=[{_target_:torch.nn.Dropout,q:1}]",
            "unknown key augment.transforms.0.q; known: p, inplace",
        ),
        (
            "augment=custom augment.transforms=[{_target_:torch.flatten,_partial_:true}]",
            "augment.transforms[0], torch.",
        ),
    ],
)
def test_wrong_value_ends_in_one_sentence_with_its_name(override: str, message: str) -> None:
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        build_all(composed(*DEMO, *override.split()))
    assert message in str(error.value)
    assert str(error.value).startswith("error: ")
    assert "\n" not in str(error.value)


def test_missing_gpu_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = ["trainer=gpu", "trainer.precision=32-true"]
    with pytest.raises(SystemExit, match="trainer=auto takes the CPU"), exit_on_user_error():
        build_trainer(composed("experiment=k400_mvitv2_s_16x4", *gpu))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.devices=auto", "trainer.devices is 'auto', expected a positive int"),
        ("trainer.num_nodes=null", "trainer.num_nodes is None, expected a positive int"),
        ("trainer.strategy=fspd", "trainer.strategy 'fspd' is none of 'auto', 'fsdp'"),
        (
            "trainer.precision=bf16-true callbacks=ema",
            "which rounds its updates to zero; try bf16-",
        ),
        ("trainer.devices=4", "start with torchrun --nproc-per-node 4 -m video_mvit ..., without"),
        ("trainer.precision=16-mixed", "which CPUs do not support; try bf16-mixed"),
        ("trainer.strategy=fsdp", "fsdp needs two devices or more"),
        ("callbacks=ema callbacks.ema.decay=2", "decay 2 is outside (0, 1)"),
        ("callbacks.nonfinite_loss.max_skipped=-1", "max_skipped -1 must not be negative"),
        ("rank_timeout_s=0", "rank_timeout_s 0 must be positive, and at most a week"),
        ("rank_timeout_s=soon", "rank_timeout_s is 'soon', expected float"),
    ],
)
def test_impossible_training_ends_in_one_sentence(override: str, message: str) -> None:
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        build_trainer(composed(*DEMO, *override.split()))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_several_devices_are_those_of_the_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun on four nodes of eight; and fsdp there, with what does not go with it."""
    for name, value in (
        ("LOCAL_WORLD_SIZE", "8"),
        ("GROUP_WORLD_SIZE", "4"),
        ("TORCHELASTIC_RUN_ID", "x"),
    ):
        monkeypatch.setenv(name, value)
    cfg = composed("experiment=k400_mvitv2_s_16x4", "trainer.accelerator=cpu")
    assert (cfg.trainer.devices, cfg.trainer.num_nodes) == (8, 4)
    strategy = choose_strategy(cfg)
    assert isinstance(strategy, DDPStrategy)
    assert strategy._timeout.total_seconds() == cfg.rank_timeout_s == 600
    cfg.trainer.strategy = "fsdp"
    assert choose_strategy(cfg)._data_parallel_size == 32
    for override, named in (("compile=blocks", "compile"), ("callbacks=ema", "callbacks.ema")):
        cfg = composed(*DEMO, "trainer.strategy=fsdp", override)
        with pytest.raises(ValueError, match=f"{named}.* does not work with trainer.strategy=fsdp"):
            build_trainer(cfg)


def test_cluster_launcher_and_sweeps_compose() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "config",
            return_hydra_config=True,
            overrides=[
                "experiment=k400_mvitv2_s_16x4",
                "data.root=/k",
                "run_dir=runs/x",
                "hydra/launcher=slurm",
            ],
        )
    launcher = cfg.hydra.launcher
    assert launcher._target_.endswith("SlurmLauncher")
    assert (launcher.nodes, launcher.tasks_per_node, launcher.gpus_per_node) == (1, 8, 8)
    assert cfg.hydra.sweep.dir == "runs/x"


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_logger_adds_to_csv_and_tensorboard_and_names_its_extra(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = composed(*DEMO, f"logger={package}", "name=x")
    assert set(cfg.logger) == {"csv", "tensorboard", package}
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        build_all(cfg)
    assert f"error: logger.{package} needs the package {package}" in str(error.value)
    assert re.search(rf"; pip install '{package}[a-z-]*[<>]", str(error.value))
    monkeypatch.setattr("importlib.util.find_spec", lambda _: "there")
    build_all(cfg)
    target = get_object(cfg.logger[package]["_target_"])
    options = set(cfg.logger[package]) - {"_target_"}
    assert options <= set(inspect.signature(target).parameters)


def test_missing_data_root_is_one_sentence() -> None:
    cfg = composed_of("config", "experiment=demo")
    with pytest.raises(SystemExit, match=r"data\.root"), exit_on_user_error():
        build_all(cfg)


def test_errors_that_are_nobodys_sentence_show_where_they_happened() -> None:
    """This file is not of the package, so that its errors are those of a user's own code."""
    for error in (
        OSError("too many open files"),
        RuntimeError(),
        TypeError("'int' is no str"),
        ValueError("of another library"),
    ):
        with pytest.raises(SystemExit) as caught, exit_on_user_error():
            raise error
        told = str(caught.value)
        assert told.startswith("Traceback (most recent call last):")
        assert f'File "{__file__}"' in told
        assert f"{type(error).__name__}" in told


CHECKPOINT = {"state_dict": {}, "class_names": ["a"], "settings": {}}


def save(path: Path, content: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(content, path)
    return path


def test_checkpoints_are_found_by_name_or_path(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints" / "last.ckpt", CHECKPOINT)
    assert read_checkpoint("last", str(tmp_path)) == read_checkpoint(str(path), "elsewhere")
    with pytest.raises(FileNotFoundError, match="use 'last' or 'best'"):
        read_checkpoint("best", str(tmp_path))


def test_damaged_optimizer_state_is_found_before_a_run_resumes(tmp_path: Path) -> None:
    moments = torch.arange(100.0)
    path = save(tmp_path / "last.ckpt", {**CHECKPOINT, "optimizer_states": [{"state": moments}]})
    content = path.read_bytes()
    place = content.index(moments.numpy().tobytes())
    path.write_bytes(content[:place] + b"\1" + content[place + 1 :])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged .*, or resume_from another"):
        read_checkpoint(str(path), "")


def test_files_that_are_no_checkpoints_to_resume_from_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.ckpt"
    text.write_text("not a checkpoint")
    with pytest.raises(ValueError, match=r"text\.ckpt is not a checkpoint of .*, or is damaged"):
        read_checkpoint(str(text), "")
    code = save(tmp_path / "code.ckpt", {**CHECKPOINT, "class_names": Path("a")})
    with pytest.raises(ValueError, match=r"code\.ckpt is refused: it would run pathlib\.PosixPath"):
        read_checkpoint(str(code), "")
    for key, value in (
        ("class_names", 5),
        ("class_names", [1]),
        ("settings", []),
        ("callbacks", 1),
    ):
        kind = save(tmp_path / "kind.ckpt", {**CHECKPOINT, key: value})
        with pytest.raises(ValueError, match=r"kind\.ckpt is not a checkpoint of"):
            read_checkpoint(str(kind), "")
    other = save(tmp_path / "other.pyth", {"model_state": {}})
    with pytest.raises(ValueError, match=r"init=weights init\.source=.*other\.pyth"):
        read_checkpoint(str(other), "")


@pytest.mark.parametrize("names", [["a", "c", "b"], ["a", "b"], ["a", "b", "c", "d"]])
def test_other_classes_than_the_checkpoints_are_refused(names: list[str], tmp_path: Path) -> None:
    listed = ("a", "b", "c")
    check_class_names(tmp_path, {"class_names": ["a", "b", "c"]}, listed)
    with pytest.raises(ValueError, match=r"class [123] is "):
        check_class_names(tmp_path, {"class_names": names}, listed)


def test_built_values_are_plain_python() -> None:
    cfg = composed(*DEMO, "+model.depths=[1,1,2,1]")
    check_values(cfg.model, "model")
    assert build(cfg.model).config.depths == (1, 1, 2, 1)
