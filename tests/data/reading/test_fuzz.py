"""Mutated videos: whatever the bytes, reading ends, in frames or in a `VideoDecodeError`."""

import json
import multiprocessing
import random
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from support.broken import write_textured_video
from support.processes import TIMEOUT_S

from video_mvit.data.reading import pyav_reader
from video_mvit.data.reading.open import DecodeLimits, VideoDecodeError, examine_video, open_video

NUM_MUTANTS = 64
MAX_TIME_S = 10.0
CODECS = {"a.mp4": "libx264", "b.webm": "libvpx", "c.avi": "mpeg4", "d.ts": "libx264"}
EXTREMES = (b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\xff" * 8)

Mutation = Callable[[bytearray, random.Random], None]


def flip_bits(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 3, 30))):
        content[_place(content, chance)] ^= 1 << chance.randrange(8)


def cut_off(content: bytearray, chance: random.Random) -> None:
    del content[_place(content, chance) :]


def cut_out(content: bytearray, chance: random.Random) -> None:
    place = _place(content, chance)
    del content[place : place + chance.choice((1, 7, 900))]


def repeat(content: bytearray, chance: random.Random) -> None:
    place, size = _place(content, chance), chance.choice((1, 4, 900))
    content[place:place] = content[place : place + size]


def write_extreme(content: bytearray, chance: random.Random) -> None:
    place, number = _place(content, chance), chance.choice(EXTREMES)
    content[place : place + len(number)] = number


MUTATIONS: tuple[Mutation, ...] = (flip_bits, cut_off, cut_out, repeat, write_extreme)


def _place(content: bytearray, chance: random.Random) -> int:
    """Anywhere, but as often in the headers at both ends as between them."""
    size = max(len(content), 1)
    return (
        chance.choice(
            [
                chance.randrange(size),
                min(chance.randrange(900), size - 1),
                -1 - chance.randrange(size),
            ]
        )
        % size
    )


def mutate(content: bytes, chance: random.Random) -> bytes:
    mutant = bytearray(content)
    for _ in range(chance.choice((1, 1, 3))):
        if len(mutant) > 1:
            chance.choice(MUTATIONS)(mutant, chance)
    return bytes(mutant)


def read_all(folder: Path, result: Path, in_memory_size: int) -> None:
    """Runs in a process of its own, which may crash: one line for each file."""
    av.logging.set_level(av.logging.PANIC)
    pyav_reader.IN_MEMORY_SIZE = in_memory_size
    with result.open("w") as lines:
        for path in sorted(folder.iterdir()):
            outcomes = [_outcome(read_some, path)]
            outcomes.append(_outcome(examine_video, path, DecodeLimits(time_s=MAX_TIME_S)))
            lines.write(json.dumps({"path": str(path), "outcomes": outcomes}) + "\n")
            lines.flush()


def read_some(path: Path) -> None:
    with open_video(path, decode_limits=DecodeLimits(time_s=MAX_TIME_S)) as video:
        for index in (0, video.num_frames // 2, video.num_frames - 1):
            assert video.read([index, index]).shape[0] == 2
        assert video.fps > 0


def _outcome(read: Callable[..., object], *arguments: object) -> str:
    try:
        read(*arguments)
    except VideoDecodeError as error:
        return "unreadable" if error.reason else "no reason"
    return "read"


def run_apart(folder: Path, result: Path, in_memory_size: int) -> list[dict[str, object]]:
    process = multiprocessing.get_context("spawn").Process(
        target=read_all, args=(folder, result, in_memory_size)
    )
    process.start()
    process.join(TIMEOUT_S)
    if process.is_alive():
        process.kill()
    lines = [json.loads(line) for line in result.read_text().splitlines()]
    names = [path.name for path in sorted(folder.iterdir())]
    assert process.exitcode == 0, f"{process.exitcode} at {names[len(lines) : len(lines) + 1]}"
    assert len(lines) == len(names)
    return lines


@pytest.mark.slow
@pytest.mark.parametrize("in_memory_size", [pyav_reader.IN_MEMORY_SIZE, 0], ids=["short", "long"])
def test_mutated_videos_are_read_or_refused(tmp_path: Path, in_memory_size: int) -> None:
    whole = [
        write_textured_video(tmp_path / name, codec=codec, num_frames=15)
        for name, codec in CODECS.items()
    ]
    folder, chance = tmp_path / "mutants", random.Random(7)
    folder.mkdir()
    for i in range(NUM_MUTANTS):
        source = whole[i % len(whole)]
        (folder / f"{i:03d}{source.suffix}").write_bytes(mutate(source.read_bytes(), chance))
    lines = run_apart(folder, tmp_path / "result", in_memory_size)
    outcomes = [outcome for line in lines for outcome in line["outcomes"]]
    assert set(outcomes) == {"read", "unreadable"}
    assert min(outcomes.count(kind) for kind in ("read", "unreadable")) > NUM_MUTANTS // 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_mutated_pictures_are_read_or_refused(suffix: str, tmp_path: Path) -> None:
    chance, outcomes = random.Random(7), []
    noise = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"whole{suffix}")
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    for i in range(NUM_MUTANTS):
        folder = tmp_path / f"{i}"
        folder.mkdir()
        (folder / f"1{suffix}").write_bytes(mutate(whole, chance))
        outcomes.append(_outcome(read_some, folder))
    assert set(outcomes) == {"read", "unreadable"}
