"""What loggers are told of a run: TensorBoard's files are read back, servers are stand-ins."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from support.commands import composed
from support.evaluations import HOSTILE, many_predictions, summary
from support.training import Clips, Data, classifier, trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from video_mvit.cli.run_loggers import (
    build_loggers,
    checked,
    ids_file,
    keep_ids,
    read_ids,
    record_of,
    tell_loggers,
)
from video_mvit.training.evaluation_record import draw_confusion, record_evaluation
from video_mvit.training.logger_content import Table, log_picture, log_settings, log_table, log_text
from video_mvit.training.loggers import LoggerGuards, problems_of_loggers
from video_mvit.training.run_record import RunRecord, git_state, strip_of

NAMES = ("fall", *HOSTILE)


class Server:
    """Takes down what a client is asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **options: self.calls.append((name, (arguments, options)))

    def named(self, name: str) -> list[Any]:
        return [call for each, call in self.calls if each == name]


class StandInWandb(WandbLogger):
    """A logger of the class that ours are told by, without the package."""

    def __init__(self) -> None:
        Logger.__init__(self)
        self.server, self._save_dir = Server(), None

    version = "abc123"
    experiment = property(lambda self: self.server)

    def log_text(self, *arguments: Any, **options: Any) -> None:
        self.server.text(*arguments, **options)

    def log_table(self, *arguments: Any, **options: Any) -> None:
        self.server.table(*arguments, **options)

    def log_image(self, *arguments: Any, **options: Any) -> None:
        self.server.image(*arguments, **options)

    def log_hyperparams(self, params: Any) -> None:
        self.server.settings(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.server.metrics(metrics, step)

    def finalize(self, status: str) -> None:
        pass


class StandInMlflow(MLFlowLogger):
    def __init__(self) -> None:
        Logger.__init__(self)
        self.server, self._save_dir = Server(), None

    run_id = "r1"
    save_dir: Any = None
    experiment = property(lambda self: self.server)

    def log_hyperparams(self, params: Any) -> None:
        self.server.settings(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.server.metrics(metrics, step)

    def finalize(self, status: str) -> None:
        pass


def record(tmp_path: Path, **overrides: Any) -> RunRecord:
    options: dict[str, Any] = {
        "settings": {"optim.lr": 0.1, "name": "demo", "model.head": True},
        "configuration": "optim:\n  lr: 0.1",
        "monitor": "val/top1",
        "curves": tmp_path / "curves.png",
        "keep_ids": lambda _: None,
        **overrides,
    }
    return RunRecord(**options)


def read(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    events.Reload()
    return events


def text_of(events: EventAccumulator, name: str) -> str:
    (event,) = events.Tensors(f"{name}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_tensorboard_has_settings_versions_code_clips_and_curves(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    Figure().savefig(tmp_path / "curves.png")
    log = TensorBoardLogger(tmp_path, name="tensorboard", version="")
    fitted = trainer(LoggerGuards([log]), record(tmp_path), logger=[log], max_epochs=2)
    fitted.fit(classifier(), Data(Clips(2), Clips(2, views=1)))
    assert not problems_of_loggers(fitted)
    events = read(tmp_path / "tensorboard")
    assert text_of(events, "run/config") == "    optim:\n      lr: 0.1\n"
    versions = text_of(events, "run/versions")
    assert torch.__version__ in versions
    assert "commit" in text_of(events, "run/git")
    assert [len(events.Images(name)) for name in ("run/clips", "run/curves")] == [1, 1]
    plugins = events.SummaryMetadata("_hparams_/session_start_info")
    content = plugins.plugin_data.content
    assert b"optim.lr" in content
    assert b"demo" in content


def test_clips_are_shown_as_the_network_gets_them(tmp_path: Path) -> None:
    log = StandInWandb()
    fitted = trainer(LoggerGuards([log]), record(tmp_path), logger=[log], max_epochs=2)
    module = classifier(preprocess=Marked())
    fitted.fit(module, Data(Clips(3)))
    (((name, (picture,), _), _),) = log.server.named("image")
    assert name == "run/clips"
    assert picture.shape == (2 * 4, 2 * 4, 3)
    assert picture[:4].min() == 0
    assert not module.model._forward_pre_hooks


class Marked(torch.nn.Module):
    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return clip.reshape(2, 3, 2, 4, 4)


def test_strip_has_a_row_for_each_clip_and_frames_in_their_order() -> None:
    clips = torch.arange(20.0).view(1, 1, 20, 1, 1).expand(6, 3, 20, 150, 300)
    picture = strip_of(clips)
    assert picture.shape == (4 * 56, 8 * 112, 3)
    assert picture[0, ::112, 0].tolist() == [0, 40, 67, 107, 148, 188, 215, 255]


def test_server_loggers_get_the_same_in_their_own_ways() -> None:
    table = Table(("class", "recall"), [("=1+1", 0.5)])
    wandb, mlflow = StandInWandb(), StandInMlflow()
    for log in (wandb, mlflow):
        log_settings(log, {"a": 1}, "val/top1")
        log_text(log, "run/config", "x: 1")
        log_picture(log, "test/confusion", np.zeros((2, 2, 3), np.uint8), 7)
        log_table(log, "test/classes", table, 7)
        assert log.server.named("settings") == [(({"a": 1},), {})]
    assert wandb.server.named("text") == [
        (("run/config",), {"columns": ["text"], "data": [["x: 1"]]})
    ]
    assert wandb.server.named("table") == [
        (("test/classes", ["class", "recall"], [["=1+1", 0.5]]), {"step": 7})
    ]
    texts = [arguments for arguments, _ in mlflow.server.named("log_text")]
    assert texts == [
        ("r1", "x: 1", "run/config.txt"),
        ("r1", "class,recall\r\n'=1+1,0.5\r\n", "test/classes.csv"),
    ]
    (((run_id, _, file), _),) = mlflow.server.named("log_image")
    assert (run_id, file) == ("r1", "test/confusion.png")


def test_logger_that_fails_does_not_end_a_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = StandInWandb()
    log.log_text = lambda *_, **__: 1 / 0  # type: ignore[method-assign]

    def fail(_: Any) -> None:
        raise ConnectionError("no server")

    fitted = trainer(LoggerGuards([log]), record(tmp_path, keep_ids=fail), logger=[log])
    fitted.fit(classifier(), Data(Clips(2)))
    assert fitted.global_step == 2
    assert "StandInWandb could not log everything: division by zero" in caplog.text
    assert "a resumed run will be a new one to its loggers: no server" in caplog.text


def settings(run_dir: Path, **loggers: Any) -> Any:
    return OmegaConf.create({"run_dir": str(run_dir), "resume_from": "last", "logger": loggers})


def board(run_dir: Path) -> dict[str, Any]:
    return {
        "_target_": "pytorch_lightning.loggers.TensorBoardLogger",
        "save_dir": str(run_dir),
        "name": "tensorboard",
        "version": "",
    }


def test_evaluation_is_told_to_the_loggers_that_have_the_run(tmp_path: Path) -> None:
    predictions = many_predictions(NAMES, 40, 0.7)
    result = summary(predictions, NAMES)
    cfg = settings(tmp_path, tensorboard=board(tmp_path))

    def write(log: Logger) -> None:
        record_evaluation(log, result, predictions, 12)

    tell_loggers(cfg, write)
    assert not (tmp_path / "tensorboard").exists()
    (tmp_path / "tensorboard").mkdir()
    tell_loggers(cfg, write)
    events = read(tmp_path / "tensorboard")
    (top1,) = events.Scalars("test/top1")
    assert (top1.step, top1.value) == (12, pytest.approx(result.accuracies.top1))
    assert len(events.Images("test/confusion")) == 1
    table = text_of(events, "test/classes")
    rows = table.splitlines()
    assert rows[0] == "| class | videos | recall | precision | top-5 | predicted as |"
    assert len(rows) == 2 + len(NAMES)
    assert r"\<script\>" in table
    recalls = [float(row.split(" | ")[2]) for row in rows[2:]]
    assert recalls == sorted(recalls)


def test_tensorboard_is_left_out_where_it_is_not_installed_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    own = {"_target_": "support.loggers.WandbLogger"}
    cfg = settings(tmp_path, tensorboard=board(tmp_path), wandb=own)
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    told: list[Logger] = []
    tell_loggers(cfg, told.append)
    assert told == []
    assert build_loggers(cfg) == [{}]  # the other one
    sentence = "no files for TensorBoard, which is not installed: pip install '"
    assert [each.getMessage().startswith(sentence) for each in caplog.records] == [True, True]


def test_ids_are_kept_by_the_names_of_the_loggers_that_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    cfg = composed("config", "experiment=demo", "data.root=/data", f"run_dir={tmp_path}")
    cfg.logger = {"tensorboard": board(tmp_path), "wandb": {"_target_": "x.WandbLogger"}}
    record_of(cfg, "").keep_ids([StandInWandb()])
    assert read_ids(tmp_path) == {"wandb": "abc123"}


def test_confusion_of_many_classes_is_a_picture_of_the_same_size() -> None:
    few, many = torch.eye(3).long(), torch.eye(400).long()
    names = [f"class {i} ${'x' * 99}$" for i in range(400)]
    assert draw_confusion(few, names[:3]).shape == draw_confusion(many, names).shape


def test_ids_of_a_run_are_kept_and_only_plain_ones_are_used(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    keep_ids(tmp_path, {"csv": Logger, "wandb": StandInWandb(), "mlflow": StandInMlflow()})
    assert read_ids(tmp_path) == {"wandb": "abc123", "mlflow": "r1"}
    for content in ('{"wandb": "../x", "mlflow": 5}', "[1]", "{", "[" * 9999, '"x"'):
        ids_file(tmp_path).write_text(content)
        assert read_ids(tmp_path) == {}
    ids_file(tmp_path).unlink()
    ids_file(tmp_path).symlink_to("/etc/hostname")
    assert read_ids(tmp_path) == {}


def test_run_folder_does_not_say_where_artifacts_are_written(tmp_path: Path) -> None:
    log = StandInMlflow()
    log.save_dir = str(tmp_path / "mlruns")  # type: ignore[misc]
    for place, is_fine in (("mlruns/0/r1/artifacts", True), ("elsewhere", False)):
        info = SimpleNamespace(artifact_uri=f"file://{tmp_path}/{place}")
        log.server.get_run = lambda _, info=info: SimpleNamespace(info=info)
        if is_fine:
            assert checked(log) is log
            continue
        with pytest.raises(ValueError, match="elsewhere, outside of the run"):
            checked(log)


def test_resumed_run_goes_on_in_its_loggers(tmp_path: Path) -> None:
    ids_file(tmp_path).parent.mkdir()
    ids_file(tmp_path).write_text(json.dumps({"wandb": "abc123", "mlflow": "r1"}))
    cfg = settings(tmp_path, wandb={"_target_": "support.loggers.WandbLogger"})
    assert build_loggers(cfg) == [{"id": "abc123", "resume": "allow"}]
    cfg.resume_from = None
    assert build_loggers(cfg) == [{}]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_state_of_the_code_is_commit_branch_and_changes(tmp_path: Path) -> None:
    assert "not a git repository" in git_state(tmp_path)["commit"]

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-b", "mine")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-m", "one")
    state = git_state(tmp_path)
    assert len(state["commit"]) == 40
    assert (state["branch"], state["changed files"]) == ("mine", "none")
    (tmp_path / "a.py").write_text("2")
    ran = tmp_path / "ran"
    git("config", "core.fsmonitor", f"touch {ran}; false")
    assert git_state(tmp_path)["changed files"] == " M a.py"
    assert not ran.exists()
