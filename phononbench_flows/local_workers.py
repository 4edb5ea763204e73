"""Chunks of a local run in processes side by side: while one waits for the potential, or for its slowest crystal, the
others go on.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing import active_children, get_context
from typing import TYPE_CHECKING

from phononbench_flows.potentials.loading import resolved

if TYPE_CHECKING:
    from phononbench_flows.flows.following import FollowMaker
    from phononbench_flows.flows.makers import ChunkMaker

FEWEST = 8
"""Crystals of a chunk at least, where there are several processes: for less it is not worth to start one."""

_AHEAD = 2  # chunks handed out, by processes: one that is done finds the next one waiting
_MEMORY = 4 << 30  # bytes of one process on a CPU, with what it keeps for later batches


def usual_number(crystals: int, device: str) -> int:
    """How many processes compute so many crystals here, where nobody says it.

    On a CPU one for each core, as far as there are crystals and memory for them; on a GPU one.
    """
    if resolved(device).startswith("cuda"):
        return 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(_cores(), memory // _MEMORY, crystals // FEWEST))


def _cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compute_here(chunks: Iterable[list[str]], maker: ChunkMaker | FollowMaker) -> None:
    """Compute chunks, given by their keys, one after another in this process."""
    from jobflow import JobStore
    from jobflow.managers.local import run_locally
    from maggma.stores import MemoryStore

    for keys in chunks:
        # The jobs' outputs are keys; they are not wanted once the chunk is done.
        run_locally(maker.make(keys), store=JobStore(MemoryStore()), log=False, raise_immediately=True)


def compute_beside(chunks: Iterable[list[str]], maker: ChunkMaker | FollowMaker, number: int) -> None:
    """Compute chunks in so many processes, each of which takes the next one as it is done with the last.

    Raises:
        RunEndingError: what ended a process; the others end with the chunk that they have in work.
    """
    from phononbench_flows.engine.trouble import MachineError

    threads = max(1, _cores() // number)  # all of them in each process would be in each other's way
    context = get_context("spawn")  # what was forked could not use a GPU, nor threads of its own
    begin = partial(_begin, threads, number, maker.device)
    with ProcessPoolExecutor(number, context, initializer=begin) as processes:
        waiting, running = iter(chunks), set[Future[None]]()
        try:
            while True:
                more = islice(waiting, number * _AHEAD - len(running))
                running |= {processes.submit(compute_here, [keys], maker) for keys in more}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for each in done:
                    each.result()
        except BrokenProcessPool as error:
            raise MachineError("a process that computed was killed; perhaps memory ran out") from error
        except KeyboardInterrupt:
            for process in active_children():  # each crystal is written as it is done: nothing has to be waited for
                process.terminate()
            raise
        finally:
            processes.shutdown(wait=True, cancel_futures=True)


def _begin(threads: int, processes: int, device: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word: the process that started it speaks
    import torch

    from phononbench_flows.engine.batch import limit_memory

    limit_memory(torch.device(resolved(device)), processes)
    torch.set_num_threads(threads)
