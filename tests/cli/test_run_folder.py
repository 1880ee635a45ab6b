"""The folder of a run: who may write there, and when a run may go on in it."""

import contextlib
import logging
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig
from support.commands import composed as composed_of
from support.commands import run_command

from video_mvit.cli.run_folder import (
    Run,
    checkpoint_to_resume,
    diff_settings,
    flat_settings,
    is_first_process,
    open_folder,
    refuse_changes,
    remove_old_checkpoints,
    remove_unfinished,
    writing_alone,
)
from video_mvit.cli.run_log import RunLog, problems_of_logs, refuse_incomplete
from video_mvit.training.progress import TerminalHandler

DEMO = "experiment=demo"


def composed(*overrides: str) -> DictConfig:
    return composed_of("config", "data.root=/data", *overrides)


def test_differences_are_named_with_both_values() -> None:
    before = flat_settings(
        composed(DEMO, "optim.lr=1e-3", "augment=published", "trainer.devices=2")
    )
    now = flat_settings(composed(DEMO, "optim.lr=2e-3", "+model.depths=[1,1,1,1]"))
    found = diff_settings(before, now)
    assert "optim.lr: 0.001, now 0.002" in found
    assert "augment.policy: rand-m7-n4-mstd0.5-inc1, now not set" in found
    assert "model.depths: not set, now [1, 1, 1, 1]" in found
    assert "number of devices: 2, now 1" in found


def test_run_from_before_an_option_of_its_start_is_resumed() -> None:
    before = {"init.source": "a.pth"}
    assert not diff_settings(before, {**before, "init.weights": "ema"})


@pytest.mark.slow
def test_what_changes_no_number_may_differ() -> None:
    free = ["run_dir=/elsewhere", "data.num_workers=7", "resume_from=last", "overwrite=true"]
    assert not diff_settings(flat_settings(composed(DEMO)), flat_settings(composed(DEMO, *free)))


@pytest.mark.slow
def test_changed_settings_need_to_be_accepted(caplog: pytest.LogCaptureFixture) -> None:
    before, now = ({"optim.lr": 1, "seed": 0}, {"optim.lr": 2, "seed": 0})
    refuse_changes(composed(DEMO), before, dict(before))
    with pytest.raises(
        ValueError, match=r"different settings: optim\.lr: 1, now 2; allow_config_changes="
    ):
        refuse_changes(composed(DEMO), before, now)
    many = {f"key{i}": i for i in range(10)}
    with pytest.raises(
        ValueError, match=r"key7: not set, now 7; and 2 more; allow_config_changes=true"
    ):
        refuse_changes(composed(DEMO), {}, many)
    refuse_changes(composed(DEMO, "allow_config_changes=true"), before, now)
    assert "resuming with changed settings: optim.lr: 1, now 2" in caplog.text


@pytest.mark.slow
def test_a_run_is_never_started_in_the_place_of_another(tmp_path: Path) -> None:
    here = f"run_dir={tmp_path}"
    assert checkpoint_to_resume(composed(DEMO, here)) is None
    assert checkpoint_to_resume(composed(DEMO, here, "resume_from=auto")) is None
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    with pytest.raises(ValueError, match="holds a run; resume_from=last continues it"):
        checkpoint_to_resume(composed(DEMO, here))
    assert checkpoint_to_resume(composed(DEMO, here, "overwrite=true")) is None
    assert checkpoint_to_resume(composed(DEMO, here, "resume_from=auto")) == "last"
    assert checkpoint_to_resume(composed(DEMO, here, "resume_from=/a.ckpt")) == "/a.ckpt"


def test_overwriting_ends_the_other_run_at_once(tmp_path: Path) -> None:
    """Else resuming before the first new checkpoint would go on with the old run."""
    old = tmp_path / "checkpoints" / "last.ckpt"
    old.parent.mkdir()
    old.touch()
    run = Run(
        folder=tmp_path, resume_from=None, path=None, checkpoint={}, replaces=False, overrides=[]
    )
    remove_old_checkpoints(run)
    assert old.exists()
    remove_old_checkpoints(replace(run, replaces=True))
    assert not old.exists()


def test_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write to .*/file/run: Not a directory"):
        open_folder(str(tmp_path / "file" / "run"), "train")


