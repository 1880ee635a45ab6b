"""The folder of a run: who may write there, and when a run may go on in it."""

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import DictConfig
from support.commands import composed as composed_of

from video_mvit.cli.run_folder import (
    Run,
    checkpoint_to_resume,
    diff_settings,
    flat_settings,
    is_first_process,
    open_folder,
    refuse_changes,
    remove_old_checkpoints,
)
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
