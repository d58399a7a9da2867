"""The oracle: float64 loops straight from the equations.  Imports NumPy and the standard library, never lae_fast.

Every kernel of `lae_fast/backends` names its twin here.  Slow on purpose: no tiles, no BLAS, no shifts that the
equation does not have.  `math.fsum` adds without rounding, so an oracle is wrong by its last operation only.

Lines are samples, or features when `by_feature`; entries are the numbers of a line.
"""

from __future__ import annotations

import math

import numpy as np


def load(lines, by_feature=False, shift=None, scale=1.0, weights=None, center=False, denominator=0.0):
    """Lines shifted, scaled and weighted, and two statistics: (tile, sums, squares).

    by_feature False: v = (x - shift_j) scale; tile = sqrt(w_r) v;  sums_j = sum_r w_r v,  squares_j = sum_r w_r v^2.
    by_feature True: v = (x - mean_r) scale, mean_r the line's weighted mean where `center`; tile = sqrt(w_j) v, and
    where denominator > 0 divided by the deviation: times sqrt(denominator / squares_r), unless squares_r is zero;
    sums_r = mean_r (data units),  squares_r = sum_j w_j v^2.
    """
    lines = np.asarray(lines, dtype=np.float64)
    count, n = lines.shape
    tile = np.empty((count, n))
    sums, squares = np.zeros(count if by_feature else n), np.zeros(count if by_feature else n)
    for r in range(count):
        mean = 0.0
        if by_feature and center:
            w = [1.0] * n if weights is None else [float(v) for v in weights]
            mean = math.fsum(w[j] * lines[r, j] for j in range(n)) / math.fsum(w)
        for j in range(n):
            w = 1.0 if weights is None else float(weights[j if by_feature else r])
            origin = mean if by_feature else (0.0 if shift is None else float(shift[j]))
            v = (lines[r, j] - origin) * scale
            tile[r, j] = math.sqrt(w) * v
            if by_feature:
                squares[r] += w * v * v
            else:
                sums[j] += w * v
                squares[j] += w * v * v
        if by_feature:
            sums[r] = mean
            if denominator > 0 and squares[r] > 0:
                for j in range(n):
                    tile[r, j] *= math.sqrt(denominator / squares[r])
    return tile, sums, squares


def used_entries(lines, shift):
    """(n,) 1 where some line differs from the shift at that entry, else 0; NaN differs from everything."""
    lines = np.asarray(lines, dtype=np.float64)
    return np.array([int(any(lines[r, j] != shift[j] for r in range(len(lines)))) for j in range(len(shift))])


def gemm(alpha, a, transpose_a, b, transpose_b, beta, c):
    """alpha op(a) op(b) + beta c;  beta = 0 ignores c, whatever it holds."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    a, b = (a.T if transpose_a else a), (b.T if transpose_b else b)
    out = np.empty((a.shape[0], b.shape[1]))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] = alpha * math.fsum(a[i, k] * b[k, j] for k in range(a.shape[1]))
            if beta != 0:
                out[i, j] += beta * float(c[i, j])
    return out


def syrk(a, beta, c):
    """c with its lower triangle replaced by that of a'a + beta c."""
    a, out = np.asarray(a, dtype=np.float64), np.array(c, dtype=np.float64)
    for i in range(out.shape[0]):
        for j in range(i + 1):
            product = math.fsum(a[k, i] * a[k, j] for k in range(a.shape[0]))
            out[i, j] = product if beta == 0 else product + beta * out[i, j]
    return out


def gram(tile):
    """sum over lines of line' line, both triangles."""
    n = tile.shape[1]
    out = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            out[i, j] = math.fsum(line[i] * line[j] for line in tile)
    return out


def project(tile, block):
    """line block for every line."""
    return gemm(1.0, tile, False, block, False, 0.0, None)


def row_pass(tile, block):
    """(image, inner): sum over lines of line' (line block), and of (line block)' (line block)."""
    rows = project(tile, block)
    return gemm(1.0, tile, True, rows, False, 0.0, None), gram(rows)


def merge(gram, sums, mean, offset, offset_weight, total):
    """total + gram - sums mean' + offset_weight offset offset': a chunk joins (Chan et al. 1983)."""
    out = np.array(total, dtype=np.float64)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            change = (float(gram[i, j]), -sums[i] * mean[j], offset_weight * offset[i] * offset[j])
            out[i, j] = math.fsum((out[i, j], *change))
    return out


def merge_moments(first, second):
    """Chan's formula on whole moments, each (weight_sum, mean (n,), scatter (n, n))."""
    (wa, ma, sa), (wb, mb, sb) = first, second
    w = wa + wb
    offset = mb - ma
    scatter = np.array(
        [[sa[i, j] + sb[i, j] + wa * wb / w * offset[i] * offset[j] for j in range(len(ma))] for i in range(len(ma))]
    )
    return w, ma + offset * (wb / w), scatter


