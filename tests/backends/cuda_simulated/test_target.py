"""The CUDA backend asked for and absent, its probe, and the simulator's switch; docs/cuda.md.  None needs a device."""

import importlib
import importlib.machinery
import json
import os
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import backends, plan
from lae_fast.backends.cuda import target
from tests.oracle import simulator

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def fresh_probe():
    target.probe.cache_clear()
    yield
    target.probe.cache_clear()


def fake_cupy(monkeypatch, **runtime):
    """A module that stands where CuPy would, with functions of its CUDA runtime."""
    module = types.ModuleType("cupy")
    module.__spec__ = importlib.machinery.ModuleSpec("cupy", None)
    module.cuda = types.SimpleNamespace(runtime=types.SimpleNamespace(**runtime))
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def working_cupy(monkeypatch):
    """One whose probe succeeds, on host memory; the kernel is run by hand."""
    device = types.SimpleNamespace(getDeviceCount=lambda: 1, getDeviceProperties=lambda number: {"name": b"a card"})
    module = fake_cupy(monkeypatch)
    module.cuda.runtime, module.cuda.Device = device, lambda: types.SimpleNamespace(id=0)
    module.zeros, module.asarray, module.asnumpy = np.zeros, np.asarray, np.asarray
    monkeypatch.setattr(target.Kernel, "launch", lambda kernel, grid, block, out: out.fill(1.0))
    return module


def raises(error):
    def function(*_):
        raise error

    return function


def in_process(code, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return json.loads(run.stdout)


@pytest.mark.skipif(target.SIMULATED, reason="the simulator is always there")
def test_without_cupy_the_reason_names_the_extra(fresh_probe, monkeypatch):
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda name: None)
    found = backends.probe_cuda()
    assert not found["available"]
    assert "CuPy is not installed" in found["reason"] and "lae-fast[cuda13]" in found["reason"]
    with pytest.raises(lf.BackendUnavailableError, match=r"backend='cuda' cannot run: CuPy is not .*Use backend='cpu'"):
        backends.resolve("cuda")
    assert backends.resolve("auto") == backends.resolve("cpu") == "cpu"


@pytest.mark.skipif(target.SIMULATED, reason="the simulator is always there")
@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ({"getDeviceCount": lambda: 0}, "no CUDA device is visible"),
        ({"getDeviceCount": raises(RuntimeError("cudaErrorInsufficientDriver:\n too old"))}, "InsufficientDriver: too"),
        ({"getDeviceCount": raises(ImportError("libcudart.so"))}, "a test kernel did not run.*libcudart"),
    ],
)
def test_a_driver_that_fails_is_a_reason_not_a_crash(fresh_probe, monkeypatch, runtime, message):
    fake_cupy(monkeypatch, **runtime)
    with pytest.raises(lf.BackendUnavailableError, match=message):
        lf.PCA(2, backend="cuda").fit(np.eye(5))


@pytest.mark.skipif(target.SIMULATED, reason="the simulator is always there")
def test_whatever_fails_in_the_probe_is_the_reason(fresh_probe, monkeypatch):
    """As numba-cuda does with a NumPy that has no row_stack; a fit that may choose takes the CPU."""
    monkeypatch.setattr(plan, "DEVICE_FLOPS", 0.0)
    working_cupy(monkeypatch)
    assert target.probe() == (True, f"a card; {target.found()}")
    target.probe.cache_clear()
    monkeypatch.setattr(target.Kernel, "launch", raises(AttributeError("module 'numpy' has no attribute 'row_stack'")))
    assert lf.PCA(2).fit(np.eye(5)).backend_ == "cpu"
    with pytest.raises(lf.BackendUnavailableError, match=r"a test kernel did not run.*no attribute 'row_stack'"):
        lf.PCA(2, backend="cuda").fit(np.eye(5))


class WithoutCublas(np.ndarray):
    """An array of a CuPy whose cuBLAS is not installed."""

    def __matmul__(self, other):
        raise ImportError("libcublas.so.13: cannot open shared object file")


class WithoutNvrtc(np.ndarray):
    """An array of a CuPy that cannot compile its own kernels."""

    def __add__(self, other):
        raise ValueError("NVRTC: cannot open cuda_fp16.h")


@pytest.mark.skipif(target.SIMULATED, reason="the simulator is always there")
@pytest.mark.parametrize(("kind", "message"), [(WithoutCublas, "libcublas.so.13"), (WithoutNvrtc, "cuda_fp16.h")])
def test_the_probe_multiplies_and_adds(fresh_probe, monkeypatch, kind, message):
    working_cupy(monkeypatch).asarray = lambda few: few.view(kind)
    found = backends.probe_cuda()
    assert not found["available"] and message in found["reason"]


