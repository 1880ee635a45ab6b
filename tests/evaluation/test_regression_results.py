"""Predictions, results, comparison and report of numbers: written, read, refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.evaluations import CURVES, HOSTILE, origin

from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.predictions import MISSING
from video_mvit.evaluation.regression_comparison import compare_regressions, errors_of_videos
from video_mvit.evaluation.regression_figures import MAX_POINTS, draw_values
from video_mvit.evaluation.regression_predictions import (
    ListedValues,
    PartialRegressionResults,
    RegressionVideo,
    read_partial_regression,
    read_regression_predictions,
    value_arrays,
    write_regression_predictions,
)
from video_mvit.evaluation.regression_report import (
    largest_errors,
    parts_of_values,
    render_regression_report,
)
from video_mvit.evaluation.regression_results import (
    RegressionResult,
    check_regression_folder,
    read_regression_folder,
    read_regression_json,
    read_regression_resumed,
    summarize_regression,
)

NAMES = HOSTILE
K = len(NAMES)


def videos(number: int = 30, noise: float = 1.0, seed: int = 0) -> list[RegressionVideo]:
    draw = np.random.default_rng(0)
    truth = draw.normal(2, 3, (number, K)).round(3)
    values = truth + noise * np.random.default_rng(seed).normal(size=truth.shape)
    found = [
        RegressionVideo(video=f"=v{i}\n.mp4", truth=tuple(a), values=tuple(b))
        for i, (a, b) in enumerate(zip(truth.tolist(), values.round(6).tolist(), strict=True))
    ]
    broken = RegressionVideo(video="damaged.mp4", truth=(0.5,) * K, problem="no frames")
    return [*found, broken, RegressionVideo(video="gone.mp4", truth=None, problem=MISSING)]


def summary(predictions: list[RegressionVideo]) -> RegressionResult:
    return summarize_regression(
        predictions,
        origin(NAMES),
        target_mean=(2.0,) * K,
        time_s=2.0,
        num_clips=60,
        num_resumed=0,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_regression_predictions(tmp_path / PREDICTIONS, videos(), NAMES)
    summary(videos()).write(tmp_path / RESULTS)
    return tmp_path


def test_predictions_and_results_come_back_from_their_files(folder: Path) -> None:
    result, predictions = read_regression_folder(folder)
    assert predictions == videos()
    assert result == summary(videos())
    assert result.missing == ("gone.mp4",)
    assert result.unreadable == {"damaged.mp4": "no frames"}
    content = json.loads((folder / RESULTS).read_text())
    assert content["task"] == "regression"
    assert content["mae"] == pytest.approx(np.mean([each.mae for each in result.targets]))
    assert content["targets"][NAMES[3]]["r2"] == result.targets[3].r2
    line = result.lines()[f"MAE {NAMES[3]}"]
    assert line.startswith(f"{result.targets[3].mae:.4g}  (95 % interval ")
    assert "always the training mean: " in line
    check_regression_folder(folder, origin(NAMES).identity)
    with pytest.raises(UserError, match="different weights"):
        check_regression_folder(folder, origin(NAMES, weights_sha1="0").identity)
    cells = (folder / PREDICTIONS).read_text().splitlines()[1].split(",")
    assert cells[0].startswith("'=")  # no formula
    assert any(cell.startswith("-") for cell in cells)  # numbers are numbers


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"mae": 0', '"mae": -1'),
        ('"task": "regression"', '"task": "other"'),
        ('"target_mean": {', '"target_mean": {"another": 0.5, '),
        ('"rmse": 0', '"rmse": "0'),
        ('"num_listed": 32', '"num_listed": 31'),
        ('"time_s": 2.0', '"time_s": NaN'),
    ],
)
def test_an_edited_result_is_refused(folder: Path, before: str, after: str) -> None:
    text = (folder / RESULTS).read_text()
    assert before in text
    (folder / RESULTS).write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match="evaluate again"):
        read_regression_folder(folder)


@pytest.mark.parametrize(
    ("pattern", "after", "message"),
    [
        (r"\.mp4,,[^,]*,", ".mp4,,nan,", "'nan' is not a number"),
        (r"\.mp4,,[^,]*,", ".mp4,,,", "'' is not a number"),
        (r"\.mp4,,[^,]*,", ".mp4,,1e301,", "is not a number"),
        ("no frames", "", "is not a number"),
        ("predicted 日本語", "score 日本語", "with these targets"),
        (r"\.mp4,,", ".mp4,,1,", "too many or too few cells"),
    ],
)
def test_an_edited_table_is_refused(folder: Path, pattern: str, after: str, message: str) -> None:
    path = folder / PREDICTIONS
    text = path.read_text()
    assert re.search(pattern, text)
    path.write_text(re.sub(pattern, after, text, count=1))
    with pytest.raises(UserError, match=message):
        read_regression_predictions(path, NAMES)


def test_partial_results_resume_and_must_fit_the_list(folder: Path) -> None:
    done = [each for each in videos() if not each.problem]
    present = videos()[:-1]
    listed = ListedValues(
        names=[each.video for each in present], values=[each.truth or () for each in present]
    )
    path = folder / "0.jsonl"
    for index in (3, 4):
        partial = PartialRegressionResults(path, {"protocol": "p"})
        partial.add(index, done[3])
        partial.close()
        if index == 3:
            assert read_partial_regression(path, listed) == {3: done[3]}
    with pytest.raises(UserError, match="does not fit the list"):
        read_partial_regression(path, listed)
    resumed, number = read_regression_resumed(folder, {}, listed)
    assert resumed == dict(enumerate(done))
    assert number == 0
    others = ListedValues(names=listed.names[::-1], values=listed.values)
    with pytest.raises(UserError, match="other videos than the list"):
        read_regression_resumed(folder, {}, others)


def test_a_result_of_another_task_is_told_apart(folder: Path) -> None:
    (folder / RESULTS).write_text(json.dumps({"top1": 1.0}))
    with pytest.raises(UserError, match="evaluate of numbers: without task"):
        read_regression_json(folder / RESULTS)
    with pytest.raises(UserError, match="holds an evaluation with"):
        check_regression_folder(folder, origin(NAMES).identity)


def test_values_without_a_finite_size_are_refused() -> None:
    wrong = [*videos(3), RegressionVideo(video="x", truth=(0.0,) * K, values=(1e301,) * K)]
    with pytest.raises(UserError, match="too large to be told"):
        summary(wrong)
    with pytest.raises(UserError, match="none of the listed videos"):
        summary(videos(0))


def test_comparison_tells_differences_and_which_videos_changed() -> None:
    other = NAMES[::-1]
    better = [
        RegressionVideo(
            video=each.video,
            truth=each.truth and each.truth[::-1],
            values=each.values[::-1],
            problem=each.problem,
        )
        for each in videos(noise=0.1)
    ]
    found = compare_regressions(videos(), better, (NAMES, other))
    assert found.num_videos == 30
    values, truth = value_arrays(videos())
    for k, change in enumerate(found.targets):
        assert change.name == NAMES[k]
        assert change.before == pytest.approx(np.abs(values - truth)[:, k].mean())
        assert change.after == pytest.approx(0.1 * change.before, rel=0.01)
        assert change.is_significant
        assert change.interval.low < change.after - change.before < change.interval.high
    assert {each.video for each in found.videos} == {each.video for each in videos()[:30]}
    first = found.videos[0]
    assert first.after - first.before == max(each.after - each.before for each in found.videos)
    same = compare_regressions(videos(), videos(), (NAMES, NAMES))
    assert same.videos == ()
    assert not any(each.is_significant for each in same.targets)
    with pytest.raises(UserError, match="other true values of the same videos"):
        compare_regressions(videos(), better, (NAMES, NAMES))
    with pytest.raises(UserError, match="other targets"):
        compare_regressions(videos(), better, (NAMES, NAMES[1:]))
    errors = np.array([[2.0, -1.0], [0.0, 4.0]])
    spread = np.array([[0.0, 7.0], [4.0, 7.0]])  # the second is constant: its error as it is
    assert errors_of_videos(errors, spread).tolist() == [1.0, 2.0]
    assert errors_of_videos(errors[:, :1], spread[:, :1]).tolist() == [2, 0]


def test_names_of_targets_are_printed_in_one_line() -> None:
    assert not [name for name in summary(videos()).lines() if not name.isprintable()]


def test_errors_are_divided_by_true_value() -> None:
    truth = np.arange(11.0)
    values = np.where(truth < 5, truth + 1, truth - 2)
    parts = parts_of_values(values, truth)
    assert [part.num_videos for part in parts] == [3, 2, 2, 2, 2]
    assert (parts[0].low, parts[0].high, parts[0].mae, parts[0].bias) == (0, 2, 1, 1)
    assert (parts[-1].mae, parts[-1].bias) == (2, -2)
    assert len(parts_of_values(values[:2], truth[:2])) == 2
    mostly_zero = np.array([-2.0, -1, *[0] * 16, 1, 2])
    parts = parts_of_values(mostly_zero + 1, mostly_zero)
    assert [(p.low, p.high, p.num_videos) for p in parts] == [(-2, -1, 2), (0, 0, 16), (1, 2, 2)]


def first_targets(number: int) -> tuple[RegressionResult, list[RegressionVideo]]:
    """The result and predictions of the first targets alone."""
    predictions = [
        RegressionVideo(
            video=each.video,
            truth=each.truth and each.truth[:number],
            values=each.values[:number],
            problem=each.problem,
        )
        for each in videos()
    ]
    about, means = origin(NAMES[:number]), (2.0,) * number
    return summarize_regression(
        predictions, about, target_mean=means, time_s=1, num_clips=1, num_resumed=0
    ), predictions


def test_report_shows_names_as_text_and_the_largest_errors_first() -> None:
    result, predictions = first_targets(3)
    page = render_regression_report(result, predictions, curves=CURVES, strips={})
    assert "<script>alert" not in page
    assert "</table></script>" not in page
    assert page.count('<section id="') == 6  # with curves, without strips
    assert page.count("<svg") == 2 * 3 + 3
    assert "1 missing, 1 unreadable" in page
    values, truth = value_arrays(predictions)
    worst = int((np.abs(values - truth) / truth.std(axis=0)).mean(axis=1).argmax())
    assert largest_errors(predictions)[0] == predictions[worst]
    listed = page[page.index('id="errors"') :]
    assert listed.index(f"=v{worst}\\n.mp4") == listed.index("=v")
    assert f"{values[worst, 2]:.4g}</span> <span" in listed


def test_report_of_one_target_has_its_numbers_at_the_top() -> None:
    result, predictions = first_targets(1)
    page = render_regression_report(result, predictions, curves={}, strips={})
    (numbers,) = result.targets
    top = page[page.index('class="headline"') : page.index('id="targets"')]
    for text in (f"{numbers.r2:.3f}", f"{numbers.mae:.4g}", f"{numbers.baseline_mae:.4g}"):
        assert f"<dd>{text}</dd>" in top
    line = result.number_lines()[f"R2 {NAMES[0]}"]
    assert line.startswith(f"{numbers.r2:.3f}  (95 % interval ")


def test_a_figure_of_many_videos_stays_small() -> None:
    draw = np.random.default_rng(0)
    truth = draw.normal(size=20_000)
    picture = draw_values("x", truth + draw.normal(size=20_000), truth)
    assert MAX_POINTS <= picture.count("<use") < MAX_POINTS + 30
    assert len(picture) < 250_000
