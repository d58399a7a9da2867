"""Ctrl-C and SIGTERM: what was done is kept, the words are true, and the run that follows ends with the same bits.

Signals are real ones: sent to a process of the command line, or to this one from a thread.
"""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import lae_fast as lf
from lae_fast import cli
from lae_fast.backends.cpu.passes import gram
from lae_fast.cli import app, signals
from lae_fast.data.checkpoint import changing
from lae_fast.eigen import krylov
from lae_fast.operators import frequent_directions, moments

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.needs_jit,
    pytest.mark.skipif(os.name == "nt", reason="sends signals"),
    pytest.mark.filterwarnings("ignore:The moments of 150 features do not fit"),
]

HARNESS = """
    import os, sys
    from lae_fast import cli, progress

    times = []

    class Sender(progress.Reporter):
        def __call__(self, stage, done, total=None):
            if stage.startswith({stage!r}) and done == {done}:
                times.append(done)
                if len(times) == {time}:
                    os.kill(os.getpid(), {signal})

    progress.resolve = lambda asked=False: Sender()
    sys.exit(cli.main({arguments!r}))
"""


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((40_000, 20)) * 0.8 ** np.arange(20) + 3).astype(np.float32)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "wide.npy", np.ascontiguousarray(X.T))
    slow = rng.standard_normal((8000, 150)) * 0.97 ** np.arange(150)
    np.save(tmp_path / "slow.npy", slow)
    np.save(tmp_path / "short.npy", slow[:250])
    return tmp_path


@pytest.fixture
def one_thread():
    lf.set_num_threads(1)
    yield
    lf.set_num_threads(None)


def command(folder, *arguments, stage="never", done=0, time=1, number=signal.SIGINT):
    """A process of the command line that sends itself a signal the n-th time of that report; exit code and stderr."""
    code = HARNESS.format(stage=stage, done=done, time=time, signal=int(number), arguments=list(arguments))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    return run.returncode, run.stderr


@pytest.mark.full
@pytest.mark.parametrize(
    ("solver", "name", "stage", "place", "number"),
    [
        ("gram", "x.npy", "Gram of the features", r"chunk \d+ of \d+", signal.SIGTERM),
        ("gram", "wide.npy", "Gram of the samples", r"chunk \d+ of \d+", signal.SIGINT),
        ("krylov", "slow.npy", "pass", r"pass \d+ over the data", signal.SIGINT),
    ],
)
def test_an_interrupted_pca_keeps_what_was_done(folder, solver, name, stage, place, number):
    """Every chunk that was summed, though the last writing was moments ago and none was due."""
    options = ("pca", name, "-k", "3", "--solver", solver, "-o", "out.npz", "--resume")
    done, time = (7, 1) if solver == "gram" else (1, 3)  # in the third pass
    code, said = command(folder, *options, stage=stage, done=done, time=time, number=number)
    assert code == 128 + number
    assert re.search(f"state is kept in out.npz.checkpoint, {place} is done; the same command goes on", said)
    with np.load(folder / "out.npz.checkpoint") as kept:
        assert "products" in kept or 7 <= kept["chunks"] <= 9  # a thread may be one chunk on when the signal is seen
    assert "out.npz was not written" in said
    assert sorted(path.name for path in folder.iterdir() if "out" in path.name) == ["out.npz.checkpoint"]
    code, said = command(folder, *options)
    assert code == 0 and re.search(f"resumed: going on after {place}, from out.npz.checkpoint", said)
    whole = lf.PCA(3, svd_solver=solver).fit(folder / name)
    with np.load(folder / "out.npz") as found:
        np.testing.assert_array_equal(found["components"], whole.components_)
    assert not (folder / "out.npz.checkpoint").exists()


@pytest.mark.full
def test_without_a_checkpoint_it_says_that_nothing_is_kept(folder):
    (folder / "out.npz").write_bytes(b"before")
    code, said = command(folder, "pca", "x.npy", "-k", "3", "-o", "out.npz", "--solver", "gram", stage="Gram", done=2)
    assert code == 130 and (folder / "out.npz").read_bytes() == b"before"
    assert "out.npz was not written; the one from before is untouched" in said and "--resume" in said


@pytest.mark.full
def test_train_says_how_far_the_model_is(folder):
    arguments = ("train", "x.npy", "-k", "2", "--max-iter", "100000", "--tol", "0", "-o", "out.npz")
    code, said = command(folder, *arguments, stage="training", done=1, number=signal.SIGTERM)
    assert code == 143
    found = re.search(r"out.npz was written with the model as it was after (\d+) of at most 100000 iterations", said)
    assert found and "not converged" in said
    with np.load(folder / "out.npz") as model:
        assert model["encoder"].shape == (2, 20) and f'"n_iter": {found[1]}' in str(model["meta"])
    code, said = command(folder, *arguments[:-2], stage="training", done=1, number=signal.SIGINT)
    assert code == 130 and "nothing was written" in said and "-o" in said


