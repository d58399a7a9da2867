"""How chunks come to the device, on the simulator: dtypes and layouts, drift, overflow, residence, order of commits.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_streaming.py
Chunks are cut to a few lines, so that streaming, pipelining and residence have something to do.
"""

import dataclasses
import gc
import weakref

import numpy as np
import pytest

import lae_fast as lf
from lae_fast import backends
from lae_fast.data import sources
from lae_fast.errors import MemoryLimitError
from lae_fast.operators import rows
from lae_fast.operators.pilot import pilot_view
from tests.oracle import naive, simulator
from tests.oracle.simulated_rows import TALL, data
from tests.oracle.tolerances import tolerance

pytestmark = [simulator.only, pytest.mark.usefixtures("small_chunks")]

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays, panels, stream
    from lae_fast.backends.cuda.passes import chunks


@pytest.mark.parametrize("layout", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.bool_, np.float16, ">f4"])
def test_every_dtype_and_layout_streams(dtype, layout):
    X = simulator.layouts(data((23, 4), np.uint8, mean=20).astype(dtype))[layout]
    _, mean, scatter = naive.moments(X)
    moments = lf.Moments.from_data(X, backend="cuda")
    bound = tolerance("moment", np.float32) * np.sqrt(np.multiply.outer(scatter.diagonal(), scatter.diagonal()))
    assert (np.abs(moments.xx - scatter) <= bound + 1e-9).all()
    np.testing.assert_allclose(moments.mean, mean, rtol=1e-6)
    if np.dtype(dtype).itemsize == 1 and dtype is not np.bool_:
        np.testing.assert_allclose(moments.xx, scatter, rtol=1e-13, atol=1e-9)  # bytes are exact


@pytest.mark.parametrize("by_feature", [False, True])
def test_the_moments_of_targets_and_of_batches(by_feature):
    X, Y = data(), data((TALL[0], 2), seed=3)
    moments = lf.Moments.from_data(X, Y, backend="cuda")
    scatter = naive.cross_moments(X, Y)
    np.testing.assert_allclose(moments.xy, scatter, atol=tolerance("moment", np.float32) * np.abs(scatter).max() * 8)
    halves = lf.Moments.from_data(X[:9], backend="cuda").update(X[9:], backend="cuda")
    np.testing.assert_allclose(halves.xx, naive.moments(X)[2], rtol=2e-5, atol=2e-3)
    assert halves.run == 0  # lines this short are summed in float64


def test_a_drifting_mean_is_read_again_with_its_own_shift():
    X = data() + 1000.0 * np.arange(TALL[0], dtype=np.float32)[:, None] ** 2
    found = lf.Moments.from_data(X, backend="cuda").xx
    here = lf.Moments.from_data(X.astype(np.float64)).xx
    assert np.abs(found - here).max() <= 8 * tolerance("moment", np.float32) * np.abs(here).max()


def test_squares_that_overflow_float32_are_summed_in_float64():
    X = data(mean=0.0)
    X[20:] *= np.float32(1e25)
    found, wanted = lf.Moments.from_data(X, backend="cuda"), naive.moments(X.astype(np.float64))[2]
    assert np.isfinite(found.xx).all()
    assert np.abs(found.xx - wanted).max() <= 8 * tolerance("moment", np.float32) * np.abs(wanted).max()


def source_that_counts(X):
    class Counting(sources.ArraySource):
        reads = 0

        def block(self, first, last, by_feature):
            type(self).reads += 1
            return super().block(first, last, by_feature)

    return Counting(X)


def operator_on(source):
    return rows.RowsOperator(source, backend="cuda", block=2)


@pytest.mark.parametrize(("room", "chunks_per_pass"), [(1 << 20, 0), (0, 8), (384, 5)])
def test_chunks_stay_on_the_device_while_they_fit(monkeypatch, room, chunks_per_pass):
    """Half of what is free is taken: none of the eight chunks of 96 or 120 bytes, three of them, or all."""
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 2 * room)
    X, block = data(), np.eye(6, 2)
    source = source_that_counts(X)
    operator = operator_on(source)
    wanted = naive.apply_scatter(X, block)
    for attempt in range(3):
        before = source.reads
        image = operator.apply(block)
        assert np.abs(image / operator.scale**2 - wanted).max() <= 1e-5 * np.abs(wanted).max()
        if attempt:
            assert source.reads - before == chunks_per_pass


