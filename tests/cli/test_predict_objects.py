"""video-mvit predict with a detector: pictures, videos, annotated copies, mistakes."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.commands import composed
from support.videos import write_numbered_video

pytest.importorskip("torchvision")
pytest.importorskip("pycocotools")

import video_mvit
from video_mvit.cli import predict
from video_mvit.cli.predict_objects import MultiScaleDetector, load_finder
from video_mvit.detection.predict import ObjectFinder
from video_mvit.detection.weights import write_detector
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.model_card import ModelCard

pytestmark = pytest.mark.slow  # a command as a whole
NAMES = ("circle", "square", "triangle")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures, a broken one, a video, and a detector and a classifier of random weights."""
    root = tmp_path_factory.mktemp("objects")
    torch.manual_seed(0)
    detector = video_mvit.create_detector("mask_rcnn_mvitv2_demo", num_classes=3)
    card = ModelCard(
        model=asdict(detector.config),
        short_side=96,
        max_side=160,
        class_names=NAMES,
        category_ids=(1, 2, 3),
    )
    write_detector(root / "det.safetensors", detector.state_dict(), card)
    classifier = video_mvit.create_model("mvitv2_demo", num_classes=8)
    write_safetensors(root / "classifier.safetensors", classifier.state_dict(), None)
    (root / "pictures").mkdir()
    for i, name in enumerate(("a.png", "b.jpg")):
        pixels = np.random.default_rng(i).integers(0, 255, (70, 90, 3), np.uint8)
        Image.fromarray(pixels).save(root / "pictures" / name)
    write_numbered_video(root / "clip.mp4", 7)
    return root


def run(root: Path, *options: str, checkpoint: str = "det.safetensors") -> None:
    fixed = [f"checkpoint={root}/{checkpoint}", "device=cpu", "min_score=0.1"]
    predict.main(composed("predict", *fixed, *options))


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_folder_of_pictures_gives_rows_and_drawn_copies(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.jsonl"
    run(root, f"image={root}/pictures", f"output={output}", "format=json", f"annotate={tmp_path}")
    first, second = lines(output)
    assert [Path(each["file"]).name for each in (first, second)] == ["a.png", "b.jpg"]
    assert (first["height"], first["width"]) == (70, 90)
    assert first["objects"]
    assert all(each["label"] in NAMES and each["score"] >= 0.1 for each in first["objects"])
    assert [Image.open(tmp_path / name).format for name in ("a.jpg", "b.jpg")] == ["JPEG"] * 2


def test_single_picture_is_drawn_into_the_named_file(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "drawn.png"
    run(root, f"image={root}/pictures/a.png", f"annotate={target}", f"output={tmp_path}/a.txt")
    assert Image.open(target).format == "PNG"
    with pytest.raises(SystemExit, match="exists; overwrite=true replaces it"):
        run(root, f"image={root}/pictures/a.png", f"annotate={target}")


@pytest.mark.parametrize(("value", "suppression"), [("false", "nms"), ("true", "soft_nms")])
def test_suppression_is_that_of_the_option(root: Path, value: str, suppression: str) -> None:
    cfg = composed("predict", "device=cpu", f"soft_nms={value}")
    assert load_finder(cfg, root / "det.safetensors").detector.config.suppression == suppression


def test_several_sizes_of_a_picture_are_one_answer(root: Path) -> None:
    detector = MultiScaleDetector(video_mvit.load_detector(root / "det.safetensors"), (64, 96))
    finder = ObjectFinder(detector=detector, class_names=NAMES, min_score=0)
    found = finder.find(np.asarray(Image.open(root / "pictures" / "a.png")))
    assert len(found.scores) > 0
    assert found.masks.shape[1:] == (70, 90)


def test_video_is_examined_every_third_frame(root: Path, tmp_path: Path) -> None:
    target, output = tmp_path / "out.mp4", tmp_path / "found.csv"
    options = [f"video={root}/clip.mp4", f"annotate={target}", "format=csv", "every=3"]
    run(root, *options, f"output={output}")
    frames = {line.split(",")[1] for line in output.read_text().splitlines()[1:]}
    assert frames == {"0", "3", "6"}
    assert target.stat().st_size > 1000


def test_broken_picture_is_named_and_the_others_examined(root: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    pictures = f"image=[{tmp_path}/broken.jpg,{root}/pictures/a.png]"
    with pytest.raises(SystemExit, match="1 of 2 images could not be read"):
        run(root, pictures, f"output={tmp_path}/found.json", "format=json")
    first, second = lines(tmp_path / "found.json")
    assert "problem" in first
    assert "objects" in second


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name what to examine"),
        (["image=PICTURES", "video=clip.mp4"], "video and image are both given"),
        (["image=PICTURES", "every=0"], "every is 0"),
        (["image=PICTURES", "min_score=2"], "min_score is 2"),
        (["image=PICTURES", "explain=true"], "explain is of classifiers"),
        (["image=PICTURES", "soft_nms=some"], "soft_nms is 'some'"),
        (["image=PICTURES/none"], "no file or folder"),
    ],
)
def test_mistakes_are_one_sentence(root: Path, options: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{said}"):
        run(root, *(option.replace("PICTURES", f"{root}/pictures") for option in options))


def test_classifiers_take_no_pictures(root: Path) -> None:
    with pytest.raises(SystemExit, match="classifies videos, and image is for detectors"):
        run(root, f"image={root}/pictures", checkpoint="classifier.safetensors")
