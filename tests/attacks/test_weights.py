"""Hostile and damaged weight files and cards: one sentence each, or the same numbers."""

import json
import pickle
import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.commands import run_command, run_python
from support.mutate import mutated
from support.pickles import generated_pickle
from torch import Tensor

import video_mvit
from video_mvit.detection.config import DetectorConfig
from video_mvit.errors import UserError
from video_mvit.models.backbone import BackboneConfig
from video_mvit.weights.arrays import read_arrays
from video_mvit.weights.checkpoint_files import read_weight_file, write_safetensors
from video_mvit.weights.model_card import ModelCard
from video_mvit.weights.pickle_limits import BrokenPickleError, Ignored, Known, RefusedPickleError
from video_mvit.weights.pickles import Unbuilt

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_classes": 3}
NAMES = ("jump", "run", "sit")
PLAIN = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    type(None),
    np.number,
    np.bool_,
    np.dtype,
    Ignored,
    Known,
)


def many(small: int, large: int) -> Any:
    """Counts of files: few in every run, all in the long one."""
    return pytest.mark.parametrize("count", [small, pytest.param(large, marks=pytest.mark.long)])


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return video_mvit.create_model("mvitv2_s", **TINY).eval()


@pytest.fixture(scope="module")
def card(model: Any) -> ModelCard:
    return ModelCard(model=asdict(model.config), class_names=NAMES, frame_stride=4)


def assert_plain(content: Any) -> None:
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            assert type(value) in (dict, OrderedDict)
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, np.ndarray):
            assert value.dtype.kind in "biufc"
        else:
            assert isinstance(value, (*PLAIN, Unbuilt)), type(value)


@many(300, 10_000)
def test_generated_pickles_give_plain_values_or_are_refused(tmp_path: Path, count: int) -> None:
    rng, path, outcomes = random.Random(count), tmp_path / "a.pkl", {"read": 0, "refused": 0}
    for _ in range(count):
        path.write_bytes(generated_pickle(rng))
        try:
            assert_plain(read_arrays(path))
            outcomes["read"] += 1
        except (RefusedPickleError, BrokenPickleError):
            outcomes["refused"] += 1
    assert min(outcomes.values()) > count / 50, outcomes


Write = Callable[[Path, Any, ModelCard], None]


def _write_torch(path: Path, model: Any, _: ModelCard) -> None:
    torch.save({"model_state": model.state_dict()}, path)


def _write_legacy(path: Path, model: Any, _: ModelCard) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def _write_checkpoint(path: Path, model: Any, card: ModelCard) -> None:
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    content = {"state_dict": state, "class_names": list(NAMES), "card": asdict(card), "epoch": 1}
    torch.save(content, path)


def _write_arrays(path: Path, model: Any, _: ModelCard) -> None:
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": arrays}))


def _write_exported(path: Path, model: Any, card: ModelCard) -> None:
    write_safetensors(path, model.state_dict(), card)


def _write_others(path: Path, model: Any, _: ModelCard) -> None:
    save_file(dict(model.state_dict()), path)


# Container -> suffix, how it is written, and whether damage to its numbers is always found.
CONTAINERS: Mapping[str, tuple[str, Write, bool]] = {
    "torch": (".pyth", _write_torch, True),
    "legacy": (".pth", _write_legacy, False),
    "training checkpoint": (".ckpt", _write_checkpoint, True),
    "arrays": (".pkl", _write_arrays, False),
    "exported": (".safetensors", _write_exported, True),
    "of others": (".safetensors", _write_others, False),
}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@many(120, 3000)
@pytest.mark.parametrize("container", CONTAINERS)
def test_damaged_file_is_refused_or_gives_the_same_numbers(
    tmp_path: Path, model: Any, card: ModelCard, container: str, count: int
) -> None:
    suffix, write, has_checksums = CONTAINERS[container]
    path, rng = tmp_path / f"m{suffix}", random.Random(f"{container}{count}")
    write(path, model, card)
    content, messages = path.read_bytes(), list[str]()
    before = read_weight_file(path)
    for _ in range(count):
        path.write_bytes(mutated(content, rng))
        try:
            found = read_weight_file(path)
            video_mvit.load_model(str(path))
        except UserError as error:
            messages.append(str(error))
        else:
            if has_checksums:
                assert same(found.state, before.state)
                assert (found.card, found.class_names) == (before.card, before.class_names)
    assert len(messages) > count / 2
    assert not any("\n" in message for message in messages)


