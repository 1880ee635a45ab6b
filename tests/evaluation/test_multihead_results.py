"""Evaluations with several heads: numbers, files, resuming, report and comparison."""

import itertools
import json
import random
import re
from pathlib import Path

import pytest
import torch
from support.evaluations import HOSTILE, origin

from video_mvit.class_heads import full_names
from video_mvit.errors import UserError
from video_mvit.evaluation.intervals import wilson
from video_mvit.evaluation.multihead_comparison import compare_heads
from video_mvit.evaluation.multihead_predictions import (
    ListedHeads,
    MultiHeadVideo,
    PartialMultiHeadResults,
    best_combinations,
    best_of_heads,
    combine,
    read_multihead_predictions,
    read_partial_multihead,
    write_multihead_predictions,
)
from video_mvit.evaluation.multihead_report import most_certain_errors, render_multihead_report
from video_mvit.evaluation.multihead_results import (
    MultiHeadResult,
    check_multihead_folder,
    read_multihead_folder,
    read_multihead_json,
    read_multihead_resumed,
    summarize_multihead,
)
from video_mvit.evaluation.output_folder import PREDICTIONS, RESULTS
from video_mvit.evaluation.predictions import MISSING

CLASSES = {"verb": HOSTILE, "noun": ("open", "door", "=1+1")}
NAMES = full_names(CLASSES)
HEADS = {head: len(names) for head, names in CLASSES.items()}


def scores_of_videos(number: int, skill: float) -> tuple[torch.Tensor, list[tuple[int, ...]]]:
    """Scores (N, K), a softmax of each head, which favours the labels."""
    generator = torch.Generator().manual_seed(0)
    labels = [
        tuple(int(torch.randint(0, size, (), generator=generator)) for size in HEADS.values())
        for _ in range(number)
    ]
    parts = []
    for place, size in enumerate(HEADS.values()):
        logits = torch.randn(number, size, generator=generator)
        for i, each in enumerate(labels):
            logits[i, each[place]] += skill
        parts.append(logits.softmax(1))
    return torch.cat(parts, dim=1), labels


def videos(number: int = 60, skill: float = 1.5) -> list[MultiHeadVideo]:
    scores, labels = scores_of_videos(number, skill)
    found = [
        MultiHeadVideo(video=f"=v{i}\n.mp4", labels=each, best=best_of_heads(scores[i], HEADS))
        for i, each in enumerate(labels)
    ]
    found.append(MultiHeadVideo(video="damaged.mp4", labels=(0, 1), problem="no frames"))
    return [*found, MultiHeadVideo(video="gone.mp4", labels=None, problem=MISSING)]


