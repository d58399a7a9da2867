"""Metrics against loops and hand-made cases, their invariances, and their edge cases."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lae_fast import metrics

ROOT = Path(__file__).resolve().parents[2]


def orthonormal(q, p, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(q, p)))[0]


def cosines(u, a):
    """ACS by loops over columns and entries."""
    out = np.zeros((u.shape[1], a.shape[1]))
    for i in range(u.shape[1]):
        for j in range(a.shape[1]):
            inner = sum(u[k, i] * a[k, j] for k in range(u.shape[0]))
            lengths = math.sqrt(sum(u[k, i] ** 2 for k in range(u.shape[0])) * sum(v**2 for v in a[:, j]))
            out[i, j] = abs(inner) / lengths if lengths > 0 else 0.0
    return out


@pytest.fixture
def pair():
    """Four true directions; a decoder with one right, two swapped and one wrong column, scaled and signed."""
    u = orthonormal(7, 4)
    a = u[:, [0, 2, 1, 3]] * [2.0, -1e-3, 5.0, 1.0]
    a[:, 3] += 1.5 * orthonormal(7, 7)[:, 5]
    return u, a


def test_acs_against_loops(pair):
    u, a = pair
    np.testing.assert_allclose(metrics.acs(u, a), cosines(u, a), rtol=1e-12, atol=1e-14)
    assert metrics.acs(u, a[:, :2]).shape == (4, 2)


def test_ratios_of_a_known_case(pair):
    u, a = pair
    assert metrics.ratio_tp(u, a) == 0.25
    assert metrics.ratio_fp(u, a) == 0.5
    assert metrics.ratio_total(u, a) == 0.75
    assert metrics.longest_correct_streak(u, a) == 1


def test_ratio_threshold():
    u = np.eye(2)
    a = np.array([[math.cos(0.1), 0.0], [math.sin(0.1), 1.0]])
    cosine = math.cos(0.1)
    assert metrics.ratio_tp(u, a, eps=1 - cosine + 1e-6) == 1.0
    assert metrics.ratio_tp(u, a, eps=1 - cosine - 1e-6) == 0.5
    assert metrics.ratio_tp(u, a) == 1.0, "the default eps is 0.01"


def test_ratio_fp_can_exceed_one():
    u = np.eye(3)
    a = np.repeat(u[:, :1], 3, axis=1) + 0.0
    assert metrics.ratio_fp(u, a) == pytest.approx(2 / 3)
    a = np.ones((3, 3))
    assert metrics.ratio_fp(np.ones((3, 3)), a) == 2.0


def test_alignment_and_matching_of_a_known_case(pair):
    u, a = pair
    squared = cosines(u, a) ** 2
    assert metrics.axis_alignment_distance(u, a) == pytest.approx(1 - squared.max(axis=1).mean(), rel=1e-12)
    best = max(itertools.permutations(range(4)), key=lambda m: sum(squared[i, m[i]] for i in range(4)))
    expected = 1 - sum(squared[i, best[i]] for i in range(4)) / 4
    distance, matching = metrics.matched_alignment(u, a, return_matching=True)
    assert distance == pytest.approx(expected, rel=1e-12)
    assert metrics.matched_alignment(u, a) == distance
    assert tuple(matching) == best


def test_alignment_lets_a_column_serve_twice_and_matching_does_not():
    """u_1 and u_2 are both closest to the same column."""
    u = np.eye(3)[:, :2]
    a = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert metrics.axis_alignment_distance(u, a) == pytest.approx(0.5)
    assert metrics.matched_alignment(u, a) == pytest.approx(0.75)


def test_alignment_squares_the_cosine():
    """Trap: the published docstring says cos, its code and the definition square it."""
    u = np.array([[1.0], [0.0]])
    a = np.array([[math.cos(1.0)], [math.sin(1.0)]])
    assert metrics.axis_alignment_distance(u, a) == pytest.approx(1 - math.cos(1.0) ** 2, rel=1e-12)


@given(
    seed=st.integers(0, 10_000),
    p=st.integers(1, 5),
    extra=st.integers(0, 4),
    scales=st.lists(st.floats(1e-200, 1e200), min_size=5, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_invariances(seed, p, extra, scales):
    """Column lengths and signs change nothing; a permutation changes only what looks at the order."""
    rng = np.random.default_rng(seed)
    u, a = orthonormal(p + extra, p, seed), rng.normal(size=(p + extra, p))
    factors = np.array(scales[:p]) * rng.choice([-1.0, 1.0], p)
    for metric in (
        metrics.acs,
        metrics.ratio_tp,
        metrics.ratio_fp,
        metrics.axis_alignment_distance,
        metrics.matched_alignment,
        metrics.longest_correct_streak,
    ):
        np.testing.assert_allclose(metric(u, a * factors), metric(u, a), rtol=1e-9, atol=1e-12)
    shuffled = a[:, rng.permutation(p)]
    for metric in (metrics.axis_alignment_distance, metrics.matched_alignment, metrics.subspace_distance):
        assert metric(u, shuffled) == pytest.approx(metric(u, a), abs=1e-10)
    assert -1e-12 <= metrics.axis_alignment_distance(u, a) <= metrics.matched_alignment(u, a) + 1e-12 <= 1 + 1e-12
    # Blind to the basis: any invertible mixing keeps the subspace.
    mixing = rng.normal(size=(p, p)) + 3 * np.eye(p)
    if np.linalg.cond(mixing) < 100 and np.linalg.cond(a) < 1e4:
        assert metrics.subspace_distance(u, a @ mixing) == pytest.approx(metrics.subspace_distance(u, a), abs=1e-8)


@pytest.mark.parametrize("p", [1, 3, 6])
def test_perfect_and_empty(p):
    u = orthonormal(6, p)
    assert metrics.ratio_tp(u, u) == 1.0
    assert metrics.ratio_fp(u, u) == 0.0
    assert metrics.axis_alignment_distance(u, u) == pytest.approx(0.0, abs=1e-14)
    assert metrics.matched_alignment(u, u) == pytest.approx(0.0, abs=1e-14)
    assert metrics.subspace_distance(u, u) == pytest.approx(0.0, abs=1e-14)
    assert metrics.longest_correct_streak(u, u) == p
    zero = np.zeros((6, p))
    assert np.all(metrics.acs(u, zero) == 0.0)
    assert metrics.ratio_tp(u, zero) == 0.0
    assert metrics.axis_alignment_distance(u, zero) == 1.0
    assert metrics.matched_alignment(u, zero) == 1.0
    assert metrics.subspace_distance(u, zero) == 1.0
    assert metrics.longest_correct_streak(u, zero) == 0


def test_subspace_distance_against_projectors():
    u, a = orthonormal(8, 3), np.random.default_rng(1).normal(size=(8, 3))
    projector = a @ np.linalg.inv(a.T @ a) @ a.T
    expected = 1 - np.trace(u @ u.T @ projector) / 3
    assert metrics.subspace_distance(u, a) == pytest.approx(expected, rel=1e-12)
    # A basis of the true subspace that is not orthonormal is as good.
    assert metrics.subspace_distance(u @ np.diag([1.0, 5.0, 0.1]), a) == pytest.approx(expected, rel=1e-12)


def test_subspace_distance_of_a_collapsed_decoder():
    """Rank 18 of 20 leaves exactly 0.1: arbitrary singular vectors must not be credited."""
    u = orthonormal(50, 20)
    a = u.copy()
    a[:, 18:] = 0.0
    assert metrics.subspace_distance(u, a) == pytest.approx(0.1, rel=1e-12)
    a[:, 19] = a[:, 0]
    assert metrics.subspace_distance(u, a) == pytest.approx(0.1, rel=1e-9)


def test_subspace_distance_as_published_takes_every_singular_vector():
    """Bao et al.: the vectors of singular values of zero count too, whatever they are."""
    rng = np.random.default_rng(3)
    u, a = orthonormal(8, 3), rng.normal(size=(8, 3))
    assert metrics.subspace_distance(u, a, published=True) == pytest.approx(metrics.subspace_distance(u, a), rel=1e-12)
    a[:, 2] = a[:, 0] + a[:, 1]
    left = np.linalg.svd(a, full_matrices=False)[0]
    assert left.shape == (8, 3)  # the last one is arbitrary: any LAPACK may give another
    careful = 1.0 - np.trace(u @ u.T @ left[:, :2] @ left[:, :2].T) / 3
    assert metrics.subspace_distance(u, a) == pytest.approx(careful, rel=1e-9)
    assert careful - 1.0 / 3.0 <= metrics.subspace_distance(u, a, published=True) < careful
    assert 0.0 <= metrics.subspace_distance(u, np.zeros((8, 3)), published=True) <= 1.0


def test_streak_counts_leading_columns_only():
    u = np.eye(5)
    a = u.copy()
    a[:, 2] = [0, 0, math.cos(0.5), math.sin(0.5), 0]  # 0.5 > pi/8 = 0.3927
    assert metrics.longest_correct_streak(u, a) == 2
    assert metrics.longest_correct_streak(u, a, angle=0.51) == 5
    a[:, 0] = [0, 1, 0, 0, 0]
    assert metrics.longest_correct_streak(u, a) == 0
    a = np.eye(5)
    a[:, 1] = [0, math.cos(0.39), math.sin(0.39), 0, 0]
    assert metrics.longest_correct_streak(u, -a) == 5


def test_transpose_gap():
    a, b = np.arange(6.0).reshape(3, 2), np.ones((2, 3))
    expected = sum((b[i, j] - a[j, i]) ** 2 for i in range(2) for j in range(3))
    assert metrics.transpose_gap(a, b) == pytest.approx(expected)
    assert metrics.transpose_gap(a, b, per_component=True) == pytest.approx(expected / 2)
    assert metrics.transpose_gap(a, a.T) == 0.0


def test_nondiagonality():
    gram = np.array([[5.0, -1.0, 2.0], [0.5, 7.0, 0.0], [0.0, -3.0, 1.0]])
    assert metrics.nondiagonality(gram) == 6.5
    assert metrics.nondiagonality(np.diag([1.0, -2.0])) == 0.0
    np.testing.assert_array_equal(np.diagonal(gram), [5.0, 7.0, 1.0])


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.acs(np.ones((3, 2)), np.ones((4, 2))), "components_ needs a transpose"),
        (lambda: metrics.ratio_tp(np.ones((3, 2)), np.ones((3, 1))), "equal shapes"),
        (lambda: metrics.acs(np.array([[np.nan]]), np.ones((1, 1))), r"truth\[0, 0\]=nan must be finite"),
        (lambda: metrics.acs(np.ones(3), np.ones((3, 1))), "truth must be two-dimensional"),
        (lambda: metrics.acs(np.ones((3, 0)), np.ones((3, 1))), "not empty"),
        (lambda: metrics.ratio_tp(np.eye(2), np.eye(2), eps=0.0), "eps"),
        (lambda: metrics.longest_correct_streak(np.eye(2), np.eye(2), angle=2.0), "angle"),
        (lambda: metrics.transpose_gap(np.ones((3, 2)), np.ones((3, 2))), r"must be \(d, p\) and \(p, d\)"),
        (lambda: metrics.nondiagonality(np.ones((2, 3))), "square"),
    ],
)
def test_bad_values(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_bad_types():
    with pytest.raises(TypeError, match="decoder must hold real numbers"):
        metrics.acs(np.ones((2, 1)), np.array([["a"], ["b"]]))


def test_inputs_are_not_written_and_float32_is_accepted(pair):
    u, a = (m.astype(np.float32) for m in pair)
    u.setflags(write=False)
    a.setflags(write=False)
    assert metrics.ratio_total(u, a) == 0.75
    assert isinstance(metrics.subspace_distance(u, a), float)


def test_descriptions_import_numpy_only():
    """Import time: SciPy is loaded by `matched_alignment`, when it is called, and nothing else heavy at all."""
    code = (
        "import sys\n"
        "from lae_fast import losses, metrics, optimizers, rules, theory\n"
        "heavy = {'scipy', 'sklearn', 'numba', 'torch', 'cupy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert metrics.matched_alignment([[1.0]], [[1.0]]) == 0.0\n"
        "assert 'scipy' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
