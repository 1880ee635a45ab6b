"""Say what a file, folder or address is that holds no weights which are read here, and what to do.

Each sentence follows the name of the file: "is ...; do ...".
"""

import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from video_mvit.text import printable
from video_mvit.weights.torch_files import DAMAGE
from video_mvit.weights.zip_records import check_end

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/.*", re.IGNORECASE)
HUB_ADDRESS = re.compile(r"https?:/+(?:huggingface\.co|hf\.co)/(?P<id>[\w.-]+/[\w.-]+)/?", re.ASCII)
WEIGHT_SUFFIXES = (".safetensors", ".pyth", ".pth", ".pt", ".ckpt", ".pkl", ".bin", ".pth.tar")
# What a path ends in that is no name on a hub.
FILE_SUFFIXES = (
    *WEIGHT_SUFFIXES,
    *(".tar", ".zip", ".gz", ".onnx", ".pt2", ".h5", ".hdf5", ".npz", ".pb", ".tflite", ".json"),
)
MAKE_ANEW = "use the checkpoint that it was made from"
# Offset, first bytes, what the file is and what to do.
MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1f\x8b", "is compressed with gzip; gunzip unpacks it"),
    (0, b"BZh", "is compressed with bzip2; bunzip2 unpacks it"),
    (0, b"\xfd7zXZ\0", "is compressed with xz; unxz unpacks it"),
    (0, b"(\xb5/\xfd", "is compressed with zstd; unzstd unpacks it"),
    (0, b"7z\xbc\xaf'\x1c", "is a 7z archive; unpack it and pass the weight file in it"),
    (0, b"Rar!\x1a\x07", "is a RAR archive; unpack it and pass the weight file in it"),
    (257, b"ustar", "is a tar archive; unpack it and pass the weight file in it"),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file (of Keras, for one); only PyTorch weights are read"),
    (0, b"\x93NUMPY", "is an array of NumPy; only files of named tensors are read"),
    (4, b"TFL3", "is a TensorFlow Lite model; only PyTorch weights are read"),
    (0, b"(dp0", "is a pickle of protocol 0; load it and write it again with protocol=4"),
    (0, b"GGUF", "is a GGUF file; only PyTorch weights and safetensors are read"),
    (4, b"ftyp", "is a video or image, not weights"),
    (0, b"\x1aE\xdf\xa3", "is a video, not weights"),
    (0, b"RIFF", "is a video or image, not weights"),
    (0, b"\x89PNG", "is an image, not weights"),
    (0, b"\xff\xd8\xff", "is an image, not weights"),
    (0, b"%PDF", "is a PDF document, not weights"),
    (
        0,
        b"version https://git-lfs",
        "is a Git LFS pointer, not the file itself; git lfs pull gets it",
    ),
)
# End of a name, and what such a file is if its content does not say it.
SUFFIXES = (
    (r"\.onnx", f"is an ONNX model, from which no weights are read; {MAKE_ANEW}"),
    (r"\.(engine|plan|trt)", f"is a TensorRT engine, from which no weights are read; {MAKE_ANEW}"),
    (
        r"\.(index|meta|data-\d+-of-\d+|pb)",
        "is part of a TensorFlow checkpoint; only PyTorch weights are read",
    ),
    (r"\.msgpack", "is a Flax checkpoint; only PyTorch weights are read"),
    (r"\.distcp", "is a part of a sharded checkpoint; pass its folder to see how it is joined"),
)
# Content of a folder, and what it is.
FOLDERS: tuple[tuple[str, str], ...] = (
    (
        ".metadata",
        "is a sharded checkpoint (FSDP); python -m torch.distributed.checkpoint.format_utils "
        "dcp_to_torch FOLDER weights.pth joins it",
    ),
    (
        "zero_to_fp32.py",
        "is a sharded checkpoint of DeepSpeed; python zero_to_fp32.py . weights in it joins it",
    ),
    ("model.safetensors.index.json", "has weights in several parts; save them as one file"),
    ("pytorch_model.bin.index.json", "has weights in several parts; save them as one file"),
    ("saved_model.pb", "is a TensorFlow model; only PyTorch weights are read"),
    ("data.pkl", "is an unpacked PyTorch file; pass the file as it was before"),
)


def describe_address(text: str) -> str:
    """Describe a web address in place of a file; "" for anything else."""
    if match := HUB_ADDRESS.fullmatch(text):
        return f"is a web address; pass {match['id']}, its name on the hub"
    if ADDRESS.fullmatch(text):
        return "is an address; download the file and pass its path"
    return ""


def describe_folder(path: Path) -> str:
    """Describe a folder without model.safetensors, and which file of it to pass."""
    names = sorted(part.name for part in path.iterdir())
    for name, what in FOLDERS:
        if name in names:
            return what
    if "checkpoints" in names:
        names += sorted(f"checkpoints/{part.name}" for part in path.glob("checkpoints/*.ckpt"))
    if found := [name for name in names if name.lower().endswith(WEIGHT_SUFFIXES)]:
        return f"is a folder; pass a file of it: {_listed(found)}"
    return "is a folder without model.safetensors; pass the weight file"


def describe_zip(path: Path) -> str:
    """Describe a zip that PyTorch did not write for tensors; "" for one of its own."""
    try:
        with path.open("rb") as file:
            check_end(file, path.stat().st_size)
            names = zipfile.ZipFile(file).namelist()
    except DAMAGE:
        return ""  # damaged: told when it is read
    for is_kind, what in ZIPS:
        if any(map(is_kind, names)):
            return what
    if any(name.count("/") == 1 and name.endswith("/data.pkl") for name in names):
        return ""
    found = [name for name in names if name.lower().endswith(WEIGHT_SUFFIXES)]
    if not found:
        return "is a zip archive without weights"
    return f"is a zip archive; unpack it and pass the weight file in it: {_listed(found)}"


def _ends(*ends: str) -> Callable[[str], bool]:
    return lambda name: name.endswith(ends)


ZIPS: tuple[tuple[Callable[[str], bool], str], ...] = (
    (
        _ends("/constants.pkl"),
        "is a TorchScript program, which is code; if you trust it, "
        "torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth') writes its tensors",
    ),
    (
        _ends("archive_format", "models/model.json", "serialized_exported_program.json"),
        f"is a program of torch.export, from which no weights are read; {MAKE_ANEW}",
    ),
    (_ends("model.weights.h5"), "is a Keras model; only PyTorch weights are read"),
    (_ends(".npy"), "is an archive of NumPy arrays; only PyTorch weights are read"),
)


def describe_other_file(path: Path, start: bytes) -> str:
    """Describe a file that begins with `start` and is of no format that is read."""
    for offset, magic, what in MAGIC:
        if start[offset:].startswith(magic):
            return what
    for pattern, what in SUFFIXES:
        if re.search(pattern + "$", path.name.lower()):
            return what
    if _is_onnx(start):
        return SUFFIXES[0][1]
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not weights; the download went wrong"
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        kind = "JSON" if path.suffix == ".json" or text.startswith(b"{") else "a text file"
        return f"is {kind}, not weights; pass the file of the tensors (.pth, .safetensors ...)"
    return "is not a supported weight file (PyTorch, safetensors), or is damaged"


def _is_onnx(start: bytes) -> bool:
    """Return whether a file begins as ONNX does: its version, then a producer or a graph."""
    return start[:1] == b"\x08" and len(start) > 2 and start[1] < 20 and start[2] in b"\x12\x1a\x3a"


def _listed(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
