"""Detectors through the commands, as a person runs them: train, resume, evaluate, fine-tune."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import composed, run_command, running_command, running_ranks
from support.processes import TIMEOUT_S, wait_until

import video_mvit
from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.build_detection import build_detection_training
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.cli.evaluate_detection import evaluate_detector
from video_mvit.cli.run_folder import Settings
from video_mvit.detection.config import detector_config
from video_mvit.detection.demo_pictures import write_detection_demo
from video_mvit.detection.detector import Detector
from video_mvit.detection.weights import write_detector
from video_mvit.errors import UserError
from video_mvit.weights.load import resize_rel_pos
from video_mvit.weights.model_card import ModelCard

pytestmark = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]
NUM_TRAIN, NUM_VAL = 16, 5
SIZES = {"embed_dim": 16, "fpn_channels": 16, "fc_channels": 16, "mask_channels": 16}
FEW = {"num_candidates_train": 50, "num_candidates_test": 50, "num_proposals": 30}
TINY = [f"+model.{name}={value}" for name, value in (SIZES | FEW).items()]
EVERY_TWO_STEPS = ["callbacks.recent.train_time_interval=null"]
EVERY_TWO_STEPS += ["+callbacks.recent.every_n_train_steps=2"]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    write_detection_demo(root, {"train": NUM_TRAIN, "val": NUM_VAL}, 0, lambda _: None)
    return root


def words(data_root: Path, run_dir: Path, *options: str) -> list[str]:
    """A demo of four steps an epoch, with the least detector."""
    shared = ["experiment=demo_detection", f"data.root={data_root}", f"run_dir={run_dir}"]
    shared += ["data.train_batch_size=4", "data.num_workers=0", "trainer.log_every_n_steps=1"]
    return [*shared, *TINY, *options]


@pytest.fixture
def run(data_root: Path, tmp_path: Path) -> Run:
    def run_verb(verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        return run_command(verb, *words(data_root, tmp_path / "run", *options), cwd=tmp_path)

    return run_verb


@pytest.fixture(scope="module")
def trained(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of six steps, the last two of which begin an epoch; and what was printed."""
    run_dir = tmp_path_factory.mktemp("trained")
    options = words(data_root, run_dir, "optim.num_steps=6")
    result = run_command("train", *options, cwd=run_dir)
    assert result.returncode == 0, result.stderr
    (run_dir / "printed").write_text(result.stdout)
    return run_dir


def logged(run_dir: Path, name: str, version: int = 0) -> list[str]:
    """A metric by step, as it was written."""
    with (run_dir / "metrics" / f"version_{version}" / "metrics.csv").open() as file:
        return [row[name] for row in csv.DictReader(file) if row.get(name)]


