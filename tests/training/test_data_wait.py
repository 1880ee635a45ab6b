"""Gaps between batches, on a device that works behind the host, and what would help."""

import pytest
from support.manual_clock import use_manual_clock

from video_mvit.training.data_wait import CpuTimestamp, DataWaitTimer, LoaderStats, advise


class Device:
    """A fake GPU: marks are known once it has come to them."""

    def __init__(self) -> None:
        self.now_s = self.at_mark_s = 0.0

    def mark(self) -> "DeviceMark":
        return DeviceMark(self, self.at_mark_s)


class DeviceMark:
    def __init__(self, device: Device, time_s: float) -> None:
        self.device, self.time_s = device, time_s

    def until_s(self, later: "DeviceMark") -> float | None:
        return later.time_s - self.time_s if later.time_s <= self.device.now_s else None


def test_gaps_of_a_device_are_read_once_it_has_come_there() -> None:
    device = Device()
    clock = DataWaitTimer(device.mark)
    for start_s, end_s in ((1.0, 2.0), (2.0, 3.0), (5.0, 6.0)):
        device.at_mark_s = start_s
        clock.batch_start()
        device.at_mark_s = end_s
        clock.batch_end()
        assert clock.read()[1:] == (0.0, 0.0)
    device.now_s = 4.0
    assert clock.read()[1:] == (1.0, 0.0)
    device.now_s = 9.0
    assert clock.read()[1:] == (1.0, 2.0)


def test_interrupted_gaps_are_no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    time = use_manual_clock(monkeypatch, "video_mvit.training.data_wait")
    clock = DataWaitTimer(CpuTimestamp)
    time.sleep(1.0)
    clock.batch_start()
    clock.batch_end()
    clock.skip_gap()
    time.sleep(2.0)
    clock.batch_start()
    clock.batch_end()
    clock.pause()
    time.sleep(4.0)
    clock.batch_start()
    clock.batch_end()
    time.sleep(8.0)  # the end of an epoch, after its last batch
    assert clock.read() == (3.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("workers", "cores", "share", "num_workers", "said"),
    [
        (2, 16, 5 / 7, 7, "num_workers=2, each loads 20 clips/s, the device needs 140; data.num_w"),
        (
            2,
            7,
            5 / 7,
            None,
            "7 workers would keep it busy, available cores: 7; a transcoded copy would need 4: ",
        ),
        (1, 4, 0.5, 2, "num_workers=1, each loads 40 clips/s, the device needs 80; data.num_w"),
        (0, 4, 0.5, 1, "num_workers=0, the training process loads 80 clips/s, the device needs 80"),
        (0, 4, 0.75, 3, "the training process loads 53.3 clips/s, the device needs 160"),
        (
            0,
            1,
            0.5,
            None,
            "1 workers would keep it busy, available cores: 1; a transcoded copy would need 1: ",
        ),
        (2, 4, 5 / 7, None, "need 2: video-mvit prepare ... transcode=intra"),
        (2, 7, 5 / 7, None, "need 4: video-mvit prepare ... transcode=fast_decoding"),
        (8, 64, 0.11, 9, "data.num_workers=9 would keep it busy (64 cores)"),
        (0, 999, 1.0, 100, "the device needs 4e+03"),
    ],
)
def test_advice_is_what_keeps_the_device_busy(
    workers: int, cores: int, share: float, num_workers: int | None, said: str
) -> None:
    advice = advise(
        LoaderStats(
            num_workers=workers,
            num_cores=cores,
            num_batches=100,
            clips_per_s=40.0,
            data_wait_fraction=share,
        ),
        "video-mvit prepare ...",
    )
    assert advice is not None
    assert advice.num_workers == num_workers
    assert said in advice.sentence


@pytest.mark.parametrize(("share", "num_batches"), [(0.1, 100), (0.5, 7)])
def test_little_waiting_or_few_batches_give_no_advice(share: float, num_batches: int) -> None:
    stats = LoaderStats(
        num_workers=2,
        num_cores=8,
        num_batches=num_batches,
        clips_per_s=1.0,
        data_wait_fraction=share,
    )
    assert advise(stats, None) is None


def test_no_copy_is_advised_where_no_video_is_read_from_a_file() -> None:
    stats = LoaderStats(
        num_workers=2, num_cores=2, num_batches=100, clips_per_s=40.0, data_wait_fraction=0.5
    )
    advice = advise(stats, None)
    assert advice is not None
    assert advice.sentence.endswith("4 workers would keep it busy, available cores: 2")
