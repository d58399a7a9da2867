"""Moments: exact at any mean and scale, mergeable over any partition, weighted."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from lae_fast.data import sources
from lae_fast.operators.moments import Moments
from lae_fast.operators.pilot import coarse, pilot_view
from tests.oracle import cases, naive
from tests.oracle.tolerances import eps, tolerance

REAL = [np.float32, np.float64]


def assert_moments(found, X, weights=None, center=True, units=1.0):
    """Every entry of xx within the tolerance of sqrt(S_ii S_jj); mean within that of the deviations; totals right."""
    total, mean, scatter = naive.moments(X, weights, center)
    root = np.sqrt(scatter.diagonal())
    relative = units * tolerance("moment", found.dtype)
    limit = relative * np.multiply.outer(root, root) + 8 * eps(np.float64) * len(X) * mean.max() ** 2 * eps(np.float64)
    assert np.abs(found.xx - scatter).max() <= limit.max()
    assert (np.abs(found.xx - scatter) <= limit).all()
    np.testing.assert_array_equal(found.xx, found.xx.T)
    np.testing.assert_allclose(
        found.mean, mean, rtol=4 * eps(np.float64), atol=relative * (root / np.sqrt(total)).max()
    )
    assert found.weight_sum == pytest.approx(total, rel=1e-14)
    assert found.n_samples == len(X)


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
@pytest.mark.parametrize("mean", [0.0, 1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6])
def test_any_mean(rng, dtype, mean):
    """Trap 8: X'X - m mu mu' in float32 is 51 % off at a mean of 1000 deviations."""
    X = (rng.standard_normal((900, 5)) * [0.3, 0.7, 1.0, 2.0, 3.0] + mean).astype(dtype)
    assert_moments(Moments.from_data(X), X)


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
def test_a_different_mean_for_every_feature(rng, dtype):
    X = (rng.standard_normal((700, 4)) + [1e5, -1e3, 0.0, 3e-2]).astype(dtype)
    assert_moments(Moments.from_data(X), X)


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
@pytest.mark.parametrize("drift", [10.0, 1e4])
def test_rows_sorted_by_their_mean(rng, dtype, drift):
    """The pilot is far off in every chunk, and chunks lie many deviations apart."""
    m = 12_000  # a chunk of so few features has at most 4096 rows
    X = (rng.standard_normal((m, 3)) + np.linspace(-drift, drift, m)[:, None] + 5 * drift).astype(dtype)
    assert_moments(Moments.from_data(X), X)


def test_a_jump_that_the_pilot_rows_do_not_show(rng):
    X = rng.standard_normal((20_000, 3)).astype(np.float32)
    X[3000:13_000] += 3e3  # whole chunks, and parts of others
    assert_moments(Moments.from_data(X), X)


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
@pytest.mark.parametrize("scale", [1e-18, 1e-30, 1e18])
def test_scales(rng, dtype, scale):
    X = ((rng.standard_normal((600, 4)) + 2.0) * scale).astype(dtype)
    assert_moments(Moments.from_data(X), X)
    assert Moments.from_data(X).covariance()[0, 0] == pytest.approx(scale**2, rel=0.3)


def test_squares_that_overflow_float32(rng):
    X = (rng.standard_normal((600, 3)) * 1e30).astype(np.float32)
    assert_moments(Moments.from_data(X), X)
    X[550] = 3e38  # not among the pilot rows: its square overflows in any scale that suits the others
    X[:500] *= np.float32(1e-30)
    assert_moments(Moments.from_data(X), X)


@pytest.mark.needs_jit  # without it NumPy warns of the overflow too
def test_sums_that_overflow_say_so():
    X = np.full((40, 2), 3e38, np.float32)
    X[::2] *= -1
    found = Moments.from_data(X)
    assert np.isfinite(found.xx).all()
    X = np.full((2000, 2), 1.7e308)
    X[500] = -1.7e308  # not among the pilot rows, so the difference overflows
    with pytest.raises(ValueError, match=r"overflow float64.*rescale X"):
        Moments.from_data(X)


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1e7, 1e-30])
@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
def test_constant_columns_have_no_variance(rng, value, dtype):
    X = rng.standard_normal((800, 3)).astype(dtype)
    X[:, 1] = value
    found = Moments.from_data(X)
    assert found.xx[1, 1] <= (eps(np.float64) * abs(value)) ** 2 * len(X)
    assert np.abs(found.xx[1]).max() <= 1e-10 * found.xx[0, 0]
    assert found.mean[1] == pytest.approx(float(dtype(value)), rel=1e-15)
    everywhere = Moments.from_data(np.full((50, 3), value, dtype))
    np.testing.assert_allclose(everywhere.xx, 0.0, atol=(1e-15 * value) ** 2)


@pytest.mark.parametrize(
    "dtype",
    [np.uint8, *cases.only_full(np.int8, np.int16), np.bool_, np.int64, np.float16],
)
def test_integers_are_exact(rng, dtype):
    """Whole numbers shifted by a coarse pilot stay whole, so float32 products of small ones are exact."""
    high = 2 if dtype == np.bool_ else 100
    X = rng.integers(0, high, (500, 4)).astype(dtype)
    plain = X.astype(np.int64)
    found = Moments.from_data(X)
    exact = 500 * (plain.T @ plain) - np.multiply.outer(plain.sum(axis=0), plain.sum(axis=0))  # 500 S, in integers
    np.testing.assert_allclose(found.xx * 500, exact, rtol=0, atol=4 * eps(np.float64) * exact.diagonal().max())


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
@pytest.mark.parametrize("center", [True, False])
def test_weights_are_repetitions(rng, dtype, center):
    X = (rng.standard_normal((700, 4)) + 20).astype(dtype)
    weights = rng.integers(0, 4, 700)
    weighted = Moments.from_data(X, sample_weight=weights, center=center)
    repeated = Moments.from_data(np.repeat(X, weights, axis=0), center=center)
    assert weighted.weight_sum == repeated.weight_sum == weights.sum()
    scale = np.abs(repeated.xx).max()
    np.testing.assert_allclose(weighted.xx, repeated.xx, rtol=0, atol=tolerance("moment", dtype) * scale)
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=tolerance("moment", dtype))
    assert_moments(weighted, X, weights, center)


def test_fractional_weights_and_a_chunk_without_weight(rng):
    X = (rng.standard_normal((12_000, 3)) + 100).astype(np.float32)
    weights = rng.random(12_000)
    weights[:4500] = 0.0
    found = Moments.from_data(X, sample_weight=weights)
    assert_moments(found, X, weights)
    assert found.covariance()[0, 0] == pytest.approx(found.xx[0, 0] / (weights.sum() - 1))


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
def test_not_centred(rng, dtype):
    X = (rng.standard_normal((600, 4)) + 3).astype(dtype)
    found = Moments.from_data(X, center=False)
    np.testing.assert_array_equal(found.mean, 0.0)
    assert_moments(found, X, center=False)


@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
@pytest.mark.parametrize("mean", [0.0, 1e3])
def test_targets(rng, dtype, mean):
    X = (rng.standard_normal((600, 4)) + mean).astype(dtype)
    Y = (X[:, :2] * 2 - mean + 0.1 * rng.standard_normal((600, 2))).astype(dtype)
    weights = rng.random(600) + 0.5
    found = Moments.from_data(X, Y, weights)
    xy = naive.cross_moments(X, Y, weights)
    root = np.sqrt(np.multiply.outer(naive.moments(X, weights)[2].diagonal(), naive.moments(Y, weights)[2].diagonal()))
    assert (np.abs(found.xy - xy) <= tolerance("moment", dtype) * root).all()
    _, mean_y, yy = naive.moments(Y, weights)
    assert found.yy_trace == pytest.approx(np.trace(yy), rel=tolerance("moment", dtype))
    np.testing.assert_allclose(found.mean_y, mean_y, rtol=tolerance("moment", dtype), atol=1e-3 * eps(dtype) ** 0.5)
    np.testing.assert_allclose(
        found.xx, Moments.from_data(X, None, weights).xx, rtol=0, atol=tolerance("moment", dtype) * found.xx.max()
    )
    plain = Moments.from_data(X)
    assert plain.xy is None and plain.mean_y is None
    assert plain.yy_trace == pytest.approx(np.trace(plain.xx))


def test_one_sample_has_no_variance():
    found = Moments.from_data(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(found.xx, 0.0)
    np.testing.assert_array_equal(found.mean, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"weight sum above ddof=1, but it is 1"):
        found.covariance()
    np.testing.assert_array_equal(found.covariance(ddof=0), 0.0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    mean=st.sampled_from([0.0, 1.0, 1e3, 1e6]),
    weighted=st.booleans(),
    center=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_merge_of_any_partition(seed, sizes, mean, weighted, center, order):
    """from_data on the whole, update by parts and + of parts in any order agree up to float64 rounding of the merge."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((sum(sizes), 3)) * [1, 10, 0.1] + mean
    weights = rng.integers(1, 5, sum(sizes)).astype(float) if weighted else None
    starts = np.concatenate([[0], np.cumsum(sizes)])
    parts = [slice(a, b) for a, b in itertools.pairwise(starts)]
    order.shuffle(parts)
    updated, added = Moments(3, center=center), Moments(3, center=center)
    for part in parts:
        w = None if weights is None else weights[part]
        assert updated.update(X[part], sample_weight=w) is updated
        added = added + Moments.from_data(X[part], sample_weight=w, center=center)
    total, true_mean, scatter = naive.moments(X, weights, center)
    root = np.sqrt(np.multiply.outer(scatter.diagonal(), scatter.diagonal()))
    deviation = np.sqrt(scatter.diagonal() / total)
    for found in (updated, added, Moments.from_data(X, sample_weight=weights, center=center)):
        # chunk means are known to eps times themselves, which shows where the mean is many deviations
        slack = total * (2 * eps(np.float64) * (np.abs(true_mean) + deviation)) * deviation.max()
        limit = tolerance("moment", np.float64) * root + np.add.outer(slack, slack) + 1e-300
        assert (np.abs(found.xx - scatter) <= limit).all()
        np.testing.assert_allclose(found.mean, true_mean, rtol=1e-14, atol=1e-14)
        assert found.weight_sum == pytest.approx(total, rel=1e-14)
        assert found.n_samples == sum(sizes)


