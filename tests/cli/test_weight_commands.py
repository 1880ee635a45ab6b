"""The commands for weight files as a person runs them: convert, inflate, and what each refuses."""

import json
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import composed, run_command
from support.detectors import tiny_detector
from support.evaluations import prediction, summary

import video_mvit
from video_mvit.cli import convert, inflate
from video_mvit.cli.own_networks import read_network
from video_mvit.cli.weight_files import card_for, variant_of
from video_mvit.detection.weights import write_detector
from video_mvit.models.config import variant_config
from video_mvit.models.mvit import MViT
from video_mvit.weights.checkpoint_files import weights_sha1
from video_mvit.weights.export import open_export
from video_mvit.weights.key_formats import KEY_FORMATS, to_key_format
from video_mvit.weights.model_card import ModelCard

TINY = {"crop_size": 32, "num_classes": 5}
pytestmark = pytest.mark.slow


def run(verb: str, cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command(verb, *options, cwd=cwd)


def save(path: Path, key_format: str, **overrides: Any) -> MViT:
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", **{**TINY, **overrides}).eval()
    state, _ = to_key_format(model.state_dict(), KEY_FORMATS[key_format])
    torch.save({"model_state": state}, path)
    return model


def test_conversion_to_our_form_and_on_to_another_library(tmp_path: Path) -> None:
    model = save(tmp_path / "model.pyth", "slowfast")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    options = ["source=model.pyth", "class_names=names.txt", "frame_stride=4"]
    result = run("convert", tmp_path, *options, "target=model.safetensors")
    assert result.returncode == 0, result.stderr
    assert "SlowFast checkpoint, slowfast names: MViTv2 of 4 blocks, 8 frames" in result.stdout
    assert (
        f"verified: {len(model.state_dict())} tensors identical after re-reading" in result.stdout
    )
    assert "class names    a, b, c, ..." in result.stdout
    assert "not specified  evaluation" in result.stdout
    card = json.loads((tmp_path / "model.json").read_text())
    assert (card["key_format"], card["variant"]) == ("slowfast", "mvitv2_demo")

    result = run(
        "convert", tmp_path, "source=model.safetensors", "target=tv.pth", "format=torchvision"
    )
    assert result.returncode == 0, result.stderr
    assert "blocks.*.attn.pool_*.norm_act.0.*" in result.stdout
    clip = torch.randn(1, 3, 8, 32, 32)
    for name in ("model.safetensors", "tv.pth"):
        assert torch.equal(video_mvit.load_model(str(tmp_path / name))(clip), model(clip))
    written = {"names.txt", "model.pyth", "model.safetensors", "model.json", "tv.pth"}
    assert {path.name for path in tmp_path.iterdir()} == written


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("convert", ["target=model.pyth", "format=slowfast"], "model.pyth exists; overwrite"),
        ("convert", ["target=m.pth", "format=timm"], "timm has no video MViTv2"),
        ("convert", ["target=m.safetensors", "class_names=two.txt"], "2 class names for 5"),
        ("convert", ["source=none.pth", "target=m.safetensors"], "no weight file none.pth"),
        ("inflate", ["target=m.safetensors"], "model.pyth is already a video model"),
        ("inflate", ["target=m.safetensors", "rule=twice"], "rule is 'twice', expected one of"),
    ],
)
def test_mistake_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "model.pyth", "slowfast")
    (tmp_path / "two.txt").write_text("a\nb\n")
    before = {path.name for path in tmp_path.iterdir()}
    cfg = composed(verb, "source=model.pyth", *options)
    with pytest.raises(SystemExit) as stopped:
        {"convert": convert, "inflate": inflate}[verb].main(cfg)
    assert str(stopped.value).startswith("error: ")
    assert message in str(stopped.value)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_one_of_two_networks_is_chosen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = video_mvit.create_model("mvitv2_demo", **TINY).state_dict()
    ema = {name: tensor * 0.5 for name, tensor in raw.items()}
    torch.save({"state_dict": raw, "state_dict_ema": ema}, tmp_path / "a.pth.tar")
    places = (f"source={tmp_path}/a.pth.tar", f"target={tmp_path}/b.safetensors", "overwrite=true")
    for chosen, expected in (("ema", ema), ("raw", raw), ("state_dict", raw)):
        convert.main(composed("convert", *places, f"weights={chosen}"))
        written = video_mvit.load_model(str(tmp_path / "b.safetensors")).state_dict()
        assert all(torch.equal(written[name], expected[name]) for name in expected)
    assert "weights=raw takes those in state_dict" in caplog.messages[0]
    with pytest.raises(SystemExit, match="has no network 'other', only state_dict, state_dict_ema"):
        convert.main(composed("convert", *places, "weights=other"))


