"""Threads of the CPU backend: how many, who may use BLAS, and loops whose results do not depend on either.

Parallelism is Python threads that call nogil kernels; Numba's own pools are not used, because `workqueue` aborts when
two Python threads enter it and `omp` dies in a forked child.  Threads live as long as one pass over the data, or as one
fit, whose passes share them (`kept_threads`).  A pass never waits for a thread that has not begun: on a busy machine it
may be given a processor when the others have done the work.

Inside a pass every thread calls BLAS for its own tile, so BLAS itself must run on one thread.  BLAS keeps that number
per process: `serial_blas` counts its users, the first one lowers the number and the last one restores it.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

from threadpoolctl import ThreadpoolController

from ..validation import check_integer

# Chunks that `ordered_stream` holds beside those at work: one that waits and one that is being read.
READ_AHEAD = 2
# Above this order LAPACK may use BLAS threads: results then equal to rounding, not to the last bit.
_THREADED_ORDER = 1024

_requested: int | None = None
_here = threading.local()  # `alone`: this thread takes no others


def available_threads() -> int:
    """Threads the environment grants: `LAE_FAST_NUM_THREADS`, else this process's CPUs within `OMP_NUM_THREADS`."""
    named = _positive_environment("LAE_FAST_NUM_THREADS")
    if named is not None:
        return named
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    limit = _positive_environment("OMP_NUM_THREADS")
    return granted if limit is None else max(1, min(granted, limit))


