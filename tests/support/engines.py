"""What tests of inference engines share."""

from importlib.util import find_spec

import pytest


def needs_openvino() -> None:
    """Skip where OpenVINO is missing; importing it here would report that to its makers."""
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
