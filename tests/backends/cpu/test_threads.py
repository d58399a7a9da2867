"""Threads: the same bits for any number of them, many fits at once, forks, worker processes, Ctrl-C.

What may kill or hang a process runs in a process of its own, with a time limit that is no measurement.
"""

import os
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import threadpoolctl

import lae_fast as lf
from tests.oracle import spectra

ROUTES = ("gram", "krylov")
# more chunks than threads on either side
TALL, WIDE = (3000, 400), (400, 3000)
LIMIT = 240  # seconds after which a child is taken to hang
# whether float64 data reach 8 eps is for other tests; here an answer must be the same one, whatever its residual
any_residual = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def _threads_as_before():
    yield
    lf.set_num_threads(None)


def run(code, *, limit=LIMIT, **environment):
    """Run `code` in a fresh interpreter; its stdout. Fails on a non-zero status, a signal, or a hang."""
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def bits(pca, X):
    """Everything that must not depend on threads, as bytes."""
    parts = (pca.components_, pca.explained_variance_, pca.residuals_, pca.mean_, pca.transform(X))
    return b"".join(np.ascontiguousarray(part).tobytes() for part in parts)


@pytest.mark.needs_jit
@any_residual
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("parameters", [{}, {"standardize": True}], ids=["plain", "standardize"])
@pytest.mark.parametrize("shape", [TALL, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("route", ROUTES)
def test_same_bits_for_any_number_of_threads(route, shape, parameters, dtype):
    X = spectra.decaying(*shape, decay=0.9, mean=3).astype(dtype)
    found = set()
    for n_threads in (1, 2, 4):
        lf.set_num_threads(n_threads)
        pca = lf.PCA(n_components=6, svd_solver=route, **parameters).fit(X)
        found.add(bits(pca, X))
    assert len(found) == 1


@pytest.mark.needs_jit
def test_same_bits_for_any_number_of_threads_with_weights_and_in_a_stream():
    X = spectra.decaying(*TALL, decay=0.9).astype(np.float32)
    weights = np.random.default_rng(0).uniform(0, 2, len(X))
    found = set()
    for n_threads in (1, 2, 4):
        lf.set_num_threads(n_threads)
        pca = lf.PCA(n_components=4).fit(X, sample_weight=weights)
        stream = lf.PCA(n_components=4).partial_fit(X[:2000]).partial_fit(X[2000:])
        found.add(bits(pca, X) + bits(stream, X))
    assert len(found) == 1


@pytest.mark.needs_jit
def test_environment_sets_the_number_of_threads():
    code = "import lae_fast as lf; print(lf.get_num_threads())"
    assert run(code, LAE_FAST_NUM_THREADS="3").strip() == "3"
    assert run(code, LAE_FAST_NUM_THREADS="", OMP_NUM_THREADS="1").strip() == "1"


@pytest.mark.needs_jit
@any_residual
def test_sixteen_fits_at_once():
    """Different shapes and routes at once, each with the bits it has alone."""
    jobs = []
    for i in range(16):
        shape = [(3000, 60), (60, 3000), (2500, 420), (410, 2500)][i % 4]
        X = spectra.decaying(*shape, seed=i, decay=0.9).astype(np.float32 if i % 3 else np.float64)
        jobs.append((X, ROUTES[i // 4 % 2]))

    def fit(job):
        X, route = job
        return bits(lf.PCA(n_components=5, svd_solver=route).fit(X), X)

    alone = [fit(job) for job in jobs]
    before = [(library["filepath"], library["num_threads"]) for library in threadpoolctl.threadpool_info()]
    with ThreadPoolExecutor(16) as pool:
        for _ in range(2):
            assert list(pool.map(fit, jobs)) == alone
    after = [(library["filepath"], library["num_threads"]) for library in threadpoolctl.threadpool_info()]
    assert after == before


@pytest.mark.needs_jit
def test_one_estimator_serves_many_threads():
    X = spectra.decaying(2000, 50).astype(np.float32)
    pca = lf.PCA(n_components=5).fit(X)
    alone = pca.transform(X).tobytes()
    with ThreadPoolExecutor(8) as pool:
        assert {scores.tobytes() for scores in pool.map(lambda _: pca.transform(X), range(32))} == {alone}


# --- the user's BLAS threads


def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


class _Stop(Exception):
    pass


def _raising(after):
    calls = []

    def report(stage, done, total):
        calls.append(threading.current_thread().name)
        if len(calls) >= after:
            raise _Stop(stage)

    return report


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("n_blas", [1, 2, 3])
def test_blas_threads_are_restored(route, n_blas):
    X = spectra.decaying(3000, 40).astype(np.float32)
    with threadpoolctl.threadpool_limits(n_blas, user_api="blas"):
        before = blas_threads()
        seen = []
        lf.PCA(n_components=3, svd_solver=route, progress=lambda *_: seen.append(blas_threads())).fit_transform(X)
        assert blas_threads() == before
        assert seen
        assert all(set(now) == {1} for now in seen)
        with pytest.raises(_Stop):
            lf.PCA(n_components=3, svd_solver=route, progress=_raising(1)).fit(X)
        assert blas_threads() == before
        X[-1, -1] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            lf.PCA(n_components=3, svd_solver=route).fit(X)
        assert blas_threads() == before


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("first", ["here", "there"])
def test_blas_is_serial_in_a_fit_of_any_thread(route, first):
    """threadpoolctl 3.8 lets one Python thread set OpenBLAS's number and ignores the others."""
    X = spectra.decaying(3000, 40).astype(np.float32)

    def fit(_=None):
        seen = []
        pca = lf.PCA(n_components=3, svd_solver=route, progress=lambda *_: seen.append(blas_threads()))
        return bits(pca.fit(X), X), {n for now in seen for n in now}

    with ThreadPoolExecutor(1) as pool, threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        jobs = [fit, lambda: pool.submit(fit).result()]
        (mine, inside), (other, inside_other) = (job() for job in (jobs if first == "here" else jobs[::-1]))
        assert blas_threads() == before
    assert inside == inside_other == {1}
    assert mine == other


# --- interrupted in the middle


@pytest.mark.parametrize("n_threads", [1, 2, 4])
@pytest.mark.parametrize("kind", [_Stop, KeyboardInterrupt])
@pytest.mark.parametrize("route", ROUTES)
def test_an_exception_in_the_callback_stops_the_fit(route, kind, n_threads):
    X = spectra.decaying(30_000, 40).astype(np.float32)
    lf.set_num_threads(n_threads)
    pca = lf.PCA(n_components=3, svd_solver=route).fit(X)
    kept = bits(pca, X)
    workers = threading.active_count()
    calls = []

    def report(stage, done, total):
        calls.append(done)
        if len(calls) == 2:
            raise kind

    pca.progress = report
    with pytest.raises(kind):
        pca.fit(X)
    assert len(calls) == 2  # nothing went on after it
    assert threading.active_count() == workers
    assert bits(pca, X) == kept  # the last result is still there
    pca.progress = False
    assert bits(pca.fit(X), X) == kept


def test_an_interrupted_batch_is_not_half_added():
    X = spectra.decaying(6000, 20)
    pca = lf.PCA(n_components=3).partial_fit(X[:1000])
    before = pca._moments.xx

    class Tripwire:
        """A file that fails in the middle of being read."""

        shape, dtype, chunks = (5000, 20), X.dtype, (500, 20)

        def __getitem__(self, key):
            if key[0].stop is not None and key[0].stop > 4500 if isinstance(key, tuple) else key.stop > 4500:
                raise KeyboardInterrupt
            return X[1000:][key]

    with pytest.raises(KeyboardInterrupt):
        pca.partial_fit(Tripwire())
    np.testing.assert_array_equal(pca._moments.xx, before)
    assert pca._moments.n_samples == 1000
    pca.partial_fit(X[1000:])
    np.testing.assert_allclose(pca.explained_variance_ * 5999, spectra.answer(X).values[:3], rtol=1e-10)


@pytest.mark.needs_jit
@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT to a process of its own")
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_real_ctrl_c(route, n_threads):
    """SIGINT in the middle of a fit that would take minutes: answered soon, BLAS restored, the next fit works."""
    out = run(
        f"""
        import os, signal, threading, time
        import numpy as np, threadpoolctl
        import lae_fast as lf

        def blas():
            return [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]

        lf.set_num_threads({n_threads})
        small = np.random.default_rng(0).standard_normal((2000, 30), dtype=np.float32)
        expected = lf.PCA(n_components=3, svd_solver="{route}").fit(small).components_.tobytes()
        # a long fit in little memory: the same rows over and over
        rows = np.random.default_rng(1).standard_normal((4000, 1500), dtype=np.float32)

        class Endless:
            shape, dtype, chunks = (4_000_000, 1500), rows.dtype, (4000, 1500)
            def __getitem__(self, key):
                rows_key = key[0] if isinstance(key, tuple) else key
                start = rows_key.start % 1000
                return rows[start : start + rows_key.stop - rows_key.start]

        before, sent = blas(), []
        def interrupt():
            time.sleep(1.5)
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        try:
            lf.PCA(n_components=20, svd_solver="{route}").fit(Endless())
        except KeyboardInterrupt:
            waited = time.monotonic() - sent[0]
            assert waited < 10, waited
        else:
            raise SystemExit("the fit was not interrupted")
        assert blas() == before, blas()
        assert threading.active_count() == 1, threading.enumerate()
        assert lf.PCA(n_components=3, svd_solver="{route}").fit(small).components_.tobytes() == expected
        print("clean")
        """
    )
    assert out.strip() == "clean"


# --- forks and worker processes

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

_FORK = """
    import multiprocessing, os, sys, threading, time
    import numpy as np
    import lae_fast as lf
    from tests.oracle import spectra

    lf.set_num_threads(2)
    X = spectra.decaying(5000, 60).astype(np.float32)

    def fit(route="gram"):
        pca = lf.PCA(n_components=4, svd_solver=route).fit(X)
        return pca.components_.tobytes() + pca.residuals_.tobytes()

    def child(expected):
        return all(fit(route) == expected[route] for route in expected)
"""


@needs_fork
@pytest.mark.needs_jit
def test_a_forked_child_fits_after_the_parent_has():
    code = """
    expected = {route: fit(route) for route in ("gram", "krylov")}
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(child, [expected] * 6, chunksize=1) == [True] * 6
    assert child(expected)
    print("done")
    """
    assert run(textwrap.dedent(_FORK) + textwrap.dedent(code)).strip() == "done"


@pytest.mark.full
@needs_fork
@pytest.mark.needs_jit
def test_a_child_forked_in_the_middle_of_a_fit():
    """The parent's locks, BLAS numbers and half-done passes must not reach the child."""
    code = """
    import threadpoolctl
    blas = lambda: [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
    expected = {route: fit(route) for route in ("gram", "krylov")}
    before, stop, lowered = blas(), threading.Event(), 0

    def check():
        inside = []
        lf.PCA(n_components=2, progress=lambda *_: inside.extend(blas())).fit(X)
        return blas() == before and child(expected) and blas() == before and set(inside) == {1}


    def busy():
        while not stop.is_set():
            fit("gram"), fit("krylov")

    workers = [threading.Thread(target=busy) for _ in range(2)]
    for worker in workers:
        worker.start()
    for i in range(20):
        time.sleep(0.003 * i)
        lowered += lf.backends.threads._guard.users > 0
        pid = os.fork()
        if pid == 0:
            os._exit(0 if check() else 1)
        assert os.waitpid(pid, 0)[1] == 0, i
    stop.set()
    for worker in workers:
        worker.join()
    assert lowered, "no fork fell into a fit: the test has shown nothing"
    assert blas() == before
    print("done")
    """
    assert run(textwrap.dedent(_FORK) + textwrap.dedent(code)).strip() == "done"


@pytest.mark.needs_jit
@pytest.mark.full
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_joblib_workers(backend):
    joblib = pytest.importorskip("joblib")
    X = spectra.decaying(3000, 40).astype(np.float32)
    expected = [_fit_job(X, route) for route in ROUTES]
    found = joblib.Parallel(n_jobs=3, backend=backend)(joblib.delayed(_fit_job)(X, route) for route in ROUTES * 4)
    assert found == expected * 4


def _fit_job(X, route):
    import lae_fast

    pca = lae_fast.PCA(n_components=4, svd_solver=route).fit(X)
    return pca.components_.tobytes() + pca.residuals_.tobytes()


@pytest.mark.full
@any_residual
def test_forty_fits_of_all_estimators_at_once():
    """Mixed estimators, dtypes and sparse rows: each answer has the bits of the same fit alone."""
    rng = np.random.default_rng(0)
    dense = (rng.standard_normal((900, 60)) * 0.9 ** np.arange(60) + 3).astype(np.float32)
    sparse = scipy.sparse.random(900, 60, 0.1, format="csr", random_state=0)
    jobs = {
        "gram": lambda: lf.PCA(4, svd_solver="gram").fit(dense).transform(dense),
        "krylov": lambda: lf.PCA(4, svd_solver="krylov").fit(dense.astype(np.float64)).components_,
        "bytes": lambda: lf.PCA(4).fit((dense * 9).clip(0, 255).astype(np.uint8)).components_,
        "sparse": lambda: lf.PCA(4).fit(sparse).transform(sparse),
        "svd": lambda: lf.TruncatedSVD(4).fit(sparse).components_,
        "stream": lambda: _streamed(dense).components_,
        "weights": lambda: lf.PCA(4).fit(dense, sample_weight=np.arange(900.0)).components_,
        "autoencoder": lambda: _trained(dense).components_,
    }
    alone = {name: job() for name, job in jobs.items()}
    blas = blas_threads()
    with ThreadPoolExecutor(40) as pool:
        futures = [(name, pool.submit(jobs[name])) for _ in range(5) for name in jobs]
        for name, future in futures:
            np.testing.assert_array_equal(future.result(timeout=LIMIT), alone[name], err_msg=name)
    assert blas_threads() == blas


def _streamed(X):
    pca = lf.IncrementalPCA(4)
    for first in range(0, len(X), 7):
        pca.partial_fit(X[first : first + 7])
    return pca


def _trained(X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lf.LinearAutoencoder(3, optimizer="nesterov", max_iter=30).fit(X)
