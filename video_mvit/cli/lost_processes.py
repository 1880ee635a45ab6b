"""Say in one sentence which other process of a run was lost, or what its system refused.

Libraries report these as errors of many lines, by text alone.
"""

import re
import sys
import time

GO_ON = "start again, a training with resume_from=last"
WORKER = re.compile(
    r"DataLoader worker \(pids?\(?s?\)? ?([\d, ]+)\) (?:is killed by signal: ([\w ]+))?"
)
WORKER_TIMEOUT = re.compile(r"DataLoader timed out after ([\d.]+) seconds")
SHARED_MEMORY = re.compile(r"unable to (?:allocate|open|resize) shared memory|Bus error")
OPEN_FILES = re.compile(r"Too many open files|received 0 items of ancdata")
RANK_TIMEOUT = re.compile(
    r"Timed out (?:waiting \d+ ?ms|after \d+ seconds)|timeout caused pair closure"
    r"|[Ww]atchdog caught|wait timeout after \d+ ?ms"
)
RANK_LOST = re.compile(
    r"Connection (?:closed|reset) by peer|Broken pipe|Connection refused"
    r"|failed to recv, got 0 bytes|NCCL communicator was aborted|remote process exited"
)
RANKS = re.compile(r"gloo|nccl|TCPStore|recvValue|clients joined|rendezvous", re.IGNORECASE)
ALIVE = "video_mvit/alive/{}"
ANSWER_TIME_S = 3.0  # in which the ranks that are left tell that they are


def lost_process(error: BaseException) -> str | None:
    """Return a sentence if another process, or the limits of the system, ended this one."""
    text = str(error)
    if isinstance(error, OSError | RuntimeError) and OPEN_FILES.search(text):
        return _open_files()
    if not isinstance(error, RuntimeError):
        return None
    if SHARED_MEMORY.search(text):
        return (
            "shared memory (/dev/shm) is full; give it more, for example with docker run "
            f"--shm-size=8g, or add data.num_workers=0; {GO_ON}"
        )
    if found := WORKER_TIMEOUT.search(text):
        return (
            f"the loader processes gave no batch for {found[1]} s (data.timeout_s); look at the "
            "storage of the data and at processes that use the processor, or add "
            f"data.num_workers=0 to see where reading hangs; {GO_ON}"
        )
    if found := WORKER.search(str(error.__cause__)) or WORKER.search(text):
        how = f"was killed ({found[2].strip()})" if found[2] else "ended"
        return (
            f"the loader process {found[1]} {how}, often for lack of memory; lower "
            f"data.num_workers if so; {GO_ON}"
        )
    return _lost_rank(text)


def _open_files() -> str:
    import resource

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return (
        f"too many open files: a process may have {allowed} here; raise the limit (ulimit -n 4096) "
        f"or lower data.num_workers; {GO_ON}"
    )


def _lost_rank(text: str) -> str | None:
    has_ended = RANK_LOST.search(text)
    if not RANKS.search(text) or not (has_ended or RANK_TIMEOUT.search(text)):
        return None
    lost = _silent_ranks()
    who = f"rank {', '.join(map(str, lost))}" if lost else "another rank of the run"
    what = "ended" if has_ended else "gave no answer within rank_timeout_s"
    return f"{who} {what}; its own output says why; {GO_ON}"


def _silent_ranks() -> list[int]:
    """Return the ranks that do not tell that they are left; empty if that cannot be found out."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():
        return []
    try:
        store = distributed.distributed_c10d._get_default_store()
        store.set(ALIVE.format(distributed.get_rank()), "1")
        time.sleep(ANSWER_TIME_S)
        others = range(distributed.get_world_size())
        return [rank for rank in others if not store.check([ALIVE.format(rank)])]
    except (RuntimeError, ValueError):  # rank 0, which keeps the store, is gone
        return []
