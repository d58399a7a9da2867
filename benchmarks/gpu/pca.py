"""PCA on a card against its peers: dense, sparse, in coarser modes, and streamed from the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse

from benchmarks.gpu.card import (
    COARSE,
    TOLERANCE,
    Clock,
    Contestant,
    attempt,
    ceilings,
    make,
    on_device,
    products,
    rate,
    with_mode,
    worst_residual,
)
from lae_fast import backends
from lae_fast.data import sources
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.pilot import pilot_view

# (name, samples, features, components, dtype)
FULL = [
    ("mnist-like", 60_000, 784, 20, "float32"),
    ("mnist-like bytes", 60_000, 784, 20, "uint8"),
    ("square", 20_000, 5_000, 50, "float32"),
    ("wide", 5_000, 20_000, 50, "float32"),
    ("tall", 500_000, 200, 10, "float32"),
]
DRY = [("toy", 16, 5, 2, "float32"), ("toy bytes", 16, 5, 2, "uint8"), ("toy wide", 5, 16, 2, "float32")]
# (name, samples, features, density, components) of sparse float32 data
FULL_SPARSE = [("sparse narrow", 400_000, 2_000, 0.02, 50), ("sparse wide", 100_000, 50_000, 0.001, 50)]
DRY_SPARSE = [("toy sparse", 16, 6, 0.2, 2)]


def peers(X: np.ndarray, p: int) -> dict[str, Contestant]:
    """The libraries that are installed."""
    found: dict[str, Contestant] = {}
    try:
        import cupy

        Xc = cupy.asarray(X).astype(cupy.float32)

        def cupy_eigh() -> tuple[np.ndarray, np.ndarray]:
            centred = Xc - Xc.mean(axis=0)
            values, vectors = cupy.linalg.eigh(centred.T @ centred)
            return values[::-1][:p].get(), vectors[:, ::-1][:, :p].get()

        found["cupy eigh"] = cupy_eigh
    except Exception as error:  # not installed, or of another CUDA
        print(f"CuPy: {error}", flush=True)
    try:
        import torch

        if torch.cuda.is_available():
            torch.backends.cuda.matmul.allow_tf32 = False
            Xt = torch.as_tensor(X, device="cuda").to(torch.float32)

            def torch_eigh() -> tuple[np.ndarray, np.ndarray]:
                centred = Xt - Xt.mean(dim=0)
                values, vectors = torch.linalg.eigh(centred.T @ centred)
                return values.flip(0)[:p].cpu().numpy(), vectors.flip(1)[:, :p].cpu().numpy()

            def torch_svd() -> tuple[np.ndarray, np.ndarray]:
                _, s, vh = torch.linalg.svd(Xt - Xt.mean(dim=0), full_matrices=False)
                return (s[:p] ** 2).cpu().numpy(), vh[:p].T.cpu().numpy()

            def torch_lowrank() -> tuple[np.ndarray, np.ndarray]:
                _, s, v = torch.pca_lowrank(Xt, q=p, niter=8)
                return (s**2).cpu().numpy(), v.cpu().numpy()

            found |= {"torch eigh": torch_eigh, "torch svd": torch_svd, "torch pca_lowrank": torch_lowrank}
    except Exception as error:  # not installed, or of another CUDA
        print(f"PyTorch: {error}", flush=True)
    try:
        import cuml
        import cupy

        Xu = cupy.asarray(X).astype(cupy.float32)

        def cuml_pca() -> tuple[np.ndarray, np.ndarray]:
            model = cuml.PCA(p, output_type="numpy").fit(Xu)
            return model.explained_variance_.ravel() * (X.shape[0] - 1), model.components_.T

        found["cuml PCA"] = cuml_pca
    except Exception as error:  # not installed, or of another CUDA
        print(f"cuML: {error}", flush=True)
    return found


def ours(data: Any, p: int, backend: str = "cuda", **options: Any) -> Contestant:
    """`top_eigenpairs` as a contestant."""

    def run() -> tuple[np.ndarray, np.ndarray]:
        pairs = top_eigenpairs(data, p, backend=backend, **options)
        return pairs.values, pairs.vectors

    return run


def race(X: np.ndarray, p: int, clock: Clock) -> dict[str, Any]:
    """Ours on device data and from the host, in every precision, and every peer that is installed."""
    there = on_device(X)
    contestants = {"lae_fast, data on the device": ours(there, p), "lae_fast, data on the host": ours(X, p)}
    for mode in COARSE if X.dtype == np.float32 else ():
        if run := with_mode(mode, ours(there, p, precision=mode)):
            contestants[f"lae_fast, data on the device, {mode}"] = run
    return compare(X, contestants | peers(X, p), clock)


def sparse_race(m: int, d: int, density: float, p: int, clock: Clock, dry: bool) -> dict[str, Any]:
    """Both routes of ours over stored entries, each with the matrix on the card from its second run on, and the CPU."""
    X = scipy.sparse.random(m, d, density, "csr", dtype=np.float32, random_state=0)
    contestants = {f"lae_fast, {solver}": ours(X, p, solver=solver) for solver in ("gram", "krylov") if dry or d < 5000}
    contestants |= {"lae_fast": ours(X, p), "lae_fast, CPU": ours(X, p, "cpu")}
    return compare(X, contestants, clock)


def compare(X: Any, contestants: dict[str, Contestant], clock: Clock) -> dict[str, Any]:
    """Every contestant, checked, then timed."""
    found: dict[str, Any] = {}
    for name, run in contestants.items():
        notes: dict[str, str] = {}
        result: dict[str, Any] = {}

        def check_and_time(run: Contestant = run, result: dict[str, Any] = result) -> None:
            residual = worst_residual(X, *run())
            result |= {"worst_residual": residual, "accurate": residual <= TOLERANCE, "seconds": clock(run)}

        attempt(notes, "error", check_and_time)  # a peer that cannot do this size, or at all
        found[name] = result | notes
    return found


def streaming(clock: Clock, dry: bool) -> dict[str, Any]:
    """Row passes over host data four times the room that is taken on the device."""
    from lae_fast.backends.cuda import arrays, stream

    m, d = (64, 4) if dry else (1 << 21, 512)
    X = np.ones((m, d), np.float32)
    X[::2] = 2.0
    source = sources.as_source(X)
    view, _ = pilot_view(source, None, backend="cuda", block=16)
    home = stream._residences.setdefault(source, stream.Residence())
    home.room = X.nbytes // 4
    block = arrays.upload(np.ones((d, 16)), np.float32)
    used = backends.get_backend("cuda")
    used.rows.row_pass(view, block)  # a quarter stays
    moved = X.nbytes - sum(chunk.flat.nbytes for chunk in home.chunks.values())
    return {"bytes": X.nbytes, "streamed_gbps": rate(1e-9 * moved, clock(lambda: used.rows.row_pass(view, block)))}


def measure(payload: dict[str, Any], clock: Clock, save: Callable[[], None]) -> bool:
    """Fill the payload; whether every answer of ours meets the tolerance."""
    notes = payload["notes"] = {}
    payload["ceilings"] = attempt(notes, "ceilings", lambda: ceilings(clock, clock.dry))
    cases = payload["cases"] = []
    for name, m, d, p, dtype in DRY if clock.dry else FULL:
        X = make(m, d, dtype)
        case: dict[str, Any] = {"name": name, "shape": [m, d], "p": p, "dtype": dtype}
        case["products"] = attempt(notes, f"products, {name}", lambda X=X, p=p: products(X, p, clock))
        case["race"] = attempt(notes, name, lambda X=X, p=p: race(X, p, clock))
        cases.append(case)
        save()
        print(name, case["race"], flush=True)
    for name, m, d, density, p in DRY_SPARSE if clock.dry else FULL_SPARSE:
        case = {"name": name, "shape": [m, d], "density": density, "p": p, "dtype": "float32"}
        shape = (m, d, density, p)
        case["race"] = attempt(notes, name, lambda shape=shape: sparse_race(*shape, clock, clock.dry))
        cases.append(case)
        save()
        print(name, case["race"], flush=True)
    payload["streaming"] = attempt(notes, "streaming", lambda: streaming(clock, clock.dry))
    ours = [r for case in cases for name, r in (case["race"] or {}).items() if name.startswith("lae_fast")]
    return all(case["race"] for case in cases) and all(result.get("accurate") for result in ours)
