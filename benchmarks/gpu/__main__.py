"""The GPU benchmark: ceilings of the card, Gram and row pass against bare cuBLAS, PCA against its peers, sparse PCA,
coarser products (`precision`), streaming.

    python -m benchmarks.gpu pca|train [--dry-run] [--rounds N] [--budget S] [--out FILE]

`train` is gpu/train.py's.
One command, under eight minutes on a card (--budget), that writes JSON with hardware and versions.  Every answer is
checked before it is timed, by residuals in float64 on the host.  --dry-run runs every step at toy size on Numba's
simulator (set NUMBA_ENABLE_CUDASIM=1): it shows that the command works and records no times.
No result of a card is in this repository yet: docs/cuda.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

import lae_fast
from benchmarks.lib import harness
from lae_fast import backends, plan
from lae_fast.data import sources
from lae_fast.eigen.solve import top_eigenpairs
from lae_fast.operators.pilot import pilot_view

RESULTS = Path(__file__).resolve().parents[1] / "results"
PACKAGES = (
    "lae-fast",
    "numpy",
    "numba",
    "numba-cuda",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "cuml-cu12",
    "cuml-cu13",
)
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
COARSE = tuple(name for name in backends.PRECISIONS if name != "float32")
# Worst relative residual that counts as the same answer.
TOLERANCE = 1e-4


# A function that gives values (scale "sum") and vectors (d, p).
Contestant = Callable[[], tuple[np.ndarray, np.ndarray]]


class Clock:
    """Seconds of a function, the device's queue empty before and after; None in a dry run, which runs it once."""

    def __init__(self, rounds: int, until: float, dry: bool) -> None:
        self.rounds, self.until, self.dry = rounds, until, dry

    def __call__(self, run: Callable[[], Any]) -> dict[str, float] | None:
        run()
        if self.dry:
            return None
        times: list[float] = []
        while len(times) < self.rounds and (len(times) < 3 or time.monotonic() < self.until):
            synchronize()
            start = time.perf_counter()
            run()
            synchronize()
            times.append(time.perf_counter() - start)
        return harness.summarise(times)


def synchronize() -> None:
    from lae_fast.backends.cuda import arrays

    if arrays.xp is not np:
        arrays.xp.cuda.get_current_stream().synchronize()


def rate(amount: float, seconds: dict[str, float] | None) -> float | None:
    """Amount per second, or None in a dry run."""
    return None if seconds is None else amount / seconds["median"]


def attempt(notes: dict[str, str], name: str, run: Callable[[], Any]) -> Any:
    """What `run` returns; None where it fails, for any reason, which is noted: the other results are not lost."""
    try:
        return run()
    except Exception as error:
        notes[name] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return None


def make(m: int, d: int, dtype: str) -> np.ndarray:
    """Data with a decaying spectrum and a mean; bytes cover their range."""
    rng = np.random.default_rng(0)
    r = min(m, d, 64)
    X = rng.standard_normal((m, r), dtype=np.float32) @ (
        rng.standard_normal((r, d), dtype=np.float32) * (0.9 ** np.arange(r, dtype=np.float32))[:, None]
    )
    X += 0.1 * rng.standard_normal((m, d), dtype=np.float32) + 3.0
    if dtype == "uint8":
        X = np.clip(128 + 12 * X, 0, 255)
    return X.astype(dtype)


def worst_residual(X: Any, values: np.ndarray, vectors: np.ndarray) -> float:
    """Largest |S u - l u| / l, S = Xc' Xc in float64 by blocks of rows; values have scale "sum"."""
    mean = np.asarray(X.mean(axis=0, dtype=np.float64)).ravel()
    vectors = np.asarray(vectors, dtype=np.float64)
    images = np.zeros_like(vectors)
    for first in range(0, X.shape[0], 4096):
        rows = X[first : first + 4096].astype(np.float64)
        if scipy.sparse.issparse(rows):
            scores = rows @ vectors - mean @ vectors
            images += rows.T @ scores - np.multiply.outer(mean, scores.sum(axis=0))
        else:
            rows -= mean
            images += rows.T @ (rows @ vectors)
    return float((np.linalg.norm(images - vectors * values, axis=0) / values).max())


def ceilings(clock: Clock, dry: bool) -> dict[str, Any]:
    """Copies and square GEMM: what the card can do."""
    from lae_fast.backends.cuda import arrays, blas

    xp, n_bytes, n = arrays.xp, (1 << 12 if dry else 1 << 29), (8 if dry else 8192)
    host, here, there = arrays.pinned(n_bytes), xp.empty(n_bytes, np.uint8), xp.empty(n_bytes, np.uint8)
    host[:] = 1
    here[...] = 1
    stream = arrays.CopyStream()
    found: dict[str, Any] = {
        "copy_gbps": rate(2e-9 * n_bytes, clock(lambda: there.__setitem__(slice(None), here))),
        "host_to_device_gbps": rate(
            1e-9 * n_bytes, clock(lambda: arrays.wait(stream.copy(host, here, arrays.event())))
        ),
    }
    for dtype in ("float32", "float64"):
        a = arrays.upload(np.random.default_rng(0).standard_normal((n, n)).astype(dtype))
        out = xp.empty_like(a)
        for mode in ("float32", *COARSE) if dtype == "float32" else ("float32",):
            name = mode if dtype == "float32" else dtype
            run = with_mode(mode, lambda mode=mode, a=a, out=out: blas.gemm(a, a, out, mode))
            found[f"gemm_{name}_gflops"] = None if run is None else rate(2e-9 * n**3, clock(run))
    return found


def with_mode(precision: str, run: Callable[[], Any]) -> Callable[[], Any] | None:
    """The function, or None where the card or its cuBLAS has no such mode."""
    try:
        backends.require_precision(precision)
    except lae_fast.UnsupportedOnBackendError as error:
        print(error, flush=True)
        return None
    return run