def test_inflation_proves_itself(tmp_path: Path) -> None:
    save(tmp_path / "image.pyth", "mvit", num_frames=1, stride_kv=(1, 2, 2))
    options = ["source=image.pyth", "model=mvitv2_demo"]
    same = ["keep_stride_kv=true", "head=keep", "target=same.safetensors"]
    result = run("inflate", tmp_path, *options, *same)
    assert result.returncode == 0, result.stderr
    lines = {line.split("  ")[0].strip(): line for line in result.stdout.splitlines()}
    assert lines["logits"].split()[-3:] == ["equal", "for", "center"]
    assert float(lines["logits"].split()[1]) < 1e-4 < float(lines["logits"].split()[2])
    assert lines["stem, inside the clip"].split()[-1] == "equal"
    assert "mean [0.485, 0.456, 0.406]" in result.stdout
    assert video_mvit.load_model(str(tmp_path / "same.safetensors")).config.num_classes == 5

    result = run("inflate", tmp_path, *options, "target=video.safetensors", "rule=average")
    assert result.returncode == 0, result.stderr
    assert "resized" in result.stdout
    assert "K and V are pooled by 1x4x4, there by 1x2x2" in result.stdout
    assert video_mvit.load_model(str(tmp_path / "video.safetensors")).config.num_classes == 400


@pytest.mark.parametrize("target", ["model.pt2", "model.onnx"])
def test_export_is_run_compared_and_described(tmp_path: Path, target: str) -> None:
    if target.endswith("onnx"):
        for module in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(module)
    model = save(tmp_path / "model.pyth", "slowfast")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    options = ["source=model.pyth", "class_names=names.txt", f"target={target}", "num_runs=1"]
    result = run("export", tmp_path, *options, "preprocess=true")
    assert result.returncode == 0, result.stderr
    said = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert float(said["verified"].split()[3].rstrip(",")) < 1e-4
    assert f"{target}.json beside it" in said[target]
    assert "PyTorch" in said["latency"]
    about = json.loads((tmp_path / f"{target}.json").read_text())
    assert about["classes"] == list("abcde")
    assert about["interface"]["shape"] == [8, 3, 32, 32]
    frames = torch.randint(0, 256, (3, 8, 3, 32, 32), dtype=torch.uint8)
    clip = (frames.transpose(1, 2).float() / 255 - 0.45) / 0.225
    with torch.inference_mode():
        expected = model(clip).softmax(dim=-1)
    torch.testing.assert_close(open_export(tmp_path / target)(frames), expected, rtol=0, atol=1e-5)


def test_export_of_a_detector_is_described(tmp_path: Path) -> None:
    detector = tiny_detector()
    card = ModelCard(model=asdict(detector.config), class_names=tuple("abcde"))
    write_detector(tmp_path / "det.safetensors", detector.state_dict(), card)
    options = ["source=det.safetensors", "target=fpn.pt2", "num_runs=1"]
    result = run("export", tmp_path, *options, "part=backbone", "image_size=[64,96]")
    assert result.returncode == 0, result.stderr
    about = json.loads((tmp_path / "fpn.pt2.json").read_text())
    assert about["classes"] == list("abcde")
    assert about["interface"]["shape"] == [3, 64, 96]
    assert list(about["interface"]["outputs"]) == ["p2", "p3", "p4", "p5", "p6"]
    for wrong, message in {
        "preprocess=true": "preprocess is an option of a classifier's export",
        "part=head": "part is 'head', expected one of detector, backbone",
        "image_size=[64]": "image_size is [64], expected a list of 2 int from 1 or any or null",
    }.items():
        result = run("export", tmp_path, *options, wrong, "overwrite=true")
        assert result.returncode == 1
        assert message in result.stderr


def test_rates_and_classes_do_not_make_another_variant() -> None:
    free = {"num_classes": 3, "head_init_scale": 0.001, "drop_path_rate": 0.1}
    assert variant_of(variant_config("mvitv2_b", **free)) == "mvitv2_b"
    assert variant_of(variant_config("mvitv2_b", crop_size=256)) is None


def test_card_takes_the_evaluation_beside_the_run_if_it_is_of_these_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("checkpoints", "evaluation"):
        (tmp_path / "run" / name).mkdir(parents=True)
    place = tmp_path / "run" / "checkpoints" / "best.pyth"
    model = save(place, "slowfast")
    evaluated = summary([prediction("1.mp4", 0, [0, 1])], "abcde")
    cfg = composed("convert", f"source={place}", f"target={tmp_path}/x.safetensors")
    source, network = read_network(cfg, cfg.source)
    assert card_for(cfg, source, network)[0].evaluation is None
    for weights, top1 in ((weights_sha1(model.state_dict()), 1.0), ("0" * 40, None)):
        of_these = replace(evaluated, origin=replace(evaluated.origin, weights_sha1=weights))
        of_these.write(tmp_path / "run" / "evaluation" / "results.json")
        card, _ = card_for(cfg, source, network)
        assert (card.evaluation or {}).get("top1") == top1
    assert "results.json is of other weights than " in caplog.text
    (tmp_path / "run" / "evaluation" / "results.json").write_text("[]")
    assert card_for(cfg, source, network)[0].evaluation is None
    assert "results.json is not used: " in caplog.text
