"""Files, folders and addresses without weights that are read: each is told in one sentence."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import video_mvit
from video_mvit.cli.run_folder import find_checkpoint
from video_mvit.errors import MissingFileError, UserError
from video_mvit.weights.hub import is_hub_id
from video_mvit.weights.load import read_source
from video_mvit.weights.other_networks import describe_other_network

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 8, "depths": (1, 1, 1, 1), "num_classes": 3}


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(video_mvit.create_model("mvitv2_s", **TINY).state_dict())


def assert_told(read: Callable[[], Any], what: str) -> None:
    """Check that an input is refused with one sentence that matches `what`."""
    with pytest.raises(UserError, match=what) as error:
        read()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def zipped(names: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in names.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


ONNX = b"\x08\x0a\x12\x07pytorch\x1a\x052.9.0"
SCRIPT = {"m/data.pkl": b"\x80\x02N.", "m/code/__torch__.py": b"", "m/constants.pkl": b"\x80\x02)."}
PROGRAM = {"m/archive_format": b"pt2", "m/models/model.json": b"{}", "m/byteorder": b"little"}
# Name of a file, its content, and what it is said to be.
FILES: tuple[tuple[str, bytes, str], ...] = (
    (
        "jit.pt",
        zipped(SCRIPT),
        r"is a TorchScript program.*torch\.jit\.load\(FILE\)\.state_dict\(\)",
    ),
    ("demo.pt2", zipped(PROGRAM, zipfile.ZIP_STORED), r"is a program of torch\.export.*checkpoint"),
    ("demo.onnx", ONNX, "is an ONNX model, from which no weights are read; use the checkpoint"),
    ("named.pth", ONNX, "is an ONNX model"),
    (
        "a.zip",
        zipped({"x/a.pth": b"1", "x/readme": b""}),
        r"is a zip archive; unpack .*: x/a\.pth$",
    ),
    ("b.zip", zipped({"readme": b""}), "is a zip archive without weights"),
    ("a.npz", arrays(), "is an archive of NumPy arrays"),
    ("a.keras", zipped({"model.weights.h5": b"", "config.json": b""}), "is a Keras model"),
    ("a.tar", tarred(), "is a tar archive; unpack it and pass the weight file in it"),
    ("a.pth.gz", gzip.compress(b"weights"), "is compressed with gzip; gunzip unpacks it"),
    ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
    ("model.ckpt.index", b"\0\0\0\1", "is part of a TensorFlow checkpoint"),
    ("model.ckpt.data-00000-of-00001", bytes(9), "is part of a TensorFlow checkpoint"),
    ("__0_0.distcp", b"\0\1\2", "is a part of a sharded checkpoint"),
    ("clip.mp4", b"\0\0\0\x20ftypisom" + bytes(99), "is a video or image, not weights"),
    ("a.pth", b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer.*git lfs pull"),
    ("b.pth", b"\n<!DOCTYPE html><html>", "is a web page, not weights; the download went wrong"),
    ("model.json", b'{"a": 1}', "is JSON, not weights; pass the file of the tensors"),
    ("c.pth", b"", "is empty; copy or download it again"),
    ("d.pth", saved({"a": torch.zeros(9000)})[:9000], "is damaged or truncated"),
    ("e.pth", bytes(range(256)), "is not a supported weight file"),
    ("f.pth", saved([torch.zeros(2)]), "contains a list without named tensors"),
    ("g.pth", saved({"optimizer": {"state": {}}, "epoch": 1}), "only optimizer, epoch; pass the"),
    ("h.pth", saved({"a": nn.Linear(2, 2)}), r"would run torch\.nn.*save model\.state_dict\(\)"),
    ("j.pkl", pickle.dumps({"a": 1}, 0), r"is a pickle of protocol 0; .* protocol=4"),
    ("i.pth", saved({"a": torch.ones(2, device="meta")}), "meta tensor.; save it again where its"),
)


@pytest.mark.parametrize(("name", "content", "told"), FILES, ids=[file[0] for file in FILES])
def test_other_file_is_told_for_what_it_is(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert_told(lambda: read_source(path), told)


FOLDERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "fsdp": ((".metadata", "__0_0.distcp"), r"is a sharded checkpoint \(FSDP\).*dcp_to_torch"),
    "deepspeed": (("zero_to_fp32.py", "latest"), "sharded checkpoint of DeepSpeed; python zero_to"),
    "parts": (("model.safetensors.index.json",), "has weights in several parts"),
    "tensorflow": (("saved_model.pb",), "is a TensorFlow model"),
    "unpacked": (("data.pkl", "version"), "is an unpacked PyTorch file"),
    "files": (("a.pth", "b.ckpt", "c.txt"), r"is a folder; pass a file of it: a\.pth, b\.ckpt$"),
    "run": (("checkpoints/best.ckpt",), r"is a folder; pass a file of it: checkpoints/best\.ckpt$"),
    "empty": ((), "is a folder without model.safetensors; pass the weight file"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_is_told_for_what_it_is(tmp_path: Path, name: str) -> None:
    names, told = FOLDERS[name]
    for each in names:
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).touch()
    assert_told(lambda: read_source(tmp_path), told)
    assert_told(lambda: find_checkpoint(str(tmp_path), "runs"), told)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_folder_of_a_hub_has_its_weights(
    tmp_path: Path, state: dict[str, Tensor], name: str
) -> None:
    save_file(state, tmp_path / name)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["MViT"]}))
    assert read_source(tmp_path).state.keys() == state.keys()
    assert find_checkpoint(str(tmp_path), "runs") == tmp_path / name


ADDRESSES = {
    "https://dl.fbaipublicfiles.com/a.pyth": "is an address; download the file and pass its path",
    "s3://bucket/a.pth": "is an address; download the file",
    "https://huggingface.co/owner/name": "is a web address; pass owner/name, its name on the hub",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_address_is_told(address: str) -> None:
    assert not is_hub_id(address)
    assert_told(lambda: video_mvit.load_model(address), ADDRESSES[address])
    assert_told(lambda: find_checkpoint(address, "runs"), ADDRESSES[address])


def test_home_folder_is_expanded(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(state, tmp_path / "a.pth")
    assert read_source("~/a.pth").state.keys() == state.keys()
    assert find_checkpoint("~/a.pth", "runs") == tmp_path / "a.pth"
    with pytest.raises(MissingFileError, match=f"no weight file {tmp_path}/b.pth"):
        read_source("~/b.pth")


@pytest.mark.parametrize("name", ["a/b.onnx", "a/b.pt2", "a/b.pth.tar", "a/b.ZIP", "a/b.h5"])
def test_missing_file_is_no_model_on_a_hub(name: str) -> None:
    assert not is_hub_id(name)
    with pytest.raises(MissingFileError, match="no weight file"):
        read_source(name)


def block(*parts: str, before: str = "") -> list[str]:
    return [f"{before}blocks.{i}.{part}" for i in range(2) for part in parts]


VIT = ("norm1.weight", "attn.qkv.weight", "attn.proj.bias", "mlp.fc1.weight", "ls1.gamma")
NETWORKS: tuple[tuple[list[str], str], ...] = (
    (["layer1.0.conv1.weight"], "a ResNet;"),
    (["module.backbone.layer4.2.conv3.conv.weight"], "a ResNet;"),
    (["s1.pathway0_stem.conv.weight", "s1.pathway1_stem.conv.weight"], "a SlowFast of"),
    (["s2.pathway0_res0.branch2.a.weight"], "a ResNet or X3D of the SlowFast code"),
    (["pos_embed_spatial", *block("attn.pool_k.weight", "attn.qkv.weight")], "an MViTv1"),
    (["model.blocks.1.attn._attention_pool_q.pool.weight"], "a pytorchvideo MViTv1"),
    (["features.1.0.attn.relative_position_bias_table"], "a Swin Transformer"),
    (block(*VIT), "a plain ViT;"),
    (block(*VIT, before="model._orig_mod."), "a plain ViT;"),
    (block(*VIT, "attn.q_bias", before="encoder."), r"a plain ViT \(VideoMAE or BEiT\);"),
    (block(*VIT, "attn.proj_l.weight"), r"another transformer \(12 tensors: "),
    (block(*VIT, "temporal_attn.qkv.weight"), "a TimeSformer;"),
    (block(*VIT, "attn.rel_pos_h", before="image_encoder."), "a ViTDet or SAM;"),
    (["visual.transformer.resblocks.0.attn.in_proj_weight"], "a CLIP model"),
    (["features.0.0.weight", "classifier.weight"], r"another network \(2 tensors: features\.0"),
)


@pytest.mark.parametrize(("names", "what"), NETWORKS, ids=[what for _, what in NETWORKS])
def test_other_network_is_told_for_what_it_is(tmp_path: Path, names: list[str], what: str) -> None:
    torch.save({"state_dict": {name: torch.zeros(1) for name in names}}, tmp_path / "a.pth")
    assert_told(lambda: read_source(tmp_path / "a.pth"), f"this is {what}")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("base_model.model.blocks.0.attn.qkv.lora_A.default.weight", "it has LoRA adapters"),
        ("_fsdp_wrapped_module._flat_param", "its tensors are flattened by FSDP"),
        ("blocks.0.attn.qkv._packed_params._packed_params", "its weights are quantized"),
    ],
)
def test_what_has_to_be_undone_first_is_told(
    tmp_path: Path, state: dict[str, Tensor], name: str, what: str
) -> None:
    network = {f"base_model.model.{key}": tensor for key, tensor in state.items()}
    for content in ({name: torch.zeros(1)}, {**network, f"base_model.model.{name}": T}):
        torch.save(content, tmp_path / "a.pth")
        assert_told(lambda: read_source(tmp_path / "a.pth"), what)


T = torch.zeros(1)


def test_description_takes_no_time_for_odd_names() -> None:
    names = {"layers." * 28 + str(i): None for i in range(300_000)}
    assert "another network (300000 tensors" in describe_other_network(names, "slowfast")
