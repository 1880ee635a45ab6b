"""What has to be ready before the tests begin."""

import os
import shutil
from multiprocessing import forkserver

import pytest
from support.processes import fresh_processes

if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side, and what they start: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not shutil.which("nvidia-smi"):  # Triton reads it once: its kernels then run on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two processes, none then works alone for long at the end.

    And the server of fresh processes imports slowly now; there is one for the whole session.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if any(item.path.stem == "test_ranks" for item in items):
        fresh_processes()
        forkserver.ensure_running()