def summary(predictions: list[MultiHeadVideo]) -> MultiHeadResult:
    about = origin(NAMES)
    return summarize_multihead(predictions, about, time_s=2.0, num_clips=60, num_resumed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_multihead_predictions(tmp_path / PREDICTIONS, videos(), NAMES)
    summary(videos()).write(tmp_path / RESULTS)
    return tmp_path


def test_numbers_of_each_head_and_of_all_are_those_of_the_scores() -> None:
    scores, labels = scores_of_videos(60, 1.5)
    verbs, nouns = scores[:, :7], scores[:, 7:]
    truth = torch.tensor(labels)
    is_right = [part.argmax(1) == truth[:, place] for place, part in enumerate((verbs, nouns))]
    result = summary(videos())
    for head, right in zip(HEADS, is_right, strict=True):
        assert result.heads[head].top1 == pytest.approx(float(right.double().mean()))
    recalls = [float(is_right[0][truth[:, 0] == k].double().mean()) for k in range(7)]
    assert result.heads["verb"].mean_class_accuracy == pytest.approx(sum(recalls) / 7)
    in_top5 = (verbs.topk(5).indices == truth[:, :1]).any(1)
    assert result.heads["verb"].top5 == pytest.approx(float(in_top5.double().mean()))
    num_right = int((is_right[0] & is_right[1]).sum())
    assert 0 < num_right < 60
    assert result.together.top1 == pytest.approx(num_right / 60)
    assert result.intervals["all"]["top1"] == wilson(num_right, 60)
    # All combinations, one after the other: (N, 7 x 3).
    products = (verbs[:, :, None] * nouns[:, None, :]).flatten(1)
    best = products.topk(5).indices
    in_best = (best == (truth[:, 0] * 3 + truth[:, 1])[:, None]).any(1)
    assert result.together.top5 == pytest.approx(float(in_best.double().mean()))
    assert result.together.top5 > result.together.top1


def test_best_combinations_are_those_of_all_products() -> None:
    draw = random.Random(0)
    for sizes in ((9, 7), (2, 3, 8), (4,), (1, 1), (6, 6, 6)):
        heads = {f"h{i}": size for i, size in enumerate(sizes)}
        parts = [torch.tensor([draw.random() for _ in range(size)]) for size in sizes]
        found = best_combinations(best_of_heads(torch.cat(parts), heads))
        every = {
            labels: float(torch.stack([p[k] for p, k in zip(parts, labels, strict=True)]).prod())
            for labels in itertools.product(*map(range, sizes))
        }
        expected = sorted(every.items(), key=lambda pair: -pair[1])[:5]
        assert [labels for labels, _ in found] == [labels for labels, _ in expected]
        assert [p for _, p in found] == pytest.approx([p for _, p in expected], rel=1e-5)


def test_predictions_and_results_come_back_from_their_files(folder: Path) -> None:
    result, predictions = read_multihead_folder(folder)
    assert predictions == videos()
    assert result == summary(videos())
    assert result.missing == ("gone.mp4",)
    assert result.unreadable == {"damaged.mp4": "no frames"}
    content = json.loads((folder / RESULTS).read_text())
    assert content["task"] == "multi_head"
    assert content["heads"]["noun"]["top5"] == 1
    assert content["all_top1"] == result.together.top1
    assert result.lines()["videos"] == "60 of 62: 1 missing, 1 unreadable"
    assert not re.search(r"^=|,=", (folder / PREDICTIONS).read_text(), re.MULTILINE)  # no formula
    check_multihead_folder(folder, origin(NAMES).identity)
    with pytest.raises(UserError, match="different weights"):
        check_multihead_folder(folder, origin(NAMES, weights_sha1="0").identity)


def test_heads_whose_columns_have_one_name_are_told_apart(tmp_path: Path) -> None:
    names = full_names({"verb": ("a", "b"), "verb top1": ("x", "y")})
    best = best_of_heads(torch.tensor([0.9, 0.1, 0.2, 0.8]), {"verb": 2, "verb top1": 2})
    rows = [MultiHeadVideo(video="v.mp4", labels=(1, 0), best=best)]
    write_multihead_predictions(tmp_path / PREDICTIONS, rows, names)
    assert read_multihead_predictions(tmp_path / PREDICTIONS, names) == rows


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"all_top1": 0', '"all_top1": 7'),
        ('"task": "multi_head"', '"task": "other"'),
        ('"noun: door"', '"door"'),
        ('"noun: door"', '"noun: open"'),
        ('"num_listed": 62', '"num_listed": 61'),
        ('"time_s": 2.0', '"time_s": NaN'),
        ('    "noun": {', '    "other": {'),
    ],
)
def test_an_edited_result_is_refused(folder: Path, before: str, after: str) -> None:
    text = (folder / RESULTS).read_text()
    assert before in text
    (folder / RESULTS).write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match="evaluate again"):
        read_multihead_folder(folder)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (",door,", ",doors,", "'doors' is not expected there"),
        (",no frames", ",", "is not a score"),
        ("noun score1", "other score1", "with these heads"),
        ("gone.mp4,,,missing", "gone.mp4,,,", "has no labels"),
        ("gone.mp4,", "gone.mp4,,", "too many or too few"),
    ],
)
def test_an_edited_table_is_refused(folder: Path, before: str, after: str, message: str) -> None:
    path = folder / PREDICTIONS
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(UserError, match=message):
        read_multihead_predictions(path, NAMES)