def hostile_values() -> Iterator[Any]:
    yield from ({}, {"_target_": "os.system", "_args_": ["true"]}, [[]], [{}])
    yield from ("x" * 10**5, "\ud800")
    yield from (-1, 2**40, 10**40, 1.5e308, float("nan"), float("-inf"), "${oc.env:HOME}", "a\0b")


FIELDS = (
    *(("model", name) for name in asdict(video_mvit.create_model("mvitv2_s", **TINY).config)),
    *((name,) for name in ("variant", "frame_stride", "short_side", "max_side", "sampling")),
    *((name,) for name in ("interpolation", "mean", "std", "class_names", "category_ids")),
    *((name,) for name in ("key_format", "evaluation", "model", "heads")),
    *(("evaluation", name) for name in ("top1", "top5", "mean_class_accuracy", "num_videos")),
    *(("evaluation", name) for name in ("all_top1", "all_top5")),
)


@pytest.mark.slow
@pytest.mark.parametrize("container", ["training checkpoint", "exported"])
def test_every_field_of_a_card_refuses_hostile_values(
    tmp_path: Path, model: Any, card: ModelCard, container: str
) -> None:
    suffix, write, _ = CONTAINERS[container]
    path = tmp_path / f"m{suffix}"
    write(path, model, card)
    evaluation = {"protocol": "5x1", "top1": 0.5, "top5": 0.5}
    for field in FIELDS:
        for value in hostile_values():
            values = {**asdict(card), "evaluation": dict(evaluation)}
            place: Any = values
            for name in field[:-1]:
                place = place[name]
            if field == ("model",) and value == {}:
                continue  # what is known of a network may be nothing
            place[field[-1]] = value
            if container == "exported":
                text = json.dumps({"format": "video_mvit 1", **values})
                path.with_suffix(".json").write_text(text)
            else:
                torch.save({"state_dict": {}, "class_names": [], "card": values}, path)
            with pytest.raises(UserError) as error:
                read_weight_file(path)
            assert field[-1] in str(error.value) or "is not" in str(error.value), (field, value)
            assert len(str(error.value)) < 500


@pytest.mark.slow
@many(120, 3000)
def test_damaged_card_is_refused_or_the_same_network(
    tmp_path: Path, model: Any, card: ModelCard, count: int
) -> None:
    path, rng = tmp_path / "m.safetensors", random.Random(count)
    write_safetensors(path, model.state_dict(), card)
    content, messages = path.with_suffix(".json").read_bytes(), list[str]()
    for _ in range(count):
        path.with_suffix(".json").write_bytes(mutated(content, rng))
        try:
            found = video_mvit.load_model(str(path))
        except UserError as error:
            messages.append(str(error))
        else:
            assert same(found.state_dict(), model.state_dict())
    assert len(messages) > count / 2
    assert not any("\n" in message for message in messages)


SLOW_BOMBS = ("objects", "marks", "memo", "nesting", "many dicts", "many keys", "many calls")
GROWTH = """
import sys
from pathlib import Path
import video_mvit
from video_mvit.detection.weights import load_detector
from video_mvit.errors import UserError
from video_mvit.weights.load import read_source

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

for load in (video_mvit.load_model, load_detector):  # what is imported when it is used
    try:
        load(sys.argv[1])
    except UserError:
        pass
for path in sys.argv[1:]:
    load = load_detector if "detector" in path else video_mvit.load_model
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    try:
        load(path)
        print(path, "was loaded")
    except UserError as error:
        if "\\n" in str(error) or len(str(error)) > 600:
            print(path, "is told in many words")
    if peak() - before > 200:
        print(path, "took", peak() - before, "MB")
"""


