"""Memory: what a fit holds beside X is the stated workspace, and never a d x d matrix by accident.

Each measurement runs in a process of its own (benchmarks/lib/memory.py) and is taken above what the process held
before, X and warm kernels included.
"""

import json

import pytest

from benchmarks.lib import memory

pytestmark = [
    pytest.mark.needs_jit,
    pytest.mark.slow,
    pytest.mark.skipif(not memory.measurable(), reason="reads /proc/self/status, which Linux has"),
]

# Beside the workspace: the result (added per test), what numpy and the allocator keep of freed blocks, thread stacks
# and BLAS packing buffers (OpenBLAS takes up to some tens of MB per thread on its first call), and the sample of rows
# for the pilot.
MARGIN = 48 * 2**20

_PROBE = """
    import json, sys
    import numpy as np
    import lae_fast as lf
    from benchmarks.lib import memory

    m, d, p, parameters = json.loads(sys.argv[1])
    dtype = parameters.pop("dtype", "float32")
    lf.set_num_threads(2)
    # the kernels and buffers that a first call brings are not the fit's: a small fit by the same route takes them
    warm = np.random.default_rng(0).standard_normal((1600, 40)).astype(dtype)
    for data in (warm, np.ascontiguousarray(warm.T)):
        lf.PCA(n_components=3, tol=1e-2, **parameters).fit(data)
    random = np.random.default_rng(1)
    X = random.standard_normal((m, d), dtype=np.float32).astype(dtype, copy=False)
    X *= (np.arange(d, 0, -1) / d).astype(dtype) ** 4
    with memory.Peak() as peak:
        pca = lf.PCA(n_components=p, tol=1e-2, **parameters).fit(X)
    result = sum(value.nbytes for value in vars(pca).values() if isinstance(value, np.ndarray))
    print(json.dumps({
        "peak": peak.above, "stated": pca.workspace_bytes_, "result": result, "solver": pca.solver_, "x": X.nbytes,
        "reason": pca.route_reason_,
    }))
"""


def measure(m, d, p, **parameters):
    arguments = json.dumps([m, d, p, parameters])
    return json.loads(memory.run(arguments, code=_PROBE, **memory.RETURNED))


@pytest.mark.parametrize(
    ("m", "d", "p", "parameters"),
    [
        (6000, 2500, 10, {"svd_solver": "gram"}),
        (2500, 6000, 10, {"svd_solver": "gram"}),
        (3000, 1500, 10, {"svd_solver": "gram", "dtype": "float64"}),
        (1000, 30_000, 20, {"svd_solver": "krylov"}),
        (30_000, 1000, 20, {"svd_solver": "krylov"}),
        (1000, 15_000, 20, {"svd_solver": "krylov", "dtype": "float64"}),
    ],
    ids=["gram-tall", "gram-wide", "gram-tall-double", "krylov-wide", "krylov-tall", "krylov-wide-double"],
)
def test_the_stated_workspace_is_the_peak(m, d, p, parameters):
    found = measure(m, d, p, **parameters)
    assert found["solver"] == parameters["svd_solver"]
    assert found["peak"] <= found["stated"] + 2 * found["result"] + MARGIN, found
    # neither so large that it says nothing
    assert found["stated"] <= 4 * found["peak"] + MARGIN, found


def test_many_features_never_make_a_square_matrix():
    """d = 100 000: a d x d float32 matrix would take 40 GB, a copy of X 800 MB."""
    found = measure(2000, 100_000, 10)
    assert found["peak"] <= 0.6 * found["x"], found
    assert found["peak"] <= found["stated"] + 2 * found["result"] + MARGIN, found