def test_chan_merge_against_naive(rng):
    A, B = rng.standard_normal((40, 3)) + 5, rng.standard_normal((7, 3)) - 2
    w, mean, scatter = naive.merge_moments(naive.moments(A), naive.moments(B))
    found = Moments.from_data(A) + Moments.from_data(B)
    assert found.weight_sum == w
    np.testing.assert_allclose(found.mean, mean, rtol=1e-14)
    np.testing.assert_allclose(found.xx, scatter, rtol=1e-13)


def test_addition_leaves_its_operands_alone(rng):
    a, b = Moments.from_data(rng.standard_normal((30, 2))), Moments.from_data(rng.standard_normal((20, 2)) + 9)
    before = a.xx, a.mean, b.xx, b.mean
    total = a + b
    total.update(rng.standard_normal((5, 2)))
    for old, new in zip(before, (a.xx, a.mean, b.xx, b.mean)):
        np.testing.assert_array_equal(old, new)
    assert (a.n_samples, b.n_samples, total.n_samples) == (30, 20, 55)


def test_empty_moments_are_neutral(rng):
    a = Moments.from_data(rng.standard_normal((30, 2)))
    for total in (a + Moments(2), Moments(2) + a):
        np.testing.assert_array_equal(total.xx, a.xx)
        np.testing.assert_array_equal(total.mean, a.mean)
    assert Moments(2).n_samples == 0 and not Moments(2).xx.any()


