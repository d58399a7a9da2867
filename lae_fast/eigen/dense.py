"""Leading eigenpairs of a symmetric matrix in memory: block Krylov where few are wanted, verified; LAPACK otherwise."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import lapack

from .. import plan
from ..backends import host_panels
from ..backends.threads import lapack_threads, serial_blas
from ..operators.dense import DenseOperator, inverse_deviations
from ..operators.moments import Moments
from . import krylov

# Up to this order LAPACK in float64 takes no longer than in float32 with the settling that this needs.
_DOUBLE_ORDER = 64
_EPS = float(np.finfo(np.float64).eps)
# Steps of `settle`: their error squares from one to the next, from one half at the worst.
_SETTLING_STEPS = 7
# A variance in scaled units below this has lost digits when it came from float32 rows.
_LEAST_FLOAT32 = 2.0**-100


def leading_eigenpairs(
    operator: DenseOperator, count: int | None, wanted: krylov.Wanted, tolerance: krylov.Tolerance
) -> tuple[np.ndarray, np.ndarray]:
    """Values (p,) descending and vectors (n, p), float64.

    operator : its dtype is that of the iteration: float32 where the data was, so that products cost half
    count : p where it is known; None where `wanted` decides from the spectrum
    tolerance : of the iteration's residuals

    Few of many are found by block Krylov on the matrix and accepted only when a Cholesky factorisation proves that no
    larger eigenvalue was missed: with the found ones deflated, l_p I - S must be positive definite.
    """
    used = operator.matrix.diagonal() > 0.0
    n_used = np.count_nonzero(used)
    if 0.05 * used.size < used.size - n_used < used.size and count is not None and count <= n_used:
        # features that never vary are zero rows and columns: the others are a smaller problem
        matrix = operator.matrix[np.ix_(used, used)]
        smaller = DenseOperator(matrix, scale=operator.scale, itemsize=operator.itemsize, panels=operator.panels)
        values, few = leading_eigenpairs(smaller, count, wanted, tolerance)
        vectors = np.zeros((operator.dim, few.shape[1]))
        vectors[used] = few
        return values, vectors
    n = operator.dim
    is_few = count is None or count <= n // 5
    if n > plan.SMALL_DENSE and is_few:
        block = 32 if count is None else int(np.clip(count // 2 + 8, 16, 64))
        limits = krylov.Limits(block, max_basis=max(n // 2, 4 * block), max_products=60)
        pairs = krylov.block_krylov(operator, wanted, tolerance, limits)
        if pairs is not None and pairs.converged and (pairs.complete or _nothing_missed(operator, pairs)):
            return pairs.values, pairs.vectors
    return _lapack(operator, count, wanted)


def of_moments(moments: Moments, standardize: bool, panels: Any) -> DenseOperator:
    """The operator of moments, standardized or not; `panels` of the backend that multiplies."""
    matrix, scale = moments.scaled_xx()
    if standardize:
        variances = matrix.diagonal() / max(moments.weight_sum, 1.0)
        if moments.dtype.itemsize == 4 and ((variances > 0) & (variances < _LEAST_FLOAT32)).any():
            column = int(np.argmin(np.where(variances > 0, variances, np.inf)))
            raise ValueError(
                f"Column {column} of X varies so much less than others that its squares have left the range of "
                "float32, and standardize=True needs them: gather the moments of float64 rows, or scale the features "
                "first."
            )
        inverse = inverse_deviations(matrix.diagonal(), moments.weight_sum)
        matrix, scale = matrix * inverse[:, None] * inverse, 1.0
    return DenseOperator(matrix, scale=scale, itemsize=moments.dtype.itemsize, panels=panels)


def _nothing_missed(operator: DenseOperator, pairs: krylov.RitzPairs) -> bool:
    margin = 16 * operator.dim * np.finfo(np.float64).eps * pairs.values[0] + 2 * float(pairs.estimates.max())
    level = pairs.values[-1] + margin
    return operator.panels.deflated_is_positive(operator.placed(), pairs.values, pairs.vectors, level)


def _lapack(operator: DenseOperator, count: int | None, wanted: krylov.Wanted) -> tuple[np.ndarray, np.ndarray]:
    n = operator.dim
    if operator.itemsize == 4 and count is not None and not is_solved_in_double(operator, count):
        found = _lapack_single(operator, count)
        if found is not None:
            return found
    if n <= _DOUBLE_ORDER:
        with serial_blas():
            values, vectors = _all(operator.matrix)
    elif count is None or count > n // 2:
        values, vectors = operator.panels.eigh(operator.matrix)
    else:
        with lapack_threads(n):
            values, vectors = largest(operator.matrix, count)
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    if count is None:
        count = wanted(values, operator.trace) or n
    return values[:count], np.ascontiguousarray(vectors[:, :count])


def is_solved_in_double(operator: DenseOperator, count: int | None) -> bool:
    """Whether LAPACK takes float64 for an operator that multiplies in float32: then its own rounding does not count."""
    n = operator.dim
    return operator.itemsize == 4 and n <= plan.SMALL_DENSE and (n <= _DOUBLE_ORDER or count is None or count > n // 2)


def _lapack_single(operator: DenseOperator, count: int) -> tuple[np.ndarray, np.ndarray] | None:
    """LAPACK in float32, a third of the time; None where float32 is too coarse for the smallest of the values.

    Its results are off by two or three eps l_1; `settle` brings them to the accuracy of the float64 matrix.
    """
    with lapack_threads(operator.dim):
        values, vectors = largest(operator.matrix.astype(np.float32), count)
    if not values[0] > np.sqrt(np.finfo(np.float32).eps) * values[-1]:
        return None
    return values[::-1].astype(np.float64), np.ascontiguousarray(vectors[:, ::-1], dtype=np.float64)


def largest(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenpairs by LAPACK, ascending.

    Of a matrix near a multiple of the identity LAPACK may return fewer than were asked for: then all are computed.
    """
    n = matrix.shape[0]
    routine, sizes = (lapack.ssyevr, "f") if matrix.dtype == np.float32 else (lapack.dsyevr, "d")
    lwork, liwork = _workspace(sizes, n)
    values, vectors, found, _, info = routine(
        matrix.T, range="I", il=n - count + 1, iu=n, lower=1, lwork=lwork, liwork=liwork
    )
    if found == count and not info:
        return values[:count], vectors
    values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
    return values[n - count :], vectors[:, n - count :]


