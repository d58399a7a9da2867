"""Checkpoints between passes: block Krylov, EM and the sketch go on where they were killed, with the same bits."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast import plan
from lae_fast.eigen import krylov as krylov_module
from lae_fast.errors import DataFileError

ROOT = Path(__file__).resolve().parents[2]
FITTED = ("components_", "explained_variance_", "mean_", "residuals_", "n_passes_", "solver_", "route_reason_")


class Stopped(Exception):
    pass


class Kept(lf.Checkpoint):
    """Written whenever it can be; raises after `writes` of them."""

    def __init__(self, path, writes):
        super().__init__(path, seconds=0)
        self.left = writes

    def _write(self, state):
        super()._write(state)
        self.left -= 1
        if self.left == 0:
            raise Stopped


@pytest.fixture
def folder(tmp_path):
    """A dense matrix of slow decay, its transpose, a sparse one, one with missing entries, and one whose pilot lies."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((700, 150)) * 0.97 ** np.arange(150) + rng.standard_normal(150)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "single.npy", (X + 40).astype(np.float32))
    np.save(tmp_path / "wide.npy", np.ascontiguousarray(X[:, :60].T))
    scipy.sparse.save_npz(tmp_path / "x.npz", scipy.sparse.random(900, 300, 0.02, format="csr", random_state=0))
    far = 100 + rng.standard_normal((4000, 120)) * 0.99 ** np.arange(120)
    for first in np.linspace(0, 4000 - 16, 16).astype(int):  # the rows that the pilot reads: a shift far off the mean
        far[first : first + 16] -= 100
    np.save(tmp_path / "far.npy", far.astype(np.float32))
    X = X[:, :12].copy()
    X[rng.random(X.shape) < 0.1] = np.nan
    np.save(tmp_path / "gaps.npy", X)
    return tmp_path


def fit(estimator, path, kept=None, weights=None):
    return estimator.fit(path, sample_weight=weights, checkpoint=kept)


def same(found, expected, names=FITTED):
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def interrupted(make, path, writes, weights=None):
    """Fitted in two runs, the first stopped after so many writes; None where it had ended before."""
    state = path.parent / "state"
    try:
        fit(make(), path, Kept(state, writes), weights)
    except Stopped:
        kept = lf.Checkpoint(state)
        found = fit(make(), path, kept, weights)
        assert kept.resumed
        kept.remove()
        return found
    state.unlink()
    return None


def at_every_point(make, path, weights=None, names=FITTED, points=range(1, 400)):
    """Stopped after each number of writes in `points`, or until there are no more; as an undisturbed fit."""
    whole = fit(make(), path, weights=weights)
    for writes in points:
        found = interrupted(make, path, writes, weights)
        if found is None:
            assert writes > 3
            break
        same(found, whole, names)
    return whole


def krylov(p=6, **arguments):
    return lambda: lf.PCA(p, svd_solver="krylov", **arguments)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (krylov(), "x.npy"),
        (krylov(standardize=True), "x.npy"),
        (krylov(random_state=3), "single.npy"),
        (krylov(p=3), "wide.npy"),
        (krylov(p=3), "far.npy"),
        (krylov(p=0.3), "x.npy"),
        (krylov(p=4), "x.npz"),
        (krylov(p=4, standardize=True), "x.npz"),
        (krylov(p=5, max_memory="600kB"), "x.npy"),  # restarts
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_block_krylov_goes_on_from_every_product(folder, make, name, weighted):
    rows = {"wide.npy": 60, "x.npz": 900, "far.npy": 4000}.get(name, 700)
    weights = 1 + np.arange(rows) % 3 if weighted else None
    points = (1, 2, 4) if name == "x.npz" else range(1, 400)
    whole = at_every_point(make, folder / name, weights, points=points)
    assert whole.solver_ == "krylov" and whole.n_passes_ >= 3


@pytest.mark.full
def test_a_block_that_was_widened_goes_on(folder):
    """More copies of an eigenvalue than columns of the sparse block: random columns join it."""
    block = scipy.sparse.random(80, 50, 0.1, format="csr", random_state=1)
    X = scipy.sparse.kron(scipy.sparse.eye(30), block)
    scipy.sparse.save_npz(folder / "copies.npz", scipy.sparse.vstack([X, -X]).tocsr())
    at_every_point(krylov(p=33, tol=1e-4), folder / "copies.npz", points=range(4, 40, 5))


def test_the_generator_goes_on_too(folder, monkeypatch):
    """It is asked for columns where S leaves a subspace to itself; here for every panel."""
    monkeypatch.setattr(
        krylov_module.KrylovBasis,
        "next_panel",
        lambda self, _, block, *__: self.orthonormalize(self.random_panel(block), 0.0),
    )
    at_every_point(krylov(), folder / "x.npy")


@pytest.mark.parametrize("generator", [np.random.PCG64, np.random.MT19937, np.random.SFC64])
def test_generators_of_every_kind(folder, generator):
    def make():
        return lf.PCA(4, svd_solver="krylov", random_state=np.random.Generator(generator(5)))

    same(interrupted(make, folder / "x.npy", 3), fit(make(), folder / "x.npy"))


