"""The CUDA target of Numba, and whether it runs here.  The only file that imports it; loaded when CUDA is asked about.

The target is `numba.cuda`, whichever provides it: the package numba-cuda where it is installed, else Numba's own.
Under NUMBA_ENABLE_CUDASIM=1 Numba interprets kernels on the CPU, one Python thread per CUDA thread: that is for tests,
at toy sizes, and `backend="auto"` never picks it.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import importlib.metadata
import importlib.util
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numba.core import config

from ...errors import BackendUnavailableError
from .. import kernel_cache
from . import packed

try:
    from numba import cuda as cuda  # kernels take it from here

    _missing = ""
except Exception as error:  # a Numba without its CUDA target, or a target that other packages have broken
    cuda, _missing = None, str(error)

SIMULATED = bool(config.ENABLE_CUDASIM)


def _steady_simulator() -> None:
    """Give the simulator's threads one shared array where Numba's look-up may give two of them one each.

    It looks for the array of a source line and makes it without a lock, so a thread's share of a sum was lost now and
    then.
    """
    from numba.core import types
    from numba.cuda.simulator import kernelapi
    from numba.np import numpy_support

    lock = threading.Lock()

    def array(self: Any, shape: Any, dtype: Any) -> np.ndarray:
        caller = sys._getframe(1)
        line = (caller.f_code.co_filename, caller.f_lineno)
        kind = numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else dtype
        with lock:
            if line not in self._allocations:
                self._allocations[line] = np.empty(shape, kind)
            return self._allocations[line]

    kernelapi.FakeCUDAShared.array = array


if SIMULATED and cuda is not None:
    _steady_simulator()


class Probe(NamedTuple):
    """available : kernels compile and run;  reason : what runs them, or why they do not."""

    available: bool
    reason: str


class Kernel:
    """A function that becomes a CUDA kernel when it is first launched: decorating it must need no driver.

    No fast-math: division and square root are rounded correctly and subnormals kept; products and sums contract to FMA.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        functools.update_wrapper(self, function)  # type: ignore[arg-type]  # it only sets attributes, and we call `launch`
        self.function = function
        self._here = threading.local()

    @functools.cached_property
    def dispatcher(self) -> Any:
        dispatcher = cuda.jit(self.function)
        if not SIMULATED and cache_directory() is not None:
            dispatcher._cache = _house_cache()(self.function)
        return dispatcher

    def launch(self, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
        """Run on CuPy's current stream, where its own work and cuBLAS's is."""
        self.prepared(grid, block, *arguments)()

    def prepared(self, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> Callable[..., None]:
        """`launch` with these arguments, to be repeated; they must live as long as it does.

        It takes the address of a stream; 0 is CuPy's current one.  Arguments are packed once.  The first launch of a
        thread, on a device and a stream, is Numba's, which compiles and binds; the others go to the driver at once.
        """
        values = None if SIMULATED else packed.packed(arguments)
        kinds = None if values is None else packed.kinds(arguments)
        configured: dict[int, Callable[..., None]] = {}

        def run(stream: int = 0) -> None:
            pointer = stream or _current_stream()
            direct, place = self._direct(), None if values is None else (_current_device(), pointer, kinds)
            if (found := direct.get(place)) is not None:
                kernel, core_stream = found
                _core().launch(core_stream, _launch_config(grid, block), kernel, *(values or ()))
                return
            if pointer not in configured:
                configured[pointer] = self._configured(grid, block, pointer)
            views = tuple(view(argument) for argument in arguments)
            configured[pointer](*views)
            if values is not None and place not in direct:
                kernel = self._compiled(values, views)
                direct[place] = None if kernel is None else (kernel, getattr(configured[pointer], "stream", None))

        return run

    def _direct(self) -> dict[Any, tuple[Any, Any] | None]:
        """By device, stream's address and kinds of arguments: what this thread has launched, kernels and streams of
        cuda.core; None for what Numba must launch."""
        if not hasattr(self._here, "direct"):
            self._here.direct = {}
        return self._here.direct

    def _compiled(self, values: list[Any], views: tuple[Any, ...]) -> Any:
        """The kernel for these arguments, which has run, for cuda.core; None where Numba would pack them otherwise."""
        overloads = getattr(self.dispatcher, "overloads", None)
        if overloads is None or _core() is None:
            return None
        kernel = overloads.get(tuple(map(self.dispatcher.typeof_pyval, views)))
        if kernel is None or not packed.same_as_numba(values, kernel, views):
            return None
        return kernel._codelibrary.get_cufunc().kernel

    def _configured(self, grid: tuple[int, ...], block: tuple[int, ...], pointer: int) -> Callable[..., None]:
        stream = (cuda.external_stream(pointer),) if pointer else ()  # the default one is Numba's as well
        with _quiet(self.dispatcher):
            found = self.dispatcher[(grid, block, *stream)]
        return copy.copy(found) if SIMULATED else found  # there it is the dispatcher itself, with these shapes


@functools.cache
def _core() -> Any:
    """cuda.core, which numba-cuda brings; None with an older one."""
    try:
        core = importlib.import_module("cuda.core")
    except ImportError:
        return None
    return core if hasattr(core, "launch") else None


@functools.lru_cache(1024)
def _launch_config(grid: tuple[int, ...], block: tuple[int, ...]) -> Any:
    return _core().LaunchConfig(grid=grid, block=block)


def source_files() -> list[pathlib.Path]:
    """The files that kernels come from; a test checks that none is missing."""
    backends = kernel_cache.PACKAGE / "backends"
    shared = [backends / f"{name}.py" for name in ("formulas", "kernel_cache")]
    return sorted([*(backends / "cuda").rglob("*.py"), *shared])


@functools.cache
def source_digest() -> str:
    """What the cache directory is named after."""
    versions = []
    for package in ("numba", "numba-cuda", "nvidia-nvvm", "nvidia-cuda-nvcc-cu12"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    return kernel_cache.digest(source_files(), " ".join(versions))


@functools.cache
def cache_directory() -> pathlib.Path | None:
    """Directory of the compile cache, or None where caching is off or no directory can be written."""
    return kernel_cache.directory(f"cuda-{source_digest()}")


@functools.cache
def _house_cache() -> Any:
    """Cards of another generation, and other toolkits, have entries of their own in it: Numba's key has both."""
    dispatcher = sys.modules[cuda.dispatcher.CUDADispatcher.__module__]
    impl = dispatcher.CUDACacheImpl
    locator = sys.modules[impl.__mro__[1].__module__]._CacheLocator
    return kernel_cache.house_cache(dispatcher.CUDACache, impl, locator, cache_directory, source_digest)


_quiet_lock = threading.Lock()


@contextlib.contextmanager
def _quiet(dispatcher: Any) -> Iterator[None]:
    """Without Numba's warning of grids that leave a card idle: data may be small, and users cannot change the grid."""
    settings: Any = getattr(sys.modules[type(dispatcher).__module__], "config", None)
    if not getattr(settings, "CUDA_LOW_OCCUPANCY_WARNINGS", 0):
        yield
        return
    with _quiet_lock:
        before, settings.CUDA_LOW_OCCUPANCY_WARNINGS = settings.CUDA_LOW_OCCUPANCY_WARNINGS, 0
        try:
            yield
        finally:
            settings.CUDA_LOW_OCCUPANCY_WARNINGS = before


def _current_stream() -> int:
    """The address of CuPy's current stream; 0 is the default one."""
    cupy = None if SIMULATED else sys.modules.get("cupy")
    return 0 if cupy is None else cupy.cuda.get_current_stream().ptr


def _current_device() -> int:
    """The number of CuPy's current device."""
    cupy = sys.modules.get("cupy")
    return 0 if cupy is None else cupy.cuda.runtime.getDevice()


def device(function: Callable[..., Any]) -> Any:
    """A function for kernels to call; formulas.py has some.

    The simulator knows which thread calls by a module that it puts in the place of `cuda`, for the kernel's own file
    only; so the file of a function that needs it is given it too.  There it stays: such a function that kernels of
    other files call stands in a file without kernels, as reduce.py is.
    """
    if cuda is None:
        return function
    if not SIMULATED:
        return cuda.jit(device=True)(function)
    if "cuda" not in function.__code__.co_names:
        return function
    from numba.cuda.simulator import kernel as simulated

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        function.__globals__["cuda"] = simulated._get_kernel_context()
        return function(*arguments)

    return call


def view(argument: Any) -> Any:
    """A CuPy array as Numba's, without the wait for its stream that Numba would add; anything else as it is."""
    interface = None if SIMULATED else getattr(argument, "__cuda_array_interface__", None)
    if interface is None:
        return argument
    return cuda.from_cuda_array_interface(interface, owner=argument, sync=False)


@functools.cache
def probe() -> Probe:
    """Compile a kernel and run it."""
    if cuda is None:
        return Probe(False, f"this Numba has no CUDA target ({_missing}); {_install()}")
    if SIMULATED:
        return Probe(True, "simulated on the CPU by Numba (NUMBA_ENABLE_CUDASIM), for tests")
    if importlib.util.find_spec("cupy") is None:
        return Probe(False, f"CuPy is not installed ({found()}), and CUDA needs it; {_install()}")
    try:
        return _tried()
    except Exception as error:  # whatever fails here is the reason why CUDA is not used
        text = " ".join(str(error).split()) or type(error).__name__
        return Probe(False, f"a test kernel did not run ({found()}): {text}")


def _tried() -> Probe:
    """What fits need of each library, in small: a kernel of ours, one of CuPy's, cuBLAS."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() == 0:
        return Probe(False, f"no CUDA device is visible ({found()}).")
    out = cupy.zeros(4, np.float32)
    Kernel(_write_one).launch((1,), (4,), out)
    if not (cupy.asnumpy(out) == 1.0).all():
        return Probe(False, f"a test kernel ran and returned wrong numbers ({found()}).")
    few = cupy.asarray(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
    if not (cupy.asnumpy(few @ few + few) == np.array([[8.0, 12.0], [18.0, 26.0]])).all():
        return Probe(False, f"a small product of matrices ran and returned wrong numbers ({found()}).")
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    return Probe(True, f"{name}; {found()}")


# Where the libraries keep errors of their own that are no RuntimeError.
_ERRORS = {
    "numba.cuda.cudadrv.error": ("CudaDriverError", "CudaRuntimeError", "NvvmError", "NvrtcError"),
    "cuda.core._utils.cuda_utils": ("CUDAError", "NVRTCError"),
    "cuda.bindings.nvvm": ("nvvmError",),
    "cuda.bindings.nvjitlink": ("nvJitLinkError",),
    "cupy.cuda.compiler": ("CompileException",),
}


def failures() -> tuple[type[Exception], ...]:
    """Every error that the libraries have for a driver, device or toolkit that fails or is missing."""
    kinds: list[type[Exception]] = [ImportError, OSError, RuntimeError]
    for name, errors in _ERRORS.items():
        module = sys.modules.get(name)  # one that is not loaded has raised nothing
        kinds += [getattr(module, error) for error in errors if hasattr(module, error)]
    return tuple(kinds)


def found() -> str:
    """The packages of the CUDA stack that are here, for messages."""
    names = ("cupy", "numba_cuda")
    here = [name for name in names if importlib.util.find_spec(name) is not None]
    return f"found: {', '.join(here) or 'none'} of {', '.join(names)}"


def require(
    what: str = "backend='cuda' cannot run", way_out: str = "Use backend='cpu', or 'auto' to take what there is."
) -> None:
    """Raise BackendUnavailableError, with what cannot be done and what to do instead, where kernels do not run."""
    available, reason = probe()
    if not available:
        raise BackendUnavailableError(f"{what}: {reason} {way_out}")


def _install() -> str:
    return "install lae-fast[cuda12] or lae-fast[cuda13], whichever the driver supports."


def _write_one(out) -> None:
    """out <- 1: the probe's kernel."""
    i = cuda.grid(1)
    if i < out.shape[0]:
        out[i] = 1.0
