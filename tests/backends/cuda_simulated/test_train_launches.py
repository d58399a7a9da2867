"""What training on the CUDA backend launches, copies and holds, and what is left of it when it is cut short.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_train_launches.py
"""

import gc

import numpy as np
import pytest

from lae_fast import losses, rules
from lae_fast.data import sources
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader
from tests.oracle import loop_cases as cases
from tests.oracle import simulator
from tests.oracle.simulated_cases import PRIOR, D, P, Q, data, device_loop, start

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import arrays, stream
    from lae_fast.backends.cuda.training import graphs
    from lae_fast.backends.cuda.training.iteration import Launch
    from lae_fast.training.cuda_loop import CudaLoopEngine


@pytest.mark.parametrize("case", ["eigengame", "targets"])
def test_ctrl_c_between_two_launches_leaves_what_the_call_before_did(case):
    x, y = data(q=Q if case == "targets" else 0)
    a, b = start(Q if case == "targets" else D)
    rule, loss = ("gradient", losses.ordered()) if case == "targets" else ("alpha_eigengame", None)
    loop = device_loop(x, y, a, b, cases.make_plan(rule, loss, "adam"))
    loop.advance(0, 3, False)
    before = loop.snapshot()
    launches = loop.loop._lists[False]

    def interrupt(_):
        raise KeyboardInterrupt

    for k in range(1, len(launches) + 1):
        loop.loop._lists[False] = [*launches[:k], Launch("Ctrl-C", interrupt, 0), *launches[k:]]
        with pytest.raises(KeyboardInterrupt):
            loop.advance(3, 2, False)
        for found, wanted in zip(loop.snapshot(), before):
            np.testing.assert_array_equal(found, wanted)
    loop.loop._lists[False] = launches
    whole = device_loop(x, y, a, b, cases.make_plan(rule, loss, "adam"))
    whole.advance(0, 5, False)
    loop.advance(3, 2, False)
    np.testing.assert_array_equal(loop.encoder, whole.encoder)  # and goes on as if nothing had been


@pytest.mark.parametrize("with_targets", [False, True])
def test_rows_lie_on_the_device_once(with_targets, monkeypatch):
    """What the passes of `from_rows` kept there is given up, and the copy goes there in pieces."""
    x, y = data(q=Q if with_targets else 0)
    x = np.asfortranarray(x).astype(">f8")
    given = [part for part in (x, y) if part is not None]
    size = sum(part.nbytes for part in given)
    monkeypatch.setattr(arrays, "SIMULATED_BYTES", int(2.5 * size))
    targets = None if y is None else sources.as_source(y, "Y")
    described = problem.from_rows(sources.as_source(x), targets, None, "mean", "cuda")

    def resident():
        return sum(chunk.flat.nbytes for home in stream._residences.values() for chunk in home.chunks.values())

    gc.collect()
    assert resident() == size  # of other tests' data nothing is left
    reader = BatchReader(described, 5, np.random.default_rng(3))
    pieces, upload = [], arrays.upload
    monkeypatch.setattr(arrays, "_PIECE_BYTES", 3 * D * 8)
    monkeypatch.setattr(arrays, "upload", lambda a, *rest: pieces.append(a.shape) or upload(a, *rest))
    a, b = start(Q if with_targets else D)
    loop = CudaLoopEngine(described, cases.make_plan(loss=losses.ordered()), b, a.T.copy(), reader)
    assert [shape[0] for shape in pieces if shape[1:] == (D,)][-5:] == [3, 3, 3, 3, 2]
    assert resident() == 0 and sum(chunk.flat.nbytes for chunk in loop._held) == size
    for chunk, part in zip(loop._held, given):
        np.testing.assert_array_equal(chunk.flat.reshape(part.shape), part)


def test_a_failed_capture_warns_once_and_launches_go_on(monkeypatch):
    x, _ = data(np.float32)
    a, b = start()
    plan = cases.make_plan(loss=losses.ordered(), optimizer="adam")
    whole, there = device_loop(x, None, a, b, plan), device_loop(x, None, a, b, plan)
    whole.advance(0, 8, False)
    monkeypatch.setenv("LAE_FAST_CUDA_GRAPHS", "1")

    def refuse(_):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(graphs, "capture", refuse)
    with pytest.warns(RuntimeWarning, match="not permitted.*one by one.*unset LAE_FAST_CUDA_GRAPHS") as seen:
        for t in (0, 4):
            there.advance(t, 4, False)
    assert len(seen) == 1
    assert there.encoder.tobytes() == whole.encoder.tobytes()


