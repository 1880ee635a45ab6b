"""The cache of features: exact, goes on after a kill, and believes nothing that is not checked."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from video_mvit.errors import UserError
from video_mvit.probing.features_cache import FeatureCache, Sizes, Views, as_stored, identity

SIZES = Sizes(num_views=2, num_tokens=3, dim=4)
ABOUT = {"weights_sha1": "a", "protocol": "2x1"}


def opened(root: Path, about: dict[str, str] = ABOUT, sizes: Sizes = SIZES) -> FeatureCache:
    cache = FeatureCache(root, about, sizes)
    cache.open()
    return cache


def rows(seed: int) -> torch.Tensor:
    return torch.randn(2, 1 + 3, 4, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def videos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for path in paths:
        path.write_bytes(b"video")
    return [identity(str(path)) for path in paths]


def same(one: Views, other: Views) -> bool:
    assert one.tokens is not None
    assert other.tokens is not None
    return torch.equal(one.features, other.features) and torch.equal(one.tokens, other.tokens)


def test_what_is_read_is_what_was_written(tmp_path: Path, videos: list[str]) -> None:
    cache = opened(tmp_path / "cache")
    for seed, video in enumerate(videos):
        assert video not in cache
        cache.add(video, as_stored(rows(seed)))
    cache.write()
    again = opened(tmp_path / "cache")
    for seed, video in enumerate(videos):
        assert same(again[video], as_stored(rows(seed)))
        assert same(again[video], cache[video])
        assert again[video].features.dtype == torch.float32
        torch.testing.assert_close(again[video].features, rows(seed)[:, 0], rtol=0, atol=0)
    assert SIZES.num_bytes == 2 * 4 * (4 + 2 * 3)


def test_what_was_written_before_a_kill_is_kept(tmp_path: Path, videos: list[str]) -> None:
    cache = opened(tmp_path / "cache")
    cache.add(videos[0], as_stored(rows(0)))
    cache.write()
    cache.add(videos[1], as_stored(rows(1)))  # killed here
    (cache.folder / "000001.safetensors.part").write_bytes(b"half")
    again = opened(tmp_path / "cache")
    assert [video in again for video in videos] == [True, False, False]
    again.add(videos[1], as_stored(rows(1)))
    again.write()
    assert sorted(path.name for path in again.folder.iterdir()) == [
        "000000.safetensors",
        "000001.safetensors",
        "settings.json",
    ]


def test_another_network_or_protocol_has_another_cache(tmp_path: Path, videos: list[str]) -> None:
    cache = opened(tmp_path)
    cache.add(videos[0], as_stored(rows(0)))
    cache.write()
    for about, sizes in (
        ({**ABOUT, "weights_sha1": "b"}, SIZES),
        ({**ABOUT, "protocol": "5x1"}, SIZES),
        (ABOUT, Sizes(num_views=2, num_tokens=0, dim=4)),
    ):
        other = opened(tmp_path, about, sizes)
        assert other.folder != cache.folder
        assert videos[0] not in other


@pytest.mark.parametrize(
    ("name", "holder"),
    [
        ("a.mp4", "a.mp4"),
        ("a.mp4#t=1,2.5", "a.mp4"),
        ("frames", "frames/00001.jpg"),
        ("frames[0:1]", "frames/00001.jpg"),
        ("frames/%05d.jpg", "frames/00001.jpg"),
        ("why!/shard.tar!512+4!a.mp4", "why!/shard.tar"),
    ],
)
def test_a_video_that_was_replaced_is_read_again(tmp_path: Path, name: str, holder: str) -> None:
    place = tmp_path / holder
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"video")
    before = identity(f"{tmp_path}/{name}")
    assert before == identity(os.path.relpath(f"{tmp_path}/{name}"))
    os.utime(place, (1, 1))
    later = identity(f"{tmp_path}/{name}")
    assert later != before
    place.write_bytes(b"a longer video")
    os.utime(place, (1, 1))
    assert identity(f"{tmp_path}/{name}") != later


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"features": torch.zeros(1, 2, 5)}, "its features are of another shape"),
        ({"features": torch.zeros(1, 2, 4).half()}, "its features are of another type"),
        ({"features": torch.full((1, 2, 4), float("nan"))}, "its features are not finite"),
        ({"tokens": torch.zeros(2, 2, 3, 4).half()}, "its tokens are of another shape"),
    ],
)
def test_other_content_is_refused(
    tmp_path: Path, videos: list[str], change: dict[str, torch.Tensor], complaint: str
) -> None:
    cache = opened(tmp_path / "cache")
    cache.add(videos[0], as_stored(rows(0)))
    cache.write()
    path = cache.folder / "000000.safetensors"
    save_file({**load_file(path), **change}, path, metadata={"videos": '["x"]'})
    with pytest.raises(UserError, match=f"{complaint}; remove it, and its videos are read again"):
        opened(tmp_path / "cache")
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="does not hold features of an earlier run"):
        opened(tmp_path / "cache")


def test_settings_of_others_are_refused(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    (cache.folder / "settings.json").write_text(json.dumps({"weights_sha1": "z"}))
    with pytest.raises(UserError, match=r"settings\.json is of other features; remove it"):
        opened(tmp_path)


def test_tokens_beyond_float16_are_refused() -> None:
    with pytest.raises(UserError, match="exceed the range of float16"):
        as_stored(torch.full((1, 2, 4), 1e6))