@functools.cache
def _workspace(kind: str, n: int) -> tuple[int, int]:
    """What LAPACK's syevr wants; asking it each time takes longer than a small problem."""
    query = lapack.ssyevr_lwork if kind == "f" else lapack.dsyevr_lwork
    lwork, liwork, _ = query(n, lower=1)
    return int(lwork), int(liwork)


def _all(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All eigenpairs of a small matrix of float64 by LAPACK, ascending; without the checks of scipy.linalg.eigh."""
    values, vectors, info = lapack.dsyevd(matrix.T, lower=1)
    return scipy.linalg.eigh(matrix, driver="ev", check_finite=False) if info else (values, vectors)


def graded_eigenpairs(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs of a p x p Gram matrix whose diagonal spans many orders, small ones to relative accuracy.

    Scaled to unit diagonal, factored, and the factor's SVD taken by one-sided Jacobi (Demmel and Veselic 1992), because
    an eigensolver would lose everything under eps times the largest.  Values descending, vectors in columns.
    """
    root = np.sqrt(np.maximum(gram.diagonal(), 0.0))
    root[root == 0.0] = 1.0
    with serial_blas():
        spread, axes = scipy.linalg.eigh(gram / np.multiply.outer(root, root))
        factor = root[:, None] * axes * np.sqrt(np.maximum(spread, 0.0))
        order = np.argsort(-root, kind="stable")
        singular, left, _, work, _, info = scipy.linalg.lapack.dgejsv(factor[order], joba=0, jobu=0, jobv=3)
        if info != 0:
            left, singular, _ = scipy.linalg.svd(factor[order])
            work = np.ones(2)
    vectors = np.empty_like(left)
    vectors[order] = left
    values = (singular * work[0] / work[1]) ** 2
    ranked = np.argsort(-values, kind="stable")
    return values[ranked], vectors[:, ranked]


def settle(vectors: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`settling` carried out: values, vectors, images, float64."""
    values, turn = settling(vectors, images)
    return values, host_panels.multiply(vectors, turn), host_panels.multiply(images, turn)


def settling(vectors: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Newton steps of orthonormality and Rayleigh-Ritz within the span: values (p,), and (p, p) that turns the vectors.

    Takes out what an eigensolver's own rounding left, a few tens of eps l_1 (Ogita and Aishima 2018, Algorithm 1).  One
    step is enough unless eigenvalues are so close that it turns their vectors by more than the root of eps: its error,
    the square of the turn, is then taken out by further steps on the small matrices.
    vectors, images : (n, p), images = S vectors.  About 4 n p^2 flops.
    """
    gram, small = host_panels.cross(vectors, vectors), host_panels.cross(vectors, images)
    identity = np.eye(gram.shape[0])
    turn, budget = identity, _SETTLING_STEPS
    with serial_blas():
        for _ in range(_SETTLING_STEPS):
            step = _settling_step(gram, 0.5 * (small + small.T))
            turn, gram, small = _turned(identity + step, turn, gram, small)
            if np.abs(step).max(initial=0.0) <= math.sqrt(_EPS):
                break
        level = 4.0 * _EPS * math.sqrt(turn.shape[0])
        # clusters may keep turning at the level of rounding: what counts is to stop with Q'Q = I
        while np.abs(excess := identity - gram).max(initial=0.0) > level and budget > 0:
            turn, gram, small = _turned(identity + 0.5 * excess, turn, gram, small)
            budget -= 1
    return np.maximum(small.diagonal() / gram.diagonal(), 0.0), turn


def _turned(once: np.ndarray, turn: np.ndarray, gram: np.ndarray, small: np.ndarray) -> tuple[np.ndarray, ...]:
    return turn @ once, once.T @ gram @ once, once.T @ small @ once


def _settling_step(gram: np.ndarray, small: np.ndarray) -> np.ndarray:
    """First-order correction (p, p) of the basis whose Gram and S-Gram these are."""
    values = np.maximum(small.diagonal() / gram.diagonal(), 0.0)
    excess = -gram
    excess.flat[:: values.size + 1] += 1.0
    off = small.copy()
    off.flat[:: values.size + 1] = 0.0
    gaps = values - values[:, None]
    close = np.abs(gaps) <= 2.0 * (_longest(off) + _longest(excess) * values.max())
    gaps[close] = 1.0
    return np.where(close, 0.5 * excess, (small + values * excess) / gaps)


def _longest(matrix: np.ndarray) -> float:
    """The norm of the longest column."""
    return math.sqrt(np.einsum("ij,ij->j", matrix, matrix).max())
