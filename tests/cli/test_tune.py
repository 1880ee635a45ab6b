"""The search for settings: ranges, what becomes of each trial, and going on with a search."""

import csv
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf
from support.commands import run_command

from video_mvit.cli.search_space import Choices, Numbers, read_ranges
from video_mvit.cli.tune import NUM_UNPRUNED, Search, open_study, run_trials, summary_of
from video_mvit.errors import UserError

optuna = pytest.importorskip("optuna")

RANGES = """\
optim.lr: {low: 1e-4, high: 1e-2, log: true}
optim.num_epochs: {low: 2, high: 6, step: 2}
label_smoothing: {low: 0, high: 0.2}
augment: [none, published]
augment.mixing: [null, {a: 1}]
optim.freeze: [[], [patch_embed, blocks.0-1]]
compile: [true, 5]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "ranges.yaml"
    path.write_text(text)
    return path


def test_ranges_are_numbers_or_choices_as_a_command_line_has_them(tmp_path: Path) -> None:
    assert read_ranges(written(tmp_path, RANGES)) == {
        "optim.lr": Numbers(low=1e-4, high=1e-2, log=True),
        "optim.num_epochs": Numbers(low=2, high=6, step=2),
        "label_smoothing": Numbers(low=0, high=0.2),
        "augment": Choices(values=("none", "published")),
        "augment.mixing": Choices(values=("null", "{a:1}")),
        "optim.freeze": Choices(values=("[]", "[patch_embed,blocks.0-1]")),
        "compile": Choices(values=("true", "5")),
    }


def test_whole_ends_give_whole_numbers(tmp_path: Path) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(9):
        trial = study.ask()
        drawn = {name: each.draw(name, trial) for name, each in read(tmp_path).items()}
        assert drawn["optim.num_epochs"] in ("2", "4", "6")
        assert 1e-4 <= float(drawn["optim.lr"]) <= 1e-2
        assert drawn["augment"] in ("none", "published")


def read(folder: Path) -> Mapping[str, Choices | Numbers]:
    return read_ranges(written(folder, RANGES))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "does not map options to ranges"),
        ("{", "is not YAML"),
        ("optim.lr: 5", "optim.lr is 5, expected a list of choices, or low and high"),
        ("optim.lr: []", "expected a list of choices"),
        ("optim.lr: {low: 1}", "expected a list of choices, or low and high"),
        ("optim.lr: {low: 2, high: 1}", "low must be below high"),
        ("optim.lr: {low: 0, high: 1, log: true}", "above 0 with log: true"),
        ("optim.lr: {low: 1, high: 2, log: 5}", r"lr\.log is 5, expected true or false"),
        ("optim.lr: {low: 1, high: 9, step: -1}", "a step positive"),
        ("optim.lr: {low: a, high: 1}", r"lr\.low is 'a', expected a number"),
        ("optim.lr: {low: 0, high: .inf}", r"lr\.high is inf, expected a number"),
        ("run_dir: [a, b]", "run_dir cannot be searched"),
        ("hydra.run.dir: [a, b]", "cannot be searched"),
        ("'a=b': [a, b]", "'a=b' is not the name of an option"),
    ],
)
def test_range_that_cannot_be_drawn_from_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        read_ranges(written(tmp_path, text))
    with pytest.raises(UserError, match="cannot read ranges="):
        read_ranges(tmp_path / "none.yaml")


class StandIn:
    """A training that logs a value for each epoch, and does what a signal asks for."""

    def __init__(self, words: Sequence[str], values: Sequence[float], code: int) -> None:
        options = dict(word.partition("=")[::2] for word in words[1:])
        self.folder = Path(options["run_dir"], "metrics", "version_0")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.values, self.final, self.code = values, code, None
        self.rows: list[dict[str, Any]] = []
        self.process = SimpleNamespace(
            poll=lambda: self.code, send_signal=self.stop, kill=None, wait=None
        )

    def stop(self, number: int) -> None:
        self.final, self.values = 75 if number == signal.SIGTERM else 130, []

    def ended(self) -> bool:
        if len(self.rows) >= len(self.values):
            self.code = self.final
            return True
        epoch = len(self.rows)
        self.rows.append({"step": epoch, "epoch": epoch, "val/top1": self.values[epoch]})
        with (self.folder / "metrics.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, ["step", "epoch", "val/top1"])
            table.writeheader()
            table.writerows(self.rows)
        return False

    def problem(self) -> str:
        return "no room" if self.code == 1 else ""


Plan = Callable[[int], tuple[Sequence[float], int]]  # number of the trial -> values, exit code


class Trainings:
    """Starts stand-ins, and keeps their words."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.words = plan, []

    def __call__(self, words: Sequence[str], output: Path) -> Any:
        self.words.append(list(words))
        return StandIn(words, *self.plan(int(output.stem)))


def search(folder: Path, **ranges: Any) -> Search:
    return Search(
        folder=folder,
        words=["experiment=demo", "data.root='/my data'"],
        ranges=ranges or {"optim.lr": Numbers(low=1e-4, high=1e-2, log=True)},
        monitor="val/top1",
        mode="max",
    )


def settings(**overrides: Any) -> Any:
    return OmegaConf.create({"overwrite": False, "pruning": True, "seed": 0, **overrides})