def test_partial_results_resume_and_must_fit_the_list(folder: Path) -> None:
    done = [each for each in videos() if not each.problem]
    listed = ListedHeads(
        names=[each.video for each in videos()[:-1]],
        labels=[each.labels or () for each in videos()[:-1]],
        heads=HEADS,
    )
    path = folder / "0.jsonl"
    partial = PartialMultiHeadResults(path, {"protocol": "p"})
    partial.add(3, done[3])
    partial.close()
    assert read_partial_multihead(path, listed) == {3: done[3]}
    with path.open("a") as file:
        file.write("[4, [0, 0], [[[1")  # killed while it wrote
    assert read_partial_multihead(path, listed) == {3: done[3]}
    twice = [[0, 0, 1, 2, 3], [0.5, 0.4, 0.3, 0.2, 0.1]]
    rising = [[0, 1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4, 0.5]]
    good = [list(part) for part in done[3].best[1]]
    for verb, message in ((twice, "occur twice"), (rising, "not in order")):
        path.write_text("{}\n" + json.dumps([3, done[3].labels, [verb, good]]) + "\n")
        with pytest.raises(UserError, match=message):
            read_partial_multihead(path, listed)
    partial = PartialMultiHeadResults(path, {})
    partial.add(next(i for i in range(60) if done[i].labels != done[3].labels), done[3])
    partial.close()
    with pytest.raises(UserError, match="does not fit the list"):
        read_partial_multihead(path, listed)
    resumed, number = read_multihead_resumed(folder, {}, listed)
    assert resumed == dict(enumerate(done))
    assert number == 0


def test_a_result_of_another_kind_is_told_apart(folder: Path) -> None:
    (folder / RESULTS).write_text(json.dumps({"top1": 1.0}))
    with pytest.raises(UserError, match="with several heads: without task"):
        read_multihead_json(folder / RESULTS)
    with pytest.raises(UserError, match="holds an evaluation with"):
        check_multihead_folder(folder, origin(NAMES).identity)


def test_report_has_a_table_and_confusions_of_each_head_and_the_most_certain_errors() -> None:
    page = render_multihead_report(summary(videos()), videos(), curves={}, strips={})
    assert "<script>alert" not in page
    assert "</table></script>" not in page
    assert page.count('<section id="') == 5
    for place, size in enumerate(HEADS.values()):
        table = page.partition(f'id="head-{place}-class-table"')[2].partition("</table>")[0]
        assert table.count("<tr><th") == 1 + size
    assert page.count('<table class="matrix">') == page.count('<table class="pairs">') == 2
    errors = most_certain_errors(videos())
    assert page.count('<li class="plays">') == len(errors)
    wrong = [each for each in videos() if not each.problem and not each.is_right]
    assert len(errors) == len(wrong)
    products = [each.best[0].scores[0] * each.best[1].scores[0] for each in errors]
    assert products == sorted(products, reverse=True)
    assert "1 missing, 1 unreadable" in page


def test_combined_results_are_of_the_named_combinations() -> None:
    combined, combinations = combine(videos())
    first = combined[0]
    assert combinations[first.label] == videos()[0].labels
    assert combinations[first.classes[0]] == tuple(b.classes[0] for b in videos()[0].best)
    assert combined[-1].problem == MISSING
    assert combined[-1].label is None


def test_two_evaluations_are_compared_in_each_head_and_together() -> None:
    worse, better = videos(skill=0.5), videos(skill=3.0)
    found = compare_heads((summary(worse), worse), (summary(better), better))
    assert list(found) == ["all", *HEADS]
    change = summary(better).together.top1 - summary(worse).together.top1
    assert found["all"].difference == pytest.approx(change)
    assert found["all"].p_value < 0.05
    noun = summary(better).heads["noun"].top1 - summary(worse).heads["noun"].top1
    assert found["noun"].difference == pytest.approx(noun)
    flip = found["all"].fixed[0]
    video = next(each for each in better if each.video == flip.video)
    assert flip.label == f"{HOSTILE[video.labels[0]]}, {CLASSES['noun'][video.labels[1]]}"
    assert flip.after == flip.label != flip.before
    same = compare_heads((summary(worse), worse), (summary(worse), worse))
    assert same["all"].difference == 0
    assert not same["all"].fixed
    others = full_names({"noun": CLASSES["noun"], "verb": CLASSES["verb"]})
    turned = [
        MultiHeadVideo(video=each.video, labels=each.labels and each.labels[::-1], problem="x")
        if each.problem
        else MultiHeadVideo(video=each.video, labels=each.labels[::-1], best=each.best[::-1])
        for each in worse
    ]
    result = summarize_multihead(turned, origin(others), time_s=1, num_clips=1, num_resumed=0)
    with pytest.raises(UserError, match="other heads, verb, noun and noun, verb"):
        compare_heads((summary(worse), worse), (result, turned))