@pytest.mark.parametrize(
    ("on_device", "by_feature", "room", "loads"),
    [
        (True, False, 1 << 20, [4, 0, 0]),  # the first pass keeps all four chunks
        (True, False, 250, [4, 3, 3]),  # one fits
        (True, True, 1 << 20, [4, 4, 0]),  # it centres lines by other steps than the passes after it
        (False, False, 1 << 20, [8, 8, 0]),  # it keeps chunks as they were read
        (False, False, 250, [8, 8, 8]),  # where these do not all fit, nothing else stays
    ],
)
def test_passes_load_a_chunk_once_where_there_is_room(monkeypatch, on_device, by_feature, room, loads):
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 2 * room)
    X = data()[:, :6] if not by_feature else data()[:, :6].T
    found, fill = [], chunks.Loader._fill
    monkeypatch.setattr(chunks.Loader, "_fill", lambda self, *given: found.append(0) or fill(self, *given))
    source = sources.as_source(simulator.OnDevice(X) if on_device else X)
    operator = rows.RowsOperator(source, backend="cuda", block=2, by_feature=by_feature)
    operator._products = operator.dtype  # lines this short are float64's
    block, counts, images = np.eye(6 if not by_feature else X.shape[0], 2), [], []
    for _ in range(3):
        found.clear()
        images.append(operator.apply(block))
        counts.append(len(found))
    assert counts == loads
    np.testing.assert_array_equal(images[1], images[2])
    operator._products = np.dtype(np.float64)
    found.clear()
    np.testing.assert_allclose(operator.apply(block), images[2], rtol=1e-4, atol=1e-4 * np.abs(images[2]).max())
    assert len(found) == loads[0]  # of another dtype nothing stays
    home = weakref.ref(stream._residences[source])
    del operator, source
    gc.collect()
    assert home() is None


def test_a_pass_that_learns_again_reads_chunks_that_stay_loaded():
    view, _ = pilot_view(sources.as_source(simulator.OnDevice(data())), None, backend="cuda", block=2)
    passes, block = backends.get_backend("cuda").rows, np.eye(6, 2, dtype=np.float32)
    first, second = (passes.row_pass(view, block) for _ in range(2))
    np.testing.assert_array_equal(first.squares, second.squares)
    assert (second.squares > 0).all()


@pytest.mark.parametrize("room", [0, 300, 1 << 20])
def test_no_copy_starts_before_its_memory_is_free(monkeypatch, room):
    """Memory may have been another array's, which kernels in the device's queue still use: a copy waits for an event
    that follows the kernels of all chunks but the last, in whose time it runs."""
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", 2 * room)
    launched, copies = [0], []
    monkeypatch.setattr(arrays, "event", lambda: launched[0])
    monkeypatch.setattr(arrays, "wait", lambda event: None)

    class Copies(arrays.CopyStream):
        def copy(self, host, device, after):
            copies.append(after)
            return super().copy(host, device, after)

    monkeypatch.setattr(arrays, "CopyStream", Copies)
    view, _ = pilot_view(sources.as_source(data((61, 6))), None, backend="cuda")
    for _ in stream.chunks(view):
        launched[0] += 1
    assert len(copies) == view.n_chunks > 5
    assert all(after is not None and index - 1 <= after <= index for index, after in enumerate(copies))


def test_an_error_while_reading_ends_the_pass_and_its_threads():
    class Broken(sources.ArraySource):
        def block(self, first, last, by_feature):
            if first >= 16:
                raise OSError("disk gone")
            return super().block(first, last, by_feature)

    view, variance = pilot_view(sources.as_source(data()), None, backend="cuda")
    view = dataclasses.replace(view, source=Broken(data()))
    with pytest.raises(OSError, match="disk gone"):
        backends.get_backend("cuda").gram.float_gram(view, variance, lambda chunk: None)


def test_chunks_commit_in_order_and_ticks_count_them():
    seen, ticks = [], []
    view, variance = pilot_view(
        sources.as_source(data()), None, backend="cuda", tick=lambda done, total: ticks.append((done, total))
    )
    backends.get_backend("cuda").gram.float_gram(view, variance, lambda chunk: seen.append((chunk.first, chunk.count)))
    assert [first for first, _ in seen] == [view.piece(k).first for k in range(view.n_chunks)]
    assert sum(count for _, count in seen) == TALL[0]
    assert ticks == [(k + 1, view.n_chunks) for k in range(view.n_chunks)] and view.n_chunks > 3


def test_running_out_of_memory_says_what_to_do(monkeypatch):
    def none_left(*_, **__):
        raise MemoryError("out")

    monkeypatch.setattr(panels.arrays.xp, "empty", none_left)
    with pytest.raises(MemoryLimitError, match=r"device ran out of memory.*backend='cpu'"):
        panels.empty((3, 3), np.float32)


def test_chunks_that_cannot_stay_after_all_are_read_again(monkeypatch):
    """Something else has taken the memory that was free: what is optional gives way."""
    home, empty = stream.Residence(), arrays.xp.empty

    def none_left(*_):
        raise MemoryError("out")

    monkeypatch.setattr(arrays.xp, "empty", none_left)
    assert home.place((3, 3), np.dtype(np.float32)) is None
    monkeypatch.setattr(arrays.xp, "empty", empty)
    assert home.place((3, 3), np.dtype(np.float32)) is None  # and is not asked for again
