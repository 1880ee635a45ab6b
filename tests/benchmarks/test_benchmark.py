"""The data benchmark: same clips on both sides, honest ratios, and reasons where there is none."""

import dataclasses
import io
import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import augment as benchmark_augment
from benchmarks import data as benchmark_data
from benchmarks import data_peers as peers
from benchmarks import pairs
from benchmarks.augment import run_augment_benchmark
from benchmarks.data import DataBenchmark, our_frames, our_samples, our_views, run_data_benchmark
from benchmarks.data_peers import Task
from benchmarks.pairs import ClipSet, Comparison, Row, compare
from benchmarks.peer_errors import BaselineError
from omegaconf import DictConfig
from rich.console import Console
from support.commands import composed as composed_in
from support.paths import SCRIPTS
from support.videos import read_numbers, write_numbered_video
from torch import Tensor

from video_mvit import create_model
from video_mvit.cli.build import build
from video_mvit.cli.config_check import check_values
from video_mvit.cli.errors import exit_on_user_error
from video_mvit.data.preparation.synthetic import (
    CLIP,
    CLIP_S,
    Clip,
    place_clip,
    random_clip,
    render_video,
    spread_seeds,
)

pytestmark = pytest.mark.slow  # a command as a whole, or networks of other libraries


def composed(*overrides: str) -> DictConfig:
    return composed_in("benchmark", *overrides, folder=SCRIPTS / "benchmarks")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_numbered_video(tmp_path_factory.mktemp("videos") / "numbered.mp4", 100))


def loaded(load_baseline: Callable[[], Task]) -> Task:
    try:
        return load_baseline()
    except BaselineError as error:
        pytest.skip(str(error))


# Clips


def test_clip_lies_where_its_position_says(video: str) -> None:
    first, last = place_clip(video, 0, 0.0), place_clip(video, 0, 1.0)
    assert (first.frame_indices[0], first.frame_indices[-1]) == (0, 63)
    assert (last.frame_indices[0], last.frame_indices[-1]) == (36, 99)
    assert (first.start_s, first.end_s) == pytest.approx((0, 64 / 30))
    assert (last.start_s, last.end_s) == pytest.approx((36 / 30, 100 / 30))


def test_spread_seeds_place_one_clip_in_each_part() -> None:
    seeds = spread_seeds(6, random.Random(0))
    parts = [int(6 * random.Random(seed).random()) for seed in seeds]
    assert sorted(parts) == list(range(6))
    assert parts != sorted(parts)


def test_pytorchvideo_draws_the_same_clip_from_the_same_seed(video: str) -> None:
    loaded(lambda: peers.pytorchvideo_sample(CLIP_S, CLIP.num_frames))
    from pytorchvideo.data import make_clip_sampler

    for seed in (1, 2, 3):
        clip = random_clip(video, seed)
        random.seed(seed)
        drawn = make_clip_sampler("random", CLIP_S)(0, 100 / 30, {})
        assert float(drawn.clip_start_sec) == pytest.approx(clip.start_s, abs=1e-6)
        assert float(drawn.clip_end_sec) == pytest.approx(clip.end_s, abs=1e-6)