def moments(X, weights=None, center=True):
    """(weight_sum, mean, scatter): W = sum w_r, mean = sum w_r x_r / W, S = sum w_r (x_r - mean)(x_r - mean)'.

    Two passes, correctly rounded sums.  center=False: moments about zero, and mean zero.
    """
    X = np.asarray(X, dtype=np.float64)
    m, n = X.shape
    w = [1.0] * m if weights is None else [float(v) for v in weights]
    total = math.fsum(w)
    mean = np.zeros(n)
    if center:
        # relative to the first row, so that a mean of 1e6 deviations keeps its digits
        mean = np.array([math.fsum(w[r] * (X[r, j] - X[0, j]) for r in range(m)) / total + X[0, j] for j in range(n)])
    columns = [[X[r, j] - mean[j] for r in range(m)] for j in range(n)]
    scatter = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            scatter[i, j] = scatter[j, i] = math.fsum(w[r] * columns[i][r] * columns[j][r] for r in range(m))
    return total, mean, scatter


def cross_moments(X, Y, weights=None, center=True):
    """(d, q): sum w_r (x_r - mean_x)(y_r - mean_y)'."""
    d = X.shape[1]
    both = np.hstack([np.asarray(X, dtype=np.float64), np.asarray(Y, dtype=np.float64)])
    return moments(both, weights, center)[2][:d, d:]


def leading_eigenpairs(S, p=None):
    """Eigenvalues descending (p,) and eigenvectors in columns (n, p) of a symmetric matrix, by NumPy's eigh."""
    values, vectors = np.linalg.eigh(np.asarray(S, dtype=np.float64))
    return values[::-1][:p], vectors[:, ::-1][:, :p]


def jacobi_eigenvalues(S, sweeps=30):
    """All eigenvalues of a small symmetric matrix, descending, by cyclic Jacobi rotations: no LAPACK at all."""
    A = np.array(S, dtype=np.float64)
    n = A.shape[0]
    for _ in range(sweeps):
        for i in range(n):
            for j in range(i):
                if A[i, j] == 0.0:
                    continue
                theta = 0.5 * math.atan2(2.0 * A[i, j], A[i, i] - A[j, j])
                c, s = math.cos(theta), math.sin(theta)
                G = np.eye(n)
                G[i, i] = G[j, j] = c
                G[i, j], G[j, i] = -s, s
                A = G.T @ A @ G
    return np.sort(A.diagonal())[::-1]


def apply_scatter(X, V, weights=None, center=True, standardize=False, dtype=np.longdouble):
    """S V without S, in extended precision: sum w_r xc_r (xc_r . v).  NumPy's loops, no BLAS; (n, p) float64.

    standardize divides every feature by its deviation (denominator sum(w) - 1); a constant one by 1.
    """
    X = np.asarray(X).astype(dtype)
    w = np.ones(X.shape[0], dtype) if weights is None else np.asarray(weights).astype(dtype)
    if center:
        X = X - (w @ X) / w.sum()
    if standardize:
        squares = w @ (X * X)
        deviation = np.sqrt(squares / (w.sum() - 1))
        X = X / np.where(squares > 0, deviation, 1)
    return X.T @ (w[:, None] * (X @ np.asarray(V).astype(dtype)))


def relative_residuals(values, vectors, images, eps):
    """|S u_i - l_i u_i| / max(l_i, eps l_1), images = S vectors; zeros where l_1 = 0."""
    out = np.zeros(len(values))
    for i, value in enumerate(values):
        residual = images[:, i] - np.asarray(value, images.dtype) * vectors[:, i].astype(images.dtype)
        floor = max(float(value), eps * float(values[0]))
        if floor > 0:
            out[i] = float(np.sqrt((residual * residual).sum())) / floor
    return out


def projector_distance(U, V):
    """Spectral norm of UU' - VV' for orthonormal columns: 0 for the same subspace, 1 for a missed direction."""
    U, V = np.asarray(U, dtype=np.float64), np.asarray(V, dtype=np.float64)
    return float(np.linalg.norm(U @ U.T - V @ V.T, 2))


def minka_evidence(spectrum, rank, n_samples):
    """log p(D | k) of Minka (NIPS 2000), term by term; his own laplace_pca.m sums the same terms.

    p(U) = 2^-k prod_i Gamma((d-i+1)/2) pi^-((d-i+1)/2);  v = mean of the d - k smallest;  m = dk - k(k+1)/2;
    |A_Z| = prod_{i<=k} prod_{i<j<=d} (1/l^_j - 1/l^_i)(l_i - l_j) N, with l^_j = v for j > k;
    p(D | k) = p(U) (prod_{j<=k} l_j)^(-N/2) v^(-N(d-k)/2) (2 pi)^((m+k)/2) |A_Z|^(-1/2) N^(-k/2).
    """
    l, d, k, N = [float(v) for v in spectrum], len(spectrum), rank, n_samples
    v = math.fsum(l[k:]) / (d - k)
    hat = l[:k] + [v] * (d - k)
    m = d * k - k * (k + 1) / 2
    prior = -k * math.log(2)
    for i in range(1, k + 1):
        prior += math.lgamma((d - i + 1) / 2) - (d - i + 1) / 2 * math.log(math.pi)
    hessian = 0.0
    for i in range(k):
        for j in range(i + 1, d):
            hessian += math.log(1 / hat[j] - 1 / hat[i]) + math.log(l[i] - l[j]) + math.log(N)
    likelihood = -N / 2 * math.fsum(math.log(x) for x in l[:k]) - N * (d - k) / 2 * math.log(v)
    return prior + likelihood + (m + k) / 2 * math.log(2 * math.pi) - hessian / 2 - k / 2 * math.log(N)