def test_merging_parts_of_very_different_scale(rng):
    small, large = rng.standard_normal((50, 2)) * 1e-12, rng.standard_normal((50, 2)) * 1e12
    for first, second in [(small, large), (large, small)]:
        assert_moments(Moments.from_data(first) + Moments.from_data(second), np.vstack([first, second]))
        assert_moments(Moments.from_data(first).update(second), np.vstack([first, second]))


def test_dtype_of_merged_moments(rng):
    single, double = rng.standard_normal((20, 2)).astype(np.float32), rng.standard_normal((20, 2))
    assert Moments.from_data(single).dtype == np.float32
    assert Moments.from_data(double).dtype == np.float64
    assert (Moments.from_data(single) + Moments.from_data(double)).dtype == np.float64


def test_only_like_moments_are_added(rng):
    a = Moments.from_data(rng.standard_normal((9, 2)))
    for other in (
        Moments.from_data(rng.standard_normal((9, 3))),
        Moments.from_data(rng.standard_normal((9, 2)), center=False),
        Moments.from_data(rng.standard_normal((9, 2)), rng.standard_normal((9, 1))),
    ):
        with pytest.raises(ValueError, match="same numbers of features and targets and the same centring"):
            a + other
    with pytest.raises(TypeError):
        a + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", REAL, ids=lambda t: t.__name__)
