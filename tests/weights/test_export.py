"""Exports that are run before they count: program and ONNX, with and without preprocessing."""

import json
import shutil
import types
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from support.engines import needs_openvino
from torch import Tensor, nn

import video_mvit
from video_mvit.cli.weight_files import with_preprocessing
from video_mvit.data.transforms.augment import Normalize
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.export import (
    Interface,
    WithPreprocessing,
    check_target,
    export,
    open_export,
    write_about,
)
from video_mvit.weights.model_card import ModelCard

TINY = {"num_frames": 4, "crop_size": 32, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_classes": 3}
SUFFIXES = ["pt2", "onnx"]
ALL_SUFFIXES = [*SUFFIXES, "xml"]
CLIP = Interface(
    input="clip", dtype="float32", layout="(B, C, T, H, W)", shape=(3, 4, 32, 32), output="logits"
)


def tiny_model() -> MViT:
    model = video_mvit.create_model("mvitv2_s", **TINY).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # weights large enough for a wrong one to show
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def clips(*batch_sizes: int) -> list[Tensor]:
    return [torch.randn(n, 3, 4, 32, 32) for n in batch_sizes]


def needs(suffix: str) -> None:
    if suffix == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module)
    if suffix == "xml":
        needs_openvino()


@pytest.mark.slow
@pytest.mark.parametrize(
    "suffix",
    # ONNX is exported with preprocessing below, and run for two batch sizes there.
    ["pt2", pytest.param("onnx", marks=pytest.mark.long)],
)
def test_export_gives_the_logits_for_every_batch_size(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    model = tiny_model()
    written = export(model, clips(2, 1), tmp_path / f"model.{suffix}", CLIP)
    assert written.max_abs_diff < 1e-4
    assert [file.name for file in written.files] == [f"model.{suffix}"]
    assert [path.name for path in tmp_path.iterdir()] == [f"model.{suffix}"]
    run = open_export(tmp_path / f"model.{suffix}")
    for clip in clips(1, 2, 3, 8):
        with torch.inference_mode():
            torch.testing.assert_close(run(clip), model(clip), rtol=0, atol=1e-4)
    assert model(clips(2)[0]).std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_preprocessing_takes_bytes_and_gives_probabilities(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    model, normalize = tiny_model(), Normalize(mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4])
    frames = torch.randint(0, 256, (2, 4, 3, 32, 32), dtype=torch.uint8)
    about = Interface(
        input="frames", dtype="uint8", layout="", shape=(4, 3, 32, 32), output="probabilities"
    )
    network = WithPreprocessing(normalize, model).eval()
    written = export(network, [frames, frames[:1]], tmp_path / f"model.{suffix}", about)
    names = ["model.bin", "model.xml"] if suffix == "xml" else [f"model.{suffix}"]
    assert [file.name for file in written.files] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    pixels = frames.transpose(1, 2).float() / 255
    means, stds = (torch.tensor(x).view(1, 3, 1, 1, 1) for x in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    with torch.inference_mode():
        expected = model((pixels - means) / stds).softmax(dim=-1)
    for repeats in (1, 3):  # other batch sizes than those of the export
        found, wanted = written.run(frames.repeat(repeats, 1, 1, 1, 1)), expected.repeat(repeats, 1)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_int8_takes_a_quarter_of_the_bytes_of_linear_layers(tmp_path: Path) -> None:
    needs("xml")
    torch.manual_seed(0)
    layers = nn.Linear(3 * 4 * 32 * 32, 32), nn.GELU(), nn.Linear(32, 3)
    network = nn.Sequential(nn.Flatten(), *layers).eval()
    sizes = []
    for each in (CLIP, replace(CLIP, weights="int8")):
        written = export(network, clips(2, 1), tmp_path / f"{each.weights}.xml", each)
        sizes.append((tmp_path / f"{each.weights}.bin").stat().st_size)
    num_weights = 3 * 4 * 32 * 32 * 32
    assert sizes[0] == pytest.approx(4 * num_weights, rel=0.01)
    assert sizes[1] == pytest.approx(num_weights, rel=0.01)
    assert 1e-5 < written.difference < 0.1
    with torch.inference_mode():
        expected = network(clip := clips(5)[0])
    tolerance = 0.1 * expected.abs().max().item()
    torch.testing.assert_close(written.run(clip), expected, rtol=0, atol=tolerance)


@pytest.mark.slow
def test_int8_export_that_differs_is_not_kept(tmp_path: Path) -> None:
    needs("xml")
    network = Traced(0.5).eval()
    with pytest.raises(ValueError, match=r"was not written: its logits are .* from the model's"):
        export(network, clips(2), tmp_path / "model.xml", replace(CLIP, weights="int8"))
    assert not list(tmp_path.iterdir())


class Traced(nn.Module):
    """Computes something else where it is traced, as a faulty exporter would make it."""

    def __init__(self, difference: float = 1e-3) -> None:
        super().__init__()
        self.difference = difference

    def forward(self, clip: Tensor) -> Tensor:
        return clip.flatten(1)[:, :3] + (self.difference if torch.compiler.is_exporting() else 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ALL_SUFFIXES)
def test_export_that_differs_is_not_kept(tmp_path: Path, suffix: str) -> None:
    needs(suffix)
    with pytest.raises(ValueError, match=r"was not written: its logits are .* from the model's"):
        export(Traced().eval(), clips(2), tmp_path / f"model.{suffix}", CLIP)
    assert not list(tmp_path.iterdir())


WRITERS: dict[str, Callable[[Path], object]] = {
    "export": lambda path: export(tiny_model(), clips(2, 1), path / "model.pt2", CLIP),
    "weights": lambda path: write_safetensors(path / "a.safetensors", {"a": torch.ones(9)}, None),
}


@pytest.mark.parametrize("name", WRITERS)
def test_libraries_that_hide_a_full_disk_are_not_asked_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def almost_full(_: Path) -> types.SimpleNamespace:
        return types.SimpleNamespace(free=10)

    monkeypatch.setattr(shutil, "disk_usage", almost_full)
    with pytest.raises(OSError, match="No space left on device") as error:
        WRITERS[name](tmp_path)
    assert error.value.filename == str(tmp_path)
    assert not list(tmp_path.iterdir())


def test_one_item_is_no_example_for_any_batch_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs a batch of two"):
        export(tiny_model(), clips(1, 2), tmp_path / "model.pt2", CLIP)


@pytest.mark.slow
def test_json_says_what_goes_in_and_what_classes_come_out(tmp_path: Path) -> None:
    model = tiny_model()
    card = ModelCard(model=asdict(model.config), class_names=("a", "b", "c"), frame_stride=4)
    path = write_about(tmp_path / "model.onnx", card, CLIP)
    assert path.name == "model.onnx.json"  # model.json is the card of model.safetensors
    content = json.loads(path.read_text())
    assert content["classes"] == ["a", "b", "c"]
    assert content["interface"]["shape"] == [3, 4, 32, 32]
    assert content["card"]["frame_stride"] == 4
    assert content["card"]["model"]["num_frames"] == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.pb", r"model\.pb must end in \.pt2 .*, \.onnx or \.xml"),
        ("none/model.onnx", "no folder .*none to write model.onnx to"),
        ("old.pt2", r"old\.pt2 exists; overwrite=true"),
        ("new.pt2", r"new\.pt2\.json exists; overwrite=true"),
        ("graph.xml", r"graph\.bin exists; overwrite=true"),
    ],
)
def test_impossible_targets_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "old.pt2").touch()
    (tmp_path / "new.pt2.json").touch()
    (tmp_path / "graph.bin").touch()
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        check_target(tmp_path / name, overwrite=False)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_int8_is_of_openvino_alone(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ValueError, match=r"precision=int8 is for OpenVINO; use .* ends in \.xml"):
        check_target(tmp_path / f"model.{suffix}", overwrite=False, weights="int8")


