"""A stand-in for CuPy on host memory that is as strict as CuPy where NumPy in its place is not.

Its arrays are no NumPy arrays and do not mix with them; fresh memory is full of NaN; a copy between host and device is
done when an event that comes after it has been waited for, and not before: until then its destination is full of NaN,
and whoever changes its source is told.  `install` puts it in the place of the arrays of the CUDA backend.
"""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

FREE_BYTES = 1 << 27


class HostArrayError(TypeError):
    """A NumPy array where CuPy takes arrays of a device only."""


class InFlightError(RuntimeError):
    """Host memory was changed while a copy of it was under way."""


class Counts:
    """What the host has waited for since `clear`."""

    downloads = waits = 0

    def clear(self) -> None:
        self.downloads = self.waits = 0


counts = Counts()


def poisoned(array: np.ndarray) -> np.ndarray:
    """The array, contiguous, every byte 0xff: NaN in floating point, -1 or the largest in whole numbers."""
    array.reshape(-1).view(np.uint8)[...] = 0xFF
    return array


class _Pointer:
    def __init__(self, host: np.ndarray) -> None:
        self.ptr = host.__array_interface__["data"][0] if host.size else 0


class _Copy:
    """One that is under way: what was there when it began, where it goes, and the host memory it comes from, if any."""

    def __init__(self, source: np.ndarray, target: np.ndarray, host: np.ndarray | None = None) -> None:
        self.value, self.target, self.host = source.copy(), target, host
        self.delivered = self.settled = False
        target[...] = poisoned(np.empty(target.shape, target.dtype))

    def deliver(self) -> None:
        """What is launched from now on sees it."""
        if not self.delivered:
            self.target[...] = self.value
            self.delivered = True

    def settle(self) -> None:
        """The host knows that it is over."""
        self.deliver()
        if not self.settled and self.host is not None and self.host.tobytes() != self.value.tobytes():
            raise InFlightError("host memory was changed while it was copied to the device")
        self.settled = True


class Event:
    """Comes after all that was in its stream when it was recorded."""

    def __init__(self, copies: list[_Copy]) -> None:
        self.copies = copies

    def synchronize(self) -> None:
        counts.waits += 1
        for copy in self.copies:
            copy.settle()


class Stream:
    """A queue in which kernels are done at once, and copies when they must be."""

    ptr = 0

    def __init__(self, non_blocking: bool = False) -> None:
        self.copies: list[_Copy] = []

    def add(self, copy: _Copy) -> None:
        self.copies = [before for before in self.copies if not before.settled]
        if copy.host is not None and any(
            before.host is not None and np.may_share_memory(before.host, copy.host) for before in self.copies
        ):
            raise InFlightError("host memory is used again before a copy of it has been waited for")
        self.copies.append(copy)

    def record(self) -> Event:
        return Event([copy for copy in self.copies if not copy.settled])

    def wait_event(self, event: Event | None) -> None:
        for copy in event.copies if event is not None else ():
            copy.deliver()

    def synchronize(self) -> None:
        self.record().synchronize()


class ndarray(NDArrayOperatorsMixin):
    """A device array, whose memory `host` is on the host here."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray) -> None:
        self.host = host

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: self.host.flags)
    T = property(lambda self: ndarray(self.host.T))
    data = property(lambda self: _Pointer(self.host))
    device = property(lambda self: Device())

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        strides = None if self.flags.c_contiguous else self.strides
        return {
            "shape": self.shape, "typestr": self.dtype.str, "strides": strides, "version": 3, "stream": 1,
            "data": (self.data.ptr, False),
        }  # fmt: skip

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise HostArrayError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if out is not None:
            options["out"] = tuple(map(_host, out))
        found = getattr(ufunc, method)(*map(_host, inputs), **options)
        return ndarray(np.asarray(found)) if out is None else out[0]

    def __array_function__(self, function: Any, kinds: Any, arguments: Any, options: Any) -> Any:
        return _on_host(function)(*arguments, **options)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Iterator[ndarray]:
        return (ndarray(np.asarray(part)) for part in self.host)

    def __bool__(self) -> bool:
        return bool(self.host)

    def __float__(self) -> float:
        return float(self.host)

    def __int__(self) -> int:
        return int(self.host)

    def __getitem__(self, key: Any) -> ndarray:
        found = self.host[_key(key)]
        return ndarray(found if isinstance(found, np.ndarray) else np.asarray(found))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[_key(key)] = _host(value)

    def get(self, stream: Stream | None = None, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        if out is None or stream is None or blocking:
            return asnumpy(self)
        stream.add(_Copy(self.host, out))
        return out

    def set(self, host: np.ndarray, stream: Stream) -> None:
        stream.add(_Copy(host, self.host, host))

    def __getattr__(self, name: str) -> Any:
        if name not in ("reshape", "view", "astype", "sum", "diagonal", "copy", "all", "max", "fill", "transpose"):
            raise AttributeError(f"the stand-in for CuPy's arrays has no {name!r}")
        return _on_host(getattr(self.host, name))


def _host(value: Any) -> Any:
    """The memory of a device array; a number as it is.  CuPy takes NumPy's numbers, and no NumPy array."""
    if isinstance(value, ndarray):
        return value.host
    if isinstance(value, np.ndarray) and value.ndim > 0:
        raise HostArrayError(f"Unsupported type {type(value)}")
    return value