@pytest.mark.full
def test_transform_leaves_no_codes(folder):
    assert command(folder, "pca", "x.npy", "-k", "2", "-o", "model.npz", "-q")[0] == 0
    arguments = ("transform", "model.npz", "x.npy", "-o", "codes.npy")
    code, said = command(folder, *arguments, stage="codes", done=1, number=signal.SIGTERM)
    assert code == 143 and "codes.npy was not written" in said
    assert sorted(path.name for path in folder.iterdir()) == ["model.npz", "short.npy", "slow.npy", "wide.npy", "x.npy"]


AT_THE_END = """
    import atexit, os, signal, sys, threading
    from lae_fast import cli

    @atexit.register
    def stop():
        os.kill(os.getpid(), {number})

    sys.argv = ["lae-fast", *{arguments!r}]
    sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    ("number", "arguments", "code"),
    [(signal.SIGTERM, "pca short.npy -k 2 -o out.npz -q", 0), (signal.SIGINT, "pca short.npy -k 999 -o out.npz -q", 2)],
)
def test_a_signal_after_the_work_changes_no_outcome(folder, number, arguments, code):
    """It arrives when the command has ended, and the process not yet."""
    source = textwrap.dedent(AT_THE_END).format(number=int(number), arguments=arguments.split())
    run = subprocess.run(
        [sys.executable, "-c", source], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert run.returncode == code, run.stderr
    assert (folder / "out.npz").exists() == (code == 0)
    assert run.stderr.count("\n") == (code != 0) and "Traceback" not in run.stderr


def test_a_command_within_a_program_leaves_its_handlers_alone(folder):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert cli.main(["pca", str(folder / "short.npy"), "-k", "2", "-q"]) == 0
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def interrupted_after(seconds, work):
    """Run `work` in this thread, with a SIGINT after so many seconds; whether it came in time."""
    armed = [True]

    def stop(*_):
        if armed[0]:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        work()
        armed[0] = False
        return False
    except KeyboardInterrupt:
        return True
    finally:
        armed[0] = False
        timer.join()
        signal.signal(signal.SIGINT, before)


def gaps(folder):
    X = np.load(folder / "x.npy")[:6000, :8].astype(np.float64)
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    np.save(folder / "gaps.npy", X)
    return folder / "gaps.npy"


ESTIMATORS = {
    "gram": (lambda: lf.PCA(3, svd_solver="gram"), lambda folder: folder / "x.npy"),
    "samples": (lambda: lf.PCA(3, svd_solver="gram"), lambda folder: folder / "wide.npy"),
    "krylov": (lambda: lf.PCA(3, svd_solver="krylov", max_memory="400kB"), lambda folder: folder / "slow.npy"),
    "em": (lambda: lf.PCA(2, missing="em"), gaps),
    "sketch": (lambda: lf.IncrementalPCA(3, max_memory="400kB"), lambda folder: folder / "short.npy"),
}


@pytest.mark.parametrize("kind", ESTIMATORS)
def test_interrupted_anywhere_and_resumed_has_the_same_bits(folder, kind):
    """At moments spread over the whole run: no state is torn, though the signal may arrive while it changes."""
    make, data = ESTIMATORS[kind]
    path = data(folder)
    with threadpool_limits(1):  # of BLAS: a busy machine would make some thousand small SVDs wait for each other
        make_and_interrupt(make, path, folder, kind)


def make_and_interrupt(make, path, folder, kind):
    make().fit(path)  # compiled
    began = time.perf_counter()
    whole = make().fit(path)
    took = time.perf_counter() - began
    kept = 0
    for share in np.linspace(0.05, 0.95, 12):
        state = lf.Checkpoint(folder / "state", seconds=3600)  # never due: only the interruption writes
        if interrupted_after(share * took, partial(make().fit, path, checkpoint=state)):
            kept += (folder / "state").exists()
        again = lf.Checkpoint(folder / "state")
        found = make().fit(path, checkpoint=again)
        again.remove()
        for name in ("components_", "explained_variance_", "mean_"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), err_msg=f"{kind} {share} {name}")
    assert kept > 0


@pytest.mark.parametrize(
    ("kind", "owner", "method"),
    [
        ("gram", gram.HostGramChunk, "add_to"),
        ("samples", gram.HostGramChunk, "add_to"),
        ("krylov", krylov.KrylovBasis, "restart"),
        ("sketch", frequent_directions.Sketch, "_join"),
    ],
)
def test_a_signal_in_the_middle_of_a_change(folder, monkeypatch, one_thread, kind, owner, method):
    """On one thread, the one that signals interrupt."""
    at = 1 if kind == "krylov" else 2
    make, data = ESTIMATORS[kind]
    path, original, calls = data(folder), getattr(owner, method), []
    whole = make().fit(path)

    def interrupting(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        return original(self, *arguments)

    monkeypatch.setattr(owner, method, interrupting)
    with pytest.raises(KeyboardInterrupt):
        make().fit(path, checkpoint=lf.Checkpoint(folder / "state", seconds=3600))
    assert len(calls) == at and (folder / "state").exists()
    found = make().fit(path, checkpoint=folder / "state")
    np.testing.assert_array_equal(found.components_, whole.components_)


@pytest.mark.parametrize("kind", ["gram", "samples"])
def test_an_interrupt_after_the_last_chunk_keeps_a_state_that_goes_on(folder, monkeypatch, kind):
    """What is written then was offered before, and must not have changed since."""
    make, data = ESTIMATORS[kind]
    path, symmetric = data(folder), gram.symmetric
    whole = make().fit(path)

    def interrupted(*arguments):
        if kind == "samples":
            symmetric(*arguments)
        raise KeyboardInterrupt

    owner, name = (gram, "symmetric") if kind == "samples" else (moments.Moments, "_merge")
    monkeypatch.setattr(owner, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        make().fit(path, checkpoint=lf.Checkpoint(folder / "state", seconds=3600))
    monkeypatch.undo()
    assert (folder / "state").exists()
    found = make().fit(path, checkpoint=folder / "state")
    np.testing.assert_array_equal(found.components_, whole.components_)
    np.testing.assert_array_equal(found.mean_, whole.mean_)


def test_a_signal_waits_while_the_state_changes(folder):
    """And is not lost; what the block leaves is what is written."""
    state = lf.Checkpoint(folder / "state", seconds=3600)
    state.begin({})
    numbers = {"first": 0, "second": 0}
    with pytest.raises(KeyboardInterrupt), changing(state):
        numbers["first"] = 1
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
        numbers["second"] = 1
        state.offer(numbers.copy, "here")
    assert numbers["second"] == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    state.interrupted()
    with np.load(folder / "state") as stored:
        assert stored["first"] == stored["second"] == 1
    assert state.at == "here"


def test_a_torn_state_is_not_written(folder):
    state = lf.Checkpoint(folder / "state", seconds=3600)
    state.begin({})
    state.offer(lambda: {"number": 1})
    with pytest.raises(KeyboardInterrupt), changing(state):
        raise KeyboardInterrupt
    state.interrupted()
    assert not (folder / "state").exists()


FIRST_IMPORTS = """
    import os, signal, sys

    class Stop:
        def find_spec(self, name, path=None, target=None):
            if name == {name!r}:
                sys.meta_path.remove(self)
                # From a string, as the code is that imports run to make dataclasses: Python remembers such interrupts.
                exec("os.kill(os.getpid(), {number}); list(map(id, range(9)))")

    sys.meta_path.insert(0, Stop())
    sys.argv = ["lae-fast", "pca", "short.npy", "-k", "2"]
    from lae_fast.cli import main

    sys.exit(main())
