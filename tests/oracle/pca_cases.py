"""Routes and shapes for the tests of PCA, and what every fit must satisfy."""

import numpy as np

ROUTES = ("gram", "krylov")
TALL, WIDE = (900, 60), (70, 800)
SINGLE = float(np.finfo(np.float32).eps)
DOUBLE = float(np.finfo(np.float64).eps)


def fitted_values(pca, X, weights=None):
    """Eigenvalues of scale "sum" as the fitted attributes give them."""
    total = len(X) if weights is None else np.sum(weights)
    return pca.explained_variance_.astype(np.float64) * (total - 1)


def check_basis(pca):
    """Orthonormal, ordered, with scikit-learn's signs."""
    axes = pca.components_.astype(np.float64)
    np.testing.assert_allclose(axes @ axes.T, np.eye(len(axes)), atol=16 * np.finfo(pca.components_.dtype).eps)
    assert (np.diff(pca.explained_variance_) <= 0).all()
    largest = np.abs(axes).argmax(axis=1)
    assert (axes[np.arange(len(axes)), largest] > 0).all()
