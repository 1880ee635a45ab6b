"""Batches are copied beside the step before, never under memory that is still in use."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from support.training import Batch
from torch import Tensor

from video_mvit.training.device_copies import BatchCopier, copy_to_device

STEP_S, COPY_S = 10.0, 4.0


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

    def batch(self) -> Batch:
        """A batch in the memory of the host."""
        return Batch(*(HostTensor.of(self) for _ in range(3)))


class HostTensor(Tensor):
    """Is copied on whatever stream of its device is the current one."""

    device_of: FakeDevice

    @staticmethod
    def of(device: FakeDevice) -> "HostTensor":
        tensor = torch.zeros(2).as_subclass(HostTensor)
        tensor.device_of = device
        return tensor

    def to(self, *arguments: object, **options: object) -> "HostTensor":
        copied = HostTensor.of(self.device_of)
        self.device_of.current.work(COPY_S / 3)
        self.device_of.users[id(copied)] = [self.device_of.current]
        return copied

    def record_stream(self, stream: FakeStream) -> None:
        self.device_of.users[id(self)].append(stream)


def trained_s(device: FakeDevice, side: FakeStream, num_steps: int) -> float:
    """When a device is done with some steps that the host has given it at once."""
    copier = BatchCopier(side, current=lambda: device.current, on=device.on)
    for _ in range(num_steps):
        batch = copier.copy(device.batch(), torch.device("cpu"))
        assert device.current is device.main
        for tensor in batch:
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


def test_batch_of_a_cpu_is_the_same() -> None:
    batch = Batch(torch.ones(2), torch.ones(1), torch.ones(1))
    copied = copy_to_device(batch, torch.device("cpu"))
    assert isinstance(copied, Batch)
    assert all(a is b for a, b in zip(copied, batch, strict=True))
