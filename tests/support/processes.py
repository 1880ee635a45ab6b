"""Runs a function in several processes that form one run, as those that torchrun starts do."""

import multiprocessing
import multiprocessing.context
import os
import pickle
import socket
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

SLOW_TO_IMPORT = [
    "hydra",
    "torch.utils.tensorboard",
    "video_mvit.cli.train",
    "video_mvit.cli.evaluate",
    "video_mvit.cli.predict",
]
TIMEOUT_S = 1200  # against what hangs; how fast a machine is does not matter
Starter = Callable[[int, int, int], dict[str, Any]]  # rank, number of ranks, port -> environment


def wait_until(condition: Callable[[], bool], process: BaseProcess | None = None) -> None:
    """Wait for what is bound to happen, unless the process that it depends on has ended."""
    end_s = time.monotonic() + TIMEOUT_S
    while not condition():
        assert process is None or process.exitcode is None, f"it ended with {process.exitcode}"
        assert time.monotonic() < end_s, f"it has not happened in {TIMEOUT_S} s"
        time.sleep(0.005)


def fresh_processes() -> multiprocessing.context.ForkServerContext:
    """Processes without the threads of this one, and quick to start from the second on."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_TO_IMPORT)
    return context


def start_loaders_as_always() -> None:
    """Let a fresh process start further ones by the method of any other, and not as itself."""
    multiprocessing.set_start_method(None, force=True)


def torchrun(rank: int, num_ranks: int, port: int) -> dict[str, Any]:
    """What torchrun tells its processes."""
    return {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": num_ranks,
        "LOCAL_WORLD_SIZE": num_ranks,
        "GROUP_RANK": 0,
        "GROUP_WORLD_SIZE": 1,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "TORCHELASTIC_RUN_ID": "test",
    }


def srun(rank: int, num_ranks: int, port: int) -> dict[str, Any]:
    """What srun tells the tasks of a job on one node."""
    return {
        "SLURM_JOB_ID": 12,
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_NTASKS": num_ranks,
        "SLURM_NTASKS_PER_NODE": num_ranks,
        "SLURM_PROCID": rank,
        "SLURM_LOCALID": rank,
        "SLURM_NODEID": 0,
        "MASTER_PORT": port,
    }


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def run_ranks(
    function: Callable[..., Any], num_ranks: int, *arguments: Any, starter: Starter = torchrun
) -> list[Any]:
    """What the function gives in each rank; it must be importable, its results picklable."""
    context = fresh_processes()
    port = free_port()
    pipes = [context.Pipe() for _ in range(num_ranks)]
    processes = [
        context.Process(
            target=_run_rank,
            args=(pipes[rank][1], starter(rank, num_ranks, port), num_ranks, function, arguments),
        )
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    try:
        while len(results) < num_ranks:
            left = {here: rank for rank, (here, _) in enumerate(pipes) if rank not in results}
            ended = {processes[rank].sentinel: rank for rank in left.values()}
            ready = wait([*left, *ended], TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"the ranks {[*left.values()]} gave nothing in {TIMEOUT_S} s")
            for here in [here for here in left if here.poll()]:  # type: ignore[union-attr]
                is_result, value = pickle.loads(here.recv_bytes())  # type: ignore[union-attr]
                if not is_result:
                    raise RuntimeError(value)
                results[left[here]] = value
            for rank in {ended[each] for each in ready if each in ended} - set(results):
                raise RuntimeError(f"rank {rank} ended with {processes[rank].exitcode}")
        return [results[rank] for rank in range(num_ranks)]
    finally:
        for process in processes:
            process.join(5)
            process.kill()


def _run_rank(
    pipe: Connection,
    environment: dict[str, Any],
    num_ranks: int,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    start_loaders_as_always()
    if num_ranks > 1:
        os.environ.update({name: str(value) for name, value in environment.items()})
    try:
        # As bytes: a pipe hands tensors on as open files of a process that may have ended by then.
        pipe.send_bytes(pickle.dumps((True, function(*arguments))))
    except BaseException:
        pipe.send_bytes(pickle.dumps((False, traceback.format_exc())))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