"""


@pytest.mark.parametrize(
    "name", ["lae_fast.cli.app", "lae_fast.cli.train", "rich", "typer", "typer.main", "lae_fast.validation", "numpy"]
)
def test_a_signal_during_the_first_imports(folder, name):
    source = textwrap.dedent(FIRST_IMPORTS).format(name=name, number=int(signal.SIGINT))
    (folder / "first_imports.py").write_text(source)
    run = subprocess.run(
        [sys.executable, "-m", "first_imports"], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert run.returncode == 130, run.stderr
    assert run.stdout == "" and run.stderr.strip() == "interrupted: nothing was written"


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (signals.Interrupted(), 130, "nothing was written"),
        (signals.Terminated(), 143, "nothing was written"),
        (KeyboardInterrupt("out.npz was written"), 130, "out.npz was written"),
    ],
)
def test_an_interrupt_that_typer_takes_is_said_too(monkeypatch, capfd, stop, code, said):
    """It makes an exit without words of what comes before a command begins or after it ends."""

    def interrupted(*_):
        raise stop

    monkeypatch.setattr(app, "_run", interrupted)
    assert cli.main(["info"]) == code
    assert capfd.readouterr().err.strip() == f"interrupted: {said}"


def test_an_ignored_interrupt_stays_ignored():
    """As of a command that a shell script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.ending_the_command(own_process=False):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    with signals.ending_the_command(own_process=False), pytest.raises(KeyboardInterrupt) as stop:
        signal.raise_signal(signal.SIGINT)
    assert type(stop.value) is signals.Interrupted
