"""The first pass over rows whose number is not known, and what cannot be done with rows that come once."""

from __future__ import annotations

import math
import numbers
from functools import partial
from typing import Any

from .. import backends, plan, validation
from ..data import sources
from ..errors import MemoryLimitError
from ..operators.moments import Moments
from ..progress import Reporter
from ..sizes import format_bytes
from .request import EXPECTED, Options


def first_moments(
    source: sources.Source, p: Any, sample_weight: Any, options: Options, report: Reporter | None = None
) -> Moments | None:
    """The moments of rows, in blocks or on Dask, that have not been counted, where the Gram route is to be taken.

    They are gathered before anything is asked that needs the number of rows, so that one pass does both.  None for any
    other source, and where Krylov passes are the better route: the rows are then counted in a pass of their own.

    p : number of components, for the cost model

    Raises
    ------
    ValueError, MemoryLimitError
        The rows come once, and one pass will not do; says what will.
    """
    if math.isfinite(source.n_lines(False)):
        return None
    # whether a device pays is not known without the number of rows
    used = backends.get_backend(backends.resolve(options.backend))
    d, itemsize, threads = source.n_features, source.compute_dtype.itemsize, used.n_workers
    limit = validation.memory_bytes(options.max_memory)
    if not source.rereadable:
        if options.solver == "krylov":
            raise ValueError(
                "The krylov solver reads X several times, and X is an iterator, which gives its rows once: pass a "
                "callable that returns a fresh iterator, or use the gram solver."
            )
        if not plan.gram_fits(d, itemsize, threads, limit):
            need = format_bytes(plan.gram_bytes(d, itemsize, threads), at_least=True)
            raise MemoryLimitError(
                f"X is an iterator, which gives its rows once, and the Gram of its {d} features needs "
                f"{need} (max_memory={options.max_memory!r}, at most "
                f"{plan.LARGEST_GRAM} features): pass a callable that returns a fresh iterator, raise max_memory, or "
                "use IncrementalPCA, which keeps a sketch."
            )
    elif options.solver == "krylov" or (options.solver == "auto" and not _gram_is_cheaper(source, p, limit, threads)):
        return None
    moments = Moments(d, center=options.center)
    tick = None if report is None else partial(report, "Gram of the features")
    return moments.update(source, sample_weight=sample_weight, tick=tick, backend=used.name)


def _gram_is_cheaper(source: sources.Source, p: Any, limit: int | None, threads: int) -> bool:
    """Whether the d x d Gram is the route; both costs grow with the number of rows, so that it does not matter."""
    d, itemsize = source.n_features, source.compute_dtype.itemsize
    if not plan.gram_fits(d, itemsize, threads, limit):
        return False
    expected = min(int(p), d) if isinstance(p, numbers.Integral) and int(p) > 0 else EXPECTED
    block = plan.krylov_block(expected, 10, d)
    return plan.choose_route(10 * d, d, expected, itemsize, block=block, n_threads=threads).solver == "gram"
