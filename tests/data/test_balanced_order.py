"""Balanced epochs: as many samples of each class, rare videos in turn, exactly resumed."""

from collections import Counter

import numpy as np
import pytest

from video_mvit.data.balanced_order import BalancedOrder, check_order, count_copies
from video_mvit.data.dataset import ClipKey, TrainSampler
from video_mvit.errors import UserError

LABELS = np.array([0] * 3 + [1] * 50 + [3] * 7, np.int32)  # no video of class 2
ORDER = BalancedOrder(labels=LABELS)


def sampler(rank: int = 0, num_ranks: int = 1, num_together: int = 1) -> TrainSampler:
    size = {"rank": rank, "num_ranks": num_ranks, "num_together": num_together}
    return TrainSampler(len(LABELS), seed=5, order=ORDER, **size)


def test_each_class_has_as_many_samples_and_each_of_its_videos_its_turn() -> None:
    keys = list(sampler())
    assert len(keys) == len(LABELS)
    videos = Counter(key.video_index for key in keys)
    assert Counter(LABELS[key.video_index] for key in keys) == {0: 20, 1: 20, 3: 20}
    assert {videos[i] for i in range(3)} == {6, 7}
    assert {videos[i] for i in range(53, 60)} == {2, 3}
    assert max(videos[i] for i in range(3, 53)) == 1
    others = sampler()
    others.set_epoch(1)
    assert {k.video_index for k in others} != set(videos)  # of the frequent class


def test_samples_that_no_number_divides_are_of_classes_at_random() -> None:
    order = BalancedOrder(labels=np.array([0, 0, 1, 1, 2, 2, 2, 2], np.int32))
    seen = {
        tuple(np.bincount(order.labels[order.draw_all(np.random.default_rng(seed))]))
        for seed in range(30)
    }
    assert seen == {(2, 3, 3), (3, 2, 3), (3, 3, 2)}


def test_repeated_videos_give_other_clips() -> None:
    keys = list(sampler())
    assert len(set(keys)) == len(keys)
    for video in range(3):
        copies = [key.copy for key in keys if key.video_index == video]
        assert copies == list(range(len(copies)))
    assert count_copies(np.array([4, 2, 4, 4, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]


def test_first_clip_of_a_video_is_that_of_every_other_order() -> None:
    with_copy, without = ([0, 7, 123, 0], [0, 7, 123])
    streams = [np.random.default_rng(key).random(3).tolist() for key in (with_copy, without)]
    assert streams[0] == streams[1]
    assert ClipKey(7, 123) == (7, 123, 0)


def test_ranks_share_an_epoch_and_a_resumed_one_goes_on() -> None:
    whole = list(sampler(num_together=4))
    ranks = [list(sampler(rank, 2, 4)) for rank in (0, 1)]
    assert [len(keys) for keys in ranks] == [28, 28]
    assert ranks[0] == whole[:56:2]
    assert ranks[1] == whole[1:57:2]
    resumed = sampler(1, 2, 4)
    resumed.skip_once(12)
    assert list(resumed) == ranks[1][12:]
    assert list(resumed) == ranks[1]


def test_summary_says_how_often_videos_are_read() -> None:
    assert ORDER.summary(("fall", "walk", "swim", "jump")) == (
        "each of 3 classes is in 20 of 60 samples of an epoch, a video of 'fall' 6.67 times, a "
        "video of 'walk' 0.4 times"
    )
    same = BalancedOrder(labels=np.array([0, 0, 1, 1], np.int32))
    assert same.summary(("a", "b")) == "all 2 classes have 2 videos, so that nothing changes"


def test_two_orders_at_once_are_refused() -> None:
    check_order(balanced=True, shuffle_buffer=None)
    with pytest.raises(UserError, match=r"data.balanced draws .* and data.shuffle_buffer reads"):
        check_order(balanced=True, shuffle_buffer=9)
