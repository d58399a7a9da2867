"""Kernels to call from your own nopython code: the pieces that PCA and LinearAutoencoder are made of.

docs/kernels.md has a training loop made of these.

Everything writes to arrays of the caller, works in the dtype of the arrays (float32 or float64, one for all), releases
the GIL and can be inlined into a function of yours, cached or not.  Refused when the call is compiled: arrays of two
dtypes, matrices in F order, another number of dimensions, and read-only arrays that are written to.  Lengths are not
checked, nor are other strides, except that `rows` must be C-contiguous: a wrong one is a wrong result or a crash, as in
BLAS.  `gemm` and `syrk` run on as many threads as the BLAS that SciPy ships is set to; in threads of your own, limit it
to one (threadpoolctl).  With NUMBA_DISABLE_JIT=1 all of them run as plain Python.
"""

from __future__ import annotations

import numpy as np

from ..backends.cpu.blas import gemm, syrk
from ..backends.cpu.jit import kernel, lean_kernel
from ..backends.cpu.passes import tiles, totals
from ..backends.cpu.training import coefficients
from ..backends.cpu.training.coefficients import masked_gram
from ..backends.cpu.training.step import fused_step
from ..backends.cpu.typed import DOUBLES, MATRIX, REAL, VECTOR, WRITTEN, Taken, checked
from ..backends.formulas import ADAM, MOMENTUM, N_ROW_SUMS, N_SUMS, NESTEROV, SGD

__all__ = [
    "ADAM",
    "MOMENTUM",
    "NESTEROV",
    "N_ROW_SUMS",
    "N_SUMS",
    "SGD",
    "fused_step",
    "gemm",
    "gram",
    "masked_gram",
    "normalise_rows",
    "quotients",
    "rotation",
    "row_pass",
    "syrk",
    "tril",
]

_check_rotation = checked("rotation", gram=MATRIX, out=WRITTEN)
_check_tril = checked("tril", gram=MATRIX, out=WRITTEN)
_check_quotients = checked("quotients", gram=MATRIX, out=WRITTEN)
_check_normalise_rows = checked("normalise_rows", weights=WRITTEN)
_ROWS = Taken(2, REAL, contiguous=True)
_check_gram = checked("gram", rows=_ROWS, shift=VECTOR, weights=DOUBLES, tile=WRITTEN, out=WRITTEN)
_check_row_pass = checked(
    "row_pass", rows=_ROWS, shift=VECTOR, weights=DOUBLES, block=MATRIX, tile=WRITTEN, codes=WRITTEN, out=WRITTEN
)


@lean_kernel
def rotation(gram, out):
    """out <- (striu(G) - stril(G)) / 2, RAG's rotation  (docs/math.md Eq. 23; Bao et al. 2020, Alg. 1).

    gram, out : (p, p), may be the same array; the lower triangle of gram is read.  p^2 / 2 flops.
    Naive twin: oracle/naive_autoencoder.py::rotation.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> G = np.array([[4.0, 1.0], [1.0, 2.0]])
    >>> kernels.rotation(G, G)
    >>> G
    array([[ 0. ,  0.5],
           [-0.5,  0. ]])
    """
    _check_rotation(gram, out)
    coefficients.rotation_rows(gram, 0.5, 0, gram.shape[0], out)


@lean_kernel
def tril(gram, diagonal, out):
    """out <- the lower triangle of G, zeros above: the mask of GHA and mu-EigenGame  (docs/math.md Eq. 26, 28).

    gram, out : (p, p), may be the same array;  diagonal : 1 keeps it (GHA), 0 clears it (mu-EigenGame).
    Naive twin: numpy.tril.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> out = np.empty((2, 2))
    >>> kernels.tril(np.array([[4.0, 1.0], [1.0, 2.0]]), 1, out)
    >>> out
    array([[4., 0.],
           [1., 2.]])
    """
    _check_tril(gram, out)
    coefficients.triangle_rows(gram, diagonal, 0, gram.shape[0], out)
    _clear(diagonal, out)


