"""The p x p coefficients of Eq. 21 from the masks of losses and rules, and the p x p sums of the loss.

One kernel for all rules, a thread for every entry: it is the twin, entry by entry, of the loops over rows of
cpu/training/coefficients.py.  Gram matrices are read in their lower triangle only, so what is symmetric (or skew) in
exact arithmetic is so to the last bit; and for masks drawn per sample the upper one holds something else.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np

from ...formulas import ALPHA, DROPOUT, GHA, GRADIENT, MU, N_TRACES, OJA, RAG, VAE
from ..launch import AREA, HEIGHT, WIDTH
from ..reduce import sum_threads
from ..target import Kernel, cuda

# Which coefficients are wanted.
BOTH, ENCODER, DECODER = 0, 1, 2


@Kernel
def coefficients(
    rule, side, has_decoder, with_sums, prefix, product_penalty, spread, gram_decoder, gram_encoder, gram_latent, p1,
    p3, q3, on_product, sums,
):  # fmt: skip
    """The dense coefficients of both directions, and the sums of the loss  (docs/math.md Eq. 4, 5, 11, 12, 22 to 28).

    gradient: P1 = 2 M o A'A, P3 = 2 lam_pi A'A;  Q3 = 2 M o G + 2 lam_pi BB'
    rag: P1 = 2 A'A, P3 = -R;  Q3 = 2 G - R          vae: P1 = A'A / s^2 + I;  Q3 = (G + diag exp e) / s^2
    dropout: Q3 = 2 G, and P1 is not used            oja: P3 = G     gha: P3 = tril(G)     mu: P3 = stril(G)
    alpha: P1 = stril(G_ij / G_jj)

    side : BOTH, ENCODER (P1, P3) or DECODER (Q3);  prefix : (p,) c;  product_penalty : lam_pi, a scalar of the dtype
    spread : (p + 2,) float64, exp(e_i), s^2 and 1 / s^2, for the vae
    gram_decoder, gram_encoder, gram_latent : (p, p) A'A, BB', G;  p1, p3, q3 : (p, p), written where the rule has them
    on_product : (p,), written by the vae alone: -1 / s^2
    sums : (blocks, N_TRACES) float64, with_sums: of formulas.N_TRACES, block by block
    At most 4 p^2 flops, 6 p^2 itemsize bytes, with_sums p^2 float64 products more.  Over sixty lines in one kernel, so
    that a Gram matrix is read once for both sides and the sums.  Naive twin:
    oracle/naive_autoencoder.py::gradients, rag_direction, encoder_only_direction, vae_gradients.
    Blocks of WIDTH x HEIGHT entries.
    """
    scratch = cuda.shared.array((N_TRACES, AREA), dtype=np.float64)
    real = p1.dtype.type
    p = gram_latent.shape[0]
    j = cuda.blockIdx.x * WIDTH + cuda.threadIdx.x
    i = cuda.blockIdx.y * HEIGHT + cuda.threadIdx.y
    inside = i < p and j < p
    hi, lo = max(i, j), min(i, j)
    outer, inner, latent, weight, zero = real(0.0), real(0.0), real(0.0), real(0.0), real(0.0)
    two = real(2.0)
    if inside:
        weight = prefix[hi]
        latent = gram_latent[hi, lo]
        if has_decoder:
            outer = gram_decoder[hi, lo]
        if product_penalty > zero or (with_sums and not has_decoder):
            inner = gram_encoder[hi, lo]
        inverse = real(0.0)
        if rule == VAE:
            inverse = real(spread[p + 1])
        if side != DECODER:
            if rule == GRADIENT:
                p1[i, j] = two * weight * outer
                if product_penalty > zero:
                    p3[i, j] = two * product_penalty * outer
            elif rule == RAG:
                p1[i, j] = two * outer
                value = zero
                if j < i:
                    value = real(0.5) * latent
                elif j > i:
                    value = real(-0.5) * latent
                p3[i, j] = value
            elif rule == VAE:
                value = inverse * outer
                if i == j:
                    value += real(1.0)
                    on_product[i] = -inverse
                p1[i, j] = value
            elif rule == ALPHA:
                value = zero
                if j < i and gram_latent[j, j] > zero:
                    value = latent / gram_latent[j, j]
                p1[i, j] = value
            elif rule == OJA or (rule == GHA and j <= i) or (rule == MU and j < i):
                p3[i, j] = latent
            elif rule != DROPOUT:
                p3[i, j] = zero
        if side != ENCODER and has_decoder:
            value = two * latent
            if rule == GRADIENT:
                value = value * weight + two * product_penalty * inner
            elif rule == RAG:
                # 2 G - R is 5/2 G under the diagonal, where R = -G/2, and 3/2 G above it.
                if j < i:
                    value = real(2.5) * latent
                elif j > i:
                    value = real(1.5) * latent
            elif rule == VAE:
                value = inverse * latent
                if i == j:
                    value += real(spread[i] * spread[p + 1])
            q3[i, j] = value
    if with_sums:
        t = cuda.threadIdx.y * WIDTH + cuda.threadIdx.x
        own = outer
        if not has_decoder:
            own = inner
        for s in range(N_TRACES):
            scratch[s, t] = 0.0
        if inside:
            scratch[0, t] = np.float64(weight) * np.float64(own) * np.float64(latent)
            scratch[1, t] = np.float64(own) * np.float64(inner)
            if i == j:
                scratch[2, t] = latent
                if rule == VAE:
                    scratch[3, t] = spread[i] * np.float64(own)
        sum_threads(scratch, t)
        if t < N_TRACES:
            sums[cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x, t] = scratch[t, 0]
