"""The three ways a linear autoencoder is moved: the compiled loop, exact alternation, chains of layers.

An engine holds the weights and advances them; when to record, stop or give up is train.py's business.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import linalg

from .. import losses, optimizers, rules
from ..backends import formulas
from ..backends.cpu import jit
from ..backends.cpu.training import barrier, packed_gemm, state
from ..backends.cpu.training import loop as iterate
from ..backends.threads import Team, get_num_threads, serial_blas
from ..losses import _family as family
from . import alternating
from .problem import BatchReader, MomentProblem, Problem, RowProblem

_RULE_CODES = {
    "gradient": formulas.GRADIENT,
    "rag": formulas.RAG,
    "oja": formulas.OJA,
    "gha": formulas.GHA,
    "alpha_eigengame": formulas.ALPHA,
    "mu_eigengame": formulas.MU,
}
_COUPLING_CODES = {"untied": formulas.UNTIED, "synchronised": formulas.SYNCHRONISED, "tied": formulas.TIED}


@dataclass(frozen=True)
class Outcome:
    """Of a call of `advance`: iterations done, how it ended, the last max |direction| / |W|, the loss on entry."""

    done: int
    converged: bool
    diverged: bool
    ratio: float
    loss: float


@dataclass(frozen=True)
class Plan:
    """What to run: resolved objects of losses, rules and optimizers.

    tolerance : relative, of every component on its own scale (docs/math.md Eq. 46); negative never stops
    rounding : what rounding leaves of products with Sxy and with Sxx, absolute
    negligible : the size of a component that counts as nothing
    patience : iterations in a row that must be within the tolerance
    """

    rule: rules.Rule
    loss: losses.Loss | None
    optimizer: optimizers.Optimizer | None
    coupling: str
    scale: str
    tolerance: float
    rounding: tuple[float, float] = (0.0, 0.0)
    negligible: float = 0.0
    patience: int = 1


class LoopEngine:
    """Every iterative rule, by the compiled loop of cpu/training/loop.py.

    Parameters
    ----------
    problem, plan
    encoder : (p, d);  decoder : (p, q), A', or None for rules without one
    reader : mini-batches, or None for full batch
    rng : draws the masks of stochastic nested dropout
    """

    def __init__(
        self,
        problem: Problem,
        plan: Plan,
        encoder: np.ndarray,
        decoder: np.ndarray | None,
        reader: BatchReader | None = None,
        rng: Any = None,
    ) -> None:
        self.problem, self.plan, self.reader, self._rng = problem, plan, reader, rng
        dtype = problem.dtype
        if plan.rule.normalises_rows:
            encoder = rules.normalise_rows(encoder)
        if decoder is None:
            decoder = np.zeros((0, problem.q), dtype)
        if plan.coupling == "tied":
            encoder = decoder.copy()
        elif plan.coupling == "synchronised":
            encoder = decoder = (encoder + decoder) * 0.5
        self._calm = 0.0  # iterations in a row within the tolerance
        self._set_up(np.ascontiguousarray(encoder, dtype), np.ascontiguousarray(decoder, dtype))

    def _set_up(self, encoder: np.ndarray, decoder: np.ndarray) -> None:
        """Everything that follows from problem, plan and weights."""
        self._spec = self._make_spec(decoder.shape[0] > 0)
        self.state = state.new_state(encoder, decoder, self.problem.same)
        self._data = self._make_data(encoder.shape[0])
        # Without compiled code the barrier is empty, so there is one thread.
        self._team = Team(1 if jit.JIT_DISABLED else min(get_num_threads(), len(state.blocks(self.problem.d)) - 1))
        self.resize(0 if self.reader is None else self.reader.size)
        self._no_rows = self.prepared_rows(None)

    def __getstate__(self) -> dict[str, Any]:
        """What training has changed, and what it was asked for; threads, workspace and the last batch stay behind."""
        return {"problem": self.problem, "plan": self.plan, "rng": self._rng, "state": tuple(self.state)}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.problem, self.plan, self._rng, self.reader = kept["problem"], kept["plan"], kept["rng"], None
        self._calm = 0.0
        trained = state.State(*kept["state"])
        self._set_up(trained.encoder, trained.decoder)
        for part, old in zip(self.state, trained):
            part[...] = old

    @property
    def encoder(self) -> np.ndarray:
        """B (p, d)."""
        return self.state.encoder

    @property
    def decoder(self) -> np.ndarray:
        """A' (p, q); the encoder itself for rules with one matrix."""
        return self.state.decoder if self._spec.has_decoder else self.state.encoder

    @property
    def extra(self) -> np.ndarray:
        """(3, p + 1): e and log s^2 of the VAE, and their states."""
        return self.state.extra

    def snapshot(self) -> list[np.ndarray]:
        """Copies of all that training changes."""
        return [np.array(part) for part in self.state]

    def restore(self, saved: list[np.ndarray]) -> None:
        """Take back a snapshot."""
        for part, old in zip(self.state, saved):
            part[...] = old

    def resize(self, batch: int) -> None:
        """Allocate the workspace for batches of this size."""
        self._work = state.workspace(self.state, self._spec, self._data, self._team.size, batch)

    def watch(self, on: bool) -> None:
        """Whether to stop within the tolerance, from now on."""
        self._calm = 0.0
        self._spec = self._spec._replace(tolerance=float(self.plan.tolerance) if on else -1.0)

    @property
    def workspace_bytes(self) -> int:
        """Bytes of weights, optimizer states, workspace and the second copy of S."""
        return self._data.panels.nbytes + sum(a.nbytes for a in (*self._work, *self.state) if a.base is None)

    @property
    def most(self) -> int | None:
        """Iterations that one call may take; None for any number."""
        if self.reader is not None:
            return self.reader.most
        return None if isinstance(self.problem, MomentProblem) else 1

    def __enter__(self) -> LoopEngine:
        self._team.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._team.__exit__(*error)

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """Run `count` iterations, the first one number `first_iteration`; with_loss asks for the loss on entry."""
        rows = self._no_rows if self.reader is None else self.prepared_rows(self.reader.next_rows(count))
        rates = np.atleast_1d(self.plan.optimizer.rate(np.arange(first_iteration, first_iteration + count)))
        return self.iterate(first_iteration, rates, with_loss, rows)

    def iterate(self, first_iteration: int, rates: np.ndarray, with_loss: bool, rows: state.Rows) -> Outcome:
        """`advance` with given rates (n,) float64 and prepared rows: the team runs the compiled loop once."""
        if self._spec.product == formulas.GIVEN:
            self._give_products()
        shared, outcome = barrier.shared_state(), np.zeros(5)
        outcome[4] = self._calm

        def work(k: int) -> None:
            iterate.iterate(
                k, self._team.size, shared, self._spec, self._data, rows, self.state, self._work, first_iteration,
                rates, with_loss, outcome,
            )  # fmt: skip

        self._team.run(work, lambda: barrier.abort(shared))
        done, status, ratio, loss, self._calm = outcome
        return Outcome(int(done), status == formulas.CONVERGED, status == formulas.DIVERGED, float(ratio), float(loss))

    def _give_products(self) -> None:
        zb, za, zxy = self.problem.products(self.state.encoder, self.state.decoder)
        self._work.encoder_product[:] = zb
        if self._spec.has_decoder:
            self._work.decoder_product[:] = za
        if not self.problem.same:
            self._work.target_product[:] = zxy

    def _make_spec(self, has_decoder: bool) -> state.Spec:
        plan = self.plan
        code = _RULE_CODES[plan.rule.name]
        ridge = 0.0
        if plan.loss is not None and plan.loss.name == "vae":
            code = formulas.VAE
        elif plan.loss is not None and plan.loss.needs_samples:
            code = formulas.DROPOUT
        elif plan.loss is not None:
            ridge = float(plan.loss.product_penalty)
        product = formulas.MOMENTS if isinstance(self.problem, MomentProblem) else formulas.GIVEN
        if self.reader is not None or not self.problem.has_data:
            product = formulas.ROWS  # a problem without its data goes on with batches that are given to it
        return state.Spec(
            code,
            plan.optimizer.code,
            _COUPLING_CODES[plan.coupling if has_decoder else "untied"],
            bool(getattr(plan.rule, "sequential", False)),
            self.problem.same,
            has_decoder,
            product,
            ridge,
            float(plan.tolerance),
            (float(plan.rounding[0]), float(plan.rounding[1])),
            float(plan.negligible),
            int(plan.patience),
            np.array(plan.optimizer.scalars, dtype=np.float64),
        )

    def _make_data(self, p: int) -> state.Data:
        dtype, loss = self.problem.dtype, self.plan.loss
        empty = np.zeros((0, 0), dtype)
        in_family = loss is not None and loss.in_family
        prefix = loss.prefix(p, dtype) if in_family else np.ones(p, dtype)
        penalty = loss.row_penalty(p, dtype) if in_family else np.zeros(p, dtype)
        moments = isinstance(self.problem, MomentProblem)
        return state.Data(
            self.problem.sxx if moments else empty,
            self.problem.sxy if moments else empty,
            float(self.problem.yy_trace),
            prefix,
            penalty,
            self._panels(dtype),
        )

    def _panels(self, dtype: np.dtype) -> np.ndarray:
        """S in the order of `skinny.multiply`, where one product per iteration takes all weights and BLAS is slower."""
        spec = self._spec
        whole = (
            spec.product == formulas.MOMENTS and spec.same and not spec.sequential and spec.coupling != formulas.TIED
        )
        if whole and packed_gemm.pays(self.state.stack.shape[0]):
            return packed_gemm.pack_panels(self.problem.sxx)
        return np.zeros((0, 0, 0), dtype)

    @property
    def n_threads(self) -> int:
        """Threads of the team; it does not change the result."""
        return self._team.size

    def prepared_rows(self, rows: np.ndarray | None) -> state.Rows:
        """What the loop reads in these batches; types are the same with and without batches, so it compiles once."""
        dtype = self.problem.dtype
        nothing = np.zeros(0, dtype)
        nothing.flags.writeable = False
        shift, shift_y = self.problem.mean.astype(dtype), self.problem.mean_y.astype(dtype)
        none = np.zeros((0, 0), np.int64)
        if rows is None:
            return state.Rows(
                nothing, (0, 1), shift, nothing, (0, 1), shift_y, 1.0, np.zeros(0), none, none, np.zeros(0)
            )
        memory, index, weights = self.reader.arrays(rows)
        (x, x_strides), (y, y_strides) = memory[0], memory[-1] if len(memory) > 1 else (nothing, (0, 1))
        kept = none
        if self._spec.rule == formulas.DROPOUT:
            p = self.state.encoder.shape[0]
            kept = self.plan.loss.sample(rows.size, p, self._rng).reshape(rows.shape)
        factors = self.reader.factors(rows, self.plan.scale)
        return state.Rows(x, x_strides, shift, y, y_strides, shift_y, 1.0, weights, index, kept, factors)


