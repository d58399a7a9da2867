"""Capturing a graph, against a stand-in for CuPy's streams: what is called in what order, also when it fails."""

from types import SimpleNamespace

import pytest

from lae_fast.backends.cuda import arrays
from lae_fast.backends.cuda.training import graphs


class Stream:
    """A stream that remembers; ending a capture that has failed is an error, as it is with CUDA."""

    def __init__(self, runtime):
        self.runtime, self.ptr = runtime, 9

    def __enter__(self):
        self.runtime.current = self
        return self

    def __exit__(self, *_):
        self.runtime.current = self.runtime.default

    def begin_capture(self):
        self.runtime.log.append("begin")

    def end_capture(self):
        self.runtime.log.append("end")
        if self.runtime.invalid:
            raise RuntimeError("cudaErrorStreamCaptureInvalidated")
        return SimpleNamespace(launch=lambda: self.runtime.log.append("launch"))


@pytest.fixture
def runtime(monkeypatch):
    found = SimpleNamespace(log=[], invalid=False, default=SimpleNamespace(ptr=4))
    found.current = found.default
    cuda = SimpleNamespace(Stream=lambda non_blocking: Stream(found), get_current_stream=lambda: found.current)
    monkeypatch.setattr(arrays, "xp", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(arrays, "cublas", lambda: (None, 77))
    symbols = SimpleNamespace(cublasSetStream_v2=lambda handle, stream: found.log.append((handle, stream)))

    def library():
        found.log.append("library")
        return symbols

    monkeypatch.setattr(graphs, "_library", library)
    return found


def test_cublas_is_found_before_the_capture_and_has_its_stream_back_after(runtime):
    launch = graphs.capture([runtime.log.append, runtime.log.append])
    assert runtime.log == ["library", "begin", 9, 9, "end", (77, 4)]
    launch()
    assert runtime.log[-1] == "launch"


@pytest.mark.parametrize("error", [RuntimeError("this refuses"), KeyboardInterrupt()], ids=repr)
def test_a_failure_is_the_one_that_is_raised_and_the_capture_is_over(runtime, error):
    def fail(_):
        runtime.invalid = True
        raise error

    with pytest.raises(type(error)) as raised:
        graphs.capture([runtime.log.append, fail])
    assert raised.value is error
    assert runtime.log == ["library", "begin", 9, "end", (77, 4)] and runtime.current is runtime.default


def test_a_library_that_is_missing_is_known_before_the_capture(runtime, monkeypatch):
    def missing():
        raise OSError("libcublas.so.12: cannot open shared object file")

    monkeypatch.setattr(graphs, "_library", missing)
    with pytest.raises(graphs.failures(), match="libcublas"):
        graphs.capture([])
    assert runtime.log == []
