"""How fast `video-mvit train` trains here, from video files to the updated weights.

Ours and each baseline train in processes of their own, which take turns, A B A B: the same command,
trainer, loader and augmentation, another network. A pair is one training of each, and its ratio is
our clips per second over the baseline's.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from benchmarks.machine_facts import describe_machine, machine_facts
from benchmarks.measurements import OURS
from benchmarks.model_peers import BUILDERS
from benchmarks.peer_errors import BaselineError
from benchmarks.train_parts import COMPILED, write_footage, write_motions
from benchmarks.train_probe import NUM_COUNTED, Measured
from benchmarks.train_rows import (
    Bounds,
    TrainRow,
    best_of_each,
    compare_rows,
    entry_of,
    show,
)
from video_mvit.errors import UserError

DEMO = "demo"
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "not enough memory")
PARTS = "benchmarks.train_parts"
MEASURED, USER_ERROR = "measured.json", "error: "
NOT_KEPT = ("missed_validation", "best", "last", "keep_last")  # callbacks at the end of an epoch


@dataclass(frozen=True, kw_only=True)
class TrainBenchmark:
    """`num_steps` steps of `video-mvit train experiment=EXPERIMENT`, `num_pairs` times by each.

    Attributes:
        batch_sizes: of `data.train_batch_size`, each measured.
        against: names of `model_peers.BUILDERS`, with `_compiled` behind them for each block
            compiled.
        compile: how our network is compiled.
        data: "files" are generated H.264 videos, "memory" some clips that are decoded once.
        num_videos: files of 340x256, which are read again and again; the demo has enough files.
        num_warmups: steps of a training that are not counted.
        timeout_s: of a training.
        options: more words of `video-mvit train`.
        wanted: judged on a GPU only.
    """

    output: str
    seed: int = 0
    experiment: str
    device: Literal["cpu", "cuda"] = "cpu"
    precision: str = "auto"
    batch_sizes: Sequence[int]
    against: Sequence[str]
    compile: Literal[None, False, "blocks", "cudagraph"] = None
    data: Literal["files", "memory"] = "files"
    num_videos: int
    num_pairs: int
    num_warmups: int
    num_steps: int
    timeout_s: float
    options: Sequence[str] = ()
    wanted: Bounds

    def __post_init__(self) -> None:
        for name in ("num_videos", "num_pairs", "num_warmups", "num_steps", "timeout_s"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} {getattr(self, name)} must be positive")
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UserError(f"batch_sizes {list(self.batch_sizes)} must be positive numbers")
        known = [name + ending for ending in ("", COMPILED) for name in BUILDERS]
        if unknown := [name for name in self.against if name not in known]:
            raise UserError(f"against has {unknown[0]!r}, expected some of {', '.join(known)}")

    @property
    def max_steps(self) -> int:
        """Steps of a training: those of warm-up, measured ones, counted ones."""
        return self.num_warmups + self.num_steps + NUM_COUNTED

    def is_compiled(self, network: str) -> bool:
        return bool(self.compile) if network == OURS else network.endswith(COMPILED)


def run_train_benchmark(settings: TrainBenchmark, console: Console) -> list[TrainRow]:
    """Measure, show, and write `train_<experiment>_<device>.json` into `output`."""
    with console.status("videos"):
        root = _write_videos(settings)
    rows: list[TrainRow] = []
    for batch_size in settings.batch_sizes:
        rows += _rows_of(settings, root, batch_size, console)
    best, facts = best_of_each(rows), machine_facts(settings.device)
    name = f"{settings.experiment}, {settings.data}, precision {settings.precision}"
    show(f"train of {name}; {describe_machine(facts)}", rows, best, console)
    report = Path(settings.output, f"train_{settings.experiment}_{settings.device}.json")
    content = {
        "settings": dataclasses.asdict(settings),
        "machine": facts,
        "rows": [entry_of(row) for row in rows],
        "best": [dataclasses.asdict(each) for each in best],
    }
    report.write_text(json.dumps(content, indent=2) + "\n")
    console.print(f"written to {report}")
    return rows


def words_of(
    settings: TrainBenchmark, network: str, batch_size: int, root: Path, folder: Path
) -> list[str]:
    """Return the words behind `video-mvit` for one training in an empty folder."""
    probe = {
        "_target_": "benchmarks.train_probe.TrainProbe",
        "output": folder / MEASURED,
        "num_warmups": settings.num_warmups,
        "num_steps": settings.num_steps,
        "is_compiled": str(settings.is_compiled(network)).lower(),
    }
    words = [
        *("train", f"experiment={settings.experiment}", "init=scratch", f"seed={settings.seed}"),
        f"trainer={'cpu' if settings.device == 'cpu' else 'gpu'}",
        f"trainer.precision={settings.precision}",
        *(f"data.root={root}", f"data.train_batch_size={batch_size}", f"run_dir={folder / 'run'}"),
        *(f"trainer.max_steps={settings.max_steps}", "+trainer.limit_val_batches=0"),
        *(f"~callbacks.{name}" for name in NOT_KEPT),
        *(f"+callbacks.probe.{name}={value}" for name, value in probe.items()),
    ]
    if settings.data == "memory":
        words.append(f"data.module._target_={PARTS}.MemoryDataModule")
    if network != OURS:
        words += [f"model._target_={PARTS}.create_baseline", f"+model.baseline={network}"]
    elif settings.compile:
        words.append(f"compile={settings.compile}")
    return [*words, *settings.options]


def run_command(words: Sequence[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run `video-mvit WORDS` with the benchmarks at hand."""
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "video_mvit", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def measure(words: Sequence[str], folder: Path, timeout_s: float) -> Measured:
    """Let a process of its own train.

    Raises `BaselineError` where it does not fit into memory or takes longer than `timeout_s`, and
    `UserError` with that of the command.
    """
    try:
        done = run_command(words, timeout_s)
    except subprocess.TimeoutExpired:
        raise BaselineError(f"took longer than {timeout_s:g} s") from None
    if not done.returncode:
        return Measured(**json.loads((folder / MEASURED).read_text()))
    told = done.stderr.strip()
    last = (told.splitlines() or [""])[-1]
    if done.returncode == -signal.SIGKILL or any(each in told.lower() for each in OUT_OF_MEMORY):
        raise BaselineError("does not fit into memory")
    if last.startswith(USER_ERROR):
        raise UserError(f"video-mvit train: {last.removeprefix(USER_ERROR)}")
    raise RuntimeError(f"video-mvit {' '.join(words)} ended with {done.returncode}: {told[-2000:]}")


