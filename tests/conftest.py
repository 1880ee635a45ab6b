"""What has to be ready before the tests begin."""

from multiprocessing import forkserver

import pytest
from processes import fresh_processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the server of fresh processes import slowly now; there is one for the whole session."""
    if any(item.path.stem == "test_ranks" for item in items):
        fresh_processes()
        forkserver.ensure_running()
