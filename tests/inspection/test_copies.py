"""Copies are found by content: other names, sizes, codecs and rates; other videos are not."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from video_mvit.data.lists.manifest import Manifest, PackedStrings
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.data.reading.open import DecodeLimits
from video_mvit.inspection.copies import PART_BYTES, find_copies, same_bytes, same_pictures
from video_mvit.inspection.videos import (
    GLANCE_SIDE,
    NUM_GLANCES,
    OpenedVideo,
    Split,
    glance_at,
    spread,
)

SIDE = 96
LIMITS = DecodeLimits()


def scene(camera: int, walk: int, instant: float) -> NDArray[np.uint8]:
    """A room as a camera sees it, (H, W, 3), in which a small square walks."""
    room = np.random.default_rng(camera).uniform(40, 160, (6, 6, 3)).astype(np.uint8)
    picture = Image.fromarray(room).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.array(picture)
    draws = np.random.default_rng(walk)
    (y, x), (dy, dx) = draws.uniform(0, 60, 2), draws.uniform(-30, 30, 2)
    top, left = int(np.clip(y + dy * instant, 0, 70)), int(np.clip(x + dx * instant, 0, 70))
    pixels[top : top + 10, left : left + 10] += 28
    return pixels


def write(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    fps: int,
    size: tuple[int, int] = (SIDE, SIDE),
    codec: str = "libx264",
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for pixels in frames:
            resized = Image.fromarray(pixels).resize(size[::-1])
            picture = av.VideoFrame.from_ndarray(np.asarray(resized), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def walk(
    camera: int, seed: int, *, fps: int = 24, start_s: float = 0.0, end_s: float = 2.0
) -> list[NDArray[np.uint8]]:
    return [scene(camera, seed, i / fps) for i in range(int(start_s * fps), int(end_s * fps))]


def opened(path: Path) -> OpenedVideo:
    video = glance_at((0, str(path)), LIMITS)
    assert isinstance(video, OpenedVideo), video
    return video


def mirrored(frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [np.ascontiguousarray(pixels[:, ::-1]) for pixels in frames]


@pytest.mark.slow
def test_copy_in_another_size_codec_and_rate_is_found_and_nothing_else(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / "a.mp4", walk(1, 1), 24),
        write(tmp_path / "small.mp4", walk(1, 1), 24, size=(48, 64)),
        write(tmp_path / "slow.mkv", walk(1, 1, fps=12), 12, codec="mpeg4"),
        write(tmp_path / "same room.mp4", walk(1, 2), 24),
        write(tmp_path / "other room.mp4", walk(2, 1), 24),
        write(tmp_path / "cut.mp4", walk(1, 1, end_s=1.2), 24),
        write(tmp_path / "mirrored.mp4", mirrored(walk(1, 1)), 24),
    ]
    assert same_pictures([opened(path) for path in paths]) == [[0, 1, 2]]


def painted(seed: int, colour: tuple[int, int, int]) -> list[NDArray[np.uint8]]:
    """A square of a colour that moves over a dark ground, alike but for the colour."""
    draws = np.random.default_rng(seed)
    (y, x), (dy, dx) = draws.uniform(8, 60, 2), draws.uniform(-3, 3, 2)
    frames = []
    for i in range(24):
        frame = np.full((SIDE, SIDE, 3), 40, np.uint8)
        top, left = (int(np.clip(at, 0, 64)) for at in (y + dy * i, x + dx * i))
        frame[top : top + 32, left : left + 32] = colour
        frames.append(frame)
    return frames


@pytest.mark.slow
def test_same_motion_in_another_colour_is_no_copy(tmp_path: Path) -> None:
    paths = []
    for seed in range(4):
        red, blue = painted(seed, (210, 90, 90)), painted(seed, (60, 120, 230))
        paths += [
            write(tmp_path / f"red{seed}.mp4", red, 24),
            write(tmp_path / f"blue{seed}.mp4", blue, 24),
            write(tmp_path / f"small blue{seed}.mkv", blue, 24, size=(48, 64), codec="mpeg4"),
        ]
    expected = [[3 * seed + 1, 3 * seed + 2] for seed in range(4)]
    assert same_pictures([opened(path) for path in paths]) == expected


def made_up(glances: NDArray[np.uint8], duration_s: float = 2.0) -> OpenedVideo:
    return OpenedVideo(
        num_frames=48,
        fps=24.0,
        is_variable=False,
        duration_s=duration_s,
        size=(SIDE, SIDE),
        codec="h264",
        glances=glances,
    )


def test_dark_videos_are_not_copies_but_still_ones_may_be() -> None:
    shape = (NUM_GLANCES, GLANCE_SIDE, GLANCE_SIDE, 3)
    draws = np.random.default_rng(0)
    dark = draws.integers(15, 18, shape).astype(np.uint8)
    still = np.broadcast_to(draws.integers(0, 200, shape[1:]), shape).astype(np.uint8)
    noisy = (still + draws.integers(0, 2, shape)).astype(np.uint8)
    videos = [made_up(dark), made_up(dark), made_up(still), made_up(noisy), made_up(still, 3.0)]
    assert same_pictures(videos) == [[2, 3]]
    assert same_pictures([]) == []


def test_all_videos_of_a_long_list_are_compared() -> None:
    draws = np.random.default_rng(0)
    shape = (NUM_GLANCES, GLANCE_SIDE, GLANCE_SIDE, 3)
    videos = [made_up(draws.integers(0, 256, shape).astype(np.uint8)) for _ in range(1100)]
    videos[1090] = replace(videos[3])
    assert same_pictures(videos) == [[3, 1090]]


def test_same_bytes_are_found_whatever_the_name(tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(3 * PART_BYTES)
    middle = bytearray(content)
    middle[len(content) // 2] ^= 1  # the same size, start and end
    files = {"a.mp4": content, "b.mkv": bytes(middle), "c.mp4": content, "d.mp4": content[:-1]}
    paths = [tmp_path / name for name in files]
    for path, each in zip(paths, files.values(), strict=True):
        path.write_bytes(each)
    os.link(paths[0], tmp_path / "link.mp4")
    for name in ("empty.mp4", "empty too.mp4"):
        (tmp_path / name).touch()
    (tmp_path / "frames").mkdir()
    others = ["link.mp4", "empty.mp4", "empty too.mp4", "frames", "gone.mp4"]
    assert same_bytes([*map(str, paths), *(str(tmp_path / name) for name in others)]) == [[0, 2, 4]]


def split_of(name: str, root: Path, videos: dict[str, int]) -> Split:
    manifest = Manifest(
        root=str(root),
        names=PackedStrings.of(videos),
        labels=np.array(list(videos.values()), np.int32),
        class_names=("x", "y"),
    )
    found = {i: opened(root / video) for i, video in enumerate(videos)}
    return Split(name=name, manifest=manifest, opened=found, unreadable={})


@pytest.mark.slow
def test_copies_across_splits_come_first_and_are_told_once(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", walk(1, 1), 24)
    shutil.copy(tmp_path / "a.mp4", tmp_path / "a2.mp4")
    write(tmp_path / "b.mp4", walk(2, 3), 24)
    write(tmp_path / "b small.mp4", walk(2, 3), 24, size=(64, 64))
    write(tmp_path / "c.mp4", walk(3, 4), 24)
    train = split_of("train", tmp_path, {"a.mp4": 0, "a2.mp4": 1, "b.mp4": 1, "c.mp4": 0})
    val = split_of("val", tmp_path, {"b small.mp4": 1})
    found = find_copies([train, val])
    assert [(each.kind, each.splits, each.num_classes) for each in found] == [
        ("same pictures", ("train", "val"), 1),
        ("same bytes", ("train",), 2),
    ]
    assert [place.video for place in found[0].places] == ["b.mp4", "b small.mp4"]


@pytest.mark.slow
def test_generated_videos_of_one_class_are_not_copies(tmp_path: Path) -> None:
    write_demo_dataset(tmp_path, {"train": 64}, 0, lambda _: None)
    videos = [opened(path) for path in sorted(tmp_path.rglob("*.mp4"))]
    assert len(videos) == 64
    assert same_pictures(videos) == []


def test_videos_are_spread_over_a_list() -> None:
    assert spread(10, 4) == [0, 2, 5, 7]
    assert spread(3, 4) == spread(3, None) == [0, 1, 2]
