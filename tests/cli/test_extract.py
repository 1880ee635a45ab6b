"""video-mvit extract: the network's features, in the videos' order, and they survive a kill."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.commands import composed
from support.evaluations import TOLERANCE
from support.locks import held_by_another

import video_mvit
from video_mvit.cli import extract
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.data.transforms.augment import Normalize
from video_mvit.prediction import features
from video_mvit.prediction.clips import read_clips
from video_mvit.prediction.input_spec import input_spec_of
from video_mvit.weights.checkpoint_files import write_safetensors
from video_mvit.weights.model_card import ModelCard

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

PIXELS = ((0.45,) * 3, (0.225,) * 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos and one that is damaged, and two models of random weights."""
    root = tmp_path_factory.mktemp("demo")
    write_demo_dataset(root, {"test": 4}, 0, lambda _: None)
    for name, options in (("mean", {}), ("cls", {"cls_token": True, "head": "cls"})):
        torch.manual_seed(0)
        model = video_mvit.create_model("mvitv2_demo", num_classes=8, **options)
        card = ModelCard(
            model=asdict(model.config),
            frame_stride=4,
            short_side=32,
            sampling="strided",
            interpolation="bilinear",
            mean=PIXELS[0],
            std=PIXELS[1],
        )
        write_safetensors(root / f"{name}.safetensors", model.state_dict(), card)
    (root / "test" / "damaged.mp4").write_bytes(b"no video")
    return root


def run(root: Path, output: Path, *options: str, model: str = "mean") -> int:
    given = [f"checkpoint={root}/{model}.safetensors", f"video={root}/test", f"output={output}"]
    return extract.run(
        composed("extract", *given, "num_clips=2", "device=cpu", "precision=float32", *options)
    )


def expected(root: Path, video: str, model: str, kind: str) -> np.ndarray:
    network: Any = video_mvit.load_model(f"{root}/{model}.safetensors")
    clips = read_clips(video, input_spec_of(network, PIXELS, {}).pipeline(2, 1)).clips
    clip = Normalize(mean=PIXELS[0], std=PIXELS[1])(clips)
    with torch.inference_mode():
        tokens, _ = network.forward_features(clip)
        found = {
            "cls": tokens[:, 0],
            "mean": tokens[:, -4:].mean(1),  # the last grid has four tokens
            "stage2": network.forward_stages(clip)[1].flatten(2).mean(2),
        }
    return found[kind].mean(0).numpy()