NAMES = {
    "rag": ["(A', B) S", "A'A, G", "coefficients", "Q3 A', P1 Z", "P3 B", "step A, B", "decide"],
    "product": ["(A', B) S", "A'A, G", "B B'", "coefficients", "Q3 A', P1 Z", "P3 B", "step A, B", "decide"],
    "tied": ["B S", "A'A, G", "coefficients", "Q3 A'", "step A", "decide"],
    "synchronised": ["(A', B) S", "A'A, G", "coefficients", "Q3 A', P1 Z", "couple", "step B", "decide"],
    "sequential": [
        "A' S", "A'A, G", "coefficients", "P1 Z", "step B", "B S", "G", "coefficients", "Q3 A'", "step A", "decide",
    ],
    "targets": [
        "B S", "A' Syx", "B Sxy", "A'A", "G", "coefficients", "P1 Z", "Q3 A'", "step B", "step A", "decide",
    ],
}  # fmt: skip


def names(loop, with_loss=False):
    return [one.name for one in loop.loop.launches(with_loss)]


def test_the_launches_of_an_iteration():
    """The plan that docs/cuda.md prints: an ordered iteration launches what an MSE iteration does."""
    x, y = data(np.float32, q=Q)
    a, b = start()
    loops = {
        name: device_loop(x, None, a, b, cases.make_plan("gradient", loss, "adam"))
        for name, loss in (("mse", losses.mse()), ("ordered", losses.ordered()), ("product", losses.product_l2(0.1)))
    }
    wanted = ["(A', B) S", "A'A, G", "coefficients", "Q3 A', P1 Z", "step A, B", "decide"]
    assert names(loops["mse"]) == names(loops["ordered"]) == names(loops["ordered"], True) == wanted
    for with_loss in (False, True):
        mse, ordered = ([one.n_bytes for one in loops[name].loop.launches(with_loss)] for name in ("mse", "ordered"))
        assert mse == ordered
    for rule, loss, expected in (
        ("gha", None, (6, 7)), ("oja", None, (6, 7)), ("mu_eigengame", None, (7, 8)),
        ("alpha_eigengame", None, (7, 8)), ("gradient", losses.vae(), (6, 6)),
    ):  # fmt: skip
        loop = device_loop(x, None, a, b, cases.make_plan(rule, loss, "adam"))
        assert (len(names(loop)), len(names(loop, True))) == expected, rule
    loops["rag"] = device_loop(x, None, a, b, cases.make_plan("rag", losses.mse(), "adam"))
    for coupling in ("tied", "synchronised"):
        loops[coupling] = device_loop(x, None, a, b, cases.make_plan(loss=losses.ordered(), coupling=coupling))
    sequential = cases.make_plan(rules.gradient(sequential=True), losses.ordered())
    loops["sequential"] = device_loop(x, None, a, b, sequential)
    a, b = start(Q)
    loops["targets"] = device_loop(x, y, a, b, cases.make_plan(loss=losses.ordered()))
    for name, expected in NAMES.items():
        assert names(loops[name]) == names(loops[name], True) == expected, name


def test_the_bytes_of_a_fused_step():
    """dense, Z, W and the states are read, W and the states written: adam moves 8 matrices, sgd 4; for A' and B."""
    x, _ = data(np.float32)
    a, b = start()
    for optimizer, matrices in (("sgd", 4), ("momentum", 6), ("nesterov", 6), ("adam", 8)):
        loop = device_loop(x, None, a, b, cases.make_plan(loss=losses.ordered(), optimizer=optimizer))
        step = next(one for one in loop.loop.launches(False) if one.name == "step A, B")
        assert step.n_bytes == matrices * 2 * P * D * 4


def test_a_mini_batch_launches_eight_times():
    x, y = data(q=Q)
    drawn = losses.stochastic_nested_dropout(PRIOR)
    for targets, loss, expected in (
        (None, losses.ordered(), 8),
        (y, losses.ordered(), 15),
        (None, drawn, 12),
    ):
        described = problem.from_rows(
            sources.as_source(x), None if targets is None else sources.as_source(targets, "Y"), None, "mean"
        )
        a, b = start(Q if targets is not None else D)
        reader = BatchReader(described, 5, np.random.default_rng(3))
        loop = CudaLoopEngine(described, cases.make_plan(loss=loss), b, a.T.copy(), reader, np.random.default_rng(0))
        loop.advance(0, 1, False)
        assert len(loop.loop.launches(False)) == expected


def test_a_call_copies_nothing_but_its_schedule_and_reads_the_device_once(monkeypatch):
    """No host synchronisation between recordings."""
    x, _ = data()
    a, b = start()
    loop = device_loop(x, None, a, b, cases.make_plan(loss=losses.ordered()))
    read, sent = [], []
    download, upload = arrays.download, arrays.upload
    monkeypatch.setattr(arrays, "download", lambda array: read.append(array.size) or download(array))
    monkeypatch.setattr(arrays, "upload", lambda array, *rest: sent.append(array.size) or upload(array, *rest))
    loop.advance(0, 12, True)
    assert read == [2, 2] and sent == [36]