def test_best_of_the_trials_is_told_with_its_command(tmp_path: Path) -> None:
    trainings, tuned = Trainings(lambda n: ([0.1 * n, 0.5 - 0.1 * n], 0)), search(tmp_path)
    study = open_study(tuned, settings())
    run_trials(study, tuned, 3, trainings)
    assert [each[0] for each in trainings.words] == ["train"] * 3
    assert [each[-1] for each in trainings.words] == [f"run_dir={tmp_path}/{n}" for n in range(3)]
    lines = list(summary_of(study, tuned))
    assert lines[0].split() == ["trial", "val/top1", "epochs", "settings"]
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["0", "0.5", "2"],
        ["1", "0.4", "2"],
        ["2", "0.3", "2"],
    ]
    assert max(map(len, lines[:4])) <= 80
    assert lines[4] == f"best: {tmp_path}/0/checkpoints/best.ckpt"
    lr = next(word for word in trainings.words[0] if word.startswith("optim.lr="))
    assert lines[5].startswith("video-mvit train experiment=demo 'data.root=/my data' ")
    assert lines[5].endswith(lr)


def test_hopeless_training_is_ended_early_unless_asked_not_to(tmp_path: Path) -> None:
    def plan(number: int) -> tuple[list[float], int]:
        return ([0.5] * 3 if number < NUM_UNPRUNED else [0.1] * 3), 0

    for pruning, state in ((True, "PRUNED"), (False, "COMPLETE")):
        tuned = search(tmp_path / state)
        tuned.folder.mkdir()
        study = open_study(tuned, settings(pruning=pruning))
        run_trials(study, tuned, NUM_UNPRUNED + 1, Trainings(plan))
        assert study.trials[-1].state.name == state
        assert ("(ended early)" in "\n".join(summary_of(study, tuned))) is pruning


def test_failure_of_the_first_training_ends_the_search_and_a_later_one_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuned = search(tmp_path)
    study = open_study(tuned, settings())
    with pytest.raises(UserError, match="trial 0 failed: no room"):
        run_trials(study, tuned, 3, Trainings(lambda _: ([], 1)))
    tuned = search(tmp_path / "later")
    tuned.folder.mkdir()
    study = open_study(tuned, settings())
    plan = {0: ([0.5], 0), 1: ([], 1), 2: ([], 0)}
    run_trials(study, tuned, 3, Trainings(plan.__getitem__))
    assert "trial 1 failed: no room" in caplog.text
    assert "trial 2 failed: it has logged no val/top1" in caplog.text
    assert "failed: 1, 2" in list(summary_of(study, tuned))


def test_interrupted_search_goes_on_with_the_same_values_and_no_others(tmp_path: Path) -> None:
    tuned = search(tmp_path)
    first = Trainings(lambda n: ([0.2], 0 if n == 0 else 75))
    with pytest.raises(SystemExit) as end:
        run_trials(open_study(tuned, settings()), tuned, 3, first)
    assert end.value.code == 75
    (tmp_path / "1" / "checkpoints").mkdir()
    (tmp_path / "1" / "checkpoints" / "last.ckpt").touch()
    again = Trainings(lambda _: ([0.3], 0))
    study = open_study(tuned, settings())
    run_trials(study, tuned, 3, again)
    assert again.words[0] == [*first.words[1], "resume_from=last"]
    assert again.words[1][-1] == f"run_dir={tmp_path}/2"
    drawn = [each.params["optim.lr"] for each in study.trials]
    assert len(set(drawn)) == 3
    with pytest.raises(UserError, match="holds a search of another command line or other ranges"):
        open_study(search(tmp_path, seed=Choices(values=("1", "2"))), settings())
    assert not open_study(search(tmp_path), settings(overwrite=True)).trials


def test_summary_tells_no_words_that_only_the_study_knows(tmp_path: Path) -> None:
    """The file may come from others; its command is for copying."""
    tuned = search(tmp_path)
    study = open_study(tuned, settings())
    odd = {
        "optim.lr": optuna.distributions.FloatDistribution(0, 10),
        "run_dir": optuna.distributions.CategoricalDistribution(["/etc"]),
    }
    study.add_trial(
        optuna.trial.create_trial(
            value=0.9, params={"optim.lr": 7.0, "run_dir": "/etc"}, distributions=odd
        )
    )
    told = "\n".join(summary_of(study, tuned))
    assert "0.9" in told
    assert "/etc" not in told
    assert "optim.lr" not in told


@pytest.mark.long
def test_command_trains_and_tells_the_best(tmp_path: Path) -> None:
    from video_mvit.data.preparation.demo import write_demo_dataset

    write_demo_dataset(tmp_path / "data", {"train": 64, "val": 16, "test": 8}, 0, lambda _: None)
    path = written(
        tmp_path, "optim.lr: [1e-3, 1e-4]\n++model.drop_path_rate: {low: 0.0, high: 0.2}"
    )
    words = ("experiment=demo", f"data.root={tmp_path}/data", f"ranges={path}", "num_trials=2")
    result = run_command(
        "tune", *words, "optim.num_epochs=1", f"run_dir={tmp_path}/t", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[-2].startswith("best: ")
    assert Path(lines[-2].removeprefix("best: ")).is_file()
    assert "++model.drop_path_rate=0." in lines[-1]
