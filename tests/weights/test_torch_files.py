"""PyTorch files: checksums, storages, and what their pickles may hold."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from video_mvit.errors import UserError
from video_mvit.weights.checkpoint_files import read_weight_file, write_safetensors
from video_mvit.weights.pickle_limits import Ignored
from video_mvit.weights.pickle_stubs import STUBS
from video_mvit.weights.torch_files import read_torch_file

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def saved(path: Path, content: Any, *, how: str = "zip") -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    return path


@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_tensors_and_plain_values_come_out_as_they_went_in(tmp_path: Path, how: str) -> None:
    base = torch.arange(12.0)
    content = {
        "view": base[2:8].reshape(2, 3).T,
        "whole": base,
        "parameter": nn.Parameter(torch.ones(2)),
        "half": torch.ones(2, dtype=torch.float16),
        "bf16": torch.ones(2, dtype=torch.bfloat16),
        "counter": torch.tensor(3),
        "flags": torch.tensor([True, False]),
        "complex": torch.tensor([1j]),
        "empty": torch.zeros(0, 3),
        "one wide axis": torch.ones(3)[None].expand(1, 3),
        "settings": {"lr": 0.1, "names": ["a", "é"], "size": torch.Size((1, 2)), 3: None},
        "device": torch.device("cpu"),
        "set": {1, 2},
        "bytes": b"\xff",
    }
    found = read_torch_file(saved(tmp_path / "a.pth", content, how=how))
    assert list(found) == list(content)
    for name, value in content.items():
        if isinstance(value, Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


def test_state_dict_of_optimizer_and_numpy_beside_it_are_read(tmp_path: Path) -> None:
    moments = {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}
    groups = [{"lr": 0.1, "betas": (0.9, 0.999), "foreach": None, "params": [0, 1]}]
    optimizer = {"state": {0: moments}, "param_groups": groups}
    content = {"o": optimizer, "loss": np.float64(2), "curve": np.ones(3), "p": Path()}
    path = saved(tmp_path / "a.pth", content)
    with pytest.raises(UserError, match=r"would run (numpy|pathlib)"):
        read_torch_file(path)
    found = read_torch_file(path, ignore_settings=True)
    assert torch.equal(found["o"]["state"][0]["exp_avg"], torch.ones(2))
    assert found["o"]["param_groups"] == groups


def test_every_flipped_byte_of_values_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", STATE)
    content, values = path.read_bytes(), struct.pack("<6f", *range(6))
    start = content.index(values)
    for place in range(start, start + len(values)):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"a\.pth is damaged or truncated .*Bad CRC-32"):
            read_torch_file(path)


def rebuilt(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> Path:
    """The zip with other records, whose checksums are right."""
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, content in records.items():
            file.writestr(name, change(name, content))
    return path


def test_compressed_records_are_refused_before_they_expand(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"a": torch.zeros(1_000_000)})
    rebuilt(path, lambda _, content: content, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="a record is compressed, which PyTorch never does"):
        read_torch_file(path)
    saved(path, STATE)
    rebuilt(path, lambda _, content: content)
    assert torch.equal(read_torch_file(path)["a.bias"], STATE["a.bias"])


def test_storage_of_another_size_than_its_record_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", STATE)
    rebuilt(path, lambda name, content: content[:-4] if name.endswith("data/1") else content)
    with pytest.raises(UserError, match="storage 1 has another size than its record"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.zeros(1).expand(2**40), r"x\.y repeats its values \(a stride of 0\)"),
        (torch.ones(2, 1).expand(2, 3), r"x\.y repeats its values"),
        (torch.zeros(5).as_strided((3, 3), (1, 1)), r"x\.y reaches beyond the values"),
        (torch.empty(2**40, device="meta"), r"x\.y has no values \(a meta tensor\)"),
        (torch.eye(2).to_sparse(), r"would run torch\._utils\._rebuild_sparse_tensor"),
    ],
)
@pytest.mark.parametrize("how", ["zip", "legacy"])
def test_tensor_without_values_of_its_own_is_named(
    tmp_path: Path, tensor: Tensor, problem: str, how: str
) -> None:
    path = saved(tmp_path / "a.pth", {"x": {"y": tensor}, "z": torch.ones(1)}, how=how)
    with pytest.raises(UserError, match=problem):
        read_torch_file(path)


def test_tensors_that_share_one_storage_again_and_again_are_refused(tmp_path: Path) -> None:
    base = torch.zeros(1_000_000)
    path = saved(tmp_path / "a.pth", [base[i:] for i in range(3)])
    assert len(read_torch_file(path)) == 3
    with pytest.raises(UserError, match="share their values again and again"):
        read_torch_file(saved(path, [base[i:] for i in range(10)]))


def with_pickle(path: Path, text: bytes) -> Path:
    saved(path, STATE)
    return rebuilt(path, lambda name, content: text if name.endswith("data.pkl") else content)


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0%cX\x03\0\0\0cpuK%ctQ"

TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n("
    + STORAGE % (b"0", 6)
    + b"K\x00K\x06\x85K\x01\x85\x89%btR."
)
LATE_HOOKS = TENSOR[:-1] % b"ccollections\nOrderedDict\n)Rq\x00" + b"h\x00(K\x00K\x01u0."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "is damaged"),
        (b"cbuiltins\nset\n](" + b")" + b"\x85" * 99 + b"e\x85R.", "key of a dictionary"),
        (b"ccollections\nOrderedDict\n)R](K\x01K\x02eb.", "state of something"),
        (b"cposix\nsystem\nX\x01\0\0\0a\x85R.", r"would run posix\.system"),
        (b"ctorch.storage\n_load_from_bytes\n.", r"would run torch\.storage\._load_from_bytes"),
        (STORAGE % (b"0", b"\x07") + b".", "storage 0 has another size"),
        (STORAGE % (b"9", b"\x06") + b".", "storage 9 has another size"),
        (STORAGE % (b"/", b"\x06") + b".", "storage '/' has another size"),
        (
            TENSOR % b"ccollections\nOrderedDict\n)R(K\x00ctorch._utils\n_rebuild_tensor\nu",
            "has hooks",
        ),
        (LATE_HOOKS, "has hooks"),
        (b"}(X\x01\0\0\0actorch._utils\n_rebuild_tensor\nu.", "keeps a class or a function"),
        (b"(X\x06\0\0\0moduleNX\0\0\0\0NNtQ.", "not a whole storage"),
        (b"]" * 2000 + b"a" * 1999 + b".", "nested more than"),
    ],
)
def test_hostile_pickle_in_a_zip_is_refused(tmp_path: Path, text: bytes, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        read_torch_file(with_pickle(tmp_path / "a.pth", b"\x80\x02" + text))


@pytest.mark.parametrize("name", sorted(set(STUBS) - {"builtins.set"}))  # which is read
def test_every_class_of_trainers_is_an_inert_stub(tmp_path: Path, name: str) -> None:
    module, _, short = name.rpartition(".")
    called = f"c{module}\n{short}\n".encode() + b"(X\x01\0\0\0atR"
    text = b"\x80\x02}(X\x01\0\0\0a" + TENSOR[:-1] % b"}" + b"X\x01\0\0\0b" + called + b"u."
    found = read_torch_file(with_pickle(tmp_path / "a.pth", text), ignore_settings=True)
    assert torch.equal(found["a"], torch.arange(6.0))
    assert type(found["b"]) in (Ignored, OrderedDict, list)
    assert not found["b"] or isinstance(found["b"], Ignored)
    with pytest.raises(UserError, match="is refused: it would run"):
        read_torch_file(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("archive/data/1", "two records have one name"),
        ("archive/DATA/1", "two records have one name"),
        ("other/data/7", "its records are in two folders"),
        ("archive/constants.pkl", "it is a TorchScript program"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_records_of_other_programs_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = saved(tmp_path / "archive.pth", STATE)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(name, b"")
    with pytest.raises(UserError, match=reason):
        read_torch_file(path)


def test_zip_with_a_huge_directory_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as file:
        for i in range(10):
            file.writestr(zipfile.ZipInfo(f"a/{i}"), b"")
    monkeypatch.setattr("video_mvit.weights.zip_records.MAX_RECORDS", 9)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("read"))
    with pytest.raises(UserError, match="too many records"):
        read_torch_file(path)


def test_legacy_file_is_checked_against_its_size_and_has_no_checksums(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "a.pth", STATE, how="legacy")
    content = path.read_bytes()
    with caplog.at_level("INFO"):
        read_torch_file(path)
    assert "is of PyTorch before 1.6, which wrote no checksums" in caplog.text
    for size in range(len(content) - 40, len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match="is damaged or truncated"):
            read_torch_file(path)
    path.write_bytes(content.replace(struct.pack("<q", 6), struct.pack("<q", 2**40)))
    with pytest.raises(UserError, match="is damaged or truncated"):
        read_torch_file(path)


def test_files_of_others_without_checksums_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.ones(3, np.float32)}))
    save_file(STATE, tmp_path / "b.safetensors")
    write_safetensors(tmp_path / "ours.safetensors", STATE, None)
    with caplog.at_level("INFO"):
        for path in sorted(tmp_path.iterdir()):
            read_weight_file(path)
    told = [record.getMessage() for record in caplog.records]
    kinds = {"a.pkl": "pickle", "b.safetensors": "safetensors file"}
    assert told == [
        f"{tmp_path / name} is a {kind} without checksums: damage to its numbers would not be found"
        for name, kind in kinds.items()
    ]


def test_torch_file_named_as_safetensors_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors", STATE)
    assert torch.equal(read_torch_file(path)["a.bias"], STATE["a.bias"])


def test_plain_pickle_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="is damaged or truncated"):
        read_torch_file(path)
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    path.write_bytes(buffer.getvalue() + b"more")
    with pytest.raises(UserError, match="its end is missing"):
        read_torch_file(path)
