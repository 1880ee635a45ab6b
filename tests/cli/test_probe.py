"""video-mvit probe: cached features, a fair choice, and a checkpoint that is like any other."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from support.random_model import write_random_model

import video_mvit
from video_mvit.cli import evaluate, probe
from video_mvit.cli.runs import expand_run
from video_mvit.evaluation.output_folder import read_folder
from video_mvit.evaluation.results import Result
from video_mvit.probing import extraction

pytestmark = pytest.mark.slow  # commands as a whole


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos to train, to choose and to test on, and a frozen network of random weights."""
    root = tmp_path_factory.mktemp("probe")
    write_random_model(root, num_tested=2)
    return root


@pytest.fixture(autouse=True)
def clean_hydra() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def composed(verb: str, *words: str) -> Any:
    with initialize_config_module("video_mvit.conf", version_base="1.3"):
        cfg = compose(verb, list(words), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    OmegaConf.set_struct(cfg, False)  # noqa: FBT003
    cfg.pop("hydra")
    return cfg


SHORT = (
    *("probe.linear.min_steps=5", "probe.linear.num_epochs=1", "probe.linear.lr=[1e-2]"),
    *("num_clips=1", "report.thumbnails=false"),
)


def settings(root: Path, folder: Path, *options: str) -> Any:
    given = [f"checkpoint={root}/model.safetensors", f"data.root={root}", f"run_dir={folder}"]
    given += [f"cache={folder.parent}/features", "device=cpu", "precision=float32", *SHORT]
    return composed("probe", "experiment=demo", *given, *options)


def run(root: Path, folder: Path, *options: str) -> dict[str, str]:
    return probe.probe(settings(root, folder, *options))


def test_probe_is_chosen_written_and_evaluates_as_told(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    lines = run(root, folder)
    printed = capsys.readouterr().out
    assert "linear" in printed
    assert "neighbours" in printed
    assert " val " in printed
    assert max(map(len, printed.splitlines())) <= 80
    assert lines["next"] == f"video-mvit predict {folder} VIDEO"
    result = read_result(folder)
    assert result.origin.checkpoint == f"{folder}/checkpoints/best.ckpt"
    assert result.origin.weights.startswith("linear probe, lr ")
    assert (folder / "evaluation" / "report.html").is_file()
    rows = (folder / "probes.csv").read_text().splitlines()
    assert rows[0] == "probe,place,top1,loss,chosen"
    assert len(rows) == 1 + 4 + 15
    assert sum(row.endswith(",1") for row in rows) == 2
    check_evaluation_of(folder, tmp_path)


def test_attentive_probe_is_a_checkpoint_like_any_other(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = ("min_steps=5", "num_epochs=1", "lr=[1e-2]", "depth=2", "num_heads=4")
    run(root, folder, "probe.kinds=[attentive]", *(f"probe.attentive.{each}" for each in options))
    model: Any = video_mvit.load_model(folder / "checkpoints" / "best.ckpt")
    assert (model.config.head, model.config.head_depth) == ("attentive", 2)
    assert model.card.frame_stride == 4
    (features,) = (tmp_path / "features").iterdir()
    assert json.loads((features / "settings.json").read_text())["sizes"]["num_tokens"] == 4
    check_evaluation_of(folder, tmp_path)


def check_evaluation_of(folder: Path, tmp_path: Path) -> None:
    """Evaluate the run folder, which is one like any other, with its own words alone."""
    result, predictions = read_folder(folder / "evaluation")
    assert expand_run("probe", [str(folder)]) == [f"checkpoint={folder}/checkpoints/best.ckpt"]
    words = expand_run("evaluate", [str(folder), f"output={tmp_path}/again"])
    options = ["trainer.precision=32-true", "data.num_workers=0", "report.thumbnails=false"]
    evaluate.evaluate_as_configured(composed("evaluate", *words, *options))
    again, predicted = read_folder(tmp_path / "again")
    assert again.origin.protocol == result.origin.protocol
    assert again.origin.weights_sha1 == result.origin.weights_sha1
    assert again.accuracies.top1 == result.accuracies.top1
    for one, other in zip(predictions, predicted, strict=True):
        assert (one.video, one.label, one.classes[0]) == (
            other.video,
            other.label,
            other.classes[0],
        )
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, atol=1e-5)


def test_features_are_extracted_once_and_kept_through_a_kill(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all, read = extraction.extract_views, list[str]()

    def counted(extractor: Any, videos: Any, pipeline: Any) -> Any:
        for video, found in read_all(extractor, videos, pipeline):
            if len(read) == 5:
                read.append("killed")
                raise MemoryError
            read.append(video)
            yield video, found

    monkeypatch.setattr(extraction, "extract_views", counted)
    with pytest.raises(MemoryError):
        run(root, tmp_path / "killed")
    run(root, tmp_path / "one")
    videos = [video for video in read if video != "killed"]
    assert len(videos) == len(set(videos)) > 5
    num_read = len(read)
    run(root, tmp_path / "two")
    assert len(read) == num_read
    # The same numbers come of the same features.
    results = [read_result(tmp_path / name) for name in ("one", "two")]
    assert results[0].origin.weights_sha1 == results[1].origin.weights_sha1
    assert results[1].num_resumed == results[1].num_videos
    one, two = (
        (tmp_path / name / "evaluation" / "predictions.csv").read_text() for name in ("one", "two")
    )
    assert one == two


def read_result(folder: Path) -> Result:
    return read_folder(folder / "evaluation")[0]


def test_neighbours_alone_make_no_checkpoint(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    lines = run(root, tmp_path / "run", "probe.kinds=[neighbours]")
    assert "next" not in lines
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert "neighbours have no checkpoint: they are the training videos" in caplog.text
    assert read_result(tmp_path / "run").origin.checkpoint == f"{root}/model.safetensors"


def test_what_replaces_a_run_leaves_none_of_its_checkpoints(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path / "run", "probe.kinds=[linear]")
    assert (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    run(root, tmp_path / "run", "probe.kinds=[neighbours]", "overwrite=true")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_validation_that_is_the_test_list_does_not_choose(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    same = [
        f"data.sources.test.{name}={root}/val{end}"
        for name, end in (("manifest", ".csv"), ("folder", ""))
    ]
    options = ["probe.kinds=[linear]"]
    run(root, tmp_path / "run", *same, *options)
    assert "videos that are reported on: probes are chosen by 2-fold cross-" in caplog.text
    assert "2 folds" in capsys.readouterr().out


def test_videos_that_are_trained_on_do_not_choose_and_are_named(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def of_train(split: str) -> list[str]:
        place = f"data.sources.{split}"
        return [f"{place}.manifest={root}/train.csv", f"{place}.folder={root}/train"]

    run(root, tmp_path / "one", *of_train("val"), "probe.kinds=[neighbours]")
    assert "videos that are trained on: probes are chosen by 2-fold cross-" in caplog.text
    assert "test videos are training videos as well" not in caplog.text
    run(root, tmp_path / "two", *of_train("test"), "probe.kinds=[neighbours]")
    assert "test videos are training videos as well" in caplog.text


def test_features_of_a_video_that_changes_while_it_is_read_are_not_kept(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all, changed = extraction.extract_views, sorted((root / "test").rglob("*.mp4"))[0]

    def changing(extractor: Any, videos: Any, pipeline: Any) -> Any:
        for video, found in read_all(extractor, videos, pipeline):
            if video.endswith(changed.name):
                os.utime(changed)
            yield video, found

    monkeypatch.setattr(extraction, "extract_views", changing)
    run(root, tmp_path / "run", "probe.kinds=[neighbours]")
    unreadable = {str(changed.relative_to(root / "test")): "it changed while it was read"}
    assert read_result(tmp_path / "run").unreadable == unreadable


def test_features_in_the_run_folder_are_kept_through_a_stop(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_all = extraction.extract_views

    def stopped(*args: Any) -> Any:
        yield next(read_all(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(extraction, "extract_views", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "run", f"cache={tmp_path}/run/features")
    assert [path.name for path in (tmp_path / "run").glob("[!.]*")] == ["features"]
    assert len(list((tmp_path / "run" / "features").rglob("0*.safetensors"))) == 1


def test_unreadable_videos_are_left_out_and_told(root: Path, tmp_path: Path) -> None:
    broken = next((root / "test").rglob("*.mp4"))
    content = broken.read_bytes()
    broken.write_bytes(b"no video")
    try:
        run(root, tmp_path / "run", "probe.kinds=[linear]")
    finally:
        broken.write_bytes(content)
    result = read_result(tmp_path / "run")
    assert list(result.unreadable) == [str(broken.relative_to(root / "test"))]


def test_mistakes_are_told_and_leave_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, complaint in (
        (["probe.kinds=[]"], r"probe\.kinds names no probe to train"),
        (["probe.kinds=[cubic]"], r"probe\.kinds is \['cubic'\], expected a list of one of"),
        (["probe.num_folds=1"], r"probe\.num_folds is 1, expected"),
        (["probe.linear.lr=[]"], r"lr is \[\], expected a list of numbers above 0"),
        (["+probe.linear.depth=3"], r"unknown key probe\.linear\.depth"),
        (["probe.num_folds=1000"], r"num_folds is 1000, expected from 2 to the \d+ training"),
        ([f"checkpoint={root}/train.csv"], "train.csv"),
        (["sampling=segments"], "but the data set is evaluated with strided; add sampling=strided"),
    ):
        with pytest.raises(SystemExit, match=complaint):
            probe.main(settings(root, tmp_path / "run", *options))
        assert not list((tmp_path / "run").glob("[!.]*"))
    (tmp_path / "old").mkdir()
    for name, complaint in (
        ("checkpoints/best.ckpt", "holds a run; run_dir=... names another folder"),
        ("evaluation/results.json", "evaluation holds an evaluation; output=... keeps it"),
    ):
        place = tmp_path / "old" / name
        place.parent.mkdir()
        place.touch()
        with pytest.raises(SystemExit, match=complaint):
            probe.main(settings(root, tmp_path / "old"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="probe runs in one process; start it without torchrun"):
        probe.main(settings(root, tmp_path / "run"))
