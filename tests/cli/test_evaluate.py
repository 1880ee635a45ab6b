"""An evaluation as a whole, on generated videos: exact, accounted, and resumed after a kill."""

import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import composed as composed_of
from support.commands import running
from support.evaluations import TOLERANCE, assert_same_predictions
from support.processes import wait_until

import video_mvit
from video_mvit.cli.build import quiet_libraries
from video_mvit.cli.evaluate import (
    build_evaluation,
    curves_of,
    evaluate,
    evaluate_as_configured,
    recompute_metrics,
    resolve,
)
from video_mvit.cli.option_values import check_verb
from video_mvit.data.dataset import ClipPipeline, read_views
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.data.sampling import ClipSpec, UniformClips
from video_mvit.data.transforms.augment import Normalize
from video_mvit.data.transforms.cropping import UniformCrops
from video_mvit.errors import UserError
from video_mvit.evaluation.output_folder import PARTIAL_DIR, PREDICTIONS, RESULTS, read_folder
from video_mvit.evaluation.predictions import VideoResult
from video_mvit.evaluation.report_files import write_report
from video_mvit.evaluation.results import Result
from video_mvit.weights.checkpoint_files import write_safetensors

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries

Evaluate = Callable[..., tuple[Result, list[VideoResult]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, seven of them to test on, and a model of random weights."""
    root = tmp_path_factory.mktemp("demo")
    write_demo_dataset(root, {"train": 8, "val": 1, "test": 7}, 0, lambda _: None)
    torch.manual_seed(0)
    model = video_mvit.create_model("mvitv2_demo", num_classes=8)
    with torch.no_grad():
        model.head.projection.weight.mul_(50)  # so that scores differ
    write_safetensors(root / "model.safetensors", model.state_dict(), None)
    return root


def composed(root: Path, output: Path, *overrides: str) -> Any:
    options = ["experiment=demo", f"data.root={root}", "data.num_workers=0", f"output={output}"]
    options += [f"checkpoint={root}/model.safetensors", "data.eval_batch_size=2"]
    options += ["run_dir=run", *overrides]
    quiet_libraries()
    return composed_of("evaluate", *options)


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Evaluate:
    return lambda *overrides: evaluate(
        build_evaluation(resolve(composed(root, tmp_path, *overrides)))
    )


@pytest.mark.parametrize(("num_clips", "num_crops"), [(5, 1), (10, 1), (5, 3), (1, 3), (2, 1)])
def test_scores_are_the_mean_over_all_views(
    root: Path, run: Evaluate, num_clips: int, num_crops: int
) -> None:
    wide = ["data.short_side=40", f"data.num_clips={num_clips}", f"data.num_crops={num_crops}"]
    result, predictions = run(*wide)
    protocol = f"{num_clips}x{num_crops}@8x4 offset short40 crop32"
    assert result.origin.protocol == protocol
    pipeline = ClipPipeline(
        sampler=UniformClips(clip=ClipSpec(num_frames=8, frame_stride=4), num_clips=num_clips),
        crop=UniformCrops(size=32, short_side=40, num_crops=num_crops),
    )
    model = video_mvit.load_model(str(root / "model.safetensors"))
    normalize = Normalize(mean=(0.45,) * 3, std=(0.225,) * 3)
    for each in predictions:
        clips = read_views(f"{result.origin.list_root}/{each.video}", pipeline, None)
        assert len(clips) == num_clips * num_crops
        with torch.no_grad():
            scores = model(normalize(torch.stack(clips))).softmax(-1).mean(0)
        assert each.scores == pytest.approx(scores.topk(5).values.tolist(), rel=0, abs=TOLERANCE)


def test_seven_videos_with_two_unreadable_give_five_and_the_bounds(
    tmp_path: Path, run: Evaluate
) -> None:
    broken = tmp_path / "broken"
    write_demo_dataset(broken, {"train": 8, "val": 1, "test": 7}, 0, lambda _: None)
    videos = sorted((broken / "test").rglob("*.mp4"))
    videos[1].write_bytes(b"")
    videos[4].write_bytes(videos[4].read_bytes()[:200])
    result, predictions = run(f"data.root={broken}", "motion=[frozen,reversed,shuffled]")
    names = {str(video.relative_to(broken / "test")) for video in (videos[1], videos[4])}
    assert (result.num_videos, result.num_listed) == (5, 7)
    assert result.unreadable.keys() == names
    assert all(result.unreadable.values())
    assert {p.video for p in predictions if p.problem} == names
    right = sum(p.is_right for p in predictions)
    assert result.accuracies.top1 == right / 5
    assert result.bounds["top1"] == pytest.approx((right / 7, (right + 2) / 7))
    assert result.accuracies.motion.keys() == {"frozen", "reversed", "shuffled"}
    lines = result.lines()
    assert lines["videos"] == "5 of 7: 0 missing, 2 unreadable"
    assert read_folder(tmp_path) == (result, predictions)


def test_numbers_are_computed_again_from_predictions(tmp_path: Path, run: Evaluate) -> None:
    result, predictions = run()
    before = (tmp_path / RESULTS).read_text()
    (tmp_path / RESULTS).write_text(re.sub(r'"top1": [0-9.]+', '"top1": 0.99', before, count=1))
    assert recompute_metrics(tmp_path) == (result, predictions)
    assert (tmp_path / RESULTS).read_text() == before
    table = (tmp_path / PREDICTIONS).read_text()
    (tmp_path / PREDICTIONS).write_text(table.replace("moving", "floating"))
    with pytest.raises(ValueError, match=r"line 2: 'floating .* is not expected there"):
        recompute_metrics(tmp_path)


def test_second_run_evaluates_what_is_left(run: Evaluate, tmp_path: Path) -> None:
    whole, predictions = run()
    text = (tmp_path / RESULTS).read_text()
    assert run() == (whole, predictions)
    assert (tmp_path / RESULTS).read_text() == text  # its time too
    with pytest.raises(ValueError, match="holds an evaluation with different views; output="):
        run("data.num_clips=1")
    with pytest.raises(ValueError, match="with a different normalization; output="):
        run("data.normalize.std=[0.2,0.2,0.2]")
    other, _ = run("data.num_clips=1", "overwrite=true")
    assert other.origin.protocol != whole.origin.protocol


def test_a_list_of_more_missing_videos_counts_them(
    root: Path, run: Evaluate, tmp_path: Path
) -> None:
    run("data.num_clips=1")
    label = next((root / "test").iterdir()).name
    (tmp_path / "test.csv").write_text((root / "test.csv").read_text() + f"{label},gone,0,1,test\n")
    result, predictions = run("data.num_clips=1", f"data.sources.test.manifest={tmp_path}/test.csv")
    assert (result.num_videos, result.num_listed) == (7, 8)
    assert read_folder(tmp_path) == (result, predictions)
    assert not (tmp_path / PARTIAL_DIR).exists()


def test_scores_that_are_no_numbers_end_an_evaluation(
    root: Path, tmp_path: Path, run: Evaluate
) -> None:
    model = video_mvit.load_model(str(root / "model.safetensors"))
    with torch.no_grad():
        model.head.projection.weight.fill_(3e38)  # sums of it are infinite
    write_safetensors(tmp_path / "wild.safetensors", model.state_dict(), None)
    with pytest.raises(ValueError, match=r"\.mp4: the model gives NaN or Inf scores"):
        run(f"checkpoint={tmp_path}/wild.safetensors", "data.num_clips=1")


def test_ablations_count_once_in_any_order(
    root: Path, tmp_path: Path, run: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, still_open = shutil.rmtree, []

    def removed(folder: Path) -> None:  # some disks keep a folder whose files are open
        handles = [os.path.realpath(handle) for handle in Path("/proc/self/fd").iterdir()]
        still_open.extend(path for path in handles if path.startswith(str(folder)))
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", removed)
    whole, _ = run("data.num_clips=1", "motion=[reversed,frozen,reversed]")
    assert whole.origin.motion == ("frozen", "reversed")
    assert whole.clips_per_s * whole.time_s == pytest.approx(3 * 7)
    assert run("data.num_clips=1", "motion=[frozen,reversed]")[0] == whole
    assert not still_open
    for value, words in (("null", "null, expected a list"), ("frozen", "'frozen', expected a")):
        with pytest.raises(ValueError, match=f"motion is {words}"):
            check_verb(composed(root, tmp_path, f"motion={value}"), "evaluate")


def test_refused_evaluation_leaves_nothing(root: Path, tmp_path: Path) -> None:
    for word in ("checkpoint=missing.pth", "data.root=missing", "clip.crop_size=33"):
        with pytest.raises((UserError, OSError)):
            evaluate_as_configured(composed(root, tmp_path / "out", word))
        assert list(tmp_path.iterdir()) == []


def test_trainer_limits_are_refused(run: Evaluate) -> None:
    with pytest.raises(ValueError, match="3 of 7 videos were not evaluated; remove"):
        run("+trainer.limit_test_batches=2")


def evaluate_slowly(root: Path, output: Path) -> None:
    def wait(module: Any, *_: object) -> None:
        if type(module) is video_mvit.MViT:
            time.sleep(0.3)

    torch.nn.modules.module.register_module_forward_hook(wait)
    evaluate(build_evaluation(resolve(composed(root, output, "data.eval_batch_size=1"))))


def test_killed_evaluation_goes_on(root: Path, run: Evaluate, tmp_path: Path) -> None:
    _, expected = run()
    output = tmp_path / "killed"
    output.mkdir()
    notes = output / PARTIAL_DIR / "0.jsonl"
    with running(evaluate_slowly, root, output) as process:
        wait_until(lambda: notes.exists() and notes.read_text().count("\n") >= 4, process)
    num_done = notes.read_text().count("\n") - 1
    assert 3 <= num_done < 7
    result, predictions = evaluate(build_evaluation(resolve(composed(root, output))))
    assert_same_predictions(predictions, expected)
    assert result.num_resumed == num_done
    assert not (output / PARTIAL_DIR).exists()


def test_report_shows_curves_of_its_run_and_frames_of_errors(
    root: Path, tmp_path: Path, run: Evaluate
) -> None:
    result, predictions = run()
    wrong = sum(not p.is_right for p in predictions)
    assert wrong
    cfg = composed(root, tmp_path, f"run_dir={tmp_path}/other")
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)
    page = write_report(tmp_path, result, predictions, curves).read_text()
    assert page.count("data:image/webp") >= wrong
    assert "Training curves" not in page
    metrics = tmp_path / "run" / "metrics" / "version_0"
    metrics.mkdir(parents=True)
    (metrics / "metrics.csv").write_text("step,epoch,val/top1\n9,0,0.25\n19,1,0.5\n")
    cfg = composed(root, tmp_path, f"run_dir={tmp_path}/run")
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)  # of another model
    assert write_report(tmp_path, result, predictions, curves).read_text() == page
    origin = replace(result.origin, checkpoint=f"{tmp_path}/run/checkpoints/last.ckpt")
    result = replace(result, origin=replace(origin, list_root="/nowhere"))
    curves = curves_of(cfg.run_dir, result.origin.checkpoint)
    page = write_report(tmp_path, result, predictions, curves).read_text()
    assert "data:image/webp" not in page
    assert "Training curves" in page