class _PlainEngine:
    """What the engines without a compiled loop share: the products come from the problem or from a batch."""

    def __init__(self, problem: Problem, plan: Plan, reader: BatchReader | None) -> None:
        self.problem, self.plan, self.reader = problem, plan, reader
        self.most = 1
        self.workspace_bytes = 0
        self._calm, self._watches = 0, True
        self._blas: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the last batch."""
        return vars(self) | {"reader": None, "_blas": None}

    def __enter__(self) -> Any:
        self._blas = serial_blas()
        self._blas.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._blas.__exit__(*error)

    def snapshot(self) -> Any:
        """Copies of the weights."""
        return np.array(self.encoder), np.array(self.decoder)

    def restore(self, saved: Any) -> None:
        """Take back a snapshot."""
        self.encoder, self.decoder = saved

    def _products(self, encoder: np.ndarray, decoder: np.ndarray) -> tuple[Any, Any, Any, float]:
        """(B Sxx, A'Syx, B Sxy, tr Syy) of all data or of the next batch."""
        if self.reader is None:
            return (*self.problem.products(encoder, decoder), self.problem.yy_trace)
        rows = self.reader.next_rows(1)
        memory, index, weights = self.reader.arrays(rows)
        means = (self.problem.mean, self.problem.mean_y)
        dense = []
        for (flat, (line, entry)), mean in zip(memory, means):
            places = index[0][:, None] * line + np.arange(len(mean)) * entry
            block = flat[places].astype(self.problem.dtype) - mean.astype(self.problem.dtype)
            if weights.size:
                block *= np.sqrt(weights[index[0]])[:, None].astype(self.problem.dtype)
            dense.append(block)
        x, y = dense[0], dense[-1]
        factor = self.problem.dtype.type(self.reader.factors(rows, self.plan.scale)[0])
        with serial_blas():
            codes, targets = factor * (encoder @ x.T), factor * (decoder @ y.T)
            zb = codes @ x
            za = targets @ x
            zxy = zb if self.problem.same else codes @ y
        return zb, za, zxy, float(factor * np.sum(y.astype(np.float64) ** 2))

    def _family(self, encoder: np.ndarray, decoder: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(loss, dB (p, d), dA' (p, q)) at these weights  (docs/math.md Eq. 5 to 7)."""
        zb, za, zxy, yy_trace = self._products(encoder, decoder)
        with serial_blas():
            latent, outer, inner = zb @ encoder.T, decoder @ decoder.T, encoder @ encoder.T
            latent = (latent + latent.T) * latent.dtype.type(0.5)
            value = family.family_value(
                self.plan.loss,
                yy_trace=yy_trace,
                cross=np.einsum("ij,ij->i", zxy, decoder, dtype=np.float64),
                gram_decoder=outer,
                gram_latent=latent,
                gram_encoder=inner,
            )
            of_encoder = rules.encoder_matrices("gradient", self.plan.loss, outer, latent)
            of_decoder = rules.decoder_matrices("gradient", self.plan.loss, inner, latent)
            db = rules.apply(of_encoder, zb, za, encoder)
            da = rules.apply(of_decoder, zxy, None, decoder)
        self._count_still(encoder, decoder, db, da, np.diagonal(latent), yy_trace)
        return value, db, da

    def _count_still(self, encoder: Any, decoder: Any, db: Any, da: Any, latent: Any, yy_trace: float) -> None:
        """Count this iteration if every component is within the tolerance; a batch without mass says nothing."""
        if self._watches and self.plan.tolerance >= 0.0 and (self.reader is None or yy_trace > 0.0):
            still = all_still(self.plan, encoder, decoder, db, da, latent)
            self._calm = self._calm + 1 if still else 0

    def watch(self, on: bool) -> None:
        """Whether to stop within the tolerance, from now on."""
        self._calm, self._watches = 0, on

    @property
    def _arrived(self) -> bool:
        return 0 < self.plan.patience <= self._calm


def all_still(plan: Plan, encoder: Any, decoder: Any, db: Any, da: Any, latent: Any) -> bool:
    """Whether every component has arrived  (docs/math.md Eq. 46), as cpu/training/decisions.py has it in the loop.

    encoder, db : (p, d) B and its gradient;  decoder, da : (p, q) A' and its gradient;  latent : (p,) G_ii
    """
    squares = [
        tuple(np.einsum("ij,ij->i", one, other, dtype=np.float64) for one, other in ((g, g), (g, w), (w, w)))
        for g, w in ((db, encoder), (da, decoder))
    ]
    prefix, penalty = plan.loss.prefix(len(encoder)), plan.loss.row_penalty(len(encoder))
    for i in reversed(range(len(encoder))):
        own = (squares[1][2][i], squares[0][2][i])
        size = formulas.component_size(prefix[i], plan.loss.product_penalty, *own, float(latent[i]))
        rounding = formulas.rounding_size(prefix[i], *own, *plan.rounding)
        for gradient, along, weight in squares:
            if not formulas.is_still(
                gradient[i], along[i], weight[i], size, penalty[i], plan.tolerance, rounding, plan.negligible
            ):
                return False
    return True


class AlternatingEngine(_PlainEngine):
    """Exact minimisation over the encoder, then over the decoder  (docs/math.md Eq. 13 to 15).

    For Y = X and no penalty an iteration is one product with S and two Cholesky solves of order p.
    """

    def __init__(self, problem: MomentProblem, plan: Plan, encoder: np.ndarray, decoder: np.ndarray) -> None:
        # In float64 whatever the data: solves of order p lose what the products gain in float32.
        sxx, empty = problem.moments.xx * problem.factor, np.zeros((0, 0))
        sxy = empty if problem.same else problem.moments.xy * problem.factor
        problem = dataclasses.replace(problem, dtype=np.dtype(np.float64), sxx=sxx, sxy=sxy)
        super().__init__(problem, plan, None)
        self.encoder, self.decoder = encoder.astype(problem.dtype), decoder.astype(problem.dtype)
        p = encoder.shape[0]
        self._prefix = plan.loss.prefix(p)
        self._penalty = float(plan.loss.row_penalty(p)[0])
        self._spectrum = linalg.eigh(sxx) if self._penalty else None
        self._whitened = None if problem.same or self._penalty else alternating.symmetric_solve(sxx, sxy)

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """Solve for B, then for A; the ratio is |dL/dB| / |B|, since dL/dA = 0 by then."""
        value, db, da = self._family(self.encoder, self.decoder)
        ratio = max(_relative(db, self.encoder), _relative(da, self.decoder))
        if self._arrived:
            return Outcome(0, True, False, ratio, value)
        encoder = self._solve_encoder(self.decoder.astype(np.float64))
        self.encoder = encoder.astype(self.problem.dtype)
        zb, _, zxy = self.problem.products(self.encoder, self.decoder)
        latent = zb.astype(np.float64) @ self.encoder.T
        system = rules.masked_gram((latent + latent.T) * 0.5, self._prefix) + self._penalty * np.eye(len(latent))
        self.decoder = cholesky_solve(system, self._prefix[:, None] * zxy).astype(self.problem.dtype)
        self._balance()
        finite = bool(np.isfinite(self.encoder).all() and np.isfinite(self.decoder).all())
        return Outcome(1, False, not finite, ratio, value)

    def _balance(self) -> None:
        """Give row i of B and of A' one length: without a penalty only their product counts, and a start far from
        balance would leave gradients that are small for that reason alone."""
        if self._penalty:
            return
        lengths = np.linalg.norm(self.encoder, axis=1), np.linalg.norm(self.decoder, axis=1)
        usable = (lengths[0] > 0) & (lengths[1] > 0)
        share = np.sqrt(np.where(usable, lengths[1], 1.0) / np.where(usable, lengths[0], 1.0))[:, None]
        self.encoder, self.decoder = self.encoder * share, self.decoder / share

    def _solve_encoder(self, decoder: np.ndarray) -> np.ndarray:
        gram = decoder @ decoder.T
        if self._penalty:
            values, vectors = self._spectrum
            inner, rotation = linalg.eigh(gram)
            target = self.problem.products(self.encoder, decoder.astype(self.problem.dtype))[1].astype(np.float64)
            rotated = rotation.T @ target @ vectors
            below = np.maximum(inner, 0.0)[:, None] * np.maximum(values, 0.0) + self._penalty
            return rotation @ (rotated / below) @ vectors.T
        right = decoder if self.problem.same else decoder @ self._whitened.T
        return cholesky_solve(rules.masked_gram(gram, self._prefix), self._prefix[:, None] * right)


def cholesky_solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """x of matrix x = right for a symmetric positive (semi)definite (p, p) matrix, float64.

    Cholesky on the matrix scaled to unit diagonal; the least-norm solution where that finds no positive pivot of any
    accuracy (dependent columns under mse, zero components).
    """
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 0.0))
    if (scale > 0).all():
        inverse = 1.0 / scale
        try:
            factor = linalg.cholesky(matrix * inverse[:, None] * inverse, lower=True)
        except linalg.LinAlgError:
            return alternating.symmetric_solve(matrix, right)
        # The least pivot bounds the condition from below; under it the solution would be noise.
        if np.diagonal(factor).min() ** 2 > len(matrix) * 1e-12:
            return inverse[:, None] * linalg.cho_solve((factor, True), inverse[:, None] * right)
    return alternating.symmetric_solve(matrix, right)


class ChainEngine(_PlainEngine):
    """Chains of linear layers: the gradient of the products A and B, carried to each layer  (docs/math.md Eq. 10).

    layers : B_1 (h, d), ..., B_n (p, h), then A_1 (h, p), ..., A_n (q, h)
    """

    def __init__(
        self, problem: Problem, plan: Plan, layers: list[np.ndarray], n_encoder: int, reader: BatchReader | None
    ) -> None:
        super().__init__(problem, plan, reader)
        self.layers = [np.array(layer, dtype=problem.dtype) for layer in layers]
        self.n_encoder = n_encoder
        self._states = [[np.zeros_like(w) for _ in range(plan.optimizer.n_states)] for w in self.layers]

    def snapshot(self) -> list[np.ndarray]:
        """Copies of the layers."""
        return [np.array(layer) for layer in self.layers]

    def restore(self, saved: list[np.ndarray]) -> None:
        """Take back a snapshot."""
        self.layers = saved

    @property
    def encoder(self) -> np.ndarray:
        """The product B (p, d)."""
        return chain(self.layers[: self.n_encoder])

    @property
    def decoder(self) -> np.ndarray:
        """The product's transpose A' (p, q)."""
        return np.ascontiguousarray(chain(self.layers[self.n_encoder :]).T)

    def advance(self, first_iteration: int, count: int, with_loss: bool) -> Outcome:
        """One step of all layers by the gradients at the old ones."""
        value, db, da = self._family(self.encoder, self.decoder)
        with serial_blas():
            gradients = chain_gradients(self.layers, self.n_encoder, da.T, db)
        ratio = max(_relative(g, w) for g, w in zip(gradients, self.layers))
        if not np.isfinite(ratio):
            return Outcome(1, False, True, ratio, value)
        if self._arrived:
            return Outcome(0, True, False, ratio, value)
        for weights, gradient, states in zip(self.layers, gradients, self._states):
            optimizers.step(self.plan.optimizer, weights, gradient, states, first_iteration)
        return Outcome(1, False, False, ratio, value)


def chain(layers: list[np.ndarray]) -> np.ndarray:
    """layers[-1] ... layers[0]."""
    product = layers[0]
    with serial_blas():
        for layer in layers[1:]:
            product = layer @ product
    return product


def chain_gradients(layers: list[np.ndarray], n_encoder: int, da: np.ndarray, db: np.ndarray) -> list[np.ndarray]:
    """Gradient of each layer from those of the products  (docs/math.md Eq. 10).

    da : (q, p);  db : (p, d).  Naive twin: oracle/naive_autoencoder.py::deep_gradients.
    """
    out = []
    for first, last, outer in ((0, n_encoder, db), (n_encoder, len(layers), da)):
        for i in range(first, last):
            value = outer
            if i + 1 < last:
                value = chain(layers[i + 1 : last]).T @ value
            if i > first:
                value = value @ chain(layers[first:i]).T
            out.append(value)
    return out


def _relative(gradient: np.ndarray, weights: np.ndarray) -> float:
    length = float(np.linalg.norm(weights.astype(np.float64)))
    size = float(np.linalg.norm(gradient.astype(np.float64)))
    return size / length if length > 0 else size


__all__ = [
    "AlternatingEngine",
    "ChainEngine",
    "LoopEngine",
    "Outcome",
    "Plan",
    "RowProblem",
    "chain",
    "chain_gradients",
    "cholesky_solve",
]
