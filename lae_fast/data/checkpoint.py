"""Checkpoints of a long run over a file: what a killed one needs to go on, and the proof that it is the same run.

Chunks are added up in a fixed order, so the state after n chunks, or n passes, is the same in every run, and a run that
goes on from it ends with the same bits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._version import __version__
from ..errors import DataFileError
from ..validation import as_path
from . import atomic
from .opened_file import UNREADABLE

_FORMAT = "lae_fast checkpoint"
_VERSION = 1
_SECONDS = 30.0
# A state that takes long to write is written less often: writing takes at most this share of the time.
_SHARE = 0.1


class Checkpoint:
    """The state of one pass over a file, or between several, kept at `path` while they are running.

    Parameters
    ----------
    path : str or os.PathLike
        Of the file, an .npz that NumPy reads without pickle; written whole or not at all.
    seconds : float, default=30.0
        Time between two writings; 0.0 writes after every chunk or pass.  Where writing takes more than a tenth of that
        time, it is written less often.

    Attributes
    ----------
    resumed : bool
        A pass has gone on from here.
    at : str
        How far the state is that was read or written last, such as "chunk 12 of 25"; empty where there is none.
    notify : callable or None
        Called with one sentence when a run goes on from the file.

    Notes
    -----
    Where `path` exists, the run goes on from there if it is one over the same file, unchanged, by the same version of
    this library and the same BLAS; otherwise it is refused.  The number of threads may differ.  One run at a time.

    A run may give up one way of computing for another (`give_up`).  The states that follow say so, and a run that goes
    on from them does not try the first way again.

    After Ctrl-C (any KeyboardInterrupt) the last state is written at once, even if `seconds` have not passed.

    Examples
    --------
    >>> import numpy as np
    >>> import lae_fast as lf
    >>> np.save("X.npy", np.random.default_rng(0).standard_normal((100, 4)))
    >>> kept = lf.Checkpoint("kept.npz", seconds=60.0)
    >>> kept.notify = print  # would say where a killed run goes on
    >>> model = lf.PCA(2).fit("X.npy", checkpoint=kept)
    >>> kept.resumed, kept.path.exists()  # nothing was killed, and the pass took less than 60 s
    (False, False)
    >>> kept.remove()
    """

    def __init__(self, path: str | os.PathLike[str], seconds: float = _SECONDS) -> None:
        self.path, self.seconds = as_path(path, "path"), float(seconds)
        self.resumed, self.at = False, ""
        self.notify: Callable[[str], object] | None = None
        self._fingerprint = ""
        self._given_up: dict[str, Any] = {}  # the fingerprint of what was given up, and the passes spent on it
        self._due = 0.0
        self._latest: tuple[Callable[[], dict[str, Any]], str] | None = None  # the last state that was offered
        self._lock = threading.RLock()  # held while a state changes, and while it is written

    def begin(self, fingerprint: dict[str, Any]) -> dict[str, np.ndarray] | None:
        """The state, arrays of any shape, that was kept by a run with this fingerprint, or None where none was.

        For a way of computing that was given up the state is only "spent", the number of passes it took.

        Raises
        ------
        DataFileError
            The file is truncated, no checkpoint, or the checkpoint of another run; the message says what differs.
        OSError
            It could not be written.
        """
        self._fingerprint = json.dumps(fingerprint | {"lae_fast": __version__}, sort_keys=True)
        self._latest = None
        atomic.check_writable(self.path)
        self._remove_unfinished()
        self._due = time.monotonic() + self.seconds
        if not self.path.exists():
            return None
        stored, state = self._read()
        at = str(state.pop("at", ""))
        mine = json.loads(self._fingerprint)
        if "given_up" in state:
            given_up, spent = str(state.pop("given_up")), state.pop("spent")
            if json.loads(given_up) == mine:
                self._given_up = {"given_up": given_up, "spent": spent}
                self._go_on("a way of computing that was given up")
                return {"spent": spent}
        if self._given_up and stored == json.loads(self._given_up["given_up"]):
            return None  # what comes after it has not kept anything yet
        differing = [
            f"{name} was {stored.get(name)!r} and is {mine.get(name)!r}"
            for name in sorted(stored.keys() | mine.keys())
            if stored.get(name) != mine.get(name)
        ]
        if differing:
            raise DataFileError(
                f"The checkpoint {self.path} is of another run: {'; '.join(differing)}. Remove it to start anew, or "
                "name another checkpoint."
            )
        self._go_on(at)
        return state

    def _go_on(self, at: str) -> None:
        self.resumed, self.at = True, at
        if self.notify is not None and at:
            self.notify(f"going on after {at}, from {self.path}")

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Inside, the state that was offered changes: Ctrl-C waits until the context ends."""
        with _deferred_signals(), self._lock:
            self._latest = None
            yield

    def offer(self, state: Callable[[], dict[str, Any]], at: str = "") -> None:
        """Offer `state()`, numbers and arrays, which is written when it is time to, or on an interruption.

        state : returns the same until the next `changing`;  at : how far the run is, for people
        """
        self._latest = state, at
        began = time.monotonic()
        if began < self._due:
            return
        self._keep()
        ended = time.monotonic()
        self._due = ended + (max(self.seconds, (ended - began) / _SHARE) if self.seconds else 0.0)

    def interrupted(self) -> None:
        """Write the last state that was offered, if it is whole and not written yet."""
        with self._lock:
            self._keep()

    def release(self) -> None:
        """Let go of the last state and its memory: an interruption then leaves what was written before."""
        self._latest = None

    def _keep(self) -> None:
        if self._latest is None:
            return
        state, at = self._latest
        self._write(state() | {"at": at})
        self._latest, self.at = None, at

    def give_up(self, spent: int) -> None:
        """The way of computing that has begun is given up after `spent` passes; the next `begin` is its replacement."""
        self._given_up = {"given_up": self._fingerprint, "spent": spent}
        self._latest = None
        self._write({})

    def _write(self, state: dict[str, Any]) -> None:
        kept = {"fingerprint": self._fingerprint, **self._given_up, **state}
        with atomic.atomic_write(self.path) as file:
            np.savez(file, format=_FORMAT, version=_VERSION, names=json.dumps(sorted(kept)), **kept)

    def remove(self) -> None:
        """The work is done and its result is safe."""
        self.release()
        self.path.unlink(missing_ok=True)
        self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """What a run that was killed while it wrote has left beside the file."""
        for left in atomic.unfinished(self.path):
            left.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The fingerprint and the state."""
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                state = dict(stored)
            kind, version = str(state.pop("format")), int(state.pop("version"))
            names = state.pop("names", None)  # earlier versions wrote none
            if names is not None and json.loads(str(names)) != sorted(state):
                raise ValueError("some of its arrays are missing")
            stored = json.loads(str(state.pop("fingerprint")))
        except UNREADABLE as error:
            raise DataFileError(
                f"{self.path} is truncated or holds no lae_fast checkpoint ({error}): remove it to start anew."
            ) from error
        if kind != _FORMAT or version > _VERSION:
            raise DataFileError(f"{self.path} holds {kind!r}, version {version}; this lae_fast reads up to {_VERSION}.")
        return stored, state


def kept(
    checkpoint: Checkpoint | str | os.PathLike[str] | None,
) -> contextlib.AbstractContextManager[Checkpoint | None]:
    """The checkpoint of a path, removed when the context ends without an error; a Checkpoint object is not removed.

    A KeyboardInterrupt inside leaves the last state written.
    """
    return contextlib.nullcontext() if checkpoint is None else _kept(checkpoint)


@contextlib.contextmanager
def _kept(checkpoint: Checkpoint | str | os.PathLike[str]) -> Iterator[Checkpoint]:
    used = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    try:
        yield used
    except KeyboardInterrupt:
        used.interrupted()
        raise
    if used is not checkpoint:
        used.remove()


def changing(checkpoint: Checkpoint | None) -> contextlib.AbstractContextManager[None]:
    """`Checkpoint.changing`, or nothing where there is none."""
    return contextlib.nullcontext() if checkpoint is None else checkpoint.changing()


# Signals that end a run in an exception: Ctrl-C, and SIGTERM where the program has a handler for it.
_DEFERRED = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _deferred_signals() -> Iterator[None]:
    """Delay the Python handlers of these signals to the end of the context; they only ever run in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in _DEFERRED}
    handlers = {number: handler for number, handler in found.items() if callable(handler)}
    arrived: list[tuple[int, Any]] = []
    try:
        for number in handlers:
            signal.signal(number, lambda *which: arrived.append(which))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for which, frame in arrived:
            handlers[signal.Signals(which)](which, frame)


