"""Commands as a person starts them, and the configurations that they compose.

Each runs in a process of its own, forked from one that has imported what is slow to import: with
its own arguments, environment, working directory and exit code, and seconds sooner than a shell's.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from support.paths import CONF
from support.processes import (
    TIMEOUT_S,
    free_port,
    fresh_processes,
    start_loaders_as_always,
    torchrun,
)


def composed(config: str, *overrides: str, folder: Path = CONF) -> DictConfig:
    """What Hydra makes of a YAML file of `folder` and of what a person overrides."""
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose(config, overrides=list(overrides))


def run_command(
    *words: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `video-mvit WORDS` to its end, whatever that is; `before` is called first, in there."""
    return _run_to_its_end(_command, words, cwd, environment, before)


def run_python(
    code: str,
    *words: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    before: Callable[[], object] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `python -c CODE WORDS` to its end; `before` is called first, in there."""
    return _run_to_its_end(partial(_code, code), words, cwd, environment, before)


def _run_to_its_end(
    function: Callable[[], object],
    words: tuple[str, ...],
    cwd: Path,
    environment: Mapping[str, str] | None,
    before: Callable[[], object] | None,
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        known = {**os.environ, **(environment or {})}
        with running(_run, function, words, cwd, (out, err), known, before) as process:
            process.join(TIMEOUT_S)
            if process.exitcode is None:
                raise TimeoutError(f"{words} has not ended in {TIMEOUT_S} s: {err.read_text()}")
        return subprocess.CompletedProcess(
            words, process.exitcode, out.read_text(), err.read_text()
        )


@contextlib.contextmanager
def running_command(
    *words: str, cwd: Path, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[BaseProcess]:
    """`video-mvit WORDS`, started; at the end of the block it is killed with all its processes."""
    known = {**os.environ, **(environment or {})}
    with running(_run, _command, words, cwd, (log, log), known, None) as process:
        yield process


@contextlib.contextmanager
def running_ranks(num_ranks: int, *words: str, cwd: Path, log: Path) -> Iterator[list[BaseProcess]]:
    """The same in several processes that form one run, as torchrun starts them."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        ranks = []
        for rank in range(num_ranks):
            told = {name: str(value) for name, value in torchrun(rank, num_ranks, port).items()}
            command = running_command(*words, cwd=cwd, log=log, environment=told)
            ranks.append(stack.enter_context(command))
        yield ranks


@contextlib.contextmanager
def running(function: Callable[..., object], *arguments: object) -> Iterator[BaseProcess]:
    """A fresh process, the first of its process group, none of which outlives the block."""
    process = fresh_processes().Process(target=_lead, args=(function, arguments))
    process.start()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()  # where it has not yet become the first of a group
        process.join()


def _lead(function: Callable[..., object], arguments: tuple[object, ...]) -> None:
    os.setsid()
    start_loaders_as_always()
    function(*arguments)


def _run(
    function: Callable[[], object],
    words: tuple[str, ...],
    cwd: Path,
    outputs: tuple[Path, Path],
    environment: Mapping[str, str],
    before: Callable[[], object] | None,
) -> None:
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, str(cwd))
    # What runs in the background ignores Ctrl-C, and what it starts would too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["video-mvit", *words]
    if before:
        before()
    function()


def _command() -> None:
    from video_mvit.cli import main

    main()


def _code(code: str) -> None:
    exec(code, {"__name__": "__main__"})
