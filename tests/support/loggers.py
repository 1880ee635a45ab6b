"""Loggers of servers, by name only: what they are built with."""

from typing import Any


def WandbLogger(**options: Any) -> dict[str, Any]:  # noqa: N802
    return options
