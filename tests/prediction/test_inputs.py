"""Places that a person names, and the videos they stand for."""

from pathlib import Path

import pytest

from video_mvit.prediction.inputs import find_videos, output_paths


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "a.MKV", "notes.txt", "sub/c.webm", ".hidden.mp4", "odd [1].mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "0001.jpg").touch()
    return tmp_path


def names(folder: Path, *places: str) -> list[str]:
    found = find_videos([str(folder / place) for place in places])
    return [str(Path(video).relative_to(folder)) for video in found]


def test_folder_gives_all_videos_below_it_and_each_once(folder: Path) -> None:
    assert names(folder, "") == ["a.MKV", "b.mp4", "odd [1].mp4", "sub/c.webm"]
    assert names(folder, "b.mp4", "", "sub") == ["b.mp4", "a.MKV", "odd [1].mp4", "sub/c.webm"]


def test_pattern_gives_what_fits_and_a_file_any_name(folder: Path) -> None:
    assert names(folder, "*.mp4") == ["b.mp4", "odd [1].mp4"]
    assert names(folder, "**/*.webm") == ["sub/c.webm"]
    assert names(folder, "s*") == ["sub/c.webm"]
    assert names(folder, "odd [1].mp4") == ["odd [1].mp4"]
    assert names(folder, "notes.txt", "frames") == ["notes.txt", "frames"]


@pytest.mark.parametrize("place", ["none.mp4", "*.avi", "empty"])
def test_nothing_there_is_one_sentence(folder: Path, place: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=f"no .*{place.lstrip('*')}"):
        names(folder, "b.mp4", place)


def test_copies_have_names_of_their_own(tmp_path: Path) -> None:
    videos, target = ["a/x.mp4", "b/x.avi", "c/y.mkv"], tmp_path / "o.mp4"
    found = output_paths("annotate", tmp_path, ".mp4", videos)
    assert [path.name for path in found.values()] == ["x.mp4", "x_2.mp4", "y.mp4"]
    assert output_paths("annotate", target, ".mp4", videos[:1]) == {"a/x.mp4": target}
    with pytest.raises(ValueError, match=r"annotate is the file .*3 videos; use a folder"):
        output_paths("annotate", target, ".mp4", videos)
    with pytest.raises(ValueError, match="would overwrite the video"):
        output_paths("annotate", tmp_path, ".mp4", [str(tmp_path / "x.mp4")])