@pytest.mark.parametrize("name", [(module, error) for module, errors in target._ERRORS.items() for error in errors])
def test_errors_of_the_libraries_are_failures(monkeypatch, name):
    """CUDA's own packages and CuPy have errors that are no RuntimeError; where they are installed they are there."""
    module, error = name
    package, _, _ = module.partition(".")
    if package != "cupy" and not target.SIMULATED:
        try:
            found = importlib.import_module(module)
        except ImportError:
            found = None
        if found is not None:
            assert getattr(found, error) in target.failures()
            return
    stand_in = types.ModuleType(module)
    setattr(stand_in, error, type(error, (Exception,), {}))
    monkeypatch.setitem(sys.modules, module, stand_in)
    assert getattr(stand_in, error) in target.failures()


@pytest.mark.parametrize("toolkit", ["12", "13"])
def test_the_extras_bring_what_fits_need(toolkit):
    """cuBLAS and cuSOLVER beside the compilers, and a NumPy that they know."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {line.partition(">")[0] for line in extras[f"cuda{toolkit}"]}
    assert names == {f"numba-cuda[cu{toolkit}]", f"cupy-cuda{toolkit}x[ctk]", "numpy<2.5"}


def test_a_numba_without_a_cuda_target_is_a_reason(fresh_probe, monkeypatch):
    monkeypatch.setattr(target, "cuda", None)
    monkeypatch.setattr(target, "_missing", "No module named 'numba.cuda'")
    assert "this Numba has no CUDA target (No module named" in backends.probe_cuda()["reason"]


@pytest.mark.skipif(target.SIMULATED, reason="the simulator reads it")
def test_device_data_without_cupy_cannot_be_read(fresh_probe, monkeypatch):
    monkeypatch.setattr(target.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(lf.BackendUnavailableError, match=r"lies on a CUDA device.*CuPy is not.*Copy it to the host"):
        lf.PCA(2).fit(simulator.OnDevice(np.eye(5)))


def test_kernels_run_on_the_current_stream_of_cupy(monkeypatch):
    streams = []
    current = types.SimpleNamespace(ptr=0)
    module = fake_cupy(monkeypatch, getDevice=lambda: 0)
    module.cuda.get_current_stream = lambda: current
    monkeypatch.setattr(target, "SIMULATED", False)
    fake_cuda = types.SimpleNamespace(external_stream=lambda pointer: f"stream {pointer}")
    monkeypatch.setattr(target, "cuda", fake_cuda)

    settings = types.SimpleNamespace(CUDA_LOW_OCCUPANCY_WARNINGS=1)
    monkeypatch.setattr(sys.modules[__name__], "config", settings, raising=False)

    class Dispatcher:
        def __getitem__(self, configuration):
            streams.append(configuration)
            assert not settings.CUDA_LOW_OCCUPANCY_WARNINGS  # small data are no fault of the user's
            return lambda *arguments: None

    kernel = target.Kernel(lambda out: None)
    kernel.dispatcher = Dispatcher()
    kernel.launch((3,), (32,), 1.0)
    current.ptr = 7
    kernel.launch((3,), (32,), 1.0)
    assert streams == [((3,), (32,)), ((3,), (32,), "stream 7")] and settings.CUDA_LOW_OCCUPANCY_WARNINGS == 1
    run = kernel.prepared((3,), (32,), 1.0)
    for pointer, given in ((7, 0), (7, 0), (9, 0), (7, 9), (0, 0), (9, 7), (0, 0)):
        current.ptr = pointer
        run(given)
    assert streams[2:] == [((3,), (32,), "stream 7"), ((3,), (32,), "stream 9"), ((3,), (32,))]  # once for each


def test_backend_info_says_what_was_probed():
    assert lf.backend_info()["cuda"] == backends.probe_cuda()


def test_a_fit_on_the_cpu_loads_no_cuda_target():
    loaded = in_process(
        "import json, sys, numpy, lae_fast\nfrom lae_fast import backends, plan\nplan.DEVICE_FLOPS = 0\n"
        "lae_fast.PCA(2).fit_transform(numpy.eye(5))\n"
        "print(json.dumps([m for m in sys.modules if m.startswith('numba.cuda') or m == 'cupy']))"
    )
    assert loaded == []


def test_the_simulator_counts_as_cuda_when_asked_for_and_never_by_itself():
    found = in_process(
        "import json\nfrom lae_fast import backends\n"
        "print(json.dumps([backends.resolve('cuda'), backends.resolve('auto'), backends.probe_cuda()['reason']]))",
        NUMBA_ENABLE_CUDASIM="1",
    )
    assert found[:2] == ["cuda", "cpu"] and "simulated" in found[2]


def test_what_has_no_cuda_code_says_so():
    code = (
        "import json, numpy, lae_fast as lf\nmodel = lf.LinearAutoencoder(2, rule='alternating', backend='cuda')\n"
        "try:\n    model.fit(numpy.eye(5))\n"
        "except lf.UnsupportedOnBackendError as error:\n    print(json.dumps(str(error)))"
    )
    assert "rule='alternating' has no CUDA code yet" in in_process(code, NUMBA_ENABLE_CUDASIM="1")