def test_generated_frames_move_and_come_again_from_the_same_seed() -> None:
    frames, again, other = (
        np.stack(list(render_video(np.random.default_rng(seed), num_frames=12)))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(frames, again)
    assert frames.shape == (12, 384, 340)
    brightness, others = (
        video[:, :256].reshape(12, 64, 4, 85, 4).mean(axis=(2, 4)) for video in (frames, other)
    )  # without the grain
    assert brightness.std() > 20
    assert np.abs(brightness[-1] - brightness[0]).mean() > 3
    assert np.abs(brightness - others).mean() > 10


# Peers


@pytest.mark.parametrize("load_baseline", [peers.decord_frames, peers.torchcodec_frames])
def test_other_decoders_give_the_clip_that_ours_gives(
    video: str, load_baseline: Callable[[], Task]
) -> None:
    clip = random_clip(video, 3)
    frames = loaded(load_baseline)(clip)
    assert read_numbers(frames.numpy()) == clip.frame_indices.tolist()
    assert torch.equal(frames, our_frames(clip))


def test_slowfast_segment_holds_the_frames_of_the_clip(video: str) -> None:
    for position in (0.0, 0.5, 1.0):  # starts of whole frames: 0, 18, 36
        clip = place_clip(video, 0, position)
        frames = peers._slowfast_segment(clip, CLIP.num_frames)
        assert read_numbers(frames.numpy()) == clip.frame_indices.tolist()


def test_samples_of_all_chains_have_the_shape_of_a_training_item(video: str) -> None:
    clip = random_clip(video, 3)
    assert our_samples(2)(clip).shape == (2, 16, 3, 224, 224)
    slowfast = loaded(lambda: peers.slowfast_samples(CLIP.num_frames, 2))(clip)
    assert slowfast.shape == (2, 3, 16, 224, 224)
    assert not torch.equal(slowfast[0], slowfast[1])
    assert slowfast.min() >= -2
    pytorchvideo = loaded(lambda: peers.pytorchvideo_sample(CLIP_S, CLIP.num_frames))(clip)
    assert pytorchvideo.shape == (3, 16, 224, 224)


def test_views_read_at_once_or_one_by_one_are_the_same(video: str) -> None:
    clip = place_clip(video, 0, 0.0)
    views = our_views(5)(clip)
    assert views.shape == (5, 16, 3, 224, 224)
    assert torch.equal(views, benchmark_data.our_views_one_by_one(5)(clip))


def test_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(BaselineError, match="decord cannot be loaded: "):
        peers.decord_frames()


@pytest.mark.parametrize(
    "load_baseline",
    [
        peers.decord_frames,
        peers.torchcodec_frames,
        lambda: peers.pytorchvideo_sample(CLIP_S, CLIP.num_frames),
        lambda: peers.slowfast_samples(CLIP.num_frames, 1),
    ],
)
def test_video_that_a_peer_cannot_read_is_told(
    load_baseline: Callable[[], Task], video: str, tmp_path: Path
) -> None:
    clip, bad = random_clip(video, 3), tmp_path / "bad.mp4"
    bad.write_bytes(b"not a video at all\n" * 50)
    values = {**vars(clip), "path": str(bad)}
    with pytest.raises(BaselineError, match=r"cannot read .*bad\.mp4: .+"):
        loaded(load_baseline)(Clip(**values))


# Pairs


class Clock:
    """CPU time that passes only where a task says so."""

    now_s = 0.0

    def task(self, *costs_s: float, value: int = 0) -> Task:
        """Each call costs the next of `costs_s`, over and over."""
        calls = iter(range(10**6))

        def run(_: Clip) -> Tensor:
            self.now_s += costs_s[next(calls) % len(costs_s)]
            return torch.tensor(value)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pairs.time, "process_time", lambda: clock.now_s)
    return clock


def comparison(ours: Task, load_baseline: Callable[[], Task], **options: object) -> Comparison:
    values = {"question": "q", "baseline": "p", "target_ratio": 2.0, **options}
    return Comparison(ours=ours, load_baseline=load_baseline, **values)


def test_ratio_is_cpu_time_of_the_other_over_ours(video: str, clock: Clock) -> None:
    clip_set = ClipSet(name="f", clips=(place_clip(video, 0, 0.0),) * 2)
    # One call to warm up, then two clips in each of three passes.
    baseline = clock.task(9.0, 0.02, 0.04, 0.01, 0.01, 0.05, 0.05)
    row = compare(comparison(clock.task(0.01), lambda: baseline), clip_set, num_pairs=3)
    assert row.ratios == pytest.approx((3, 1, 5))
    assert (row.ours_ms, row.baseline_ms) == pytest.approx((10, 30))
    assert statistics.median(row.ratios) == pytest.approx(3)
    assert row.verdict == "pass"
    slow = compare(comparison(clock.task(0.02), lambda: baseline), clip_set, num_pairs=3)
    assert slow.verdict == "miss"


def test_clips_are_limited_where_an_item_takes_long(video: str, clock: Clock) -> None:
    clip_set = ClipSet(name="f", clips=(place_clip(video, 0, 0.0),) * 5)
    limited = comparison(clock.task(0.01), lambda: clock.task(0.01), max_clips=2)
    assert compare(limited, clip_set, num_pairs=1).num_clips == 2


def test_differing_pixels_fail_whatever_the_ratio(video: str, clock: Clock) -> None:
    clip_set = ClipSet(name="f", clips=(place_clip(video, 0, 0.0),) * 2)

    def verdict(value: int) -> str:
        ours, baseline = clock.task(0.01), clock.task(0.05, value=value)
        return compare(comparison(ours, lambda: baseline, pixels="same"), clip_set, 2).verdict

    assert verdict(0) == "pass, pixels identical"
    assert verdict(1) == "failed: pixels differ in 2 of 2 clips"


def test_peer_that_cannot_be_measured_has_a_reason_and_no_number(video: str, clock: Clock) -> None:
    def load_baseline() -> Task:
        raise BaselineError("no such library")

    def fail(_: Clip) -> Tensor:
        raise BaselineError("no such codec")

    clip_set = ClipSet(name="f", clips=(place_clip(video, 0, 0.0),))
    for load, reason in ((load_baseline, "no such library"), (lambda: fail, "no such codec")):
        row = compare(comparison(clock.task(0.01), load), clip_set, num_pairs=1)
        assert row.verdict == f"skipped: {reason}"
        assert pairs.row_cells(row)[2:6] == [""] * 4


