"""The kernels called by their addresses: the product S V of a row pass, through ctypes; no C compiler is needed."""

import numpy as np

import lae_fast as lf
from lae_fast.kernels import c

X = np.ascontiguousarray(lf.datasets.load("digits"), dtype=np.float32)
m, d, b = *X.shape, 4
shift = X.mean(axis=0)
block = np.linalg.qr(np.random.default_rng(0).standard_normal((d, b)))[0].astype(np.float32)
tile, codes, out = np.empty((64, d), np.float32), np.empty((64, b), np.float32), np.empty((d, b), np.float32)

row_pass = c.ctypes_function("row_pass_f32")
for _ in range(60):  # subspace iteration
    row_pass(
        m, d, b, X.ctypes.data, shift.ctypes.data, None, 0, block.ctypes.data, tile.ctypes.data, codes.ctypes.data,
        64, out.ctypes.data,
    )  # fmt: skip
    block = np.linalg.qr(out)[0]
truth = lf.top_eigenpairs(X, b).vectors
distance = lf.metrics.subspace_distance(truth, block)
print(f"distance from the principal subspace: {distance:.1e}")
if distance > 1e-4:
    raise SystemExit("the iteration was to find the subspace")
