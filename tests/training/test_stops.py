"""A training that is stopped anywhere, any number of times, is the uninterrupted one."""

import random
import signal
from pathlib import Path

import pytest
from support.processes import run_ranks
from support.stops import PLACES, Recipe, Stop, assert_same, random_recipe, random_stops, run

KILL, TERM, USR1 = signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1
NUM_SEQUENCES = 40  # of `make test-long`
NUM_OF_RANKS = 6  # of them, of two ranks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "stops"),
    [
        (
            Recipe(save_every=1),
            [
                Stop(number=TERM, place="validation", nth=2),
                Stop(number=TERM, place="validation", nth=5),
                Stop(number=KILL, place="batch", nth=3),
            ],
        ),
        (
            Recipe(accumulated=2, val_check_interval=0.5, sanity_steps=2),
            [
                Stop(number=KILL, place="validation", nth=4),
                Stop(number=USR1, place="after_batch", nth=3),
                Stop(number=KILL, place="writing", nth=2),
            ],
        ),
        (
            Recipe(by_steps=16, save_every=None),
            [
                Stop(number=KILL, place="epoch_end", nth=1),
                Stop(number=KILL, place="after_validation", nth=2),
                Stop(number=TERM, place="validation", nth=2),
            ],
        ),
    ],
)
def test_training_stopped_three_times_is_the_uninterrupted_one(
    tmp_path: Path, recipe: Recipe, stops: list[Stop]
) -> None:
    """In validation, then in the next epoch's; before a row is logged; in the last step's."""
    expected, found = run(tmp_path / "whole", recipe), run(tmp_path / "broken", recipe, stops)
    assert found.codes == ["killed" if each.number == KILL else 75 for each in stops]
    assert_same(found, expected, stops)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUM_SEQUENCES))
def test_random_stops_change_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    recipe, stops = random_recipe(rng), random_stops(rng)
    expected, found = run(tmp_path / "whole", recipe), run(tmp_path / "broken", recipe, stops)
    assert_same(found, expected, (recipe, stops, found.codes))


@pytest.mark.long
@pytest.mark.parametrize("place", PLACES)
def test_stop_at_every_occasion_of_a_place_changes_nothing(tmp_path: Path, place: str) -> None:
    recipe = Recipe(val_check_interval=0.5, save_every=2)
    expected = run(tmp_path / "whole", recipe)
    for number in (KILL, TERM):
        nth = 1
        while True:
            stop = Stop(number=number, place=place, nth=nth)
            found = run(tmp_path / f"{number}_{nth}", recipe, [stop])
            assert_same(found, expected, (stop, found.codes))
            if not found.codes:
                break
            nth += 1


@pytest.mark.long
@pytest.mark.parametrize("seed", range(NUM_OF_RANKS))
def test_random_stops_of_two_ranks_change_nothing(tmp_path: Path, seed: int) -> None:
    """Both are stopped at the same place, as a scheduler does."""
    rng = random.Random(seed)
    recipe = random_recipe(rng)
    stops = [each for each in random_stops(rng) if each.place != "written"]
    expected, _ = run_ranks(run, 2, tmp_path / "whole", recipe)
    found, _ = run_ranks(run, 2, tmp_path / "broken", recipe, stops)
    assert_same(found, expected, (recipe, stops, found.codes))
