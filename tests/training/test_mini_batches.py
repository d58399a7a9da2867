"""Mini-batches with weights: on average the gradient of all rows, and no long step for a heavy row."""

import numpy as np
import pytest
import scipy.sparse

import lae_fast as lf
from lae_fast.data.sources import as_source
from lae_fast.training import problem
from lae_fast.training.batches import BatchReader

M = 23
WEIGHTS = {
    "none": None,
    "equal": np.full(M, 0.1),
    "counts": np.random.default_rng(0).integers(0, 5, M).astype(np.float64),
    "one heavy": np.r_[np.ones(9), 500.0, np.ones(M - 10)],
    "one alone": np.r_[np.zeros(M - 1), 2.0],
}


def described(weights, store=np.asarray, seed=1):
    x = np.random.default_rng(seed).standard_normal((M, 3))
    return problem.from_rows(as_source(store(x)), None, weights, "mean")


@pytest.mark.parametrize("scale", ["mean", "sum"])
@pytest.mark.parametrize("size", [1, 2, 5, 7, M - 1, M, 2 * M])
@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("store", [np.asarray, scipy.sparse.csr_array], ids=["rows", "windows"])
def test_a_batch_stands_for_all_rows(store, name, size, scale):
    """A row counts in a batch, on average over batches, as it does in the whole: w / W, at scale "sum" w."""
    weights = WEIGHTS[name]
    reader = BatchReader(described(weights, store), size, np.random.default_rng(2))
    n = 6000
    rows = reader.next_rows(n)
    counted = reader.row_weights[rows] if reader.row_weights.size else np.ones(rows.shape)
    share = counted * reader.factors(rows, scale)[:, None]
    whole = np.ones(M) if weights is None else weights
    whole = whole if scale == "sum" else whole / whole.sum()
    places = rows + M * np.arange(n)[:, None]
    sums = np.bincount(places.ravel(), share.ravel(), minlength=n * M).reshape(n, M)
    error = np.abs(sums.mean(axis=0) - whole)
    assert (error <= 6 * sums.std(axis=0) / np.sqrt(n) + 1e-12 * whole.max()).all()
    # the step of a batch is one of an average row, whatever the weights
    np.testing.assert_allclose(share.sum(axis=1), whole.sum(), rtol=1e-12)
    if size >= M:
        np.testing.assert_allclose(sums, np.broadcast_to(whole, sums.shape), rtol=1e-12)


def test_without_weights_an_epoch_has_every_row_once():
    reader = BatchReader(described(None), 4, np.random.default_rng(0))
    assert len(np.unique(reader.next_rows(M // 4))) == M // 4 * 4
    heavy = BatchReader(described(WEIGHTS["counts"]), 1, np.random.default_rng(0))
    counts = np.bincount(heavy.next_rows(M).ravel(), minlength=M)
    wanted = WEIGHTS["counts"] * (M / WEIGHTS["counts"].sum())
    assert (np.floor(wanted) <= counts).all()
    assert (counts <= np.ceil(wanted)).all()


@pytest.mark.needs_jit
@pytest.mark.parametrize("size", [1, 3, 64, None])
@pytest.mark.parametrize("store", [np.asarray, scipy.sparse.csr_array], ids=["rows", "windows"])
def test_weights_do_what_repeated_rows_do(store, size):
    """The heavy half of the rows decides which direction is the first one, at any batch size."""
    rng = np.random.default_rng(0)
    x = np.zeros((400, 2))
    x[:200, 0], x[200:, 1] = 3 * rng.standard_normal(200), rng.standard_normal(200)
    weights = np.r_[np.ones(200), np.full(200, 100.0)]
    order = rng.permutation(400)
    model = lf.LinearAutoencoder(
        1, batch_size=size, optimizer="sgd", learning_rate=0.01, schedule="cosine", max_iter=6000, tol=0.0
    )
    model.fit(store(x[order]), sample_weight=weights[order])
    # scikit-learn's score is minus the loss; the best one is the smaller of the two weighted variances
    least = np.linalg.eigvalsh(lf.Moments.from_data(x, sample_weight=weights).xx / weights.sum())[0]
    assert abs(model.components_[0, 1]) > 0.995
    assert -model.score(x, sample_weight=weights) == pytest.approx(least, rel=0.05)


@pytest.mark.parametrize("loss", ["ordered", "vae", lf.losses.sum_l2(0.3)], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_batches_from_outside_count_by_their_weight(loss, optimizer):
    """partial_fit: a row of weight 3 is the row three times, and a batch of a third of the weight takes a third of the
    step that the whole one takes."""
    rng = np.random.default_rng(0)
    first, x = rng.standard_normal((30, 4)), rng.standard_normal((10, 4))

    def trained(*batches):
        model = lf.LinearAutoencoder(2, loss=loss, optimizer=optimizer, learning_rate=0.01, init_scale=0.3)
        for rows, weights in batches:
            model.partial_fit(rows, sample_weight=weights)
        return model

    weighted = trained((first, None), (x, np.full(10, 3.0)))
    repeated = trained((first, None), (np.repeat(x, 3, axis=0), None))
    np.testing.assert_allclose(weighted.encoder_, repeated.encoder_, rtol=1e-10)
    np.testing.assert_allclose(weighted.history_["loss"], repeated.history_["loss"], rtol=1e-10)
    start, whole, third = (
        trained((first, None), *more).encoder_ for more in ([], [(first, None)], [(first[:10], None)])
    )
    same_rows = trained((first, None), (first, np.full(30, 1 / 3))).encoder_
    # the mean stays where it is, so that the two steps differ in length alone
    np.testing.assert_allclose(3 * (same_rows - start), whole - start, rtol=1e-9, atol=1e-15)
    assert np.abs(third - start).max() < np.abs(whole - start).max()
    # a heavy batch takes a step as long as the rate allows, and makes the later ones shorter
    heavy = trained((first, None), (first, np.full(30, 1e4))).encoder_
    np.testing.assert_allclose(heavy, whole, rtol=1e-9)
    later = trained((first, None), (first, np.full(30, 1e4)), (first, None)).encoder_
    assert np.abs(later - heavy).max() < 1e-3 * np.abs(heavy - start).max()
