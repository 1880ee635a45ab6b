"""Batches are copied beside the step before, never under memory that is still in use."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from support.training import Batch
from torch import Tensor

from video_mvit.training.device_copies import BatchCopier, beside_network

CPU = torch.device("cpu")
STEP_S, COPY_S = 10.0, 4.0


@dataclass(frozen=True)
class Target:
    """As of a detector: frozen."""

    boxes: Tensor
    labels: Tensor


class FakeStream:
    """A queue of a device that works beside other queues: `end_s` is when it is done."""

    def __init__(self) -> None:
        self.end_s = 0.0
        self.waited_for: list[FakeStream] = []

    def work(self, duration_s: float) -> None:
        self.end_s += duration_s

    def wait_stream(self, stream: "FakeStream") -> None:
        self.waited_for.append(stream)
        self.end_s = max(self.end_s, stream.end_s)


class FakeDevice:
    """A device with a current stream; its tensors note who uses their memory."""

    def __init__(self) -> None:
        self.main, self.side = FakeStream(), FakeStream()
        self.current, self.users = self.main, dict[int, list[FakeStream]]()

    @contextmanager
    def on(self, stream: FakeStream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def batch(self) -> tuple[Batch, Target]:
        """Copy a batch on the current stream; the polygons stay on the host."""
        self.current.work(COPY_S)
        first, *others = (DeviceTensor.of(self) for _ in range(5))
        return Batch(first, *others[:2]), Target(boxes=others[2], labels=others[3])


class DeviceTensor(Tensor):
    """Notes who uses its memory."""

    device_of: FakeDevice

    @staticmethod
    def of(device: FakeDevice) -> "DeviceTensor":
        tensor = torch.zeros(2).as_subclass(DeviceTensor)
        tensor.device_of = device
        device.users[id(tensor)] = [device.current]
        return tensor

    def record_stream(self, stream: FakeStream) -> None:
        self.device_of.users[id(self)].append(stream)


def trained_s(device: FakeDevice, side: FakeStream, num_steps: int) -> float:
    """When a device is done with some steps that the host has given it at once."""
    copier = BatchCopier(side, current=lambda: device.current, on=device.on)
    for _ in range(num_steps):
        batch, target = copier.run(device.batch, CPU)
        assert device.current is device.main
        for tensor in (*batch, target.boxes, target.labels):
            assert device.users[id(tensor)] == [side, device.main]
        device.main.work(STEP_S)
    return device.main.end_s


def test_copies_take_no_time_of_steps() -> None:
    device = FakeDevice()
    assert abs(trained_s(device, device.side, 5) - (COPY_S + 5 * STEP_S)) < 1e-6
    in_turn = FakeDevice()
    assert abs(trained_s(in_turn, in_turn.main, 5) - 5 * (COPY_S + STEP_S)) < 1e-6


def test_step_waits_for_its_own_batch() -> None:
    device = FakeDevice()
    trained_s(device, device.side, 2)
    assert device.main.waited_for == [device.side, device.side]


def test_cpu_copies_nothing_beside_the_network() -> None:
    batch = Batch(torch.ones(2), torch.ones(1), torch.ones(1))
    assert beside_network(lambda: batch, CPU) is batch