@lean_kernel
def quotients(gram, out):
    """out_ij <- G_ij / G_jj for j < i, zeros elsewhere: the mask of alpha-EigenGame  (docs/math.md Eq. 27).

    gram, out : (p, p), two arrays.  p^2 / 2 flops.  G_jj = 0 gives 0.
    Naive twin: oracle/naive_autoencoder.py::encoder_only_direction.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> out = np.empty((2, 2))
    >>> kernels.quotients(np.array([[4.0, 1.0], [1.0, 2.0]]), out)
    >>> out
    array([[0.  , 0.  ],
           [0.25, 0.  ]])
    """
    _check_quotients(gram, out)
    coefficients.quotient_rows(gram, 0, gram.shape[0], out)
    _clear(0, out)


@lean_kernel
def _clear(diagonal, out):
    """Zeros from the diagonal on (0), or above it (1)."""
    for i in range(out.shape[0]):
        for j in range(i + diagonal, out.shape[1]):
            out[i, j] = out.dtype.type(0.0)


@lean_kernel
def normalise_rows(weights):
    """Each row of weights (p, n) divided by its length, in place; a zero row stays  (docs/math.md Eq. 27, 28).

    Lengths are summed in float64.  3 p n flops.  Naive twin: oracle/naive_autoencoder.py::normalise_rows.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> weights = np.array([[3.0, 4.0], [0.0, 0.0]])
    >>> kernels.normalise_rows(weights)
    >>> weights
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    _check_normalise_rows(weights)
    for i in range(weights.shape[0]):
        total = 0.0
        for j in range(weights.shape[1]):
            total += np.float64(weights[i, j]) * np.float64(weights[i, j])
        if total > 0.0:
            inverse = weights.dtype.type(1.0 / np.sqrt(total))
            for j in range(weights.shape[1]):
                weights[i, j] *= inverse


@kernel
def gram(rows, shift, weights, tile, out):
    """out <- sum_r w_r (x_r - shift)(x_r - shift)', both triangles  (docs/pca.md, "Shifted moments").

    rows : (m, d) C-contiguous, any real dtype;  shift : (d,);  weights : (m,) float64, or empty for ones
    tile : (t, d) workspace, rows converted at once (64 to 128 stay in cache);  out : (d, d).  All but rows and weights
        of one dtype.
    m d (d + 1) flops.  Naive twin: oracle/naive.py::gram.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> X = np.array([[1.0, 0.0], [3.0, 4.0]])
    >>> out = np.empty((2, 2))
    >>> kernels.gram(X, X.mean(axis=0), np.empty(0), np.empty((64, 2)), out)  # no weights
    >>> out
    array([[2., 4.],
           [4., 8.]])
    """
    _check_gram(rows, shift, weights, tile, out)
    n = rows.shape[1]
    none, sums = np.empty(0, np.int64), np.zeros((2, n))
    partial = np.zeros((2, n))
    tiles.gram_chunk(
        rows.reshape(-1), n, 1, 0, rows.shape[0], None, none, shift, 1.0, weights, tile, partial, out, sums[0], sums[1]
    )
    totals.symmetrize(out)


@kernel
def row_pass(rows, shift, weights, block, tile, codes, out):
    """out <- sum_r w_r (x_r - shift)((x_r - shift)' V): the product S V without S  (docs/pca.md, "Row pass").

    rows, shift, weights, tile : as in `gram`;  block : (d, b), V;  codes : (t, b) workspace;  out : (d, b)
    4 m d b flops.  Naive twin: oracle/naive.py::row_pass.  Serial.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> X, V = np.array([[1.0, 0.0], [3.0, 4.0]]), np.ones((2, 1))
    >>> out = np.empty((2, 1))
    >>> kernels.row_pass(X, X.mean(axis=0), np.empty(0), V, np.empty((64, 2)), np.empty((64, 1)), out)
    >>> out.ravel()  # the Gram matrix about the mean, [[2, 4], [4, 8]], times V
    array([ 6., 12.])
    """
    _check_row_pass(rows, shift, weights, block, tile, codes, out)
    n = rows.shape[1]
    sums, partial, no_inner = np.zeros((2, n)), np.zeros((2, n)), np.empty((0, 0), out.dtype)
    no_offset, total = np.empty(0, out.dtype), np.empty(0)
    tiles.pass_chunk(
        rows.reshape(-1), n, 1, 0, rows.shape[0], None, np.bool_(False), shift, 1.0, weights, tile, partial, block,
        no_offset,
        codes, out, no_inner, total, sums[0], sums[1], codes[:0], sums[:0],
    )  # fmt: skip
