"""Arrays on the device.  The only file that imports CuPy; under Numba's simulator NumPy stands in for it.

The stand-in has the same arrays, and copies, streams and events that do nothing: so all host logic runs, and is tested,
without a device.
"""

from __future__ import annotations

import contextlib
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import target

# What the simulator reports as free: little, so that tests can have data that are larger than the device.
SIMULATED_BYTES = 1 << 26
# What is sent at once, a power of two: CuPy takes page-locked memory for it, of the next power of two.
_PIECE_BYTES = 1 << 28

# CuPy, or the module that stands in for it.
xp: Any = np
if not target.SIMULATED:
    try:
        import cupy

        xp = cupy
    except ImportError:  # `target.probe` reports it; without CuPy the kernels can only be read
        xp = None


# What is on the device of arrays on the host, by their address: see `download_kept`.
_kept: dict[int, Any] = {}


def upload(array: Any, dtype: Any = None) -> Any:
    """A host array, or one that is on the device already, as a C-ordered device array."""
    if isinstance(array, np.ndarray):
        if _kept and (there := _taken(array, dtype)) is not None:
            return there
        array = np.ascontiguousarray(array, dtype=dtype)
        if xp is np:
            return array if array.flags.writeable else array.copy()  # as every array on a device is
        return xp.asarray(array) if array.nbytes <= _PIECE_BYTES else _in_pieces(array)
    return xp.ascontiguousarray(array, dtype=dtype)


def _in_pieces(array: np.ndarray) -> Any:
    out, step = xp.empty(array.shape, array.dtype), _PIECE_BYTES // array.itemsize
    there, here = out.reshape(-1), array.reshape(-1)
    for first in range(0, array.size, step):
        there[first : first + step] = xp.asarray(here[first : first + step])
    return out