def _key(key: Any) -> Any:
    return tuple(map(_host, key)) if isinstance(key, tuple) else _host(key)


def _on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of NumPy for device arrays, whose results are device arrays."""

    @functools.wraps(function, updated=())
    def call(*arguments: Any, **options: Any) -> Any:
        found = function(*map(_host, arguments), **{name: _host(value) for name, value in options.items()})
        return tuple(map(ndarray, found)) if isinstance(found, tuple) else ndarray(np.asarray(found))

    return call


def asarray(given: Any, dtype: Any = None) -> ndarray:
    """As CuPy's: a copy of a NumPy array, and memory of another library as it is."""
    if isinstance(given, ndarray):
        return given if dtype in (None, given.dtype) else given.astype(dtype)
    if isinstance(given, np.ndarray):
        return ndarray(np.array(given, dtype))
    interface = {name: value for name, value in given.__cuda_array_interface__.items() if name != "stream"}
    return ndarray(np.asarray(types.SimpleNamespace(__array_interface__=interface, owner=given)))


def ascontiguousarray(given: ndarray, dtype: Any = None) -> ndarray:
    with np.errstate(all="ignore"):
        found = np.ascontiguousarray(_host(given), dtype)
    return given if found is given.host else ndarray(found)


def asnumpy(given: ndarray) -> np.ndarray:
    counts.downloads += 1
    return np.array(given.host, order="C")


def as_strided(given: ndarray, shape: Any, strides: Any) -> ndarray:
    return ndarray(np.lib.stride_tricks.as_strided(given.host, shape, strides))


class Device:
    """The only one there is."""

    id, compute_capability = 0, "90"

    def __init__(self, number: int = 0) -> None: ...

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    __hash__ = None  # type: ignore[assignment]


class OutOfMemoryError(MemoryError):
    """CuPy's name."""


def module(poisons: bool = True) -> types.ModuleType:
    """What stands for the module `cupy`: the part of it that this library uses.

    poisons : fill fresh memory, which takes time
    """
    found: Any = types.ModuleType("cupy")
    found.ndarray, found.asarray, found.asnumpy, found.ascontiguousarray = ndarray, asarray, asnumpy, ascontiguousarray
    fresh = poisoned if poisons else lambda array: array
    found.empty = lambda shape, dtype=float: ndarray(fresh(np.empty(shape, dtype)))
    found.empty_like = lambda like: found.empty(like.shape, like.dtype)
    for name in ("zeros", "ones", "arange", "zeros_like", "isfinite"):
        setattr(found, name, _on_host(getattr(np, name)))
    found.lib = types.SimpleNamespace(stride_tricks=types.SimpleNamespace(as_strided=as_strided))
    found.linalg = types.SimpleNamespace(eigh=_on_host(np.linalg.eigh), cholesky=_on_host(np.linalg.cholesky))
    found.get_default_memory_pool = lambda: types.SimpleNamespace(free_bytes=lambda: 0)
    current = Stream()
    runtime = types.SimpleNamespace(
        memGetInfo=lambda: (FREE_BYTES, FREE_BYTES), getDevice=lambda: 0, getDeviceCount=lambda: 1,
        getDeviceProperties=lambda number: {"name": b"stand-in"},
    )  # fmt: skip
    found.cuda = types.SimpleNamespace(
        Stream=Stream, Device=Device, runtime=runtime, get_current_stream=lambda: current,
        alloc_pinned_memory=lambda n_bytes: bytearray(b"\xff" * n_bytes),
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        device=types.SimpleNamespace(get_cublas_handle=lambda: 7),
    )  # fmt: skip
    return found


@contextlib.contextmanager
def install(cublas: Any, poisons: bool = True) -> Iterator[Any]:
    """The CUDA backend with these arrays and this cuBLAS; gives the module that stands for CuPy."""
    from lae_fast.backends.cuda import arrays, target

    cupy = module(poisons)
    before = arrays.xp, arrays.cublas, arrays.is_positive_definite, target.view
    arrays.xp, arrays.cublas = cupy, lambda: (cublas, 7)
    arrays.is_positive_definite = _is_positive_definite
    if target.SIMULATED:  # its kernels take NumPy arrays
        target.view = _host
    try:
        yield cupy
    finally:
        arrays.xp, arrays.cublas, arrays.is_positive_definite, target.view = before


def _is_positive_definite(matrix: ndarray) -> bool:
    """`cupyx`, which has the switch for errors of Cholesky, has no stand-in."""
    try:
        np.linalg.cholesky(matrix.host)
    except np.linalg.LinAlgError:
        return False
    return True
