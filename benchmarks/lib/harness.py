"""Interleaved timing of contestants that must first prove their answer; knows nothing of what they compute.

The order of events is fixed: `trial` runs a contestant once and has its answer checked, `race` warms up and then times
rounds in which every contestant runs once, in a shuffled order that a seed repeats. A drift of the machine (another
process, a hot package) then hits all contestants alike, and what is compared are ratios within a round, never times
from different moments. Races are of whole fits: runs of microseconds are for pytest-benchmark (benchmarks/test_*.py),
differences of a per cent for `paired`. Imports NumPy and the standard library; threadpoolctl only to record the
environment.
"""

from __future__ import annotations

import gc
import importlib.metadata
import json
import math
import os
import platform
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

SCHEMA = 1
MINIMUM_ROUNDS = 3

# What a contestant may raise without ending the benchmark: it is reported as failed, with the message.
FAILURES = (ValueError, TypeError, RuntimeError, MemoryError, ArithmeticError)

RACED, SKIPPED, FAILED, NOT_INSTALLED = "raced", "skipped", "failed", "not installed"
READY = "ready"  # passed its trial, not timed yet


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Attributes
    ----------
    name : str
        Unique within a race.
    run : callable
        Does all of the work that is to be timed, takes nothing, returns the answer.
    kind : {"ours", "variant", "peer", "reference"}
        "peer" and "reference" may become the best peer; a "variant" of ours is timed and never compared as a peer.
    note : str
        What a reader must know to judge the number.
    compiles : bool
        The first run compiles, so it says nothing about the speed of the next.
    """

    name: str
    run: Callable[[], Any]
    kind: str = "peer"
    note: str = ""
    compiles: bool = False


@dataclass
class Record:
    """What became of a contestant; `times[k]` was measured in round `rounds[k]`, in seconds."""

    name: str
    kind: str = "peer"
    note: str = ""
    status: str = READY
    reason: str = ""
    accurate: bool | None = None
    first_s: float | None = None
    estimate_s: float | None = None
    times: list[float] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def summary(self) -> dict[str, float]:
        return summarise(self.times)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "summary": self.summary}


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum, quartiles and their distance, and how many; empty for no values."""
    if not len(values):
        return {}
    low, median, high = (float(v) for v in np.percentile(np.asarray(values, dtype=np.float64), [25, 50, 75]))
    return {
        "median": median,
        "min": float(min(values)),
        "q1": low,
        "q3": high,
        "iqr": high - low,
        "n": len(values),
    }


def trial(
    contestant: Contestant,
    check: Callable[[Any], dict[str, Any]] | None = None,
    *,
    limit_s: float = math.inf,
    clock: Callable[[], float] = time.perf_counter,
) -> Record:
    """Run once, have the answer checked, and say whether the contestant may race.

    Parameters
    ----------
    contestant : Contestant
    check : callable, optional
        Takes the answer and returns a dict; its key "accurate" goes to the record, the others to `Record.detail`.
        It is not timed.
    limit_s : float
        A contestant whose single run takes longer is skipped, and the reason gives the time. One that compiles is
        judged by a second run.
    clock : callable
        Replaced in tests.
    """
    record = Record(contestant.name, contestant.kind, contestant.note)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a peer's convergence warning shows as a residual
        try:
            start = clock()
            answer = contestant.run()
            record.first_s = record.estimate_s = clock() - start
            if contestant.compiles and record.first_s > limit_s:
                start = clock()
                answer = contestant.run()
                record.estimate_s = clock() - start
        except FAILURES as error:
            record.status, record.reason = FAILED, f"{type(error).__name__}: {_first_line(error)}"
            record.accurate = False
            return record
    if check is not None:
        record.detail = dict(check(answer))
        record.accurate = record.detail.pop("accurate", None)
    if record.estimate_s > limit_s:
        record.status, record.reason = SKIPPED, f"one run took {record.estimate_s:.1f} s, the limit is {limit_s:.0f} s"
    return record


def plan_rounds(
    estimates: dict[str, float],
    priority: Sequence[str],
    *,
    rounds: int,
    budget_s: float,
    guaranteed: int = 2,
    minimum: int = MINIMUM_ROUNDS,
) -> dict[str, int]:
    """How many rounds each contestant gets: at least `minimum` or none.

    First each gets `minimum` rounds, in the order of `priority`, while they fit the budget (the first `guaranteed` ones
    get them in any case). Then the next round always goes to the one that has taken the least time, so the slow ones
    end with fewer rounds.

    Parameters
    ----------
    estimates : dict of str to float
        Expected seconds of one run, overhead included.
    priority : sequence of str
        All keys of `estimates`, the one that matters most first.
    """
    minimum = min(minimum, rounds)
    plan = dict.fromkeys(priority, 0)
    left = budget_s
    for position, name in enumerate(priority):
        cost = minimum * estimates[name]
        if position < guaranteed or cost <= left:
            plan[name] = minimum
            left -= cost
    while True:
        hungry = [name for name in priority if 0 < plan[name] < rounds and estimates[name] <= left]
        if not hungry:
            return plan
        name = min(hungry, key=lambda name: plan[name] * estimates[name])
        plan[name] += 1
        left -= estimates[name]


def takes_part(round_index: int, n_own: int, n_rounds: int) -> bool:
    """Whether a contestant with `n_own` of `n_rounds` rounds runs in this one: they are spread evenly."""
    return (round_index + 1) * n_own // n_rounds > round_index * n_own // n_rounds


