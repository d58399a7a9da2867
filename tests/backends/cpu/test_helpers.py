"""Threads that loops share, and that no loop waits for before they have begun."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.backends import threads
from tests.oracle import spectra


@pytest.fixture(autouse=True)
def default_number():
    yield
    lf.set_num_threads(None)


class _Late:
    """A pool whose threads are never given a processor."""

    def __init__(self, *_, **__):
        self.submitted = 0

    def submit(self, work, *arguments):
        self.submitted += 1
        return Future()

    def shutdown(self):
        pass


def test_a_loop_does_not_wait_for_threads_that_have_not_begun(monkeypatch):
    monkeypatch.setattr(threads, "ThreadPoolExecutor", _Late)
    lf.set_num_threads(3)
    worked, committed = [], []
    threads.ordered_loop(
        5, lambda: None, lambda chunk, _: worked.append(chunk), lambda chunk, _: committed.append(chunk)
    )
    assert worked == committed == [0, 1, 2, 3, 4]


def test_the_loops_of_a_block_share_their_threads():
    lf.set_num_threads(3)
    seen, meet = set(), threading.Barrier(3)

    def work(chunk, slot):
        meet.wait(timeout=60)
        seen.add(threading.get_ident())

    before = threading.active_count()
    with threads.kept_threads():
        for _ in range(20):
            threads.parallel_loop(3, lambda: None, work)
        assert len(seen) == 3
    assert threading.active_count() == before


def test_a_fit_starts_its_threads_once(monkeypatch):
    started = []

    class Counted(ThreadPoolExecutor):
        def __init__(self, n, **options):
            started.append(n)
            super().__init__(n, **options)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", Counted)
    lf.set_num_threads(2)
    lf.PCA(3, svd_solver="krylov").fit(spectra.decaying(30_000, 40).astype(np.float32))
    assert started == [1]
