"""video-mvit browse on a small data set: what it finds, writes, and refuses."""

import shutil
from pathlib import Path

import pytest
from omegaconf import DictConfig
from support.commands import composed as composed_of

from video_mvit.cli import browse
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.errors import UserError
from video_mvit.inspection.page import Findings, warnings_of

pytestmark = pytest.mark.slow  # videos are opened in processes of their own


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders: five videos to train on, one broken, and a copy of one to validate on."""
    root = tmp_path_factory.mktemp("browse")
    write_demo_dataset(root / "demo", {"train": 6}, 0, lambda _: None)
    videos = sorted((root / "demo").rglob("*.mp4"))
    for number, video in enumerate(videos[:5]):
        target = root / "own" / "train" / f"class{number % 2}" / video.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, target)
    (target.parent / "broken.mp4").write_bytes(b"no video")
    for number, video in enumerate(videos[4:]):
        target = root / "own" / "val" / f"class{number % 2}" / f"v{number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, target)
    return root / "own"


def composed(root: Path, *words: str) -> DictConfig:
    small = ("model=mvitv2_demo", "clip=8x4", "clip.crop_size=32", "trainer=cpu", "num_workers=1")
    return composed_of("browse", "data=custom", f"data.root={root}", *small, *words)


def found(root: Path, *words: str) -> Findings:
    return browse.browse(browse.resolve(composed(root, *words)))


def test_copy_in_the_other_split_and_broken_file_are_found(root: Path) -> None:
    findings = found(root, "augment=published")
    train, val = findings.splits
    assert [(s.name, len(s.manifest), len(s.opened)) for s in findings.splits] == [
        ("train", 6, 5),
        ("val", 2, 2),
    ]
    (copies,) = findings.copies or ()
    assert (copies.kind, copies.splits) == ("same bytes", ("train", "val"))
    assert [train.video_name(index) for index in train.unreadable] == ["class0/broken.mp4"]
    sentences = warnings_of(findings)
    assert sentences[0].startswith("1 video of val is also in train: ")
    assert sentences[-1] == "1 video of train cannot be read."
    assert [pair.label for pair in findings.pairs] == [0, 0, 0, 1, 1]
    assert "rand-m7-n4-mstd0.5-inc1" in findings.settings["augmentation"]
    assert not val.unreadable


def test_fewer_videos_and_no_search_on_demand(root: Path) -> None:
    findings = found(root, "max_videos=1", "copies=false", "clips_per_class=1")
    assert [split.num_tried for split in findings.splits] == [1, 1]
    assert findings.copies is None
    assert [pair.label for pair in findings.pairs] == [0, 1]


def test_command_writes_one_page_and_replaces_it(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        browse.main(composed(root, "clips_per_class=1", "max_videos=1"))
    assert [path.name for path in tmp_path.iterdir()] == ["browse.html"]
    printed = capsys.readouterr().out
    assert "train  6 videos, 2 classes, 0 files left out" in printed
    assert "page   browse.html" in printed


def refusal(*words: str, root: Path) -> str:
    with pytest.raises(SystemExit) as stop, exit_on_user_error():
        browse.main(composed(root, *words))
    return str(stop.value)


def test_other_files_and_images_are_refused(root: Path, tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.html"
    thesis.write_text("mine")
    sentence = f"{thesis} is there and is no page of browse; overwrite=true replaces it"
    assert refusal(f"output={thesis}", root=root) == f"error: {sentence}"
    assert thesis.read_text() == "mine"
    assert "is a folder; name a file" in refusal(f"output={tmp_path}", root=root)
    detector = ("data=coco", "model=mask_rcnn_mvitv2_demo", "optim=adamw_steps")
    assert "not the images of a detector" in refusal(*detector, root=root)
    with pytest.raises(UserError, match="is no folder"):
        browse.check_output(tmp_path / "gone" / "x.html", overwrite=False)
