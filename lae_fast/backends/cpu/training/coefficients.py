"""The masks of losses and rules, applied to p x p Gram matrices, and the coefficients of Eq. 21 that they make.

No mask is stored: an ordered mask is one prefix weight per row of a lower triangle, the masks of RAG, GHA and EigenGame
are triangles.  Gram matrices are read in their lower triangle only, so what is symmetric (or skew) in exact arithmetic
is so to the last bit.

Every kernel works on rows first..last, so that a team of threads can share a matrix; row i writes (i, j) and its mirror
(j, i) for j <= i, hence two rows never write the same entry.  Entry by entry, the file of this name in backends/cuda
has the same.
"""

from __future__ import annotations

import math

from ...formulas import ALPHA, GHA, GRADIENT, MU, OJA, RAG, VAE
from ..jit import lean_kernel
from ..typed import MATRIX, VECTOR, WRITTEN, checked

# Side of the square blocks by which a triangle is mirrored: the strided side stays in cache.
_SIDE = 32


_check_masked_gram = checked("masked_gram", gram=MATRIX, prefix=VECTOR, out=WRITTEN)


@lean_kernel
def masked_gram(gram, prefix, out):
    """out <- M o G with M_ij = prefix[max(i, j)]  (docs/math.md Eq. 4; Oftadeh et al. 2020 Eq. 7).

    gram, out : (p, p) float32|float64, may be the same array, gram symmetric (its lower triangle is read)
    prefix : (p,) same dtype, non-increasing
    p^2 / 2 flops, 3/2 p^2 itemsize bytes.  Naive twin: oracle/naive_autoencoder.py::masked_gram.  Serial.
    Fastmath: contract, nsz.

    >>> import numpy as np
    >>> from lae_fast import kernels
    >>> out = np.empty((3, 3))
    >>> kernels.masked_gram(np.ones((3, 3)), np.array([3.0, 2.0, 1.0]), out)
    >>> out
    array([[3., 2., 1.],
           [2., 2., 1.],
           [1., 1., 1.]])
    """
    _check_masked_gram(gram, prefix, out)
    masked_rows(gram, prefix, 1.0, 0, gram.shape[0], out)


@lean_kernel
def masked_rows(gram, prefix, factor, first, last, out):
    """out_ij = out_ji <- factor prefix_i G_ij for j <= i, rows first..last  (docs/math.md Eq. 4, 22).

    gram, out : (p, p) float32|float64;  prefix : (p,) same dtype.  One multiplication per entry of the lower triangle:
    it replaces the factor 2 of the gradient, which a loss without mask multiplies too.
    Naive twin: oracle/naive_autoencoder.py::masked_gram.  Serial.  Fastmath: contract, nsz.
    """
    real = out.dtype.type
    for i in range(first, last):
        weight = real(factor) * prefix[i]
        for j in range(i + 1):
            out[i, j] = weight * gram[i, j]
    mirror_rows(real(1.0), first, last, out)


@lean_kernel
def mirror_rows(sign, first, last, out):
    """out_ji <- sign out_ij for j < i, rows first..last, by square blocks.  sign : 1 or -1, dtype of out.  Serial."""
    for top in range(first, last, _SIDE):
        bottom = min(last, top + _SIDE)
        for left in range(0, bottom, _SIDE):
            for j in range(left, min(bottom, left + _SIDE)):
                for i in range(max(top, j + 1), bottom):
                    out[j, i] = sign * out[i, j]


@lean_kernel
def rotation_rows(gram, half, first, last, out):
    """out <- half (striu(G) - stril(G)), skew to the last bit, rows first..last  (docs/math.md Eq. 23).

    gram, out : (p, p) float32|float64, may be the same array;  half : 0.5 for R, -0.5 for -R.  p^2 / 2 flops.
    Naive twin: oracle/naive_autoencoder.py::rotation.  Serial.
    """
    real = out.dtype.type
    for i in range(first, last):
        for j in range(i):
            out[i, j] = real(-half) * gram[i, j]
        out[i, i] = real(0.0)
    mirror_rows(real(-1.0), first, last, out)


@lean_kernel
def triangle_rows(gram, diagonal, first, last, out):
    """out_ij <- G_ij for j < i + diagonal, rows first..last; nothing else is written  (docs/math.md Eq. 26, 28).

    diagonal : 1 keeps it (GHA), 0 does not (mu-EigenGame).  Naive twin: numpy.tril.  Serial.
    """
    for i in range(first, last):
        for j in range(i + diagonal):
            out[i, j] = gram[i, j]