def test_file_names_that_are_no_utf8_are_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    before, root = list(logging.getLogger().handlers), logging.getLogger()
    root.handlers = []  # pytest's own keep the name, which cannot be sent between its processes
    try:
        open_folder(str(tmp_path), "evaluate")
        root.addHandler(TerminalHandler())
        root.warning("cannot decode %s", name)
    finally:
        root.handlers = before
    log = (tmp_path / "evaluate.log").read_text(encoding="utf-8")
    shown = capsys.readouterr()
    assert "cannot decode caf\\udce9.mp4" in log
    assert "cannot decode caf\\udce9.mp4" in shown.out
    assert not shown.err


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_first_process({})
    assert is_first_process({"RANK": "0", "SLURM_PROCID": "1"})
    assert not is_first_process({"SLURM_PROCID": "1"})
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    try:
        open_folder(str(tmp_path / "first"), "train")
        logging.getLogger("x").warning("told")
        assert "told" in (tmp_path / "first" / "train.log").read_text()
        monkeypatch.setattr("video_mvit.cli.run_folder.is_first_process", lambda: False)
        open_folder(str(tmp_path / "second"), "train")
        assert root.level == logging.WARNING
        assert not list((tmp_path / "second").iterdir())
    finally:
        for handler in set(root.handlers) - set(before):
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)


def test_log_on_a_full_disk_is_told_once_and_again_at_the_end(
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, log = logging.getLogger(), RunLog(Path("/dev/full"))
    before, root.handlers = list(root.handlers), [log, TerminalHandler()]
    try:
        for number in range(3):
            root.warning("line %d", number)
        with pytest.raises(
            ValueError, match="all is done, but cannot write /dev/full: No space left on device"
        ):
            refuse_incomplete(problems_of_logs())
    finally:
        root.handlers = before
        with contextlib.suppress(OSError):
            log.close()
    shown = capsys.readouterr()
    assert shown.out.count("cannot write /dev/full: No space left on device; the run cont") == 1
    assert "line 2" in shown.out
    assert not shown.err
    refuse_incomplete(problems_of_logs())


def test_log_is_not_written_through_a_link(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / "train.log").symlink_to(precious)
    with pytest.raises(ValueError, match="cannot write to "):
        open_folder(str(tmp_path), "train")
    assert precious.read_text() == "data"


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    kept = ["last.ckpt", "last.ckpt.part.txt", "notes.part", "x.ckpt.part"]
    for name in ("e000.ckpt.part", "last.ckpt.part", "best.ckpt.new", *kept[:3]):
        (folder / name).write_text("data")
    (folder / "x.ckpt.part").mkdir()
    remove_unfinished(folder, ["*.ckpt"])
    assert sorted(os.listdir(folder)) == kept
    (folder / "y.ckpt.part").touch()
    (tmp_path / "linked").symlink_to(folder)
    remove_unfinished(tmp_path / "linked", ["*.ckpt"])
    assert (folder / "y.ckpt.part").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("train", ["run_dir=out", "overwrite=true"]),
        ("evaluate", ["output=out", "overwrite=true"]),
    ],
)
def test_second_command_in_a_folder_is_refused_and_changes_nothing(
    tmp_path: Path, verb: str, options: list[str]
) -> None:
    (tmp_path / "out" / "checkpoints").mkdir(parents=True)
    (tmp_path / "out" / "checkpoints" / "last.ckpt.part").write_text("half")
    (tmp_path / "out" / "results.json").write_text("{}")
    with writing_alone(tmp_path / "out", "run_dir"):
        before = sorted(path.name for path in (tmp_path / "out").rglob("*"))
        result = run_command(verb, DEMO, "data.root=/data", *options, cwd=tmp_path)
        assert result.returncode == 1
        held = rf"error: out is in use by process {os.getpid()} on \S+ since .*; wait until it ends"
        assert re.match(held, result.stderr)
        assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == before


def test_other_ranks_share_the_folder_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing_alone(tmp_path / "run", "run_dir"):
        assert os.listdir(tmp_path / "run") == [".lock"]
        monkeypatch.setattr("video_mvit.cli.run_folder.is_first_process", lambda: False)
        with writing_alone(tmp_path / "run", "run_dir"):
            pass
        monkeypatch.undo()
    assert not (tmp_path / "run").exists()  # nothing was written
