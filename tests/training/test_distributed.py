"""Several processes are one run: same gradients, every video once, weights spread or not."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.strategies import ddp
from support.commands import composed as composed_of
from support.evaluations import assert_same_predictions
from support.processes import run_ranks, srun
from torch import Tensor, nn

from video_mvit.cli.build import build_all, build_trainer, quiet_libraries
from video_mvit.cli.evaluate import build_evaluation, evaluate
from video_mvit.data.preparation.demo import write_demo_dataset
from video_mvit.evaluation.output_folder import PARTIAL_DIR, read_folder
from video_mvit.evaluation.predictions import PartialResults, VideoResult
from video_mvit.evaluation.results import Result
from video_mvit.training.classifier import VideoClassifier
from video_mvit.training.distributed import (
    HostAllReduce,
    ReplicatedStrategy,
    gather_over_ranks,
    merge_over_ranks,
)
from video_mvit.training.module import sharding_policy

Evaluated = tuple[Result, list[VideoResult]]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    write_demo_dataset(root, {"train": 16, "val": 3, "test": 7}, 0, lambda _: None)
    for place in (1, 4):
        sorted((root / "test").rglob("*.mp4"))[place].write_bytes(b"")
    return root


def composed(root: Path, *overrides: str) -> Any:
    options = ["experiment=demo", "data.num_classes=8", f"data.root={root}", "data.num_workers=0"]
    options += ["run_dir=run", *overrides]
    quiet_libraries()
    return composed_of("evaluate", *options, "trainer.num_sanity_val_steps=0")


def trained(root: Path, run_dir: Path, batch_size: int, *overrides: str) -> dict[str, Any]:
    """Train three steps of SGD and validate; the loss of all processes, rank, draws, shapes."""
    plain = ["optim.name=sgd", "optim.lr=0.02", "optim.start_lr=0.02", "optim.warmup_epochs=0"]
    cfg = composed(
        root,
        *plain,
        f"run_dir={run_dir}",
        f"data.train_batch_size={batch_size}",
        "trainer.max_epochs=1",
        "+trainer.limit_train_batches=3",
        "data.eval_batch_size=1",
        "trainer.gradient_clip_val=null",
        *overrides,
    )
    torch.manual_seed(0)
    classifier, data = build_all(cfg)
    trainer = build_trainer(cfg)
    data.setup("fit")
    trainer.fit(classifier, datamodule=data)
    return {
        "loss": float(trainer.callback_metrics["train/epoch_loss"]),
        "val_loss": float(trainer.callback_metrics["val/loss"]),
        "rank": trainer.global_rank,
        "draw": classifier.generator_of_step(0).random(),
        "shape": _local_shape(classifier),
    }


def _local_shape(classifier: VideoClassifier) -> tuple[int, ...]:
    weight = classifier.model.blocks[0].mlp.fc1.weight
    return tuple(getattr(weight, "_local_tensor", weight).shape)


def weights(run_dir: Path) -> dict[str, Tensor]:
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 3
    return content["state_dict"]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.allclose(a[name], b[name], rtol=0, atol=1e-5) for name in a)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """How far weights of the same types are apart."""
    assert all(a[name].dtype == b[name].dtype for name in b)
    return sum(float((a[name] - b[name]).square().sum()) for name in b) ** 0.5


@pytest.fixture(scope="module")
def one(data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("one")
    return {**run_ranks(trained, 1, data_root, run_dir, 4)[0], "run_dir": run_dir}


@pytest.mark.parametrize(
    ("network", "sends_buffers"),
    [(nn.LayerNorm(2), False), (nn.Sequential(nn.BatchNorm3d(2)), True)],
)
def test_buffers_are_sent_only_of_networks_with_running_statistics(
    monkeypatch: pytest.MonkeyPatch, *, network: nn.Module, sends_buffers: bool
) -> None:
    monkeypatch.setattr(ddp, "DistributedDataParallel", lambda **options: options)
    strategy = ReplicatedStrategy(timeout=timedelta(seconds=60))
    strategy.parallel_devices = [torch.device("cpu")]
    options: Any = strategy._setup_model(network)
    assert options["gradient_as_bucket_view"]
    names = {"forward_sync_buffers", "broadcast_buffers"} & options.keys()
    assert [options[name] for name in names] == [sends_buffers]


def test_two_processes_train_like_one(data_root: Path, one: dict[str, Any], tmp_path: Path) -> None:
    """The same four videos in each step: equal losses, and weights after steps of gradients."""
    two = run_ranks(trained, 2, data_root, tmp_path / "two", 2)
    assert [each["rank"] for each in two] == [0, 1]
    for each in two:
        assert each["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert each["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)  # of three videos
    assert same(weights(one["run_dir"]), weights(tmp_path / "two"))
    assert two[0]["draw"] == one["draw"] != two[1]["draw"]  # of augmentation and dropout


def test_weights_spread_over_processes_train_and_come_together(
    data_root: Path, one: dict[str, Any], tmp_path: Path
) -> None:
    """The checkpoint is that of one process, and loads there."""
    sharded = "trainer.strategy=fsdp"
    two = run_ranks(trained, 2, data_root, tmp_path / "two", 2, sharded)
    whole = one["shape"]
    assert [each["shape"] for each in two] == [(whole[0] // 2, whole[1])] * 2
    for each in two:
        assert each["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert each["val_loss"] == pytest.approx(one["val_loss"], abs=1e-5)
    assert same(weights(one["run_dir"]), weights(tmp_path / "two"))
    found, expected = (
        run_ranks(evaluated, 1, data_root, run_dir / "checkpoints" / "last.ckpt", output)[0][1]
        for run_dir, output in (
            (tmp_path / "two", tmp_path / "a"),
            (one["run_dir"], tmp_path / "b"),
        )
    )
    assert_same_predictions(found, expected)


@pytest.mark.slow
def test_spread_weights_are_sent_in_bfloat16_and_kept_in_float32(
    data_root: Path, one: dict[str, Any], tmp_path: Path
) -> None:
    """About as near to float32 as autocast alone."""
    assert sharding_policy("32-true").param_dtype is None
    assert sharding_policy("16-mixed").reduce_dtype is None  # whose range is too small for sums
    policy = sharding_policy("bf16-mixed")
    assert policy.param_dtype == policy.reduce_dtype == torch.bfloat16
    options = ("trainer.strategy=fsdp", "trainer.precision=bf16-mixed")
    two = run_ranks(trained, 2, data_root, tmp_path / "two", 2, *options)
    autocast = run_ranks(trained, 2, data_root, tmp_path / "ddp", 2, options[1])
    for found, expected in zip(two, autocast, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=0.02)
    exact = weights(one["run_dir"])
    found, expected = (distance(weights(tmp_path / name), exact) for name in ("two", "ddp"))
    assert 0 < found < 2 * expected


def evaluated(root: Path, checkpoint: Path, output: Path, *overrides: str) -> Evaluated:
    """Numbers and predictions as a rank has them."""
    options = [f"checkpoint={checkpoint}", f"output={output}", "data.eval_batch_size=1"]
    output.mkdir(exist_ok=True)
    return evaluate(build_evaluation(composed(root, *options, *overrides)))


def test_every_video_is_evaluated_once_whatever_the_number_of_processes(
    data_root: Path, one: dict[str, Any], tmp_path: Path
) -> None:
    """Seven videos, two of them unreadable, on one to three processes, and two tasks of SLURM."""
    checkpoint = one["run_dir"] / "checkpoints" / "last.ckpt"
    [(result, predictions)] = run_ranks(evaluated, 1, data_root, checkpoint, tmp_path / "1")
    assert (result.num_listed, result.num_videos, len(result.unreadable)) == (7, 5, 2)
    for num_ranks in (2, 3):
        output = tmp_path / str(num_ranks)
        for found in run_ranks(evaluated, num_ranks, data_root, checkpoint, output):
            assert_same_predictions(found[1], predictions)
            assert found[0].unreadable == result.unreadable
            assert found[0].accuracies.top1 == pytest.approx(result.accuracies.top1)
        assert_same_predictions(read_folder(output)[1], predictions)
    options = (data_root, checkpoint, tmp_path / "slurm", "trainer.devices=2")
    for found in run_ranks(evaluated, 2, *options, starter=srun):
        assert_same_predictions(found[1], predictions)


def test_processes_go_on_where_others_were_stopped(
    data_root: Path, one: dict[str, Any], tmp_path: Path
) -> None:
    """What a process has noted is taken over by any number; one of them may have nothing to do."""
    checkpoint, output = one["run_dir"] / "checkpoints" / "last.ckpt", tmp_path / "stopped"
    [(result, predictions)] = run_ranks(evaluated, 1, data_root, checkpoint, tmp_path / "whole")
    done = [i for i, each in enumerate(predictions) if not each.problem][:-1]
    for num_ranks in (1, 3):
        (output / PARTIAL_DIR).mkdir(parents=True)
        notes = PartialResults(output / PARTIAL_DIR / "4.jsonl", result.origin.identity)
        for index in done:
            notes.add(index, predictions[index])
        notes.close()
        for found in run_ranks(evaluated, num_ranks, data_root, checkpoint, output):
            assert_same_predictions(found[1], predictions)
            assert found[0].num_resumed == len(done)
        assert not (output / PARTIAL_DIR).exists()
        shutil.rmtree(output)


def voted(values: list[int]) -> tuple[int, list[int], dict[int, str]]:
    if len(values) > 1:
        torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank() if len(values) > 1 else 0
    return (
        HostAllReduce().max(values[rank]),
        list(gather_over_ranks(rank)),
        merge_over_ranks({rank: f"of {rank}"}),
    )


def voted_late(num_ranks: int) -> list[int]:
    """Answers of five steps; rank 1 wants to stop from its third step on."""
    if num_ranks > 1:
        torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank() if num_ranks > 1 else 1
    all_reduce = HostAllReduce()
    answers = [all_reduce.max_late(15 if rank == 1 and step >= 2 else 0) for step in range(5)]
    all_reduce.finish()
    return answers


def test_late_answer_is_of_the_step_before_and_the_same_everywhere() -> None:
    assert run_ranks(voted_late, 2, 2) == [[0, 0, 0, 15, 0]] * 2  # asked anew after an answer
    assert run_ranks(voted_late, 1, 1) == [[0, 0, 15, 15, 15]]


@pytest.mark.parametrize("values", [[0], [15], [0, 0], [0, 15], [10, 0], [10, 15]])
def test_what_one_process_says_holds_for_all(values: list[int]) -> None:
    for verdict, ranks, joined in run_ranks(voted, len(values), values):
        assert verdict == max(values)
        assert ranks == list(range(len(values)))
        assert joined == {rank: f"of {rank}" for rank in ranks}
