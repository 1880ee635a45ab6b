"""What has to be ready before the tests begin."""

import contextlib
import os
import shutil
from multiprocessing import forkserver

import pytest
from support.processes import fresh_processes


def take_a_share_of_the_cores(worker: int, num_workers: int) -> None:
    """Tests side by side, and what they start, get cores of their own.

    Threads of two processes that wait for each other's cores would cost several times their work.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[worker::num_workers] or cores)


if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    take_a_share_of_the_cores(int(worker.removeprefix("gw")), count)
with contextlib.suppress(ImportError):
    import readline  # noqa: F401
os.unsetenv("COLUMNS")  # which readline sets for commands that are started here
if not shutil.which("nvidia-smi"):  # Triton reads it once: its kernels then run on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


os.environ.pop("COLUMNS", None)  # what a command prints into a file has lines of any length
os.environ["VIDEO_MVIT_CACHE"] = ""  # nothing is kept for the user of this computer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two processes, none then works alone for long at the end.

    And the server of fresh processes imports slowly now; there is one for the whole session.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if slow:
        fresh_processes()
        forkserver.ensure_running()
