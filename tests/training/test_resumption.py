"""Where the trainer's loops go on, from whatever state they were saved in."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from support.stops import Recipe, run

from video_mvit.training.resumption import read_position, write_position


def counts(ready: int, started: int, processed: int, completed: int) -> dict[str, int]:
    return {"ready": ready, "started": started, "processed": processed, "completed": completed}


def loops(
    epoch: tuple[int, int, int, int], batch: tuple[int, int, int, int], logged: int, *, last: bool
) -> dict[str, Any]:
    """The state of the fit loop in the third epoch of six batches."""
    current = counts(*batch)
    return {
        "epoch_progress": {"current": counts(*epoch), "total": counts(*epoch)},
        "epoch_loop.batch_progress": {
            "current": current,
            "total": {name: 12 + number for name, number in current.items()},
            "is_last_batch": last,
        },
        "epoch_loop.val_loop.batch_progress": {},
        "epoch_loop.state_dict": {"_batches_that_stepped": logged},
    }


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        # In on_train_batch_end, and in the validation after it.
        (loops((3, 3, 2, 2), (4, 4, 4, 3), 15, last=False), (2, 4, 15, False)),
        (loops((3, 3, 2, 2), (4, 4, 4, 4), 15, last=False), (2, 4, 15, False)),
        # In on_train_batch_start of the next batch, and of the last one.
        (loops((3, 3, 2, 2), (5, 4, 4, 4), 16, last=False), (2, 4, 15, False)),
        (loops((3, 3, 2, 2), (6, 5, 5, 5), 17, last=True), (2, 5, 16, False)),
        # After the last batch, before the end of the epoch.
        (loops((3, 3, 2, 2), (6, 6, 6, 5), 17, last=True), (2, 6, 17, True)),
        # In on_train_epoch_end, after it, and in on_train_epoch_start of the next one.
        (loops((3, 3, 3, 2), (6, 6, 6, 6), 18, last=True), (3, 0, 18, False)),
        (loops((3, 3, 3, 3), (6, 6, 6, 6), 18, last=True), (3, 0, 18, False)),
        (loops((4, 3, 3, 3), (6, 6, 6, 6), 18, last=True), (3, 0, 18, False)),
        # At the end of a training that max_steps ended within the epoch.
        (loops((3, 3, 3, 2), (4, 4, 4, 4), 16, last=False), (2, 4, 15, False)),
        # With the epochs that Lightning counts after it has resumed at the end of one.
        (loops((2, 2, 2, 2), (4, 4, 4, 3), 15, last=False), (2, 4, 15, False)),
    ],
)
def test_saved_state_is_a_place_between_epochs_or_after_a_step(
    saved: dict[str, Any], expected: tuple[int, int, int, bool]
) -> None:
    found = read_position(saved)
    named = (found.num_epochs, found.num_batches, found.logged_steps, found.is_last_batch)
    assert named == expected
    written = copy.deepcopy(saved)
    write_position(written, found)
    again = read_position(written)
    assert (again.num_epochs, again.num_batches, again.logged_steps) == expected[:3]
    assert again.total_batches == found.total_batches


def test_training_goes_on_after_its_last_step_with_more_of_them(tmp_path: Path) -> None:
    """It had ended, and been validated, within an epoch."""
    run(tmp_path, Recipe(by_steps=8))
    longer = run(tmp_path, Recipe(by_steps=16))
    whole = run(tmp_path / "whole", Recipe(by_steps=16))
    assert longer.weights.keys() == whole.weights.keys()
    for name, tensor in whole.weights.items():
        assert torch.equal(longer.weights[name], tensor), name
