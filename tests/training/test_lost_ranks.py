"""A rank that dies or stops answering ends the others with one sentence that names it."""

import os
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from support.commands import running_ranks
from support.processes import TIMEOUT_S, run_ranks, wait_until

from video_mvit.cli.lost_processes import lost_process
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.training.distributed import HostAllReduce

pytestmark = pytest.mark.slow


def told_of_a_rank_that_leaves() -> str | None:
    """What rank 0 is told; rank 1 does not answer, then ends."""
    torch.distributed.init_process_group("gloo")
    all_reduce = HostAllReduce(timedelta(seconds=1))
    all_reduce.max(0)
    if torch.distributed.get_rank() == 1:
        return "left"
    with pytest.raises(RuntimeError) as error:
        all_reduce.max(0)
    return lost_process(error.value)


def test_rank_that_gives_no_answer_is_named() -> None:
    told, _ = run_ranks(told_of_a_rank_that_leaves, 2)
    assert told is not None
    assert re.match(r"rank 1 (ended|gave no answer within rank_timeout_s); its own output", told)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "said"),
    [(signal.SIGKILL, "ended"), (signal.SIGSTOP, "gave no answer within rank_timeout_s")],
)
def test_training_that_loses_a_rank_ends_with_one_sentence(
    tmp_path: Path, number: signal.Signals, said: str
) -> None:
    root, run_dir, log = tmp_path / "data", tmp_path / "run", tmp_path / "log"
    write_demo_dataset(root, {"train": 64, "val": 4, "test": 4}, 0, lambda _: None)
    words = ["train", "experiment=demo", f"data.root={root}", f"run_dir={run_dir}"]
    words += ["data.train_batch_size=4", "optim.num_epochs=30", "rank_timeout_s=5"]
    last = run_dir / "checkpoints" / "last.ckpt"
    with running_ranks(2, *words, cwd=tmp_path, log=log) as ranks:
        wait_until(last.exists, ranks[0])
        os.kill(ranks[1].pid or 0, number)
        ranks[0].join(TIMEOUT_S)
        assert ranks[0].exitcode == 1, log.read_text()
    told = log.read_text()
    assert re.search(rf"error: rank 1 {said}; its own output says why; start again", told), told
    assert "Traceback" not in told
