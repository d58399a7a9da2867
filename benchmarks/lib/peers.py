"""The contestants of the PCA benchmark: one function each, data in, (eigenvalues, components, mean) out.

Every function does what a user of that library would do for a fit, centring included, with the library's defaults; a
"tuned" peer is a randomised method whose number of power iterations the benchmark raises until the answer meets the
tolerance. All run in one process with the thread pools as the libraries set them up. Random methods get a fixed seed.

A peer is imported when it is first called. Imports NumPy, SciPy, scikit-learn, and each peer's library.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

SEED = 0
_OURS = "lae_fast"
OVERSAMPLES = 10


class Answer(NamedTuple):
    """What a fit found.

    values : ndarray (p,), eigenvalues of the covariance with denominator m - 1.
    components : ndarray (p, d).
    mean : ndarray (d,), or None where the library computes it and does not hand it out.
    info : what else the fit says about itself.
    """

    values: np.ndarray
    components: np.ndarray
    mean: np.ndarray | None
    info: dict[str, Any] = {}  # noqa: RUF012 - never written to


@dataclass(frozen=True)
class Peer:
    """One contestant before it meets data.

    Attributes
    ----------
    name : str
    module : str
        Must be importable, or the peer is reported as not installed.
    fit : callable (X, p) -> Answer, or (X, p, n) -> Answer for a tuned peer
    kind : str
        As `harness.Contestant.kind`.
    cost : callable (m, d, p) -> float, optional
        Flops, weighted so that dividing by the square GEMM rate gives seconds, to a factor of about two. Only for the
        methods whose time explodes with the shape: they must not be started, since BLAS cannot be interrupted.
    tune_from : int or None
        First number of iterations to try; None for a peer without that knob.
    same_as : callable (m, d, p) -> str, optional
        Name of the contestant whose code this one runs for that shape: it is reported and not timed twice.
    essential : bool
        Tried even when the time for trials is spent: without the likely best peers a result is worth nothing.
    note : str
    """

    name: str
    module: str
    fit: Callable[..., Answer]
    kind: str = "peer"
    cost: Callable[[int, int, int], float] | None = None
    tune_from: int | None = None
    same_as: Callable[[int, int, int], str] | None = None
    essential: bool = False
    note: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return is_installed(self.module)

    def __call__(self, X: np.ndarray, p: int, *iterations: int) -> Answer:
        return self.fit(X, p, *iterations, **self.options)


def is_installed(module: str) -> bool:
    """Whether a module, dotted or not, can be found; its parents are imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


# LAPACK spends its time in reductions of which half is matrix-vector products; seen: 40 % of the GEMM rate at best.
_LAPACK = 2.5


def _eigh_flops(n: int) -> float:
    return _LAPACK * 12.0 * n**3


def _covariance_cost(m: int, d: int, p: int) -> float:
    return 2.0 * m * d * d + _eigh_flops(d)


def _gram_cost(m: int, d: int, p: int) -> float:
    short, long = sorted((m, d))
    return 1.5 * long * short**2 + 10.0 * short**3


def _onedal_cost(m: int, d: int, p: int) -> float:
    return 1.0 * m * d * d + 8.0 * d**3  # SYRK and a subset of the eigenvectors


def _lobpcg_cost(m: int, d: int, p: int) -> float:
    return 3500.0 * m * d * p  # seen; it works in float64 and takes some hundred products


def _svd_cost(m: int, d: int, p: int) -> float:
    short, long = sorted((m, d))
    return _LAPACK * (6.0 * long * short**2 + 22.0 * short**3)


def _naive_cost(m: int, d: int, p: int) -> float:
    return 2.0 * _covariance_cost(m, d, p)  # float64 flops cost twice


# --- ours -------------------------------------------------------------------------------------------------------------


def ours(X: np.ndarray, p: int, **options: Any) -> Answer:
    """lae_fast.PCA, certificate included."""
    import lae_fast

    model = lae_fast.PCA(n_components=p, **options).fit(X)
    info = {
        "solver": model.solver_,
        "route_reason": model.route_reason_,
        "n_passes": int(model.n_passes_),
        "workspace_bytes": int(model.workspace_bytes_),
        "certificate": model.residuals_,
    }
    return Answer(model.explained_variance_, model.components_, model.mean_, info)


# --- scikit-learn, with and without Intel's extension -----------------------------------------------------------------


def scikit_learn(X: np.ndarray, p: int, iterations: int | str = "auto", *, solver: str = "auto") -> Answer:
    """sklearn.decomposition.PCA; `iterations` is iterated_power and matters to "randomized" only."""
    from sklearn.decomposition import PCA

    model = PCA(n_components=p, svd_solver=solver, iterated_power=iterations, random_state=SEED).fit(X)
    return Answer(model.explained_variance_, model.components_, model.mean_, {"solver": model._fit_svd_solver})


def scikit_learn_intelex(X: np.ndarray, p: int, *, solver: str = "auto") -> Answer:
    """sklearnex.decomposition.PCA, imported directly: nothing of scikit-learn is patched for the others."""
    from sklearnex.decomposition import PCA

    model = PCA(n_components=p, svd_solver=solver, random_state=SEED).fit(X)
    taken = "oneDAL" if hasattr(model, "_onedal_estimator") else "handed over to scikit-learn"
    return Answer(
        model.explained_variance_, model.components_, model.mean_, {"solver": model._fit_svd_solver, "path": taken}
    )


# --- the others -------------------------------------------------------------------------------------------------------