def _positive_environment(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isdigit() and int(text) > 0 else None


def get_num_threads() -> int:
    """Number of threads that the next computation uses.

    Returns
    -------
    int
        What `set_num_threads` has set; else LAE_FAST_NUM_THREADS, else the CPUs of the process within OMP_NUM_THREADS.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.get_num_threads() >= 1
    True
    """
    if getattr(_here, "alone", False):
        return 1
    return available_threads() if _requested is None else _requested


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """What the calling thread computes inside the block takes no other thread, and BLAS none of its own.

    For the threads of somebody else's pool, which are as many as the machine has.
    """
    before = getattr(_here, "alone", False)
    _here.alone = True
    try:
        with serial_blas():
            yield
    finally:
        _here.alone = before


def set_num_threads(n: int | None) -> None:
    """Set the number of threads for this process; None returns to the environment's number.

    Raises
    ------
    ValueError
        `n` is neither a positive integer nor None.

    Examples
    --------
    >>> import lae_fast as lf
    >>> lf.set_num_threads(1)
    >>> lf.get_num_threads()
    1
    >>> lf.set_num_threads(None)  # back to the environment's
    """
    global _requested
    _requested = None if n is None else check_integer(n, "n", low=1, or_none="the environment's number of threads")


class _Blas(NamedTuple):
    """A BLAS library that is loaded.  get, set : its number of threads."""

    get: Callable[[], int]
    set: Callable[[int], Any]


class _BlasGuard:
    """Counts the passes that need single-threaded BLAS; the first lowers the thread numbers, the last restores them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.restore: list[tuple[_Blas, int]] = []

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                numbers = [(library, library.get()) for library in _blas_libraries()]
                self.restore = [(library, n_threads) for library, n_threads in numbers if n_threads != 1]
                for library, _ in self.restore:
                    library.set(1)
            self.users += 1

    def __exit__(self, *_error: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self._restore()

    def _restore(self) -> None:
        for library, n_threads in self.restore:
            library.set(n_threads)
        self.restore = []

    def after_fork_in_child(self) -> None:
        """The parent's passes do not exist in the child: give its BLAS the parent's original numbers."""
        self.lock = threading.Lock()
        self._restore()
        self.users = 0


@functools.cache
def _blas_libraries() -> list[_Blas]:
    return [_blas(library) for library in ThreadpoolController().select(user_api="blas").lib_controllers]


def _blas(library: Any) -> _Blas:
    """What reads and sets a library's number of threads, whichever Python thread asks.

    threadpoolctl 3.8 obeys only the first thread that ever set OpenBLAS's number, and ignores all others in silence, so
    that they do not fight over it.  Ours do not: the guard's lock and count are for the whole process.  Its methods
    look the library's functions up at every call, which on small data took longer than the products: here that is done
    once.
    """
    get, set_ = library.get_num_threads, getattr(library, "_real_set_num_threads", library.set_num_threads)
    if library.internal_api == "openblas" and library.threading_layer != "openmp":
        symbol = getattr(library, "_get_symbol", lambda name: None)
        get, set_ = symbol("openblas_get_num_threads") or get, symbol("openblas_set_num_threads") or set_
    return _Blas(get, set_)


_guard = _BlasGuard()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_guard.after_fork_in_child)


def serial_blas() -> contextlib.AbstractContextManager[None]:
    """Run BLAS on one thread inside the block; nests, and may be entered by many threads at once."""
    return _guard


def lapack_threads(n: int) -> contextlib.AbstractContextManager[None]:
    """BLAS threads for LAPACK on a matrix of order n: one, or for a large matrix as many as BLAS is set to."""
    return serial_blas() if n <= _THREADED_ORDER else contextlib.nullcontext()


class _Helpers:
    """Threads that help the one that they were made for, started when they are first asked for."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0

    def submit(self, n: int, work: Callable[[], None]) -> list[Future[None]]:
        """`work` on n threads, or on as many as there are, if they are there already."""
        if self._pool is None:
            self._pool, self._size = ThreadPoolExecutor(n, thread_name_prefix="lae_fast"), n
        return [self._pool.submit(work) for _ in range(min(n, self._size))]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


@contextlib.contextmanager
def kept_threads() -> Iterator[_Helpers]:
    """Let the loops that the calling thread runs inside the block share their threads; nests."""
    outer = getattr(_here, "helpers", None)
    if outer is not None:
        yield outer
        return
    _here.helpers = helpers = _Helpers()
    try:
        yield helpers
    finally:
        _here.helpers = None
        helpers.close()


class _Turns(abc.ABC):
    """Hands out chunks, numbered, and lets each commit only after all earlier ones have."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.claimed = 0
        self.committed = 0
        self.aborted = False

    @abc.abstractmethod
    def claim(self) -> tuple[int, Any] | None:
        """The number of a chunk and what `work` is given of it; None when there is no other."""

    def await_turn(self, chunk: int) -> bool:
        with self.condition:
            while self.committed != chunk and not self.aborted:
                self.condition.wait()
            return not self.aborted

    def done(self) -> None:
        with self.condition:
            self.committed += 1
            self.condition.notify_all()

    def abort(self) -> None:
        with self.condition:
            self.aborted = True
            self.condition.notify_all()


class _Numbers(_Turns):
    """Chunks that the threads read themselves: a range of numbers."""

    def __init__(self, n_chunks: int, first: int) -> None:
        super().__init__()
        self.n_chunks = n_chunks
        self.claimed = self.committed = first

    def claim(self) -> tuple[int, Any] | None:
        with self.condition:
            if self.aborted or self.claimed >= self.n_chunks:
                return None
            self.claimed += 1
            return self.claimed - 1, self.claimed - 1


class _ReadAhead(_Turns):
    """Chunks that one thread reads for the others: at most one waits."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Any] = []
        self.complete = False

    def put(self, chunk: Any) -> bool:
        """Wait for room and leave the chunk there; False when the work has been given up."""
        with self.condition:
            while self.waiting and not self.aborted:
                self.condition.wait()
            self.waiting.append(chunk)
            self.condition.notify_all()
            return not self.aborted

    def close(self) -> None:
        with self.condition:
            self.complete = True
            self.condition.notify_all()

    def claim(self) -> tuple[int, Any] | None:
        with self.condition:
            while not (self.waiting or self.complete or self.aborted):
                self.condition.wait()
            if self.aborted or not self.waiting:
                return None
            self.claimed += 1
            self.condition.notify_all()
            return self.claimed - 1, self.waiting.pop()


def _work_off(
    turns: _Turns, make_slot: Callable[[], Any], work: Callable[[Any, Any], None], commit: Callable[[Any, Any], None]
) -> None:
    """What each thread does: claim, work, commit in turn, until nothing is left or some thread has failed."""
    finished = False
    try:
        slot = make_slot()
        while (claimed := turns.claim()) is not None:
            number, chunk = claimed
            work(chunk, slot)
            if not turns.await_turn(number):
                break
            commit(chunk, slot)
            turns.done()
        finished = True
    finally:
        if not finished:
            turns.abort()


def ordered_loop(
    n_chunks: int,
    make_slot: Callable[[], Any],
    work: Callable[[int, Any], None],
    commit: Callable[[int, Any], None],
    first: int = 0,
) -> None:
    """Run `work(chunk, slot)` on all threads and `commit(chunk, slot)` strictly in the order of the chunks.

    Chunks are the numbers from `first` to n_chunks - 1.  `make_slot()` is called once per thread and gives that
    thread's workspace.  What is committed in order does not depend on the number of threads, down to the last bit.
    BLAS is single-threaded inside.  An exception in any thread (Ctrl-C in the caller's included) stops all of them and
    is raised here.
    """
    n_chunks_left = n_chunks - first
    n_helpers = min(get_num_threads(), n_chunks_left) - 1 if n_chunks_left > 1 else 0
    with serial_blas():
        if n_helpers < 1:  # nobody to take turns with
            slot = make_slot()
            for chunk in range(first, n_chunks):
                work(chunk, slot)
                commit(chunk, slot)
            return
        turns = _Numbers(n_chunks, first)
        with kept_threads() as helpers:
            futures = helpers.submit(n_helpers, functools.partial(_work_off, turns, make_slot, work, commit))
            finished = False
            try:
                _work_off(turns, make_slot, work, commit)
                begun = [future for future in futures if not future.cancel()]
                wait(begun)
                finished = True
            finally:
                if not finished:  # nothing is written after the exception is raised
                    turns.abort()
                    wait([future for future in futures if not future.cancel()])
        for future in begun:
            future.result()


def ordered_stream(
    chunks: Iterable[Any],
    make_slot: Callable[[], Any],
    work: Callable[[Any, Any], None],
    commit: Callable[[Any, Any], None],
) -> None:
    """`ordered_loop` over chunks that must be read in order: the caller's thread reads, all others work.

    While chunks are worked on the next one is read, and `READ_AHEAD` of them are held beside those at work.  Reading
    stays in the caller's thread because that is where Ctrl-C arrives, and where a generator may expect to run.
    """
    turns = _ReadAhead()
    most = get_num_threads()
    futures: list[Future[None]] = []
    with serial_blas(), ThreadPoolExecutor(most, thread_name_prefix="lae_fast") as helpers:
        finished = False
        try:
            for chunk in chunks:
                if not turns.put(chunk):
                    break
                if len(futures) < most:
                    futures.append(helpers.submit(_work_off, turns, make_slot, work, commit))
            turns.close()
            wait(futures)
            finished = True
        finally:
            if not finished:
                turns.abort()
    for future in futures:
        future.result()


def parallel_loop(n_chunks: int, make_slot: Callable[[], Any], work: Callable[[int, Any], None]) -> None:
    """`ordered_loop` for chunks that write to places of their own."""
    ordered_loop(n_chunks, make_slot, work, lambda chunk, slot: None)


class Team:
    """Threads that run one kernel together, `work(k)` for k = 0..size-1, as often as asked; see barrier.py.

    A context manager: the threads live, and BLAS is single-threaded, inside.  The caller's thread is number 0.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._helpers: ThreadPoolExecutor | None = None
        self._blas = contextlib.ExitStack()

    def __enter__(self) -> Team:
        self._blas.enter_context(serial_blas())
        if self.size > 1:
            self._helpers = ThreadPoolExecutor(self.size - 1, thread_name_prefix="lae_fast")
        return self

    def __exit__(self, *_error: object) -> None:
        if self._helpers is not None:
            self._helpers.shutdown()
        self._blas.close()

    def run(self, work: Callable[[int], Any], give_up: Callable[[], Any]) -> None:
        """Call `work` on all threads and wait for all of them, also when Ctrl-C arrives.

        give_up : called when a thread cannot be started, so that those that wait for it go on.
        """
        futures: list[Future[Any]] = []
        finished = False
        try:
            for k in range(1, self.size):
                futures.append(self._helpers.submit(work, k))  # type: ignore[union-attr]
            work(0)
            finished = True
        finally:
            if not finished:
                give_up()  # harmless once all have left the kernel
            for future in futures:
                future.exception()
        for future in futures:
            future.result()
