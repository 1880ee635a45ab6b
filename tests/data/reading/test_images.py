"""Picture files as videos of one frame: of every kind right, or refused with a reason."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from video_mvit.data.dataset import ClipPipeline, read_views
from video_mvit.data.lists.custom import ClassFolderSource
from video_mvit.data.lists.manifest import Manifest
from video_mvit.data.lists.shards import ShardSource, write_shards
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, examine_video, open_video
from video_mvit.data.sampling import ClipSpec, RandomClip, UniformClips
from video_mvit.data.sanity_check import sanity_check_videos
from video_mvit.data.transforms.cropping import UniformCrops

CLIP = ClipSpec(num_frames=1, frame_stride=1)
VIEWS = ClipPipeline(sampler=RandomClip(clip=CLIP), crop=UniformCrops(size=16, short_side=16))


def gradient(height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth picture (H, W, 3), which JPEG hardly changes; brighter to the right and below."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 5, columns * 4, (rows + columns) * 3], axis=-1).astype(np.uint8)


def read(path: Path) -> np.ndarray:
    with open_video(path) as video:
        frames = video.read([0])
        assert (video.num_frames, video.size) == (1, frames.shape[1:3])
    assert frames.dtype == np.uint8
    assert frames.shape[::3] == (1, 3)
    return frames[0]


def test_a_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.PNG")
    assert (read(tmp_path / "a.PNG") == gradient()).all()
    facts = examine_video(tmp_path / "a.PNG")
    assert (facts.num_frames, facts.size, facts.codec) == (1, (24, 32), "png")
    with open_video(tmp_path / "a.PNG") as video:
        assert video.read([0, 0, 0]).shape == (3, 24, 32, 3)
        with pytest.raises(ValueError, match="has frame 0 only"):
            video.read([1])
    for sampler in (RandomClip(clip=CLIP), UniformClips(clip=CLIP)):
        pipeline = ClipPipeline(sampler=sampler, crop=VIEWS.crop)
        (clip,) = read_views(str(tmp_path / "a.PNG"), pipeline, np.random.default_rng(0))
        assert clip.shape == (1, 3, 16, 16)
        assert clip.dtype == torch.uint8


@pytest.mark.filterwarnings("error")  # Pillow's, of transparency
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_picture_becomes_rgb(mode: str, tmp_path: Path) -> None:
    rgb = Image.fromarray(gradient())
    grey = np.asarray(rgb.convert("L"))
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 256 + 77)
    elif mode == "P":
        picture = rgb.quantize(64)
    else:
        picture = rgb.convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    transparency = {"transparency": bytes(range(64))} if mode == "P" else {}
    picture.save(path, quality=98, **transparency)
    found = read(path).astype(int)
    if mode == "1":
        assert set(np.unique(found)) == {0, 255}
        return
    expected = gradient() if mode in ("RGB", "RGBA", "CMYK", "P") else grey[:, :, None]
    tolerance = {"CMYK": 4, "P": 20}.get(mode, 0)
    assert np.abs(found - expected).max() <= tolerance


def test_suffix_does_not_decide_what_a_picture_is(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "b.JPEG")
    assert (read(tmp_path / "b.JPEG") == gradient()).all()
    assert examine_video(tmp_path / "b.JPEG").codec == "png"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_picture_is_upright(orientation: int, tmp_path: Path) -> None:
    upright = gradient()
    undone = {  # what a camera held that way stores
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(undone)).save(tmp_path / "a.png", exif=exif)
    assert (read(tmp_path / "a.png") == upright).all()


def damaged(folder: Path) -> dict[str, Path]:
    whole = folder / "whole.jpg"
    Image.fromarray(gradient(200, 300)).save(whole, quality=95)
    content = whole.read_bytes()
    Image.fromarray(gradient()).save(folder / "huge.png")
    header = bytearray((folder / "huge.png").read_bytes())
    header[16:24] = (60_000).to_bytes(4, "big") * 2  # width and height
    header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
    Image.fromarray(gradient(2, 200)).save(folder / "strip.png")
    parts = {"truncated.jpg": content[: len(content) // 2], "empty.jpg": b"", "huge.png": header}
    parts |= {
        "text.jpeg": b"no picture at all\n" * 9,
        "film.jpg": b"\0\0\0\x18ftypmp42" + b"\0" * 99,
    }
    for name, part in parts.items():
        (folder / name).write_bytes(part)
    Image.fromarray(gradient()).save(folder / "other.tga")
    (folder / "other.tga").rename(folder / "tga.png")
    return {name: folder / name for name in (*parts, "strip.png", "tga.png", "nowhere.png")}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("truncated.jpg", "truncated"),
        ("empty.jpg", "an empty file"),
        ("text.jpeg", "text, not a picture"),
        ("film.jpg", "an MP4 or QuickTime video, not a picture"),
        ("tga.png", "no picture in a known format"),
        ("huge.png", "exceeds limit|larger than"),
        ("strip.png", "a strip"),
        ("nowhere.png", "No such file"),
    ],
)
def test_unreadable_picture_is_refused_with_a_reason(
    name: str, reason: str, tmp_path: Path
) -> None:
    path = damaged(tmp_path)[name]
    with pytest.raises(VideoDecodeError, match=rf"cannot decode .*{name}: .*({reason})"):
        read_views(str(path), VIEWS, np.random.default_rng(0))


def test_decode_limits_limits_the_size_of_a_picture(tmp_path: Path) -> None:
    Image.fromarray(gradient()).save(tmp_path / "a.png")
    with pytest.raises(VideoDecodeError, match="larger than 700 pixels"):
        open_video(tmp_path / "a.png", decode_limits=DecodeLimits(frame_pixels=700))


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    for label in ("n01", "n02"):
        (tmp_path / "train" / label).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(gradient()).save(tmp_path / "train" / label / f"{label}_{i}.JPEG")
    return ClassFolderSource(folder=str(tmp_path / "train"), of="picture").read()


def test_first_look_speaks_of_pictures(manifest: Manifest) -> None:
    summary = sanity_check_videos(manifest, VIEWS, num_videos=4, seed=0).summary()
    assert summary == (
        "checked 4 of 6 training videos: all readable; single pictures; 32x24 100 %; jpeg 100 %"
    )


def test_pictures_are_read_from_shards(manifest: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    write_shards(manifest, folder, left_out={}, max_bytes=9000, on_progress=lambda _: None)
    packed = ShardSource(address=str(folder)).read()
    assert packed.class_names == ("n01", "n02")
    for i in range(len(manifest)):
        assert (read(Path(packed.path(i))) == read(Path(manifest.path(i)))).all()
