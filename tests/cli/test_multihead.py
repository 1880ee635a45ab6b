"""Videos with several heads as a person meets them: train, evaluate, predict, export, compare."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.commands import composed, run_command

from video_mvit import load_model, predict
from video_mvit.cli.tables import describe_card
from video_mvit.cli.tasks import check_card, refuse_other_tasks, resolve_task
from video_mvit.cli.weight_files import with_preprocessing
from video_mvit.data.preparation.demo import MOTIONS, write_demo_dataset
from video_mvit.errors import UserError
from video_mvit.weights.hub import readme
from video_mvit.weights.model_card import ModelCard, read_card, read_evaluation

LEAST = ("clip.num_frames=4", "clip.crop_size=32", "data.short_side=32", "data.num_workers=0")
CLASSES = [f"{colour} {motion}" for colour in ("red", "blue") for motion in list(MOTIONS)[:3]]
HEADS = {"colour": 2, "motion": 3}


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's videos; colour and motion are a head each."""
    root = tmp_path_factory.mktemp("heads")
    write_demo_dataset(root, {"train": 18, "val": 12}, 0, lambda _: None, CLASSES)
    for split in ("train", "val"):
        with (root / f"{split}_heads.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "colour", "motion"])
            for path in sorted((root / split).rglob("*.mp4")):
                table.writerow([path.relative_to(root), *path.parent.name.split(" ", 1)])
    return root


@pytest.mark.slow
def test_several_heads_go_through_every_verb(data_root: Path, tmp_path: Path) -> None:
    words = [
        *("experiment=demo", "data=multi_head", f"data.root={data_root}", "optim.num_epochs=1"),
        *(f"data.train_list={data_root}/train_heads", f"data.val_list={data_root}/val_heads"),
        *("data.train_batch_size=6", "augment=published", "class_weights=balanced", *LEAST),
        *("logit_adjustment=null", "label_smoothing=0.1", "run_dir=run"),
    ]
    result = run_command("train", *words, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "2 of 2 classes of colour, 3 of 3 classes of motion, 6 combinations" in result.stdout
    assert "best val/all_top1" in result.stdout
    run = tmp_path / "run"

    result = run_command("evaluate", "run", "data.num_clips=2", "data.num_workers=0", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "top-1, all heads" in result.stdout
    content = json.loads((run / "evaluation" / "results.json").read_text())
    assert content["task"] == "multi_head"
    assert list(content["heads"]) == list(HEADS)
    assert "most certain" in (run / "evaluation" / "report.html").read_text()

    compared = run_command("compare", "run", "run", "--flips", "flips.csv", cwd=tmp_path)
    assert compared.returncode == 0, compared.stderr
    assert "over the same 12 videos" in compared.stdout
    assert "motion" in compared.stdout
    assert (tmp_path / "flips.csv").read_text() == "video,label,before,after,change\n"

    video = str(next((data_root / "val").rglob("*.mp4")))
    more = ("timeline=true", "annotate=seen.mp4", "timeline_picture=line.png", "min_score=0")
    result = run_command("predict", "run", video, "format=csv", *more, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    ranked = [(row["rank"], row["label"].partition(": ")[0]) for row in rows if row["rank"]]
    assert ranked == [(str(i), "colour") for i in (1, 2)] + [(str(i), "motion") for i in (1, 2, 3)]
    assert {row["label"].partition(": ")[0] for row in rows if row["start_s"]} == set(HEADS)
    assert (tmp_path / "seen.mp4").stat().st_size
    assert (tmp_path / "line.png").stat().st_size

    model = load_model(run / "checkpoints" / "best.ckpt")
    assert dict(model.card.heads) == HEADS
    frames = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    clip = (frames.transpose(1, 2) / 255 - 0.45) / 0.225
    with torch.inference_mode():
        logits = model(clip)
        expected = torch.cat([logits[:, :2].softmax(1), logits[:, 2:].softmax(1)], dim=1)
        torch.testing.assert_close(with_preprocessing(model, model.card)(frames), expected)
    by_head = predict(model, video, num_clips=1).by_head(2)
    assert [len(found) for found in by_head.values()] == [2, 2]
    assert sum(score for _, score in by_head["colour"]) == pytest.approx(1, abs=1e-5)
    assert {name for name, _ in by_head["colour"]} == {"red", "blue"}

    card = replace(model.card, evaluation=read_evaluation(run / "evaluation" / "results.json"))
    assert card.evaluation["all_top1"] == content["all_top1"]
    again = read_card(card.to_json(), "card")
    assert list(again.heads.items()) == list(HEADS.items())
    assert "heads          colour (2 classes), motion (3 classes)" in list(describe_card(again))


def test_a_network_is_not_evaluated_on_labels_of_the_other_kind() -> None:
    heads = composed("evaluate", "data=multi_head", "data.root=/d")
    card = ModelCard(model={"num_classes": 3}, task="multi_head", heads={"verb": 1, "noun": 2})
    check_card(heads, card, "x.ckpt")
    with pytest.raises(UserError, match=r"x\.ckpt was trained for single_label, and the data is"):
        check_card(heads, ModelCard(model={}), "x.ckpt")
    with pytest.raises(UserError, match=r"was trained for multi_head"):
        check_card(composed("evaluate", "data=multi_label", "data.root=/d"), card, "x.ckpt")


def test_options_of_one_label_are_refused_and_all_heads_are_monitored() -> None:
    for group, name in (("checkpoints_progress", "val/all_top1"), ("ema", "val/ema_all_top1")):
        cfg = composed("config", "data=epic_kitchens", "data.root=/d", f"callbacks={group}")
        resolve_task(cfg)
        assert cfg.callbacks.best.monitor == name
    for word in ("data.balanced=true", "data.shards=/s"):
        with pytest.raises(UserError, match=f"{word.partition('=')[0]} is for "):
            resolve_task(composed("config", "data=multi_head", "data.root=/d", word))
    with pytest.raises(UserError, match="motion is for videos of one class"):
        resolve_task(composed("evaluate", "data=multi_head", "data.root=/d", "motion=[frozen]"))
    with pytest.raises(UserError, match="browse is for videos of one class"):
        refuse_other_tasks(cfg, "browse")
    resolve_task(composed("config", "data=multi_head", "data.root=/d", "logit_adjustment=1"))


def test_readme_of_a_pushed_model_tells_the_heads() -> None:
    pytest.importorskip("huggingface_hub")
    card = ModelCard(
        model={"num_classes": 3, "num_frames": 4, "crop_size": 32},
        task="multi_head",
        heads={"verb": 1, "noun": 2},
        evaluation={
            "protocol": "1x1@4x4",
            "all_top1": 0.25,
            "heads": {"verb": {"top1": 0.5}, "noun": {"top1": 0.75}},
        },
    )
    text = readme(card, "me/model")
    assert "softmax of its logits, in this order: verb (1), noun (2)." in text
    assert "Top-1 of all heads together 25.0 %, verb 50.0 %, noun 75.0 % (1x1@4x4" in text
    assert "name: top-1 accuracy of all heads together (1x1@4x4)" in text
