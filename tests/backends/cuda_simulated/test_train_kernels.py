"""The kernels of training on Numba's simulator against the oracle, at sizes that fit no block.

NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/backends/cuda_simulated/test_train_kernels.py
"""

import numpy as np
import pytest

from lae_fast import losses, rules
from lae_fast.backends import formulas
from lae_fast.training.engine import RULE_CODES
from tests.oracle import loop_cases as cases
from tests.oracle import naive_autoencoder as naive
from tests.oracle import simulator

pytestmark = simulator.only

if simulator.SIMULATED:
    from lae_fast.backends.cuda import blas, launch
    from lae_fast.backends.cuda.training import coefficients, minibatch, step

DTYPES = [np.float32, np.float64]
RUNNING = np.zeros(2, np.int64)
ENDED = np.array([0, formulas.CONVERGED])
RULES = ["gradient", "rag", "oja", "gha", "alpha_eigengame", "mu_eigengame"]


def rounding(dtype):
    return 1e-4 if dtype is np.float32 else 1e-11


def run_coefficients(code, prefix, ridge, grams, side=0, with_sums=False, spread=None):
    """(P1, P3, Q3, diagonal, sums), all NaN where nothing was written; upper triangles of the Grams are not read."""
    p, dtype = len(prefix), grams[0].dtype
    lower = [np.tril(gram) + np.triu(np.full((p, p), np.nan, dtype), 1) for gram in grams]
    p1, p3, q3 = np.full((3, p, p), np.nan, dtype)
    diagonal = np.full(p, np.nan, dtype)
    grid, block = launch.over_entries(p, p)
    sums = np.full((grid[0] * grid[1], formulas.N_TRACES), np.nan)
    spread = np.ones(p + 2) if spread is None else spread
    coefficients.coefficients.launch(
        grid, block, code, side, code <= formulas.RAG or code >= formulas.VAE, with_sums, prefix.astype(dtype),
        dtype.type(ridge), spread, *lower, p1, p3, q3, diagonal, sums,
    )  # fmt: skip
    return p1, p3, q3, diagonal, sums.sum(axis=0)