def race(
    contestants: Sequence[Contestant],
    records: dict[str, Record],
    *,
    rounds: int = 15,
    budget_s: float = math.inf,
    priority: Sequence[str] | None = None,
    guaranteed: int = 2,
    seed: int = 0,
    settle_s: float = 0.03,
    warm_up_below_s: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Warm up, then time rounds in which every contestant runs once, in a seeded shuffled order.

    Fills `times`, `rounds`, `status` of the records whose status is "ready"; the others stay as they are.

    Parameters
    ----------
    contestants : sequence of Contestant
    records : dict of str to Record
        From `trial`, by name.
    rounds : int
        Rounds of a contestant that is quick enough; `plan_rounds` gives the others fewer, at least three or none.
    budget_s : float
        Seconds for warm-up and rounds together.
    priority, guaranteed
        See `plan_rounds`; the default priority is the given order.
    settle_s : float
        Pause before each run: idle BLAS and OpenMP threads of the previous contestant spin for some milliseconds and
        would steal the cores from the next one.
    warm_up_below_s : float
        A contestant whose trial took less, or which compiles, is run once more before the rounds.
    """
    ready = [c for c in contestants if records[c.name].status == READY]
    if not ready:
        return
    started = clock()
    for contestant in ready:
        record = records[contestant.name]
        if contestant.compiles or record.estimate_s < warm_up_below_s:
            sleep(settle_s)
            record.estimate_s = min(record.estimate_s, _timed(contestant, clock))
    order = [name for name in (priority or [c.name for c in ready]) if records[name].status == READY]
    plan = plan_rounds(
        {name: records[name].estimate_s + settle_s for name in order},
        order,
        rounds=rounds,
        budget_s=budget_s - (clock() - started),
        guaranteed=guaranteed,
    )
    for name, planned in plan.items():
        record = records[name]
        record.status = RACED if planned else SKIPPED
        if not planned:
            record.reason = f"no time for {MINIMUM_ROUNDS} rounds: one run took {record.estimate_s:.2g} s"
    shuffler = random.Random(seed)
    n_rounds = max(plan.values())
    collecting = gc.isenabled()
    try:
        for index in range(n_rounds):
            starters = [c for c in ready if takes_part(index, plan[c.name], n_rounds)]
            shuffler.shuffle(starters)
            gc.collect()
            gc.disable()  # a collection inside a run would be charged to whoever happens to run
            for contestant in starters:
                sleep(settle_s)
                record = records[contestant.name]
                record.times.append(_timed(contestant, clock))
                record.rounds.append(index)
    finally:
        if collecting:
            gc.enable()


def _timed(contestant: Contestant, clock: Callable[[], float]) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = clock()
        answer = contestant.run()  # kept until the clock has stopped: freeing it is not part of the work
        seconds = clock() - start
    del answer
    return seconds


def round_ratios(record: Record, reference: Record) -> list[float]:
    """Time of `record` over time of `reference`, for each round in which both ran."""
    theirs = dict(zip(reference.rounds, reference.times))
    return [seconds / theirs[index] for index, seconds in zip(record.rounds, record.times) if index in theirs]


def best_accurate(records: Iterable[Record], kinds: Sequence[str] = ("peer", "reference")) -> Record | None:
    """The contestant of these kinds with the lowest median time among those whose answer passed; None without one."""
    fit = [r for r in records if r.kind in kinds and r.accurate and r.times]
    return min(fit, key=lambda r: r.summary["median"], default=None)


def environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """The machine and the software, without host name, user name or paths.

    Call it after everything has been imported: threadpoolctl sees only loaded libraries.
    """
    from threadpoolctl import threadpool_info

    libraries = [
        {key: info.get(key) for key in ("user_api", "internal_api", "prefix", "version", "num_threads", "architecture")}
        | {"belongs_to": _owner(info.get("filepath", ""))}
        for info in threadpool_info()
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **processor(),
        "memory_gb": _memory_gb(),
        "load_at_start": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
        "thread_pools": libraries,
        "variables": {
            key: value
            for key, value in sorted(os.environ.items())
            if key.endswith("_NUM_THREADS") or key in ("LAE_FAST_CACHE", "NUMBA_DISABLE_JIT", "NUMBA_THREADING_LAYER")
        },
    }


def processor() -> dict[str, Any]:
    """Model and cores, of which a process may be allowed only some."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }


def is_busy(found: dict[str, Any]) -> bool:
    """Whether an `environment` was recorded while other work ran: times from such a run should not be published."""
    return (found["load_at_start"] or 0.0) > 0.5 * (found["cores_usable"] or 1)


def version(package: str) -> str | None:
    """Version of an installed package or of a module that is imported from a checkout; None where there is neither."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)


def write_json(path: Path, payload: dict[str, Any], indent: int | None = 1) -> None:
    """Write through a temporary file, so that a killed run leaves the old results or the new ones, never half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(plain(payload), indent=indent, allow_nan=False) + "\n", encoding="ascii")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """JSON has neither NumPy scalars nor infinities; the latter become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):  # not POSIX
        return None


def _owner(filepath: str) -> str:
    """The package directory that a shared library lies in (numpy.libs, scipy.libs, torch), not its path."""
    parts = Path(filepath).parts
    if "site-packages" in parts[:-1]:
        return parts[parts.index("site-packages") + 1]
    return "system"
