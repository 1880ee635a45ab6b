"""Runs that a command line names: `evaluate runs/x`, `predict runs/x clip.mp4`, `export runs/x`.

The folder of a run stands for its checkpoint, its settings and the place of its results; a folder
of runs stands for its newest run.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from video_mvit.cli.help import OF_RUNS, conf_folder
from video_mvit.cli.nearest import did_you_mean
from video_mvit.cli.run_words import Use, key_of, words_of_run
from video_mvit.cli.words import OPTION, classified
from video_mvit.errors import UserError
from video_mvit.text import fitted, printable

CHECKPOINTS, EVALUATION = "checkpoints", "evaluation"  # in the folder of a run
STARTED = re.compile(r"\d{4}-\d\d-\d\d_.*|slurm-.*")  # names of dated folders, which may be sweeps
CONFIG_DIR = ("--config-dir", "-cd")
NETWORKS = (
    "video_mvit.create_model",
    "video_mvit.create_detector",
)  # ours: a file says what it is


def checkpoints_of(folder: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first; none for another folder."""
    found = {}
    with contextlib.suppress(OSError):
        for path in (folder / CHECKPOINTS).glob("*.ckpt"):
            found[path] = path.stat().st_mtime_ns
    return sorted(found, key=lambda path: (found[path], path.name))


def find_run(folder: Path) -> Path | None:
    """Return a folder if it is a run, else the newest run in it; None without any."""
    if checkpoints_of(folder):
        return folder
    runs = {run: checkpoints_of(run)[-1].stat().st_mtime_ns for run in _runs_in(folder)}
    return max(runs, key=lambda run: (runs[run], run.name)) if runs else None


def _runs_in(folder: Path) -> Iterator[Path]:
    """Yield the runs of a folder, those of its sweeps included."""
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return
    for path in inside:
        if checkpoints_of(path):
            yield path
        elif STARTED.fullmatch(path.name):
            yield from (job for job in path.iterdir() if checkpoints_of(job))


def best_of(run: Path) -> str:
    """Return the name of the checkpoint that a run stands for: "best", or the newest."""
    names = [path.stem for path in checkpoints_of(run)]
    return next((name for name in ("best", "last") if name in names), names[-1])


def expand_run(verb: str, words: Sequence[str]) -> list[str]:
    """Replace the run folder that a command line names by the options that it stands for.

    Raises `UserError` where the run cannot be used in this way.
    """
    if verb == "train":
        return _resume(words)
    if verb not in OF_RUNS:
        return list(words)
    for position, (word, kind) in enumerate(classified(words)):
        named = Path(os.path.expanduser(word))
        if kind == "flag" or (OPTION.fullmatch(word) and not named.is_dir()):
            continue
        run = find_run(named) if kind == "word" and named.is_dir() else None
        if kind == "word" and "://" not in word and _is_meant_as_run(named):
            what = "video or run folder" if verb in ("predict", "extract") else "run folder"
            raise UserError(f"there is no {what} {word}{_near(named)}")
        if run is None:
            return list(words)
        rest = [*words[:position], *words[position + 1 :]]
        tell_run(named, run)
        return [*EXPANSIONS[verb](run, rest), *rest]
    return list(words)


def _is_meant_as_run(named: Path) -> bool:
    """Return whether a word that names nothing looks like the folder of a run, not like a file."""
    text = str(named)
    is_file = named.suffix or any(mark in text for mark in "*?[")
    return os.sep in text and not is_file and not os.path.lexists(named)


def _near(named: Path) -> str:
    """Return "; did you mean A?" for a folder beside the one that is not there."""
    try:
        beside = [str(path) for path in named.parent.iterdir() if path.is_dir()]
    except OSError:
        return ""
    return did_you_mean(str(named), sorted(beside))


def tell_run(named: Path, run: Path) -> None:
    """Say which run a folder of runs stands for."""
    if run != named:
        tell(f"{run} is the newest run of {named}")


def tell(text: str) -> None:
    """Print a line on stderr, on the first of several processes."""
    if int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0:
        sys.stderr.write(f"{fitted(printable(text), sys.stderr)}\n")


def _evaluate(run: Path, rest: Sequence[str]) -> list[str]:
    return [*replayed(run, "evaluate", rest), *_checkpoint(run, rest)]


def _predict(run: Path, rest: Sequence[str]) -> list[str]:
    return [*_own_model(run, rest), *_checkpoint(run, rest)]


def _summary(run: Path, rest: Sequence[str]) -> list[str]:
    _refuse_both(run, "run_dir", rest)
    return [*replayed(run, "evaluate", rest), f"run_dir={run}"]


def _checkpoint(run: Path, rest: Sequence[str]) -> list[str]:
    _refuse_both(run, "run_dir", rest)
    return [f"run_dir={run}", *_unless_given("checkpoint", best_of(run), rest)]


