"""What users read: results print one short line, whatever their size; docstrings name every attribute."""

import re

import numpy as np
import pytest

import lae_fast as lf


@pytest.mark.needs_jit
@pytest.mark.parametrize("p", [1, 40])
def test_results_print_one_short_line(p):
    X = np.random.default_rng(0).standard_normal((300, 50)).astype(np.float32)
    pairs = lf.top_eigenpairs(X, p)
    shown = repr(pairs)
    assert shown == str(pairs) and len(shown) < 200 and "\n" not in shown and "array" not in shown
    for part in (f"p={p}", "n=50", "float32", "solver='gram'", f"{pairs.residuals.max():.1e}", "n_passes=", "True"):
        assert part in shown
    moments = lf.Moments.from_data(X, Y=X[:, :2], sample_weight=np.full(300, 0.5))
    assert repr(moments) == (
        "Moments(n_samples=300, n_features=50, n_targets=2, dtype=float32, weight_sum=150, center=True)"
    )
    assert repr(lf.Moments(3)).startswith("Moments(n_samples=0, n_features=3, dtype=float32, weight_sum=0")


@pytest.mark.parametrize(
    "model",
    [
        lf.PCA(2, standardize=True),
        lf.PCA(2, missing="em"),
        lf.IncrementalPCA(2),
        lf.TruncatedSVD(2),
        lf.LinearAutoencoder(2, max_iter=3),
        lf.LinearAutoencoder(2, max_iter=3, loss="vae"),
        lf.LinearAutoencoder(2, max_iter=3, hidden=(2,)),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore")
def test_every_parameter_and_every_fitted_attribute_is_documented(model):
    text = type(model).__doc__
    model.fit(np.random.default_rng(0).standard_normal((30, 5)))
    parameters, attributes = text[text.index("Parameters\n") :].split("Attributes\n")
    assert [name for name in model.get_params() if not re.search(rf"\b{name}\b", parameters)] == []
    fitted = [name for name in vars(model) if name.endswith("_")]
    if type(model).__name__ in ("IncrementalPCA", "TruncatedSVD"):  # which refer to PCA for what they share
        attributes += lf.PCA.__doc__.split("Attributes\n")[1]
    assert [name for name in fitted if not re.search(rf"\b{name}\b", attributes)] == []
