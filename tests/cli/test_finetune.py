"""`experiment=finetune` on a folder of clips, as a person runs it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from support.commands import composed as composed_of
from support.commands import run_command
from support.videos import write_numbered_video

import video_mvit
from video_mvit.cli import auto_settings as choosing
from video_mvit.cli import callbacks
from video_mvit.cli.auto_settings import apply_auto_settings, use_settings_of, values_set_by_user
from video_mvit.cli.build import warn_of_small_crop
from video_mvit.cli.callbacks import transcode_command
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.models.config import MViTConfig
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.model_card import ModelCard

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

CLASSES = ("hold", "push left", "push right")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos of 0.8 s for each class, no split."""
    root = tmp_path_factory.mktemp("videos")
    for name in CLASSES:
        for i in range(8):
            write_numbered_video(root / name / f"{i:03}.mp4", 24)
    return root


def save_model(path: Path, class_names: tuple[str, ...] | None = None, **options: Any) -> Path:
    """A weight file of the tiny network; with class names it has a card."""
    torch.manual_seed(0)
    num_classes = len(class_names) if class_names else 400
    model = video_mvit.create_model("mvitv2_demo", num_classes=num_classes, **options)
    if class_names is None:
        torch.save({"model_state": model.state_dict()}, path)
        return path
    about = {"frame_stride": 2, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    config = {name: getattr(model.config, name) for name in MViTConfig.__dataclass_fields__}
    card = ModelCard(model=config, class_names=class_names, **about)
    write_safetensors(path, model.state_dict(), card)
    return path


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The configuration of an experiment, and Hydra's memory of what was overridden."""

    def compose_with(*overrides: str, config: str = "config") -> DictConfig:
        task = ["experiment=finetune", f"run_dir={tmp_path}/run", *overrides]
        monkeypatch.setattr(choosing, "words_for_settings", lambda: task)
        return composed_of(config, *task)

    return compose_with


def test_one_command_fine_tunes_on_a_folder_and_another_evaluates(
    folder: Path, tmp_path: Path
) -> None:
    source = save_model(tmp_path / "tiny.pyth")
    shared = ["experiment=finetune", f"data.root={folder}", "trainer=cpu", "data.num_workers=0"]
    commands = {
        "train": [f"init.source={source}", "optim.num_epochs=1"],
        "evaluate": ["checkpoint=last"],
    }
    said = {}
    for verb, more in commands.items():
        result = run_command(verb, *shared, *more, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        said[verb] = result.stdout
    lines = [" ".join(line.split()) for line in said["train"].splitlines()]
    assert any("3 classes; 0.8 s long (" in line for line in lines)
    for row in (
        "clip.frame_stride 3 a clip of 8x3 lasts 0.8 s, the median video 0.8 s; 8x4 would need",
        "optim.num_epochs 1 set by you",
        "data.train_crop.flip_prob 0 no flipping: 'push left' would become another class",
        "init.reset [head] new head: tiny.pyth has 400 classes without names",
    ):
        assert any(line.startswith(row) for line in lines), row
    assert "no list to validate on, so " in said["train"]
    assert said["train"].index("optim.layer_decay") < said["train"].index("epoch 1/1")
    (run_dir,) = (tmp_path / "runs/finetune").iterdir()
    results = json.loads((run_dir / "evaluation/results.json").read_text())
    assert results["protocol"] == "5x1@8x3 offset short37 crop32"
    assert results["class_names"] == list(CLASSES)
    assert results["num_videos"] == results["num_listed"] >= 3


def test_settings_follow_the_card_of_the_weights(
    folder: Path, tmp_path: Path, composed: Any
) -> None:
    source = save_model(tmp_path / "mine.safetensors", CLASSES[::-1], depths=(1, 1, 2, 1))
    cfg = composed(f"data.root={folder}", f"init.source={source}")
    apply_auto_settings(cfg)
    assert (cfg.clip.num_frames, cfg.clip.frame_stride, cfg.clip.crop_size) == (8, 2, 32)
    assert cfg.data.samplers.train.clip.num_frames == cfg.model.num_frames == 8
    assert list(cfg.data.normalize.mean) == [0.1, 0.2, 0.3]
    assert list(cfg.model.depths) == [1, 1, 2, 1]
    assert list(cfg.init.reset) == []
    assert cfg.data.num_classes == cfg.model.num_classes == 3
    assert cfg.augment.mixing is None
    assert choosing.build(cfg.model).config.depths == (1, 1, 2, 1)


def test_adapters_are_chosen_a_rate_of_their_own(
    folder: Path, tmp_path: Path, composed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_model(tmp_path / "tiny.pyth")
    words = [f"data.root={folder}", f"init.source={source}", "adapter=lora"]
    cfg = composed(*words)
    apply_auto_settings(cfg)
    assert (cfg.optim.lr, cfg.optim.layer_decay) == (pytest.approx(0.04), 1.0)
    said = " ".join(capsys.readouterr().out.split())
    assert "optim.lr 0.04 10 times that of all weights, as adapters need" in said
    own = composed(*words, "optim.lr=1e-3")
    apply_auto_settings(own)
    assert (own.optim.lr, own.optim.end_lr) == (1e-3, pytest.approx(1e-5))


def test_resumed_run_goes_on_as_it_began(tmp_path: Path, composed: Any) -> None:
    root = tmp_path / "videos"
    for name in CLASSES:
        for i in range(3):
            write_numbered_video(root / name / f"{i}.mp4", 24)
    options = [f"data.root={root}", "init=scratch", "model=mvitv2_demo"]
    first = composed(*options)
    apply_auto_settings(first)
    for i in range(3, 30):
        write_numbered_video(root / "hold" / f"{i}.mp4", 24)
    resumed, fresh = composed(*options, "resume_from=last", "optim.lr=1"), composed(*options)
    composed(*options, "resume_from=last", "optim.lr=1")
    apply_auto_settings(resumed)
    assert resumed.data.train_batch_size == first.data.train_batch_size
    assert resumed.optim.num_epochs == first.optim.num_epochs
    assert resumed.optim.lr == 1
    composed(*options)
    apply_auto_settings(fresh)
    assert fresh.data.train_batch_size > first.data.train_batch_size


def test_own_values_stand_whether_given_alone_or_with_their_group(
    folder: Path, composed: Any
) -> None:
    own = ["model=mvitv2_demo", "clip=8x4", "optim=sgd_cosine", "augment=none", "init=scratch"]
    cfg = composed(
        f"data.root={folder}", *own, "data.train_batch_size=2", "+model.depths=[1,1,1,2]"
    )
    apply_auto_settings(cfg)
    assert cfg.clip.frame_stride == 4  # three would fit the videos
    assert (cfg.optim.lr, cfg.optim.num_epochs) == (2.5e-3, 100)
    assert cfg.data.train_batch_size == 2
    assert "_target_" not in cfg.augment
    assert list(cfg.model.depths) == [1, 1, 1, 2]
    mixed = composed(f"data.root={folder}", "augment.mixing.prob=0.5", "init=scratch")
    assert values_set_by_user(mixed, ["augment.mixing"])["augment.mixing"]["prob"] == 0.5
    assert values_set_by_user(composed("data=ucf101"), ["data.num_classes"]) == {}
    # An augmentation of the user's own has no mixing that could be switched off.
    own = composed("augment=none", "+augment._target_=own.Shift")
    assert values_set_by_user(own, ["augment.mixing"]) == {"augment.mixing": None}
    assert values_set_by_user(composed("model=mvitv2_l"), ["model.activation_checkpointing"]) == {}


def test_image_weights_are_inflated_or_refused(folder: Path, tmp_path: Path, composed: Any) -> None:
    image = video_mvit.create_model("mvitv2_image_t", crop_size=32, num_classes=7)
    source = tmp_path / "image.pyth"
    torch.save(image.state_dict(), source)
    cfg = composed(f"data.root={folder}", f"init.source={source}", "init=inflate")
    apply_auto_settings(cfg)
    assert (cfg.clip.num_frames, cfg.clip.crop_size) == (16, 224)
    assert list(cfg.model.depths) == [1, 2, 5, 2]
    assert list(cfg.data.normalize.mean) == [0.485, 0.456, 0.406]
    refused = composed(f"data.root={folder}", f"init.source={source}")
    with pytest.raises(ValueError, match="is an image model; init=inflate"):
        apply_auto_settings(refused)


def test_evaluation_takes_the_settings_of_the_checkpoint(tmp_path: Path, composed: Any) -> None:
    source = save_model(tmp_path / "trained.safetensors", CLASSES)
    cfg = composed("data.root=/x", f"checkpoint={source}", config="evaluate")
    use_settings_of(cfg, cfg.checkpoint)
    assert (cfg.clip.num_frames, cfg.clip.frame_stride, cfg.data.num_classes) == (8, 2, 3)
    assert list(cfg.data.normalize.std) == [0.4, 0.5, 0.6]
    assert (cfg.model.name, cfg.data.short_side) == ("mvitv2_demo", 37)


@pytest.mark.parametrize(
    ("write", "more", "message"),
    [
        ((), (), "has no class folder with a video"),
        (
            ("a/1.mp4", "a/2.mp4"),
            (),
            "class, 'a'; a classifier needs at least two classes",
        ),
        (("a/1.mp4", "b/1.mp4"), (), "can be held out for validation"),
        (("a/1.txt", "b/1.mkv", "b/2.mkv"), (), "are of one class, 'b'"),
        (("broken",), (), "none of 2 training videos can be read; "),
        (
            ("a/1.mp4", "a/2.mp4", "b/1.mp4"),
            ("model.name=x3d",),
            "none of mvitv2_s, ",
        ),
        (
            ("a/1.mp4", "a/2.mp4", "b/1.mp4"),
            ("data.train_batch_size=some",),
            "batch_size is 'some', expected int",
        ),
    ],
)
def test_mistake_is_told_in_one_sentence_before_anything_is_written(
    tmp_path: Path, composed: Any, write: tuple[str, ...], more: tuple[str, ...], message: str
) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    if write == ("broken",):
        for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"no video")
        write = ()
    for name in write:
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.touch() if path.suffix == ".txt" else write_numbered_video(path, 24)
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        apply_auto_settings(composed(f"data.root={root}", "init=scratch", *more))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("key", "preset", "expected"),
    [
        ("optim.start_lr", "overfit", True),
        ("augment.mixing", "overfit", True),
        ("data.train_batch_size", "overfit", True),
        ("clip.num_frames", "overfit", False),
        ("optim.start_lr", "none_of_these", False),
    ],
)
def test_what_a_debug_preset_sets_is_not_chosen(key: str, preset: str, expected: bool) -> None:  # noqa: FBT001
    assert choosing.is_set_by_user(key, [f"debug={preset}"]) is expected


def test_table_says_what_a_file_has_set(
    folder: Path, composed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["init=scratch", "augment=published", "model=mvitv2_demo", "clip=8x4", "optim.lr=0.001"]
    apply_auto_settings(composed(f"data.root={folder}", *words))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert {
        "clip.num_frames 8 from clip=8x4",
        "augment.mixing as configured from augment=published",
        "optim.lr 0.001 set by you",
    } <= set(lines)


def test_small_crop_of_a_large_picture_is_warned_of(
    composed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["data.root=/videos", "model=mvitv2_demo", "init=scratch", "data.num_classes=3"]
    warn_of_small_crop(composed(*words, "clip.crop_size=32"))
    (said,) = caplog.messages
    assert said.startswith("data.short_side=256 with clip.crop_size=32: videos are validated")
    assert said.endswith("on 12 % of their height; data.short_side=37 is in proportion")
    caplog.clear()
    warn_of_small_crop(composed(*words, "clip.crop_size=32", "data.short_side=37"))
    warn_of_small_crop(composed(*words))
    assert not caplog.messages


def test_command_for_faster_copies_is_complete(composed: Any, monkeypatch: Any) -> None:
    words = ["experiment=finetune", "data.root=/my videos/", "data.val_share=0.3", "optim.lr=1"]
    choices = OmegaConf.create({"runtime": {"choices": {"data": "custom"}}})
    monkeypatch.setattr(callbacks, "HydraConfig", SimpleNamespace(initialized=lambda: True))
    monkeypatch.setattr(callbacks.HydraConfig, "get", lambda: choices, raising=False)
    monkeypatch.setattr(callbacks, "words_for_settings", lambda: words)
    cfg = composed("data.root=/my videos/", "data.val_share=0.3")
    assert transcode_command(cfg) == (
        "video-mvit prepare data=custom 'data.root=/my videos/' data.val_share=0.3 mode=transcode "
        "'output=/my videos_fast'"
    )
    assert transcode_command(composed("data.root=/videos", "+data.shards=/shards")) is None
    detection = composed_of("config", "experiment=demo_detection", "data.root=/data")
    assert transcode_command(detection) is None
