"""Keys that are not there: one sentence with the nearest that is, and advice that works."""

from collections.abc import Sequence

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf
from support.commands import run_command

from video_mvit.cli.composition import COMPOSING, check_keys, explain
from video_mvit.errors import UserError

DATA = "data.root=/data"


def composed(config: str, words: Sequence[str]) -> DictConfig:
    with initialize_config_module("video_mvit.conf", version_base="1.3"):
        return compose(config, list(words))


def sentence(*words: str, config: str = "config") -> str:
    """What is wrong with the words."""
    try:
        cfg = composed(config, words)
    except COMPOSING as error:
        return explain(error, words, "train")
    with pytest.raises(UserError) as caught:
        check_keys(cfg, words)
    return str(caught.value)


pytestmark = pytest.mark.slow  # each composes all settings
BATCH = "did you mean data.eval_batch_size=... or data.train_batch_size=...?"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.batch_size=8"], f"there is no option data.batch_size; {BATCH}"),
        (["+data.batch_size=8"], f"nothing reads data.batch_size; {BATCH}"),
        (["+data={batch_size: 8}"], f"nothing reads data.batch_size; {BATCH}"),
        (["+sead=1"], "nothing reads sead; did you mean seed=...?"),
        (["batch_size=8"], "there is no option batch_size; did you mean data.module.train.batch"),
        (["optimizer=sgd"], "there is no option optimizer; did you mean optim=...?"),
        (["data.root.x=3"], "there is no option data.root.x"),
        (["trainer.limit_train_batches=3"], "which + does: +trainer.limit_train_batches=3"),
        (["trainer.limit_train_batchs=3"], "did you mean +trainer.limit_train_batches=VALUE"),
        (["optim.num_epoch=3"], "did you mean optim.num_epochs=VALUE"),
        (["model.drop_path=0.1"], r"did you mean +model.drop_path_rate=VALUE"),
        (["augment.policy=x"], "there is no option augment.policy; it is one of augment=custom"),
        (["experiment=k400_mvit_s"], "did you mean experiment=k400_mvitv2_s_16x4 or"),
        (["experiment=foo"], "no choice of experiment; choose one of ... demo, ... finetune, "),
        (["data=null"], "data=null is no choice of data; choose one of ... coco, ... custom"),
        (["data=3"], "data=3 is no choice of data; choose one of ... coco, ... custom"),
        (["+seed=1"], "seed is there already; change it without +, as seed=VALUE"),
        (["~sead"], "~sead removes what is not set"),
        (["~seed"], "~seed removes an option that the command reads; give it another value"),
        (["~data.root"], "~data.root removes an option that the command reads"),
        (["seed=1,2"], "are several values: a list is written seed=[1,2], and --multirun"),
        (["seed=[1,2"], "seed=[1,2 is no value; a list is [a,b]"),
    ],
)
def test_mistake_in_a_key_is_one_sentence_that_helps(words: list[str], message: str) -> None:
    said = sentence(*words, DATA) if words != ["~data.root"] else sentence(DATA, *words)
    assert "\n" not in said
    assert "hydra.cc" not in said
    assert all(part in said for part in message.split(" ... "))


@pytest.mark.parametrize(
    "words",
    [
        ["+trainer.limit_train_batches=3"],
        ["+data.module.test.num_videos=5"],
        ["+callbacks.mine._target_=own.Callback", "+callbacks.mine.every=3"],
        ["~callbacks.best", "~logger.csv", "~trainer.precision"],
        ["+augment._target_=own.Augment", "+augment.amount=9"],
        ["+data.side=32", "data.short_side=${data.side}"],
        ["++seed=1", "++data.root=/other", "++data.short_side=32"],
        ["experiment=demo", "hydra.verbose=true", "+hydra.job.env_set.X=1"],
    ],
)
def test_key_that_something_reads_passes(words: list[str]) -> None:
    every = [DATA, *words]
    cfg = composed("config", every)
    check_keys(cfg, every)
    assert OmegaConf.to_container(cfg, resolve=False)


def test_command_stops_in_one_sentence(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for words, message in (
        (["train", "+data.batch_size=8", DATA], f"error: nothing reads data.batch_size; {BATCH}"),
        (["train", "data.batch_size=8"], f"error: there is no option data.batch_size; {BATCH}"),
        (["predict", "clip (1).mp4"], "error: no file or folder clip (1).mp4"),
        (
            ["predict", "chekpoint"],
            "error: 'chekpoint' is no option; did you mean checkpoint=VALUE?",
        ),
        (["train", "data.root=${nope}/x"], "error: Interpolation key 'nope' not found"),
    ):
        result = run_command(*words, cwd=tmp_path)
        assert (result.returncode, result.stderr.strip()) == (1, message)
