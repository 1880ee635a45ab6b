"""Videos with several classes as a person meets them: train, evaluate, predict, export, compare."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from support.commands import composed, run_command

from video_mvit import load_model, predict
from video_mvit.cli.option_values import check_verb
from video_mvit.cli.tables import describe_card
from video_mvit.cli.tasks import (
    check_card,
    check_class_list,
    check_monitor,
    refuse_other_tasks,
    resolve_task,
)
from video_mvit.cli.weight_files import with_preprocessing
from video_mvit.data.datamodule import VideoDataModule
from video_mvit.data.lists.manifest import PackedStrings
from video_mvit.data.lists.multilabel_manifest import MultiLabelManifest
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.errors import UserError
from video_mvit.weights.model_card import ModelCard, read_card, read_evaluation

LEAST = ("clip.num_frames=4", "clip.crop_size=32", "data.short_side=32", "data.num_workers=0")


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's videos; the words of a motion are the classes of its videos."""
    root = tmp_path_factory.mktemp("several")
    write_demo_dataset(root, {"train": 16, "val": 8}, 0, lambda _: None)
    for split in ("train", "val"):
        videos = sorted((root / split).rglob("*.mp4"))
        rows = (
            ",".join([str(path.relative_to(root)), *path.parent.name.split()]) for path in videos
        )
        (root / f"{split}_words.csv").write_text("\n".join(rows))
    return root


def words(root: Path, *more: str) -> list[str]:
    return [
        *("experiment=demo", "data=multi_label", f"data.root={root}", "optim.num_epochs=1"),
        *(f"data.train_list={root}/train_words", f"data.val_list={root}/val_words"),
        *("data.train_batch_size=8", "augment=published", *LEAST, *more),
    ]


@pytest.mark.slow
def test_several_labels_go_through_every_verb(data_root: Path, tmp_path: Path) -> None:
    result = run_command("train", *words(data_root, "run_dir=run"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2.00 classes a video" in result.stdout
    assert "best val/map" in result.stdout
    run = tmp_path / "run"

    views = ("data.num_clips=2", "data.combine_views=max", "data.num_workers=0")
    result = run_command("evaluate", "run", *views, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    content = json.loads((run / "evaluation" / "results.json").read_text())
    assert content["task"] == "multi_label"
    assert content["protocol"] == "2x1@4x4 offset short32 crop32 max"
    assert len(content["average_precision"]) == 11
    page = (run / "evaluation" / "report.html").read_text()
    assert "Missed" in page

    compared = run_command("compare", "run", "run", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "mAP over the same 8 videos" in compared.stdout

    video = str(next((data_root / "val").rglob("*.mp4")))
    by_class = run_command(
        *("predict", "run", video, "thresholds=run/evaluation/results.json"),
        *("format=json", "timeline=true", "annotate=seen.mp4", "timeline_picture=line.png"),
        cwd=tmp_path,
    )
    assert by_class.returncode == 0, by_class.stderr
    assert all(
        each["score"] >= content["thresholds"][each["label"]] - 1e-6
        for each in json.loads(by_class.stdout)["top"]
    )
    assert (tmp_path / "seen.mp4").stat().st_size
    assert (tmp_path / "line.png").stat().st_size

    model = load_model(run / "checkpoints" / "best.ckpt")
    frames = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    clip = (frames.transpose(1, 2) / 255 - 0.45) / 0.225
    with torch.inference_mode():
        exported = with_preprocessing(model, model.card)(frames)
        torch.testing.assert_close(exported, model(clip).sigmoid())
    card = replace(model.card, evaluation=read_evaluation(run / "evaluation" / "results.json"))
    assert card.evaluation["map"] == content["map"]
    assert read_card(card.to_json(), "card").task == "multi_label"
    assert f"mAP {100 * content['map']:.1f} %" in " ".join(describe_card(card))
    every = predict(model, video, num_clips=1, min_score=0.0).seen()
    assert len(every) == 11
    assert sum(score for _, score in every) > 1.5  # each class has its own probability
    assert predict(model, video, num_clips=1, min_score=1.0).seen() == []


def test_a_network_is_not_evaluated_on_labels_of_the_other_kind() -> None:
    several = composed("evaluate", "data=multi_label", "data.root=/d")
    one = composed("evaluate", "data=custom", "data.root=/d")
    of_several = ModelCard(model={}, task="multi_label")
    check_card(several, of_several, "x.ckpt")
    check_card(one, ModelCard(model={}), "x.ckpt")
    check_card(several, None, "x.pyth")
    for cfg, card in ((several, ModelCard(model={})), (one, of_several)):
        with pytest.raises(UserError, match=r"x\.ckpt was trained for"):
            check_card(cfg, card, "x.ckpt")


def test_options_of_one_label_are_refused_and_map_is_monitored() -> None:
    for group, name in (("checkpoints_progress", "val/map"), ("ema", "val/ema_map")):
        cfg = composed("config", "data=charades", "data.root=/d", f"callbacks={group}")
        resolve_task(cfg)
        assert cfg.callbacks.best.monitor == name
        check_verb(cfg, "train")
    for word in ("data.balanced=true", "data.shards=/s", "logit_adjustment=1"):
        with pytest.raises(UserError, match=f"{word.partition('=')[0]} is for "):
            resolve_task(composed("config", "data=multi_label", "data.root=/d", word))
    with pytest.raises(UserError, match="motion is for videos of one class"):
        resolve_task(composed("evaluate", "data=multi_label", "data.root=/d", "motion=[frozen]"))
    with pytest.raises(UserError, match="browse is for videos of one class"):
        refuse_other_tasks(cfg, "browse")
    untouched = composed("config", "data=custom", "data.root=/d")
    resolve_task(untouched)
    assert untouched.callbacks.best.monitor == "val/top1"


def test_validation_without_a_class_chooses_no_checkpoint() -> None:
    cfg = composed("config", "data=multi_label", "data.root=/d")
    resolve_task(cfg)
    manifest = MultiLabelManifest(
        root="/d",
        names=PackedStrings.of(["a.mp4"]),
        labels=np.zeros(1, np.int32),
        class_names=("x", "y"),
        label_sets=np.zeros((1, 2), np.bool_),
    )
    data = cast(VideoDataModule, SimpleNamespace(manifests={"val": manifest}))
    with pytest.raises(UserError, match="no video of the validation list has a class"):
        check_monitor(cfg, data)
    data.manifests["val"] = replace(manifest, label_sets=np.array([[False, True]]))
    check_monitor(cfg, data)
    data.manifests["val"] = manifest
    cfg.callbacks.best.monitor = "val/loss"
    check_monitor(cfg, data)


@pytest.mark.parametrize(
    ("data", "place"),
    [("multi_label", "/d/train"), ("custom", "/d/train"), ("kinetics400", "/d")],
)
def test_classes_that_no_checkpoint_holds_are_named_with_the_list(data: str, place: str) -> None:
    cfg = composed("config", f"data={data}", "data.root=/d")
    check_class_list(cfg, ["walk", "日本語"])
    for names, message in (
        (["x" * 501], r": 'x.* is not a text of at most 500 characters"),
        (["walk", os.fsdecode(b"caf\xe9")], r": 'caf\\udce9' is not a text in Unicode"),
        ([str(i) for i in range(50_001)], r" has 50,001 classes, and a checkpoint holds 50,000"),
    ):
        with pytest.raises(UserError, match=f"^{place}{message}"):
            check_class_list(cfg, names)
