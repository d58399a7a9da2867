"""Backends: which one runs, and what the machine offers."""

from __future__ import annotations

import importlib.util
import pathlib
import platform
from typing import Any, NamedTuple

from ..errors import UnsupportedOnBackendError
from ..validation import check_choice
from .cpu.threads import get_num_threads, set_num_threads

BACKENDS = ("auto", "cpu", "cuda")
# How products of float32 are made: as such, or in a mode of CUDA's tensor cores, with refinement in float32 afterwards.
PRECISIONS = ("float32", "tf32", "bf16x9")

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Engine",
    "backend_info",
    "check_precision",
    "choose",
    "engine",
    "get_num_threads",
    "require_precision",
    "resolve",
    "resolve_cpu",
    "set_num_threads",
]


class Engine(NamedTuple):
    """What a backend computes with: modules of the same functions, on panels and totals of its own.

    passes : over rows;  sparse : over stored entries;  panels : products of tall panels
    name : "cpu" | "cuda";  n_workers : partial results that are held side by side.
    """

    name: str
    passes: Any
    sparse: Any
    panels: Any
    n_workers: int


def engine(name: str) -> Engine:
    """The engine of a backend that `choose` or `resolve` named."""
    if name == "cuda":
        from .cuda import panels
        from .cuda.passes import dense as passes
        from .cuda.passes import sparse

        return Engine(name, passes, sparse, panels, 1)
    from .cpu import panels
    from .cpu.passes import dense as passes
    from .cpu.passes import sparse

    return Engine(name, passes, sparse, panels, get_num_threads())


def choose(backend: str, on_device: bool, pays: bool = False) -> str:
    """As `resolve`, with data: "auto" gives "cuda" where CUDA runs and the data are there, or moving them pays.

    The simulator is taken for data that say they are on a device, and never because it pays.
    """
    name = resolve(backend)
    if backend != "auto" or not (on_device or (pays and importlib.util.find_spec("cupy") is not None)):
        return name  # and nothing of CUDA is imported
    from .cuda import target

    return "cuda" if target.probe().available and (on_device or not target.SIMULATED) else "cpu"


def resolve(backend: str) -> str:
    """The backend that runs for "auto", "cpu" or "cuda", as far as that is known without data: "auto" gives "cpu".

    Raises
    ------
    BackendUnavailableError
        "cuda" was asked for; the message says what was probed.
    ValueError
        Any other name.
    """
    check_choice(backend, BACKENDS, "backend")
    if backend == "cuda":
        from .cuda import target

        target.require()
        return "cuda"
    return "cpu"


def resolve_cpu(backend: str, what: str) -> str:
    """As `resolve`, for what has no CUDA code.

    Raises
    ------
    UnsupportedOnBackendError
        "cuda" was asked for, and would run.
    """
    if resolve(backend) == "cuda":
        raise UnsupportedOnBackendError(f"{what} has no CUDA code yet: use backend='cpu' or 'auto'.")
    return "cpu"


def check_precision(precision: str, backend: str) -> None:
    """Refuse an unknown precision, and one that the backend asked for never has.

    Raises
    ------
    ValueError, UnsupportedOnBackendError
    """
    check_choice(precision, PRECISIONS, "precision")
    if precision != "float32" and backend == "cpu":
        raise UnsupportedOnBackendError(
            f"precision={precision!r} is a mode of CUDA cards, and backend='cpu' multiplies in float32: use "
            "precision='float32', or backend='auto' or 'cuda'."
        )


def require_precision(precision: str) -> None:
    """Raise UnsupportedOnBackendError where the card here has no such mode."""
    from .cuda import blas

    blas.require(precision)


def probe_cuda() -> dict[str, Any]:
    """Whether CUDA can run here, and why not."""
    from .cuda import target

    return target.probe()._asdict()


def backend_info() -> dict[str, Any]:
    """What would run and on what: backend, threads, BLAS libraries, compile cache, CUDA, versions.

    Returns
    -------
    dict with keys backend, threads, threading, processor (dict: vector_bytes, byte_products), blas (list of dict: name,
    version, threads, path, role), cache (dict: enabled, path, jit), cuda (dict: available, reason), versions.
    """
    import llvmlite
    import numba
    import numpy
    import scipy
    import sklearn
    from threadpoolctl import threadpool_info

    from .cpu import blas, jit, registers

    kernels = "tile kernels (GEMM, SYRK)"
    roles = {
        "scipy": "LAPACK" if blas.PROVIDER == "mkl" else f"{kernels} and LAPACK",
        "numpy": "panels of the eigensolver",
        "mkl": kernels if blas.PROVIDER == "mkl" else "not used",
    }
    libraries = []
    for library in threadpool_info():
        if library["user_api"] != "blas":
            continue
        path = library["filepath"]
        home = "mkl" if library["internal_api"] == "mkl" else pathlib.Path(path).parent.name.split(".")[0]
        libraries.append(
            {
                "name": f"{library['internal_api']} ({library.get('architecture', 'unknown architecture')})",
                "version": str(library["version"]),
                "threads": library["num_threads"],
                "path": path,
                "role": roles.get(home, "not used"),
            }
        )
    directory = jit.cache_directory()
    return {
        "backend": resolve("auto"),
        "threads": get_num_threads(),
        "threading": "Python threads over nogil kernels; BLAS on one thread inside each (no Numba thread pool)",
        "processor": {"vector_bytes": registers.VECTOR_BYTES, "byte_products": registers.HAS_BYTE_PRODUCTS},
        "blas": libraries,
        "cache": {"enabled": directory is not None, "path": str(directory or ""), "jit": not jit.JIT_DISABLED},
        "cuda": probe_cuda(),
        "versions": {
            "python": platform.python_version(),
            "numpy": numpy.__version__,
            "scipy": scipy.__version__,
            "numba": numba.__version__,
            "llvmlite": llvmlite.__version__,
            "scikit-learn": sklearn.__version__,
        },
    }
