"""Loader processes with little shared memory, few open files, and nothing to give."""

import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from video_mvit.cli.lost_processes import lost_process
from video_mvit.data import loader_processes
from video_mvit.data.datamodule import LoaderConfig, ResumableDataModule
from video_mvit.data.loader_processes import ShareOrPickle, reserve_open_files, tensors_of
from video_mvit.errors import UserError
from video_mvit.training.preemption import end_loader_processes


class Pair(NamedTuple):
    clip: Tensor
    notes: tuple[str, ...]


class Items(Dataset[Tensor]):
    """Numbers in large tensors; `before` is called in the process that loads them."""

    def __init__(self, before: Callable[[int], object] = bool) -> None:
        self.before = before

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        self.before(index)
        return torch.full((1000,), index, dtype=torch.int64)


def collate(items: list[Tensor]) -> Pair:
    return Pair(torch.stack(items), ("a",))


def loader(items: Items, **options: Any) -> Any:
    data = ResumableDataModule(LoaderConfig(num_workers=1, **options))
    return data._loader(items, 2, collate)


@pytest.mark.parametrize(("free", "is_pickled"), [(10**9, False), (20_000, True)])
def test_batches_that_do_not_fit_into_shared_memory_arrive_through_the_pipe(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    free: int,
    is_pickled: bool,  # noqa: FBT001
) -> None:
    monkeypatch.setattr(loader_processes, "free_shared_memory", lambda: free)
    loader_processes._tell_once.cache_clear()
    found = list(loader(Items()))
    assert [batch.clip[:, 0].tolist() for batch in found] == [[0, 1], [2, 3]]
    assert all(batch.notes == ("a",) for batch in found)
    assert caplog.text.count("too small for these batches") == is_pickled


def test_process_without_loaders_does_not_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_processes, "free_shared_memory", lambda: 0)
    assert isinstance(ShareOrPickle(collate)([torch.zeros(3)]), Pair)


def test_tensors_are_found_in_batches_of_any_kind() -> None:
    pair = Pair(torch.zeros(1), ("a",))
    nested = [{"x": pair, "y": (torch.zeros(2), None)}, LoaderConfig(num_workers=0)]
    assert [len(each) for each in tensors_of(nested)] == [1, 2]


def with_few_files(num_files: int, num_processes: int) -> str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(50, num_files), num_files))
    try:
        reserve_open_files(num_processes)
    except UserError as error:
        return str(error)
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def test_limit_of_open_files_is_raised_or_named() -> None:
    with multiprocessing.get_context("fork").Pool(1) as pool:  # whose limit cannot be raised again
        assert pool.apply(with_few_files, (200, 2)) == "200"
        message = pool.apply(with_few_files, (64, 2))
    assert message.startswith("a process may have 64 open files here, but data.num_workers=2 needs")
    assert "ulimit -n" in message


def hang(index: int) -> None:
    if index == 2:
        time.sleep(60)


def die(index: int) -> None:
    if index == 2:
        os.kill(os.getpid(), signal.SIGKILL)


def out_of_files(index: int) -> None:
    raise OSError(24, "Too many open files", f"/videos/{index}.mp4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "sentence"),
    [
        (hang, r"the loader processes gave no batch for 1 s \(data\.timeout_s\); look at "),
        (die, r"the loader process \d+ was killed \(Killed\), often for lack of memory; lower "),
        (out_of_files, r"too many open files: a process may have \d+ here; raise the limit "),
    ],
)
def test_loader_process_that_fails_is_one_sentence(
    before: Callable[[int], object], sentence: str
) -> None:
    loading = loader(Items(before), timeout_s=1)
    with pytest.raises((RuntimeError, OSError)) as error:
        list(loading)
    end_loader_processes()
    told = lost_process(error.value)
    assert told is not None
    assert re.match(sentence, told), told


def test_shared_memory_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loader_processes.free_shared_memory() > 0
    monkeypatch.setattr(loader_processes, "SHARED_MEMORY", Path("/nowhere"))
    assert loader_processes.free_shared_memory() == float("inf")


@pytest.mark.parametrize("timeout_s", [-1, float("nan"), float("inf")])
def test_impossible_timeout_is_refused(timeout_s: float) -> None:
    with pytest.raises(UserError, match="timeout_s"):
        LoaderConfig(num_workers=0, timeout_s=timeout_s)
