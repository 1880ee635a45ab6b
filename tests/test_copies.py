"""Which transcoded copy is advised, by the doctor and by training."""

import pytest
from support.paths import CONF

from video_mvit.copies import SPEEDS, Copy, choose_copy, workers_for


@pytest.mark.parametrize(
    ("needed", "num_cores", "copy"),
    [
        (2.0, 1, Copy("fast_decoding", 1)),  # a single core loads and trains
        (3.5, 1, Copy("intra", 1)),
        (7.0, 5, Copy("fast_decoding", 4)),
        (7.0, 4, Copy("intra", 2)),  # one core is left for training
        (70.0, 8, Copy("intra", 20)),  # none would do: the fastest
    ],
)
def test_first_copy_that_leaves_a_core_is_chosen(needed: float, num_cores: int, copy: Copy) -> None:
    assert choose_copy(needed, num_cores) == copy


def test_hardly_more_than_a_whole_worker_needs_no_further_one() -> None:
    assert (workers_for(3 + 1e-9), workers_for(3.05), workers_for(3.05, 0.1)) == (3, 4, 3)
    assert workers_for(0.01, 0.1) == 1


def test_every_profile_is_one_of_transcoding() -> None:
    assert set(SPEEDS) == {path.stem for path in (CONF / "transcode").glob("*.yaml")}
