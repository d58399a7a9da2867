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


class KrylovState:
    """Keeps an iteration of krylov.py and its operator at a checkpoint, and takes them from there.

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
        self.spent = int(self._state["spent"]) if given_up else None

    def begin(self, iteration: Any) -> tuple[int, Any] | None:
        """Put iteration and operator where a killed run was: the products done and the next panel; None: it was not."""
        state, self._state = self._state, None
        if state is None:
            return None
        place, size = iteration.panels.place, int(state["size"])
        iteration.basis[:, :size] = place(state.pop("basis"))  # each is let go when it is copied
        iteration.images[:, :size] = place(state.pop("images"))
        iteration.ritz_matrix[:size, :size] = state["ritz_matrix"]
        iteration.size, iteration.skip = size, int(state["skip"])
        iteration.block, iteration.not_before = int(state["block"]), int(state["not_before"])
        iteration.max_products = int(state["max_products"])
        if state["seen"].size:
            iteration.seen = int(state["seen"][0]), float(state["seen"][1])
        iteration.random.bit_generator.state = json.loads(str(state["random"]))
        self._operator.restore({name[len(_OURS) :]: state[name] for name in state if name.startswith(_OURS)})
        return int(state["products"]), place(state["panel"])

    def offer(self, iteration: Any, products: int, panel: Any) -> None:
        """Keep the iteration after so many products, `panel` to be multiplied next.

        Columns of the basis beyond `size` may be written after this: only `changing` may touch those up to there.
        """
        fetch, size = iteration.panels.fetch, iteration.size
        basis, images = iteration.basis[:, :size], iteration.images[:, :size]
        small = {
            "products": products,
            "size": size,
            "ritz_matrix": iteration.ritz_matrix[:size, :size],
            "skip": iteration.skip,
            "block": iteration.block,
            "not_before": iteration.not_before,
            "max_products": iteration.max_products,
            "seen": np.array(iteration.seen or ()),
            "random": json.dumps(_random_state(iteration.random)),
            **{_OURS + name: value for name, value in self._operator.state().items()},
        }
        self._checkpoint.offer(
            lambda: small | {"basis": fetch(basis), "images": fetch(images), "panel": fetch(panel)},
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


# Names of what belongs to the operator.
_OURS = "operator_"


def _random_state(random: np.random.Generator) -> dict[str, Any]:
    """Of the bit generator, as JSON takes it."""
    return json.loads(json.dumps(random.bit_generator.state, default=lambda found: found.tolist()))