@lean_kernel
def quotient_rows(gram, first, last, out):
    """out_ij <- G_ij / G_jj for j < i, rows first..last; nothing else is written  (docs/math.md Eq. 27).

    Naive twin: oracle/naive_autoencoder.py::encoder_only_direction.  Serial.
    """
    real = out.dtype.type
    for i in range(first, last):
        for j in range(i):
            # A row that sees no variance has no direction to be kept away from.
            out[i, j] = gram[i, j] / gram[j, j] if gram[j, j] > real(0.0) else real(0.0)


@lean_kernel
def encoder_coefficients(spec, prefix, noise, gram_decoder, gram_latent, first, last, p1, p3):
    """The dense coefficients of the encoder's direction, rows first..last  (docs/math.md Eq. 12, 22 to 28).

    gradient: P1 = 2 M o A'A, P3 = 2 lam_pi A'A      rag: P1 = 2 A'A, P3 = -R      vae: P1 = A'A / s^2 + I
    oja: P3 = G      gha: P3 = tril(G)      mu: P3 = stril(G)      alpha: P1 = stril(G_ij / G_jj)
    Diagonal coefficients (P2, and P1 = -I) are multiplied in the step.  Upper triangles of the triangular rules must
    be zero on entry; they are never written.

    spec : `rule` and `product_penalty` are read
    gram_decoder, gram_latent, p1, p3 : (p, p) float32|float64;  prefix : (p,);  noise : s^2.  At most 2 p^2 flops.
    Naive twin: oracle/naive_autoencoder.py::gradients, rag_direction, encoder_only_direction.  Serial.
    """
    real = p1.dtype.type
    if spec.rule == GRADIENT:
        masked_rows(gram_decoder, prefix, 2.0, first, last, p1)
        if spec.product_penalty > 0.0:
            scaled_rows(gram_decoder, 2.0 * spec.product_penalty, first, last, p3)
    elif spec.rule == RAG:
        scaled_rows(gram_decoder, 2.0, first, last, p1)
        rotation_rows(gram_latent, -0.5, first, last, p3)
    elif spec.rule == VAE:
        scaled_rows(gram_decoder, 1.0 / noise, first, last, p1)
        for i in range(first, last):
            p1[i, i] += real(1.0)
    elif spec.rule == OJA:
        scaled_rows(gram_latent, 1.0, first, last, p3)
    elif spec.rule == GHA or spec.rule == MU:
        triangle_rows(gram_latent, 1 if spec.rule == GHA else 0, first, last, p3)
    elif spec.rule == ALPHA:
        quotient_rows(gram_latent, first, last, p1)


@lean_kernel
def decoder_coefficients(spec, prefix, noise, latent, gram_encoder, gram_latent, first, last, q3):
    """The dense coefficient P3 of the decoder's direction, rows first..last  (docs/math.md Eq. 12, 22, 24).

    gradient: 2 M o G + 2 lam_pi B B'      rag: 2 G - R      vae: (G + diag exp e) / s^2      dropout: 2 G

    spec : `rule` and `product_penalty` are read
    gram_encoder, gram_latent, q3 : (p, p) float32|float64;  prefix : (p,);  latent : (>= p,) e, float64;  noise : s^2.
    At most 2 p^2 flops.  Naive twin: oracle/naive_autoencoder.py::gradients, rag_direction, vae_gradients.  Serial.
    """
    real = q3.dtype.type
    if spec.rule == GRADIENT:
        if spec.product_penalty > 0.0:
            twice = real(2.0 * spec.product_penalty)
            for i in range(first, last):
                weight = real(2.0) * prefix[i]
                for j in range(i + 1):
                    q3[i, j] = weight * gram_latent[i, j] + twice * gram_encoder[i, j]
            mirror_rows(real(1.0), first, last, q3)
        else:
            masked_rows(gram_latent, prefix, 2.0, first, last, q3)
    elif spec.rule == RAG:
        for i in range(first, last):
            for j in range(i + 1):
                q3[i, j] = gram_latent[i, j]
        # 2 G - R is 5/2 G under the diagonal, where R = -G/2, and 3/2 G above it.
        mirror_rows(real(1.5), first, last, q3)
        for i in range(first, last):
            for j in range(i):
                q3[i, j] *= real(2.5)
            q3[i, i] *= real(2.0)
    elif spec.rule == VAE:
        scaled_rows(gram_latent, 1.0 / noise, first, last, q3)
        for i in range(first, last):
            q3[i, i] += real(math.exp(latent[i]) / noise)
    else:
        scaled_rows(gram_latent, 2.0, first, last, q3)


@lean_kernel
def scaled_rows(gram, factor, first, last, out):
    """out_ij = out_ji <- factor G_ij for j <= i, rows first..last: what remains where there is no mask."""
    real = out.dtype.type
    scale = real(factor)
    for i in range(first, last):
        for j in range(i + 1):
            out[i, j] = scale * gram[i, j]
    mirror_rows(real(1.0), first, last, out)
