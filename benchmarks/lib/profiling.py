"""Where the time of a fit goes."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def profile_fit(fit: Callable[[], Any], repeats: int = 3) -> dict[str, Any]:
    """The quickest of a few profiled runs: total, seconds in lae_fast/operators/certificate.py, the largest own times.

    Seen from the calling thread only; a kernel that runs in several threads shows as the call that waits for it.
    """
    best: dict[str, Any] = {}
    for _ in range(repeats):
        profiler = cProfile.Profile()
        begin = time.perf_counter()
        profiler.runcall(fit)
        seconds = time.perf_counter() - begin
        if best and seconds >= best["seconds"]:
            continue
        functions = pstats.Stats(profiler).stats
        best = {
            "seconds": seconds,
            "certificate_s": _entered_s(functions, "certificate.py"),
            "own": [[_label(key), own] for key, (_, _, own, _, _) in functions.items() if own >= 0.01 * seconds],
        }
    best["own"].sort(key=lambda entry: -entry[1])
    best["certificate_share"] = best["certificate_s"] / best["seconds"]
    return best


def _entered_s(functions: dict[Any, Any], file: str) -> float:
    """Time from entering a file to leaving it: calls among its own functions are not counted twice."""
    return sum(
        caller_stats[3]
        for (path, _, _), (_, _, _, _, callers) in functions.items()
        if Path(path).name == file
        for caller, caller_stats in callers.items()
        if Path(caller[0]).name != file
    )


def _label(key: tuple[str, int, str]) -> str:
    path, _, name = key
    return name if path == "~" else f"{Path(path).name}: {name}"
