"""What computes a Dask graph: a scheduler of this machine, or the client of a cluster; and which task has failed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any


def is_delayed(X: Any) -> bool:
    """Whether X is a block to be: delayed, or the future of one on a cluster."""
    from dask.delayed import Delayed

    return isinstance(X, Delayed) or is_future(X)


def is_future(X: Any) -> bool:
    """Whether X is, or will be, the result of a task of a cluster."""
    return "distributed" in sys.modules and isinstance(X, sys.modules["distributed"].Future)


def client_of(collections: Sequence[Any]) -> Any:
    """The client of the cluster that will compute these collections, or None for schedulers of this machine."""
    from dask.base import get_scheduler

    get = get_scheduler(collections=collections[:1])
    owner = getattr(get, "__self__", None)
    return owner if hasattr(owner, "scatter") else None


def futures(collections: Sequence[Any]) -> Iterator[Any]:
    """What the graphs of collections need of a cluster that keeps it."""
    if "distributed" in sys.modules:
        graphs = [collection.__dask_graph__() for collection in collections]
        for graph in {id(graph): graph for graph in graphs}.values():  # delayed blocks of one array share theirs
            yield from filter(is_future, dict(graph).values())


def check_alive(collections: Sequence[Any], name: str) -> None:
    """Refuse rows that were kept on a cluster which is not connected any more."""
    if any(future.status in ("cancelled", "lost") for future in futures(collections)):
        raise ValueError(
            f"{name} was kept on a cluster (persist), and the client that did it is closed, or has lost the rows: "
            "connect a client again, and make the collection anew."
        )


def computed(wanted: Any, client: Any, said: Callable[[Iterable[Any]], str]) -> Any:
    """The value of a Delayed; an error that a task raises gets a note of what was to be made of its result.

    client : of `client_of`;  said : (keys of the task that failed and of all that depend on it) -> note, or ""
    """
    if client is None:
        failed: list[Any] = []
        try:
            return wanted.compute(**_reporting(wanted, failed))
        except Exception as error:
            _add_note(error, wanted, failed, said)
            raise
    held = wanted.persist()  # its future remembers the task that it failed of
    try:
        return held.compute()
    except Exception as error:
        _add_note(error, wanted, _failed_on_cluster(client, wanted.key), said)
        raise


def _add_note(error: Exception, wanted: Any, failed: Iterable[Any], said: Callable[[Iterable[Any]], str]) -> None:
    if note := said(_with_dependents(wanted.__dask_graph__(), failed)):
        error.add_note(note)


def _reporting(wanted: Any, failed: list[Any]) -> dict[str, Any]:
    """What Dask's schedulers of this machine are to be told, so that tasks which fail are appended to `failed`."""
    from dask.base import get_scheduler
    from dask.callbacks import Callback

    get = get_scheduler(collections=[wanted]) or wanted.__dask_scheduler__
    if get.__module__ not in ("dask.local", "dask.threaded", "dask.multiprocessing"):
        return {}

    def finish(graph: Any, state: Any, errored: bool) -> None:
        if errored and state:
            # those that run: the frame that calls us knows which of them has failed
            key = sys._getframe(1).f_locals.get("key")
            failed.extend([key] if key in state["running"] else state["running"])

    return {"callbacks": [*Callback.active, (None, None, None, None, finish)]}


def _failed_on_cluster(client: Any, key: Any) -> list[Any]:
    """The task that this one failed of, as the scheduler knows it; none where it does not answer any more."""
    try:
        cause = client.sync(client.scheduler.get_error_cause, keys=[key])
    except OSError:
        return []
    # tuples travel as lists
    return [tuple(cause) if isinstance(cause, list) else cause]


def _with_dependents(graph: Any, keys: Iterable[Any]) -> set[Any]:
    """Tasks and all that need them; nothing of a task that a graph does not have, because it was joined to another."""
    from dask.core import get_dependencies, reverse_dict

    graph = dict(graph)
    needed_by = reverse_dict({key: get_dependencies(graph, key) for key in graph})
    new = [key for key in keys if key in graph]
    found = set(new)
    while new:
        more = needed_by.get(new.pop(), set()) - found
        found |= more
        new += more
    return found
