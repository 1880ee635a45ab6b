"""Debug presets: what they measure, say and write."""

import gzip
import json
import logging
from pathlib import Path

import pytest
from support.commands import composed
from support.training import Clips, Data, classifier, trainer

from video_mvit.cli.auto_hardware import resolve_hardware
from video_mvit.cli.build import build_all, build_trainer
from video_mvit.cli.build_detection import check_settings
from video_mvit.errors import UserError
from video_mvit.training import step_profile
from video_mvit.training.debugging import OverfitCheck
from video_mvit.training.step_profile import (
    BACKWARD,
    DATA,
    FORWARD,
    OPTIMIZER,
    PARTS,
    StepFacts,
    StepProfile,
    advise_step,
)


def test_overfitting_ends_when_the_loss_is_small_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check = OverfitCheck(target=1.3)
    with caplog.at_level(logging.INFO):
        trainer(check, max_epochs=200).fit(classifier(), Data(Clips(1)))
    assert 1 < len(check.losses) < 200
    assert check.losses[-1] <= 1.3 < check.losses[-2]
    assert "debug=overfit succeeded: loss " in caplog.text


def test_overfitting_that_does_not_come_about_is_an_error() -> None:
    with pytest.raises(UserError, match=r"in the last of 2, 0\.001 was the aim"):
        trainer(OverfitCheck(target=0.001), max_epochs=2).fit(classifier(), Data(Clips(1)))
    with pytest.raises(UserError, match="must be positive"):
        OverfitCheck(target=0)


@pytest.mark.parametrize("num_steps", [6, 3])
def test_profile_writes_a_trace_and_a_table_of_the_steps_after_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, num_steps: int
) -> None:
    measured = StepProfile(str(tmp_path / "profile"))
    with caplog.at_level(logging.INFO):
        trainer(measured).fit(classifier(), Data(Clips(num_steps)))
    if num_steps <= step_profile.NUM_WARM:
        assert "nothing was measured" in caplog.text
        assert not (tmp_path / "profile").exists()
        return
    trace = json.loads(gzip.decompress((tmp_path / "profile" / "trace.json.gz").read_bytes()))
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert any(name.startswith("aten::") for name in names)
    table = (tmp_path / "profile" / "table.txt").read_text()
    lines = table.splitlines()
    assert (
        lines == [record.message for record in caplog.records if "step_profile" in record.name][:-1]
    )
    assert lines[0].startswith("2 steps of 2, ")
    assert [line[:15].strip() for line in lines[2:6]] == list(PARTS)
    shares = [int(line.split("%")[0].split()[-1]) for line in lines[2:6]]
    assert sum(shares) == pytest.approx(100, abs=3)
    assert any(line.startswith("aten::") for line in lines)
    assert max(map(len, lines)) <= 70  # behind the time of a log line


@pytest.mark.parametrize("preset", ["fast", "overfit", "profile"])
def test_preset_wins_over_the_experiment_and_builds(preset: str, tmp_path: Path) -> None:
    words = ("experiment=demo", "data.num_classes=16", "augment=published", "data.root=/data")
    cfg = composed("config", *words, f"run_dir={tmp_path}", f"debug={preset}")
    resolve_hardware(cfg)
    assert cfg.name == f"debug_{preset}"
    module, data = build_all(cfg)
    build_trainer(cfg, logger=False)
    if preset == "overfit":
        assert (module.augment.policy, module.augment.mixing) == (None, None)
        assert data.splits["train"].num_videos == 8
    assert ("overfit" in cfg.callbacks) is (preset == "overfit")


def test_overfitting_is_for_classifiers() -> None:
    cfg = composed("config", "experiment=demo_detection", "data.root=/data", "debug=overfit")
    with pytest.raises(UserError, match="debug=overfit is for classifiers; try debug=fast"):
        check_settings(cfg)


FACTS = {
    "on_gpu": True,
    "precision": "bf16-mixed",
    "num_workers": 2,
    "num_cores": 8,
    "is_compiled": True,
    "checkpointing": "none",
}
EVEN = dict.fromkeys(PARTS, 0.05) | {FORWARD: 0.3, BACKWARD: 0.6}


@pytest.mark.parametrize(
    ("shares", "facts", "part", "advice"),
    [
        ({DATA: 0.4}, {}, DATA, "data.num_workers=4"),
        ({DATA: 0.4}, {"num_workers": 0}, DATA, "data.num_workers=2"),
        (
            {DATA: 0.4},
            {"num_workers": 8, "transcode": "video-mvit prepare ..."},
            DATA,
            "copies that decode faster, see below",
        ),
        ({}, {"precision": "32-true"}, FORWARD, "trainer.precision=bf16-mixed"),
        (
            {},
            {"precision": "32-true", "on_gpu": False},
            FORWARD,
            "trainer.precision=bf16-mixed if it can",
        ),
        ({}, {"is_compiled": False}, FORWARD, "compile=blocks"),
        (
            {},
            {"checkpointing": "full"},
            BACKWARD,
            "model.activation_checkpointing=none",
        ),
        (
            {OPTIMIZER: 0.3},
            {},
            OPTIMIZER,
            "trainer.accumulate_grad_batches=2",
        ),
    ],
)
def test_advice_names_the_setting_of_the_part_that_takes_long(
    shares: dict[str, float], facts: dict[str, object], part: str, advice: str
) -> None:
    assert advise_step({**EVEN, **shares}, StepFacts(**{**FACTS, **facts})) == {part: advice}


def test_nothing_is_advised_where_nothing_is_amiss() -> None:
    assert advise_step(EVEN, StepFacts(**FACTS)) == {}
