"""The state of block Krylov between two products, in a checkpoint.

A product that was under way when the run was killed is done again.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ..data.checkpoint import Checkpoint
from .krylov import LoopState
from .krylov_basis import KrylovBasis

# Names of what belongs to the operator.
_OPERATORS = "operator_"


class KrylovCheckpoint:
    """A `krylov.Keeper` at a checkpoint, which keeps the operator too.

    Parameters
    ----------
    operator : RowsOperator or SparseOperator, new: has `fingerprint(stage, **options)`, `state()` and `restore(state)`
    options : numbers and text on which the iteration depends, besides the operator and `seed`

    Attributes
    ----------
    spent : the passes that a run before this one took until it gave the iteration up; None: it did not
    """

    def __init__(self, checkpoint: Checkpoint, operator: Any, seed: Any, **options: Any) -> None:
        self._checkpoint, self._operator = checkpoint, operator
        start = json.dumps(_random_state(np.random.default_rng(seed)), sort_keys=True)
        start = hashlib.sha256(start.encode()).hexdigest()
        self._state = checkpoint.begin(operator.fingerprint("block Krylov", random_state=start, **options))
        given_up = self._state is not None and "spent" in self._state
        self.spent = int(self._state["spent"]) if self._state is not None and given_up else None

    def begin(self, loop: LoopState, basis: KrylovBasis) -> Any:
        """Put loop, basis and operator where a killed run was; its next panel, or None where there was no such run."""
        state, self._state = self._state, None
        if state is None:
            return None
        place, size = basis.panels.place, int(state["size"])
        basis.columns[:, :size] = place(state.pop("basis"))  # each is let go when it is copied
        basis.images[:, :size] = place(state.pop("images"))
        basis.ritz_matrix[:size, :size] = state["ritz_matrix"]
        basis.size = size
        basis.random.bit_generator.state = json.loads(str(state["random"]))
        for name in _LOOP:
            setattr(loop, name, int(state[name]))
        if state["seen"].size:
            loop.seen = int(state["seen"][0]), float(state["seen"][1])
        self._operator.restore({name[len(_OPERATORS) :]: state[name] for name in state if name.startswith(_OPERATORS)})
        return place(state["panel"])

    def offer(self, loop: LoopState, basis: KrylovBasis, panel: Any) -> None:
        """Keep loop and basis as they are, `panel` to be multiplied next.

        Columns of the basis beyond `size` may change after this call, the first `size` only inside `changing`.
        """
        fetch, size = basis.panels.fetch, basis.size
        columns, images = basis.columns[:, :size], basis.images[:, :size]
        small = {
            "size": size,
            "ritz_matrix": basis.ritz_matrix[:size, :size],
            "random": json.dumps(_random_state(basis.random)),
            **{name: getattr(loop, name) for name in _LOOP},
            "seen": np.array(loop.seen or ()),
            **{_OPERATORS + name: value for name, value in self._operator.state().items()},
        }
        self._checkpoint.offer(
            lambda: small | {"basis": fetch(columns), "images": fetch(images), "panel": fetch(panel)},
            f"pass {self._operator.n_passes} over the data",
        )

    def changing(self) -> AbstractContextManager[None]:
        """See `Checkpoint.changing`."""
        return self._checkpoint.changing()

    def give_up(self, passes: int) -> int:
        """The iteration is abandoned after so many passes, or was before: as many as that took."""
        if self.spent is None:
            self._checkpoint.give_up(passes)
            return passes
        return self.spent


# Numbers of `krylov.LoopState` that are kept; no random columns are joining between two products.
_LOOP = ("products", "skip", "block", "not_before", "max_products")


def _random_state(random: np.random.Generator) -> dict[str, Any]:
    """Of the bit generator, as JSON takes it."""
    return dict(json.loads(json.dumps(random.bit_generator.state, default=lambda found: found.tolist())))