# The whole


def test_a_run_answers_every_question_and_writes_it_down(
    tmp_path: Path, video: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, seed: int, number: int, gop: int = 0) -> Path:
        return write_numbered_video(folder / f"{seed}_{number}_{gop}.mp4", 70)

    monkeypatch.setattr(benchmark_data, "generated_video", write)
    monkeypatch.setattr(benchmark_data, "NUM_CLIPS_PER_GIVEN_VIDEO", 1)
    cfg = composed("num_videos=1", "num_pairs=1", f"videos=[{video}]", f"output={tmp_path}")
    check_values(cfg.data, "data")
    settings: DataBenchmark = build(cfg.data)
    num_threads, printed = torch.get_num_threads(), io.StringIO()
    torch.set_num_threads(2)
    rows = run_data_benchmark(settings, Console(file=printed, width=200))
    assert torch.get_num_threads() == 2
    torch.set_num_threads(num_threads)
    content = json.loads((tmp_path / "data.json").read_text())
    assert len(content["comparisons"]) == len(rows) == 8 * 2
    assert {row.clip_set for row in rows} == {"generated", video}
    for row, entry in zip(rows, content["comparisons"], strict=True):
        assert entry["verdict"] == row.verdict
        assert row.verdict.split(",")[0].split(":")[0] in ("pass", "miss", "skipped")
        assert row.skipped or len(row.ratios) == 1
        assert row.baseline in printed.getvalue()
    assert len(content["growth"]) == 2 * 5 + 4 + 2 * 4
    assert all(line["ms"] > 0 for line in content["growth"])


def run_configured(cfg: DictConfig) -> None:
    check_values(cfg.data, "data")
    run_data_benchmark(build(cfg.data), Console(file=io.StringIO()))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_pairs=0", "num_pairs 0 must be at least 1"),
        ("num_videos=many", "num_videos is 'many', expected int"),
        ("seed=-1", "seed -1 must be 0 or more"),
        ("videos=a.mp4", "videos is 'a.mp4', expected a list of text"),
        ("videos=[/nowhere/a.mp4]", "video '/nowhere/a.mp4' does not exist"),
        ("data.bounds.decord=0", "bound decord 0 must be positive"),
        ("+data.bounds.opencv=1", "unknown key data.bounds.opencv"),
    ],
)
def test_wrong_value_ends_in_one_sentence(override: str, message: str, tmp_path: Path) -> None:
    cfg = composed(override, f"output={tmp_path}")
    with pytest.raises(SystemExit) as error, exit_on_user_error():
        run_configured(cfg)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_median_of_the_pairs_decides() -> None:
    def row(ratios: tuple[float, ...]) -> Row:
        return Row(question="q", baseline="p", clip_set="f", target_ratio=2.0, ratios=ratios)

    assert row((1.0, 2.0, 9.0)).verdict == "pass"
    assert row((1.0, 1.9, 9.0)).verdict == "miss"


def test_augmentation_is_measured_beside_pillow_and_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(folder: Path, seed: int, number: int) -> Path:
        folder.mkdir(exist_ok=True)
        return write_numbered_video(folder / f"{seed}_{number}.mp4", 70)

    def tiny(_: str) -> torch.nn.Module:
        sizes = {"num_frames": 16, "crop_size": 224, "embed_dim": 16, "depths": (1, 1, 1, 1)}
        return create_model("mvitv2_s", **sizes)

    monkeypatch.setattr(benchmark_augment, "generated_video", write)
    monkeypatch.setattr(benchmark_augment, "create_model", tiny)
    limits = ("augment.operators=1", "augment.host_ms=60000")
    cfg = composed("augment.num_clips=2", "num_pairs=1", *limits, f"output={tmp_path}")
    check_values(cfg.augment, "augment")
    printed = io.StringIO()
    answers = run_augment_benchmark(build(cfg.augment), Console(file=printed, width=200))
    content = json.loads((tmp_path / "augment.json").read_text())
    assert len(content["answers"]) == len(answers) == 4
    for answer in answers:
        assert answer.question in printed.getvalue()
        assert answer.ratio == pytest.approx(answer.other_ms / answer.ours_ms)
    assert "operators of the worst batch, 1 at most: miss" in printed.getvalue()
    assert "milliseconds of the host for 32 tiny clips, 60000 at most: pass" in printed.getvalue()
    assert content["for_gpus"]["operators"] > 100
    with pytest.raises(ValueError, match="step_share 0 must be positive"):
        dataclasses.replace(build(cfg.augment), step_share=0)
    answer = dataclasses.replace(answers[0], ratio=2.0, wanted=2.0)
    assert answer.verdict == "pass"
    assert dataclasses.replace(answer, ratio=1.9).verdict == "miss"
