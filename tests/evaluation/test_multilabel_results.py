"""Predictions, results and report of videos with several classes: written, read, refused."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from support.evaluations import HOSTILE, origin

from video_mvit.errors import UserError
from video_mvit.evaluation.multilabel_comparison import compare_multilabel, map_interval
from video_mvit.evaluation.multilabel_metrics import mean_average_precision
from video_mvit.evaluation.multilabel_predictions import (
    ListedSets,
    MultiLabelVideo,
    PartialMultiLabelResults,
    as_arrays,
    read_multilabel_predictions,
    read_partial_multilabel,
    write_multilabel_predictions,
)
from video_mvit.evaluation.multilabel_report import render_multilabel_report
from video_mvit.evaluation.multilabel_results import (
    MultiLabelResult,
    check_multilabel_folder,
    read_multilabel_folder,
    read_multilabel_json,
    read_multilabel_resumed,
    summarize_multilabel,
)
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.predictions import MISSING

NAMES = HOSTILE


def videos(number: int = 30, skill: float = 0.3) -> list[MultiLabelVideo]:
    draw = random.Random(0)
    found = []
    for i in range(number):
        labels = tuple(k for k in range(len(NAMES) - 1) if draw.random() < 0.4)
        chances = [draw.random() for _ in NAMES]
        scores = tuple(
            round(skill * (k in labels) + (1 - skill) * chance, 6)
            for k, chance in enumerate(chances)
        )
        found.append(MultiLabelVideo(video=f"=v{i}\n.mp4", labels=labels, scores=scores))
    found.append(MultiLabelVideo(video="damaged.mp4", labels=(0,), problem="no frames"))
    return [*found, MultiLabelVideo(video="gone.mp4", labels=None, problem=MISSING)]


def summary(predictions: list[MultiLabelVideo]) -> MultiLabelResult:
    about = origin(NAMES)
    return summarize_multilabel(predictions, about, time_s=2.0, num_clips=60, num_resumed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    predictions = videos()
    write_multilabel_predictions(tmp_path / PREDICTIONS, predictions, NAMES)
    summary(predictions).write(tmp_path / RESULTS)
    return tmp_path


def test_predictions_and_results_come_back_from_their_files(folder: Path) -> None:
    result, predictions = read_multilabel_folder(folder)
    assert predictions == videos()
    assert result == summary(videos())
    assert result.missing == ("gone.mp4",)
    assert result.unreadable == {"damaged.mp4": "no frames"}
    content = json.loads((folder / RESULTS).read_text())
    assert content["task"] == "multi_label"
    assert content["average_precision"][NAMES[-1]] is None  # no video has it
    assert result.lines()["mAP"].endswith("(of 6 of 7 classes with videos)")
    check_multilabel_folder(folder, origin(NAMES).identity)
    with pytest.raises(UserError, match="different weights"):
        check_multilabel_folder(folder, origin(NAMES, weights_sha1="0").identity)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"map": 0', '"map": 7'),
        ('"task": "multi_label"', '"task": "other"'),
        ('"thresholds": {', '"thresholds": {"another": 0.5, '),
        ('"num_listed": 32', '"num_listed": 31'),
        ('"time_s": 2.0', '"time_s": NaN'),
    ],
)
def test_an_edited_result_is_refused(folder: Path, before: str, after: str) -> None:
    text = (folder / RESULTS).read_text()
    assert before in text
    (folder / RESULTS).write_text(text.replace(before, after))
    with pytest.raises(UserError, match="evaluate again"):
        read_multilabel_folder(folder)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[]", '"[""other""]"', "'other' is not expected"),
        (",no frames", ",", "is not a score"),
        ("score 日本語", "score other", "with these classes"),
        ("[]", "{}", "is not a list"),
    ],
)
def test_an_edited_table_is_refused(folder: Path, before: str, after: str, message: str) -> None:
    path = folder / PREDICTIONS
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=message):
        read_multilabel_predictions(path, NAMES)


def test_partial_results_resume_and_must_fit_the_list(folder: Path) -> None:
    done = [each for each in videos() if not each.problem]
    listed = ListedSets(
        names=[each.video for each in videos()[:-1]],
        labels=[each.labels or () for each in videos()[:-1]],
        num_classes=len(NAMES),
    )
    path = folder / "0.jsonl"
    partial = PartialMultiLabelResults(path, {"protocol": "p"})
    partial.add(3, done[3])
    partial.close()
    assert read_partial_multilabel(path, listed) == {3: done[3]}
    partial = PartialMultiLabelResults(path, {})
    partial.add(4, done[3])
    partial.close()
    with pytest.raises(UserError, match="does not fit the list"):
        read_partial_multilabel(path, listed)
    resumed, number = read_multilabel_resumed(folder, {}, listed)
    assert resumed == dict(enumerate(done))
    assert number == 0


def test_a_result_of_one_label_is_told_apart(folder: Path) -> None:
    (folder / RESULTS).write_text(json.dumps({"top1": 1.0}))
    with pytest.raises(UserError, match="with several labels: without task"):
        read_multilabel_json(folder / RESULTS)


def test_intervals_hold_the_number_and_a_better_model_is_significant() -> None:
    scores, truth = as_arrays(videos(), len(NAMES))
    number = summary(videos()).numbers.map
    low, high = map_interval(scores, truth)
    assert low < number < high
    assert (low, high) == map_interval(scores, truth)
    other = NAMES[::-1]
    last = len(NAMES) - 1
    better = [
        MultiLabelVideo(
            video=each.video,
            labels=None if each.labels is None else tuple(sorted(last - k for k in each.labels)),
            scores=each.scores[::-1],
            problem=each.problem,
        )
        for each in videos(skill=0.9)
    ]
    found = compare_multilabel(videos(skill=0.1), better, (NAMES, other))
    assert found.after > found.before
    assert found.is_significant
    assert found.interval.low < found.after - found.before < found.interval.high
    assert found.num_videos == 30
    same = compare_multilabel(videos(), videos(), (NAMES, NAMES))
    assert same.interval == (0, 0)
    assert not same.is_significant
    with pytest.raises(UserError, match="other labels of the same videos"):
        compare_multilabel(videos(), better, (NAMES, NAMES))


def test_resampled_precision_is_that_of_the_repeated_videos() -> None:
    from video_mvit.evaluation.multilabel_comparison import Ranked, _resampled_ap
    from video_mvit.evaluation.multilabel_metrics import average_precision

    scores, truth = as_arrays(videos(), len(NAMES))
    scores = scores.round(1)  # with ties
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), 5)
    found, _ = _resampled_ap(Ranked.of(scores[:, 0], truth[:, 0]), weights)
    for each, weight in zip(found, weights, strict=True):
        chosen = np.repeat(np.arange(30), weight)
        assert each == pytest.approx(average_precision(scores[chosen, 0], truth[chosen, 0]))


def test_intervals_of_few_videos_of_a_class_are_not_moved_upwards() -> None:
    draw = np.random.default_rng(0)
    truth = np.eye(40, 8, dtype=bool)  # a single video of each class
    scores = draw.random((40, 8)) + 0.2 * truth
    number = mean_average_precision(scores, truth)
    low, high = map_interval(scores, truth)
    assert number - low > high - number > 0  # resampled ones are higher
    perfect = map_interval(truth.astype(float), truth)
    assert perfect == (1, 1)
    low, high = map_interval(scores[:, :1], truth[:, :1])  # a third of the samples have no class
    assert 0 <= low <= mean_average_precision(scores[:, :1], truth[:, :1]) <= high <= 1


def test_samples_are_computed_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, truth = as_arrays(videos(), len(NAMES))
    together = map_interval(scores, truth)
    monkeypatch.setattr("video_mvit.evaluation.multilabel_comparison.MAX_DRAWN", 7 * 30)
    assert map_interval(scores, truth) == together


def test_report_shows_names_as_text_and_the_errors_of_both_kinds() -> None:
    page = render_multilabel_report(summary(videos()), videos(), curves={}, strips={})
    assert "<script>alert" not in page
    assert "</table></script>" not in page
    assert page.count('<section id="') == 5
    rows = re.findall(r'<tr><th scope="row"><bdi>.*?</tr>', page, re.DOTALL)
    assert len(rows) == len(NAMES) + 5
    assert 'id="wrong"' in page
    assert "1 missing, 1 unreadable" in page
