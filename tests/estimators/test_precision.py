"""`precision` where no card is: what is refused, and what "auto" says of it; the rest runs on the simulator."""

import numpy as np
import pytest

import lae_fast as lf
from lae_fast.eigen.solve import top_eigenpairs

X = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)


@pytest.mark.parametrize("model", [lf.PCA(2), lf.TruncatedSVD(2)])
def test_unknown_names_list_the_valid_ones(model):
    with pytest.raises(ValueError, match=r"precision='fp16' is unknown; choose one of 'float32', 'tf32', 'bf16x9'"):
        model.set_params(precision="fp16").fit(X)


def test_the_cpu_asked_for_refuses_it_and_auto_says_that_it_had_no_effect():
    with pytest.raises(lf.UnsupportedOnBackendError, match="backend='cpu' multiplies in float32"):
        lf.PCA(2, backend="cpu", precision="tf32").fit(X)
    there, here = lf.PCA(2, precision="tf32").fit(X), lf.PCA(2).fit(X)
    assert there.route_reason_ == here.route_reason_ + (
        "; precision='tf32' had no effect: it is a mode of CUDA cards, and this ran on the CPU"
    )
    np.testing.assert_array_equal(there.components_, here.components_)


def test_nothing_refines_moments_that_were_made():
    with pytest.raises(ValueError, match="moments alone are kept here"):
        lf.PCA(2, precision="tf32").partial_fit(X)
    with pytest.raises(ValueError, match="moments alone are kept here"):
        lf.PCA.from_moments(lf.Moments.from_data(X), 2, precision="tf32")
    with pytest.raises(ValueError, match="products with rows, and here there are none"):
        top_eigenpairs(lf.Moments.from_data(X), 2, precision="tf32")
    with pytest.raises(ValueError, match="does not go with missing='em'"):
        lf.PCA(2, precision="tf32", missing="em").fit(X)