def write_bombs(folder: Path, model: Any, card: ModelCard) -> list[Path]:
    """Write small files that want much memory."""
    pickles = {
        "objects": b"(" + b"\x8f" * 3_000_000 + b"t.",
        "dicts": b"(" + b"}" * 3_000_000 + b"t.",
        "memo": b"N" + b"\x94" * 3_000_000 + b".",
        "marks": b"(" * 3_000_000 + b".",
        "nesting": b"]" * 200_000 + b"a" * 199_999 + b".",
        "keys": b"}" + b")" + b"\x85" * 200_000 + b"Ns.",
        "length": b"\x8e" + (2**40).to_bytes(8, "little") + b".",
        "digits": b"\x8b" + (2**31 - 1).to_bytes(4, "little") + b"\1" * 1000 + b".",
        "line": b"c" + b"a" * 3_000_000,
        "doubling": b"]q\0" + b"".join(b"(h%ch%clq%c" % (i, i, i + 1) for i in range(200)) + b".",
    }
    for name, text in pickles.items():
        (folder / f"{name}.pkl").write_bytes(b"\x80\x04" + text)
        text = b"\x80\x02" + text
        _zip_with_pickle(folder / f"{name}.pth", text)
    below = {  # the limits, so that PyTorch reads them as well
        "many dicts": b"(" + b"}" * 680_000 + b"t.",
        "many keys": b"}("
        + b"".join(b"J%bN" % i.to_bytes(4, "little") for i in range(340_000))
        + b"u.",
        "many calls": b"(" + b"ccollections\nOrderedDict\n)R" * 55_000 + b"t.",
    }
    for name, text in below.items():
        _zip_with_pickle(folder / f"{name}.pth", b"\x80\x02" + text)
    tensors = {
        "repeated": torch.zeros(1).expand(2**33),
        "meta": torch.empty(2**33, device="meta"),
    }
    for name, tensor in tensors.items():
        for how in (True, False):
            path = folder / f"{name}{how}.pth"
            torch.save({"a": tensor}, path, _use_new_zipfile_serialization=how)
    base = torch.zeros(2**20)
    torch.save({f"a{i}": base[i:] for i in range(1000)}, folder / "shared.pth")
    state, small = dict(model.state_dict()), torch.zeros(1, 1)
    for i in range(4, 3000):
        state[f"blocks.{i}.attn.pool_q.weight"] = torch.zeros(8, 1, 3, 3, 3)
        state[f"blocks.{i}.attn.rel_pos_h"] = small
    copies = {name: tensor.clone() for name, tensor in state.items()}
    save_file(copies, folder / "blocks.safetensors")
    sizes = {"crop_size": 2048, "num_classes": 50_000, "embed_dim": 8192, "depths": [1000] * 4}
    for name, value in sizes.items():
        path = folder / f"{name}.safetensors"
        write_safetensors(path, model.state_dict(), card)
        text = json.loads(path.with_suffix(".json").read_text())
        text["model"][name] = value
        if name == "num_classes":
            del text["class_names"]
        path.with_suffix(".json").write_text(json.dumps(text))
    text = '{"format": "video_mvit 1", "a": [' + "[]," * 2_000_000
    save_file({"a": small}, folder / "card.safetensors")
    (folder / "card.json").write_text(text)
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({str(i): empty for i in range(400_000)})
    (folder / "header.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    config = DetectorConfig(backbone=BackboneConfig(), fpn_channels=8192, fc_channels=65536)
    parts = {f"{part}.a": small for part in ("proposal_generator", "roi_heads")}
    write_safetensors(folder / "detector.safetensors", parts, ModelCard(model=asdict(config)))
    return sorted(path for path in folder.iterdir() if path.suffix != ".json")


def _zip_with_pickle(path: Path, text: bytes) -> None:
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", text, len(text))
    writer.write_end_of_file()


@pytest.mark.slow
@pytest.mark.parametrize("which", ["quick", pytest.param("all", marks=pytest.mark.long)])
def test_no_file_takes_200_mb_more_than_it_has(
    tmp_path: Path, model: Any, card: ModelCard, which: str
) -> None:
    (tmp_path / "files").mkdir()
    bombs = write_bombs(tmp_path / "files", model, card)
    if which == "quick":
        bombs = [path for path in bombs if path.stem not in SLOW_BOMBS]
    found = run_python(GROWTH, *map(str, bombs), cwd=tmp_path)
    assert (found.returncode, found.stdout) == (0, ""), found.stderr
    assert len(bombs) > 20


@pytest.mark.slow
def test_commands_say_it_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pkl"
    dtype = b"\x80\x04cnumpy\ndtype\n(X\2\0\0\0f4K\0K\1tR"
    path.write_bytes(dtype + b"(K\x03X\1\0\0\0<NNNJ\xff\xff\xff\x7fK\1K\0tb.")
    found = run_command("convert", f"source={path}", "target=m.safetensors", cwd=tmp_path)
    assert found.returncode == 1
    assert found.stderr.count("\n") == 1
    assert "hostile.pkl is refused: it has a data type that NumPy does not write" in found.stderr