def test_a_run_that_gave_up_krylov_does_not_try_it_again(folder, monkeypatch):
    """Passes that were spent count in n_passes_ as if nothing had happened, at any point of either route."""
    X = np.random.default_rng(1).standard_normal((2000, 150)).astype(np.float32)
    np.save(folder / "flat.npy", X)
    route = plan.Route("krylov", False, "the test says so")
    monkeypatch.setattr(plan, "choose_route", lambda *args, **options: route)
    monkeypatch.setattr(plan, "pass_budget", lambda *args: 3)
    monkeypatch.setattr(plan, "EXPECTED_PASSES", {4: 1, 8: 1})
    monkeypatch.setattr(plan, "_CHUNK_BYTES", 150_000)
    make = lambda: lf.PCA(3)  # noqa: E731
    iterations, iterate = [], krylov_module.block_krylov

    def counted(*args, **options):
        iterations.append(options["checkpoint"])
        return iterate(*args, **options)

    monkeypatch.setattr(krylov_module, "block_krylov", counted)
    whole = fit(make(), folder / "flat.npy")
    assert whole.solver_ == "gram" and "converged too slowly" in whole.route_reason_
    tried = []
    for writes in range(1, 9):
        iterations.clear()
        same(interrupted(make, folder / "flat.npy", writes), whole)
        tried.append(len(iterations))
    assert tried[0] == 2 and tried[-3:] == [1, 1, 1]  # in both runs; in the first one only


def test_the_number_of_threads_may_change(folder):
    whole = fit(krylov()(), folder / "x.npy")
    with pytest.raises(Stopped):
        fit(krylov()(), folder / "x.npy", Kept(folder / "state", 3))
    try:
        lf.set_num_threads(3)
        same(fit(krylov()(), folder / "x.npy", folder / "state"), whole)
    finally:
        lf.set_num_threads(None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (krylov(p=7), "n_components was 6 and is 7"),
        (krylov(tol=1e-3), r"tol was 0.0 and is 0.001"),
        (krylov(random_state=1), "random_state was"),
        (krylov(standardize=True), "standardize was False and is True"),
        (lambda: lf.PCA(6, svd_solver="gram"), "pass was 'block Krylov' and is 'Gram of the features'"),
    ],
)
def test_other_runs_are_refused(folder, make, message):
    with pytest.raises(Stopped):
        fit(krylov()(), folder / "x.npy", Kept(folder / "state", 2))
    before = (folder / "state").read_bytes()
    with pytest.raises(DataFileError, match=message):
        fit(make(), folder / "x.npy", folder / "state")
    assert (folder / "state").read_bytes() == before


@pytest.mark.parametrize("weighted", [False, True])
def test_em_goes_on_from_every_iteration(folder, weighted):
    weights = np.arange(700) % 3 if weighted else None
    names = ("components_", "explained_variance_", "mean_", "log_likelihood_", "n_passes_", "converged_")
    at_every_point(lambda: lf.PCA(3, missing="em"), folder / "gaps.npy", weights, names, range(1, 400, 7))


@pytest.mark.parametrize("forget", [1.0, 0.999])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_sketch_goes_on(folder, forget, weighted):
    weights = np.arange(700) % 3 if weighted else None

    def make():
        return lf.IncrementalPCA(3, max_memory="400kB", forget=forget)

    with pytest.warns(UserWarning, match="approximate"):
        whole = at_every_point(make, folder / "x.npy", weights, (*FITTED[:4], "error_bound_", "var_"), (1, 4, 9))
    assert whole.solver_ == "sketch" and whole.n_samples_seen_ == 700


def test_moments_that_forget_go_on(folder, monkeypatch):
    monkeypatch.setattr(plan, "tiling", lambda *_: plan.Tiling(100, 50))
    at_every_point(lambda: lf.IncrementalPCA(3, forget=0.999), folder / "x.npy", names=FITTED[:4])


def test_a_sketch_needs_a_file_too(folder):
    X = np.load(folder / "x.npy")
    for data in (X, [X], iter([X])):
        with pytest.raises(ValueError, match="needs X as a path to a file"):
            fit(lf.IncrementalPCA(3, max_memory="400kB"), data, folder / "state")
    with pytest.raises(ValueError, match="needs X as a path to a file"):
        lf.top_eigenpairs(lf.Moments.from_data(X), 2, checkpoint=folder / "state")


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_killed_within_a_pass(folder):
    """SIGKILL in the middle of a product, twice, and in the refining pass."""
    code = """
        import os, signal
        import lae_fast as lf

        left = {left}

        def report(stage, done, total):
            global left
            left -= "{stage}" in stage
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        pca = lf.PCA(3, svd_solver="krylov", progress=report)
        pca.fit("wide.npy", checkpoint=lf.Checkpoint("state", seconds=0))
    """
    whole = fit(krylov(3)(), folder / "wide.npy")
    for stage, left in (("pass over", 3), ("pass over", 2), ("refining", 1)):
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code).format(stage=stage, left=left)],
            cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert run.returncode == -signal.SIGKILL, run.stderr
    kept = lf.Checkpoint(folder / "state")
    same(fit(krylov(3)(), folder / "wide.npy", kept), whole)
    assert kept.resumed