def upload_rows(array: np.ndarray, dtype: Any) -> Any:
    """`upload` of a large host matrix in pieces, each of which is converted: the host holds one more of them."""
    out = xp.empty(array.shape, dtype)
    step = max(1, _PIECE_BYTES // max(1, out.shape[1] * out.itemsize))
    for first in range(0, len(array), step):
        out[first : first + step] = upload(array[first : first + step], dtype)
    return out


def download(array: Any) -> np.ndarray:
    """A device array as a NumPy array; waits for it."""
    return array if isinstance(array, np.ndarray) else xp.asnumpy(array)


def download_kept(array: Any) -> np.ndarray:
    """`download` of an array that nobody writes any more: the first `upload` of what comes back takes it, no copy.

    What comes back cannot be written.  The array stays on the device until then, or until that is gone.
    """
    host = download(array)
    if host is not array:
        host.flags.writeable = False
        where = host.ctypes.data
        _kept[where] = array
        weakref.finalize(host, _kept.pop, where, None)
    return host


def _taken(array: np.ndarray, dtype: Any) -> Any:
    """The kept device array that this one, or all that this one is a view of, was downloaded from; None without one."""
    there = _kept.get(array.ctypes.data)
    if there is None or array.shape != there.shape or not array.flags.c_contiguous:
        return None
    if there.device != xp.cuda.Device():
        return None
    return _kept.pop(array.ctypes.data, None) if array.dtype == there.dtype == (dtype or array.dtype) else None


def as_device(array: Any) -> Any:
    """A 2-D array of any library that has `__cuda_array_interface__`, without a copy."""
    target.require("An array that lies on a CUDA device cannot be read", "Copy it to the host first.")
    if xp is not np:
        found, current = xp.asarray(array), xp.cuda.Device()
        if found.device != current:
            raise ValueError(
                f"X lies on CUDA device {found.device.id}, and the current one is {current.id}: run within "
                f"`with cupy.cuda.Device({found.device.id}):`, or move X."
            )
        return found
    return np.asarray(SimpleNamespace(__array_interface__=array.__cuda_array_interface__))


def as_library(array: Any, like: Any) -> Any:
    """A device array as one of the library that `like` belongs to: PyTorch, Numba, else CuPy; without a copy."""
    library = type(like).__module__.partition(".")[0]
    if xp is np:
        return array
    if library == "torch":
        return sys.modules["torch"].from_dlpack(array)
    return target.view(array) if library.startswith("numba") else array


def free_bytes() -> int:
    """Device memory that could be allocated now."""
    if xp is np:
        return SIMULATED_BYTES
    free, _ = xp.cuda.runtime.memGetInfo()
    pool = xp.get_default_memory_pool()
    return int(free + pool.free_bytes())


def pinned(n_bytes: int) -> np.ndarray:
    """Page-locked host memory, (n_bytes,) uint8: what the device reads at full rate, beside its work."""
    n_bytes = max(1, n_bytes)
    if xp is np:
        return np.empty(n_bytes, np.uint8)
    return np.frombuffer(xp.cuda.alloc_pinned_memory(n_bytes), np.uint8, n_bytes)


class CopyStream:
    """Copies from pinned memory that run beside the kernels."""

    def __init__(self) -> None:
        self._stream = None if xp is np else xp.cuda.Stream(non_blocking=True)

    def copy(self, host: np.ndarray, device: Any, after: Any) -> Any:
        """Start device <- host after the event `after`; returns an event that comes when the copy is done.

        Kernels that are launched from now on wait for it.
        """
        if self._stream is None:
            device[...] = host
            return None
        self._stream.wait_event(after)
        device.set(host, stream=self._stream)
        done = self._stream.record()
        xp.cuda.get_current_stream().wait_event(done)
        return done


def start_download(device: Any, host: np.ndarray) -> None:
    """Start host <- device after the kernels launched so far; `host` is pinned, and read after an `event`."""
    if xp is np:
        host[...] = device
    else:
        device.get(stream=xp.cuda.get_current_stream(), out=host, blocking=False)


def event() -> Any:
    """An event that comes when all kernels launched so far are done."""
    return None if xp is np else xp.cuda.get_current_stream().record()


def wait(event_: Any) -> None:
    """Wait on the host for an event."""
    if event_ is not None:
        event_.synchronize()


def is_positive_definite(matrix: Any) -> bool:
    """Whether a symmetric device matrix has a Cholesky factor."""
    try:
        if xp is np:
            np.linalg.cholesky(matrix)
        else:
            from cupyx import errstate

            with errstate(linalg="raise"):
                xp.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return False
    return True


def cublas() -> tuple[Any, int]:
    """CuPy's binding to cuBLAS and its handle, which works on the current stream."""
    from cupy_backends.cuda.libs import cublas as library

    return library, xp.cuda.device.get_cublas_handle()


def provider() -> str:
    """cuBLAS's version and the device: with others the same sums round differently."""
    if xp is np:
        return "the simulator's NumPy"
    name = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())["name"].decode()
    return f"cuBLAS {cublas_version()} on {name}"


def cublas_version() -> int:
    """10 000 major + 100 minor + patch."""
    library, handle = cublas()
    return int(library.getVersion(handle))


def capability() -> int:
    """Of the current device, ten times major + minor."""
    return int(xp.cuda.Device().compute_capability)


def out_of_memory() -> tuple[type[BaseException], ...]:
    """What an allocation raises that does not fit."""
    return (MemoryError,) if xp is np else (xp.cuda.memory.OutOfMemoryError,)


@contextlib.contextmanager
def device_errors():
    """Turn an allocation that does not fit into an error that names the way out."""
    try:
        yield
    except out_of_memory() as error:
        from ...errors import MemoryLimitError

        raise MemoryLimitError(
            f"The device ran out of memory: {error} Use backend='cpu', fewer components, or free device memory "
            "(cupy.get_default_memory_pool().free_all_blocks())."
        ) from error
