"""What changed between two evaluations, counted by hand."""

import pytest

from video_mvit.evaluation.comparison import compare, sign_test
from video_mvit.evaluation.predictions import VideoResult

NAMES = ("jump", "run", "swim")


def row(video: str, label: int, best: int, problem: str = "") -> VideoResult:
    if problem:
        return VideoResult(video=video, label=label, problem=problem)
    return VideoResult(video=video, label=label, classes=(best,), scores=(0.5,))


def test_flips_are_counted_over_the_videos_of_both() -> None:
    before = [row("a", 0, 0), row("b", 1, 1), row("c", 2, 0), row("d", 0, 1), row("e", 1, 1)]
    after = [row("a", 0, 0), row("b", 1, 2), row("c", 2, 2), row("d", 0, 0), row("e", 1, 0, "cut")]
    found = compare(before, after, (NAMES, NAMES))
    assert (found.num_videos, found.num_only_one) == (4, 1)
    assert found.num_right == (2, 3)
    assert [(f.video, f.label, f.before, f.after) for f in found.broken] == [
        ("b", "run", "run", "swim")
    ]
    assert [f.video for f in found.fixed] == ["c", "d"]
    assert found.difference == pytest.approx(1 / 4)
    assert found.interval[0] < found.difference < found.interval[1]
    assert found.p_value == 1.0


def test_classes_are_compared_by_name() -> None:
    """Models may have their classes in another order."""
    turned = NAMES[::-1]
    before = [row("a", 0, 0), row("b", 1, 0)]
    after = [row("a", 2, 2), row("b", 1, 1)]
    found = compare(before, after, (NAMES, turned))
    assert (found.num_videos, found.num_right) == (2, (1, 2))
    assert [f.after for f in found.fixed] == ["run"]
    with pytest.raises(ValueError, match="no video was evaluated in both"):
        compare(before, [row("a", 0, 0)], (NAMES, turned))  # labelled "swim" there


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    # Two-sided binomial tests by hand: 2 * (1 + 11) / 2**11, 2 / 2**6, 2 * (1 + 10 + 45) / 2**10.
    [(1, 10, 24 / 2048), (6, 0, 2 / 64), (2, 8, 112 / 1024), (0, 0, 1.0), (4, 4, 1.0)],
)
def test_chance_of_flips_is_that_of_an_even_coin(fixed: int, broken: int, p_value: float) -> None:
    assert sign_test(fixed, broken) == pytest.approx(p_value)


def test_interval_of_many_flips_is_that_of_the_normal_distribution() -> None:
    videos = [str(i) for i in range(1000)]
    before = [row(v, 0, 0 if i < 600 else 1) for i, v in enumerate(videos)]
    after = [row(v, 0, 0 if 50 <= i < 700 else 1) for i, v in enumerate(videos)]
    found = compare(before, after, (NAMES, NAMES))
    assert (len(found.fixed), len(found.broken)) == (100, 50)
    # Standard error sqrt(150 - 50**2 / 1000) / 1000.
    assert found.interval == pytest.approx((0.05 - 0.0238037, 0.05 + 0.0238037), abs=5e-4)
    assert found.p_value < 1e-4


@pytest.mark.parametrize("best", [0, 1], ids=["all right", "all wrong"])
def test_interval_of_no_flips_has_a_width(best: int) -> None:
    rows = [row(str(i), 0, best) for i in range(20)]
    low, high = compare(rows, rows, (NAMES, NAMES)).interval
    assert low < -0.1
    assert high > 0.1


@pytest.mark.slow
def test_many_flips_do_not_overflow() -> None:
    assert 0 <= sign_test(3000, 2000) < 1e-30