def checkpoint(run_dir: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence in which a command ended."""
    assert result.returncode == 1, result.stdout
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last


# Training and evaluation.


def test_training_writes_checkpoints_logs_and_curves(trained: Path) -> None:
    assert {path.name for path in (trained / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert (trained / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert list((trained / "tensorboard").glob("events*"))
    assert (trained / "config" / "config.yaml").exists()
    parts = ("", "_rpn_cls", "_rpn_loc", "_cls", "_box_reg", "_mask")
    for name in [f"train/loss{part}" for part in parts]:
        assert len(logged(trained, name)) == 6, name
    # The first epoch, and the two steps after it, are validated.
    for name in ("box_ap", "box_ap50", "mask_ap", "mask_ap50"):
        assert len(logged(trained, f"val/{name}")) == 2, name
    last = checkpoint(trained)
    assert (last["global_step"], last["class_names"]) == (6, ["circle", "square", "triangle"])
    assert last["card"]["category_ids"] == (1, 2, 3)


def test_training_prints_a_line_of_each_epoch(trained: Path) -> None:
    printed = (trained / "printed").read_text()
    lines = [line.partition("  ")[2] for line in printed.splitlines() if "  epoch " in line]
    assert [line.split("  ")[0] for line in lines] == ["epoch 1, step 4/6", "epoch 2, step 6/6"]
    for line in lines:
        assert " images/s  " in line
        assert ["val/box_ap" in line, "val/mask_ap" in line] == [True, True]


def test_evaluation_writes_results_detections_and_report(
    run: Run, trained: Path, tmp_path: Path
) -> None:
    last = trained / "checkpoints" / "last.ckpt"
    result = run("evaluate", f"checkpoint={last}")
    assert result.returncode == 0, result.stderr
    assert re.search(r"box AP +\d", result.stdout)
    folder = tmp_path / "run" / "evaluation"
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "detections.json",
        "report.html",
        "evaluate.log",
    }
    results = json.loads((folder / "results.json").read_text())
    assert (results["num_images"], results["num_listed"]) == (NUM_VAL, NUM_VAL)
    assert results["category_ids"] == [1, 2, 3]
    rows = json.loads((folder / "detections.json").read_text())
    assert len(rows) == results["num_detections"]
    # The AP of the run's own last validation.
    assert results["box"]["ap"] == pytest.approx(float(logged(trained, "val/box_ap")[-1]))
    assert results["mask"]["ap"] == pytest.approx(float(logged(trained, "val/mask_ap")[-1]))


def test_interrupted_evaluation_resumes(run: Run, trained: Path, tmp_path: Path) -> None:
    options = [f"checkpoint={trained}/checkpoints/last.ckpt", "data.eval_batch_size=2"]
    stopped = run("evaluate", *options, "+trainer.limit_test_batches=1")
    assert "3 of 5 images were not evaluated" in error_of(stopped)
    resumed = run("evaluate", *options)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming: 2 of 5 images were evaluated by an earlier run" in resumed.stdout
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert (results["num_images"], results["num_resumed"]) == (5, 2)
    assert results["box"]["ap"] == pytest.approx(float(logged(trained, "val/box_ap")[-1]))


# Resuming.


def everything_random(data_root: Path, run_dir: Path, *options: str) -> list[str]:
    """Five epochs of two steps with all that is random, saved after each epoch.

    Batch norm has statistics.
    """
    random_words = ["+model.heads=cascade_batch_norm", "+model.drop_path_rate=0.2"]
    random_words += ["data.train_transform.crop_prob=0.5", "optim.num_steps=10"]
    random_words += ["+data.train_transform.crop_short_sides=[96,112]"]
    random_words += ["+data.train_transform.crop_range=[64,96]", "callbacks=detection_ema"]
    random_words += ["trainer.accumulate_grad_batches=2", *EVERY_TWO_STEPS]
    return ["train", *words(data_root, run_dir, *random_words, *options)]


def assert_same_end(whole: Path, broken: Path, told: str) -> None:
    """The second start of a broken run had the losses of the whole one, and its weights."""
    expected, found = logged(whole, "train/loss"), logged(broken, "train/loss", version=1)
    assert len(found) > 1, told
    assert found == expected[-len(found) :], told
    for key in ("state_dict", "ema"):
        expected_weights, found_weights = checkpoint(whole)[key], checkpoint(broken)[key]
        assert expected_weights.keys() == found_weights.keys()
        for name, tensor in expected_weights.items():
            assert torch.equal(found_weights[name], tensor), f"{key} {name}, {told}"


@pytest.fixture(scope="module")
def whole(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a training that nothing interrupted."""
    run_dir = tmp_path_factory.mktemp("whole")
    # A process of the loader, as below: it leaves the network one thread less.
    command = everything_random(data_root, run_dir, "data.num_workers=1")
    result = run_command(*command, cwd=run_dir)
    assert result.returncode == 0, result.stderr
    statistics = [n for n in checkpoint(run_dir)["ema"] if n.endswith("running_mean")]
    assert len(statistics) == 16  # of three box heads, and of the masks
    assert logged(run_dir, "val/ema_box_ap")
    return run_dir


def is_between_epochs(run_dir: Path) -> bool:
    """Whether the last checkpoint was written after a validation, which a later one says is due."""
    if not (run_dir / "checkpoints" / "last.ckpt").exists():
        return False
    saved = checkpoint(run_dir)
    return saved["global_step"] % 2 == 0 and not saved["validation_is_due"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_stopped_and_resumed_training_is_the_uninterrupted_one(
    how: signal.Signals, data_root: Path, whole: Path, tmp_path: Path
) -> None:
    """Killed between two epochs, asked to end within one; everything random is switched on."""
    broken, log = tmp_path / "broken", tmp_path / "log"
    command = everything_random(data_root, broken, "data.num_workers=1", "resume_from=auto")
    with running_command(*command, cwd=tmp_path, log=log) as training:
        wait_until(lambda: is_between_epochs(broken), training)
        os.killpg(training.pid, how)
        training.join(TIMEOUT_S)
    if how == signal.SIGTERM:
        assert training.exitcode == 75, log.read_text()
        assert "interrupted (SIGTERM): checkpoint saved at step" in log.read_text()
    step = checkpoint(broken)["global_step"]
    resumed = run_command(*command, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert_same_end(whole, broken, f"stopped after step {step}: {log.read_text()}")


def write_half_empty(data_root: Path, root: Path) -> None:
    """The same pictures; every second one has a single object, drawn outside of it."""
    shutil.copytree(data_root, root)
    path = root / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    outside = {"segmentation": [[-20, -20, -5, -20, -5, -5]], "bbox": [0, 0, 9, 9], "area": 81}
    kept = [each for each in content["annotations"] if each["image_id"] % 2]
    for image in content["images"]:
        if image["id"] % 2 == 0:
            one = {"id": 1000 + image["id"], "image_id": image["id"], "category_id": 1}
            kept.append({**one, **outside, "iscrowd": 0})
    path.write_text(json.dumps({**content, "annotations": kept}))


def run_two_ranks(command: Sequence[str], log: Path) -> None:
    with running_ranks(2, *command, cwd=log.parent, log=log) as ranks:
        for rank in ranks:
            rank.join(TIMEOUT_S)
            assert rank.exitcode == 0, log.read_text()


@pytest.mark.long  # such a rank trains along in tests/detection/test_ranks.py
def test_two_ranks_one_without_foreground_are_resumed(data_root: Path, tmp_path: Path) -> None:
    """With one picture a rank and step, which a crop leaves nothing of in every second one."""
    root, log = tmp_path / "half_empty", tmp_path / "log"
    write_half_empty(data_root, root)
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def command(run_dir: Path) -> list[str]:
        options = ["data.train_batch_size=1", "data.train_transform.crop_prob=1"]
        return everything_random(root, run_dir, *options, "optim.num_steps=5")

    run_two_ranks(command(whole), log)
    losses = [float(value) for value in logged(whole, "train/loss_mask")]  # of one of the ranks
    assert 0 < losses.count(0) < len(losses)
    with running_ranks(2, *command(broken), cwd=tmp_path, log=log) as ranks:
        wait_until((broken / "checkpoints" / "last.ckpt").exists, ranks[0])
    told = f"stopped after step {checkpoint(broken)['global_step']}"
    run_two_ranks([*command(broken), "resume_from=last"], log)
    assert_same_end(whole, broken, told)


def test_sharded_training_gives_a_whole_checkpoint(
    data_root: Path, tmp_path: Path, run: Run
) -> None:
    run_dir = tmp_path / "run"
    options = ["trainer.strategy=fsdp", "optim.num_steps=2", "+model.heads=cascade_batch_norm"]
    run_two_ranks(["train", *words(data_root, run_dir, *options)], tmp_path / "log")
    evaluated = run("evaluate", "checkpoint=last", "+model.heads=cascade_batch_norm")
    assert evaluated.returncode == 0, evaluated.stderr
    results = json.loads((run_dir / "evaluation" / "results.json").read_text())
    ap = float(logged(run_dir, "val/box_ap")[-1])
    assert results["box"]["ap"] == pytest.approx(ap, abs=1e-4)  # sharded sums round differently


# What goes wrong, and odd data.


def test_loss_that_is_nan_stops_before_a_checkpoint_holds_it(run: Run, tmp_path: Path) -> None:
    wild = ["optim.lr=1e12", "optim.warmup_steps=0", "trainer.gradient_clip_val=null"]
    every_step = [word.replace("steps=2", "steps=1") for word in EVERY_TWO_STEPS]
    error = error_of(run("train", *every_step, *wild))
    assert error.startswith("error: the loss is ")
    saved = torch.load(tmp_path / "run" / "bad_batch_rank0.pt", weights_only=True)
    assert len(saved["images"]) == len(saved["boxes"]) == len(saved["labels"]) == 4
    assert all(path in error and Path(path).is_file() for path in saved["files"])
    assert checkpoint(tmp_path / "run")["global_step"] == saved["batch_idx"]  # of the step before


def test_half_precision_trains_and_is_said(run: Run, tmp_path: Path) -> None:
    half = ["trainer.precision=bf16-mixed", "optim.num_steps=2"]
    result = run("train", *half)
    assert result.returncode == 0, result.stderr
    assert all(float(loss) < 10 for loss in logged(tmp_path / "run", "train/loss"))
    evaluated = run("evaluate", *half, "checkpoint=last")
    assert evaluated.returncode == 0, evaluated.stderr
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert results["precision"] == "bf16-mixed"


def test_unreadable_images_are_replaced_in_training_and_listed_in_results(
    data_root: Path, run: Run, trained: Path, tmp_path: Path
) -> None:
    root = tmp_path / "broken"
    shutil.copytree(data_root, root)
    (root / "train" / "000003.png").write_bytes(b"no picture")
    (root / "train" / "000005.png").unlink()
    (root / "val" / "000001.png").write_bytes(b"")
    (root / "val" / "000002.png").unlink()
    options = [f"data.root={root}", "optim.num_steps=4", "data.train_batch_size=3"]
    assert "1 of 16 training images are unreadable so far" in error_of(run("train", *options))
    result = run("train", *options, "data.max_unreadable_fraction=0.2")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"cannot read {root}/train/000003.png: ") == 1
    assert "replaced by another image" in result.stdout

    result = run("evaluate", *options, f"checkpoint={trained}/checkpoints/last.ckpt")
    assert result.returncode == 0, result.stderr
    assert "3 of 5: 1 missing, 1 unreadable" in result.stdout
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert results["missing"] == ["000002.png"]
    assert list(results["unreadable"]) == ["000001.png"]


def test_validation_set_of_boxes_alone_has_no_mask_numbers(
    data_root: Path, run: Run, tmp_path: Path
) -> None:
    root, run_dir = tmp_path / "boxes", tmp_path / "run"
    shutil.copytree(data_root, root)
    for split in ("val", "train"):
        path = root / "annotations" / f"instances_{split}.json"
        content = json.loads(path.read_text())
        for each in content["annotations"]:
            each["segmentation"] = []
        path.write_text(json.dumps(content))
        if split == "val":
            result = run("train", f"data.root={root}", "optim.num_steps=4")
            assert result.returncode == 0, result.stderr
    assert logged(run_dir, "val/box_ap")
    assert not logged(run_dir, "val/mask_ap")
    assert "mask_ap" not in result.stdout
    result = run("evaluate", f"data.root={root}", "checkpoint=last")
    assert result.returncode == 0, result.stderr
    assert "mask" not in result.stdout
    results = json.loads((run_dir / "evaluation" / "results.json").read_text())
    assert results["mask"] is None
    assert results["box"]["ap"] is not None
    # The training set has lost its masks as well by now.
    assert "boxes without masks" in error_of(run("train", f"data.root={root}", "overwrite=true"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("compile=blocks", "compile is blocks, but detectors do not have it; remove it"),
        ("memory=auto", "memory is auto, but detectors do not have it"),
        ("auto_settings=true", "auto_settings is True, but detectors do not have it"),
        ("label_smoothing=0.1", "label_smoothing is 0.1, but detectors do not have it"),
        ("augment=published", "augment is set, but detectors do not have it"),
        ("data.num_classes=80", "data.num_classes is 80, but "),
        ("data.num_classes=80", " has 3 categories; null takes as many"),
        ("data.root=/nowhere", "data.root=/nowhere is not a folder"),
        ("data.train_batch_size=17", "16 training images do not fill one batch of 17"),
        ("optim.lr=fast", "optim.lr is 'fast', expected float"),
        ("optim.drops=[5,3]", "drops [5, 3] are not in ascending order"),
        ("optim.num_steps=0", "num_steps 0 must be positive"),
        ("optim.warmup_factor=0", "warmup_factor 0 is outside (0, 1]"),
        ("+model.depth=3", "unknown detector option depth"),
        ("+model.heads=fast", "heads 'fast' is none of"),
        ("trainer.precision=16-mixed", "which CPUs do not support"),
        ("trainer.precision=bf16-true callbacks=detection_ema", "rounds its updates to zero"),
        ("trainer.strategy=fsdp", "fsdp needs two devices"),
        ("data.train_transform.crop_prob=2", "crop_prob 2"),
        ("data.short_side=0", "short_side 0"),
    ],
)
def test_wrong_setting_ends_in_one_sentence(
    options: str, message: str, data_root: Path, tmp_path: Path
) -> None:
    own = [word for word in words(data_root, tmp_path) if word.split("=")[0] not in options]
    cfg = composed("config", *own, *options.split())
    resolve_hardware(cfg)
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        build_detection_training(Settings(config=cfg, recorded={}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_category_that_no_checkpoint_holds_is_named(data_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data_root, root)
    for path in (root / "annotations").glob("*.json"):
        content = json.loads(path.read_text())
        content["categories"][0]["name"] = "x" * 501
        path.write_text(json.dumps(content))
    cfg = composed("config", *words(root, tmp_path / "run"))
    resolve_hardware(cfg)
    with pytest.raises(UserError, match=r"data: 'x.* is not a text of at most 500 characters"):
        build_detection_training(Settings(config=cfg, recorded={}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("motion=[frozen]", "motion is ['frozen'], but detectors do not have it; remove it"),
        ("clips_per_pass=2", "clips_per_pass is 2, but detectors do not have it"),
        ("reuse=predictions", "reuse is predictions, but detectors do not have it"),
        ("evaluator=coco", "evaluator is 'coco', expected one of pycocotools, "),
        ("data.root=RENAMED", "class 0 is 'circle' in "),
        ("data.root=RENAMED", "but 'disc' in the data"),
    ],
)
def test_evaluation_that_is_impossible_ends_in_one_sentence(
    options: str, message: str, data_root: Path, trained: Path, tmp_path: Path
) -> None:
    path = tmp_path / "annotations" / "instances_val.json"
    path.parent.mkdir()
    (tmp_path / "val").symlink_to(data_root / "val")
    text = (data_root / "annotations" / "instances_val.json").read_text()
    path.write_text(text.replace('"circle"', '"disc"'))
    options = options.replace("RENAMED", str(tmp_path))
    cfg = composed("evaluate", *words(data_root, trained), "checkpoint=last", *options.split())
    cfg.output = str(tmp_path / "evaluation")
    resolve_hardware(cfg)
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        evaluate_detector(cfg)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_evaluation_takes_no_classifier_for_a_detector(data_root: Path, tmp_path: Path) -> None:
    """Its heads would be untrained, and the numbers those of noise."""
    path = tmp_path / "image.pyth"
    classifier = video_mvit.create_model("mvitv2_image_t", depths=[1, 1, 1, 1], embed_dim=16)
    torch.save({"model_state": classifier.state_dict()}, path)
    cfg = composed("evaluate", *words(data_root, tmp_path / "run"), f"checkpoint={path}")
    cfg.output = str(tmp_path / "evaluation")
    resolve_hardware(cfg)
    with pytest.raises(SystemExit, match="holds no detector"), exit_on_user_error():
        evaluate_detector(cfg)


# Fine-tuning.

SMALL_T = {"depths": [1, 1, 1, 1], **SIZES}  # MViTv2-T in small


def finetune(data_root: Path, run_dir: Path, *options: str) -> list[str]:
    """Two steps in which nothing is learned: the learning rate is 0."""
    frozen = ["optim.lr=0", "optim.reference_images=null", "optim.num_steps=2", "trainer=cpu"]
    sides = ["data.short_side=96", "data.max_side=96", "+data.train_transform.short_sides=[96]"]
    sides += ["+data.train_transform.long_side=96", "+data.train_transform.crop_prob=0"]
    shared = [word for word in words(data_root, run_dir, *frozen) if "experiment" not in word]
    shared += ["experiment=finetune_detector", "+model.depths=[1,1,1,1]"]
    return [*shared, *sides, *options]


def test_finetuning_starts_from_a_detector_of_other_classes(
    data_root: Path, tmp_path: Path
) -> None:
    """A file of detectron2; only what depends on the classes starts anew, which is printed."""
    torch.manual_seed(1)
    config = detector_config("mask_rcnn_mvitv2_t", num_classes=5, **SMALL_T)
    state, path = Detector(config).state_dict(), tmp_path / "model_final.pkl"
    write_detector(path, state, ModelCard(model={}, key_format="detectron2"))
    run_dir = tmp_path / "run"
    command = ["train", *finetune(data_root, run_dir, f"init.source={path}")]
    refused = run_command(*command, "init.reset=[]", cwd=tmp_path)
    assert "roi_heads.box_predictor" in error_of(refused)
    result = run_command(*command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "model_final.pkl" in result.stdout
    assert "roi_heads.box_predictor" in result.stdout
    last = checkpoint(run_dir)
    own = ("roi_heads.box_predictor.", "roi_heads.mask_head.predictor.")
    for name, tensor in state.items():
        is_kept = torch.equal(last["state_dict"][f"model.{name}"], tensor)
        assert is_kept != name.startswith(own), name
    assert last["card"]["class_names"] == ("circle", "square", "triangle")
    assert last["card"]["model"]["num_classes"] == 3
    evaluated = run_command(
        "evaluate", *finetune(data_root, run_dir, "checkpoint=last"), cwd=tmp_path
    )
    assert evaluated.returncode == 0, evaluated.stderr


def test_finetuning_starts_from_an_image_classifier(data_root: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    classifier = video_mvit.create_model("mvitv2_image_t", depths=[1, 1, 1, 1], embed_dim=16)
    state, path = classifier.state_dict(), tmp_path / "image.pyth"
    torch.save({"model_state": state}, path)
    command = finetune(data_root, tmp_path / "run", f"init.source={path}")
    result = run_command("train", *command, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "image.pyth" in result.stdout
    assert "backbone.fpn_lateral*" in result.stdout
    found = checkpoint(tmp_path / "run")["state_dict"]
    for name, tensor in state.items():
        if name.startswith(("patch_embed.", "blocks.")):
            loaded = found[f"model.backbone.bottom_up.{name}"]
            if "rel_pos" in name and len(loaded) != len(tensor):
                tensor = resize_rel_pos(tensor, len(loaded))
            assert torch.equal(loaded.flatten(), tensor.flatten()), name