def torch_pca_lowrank(X: np.ndarray, p: int, iterations: int = 2) -> Answer:
    """torch.pca_lowrank with q = p + 10; centred by hand, as it does itself, because it does not return the mean."""
    import torch

    torch.manual_seed(SEED)
    data = torch.from_numpy(X)
    mean = data.mean(dim=0)
    width = min(p + OVERSAMPLES, *X.shape)
    _, singular, right = torch.pca_lowrank(data - mean, q=width, center=False, niter=iterations)
    values = (singular[:p] ** 2 / (len(X) - 1)).numpy()
    return Answer(values, right[:, :p].T.numpy(), mean.numpy(), {})


def fbpca_pca(X: np.ndarray, p: int, iterations: int | None = None) -> Answer:
    """fbpca.pca, centring implicit; with `iterations` also l = p + 10 instead of its default p + 2."""
    import fbpca

    np.random.seed(SEED)  # noqa: NPY002 - fbpca draws from the global generator
    extra = {} if iterations is None else {"n_iter": iterations, "l": min(p + OVERSAMPLES, *X.shape)}
    _, singular, right = fbpca.pca(X, k=p, raw=False, **extra)
    return Answer(singular**2 / (len(X) - 1), right, None, {})


def scipy_svds(X: np.ndarray, p: int, *, solver: str = "arpack") -> Answer:
    """scipy.sparse.linalg.svds of the centred data; centring is part of the fit."""
    from scipy.sparse.linalg import svds

    mean = X.mean(axis=0)
    _, singular, right = svds(X - mean, k=p, solver=solver, random_state=SEED)
    order = np.argsort(singular)[::-1]
    return Answer(singular[order] ** 2 / (len(X) - 1), right[order], mean, {})


def numpy_float64(X: np.ndarray, p: int) -> Answer:
    """The textbook in five lines of NumPy: float64 copy, covariance, eigh. Accurate, and a reference for the others."""
    mean = X.mean(axis=0, dtype=np.float64)
    centred = X - mean
    values, vectors = np.linalg.eigh(centred.T @ centred / (len(X) - 1))
    return Answer(values[: -p - 1 : -1], vectors[:, : -p - 1 : -1].T, mean, {})


def contestants(*, routes: bool = False) -> list[Peer]:
    """All of them, ours first; with `routes` also both of our routes by force, to see whether the choice was right."""
    found = [Peer("lae_fast", _OURS, ours, kind="ours")]
    if routes:
        found += [
            Peer(f"lae_fast {solver}", _OURS, ours, kind="variant", cost=cost, options={"svd_solver": solver})
            for solver, cost in (("gram", _gram_cost), ("krylov", None))
        ]
    # The order matters when time is short: what may be the best accurate peer somewhere is tried first.
    found += [
        _intelex("covariance_eigh", essential=True),
        _scikit_learn("covariance_eigh", essential=True),
        Peer("torch pca_lowrank", "torch", torch_pca_lowrank, note="niter=2, its default"),
        Peer("torch pca_lowrank, tuned", "torch", torch_pca_lowrank, tune_from=6, essential=True),
        Peer("scipy svds arpack", "scipy", scipy_svds, essential=True, options={"solver": "arpack"}),
        _scikit_learn("arpack", essential=True),
        Peer("scipy svds propack", "scipy", scipy_svds, options={"solver": "propack"}),
        _scikit_learn("randomized"),
        Peer("scikit-learn randomized, tuned", "sklearn", scikit_learn, tune_from=8, options={"solver": "randomized"}),
        Peer("NumPy float64 covariance + eigh", "numpy", numpy_float64, kind="reference", cost=_naive_cost),
        Peer("fbpca", "fbpca", fbpca_pca, note="n_iter=2, l=p+2, its defaults; computes in float64"),
        Peer("fbpca, tuned", "fbpca", fbpca_pca, tune_from=6, note="l=p+10; computes in float64"),
        _scikit_learn("full"),
        _intelex("full"),
        _scikit_learn("auto", same_as=lambda m, d, p: f"scikit-learn {automatic_solver(m, d, p)}"),
        _intelex("auto", same_as=_intelex_automatic),
        _intelex("randomized", same_as=lambda m, d, p: "scikit-learn randomized"),
        _intelex("arpack", same_as=lambda m, d, p: "scikit-learn arpack"),
        Peer("scipy svds lobpcg", "scipy", scipy_svds, cost=_lobpcg_cost, options={"solver": "lobpcg"}),
    ]
    return found


def automatic_solver(m: int, d: int, p: int) -> str:
    """What svd_solver="auto" of scikit-learn 1.9 means, from its documentation; the tests hold it against the fit."""
    if d <= 1000 and m >= 10 * d:
        return "covariance_eigh"
    if max(m, d) <= 500 or p >= 0.8 * min(m, d):
        return "full"
    return "randomized"


def _intelex_automatic(m: int, d: int, p: int) -> str:
    """The same choice, of which oneDAL takes the covariance, uses it for "full" too, and hands over the rest."""
    solver = automatic_solver(m, d, p)
    return "scikit-learn randomized" if solver == "randomized" else "scikit-learn-intelex covariance_eigh"


def _scikit_learn(solver: str, **fields: Any) -> Peer:
    cost = {"covariance_eigh": _covariance_cost, "full": _svd_cost}.get(solver)
    return Peer(f"scikit-learn {solver}", "sklearn", scikit_learn, cost=cost, options={"solver": solver}, **fields)


def _intelex(solver: str, **fields: Any) -> Peer:
    cost = {"covariance_eigh": _onedal_cost, "full": _svd_cost}.get(solver)
    name = f"scikit-learn-intelex {solver}"
    return Peer(name, "sklearnex.decomposition", scikit_learn_intelex, cost=cost, options={"solver": solver}, **fields)