def sparse_statistics(lines, by_feature, factor, weights=None):
    """(sums, squares, counts, largest) of factor x: sum w v, sum w v^2, lines with a nonzero, largest w |line|^2."""
    count, n = lines.shape
    sums, squares = np.zeros((2, count if by_feature else n))
    counts, largest = np.zeros(n), 0.0
    for r in range(count):
        length = 0.0
        for j in range(n):
            v = factor * lines[r, j]
            w = 1.0 if weights is None else float(weights[j if by_feature else r])
            sums[r if by_feature else j] += w * v
            squares[r if by_feature else j] += w * v * v
            counts[j] += v != 0
            length += w * v * v
        largest = max(largest, length)
    return sums, squares, counts, largest


def sparse_pass(lines, factor, alpha, weights, block, offset):
    """(y, image, inner, total): y_r = factor line_r block - alpha_r offset, and sums over r of w factor line' y,
    w y'y and w alpha y."""
    lines, block, offset = (np.asarray(a, dtype=np.float64) for a in (lines, block, offset))
    y = np.array([factor * (line @ block) - a * offset for line, a in zip(lines, alpha)])
    w = np.ones(len(lines)) if weights is None else np.asarray(weights)
    image = sum(w[r] * factor * np.multiply.outer(lines[r], y[r]) for r in range(len(lines)))
    inner = sum(w[r] * np.multiply.outer(y[r], y[r]) for r in range(len(lines)))
    total = sum(w[r] * alpha[r] * y[r] for r in range(len(lines)))
    return y, image, inner, total


def em_missing(X, p, n_iterations):
    """Probabilistic PCA from the observed entries (docs/streaming.md M1 to M3), by conditioning the full Gaussian.

    Returns the mean (d,), the model covariance (d, d) and the mean log-likelihood of a row before each M step.
    """
    m, d = X.shape
    mean, covariance = np.nanmean(X, axis=0), np.diag(np.nanvar(X, axis=0))
    history = []
    for _ in range(n_iterations):
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        noise = values[p:].mean()
        model = noise * np.eye(d)
        for i in range(p):
            model += (values[i] - noise) * np.outer(vectors[:, i], vectors[:, i])
        likelihood, filled, extra = 0.0, np.zeros((m, d)), np.zeros((d, d))
        for r in range(m):
            o, u = np.flatnonzero(~np.isnan(X[r])), np.flatnonzero(np.isnan(X[r]))
            part = model[np.ix_(o, o)]
            residual = X[r, o] - mean[o]
            solved = np.linalg.solve(part, residual)
            likelihood -= 0.5 * (o.size * np.log(2 * np.pi) + np.linalg.slogdet(part)[1] + residual @ solved)
            filled[r, o] = X[r, o]
            filled[r, u] = mean[u] + model[np.ix_(u, o)] @ solved
            extra[np.ix_(u, u)] += model[np.ix_(u, u)] - model[np.ix_(u, o)] @ np.linalg.solve(
                part, model[np.ix_(o, u)]
            )
        history.append(likelihood / m)
        mean = filled.mean(axis=0)
        covariance = (filled - mean).T @ (filled - mean) / m + extra / m
    return mean, covariance, np.array(history)


def center_products(rows, offset, weights=None):
    """(rows - sqrt(w_r) offset, sum over r of sqrt(w_r) times that): products of lines, centred after the fact."""
    rows = np.array(rows, dtype=np.float64)
    total = np.zeros(rows.shape[1])
    for r in range(rows.shape[0]):
        root = 1.0 if weights is None else math.sqrt(float(weights[r]))
        for j in range(rows.shape[1]):
            rows[r, j] -= root * float(offset[j])
            total[j] += root * rows[r, j]
    return rows, total


def matryoshka(x, decoder, encoder, prefixes):
    """Sum over prefixes k of the mean squared error of the first k latents  (Bussmann et al. 2025, linear layers).

    x : (m, d);  decoder : (d, p);  encoder : (p, d);  prefixes : numbers of latents that are kept
    """
    total = 0.0
    for k in prefixes:
        for row in x:
            reconstruction = np.zeros(len(row))
            for i in range(k):
                reconstruction += decoder[:, i] * sum(encoder[i, j] * row[j] for j in range(len(row)))
            total += sum((row - reconstruction) ** 2) / len(x)
    return total
