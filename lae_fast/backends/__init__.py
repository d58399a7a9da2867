"""Backends: which one runs, and what the machine offers."""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import platform
from typing import Any

from ..errors import UnsupportedOnBackendError
from ..validation import check_choice
from .cpu import panels
from .interface import Backend, DeviceArrays, Panels
from .threads import get_num_threads, set_num_threads

BACKENDS = ("auto", "cpu", "cuda")
# How products of float32 are made: as such, or in a mode of CUDA's tensor cores, with refinement in float32 afterwards.
PRECISIONS = ("float32", "tf32", "bf16x9")

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "backend_info",
    "check_precision",
    "choose",
    "device_arrays",
    "get_backend",
    "get_num_threads",
    "host_panels",
    "require_precision",
    "resolve",
    "resolve_cpu",
    "set_num_threads",
]


# Products of panels that lie on the host, whichever backend computes the rest.
host_panels: Panels = panels


def get_backend(name: str) -> Backend:
    """The backend that `choose` or `resolve` named."""
    return _cuda() if name == "cuda" else _cpu(get_num_threads())


@functools.cache
def _cpu(n_workers: int) -> Backend:
    from .cpu import blas
    from .cpu.passes import chunks, gram, rows, sparse

    return Backend("cpu", gram, rows, sparse, panels, chunks.RUNS, blas.provider, n_workers)


def _cuda() -> Backend:
    from .cuda import arrays, panels
    from .cuda.passes import chunks, gram, rows, sparse

    return Backend("cuda", gram, rows, sparse, panels, chunks.RUNS, arrays.provider, 1)


def device_arrays() -> DeviceArrays:
    """What reads and hands back arrays of other libraries that lie on a CUDA device."""
    from .cuda import arrays

    return arrays


def choose(backend: str, on_device: bool, pays: bool = False) -> str:
    """The backend that runs, where the data are known: "auto" gives "cuda" where CUDA runs and the data are there, or
    where moving them pays (`pays`).

    The simulator is chosen for data that say they are on a device, and never because it pays.
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
    """The backend that runs, "cpu", for what has no CUDA code; `what` names it in the message.

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
    version, threads, path, role), cache (dict: enabled, path, jit, loaded and compiled: kernels of this process), cuda
    (dict: available, reason), versions.

    Examples
    --------
    >>> import lae_fast as lf
    >>> info = lf.backend_info()
    >>> info["backend"], sorted(info["cuda"]), sorted(info["versions"])[:3]
    ('cpu', ['available', 'reason'], ['llvmlite', 'numba', 'numpy'])
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
    directory, (loaded, compiled) = jit.cache_directory(), jit.counts()
    return {
        "backend": resolve("auto"),
        "threads": get_num_threads(),
        "threading": "Python threads over nogil kernels; BLAS on one thread inside each (no Numba thread pool)",
        "processor": {"vector_bytes": registers.VECTOR_BYTES, "byte_products": registers.HAS_BYTE_PRODUCTS},
        "blas": libraries,
        "cache": {
            "enabled": directory is not None,
            "path": str(directory or ""),
            "jit": not jit.JIT_DISABLED,
            "loaded": loaded,
            "compiled": compiled,
        },
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
