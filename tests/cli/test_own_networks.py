"""A network that is no MViTv2 goes through the same commands; what it cannot do is said."""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import composed
from support.own_network import network, own_project, searched, write_checkpoint
from support.videos import write_numbered_video
from torch import nn

import video_mvit
from video_mvit.cli import auto_settings, convert, export, extract, predict
from video_mvit.cli.build import build
from video_mvit.cli.evaluate import build_evaluation
from video_mvit.cli.runs import expand_run
from video_mvit.errors import UserError
from video_mvit.prediction.attention_rollout import roll_out
from video_mvit.weights.export import open_export

pytestmark = pytest.mark.slow

NAMES = ["hold", "pull", "push"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two networks of one's own, a checkpoint of one of them, and a video."""
    folder = tmp_path_factory.mktemp("project")
    with own_project(folder):
        write_checkpoint(folder / "own.ckpt", network(len(NAMES)), NAMES)
        write_numbered_video(folder / "clip.mp4", 40)
        yield folder


def run(verb: Any, project: Path, *words: str, model: str = "tiny3d") -> None:
    name = verb.__name__.rpartition(".")[2]
    named = [searched(project), *([f"model={model}"] if model else [])]
    source = "source" if name in ("convert", "export") else "checkpoint"
    given = [] if any(word.startswith(source) for word in words) else ["own.ckpt"]
    verb.main(composed(name, *named, *(f"{source}={project}/{each}" for each in given), *words))


def scores_of(path: Path) -> dict[str, float]:
    row = json.loads(path.read_text())
    return {each["label"]: each["score"] for each in row["top"]}


def test_prediction_is_that_of_the_network(project: Path, tmp_path: Path) -> None:
    target = tmp_path / "p.jsonl"
    words = [f"video={project}/clip.mp4", "format=json", f"output={target}", "precision=float32"]
    run(predict, project, *words)
    loaded = video_mvit.load_model(str(project / "own.ckpt"), model=network(len(NAMES)))
    expected = dict(video_mvit.predict(loaded, str(project / "clip.mp4")).top())
    assert scores_of(target) == pytest.approx(expected, abs=1e-5)
    assert max(expected.values()) > 0.4


def test_converted_file_predicts_the_same(project: Path, tmp_path: Path) -> None:
    run(convert, project, f"target={tmp_path}/own.safetensors")
    targets = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for source, target in zip(
        (project / "own.ckpt", tmp_path / "own.safetensors"), targets, strict=True
    ):
        words = [f"video={project}/clip.mp4", "format=json", f"output={target}"]
        run(predict, project, f"checkpoint={source}", *words)
    assert scores_of(targets[0]) == scores_of(targets[1])


@pytest.mark.parametrize("suffix", [".pt2", ".xml"])
def test_export_gives_what_the_network_gives(project: Path, tmp_path: Path, suffix: str) -> None:
    if suffix == ".xml" and find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    target = tmp_path / f"own{suffix}"
    run(export, project, f"target={target}", "num_runs=1")
    clip = torch.randn(3, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(len(NAMES))(clip)
    torch.testing.assert_close(open_export(target)(clip), expected, atol=1e-4, rtol=1e-4)
    about = json.loads((tmp_path / f"own{suffix}.json").read_text())
    assert about["classes"] == NAMES
    assert about["interface"]["shape"] == [3, 8, 32, 32]


def test_features_are_those_of_its_method(project: Path, tmp_path: Path) -> None:
    words = [f"video={project}/clip.mp4", f"output={tmp_path}/f.npz"]
    run(extract, project, *words, model="tinyfeatures")
    assert np.load(tmp_path / "f.npz")["features"].shape == (1, 8)


@pytest.mark.parametrize(
    ("verb", "words", "model", "sentence"),
    [
        (predict, ["explain=true"], "tiny3d", "attention of an MViTv2, which a Tiny3D does not"),
        (predict, [], "", "own.ckpt holds a network that is no MViTv2; model=NAME says which"),
        (predict, [], "mvitv2_demo", "model=... is for a network of your own"),
        (extract, ["output=f.npz"], "tiny3d", "Tiny3D has no features: give it a method"),
        (
            extract,
            ["output=f.npz", "features=cls"],
            "tinyfeatures",
            "features=cls is of an MViTv2; TinyFeatures has features=mean",
        ),
        (convert, ["target=f.pyth", "format=slowfast"], "tiny3d", "format=slowfast is of MViTv2"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(  # noqa: PLR0913
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    verb: Any,
    words: list[str],
    model: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    video = [f"video={project}/clip.mp4"] if verb in (predict, extract) else []
    target = [word.replace("=f.", f"={tmp_path}/f.") for word in words]
    with pytest.raises(SystemExit, match=sentence):
        run(verb, project, *video, *target, model=model)


@pytest.mark.usefixtures("project")
def test_explanation_from_python_is_refused() -> None:
    with pytest.raises(UserError, match=r"which a \w+ does not have"):
        roll_out(network(len(NAMES)), torch.zeros(3, 8, 32, 32), 0)


def test_number_of_classes_must_be_that_of_the_tensors(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "wrong.ckpt"
    write_checkpoint(path, network(len(NAMES)), [f"class {i}" for i in range(50)])
    with pytest.raises(SystemExit, match="says 50 classes, which no tensor in it has"):
        run(predict, project, f"checkpoint={path}", f"video={project}/clip.mp4")


def test_network_larger_than_the_tensors_is_not_built(project: Path) -> None:
    with pytest.raises(SystemExit, match=r"has 683 numbers, but tiny_networks.Tiny3D with"):
        run(predict, project, "model.width=8000000", f"video={project}/clip.mp4")


def test_evaluation_builds_no_network_larger_than_the_file(project: Path) -> None:
    words = ["experiment=demo", "model=tiny3d", "model.width=8000000", "data.root=/videos"]
    words += [f"checkpoint={project}/own.ckpt", "data.num_classes=3", "run_dir=/runs/x"]
    with pytest.raises(UserError, match=r"tiny_networks.Tiny3D with these settings 680,000,003"):
        build_evaluation(composed("evaluate", searched(project), *words))


@pytest.mark.parametrize("init", ["scratch", "weights"])
def test_finetune_chooses_what_applies_and_says_the_rest(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    init: str,
) -> None:
    for name in ("left", "right"):
        for i in range(4):
            write_numbered_video(tmp_path / "videos" / name / f"{i}.mp4", 24)
    words = ["experiment=finetune", "model=tiny3d", f"data.root={tmp_path}/videos", f"init={init}"]
    words += [f"run_dir={tmp_path}/run"]
    words += [f"init.source={project}/own.ckpt"] if init == "weights" else ["clip=8x4"]
    monkeypatch.setattr(auto_settings, "words_for_settings", lambda: words)
    cfg = composed("config", searched(project), *words)
    auto_settings.apply_auto_settings(cfg)
    assert cfg.data.num_classes == cfg.model.num_classes == 2
    assert cfg.clip.num_frames == 8
    assert cfg.data.train_crop.flip_prob == 0
    assert cfg.optim.layer_decay == 1
    assert isinstance(build(cfg.model), nn.Module)
    if init == "weights":
        assert list(cfg.init.reset) == ["head"]
        assert cfg.clip.crop_size == 32
    shown = " ".join(capsys.readouterr().out.split())
    assert "optim.layer_decay as configured no choice for Tiny3D" in shown


def test_evaluation_takes_the_clips_of_its_card(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["experiment=finetune", "model=tiny3d", "data.root=/videos", "run_dir=/runs/x"]
    monkeypatch.setattr(auto_settings, "words_for_settings", lambda: words)
    cfg = composed("evaluate", searched(project), *words)
    auto_settings.use_settings_of(cfg, str(project / "own.ckpt"))
    assert (cfg.clip.num_frames, cfg.clip.crop_size, cfg.data.num_classes) == (8, 32, 3)
    assert list(cfg.data.normalize.mean) == [0.45, 0.45, 0.45]


def test_run_folder_names_its_network(project: Path, tmp_path: Path) -> None:
    run, dirs = tmp_path / "run", f"--config-dir={project}/conf"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    (run / "config").mkdir()
    named = f"run_dir={run}", "checkpoint=last"
    for words, taken in (
        ("- experiment=demo\n- model=tiny3d\n- model.width=4\n", ["model=tiny3d", "model.width=4"]),
        ("- model=x3d_s\n", ["model=x3d_s"]),
        ("- model=mvitv2_demo\n- model.depths=[1,1,1,1]\n", []),
        ("- experiment=demo\n", []),
        ("- model._target_=os.system\n", []),
    ):
        (run / "config" / "overrides.yaml").write_text(words)
        assert expand_run("predict", [dirs, str(run)]) == [*taken, *named, dirs]
    (run / "config" / "overrides.yaml").write_text("- model=tiny3d\n")
    assert expand_run("predict", [str(run), "model=x3d_s"]) == [*named, "model=x3d_s"]
    assert expand_run("predict", [str(run)]) == list(named)  # such a choice is not there
    assert expand_run("export", [dirs, str(run)])[0] == "model=tiny3d"
    assert expand_run("convert", [dirs, str(run)])[0] == "model=tiny3d"


def test_model_to_fine_tune_is_in_training_mode(project: Path) -> None:
    path, model = str(project / "own.ckpt"), network(2)
    assert video_mvit.load_model(path, model=model, reset=["head"]).training
    assert model.card.class_names is None  # type: ignore[union-attr]
    assert not video_mvit.load_model(path, model=network(3)).training
