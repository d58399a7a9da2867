"""Cases of the figures, measured one after another or several at once, a process on one thread each.

The products of most cases are small, and two runs on a thread each get further than one on two threads.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.papers import catalogue
from benchmarks.papers.figure import Figure

# What libraries of linear algebra and Numba's threading layers read when they are imported.
_ONE_THREAD = dict.fromkeys(
    ("LAE_FAST_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"
)


@dataclass(frozen=True)
class Job:
    """A case of a figure with one seed."""

    figure: Figure
    configuration: dict[str, Any]
    case: str
    seed: int


@dataclass(frozen=True)
class Done:
    """What a job gave, and how many seconds it took."""

    job: Job
    seconds: float
    data: dict[str, Any]


def run(jobs: Sequence[Job], at_once: int) -> Iterator[Done]:
    """All jobs, as they finish: in this process on all its threads, or `at_once` processes of one thread each.

    Where it is left early (an error, Ctrl-C), what has not begun is dropped and what runs is ended.
    """
    if at_once == 1 or len(jobs) < 2:
        yield from map(_done, jobs)
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)  # a new process has them before it imports anything
    # Ctrl-C is for this process, which ends the others.
    own = (signal.SIGINT, signal.SIG_IGN)
    pool = concurrent.futures.ProcessPoolExecutor(
        at_once, multiprocessing.get_context("spawn"), initializer=signal.signal, initargs=own
    )
    try:
        waiting = {pool.submit(_measured, job.figure.name, job.configuration, job.case, job.seed): job for job in jobs}
        for future in concurrent.futures.as_completed(waiting):
            yield Done(waiting[future], *future.result())
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _done(job: Job) -> Done:
    return Done(job, *_timed(job.figure, job.configuration, job.case, job.seed))


def _measured(name: str, configuration: dict[str, Any], case: str, seed: int) -> tuple[float, dict[str, Any]]:
    """In a process of its own: a figure does not travel, its name does."""
    return _timed(catalogue.FIGURES[name], configuration, case, seed)


def _timed(figure: Figure, configuration: dict[str, Any], case: str, seed: int) -> tuple[float, dict[str, Any]]:
    began = time.perf_counter()
    data = figure.measure(configuration, case, seed)
    return time.perf_counter() - began, data
