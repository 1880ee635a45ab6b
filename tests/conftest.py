"""What has to be ready before the tests begin."""

import os
from multiprocessing import forkserver

import pytest
from processes import fresh_processes

if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side, and what they start: a core each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the server of fresh processes import slowly now; there is one for the whole session."""
    if any(item.path.stem == "test_ranks" for item in items):
        fresh_processes()
        forkserver.ensure_running()
