"""`adapter=lora` as a person uses it: train, resume, evaluate, predict, convert, export."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.commands import composed
from support.random_model import write_random_model

import video_mvit
from video_mvit.cli import convert, predict
from video_mvit.cli.adapter import adapt_network, refuse_other_adapters
from video_mvit.cli.build import build, build_all
from video_mvit.cli.build_detection import check_settings
from video_mvit.errors import UserError
from video_mvit.weights.checkpoint_files import weights_sha1
from video_mvit.weights.load import read_source

pytestmark = pytest.mark.slow
pytest.importorskip("peft", reason="needs peft")

WORDS = (
    *("experiment=demo", "data.root=.", "trainer=cpu", "data.num_workers=0", "callbacks=ema"),
    *("init=weights", "init.source=model.safetensors", "init.reset=[head]", "adapter=lora"),
    *("data.train_batch_size=2", "data.num_samples=1", "+data.module.train.num_videos=4"),
    *("optim.num_epochs=1", "optim.warmup_epochs=0", "optim.lr=0.1", "adapter.rank=2"),
    "adapter.stages=[1,2,3,4]",
)
BASE = "base=model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current folder with the demo's videos, base weights and a run with adapters."""
    root = tmp_path_factory.mktemp("adapter")
    write_random_model(root, num_tested=3)
    with contextlib.chdir(root):
        video_mvit.train(*WORDS, "run_dir=run")
        yield root


def test_adapter_file_is_small_and_makes_what_the_checkpoint_has(folder: Path) -> None:
    run = folder / "run"
    path = run / "adapter.safetensors"
    assert path.stat().st_size < 0.05 * (run / "checkpoints/best.ckpt").stat().st_size
    model = video_mvit.load_model(path, base=str(folder / "model.safetensors"))
    merged = read_source(run / "checkpoints/best.ckpt")
    assert merged.container == "training checkpoint, EMA weights, adapters merged"
    base = read_source(folder / "model.safetensors").state
    changed = set()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, merged.state[name]), name
        if not torch.equal(tensor, base[name]):
            changed.add(name)
    layers = {f"blocks.{i}.attn.{part}.weight" for i in range(4) for part in ("qkv", "proj")}
    assert changed == {*layers, "head.projection.weight", "head.projection.bias"}


def test_training_says_what_it_trains_and_where_the_adapter_is(folder: Path) -> None:
    said = (folder / "run/train.log").read_text()
    assert "frozen: 993,440 of " in said
    assert "adapter of best.ckpt: " in said
    assert "used with base=... the weights it started from" in said


@pytest.mark.usefixtures("folder")
def test_evaluation_takes_an_adapter_with_its_base() -> None:
    words = ["data.num_workers=0", "report.thumbnails=false", "run_dir=other", "output=of_adapter"]
    adapter = ["checkpoint=run/adapter.safetensors", BASE]
    evaluated = video_mvit.evaluate(
        "experiment=demo", "data.root=.", "trainer=cpu", *words, *adapter
    )
    results = json.loads((evaluated.folder / "results.json").read_text())
    expected = video_mvit.load_model("run/checkpoints/best.ckpt").state_dict()
    assert results["weights_sha1"] == weights_sha1(expected)


@pytest.mark.usefixtures("folder")
def test_other_verbs_take_an_adapter_with_its_base(capsys: pytest.CaptureFixture[str]) -> None:
    adapter = "run/adapter.safetensors"
    convert.main(composed("convert", f"source={adapter}", BASE, "target=plain.safetensors"))
    expected = read_source("run/checkpoints/best.ckpt").state
    assert all(
        expected[name].equal(each) for name, each in read_source("plain.safetensors").state.items()
    )
    for source in ([f"checkpoint={adapter}", BASE], ["checkpoint=plain.safetensors"]):
        predict.main(composed("predict", *source, "video=test", "format=csv", "engine=torch"))
    rows = capsys.readouterr().out.split("video,")
    assert len(rows) == 3
    assert rows[1] == rows[2]
    with pytest.raises(SystemExit, match="is an adapter; base=FILE names the weights"):
        predict.main(composed("predict", f"checkpoint={adapter}", "video=test"))
    with pytest.raises(SystemExit, match="belongs to other base weights than plain"):
        predict.main(
            composed("predict", f"checkpoint={adapter}", "base=plain.safetensors", "video=test")
        )


def settings(*words: str) -> Any:
    machine = ("data.root=/data", "run_dir=/run", "trainer=cpu", "trainer.precision=32-true")
    return composed(
        "config", "experiment=demo", "data.num_classes=8", "trainer.devices=1", *machine, *words
    )


WEIGHTS = ("init=weights", "init.source=/w.pth")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "adapter is for weights that were trained: init=weights"),
        (
            ("init=inflate", "init.source=/w.pth"),
            "model is inflated by video-mvit inflate",
        ),
        ((*WEIGHTS, "init.ignore=[head]"), "does not work with init.ignore"),
        ((*WEIGHTS, "trainer.strategy=fsdp"), "does not work with trainer.strategy=fsdp"),
        ((*WEIGHTS, "adapter.rank=a"), "adapter.rank is 'a', expected int"),
        ((*WEIGHTS, "model=slow_r50"), "is for MViTv2 classifiers, not for"),
    ],
)
def test_what_adapters_do_not_work_with_is_said(words: tuple[str, ...], message: str) -> None:
    cfg = settings("adapter=lora", *words)
    with pytest.raises(UserError, match=message):
        adapt_network(cfg, torch.nn.Linear(1, 1) if "model=slow_r50" in words else None, None)  # type: ignore[arg-type]


def test_memory_is_measured_with_adapters() -> None:
    classifier, _ = build_all(settings("adapter=lora", "adapter.stages=[1,2,3,4]", *WEIGHTS))
    trained = [name for name, each in classifier.named_parameters() if each.requires_grad]
    assert len(trained) == 18
    (group,) = [len(each["params"]) for each in [classifier.configure_optimizers().param_groups[0]]]
    assert group == 17  # the bias of the head has no weight decay


def test_part_without_weights_must_be_trained(folder: Path) -> None:
    from video_mvit.weights.initialize import FromWeights, initialize_from

    cfg = settings("adapter=lora", *WEIGHTS)
    model = build(cfg.model)
    init = FromWeights(source=str(folder / "model.safetensors"), reset=["head", "norm"])
    loaded = initialize_from(init, model)
    with pytest.raises(UserError, match=r"norm.weight is not of the weights, .* adapter.whole"):
        adapt_network(cfg, model, loaded)


def test_run_is_resumed_with_its_adapters_only() -> None:
    before = {"adapter.rank": 8, "optim.lr": 1}
    every = {"adapter.stages": [1, 2, 3, 4]}
    refuse_other_adapters(before, {"adapter.rank": 8, **every, "optim.lr": 2})
    for now in ({}, {"adapter.rank": 4}, {"adapter.rank": 8, "adapter.stages": [3, 4]}):
        with pytest.raises(UserError, match=r"adapter.\w+ is .*, and was .* in the run to resume"):
            refuse_other_adapters(before, now)


def test_detectors_have_no_adapters() -> None:
    cfg = composed(
        "config", "experiment=demo_detection", "data.root=/d", "run_dir=/r", "adapter=lora"
    )
    with pytest.raises(UserError, match="adapter is set, but detectors do not have it"):
        check_settings(cfg)
