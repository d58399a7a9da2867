"""Where a training run stands, as a value: for a fit that goes on from an earlier one, and for checkpoints.

A run that goes on from there makes the same numbers, to the bit, as one that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data.checkpoint import Checkpoint
from .engine import Position
from .problem import Problem
from .run import History, Run


@dataclass(frozen=True)
class RunState:
    """All that a run has changed since its start; everything on the host.

    layout : what must be the same for a run to go on from here: shapes and kind of what is trained
    made_of : what gives these shapes, for people
    """

    layout: str
    iteration: int
    false_stops: int
    asks_at: int
    position: Position
    history: History
    made_of: dict[str, Any] = field(default_factory=dict)


def layout(run: Run) -> str:
    """Shapes and kind of what a run trains, in words."""
    shapes = [tuple(part.shape) for part in run.engine.saved()]
    optimizer = "none" if run.optimizer is None else run.optimizer.name
    return f"optimizer {optimizer!r} and matrices of shapes {shapes}"


def _made_of(run: Run) -> dict[str, Any]:
    """What gives the shapes of what a run trains, by the names that users know."""
    return {
        "rule": run.rule.name,
        "optimizer": "none" if run.optimizer is None else run.optimizer.name,
        "n_components": int(run.settings.n_components),
        "hidden": list(run.settings.hidden),
        "the number of features": int(run.problem.mean.size),
        "the number of targets": int(run.problem.mean_y.size),
    }


def taken(run: Run) -> RunState:
    """Where this run stands; it shares nothing with the run that changes."""
    position = run.engine.position()._replace(trained=run.engine.saved())
    return RunState(
        layout(run), run.iteration, run.false_stops, run.asks_at, position, run.history.copy(), _made_of(run)
    )


def go_on(run: Run, state: RunState) -> None:
    """Let a run that has just been started go on from there.

    Raises
    ------
    ValueError
        It trains something else.
    """
    if layout(run) != state.layout:
        before, now = getattr(state, "made_of", {}), _made_of(run)  # earlier pickles have none
        differing = [
            f"{name} was {before[name]!r} and is {now[name]!r}" for name in now if before.get(name) != now[name]
        ]
        raise ValueError(
            f"warm_start=True goes on with the weights of the fit before, which do not fit this one: "
            f"{'; '.join(differing if before else ['they have other shapes'])}. Set warm_start=False to start anew."
        )
    new, position = run.engine.position(), state.position
    # what was not drawn at random before begins now
    run.engine.go_to(
        position._replace(
            batches=new.batches if position.batches is None else position.batches,
            masks=new.masks if position.masks is None else position.masks,
        )
    )
    run.iteration, run.false_stops, run.asks_at = state.iteration, state.false_stops, state.asks_at
    if run.asks_at:
        run.engine.watch(False)
    run.history = state.history.copy()


# ---------------------------------------------------------------------------------------------------------------------
# as arrays in a checkpoint


def to_arrays(state: RunState) -> dict[str, Any]:
    """The state of a run as numbers, text and arrays, by name."""
    position = state.position
    n_samples, queue, batches = (0, np.zeros((0, 0)), None) if position.batches is None else position.batches
    history = state.history.arrays()
    numbers = {"iteration": state.iteration, "false_stops": state.false_stops, "asks_at": state.asks_at}
    drawn = {"n_samples": n_samples, "queue": queue, "batches": _to_json(batches), "masks": _to_json(position.masks)}
    return (
        {"layout": state.layout, "calm": position.calm, "n_trained": len(position.trained)}
        | numbers
        | drawn
        | {"recorded": json.dumps([*history]), "made_of": json.dumps(state.made_of)}
        | {f"trained_{i}": part for i, part in enumerate(position.trained)}
        | {f"history_{name}": values for name, values in history.items()}
    )


def from_arrays(arrays: dict[str, Any]) -> RunState:
    """What `to_arrays` made."""
    batches = _from_json(arrays["batches"])
    history = {name: list(arrays[f"history_{name}"]) for name in json.loads(str(arrays["recorded"]))}
    own = {name: history.pop(name) for name in list(history) if name in vars(History())}
    position = Position(
        [arrays[f"trained_{i}"] for i in range(int(arrays["n_trained"]))],
        int(arrays["calm"]),
        None if batches is None else (int(arrays["n_samples"]), arrays["queue"], batches),
        _from_json(arrays["masks"]),
    )
    return RunState(
        str(arrays["layout"]), int(arrays["iteration"]), int(arrays["false_stops"]), int(arrays["asks_at"]), position,
        History(**own, recorded=history), json.loads(str(arrays["made_of"])) if "made_of" in arrays else {},
    )  # fmt: skip


def _to_json(state: Any) -> str:
    """The state of a random generator: numbers of any size, words and arrays of integers."""
    return json.dumps(state, default=lambda array: np.asarray(array).tolist())


def _from_json(text: Any) -> Any:
    return json.loads(str(text))


def resume(run: Run, checkpoint: Checkpoint) -> None:
    """Let a run that has just been started go on from what the checkpoint holds, if it holds something.

    Raises
    ------
    DataFileError
        It is the checkpoint of another run.
    """
    stored = checkpoint.begin(fingerprint(run))
    if stored is not None:
        go_on(run, from_arrays(stored))


def fingerprint(run: Run) -> dict[str, Any]:
    """What must be the same for a run to go on from a checkpoint: the data by their moments, and what was asked for."""
    settings, recipe = run.settings, run.engine.recipe
    start = hashlib.sha256()
    for part in run.engine.saved():
        start.update(np.ascontiguousarray(part).tobytes())
    start.update(_to_json(run.engine.position()[2:]).encode())
    return {
        "pass": "training", "data": _data_digest(run.problem), "start": start.hexdigest(), "layout": layout(run),
        "rule": repr(run.rule), "loss": repr(run.loss), "optimizer": repr(run.optimizer), "coupling": recipe.coupling,
        "scale": recipe.scale, "tolerance": recipe.tolerance, "batch_size": settings.batch_size, "last": run.last,
        "regime": run.regime,
    }  # fmt: skip


def _data_digest(problem: Problem) -> str:
    """Of numbers that are sums over all data."""
    digest = hashlib.sha256()
    for part in (problem.mean, problem.mean_y, problem.yy_trace, problem.largest, problem.trace, problem.weight_sum):
        digest.update(np.asarray(part, dtype=np.float64).tobytes())
    return digest.hexdigest()
