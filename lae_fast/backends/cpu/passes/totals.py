"""Kernels over float64 totals: a chunk's Gram or image joins them, and the upper triangle is filled in at the end."""

from __future__ import annotations

from ..jit import kernel


@kernel
def commit_gram(gram, sums, mean, offset, offset_weight, total):
    """total <- total + gram - sums mean' + offset_weight offset offset', lower triangles.

    The chunk's centred moments join the float64 total by Chan's formula (docs/pca.md, "Merging moments").
    gram : (n, n) float32|float64|int32;  sums, mean, offset : (n,) float64, mean = sums / weight
    total : (n, n) float64.
    5 n^2 / 2 flops.  Naive twin: oracle/naive.py::merge.  Serial.  Fastmath: contract, nsz.
    """
    n = gram.shape[0]
    for i in range(n):
        si = sums[i]
        oi = offset_weight * offset[i]
        for j in range(i + 1):
            total[i, j] += gram[i, j] - si * mean[j] + oi * offset[j]


@kernel
def commit_used(gram, entries, sums, mean, total):
    """`commit_gram` without its offset, for a chunk that is zero at all but these entries.

    gram : (k, k);  entries : (k,) int64 ascending;  sums, mean : (n,) float64;  total : (n, n) float64.
    3 k^2 / 2 flops.  Naive twin: oracle/naive.py::merge.  Serial.
    """
    for a in range(gram.shape[0]):
        i = entries[a]
        si = sums[i]
        row = total[i]
        for b in range(a + 1):
            j = entries[b]
            row[j] += gram[a, b] - si * mean[j]


@kernel
def add_outer(weight, vector, total):
    """total <- total + weight vector vector', lower triangle.  vector : (n,);  total : (n, n) float64."""
    for i in range(vector.shape[0]):
        wi = weight * vector[i]
        for j in range(i + 1):
            total[i, j] += wi * vector[j]


@kernel
def add_to(part, total):
    """total <- total + part: a chunk's sum joins the float64 total.  part : (n, b);  total : (n, b) float64."""
    for i in range(part.shape[0]):
        for j in range(part.shape[1]):
            total[i, j] += part[i, j]


@kernel
def symmetrize(matrix):
    """Copy the strict lower triangle onto the upper one, by square blocks so that the strided side stays in cache."""
    n = matrix.shape[0]
    step = 32
    for top in range(0, n, step):
        for left in range(0, top + 1, step):
            for i in range(top, min(n, top + step)):
                for j in range(left, min(i, left + step)):
                    matrix[j, i] = matrix[i, j]