def _rows_of(
    settings: TrainBenchmark, root: Path, batch_size: int, console: Console
) -> list[TrainRow]:
    """Let all networks take turns at one batch size; one that fails has no more of them."""
    networks = (OURS, *settings.against)
    runs: dict[str, list[Measured]] = {network: [] for network in networks}
    reasons: dict[str, str] = {}
    for number in range(settings.num_pairs):
        for network in (each for each in networks if each not in reasons):
            with (
                console.status(f"training {number + 1} of {settings.num_pairs}, {network}"),
                tempfile.TemporaryDirectory(dir=settings.output) as name,
            ):
                folder = Path(name).resolve()
                words = words_of(settings, network, batch_size, root, folder)
                try:
                    runs[network].append(measure(words, folder, settings.timeout_s))
                except (BaselineError, UserError) as error:
                    if network == OURS and isinstance(error, UserError):
                        raise
                    reasons[network], runs[network] = str(error), []
    rows = [
        TrainRow(
            network=network,
            batch_size=batch_size,
            runs=tuple(runs[network]),
            skipped=reasons.get(network),
        )
        for network in networks
    ]
    is_judged = settings.device == "cuda" and settings.experiment == settings.wanted.experiment
    return compare_rows(rows[0], rows[1:], settings.wanted if is_judged else None)


def _write_videos(settings: TrainBenchmark) -> Path:
    """Generate as many videos as the trainings read, so that no epoch ends while one is measured.

    A second run finds them again.
    """
    folder = Path(settings.output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    num_videos = max(settings.batch_sizes) * settings.max_steps
    if settings.experiment == DEMO:
        return write_motions(folder, num_videos, settings.seed)
    return write_footage(folder, settings.num_videos, num_videos, settings.seed)