def _own_model(run: Path, rest: Sequence[str]) -> list[str]:
    """Return the words of a run that name its network, where that is no MViTv2; [] for others.

    Those of an MViTv2 are not needed: its file says what it is.
    """
    dirs = config_dirs(rest)
    try:
        taken = words_of_run(run, "evaluate", rest, dirs)
    except UserError:  # then the file has to be enough
        return []
    words = [word for word in taken if key_of(word).partition(".")[0] == "model"]
    choices = [word.partition("=")[2] for word in words if key_of(word) == "model"]
    choice = choices[-1] if choices else ""
    if not choice or is_mvitv2(choice, dirs):
        return []
    tell(f"network of {run}: {' '.join(words)}")
    return words


def is_mvitv2(choice: str, dirs: Sequence[Path] = ()) -> bool:
    """Return whether a choice of the group `model` is an MViTv2, or a detector of ours."""
    import yaml

    name = f"model/{choice}.yaml"
    found: Any = [each / name for each in dirs if (each / name).is_file()]
    found += [conf_folder() / name]
    content = yaml.safe_load(found[0].read_text(encoding="utf-8")) or {}
    return content.get("_target_") in (None, *NETWORKS)


def _export(run: Path, rest: Sequence[str]) -> list[str]:
    _refuse_both(run, "source", rest)
    source = f"source={run / CHECKPOINTS / best_of(run)}.ckpt"
    model = _own_model(run, rest)
    return [*model, source, *_unless_given("target", run / "model.onnx", rest)]


def _probe(run: Path, rest: Sequence[str]) -> list[str]:
    _refuse_both(run, "checkpoint", rest)
    return [f"checkpoint={run / CHECKPOINTS / best_of(run)}.ckpt"]


def _convert(run: Path, rest: Sequence[str]) -> list[str]:
    _refuse_both(run, "source", rest)
    source = f"source={run / CHECKPOINTS / best_of(run)}.ckpt"
    model = _own_model(run, rest)
    if _is_given("format", rest):  # which decides the suffix
        return [*model, source]
    return [*model, source, *_unless_given("target", run / "model.safetensors", rest)]


def _push(run: Path, rest: Sequence[str]) -> list[str]:
    _refuse_both(run, "source", rest)
    source = run / "model.safetensors"
    if not source.is_file():
        raise UserError(f"{source} is missing; video-mvit convert {run} writes it")
    return [f"source={source}"]


EXPANSIONS: Mapping[str, Callable[[Path, Sequence[str]], list[str]]] = {
    "evaluate": _evaluate,
    "predict": _predict,
    "extract": _predict,
    "export": _export,
    "probe": _probe,
    "convert": _convert,
    "push": _push,
    "summary": _summary,
}


def _is_given(key: str, words: Sequence[str]) -> bool:
    return any("=" in word and key_of(word) == key for word in words)


def _unless_given(key: str, value: object, words: Sequence[str]) -> list[str]:
    return [] if _is_given(key, words) else [f"{key}={value}"]


def _refuse_both(run: Path, key: str, words: Sequence[str]) -> None:
    if _is_given(key, words):
        raise UserError(f"{run} and {key}=... both name what to use; give one")


def replayed(run: Path, use: Use, words: Sequence[str]) -> list[str]:
    """Return the words that a run adds to those of the command line, and print them."""
    taken = words_of_run(run, use, words, config_dirs(words))
    if taken:
        tell(f"settings of {run}: {' '.join(taken)}")
    return taken


def _resume(words: Sequence[str]) -> list[str]:
    """Replace `resume_from=FOLDER` by the run's folder, its words, and its last checkpoint."""
    for position, (word, kind) in enumerate(classified(words)):
        key, equals, value = word.partition("=")
        named = Path(os.path.expanduser(value if equals else word))
        if kind != "word" or (equals and key != "resume_from") or not named.is_dir():
            continue
        run = find_run(named)
        if not equals:
            advice = f"; resume_from={word} continues that run" if run else ""
            raise UserError(f"{word!r} is no option{advice or '; options are NAME=VALUE'}")
        if run is None or not (run / CHECKPOINTS / "last.ckpt").is_file():
            raise UserError(f"{named} holds no run with a checkpoint last.ckpt to resume from")
        rest = [*words[:position], *words[position + 1 :]]
        if "run_dir" in {key_of(each) for each in rest}:
            raise UserError(f"resume_from={value} continues in that folder; remove run_dir=...")
        tell_run(named, run)
        taken = replayed(run, "resume", rest)
        return [*taken, f"run_dir={run}", "resume_from=last", *rest]
    return list(words)


def config_dirs(words: Sequence[str]) -> list[Path]:
    """Return the folders of YAML files that a command line adds."""
    found = []
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag in CONFIG_DIR:
            found += [value] if equals else list(words[position + 1 : position + 2])
    return [Path(value).expanduser() for value in found]
