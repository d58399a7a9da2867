"""What results print: one short line, whatever their size."""

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