@pytest.mark.parametrize(
    ("model", "kind"), [("mean", "mean"), ("cls", "mean"), ("cls", "cls"), ("mean", "stage2")]
)
def test_features_are_those_of_the_network(
    root: Path, tmp_path: Path, model: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "f.safetensors"
    assert run(root, target, f"features={kind}", model=model) == 1
    assert "damaged.mp4 cannot be read" in capsys.readouterr().err
    with safe_open(target, "np") as file:
        videos = json.loads(file.metadata()["videos"])
        settings = json.loads(file.metadata()["settings"])
        found = file.get_tensor("features")
    assert videos == sorted(str(path) for path in (root / "test").rglob("*_*.mp4"))
    assert found.dtype == np.float32
    assert settings["features"] == kind
    for video, row in zip(videos, found, strict=True):
        np.testing.assert_allclose(row, expected(root, video, model, kind), rtol=1e-4, atol=1e-5)
    assert len(np.unique(found.round(6), axis=0)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["f.safetensors"]


def test_goes_on_after_a_kill_and_refuses_other_settings(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, target = tmp_path / "whole.npz", tmp_path / "f.npz"
    run(root, whole)
    monkeypatch.setattr(features, "PART_S", -1.0)  # a part for each video
    seen: list[str] = []
    read_all = extract.extract_features

    def killed(extractor: Any, videos: Any, pipeline: Any) -> Any:
        for number, found in enumerate(read_all(extractor, videos, pipeline)):
            if number == 2:
                raise MemoryError
            yield found

    monkeypatch.setattr(extract, "extract_features", killed)
    with pytest.raises(MemoryError):
        run(root, target)
    assert not target.exists()
    with pytest.raises(ValueError, match="contains features with features 'mean', not"):
        run(root, target, "features=stage1")
    with pytest.raises(ValueError, match="with weights_sha1"):
        run(root, target, model="cls")

    def spied(extractor: Any, videos: Any, pipeline: Any) -> Any:
        seen.extend(videos)
        return read_all(extractor, videos, pipeline)

    monkeypatch.setattr(extract, "extract_features", spied)
    capsys.readouterr()
    run(root, target)
    num_known = 5 - len(seen)
    assert num_known in (1, 2)  # the damaged one, which comes first, is tried again
    assert f"{num_known} of 5 videos were extracted by an earlier run" in capsys.readouterr().err
    with np.load(whole) as one, np.load(target) as other:
        assert one["videos"].tolist() == other["videos"].tolist()
        np.testing.assert_allclose(one["features"], other["features"], rtol=1e-5, atol=TOLERANCE)
    assert not (tmp_path / "f.npz.parts").exists()


def test_mistakes_are_told(root: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.npz"
    there.touch()
    for options, output, complaint in (
        ([], "f.csv", "must end in one of .safetensors, .npz"),
        ([], "there.npz", "exists; overwrite=true replaces it"),
        ([], "nowhere/f.npz", "no folder"),
        ([f"video={root}/test/damaged.mp4"], "f.npz", "none of the videos can be read"),
        (["features=cls"], "f.npz", "no cls token; use features=mean"),
        (["device=gpu"], "f.npz", "device is 'gpu', expected one of auto, cpu, cuda"),
        (["checkpoint=5"], "f.npz", "checkpoint is 5, expected text"),
        (["features=last"], "f.npz", "features is 'last', expected one of mean, cls, stage1"),
        ([f"video={root}/test/damaged.mp4", "num_clips=1"], "f.npz", "none of the videos can be"),
    ):
        with pytest.raises(ValueError, match=complaint):
            run(root, tmp_path / output, *options)
    assert list(tmp_path.iterdir()) == [there]


def test_features_that_are_no_numbers_are_not_written(root: Path, tmp_path: Path) -> None:
    model = video_mvit.load_model(f"{root}/mean.safetensors")
    with torch.no_grad():
        model.norm.weight.mul_(float("nan"))
    write_safetensors(tmp_path / "nan.safetensors", model.state_dict(), model.card)
    with pytest.raises(ValueError, match=r"norm\.weight has NaN or infinite values"):
        run(root, tmp_path / "f.npz", f"checkpoint={tmp_path}/nan.safetensors")
    assert not (tmp_path / "f.npz").exists()


def test_a_list_names_videos_that_may_be_missing(root: Path, tmp_path: Path) -> None:
    video = next((root / "test").rglob("*_*.mp4"))
    listed = tmp_path / "list.txt"
    listed.write_bytes(
        f"\ufeff{video}\n\n{tmp_path}/lost.mp4\n{video}\n{tmp_path}/caf".encode() + b"\xe9.mp4\n"
    )
    target = tmp_path / "f.npz"
    assert run(root, target, f"video={listed}") == 2
    with np.load(target) as found:
        assert found["videos"].tolist() == [str(video)]
        assert found["features"].shape == (1, 256)


def test_second_extraction_into_a_file_is_refused(tmp_path: Path) -> None:
    parts = tmp_path / "f.npz.parts"
    parts.mkdir()
    cfg = composed("extract", "video=x", f"output={tmp_path}/f.npz", "overwrite=true")
    with (
        held_by_another(tmp_path / "f.npz.lock") as process,
        pytest.raises(SystemExit, match=rf"f\.npz is in use by process {process.pid} on .*; wait"),
    ):
        extract.main(cfg)
    assert parts.exists()
