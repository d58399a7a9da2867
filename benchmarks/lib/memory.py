"""How much memory a piece of code takes: measured in a process of its own.  Linux only; imports the standard library.

What counts is anonymous memory (RssAnon), so that neither libraries nor mapped files do, above what the process held
before.
"""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")
ROOT = Path(__file__).resolve().parents[2]
# The C library and Arrow give every allocation of 128 kB and more back when it is freed: the peak is what is held.
RETURNED = {
    "MALLOC_MMAP_THRESHOLD_": "131072",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


def measurable() -> bool:
    """Whether the system tells."""
    return _STATUS.exists()


def anonymous() -> int:
    """RssAnon of this process, bytes."""
    return _bytes_of("RssAnon")


def peak_resident() -> int:
    """The most that this process has held, mapped files included, bytes (ru_maxrss begins with its parent's)."""
    return _bytes_of("VmHWM")


def _bytes_of(name: str) -> int:
    with _STATUS.open(encoding="ascii") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(name))


class Peak:
    """A context in which a thread watches the memory.

    Attributes
    ----------
    before : bytes held when it began;  total : the most held since;  above : the difference
    """

    def __enter__(self) -> Self:
        gc.collect()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        self.before = self.total = anonymous()
        self._stop = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._watcher.join()

    @property
    def above(self) -> int:
        return self.total - self.before

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.total = max(self.total, anonymous())
            time.sleep(0.0005)


def run(*arguments: str, code: str | None = None, timeout_s: float = 600.0, **variables: str) -> str:
    """What Python prints in a process of its own, started beside this package: `code`, or ``-m module``.

    Raises
    ------
    RuntimeError
        It failed; the message is the end of what it wrote to stderr.
    subprocess.TimeoutExpired
    """
    done = subprocess.run(
        [sys.executable, *(() if code is None else ("-c", textwrap.dedent(code))), *arguments],
        cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, timeout=timeout_s, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:].strip() or f"exit status {done.returncode}")
    return done.stdout