def products(X: np.ndarray, p: int, clock: Clock) -> dict[str, Any]:
    """Gram and row pass of data on the device, and the bare cuBLAS calls of the same shapes."""
    from lae_fast.backends.cuda import arrays, blas

    (m, d), xp, used = X.shape, arrays.xp, backends.get_backend("cuda")
    source = sources.as_source(on_device(X))
    by_feature = m < d
    view, variance = pilot_view(source, None, by_feature=by_feature, backend="cuda")
    lines, entries, width = max(m, d), min(m, d), p + 10
    raw = arrays.upload(np.ones((view.tiling.bounds(0, lines)[1], entries)), np.float32)
    gram, block = xp.empty((entries, entries), np.float32), arrays.upload(np.ones((entries, width)), np.float32)
    rows, tile = xp.empty((raw.shape[0], width), np.float32), raw.shape[0]

    def bare_pass() -> None:
        blas.gemm(raw, block, rows)
        blas.cross(
            raw.reshape(1, tile, entries), rows.reshape(1, tile, width), xp.empty((1, entries, width), np.float32)
        )

    whole = plan.gram_flops(lines, entries), plan.pass_flops(lines, entries, width)
    part = plan.gram_flops(tile, entries), plan.pass_flops(tile, entries, width)
    pilot_variance = None if by_feature else variance
    times: dict[str, tuple[float, Any]] = {
        "gram": (whole[0], clock(lambda: used.gram.float_gram(view, pilot_variance, lambda chunk: None))),
        "bare_syrk": (part[0], clock(lambda: blas.syrk(raw, 0.0, gram))),
        "row_pass": (whole[1], clock(lambda: used.rows.row_pass(view, block))),
        "bare_gemms": (part[1], clock(bare_pass)),
    }
    for mode in COARSE:
        coarse = dataclasses.replace(view, precision=mode)
        if run := with_mode(mode, lambda coarse=coarse: used.gram.float_gram(coarse, None, lambda chunk: None)):
            times[f"gram_{mode}"] = (whole[0], clock(run))
            times[f"row_pass_{mode}"] = (whole[1], clock(lambda coarse=coarse: used.rows.row_pass(coarse, block)))
    return {f"{name}_tflops": rate(1e-12 * flops, seconds) for name, (flops, seconds) in times.items()}


def on_device(X: np.ndarray) -> Any:
    """X in CuPy's arrays; in a dry run something that looks like them."""
    from lae_fast.backends.cuda import arrays

    if arrays.xp is not np:
        return arrays.upload(X)
    holder = type("OnDevice", (), {"__cuda_array_interface__": X.__array_interface__})()
    holder.shape, holder.dtype, holder.array = X.shape, X.dtype, X
    return holder


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

        def measure(run: Contestant = run, result: dict[str, Any] = result) -> None:
            residual = worst_residual(X, *run())
            result |= {"worst_residual": residual, "accurate": residual <= TOLERANCE, "seconds": clock(run)}

        attempt(notes, "error", measure)  # a peer that cannot do this size, or at all
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
    home = stream._residences.setdefault(source, stream._Residence())
    home.room = X.nbytes // 4
    block = arrays.upload(np.ones((d, 16)), np.float32)
    used = backends.get_backend("cuda")
    used.rows.row_pass(view, block)  # a quarter stays
    moved = X.nbytes - sum(chunk.flat.nbytes for chunk in home.chunks.values())
    return {"bytes": X.nbytes, "streamed_gbps": rate(1e-9 * moved, clock(lambda: used.rows.row_pass(view, block)))}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; see the module's text.  1 when an answer of ours misses the tolerance."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["pca", "train"])
    parser.add_argument("--dry-run", action="store_true", help="toy sizes on Numba's simulator; no times")
    parser.add_argument("--rounds", type=int, default=7, help="most runs of everything that is timed")
    parser.add_argument("--budget", type=float, default=400.0, help="seconds, after which everything runs three times")
    parser.add_argument("--out", type=Path, help="JSON file (default benchmarks/results/gpu-WHAT[-dry-run].json)")
    options = parser.parse_args(arguments)
    backends.resolve("cuda")
    from lae_fast.backends.cuda import target

    if target.SIMULATED != options.dry_run:
        parser.error("--dry-run and NUMBA_ENABLE_CUDASIM=1 go together: the simulator is not to be timed")
    clock = Clock(options.rounds, time.monotonic() + options.budget, options.dry_run)
    payload: dict[str, Any] = {
        "benchmark": f"gpu {options.what}", "schema": harness.SCHEMA, "dry_run": options.dry_run,
        "environment": harness.environment(PACKAGES) | {"cuda": lae_fast.backend_info()["cuda"]},
    }  # fmt: skip
    out = options.out or RESULTS / f"gpu-{options.what}{'-dry-run' if options.dry_run else ''}.json"

    def save() -> None:
        harness.write_json(out, payload)

    right = train(payload, clock, save) if options.what == "train" else pca(payload, clock, save)
    save()
    print(f"written: {out}")
    return 0 if right else 1


def train(payload: dict[str, Any], clock: Clock, save: Callable[[], None]) -> bool:
    """Fill the payload with the training half; whether every answer is right."""
    from benchmarks.gpu import train as gpu_train

    gpu_train.measure(payload, clock, save)
    return gpu_train.is_all_right(payload)


def pca(payload: dict[str, Any], clock: Clock, save: Callable[[], None]) -> bool:
    """Fill the payload with the PCA half; whether every answer of ours meets the tolerance."""
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


if __name__ == "__main__":
    raise SystemExit(main())
