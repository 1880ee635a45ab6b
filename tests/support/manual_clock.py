"""A clock that goes on only when told to: times are exact, however busy the machine is."""

import pytest


class ManualClock:
    """Stands for the module `time` in modules under test."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def perf_counter(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def use_manual_clock(monkeypatch: pytest.MonkeyPatch, *modules: str) -> ManualClock:
    clock = ManualClock()
    for module in modules:
        monkeypatch.setattr(f"{module}.time", clock)
    return clock
