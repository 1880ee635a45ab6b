"""What has to be ready before the tests begin."""

import os
import shutil
from multiprocessing import forkserver

import pytest
from processes import fresh_processes

if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side, and what they start: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if not shutil.which("nvidia-smi"):  # Triton reads it once: its kernels then run on a CPU
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the server of fresh processes import slowly now; there is one for the whole session."""
    if any(item.path.stem == "test_ranks" for item in items):
        fresh_processes()
        forkserver.ensure_running()
