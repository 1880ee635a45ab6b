"""Work in processes: nothing is lost, and one item that crashes or hangs takes nothing with it."""

import contextlib
import ctypes
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from support.processes import TIMEOUT_S, wait_until

from video_mvit.data.preparation.worker_pool import WorkerCrashed, WorkerTimedOut, map_in_processes


def double(number: int) -> int:
    return 2 * number


def double_or_die(number: int) -> int:
    if number == 3:
        ctypes.string_at(0)  # reads address 0: a crash, as of a decoder written in C
    if number == 5:
        os._exit(7)
    return 2 * number


def hang_at_two(number: int) -> int:
    if number == 2:
        threading.Event().wait()
    return number


def note_and_wait(number: int, folder: Path) -> int:
    (folder / str(os.getpid())).touch()
    if number:
        threading.Event().wait()
    return number


def is_there(path: Path) -> bool:
    """Whether the process that the file is named after is there."""
    try:
        os.kill(int(path.name), signal.SIG_DFL)
    except ProcessLookupError:
        return False
    return True


class SlowToReceive:
    """An answer that its receiver is busy with for half a second."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return (receive_slowly, (self.number,))


def receive_slowly(number: int) -> int:
    time.sleep(0.5)
    return number


def answer_and_die(number: int) -> SlowToReceive:
    threading.Timer(0.1, os._exit, (0,)).start()
    return SlowToReceive(number)


def test_every_item_comes_back_once() -> None:
    found = list(map_in_processes(double, range(20), num_workers=3, time_limit_s=TIMEOUT_S))
    assert sorted(found) == [(i, 2 * i) for i in range(20)]


def test_no_items_start_no_process() -> None:
    assert list(map_in_processes(double, [], num_workers=3, time_limit_s=TIMEOUT_S)) == []


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_item_that_kills_its_process_is_lost_alone(num_workers: int) -> None:
    found = dict(
        map_in_processes(double_or_die, range(8), num_workers=num_workers, time_limit_s=TIMEOUT_S)
    )
    assert found.pop(3) == WorkerCrashed("crashed the decoder (SIGSEGV)")
    assert found.pop(5) == WorkerCrashed("ended its process with exit code 7")
    assert found == {i: 2 * i for i in (0, 1, 2, 4, 6, 7)}


@pytest.mark.slow
def test_item_that_hangs_is_lost_after_its_time() -> None:
    found = dict(map_in_processes(hang_at_two, range(4), num_workers=1, time_limit_s=3.0))
    assert found == {0: 0, 1: 1, 2: WorkerTimedOut("took longer than 3 s"), 3: 3}


def test_closing_ends_the_processes(tmp_path: Path) -> None:
    work = partial(note_and_wait, folder=tmp_path)
    with contextlib.closing(
        map_in_processes(work, [0, 1, 2], num_workers=2, time_limit_s=TIMEOUT_S)
    ) as results:
        assert next(results) == (0, 0)
    wait_until(lambda: not any(map(is_there, tmp_path.iterdir())))


def test_wrong_number_of_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="num_workers 0 must be positive"):
        next(map_in_processes(double, [1], num_workers=0, time_limit_s=TIMEOUT_S))


@pytest.mark.slow
def test_worker_that_dies_after_its_answer_is_replaced() -> None:
    found = list(map_in_processes(answer_and_die, range(3), num_workers=1, time_limit_s=TIMEOUT_S))
    assert found == [(0, 0), (1, 1), (2, 2)]