def grams(p, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [(w @ w.T).astype(dtype) for w in rng.standard_normal((3, p, p + 3))]  # A'A, BB', G


@pytest.mark.parametrize("p", [1, 3, 6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rule", RULES)
def test_coefficients_are_those_of_the_rules(rule, dtype, p):
    outer, inner, latent = grams(p, dtype)
    loss = {"gradient": losses.mixed_l2(0.3, 0.4, 0.6), "rag": losses.mse()}.get(rule)
    ridge = loss.product_penalty if loss else 0.0
    prefix = np.ones(p) if loss is None else loss.prefix(p)
    p1, p3, q3, *_ = run_coefficients(RULE_CODES[rule], prefix, ridge, (outer, inner, latent))
    expected = rules.encoder_matrices(rule, loss, outer, latent)
    if rule == "alpha_eigengame":
        p1 = p1 - np.eye(p)  # its diagonal is taken in the step
    penalty = np.zeros(p) if loss is None else loss.row_penalty(p)
    for ours, theirs, taken in ((p1, expected.on_encoder_product, 0.0), (p3, expected.on_weights, 2 * penalty)):
        if theirs is not None and theirs.ndim == 2:
            np.testing.assert_allclose(
                ours + np.diag(np.broadcast_to(taken, p)), theirs, rtol=rounding(dtype), atol=1e-6
            )
    if loss is not None:
        found = rules.decoder_matrices(rule, loss, inner, latent).on_weights
        np.testing.assert_allclose(q3 + 2 * np.diag(penalty), found, rtol=rounding(dtype), atol=1e-6)
    if rule == "rag":
        np.testing.assert_array_equal(p3, -p3.T)  # skew to the last bit


@pytest.mark.parametrize("p", [1, 6])
def test_masks_are_those_of_the_oracle(p):
    outer, inner, latent = grams(p, np.float64)
    prefix = losses.ordered().prefix(p)
    p1, p3, q3, _, sums = run_coefficients(formulas.GRADIENT, prefix, 0.0, (outer, inner, latent), with_sums=True)
    np.testing.assert_allclose(p1, 2 * naive.masked_gram(outer, prefix), rtol=1e-14)
    np.testing.assert_allclose(q3, 2 * naive.masked_gram(latent, prefix), rtol=1e-14)
    assert np.isnan(p3).all()
    wanted = np.sum(naive.masked_gram(outer, prefix) * latent), 0.0, np.trace(latent), 0.0
    np.testing.assert_allclose(sums, wanted, rtol=1e-13)
    rotated = run_coefficients(formulas.RAG, np.ones(p), 0.0, (outer, inner, latent))[1]
    np.testing.assert_allclose(rotated, -naive.rotation(latent), rtol=1e-14)


def test_the_coefficients_of_the_vae_and_of_each_side():
    p = 5
    outer, inner, latent = grams(p, np.float64)
    spread = np.concatenate([np.linspace(0.5, 2.0, p), [0.7, 1 / 0.7]])
    ones = np.ones(p)
    p1, _, q3, diagonal, sums = run_coefficients(
        formulas.VAE, ones, 0.0, (outer, inner, latent), with_sums=True, spread=spread
    )
    np.testing.assert_allclose(p1, outer / 0.7 + np.eye(p), rtol=1e-13)
    np.testing.assert_allclose(q3, (latent + np.diag(spread[:p])) / 0.7, rtol=1e-13)
    np.testing.assert_allclose(diagonal, -1 / 0.7, rtol=1e-14)
    wanted = np.sum(outer * latent), 0.0, np.trace(latent), spread[:p] @ np.diagonal(outer)
    np.testing.assert_allclose(sums, wanted, rtol=1e-13)
    for side, untouched in ((coefficients.ENCODER, 2), (coefficients.DECODER, 0)):
        found = run_coefficients(formulas.GRADIENT, ones, 0.0, (outer, inner, latent), side)
        assert np.isnan(found[untouched]).all() and not np.isnan(found[2 - untouched]).any()


def run_step(name, sides, p, width, dtype, progress=RUNNING, with_cross=True):
    """The arrays of one step before and after it."""
    rng = np.random.default_rng(0)
    dense, product, weights, first, second = rng.standard_normal((5, sides, p, width)).astype(dtype)
    second = np.abs(second)
    on_product, penalty, prefix, on_weights = rng.uniform(0.1, 1.0, (4, p)).astype(dtype)
    before = [a.copy() for a in (weights, first, second)]
    chosen, rate, iteration = cases.OPTIMIZERS[name], 0.01, 3
    scalars = chosen.scalars
    biases = [formulas.one_minus_power(scalars[k], iteration + 1) for k in range(2)] if name == "adam" else (1.0, 1.0)
    schedule = np.array([[rate, rate / biases[0], 1.0 / biases[1]]])
    grid, block = launch.over_sides(sides, p, width)
    sums = np.full((sides, grid[0] * grid[1], formulas.N_SUMS), np.nan)
    row_sums = np.full((sides, grid[0], p, formulas.N_ROW_SUMS), np.nan)
    twin = np.full((p if sides == 1 else 0, width), np.nan, dtype)
    gram = np.diag(on_weights) if sides == 1 else np.zeros((0, 0), dtype)
    step.fused_steps[chosen.code].launch(
        grid, block, *(dtype(x) for x in (*scalars[:2], 1 - scalars[0], 1 - scalars[1], scalars[2])), schedule,
        progress, with_cross, width, dense.ravel(), product.ravel(), on_product, gram, penalty, prefix,
        *(part.reshape(-1) for part in (weights, first, second, twin)), sums, row_sums,
    )  # fmt: skip
    expected = []
    for side in range(sides):
        z = product[sides - 1 - side].astype(np.float64)
        w = before[0][side].astype(np.float64)
        g = dense[side] + on_product[:, None] * z + 2 * penalty[:, None] * w
        state = [part[side].astype(np.float64) for part in before[1:]]
        moved = naive.optimizer_step(name, w, g, state, rate, iteration)
        e = g + on_weights[:, None].astype(np.float64) * w if sides == 1 else g
        totals = np.sum(e**2), np.sum(w**2), np.sum(penalty[:, None] * w**2), np.sum(prefix[:, None] * z * w)
        of_rows = np.stack([np.sum(one * other, axis=1) for one, other in ((e, e), (e, w), (w, w))], axis=1)
        expected.append((moved, totals, of_rows))
    return expected, (weights, first, second), (sums, row_sums), twin, before


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (2, 9, 6), (1, 17, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", cases.OPTIMIZERS)
def test_fused_step(optimizer, dtype, shape):
    expected, (weights, *_), (sums, row_sums), twin, _ = run_step(optimizer, *shape, dtype)
    for side, (moved, totals, of_rows) in enumerate(expected):
        np.testing.assert_allclose(weights[side], moved, rtol=rounding(dtype), atol=rounding(dtype))
        np.testing.assert_allclose(sums[side].sum(axis=0), totals, rtol=rounding(dtype), atol=rounding(dtype))
        np.testing.assert_allclose(row_sums[side].sum(axis=0), of_rows, rtol=rounding(dtype), atol=rounding(dtype))
    if shape[0] == 1:
        np.testing.assert_array_equal(twin, weights[0])


def test_nothing_moves_once_the_run_has_ended():
    _, after, (sums, row_sums), _, before = run_step("adam", 2, 3, 5, np.float64, ENDED)
    for now, then in zip(after, before):
        np.testing.assert_array_equal(now, then)
    assert np.isnan(sums).all() and np.isnan(row_sums).all()
    w, other = np.ones((3, 5)), np.zeros((3, 5))
    step.normalise_rows.launch(*launch.over_lines(3), ENDED, w)
    step.couple.launch(*launch.over_entries(3, 5), ENDED, w, other)
    codes, rows = np.ones((3, 5)), np.full((2, 4), np.nan)
    minibatch.drop_units.launch(*launch.over_entries(3, 5), np.ones((1, 5), np.int64), codes[:0], ENDED, codes)
    index, roots = np.zeros((1, 2), np.int64), np.ones((1, 2))
    minibatch.gather.launch(
        *launch.over_lines(2), np.ones(8), 4, 1, index, np.zeros(4), roots, ENDED, rows, np.zeros(2)
    )
    assert (w == 1).all() and (codes == 1).all() and np.isnan(rows).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalise_and_couple(dtype):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((3, 11)).astype(dtype)
    w[1] = 0.0
    expected = naive.normalise_rows(w.astype(np.float64))
    step.normalise_rows.launch(*launch.over_lines(3), RUNNING, w)
    np.testing.assert_allclose(w, expected, rtol=rounding(dtype))
    encoder, decoder = rng.standard_normal((2, 3, 7)).astype(dtype)
    mean = (encoder + decoder) / 2
    step.couple.launch(*launch.over_entries(3, 7), RUNNING, encoder, decoder)
    np.testing.assert_allclose(encoder, mean, rtol=rounding(dtype))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("source", [np.float32, np.float64, np.uint8])
def test_gather(order, source):
    x = np.asarray(cases.data(np.float64)[0] * 20, dtype=source, order=order)
    line, entry = (stride // x.itemsize for stride in x.strides)
    index, shift = np.array([[0, 0, 0, 0], [3, 1, 29, 3]]), np.linspace(0, 1, cases.D)
    weights = np.linspace(0.5, 2.0, cases.M)
    rows, squares = np.full((4, cases.D), np.nan), np.full(4, np.nan)
    minibatch.gather.launch(
        *launch.over_lines(4), x.ravel(order), line, entry, index, shift, np.sqrt(2.0 * weights)[index],
        np.array([1, formulas.RUNNING]), rows, squares,
    )  # fmt: skip
    expected = naive.naive_batch(x, index[1], shift, np.sqrt(2.0), weights)
    np.testing.assert_allclose(rows, expected, rtol=1e-12)
    np.testing.assert_allclose(squares, np.sum(expected**2, axis=1), rtol=1e-12)


def test_drop_units():
    rng = np.random.default_rng(0)
    codes, taken = rng.standard_normal((2, 5, 9))
    kept = np.array([[5] * 9, rng.integers(1, 6, 9)])
    expected = np.where(np.arange(5)[:, None] < kept[1], codes - taken, 0.0)
    minibatch.drop_units.launch(*launch.over_entries(5, 9), kept, taken, np.array([1, formulas.RUNNING]), codes)
    np.testing.assert_allclose(codes, expected)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_batched_products(transposed, add):
    rng = np.random.default_rng(0)
    a, b, out = rng.standard_normal((4, 3, 5)), rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 3, 4))
    given = np.ascontiguousarray(b.transpose(0, 2, 1)) if transposed else b
    expected = np.stack([a[0] @ b[0], a[3] @ b[1]]) + (out if add else 0.0)
    blas.batched(a[0::3], given, out, transposed, add)
    np.testing.assert_allclose(out, expected, rtol=1e-13)