def fingerprint(source: Any, stage: str, weights: np.ndarray | None, **options: Any) -> dict[str, Any]:
    """What must be the same for a pass over `source` to go on: the file, the weights, and `options`.

    Raises
    ------
    ValueError
        The source is not a file, so that it cannot be checked that the data are the same.
    """
    require_file(source)
    digest = "" if weights is None else hashlib.sha256(weights.tobytes()).hexdigest()
    return {"pass": stage, **source.file.fingerprint(), "sample_weight": digest, **options}


def require_file(source: Any) -> None:
    """Refuse a source that is not read from a file, or None: it cannot be checked that the data are the same.

    A built-in data set is no file here: it is in memory, and may have come from the network.
    """
    if source is not None and source.file is not None and source.file.path is None:
        raise ValueError(
            f"{source.file.name!r} is a built-in data set, which is held in memory: a run over it cannot be resumed, "
            "and keeps no checkpoint."
        )
    if getattr(source, "on_dask", False):
        raise ValueError(
            "checkpoint= keeps the state of passes over a file, and X is on Dask, whose scheduler runs a lost chunk "
            "again by itself: leave checkpoint out, or write X to a file and pass its path."
        )
    if source is None or source.file is None:
        raise ValueError(
            "A checkpoint needs X as a path to a file, whose size and time of change tell that it is the same: pass "
            "the path, not the data in it."
        )


def warn_none_kept(checkpoint: Checkpoint | None, what: str) -> None:
    """Say that a killed run will start again."""
    if checkpoint is not None:
        warnings.warn(
            f"No checkpoint is kept at {checkpoint.path}: {what}; a killed run starts again.",
            UserWarning,
            stacklevel=2,
        )