def test_missing_exporter_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("video_mvit.weights.export.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"needs onnx, onnxscript, onnxruntime; pip install"):
        check_target(tmp_path / "model.onnx", overwrite=False)


@pytest.mark.slow
def test_an_export_gives_the_probabilities_of_each_head(tmp_path: Path) -> None:
    model = tiny_model()
    card = ModelCard(
        model=asdict(model.config),
        mean=(0.45,) * 3,
        std=(0.225,) * 3,
        task="multi_head",
        heads={"verb": 1, "noun": 2},
    )
    network = with_preprocessing(model, card)
    about = replace(CLIP, input="frames", dtype="uint8", shape=(4, 3, 32, 32))
    about = replace(about, layout="(B, T, C, H, W)", output="probabilities")
    frames = [torch.randint(0, 256, (n, 4, 3, 32, 32), dtype=torch.uint8) for n in (2, 1)]
    path = tmp_path / "heads.pt2"
    export(network, frames, path, about)
    found = open_export(path)(frames[0])
    torch.testing.assert_close(found[:, 0], torch.ones(2))
    torch.testing.assert_close(found[:, 1:].sum(1), torch.ones(2))
    written = json.loads(write_about(path, card, about).read_text())
    assert written["card"]["heads"] == {"verb": 1, "noun": 2}