@pytest.mark.parametrize("row", [0, 1, 777, 8999])
def test_nonfinite_position_is_named(rng, bad, dtype, row):
    X = rng.standard_normal((9000, 5)).astype(dtype)
    X[row, 3] = bad
    X[row + 1 :, 1] = np.nan if row < 8999 else X[row + 1 :, 1]
    with pytest.raises(ValueError, match=rf"first at row {row}, column 3\b"):
        Moments.from_data(X)


def test_an_error_changes_nothing(rng):
    X = rng.standard_normal((9000, 3))
    found = Moments.from_data(X)
    before = found.xx, found.mean, found.n_samples, found.weight_sum
    bad = X.copy()
    bad[8000, 1] = np.nan  # in the last chunk
    with pytest.raises(ValueError, match="row 8000, column 1"):
        found.update(bad)
    with pytest.raises(ValueError, match="X has 2 features, but these moments have 3"):
        found.update(X[:, :2])
    np.testing.assert_array_equal(found.xx, before[0])
    np.testing.assert_array_equal(found.mean, before[1])
    assert (found.n_samples, found.weight_sum) == before[2:]


def test_targets_must_match(rng):
    X, Y = rng.standard_normal((9, 3)), rng.standard_normal((9, 2))
    with pytest.raises(ValueError, match="Y has 8 rows, but X has 9"):
        Moments.from_data(X, Y[:8])
    found = Moments.from_data(X, Y)
    with pytest.raises(ValueError, match="Y is missing"):
        found.update(X)
    with pytest.raises(ValueError, match="Y has 1 columns, but these moments have 2 targets"):
        found.update(X, Y[:, :1])
    with pytest.raises(ValueError, match="these moments have no targets"):
        Moments.from_data(X).update(X, Y)


def test_sparse_rows(rng):
    X = scipy.sparse.random(600, 7, density=0.2, random_state=1, format="csc")
    assert_moments(Moments.from_data(X), X.toarray())


def test_input_is_never_written(rng):
    X = rng.standard_normal((600, 4)).astype(np.float32)
    before = X.copy()
    Moments.from_data(X, sample_weight=rng.random(600))
    np.testing.assert_array_equal(X, before)


def test_coarse_shift_keeps_integers_and_is_near_enough():
    mean, deviation = np.array([127.3, 0.3, -5.7, 1e6 + 0.123]), np.array([70.0, 0.01, 0.0, 1.0])
    shift = coarse(mean, deviation)
    assert shift[0] == round(shift[0])
    assert shift[2] == mean[2]  # a constant is shifted by itself
    moved = deviation > 0
    assert (np.abs(shift - mean)[moved] <= deviation[moved] / 4).all()


def test_pilot_scale_is_a_power_of_two(rng):
    X = rng.standard_normal((300, 4)) * 1e-7
    view, _ = pilot_view(sources.as_source(X), None)
    assert np.log2(view.scale) == round(np.log2(view.scale))
    assert 0.5 <= view.scale * 1e-7 <= 2.0


def test_progress_ticks_reach_the_total(rng):
    seen = []
    Moments(3).update(rng.standard_normal((9000, 3)), tick=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1)) and len(seen) > 1
    assert len({total for _, total in seen}) == 1


def test_same_bits_for_any_number_of_threads(rng):
    import lae_fast

    X = rng.standard_normal((20_000, 9)).astype(np.float32)
    found = []
    try:
        for threads in (1, 2, 4):
            lae_fast.set_num_threads(threads)
            found.append(Moments.from_data(X))
    finally:
        lae_fast.set_num_threads(None)
    for other in found[1:]:
        np.testing.assert_array_equal(other.xx, found[0].xx)
        np.testing.assert_array_equal(other.mean, found[0].mean)
